//! A classifier's response, read: the label and its probability for each row.

use crate::protocol::response::InferenceResponse;
use crate::protocol::tensor::TensorData;

/// What a classifier says of one row.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Prediction {
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

impl Prediction {
    /// Reads the default outputs `label` and `probabilities`; empty where a response has them not.
    #[must_use]
    pub fn read_all(response: &InferenceResponse) -> Vec<Self> {
        let output = |name: &str| {
            response.outputs.iter().find(|output| output.name == name).map(|output| output.tensor.elements())
        };
        let (Some(TensorData::Bytes(labels)), Some(TensorData::Fp32(probabilities))) =
            (output("label"), output("probabilities"))
        else {
            return Vec::new();
        };
        let classes = probabilities.len().checked_div(labels.len()).unwrap_or(0).max(1);
        let best = |row: &[f32]| row.iter().copied().fold(0.0, f32::max);
        labels
            .iter()
            .zip(probabilities.chunks(classes))
            .map(|(label, row)| Self { label: String::from_utf8_lossy(label).into_owned(), probability: best(row) })
            .collect()
    }
}
