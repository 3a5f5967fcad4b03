//! The certificates of a connection: whom this side trusts, and what it shows of itself.
//!
//! Read when the settings are checked, and anew for each connection, so that a renewed certificate serves from the next
//! connection on. Called by `endpoint` and `connect`. A private key stays in the memory of the connection that needs it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig, RustlsConnectorConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::MAX_TEXT_FILE_BYTES;
use crate::settings::{IdentityFiles, TlsSettings};

/// Why certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`broker.{key}`: `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's words, or the bound.
        reason: String,
    },
    /// A file is not what its setting takes.
    #[error("`broker.{key}`: `{}` holds no {expected} in PEM", path.display())]
    Content {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// Everybody can read the private key.
    #[error("`broker.tls_key_file`: `{}` has mode {mode:o}, so that every user of this machine can use the key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Certificate and key do not belong together, or are of a kind that TLS does not take.
    #[error("`broker.tls_certificate_file` and `broker.tls_key_file` do not go together: {reason}")]
    Identity {
        /// What the TLS library says.
        reason: String,
    },
    /// The system names no authorities.
    #[error("this system has no certificates of authorities{}", .reason.as_deref().map(|words| format!(": {words}")).unwrap_or_default())]
    NoRoots {
        /// What went wrong, where anything did.
        reason: Option<String>,
    },
}

impl TlsError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path, and that this user may read the file",
            Self::Content { .. } => {
                "a PEM file has `-----BEGIN CERTIFICATE-----` or `-----BEGIN PRIVATE KEY-----` in it"
            }
            Self::Exposed { .. } => "chmod 600 the file, or 640 where its group has to read it",
            Self::Identity { .. } => "name the certificate that was made for this key",
            Self::NoRoots { .. } => {
                "install the package ca-certificates, or name the broker's authority in broker.tls_ca_file"
            }
        }
    }
}

/// What `settings` name, in the form that lapin takes.
pub(super) fn read(settings: &TlsSettings) -> Result<OwnedTLSConfig, TlsError> {
    let roots = match &settings.ca_file {
        Some(path) => text("tls_ca_file", path)?,
        None => system_roots()?,
    };
    let authorities = certificates(roots.as_bytes());
    if let (true, Some(path)) = (authorities.is_empty(), &settings.ca_file) {
        return Err(TlsError::Content { key: "tls_ca_file", path: path.clone(), expected: "certificate" });
    }
    let identity = settings.identity.as_ref().map(|files| identity(files, &authorities)).transpose()?;
    Ok(OwnedTLSConfig { identity, cert_chain: Some(roots) })
}

/// The certificate and key in `files`, found to belong together.
fn identity(files: &IdentityFiles, authorities: &[CertificateDer<'static>]) -> Result<OwnedIdentity, TlsError> {
    let pem = text("tls_certificate_file", &files.certificate)?;
    let chain = certificates(pem.as_bytes());
    if chain.is_empty() {
        let (path, expected) = (files.certificate.clone(), "certificate");
        return Err(TlsError::Content { key: "tls_certificate_file", path, expected });
    }
    let key = text("tls_key_file", &files.key)?;
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Content {
        key: "tls_key_file",
        path: files.key.clone(),
        expected: "private key",
    })?;
    let mode = fs::metadata(&files.key).map_err(|error| unreadable("tls_key_file", &files.key, &error))?;
    let mode = mode.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed { path: files.key.clone(), mode });
    }
    RustlsConnectorConfig::default()
        .with_parsable_certificates(authorities.to_vec())
        .connector_with_single_cert(chain, private)
        .map_err(|error| TlsError::Identity { reason: error.to_string() })?;
    Ok(OwnedIdentity::PKCS8 { pem: pem.into_bytes(), key: key.into_bytes() })
}

/// The certificates in a PEM file; what cannot be read there is passed over.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn text(key: &'static str, path: &Path) -> Result<String, TlsError> {
    let size = fs::metadata(path).map_err(|error| unreadable(key, path, &error))?.len();
    if size > MAX_TEXT_FILE_BYTES {
        let reason = format!("it has {size} bytes, at most {MAX_TEXT_FILE_BYTES} are read");
        return Err(TlsError::Unreadable { key, path: path.to_owned(), reason });
    }
    fs::read_to_string(path).map_err(|error| unreadable(key, path, &error))
}

fn unreadable(key: &'static str, path: &Path, error: &std::io::Error) -> TlsError {
    TlsError::Unreadable { key, path: path.to_owned(), reason: error.to_string() }
}

/// The authorities that this system trusts, as PEM.
fn system_roots() -> Result<String, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(TlsError::NoRoots { reason: found.errors.first().map(ToString::to_string) });
    }
    let mut pem = String::new();
    for certificate in &found.certs {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        // The reader takes lines of any length.
        pem.push_str(&STANDARD.encode(certificate));
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    Ok(pem)
}
