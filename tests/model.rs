//! The models of the repository, seen from outside: loaded, asked, and refused where they are not what they say.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use inferq::backend::tract::Step;
use inferq::batch::batcher::SubmitOptions;
use inferq::batch::policy::BatchScope;
use inferq::batch::pool::JobClass;
use inferq::error::{ErrorCode, JobError};
use inferq::model::{
    About, ExplainRequest, LoadedModel, ModelOptions, ModelRepository, Optimization, Registration, Subject, Verdict,
    optimize, register, register_optimized,
};
use inferq::protocol::request::{InferInput, InferenceRequest, RequestBounds};
use inferq::protocol::response::{InferOutput, InferenceResponse};
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::{BatchingPolicy, BatchingSettings, ModelSettings, Objectives};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn options() -> ModelOptions {
    let batching = BatchingSettings {
        executors: 2,
        max_batch_size: 32,
        max_run: Duration::from_secs(60),
        max_waiting_rows: 1_024,
        policy: BatchingPolicy::Adaptive,
        objectives: Objectives { normal: Duration::from_secs(1), urgent: Duration::from_secs(1) },
    };
    ModelOptions {
        batching,
        observe: Arc::new(|_| Arc::new(|_| {})),
        wrap: Arc::new(|_, backend| backend),
        changed: Arc::new(|_, _| {}),
    }
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

/// The sample is 600 posts of the test split; the whole split has 0.920.
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
    let cases: [(&str, Harm, &[&str]); 12] = [
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
                fs::write(model.join("golden.json"), golden.replacen("5.263046", "5.2641", 1)).unwrap();
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
        (
            "filling that is a word",
            |model| replace(model, "pad_id = 0", "pad_id = 7"),
            &["does not answer as golden.json says: a row is answered otherwise in a batch than alone, by ", "pad_id"],
        ),
    ];
    for (name, harm, parts) in cases {
        let (_folder, directory) = copies(&[("topic", 1)]);
        harm(&directory.join("topic/1"));
        let error = open(&directory, &[]).map(|_| ()).expect_err(name);
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
    let (_folder, directory) = copies(&[("topic", 1)]);
    replace(&directory.join("topic/1"), "pad_id = 0", "pad_id = 7");
    replace(&directory.join("topic/1"), "max_batch_size = 32", "max_batch_size = 1");
    assert!(open(&directory, &[]).is_ok(), "filling is nothing to a model without batches");
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

/// A model in `directory` of the fixture `file`, described by `sections` of its model.toml.
fn put_fixture(directory: &Path, file: &str, sections: &str) -> PathBuf {
    let folder = directory.join(file).join("1");
    fs::create_dir_all(&folder).unwrap();
    let digest = "0".repeat(64);
    let head = format!(
        "name = \"{file}\"\nversion = 1\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\nbatch_scope = \"shared\"\n"
    );
    fs::write(folder.join("model.toml"), head + sections).unwrap();
    put_onnx(&folder, &fs::read(format!("{ROOT}/tests/fixtures/onnx/{file}.onnx")).unwrap());
    folder
}

fn of_files(name: &str, files: &[&[u8]]) -> Result<InferenceRequest, JobError> {
    let elements = TensorData::Bytes(files.iter().map(|file| file.to_vec()).collect());
    let tensor = Tensor::new(vec![files.len()], elements).unwrap();
    let inputs = vec![InferInput { name: name.to_owned(), tensor, binary_data: true }];
    let request = InferenceRequest { id: None, parameters: serde_json::Map::new(), inputs, outputs: Vec::new() };
    let body = request.encode().unwrap();
    InferenceRequest::decode(&body.bytes, body.json_length, &RequestBounds { max_rows: 16 })
}

fn patiently() -> SubmitOptions {
    SubmitOptions {
        deadline: Instant::now() + Duration::from_secs(60),
        class: JobClass::Normal,
        tenant: "t".into(),
        alone: false,
    }
}

async fn ask_with(model: &LoadedModel, name: &str, files: &[&[u8]]) -> Result<InferenceResponse, JobError> {
    let request = of_files(name, files)?;
    let facts = request.facts();
    let rows = model.prepare(request).await?;
    let answered = model.infer(rows, patiently()).await?;
    model.shape(answered, &facts)
}

/// The model that says how red, green and blue an image of 32 x 24 is; `postprocess` says what is made of that.
fn put_colours(repository: &Path, postprocess: &str) -> PathBuf {
    let sections = "[preprocess]\nkind = \"image\"\ninput = \"image\"\nwidth = 32\nheight = 24\nscale = 1.0\n\
         max_image_bytes = 100000\nmax_pixels = 10000\n\
         [[inputs]]\nname = \"image\"\ndatatype = \"FP32\"\nshape = [-1, 3, 24, 32]\n\
         [[outputs]]\nname = \"means\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n\
         [postprocess]\noutput = \"means\"\nlabels = \"labels.txt\"\n";
    let model = put_fixture(repository, "colours", &(sections.to_owned() + postprocess));
    fs::write(model.join("labels.txt"), "red\ngreen\nblue\n").unwrap();
    model
}

/// A black image with a red spot, which lies in one patch.
#[tokio::test]
async fn an_image_is_explained_patch_by_patch() {
    let folder = tempfile::tempdir().unwrap();
    put_colours(folder.path(), "kind = \"classification\"\nactivation = \"softmax\"\n");
    // 8 x 8 patches of 3 rows and 4 columns: the spot is the one in the sixth row and the second column.
    const PATCH: usize = 5 * 8 + 1;
    let spot = |x: u32, y: u32| (4..8).contains(&x) && (15..18).contains(&y);
    let picture = image::RgbImage::from_fn(32, 24, |x, y| image::Rgb(if spot(x, y) { [255, 0, 0] } else { [0; 3] }));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let colours = open(folder.path(), &[]).unwrap().resolve("colours", None, "a job").await.unwrap();

    for (explain, method) in
        [(json!("occlusion"), "occlusion"), (json!({"method": "shapley", "budget": 200}), "shapley")]
    {
        let mut request = of_files("image", &[&png.get_ref()[..]]).unwrap();
        request.parameters.insert("explain".to_owned(), explain);
        let (asked, facts) = (ExplainRequest::read(&request).unwrap().unwrap(), request.facts());
        let rows = colours.prepare(request).await.unwrap();
        let row = rows[0].clone();
        let answered = colours.infer(rows, patiently()).await.unwrap();
        let whole = answered[0].output.clone();
        let mut response = colours.shape(answered, &facts).unwrap();
        colours.explain(&asked, (row, &whole), &patiently(), &mut response).await.unwrap();
        let attributions = response.outputs.iter().find(|output| output.name == "attributions").unwrap();
        assert_eq!(attributions.tensor.shape(), [1, 8, 8], "{method}");
        for (patch, attribution) in floats(attributions).iter().enumerate() {
            // Black is what a patch becomes that is taken away: only the spot adds anything.
            let expected = if patch == PATCH { 0.5..1.0 } else { -1e-6..1e-6 };
            assert!(expected.contains(attribution), "{method}, patch {patch}: {attribution}");
        }
        let told = &response.parameters["explain"];
        assert_eq!((&told["label"], &told["method"]), (&json!("red"), &json!(method)));
        assert!(told["completeness_error"].as_f64().is_none_or(|error| error < 1e-5), "{told}");
    }
}

#[tokio::test]
async fn a_model_of_images_is_sent_files_and_held_to_golden_ones() {
    let folder = tempfile::tempdir().unwrap();
    let model = put_colours(folder.path(), "kind = \"multilabel\"\nactivation = \"none\"\nthreshold = 1.0\n");
    let images = format!("{ROOT}/tests/fixtures/images");
    let (png, jpeg) =
        (fs::read(format!("{images}/colours.png")).unwrap(), fs::read(format!("{images}/photo.jpg")).unwrap());
    // What Pillow makes of it, meant channel by channel.
    let pixels = fs::read(format!("{images}/colours-exact-bilinear.bin")).unwrap();
    let mean = |channel: usize| {
        pixels.iter().skip(channel).step_by(3).map(|byte| f64::from(*byte)).sum::<f64>() / f64::from(24 * 32)
    };
    let means = [mean(0), mean(1), mean(2)];
    fs::copy(format!("{images}/colours.png"), model.join("golden.png")).unwrap();
    let golden = json!([{"file": "golden.png", "outputs": {"means": means}}]);
    fs::write(model.join("golden.json"), golden.to_string()).unwrap();
    let colours = open(folder.path(), &[]).unwrap().resolve("colours", None, "a job").await.unwrap();
    let response = ask_with(&colours, "image", &[&png, &jpeg]).await.unwrap();
    let [labels, answered] = response.outputs.as_slice() else { panic!("{:?}", response.outputs) };
    for (own, mean) in floats(answered).iter().zip(means) {
        assert!((f64::from(*own) - mean).abs() < 1e-3, "{own} {mean}");
    }
    for (png, jpeg) in floats(answered).iter().zip(&floats(answered)[3..]) {
        assert!((png - jpeg).abs() < 2.0, "a photograph of the same: {png} {jpeg}");
    }
    let all: Vec<String> = serde_json::from_str(&strings(labels)[0]).unwrap();
    assert_eq!(all.len(), 3);
    let error = ask_with(&colours, "image", &[&png, b"GIF89a"]).await.unwrap_err();
    assert_eq!(error, JobError::new(ErrorCode::InvalidInput, "row 1 of input `image` is neither PNG nor JPEG"));
    let error = ask_with(&colours, "picture", &[&png]).await.unwrap_err();
    assert_eq!(error.message, "the model takes one input, `image`; `picture` came");

    let wrong = golden.to_string().replace("\"means\":[", "\"means\":[1.0,");
    fs::write(model.join("golden.json"), wrong).unwrap();
    let error = open(folder.path(), &[]).map(|_| ()).unwrap_err();
    assert!(error.contains("output `means` has 3 elements, 4 were expected"), "{error}");
}

#[tokio::test]
async fn a_model_of_files_sees_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let sections = "[preprocess]\nkind = \"bytes\"\ninput = \"bytes\"\nfirst = 4\nlast = 3\npad = 256\nstrip = true\n\
         max_file_bytes = 1000\n[[inputs]]\nname = \"bytes\"\ndatatype = \"INT32\"\nshape = [-1, 7]\n\
         [[outputs]]\nname = \"same\"\ndatatype = \"FP32\"\nshape = [-1, 7]\n[postprocess]\nkind = \"raw\"\n";
    put_fixture(folder.path(), "ends", sections);
    let ends = open(folder.path(), &[]).unwrap().resolve("ends", None, "a job").await.unwrap();
    let response = ask_with(&ends, "file", &[b" \xff\x00abcdefg\n", b"ab"]).await.unwrap();
    assert_eq!(floats(&response.outputs[0])[..7], [255.0, 0.0, 97.0, 98.0, 101.0, 102.0, 103.0]);
    assert_eq!(floats(&response.outputs[0])[7..], [97.0, 98.0, 256.0, 256.0, 256.0, 97.0, 98.0]);
    let error = ask_with(&ends, "file", &[&[0; 1_001]]).await.unwrap_err();
    assert_eq!(error.message, "row 0 of input `file` has 1001 bytes, at most 1000 are taken (max_file_bytes)");
}

#[tokio::test]
async fn a_model_of_texts_may_take_a_mask_beside_the_ids() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |name: &str| format!("[[inputs]]\nname = \"{name}\"\ndatatype = \"INT64\"\nshape = [-1, -1]\n");
    let sections = format!(
        "[preprocess]\nkind = \"text\"\ninput = \"ids\"\nattention_mask = \"mask\"\ntokenizer = \"tokenizer.json\"\n\
         max_tokens = 16\nmax_text_bytes = 1000\npad_id = 0\n{}{}[[outputs]]\nname = \"sums\"\ndatatype = \"FP32\"\n\
         shape = [-1, 2]\n[postprocess]\nkind = \"raw\"\n[batching]\nmax_batch_size = 4\n",
        tensor("mask"),
        tensor("ids"),
    );
    let model = put_fixture(folder.path(), "masked", &sections);
    fs::copy(format!("{ROOT}/tests/fixtures/bert_tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let masked = open(folder.path(), &[]).unwrap().resolve("masked", None, "a job").await.unwrap();
    let response = ask(&masked, &texts(&["hello world hello", "hello"])).await.unwrap();
    // [CLS] 1, hello 4, world 5, [SEP] 2: three words and one, with two special tokens each.
    assert_eq!(floats(&response.outputs[0]), [16.0, 5.0, 7.0, 3.0]);
    replace(&model, "pad_id = 0", "pad_id = 1");
    let error = open(folder.path(), &[]).map(|_| ()).unwrap_err();
    assert!(error.contains("pad_id is 1: 0 was expected where there is an attention_mask"), "{error}");
}

/// The labelled posts that lie beside the reference model.
fn posts(count: usize) -> Vec<(String, String)> {
    let lines = fs::read_to_string(format!("{ROOT}/models/topic/samples/posts.jsonl")).unwrap();
    let post = |line: &str| {
        let post: Value = serde_json::from_str(line).unwrap();
        (post["text"].as_str().unwrap().to_owned(), post["label"].as_str().unwrap().to_owned())
    };
    lines.lines().take(count).map(post).collect()
}

fn steps(steps: &[Step]) -> Optimization {
    Optimization { steps: steps.to_vec(), max_loss: 0.002, max_difference: 0.05, texts: Vec::new() }
}

#[tokio::test]
async fn the_reference_model_is_halved_and_serves_as_a_new_version() {
    let (_folder, path) = copies(&[("topic", 1)]);
    let subject = Subject::version(&path.join("topic/1")).unwrap();
    let asked = Optimization { texts: posts(120), max_loss: 0.01, ..steps(&[Step::Fold, Step::Half]) };
    let optimized = optimize(&subject, &asked).unwrap();
    let half = &optimized.steps[1];
    assert!(half.agreement.is_some(), "{half:?}");
    // What another process does to the clock may make a step useless; what it answers may not.
    assert!(matches!(half.verdict, Verdict::Kept | Verdict::Useless), "{half:?}");
    let agreement = half.agreement.as_ref().unwrap();
    assert!(agreement.max_difference > 0.0 && agreement.max_difference < 0.05, "{agreement:?}");
    assert!(agreement.equal_classes.unwrap() > 0.99, "{agreement:?}");
    assert!(optimized.before.accuracy.unwrap() > 0.85);
    assert!(half.file_bytes.unwrap() * 100 < optimized.before.file_bytes * 51, "{half:?}");
    if half.verdict == Verdict::Useless {
        return;
    }
    let (folder, spec) = register_optimized(&path, &subject, &optimized, &options()).unwrap();
    assert_eq!((folder, spec.version), (path.join("topic/2"), 2));
    assert!(spec.golden_tolerance > 1e-4 && spec.source.contains("version 1 of it, optimised:"), "{spec:?}");
    assert_eq!(
        fs::read(path.join("topic/2/golden.json")).unwrap(),
        fs::read(path.join("topic/1/golden.json")).unwrap()
    );
    let repository = open(&path, &[]).unwrap();
    let newest = repository.resolve("topic", None, "a job").await.unwrap();
    let response = ask(&newest, &texts(&["The shuttle put a satellite into orbit."])).await.unwrap();
    assert_eq!((response.model_version.as_str(), strings(&response.outputs[0])), ("2", vec!["science".to_owned()]));
    let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["topic"], "the staging folder is gone");
}

#[test]
fn a_step_that_loses_too_much_is_refused() {
    let (_folder, path) = copies(&[("topic", 1)]);
    let subject = Subject::version(&path.join("topic/1")).unwrap();
    let asked = Optimization { max_difference: 1e-7, ..steps(&[Step::Half]) };
    let optimized = optimize(&subject, &asked).unwrap();
    assert_eq!(optimized.steps[0].verdict, Verdict::Refused, "{:?}", optimized.steps);
    assert!(optimized.steps[0].reason.contains("at most 1e-7 is allowed"), "{:?}", optimized.steps);
    assert!(optimized.after.is_none() && optimized.agreement.is_none());
}

#[test]
fn a_model_without_an_embedding_has_none_to_fold() {
    let subject = Subject::version(&Path::new(ROOT).join("models/identity/1")).unwrap();
    let optimized = optimize(&subject, &steps(&[Step::Embedding])).unwrap();
    assert_eq!((optimized.steps[0].verdict, optimized.memory_bytes), (Verdict::Nothing, 0));
    let asked = Optimization { texts: posts(1), ..steps(&[Step::Fold]) };
    let error = optimize(&subject, &asked).unwrap_err().to_string();
    assert!(error.contains("labelled texts are for classifiers of texts"), "{error}");
}

#[tokio::test]
async fn a_name_that_leads_out_of_the_repository_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("models");
    fs::create_dir(&repository).unwrap();
    let asked = Registration {
        file: Path::new(ROOT).join("models/topic/1/model.onnx"),
        name: "../outside".to_owned(),
        version: Some(1),
        about: About::default(),
        labels: None,
        tokenizer: None,
        max_tokens: 128,
        pad_id: 0,
        batch_scope: BatchScope::Shared,
        max_batch_size: None,
        preprocess: None,
        golden: None,
        golden_tolerance: 1e-4,
    };
    let error = register(&repository, &asked, &options()).unwrap_err().to_string();
    assert!(error.contains("name is `../outside`: letters, digits"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "only the repository");
    assert_eq!(fs::read_dir(&repository).unwrap().count(), 0);
}
