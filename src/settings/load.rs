//! Defaults, file, environment, command line: laid over each other, checked for unknown keys, resolved.
//!
//! Called by `cli` once at the start. Pure but for the files it reads.

use std::path::PathBuf;

use config::{Config, Value, ValueKind};

use super::error::SettingsError;
use super::provenance::{Entry, Provenance, is_secret, without_password};
use super::raw::RawSettings;
use super::reference::{DEFAULTS, Reference};
use super::sources::{Environment, Layer, check_kind};
use super::{Settings, resolve};

/// What the command line has to say about settings.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--config`; `INFERQ_CONFIG` where it is `None`.
    pub file: Option<PathBuf>,
    /// What options set, the last one winning.
    pub overrides: Vec<Override>,
}

/// A key set by an option of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, `section.name`.
    pub key: String,
    /// Its value, as it would stand in the environment.
    pub value: String,
    /// The option that set it, for messages: `--set`.
    pub option: String,
}

impl Settings {
    /// Loads the settings from the defaults, the file that `options` or `INFERQ_CONFIG` names, the environment and
    /// `options`, and tells where each value came from.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(options: &LoadOptions) -> Result<(Self, Provenance), SettingsError> {
        Self::load_in(options, &Environment::of_process())
    }

    /// [`Settings::load`] in another environment than the process's own.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load_in(options: &LoadOptions, environment: &Environment) -> Result<(Self, Provenance), SettingsError> {
        let defaults = Layer::defaults(DEFAULTS)?;
        let file = options.file.clone().or_else(|| environment.file());
        let layers = [
            file.as_deref().map(Layer::file).transpose()?.unwrap_or_default(),
            Layer::environment(environment, &defaults)?,
            Layer::command_line(&options.overrides, &defaults)?,
        ];
        for layer in &layers {
            check_keys(layer, &defaults)?;
        }
        let provenance = provenance(&defaults, &layers);
        let builder =
            layers.into_iter().fold(Config::builder().add_source(defaults), |builder, layer| builder.add_source(layer));
        let raw: RawSettings = builder.build().and_then(Config::try_deserialize).map_err(|error| {
            // Keys and kinds were checked: this says that RawSettings and config/default.toml differ.
            SettingsError::OutOfBounds(vec![error.to_string()])
        })?;
        Ok((resolve::resolve(&raw)?, provenance))
    }
}

/// Fails on a key that the defaults do not have, or whose value is of another kind than theirs.
fn check_keys(layer: &Layer, defaults: &Layer) -> Result<(), SettingsError> {
    for (key, (value, origin)) in layer.entries() {
        match defaults.entries().get(key) {
            Some((default, _)) => check_kind(key, value, default, origin)?,
            None if is_empty_section(key, value, defaults) => {}
            None => {
                let known = defaults.entries().keys().map(String::as_str);
                let nearest = nearest(key, known).map(str::to_owned);
                return Err(SettingsError::UnknownKey { key: key.clone(), origin: origin.clone(), nearest });
            }
        }
    }
    Ok(())
}

/// Whether `key` is a known section without any key in it: nothing is set, nothing is wrong.
fn is_empty_section(key: &str, value: &Value, defaults: &Layer) -> bool {
    matches!(value.kind, ValueKind::Table(_))
        && defaults.entries().keys().any(|known| known.split('.').next() == Some(key))
}

/// The value and origin of every key: those of the last layer that sets it.
fn provenance(defaults: &Layer, layers: &[Layer]) -> Provenance {
    let entry = |key: String| {
        let last = layers.iter().rev().find_map(|layer| layer.entries().get(&key));
        let (value, origin) = last.or_else(|| defaults.entries().get(&key))?;
        Some(Entry { value: shown(&key, value), origin: origin.clone(), key })
    };
    Provenance::new(Reference::embedded().keys.into_iter().filter_map(|reference| entry(reference.key)).collect())
}

