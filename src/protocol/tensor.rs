//! Tensors as the Open Inference Protocol v2 names them: datatype, shape, elements in row-major order.
//!
//! Made by `protocol` from a request, by `preprocess` for a model, and by `backend` from what a model answered.

use half::f16;

/// An element type of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// The protocol's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl std::fmt::Display for Datatype {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum TensorData {
    Bool(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Fp16(Vec<f16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
}

impl TensorData {
    /// The element type.
    #[must_use]
    pub const fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// The number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bool(elements) => elements.len(),
            Self::Int8(elements) => elements.len(),
            Self::Int16(elements) => elements.len(),
            Self::Int32(elements) => elements.len(),
            Self::Int64(elements) => elements.len(),
            Self::Uint8(elements) => elements.len(),
            Self::Uint16(elements) => elements.len(),
            Self::Uint32(elements) => elements.len(),
            Self::Uint64(elements) => elements.len(),
            Self::Fp16(elements) => elements.len(),
            Self::Fp32(elements) => elements.len(),
            Self::Fp64(elements) => elements.len(),
            Self::Bytes(elements) => elements.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A shape and its elements do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shape {shape:?} holds {expected} elements, {actual} came")]
pub struct ShapeMismatch {
    /// The shape.
    pub shape: Vec<usize>,
    /// What its axes multiply to; `usize::MAX` where they overflow.
    pub expected: usize,
    /// How many elements came.
    pub actual: usize,
}

/// A tensor whose shape and elements agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: TensorData,
}

impl Tensor {
    /// A tensor of `shape` with `elements` in row-major order.
    ///
    /// # Errors
    /// When the shape's axes do not multiply to the number of elements.
    pub fn new(shape: Vec<usize>, elements: TensorData) -> Result<Self, ShapeMismatch> {
        let expected = shape.iter().try_fold(1_usize, |product, axis| product.checked_mul(*axis)).unwrap_or(usize::MAX);
        if expected == elements.len() {
            Ok(Self { shape, elements })
        } else {
            let actual = elements.len();
            Err(ShapeMismatch { shape, expected, actual })
        }
    }

    /// The shape; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    #[must_use]
    pub const fn elements(&self) -> &TensorData {
        &self.elements
    }

    /// The element type.
    #[must_use]
    pub const fn datatype(&self) -> Datatype {
        self.elements.datatype()
    }

    /// Takes the tensor apart.
    #[must_use]
    pub fn into_parts(self) -> (Vec<usize>, TensorData) {
        (self.shape, self.elements)
    }
}
