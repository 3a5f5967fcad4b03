//! Any bytes as a request of the Open Inference Protocol v2. What is taken can be written, and read again as the same.
//!
//! Three bytes say where the JSON ends (0 for JSON alone), the rest is the plaintext.
#![no_main]

use inferq::protocol::request::{InferenceRequest, RequestBounds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(([high, middle, low], plaintext)) = bytes.split_first_chunk() else { return };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    let bounds = RequestBounds { max_rows: 64 };
    let Ok(request) = InferenceRequest::decode(plaintext, (length > 0).then_some(length), &bounds) else { return };
    assert!(request.rows() <= bounds.max_rows);
    if let Ok(written) = request.encode() {
        let read =
            InferenceRequest::decode(&written.bytes, written.json_length, &bounds).expect("what we wrote is read");
        assert_eq!(read.rows(), request.rows());
    }
});
