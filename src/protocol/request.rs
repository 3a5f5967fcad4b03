//! A request of the Open Inference Protocol v2, read strictly.
//!
//! Made from the plaintext of a job; every tensor in it has agreeing shape and elements. Whether the tensors suit
//! the model is checked by `preprocess`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body::{EncodedBody, split};
use super::named_tensor::{self, RawTensor, WrittenTensor};
use super::properties::{HEADER_JSON_LENGTH, JSON_LENGTH_MISSING};
use super::tensor::Tensor;
use crate::error::{ErrorCode, JobError};
use crate::limits::MAX_NAMED_TENSORS;

/// A named input of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferInput {
    /// The input's name: `text`, `image`, or one of the model's own.
    pub name: String,
    /// Its tensor; the first axis is the batch axis of the request.
    pub tensor: Tensor,
    /// Whether it is written as binary data.
    pub binary_data: bool,
}

/// An output that the request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The outputs asked for; empty for what the model answers by default.
    pub outputs: Vec<RequestedOutput>,
}

/// What of a request still matters once its inputs have been prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The producer's own id.
    pub id: Option<String>,
    /// The outputs asked for.
    pub outputs: Vec<RequestedOutput>,
}

/// What a request may weigh.
#[derive(Debug, Clone, Copy)]
pub struct RequestBounds {
    /// Rows, by the first axis of its inputs.
    pub max_rows: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    inputs: Vec<RawTensor<'a>>,
    #[serde(default)]
    outputs: Vec<RawRequestedOutput>,
}

#[derive(Serialize)]
struct WrittenRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: &'a Map<String, Value>,
    inputs: Vec<WrittenTensor<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<RawRequestedOutput>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawRequestedOutput {
    name: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
}

impl InferenceRequest {
    /// Reads a plaintext: JSON of `json_length` bytes (all of it where `None`), then binary tensors.
    ///
    /// # Errors
    /// `MALFORMED_REQUEST` for what is no v2 request, `INVALID_INPUT` for a tensor that contradicts itself,
    /// `INPUT_TOO_LARGE` for more rows than `bounds` allow. The message names the place, never content.
    pub fn decode(plaintext: &[u8], json_length: Option<usize>, bounds: &RequestBounds) -> Result<Self, JobError> {
        let (json, binary) =
            split(plaintext, json_length).map_err(|length| malformed(length_fault(length, plaintext.len())))?;
        let raw: RawRequest<'_> = serde_json::from_slice(json).map_err(|error| malformed(json_fault(json, &error)))?;
        if raw.inputs.is_empty() || raw.inputs.len() > MAX_NAMED_TENSORS || raw.outputs.len() > MAX_NAMED_TENSORS {
            let count = format!("{} inputs and {} outputs", raw.inputs.len(), raw.outputs.len());
            return Err(malformed(format!("a request has 1 to {MAX_NAMED_TENSORS} inputs and outputs, {count} came")));
        }
        let all_binary = flag(&raw.parameters, "binary_data_output")?;
        let outputs = raw.outputs.into_iter().map(|output| requested(output, all_binary)).collect::<Result<_, _>>()?;
        let inputs = named_tensor::read_all(raw.inputs, binary, bounds.max_rows)?
            .into_iter()
            .map(|(name, tensor)| InferInput { name, tensor, binary_data: json_length.is_some() })
            .collect();
        let request = Self { id: raw.id, parameters: raw.parameters, inputs, outputs };
        request.check_rows()?;
        Ok(request)
    }

