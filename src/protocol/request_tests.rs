//! Tests of reading and writing requests.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::protocol::strategies_tests::tensor;
use crate::protocol::tensor::{Tensor, TensorData};

const BOUNDS: RequestBounds = RequestBounds { max_rows: 4 };

fn decode(value: &Value) -> Result<InferenceRequest, JobError> {
    InferenceRequest::decode(value.to_string().as_bytes(), None, &BOUNDS)
}

fn text_input(shape: &Value, data: &Value) -> Value {
    json!({"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": data}]})
}

#[test]
fn a_request_of_texts_is_read() {
    let request = decode(&json!({
        "id": "42",
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]}],
        "outputs": [{"name": "label", "parameters": {"classification": 3}}]
    }))
    .unwrap();
    assert_eq!(request.rows(), 2);
    assert_eq!(request.id.as_deref(), Some("42"));
    assert_eq!(request.outputs[0].classification, Some(3));
    assert_eq!(request.inputs[0].tensor.elements(), &TensorData::Bytes(vec![b"one".to_vec(), b"two".to_vec()]));
}

#[test]
fn each_fault_has_its_code_and_names_the_place() {
    let cases = [
        (json!([]), ErrorCode::MalformedRequest, "wrong kind"),
        (json!({"inputs": []}), ErrorCode::MalformedRequest, "1 to 64 inputs"),
        (json!({"inputs": [], "surprise": 1}), ErrorCode::MalformedRequest, "unknown field"),
        (json!({"id": "x"}), ErrorCode::MalformedRequest, "`inputs` is missing"),
        (text_input(&json!([2]), &json!(["one"])), ErrorCode::InvalidInput, "holds 2 elements, 1 came"),
        (text_input(&json!([-1]), &json!(["one"])), ErrorCode::InvalidInput, "negative axis"),
        (text_input(&json!([]), &json!(["one"])), ErrorCode::InvalidInput, "0 axes"),
        (text_input(&json!([0]), &json!([])), ErrorCode::InvalidInput, "no rows"),
        (text_input(&json!([5]), &json!(["", "", "", "", ""])), ErrorCode::InputTooLarge, "5 rows"),
        (text_input(&json!([i64::MAX, i64::MAX]), &json!([])), ErrorCode::InvalidInput, "too large a shape"),
    ];
    for (value, code, part) in cases {
        let error = decode(&value).unwrap_err();
        assert_eq!(error.code, code, "{value}");
        assert!(error.message.contains(part), "{value}: {}", error.message);
    }
}

/// Regression: the one output that was not to be binary among all others was written as if it said nothing, and read as binary.
#[test]
fn what_an_output_says_against_the_rest_is_written() {
    let request = decode(&json!({
        "parameters": {"binary_data_output": true},
        "inputs": text_input(&json!([1]), &json!(["a"]))["inputs"],
        "outputs": [{"name": "label", "parameters": {"binary_data": false}}, {"name": "logits"}],
    }))
    .unwrap();
    let written = request.encode().unwrap();
    let read = InferenceRequest::decode(&written.bytes, written.json_length, &BOUNDS).unwrap();
    assert_eq!(read.outputs, request.outputs);
    assert_eq!(read.outputs.iter().map(|output| output.binary_data).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn nan_in_json_is_named() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let json = format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":[{word}]}}]}}"#);
        let error = InferenceRequest::decode(json.as_bytes(), None, &BOUNDS).unwrap_err();
        assert_eq!(error.code, ErrorCode::MalformedRequest);
        assert!(error.message.contains("NaN or infinity"), "{word}: {}", error.message);
    }
}

