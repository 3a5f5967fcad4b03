//! The places that settings come from, each read into one layer of `section.name` -> value.
//!
//! Called by `load`. Here stands the program's only look at the environment. Kinds are checked against the defaults,
//! bounds are not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format as _, Map, Source, Value, ValueKind};

use super::error::SettingsError;
use super::provenance::{Origin, is_secret};
use crate::limits::MAX_TEXT_FILE_BYTES;

/// Begins every variable that names a key; sections and names are parted by two underscores.
const VARIABLE_PREFIX: &str = "INFERQ__";
/// The variable that sets `broker.url`, for short.
const URL_VARIABLE: &str = "INFERQ_AMQP_URL";
/// The variable that names the settings file.
const FILE_VARIABLE: &str = "INFERQ_CONFIG";

/// The variables of the environment that concern this program.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Takes the process's own. A value that is no UTF-8 is taken with replacement characters, and fails as the key
    /// that it sets.
    #[must_use]
    pub fn of_process() -> Self {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("INFERQ_"))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self { variables: ours.collect() }
    }

    /// One made of `variables`, for tests.
    #[must_use]
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { variables: owned.collect() }
    }

    /// The settings file that `INFERQ_CONFIG` names; empty counts as unset.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.variables.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

/// What one source sets, each key with where it was set.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    entries: BTreeMap<String, (Value, Origin)>,
}

impl Layer {
    /// The keys set here.
    pub(super) fn entries(&self) -> &BTreeMap<String, (Value, Origin)> {
        &self.entries
    }

    /// The compiled-in defaults in `text`.
    pub(super) fn defaults(text: &str) -> Result<Self, SettingsError> {
        Self::parse(text, Path::new("config/default.toml"), &Origin::Default)
    }

    /// The settings file at `path`.
    pub(super) fn file(path: &Path) -> Result<Self, SettingsError> {
        let unreadable = |reason: String| SettingsError::Unreadable { path: path.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > MAX_TEXT_FILE_BYTES {
            return Err(unreadable(format!("it has {size} bytes, at most {MAX_TEXT_FILE_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, path, &Origin::File(path.to_owned()))
    }

    fn parse(text: &str, path: &Path, origin: &Origin) -> Result<Self, SettingsError> {
        let tables = FileFormat::Toml.parse(None, text).map_err(|_| syntax_error(text, path))?;
        let mut layer = Self::default();
        layer.flatten("", tables, origin);
        Ok(layer)
    }

    /// Enters `tables` under `prefix`. An empty table is entered itself, so that an unknown one is noticed.
    fn flatten(&mut self, prefix: &str, tables: Map<String, Value>, origin: &Origin) {
        for (name, value) in tables {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value.kind {
                ValueKind::Table(inner) if !inner.is_empty() => self.flatten(&key, inner, origin),
                _ => {
                    self.entries.insert(key, (value, origin.clone()));
                }
            }
        }
    }

    /// The variables of `environment` that set a key. The kind of each is that of the key in `defaults`.
    pub(super) fn environment(environment: &Environment, defaults: &Self) -> Result<Self, SettingsError> {
        let mut layer = Self::default();
        for (name, text) in &environment.variables {
            let key = match name.strip_prefix(VARIABLE_PREFIX) {
                Some(rest) => rest.to_lowercase().replace("__", "."),
                None if name == URL_VARIABLE => "broker.url".to_owned(),
                None => continue,
            };
            // INFERQ_AMQP_URL sorts before INFERQ__BROKER__URL, which therefore wins where both are set.
            layer.set(key, text, Origin::Variable(name.clone()), defaults)?;
        }
        Ok(layer)
    }

    /// What the command line sets: `(key, value, option)`.
    pub(super) fn command_line(overrides: &[super::Override], defaults: &Self) -> Result<Self, SettingsError> {
        let mut layer = Self::default();
        for given in overrides {
            layer.set(given.key.clone(), &given.value, Origin::CommandLine(given.option.clone()), defaults)?;
        }
        Ok(layer)
    }

    fn set(&mut self, key: String, text: &str, origin: Origin, defaults: &Self) -> Result<(), SettingsError> {
        let kind = match defaults.entries.get(&key).map(|(value, _)| &value.kind) {
            Some(template) => read_as(template, text).ok_or_else(|| wrong_kind(&key, template, text, &origin))?,
            // An unknown key: `load` says so, with the nearest known one.
            None => ValueKind::String(text.to_owned()),
        };
        let value = Value::new(Some(&origin.to_string()), kind);
        self.entries.insert(key, (value, origin));
        Ok(())
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.entries.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect())
    }
}

/// Reads `text` as the kind of `template`.
fn read_as(template: &ValueKind, text: &str) -> Option<ValueKind> {
    match template {
        ValueKind::I64(_) => text.trim().parse().ok().map(ValueKind::I64),
        ValueKind::Boolean(_) => text.trim().parse().ok().map(ValueKind::Boolean),
        ValueKind::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(ValueKind::Array(items.map(|item| Value::new(None, item)).collect()))
        }
        _ => Some(ValueKind::String(text.to_owned())),
    }
}

/// Fails where `value` is not of the kind that `key` has in the defaults.
pub(super) fn check_kind(key: &str, value: &Value, default: &Value, origin: &Origin) -> Result<(), SettingsError> {
    let fits = match (&default.kind, &value.kind) {
        (ValueKind::I64(_), ValueKind::I64(number)) => *number >= 0,
        (ValueKind::Array(_), ValueKind::Array(items)) => {
            items.iter().all(|item| matches!(item.kind, ValueKind::String(_)))
        }
        (expected, actual) => std::mem::discriminant(expected) == std::mem::discriminant(actual),
    };
    if fits { Ok(()) } else { Err(wrong_kind(key, &default.kind, &value.to_string(), origin)) }
}

fn wrong_kind(key: &str, template: &ValueKind, text: &str, origin: &Origin) -> SettingsError {
    let expected = match template {
        ValueKind::I64(_) => "a whole number, 0 or more",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::Array(_) => "a list of words",
        _ => "a text in quotes",
    };
    let actual = if is_secret(key) { "something else".to_owned() } else { format!("`{text}`") };
    SettingsError::WrongKind { key: key.to_owned(), expected, actual, origin: origin.clone() }
}

/// Where and why `text` is no TOML. The line's content is left out: it may hold a password.
fn syntax_error(text: &str, path: &Path) -> SettingsError {
    let (line, reason) = match toml::from_str::<toml::Table>(text) {
        Ok(_) => (1, "no settings file".to_owned()),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            (line, error.message().replace('\n', ", "))
        }
    };
    SettingsError::Syntax { path: path.to_owned(), line, reason }
}
