//! A response of the Open Inference Protocol v2, and the body of an error.
//!
//! Made by a model's postprocessing, written by the worker, read by the client.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body::{EncodedBody, split};
use super::named_tensor::{self, RawTensor};
use super::tensor::Tensor;
use crate::error::{ErrorCode, JobError};

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

/// Why there is no prediction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// What exactly, for people.
    pub error: String,
    /// The code, one of `docs/errors.md`; a client may meet codes that are newer than it.
    pub code: String,
    /// The request's id, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The plaintext of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseBody {
    /// A prediction.
    Result(InferenceResponse),
    /// An error that the producer may see.
    Error(ErrorBody),
}

#[derive(Deserialize, Serialize)]
struct RawResponse {
    model_name: String,
    #[serde(default)]
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    outputs: Vec<RawTensor>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawReply {
    Error(ErrorBody),
    Result(RawResponse),
}

/// A plaintext is no reply of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// Neither a response nor an error.
    #[error("neither an inference response nor an error body")]
    NoReply,
    /// An output contradicts itself.
    #[error("{0}")]
    Output(String),
}

impl ResponseBody {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`ReplyFault`]; the message names the output, never content.
    pub fn decode(plaintext: &[u8], json_length: Option<usize>) -> Result<Self, ReplyFault> {
        let (json, binary) = split(plaintext, json_length).ok_or(ReplyFault::NoReply)?;
        match serde_json::from_slice(json).map_err(|_| ReplyFault::NoReply)? {
            RawReply::Error(error) => Ok(Self::Error(error)),
            RawReply::Result(raw) => {
                let outputs = named_tensor::read_all(raw.outputs, binary)
                    .map_err(|error| ReplyFault::Output(error.message))?
                    .into_iter()
                    .map(|(name, tensor)| InferOutput { name, tensor, binary_data: json_length.is_some() })
                    .collect();
                Ok(Self::Result(InferenceResponse {
                    model_name: raw.model_name,
                    model_version: raw.model_version,
                    id: raw.id,
                    parameters: raw.parameters,
                    outputs,
                }))
            }
        }
    }
}

impl InferenceResponse {
    /// Writes the response.
    ///
    /// # Errors
    /// `INFERENCE_FAILED` when an output holds what JSON cannot say and binary data was not asked for.
    pub fn encode(&self) -> Result<EncodedBody, JobError> {
        let mut binary = Vec::new();
        let outputs = self
            .outputs
            .iter()
            .map(|output| named_tensor::write(&output.name, &output.tensor, output.binary_data, &mut binary))
            .collect::<Result<_, _>>()
            .map_err(|error| JobError::new(ErrorCode::InferenceFailed, error.message))?;
        let raw = RawResponse {
            model_name: self.model_name.clone(),
            model_version: self.model_version.clone(),
            id: self.id.clone(),
            parameters: self.parameters.clone(),
            outputs,
        };
        let json = serde_json::to_vec(&raw)
            .map_err(|error| JobError::new(ErrorCode::InferenceFailed, format!("the response: {error}")))?;
        Ok(EncodedBody::new(json, &binary))
    }
}

impl ErrorBody {
    /// The body for `error`, with the request's id where it is known.
    #[must_use]
    pub fn new(error: &JobError, id: Option<String>) -> Self {
        Self { error: error.message.clone(), code: error.code.to_string(), id }
    }

    /// Writes the body.
    #[must_use]
    pub fn encode(&self) -> EncodedBody {
        let json = serde_json::to_vec(self).expect("three strings are always JSON");
        EncodedBody::new(json, &[])
    }
}