/// `value` as it may be shown: its secrets hidden.
fn shown(key: &str, value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::String(text) if is_secret(key) => without_password(text).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::Boolean(truth) => (*truth).into(),
        ValueKind::Array(items) => items.iter().map(|item| shown(key, item)).collect(),
        // Every other kind was refused but for texts.
        _ => value.to_string().into(),
    }
}

/// The known key most like `key`, if any is: by the whole key, or by its last part where that is all that was meant.
fn nearest<'known>(key: &str, known: impl Iterator<Item = &'known str>) -> Option<&'known str> {
    let name = last_part(key);
    let distance = |candidate: &str| {
        let by_name = edit_distance(name, last_part(candidate)) + 1;
        edit_distance(key, candidate).min(by_name)
    };
    let (best, found) = known.map(|candidate| (distance(candidate), candidate)).min()?;
    (best <= 1 + name.len() / 3).then_some(found)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Levenshtein's distance: insertions, deletions and replacements of one character that lead from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    // `row[j]` is the distance between the part of `a` seen so far and the first `j` characters of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::super::provenance::Origin;
    use super::*;

    fn load(environment: Environment) -> Result<(Settings, Provenance), SettingsError> {
        Settings::load_in(&LoadOptions::default(), &environment)
    }

    fn load_file(text: &str) -> Result<(Settings, Provenance), SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, text).unwrap();
        Settings::load_in(&LoadOptions { file: Some(path), overrides: Vec::new() }, &Environment::default())
    }

    #[test]
    fn the_defaults_are_sound() {
        let (settings, provenance) = load(Environment::default()).unwrap();
        assert_eq!(settings.service.audience, "inferq.v1");
        assert_eq!(settings.broker.connect_timeout.as_millis(), 5_000);
        assert!(provenance.entries().iter().all(|entry| entry.origin == Origin::Default));
    }

    #[test]
    fn the_example_is_sound() {
        let example = include_str!("../../config/worker.example.toml");
        assert_eq!(load_file(example).unwrap().0.models.serve, ["topic"]);
    }

    #[test]
    fn a_later_source_goes_before_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, "[broker]\nprefetch = 7\nheartbeat_s = 8\npublisher_channels = 9\n").unwrap();
        let environment = Environment::of([
            ("INFERQ_CONFIG", path.to_str().unwrap()),
            ("INFERQ__BROKER__HEARTBEAT_S", "18"),
            ("INFERQ__BROKER__PUBLISHER_CHANNELS", "19"),
        ]);
        let given = |key: &str, value: &str| Override { key: key.into(), value: value.into(), option: "--set".into() };
        let options = LoadOptions { file: None, overrides: vec![given("broker.publisher_channels", "29")] };
        let (settings, provenance) = Settings::load_in(&options, &environment).unwrap();
        assert_eq!(settings.broker.prefetch, 7);
        assert_eq!(settings.broker.heartbeat.as_secs(), 18);
        assert_eq!(settings.broker.publisher_channels, 29);
        assert_eq!(provenance.origin("broker.prefetch"), Some(&Origin::File(path)));
        assert_eq!(
            provenance.origin("broker.heartbeat_s"),
            Some(&Origin::Variable("INFERQ__BROKER__HEARTBEAT_S".into()))
        );
        assert_eq!(provenance.origin("broker.publisher_channels"), Some(&Origin::CommandLine("--set".into())));
        assert_eq!(provenance.origin("broker.delivery_limit"), Some(&Origin::Default));
    }

    #[test]
    fn the_short_variable_sets_the_url_and_the_full_one_goes_before_it() {
        let short = ("INFERQ_AMQP_URL", "amqp://a:b@one");
        let full = ("INFERQ__BROKER__URL", "amqp://a:b@two");
        assert_eq!(load(Environment::of([short])).unwrap().0.broker.url.expose_secret(), "amqp://a:b@one");
        assert_eq!(load(Environment::of([short, full])).unwrap().0.broker.url.expose_secret(), "amqp://a:b@two");
    }

    #[test]
    fn an_unknown_key_names_itself_its_place_and_the_nearest_known_one() {
        let error = load(Environment::of([("INFERQ__BROKER__PREFTECH", "7")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown setting `broker.preftech` in variable `INFERQ__BROKER__PREFTECH`: did you mean `broker.prefetch`?"
        );
        let error = load_file("prefetch = 3\n").unwrap_err().to_string();
        assert!(error.contains("`prefetch` in file") && error.contains("did you mean `broker.prefetch`?"), "{error}");
        let error = load_file("[wroker]\n").unwrap_err().to_string();
        assert!(error.contains("unknown setting `wroker`"), "{error}");
        let error = load_file("[broker]\ncolour = \"red\"\n").unwrap_err().to_string();
        assert!(error.contains("`broker.colour`") && !error.contains("did you mean"), "{error}");
        assert!(load_file("[broker]\n").is_ok(), "an empty section sets nothing");
    }

    #[test]
    fn a_value_of_another_kind_is_refused_wherever_it_stands() {
        let error = load(Environment::of([("INFERQ__BROKER__PREFETCH", "many")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`broker.prefetch` takes a whole number, 0 or more, `many` came from variable `INFERQ__BROKER__PREFETCH`"
        );
        for text in ["\"7\"", "7.5", "true", "-7", "[7]"] {
            let error = load_file(&format!("[broker]\nprefetch = {text}\n")).unwrap_err();
            assert!(matches!(error, SettingsError::WrongKind { .. }), "{text}: {error}");
        }
        let error = load_file("[models]\nserve = [1]\n").unwrap_err();
        assert!(matches!(error, SettingsError::WrongKind { .. }), "{error}");
        let error = load_file("broker = 5\n").unwrap_err();
        assert!(matches!(error, SettingsError::UnknownKey { .. }), "{error}");
    }

    #[test]
    fn lists_in_the_environment_are_parted_by_commas() {
        let serve = |text| load(Environment::of([("INFERQ__MODELS__SERVE", text)])).unwrap().0.models.serve;
        assert_eq!(serve("topic, tiny"), ["topic", "tiny"]);
        assert!(serve("").is_empty());
    }

    #[test]
    fn a_syntax_error_names_its_line_and_never_shows_it() {
        let error = load_file("[broker]\nurl = \"amqp://me:s3cret@host\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn no_error_and_no_listing_shows_the_password() {
        let (_, provenance) = load(Environment::of([("INFERQ_AMQP_URL", "amqp://me:s3cret@host:1/v")])).unwrap();
        let url = provenance.entries().iter().find(|entry| entry.key == "broker.url").unwrap();
        assert_eq!(url.value, "amqp://me:***@host:1/v");
        for text in
            ["url = [\"s3cret\"]", "url = { a = \"s3cret\" }", "url = \"s3cret\"", "url = \"http://a:s3cret@b\""]
        {
            let error = load_file(&format!("[broker]\n{text}\n")).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_the_environment_is_an_answer_and_never_a_panic(
            key in "[A-Z_]{0,24}", section in "(BROKER|MODELS|LIMITS|[A-Z]{0,8})", value in ".{0,40}"
        ) {
            let name = format!("INFERQ__{section}__{key}");
            _ = load(Environment::of([(name.as_str(), value.as_str())]));
        }

        #[test]
        fn whatever_stands_in_a_file_is_an_answer_and_never_a_panic(
            text in "(\\[(broker|models|x)\\]\n)?([a-z_.]{1,12} = [0-9a-z\"\\[\\]{},.-]{0,12}\n){0,4}"
        ) {
            if let Err(error) = load_file(&text) {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }

    #[test]
    fn distances_count_single_characters() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
        assert_eq!(edit_distance("abc", ""), 3);
    }
}
