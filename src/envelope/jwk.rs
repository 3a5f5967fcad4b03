//! A key on disk: one symmetric JSON Web Key (RFC 7517, `kty` = `oct`) a file, readable by its owner alone.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use super::jwe::{KEY_BYTES, WrappingKey};
use super::keyring::{Direction, KeyAccess, KeyringError};
use crate::limits::MAX_TEXT_FILE_BYTES;

/// Characters of a key's fingerprint in its id.
const FINGERPRINT_CHARS: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    alg: String,
    #[serde(rename = "use")]
    purpose: String,
    kid: String,
    k: String,
}

impl Drop for Jwk {
    fn drop(&mut self) {
        self.k.zeroize();
    }
}

/// The id of a key: tenant, direction and a fingerprint, so that no key can take another's id.
pub(super) fn key_id(tenant: &str, direction: Direction, key: &WrappingKey) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of every length");
    mac.update(b"inferq-kid-v1");
    let fingerprint = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    let fingerprint = fingerprint.get(..FINGERPRINT_CHARS).unwrap_or_default();
    format!("{tenant}.{direction}.{fingerprint}")
}

/// Reads a key file and checks that its id is the one that its key, tenant and direction make.
pub(super) fn read(
    path: &Path,
    tenant: &str,
    direction: Direction,
    access: KeyAccess,
) -> Result<(String, WrappingKey), KeyringError> {
    let fault = |fault: String| KeyringError::Key { path: path.to_owned(), fault };
    check_access(path, access)?;
    let text = Zeroizing::new(fs::read(path).map_err(|error| fault(error.to_string()))?);
    // serde's messages can quote what came, and what came is a key.
    let jwk: Jwk = serde_json::from_slice(&text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        fault(format!("no JSON Web Key with exactly the members kty, alg, use, kid, k (at {place})"))
    })?;
    if jwk.kty != "oct" || jwk.alg != "A256KW" || jwk.purpose != "enc" {
        return Err(fault("kty, alg and use must be oct, A256KW and enc".to_owned()));
    }
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(&jwk.k).map_err(|_| fault("k is not base64url".to_owned()))?);
    let bytes: [u8; KEY_BYTES] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| fault(format!("k has {} bytes, {KEY_BYTES} were expected", bytes.len())))?;
    let key = WrappingKey::new(Zeroizing::new(bytes));
    let expected = key_id(tenant, direction, &key);
    if jwk.kid == expected {
        Ok((expected, key))
    } else {
        Err(fault(format!("kid is `{}`, this key of tenant `{tenant}` for {direction} has `{expected}`", jwk.kid)))
    }
}

/// Writes a key file that its owner alone can read; never over an existing one.
pub(super) fn write(path: &Path, key_id: &str, key: &WrappingKey) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let jwk = Jwk {
        kty: "oct".to_owned(),
        alg: "A256KW".to_owned(),
        purpose: "enc".to_owned(),
        kid: key_id.to_owned(),
        k: URL_SAFE_NO_PAD.encode(key.expose()),
    };
    let text = Zeroizing::new(serde_json::to_vec_pretty(&jwk)?);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&text)?;
    file.sync_all()
}

/// A key that others can read is no key.
fn check_access(path: &Path, access: KeyAccess) -> Result<(), KeyringError> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata =
        fs::metadata(path).map_err(|error| KeyringError::Key { path: path.to_owned(), fault: error.to_string() })?;
    if metadata.len() > MAX_TEXT_FILE_BYTES {
        let fault = format!("has {} bytes, at most {MAX_TEXT_FILE_BYTES} are read", metadata.len());
        return Err(KeyringError::Key { path: path.to_owned(), fault });
    }
    let mode = metadata.mode() & 0o777;
    if mode & access.refused() == 0 { Ok(()) } else { Err(KeyringError::Readable { path: path.to_owned(), mode }) }
}
