//! A tensor's elements as JSON, flat or nested in row-major order: read in one pass, without recursion and without a tree
//! of values in between, which would weigh twenty times the body.
//!
//! Reads JSON that is already known to be well formed. Numbers are read by the standard library, which rounds once: a
//! number in its shortest form reads back bit for bit.

use std::str::FromStr;

use half::f16;

use super::json_tokens::{Kind, Token, Tokens};
use super::tensor::{Datatype, TensorData};

/// Why elements could not be read. The message names place and kind, never the element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ElementError {
    /// An element of another kind than the datatype's.
    #[error("element {index} is {found}, {expected} was expected for {datatype}")]
    Kind {
        /// Position, row-major.
        index: usize,
        /// What came.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
        /// The tensor's datatype.
        datatype: Datatype,
    },
    /// A number that the datatype cannot hold.
    #[error("element {index} does not fit into {datatype}, which goes from {min} to {max}")]
    Range {
        /// Position, row-major.
        index: usize,
        /// The tensor's datatype.
        datatype: Datatype,
        /// Its least number.
        min: String,
        /// Its greatest number.
        max: String,
    },
    /// `data` is no array.
    #[error("`data` is {0}, an array was expected")]
    NoArray(&'static str),
    /// The arrays do not follow the shape.
    #[error("`data` must be flat, or nested as shape {shape:?} says; element {index} stands elsewhere")]
    Nesting {
        /// The shape.
        shape: Vec<usize>,
        /// Position, row-major, of the next element.
        index: usize,
    },
    /// Too few elements.
    #[error("shape {shape:?} holds {expected} elements, {actual} came")]
    TooFew {
        /// The shape.
        shape: Vec<usize>,
        /// What it holds.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// Too many elements; reading stops there.
    #[error("shape {shape:?} holds {expected} elements, more came")]
    TooMany {
        /// The shape.
        shape: Vec<usize>,
        /// What it holds.
        expected: usize,
    },
}

/// Reads `json`, flat or nested as `shape` says, as the `expected` elements that `shape` holds.
pub(super) fn read(
    json: &str,
    datatype: Datatype,
    shape: &[usize],
    expected: usize,
) -> Result<TensorData, ElementError> {
    if Kind::of(json) != Kind::Array {
        return Err(ElementError::NoArray(Kind::of(json).as_str()));
    }
    let reader = ElementReader { json, datatype, shape, expected };
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(reader.collect("a boolean", read_bool)?),
        Datatype::Int8 => TensorData::Int8(reader.integers(i8::MIN, i8::MAX)?),
        Datatype::Int16 => TensorData::Int16(reader.integers(i16::MIN, i16::MAX)?),
        Datatype::Int32 => TensorData::Int32(reader.integers(i32::MIN, i32::MAX)?),
        Datatype::Int64 => TensorData::Int64(reader.integers(i64::MIN, i64::MAX)?),
        Datatype::Uint8 => TensorData::Uint8(reader.integers(u8::MIN, u8::MAX)?),
        Datatype::Uint16 => TensorData::Uint16(reader.integers(u16::MIN, u16::MAX)?),
        Datatype::Uint32 => TensorData::Uint32(reader.integers(u32::MIN, u32::MAX)?),
        Datatype::Uint64 => TensorData::Uint64(reader.integers(u64::MIN, u64::MAX)?),
        Datatype::Fp16 => TensorData::Fp16(
            reader
                .floats(f16::MAX, |token| token.parse().ok().map(f16::from_f64).filter(|number| number.is_finite()))?,
        ),
        Datatype::Fp32 => TensorData::Fp32(
            reader.floats(f32::MAX, |token| token.parse().ok().filter(|number: &f32| number.is_finite()))?,
        ),
        Datatype::Fp64 => TensorData::Fp64(
            reader.floats(f64::MAX, |token| token.parse().ok().filter(|number: &f64| number.is_finite()))?,
        ),
        Datatype::Bytes => TensorData::Bytes(reader.collect("a string", read_string)?),
    })
}

/// Why one element could not be read.
enum ElementFault {
    /// It is of another kind.
    Kind(&'static str),
    /// It is a number, but too large or too small.
    Range { min: String, max: String },
}

struct ElementReader<'a> {
    json: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    expected: usize,
}

