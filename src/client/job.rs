//! What a producer asks for: a model, inputs, and how long the answer is worth having.

use std::time::Duration;

use serde_json::Map;

use crate::protocol::model_ref::ModelRef;
use crate::protocol::request::{InferInput, InferenceRequest, RequestedOutput};
use crate::protocol::tensor::{Tensor, TensorData};

/// A prediction job, not yet sealed.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model, with or without a version.
    pub model: ModelRef,
    /// The request.
    pub request: InferenceRequest,
    /// How long the answer is worth having; the service's own default where `None`.
    pub deadline: Option<Duration>,
}

impl Job {
    /// A job that classifies `texts`, one row each, answered in their order.
    #[must_use]
    pub fn texts<S: AsRef<str>>(model: ModelRef, texts: &[S]) -> Self {
        let elements: Vec<Vec<u8>> = texts.iter().map(|text| text.as_ref().as_bytes().to_vec()).collect();
        let tensor = Tensor::new(vec![elements.len()], TensorData::Bytes(elements))
            .expect("the one axis is the number of elements");
        Self::tensors(model, vec![InferInput { name: "text".to_owned(), tensor, binary_data: false }])
    }

    /// A job with ready inputs.
    #[must_use]
    pub fn tensors(model: ModelRef, inputs: Vec<InferInput>) -> Self {
        let request = InferenceRequest { id: None, parameters: Map::new(), inputs, outputs: Vec::new() };
        Self { model, request, deadline: None }
    }

    /// Asks for the top `k` classes of output `name` instead of what the model answers by default.
    #[must_use]
    pub fn with_top(mut self, name: &str, k: usize) -> Self {
        self.request.outputs.push(RequestedOutput {
            name: name.to_owned(),
            classification: Some(k),
            binary_data: false,
        });
        self
    }

    /// Says how long the answer is worth having.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}
