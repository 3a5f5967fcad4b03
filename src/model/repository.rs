//! The model repository: every version of every served model, by name, as a snapshot that can be swapped.
//!
//! A job resolves its model once and keeps it, whatever is swapped or unloaded meanwhile. What is beyond the memory budget
//! is unloaded, the least recently used first, and loaded again by the job that asks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::aliases::{AliasTable, Aliases};
use super::slot::{Fingerprint, Slot};
use super::snapshot::{Snapshot, listed};
use super::{LoadedModel, ModelChange, ModelError, ModelOptions};
use crate::error::{ErrorCode, JobError};
use crate::protocol::model_ref::is_model_name;
use crate::settings::ModelSettings;

/// All models that a worker serves. Resolved once a job, so that nothing changes under a job's feet.
#[derive(Debug)]
pub struct ModelRepository {
    settings: ModelSettings,
    options: ModelOptions,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Jobs resolved so far: the clock of what was used when.
    resolved: AtomicU64,
    /// Held while room is made: two at once would unload more than they must.
    making_room: Mutex<()>,
}

impl ModelRepository {
    /// Loads every version of every model that the settings ask for; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`ModelError`]: a worker that cannot serve all it should does not start.
    pub fn open(settings: &ModelSettings, options: &ModelOptions) -> Result<Self, ModelError> {
        let repository = Self {
            settings: settings.clone(),
            options: options.clone(),
            snapshot: RwLock::default(),
            resolved: AtomicU64::new(0),
            making_room: Mutex::new(()),
        };
        let mut snapshot = Snapshot::default();
        for (name, version, folder) in served_versions(settings)? {
            let slot = Arc::new(repository.load_warm(&name, version, &folder)?);
            tracing::info!(model.name = name, model.version = version, "model `{name}` version {version} is loaded");
            snapshot.models.entry(name).or_default().versions.insert(version, Arc::clone(&slot));
            // Every one is loaded once, so that a fault is found now; what is too much goes at once.
            repository.make_room(&snapshot, &slot);
        }
        for (name, served) in &mut snapshot.models {
            let aliases = Aliases::read(&settings.directory.join(name))?.current;
            check_aliases(&settings.directory.join(name), &aliases, served.versions.keys())?;
            served.aliases = aliases;
        }
        repository.swap(snapshot);
        Ok(repository)
    }

    /// The names of the models that the settings ask for, without loading any.
    ///
    /// # Errors
    /// When the repository cannot be listed, or lacks one of them.
    pub fn served_names(settings: &ModelSettings) -> Result<Vec<String>, ModelError> {
        let mut names: Vec<String> = served_versions(settings)?.into_iter().map(|(name, ..)| name).collect();
        names.dedup();
        Ok(names)
    }

