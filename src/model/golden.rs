//! Golden outputs: what the model answered when it was made, compared when it is loaded.
//!
//! tract can be silently wrong on operators that it runs; a model that answers otherwise than it did is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ModelSpec;
use crate::backend::{Backend, run_caught};
use crate::batch::row::{Batch, Row, RowOutput};
use crate::limits::{MAX_BATCH_SIZE, MAX_GOLDEN_FILE_BYTES};
use crate::preprocess::Preprocessor;
use crate::protocol::request::{InferInput, InferenceRequest, RequestBounds};
use crate::protocol::tensor::{Tensor, TensorData};

/// One sample, in either of two forms.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// A text, what it is tokenized to, and what the first output answers.
    text: Option<String>,
    #[serde(default)]
    input_ids: Vec<i64>,
    #[serde(default)]
    logits: Vec<f64>,
    /// A file beside golden.json, for a model of images, files or texts.
    file: Option<String>,
    /// A request as a producer would send it, and the elements of each output, all rows together.
    request: Option<Box<RawValue>>,
    #[serde(default)]
    outputs: BTreeMap<String, Vec<f64>>,
}

/// Compares `backend` with `folder/golden.json`.
pub(super) fn check(
    spec: &ModelSpec,
    folder: &Path,
    preprocessor: &Preprocessor,
    backend: &dyn Backend,
) -> Result<(), String> {
    let Some(samples) = read(folder)? else {
        let ModelSpec { name, version, .. } = spec;
        tracing::warn!(
            model.name = name,
            "model `{name}` version {version} has no golden.json: its answers are unchecked"
        );
        return Ok(());
    };
    let mut answered = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let rows = compare(spec, (sample, folder), preprocessor, backend);
        answered.extend(rows.map_err(|fault| format!("sample {index}: {fault}"))?);
    }
    compare_together(spec, &answered, backend)
}

/// The samples in `folder`; nothing where there is no file of them.
fn read(folder: &Path) -> Result<Option<Vec<Sample>>, String> {
    let path = folder.join("golden.json");
    let Ok(size) = fs::metadata(&path).map(|file| file.len()) else { return Ok(None) };
    if size > MAX_GOLDEN_FILE_BYTES {
        return Err(format!("the file has {size} bytes, at most {MAX_GOLDEN_FILE_BYTES} are read"));
    }
    let text = fs::read(&path).map_err(|error| error.to_string())?;
    let samples: Vec<Sample> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if samples.is_empty() { Err("the file has no sample".to_owned()) } else { Ok(Some(samples)) }
}

/// The rows of the samples in `folder`; none where there is no file of them.
pub(super) fn rows(spec: &ModelSpec, folder: &Path, preprocessor: &Preprocessor) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for sample in read(folder)?.unwrap_or_default() {
        rows.extend(expectation(spec, (&sample, folder), preprocessor)?.0);
    }
    Ok(rows)
}

/// The file of the samples in `folder`, and the files that they name; none where there is no file of them.
pub(super) fn files(folder: &Path) -> Result<Vec<String>, String> {
    let Some(samples) = read(folder)? else { return Ok(Vec::new()) };
    let named = samples.into_iter().filter_map(|sample| sample.file);
    let names: Vec<String> = std::iter::once("golden.json".to_owned()).chain(named).collect();
    match names.iter().find(|name| name.starts_with('.') || name.contains(['/', '\\'])) {
        Some(name) => Err(format!("`file` is `{name}`: a name beside golden.json was expected")),
        None => Ok(names),
    }
}

/// Compares one sample, and answers its rows with what the model answers to each alone.
fn compare(
    spec: &ModelSpec,
    (sample, folder): (&Sample, &Path),
    preprocessor: &Preprocessor,
    backend: &dyn Backend,
) -> Result<Vec<(Row, RowOutput)>, String> {
    let (rows, expected) = expectation(spec, (sample, folder), preprocessor)?;
    // Each row alone, so that one plan serves, as it will for the first job.
    let mut answered = Vec::with_capacity(rows.len());
    for row in rows {
        let output = run_caught(backend, &Batch { rows: vec![row.clone()] }).map_err(|error| error.to_string())?;
        answered.extend(output.rows.into_iter().map(|output| (row.clone(), output)));
    }
    for (name, expected) in expected {
        let index = spec.outputs.iter().position(|output| output.name == name);
        let index = index.ok_or_else(|| format!("the model has no output `{name}`"))?;
        let tensors = answered.iter().filter_map(|(_, row)| row.outputs.get(index));
        let actual: Vec<f64> = tensors.flat_map(elements).collect();
        if actual.len() != expected.len() {
            let (actual, expected) = (actual.len(), expected.len());
            return Err(format!("output `{name}` has {actual} elements, {expected} were expected"));
        }
        let worst = distance(&actual, expected);
        // A distance that is no number is no agreement.
        if worst.is_nan() || worst > spec.golden_tolerance {
            let most = spec.golden_tolerance;
            return Err(format!("output `{name}` differs by {worst:.1e}, at most {most:.0e} is allowed"));
        }
    }
    Ok(answered)
}