#[test]
fn what_is_too_large_is_refused_before_its_elements_are_read() {
    let of = |shape: Value, datatype: &str| {
        decode(&json!({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": ["not read"]}]}))
            .unwrap_err()
    };
    for (shape, datatype, part) in
        [(json!([5]), "INT8", "5 rows"), (json!([1, 65_537]), "BYTES", "65537 BYTES elements")]
    {
        let error = of(shape, datatype);
        assert_eq!(error.code, ErrorCode::InputTooLarge);
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn nested_arrays_follow_the_shape() {
    let of =
        |data: Value| decode(&json!({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT8", "data": data}]}));
    let flat = of(json!([1, 2, 3, 4])).unwrap();
    assert_eq!(of(json!([[1, 2], [3, 4]])).unwrap(), flat);
    let error = of(json!([[1, 2, 3], [4]])).unwrap_err();
    assert!(error.message.contains("nested as shape [2, 2] says"), "{}", error.message);
}

#[test]
fn a_deep_body_is_refused_and_does_not_overflow_the_stack() {
    let deep = "[".repeat(200_000);
    for json in [
        format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":{deep}1{}}}]}}"#, "]".repeat(200_000)),
        format!(r#"{{"parameters":{{"a":{deep}{}}},"inputs":[]}}"#, "]".repeat(200_000)),
    ] {
        assert!(InferenceRequest::decode(json.as_bytes(), None, &BOUNDS).is_err());
    }
}

#[test]
fn a_fault_never_quotes_content() {
    let secret = "canary-4711";
    for value in [
        json!({"inputs": secret}),
        json!({"inputs": [{"name": "x", "shape": [1], "datatype": secret, "data": [1]}]}),
        json!({"inputs": [], secret: 1}),
        json!({"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [secret]}]}),
        json!({"inputs": [{"name": "x", "shape": [secret], "datatype": "INT8", "data": [1]}]}),
    ] {
        let message = decode(&value).unwrap_err().message;
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn binary_data_must_be_used_up_exactly() {
    let json = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT16","parameters":{"binary_data_size":4}}]}"#;
    let with = |tail: &[u8]| {
        let body = [json.as_slice(), tail].concat();
        InferenceRequest::decode(&body, Some(json.len()), &BOUNDS)
    };
    assert_eq!(with(&[1, 0, 2, 0]).unwrap().inputs[0].tensor.elements(), &TensorData::Int16(vec![1, 2]));
    assert!(with(&[1, 0, 2]).unwrap_err().message.contains("3 bytes are left"));
    assert!(with(&[1, 0, 2, 0, 9]).unwrap_err().message.contains("1 bytes lie behind"));
    let beyond = InferenceRequest::decode(json, Some(json.len() + 1), &BOUNDS).unwrap_err();
    let expected = format!(
        "header `inference-header-content-length` is {}, but the body has {} bytes",
        json.len() + 1,
        json.len()
    );
    assert_eq!(beyond.message, expected);
}

proptest! {
    #[test]
    fn a_request_reads_back_as_written(
        texts in proptest::collection::vec(".{0,12}", 1..4),
        binary_data: bool,
        k in proptest::option::of(1_usize..9),
    ) {
        let elements = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let tensor = Tensor::new(vec![texts.len()], TensorData::Bytes(elements)).unwrap();
        let request = InferenceRequest {
            id: Some("id".into()),
            parameters: Map::new(),
            inputs: vec![InferInput { name: "text".into(), tensor, binary_data }],
            outputs: vec![RequestedOutput { name: "label".into(), classification: k, binary_data: false }],
        };
        let body = request.encode().unwrap();
        prop_assert_eq!(InferenceRequest::decode(&body.bytes, body.json_length, &BOUNDS).unwrap(), request);
    }

    #[test]
    fn tensors_of_every_datatype_read_back_as_written(tensor in tensor(2), binary_data: bool) {
        let request = InferenceRequest {
            id: None,
            parameters: Map::new(),
            inputs: vec![InferInput { name: "x".into(), tensor, binary_data }],
            outputs: Vec::new(),
        };
        let body = request.encode().unwrap();
        let read = InferenceRequest::decode(&body.bytes, body.json_length, &BOUNDS).unwrap();
        prop_assert_eq!(&read.inputs[0].tensor, &request.inputs[0].tensor);
    }

    #[test]
    fn a_damaged_request_never_panics(tensor in tensor(2), place: prop::sample::Index, byte: u8) {
        let inputs = vec![InferInput { name: "x".into(), tensor, binary_data: false }];
        let request = InferenceRequest { id: None, parameters: Map::new(), inputs, outputs: Vec::new() };
        let mut body = request.encode().unwrap();
        let index = place.index(body.bytes.len());
        body.bytes[index] = byte;
        let _either = InferenceRequest::decode(&body.bytes, body.json_length, &BOUNDS);
        body.bytes.truncate(index);
        prop_assert!(InferenceRequest::decode(&body.bytes, body.json_length, &BOUNDS).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in any::<Option<usize>>()) {
        let _either = InferenceRequest::decode(&bytes, cut, &BOUNDS);
    }
}
