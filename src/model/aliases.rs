//! `aliases.toml`: which version answers the jobs that name none, and by what share; and what it was before.
//!
//! Lies beside the versions of a model. Written by `inferq models alias`, read by the repository of a worker. Which version a job
//! gets depends on its id alone, so that a job that is delivered again is answered by the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ModelError;
use crate::limits::{MAX_ALIAS_HISTORY, MAX_ALIASES, MAX_TEXT_FILE_BYTES};

/// The file's name.
const FILE: &str = "aliases.toml";
/// The alias that gets what no other has a share of.
pub const STABLE: &str = "stable";

/// A name for a version, and what it gets of the jobs that name no version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The version.
    pub version: u32,
    /// Its share, 0 to 1. `stable` has none: it gets the rest.
    #[serde(default)]
    pub share: f64,
}

/// The aliases of a model, by name.
pub type AliasTable = BTreeMap<String, Alias>;

/// The content of `aliases.toml`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    /// What holds.
    #[serde(default)]
    pub current: AliasTable,
    /// What held before, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<AliasTable>,
}

impl Aliases {
    /// Where the aliases of the model in `folder` lie.
    #[must_use]
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads the aliases of the model in `folder`; none where there is no file.
    ///
    /// # Errors
    /// [`ModelError::Spec`], naming the file and the fault.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = Self::path(folder);
        let fault = |fault: String| ModelError::Spec { path: path.clone(), fault };
        let size = match fs::metadata(&path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fault(error.to_string())),
        };
        if size > MAX_TEXT_FILE_BYTES {
            return Err(fault(format!("has {size} bytes, at most {MAX_TEXT_FILE_BYTES} are read")));
        }
        let text = fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        let aliases: Self = toml::from_str(&text).map_err(|error| fault(error.message().replace('\n', " ")))?;
        check_shares(&aliases.current).map_err(fault)?;
        Ok(aliases)
    }

    /// Writes them for the model in `folder`: whole, in one step.
    ///
    /// # Errors
    /// [`ModelError::Write`].
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let path = Self::path(folder);
        let fault = |source| ModelError::Write { path: path.clone(), source };
        let text = toml::to_string(self).map_err(|error| fault(io::Error::other(error)))?;
        let mut file = tempfile::Builder::new().prefix(".aliases-").tempfile_in(folder).map_err(fault)?;
        let lines = format!("# Written by `inferq models alias` and `inferq models rollback`.\n{text}");
        file.write_all(lines.as_bytes()).map_err(fault)?;
        // A worker runs as another user, perhaps.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(fault)?;
        }
        file.persist(&path).map_err(|error| fault(error.error))?;
        Ok(())
    }

    /// The same with `current` in place of what holds now, which is remembered.
    #[must_use]
    pub fn changed_to(mut self, current: AliasTable) -> Self {
        self.earlier.push(std::mem::replace(&mut self.current, current));
        let surplus = self.earlier.len().saturating_sub(MAX_ALIAS_HISTORY);
        self.earlier.drain(..surplus);
        self
    }

    /// The same with what held before the last change; nothing where that is not known.
    #[must_use]
    pub fn rolled_back(mut self) -> Option<Self> {
        self.current = self.earlier.pop()?;
        Some(self)
    }
}

/// Whether the shares of `table` are shares, and leave some.
///
/// # Errors
/// What is wrong, naming the alias.
pub fn check_shares(table: &AliasTable) -> Result<(), String> {
    if table.len() > MAX_ALIASES {
        return Err(format!("has {} aliases, at most {MAX_ALIASES} were expected", table.len()));
    }
    for (name, Alias { share, .. }) in table {
        let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !is_word {
            return Err(format!("alias `{name}`: lower-case letters, digits and `-` were expected"));
        }
        if !(0.0..=1.0).contains(share) || (name == STABLE && *share != 0.0) {
            return Err(format!("alias `{name}` has share {share}: 0 to 1 was expected, and none for `{STABLE}`"));
        }
    }
    let sum: f64 = table.values().map(|alias| alias.share).sum();
    // As many hundredths as there are aliases may be off in the last place.
    if sum > 1.0 + 1e-9 { Err(format!("the shares sum up to {sum}, at most 1 was expected")) } else { Ok(()) }
}

