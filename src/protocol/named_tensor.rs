//! A tensor with its name, as it stands in a request's inputs and a response's outputs.
//!
//! Used by `request` and `response` alike: its elements are JSON, or lie as binary data behind the JSON.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::tensor::{Datatype, Tensor};
use super::{tensor_binary, tensor_json};
use crate::error::{ErrorCode, JobError};
use crate::limits::{MAX_ID_CHARS, MAX_RANK};

const BINARY_DATA_SIZE: &str = "binary_data_size";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTensor {
    name: String,
    shape: Vec<i64>,
    datatype: Datatype,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// Reads all tensors; `binary` is what lies behind the JSON, and must be used up exactly.
pub(super) fn read_all(raw: Vec<RawTensor>, mut binary: &[u8]) -> Result<Vec<(String, Tensor)>, JobError> {
    let mut names = HashSet::new();
    let mut read = Vec::with_capacity(raw.len());
    for tensor in raw {
        check_name(&tensor.name)?;
        if !names.insert(tensor.name.clone()) {
            return Err(invalid(&tensor.name, "stands twice"));
        }
        read.push((tensor.name.clone(), read_one(&tensor, &mut binary)?));
    }
    if binary.is_empty() {
        Ok(read)
    } else {
        let message = format!("{} bytes lie behind the last binary tensor", binary.len());
        Err(JobError::new(ErrorCode::MalformedRequest, message))
    }
}

fn read_one(raw: &RawTensor, binary: &mut &[u8]) -> Result<Tensor, JobError> {
    let (shape, elements) = shape(raw)?;
    let data = match (raw.parameters.get(BINARY_DATA_SIZE), &raw.data) {
        (None, Some(data)) => tensor_json::read(raw.datatype, data).map_err(|error| invalid(&raw.name, error))?,
        (Some(size), None) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let size = size.ok_or_else(|| invalid(&raw.name, "`binary_data_size` is no count of bytes"))?;
            let (own, rest) = binary.split_at_checked(size).ok_or_else(|| {
                invalid(&raw.name, format!("`binary_data_size` is {size}, but {} bytes are left", binary.len()))
            })?;
            *binary = rest;
            tensor_binary::read(raw.datatype, elements, own).map_err(|error| invalid(&raw.name, error))?
        }
        (Some(_), Some(_)) => return Err(invalid(&raw.name, "has both `data` and `binary_data_size`")),
        (None, None) => return Err(invalid(&raw.name, "has neither `data` nor `binary_data_size`")),
    };
    Tensor::new(shape, data).map_err(|error| invalid(&raw.name, error))
}

/// The shape, and how many elements it holds.
fn shape(raw: &RawTensor) -> Result<(Vec<usize>, usize), JobError> {
    if raw.shape.is_empty() || raw.shape.len() > MAX_RANK {
        return Err(invalid(&raw.name, format!("has {} axes, 1 to {MAX_RANK} were expected", raw.shape.len())));
    }
    let axes: Option<Vec<usize>> = raw.shape.iter().map(|axis| usize::try_from(*axis).ok()).collect();
    let axes = axes.ok_or_else(|| invalid(&raw.name, format!("has a negative axis in shape {:?}", raw.shape)))?;
    let elements = axes.iter().try_fold(1_usize, |product, axis| product.checked_mul(*axis));
    let elements = elements.ok_or_else(|| invalid(&raw.name, format!("has too large a shape: {:?}", raw.shape)))?;
    Ok((axes, elements))
}

fn check_name(name: &str) -> Result<(), JobError> {
    let fits = !name.is_empty() && name.len() <= MAX_ID_CHARS && !name.contains(char::is_control);
    // A name that is not one may be content: it is not repeated.
    let message = format!("a tensor's name has 1 to {MAX_ID_CHARS} bytes and no control characters");
    if fits { Ok(()) } else { Err(JobError::new(ErrorCode::MalformedRequest, message)) }
}

/// Writes one tensor; its elements go behind the JSON, into `binary`, where asked for.
pub(super) fn write(name: &str, tensor: &Tensor, as_binary: bool, binary: &mut Vec<u8>) -> Result<RawTensor, JobError> {
    let shape = tensor.shape().iter().map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX)).collect();
    let mut parameters = Map::new();
    let data = if as_binary {
        let before = binary.len();
        tensor_binary::write(tensor.elements(), binary);
        parameters.insert(BINARY_DATA_SIZE.to_owned(), (binary.len() - before).into());
        None
    } else {
        Some(tensor_json::write(tensor.elements()).map_err(|error| invalid(name, error))?)
    };
    Ok(RawTensor { name: name.to_owned(), shape, datatype: tensor.datatype(), parameters, data })
}

fn invalid(name: &str, fault: impl std::fmt::Display) -> JobError {
    JobError::new(ErrorCode::InvalidInput, format!("tensor `{name}`: {fault}"))
}
