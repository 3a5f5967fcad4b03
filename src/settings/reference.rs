//! The reference of every setting, read out of the comments of `config/default.toml`.
//!
//! `load` takes the set of known keys from here; a test writes `docs/configuration.md` with it. It never reads a file:
//! the defaults are compiled in.

use std::fmt::Write as _;

/// The defaults, as they stand in `config/default.toml`.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A setting as its author described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReference {
    /// The key, `section.name`.
    pub key: String,
    /// Its default in TOML's notation.
    pub default: String,
    /// The comment above it, as one line.
    pub meaning: String,
}

impl KeyReference {
    /// The unit that the key's name ends in; `None` for a count or a word.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        [("_ms", "milliseconds"), ("_s", "seconds"), ("_bytes", "bytes")]
            .into_iter()
            .find(|(suffix, _)| self.key.ends_with(suffix))
            .map(|(_, unit)| unit)
    }

    /// The variable of the environment that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("INFERQ__{}", self.key.replace('.', "__").to_uppercase())
    }

    /// The section's name.
    #[must_use]
    pub fn section(&self) -> &str {
        self.key.split('.').next().unwrap_or_default()
    }
}

/// Every setting, in the order of `config/default.toml`, and what each section is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The settings.
    pub keys: Vec<KeyReference>,
    /// Name and meaning of each section.
    pub sections: Vec<(String, String)>,
}

impl Reference {
    /// Reads the compiled-in defaults.
    #[must_use]
    pub fn embedded() -> Self {
        Self::read(DEFAULTS)
    }

    /// Reads the subset of TOML that `config/default.toml` keeps to: one line a key, its comment above it.
    fn read(text: &str) -> Self {
        let mut reference = Self { keys: Vec::new(), sections: Vec::new() };
        let mut comment = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(words) = line.strip_prefix('#') {
                if !comment.is_empty() {
                    comment.push(' ');
                }
                comment.push_str(words.trim());
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                reference.sections.push((name.to_owned(), std::mem::take(&mut comment)));
            } else if let Some((name, default)) = line.split_once(" = ") {
                let section = reference.sections.last().map_or("", |(section, _)| section);
                let key = format!("{section}.{name}");
                reference.keys.push(KeyReference {
                    key,
                    default: default.to_owned(),
                    meaning: std::mem::take(&mut comment),
                });
            } else {
                comment.clear();
            }
        }
        reference
    }

    /// The text of `docs/configuration.md`.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = String::from(PREFACE);
        for (section, meaning) in &self.sections {
            // Writing into a String cannot fail.
            let _ = write!(
                page,
                "\n## `[{section}]`\n\n{meaning}\n\n| key | unit | default | meaning |\n|---|---|---|---|\n"
            );
            for key in self.keys.iter().filter(|key| key.section() == section) {
                let name = key.key.rsplit('.').next().unwrap_or_default();
                let unit = key.unit().unwrap_or("");
                let _ = writeln!(page, "| `{name}` | {unit} | `{}` | {} |", key.default, key.meaning);
            }
        }
        page
    }
}

const PREFACE: &str = "\
# Configuration

<!-- Written from config/default.toml by `INFERQ_BLESS=1 cargo test --test documents`; do not edit by hand. -->

A value is taken from the last of these places that names it:

1. the defaults below, which are compiled in;
2. a TOML file, named by `--config FILE` or else by the variable `INFERQ_CONFIG`;
3. the environment: `INFERQ_AMQP_URL` for `broker.url`, and `INFERQ__SECTION__KEY` for every key
   (`INFERQ__BROKER__PREFETCH=128`; lists are separated by commas);
4. the command line: `--set section.key=value`, `--log-format`, `--log-filter`, `--quiet`.

A key that does not exist is an error that names the key, where it stands, and the known key that is most like it. Values are
checked against their bounds and against each other before anything starts. `inferq config check` prints every value, with
secrets hidden, and where it came from.

A key's name ends in its unit: `_ms` milliseconds, `_s` seconds, `_bytes` bytes. Without a unit it is a count or a word.
Relative paths start at the working directory.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_belongs_to_the_key_below_it_and_to_no_other() {
        let reference = Reference::read(
            "# About the file.\n\n# About a.\n[a]\n# First line\n# and second.\nwait_ms = 5\nbare = \"x\"\n",
        );
        assert_eq!(reference.sections, [("a".to_owned(), "About a.".to_owned())]);
        let keys: Vec<_> = reference.keys.iter().map(|key| (key.key.as_str(), key.meaning.as_str())).collect();
        assert_eq!(keys, [("a.wait_ms", "First line and second."), ("a.bare", "")]);
        assert_eq!(reference.keys[0].unit(), Some("milliseconds"));
        assert_eq!(reference.keys[0].variable(), "INFERQ__A__WAIT_MS");
        assert_eq!(reference.keys[1].unit(), None);
    }

    #[test]
    fn every_setting_and_section_says_what_it_means() {
        let reference = Reference::embedded();
        assert!(reference.keys.len() > 30, "{} keys", reference.keys.len());
        for key in &reference.keys {
            assert!(key.meaning.len() > 10 && key.meaning.ends_with('.'), "`{}` has no meaning", key.key);
        }
        for (section, meaning) in &reference.sections {
            assert!(meaning.ends_with('.'), "[{section}] has no meaning");
        }
    }

    #[test]
    fn the_reference_names_exactly_the_keys_that_toml_finds() {
        let table: toml::Table = DEFAULTS.parse().unwrap();
        let mut found: Vec<String> = table
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        let mut described: Vec<String> = Reference::embedded().keys.into_iter().map(|key| key.key).collect();
        found.sort();
        described.sort();
        assert_eq!(found, described);
    }
}
