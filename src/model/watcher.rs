//! Models are replaced while they serve: a version that appears or changes is built and tried beside the job path, then swapped in.
//!
//! Run by the worker as a task of its own. It looks at the repository's folders again and again; a folder that changes
//! between two looks is being written, and is left alone until it rests. What is refused is logged and counted, and what served
//! before serves on. New models are noticed, but not served: their queues are declared when a worker starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::aliases::Aliases;
use super::aside::{AsideError, aside};
use super::repository::{check_aliases, find_versions};
use super::slot::{Fingerprint, Slot};
use super::{ModelChange, ModelError, ModelRepository};

/// Between two looks at the aliases while a version is loaded.
const ALIASES_PAUSE: Duration = Duration::from_secs(1);

/// A version by its name and number.
type Version = (String, u32);

/// Looks after the versions of a repository.
#[derive(Debug)]
pub struct Watcher {
    repository: Arc<ModelRepository>,
    /// Folders that differ from what is served, as they were at the last look.
    restless: BTreeMap<Version, Fingerprint>,
    /// Folders that were refused, as they were then: not tried again before they change.
    refused: BTreeMap<Version, Fingerprint>,
    /// Versions that were not there at the last look.
    missing: BTreeSet<Version>,
    /// The files of aliases as they were read or refused last.
    aliases: BTreeMap<String, Fingerprint>,
    /// Models that are there and not served, told once.
    told: BTreeSet<String>,
    /// Whether the repository could not be listed, told once.
    is_unlisted: bool,
}

/// A version as it lies there.
struct Found {
    version: Version,
    folder: PathBuf,
    fingerprint: Fingerprint,
}

/// Why there is nothing to take up.
enum Unbuilt {
    /// The version is wrong.
    Refused(String),
    /// The machine has no thread to load it on.
    NoThread(String),
}

impl Watcher {
    /// A watcher of `repository`.
    #[must_use]
    pub fn new(repository: Arc<ModelRepository>) -> Self {
        let directory = &repository.settings().directory;
        let file = |name: &String| Fingerprint::of_file(&Aliases::path(&directory.join(name)));
        let aliases = repository.names().into_iter().map(|name| (name.clone(), file(&name))).collect();
        Self {
            repository,
            restless: BTreeMap::new(),
            refused: BTreeMap::new(),
            missing: BTreeSet::new(),
            aliases,
            told: BTreeSet::new(),
            is_unlisted: false,
        }
    }

