//! docs/configuration.md says what config/default.toml says. `INFERQ_BLESS=1` writes it anew.

use std::path::Path;

use inferq::settings::reference::Reference;

#[test]
fn the_reference_of_settings_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let expected = Reference::embedded().markdown();
    if std::env::var_os("INFERQ_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "docs/configuration.md differs from config/default.toml; run `INFERQ_BLESS=1 cargo test --test configuration`"
    );
}
