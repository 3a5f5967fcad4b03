//! What a `model.toml` must fulfil beyond its form. Each fault names the key, the value and what was expected.
//!
//! Called when a spec is read; touches no file.

use std::path::Path;

use super::ModelSpec;
use super::spec::BatchingSpec;
use crate::limits::{MAX_BATCH_SIZE, MAX_FILE_BLOCK_BYTES, MAX_IMAGE_SIDE, MAX_NAMED_TENSORS, MAX_RANK, MAX_TOKENS};
use crate::postprocess::{Classifier, MultilabelSpec, PostprocessSpec};
use crate::preprocess::{BytesSpec, ImageSpec, PreprocessSpec, Resize, TextSpec};
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
    match &spec.preprocess {
        PreprocessSpec::Text(text) => self::text(spec, text),
        PreprocessSpec::Image(image) => self::image(spec, image),
        PreprocessSpec::Bytes(bytes) => self::bytes(spec, bytes),
        PreprocessSpec::Tensor {} => Ok(()),
    }
}

fn text(spec: &ModelSpec, text: &TextSpec) -> Result<(), String> {
    file("preprocess.tokenizer", &text.tokenizer)?;
    let tokens = text.max_tokens;
    if !(1..=MAX_TOKENS).contains(&tokens) {
        return Err(format!("preprocess.max_tokens is {tokens}, 1 to {MAX_TOKENS} were expected"));
    }
    if text.max_text_bytes == 0 {
        return Err("preprocess.max_text_bytes is 0, at least 1 was expected".to_owned());
    }
    let expected: Vec<&String> = text.graph_inputs().collect();
    let is_of_ids = |input: &TensorSpec| input.datatype == Datatype::Int64 && input.shape == [-1, -1];
    let fits = |input: &TensorSpec| is_of_ids(input) && expected.contains(&&input.name);
    if spec.inputs.len() != expected.len() || !spec.inputs.iter().all(fits) {
        let names: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
        return Err(match names.as_slice() {
            [only] => {
                format!("preprocess.input is {only}: exactly one [[inputs]] of that name, INT64 [-1, -1], was expected")
            }
            several => format!(
                "preprocess names the inputs {}: exactly those [[inputs]], INT64 [-1, -1], were expected",
                several.join(", ")
            ),
        });
    }
    // One filling serves all inputs of a graph, and a mask has to be filled with 0.
    if text.attention_mask.is_some() && text.pad_id != 0 {
        return Err(format!("preprocess.pad_id is {}: 0 was expected where there is an attention_mask", text.pad_id));
    }
    Ok(())
}

fn image(spec: &ModelSpec, image: &ImageSpec) -> Result<(), String> {
    let sides = [("width", image.width), ("height", image.height)];
    if let Some((key, side)) = sides.iter().find(|(_, side)| !(1..=MAX_IMAGE_SIDE).contains(side)) {
        return Err(format!("preprocess.{key} is {side}, 1 to {MAX_IMAGE_SIDE} were expected"));
    }
    if let Some(to) = image.resize_to {
        let least = image.width.max(image.height);
        if image.resize != Resize::Cover || !(least..=MAX_IMAGE_SIDE).contains(&to) {
            return Err(format!(
                "preprocess.resize_to is {to}: {least} to {MAX_IMAGE_SIDE} were expected, and resize = \"cover\""
            ));
        }
    }
    let count = image.channel_count();
    for (key, values) in [("mean", &image.mean), ("std", &image.std)] {
        let is_usable = values.iter().all(|value| value.is_finite() && (key == "mean" || *value != 0.0));
        if !(values.is_empty() || values.len() == count) || !is_usable {
            return Err(format!("preprocess.{key} is {values:?}: {count} numbers were expected, and no 0 in std"));
        }
    }
    if image.max_image_bytes == 0 || image.max_pixels == 0 || !image.scale.is_finite() {
        return Err("preprocess.max_image_bytes and max_pixels are at least 1, and scale is a number".to_owned());
    }
    let axes: Vec<i64> = image.row_shape().iter().map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX)).collect();
    let shape: Vec<i64> = std::iter::once(-1).chain(axes).collect();
    only_input(spec, &image.input, &[Datatype::Fp32], &shape)
}

fn bytes(spec: &ModelSpec, bytes: &BytesSpec) -> Result<(), String> {
    let BytesSpec { first, last, block, .. } = bytes;
    if first + last == 0 || first.max(last) > block || *block > MAX_FILE_BLOCK_BYTES {
        return Err(format!(
            "preprocess.first is {first}, last {last}, block {block}: at least one byte was expected, and first and last within \
             a block of at most {MAX_FILE_BLOCK_BYTES}"
        ));
    }
    if bytes.max_file_bytes == 0 {
        return Err("preprocess.max_file_bytes is 0, at least 1 was expected".to_owned());
    }
    let shape = [-1, i64::try_from(first + last).unwrap_or(i64::MAX)];
    only_input(spec, &bytes.input, &[Datatype::Int32, Datatype::Int64], &shape)
}

fn only_input(spec: &ModelSpec, name: &str, datatypes: &[Datatype], shape: &[i64]) -> Result<(), String> {
    match spec.inputs.as_slice() {
        [only] if only.name == name && datatypes.contains(&only.datatype) && only.shape == shape => Ok(()),
        _ => {
            let datatypes: Vec<&str> = datatypes.iter().map(|datatype| datatype.as_str()).collect();
            let datatypes = datatypes.join(" or ");
            Err(format!(
                "preprocess.input is `{name}`: exactly one [[inputs]] of that name, {datatypes} {shape:?}, was expected"
            ))
        }
    }
}

fn postprocess(spec: &ModelSpec) -> Result<(), String> {
    let (name, labels) = match &spec.postprocess {
        PostprocessSpec::Classification(classes) => (&classes.output, &classes.labels),
        PostprocessSpec::Multilabel(labels) => (&labels.output, &labels.labels),
        PostprocessSpec::Raw {} => return Ok(()),
    };
    if let PostprocessSpec::Multilabel(MultilabelSpec { threshold, .. }) = &spec.postprocess
        && !(0.0..=1.0).contains(threshold)
    {
        return Err(format!("postprocess.threshold is {threshold}, 0 to 1 was expected"));
    }
    file("postprocess.labels", labels)?;
    if let Some(taken) = spec.outputs.iter().find(|output| Classifier::OUTPUTS.contains(&output.name.as_str())) {
        return Err(format!(
            "`{}` is what a classification adds, no output of the graph may have that name",
            taken.name
        ));
    }
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
