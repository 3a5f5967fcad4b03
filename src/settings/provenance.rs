//! Where each value came from, and how it is shown: with secrets hidden.
//!
//! Made by `load`, printed by `inferq config check`.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Keys whose values are secrets, or hold one.
const SECRET_KEYS: [&str; 2] = ["broker.url", "worker.replay_redis_url"];
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Where a value came from. Later ones in this list go before earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults that are compiled in.
    Default,
    /// A settings file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// An option of the command line.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("the defaults"),
            Self::File(path) => write!(formatter, "file `{}`", path.display()),
            Self::Variable(name) => write!(formatter, "variable `{name}`"),
            Self::CommandLine(option) => write!(formatter, "option `{option}`"),
        }
    }
}

/// One key's value as it may be shown, and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key, `section.name`.
    pub key: String,
    /// Its value, secrets hidden. Written out it is JSON, and TOML as well: no value is a table.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Origin,
}

/// Where each value came from, sorted as `config/default.toml` is.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    entries: Vec<Entry>,
}

impl Provenance {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Every key with its value and origin.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the value of `key` came from; `None` for a key that does not exist.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin)
    }
}

/// Whether the value of `key` is a secret, or holds one.
pub(super) fn is_secret(key: &str) -> bool {
    SECRET_KEYS.contains(&key)
}

/// A URL with its password hidden; all of it is hidden where it has no form that tells the password's place.
pub(super) fn without_password(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    if scheme.ends_with("unix") {
        return format!("{scheme}://{}", without_query(rest));
    }
    // A password may hold `/` or `@` unescaped by mistake: everything up to the last `@` counts as credentials.
    let Some((credentials, place)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    let user = credentials.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:{HIDDEN}@{place}")
}

/// The path of a socket. A Redis there has its password in the query: `unix:///run/redis?pass=...`.
fn without_query(place: &str) -> Cow<'_, str> {
    match place.split_once('?') {
        Some((before, query)) if query.contains("pass") => Cow::Owned(format!("{before}?{HIDDEN}")),
        Some(_) | None => Cow::Borrowed(place),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_password_is_ever_shown(user in "[a-z]{1,8}", password in "[A-Z0-9@:/%?#]{4,24}", host in "[a-z]{1,8}") {
            let shown = without_password(&format!("amqp://{user}:{password}@{host}:5672/v"));
            prop_assert_eq!(shown, format!("amqp://{user}:***@{host}:5672/v"));
        }
    }

    #[test]
    fn a_password_is_hidden_and_the_rest_of_the_url_is_not() {
        assert_eq!(without_password("amqp://me:s3cret@host:5672/%2f"), "amqp://me:***@host:5672/%2f");
        assert_eq!(without_password("amqp://me:s3@c/ret@host"), "amqp://me:***@host");
        assert_eq!(without_password("amqp://host/v"), "amqp://host/v");
        assert_eq!(without_password("amqp://host/v?heartbeat=5"), "amqp://host/v?heartbeat=5");
        assert_eq!(without_password("unix:///run/redis?db=1&user=me&pass=s3cret"), "unix:///run/redis?***");
        assert_eq!(without_password("unix:///run/redis?pass=s3@c?ret"), "unix:///run/redis?***");
        assert_eq!(without_password("me:s3cret@host"), "***");
    }
}
