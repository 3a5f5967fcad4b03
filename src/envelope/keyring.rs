//! The key ring: whose key is whose, and what it may do.
//!
//! Read from a folder with one folder a tenant: `tenant.toml`, and JSON Web Keys named `request.jwk` and
//! `response.jwk`, with further ones as `request-<word>.jwk` while keys are changed. The worker opens with request keys
//! and seals with `response.jwk`; a producer the other way round.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::jwe::WrappingKey;
use super::jwk;
use super::tenant::{Grant, Tenant, is_tenant_name};
use super::time::UnixSeconds;

/// A tenant's grant, beside its keys.
pub(super) const TENANT_FILE: &str = "tenant.toml";

/// Which way a key's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From producer to worker.
    Request,
    /// From worker to producer.
    Response,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Request, Self::Response];

    /// As it stands in a key's id.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "req",
            Self::Response => "res",
        }
    }

    /// As it stands in a key file's name.
    pub(super) const fn file_stem(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why a key ring could not be read. Names files and ids, never key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The folder, or a tenant's, cannot be listed.
    #[error("key ring `{path}`: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No tenant at all.
    #[error("key ring `{path}` has no tenant; make one with `inferq keys generate --tenant NAME`")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A folder's name can be no tenant's.
    #[error("key ring: `{path}` is no tenant's name: letters, digits, `-`, `_`")]
    TenantName {
        /// The folder.
        path: PathBuf,
    },
    /// `tenant.toml` cannot be read or means nothing.
    #[error("tenant file `{path}`: {fault}")]
    Tenant {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A key file cannot be read or means nothing.
    #[error("key file `{path}`: {fault}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A key file that others can read.
    #[error("key file `{path}` has mode {mode:03o}, others can read it; run: chmod 600 '{path}'")]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file that holds a key which another file holds, too.
    #[error("key file `{path}` holds the same key as `{other}`; every file needs a key of its own")]
    Repeated {
        /// The file.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// A tenant without its two keys.
    #[error("tenant `{tenant}` has no {direction} key; expected `{expected}`")]
    Missing {
        /// The tenant.
        tenant: String,
        /// Which way the missing key goes.
        direction: Direction,
        /// The file looked for.
        expected: PathBuf,
    },
}

/// A key with what it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) tenant: Arc<Tenant>,
    pub(super) direction: Direction,
    pub(super) wrapping: WrappingKey,
    file: PathBuf,
}

impl Key {
    /// Whether its tenant's grant refuses it.
    pub(super) fn is_revoked(&self) -> bool {
        self.tenant.grant.revoked_keys.contains(&self.id)
    }

    /// From when on it is refused.
    fn expires(&self) -> Option<UnixSeconds> {
        self.tenant.grant.key_expires.get(&self.id).copied()
    }

    /// Whether it may be used at `now`.
    pub(super) fn is_active(&self, now: UnixSeconds) -> bool {
        !self.is_revoked() && self.expires().is_none_or(|end| now < end)
    }
}

/// A key as `inferq keys list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedKey {
    /// Its id.
    pub key_id: String,
    /// Whose it is.
    pub tenant: String,
    /// `req` or `res`.
    pub direction: String,
    /// Whether it is refused.
    pub revoked: bool,
    /// From when on it is refused, in seconds since the epoch.
    pub expires: Option<UnixSeconds>,
    /// Where it lies.
    pub file: PathBuf,
}

/// Who may be able to read a key file beside its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAccess {
    /// Nobody.
    #[default]
    Owner,
    /// The file's group may: a secret that Kubernetes mounts for an `fsGroup` has mode 440.
    OwnerAndGroup,
}

impl KeyAccess {
    /// The bits of a file's mode that are refused.
    pub(super) const fn refused(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::OwnerAndGroup => 0o037,
        }
    }
}

/// All keys of all tenants. One id, one key; there is no trial decryption.
#[derive(Debug, Clone)]
pub struct Keyring {
    access: KeyAccess,
    keys: HashMap<String, Key>,
    /// By tenant, the id of the key that its replies are sealed with.
    sealing: BTreeMap<String, String>,
}

