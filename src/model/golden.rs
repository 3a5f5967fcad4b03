//! Golden outputs: what the model answered when it was made, compared when it is loaded.
//!
//! tract can be silently wrong on operators that it runs; a model that answers otherwise than it did is refused.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::backend::Backend;
use crate::batch::row::{Batch, Row};
use crate::preprocess::Preprocessor;
use crate::protocol::tensor::{Tensor, TensorData};

/// How far an output may be from its golden value.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Sample {
    text: String,
    input_ids: Vec<i64>,
    logits: Vec<f32>,
}

/// Compares `backend` with `folder/golden.json`; a model without that file passes.
pub(super) fn check(folder: &Path, preprocessor: &Preprocessor, backend: &dyn Backend) -> Result<(), String> {
    let path = folder.join("golden.json");
    if !path.exists() {
        return Ok(());
    }
    let text = fs::read(&path).map_err(|error| error.to_string())?;
    let samples: Vec<Sample> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let Preprocessor::Text(tokenizer) = preprocessor else {
        return Err("golden samples are texts, the model takes tensors".to_owned());
    };
    for (index, sample) in samples.iter().enumerate() {
        if tokenizer.ids(&sample.text).ok().as_ref() != Some(&sample.input_ids) {
            return Err(format!("sample {index} is tokenized to other ids"));
        }
        let worst = difference(sample, backend)?;
        if worst > TOLERANCE {
            return Err(format!("sample {index} differs by {worst:.1e}, at most {TOLERANCE:.0e} is allowed"));
        }
    }
    Ok(())
}

fn difference(sample: &Sample, backend: &dyn Backend) -> Result<f32, String> {
    let ids = sample.input_ids.clone();
    let length = ids.len();
    let tensor = Tensor::new(vec![length], TensorData::Int64(ids)).map_err(|error| error.to_string())?;
    let batch = Batch { rows: vec![Row { inputs: vec![tensor], length, may_be_padded: true }] };
    let output = backend.run(&batch).map_err(|error| error.to_string())?;
    match output.rows.first().and_then(|row| row.outputs.first()).map(Tensor::elements) {
        Some(TensorData::Fp32(actual)) if actual.len() == sample.logits.len() => {
            Ok(actual.iter().zip(&sample.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
        }
        Some(_) | None => Err(format!("the first output has not {} FP32 values", sample.logits.len())),
    }
}
