//! What a client makes of what it hears.

use super::*;
use crate::protocol::announcement::AnnouncedModel;

const LIFE: Duration = Duration::from_secs(35);

fn word(instance: &str, sequence: u64, models: &[(&str, &[u32])]) -> Announcement {
    let version = |version: &u32| AnnouncedVersion {
        version: *version,
        description: String::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        labels: Vec::new(),
        label_count: 0,
    };
    let model = |(name, versions): &(&str, &[u32])| AnnouncedModel {
        name: (*name).to_owned(),
        versions: versions.iter().map(version).collect(),
        aliases: Vec::new(),
    };
    let models = models.iter().map(model).collect();
    Announcement { instance: instance.into(), sequence, leaving: false, complete: true, models }
}

fn goodbye(instance: &str, sequence: u64) -> Announcement {
    Announcement { leaving: true, ..word(instance, sequence, &[]) }
}

fn asked(directory: &Directory, model: &str, now: Instant) -> Standing {
    directory.standing(&model.parse().unwrap(), now)
}

fn refusal(directory: &Directory, model: &str, now: Instant) -> String {
    match asked(directory, model, now) {
        Standing::Unknown(words) => words,
        other => panic!("{model}: {other:?}"),
    }
}

#[test]
fn replicas_are_counted_by_model_and_by_version() {
    let (mut directory, now) = (Directory::default(), Instant::now());
    assert!(directory.hear(word("a", 1, &[("topic", &[1]), ("other", &[7])]), LIFE, now));
    assert!(directory.hear(word("b", 1, &[("topic", &[1, 2])]), LIFE, now + Duration::from_secs(1)));
    let listed = directory.list(now + Duration::from_secs(3));
    let names: Vec<_> = listed.iter().map(|model| (model.name.as_str(), model.replicas, model.last_heard_ms)).collect();
    assert_eq!(names, [("other", 1, 3_000), ("topic", 2, 2_000)]);
    let versions: Vec<_> = listed[1].versions.iter().map(|version| (version.told.version, version.replicas)).collect();
    assert_eq!(versions, [(1, 2), (2, 1)]);
}

#[test]
fn one_that_says_goodbye_or_nothing_is_gone_and_no_old_word_brings_it_back() {
    let (mut directory, now) = (Directory::default(), Instant::now());
    directory.hear(word("a", 1, &[("topic", &[1])]), LIFE, now);
    directory.hear(word("b", 1, &[("topic", &[1])]), LIFE, now);
    assert!(directory.hear(goodbye("a", 2), LIFE, now));
    assert_eq!(directory.list(now)[0].replicas, 1);
    assert!(!directory.hear(word("a", 1, &[("topic", &[1])]), LIFE, now), "a word of before the goodbye");
    assert!(!directory.hear(word("a", 2, &[("topic", &[1])]), LIFE, now), "the same number once more");
    assert_eq!(directory.list(now)[0].replicas, 1);
    assert!(directory.list(now + LIFE).is_empty(), "nothing was heard of b for the life of its word");
}

#[test]
fn unknown_names_are_refused_with_the_near_ones_first() {
    let (mut directory, now) = (Directory::default(), Instant::now());
    directory.hear(word("a", 1, &[("identity", &[1]), ("magika", &[1]), ("topic", &[1, 3])]), LIFE, now);
    assert_eq!(asked(&directory, "topic", now), Standing::Served);
    assert_eq!(asked(&directory, "topic:3", now), Standing::Served);
    let words = refusal(&directory, "topik", now);
    assert_eq!(words, "no worker serves a model `topik` for this tenant; served are `topic`, `magika` and `identity`");
    assert_eq!(refusal(&directory, "topic:2", now), "model `topic` has no version 2; it has 1 and 3");
}

#[test]
fn nothing_is_refused_on_silence_on_half_a_word_or_while_a_known_model_is_away() {
    let (mut directory, now) = (Directory::default(), Instant::now());
    assert_eq!(asked(&directory, "topic", now), Standing::Untold);
    directory.hear(word("a", 1, &[("topic", &[1])]), LIFE, now);
    directory.hear(word("b", 1, &[("other", &[1])]), LIFE, now);
    directory.hear(goodbye("a", 2), LIFE, now);
    assert_eq!(asked(&directory, "topic", now), Standing::Away);
    refusal(&directory, "third", now);
    directory.hear(Announcement { complete: false, ..word("b", 2, &[("other", &[1])]) }, LIFE, now);
    assert_eq!(asked(&directory, "third", now), Standing::Untold);
    directory.hear(goodbye("b", 3), LIFE, now);
    assert_eq!(asked(&directory, "third", now), Standing::Untold, "nobody is left to say what there is");
}

#[test]
fn what_is_remembered_is_bounded() {
    let (mut directory, now) = (Directory::default(), Instant::now());
    for number in 0..MAX_HEARD_WORKERS {
        assert!(directory.hear(word(&number.to_string(), 1, &[]), LIFE, now));
    }
    assert!(!directory.hear(word("one more", 1, &[]), LIFE, now));
    assert!(directory.hear(word("0", 2, &[]), LIFE, now), "those that are known go on to be heard");
    assert!(directory.hear(word("one more", 1, &[]), LIFE, now + LIFE), "the silent ones make room");
}

#[test]
fn a_refusal_does_not_list_a_thousand_names() {
    let words = listed((0..25).map(|number| number.to_string()).collect());
    assert_eq!(words, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more");
}