impl Keyring {
    /// Reads the key ring in `directory`.
    ///
    /// # Errors
    /// See [`KeyringError`]: one bad file refuses the whole ring, since half a ring would lock tenants out silently.
    pub fn load(directory: &Path) -> Result<Self, KeyringError> {
        Self::load_with(directory, KeyAccess::Owner)
    }

    /// The same where `access` says who may read the files.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn load_with(directory: &Path, access: KeyAccess) -> Result<Self, KeyringError> {
        let mut ring = Self::empty(access);
        for folder in folders(directory)? {
            ring.load_tenant(&folder)?;
        }
        if ring.keys.is_empty() {
            return Err(KeyringError::Empty { path: directory.to_owned() });
        }
        ring.check(directory)?;
        Ok(ring)
    }

    /// Reads one tenant's folder only: a producer's side of the ring.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn load_one(directory: &Path, tenant: &str) -> Result<Self, KeyringError> {
        if !is_tenant_name(tenant) {
            return Err(KeyringError::TenantName { path: PathBuf::from(tenant) });
        }
        let mut ring = Self::empty(KeyAccess::Owner);
        ring.load_tenant(&directory.join(tenant))?;
        Ok(ring)
    }

    fn empty(access: KeyAccess) -> Self {
        Self { access, keys: HashMap::new(), sealing: BTreeMap::new() }
    }

    /// The tenants' names.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.sealing.keys().map(String::as_str)
    }

    /// Every key, sorted by id.
    #[must_use]
    pub fn list(&self) -> Vec<ListedKey> {
        let mut listed: Vec<ListedKey> = self
            .keys
            .values()
            .map(|key| ListedKey {
                key_id: key.id.clone(),
                tenant: key.tenant.name.clone(),
                direction: key.direction.to_string(),
                revoked: key.is_revoked(),
                expires: key.expires(),
                file: key.file.clone(),
            })
            .collect();
        listed.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        listed
    }

    pub(super) fn key(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }

    /// The key that a tenant's replies are sealed with.
    pub(super) fn sealing_key(&self, tenant: &str) -> Option<&Key> {
        self.keys.get(self.sealing.get(tenant)?)
    }

    /// The key that a tenant's requests are sealed with: `request.jwk`.
    pub(super) fn request_key(&self, tenant: &str) -> Option<&Key> {
        let primary = format!("{}.jwk", Direction::Request.file_stem());
        self.keys.values().find(|key| key.tenant.name == tenant && key.file.ends_with(&primary))
    }

    /// What one file alone cannot show.
    fn check(&self, directory: &Path) -> Result<(), KeyringError> {
        let mut keys: Vec<&Key> = self.keys.values().collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        for (index, key) in keys.iter().enumerate() {
            let earlier = keys.iter().take(index).find(|other| other.wrapping.expose() == key.wrapping.expose());
            if let Some(earlier) = earlier {
                return Err(KeyringError::Repeated { path: key.file.clone(), other: earlier.file.clone() });
            }
        }
        let tenants: BTreeMap<&str, &Tenant> = keys.iter().map(|key| (&*key.tenant.name, &*key.tenant)).collect();
        for tenant in tenants.values() {
            self.check_tenant(tenant, &tenants).map_err(|fault| {
                let path = directory.join(&tenant.name).join(TENANT_FILE);
                KeyringError::Tenant { path, fault }
            })?;
        }
        Ok(())
    }

    fn check_tenant(&self, tenant: &Tenant, tenants: &BTreeMap<&str, &Tenant>) -> Result<(), String> {
        let prefix = &tenant.grant.reply_prefix;
        let shares = |other: &&&Tenant| other.name != tenant.name && other.grant.reply_prefix.starts_with(prefix);
        if let Some(other) = tenants.values().find(shares) {
            return Err(format!("reply_prefix `{prefix}` covers reply queues of tenant `{}`", other.name));
        }
        // A misspelt id would leave a key in use that was meant to be refused.
        let grant = &tenant.grant;
        let revoked = grant.revoked_keys.iter().map(|id| ("revoked_keys", id));
        for (member, id) in revoked.chain(grant.key_expires.keys().map(|id| ("key_expires", id))) {
            if self.key(id).is_none_or(|key| key.tenant.name != tenant.name) {
                return Err(format!(
                    "{member} names `{id}`, which is no key of this tenant's files; remove it, or correct it"
                ));
            }
        }
        let is_response = |id: &&String| self.key(id).is_some_and(|key| key.direction == Direction::Response);
        if let Some(id) = grant.key_expires.keys().find(is_response) {
            return Err(format!("key_expires names `{id}`, which seals replies; request keys alone expire"));
        }
        match self.sealing_key(&tenant.name).filter(|key| key.is_revoked()) {
            Some(key) => {
                Err(format!("revoked_keys names `{}`, which seals the replies; put another key there first", key.id))
            }
            None => Ok(()),
        }
    }

    fn load_tenant(&mut self, folder: &Path) -> Result<(), KeyringError> {
        let name = folder.file_name().and_then(|name| name.to_str()).filter(|name| is_tenant_name(name));
        let name = name.ok_or_else(|| KeyringError::TenantName { path: folder.to_owned() })?.to_owned();
        let tenant = Arc::new(Tenant { grant: read_grant(&folder.join(TENANT_FILE))?, name });
        for direction in Direction::ALL {
            self.load_keys(folder, &tenant, direction)?;
        }
        Ok(())
    }

    fn load_keys(&mut self, folder: &Path, tenant: &Arc<Tenant>, direction: Direction) -> Result<(), KeyringError> {
        let primary = folder.join(format!("{}.jwk", direction.file_stem()));
        if !primary.exists() {
            return Err(KeyringError::Missing { tenant: tenant.name.clone(), direction, expected: primary });
        }
        for file in key_files(folder, direction)? {
            let (id, wrapping) = jwk::read(&file, &tenant.name, direction, self.access)?;
            if direction == Direction::Response && file == primary {
                self.sealing.insert(tenant.name.clone(), id.clone());
            }
            let key = Key { id: id.clone(), tenant: Arc::clone(tenant), direction, wrapping, file };
            let path = key.file.clone();
            if let Some(other) = self.keys.insert(id, key) {
                return Err(KeyringError::Repeated { path, other: other.file });
            }
        }
        Ok(())
    }
}

