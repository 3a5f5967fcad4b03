//! Any bytes as a request of the Open Inference Protocol v2. What is taken can be written, and read again as the same.
//!
//! Three bytes say where the JSON ends (0 for JSON alone), the rest is the plaintext.
#![no_main]

use inferq::protocol::request::{InferenceRequest, RequestBounds};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let Some(([high, middle, low], plaintext)) = bytes.split_first_chunk() else { return };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    let bounds = RequestBounds { max_rows: 64 };
    let Ok(request) = InferenceRequest::decode(plaintext, (length > 0).then_some(length), &bounds) else { return };
    assert!(request.rows() <= bounds.max_rows);
    let written = request.encode().expect("what was read can be written");
    let read = InferenceRequest::decode(&written.bytes, written.json_length, &bounds).expect("what we wrote is read");
    assert_eq!(read.id, request.id);
    assert!(are_alike(&read.parameters, &request.parameters), "{:?}, {:?}", read.parameters, request.parameters);
    assert_eq!(read.outputs, request.outputs);
    assert_eq!(read.inputs.len(), request.inputs.len());
    // Not whether they are binary: of tensors without elements nothing lies behind the JSON.
    for (read, came) in read.inputs.iter().zip(&request.inputs) {
        assert_eq!((&read.name, &read.tensor), (&came.name, &came.tensor));
    }
});

fn are_alike(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.len() == other.len()
        && one.iter().all(|(name, value)| other.get(name).is_some_and(|found| is_alike(value, found)))
}

/// Whether values are the same, up to the last bit of a float: serde_json reads those fast, and not always to the nearest.
fn is_alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap_or_default(), other.as_f64().unwrap_or_default());
            (one - other).abs() <= one.abs() * 4.0 * f64::EPSILON || one.to_bits().abs_diff(other.to_bits()) <= 4
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => are_alike(one, other),
        (one, other) => one == other,
    }
}
