//! What a `model.toml` must fulfil beyond its form. Each fault names the key, the value and what was expected.
//!
//! Called when a spec is read; touches no file.

use std::path::Path;

use super::ModelSpec;
use super::spec::BatchingSpec;
use crate::limits::{MAX_BATCH_SIZE, MAX_NAMED_TENSORS, MAX_RANK, MAX_TOKENS};
use crate::postprocess::{Classifier, PostprocessSpec};
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::is_model_name;
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

/// The largest tolerance that still says something.
const MAX_TOLERANCE: f64 = 0.1;

/// Whether the spec says where it lies: `folder` is `<name>/<version>`.
pub(super) fn place(spec: &ModelSpec, folder: &Path) -> Result<(), String> {
    if !is_model_name(&spec.name) {
        return Err(format!("name is `{}`: letters, digits, `-` and `_` were expected", spec.name));
    }
    if spec.version == 0 {
        return Err("version is 0, at least 1 was expected".to_owned());
    }
    let mut parts = folder.components().rev().map(|part| part.as_os_str());
    let is_there = parts.next() == Some(spec.version.to_string().as_ref()) && parts.next() == Some(spec.name.as_ref());
    if is_there {
        Ok(())
    } else {
        Err(format!("says `{}` version {}, which belongs in {0}/{1}/", spec.name, spec.version))
    }
}

/// Whether its parts agree with each other.
pub(super) fn content(spec: &ModelSpec) -> Result<(), String> {
    file("file", &spec.file)?;
    if spec.sha256.len() != 64 || !spec.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err("sha256 is no digest of 64 hexadecimal digits".to_owned());
    }
    tensors("inputs", &spec.inputs)?;
    tensors("outputs", &spec.outputs)?;
    let size = spec.batching.max_batch_size;
    if !(1..=MAX_BATCH_SIZE).contains(&size) {
        return Err(format!("batching.max_batch_size is {size}, 1 to {MAX_BATCH_SIZE} were expected"));
    }
    let BatchingSpec { max_batch_tokens, objective_ms, urgent_objective_ms, .. } = spec.batching;
    let zeros = [
        ("max_batch_tokens", max_batch_tokens == Some(0)),
        ("objective_ms", objective_ms == Some(0)),
        ("urgent_objective_ms", urgent_objective_ms == Some(0)),
    ];
    if let Some((key, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
        return Err(format!("batching.{key} is 0, at least 1 was expected"));
    }
    let tolerance = spec.golden_tolerance;
    if !(tolerance > 0.0 && tolerance <= MAX_TOLERANCE) {
        return Err(format!("golden_tolerance is {tolerance}, more than 0 and at most {MAX_TOLERANCE} was expected"));
    }
    preprocess(spec)?;
    postprocess(spec)
}

fn file(key: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Err(format!("{key} is `{name}`: a name beside model.toml was expected"));
    }
    Ok(())
}

fn tensors(key: &str, specs: &[TensorSpec]) -> Result<(), String> {
    if !(1..=MAX_NAMED_TENSORS).contains(&specs.len()) {
        return Err(format!("there are {} [[{key}]], 1 to {MAX_NAMED_TENSORS} were expected", specs.len()));
    }
    for (index, TensorSpec { name, datatype, shape }) in specs.iter().enumerate() {
        if shape.first() != Some(&-1) {
            return Err(format!("`{name}` has shape {shape:?}: the first axis is the batch axis and must be -1"));
        }
        if shape.iter().any(|axis| *axis < -1 || *axis == 0) {
            return Err(format!("`{name}` has shape {shape:?}: axes are -1 or at least 1"));
        }
        if shape.len() > MAX_RANK {
            return Err(format!("`{name}` has shape {shape:?}: at most {MAX_RANK} axes were expected"));
        }
        if *datatype == Datatype::Bytes {
            return Err(format!("`{name}` is BYTES: a graph has numbers only"));
        }
        if specs.iter().take(index).any(|other| other.name == *name) {
            return Err(format!("`{name}` stands twice in [[{key}]]"));
        }
    }
    Ok(())
}

fn preprocess(spec: &ModelSpec) -> Result<(), String> {
    let PreprocessSpec::Text(text) = &spec.preprocess else { return Ok(()) };
    file("preprocess.tokenizer", &text.tokenizer)?;
    let tokens = text.max_tokens;
    if !(1..=MAX_TOKENS).contains(&tokens) {
        return Err(format!("preprocess.max_tokens is {tokens}, 1 to {MAX_TOKENS} were expected"));
    }
    if text.max_text_bytes == 0 {
        return Err("preprocess.max_text_bytes is 0, at least 1 was expected".to_owned());
    }
    match spec.inputs.as_slice() {
        [only] if only.name == text.input && only.datatype == Datatype::Int64 && only.shape == [-1, -1] => Ok(()),
        _ => Err(format!(
            "preprocess.input is `{}`: exactly one [[inputs]] of that name, INT64 [-1, -1], was expected",
            text.input
        )),
    }
}

fn postprocess(spec: &ModelSpec) -> Result<(), String> {
    let PostprocessSpec::Classification(classes) = &spec.postprocess else { return Ok(()) };
    file("postprocess.labels", &classes.labels)?;
    if let Some(taken) = spec.outputs.iter().find(|output| Classifier::OUTPUTS.contains(&output.name.as_str())) {
        return Err(format!(
            "`{}` is what a classification adds, no output of the graph may have that name",
            taken.name
        ));
    }
    let name = &classes.output;
    let Some(output) = spec.outputs.iter().find(|output| output.name == *name) else {
        return Err(format!("postprocess.output is `{name}`, which is none of the [[outputs]]"));
    };
    if output.datatype != Datatype::Fp32 || output.shape.len() != 2 {
        let TensorSpec { datatype, shape, .. } = output;
        return Err(format!(
            "postprocess.output is `{name}`, which is {datatype} {shape:?}: FP32 [-1, classes] was expected"
        ));
    }
    Ok(())
}