/// Whether rows are answered in a batch as they are alone: a graph may take padding for words, or scale a batch as a whole.
fn compare_together(spec: &ModelSpec, alone: &[(Row, RowOutput)], backend: &dyn Backend) -> Result<(), String> {
    let Some((first, _)) = alone.first() else { return Ok(()) };
    let most = spec.batching.max_batch_size;
    let (mut batch, mut expected) = (Batch { rows: Vec::new() }, Vec::new());
    // A single row has itself for company.
    for (row, output) in alone.iter().filter(|(row, _)| row.fits_with(first)).cycle().take(alone.len().max(2).min(most))
    {
        let longest = batch.padded_length().max(row.length);
        if longest.saturating_mul(batch.rows.len() + 1) <= spec.batching.max_batch_tokens.unwrap_or(usize::MAX) {
            batch.rows.push(row.clone());
            expected.push(output);
        }
    }
    if batch.rows.len() < 2 {
        return Ok(());
    }
    let together = run_caught(backend, &batch).map_err(|error| error.to_string())?;
    let pairs = expected.iter().zip(&together.rows).flat_map(|(own, other)| own.outputs.iter().zip(&other.outputs));
    let worst = pairs.map(|(own, other)| distance(&elements(other), &elements(own))).fold(0.0, nan_or_larger);
    if worst.is_nan() || worst > spec.golden_tolerance {
        return Err(format!(
            "a row is answered otherwise in a batch than alone, by {worst:.1e}, at most {:.0e} is allowed: batching.max_batch_size \
             has to be 1, or preprocess.pad_id what the graph reads as nothing",
            spec.golden_tolerance
        ));
    }
    Ok(())
}

/// The rows of a sample, and the elements that each output shall have.
type Expectation<'a> = (Vec<Row>, Vec<(&'a str, &'a Vec<f64>)>);

fn expectation<'a>(
    spec: &'a ModelSpec,
    (sample, folder): (&'a Sample, &Path),
    preprocessor: &Preprocessor,
) -> Result<Expectation<'a>, String> {
    let outputs = || sample.outputs.iter().map(|(name, elements)| (name.as_str(), elements)).collect();
    if let (Some(file), None, None, false) = (&sample.file, &sample.text, &sample.request, sample.outputs.is_empty()) {
        let input = spec.preprocess.bytes_input().ok_or("`file` is for models of texts, images and files")?;
        let rows = preprocessor.prepare(file_request(folder, file, input)?).map_err(|error| error.message)?;
        return Ok((rows, outputs()));
    }
    match (&sample.text, &sample.request, preprocessor) {
        (Some(text), None, Preprocessor::Text(tokenizer)) => {
            let row = tokenizer.row(0, text.as_bytes()).map_err(|error| error.message)?;
            if row.inputs.first().map(Tensor::elements) != Some(&TensorData::Int64(sample.input_ids.clone())) {
                return Err("the text is tokenized to other ids".to_owned());
            }
            let first = spec.outputs.first().map_or("", |output| output.name.as_str());
            Ok((vec![row], vec![(first, &sample.logits)]))
        }
        (None, Some(request), _) if !sample.outputs.is_empty() => {
            let bounds = RequestBounds { max_rows: MAX_BATCH_SIZE };
            let request = InferenceRequest::decode(request.get().as_bytes(), None, &bounds);
            let rows = request.and_then(|request| preprocessor.prepare(request)).map_err(|error| error.message)?;
            Ok((rows, outputs()))
        }
        (_, _, Preprocessor::Text(_) | Preprocessor::Image(_) | Preprocessor::Bytes(..) | Preprocessor::Tensor(_)) => {
            Err("`text`, `input_ids` and `logits` of a model of texts, or `request` or `file`, and `outputs`, were expected"
                .to_owned())
        }
    }
}

/// A request for the content of `file`, which lies in `folder`.
fn file_request(folder: &Path, file: &str, input: &str) -> Result<InferenceRequest, String> {
    if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\']) {
        return Err(format!("`file` is `{file}`: a name beside golden.json was expected"));
    }
    let bytes = fs::read(folder.join(file)).map_err(|error| format!("`{file}`: {error}"))?;
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![bytes])).map_err(|error| error.to_string())?;
    let inputs = vec![InferInput { name: input.to_owned(), tensor, binary_data: true }];
    Ok(InferenceRequest { id: None, parameters: serde_json::Map::new(), inputs, outputs: Vec::new() })
}

/// The largest distance of two elements: absolute up to 1, relative beyond; not a number where one of them is none.
pub(super) fn distance(actual: &[f64], expected: &[f64]) -> f64 {
    let one = |(a, b): (&f64, &f64)| (a - b).abs() / b.abs().max(1.0);
    actual.iter().zip(expected).map(one).fold(0.0, nan_or_larger)
}

fn nan_or_larger(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

#[allow(clippy::cast_precision_loss, reason = "whole numbers beyond 2^53 are compared as nearly as floats can")]
pub(super) fn elements(tensor: &Tensor) -> Vec<f64> {
    match tensor.elements() {
        TensorData::Bool(elements) => elements.iter().map(|x| f64::from(u8::from(*x))).collect(),
        TensorData::Int8(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Int16(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Int32(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Int64(elements) => elements.iter().map(|x| *x as f64).collect(),
        TensorData::Uint8(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Uint16(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Uint32(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Uint64(elements) => elements.iter().map(|x| *x as f64).collect(),
        TensorData::Fp16(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Fp32(elements) => elements.iter().copied().map(f64::from).collect(),
        TensorData::Fp64(elements) => elements.clone(),
        TensorData::Bytes(_) => Vec::new(),
    }
}
