//! What was heard of the models that workers serve: the latest word of each, while it holds. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::nearest::by_nearness;
use crate::limits::{MAX_HEARD_WORKERS, MAX_KNOWN_MODELS};
use crate::protocol::announcement::{AnnouncedAlias, AnnouncedVersion, Announcement};
use crate::protocol::model_ref::ModelRef;

/// Names that a refusal lists at most.
const LISTED_NAMES: usize = 10;

/// A model that workers serve, and how many of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemoteModel {
    /// Its name.
    pub name: String,
    /// Its versions, the lowest first.
    pub versions: Vec<RemoteVersion>,
    /// Its aliases, as the worker that was heard last has them.
    pub aliases: Vec<AnnouncedAlias>,
    /// Workers that serve any version of it.
    pub replicas: usize,
    /// Milliseconds since one of them was heard.
    pub last_heard_ms: u64,
}

/// One version of a model that workers serve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemoteVersion {
    /// What was said of it last.
    #[serde(flatten)]
    pub told: AnnouncedVersion,
    /// Workers that serve it.
    pub replicas: usize,
}

/// What is known of a model that a job names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// A worker serves it.
    Served,
    /// Nobody who announces serves it now, and somebody did: its jobs wait for the next one.
    Away,
    /// Nobody announces anything, or not everything.
    Untold,
    /// Workers announce their models, and it is none of them; the words of a refusal.
    Unknown(String),
}

/// One worker's latest word.
#[derive(Debug)]
struct Heard {
    said: Announcement,
    at: Instant,
    until: Instant,
}

/// The latest word of each worker.
#[derive(Debug, Default)]
pub(super) struct Directory {
    workers: HashMap<String, Heard>,
    /// Every model that was ever served while this client has lived.
    known: BTreeSet<String>,
}

impl Directory {
    /// Takes a word that holds for `lifetime`. One that is not later than the last of its worker changes nothing.
    pub(super) fn hear(&mut self, said: Announcement, lifetime: Duration, now: Instant) -> bool {
        self.workers.retain(|_, heard| heard.until > now);
        let stands = self.workers.get(&said.instance);
        if stands.is_some_and(|heard| heard.said.sequence >= said.sequence) {
            return false;
        }
        if stands.is_none() && self.workers.len() >= MAX_HEARD_WORKERS {
            return false;
        }
        for model in &said.models {
            if self.known.len() < MAX_KNOWN_MODELS {
                self.known.insert(model.name.clone());
            }
        }
        // A worker that leaves is remembered as one: an earlier word of it may still come.
        self.workers.insert(said.instance.clone(), Heard { said, at: now, until: now + lifetime });
        true
    }

    fn alive(&self, now: Instant) -> impl Iterator<Item = &Heard> {
        self.workers.values().filter(move |heard| heard.until > now && !heard.said.leaving)
    }

    /// What is known of `asked`.
    pub(super) fn standing(&self, asked: &ModelRef, now: Instant) -> Standing {
        let mut models = self.alive(now).flat_map(|heard| &heard.said.models).filter(|model| model.name == asked.name);
        let serves = |version: u32| move |one: &AnnouncedVersion| one.version == version;
        let is_served = match asked.version {
            None => models.next().is_some(),
            Some(version) => models.any(|model| model.versions.iter().any(serves(version))),
        };
        if is_served {
            return Standing::Served;
        }
        let mut alive = self.alive(now).peekable();
        if alive.peek().is_none() || alive.any(|heard| !heard.said.complete) {
            return Standing::Untold;
        }
        let served = self.list(now);
        match served.iter().find(|model| model.name == asked.name) {
            Some(model) => Standing::Unknown(no_such_version(model, asked)),
            None if self.known.contains(&asked.name) => Standing::Away,
            None => Standing::Unknown(no_such_model(&served, asked)),
        }
    }

    /// Every model that a worker serves now.
    pub(super) fn list(&self, now: Instant) -> Vec<RemoteModel> {
        let mut alive: Vec<&Heard> = self.alive(now).collect();
        // The last word wins.
        alive.sort_by_key(|heard| heard.at);
        let mut models: BTreeMap<&str, RemoteModel> = BTreeMap::new();
        for heard in alive {
            for said in &heard.said.models {
                let model = models.entry(&said.name).or_insert_with(|| RemoteModel {
                    name: said.name.clone(),
                    versions: Vec::new(),
                    aliases: Vec::new(),
                    replicas: 0,
                    last_heard_ms: 0,
                });
                model.replicas += 1;
                model.aliases.clone_from(&said.aliases);
                model.last_heard_ms = u64::try_from((now - heard.at).as_millis()).unwrap_or(u64::MAX);
                for version in &said.versions {
                    add(&mut model.versions, version);
                }
            }
        }
        models.into_values().collect()
    }
}

/// Counts one more worker that serves `told`.
fn add(versions: &mut Vec<RemoteVersion>, told: &AnnouncedVersion) {
    match versions.binary_search_by_key(&told.version, |version| version.told.version) {
        Ok(place) => {
            if let Some(version) = versions.get_mut(place) {
                *version = RemoteVersion { told: told.clone(), replicas: version.replicas + 1 };
            }
        }
        Err(place) => versions.insert(place, RemoteVersion { told: told.clone(), replicas: 1 }),
    }
}

fn no_such_version(model: &RemoteModel, asked: &ModelRef) -> String {
    let versions = listed(model.versions.iter().map(|version| version.told.version.to_string()).collect());
    let version = asked.version.unwrap_or_default();
    format!("model `{}` has no version {version}; it has {versions}", model.name)
}

fn no_such_model(served: &[RemoteModel], asked: &ModelRef) -> String {
    let names = by_nearness(&asked.name, served.iter().map(|model| model.name.as_str()));
    let names = listed(names.into_iter().map(|name| format!("`{name}`")).collect());
    format!("no worker serves a model `{}` for this tenant; served are {names}", asked.name)
}

/// Words as an enumeration, not too long a one.
fn listed(mut words: Vec<String>) -> String {
    let more = words.len().saturating_sub(LISTED_NAMES);
    words.truncate(LISTED_NAMES);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    match words.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
