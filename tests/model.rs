//! The models of the repository, seen from outside: loaded, asked, and refused where they are not what they say.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use inferq::batch::batcher::SubmitOptions;
use inferq::batch::pool::JobClass;
use inferq::error::{ErrorCode, JobError};
use inferq::model::{LoadedModel, ModelOptions, ModelRepository};
use inferq::protocol::request::{InferenceRequest, RequestBounds};
use inferq::protocol::response::{InferOutput, InferenceResponse};
use inferq::protocol::tensor::TensorData;
use inferq::settings::{BatchingPolicy, BatchingSettings, ModelSettings, Objectives};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn options() -> ModelOptions {
    let batching = BatchingSettings {
        executors: 2,
        max_batch_size: 32,
        max_waiting_rows: 1_024,
        policy: BatchingPolicy::Adaptive,
        objectives: Objectives { normal: Duration::from_secs(1), urgent: Duration::from_secs(1) },
    };
    ModelOptions { batching, observe: Arc::new(|_| Arc::new(|_| {})), substitute: None, changed: Arc::new(|_, _| {}) }
}

fn open(directory: &Path, serve: &[&str]) -> Result<ModelRepository, String> {
    let serve = serve.iter().map(|name| (*name).to_owned()).collect();
    let settings =
        ModelSettings { directory: directory.to_owned(), serve, watch_interval: None, memory_budget_bytes: None };
    ModelRepository::open(&settings, &options()).map_err(|error| error.to_string())
}

fn shipped() -> ModelRepository {
    open(&Path::new(ROOT).join("models"), &[]).unwrap()
}

/// A repository of copies of shipped models: `<model>/<version>` of each.
fn copies(models: &[(&str, u32)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (model, version) in models {
        let copy = folder.path().join(model).join(version.to_string());
        fs::create_dir_all(&copy).unwrap();
        for file in fs::read_dir(format!("{ROOT}/models/{model}/1")).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        replace(&copy, "version = 1", &format!("version = {version}"));
    }
    let path = folder.path().to_owned();
    (folder, path)
}

fn replace(model: &Path, from: &str, to: &str) {
    let path = model.join("model.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Gives a model another ONNX file, with its digest.
fn put_onnx(model: &Path, onnx: &[u8]) {
    let digest: String = Sha256::digest(onnx).iter().map(|byte| format!("{byte:02x}")).collect();
    let spec = fs::read_to_string(model.join("model.toml")).unwrap();
    let own = spec.lines().find(|line| line.starts_with("sha256")).unwrap();
    fs::write(model.join("model.toml"), spec.replace(own, &format!("sha256 = \"{digest}\""))).unwrap();
    fs::write(model.join("model.onnx"), onnx).unwrap();
}

async fn ask(model: &LoadedModel, request: &Value) -> Result<InferenceResponse, JobError> {
    let bounds = RequestBounds { max_rows: 1_024 };
    let request = InferenceRequest::decode(request.to_string().as_bytes(), None, &bounds)?;
    let facts = request.facts();
    let rows = model.prepare(request).await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let answered = model
        .infer(rows, SubmitOptions { deadline, class: JobClass::Normal, tenant: "t".into(), alone: false })
        .await?;
    model.shape(answered, &facts)
}

fn texts(texts: &[&str]) -> Value {
    json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [texts.len()], "data": texts}]})
}

