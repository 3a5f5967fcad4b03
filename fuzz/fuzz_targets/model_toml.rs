//! Any text as a model.toml: taken with all its bounds checked, or refused with a reason.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use inferq::model::ModelSpec;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("topic/1");
    std::fs::create_dir_all(&folder).expect("a folder in it");
    (parent, folder)
});

fuzz_target!(|text: &str| {
    let folder = &FOLDER.1;
    std::fs::write(folder.join("model.toml"), text).expect("it can be written");
    if let Ok(spec) = ModelSpec::read(folder) {
        // What was taken says itself what it is.
        assert_eq!((spec.name.as_str(), spec.version), ("topic", 1));
    }
});
