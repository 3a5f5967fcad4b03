//! Changes to a tenant's keys: a next pair, its activation, a revocation, and what is handed to the producer.
//!
//! Called by `inferq keys`. A running worker sees each step as one change of files; none of them leaves it without a
//! key that a producer may still use.

use std::fs;
use std::path::{Path, PathBuf};

use super::generate::{GenerateError, generate_key, make_private_folder, primary, write_grant};
use super::keyring::{Direction, KeyAccess, Keyring, KeyringError, TENANT_FILE, read_grant};
use super::tenant::is_tenant_name;
use super::time::UnixSeconds;
use super::{Grant, jwk};

/// The word in the file name of a key that is accepted and not used yet.
const NEXT: &str = "next";

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The ring, or the tenant in it, is not in order.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A file or folder cannot be written.
    #[error(transparent)]
    Write(#[from] GenerateError),
    /// There is a next pair already, or none to activate, or the key is still needed.
    #[error("{fault}")]
    Order {
        /// What stands in the way.
        fault: String,
        /// What to do first.
        help: String,
    },
    /// No such key.
    #[error("tenant `{tenant}` has no key `{key_id}`")]
    NoKey {
        /// The tenant.
        tenant: String,
        /// The id asked for.
        key_id: String,
    },
}

/// What was handed over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The folder that the producer gets.
    pub folder: PathBuf,
    /// The id of the key that it seals with.
    pub request_key: String,
    /// The ids of the keys that it opens replies with.
    pub response_keys: Vec<String>,
}

/// A tenant's folder in a ring that is in order, with the tenant's keys.
struct Changed {
    folder: PathBuf,
    ring: Keyring,
}

impl Changed {
    fn open(directory: &Path, tenant: &str) -> Result<Self, ChangeError> {
        if !is_tenant_name(tenant) {
            return Err(KeyringError::TenantName { path: PathBuf::from(tenant) }.into());
        }
        let ring = Keyring::load(directory)?;
        let folder = directory.join(tenant);
        if ring.tenants().any(|known| known == tenant) {
            Ok(Self { folder, ring })
        } else {
            let expected = primary(&folder, Direction::Request);
            let direction = Direction::Request;
            Err(KeyringError::Missing { tenant: tenant.to_owned(), direction, expected }.into())
        }
    }

    fn next(&self, direction: Direction) -> PathBuf {
        self.folder.join(format!("{}-{NEXT}.jwk", direction.file_stem()))
    }

    fn grant(&self) -> Result<Grant, KeyringError> {
        read_grant(&self.folder.join(TENANT_FILE))
    }
}

/// Adds a next key in both directions: accepted by workers and producers once they have read it, used by nobody yet.
/// Answers the ids of the request and the response key.
///
/// # Errors
/// See [`ChangeError`].
pub fn add_next(directory: &Path, tenant: &str) -> Result<[String; 2], ChangeError> {
    let changed = Changed::open(directory, tenant)?;
    if let Some(path) = Direction::ALL.map(|direction| changed.next(direction)).into_iter().find(|path| path.exists()) {
        return Err(ChangeError::Order {
            fault: format!("`{}` exists already", path.display()),
            help: format!("activate it with `inferq keys rotate --tenant {tenant} --activate`, or remove it"),
        });
    }
    let [request, response] = Direction::ALL.map(|direction| generate_key(&changed.next(direction), tenant, direction));
    Ok([request?, response?])
}

/// Puts the next pair into use. The old keys stay accepted; the old request key until `old_expires`, where that is given.
/// Answers the ids of the keys that were in use.
///
/// # Errors
/// See [`ChangeError`].
pub fn activate(directory: &Path, tenant: &str, old_expires: Option<UnixSeconds>) -> Result<[String; 2], ChangeError> {
    let changed = Changed::open(directory, tenant)?;
    if let Some(path) = Direction::ALL.map(|direction| changed.next(direction)).into_iter().find(|path| !path.exists())
    {
        return Err(ChangeError::Order {
            fault: format!("there is no `{}` to activate", path.display()),
            help: format!("make the next pair first: `inferq keys rotate --tenant {tenant}`"),
        });
    }
    let mut old = Vec::new();
    for direction in Direction::ALL {
        let used = primary(&changed.folder, direction);
        let (id, _) = jwk::read(&used, tenant, direction, KeyAccess::Owner)?;
        let fingerprint = id.rsplit('.').next().unwrap_or_default();
        let kept = changed.folder.join(format!("{}-{fingerprint}.jwk", direction.file_stem()));
        // Between the two a worker that reads the ring finds no key in use, keeps the ring it has, and reads again.
        rename(&used, &kept)?;
        rename(&changed.next(direction), &used)?;
        old.push(id);
    }
    let old: [String; 2] = old.try_into().unwrap_or_default();
    if let Some(end) = old_expires {
        let mut grant = changed.grant()?;
        let [request, _] = &old;
        grant.key_expires.insert(request.clone(), end);
        write_grant(&changed.folder, &grant)?;
    }
    Ok(old)
}

/// Refuses the key `key_id` from now on.
///
/// # Errors
/// See [`ChangeError`]; the key that seals replies cannot be revoked.
pub fn revoke(directory: &Path, tenant: &str, key_id: &str) -> Result<(), ChangeError> {
    let changed = Changed::open(directory, tenant)?;
    if !changed.ring.list().iter().any(|key| key.key_id == key_id && key.tenant == tenant) {
        return Err(ChangeError::NoKey { tenant: tenant.to_owned(), key_id: key_id.to_owned() });
    }
    if changed.ring.sealing_key(tenant).is_some_and(|key| key.id == key_id) {
        return Err(ChangeError::Order {
            fault: format!("`{key_id}` seals the replies of tenant `{tenant}`"),
            help: "activate another key first: `inferq keys rotate`".to_owned(),
        });
    }
    let mut grant = changed.grant()?;
    if !grant.revoked_keys.iter().any(|revoked| revoked == key_id) {
        grant.revoked_keys.push(key_id.to_owned());
        write_grant(&changed.folder, &grant)?;
    }
    Ok(())
}