fn strings(output: &InferOutput) -> Vec<String> {
    match output.tensor.elements() {
        TensorData::Bytes(elements) => elements.iter().map(|e| String::from_utf8(e.clone()).unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

fn floats(output: &InferOutput) -> &[f32] {
    match output.tensor.elements() {
        TensorData::Fp32(elements) => elements,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_text_is_answered_with_its_label_and_probabilities() {
    let topic = shipped().resolve("topic", None, "a job").await.unwrap();
    let sentences = ["The shuttle put a satellite into orbit.", "The church and the gospel, he said."];
    let response = ask(&topic, &texts(&sentences)).await.unwrap();
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("topic", "1"));
    let [label, probabilities] = response.outputs.as_slice() else { panic!("{:?}", response.outputs) };
    assert_eq!((label.name.as_str(), strings(label)), ("label", vec!["science".into(), "religion".into()]));
    assert_eq!((probabilities.name.as_str(), probabilities.tensor.shape()), ("probabilities", &[2, 5][..]));
    for row in floats(probabilities).chunks(5) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[tokio::test]
async fn outputs_are_answered_as_they_are_asked_for() {
    let topic = shipped().resolve("topic", Some(1), "a job").await.unwrap();
    let mut request = texts(&["the goalie scored in the third period"]);
    request["id"] = json!("g-1");
    request["outputs"] = json!([
        {"name": "logits"},
        {"name": "probabilities", "parameters": {"classification": 2}},
        {"name": "label", "parameters": {"classification": 9}}
    ]);
    let response = ask(&topic, &request).await.unwrap();
    assert_eq!(response.id.as_deref(), Some("g-1"));
    let [logits, top, all] = response.outputs.as_slice() else { panic!("{:?}", response.outputs) };
    assert_eq!(logits.tensor.shape(), [1, 5]);
    assert_eq!(top.tensor.shape(), [1, 2]);
    assert!(strings(top)[0].ends_with(":1:recreation"), "{:?}", strings(top));
    assert_eq!(all.tensor.shape(), [1, 5], "more than there are is all of them");
    let unknown = json!([{"name": "scores"}]);
    request["outputs"] = unknown;
    let error = ask(&topic, &request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput);
    assert!(error.message.contains("`scores`; it has `label`, `probabilities`, `logits`"), "{}", error.message);
}

/// The sample is 600 posts of the test split; the whole split has 0.917.
#[tokio::test]
async fn the_sample_is_classified_as_well_as_the_card_says() {
    let topic = shipped().resolve("topic", None, "a job").await.unwrap();
    let posts = fs::read_to_string(format!("{ROOT}/models/topic/samples/posts.jsonl")).unwrap();
    let posts: Vec<Value> = posts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let asked = posts.iter().map(|post| {
        let topic = &topic;
        async move {
            let response = ask(topic, &texts(&[post["text"].as_str().unwrap()])).await.unwrap();
            strings(&response.outputs[0])[0] == post["label"].as_str().unwrap()
        }
    });
    let right = join_all(asked).await.into_iter().filter(|right| *right).count();
    assert!(right * 100 >= posts.len() * 89, "{right} of {} posts", posts.len());
}

#[tokio::test]
async fn a_job_of_many_rows_is_answered_row_by_row() {
    let topic = shipped().resolve("topic", None, "a job").await.unwrap();
    let sentences: Vec<String> = (1..=70).map(|words| "space orbit church hockey ".repeat(words)).collect();
    let together: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let together = ask(&topic, &texts(&together)).await.unwrap();
    for (sentence, together) in sentences.iter().zip(floats(&together.outputs[1]).chunks(5)) {
        let alone = ask(&topic, &texts(&[sentence])).await.unwrap();
        let worst = floats(&alone.outputs[1]).iter().zip(together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }
}

#[tokio::test]
async fn the_identity_answers_what_it_was_sent() {
    let identity = shipped().resolve("identity", None, "a job").await.unwrap();
    let numbers: Vec<f32> = (0_u8..28).map(|i| f32::from(i) / 3.0).collect();
    let request = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [7, 4], "data": numbers}]});
    let response = ask(&identity, &request).await.unwrap();
    assert_eq!(response.outputs.len(), 1);
    assert_eq!((response.outputs[0].name.as_str(), response.outputs[0].tensor.shape()), ("y", &[7, 4][..]));
    assert_eq!(floats(&response.outputs[0]), numbers);
    let ranked = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
        "outputs": [{"name": "y", "parameters": {"classification": 1}}]
    });
    assert_eq!(ask(&identity, &ranked).await.unwrap_err().code, ErrorCode::InvalidInput);
}

