//! From a request's inputs to rows that a model takes: tokenize a text, decode an image, cut a file, or check a ready tensor.
//!
//! Called by a loaded model for every job. Whether a request is well formed was `protocol`'s to say; here it is measured
//! against one model, and the message of a fault names the input, what was expected and what came.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::batch::row::Row;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::{InferInput, InferenceRequest};
use crate::protocol::tensor::{Datatype, TensorData};
use crate::protocol::tensor_spec::TensorSpec;

mod bytes;
mod image;
mod mask;
mod resample;
mod tensor;
mod text;
mod tokenizer;

pub use bytes::BytesSpec;
pub use image::{Channels, ImageSpec, Layout, Resize};
pub use mask::MaskKind;
pub use resample::Filter;
pub use text::{Span, TextPreprocessor, TextSpec};
pub use tokenizer::TokenizerError;

/// The input that a model of texts takes.
const TEXT_INPUT: &str = "text";
/// The input that a model of images takes.
const IMAGE_INPUT: &str = "image";
/// The input that a model of files takes.
const FILE_INPUT: &str = "file";

/// `[preprocess]` of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PreprocessSpec {
    /// A text, tokenized.
    Text(TextSpec),
    /// An image, decoded.
    Image(ImageSpec),
    /// A file's first and last bytes.
    Bytes(BytesSpec),
    /// Ready tensors under the graph's own names.
    Tensor {},
}

impl PreprocessSpec {
    /// The inputs that a request must hold, by their names there: for a text `text`, else those of the graph.
    #[must_use]
    pub fn request_inputs(&self, graph_inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        match self.bytes_input() {
            Some(name) => vec![TensorSpec { name: name.to_owned(), datatype: Datatype::Bytes, shape: vec![-1] }],
            None => graph_inputs.to_vec(),
        }
    }

    /// The name of the one input of BYTES that a request holds; nothing where it holds the graph's own.
    #[must_use]
    pub const fn bytes_input(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) => Some(TEXT_INPUT),
            Self::Image(_) => Some(IMAGE_INPUT),
            Self::Bytes(_) => Some(FILE_INPUT),
            Self::Tensor {} => None,
        }
    }

    /// The file beside `model.toml` that it names.
    #[must_use]
    pub const fn file(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.tokenizer.as_str()),
            Self::Image(_) | Self::Bytes(_) | Self::Tensor {} => None,
        }
    }

    /// What open axes are filled up with when rows of several lengths share a batch.
    #[must_use]
    pub const fn padding(&self) -> i64 {
        match self {
            Self::Text(text) => text.pad_id,
            Self::Image(_) | Self::Bytes(_) | Self::Tensor {} => 0,
        }
    }

    /// The longest that a row gets along an open axis; `None` where rows are not filled up.
    #[must_use]
    pub const fn longest_row(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.max_tokens),
            Self::Image(_) | Self::Bytes(_) | Self::Tensor {} => None,
        }
    }
}

/// Turns requests into rows.
#[derive(Debug)]
pub enum Preprocessor {
    /// Tokenizes.
    Text(Box<TextPreprocessor>),
    /// Decodes images.
    Image(Box<ImageSpec>),
    /// Cuts files, into numbers of this type.
    Bytes(BytesSpec, Datatype),
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
            PreprocessSpec::Text(text) => Self::Text(Box::new(TextPreprocessor::load(text, inputs, folder)?)),
            PreprocessSpec::Image(image) => Self::Image(Box::new(image.clone())),
            PreprocessSpec::Bytes(bytes) => {
                let datatype = inputs.first().map_or(Datatype::Int32, |input| input.datatype);
                Self::Bytes(bytes.clone(), datatype)
            }
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
            Self::Image(image) => image.prepare(only_input(request.inputs, IMAGE_INPUT)?),
            Self::Bytes(bytes, datatype) => bytes.prepare(only_input(request.inputs, FILE_INPUT)?, *datatype),
            Self::Tensor(specs) => tensor::prepare(specs, request.inputs),
        }
    }
}

/// The elements of an input of BYTES, one a row, of at most `most` bytes each; `key` is the bound's in model.toml.
fn byte_rows(input: InferInput, most: usize, key: &str) -> Result<Vec<Vec<u8>>, JobError> {
    let name = input.name;
    let (shape, elements) = input.tensor.into_parts();
    let TensorData::Bytes(rows) = elements else {
        return Err(invalid(format!("input `{name}` is {}, BYTES was expected", elements.datatype())));
    };
    if !matches!(shape.as_slice(), [_] | [_, 1]) {
        return Err(invalid(format!("input `{name}` has shape {shape:?}, [N] or [N, 1] was expected")));
    }
    match rows.iter().enumerate().find(|(_, bytes)| bytes.len() > most) {
        Some((row, bytes)) => {
            let bytes = bytes.len();
            let message = format!("row {row} of input `{name}` has {bytes} bytes, at most {most} are taken ({key})");
            Err(JobError::new(ErrorCode::InputTooLarge, message))
        }
        None => Ok(rows),
    }
}

/// The one input that a model of texts, images or files takes.
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