/// The version that answers the job `id` where it names none; nothing where no alias says.
#[must_use]
pub(super) fn choose(table: &AliasTable, id: &str) -> Option<u32> {
    let point = point(id);
    let mut reached = 0.0;
    for alias in table.values() {
        reached += alias.share;
        if point < reached {
            return Some(alias.version);
        }
    }
    table.get(STABLE).map(|stable| stable.version)
}

/// Where `id` lies between 0 and 1: evenly, and always in the same place.
fn point(id: &str) -> f64 {
    let digest = Sha256::digest(id.as_bytes());
    let first: [u8; 8] = digest.first_chunk().copied().unwrap_or_default();
    // 53 bits, as many as a float has exactly.
    (u64::from_be_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(aliases: &[(&str, u32, f64)]) -> AliasTable {
        aliases
            .iter()
            .map(|(name, version, share)| ((*name).to_owned(), Alias { version: *version, share: *share }))
            .collect()
    }

    #[test]
    fn jobs_are_shared_out_by_their_ids_and_keep_their_version() {
        let shared = table(&[("canary", 2, 0.1), ("stable", 1, 0.0)]);
        let ids: Vec<String> = (0..20_000).map(|i| format!("job-{i}")).collect();
        let canary =
            |table: &AliasTable| ids.iter().filter(|id| choose(table, id) == Some(2)).cloned().collect::<Vec<_>>();
        let tenth = canary(&shared);
        assert!((1_800..2_200).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, canary(&shared), "a job that comes again is answered by the same version");
        let third = canary(&table(&[("canary", 2, 0.3), ("stable", 1, 0.0)]));
        assert!(tenth.iter().all(|id| third.contains(id)), "a larger share keeps whom it had");
    }

    #[test]
    fn without_a_stable_version_the_rest_is_nobodys() {
        let only = table(&[("canary", 2, 0.5)]);
        let chosen: Vec<_> = (0..100).map(|i| choose(&only, &i.to_string())).collect();
        assert!(chosen.contains(&Some(2)) && chosen.contains(&None));
        assert_eq!(choose(&table(&[("stable", 3, 0.0)]), "x"), Some(3));
        assert_eq!(choose(&AliasTable::new(), "x"), None);
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        for (wrong, part) in [
            (table(&[("canary", 1, 1.5)]), "alias `canary` has share 1.5"),
            (table(&[("stable", 1, 0.5)]), "none for `stable`"),
            (table(&[("a", 1, 0.6), ("b", 2, 0.6)]), "sum up to 1.2"),
            (table(&[("A", 1, 0.0)]), "alias `A`: lower-case"),
        ] {
            let fault = check_shares(&wrong).unwrap_err();
            assert!(fault.contains(part), "{fault}");
        }
        assert!(check_shares(&table(&[("a", 1, 0.1), ("b", 2, 0.2), ("c", 3, 0.7)])).is_ok());
    }

    #[test]
    fn what_is_written_reads_back_and_rolls_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Aliases::read(folder.path()).unwrap(), Aliases::default());
        let (first, second) = (table(&[("stable", 1, 0.0)]), table(&[("canary", 2, 0.25), ("stable", 1, 0.0)]));
        let aliases = Aliases::default().changed_to(first.clone()).changed_to(second.clone());
        aliases.write(folder.path()).unwrap();
        let read = Aliases::read(folder.path()).unwrap();
        assert_eq!((&read.current, read.earlier.len()), (&second, 2));
        let back = read.rolled_back().unwrap();
        assert_eq!(back.current, first);
        assert_eq!(back.rolled_back().unwrap().rolled_back(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the file is left");
        let many = (0..40).fold(Aliases::default(), |all, version| all.changed_to(table(&[("stable", version, 0.0)])));
        assert_eq!(many.earlier.len(), MAX_ALIAS_HISTORY);
    }
}
