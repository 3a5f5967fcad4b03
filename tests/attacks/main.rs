//! Attacks on a whole service: each changes a valid message or the setting, and must come to exactly one end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod bits;
mod canary;
mod forge;
mod isolation;
mod replays;
mod rotation;
mod shared;
mod shares;
mod table;

use inferq::protocol::properties::Message;

/// A request for the reference model.
fn text_request(text: &str) -> String {
    serde_json::json!({"id": "r", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]})
        .to_string()
}

/// The code that a dead letter carries.
fn code_of(letter: &Message) -> &str {
    letter.properties.text_header("x-inferq-error").unwrap_or_else(|| panic!("no code: {letter:?}"))
}