    /// The names of all models.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.snapshot().models.keys().cloned().collect()
    }

    /// The versions of all models that are in memory.
    #[must_use]
    pub fn resident(&self) -> Vec<(String, u32)> {
        let snapshot = self.snapshot();
        let resident = snapshot.slots().filter(|slot| slot.is_resident());
        resident.map(|slot| (slot.name.clone(), slot.version)).collect()
    }

    /// The model `name` in `version`, or, where none is named, in the version that the aliases give the job `id`, or in the
    /// highest. Waits while a model that was unloaded is loaded again.
    ///
    /// # Errors
    /// `UNKNOWN_MODEL`, with what there is; `MODEL_UNAVAILABLE` for one that cannot be loaded again.
    pub async fn resolve(&self, name: &str, version: Option<u32>, id: &str) -> Result<Arc<LoadedModel>, JobError> {
        let snapshot = self.snapshot();
        let slot = snapshot.choose(name, version, id)?;
        slot.touch(self.resolved.fetch_add(1, Ordering::Relaxed));
        if let Some(model) = slot.resident() {
            return Ok(model);
        }
        let _loading = slot.loading.lock().await;
        // Whoever held it before may have loaded it.
        if let Some(model) = slot.resident() {
            return Ok(model);
        }
        let model = self.load_again(&slot).await?;
        slot.keep(Arc::clone(&model));
        (self.options.changed)(name, ModelChange::Reloaded);
        self.make_room(&snapshot, &slot);
        Ok(model)
    }

    async fn load_again(&self, slot: &Arc<Slot>) -> Result<Arc<LoadedModel>, JobError> {
        let (folder, options) = (slot.folder.clone(), self.options.clone());
        let loaded = tokio::task::spawn_blocking(move || LoadedModel::load(&folder, &options)).await;
        let (name, version) = (&slot.name, slot.version);
        match loaded {
            Ok(Ok(model)) => Ok(Arc::new(model)),
            Ok(Err(error)) => {
                tracing::error!(%error, model.name = name, "model `{name}` version {version} cannot be loaded again");
                Err(unavailable(name, version))
            }
            Err(error) => {
                tracing::error!(%error, model.name = name, "loading model `{name}` version {version} again panicked");
                Err(unavailable(name, version))
            }
        }
    }

    pub(super) fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    pub(super) fn options(&self) -> &ModelOptions {
        &self.options
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another snapshot in place. Jobs that have resolved their model keep it.
    pub(super) fn swap(&self, snapshot: Snapshot) {
        let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(snapshot));
        drop(current);
        // Not under the lock, at which jobs wait: it may be the last that holds a model.
        drop(old);
    }

    /// Loads the version in `folder`, and runs it in the sizes that jobs will.
    pub(super) fn load_warm(&self, name: &str, version: u32, folder: &Path) -> Result<Slot, ModelError> {
        // Before the files are read: what changes while they are is another version.
        let fingerprint = Fingerprint::of_folder(folder);
        let model = LoadedModel::load_warm(folder, &self.options)?;
        Ok(self.slot(name, version, folder, (fingerprint, model)))
    }

    fn slot(&self, name: &str, version: u32, folder: &Path, (fingerprint, model): (Fingerprint, LoadedModel)) -> Slot {
        let slot = Slot::new(name.to_owned(), version, folder.to_owned(), fingerprint, model);
        slot.touch(self.resolved.fetch_add(1, Ordering::Relaxed));
        slot
    }

    /// Unloads the least recently used versions until the rest fits the budget; `kept` stays, whatever it weighs.
    pub(super) fn make_room(&self, snapshot: &Snapshot, kept: &Arc<Slot>) {
        let Some(budget) = self.settings.memory_budget_bytes else { return };
        let _one_at_a_time = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resident: Vec<&Arc<Slot>> = snapshot.slots().filter(|slot| slot.is_resident()).collect();
        resident.sort_by_key(|slot| slot.last_used());
        let mut bytes: u64 = resident.iter().map(|slot| slot.bytes).sum();
        for slot in resident {
            if bytes <= budget {
                return;
            }
            if !Arc::ptr_eq(slot, kept) && slot.unload() {
                bytes = bytes.saturating_sub(slot.bytes);
                let Slot { name, version, .. } = &**slot;
                tracing::info!(
                    model.name = name,
                    model.version = version,
                    "model `{name}` version {version} is unloaded"
                );
                (self.options.changed)(name, ModelChange::Unloaded);
            }
        }
    }
}

fn unavailable(name: &str, version: u32) -> JobError {
    JobError::new(ErrorCode::ModelUnavailable, format!("model `{name}` version {version} cannot be loaded again"))
}

/// Whether every alias names a version that is there; `folder` is the model's.
pub(super) fn check_aliases<'a>(
    folder: &Path,
    aliases: &AliasTable,
    versions: impl Iterator<Item = &'a u32>,
) -> Result<(), ModelError> {
    let versions: Vec<u32> = versions.copied().collect();
    match aliases.iter().find(|(_, alias)| !versions.contains(&alias.version)) {
        None => Ok(()),
        Some((name, alias)) => {
            let (missing, there) = (alias.version, listed(&versions));
            let fault = format!("alias `{name}` names version {missing}; the model has {there}");
            Err(ModelError::Spec { path: Aliases::path(folder), fault })
        }
    }
}

/// The versions that the settings ask for, with their folders.
pub(super) fn served_versions(settings: &ModelSettings) -> Result<Vec<(String, u32, PathBuf)>, ModelError> {
    let found = find_versions(&settings.directory)?;
    for name in &settings.serve {
        if !found.iter().any(|(own, ..)| own == name) {
            let mut names: Vec<String> = found.iter().map(|(name, ..)| format!("`{name}`")).collect();
            names.dedup();
            return Err(ModelError::NotFound { name: name.clone(), found: listed(names) });
        }
    }
    let served = |(name, ..): &(String, u32, PathBuf)| settings.serve.is_empty() || settings.serve.contains(name);
    Ok(found.into_iter().filter(served).collect())
}
/// Every folder `<name>/<version>` below `directory`, sorted. Folders whose names are neither are left alone.
///
/// # Errors
/// When the folder cannot be listed or has no model.
pub fn find_versions(directory: &Path) -> Result<Vec<(String, u32, PathBuf)>, ModelError> {
    let mut found = Vec::new();
    for (name, folder) in subfolders(directory)?.into_iter().filter(|(name, _)| is_model_name(name)) {
        for (version, folder) in subfolders(&folder)? {
            if let Ok(version) = version.parse::<u32>() {
                found.push((name.clone(), version, folder));
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(ModelError::Empty { path: directory.to_owned() }) } else { Ok(found) }
}

fn subfolders(directory: &Path) -> Result<Vec<(String, PathBuf)>, ModelError> {
    let fault = |source| ModelError::Repository { path: directory.to_owned(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(directory).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if let (true, Some(name)) = (path.is_dir(), path.file_name().and_then(|name| name.to_str())) {
            folders.push((name.to_owned(), path.clone()));
        }
    }
    Ok(folders)
}