#[tokio::test]
async fn several_models_and_versions_are_served_side_by_side() {
    let (_folder, directory) =
        copies(&[("topic", 1), ("topic", 3), ("identity", 1), ("identity", 2), ("identity", 10)]);
    // Neither is a version: left alone.
    fs::create_dir_all(directory.join("topic/training")).unwrap();
    fs::create_dir_all(directory.join(".cache/1")).unwrap();
    let repository = open(&directory, &[]).unwrap();
    assert_eq!(repository.names(), ["identity", "topic"]);
    let repository = &repository;
    let version =
        |name, version| async move { repository.resolve(name, version, "a job").await.unwrap().spec().version };
    assert_eq!((version("identity", None).await, version("topic", None).await), (10, 3), "no version is the highest");
    assert_eq!((version("identity", Some(2)).await, version("topic", Some(1)).await), (2, 1));
    let unknown = |name, version| async move { repository.resolve(name, version, "a job").await.unwrap_err() };
    let cases = [
        (unknown("topic", Some(2)).await, "model `topic` has no version 2; it has 1 and 3"),
        (unknown("identity", Some(3)).await, "model `identity` has no version 3; it has 1, 2 and 10"),
        (unknown("tropic", None).await, "there is no model `tropic`; served are `identity` and `topic`"),
    ];
    for (error, message) in cases {
        assert_eq!(error, JobError::new(ErrorCode::UnknownModel, message));
    }
    let one = open(&directory, &["identity"]).unwrap();
    assert_eq!(one.names(), ["identity"]);
    assert_eq!(
        one.resolve("topic", None, "a job").await.unwrap_err().message,
        "there is no model `topic`; served are `identity`"
    );
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_with_the_file_and_the_fault() {
    type Harm = fn(&Path);
    let cut: Harm = |model| {
        let whole = fs::read(model.join("model.onnx")).unwrap();
        fs::write(model.join("model.onnx"), &whole[..whole.len() / 2]).unwrap();
    };
    let cut_and_signed: Harm = |model| {
        let whole = fs::read(model.join("model.onnx")).unwrap();
        put_onnx(model, &whole[..whole.len() / 2]);
    };
    let cases: [(&str, Harm, &[&str]); 11] = [
        ("cut short", cut, &["model.onnx` has SHA-256", "changed or cut short"]),
        ("cut short and signed", cut_and_signed, &["`topic` version 1 cannot be loaded: model.onnx: "]),
        ("no file", |model| fs::remove_file(model.join("model.onnx")).unwrap(), &["model.onnx` cannot be read"]),
        ("no labels", |model| fs::remove_file(model.join("labels.txt")).unwrap(), &["labels", "labels.txt`"]),
        ("no tokenizer", |model| fs::remove_file(model.join("tokenizer.json")).unwrap(), &["tokenizer.json`"]),
        ("no spec", |model| fs::remove_file(model.join("model.toml")).unwrap(), &["1/model.toml`"]),
        (
            "a label too few",
            |model| fs::write(model.join("labels.txt"), "a\nb\nc\nd\n").unwrap(),
            &["labels.txt`", "has 4 labels, output `logits` has 5 classes"],
        ),
        (
            "another number of classes",
            |model| replace(model, "shape = [-1, 5]", "shape = [-1, 6]"),
            &["has 5 labels, output `logits` has 6 classes"],
        ),
        ("another key", |model| replace(model, "licence", "license"), &["unknown field `license`"]),
        (
            "another answer",
            |model| {
                let golden = fs::read_to_string(model.join("golden.json")).unwrap();
                fs::write(model.join("golden.json"), golden.replacen("4.877213", "4.8782", 1)).unwrap();
            },
            &["does not answer as golden.json says", "sample 0: output `logits` differs by 2.0e-4, at most 1e-4"],
        ),
        (
            "another vocabulary",
            |model| {
                let golden = fs::read_to_string(model.join("golden.json")).unwrap();
                fs::write(model.join("golden.json"), golden.replacen("graphics", "orbit", 1)).unwrap();
            },
            &["sample 0: the text is tokenized to other ids"],
        ),
    ];
    for (name, harm, parts) in cases {
        let (_folder, directory) = copies(&[("topic", 1)]);
        harm(&directory.join("topic/1"));
        let error = open(&directory, &[]).map(|_| ()).expect_err(name);
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
}

#[tokio::test]
async fn golden_requests_are_held_to_as_well() {
    let (_folder, directory) = copies(&[("identity", 1)]);
    let golden = directory.join("identity/1/golden.json");
    let written = fs::read_to_string(&golden).unwrap();
    let cases = [
        (written.replace("\"y\": [0, 1", "\"y\": [0, 1.01"), "output `y` differs by 9.9e-3"),
        (written.replace("\"y\": [0, ", "\"y\": ["), "output `y` has 8 elements, 7 were expected"),
        (written.replace("\"y\"", "\"z\""), "the model has no output `z`"),
        (written.replace("\"x\"", "\"w\""), "the model has no input `w`"),
        (written.replace("\"request\"", "\"text\": \"a\", \"request\""), "were expected"),
        ("[]".to_owned(), "the file has no sample"),
    ];
    for (harmed, part) in cases {
        assert_ne!(harmed, written);
        fs::write(&golden, harmed).unwrap();
        let error = open(&directory, &[]).map(|_| ()).unwrap_err();
        assert!(error.contains("`identity` version 1 does not answer") && error.contains(part), "{error}");
    }
    replace(&directory.join("identity/1"), "batch_scope", "golden_tolerance = 0.05\nbatch_scope");
    fs::write(&golden, written.replace("\"y\": [0, 1", "\"y\": [0, 1.01")).unwrap();
    assert!(open(&directory, &[]).is_ok(), "the model allows as much");
    fs::remove_file(&golden).unwrap();
    assert!(open(&directory, &[]).is_ok(), "a model without golden.json is served");
}

#[tokio::test]
async fn faults_of_a_request_name_what_the_model_takes() {
    let models = shipped();
    let (topic, identity) = (
        models.resolve("topic", None, "a job").await.unwrap(),
        models.resolve("identity", None, "a job").await.unwrap(),
    );
    let text = |shape: Value, data: Value| json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": shape, "data": data}]});
    let long = "a".repeat(262_145);
    let numbers = |name: &str, datatype: &str, shape: Value| json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": [1, 2, 3, 4]}]});
    let cases = [
        (&topic, text(json!([2]), json!(["fine", ""])), ErrorCode::InvalidInput, "row 1"),
        (&topic, text(json!([1]), json!(["?!"])), ErrorCode::InvalidInput, "has no word in its 2 bytes"),
        (&topic, text(json!([1, 2]), json!(["a", "b"])), ErrorCode::InvalidInput, "[N] or [N, 1] was expected"),
        (&topic, text(json!([1]), json!([long])), ErrorCode::InputTooLarge, "262145 bytes, at most 262144"),
        (&topic, numbers("input_ids", "INT64", json!([1, 4])), ErrorCode::InvalidInput, "takes one input, `text`"),
        (&identity, numbers("x", "FP64", json!([1, 4])), ErrorCode::InvalidInput, "is FP64, FP32 was expected"),
        (&identity, numbers("x", "FP32", json!([2, 2])), ErrorCode::InvalidInput, "[2, 2], [-1, 4] was expected"),
        (&identity, numbers("z", "FP32", json!([1, 4])), ErrorCode::InvalidInput, "no input `z`; it takes `x`"),
    ];
    for (model, request, code, part) in cases {
        let error = ask(model, &request).await.unwrap_err();
        assert!(error.code == code && error.message.contains(part), "{error}");
    }
    let column = ask(&topic, &text(json!([2, 1]), json!(["orbit", "church"]))).await.unwrap();
    assert_eq!(column.outputs[0].tensor.shape(), [2]);
}

#[tokio::test]
async fn a_value_that_is_not_finite_fails_its_job_alone() {
    let (_folder, directory) = copies(&[("identity", 1)]);
    let model = directory.join("identity/1");
    put_onnx(&model, &fs::read(format!("{ROOT}/tests/fixtures/onnx/reciprocal.onnx")).unwrap());
    fs::remove_file(model.join("golden.json")).unwrap();
    replace(&model, "[-1, 4]", "[-1, 2]");
    replace(&model, "[-1, 4]", "[-1, 2]");
    let reciprocal = open(&directory, &[]).unwrap().resolve("identity", None, "a job").await.unwrap();
    let request = |x: f32| json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [x, 2.0]}]});
    let asked = [4.0, 0.0, 8.0].map(|x| {
        let reciprocal = &reciprocal;
        async move { ask(reciprocal, &request(x)).await }
    });
    let [sound, failed, also_sound] = join_all(asked).await.try_into().unwrap();
    assert_eq!(floats(&sound.unwrap().outputs[0]), [0.25, 0.5]);
    assert_eq!(floats(&also_sound.unwrap().outputs[0]), [0.125, 0.5]);
    let failed = failed.unwrap_err();
    assert_eq!(failed.code, ErrorCode::InferenceFailed);
    assert!(failed.message.contains("not finite for row 0"), "{failed}");
}
