//! A tensor's elements as JSON: numbers, truth values and strings, flat or nested in row-major order.

use half::f16;
use serde_json::{Number, Value};

use super::tensor::{Datatype, TensorData};

/// Why elements could not be read. The message names place and kind, never the element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ElementError {
    /// An element of another kind than the datatype's.
    #[error("element {index} is {found}, {expected} was expected for {datatype}")]
    Kind {
        /// Position, row-major.
        index: usize,
        /// What JSON calls it.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
        /// The tensor's datatype.
        datatype: Datatype,
    },
    /// A number that the datatype cannot hold.
    #[error("element {index} does not fit into {datatype}")]
    Range {
        /// Position, row-major.
        index: usize,
        /// The tensor's datatype.
        datatype: Datatype,
    },
    /// `data` is no array.
    #[error("`data` is {0}, an array was expected")]
    NoArray(&'static str),
}

/// Reads `data`, flat or nested, as elements of `datatype`.
pub(super) fn read(datatype: Datatype, data: &Value) -> Result<TensorData, ElementError> {
    if !data.is_array() {
        return Err(ElementError::NoArray(kind(data)));
    }
    let mut flat = Vec::new();
    flatten(data, &mut flat);
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(each(&flat, datatype, "a truth value", |v| Ok(v.as_bool()))?),
        Datatype::Int8 => TensorData::Int8(integers(&flat, datatype)?),
        Datatype::Int16 => TensorData::Int16(integers(&flat, datatype)?),
        Datatype::Int32 => TensorData::Int32(integers(&flat, datatype)?),
        Datatype::Int64 => TensorData::Int64(integers(&flat, datatype)?),
        Datatype::Uint8 => TensorData::Uint8(integers(&flat, datatype)?),
        Datatype::Uint16 => TensorData::Uint16(integers(&flat, datatype)?),
        Datatype::Uint32 => TensorData::Uint32(integers(&flat, datatype)?),
        Datatype::Uint64 => TensorData::Uint64(integers(&flat, datatype)?),
        Datatype::Fp16 => TensorData::Fp16(floats(&flat, datatype, f16::from_f64, f16::is_finite)?),
        #[allow(clippy::cast_possible_truncation, reason = "rounding to single precision is what FP32 asks for")]
        Datatype::Fp32 => TensorData::Fp32(floats(&flat, datatype, |x| x as f32, |x: f32| x.is_finite())?),
        Datatype::Fp64 => TensorData::Fp64(floats(&flat, datatype, |x| x, |x: f64| x.is_finite())?),
        Datatype::Bytes => {
            TensorData::Bytes(each(&flat, datatype, "a string", |v| Ok(v.as_str().map(|s| s.as_bytes().to_vec())))?)
        }
    })
}

fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => into.push(value),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads every element: `Ok(None)` for another kind, `Err(())` for a number that does not fit.
fn each<T>(
    flat: &[&Value],
    datatype: Datatype,
    expected: &'static str,
    read: impl Fn(&Value) -> Result<Option<T>, ()>,
) -> Result<Vec<T>, ElementError> {
    flat.iter()
        .enumerate()
        .map(|(index, value)| match read(value) {
            Ok(Some(element)) => Ok(element),
            Ok(None) => Err(ElementError::Kind { index, found: kind(value), expected, datatype }),
            Err(()) => Err(ElementError::Range { index, datatype }),
        })
        .collect()
}

fn integers<T: TryFrom<i128>>(flat: &[&Value], datatype: Datatype) -> Result<Vec<T>, ElementError> {
    each(flat, datatype, "a whole number", |value| {
        let Value::Number(number) = value else { return Ok(None) };
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        whole.map(T::try_from).transpose().map_err(|_| ())
    })
}

fn floats<T: Copy>(
    flat: &[&Value],
    datatype: Datatype,
    narrow: impl Fn(f64) -> T,
    is_finite: impl Fn(T) -> bool,
) -> Result<Vec<T>, ElementError> {
    each(flat, datatype, "a number", |value| {
        let Some(number) = value.as_f64() else { return Ok(None) };
        let narrowed = narrow(number);
        if is_finite(narrowed) { Ok(Some(narrowed)) } else { Err(()) }
    })
}

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

/// Writes elements as a flat JSON array.
pub(super) fn write(elements: &TensorData) -> Result<Value, WriteError> {
    fn all<T: Copy>(elements: &[T], value: impl Fn(T) -> Value) -> Result<Value, WriteError> {
        Ok(elements.iter().map(|element| value(*element)).collect())
    }
    fn finite<T: Copy + Into<f64>>(elements: &[T]) -> Result<Value, WriteError> {
        elements.iter().map(|x| number((*x).into())).collect()
    }
    match elements {
        TensorData::Bool(elements) => all(elements, Value::from),
        TensorData::Int8(elements) => all(elements, Value::from),
        TensorData::Int16(elements) => all(elements, Value::from),
        TensorData::Int32(elements) => all(elements, Value::from),
        TensorData::Int64(elements) => all(elements, Value::from),
        TensorData::Uint8(elements) => all(elements, Value::from),
        TensorData::Uint16(elements) => all(elements, Value::from),
        TensorData::Uint32(elements) => all(elements, Value::from),
        TensorData::Uint64(elements) => all(elements, Value::from),
        TensorData::Fp16(elements) => finite(elements),
        TensorData::Fp32(elements) => finite(elements),
        TensorData::Fp64(elements) => finite(elements),
        TensorData::Bytes(elements) => elements
            .iter()
            .map(|bytes| std::str::from_utf8(bytes).map(Value::from).map_err(|_| WriteError::NotUtf8))
            .collect(),
    }
}

fn number(value: f64) -> Result<Value, WriteError> {
    Number::from_f64(value).map(Value::Number).ok_or(WriteError::NotFinite)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_arrays_are_read_row_by_row() {
        let read = read(Datatype::Int64, &json!([[1, 2], [3, 4]])).unwrap();
        assert_eq!(read, TensorData::Int64(vec![1, 2, 3, 4]));
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        assert_eq!(
            read(Datatype::Int8, &json!([1, 300])),
            Err(ElementError::Range { index: 1, datatype: Datatype::Int8 })
        );
        assert_eq!(
            read(Datatype::Fp32, &json!([1e300])),
            Err(ElementError::Range { index: 0, datatype: Datatype::Fp32 })
        );
        assert_eq!(
            read(Datatype::Uint8, &json!([-1])),
            Err(ElementError::Range { index: 0, datatype: Datatype::Uint8 })
        );
        let message = read(Datatype::Int64, &json!([1, 2.5])).unwrap_err().to_string();
        assert_eq!(message, "element 1 is a number, a whole number was expected for INT64");
        let message = read(Datatype::Bytes, &json!("x")).unwrap_err().to_string();
        assert_eq!(message, "`data` is a string, an array was expected");
    }

    #[test]
    fn what_json_has_no_word_for_is_not_written() {
        assert_eq!(write(&TensorData::Fp32(vec![f32::NAN])), Err(WriteError::NotFinite));
        assert_eq!(write(&TensorData::Bytes(vec![vec![0xff]])), Err(WriteError::NotUtf8));
    }
}
