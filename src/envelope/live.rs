//! The key ring of a running worker: read by every job, replaced as a whole when its files have changed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use super::keyring::Keyring;
use crate::limits::MAX_KEYRING_DEPTH;

/// A key ring that can be replaced while jobs are under way: each goes on with the ring that it took.
#[derive(Debug)]
pub struct LiveKeyring(RwLock<Arc<Keyring>>);

impl LiveKeyring {
    /// Begins with `ring`.
    #[must_use]
    pub fn new(ring: Keyring) -> Self {
        Self(RwLock::new(Arc::new(ring)))
    }

    /// The present ring.
    #[must_use]
    pub fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `ring` in the place of the present one.
    pub fn replace(&self, ring: Keyring) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }
}

/// What a key ring's folder looks like from outside: names, sizes, times of change. What is done to any
/// file changes it, its permissions included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of what lies in `directory`.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        add(&mut hasher, directory, MAX_KEYRING_DEPTH)?;
        Ok(Self(hasher.finish()))
    }
}

fn add(hasher: &mut DefaultHasher, folder: &Path, depth: u32) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // What a link points to counts: a Kubernetes secret is changed by turning one link around.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        path.hash(hasher);
        if metadata.is_dir() {
            if depth > 0 {
                add(hasher, &path, depth.saturating_sub(1))?;
            }
        } else {
            (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec()).hash(hasher);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Grant, generate};

    #[test]
    fn every_change_of_a_file_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
        let first = Fingerprint::of(folder.path()).unwrap();
        assert_eq!(Fingerprint::of(folder.path()).unwrap(), first);
        fs::write(folder.path().join("acme/request-next.jwk"), "x").unwrap();
        let second = Fingerprint::of(folder.path()).unwrap();
        assert_ne!(second, first);
        fs::write(folder.path().join("acme/request-next.jwk"), "xy").unwrap();
        let third = Fingerprint::of(folder.path()).unwrap();
        assert_ne!(third, second);
        fs::remove_file(folder.path().join("acme/request-next.jwk")).unwrap();
        assert_ne!(Fingerprint::of(folder.path()).unwrap(), third);
        assert!(Fingerprint::of(&folder.path().join("nowhere")).is_err());
    }
}