    /// Looks every `interval`; never ends.
    pub async fn watch(mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            self.look().await;
        }
    }

    /// Looks once: takes up what rests, lets go what has gone, reads aliases that changed.
    pub async fn look(&mut self) {
        let Some(found) = self.scan().await else { return };
        let names: BTreeSet<String> = self.repository.names().into_iter().collect();
        let (served, others): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| names.contains(&found.version.0));
        self.tell_of_new_models(others.into_iter().map(|found| found.version.0));
        self.retire(&served);
        for found in served {
            self.consider(found).await;
        }
        self.read_all_aliases();
    }

    async fn scan(&mut self) -> Option<Vec<Found>> {
        let directory = self.repository.settings().directory.clone();
        let list = move || -> Result<Vec<Found>, ModelError> {
            let versions = find_versions(&directory)?.into_iter();
            let found = versions.map(|(name, version, folder)| {
                let fingerprint = Fingerprint::of_folder(&folder);
                Found { version: (name, version), folder, fingerprint }
            });
            Ok(found.collect())
        };
        match tokio::task::spawn_blocking(list).await {
            Ok(Ok(found)) => {
                self.is_unlisted = false;
                Some(found)
            }
            Ok(Err(error)) if !self.is_unlisted => {
                self.is_unlisted = true;
                tracing::warn!(%error, "the model repository cannot be watched; what is loaded serves on");
                None
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn tell_of_new_models(&mut self, names: impl Iterator<Item = String>) {
        let serves_all = self.repository.settings().serve.is_empty();
        for name in names.filter(|_| serves_all) {
            if self.told.insert(name.clone()) {
                tracing::warn!(
                    model.name = name,
                    "model `{name}` is new: it is served once the worker is started again"
                );
            }
        }
    }

    /// Builds a version that differs from what is served, once its folder rests.
    async fn consider(&mut self, found: Found) {
        let Found { version, folder, fingerprint } = found;
        let snapshot = self.repository.snapshot();
        let is_served = snapshot.slot(&version.0, version.1).is_some_and(|slot| slot.fingerprint == fingerprint);
        if is_served || self.refused.get(&version) == Some(&fingerprint) {
            self.restless.remove(&version);
            return;
        }
        if self.restless.get(&version) != Some(&fingerprint) {
            self.restless.insert(version, fingerprint);
            return;
        }
        let (name, number) = version.clone();
        match self.build(&version, folder).await {
            Ok(slot) => {
                self.restless.remove(&version);
                self.refused.remove(&version);
                self.take_up(slot);
                tracing::info!(
                    model.name = name,
                    model.version = number,
                    "model `{name}` version {number} is taken up"
                );
                self.count(&name, ModelChange::TakenUp);
            }
            // No fault of its files: it stays among those to take up, for which its aliases wait, and is tried at the next look.
            Err(Unbuilt::NoThread(fault)) => {
                tracing::warn!(
                    fault,
                    model.name = name,
                    model.version = number,
                    "model `{name}` version {number} cannot be loaded now"
                );
            }
            Err(Unbuilt::Refused(fault)) => {
                tracing::error!(
                    fault,
                    model.name = name,
                    model.version = number,
                    "model `{name}` version {number} is refused; what served before serves on"
                );
                self.restless.remove(&version);
                self.refused.insert(version, fingerprint);
                self.count(&name, ModelChange::Refused);
            }
        }
    }

    /// Loads a version beside the jobs, and runs it before any of them does. Aliases are read meanwhile: where jobs leave little
    /// time, loading takes long, and whoever goes back to another version is in a hurry.
    async fn build(&mut self, (name, version): &Version, folder: PathBuf) -> Result<Slot, Unbuilt> {
        let (repository, name, version) = (Arc::clone(&self.repository), name.clone(), *version);
        let load = move || repository.load_warm(&name, version, &folder);
        let mut loading = pin!(aside(load));
        loop {
            tokio::select! {
                loaded = &mut loading => return match loaded {
                    Ok(loaded) => loaded.map_err(|error| Unbuilt::Refused(error.to_string())),
                    Err(AsideError::Panicked) => Err(Unbuilt::Refused("loading it panicked".to_owned())),
                    Err(AsideError::NoThread(why)) => Err(Unbuilt::NoThread(why)),
                },
                () = tokio::time::sleep(ALIASES_PAUSE) => self.read_all_aliases(),
            }
        }
    }

    fn take_up(&self, slot: Slot) {
        let slot = Arc::new(slot);
        let mut snapshot = (*self.repository.snapshot()).clone();
        let served = snapshot.models.entry(slot.name.clone()).or_default();
        served.versions.insert(slot.version, Arc::clone(&slot));
        self.repository.make_room(&snapshot, &slot);
        self.repository.swap(snapshot);
    }

    /// Lets go the versions that are missing for the second time; the last one of a model stays.
    fn retire(&mut self, found: &[Found]) {
        let mut snapshot = (*self.repository.snapshot()).clone();
        let served: Vec<Version> = snapshot.slots().map(|slot| (slot.name.clone(), slot.version)).collect();
        let gone = served.into_iter().filter(|version| !found.iter().any(|found| found.version == *version));
        let gone: BTreeSet<Version> = gone.collect();
        let for_good: Vec<Version> = gone.intersection(&self.missing).cloned().collect();
        self.missing = gone;
        for (name, version) in for_good {
            let Some(served) = snapshot.models.get_mut(&name).filter(|served| served.versions.len() > 1) else {
                continue;
            };
            served.versions.remove(&version);
            tracing::info!(model.name = name, model.version = version, "model `{name}` version {version} is retired");
            self.repository.swap(snapshot.clone());
            self.count(&name, ModelChange::Retired);
        }
    }

    fn read_all_aliases(&mut self) {
        for name in self.repository.names() {
            self.read_aliases(&name);
        }
    }

    fn read_aliases(&mut self, name: &str) {
        let folder = self.repository.settings().directory.join(name);
        let fingerprint = Fingerprint::of_file(&Aliases::path(&folder));
        if self.aliases.get(name) == Some(&fingerprint) {
            return;
        }
        let mut snapshot = (*self.repository.snapshot()).clone();
        let Some(served) = snapshot.models.get_mut(name) else { return };
        let read = Aliases::read(&folder).and_then(|aliases| {
            check_aliases(&folder, &aliases.current, served.versions.keys())?;
            Ok(aliases.current)
        });
        match read {
            Ok(aliases) => {
                tracing::info!(model.name = name, "the aliases of model `{name}` have changed");
                served.aliases = aliases;
                self.repository.swap(snapshot);
                self.count(name, ModelChange::Realiased);
            }
            // A version that is still being taken up is no fault yet, so that the file is read again at the next look; it is
            // told once for each state of the folder.
            Err(error) if self.restless.keys().any(|(own, _)| own == name) => {
                tracing::debug!(%error, "the aliases of model `{name}` wait for a version");
                return;
            }
            Err(error) => {
                tracing::error!(%error, model.name = name, "the aliases of model `{name}` are refused; the old ones hold");
                self.count(name, ModelChange::Refused);
            }
        }
        self.aliases.insert(name.to_owned(), fingerprint);
    }

    fn count(&self, name: &str, change: ModelChange) {
        (self.repository.options().changed)(name, change);
    }
}