/// Copies what the producer of `tenant` needs into `<target>/<tenant>`: its grant, the key to seal with (the next one where
/// there is one), and, unless it only sends, every key that may seal its replies.
///
/// # Errors
/// See [`ChangeError`].
pub fn export(directory: &Path, tenant: &str, target: &Path, with_replies: bool) -> Result<Exported, ChangeError> {
    let changed = Changed::open(directory, tenant)?;
    let folder = target.join(tenant);
    if folder.exists() {
        return Err(GenerateError::Exists { tenant: tenant.to_owned(), path: folder }.into());
    }
    make_private_folder(&folder)?;
    let grant = changed.grant()?;
    // What the producer has to know of its grant; the ids of other keys are not among it.
    write_grant(&folder, &Grant { revoked_keys: Vec::new(), key_expires: Default::default(), ..grant })?;
    let next = changed.next(Direction::Request);
    let request = if next.exists() { next } else { primary(&changed.folder, Direction::Request) };
    let (request_key, key) = jwk::read(&request, tenant, Direction::Request, KeyAccess::Owner)?;
    put(&primary(&folder, Direction::Request), &request_key, &key)?;
    let mut response_keys = Vec::new();
    for listed in changed.ring.list() {
        let is_answer = listed.tenant == tenant && listed.direction == "res" && !listed.revoked;
        if let (true, true, Some(name)) = (with_replies, is_answer, listed.file.file_name()) {
            let (id, key) = jwk::read(&listed.file, tenant, Direction::Response, KeyAccess::Owner)?;
            put(&folder.join(name), &id, &key)?;
            response_keys.push(id);
        }
    }
    Ok(Exported { folder, request_key, response_keys })
}

fn put(path: &Path, id: &str, key: &super::jwe::WrappingKey) -> Result<(), GenerateError> {
    jwk::write(path, id, key).map_err(|source| GenerateError::Write { path: path.to_owned(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), GenerateError> {
    fs::rename(from, to).map_err(|source| GenerateError::Write { path: to.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{ProducerKeys, generate};

    fn ring() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path(), "acme", &Grant::new("acme", vec!["*".into()])).unwrap();
        generate(folder.path(), "other", &Grant::new("other", vec!["*".into()])).unwrap();
        folder
    }

    fn sealing_id(folder: &Path) -> String {
        Keyring::load(folder).unwrap().sealing_key("acme").unwrap().id.clone()
    }

    fn request_id(folder: &Path) -> String {
        Keyring::load(folder).unwrap().request_key("acme").unwrap().id.clone()
    }

    #[test]
    fn a_rotation_changes_what_is_used_and_goes_on_accepting_the_old() {
        let folder = ring();
        let path = folder.path();
        let before = [request_id(path), sealing_id(path)];
        let next = add_next(path, "acme").unwrap();
        assert_eq!([request_id(path), sealing_id(path)], before, "nothing is used yet");
        assert!(add_next(path, "acme").unwrap_err().to_string().contains("exists already"));
        let end = UnixSeconds(2_000_000_000);
        assert_eq!(activate(path, "acme", Some(end)).unwrap(), before);
        assert_eq!([request_id(path), sealing_id(path)], next);
        let ring = Keyring::load(path).unwrap();
        let [old_request, old_response] = &before;
        assert!(ring.key(old_request).unwrap().is_active(UnixSeconds(end.0 - 1)));
        assert!(!ring.key(old_request).unwrap().is_active(end));
        assert!(ring.key(old_response).is_some());
        assert!(activate(path, "acme", None).unwrap_err().to_string().contains("there is no"));
    }

    #[test]
    fn the_sealing_key_and_strangers_keys_cannot_be_revoked() {
        let folder = ring();
        let path = folder.path();
        let others = Keyring::load(path).unwrap().request_key("other").unwrap().id.clone();
        assert!(matches!(revoke(path, "acme", &others), Err(ChangeError::NoKey { .. })));
        assert!(matches!(revoke(path, "acme", &sealing_id(path)), Err(ChangeError::Order { .. })));
        let request = request_id(path);
        revoke(path, "acme", &request).unwrap();
        revoke(path, "acme", &request).unwrap();
        let ring = Keyring::load(path).unwrap();
        assert!(ring.key(&request).unwrap().is_revoked());
    }

    #[test]
    fn a_producer_gets_the_next_key_and_every_key_of_its_replies() {
        let (folder, target) = (ring(), tempfile::tempdir().unwrap());
        let path = folder.path();
        add_next(path, "acme").unwrap();
        let exported = export(path, "acme", target.path(), true).unwrap();
        assert_eq!(exported.response_keys.len(), 2);
        assert_ne!(exported.request_key, request_id(path));
        ProducerKeys::load(target.path(), "acme").unwrap();
        assert!(matches!(export(path, "acme", target.path(), true), Err(ChangeError::Write(_))), "never over another");
        let narrow = tempfile::tempdir().unwrap();
        let exported = export(path, "acme", narrow.path(), false).unwrap();
        assert!(exported.response_keys.is_empty());
        assert!(!narrow.path().join("acme/response.jwk").exists());
    }
}
