//! How a job names a model: `name` or `name:version`.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_MODEL_NAME_CHARS;

/// A model's name, and a version where one is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// The name: letters, digits, `-`, `_`; it is part of queue and folder names.
    pub name: String,
    /// The version; the highest served one where `None`.
    pub version: Option<u32>,
}

/// A text is no reference to a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefError {
    /// The name has a character that queue and folder names must not have, or a length they cannot.
    #[error(
        "a model's name has 1 to {MAX_MODEL_NAME_CHARS} letters, digits, `-` or `_`, and starts with a letter or digit"
    )]
    Name,
    /// The version is no positive number.
    #[error("a model's version is a whole number from 1 on")]
    Version,
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, version) = match text.split_once(':') {
            Some((name, version)) => (name, Some(parse_version(version)?)),
            None => (text, None),
        };
        if !is_model_name(name) {
            return Err(ModelRefError::Name);
        }
        Ok(Self { name: name.to_owned(), version })
    }
}

fn parse_version(text: &str) -> Result<u32, ModelRefError> {
    // `u32::from_str` takes a leading `+` and zeros, which would give one version several names.
    let canonical = !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical).ok_or(ModelRefError::Version)
}

/// Whether `name` can be a model's name.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    name.len() <= MAX_MODEL_NAME_CHARS
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

impl fmt::Display for ModelRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(formatter, "{}:{version}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_as_written() {
        for text in ["topic", "topic:1", "a-b_c:4294967295"] {
            assert_eq!(text.parse::<ModelRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_could_escape_a_folder_or_a_queue_is_no_name() {
        for text in ["", ":1", "../x", "a/b", "a.b", "-x", "a b", "topic:", "topic:0", "topic:+1", "topic:01", "t:1:2"]
        {
            assert!(text.parse::<ModelRef>().is_err(), "{text}");
        }
    }
}
