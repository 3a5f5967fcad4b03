//! What a model answers to a sample of its own kind: kept as its golden answers, and measured for what batches bring.
//!
//! Used where a model is added. Texts are two sentences; tensors are numbers of a fixed seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::ModelSpec;
use super::golden::{distance, elements};
use crate::backend::Backend;
use crate::batch::row::{Batch, Row, RowOutput};
use crate::preprocess::{PreprocessSpec, Preprocessor};
use crate::protocol::request::{InferInput, InferenceRequest};
use crate::protocol::tensor::{Datatype, Tensor, TensorData};
use crate::protocol::tensor_spec::TensorSpec;
use crate::seeded::Seeded;

const TEXTS: [&str; 2] =
    ["The quick brown fox jumps over the lazy dog.", "A goalie stopped every shot in the third period of the game."];
/// What open axes of a tensor are sampled with.
const OPEN_AXIS: usize = 8;
/// Rows of the batch that is measured against single rows.
const MEASURED_BATCH: usize = 8;
/// Runs of each, of which the fastest counts.
const MEASURED_RUNS: usize = 3;
/// A batch gains where a row in it takes less than this share of the time of a row alone.
const GAIN: f64 = 0.8;

/// What a sample has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Sampled {
    /// The answers, as golden.json has them.
    #[serde(skip)]
    pub golden: String,
    /// Milliseconds of a row alone.
    pub row_ms: f64,
    /// Milliseconds of a row in a batch of eight; nothing where the model takes no batch, or answers it otherwise.
    pub row_in_batch_ms: Option<f64>,
    /// Why batches are not for it.
    pub batch_fault: Option<String>,
    /// Whether batches pay.
    pub gains: bool,
    /// The outputs whose rows were probabilities: none below 0, and 1 together.
    pub probabilities: Vec<String>,
}

pub(super) fn sample(
    spec: &ModelSpec,
    preprocessor: &Preprocessor,
    backend: Arc<dyn Backend>,
) -> Result<Sampled, String> {
    let request = request(preprocessor)?;
    let body = request.encode().map_err(|error| error.message)?;
    let written: serde_json::Value = serde_json::from_slice(&body.bytes).map_err(|error| error.to_string())?;
    let rows = preprocessor.prepare(request).map_err(|error| error.message)?;
    let (sampled, alone) = measured(spec, &*backend, &rows)?;
    Ok(Sampled { golden: golden(spec, written, &rows, &alone), ..sampled })
}

/// What `rows` show, but for their golden answers; and what the model answers to each alone.
pub(super) fn measured(
    spec: &ModelSpec,
    backend: &dyn Backend,
    rows: &[Row],
) -> Result<(Sampled, Vec<RowOutput>), String> {
    let mut alone = Vec::with_capacity(rows.len());
    for row in rows {
        let output = backend.run(&Batch { rows: vec![row.clone()] }).map_err(|error| error.to_string())?;
        alone.extend(output.rows);
    }
    let row_ms = fastest(backend, rows, 1)?;
    let in_batch = in_batch(spec, backend, rows, &alone);
    let (row_in_batch_ms, batch_fault) = match in_batch {
        Ok(milliseconds) => (Some(milliseconds), None),
        Err(fault) => (None, Some(fault)),
    };
    let gains = row_in_batch_ms.is_some_and(|in_batch| in_batch < GAIN * row_ms);
    let is_probability = |index: &usize| alone.iter().all(|row| row.outputs.get(*index).is_some_and(sums_to_one));
    let own = spec.outputs.iter().enumerate().filter(|(index, _)| is_probability(index));
    let probabilities = own.map(|(_, output)| output.name.clone()).collect();
    Ok((Sampled { golden: String::new(), row_ms, row_in_batch_ms, batch_fault, gains, probabilities }, alone))
}

/// The rows of a sample.
pub(super) fn sample_rows(preprocessor: &Preprocessor) -> Result<Vec<Row>, String> {
    preprocessor.prepare(request(preprocessor)?).map_err(|error| error.message)
}

/// Whether a row's numbers are shares of a whole.
fn sums_to_one(tensor: &Tensor) -> bool {
    let numbers = elements(tensor);
    let sum: f64 = numbers.iter().sum();
    numbers.len() > 1 && numbers.iter().all(|x| *x >= 0.0) && (sum - 1.0).abs() < 1e-3
}

/// Milliseconds of a row in a batch, where rows in a batch are answered as they are alone.
fn in_batch(spec: &ModelSpec, backend: &dyn Backend, rows: &[Row], alone: &[RowOutput]) -> Result<f64, String> {
    backend.prepare(rows.len(), rows.iter().map(|row| row.length).max().unwrap_or(0));
    let together = backend.run(&Batch { rows: rows.to_vec() }).map_err(|error| error.to_string())?;
    for (own, other) in alone.iter().zip(&together.rows) {
        for (own, other) in own.outputs.iter().zip(&other.outputs) {
            let worst = distance(&elements(other), &elements(own));
            if worst.is_nan() || worst > spec.golden_tolerance {
                return Err(format!("a row is answered otherwise in a batch than alone: by {worst:.1e}"));
            }
        }
    }
    fastest(backend, rows, MEASURED_BATCH)
}

