//! Any bytes as texts: masked and tokenized to rows within their bounds, with the reference model's tokenizer, or refused.
//!
//! Texts are parted by zero bytes.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use inferq::model::ModelSpec;
use inferq::preprocess::{MaskKind, PreprocessSpec, Preprocessor};
use inferq::protocol::request::{InferInput, InferenceRequest};
use inferq::protocol::tensor::{Tensor, TensorData};
use libfuzzer_sys::fuzz_target;

static TOPIC: LazyLock<Preprocessor> = LazyLock::new(|| {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/topic/1"));
    let mut spec = ModelSpec::read(folder).expect("the reference model");
    if let PreprocessSpec::Text(text) = &mut spec.preprocess {
        text.mask = vec![MaskKind::Email, MaskKind::Phone, MaskKind::Card, MaskKind::Ip];
    }
    Preprocessor::load(&spec.preprocess, &spec.inputs, folder).expect("its tokenizer")
});

fuzz_target!(|bytes: &[u8]| {
    let texts: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).take(64).map(<[u8]>::to_vec).collect();
    let count = texts.len();
    let tensor = Tensor::new(vec![count], TensorData::Bytes(texts)).expect("as many elements as the shape says");
    let input = InferInput { name: "text".to_owned(), tensor, binary_data: false };
    let request =
        InferenceRequest { id: None, parameters: serde_json::Map::new(), inputs: vec![input], outputs: Vec::new() };
    if let Ok(rows) = TOPIC.prepare(request) {
        assert_eq!(rows.len(), count);
    }
});
