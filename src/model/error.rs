//! Why a model cannot be served: each names the file and the way out.

use std::path::PathBuf;

/// A model, or the repository, cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The repository's folder cannot be listed.
    #[error("model repository `{path}`: {source}; set models.directory to a folder of <name>/<version>/model.toml")]
    Repository {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nothing to serve.
    #[error("model repository `{path}` has no model; expected <name>/<version>/model.toml")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A model that the settings ask for is not there.
    #[error("models.serve names `{name}`, but the repository has {found}")]
    NotFound {
        /// The name.
        name: String,
        /// What there is.
        found: String,
    },
    /// `model.toml` cannot be read or means nothing.
    #[error("model file `{path}`: {fault}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A file that `model.toml` names cannot be read.
    #[error("model file `{path}` cannot be read: {source}; model.toml names it")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The model's file is not the one that `model.toml` names.
    #[error("model file `{path}` has SHA-256 {actual}, model.toml says {expected}: the file was changed or cut short")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest in `model.toml`.
        expected: String,
        /// The file's digest.
        actual: String,
    },
    /// The runtime, the tokenizer or the labels refuse.
    #[error("model `{name}` version {version} cannot be loaded: {fault}")]
    Load {
        /// The model.
        name: String,
        /// Its version.
        version: u32,
        /// What is wrong; names the file or the node.
        fault: String,
    },
    /// The model does not answer what it answered when it was made.
    #[error("model `{name}` version {version} does not answer as golden.json says: {fault}")]
    Golden {
        /// The model.
        name: String,
        /// Its version.
        version: u32,
        /// Which sample, and by how much.
        fault: String,
    },
    /// A version is there already.
    #[error("model folder `{path}` is there already; a version is never overwritten")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file that was to be added is not what it must be.
    #[error("`{path}` {fault}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Something cannot be written.
    #[error("`{path}` cannot be written: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
