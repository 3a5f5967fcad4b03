//! A response of the Open Inference Protocol v2, and the body of an error.
//!
//! Made by a model's postprocessing, written by the worker, read by the client.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body::{EncodedBody, split};
use super::named_tensor::{self, RawTensor, WrittenTensor};
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

#[derive(Deserialize)]
struct RawResponse<'a> {
    model_name: String,
    #[serde(default)]
    model_version: String,
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    outputs: Vec<RawTensor<'a>>,
}

#[derive(Serialize)]
struct WrittenResponse<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: &'a Map<String, Value>,
    outputs: Vec<WrittenTensor<'a>>,
}

/// Tells an error body from a response.
#[derive(Deserialize)]
struct Glance {
    error: Option<IgnoredAny>,
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
        let (json, binary) = split(plaintext, json_length).map_err(|_| ReplyFault::NoReply)?;
        let glance: Glance = serde_json::from_slice(json).map_err(|_| ReplyFault::NoReply)?;
        if glance.error.is_some() {
            return serde_json::from_slice(json).map(Self::Error).map_err(|_| ReplyFault::NoReply);
        }
        let raw: RawResponse<'_> = serde_json::from_slice(json).map_err(|_| ReplyFault::NoReply)?;
        let outputs = named_tensor::read_all(raw.outputs, binary, usize::MAX)
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
        let written = WrittenResponse {
            model_name: &self.model_name,
            model_version: &self.model_version,
            id: self.id.as_deref(),
            parameters: &self.parameters,
            outputs,
        };
        let json = serde_json::to_vec(&written)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::tensor::TensorData;

    fn response(elements: TensorData, binary_data: bool) -> InferenceResponse {
        let tensor = Tensor::new(vec![1, elements.len()], elements).unwrap();
        let outputs = vec![InferOutput { name: "y".into(), tensor, binary_data }];
        let (model_name, model_version) = ("m".into(), "1".into());
        InferenceResponse { model_name, model_version, id: None, parameters: Map::new(), outputs }
    }

    #[test]
    fn a_response_reads_back_as_written_and_is_no_longer_than_it_must_be() {
        for binary_data in [false, true] {
            let response = response(TensorData::Fp32(vec![0.1, -2.5e-9]), binary_data);
            let body = response.encode().unwrap();
            assert_eq!(ResponseBody::decode(&body.bytes, body.json_length), Ok(ResponseBody::Result(response)));
        }
        let body = response(TensorData::Fp32(vec![0.1]), false).encode().unwrap();
        let text = std::str::from_utf8(&body.bytes).unwrap();
        assert!(text.contains(r#""data":[0.1]"#), "{text}");
    }

    #[test]
    fn what_json_has_no_word_for_is_a_failed_inference() {
        for elements in [TensorData::Fp64(vec![f64::NAN]), TensorData::Bytes(vec![vec![0xff]])] {
            assert_eq!(response(elements, false).encode().unwrap_err().code, ErrorCode::InferenceFailed);
        }
    }

    #[test]
    fn an_error_reads_back_and_news_is_passed_over() {
        let error = ErrorBody::new(&JobError::new(ErrorCode::UnknownModel, "no model `x`"), Some("7".into()));
        let body = error.encode();
        assert_eq!(ResponseBody::decode(&body.bytes, body.json_length), Ok(ResponseBody::Error(error)));
        let newer = json!({"model_name": "m", "model_version": "1", "outputs": [], "news": {"a": []}});
        assert!(matches!(ResponseBody::decode(newer.to_string().as_bytes(), None), Ok(ResponseBody::Result(_))));
    }
}