impl ElementReader<'_> {
    fn integers<T: FromStr + Copy + ToString>(&self, min: T, max: T) -> Result<Vec<T>, ElementError> {
        self.collect("a whole number", |token| {
            if Kind::of(token) != Kind::Number {
                return Err(ElementFault::Kind(Kind::of(token).as_str()));
            }
            if token.contains(['.', 'e', 'E']) {
                return Err(ElementFault::Kind("written with a fraction or an exponent"));
            }
            // The standard library reads no `-0` into an unsigned number.
            let digits = if token == "-0" { "0" } else { token };
            digits.parse().map_err(|_| ElementFault::Range { min: min.to_string(), max: max.to_string() })
        })
    }

    /// `read` answers `None` for what is not finite in the datatype.
    fn floats<T: ToString>(&self, max: T, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ElementError> {
        self.collect("a number", |token| {
            if Kind::of(token) != Kind::Number {
                return Err(ElementFault::Kind(Kind::of(token).as_str()));
            }
            read(token).ok_or_else(|| {
                let max = max.to_string();
                ElementFault::Range { min: format!("-{max}"), max }
            })
        })
    }

    /// Reads every element, and checks their nesting and their number on the way.
    fn collect<T>(
        &self,
        wanted: &'static str,
        read: impl Fn(&str) -> Result<T, ElementFault>,
    ) -> Result<Vec<T>, ElementError> {
        // Each element takes two characters of JSON at least: a false shape makes no large allocation.
        let mut elements = Vec::with_capacity(self.expected.min(self.json.len() / 2 + 1));
        let mut nesting = Nesting::new(self.shape);
        for token in Tokens::of(self.json) {
            let index = elements.len();
            let placed = match token {
                Token::Open => nesting.open(),
                Token::Close => nesting.close(),
                Token::Scalar(text) => {
                    if index == self.expected {
                        return Err(ElementError::TooMany { shape: self.shape.to_vec(), expected: self.expected });
                    }
                    elements.push(read(text).map_err(|fault| self.name(fault, wanted, index))?);
                    nesting.scalar()
                }
            };
            placed.ok_or_else(|| ElementError::Nesting { shape: self.shape.to_vec(), index })?;
        }
        if elements.len() < self.expected {
            let (shape, actual) = (self.shape.to_vec(), elements.len());
            return Err(ElementError::TooFew { shape, expected: self.expected, actual });
        }
        Ok(elements)
    }

    fn name(&self, fault: ElementFault, expected: &'static str, index: usize) -> ElementError {
        let datatype = self.datatype;
        match fault {
            ElementFault::Kind(found) => ElementError::Kind { datatype, expected, index, found },
            ElementFault::Range { min, max } => ElementError::Range { datatype, index, min, max },
        }
    }
}

fn read_bool(token: &str) -> Result<bool, ElementFault> {
    match token {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(ElementFault::Kind(Kind::of(other).as_str())),
    }
}

fn read_string(token: &str) -> Result<Vec<u8>, ElementFault> {
    if Kind::of(token) != Kind::String {
        return Err(ElementFault::Kind(Kind::of(token).as_str()));
    }
    // Only a lone surrogate (`\ud800`) is well-formed JSON and no text.
    let text: String = serde_json::from_str(token).map_err(|_| ElementFault::Kind("a string with a lone surrogate"))?;
    Ok(text.into_bytes())
}

/// Keeps account of the brackets: elements stand either all in one array, or as deep as the shape has axes.
struct Nesting<'a> {
    shape: &'a [usize],
    /// Members so far of each array that is open.
    counts: Vec<usize>,
    /// Depth of the first element; all others stand as deep.
    leaf_depth: Option<usize>,
    /// Whether an array stood inside another.
    nested: bool,
}

impl<'a> Nesting<'a> {
    fn new(shape: &'a [usize]) -> Self {
        Self { shape, counts: Vec::with_capacity(shape.len().max(1)), leaf_depth: None, nested: false }
    }

    fn open(&mut self) -> Option<()> {
        if let Some(members) = self.counts.last_mut() {
            *members += 1;
            self.nested = true;
        }
        self.counts.push(0);
        (self.counts.len() <= self.shape.len().max(1)).then_some(())
    }

    fn scalar(&mut self) -> Option<()> {
        *self.counts.last_mut()? += 1;
        let depth = self.counts.len();
        let leaf_depth = *self.leaf_depth.get_or_insert(depth);
        (depth == leaf_depth && (depth == 1 || depth == self.shape.len())).then_some(())
    }

