//! A tensor's elements, written as JSON.
//!
//! Used by `named_tensor` for what is not written as binary data.

use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};

use super::tensor::TensorData;

/// Why elements cannot be written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WriteError {
    /// JSON has no word for it.
    #[error("a value that is not finite cannot be written as JSON")]
    NotFinite,
    /// JSON strings are Unicode.
    #[error("an element that is not UTF-8 cannot be written as JSON; ask for binary data")]
    NotUtf8,
}

/// Elements that JSON can hold, written as a flat array, every number in its shortest form.
#[derive(Debug)]
pub(super) struct JsonElements<'a>(&'a TensorData);

impl<'a> JsonElements<'a> {
    /// Checks that JSON can hold `elements`.
    pub(super) fn new(elements: &'a TensorData) -> Result<Self, WriteError> {
        let (fits, fault) = match elements {
            TensorData::Fp16(elements) => (elements.iter().all(|element| element.is_finite()), WriteError::NotFinite),
            TensorData::Fp32(elements) => (elements.iter().all(|element| element.is_finite()), WriteError::NotFinite),
            TensorData::Fp64(elements) => (elements.iter().all(|element| element.is_finite()), WriteError::NotFinite),
            TensorData::Bytes(elements) => {
                (elements.iter().all(|element| std::str::from_utf8(element).is_ok()), WriteError::NotUtf8)
            }
            TensorData::Bool(_)
            | TensorData::Int8(_)
            | TensorData::Int16(_)
            | TensorData::Int32(_)
            | TensorData::Int64(_)
            | TensorData::Uint8(_)
            | TensorData::Uint16(_)
            | TensorData::Uint32(_)
            | TensorData::Uint64(_) => return Ok(Self(elements)),
        };
        if fits { Ok(Self(elements)) } else { Err(fault) }
    }
}

impl Serialize for JsonElements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            TensorData::Bool(elements) => serializer.collect_seq(elements),
            TensorData::Int8(elements) => serializer.collect_seq(elements),
            TensorData::Int16(elements) => serializer.collect_seq(elements),
            TensorData::Int32(elements) => serializer.collect_seq(elements),
            TensorData::Int64(elements) => serializer.collect_seq(elements),
            TensorData::Uint8(elements) => serializer.collect_seq(elements),
            TensorData::Uint16(elements) => serializer.collect_seq(elements),
            TensorData::Uint32(elements) => serializer.collect_seq(elements),
            TensorData::Uint64(elements) => serializer.collect_seq(elements),
            TensorData::Fp16(elements) => serializer.collect_seq(elements.iter().map(|element| element.to_f32())),
            TensorData::Fp32(elements) => serializer.collect_seq(elements),
            TensorData::Fp64(elements) => serializer.collect_seq(elements),
            TensorData::Bytes(elements) => {
                let mut sequence = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    sequence.serialize_element(std::str::from_utf8(element).map_err(S::Error::custom)?)?;
                }
                sequence.end()
            }
        }
    }
}
