//! Any bytes as a response or an error of the Open Inference Protocol v2, as a client reads it.
//!
//! Three bytes say where the JSON ends (0 for JSON alone), the rest is the plaintext.
#![no_main]

use inferq::client::Prediction;
use inferq::protocol::response::ResponseBody;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(([high, middle, low], plaintext)) = bytes.split_first_chunk() else { return };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if let Ok(ResponseBody::Result(response)) = ResponseBody::decode(plaintext, (length > 0).then_some(length)) {
        drop(Prediction::read_all(&response));
    }
});
