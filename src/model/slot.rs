//! One version in the repository: where it lies, what its files were like, and the loaded model, while it is in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::LoadedModel;
use crate::protocol::announcement::AnnouncedVersion;

/// What the files of a folder are like: their names, sizes and times of change. Another one is another version of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Fingerprint(Vec<(String, u64, Option<SystemTime>)>);

impl Fingerprint {
    /// Of the files in `folder`; empty where it cannot be listed.
    pub(super) fn of_folder(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut files: Vec<_> = entries.filter_map(|entry| one(&entry.path())).collect();
        files.sort();
        Self(files)
    }

    /// Of one file; empty where it is not there.
    pub(super) fn of_file(path: &Path) -> Self {
        Self(one(path).into_iter().collect())
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, bytes, _)| bytes).sum()
    }
}

fn one(path: &Path) -> Option<(String, u64, Option<SystemTime>)> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((path.file_name()?.to_string_lossy().into_owned(), metadata.len(), metadata.modified().ok()))
}

/// One version of a model.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) folder: PathBuf,
    /// What the files were like when they were loaded.
    pub(super) fingerprint: Fingerprint,
    /// What the model weighs against the budget: the bytes of its files.
    pub(super) bytes: u64,
    /// What may be told of it.
    pub(super) announced: AnnouncedVersion,
    model: Mutex<Option<Arc<LoadedModel>>>,
    /// Held by whoever loads it again: others wait for that instead of loading, too.
    pub(super) loading: tokio::sync::Mutex<()>,
    /// When it was asked for last, counted in jobs.
    last_used: AtomicU64,
}

impl Slot {
    pub(super) fn new(
        name: String,
        version: u32,
        folder: PathBuf,
        fingerprint: Fingerprint,
        model: LoadedModel,
    ) -> Self {
        Self {
            name,
            version,
            folder,
            bytes: fingerprint.bytes(),
            fingerprint,
            announced: model.announced(),
            model: Mutex::new(Some(Arc::new(model))),
            loading: tokio::sync::Mutex::new(()),
            last_used: AtomicU64::new(0),
        }
    }

    /// The model, where it is in memory.
    pub(super) fn resident(&self) -> Option<Arc<LoadedModel>> {
        self.lock().clone()
    }

    pub(super) fn is_resident(&self) -> bool {
        self.lock().is_some()
    }

    /// Puts the model into memory.
    pub(super) fn keep(&self, model: Arc<LoadedModel>) {
        *self.lock() = Some(model);
    }

    /// Lets the model go; jobs that have it finish with it.
    pub(super) fn unload(&self) -> bool {
        let model = self.lock().take();
        // Not under the lock: it may be the last that holds the model.
        model.is_some()
    }

    pub(super) fn touch(&self, now: u64) {
        self.last_used.store(now, Ordering::Relaxed);
    }

    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<LoadedModel>>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