/// Milliseconds of a row in a batch of `size`, of the fastest run; the first one compiles and does not count.
fn fastest(backend: &dyn Backend, rows: &[Row], size: usize) -> Result<f64, String> {
    let batch = Batch { rows: rows.iter().take(1).cycle().take(size).cloned().collect() };
    backend.prepare(size, batch.padded_length());
    let mut best = Duration::MAX;
    for run in 0..=MEASURED_RUNS {
        let began = Instant::now();
        backend.run(&batch).map_err(|error| error.to_string())?;
        best = if run == 0 { best } else { best.min(began.elapsed()) };
    }
    Ok(best.as_secs_f64() * 1e3 / size as f64)
}

fn request(preprocessor: &Preprocessor) -> Result<InferenceRequest, String> {
    let inputs = match preprocessor {
        Preprocessor::Text(_) => {
            let texts = TensorData::Bytes(TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect());
            vec![input("text", vec![TEXTS.len()], texts)?]
        }
        Preprocessor::Image(_) | Preprocessor::Bytes(..) => {
            return Err("a model of images or files needs golden answers of its own".to_owned());
        }
        Preprocessor::Tensor(specs) => {
            let mut seeded = Seeded::new(1);
            specs.iter().map(|spec| numbers(spec, &mut seeded)).collect::<Result<_, _>>()?
        }
    };
    Ok(InferenceRequest { id: None, parameters: serde_json::Map::new(), inputs, outputs: Vec::new() })
}

fn input(name: &str, shape: Vec<usize>, elements: TensorData) -> Result<InferInput, String> {
    let tensor = Tensor::new(shape, elements).map_err(|error| error.to_string())?;
    Ok(InferInput { name: name.to_owned(), tensor, binary_data: false })
}

/// Two rows of numbers: floats from -1 to 1, whole numbers 0 and 1, since they may be an index into little.
fn numbers(spec: &TensorSpec, seeded: &mut Seeded) -> Result<InferInput, String> {
    let axes = spec.row_axes().map(|axis| axis.unwrap_or(OPEN_AXIS));
    let shape: Vec<usize> = std::iter::once(2).chain(axes).collect();
    let count = shape.iter().product();
    let bits: Vec<bool> = (0..count).map(|_| seeded.below(2) == 1).collect();
    let float = |seeded: &mut Seeded| (seeded.below(2_000_001) as f64 / 1e6 - 1.0) as f32;
    let elements = match spec.datatype {
        Datatype::Bool => TensorData::Bool(bits),
        Datatype::Int8 => TensorData::Int8(bits.into_iter().map(i8::from).collect()),
        Datatype::Int16 => TensorData::Int16(bits.into_iter().map(i16::from).collect()),
        Datatype::Int32 => TensorData::Int32(bits.into_iter().map(i32::from).collect()),
        Datatype::Int64 => TensorData::Int64(bits.into_iter().map(i64::from).collect()),
        Datatype::Uint8 => TensorData::Uint8(bits.into_iter().map(u8::from).collect()),
        Datatype::Uint16 => TensorData::Uint16(bits.into_iter().map(u16::from).collect()),
        Datatype::Uint32 => TensorData::Uint32(bits.into_iter().map(u32::from).collect()),
        Datatype::Uint64 => TensorData::Uint64(bits.into_iter().map(u64::from).collect()),
        Datatype::Fp16 => TensorData::Fp16((0..count).map(|_| half::f16::from_f32(float(seeded))).collect()),
        Datatype::Fp32 => TensorData::Fp32((0..count).map(|_| float(seeded)).collect()),
        Datatype::Fp64 => TensorData::Fp64((0..count).map(|_| f64::from(float(seeded))).collect()),
        Datatype::Bytes => return Err(format!("input `{}` is BYTES: a graph has numbers only", spec.name)),
    };
    input(&spec.name, shape, elements)
}

/// The sample as golden.json has it. Of texts with their ids, so that another tokenizer is noticed.
fn golden(spec: &ModelSpec, request: serde_json::Value, rows: &[Row], alone: &[RowOutput]) -> String {
    let output = |row: &RowOutput, index: usize| row.outputs.get(index).map(elements).unwrap_or_default();
    let ids = |row: &Row| row.inputs.first().map(elements).unwrap_or_default();
    let samples: Vec<serde_json::Value> = if matches!(spec.preprocess, PreprocessSpec::Text(_)) {
        let texts = TEXTS.iter().zip(rows.iter().zip(alone));
        let one = |(text, (row, answer)): (&&str, (&Row, &RowOutput))| {
            let ids: Vec<i64> = ids(row).into_iter().map(|id| id as i64).collect();
            json!({"text": text, "input_ids": ids, "logits": output(answer, 0)})
        };
        texts.map(one).collect()
    } else {
        let outputs: serde_json::Map<_, _> = spec
            .outputs
            .iter()
            .enumerate()
            .map(|(index, own)| {
                let all: Vec<f64> = alone.iter().flat_map(|row| output(row, index)).collect();
                (own.name.clone(), json!(all))
            })
            .collect();
        vec![json!({"request": request, "outputs": outputs})]
    };
    let lines: Vec<String> = samples.iter().map(|sample| format!(" {sample}")).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}
