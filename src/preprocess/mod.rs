//! From a request's inputs to rows that a model takes: tokenize a text, or check a ready tensor.
//!
//! Called by a loaded model for every job. Whether a request is well formed was `protocol`'s to say; here it is measured
//! against one model, and the message of a fault names the input, what was expected and what came.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::batch::row::Row;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::{InferInput, InferenceRequest};
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

mod tensor;
mod text;
mod tokenizer;

pub use text::{TextPreprocessor, TextSpec};
pub use tokenizer::TokenizerError;

/// The input that a model of texts takes.
const TEXT_INPUT: &str = "text";

/// `[preprocess]` of `model.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PreprocessSpec {
    /// A text, tokenized.
    Text(TextSpec),
    /// Ready tensors under the graph's own names.
    Tensor {},
}

impl PreprocessSpec {
    /// The inputs that a request must hold, by their names there: for a text `text`, else those of the graph.
    #[must_use]
    pub fn request_inputs(&self, graph_inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        match self {
            Self::Text(_) => {
                vec![TensorSpec { name: TEXT_INPUT.to_owned(), datatype: Datatype::Bytes, shape: vec![-1] }]
            }
            Self::Tensor {} => graph_inputs.to_vec(),
        }
    }

    /// What open axes are filled up with when rows of several lengths share a batch.
    #[must_use]
    pub const fn padding(&self) -> i64 {
        match self {
            Self::Text(text) => text.pad_id,
            Self::Tensor {} => 0,
        }
    }

    /// The longest that a row gets along an open axis.
    #[must_use]
    pub const fn longest_row(&self) -> usize {
        match self {
            Self::Text(text) => text.max_tokens,
            Self::Tensor {} => usize::MAX,
        }
    }
}

/// Turns requests into rows.
#[derive(Debug)]
pub enum Preprocessor {
    /// Tokenizes.
    Text(Box<TextPreprocessor>),
    /// Checks.
    Tensor(Vec<TensorSpec>),
}

impl Preprocessor {
    /// The preprocessor that `spec` asks for; files are looked for in `folder`.
    ///
    /// # Errors
    /// When the tokenizer cannot be read.
    pub fn load(spec: &PreprocessSpec, inputs: &[TensorSpec], folder: &Path) -> Result<Self, TokenizerError> {
        Ok(match spec {
            PreprocessSpec::Text(text) => Self::Text(Box::new(TextPreprocessor::load(text, folder)?)),
            PreprocessSpec::Tensor {} => Self::Tensor(inputs.to_vec()),
        })
    }

    /// The rows of `request`, as many as its inputs' first axis says.
    ///
    /// # Errors
    /// `INVALID_INPUT` and `INPUT_TOO_LARGE`, naming the input.
    pub fn prepare(&self, request: InferenceRequest) -> Result<Vec<Row>, JobError> {
        match self {
            Self::Text(text) => text.prepare(only_input(request.inputs, TEXT_INPUT)?),
            Self::Tensor(specs) => tensor::prepare(specs, request.inputs),
        }
    }
}

/// The one input that a model of texts takes.
fn only_input(inputs: Vec<InferInput>, expected: &str) -> Result<InferInput, JobError> {
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    match <[InferInput; 1]>::try_from(inputs) {
        Ok([input]) if input.name == expected => Ok(input),
        Ok(_) | Err(_) => Err(invalid(format!("the model takes one input, `{expected}`; {} came", quoted(&names)))),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn invalid(message: impl Into<String>) -> JobError {
    JobError::new(ErrorCode::InvalidInput, message)
}
