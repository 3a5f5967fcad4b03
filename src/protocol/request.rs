//! A request of the Open Inference Protocol v2, read strictly.
//!
//! Made from the plaintext of a job; every tensor in it has agreeing shape and elements. Whether the tensors suit
//! the model is checked by `preprocess`.

use serde_json::{Map, Value};

use super::tensor::Tensor;

/// A named input of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferInput {
    /// The input's name: `text`, `image`, or one of the model's own.
    pub name: String,
    /// Its tensor; the first axis is the batch axis of the request.
    pub tensor: Tensor,
    /// Its parameters.
    pub parameters: Map<String, Value>,
}

/// An output that the request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// The top `k` classes instead of the tensor (the classification extension), if asked for.
    pub classification: Option<usize>,
    /// Whether its tensor shall be answered as binary data.
    pub binary_data: bool,
}

/// A prediction request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceRequest {
    /// The producer's own id for it; repeated in the response.
    pub id: Option<String>,
    /// The request's parameters.
    pub parameters: Map<String, Value>,
    /// The inputs; at least one.
    pub inputs: Vec<InferInput>,
    /// The outputs asked for; empty for all.
    pub outputs: Vec<RequestedOutput>,
}
