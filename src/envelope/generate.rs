//! Makes a tenant: its folder, its grant and its two keys. Called by `inferq keys generate` and the demo.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::jwe::{KEY_BYTES, WrappingKey};
use super::jwk;
use super::keyring::{Direction, TENANT_FILE};
use super::tenant::{Grant, is_tenant_name};

/// Why no tenant was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The name can be no tenant's.
    #[error("`{0}` is no tenant's name: letters, digits, `-`, `_`, starting with a letter or digit")]
    TenantName(String),
    /// The tenant exists; its keys are never overwritten.
    #[error("tenant `{tenant}` exists already in `{path}`; its keys are not overwritten")]
    Exists {
        /// The tenant.
        tenant: String,
        /// Its folder.
        path: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("`{path}`: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

/// Makes `tenant` in the key ring `directory`, with `grant`; answers the ids of its request and response key.
///
/// # Errors
/// See [`GenerateError`].
pub fn generate(directory: &Path, tenant: &str, grant: &Grant) -> Result<[String; 2], GenerateError> {
    if !is_tenant_name(tenant) {
        return Err(GenerateError::TenantName(tenant.to_owned()));
    }
    let folder = directory.join(tenant);
    if folder.exists() {
        return Err(GenerateError::Exists { tenant: tenant.to_owned(), path: folder });
    }
    make_private_folder(&folder)?;
    write_grant(&folder, grant)?;
    let request = generate_key(&primary(&folder, Direction::Request), tenant, Direction::Request)?;
    let response = generate_key(&primary(&folder, Direction::Response), tenant, Direction::Response)?;
    Ok([request, response])
}

/// The file of the key that is used, as against those that are only accepted.
pub(super) fn primary(folder: &Path, direction: Direction) -> PathBuf {
    folder.join(format!("{}.jwk", direction.file_stem()))
}

/// Writes a tenant's grant, whole or not at all.
pub(super) fn write_grant(folder: &Path, grant: &Grant) -> Result<(), GenerateError> {
    let (path, draft) = (folder.join(TENANT_FILE), folder.join(".tenant.toml.new"));
    let text = toml::to_string(grant).expect("a grant's members are always TOML");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .map_err(|source| GenerateError::Write { path, source })
}

/// Makes a key in the file `path`, which must not exist.
pub(super) fn generate_key(path: &Path, tenant: &str, direction: Direction) -> Result<String, GenerateError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *bytes).map_err(|_| GenerateError::NoRandomness)?;
    let key = WrappingKey::new(bytes);
    let id = jwk::key_id(tenant, direction, &key);
    jwk::write(path, &id, &key).map_err(|source| GenerateError::Write { path: path.to_owned(), source })?;
    Ok(id)
}

pub(super) fn make_private_folder(folder: &Path) -> Result<(), GenerateError> {
    use std::os::unix::fs::DirBuilderExt as _;

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| GenerateError::Write { path: folder.to_owned(), source })
}