    fn close(&mut self) -> Option<()> {
        let members = self.counts.pop()?;
        let axis = self.shape.get(self.counts.len());
        (!self.nested || axis == Some(&members)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(json: &str, datatype: Datatype, shape: &[usize]) -> Result<TensorData, String> {
        let expected = shape.iter().product();
        super::read(json, datatype, shape, expected).map_err(|fault| fault.to_string())
    }

    #[test]
    fn flat_and_nested_arrays_read_the_same() {
        let expected = TensorData::Int32(vec![1, 2, 3, 4, 5, 6]);
        for json in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [ 1 , 2,\n3],\t[4,5,6 ] ] "] {
            assert_eq!(elements(json, Datatype::Int32, &[2, 3]).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn nesting_other_than_the_shape_is_refused() {
        for json in
            ["[[1,2],[3,4],[5,6]]", "[[1,2,3,4],[5,6]]", "[[[1,2,3],[4,5,6]]]", "[1,2,3,[4,5,6]]", "[[1,2,3],4,5,6]"]
        {
            let refusal = elements(json, Datatype::Int32, &[2, 3]).unwrap_err();
            assert!(refusal.contains("nested as shape [2, 3] says"), "{json}: {refusal}");
        }
        assert!(elements("[[],[]]", Datatype::Int32, &[3, 0]).is_err());
        assert!(elements("[[],[]]", Datatype::Int32, &[2, 0]).is_ok());
        assert!(elements("1", Datatype::Int32, &[1]).is_err());
        assert!(elements("{\"a\":1}", Datatype::Int32, &[1]).is_err());
        assert!(elements("[{\"a\":1}]", Datatype::Int32, &[1]).unwrap_err().contains("is an object"));
    }

    #[test]
    fn a_wrong_number_of_elements_is_counted() {
        assert_eq!(elements("[1,2]", Datatype::Int8, &[3]).unwrap_err(), "shape [3] holds 3 elements, 2 came");
        assert_eq!(elements("[1,2,3]", Datatype::Int8, &[2]).unwrap_err(), "shape [2] holds 2 elements, more came");
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        assert_eq!(elements("[-128,127,-0]", Datatype::Int8, &[3]).unwrap(), TensorData::Int8(vec![-128, 127, 0]));
        assert_eq!(
            elements("[18446744073709551615,-0]", Datatype::Uint64, &[2]).unwrap(),
            TensorData::Uint64(vec![u64::MAX, 0])
        );
        assert_eq!(
            elements("[0,128]", Datatype::Int8, &[2]).unwrap_err(),
            "element 1 does not fit into INT8, which goes from -128 to 127"
        );
        assert!(elements("[-1]", Datatype::Uint64, &[1]).unwrap_err().contains("does not fit into UINT64"));
        for json in ["[1.0]", "[1e0]"] {
            assert!(elements(json, Datatype::Int64, &[1]).unwrap_err().contains("fraction or an exponent"), "{json}");
        }
        assert_eq!(
            elements("[\"canary\"]", Datatype::Int64, &[1]).unwrap_err(),
            "element 0 is a string, a whole number was expected for INT64"
        );
    }

    #[test]
    fn floats_are_finite_and_rounded_correctly() {
        assert_eq!(elements("[1,1.5e1,-0.1]", Datatype::Fp32, &[3]).unwrap(), TensorData::Fp32(vec![1.0, 15.0, -0.1]));
        // Halfway between two FP32 numbers but for its last digit: reading it by way of FP64 rounds the wrong way.
        assert_eq!(
            elements("[1.00000017881393432617187501]", Datatype::Fp32, &[1]).unwrap(),
            TensorData::Fp32(vec![1.000_000_2])
        );
        for (json, datatype) in [
            ("[1e39]", Datatype::Fp32),
            ("[1e309]", Datatype::Fp64),
            ("[65520]", Datatype::Fp16),
            ("[-1e999]", Datatype::Fp64),
        ] {
            assert!(elements(json, datatype, &[1]).unwrap_err().contains("does not fit"), "{json}");
        }
        assert!(elements("[null]", Datatype::Fp32, &[1]).unwrap_err().starts_with("element 0 is null"));
    }

    #[test]
    fn strings_are_read_whatever_they_hold() {
        let json = r#"["a\"]b","\\","\u00e9,[", ""]"#;
        assert_eq!(
            elements(json, Datatype::Bytes, &[4]).unwrap(),
            TensorData::Bytes(vec![b"a\"]b".to_vec(), b"\\".to_vec(), "é,[".into(), Vec::new()])
        );
        assert!(elements(r#"["\ud800"]"#, Datatype::Bytes, &[1]).unwrap_err().contains("lone surrogate"));
    }

    #[test]
    fn booleans_are_words() {
        assert_eq!(elements("[true,false]", Datatype::Bool, &[2]).unwrap(), TensorData::Bool(vec![true, false]));
        assert!(elements("[1]", Datatype::Bool, &[1]).unwrap_err().contains("element 0 is a number"));
    }

    #[test]
    fn a_false_shape_allocates_nothing_of_its_size() {
        assert!(super::read("[1]", Datatype::Fp64, &[usize::MAX], usize::MAX).is_err());
    }
}