/// Reads a tenant's grant.
pub(super) fn read_grant(path: &Path) -> Result<Grant, KeyringError> {
    let fault = |fault: String| KeyringError::Tenant { path: path.to_owned(), fault };
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let grant: Grant = toml::from_str(&text).map_err(|error| fault(error.message().to_owned()))?;
    if !grant.reply_prefix.ends_with('.') || grant.reply_prefix.len() < 2 {
        return Err(fault(format!("reply_prefix is `{}`, it must end in a dot", grant.reply_prefix)));
    }
    Ok(grant)
}

fn folders(directory: &Path) -> Result<Vec<PathBuf>, KeyringError> {
    Ok(entries(directory)?.into_iter().filter(|path| path.is_dir() && !is_hidden(path)).collect())
}

/// Hidden folders are the doing of mounts: a Kubernetes secret shows `..data` beside its files.
fn is_hidden(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'))
}

fn key_files(folder: &Path, direction: Direction) -> Result<Vec<PathBuf>, KeyringError> {
    let stem = direction.file_stem();
    let is_key = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let rest = name.strip_suffix(".jwk").and_then(|name| name.strip_prefix(stem));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    Ok(entries(folder)?.into_iter().filter(is_key).collect())
}

/// What lies in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, KeyringError> {
    let fault = |source| KeyringError::Folder { path: folder.to_owned(), source };
    let mut entries = fs::read_dir(folder)
        .map_err(fault)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fault)?;
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
