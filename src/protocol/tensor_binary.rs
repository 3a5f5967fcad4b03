//! A tensor's elements as the binary tensor data extension writes them: little-endian, row-major, without gaps;
//! every element of BYTES behind its length as 4 bytes; BOOL as one byte 0 or 1.

use half::f16;

use super::tensor::{Datatype, TensorData};

/// Why elements could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BinaryError {
    /// Not as many bytes as the shape asks for.
    #[error("{actual} bytes came for {elements} elements of {datatype}, {expected} were expected")]
    Length {
        /// Elements by the shape.
        elements: usize,
        /// The datatype.
        datatype: Datatype,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// The lengths before the elements of BYTES do not add up to the shape and the size.
    #[error("the lengths of the {elements} BYTES elements do not add up to the {actual} bytes that came")]
    BytesLengths {
        /// Elements by the shape.
        elements: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// A byte of BOOL that is neither 0 nor 1.
    #[error("element {0} of BOOL is neither 0 nor 1")]
    NoBool(usize),
    /// NaN or infinity.
    #[error("element {0} is not finite")]
    NotFinite(usize),
}

/// Reads `elements` elements of `datatype`.
pub(super) fn read(datatype: Datatype, elements: usize, bytes: &[u8]) -> Result<TensorData, BinaryError> {
    let fixed = Fixed { datatype, elements, bytes };
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(bools(&fixed.read(u8::from_le_bytes)?)?),
        Datatype::Int8 => TensorData::Int8(fixed.read(i8::from_le_bytes)?),
        Datatype::Int16 => TensorData::Int16(fixed.read(i16::from_le_bytes)?),
        Datatype::Int32 => TensorData::Int32(fixed.read(i32::from_le_bytes)?),
        Datatype::Int64 => TensorData::Int64(fixed.read(i64::from_le_bytes)?),
        Datatype::Uint8 => TensorData::Uint8(fixed.read(u8::from_le_bytes)?),
        Datatype::Uint16 => TensorData::Uint16(fixed.read(u16::from_le_bytes)?),
        Datatype::Uint32 => TensorData::Uint32(fixed.read(u32::from_le_bytes)?),
        Datatype::Uint64 => TensorData::Uint64(fixed.read(u64::from_le_bytes)?),
        Datatype::Fp16 => TensorData::Fp16(finite(fixed.read(f16::from_le_bytes)?, |x| x.is_finite())?),
        Datatype::Fp32 => TensorData::Fp32(finite(fixed.read(f32::from_le_bytes)?, |x| x.is_finite())?),
        Datatype::Fp64 => TensorData::Fp64(finite(fixed.read(f64::from_le_bytes)?, |x| x.is_finite())?),
        Datatype::Bytes => TensorData::Bytes(
            length_prefixed(elements, bytes).ok_or(BinaryError::BytesLengths { elements, actual: bytes.len() })?,
        ),
    })
}

/// A tensor of elements that all have one size.
struct Fixed<'a> {
    datatype: Datatype,
    elements: usize,
    bytes: &'a [u8],
}

impl Fixed<'_> {
    fn read<const WIDTH: usize, T>(&self, from: impl Fn([u8; WIDTH]) -> T) -> Result<Vec<T>, BinaryError> {
        let expected = self.elements.checked_mul(WIDTH);
        if expected != Some(self.bytes.len()) {
            return Err(BinaryError::Length {
                elements: self.elements,
                datatype: self.datatype,
                expected: expected.unwrap_or(usize::MAX),
                actual: self.bytes.len(),
            });
        }
        let (elements, _none_left) = self.bytes.as_chunks::<WIDTH>();
        Ok(elements.iter().map(|element| from(*element)).collect())
    }
}

fn bools(bytes: &[u8]) -> Result<Vec<bool>, BinaryError> {
    bytes
        .iter()
        .enumerate()
        .map(|(index, byte)| match byte {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err(BinaryError::NoBool(index)),
        })
        .collect()
}