    /// The number of rows, by the first axis of the first input.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.inputs.first().and_then(|input| input.tensor.shape().first()).copied().unwrap_or(0)
    }

    /// What outlives the inputs.
    #[must_use]
    pub fn facts(&self) -> RequestFacts {
        RequestFacts { id: self.id.clone(), outputs: self.outputs.clone() }
    }

    /// Writes the request: the producer's side.
    ///
    /// # Errors
    /// When an input holds what JSON cannot say (a float that is not finite, bytes that are not UTF-8) and is not
    /// marked as binary data; the message names the input. When the parameter `binary_data_output` is no truth value.
    pub fn encode(&self) -> Result<EncodedBody, JobError> {
        let mut binary = Vec::new();
        let inputs = self
            .inputs
            .iter()
            .map(|input| named_tensor::write(&input.name, &input.tensor, input.binary_data, &mut binary))
            .collect::<Result<_, _>>()?;
        let all_binary = flag(&self.parameters, "binary_data_output")?;
        let outputs = self.outputs.iter().map(|output| raw_requested(output, all_binary)).collect();
        let written = WrittenRequest { id: self.id.as_deref(), parameters: &self.parameters, inputs, outputs };
        let json = serde_json::to_vec(&written).map_err(|error| malformed(error.to_string()))?;
        Ok(EncodedBody::new(json, &binary))
    }

    fn check_rows(&self) -> Result<(), JobError> {
        let rows = self.rows();
        for input in &self.inputs {
            let axis = input.tensor.shape().first().copied();
            if axis != Some(rows) {
                let first = self.inputs.first().map_or("", |first| first.name.as_str());
                return Err(JobError::new(
                    ErrorCode::InvalidInput,
                    format!(
                        "input `{}` has shape {:?}, a first axis of {rows} was expected, as `{first}` has",
                        input.name,
                        input.tensor.shape()
                    ),
                ));
            }
        }
        if rows == 0 {
            return Err(JobError::new(ErrorCode::InvalidInput, "the request has no rows"));
        }
        Ok(())
    }
}

fn requested(raw: RawRequestedOutput, all_binary: bool) -> Result<RequestedOutput, JobError> {
    let classification = match raw.parameters.get("classification") {
        None => None,
        Some(value) => {
            Some(value.as_u64().and_then(|k| usize::try_from(k).ok()).filter(|k| *k > 0).ok_or_else(|| {
                malformed(format!("output `{}`: `classification` is a whole number from 1 on", raw.name))
            })?)
        }
    };
    let binary_data =
        if raw.parameters.contains_key("binary_data") { flag(&raw.parameters, "binary_data")? } else { all_binary };
    Ok(RequestedOutput { name: raw.name, classification, binary_data })
}

/// `all_binary` is what the request says of every output that says nothing itself.
fn raw_requested(output: &RequestedOutput, all_binary: bool) -> RawRequestedOutput {
    let mut parameters = Map::new();
    if let Some(k) = output.classification {
        parameters.insert("classification".to_owned(), k.into());
    }
    if output.binary_data || all_binary {
        parameters.insert("binary_data".to_owned(), output.binary_data.into());
    }
    RawRequestedOutput { name: output.name.clone(), parameters }
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Result<bool, JobError> {
    match parameters.get(name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| malformed(format!("`{name}` is a truth value"))),
    }
}

pub(super) fn malformed(message: impl Into<String>) -> JobError {
    JobError::new(ErrorCode::MalformedRequest, message)
}

/// Why a body has no JSON of `json_length` bytes.
fn length_fault(json_length: usize, body_bytes: usize) -> String {
    if json_length == JSON_LENGTH_MISSING {
        return format!(
            "`cty` is x-tensor, but header `{HEADER_JSON_LENGTH}` is missing or no length; it says where the JSON ends"
        );
    }
    format!("header `{HEADER_JSON_LENGTH}` is {json_length}, but the body has {body_bytes} bytes")
}

/// What serde says of a fault, without the content that it quotes.
///
/// Its messages for a wrong type repeat the value that came, so only their kind and place are kept; field names of
/// the protocol may be named, since they come from this program.
fn json_fault(json: &[u8], error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => format!("the JSON ends too early, at {place}"),
        serde_json::error::Category::Syntax if names_no_number(json, error) => {
            format!("the JSON has NaN or infinity at {place}; tensors are finite, and JSON has no word for them")
        }
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            format!("the JSON has a syntax error at {place}")
        }
        serde_json::error::Category::Data => {
            let said = error.to_string();
            let missing = said.split('`').nth(1).filter(|_| said.starts_with("missing field"));
            match missing {
                Some(field) => format!("field `{field}` is missing, at {place}"),
                None if said.starts_with("unknown field") => format!("an unknown field stands at {place}"),
                None => format!("a value of the wrong kind stands at {place}"),
            }
        }
    }
}

/// Whether the fault is at a bare `NaN`, `Infinity` or `-Infinity`, as some languages write them, or at a number
/// beyond all floats.
fn names_no_number(json: &[u8], error: &serde_json::Error) -> bool {
    if error.to_string().starts_with("number out of range") {
        return true;
    }
    let line = json.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let from = error.column().saturating_sub(2);
    let near = line.get(from..).unwrap_or_default();
    [&b"NaN"[..], b"Inf", b"nan", b"inf"].iter().any(|word| near.windows(word.len()).take(3).any(|at| at == *word))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
