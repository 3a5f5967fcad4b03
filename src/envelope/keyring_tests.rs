//! Tests of what a key ring refuses as a whole.

use std::fs;
use std::path::Path;

use super::*;
use crate::envelope::generate;

fn ring_of(tenants: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for tenant in tenants {
        generate(folder.path(), tenant, &Grant::new(tenant, vec!["*".into()])).unwrap();
    }
    folder
}

fn grant(folder: &Path, tenant: &str, change: impl FnOnce(&mut Grant)) {
    let mut grant = Grant::new(tenant, vec!["*".into()]);
    change(&mut grant);
    fs::write(folder.join(tenant).join(TENANT_FILE), toml::to_string(&grant).unwrap()).unwrap();
}

fn refusal(folder: &Path) -> String {
    Keyring::load(folder).unwrap_err().to_string()
}

/// Writes the key of one file into another, under the id that it has there.
fn copy_key(folder: &Path, tenant: &str, (from, to): (Direction, Direction), name: &str) {
    let file = |direction: Direction| folder.join(tenant).join(format!("{}.jwk", direction.file_stem()));
    let (_, key) = jwk::read(&file(from), tenant, from, KeyAccess::Owner).unwrap();
    let path = folder.join(tenant).join(name);
    let _none = fs::remove_file(&path);
    jwk::write(&path, &jwk::key_id(tenant, to, &key), &key).unwrap();
}

#[test]
fn one_key_has_one_purpose() {
    let folder = ring_of(&["acme"]);
    copy_key(folder.path(), "acme", (Direction::Request, Direction::Response), "response.jwk");
    assert!(refusal(folder.path()).contains("holds the same key as"), "{}", refusal(folder.path()));
}

#[test]
fn one_file_has_one_key() {
    let folder = ring_of(&["acme"]);
    fs::copy(folder.path().join("acme/request.jwk"), folder.path().join("acme/request-old.jwk")).unwrap();
    assert!(refusal(folder.path()).contains("holds the same key as"), "{}", refusal(folder.path()));
}

#[test]
fn a_group_may_read_where_that_is_set_and_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = ring_of(&["acme"]);
    let file = folder.path().join("acme/request.jwk");
    for (mode, owner, group) in [
        (0o600, true, true),
        (0o400, true, true),
        (0o440, false, true),
        (0o640, false, true),
        (0o660, false, false),
        (0o444, false, false),
        (0o604, false, false),
        (0o610, false, false),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Keyring::load(folder.path()).is_ok(), owner, "{mode:o}");
        assert_eq!(Keyring::load_with(folder.path(), KeyAccess::OwnerAndGroup).is_ok(), group, "{mode:o}");
    }
}

#[test]
fn only_request_keys_expire_and_only_those_that_exist() {
    let folder = ring_of(&["acme"]);
    let ring = Keyring::load(folder.path()).unwrap();
    let (request, response) =
        (ring.request_key("acme").unwrap().id.clone(), ring.sealing_key("acme").unwrap().id.clone());
    for (id, part) in [(response, "request keys alone"), ("acme.req.AAAAAAAAAAAAAAAA".to_owned(), "is no key of this")]
    {
        grant(folder.path(), "acme", |grant| _ = grant.key_expires.insert(id, UnixSeconds(1)));
        assert!(refusal(folder.path()).contains(part), "{}", refusal(folder.path()));
    }
    grant(folder.path(), "acme", |grant| _ = grant.key_expires.insert(request.clone(), UnixSeconds(10)));
    let ring = Keyring::load(folder.path()).unwrap();
    let key = ring.key(&request).unwrap();
    assert!(key.is_active(UnixSeconds(9)) && !key.is_active(UnixSeconds(10)));
}

#[test]
fn a_further_key_opens_beside_the_first() {
    let folder = ring_of(&["acme", "spare"]);
    // The spare tenant's key, as the new key of the first.
    let (_, key) =
        jwk::read(&folder.path().join("spare/request.jwk"), "spare", Direction::Request, KeyAccess::Owner).unwrap();
    fs::remove_dir_all(folder.path().join("spare")).unwrap();
    let id = jwk::key_id("acme", Direction::Request, &key);
    jwk::write(&folder.path().join("acme/request-2027.jwk"), &id, &key).unwrap();
    let ring = Keyring::load(folder.path()).unwrap();
    assert_eq!(ring.list().len(), 3);
    assert!(ring.key(&id).is_some() && ring.request_key("acme").unwrap().id != id);
}

#[test]
fn a_prefix_that_covers_anothers_queues_is_refused() {
    let folder = ring_of(&["a", "b"]);
    assert!(Keyring::load(folder.path()).is_ok());
    grant(folder.path(), "b", |grant| grant.reply_prefix = "a.b.".into());
    assert!(refusal(folder.path()).ends_with("reply_prefix `a.` covers reply queues of tenant `b`"));
}

#[test]
fn a_misspelt_revocation_is_not_passed_over() {
    let folder = ring_of(&["acme"]);
    grant(folder.path(), "acme", |grant| grant.revoked_keys = vec!["acme.req.AAAAAAAAAAAAAAAA".into()]);
    assert!(refusal(folder.path()).contains("is no key of this tenant"), "{}", refusal(folder.path()));
}

#[test]
fn the_key_that_seals_replies_cannot_be_revoked() {
    let folder = ring_of(&["acme"]);
    let id = Keyring::load(folder.path()).unwrap().sealing_key("acme").unwrap().id.clone();
    grant(folder.path(), "acme", |grant| grant.revoked_keys = vec![id]);
    assert!(refusal(folder.path()).contains("which seals the replies"), "{}", refusal(folder.path()));
}

#[test]
fn no_debug_form_shows_a_key() {
    let folder = ring_of(&["acme"]);
    let text = fs::read_to_string(folder.path().join("acme/request.jwk")).unwrap();
    let jwk: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ring = Keyring::load(folder.path()).unwrap();
    let shown = format!("{ring:?}");
    assert!(shown.contains("hidden") && !shown.contains(jwk["k"].as_str().unwrap()));
    let bytes = format!("{:?}", ring.request_key("acme").unwrap().wrapping.expose());
    assert!(!shown.contains(&bytes));
}
