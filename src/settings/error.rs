//! Why settings cannot be used, and the way out of each.
//!
//! Made by `sources`, `load` and `resolve`, printed by `cli`. Values of secret keys never stand in a message.

use std::path::PathBuf;

use super::provenance::Origin;

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The settings file cannot be read.
    #[error("settings file `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// The settings file is no TOML.
    #[error("settings file `{}`, line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A source sets a key that does not exist.
    #[error("unknown setting `{key}` in {origin}{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value is not of the kind that its key takes.
    #[error("`{key}` takes {expected}, {actual} came from {origin}")]
    WrongKind {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What came; the value itself only where it is no secret.
        actual: String,
        /// Where it came from.
        origin: Origin,
    },
    /// Values are out of their bounds or do not go together. Each names its key, its value and its bound.
    #[error("{}", .0.join("; "))]
    OutOfBounds(Vec<String>),
}

impl SettingsError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path given by --config or INFERQ_CONFIG, and that it may be read",
            Self::Syntax { .. } => "correct the line; config/worker.example.toml shows the form",
            Self::UnknownKey { .. } => {
                "`inferq config check` on a sound file lists every key; docs/configuration.md tells what each means"
            }
            Self::WrongKind { .. } | Self::OutOfBounds(_) => {
                "set the value within its bound; docs/configuration.md lists the unit and default of every key"
            }
        }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|key| format!(": did you mean `{key}`?")).unwrap_or_default()
}
