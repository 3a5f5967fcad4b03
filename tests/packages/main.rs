//! Files and images through models of a repository, as a worker takes them; run by `make test-models`.
//!
//! Arguments: the repository, the cases to read, the answers to write. Judges nothing: what is compared, and with what, is
//! said by `judge.py`, which has the packages that the models come from.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inferq::batch::batcher::SubmitOptions;
use inferq::batch::pool::JobClass;
use inferq::model::{LoadedModel, ModelOptions};
use inferq::protocol::request::{InferInput, InferenceRequest, RequestedOutput};
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::{BatchingPolicy, BatchingSettings, Objectives};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

mod operators;

/// Runs of each file, of which the median time counts.
const RUNS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let (repository, cases, answers) = match arguments.as_slice() {
        [operators, cases, answers] if operators == "operators" => {
            return operators::run(Path::new(cases), Path::new(answers));
        }
        [repository, cases, answers] => (repository, cases, answers),
        _ => return Err("a repository, cases and answers were expected; see `make test-models`".into()),
    };
    let cases: Map<String, Value> = serde_json::from_slice(&fs::read(cases)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut told = Map::new();
    for (name, files) in cases {
        let answered = runtime.block_on(model(&Path::new(repository).join(&name).join("1"), &files))?;
        told.insert(name, answered);
    }
    fs::write(answers, serde_json::to_vec(&told)?)?;
    Ok(())
}

/// What the model in `folder` answers to each of `files`.
async fn model(folder: &Path, files: &Value) -> Result<Value> {
    let model = LoadedModel::load(folder, &options())?;
    let mut answered = Vec::new();
    for file in files.as_array().into_iter().flatten() {
        let path = file["path"].as_str().ok_or("a case has no path")?;
        let mut times = Vec::new();
        let mut last = Value::Null;
        for _ in 0..RUNS {
            let (outputs, run_us) = ask(&model, fs::read(path)?).await?;
            times.push(run_us);
            last = outputs;
        }
        times.sort_unstable();
        answered.push(json!({"outputs": last, "run_us": times.get(RUNS / 2)}));
    }
    Ok(answered.into())
}

/// The outputs of the graph, and the label, for one file; and how long it ran.
async fn ask(model: &LoadedModel, content: Vec<u8>) -> Result<(Value, u64)> {
    let spec = model.spec();
    let name = spec.preprocess.bytes_input().ok_or("the model takes no files")?.to_owned();
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![content]))?;
    let wanted =
        spec.outputs.iter().map(|output| output.name.clone()).chain(["label", "probabilities"].map(str::to_owned));
    let output = |name| RequestedOutput { name, classification: None, binary_data: false };
    let request = InferenceRequest {
        id: None,
        parameters: Map::new(),
        inputs: vec![InferInput { name, tensor, binary_data: true }],
        outputs: wanted.map(output).collect(),
    };
    let facts = request.facts();
    let rows = model.prepare(request).await.map_err(|error| error.message)?;
    let deadline = Instant::now() + Duration::from_secs(600);
    let options = SubmitOptions { deadline, class: JobClass::Normal, tenant: "packages".into(), alone: false };
    let inferred = model.infer(rows, options).await.map_err(|error| error.message)?;
    let response = model.shape(inferred, &facts).map_err(|error| error.message)?;
    let run_us = response.parameters.get("run_us").and_then(Value::as_u64).unwrap_or(0);
    let outputs = response.outputs.iter().map(|output| {
        let elements = match output.tensor.elements() {
            TensorData::Fp32(elements) => json!(elements),
            TensorData::Bytes(elements) => json!(elements.first().map(|own| String::from_utf8_lossy(own).into_owned())),
            other => json!(format!("{other:?}")),
        };
        (output.name.clone(), elements)
    });
    Ok((outputs.collect::<Map<_, _>>().into(), run_us))
}

fn options() -> ModelOptions {
    let batching = BatchingSettings {
        executors: 1,
        max_batch_size: 1,
        max_run: Duration::from_secs(600),
        max_waiting_rows: 64,
        policy: BatchingPolicy::Adaptive,
        objectives: Objectives { normal: Duration::from_secs(60), urgent: Duration::from_secs(60) },
    };
    ModelOptions {
        batching,
        observe: Arc::new(|_| Arc::new(|_| {})),
        wrap: Arc::new(|_, backend| backend),
        changed: Arc::new(|_, _| {}),
    }
}
