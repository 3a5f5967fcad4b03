#!/usr/bin/env bash
# Changes the envelope's code one operator or one answer at a time, and tells which change no unit test notices.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

VERSION=25.3.1

case ${1:-} in
-h | --help)
    echo "usage: mutants.sh [file...]"
    echo
    echo "Runs cargo-mutants on files of src/envelope (default: open.rs, replay.rs, claims.rs, tenant.rs, rate.rs), with the unit"
    echo "tests of the envelope. Installs cargo-mutants under target/. The report lies in target/mutants/mutants.out."
    exit
    ;;
esac

need_rust
root=$PWD
tools=$root/target/tools
[ -x "$tools/bin/cargo-mutants" ] || cargo install --quiet --locked --root "$tools" --version "$VERSION" cargo-mutants

# The envelope and what it stands on, as a crate of their own: a change is built and tried in seconds, without models and broker.
crate=$root/target/mutants
rm -rf "$crate/src" "$crate/tests" "$crate/mutants.out"
mkdir -p "$crate/src" "$crate/tests" "$crate/models"
cp -r src/envelope src/protocol src/error.rs src/limits.rs "$crate/src/"
cp -r tests/vectors "$crate/tests/"
cp Cargo.lock "$crate/"
printf '//! The envelope by itself.\npub mod envelope;\npub mod error;\npub mod limits;\npub mod protocol;\n' >"$crate/src/lib.rs"
sed -e '/^default-run/d' -e '/^\[\[/,/^$/d' Cargo.toml >"$crate/Cargo.toml"
printf '\n[workspace]\n' >>"$crate/Cargo.toml"
# Only the crates that these modules name, and none of the features of the whole.
used="aes-gcm aes-kw base64 hmac sha2 getrandom secrecy zeroize bytes half serde serde_json toml thiserror uuid tracing rustix tempfile
    tokio insta proptest"
awk -v used="$used" '
    BEGIN { count = split(used, names); for (i = 1; i <= count; i++) keep[names[i]] = 1 }
    /^\[/ { section = $0 }
    section == "[features]" { next }
    section ~ /dependencies/ && /^[a-z]/ && !($1 in keep) { next }
    { print }
' "$crate/Cargo.toml" >"$crate/Cargo.lean" && mv "$crate/Cargo.lean" "$crate/Cargo.toml"

files=()
for file in "${@:-open.rs replay.rs claims.rs tenant.rs rate.rs}"; do
    for name in $file; do files+=(--file "src/envelope/$name"); done
done
cd "$crate"
# 2: some change was not noticed; 3: some change made a test hang, which is noticing. The report says which.
PATH="$tools/bin:$PATH" cargo mutants --in-place --timeout 60 "${files[@]}" --test-tool cargo -- --lib envelope || [[ $? == [23] ]]
