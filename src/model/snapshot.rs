//! The models of a repository at one moment. Never changed: a change makes another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aliases::{AliasTable, choose};
use super::slot::Slot;
use crate::error::{ErrorCode, JobError};

/// A model with all its versions.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    pub(super) versions: BTreeMap<u32, Arc<Slot>>,
    pub(super) aliases: AliasTable,
}

/// All models.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) models: BTreeMap<String, Served>,
}

impl Snapshot {
    /// Every version of every model.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.models.values().flat_map(|served| served.versions.values())
    }

    /// The version that was loaded of `name`.
    pub(super) fn slot(&self, name: &str, version: u32) -> Option<&Arc<Slot>> {
        self.models.get(name)?.versions.get(&version)
    }

    /// The version that answers the job `id`: the one that it names, else what the aliases say, else the highest.
    pub(super) fn choose(&self, name: &str, version: Option<u32>, id: &str) -> Result<Arc<Slot>, JobError> {
        let Some(Served { versions, aliases }) = self.models.get(name) else {
            let names = listed(self.models.keys().map(|name| format!("`{name}`")));
            return Err(unknown(format!("there is no model `{name}`; served are {names}")));
        };
        let highest = || versions.values().next_back();
        let slot = match version {
            Some(version) => versions.get(&version),
            None => choose(aliases, id).and_then(|version| versions.get(&version)).or_else(highest),
        };
        slot.cloned().ok_or_else(|| {
            let version = version.unwrap_or_default();
            unknown(format!("model `{name}` has no version {version}; it has {}", listed(versions.keys())))
        })
    }
}

fn unknown(message: String) -> JobError {
    JobError::new(ErrorCode::UnknownModel, message)
}

/// Words as an enumeration: `a, b and c`.
pub(super) fn listed(words: impl IntoIterator<Item = impl ToString>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}
