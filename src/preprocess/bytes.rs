//! Files to rows: the first and the last bytes of each, as numbers, filled up where a file is short.
//!
//! Called for every job of a model that tells files by their ends.

use serde::{Deserialize, Serialize};

use super::{byte_rows, invalid};
use crate::batch::row::Row;
use crate::error::JobError;
use crate::protocol::request::InferInput;
use crate::protocol::tensor::{Datatype, Tensor, TensorData};

/// `[preprocess]` of a model of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BytesSpec {
    /// The graph's input: INT32 or INT64 `[N, first + last]`.
    pub input: String,
    /// Bytes from the beginning.
    pub first: usize,
    /// Bytes from the end.
    pub last: usize,
    /// What stands where a file has no byte: behind a short beginning, before a short end.
    pub pad: i32,
    /// Whether white space before the first and behind the last byte is passed over.
    #[serde(default)]
    pub strip: bool,
    /// Bytes at either end that are looked at for that.
    #[serde(default = "block")]
    pub block: usize,
    /// Bytes of a file at most.
    pub max_file_bytes: usize,
}

const fn block() -> usize {
    4_096
}

impl BytesSpec {
    /// One row for each file of `input`; the graph takes them as `datatype`.
    pub(super) fn prepare(&self, input: InferInput, datatype: Datatype) -> Result<Vec<Row>, JobError> {
        let files = byte_rows(input, self.max_file_bytes, "max_file_bytes")?;
        files.iter().map(|file| self.row(file, datatype)).collect()
    }

    fn row(&self, file: &[u8], datatype: Datatype) -> Result<Row, JobError> {
        let numbers = self.numbers(file);
        let length = numbers.len();
        let elements = match datatype {
            Datatype::Int64 => TensorData::Int64(numbers.into_iter().map(i64::from).collect()),
            _ => TensorData::Int32(numbers),
        };
        let tensor = Tensor::new(vec![length], elements).map_err(|error| invalid(error.to_string()))?;
        Ok(Row { inputs: vec![tensor], length: 1, may_be_padded: false })
    }

    fn numbers(&self, file: &[u8]) -> Vec<i32> {
        let block = self.block.min(file.len());
        let (mut head, mut tail) =
            (file.get(..block).unwrap_or_default(), file.get(file.len() - block..).unwrap_or_default());
        if self.strip {
            head = stripped(head, <[u8]>::split_first);
            tail = stripped(tail, <[u8]>::split_last);
        }
        let head = head.get(..self.first.min(head.len())).unwrap_or_default();
        let tail = tail.get(tail.len().saturating_sub(self.last)..).unwrap_or_default();
        let filling = |wanted: usize, there: usize| std::iter::repeat_n(self.pad, wanted.saturating_sub(there));
        let numbers = |bytes: &[u8]| bytes.iter().copied().map(i32::from).collect::<Vec<_>>();
        let head = numbers(head).into_iter().chain(filling(self.first, head.len()));
        head.chain(filling(self.last, tail.len())).chain(numbers(tail)).collect()
    }
}

/// `bytes` without the white space at the end that `part` takes one off.
fn stripped(mut bytes: &[u8], part: impl Fn(&[u8]) -> Option<(&u8, &[u8])>) -> &[u8] {
    // Space, tab, line feed, carriage return, vertical tab and form feed: what Python strips of bytes.
    while let Some((b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, rest)) = part(bytes) {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(strip: bool) -> BytesSpec {
        BytesSpec { input: "bytes".into(), first: 4, last: 3, pad: 256, strip, block: 8, max_file_bytes: 100 }
    }

    #[test]
    fn a_long_file_gives_its_ends_and_a_short_one_is_filled_up() {
        assert_eq!(spec(false).numbers(b"abcdefghij"), [97, 98, 99, 100, 104, 105, 106]);
        assert_eq!(spec(false).numbers(b"ab"), [97, 98, 256, 256, 256, 97, 98]);
        assert_eq!(spec(false).numbers(b""), [256; 7]);
    }

    #[test]
    fn white_space_is_passed_over_within_a_block() {
        assert_eq!(spec(true).numbers(b" \n\x0bab \t"), [97, 98, 32, 9, 11, 97, 98]);
        // The block of eight is all white space: nothing is left of the beginning.
        assert_eq!(spec(true).numbers(b"          abcdefgh"), [256, 256, 256, 256, 102, 103, 104]);
    }
}
