//! A response of the Open Inference Protocol v2, and the body of an error.
//!
//! Made by a model's postprocessing, written by the worker, read by the client.

use serde_json::{Map, Value};

use super::tensor::Tensor;

/// A named output of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct InferOutput {
    /// The output's name.
    pub name: String,
    /// Its tensor; the first axis is the batch axis of the request.
    pub tensor: Tensor,
    /// Whether it is written as binary data.
    pub binary_data: bool,
}

/// A prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceResponse {
    /// The model's name.
    pub model_name: String,
    /// The version that answered.
    pub model_version: String,
    /// The request's id.
    pub id: Option<String>,
    /// Parameters: stage timings, batch size.
    pub parameters: Map<String, Value>,
    /// The outputs.
    pub outputs: Vec<InferOutput>,
}
