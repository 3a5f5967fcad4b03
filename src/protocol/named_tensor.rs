//! A tensor with its name, as it stands in a request's inputs and a response's outputs.
//!
//! Used by `request` and `response` alike: its elements are JSON, or lie as binary data behind the JSON.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json_elements::JsonElements;
use super::tensor::{Datatype, Tensor};
use super::{tensor_binary, tensor_json};
use crate::error::{ErrorCode, JobError};
use crate::limits::{MAX_BYTES_ELEMENTS, MAX_ID_CHARS, MAX_RANK};

const BINARY_DATA_SIZE: &str = "binary_data_size";

/// A tensor whose elements are still the JSON that came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTensor<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: Datatype,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A tensor that is being written.
#[derive(Serialize)]
pub(super) struct WrittenTensor<'a> {
    name: &'a str,
    shape: &'a [usize],
    datatype: Datatype,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonElements<'a>>,
}

/// Reads all tensors; `binary` is what lies behind the JSON, and must be used up exactly. A tensor of more than
/// `max_rows` is refused before its elements are read.
pub(super) fn read_all(
    raw: Vec<RawTensor<'_>>,
    mut binary: &[u8],
    max_rows: usize,
) -> Result<Vec<(String, Tensor)>, JobError> {
    let mut names = HashSet::new();
    let mut read = Vec::with_capacity(raw.len());
    for tensor in raw {
        check_name(&tensor.name)?;
        if !names.insert(tensor.name.clone()) {
            return Err(invalid(&tensor.name, "stands twice"));
        }
        read.push((tensor.name.clone(), read_one(&tensor, &mut binary, max_rows)?));
    }
    if binary.is_empty() {
        Ok(read)
    } else {
        let message = format!("{} bytes lie behind the last binary tensor", binary.len());
        Err(JobError::new(ErrorCode::MalformedRequest, message))
    }
}

fn read_one(raw: &RawTensor<'_>, binary: &mut &[u8], max_rows: usize) -> Result<Tensor, JobError> {
    let (shape, elements) = shape(raw)?;
    let rows = shape.first().copied().unwrap_or(0);
    if rows > max_rows {
        let message = format!("tensor `{}` has {rows} rows, at most {max_rows} are taken (limits.max_rows)", raw.name);
        return Err(JobError::new(ErrorCode::InputTooLarge, message));
    }
    if raw.datatype == Datatype::Bytes && elements > MAX_BYTES_ELEMENTS {
        let message =
            format!("tensor `{}` has {elements} BYTES elements, at most {MAX_BYTES_ELEMENTS} are taken", raw.name);
        return Err(JobError::new(ErrorCode::InputTooLarge, message));
    }
    let data = match (raw.parameters.get(BINARY_DATA_SIZE), raw.data) {
        (None, Some(data)) => {
            tensor_json::read(data.get(), raw.datatype, &shape, elements).map_err(|error| invalid(&raw.name, error))?
        }
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
fn shape(raw: &RawTensor<'_>) -> Result<(Vec<usize>, usize), JobError> {
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
pub(super) fn write<'a>(
    name: &'a str,
    tensor: &'a Tensor,
    as_binary: bool,
    binary: &mut Vec<u8>,
) -> Result<WrittenTensor<'a>, JobError> {
    let mut parameters = Map::new();
    let data = if as_binary {
        let before = binary.len();
        tensor_binary::write(tensor.elements(), binary);
        parameters.insert(BINARY_DATA_SIZE.to_owned(), (binary.len() - before).into());
        None
    } else {
        Some(JsonElements::new(tensor.elements()).map_err(|error| invalid(name, error))?)
    };
    Ok(WrittenTensor { name, shape: tensor.shape(), datatype: tensor.datatype(), parameters, data })
}

fn invalid(name: &str, fault: impl std::fmt::Display) -> JobError {
    JobError::new(ErrorCode::InvalidInput, format!("tensor `{name}`: {fault}"))
}
