//! The model repository: every version of every served model, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LoadedModel, ModelError, ModelOptions};
use crate::error::{ErrorCode, JobError};
use crate::protocol::model_ref::is_model_name;
use crate::settings::ModelSettings;

/// All models that a worker serves. Resolved once a job, so that nothing changes under a job's feet.
#[derive(Debug)]
pub struct ModelRepository {
    models: BTreeMap<String, BTreeMap<u32, Arc<LoadedModel>>>,
}

impl ModelRepository {
    /// Loads every version of every model that the settings ask for; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`ModelError`]: a worker that cannot serve all it should does not start.
    pub fn open(settings: &ModelSettings, options: &ModelOptions) -> Result<Self, ModelError> {
        let mut models: BTreeMap<String, BTreeMap<u32, Arc<LoadedModel>>> = BTreeMap::new();
        for (name, version, folder) in served_versions(settings)? {
            let model = LoadedModel::load(&folder, options)?;
            tracing::info!(model.name = name, model.version = version, "model `{name}` version {version} is loaded");
            models.entry(name).or_default().insert(version, Arc::new(model));
        }
        Ok(Self { models })
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
        self.models.keys().cloned().collect()
    }

    /// The model `name` in `version`, or in its highest.
    ///
    /// # Errors
    /// `UNKNOWN_MODEL`, with what there is.
    pub fn resolve(&self, name: &str, version: Option<u32>) -> Result<Arc<LoadedModel>, JobError> {
        let Some(versions) = self.models.get(name) else {
            let names = listed(self.models.keys().map(|name| format!("`{name}`")));
            return Err(unknown(format!("there is no model `{name}`; served are {names}")));
        };
        let model = match version {
            Some(version) => versions.get(&version),
            None => versions.values().next_back(),
        };
        model.cloned().ok_or_else(|| {
            let version = version.unwrap_or_default();
            unknown(format!("model `{name}` has no version {version}; it has {}", listed(versions.keys())))
        })
    }
}

fn unknown(message: String) -> JobError {
    JobError::new(ErrorCode::UnknownModel, message)
}

/// Words as an enumeration: `a, b and c`.
fn listed(words: impl IntoIterator<Item = impl ToString>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// The versions that the settings ask for, with their folders.
fn served_versions(settings: &ModelSettings) -> Result<Vec<(String, u32, PathBuf)>, ModelError> {
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