fn finite<T: Copy>(elements: Vec<T>, is_finite: impl Fn(T) -> bool) -> Result<Vec<T>, BinaryError> {
    match elements.iter().position(|element| !is_finite(*element)) {
        Some(index) => Err(BinaryError::NotFinite(index)),
        None => Ok(elements),
    }
}

fn length_prefixed(elements: usize, mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    // Every element takes its four bytes of length: a shape cannot make us reserve more than came.
    if elements > bytes.len() / 4 {
        return None;
    }
    let mut read = Vec::with_capacity(elements);
    for _ in 0..elements {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (element, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        read.push(element.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(read)
}

/// Appends elements to `into`.
pub(super) fn write(elements: &TensorData, into: &mut Vec<u8>) {
    fn all<const WIDTH: usize, T: Copy>(elements: &[T], to: impl Fn(T) -> [u8; WIDTH], into: &mut Vec<u8>) {
        into.reserve(elements.len().saturating_mul(WIDTH));
        elements.iter().for_each(|element| into.extend_from_slice(&to(*element)));
    }
    match elements {
        TensorData::Bool(elements) => all(elements, |b| [u8::from(b)], into),
        TensorData::Int8(elements) => all(elements, i8::to_le_bytes, into),
        TensorData::Int16(elements) => all(elements, i16::to_le_bytes, into),
        TensorData::Int32(elements) => all(elements, i32::to_le_bytes, into),
        TensorData::Int64(elements) => all(elements, i64::to_le_bytes, into),
        TensorData::Uint8(elements) => into.extend_from_slice(elements),
        TensorData::Uint16(elements) => all(elements, u16::to_le_bytes, into),
        TensorData::Uint32(elements) => all(elements, u32::to_le_bytes, into),
        TensorData::Uint64(elements) => all(elements, u64::to_le_bytes, into),
        TensorData::Fp16(elements) => all(elements, f16::to_le_bytes, into),
        TensorData::Fp32(elements) => all(elements, f32::to_le_bytes, into),
        TensorData::Fp64(elements) => all(elements, f64::to_le_bytes, into),
        TensorData::Bytes(elements) => {
            for element in elements {
                // A body is far smaller than 4 GiB: `limits` sees to that.
                let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
                into.extend_from_slice(&length.to_le_bytes());
                into.extend_from_slice(element);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(elements: &TensorData) {
        let mut bytes = Vec::new();
        write(elements, &mut bytes);
        assert_eq!(read(elements.datatype(), elements.len(), &bytes).as_ref(), Ok(elements));
    }

    proptest! {
        #[test]
        fn elements_read_back_as_written(
            ints in proptest::collection::vec(any::<i64>(), 0..20),
            bytes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            bools in proptest::collection::vec(any::<bool>(), 0..9),
            floats in proptest::collection::vec(-1e30_f32..1e30, 0..9),
        ) {
            round_trip(&TensorData::Int64(ints));
            round_trip(&TensorData::Bytes(bytes));
            round_trip(&TensorData::Bool(bools));
            round_trip(&TensorData::Fp32(floats));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), elements in any::<usize>()) {
            for datatype in [Datatype::Bool, Datatype::Int16, Datatype::Fp16, Datatype::Fp64, Datatype::Bytes] {
                let _either = read(datatype, elements, &bytes);
            }
        }
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(read(Datatype::Bool, 1, &[2]), Err(BinaryError::NoBool(0)));
        assert_eq!(read(Datatype::Fp32, 1, &f32::NAN.to_le_bytes()), Err(BinaryError::NotFinite(0)));
        let message = read(Datatype::Int32, 2, &[0; 7]).unwrap_err().to_string();
        assert_eq!(message, "7 bytes came for 2 elements of INT32, 8 were expected");
        assert!(read(Datatype::Bytes, 1, &[9, 0, 0, 0, b'x']).is_err());
        assert!(read(Datatype::Bytes, 1, &[1, 0, 0, 0, b'x', b'y']).is_err());
    }
}
