//! Texts to rows of token ids: the input `text`, checked row by row, then tokenized as the model was trained.
//!
//! Called for every job of a model of texts. A fault names the row, and never quotes it.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::invalid;
use super::mask::{MaskKind, mask};
use super::tokenizer::{TextTokenizer, TokenizerError};
use crate::batch::row::Row;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::InferInput;
use crate::protocol::tensor::{Tensor, TensorData};
use crate::protocol::tensor_spec::TensorSpec;

/// `[preprocess]` of a model of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// The graph's input that the ids go to: INT64 `[N, T]`.
    pub input: String,
    /// The graph's input for which tokens are there, where it has one: 1 for each, 0 for filling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_mask: Option<String>,
    /// The graph's input for which of two texts a token is of, where it has one: always 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_type_ids: Option<String>,
    /// The tokenizer's file, beside `model.toml`.
    pub tokenizer: String,
    /// Tokens after which a text is cut.
    pub max_tokens: usize,
    /// Bytes of a text at most; longer ones are refused.
    pub max_text_bytes: usize,
    /// The id that shorter texts of a batch are filled up with.
    pub pad_id: i64,
    /// What is masked in a text before it is tokenized.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<MaskKind>,
}

/// Where a token stands in its text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
    /// What stands there.
    pub text: String,
}

/// Tokenizes texts.
#[derive(Debug)]
pub struct TextPreprocessor {
    tokenizer: TextTokenizer,
    spec: TextSpec,
    /// What each of the graph's inputs is filled with, in its order.
    columns: Vec<Column>,
}

/// What an input of the graph is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Ids,
    Mask,
    Types,
}

impl TextSpec {
    /// The inputs that the graph must have, by name.
    pub(crate) fn graph_inputs(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.input).chain(&self.attention_mask).chain(&self.token_type_ids)
    }

    fn column(&self, name: &String) -> Column {
        match name {
            mask if self.attention_mask.as_ref() == Some(mask) => Column::Mask,
            types if self.token_type_ids.as_ref() == Some(types) => Column::Types,
            _ => Column::Ids,
        }
    }
}

impl TextPreprocessor {
    /// Reads the tokenizer that `spec` names from `folder`.
    pub(super) fn load(spec: &TextSpec, inputs: &[TensorSpec], folder: &Path) -> Result<Self, TokenizerError> {
        let tokenizer = TextTokenizer::load(&folder.join(&spec.tokenizer), spec.max_tokens)?;
        let columns = inputs.iter().map(|input| spec.column(&input.name)).collect();
        Ok(Self { tokenizer, spec: spec.clone(), columns })
    }

    /// One row for each text of `input`.
    pub(super) fn prepare(&self, input: InferInput) -> Result<Vec<Row>, JobError> {
        let (shape, elements) = input.tensor.into_parts();
        let TensorData::Bytes(texts) = elements else {
            return Err(invalid(format!("input `text` is {}, BYTES was expected", elements.datatype())));
        };
        if !matches!(shape.as_slice(), [_] | [_, 1]) {
            return Err(invalid(format!("input `text` has shape {shape:?}, [N] or [N, 1] was expected")));
        }
        texts.iter().enumerate().map(|(row, text)| self.row(row, text)).collect()
    }

    /// Where each of a text's ids stands in it; `None` for special tokens.
    ///
    /// # Errors
    /// `INVALID_INPUT` for what cannot be tokenized.
    pub(crate) fn spans(&self, text: &[u8]) -> Result<Vec<Option<Span>>, JobError> {
        let fault = || invalid("row 0 of input `text` cannot be tokenized");
        let text = std::str::from_utf8(text).map_err(|_| fault())?;
        // What the ids are of, and not what came.
        let masked = mask(text, &self.spec.mask);
        let places = self.tokenizer.places(&masked.text).map_err(|_| fault())?;
        let span = |(start, end): (usize, usize)| {
            let Range { start, end } = masked.origin(start..end);
            Some(Span { start, end, text: text.get(start..end).unwrap_or_default().to_owned() })
        };
        Ok(places.into_iter().map(|place| place.and_then(span)).collect())
    }

    /// The id that is put in the place of a token that is taken away.
    pub(crate) fn id_of_nothing(&self) -> i64 {
        self.tokenizer.id_of_nothing().unwrap_or(self.spec.pad_id)
    }

    /// Which of a row's inputs the ids are.
    pub(crate) fn place_of_ids(&self) -> usize {
        self.columns.iter().position(|column| *column == Column::Ids).unwrap_or(0)
    }

    /// The row of one text, the request's `row`th.
    ///
    /// # Errors
    /// `INPUT_TOO_LARGE`; `INVALID_INPUT` for what is no UTF-8, or has no token.
    pub(crate) fn row(&self, row: usize, text: &[u8]) -> Result<Row, JobError> {
        if text.len() > self.spec.max_text_bytes {
            let (bytes, most) = (text.len(), self.spec.max_text_bytes);
            let message =
                format!("row {row} of input `text` has {bytes} bytes, at most {most} are taken (max_text_bytes)");
            return Err(JobError::new(ErrorCode::InputTooLarge, message));
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            invalid(format!("row {row} of input `text` is not UTF-8 at byte {}", error.valid_up_to()))
        })?;
        let ids = self
            .tokenizer
            .ids(&mask(text, &self.spec.mask).text)
            .map_err(|_| invalid(format!("row {row} of input `text` cannot be tokenized")))?;
        if ids.is_empty() {
            return Err(invalid(format!("row {row} of input `text` has no word in its {} bytes", text.len())));
        }
        let length = ids.len();
        let filled = |column: &Column| {
            let elements = match column {
                Column::Ids => ids.clone(),
                Column::Mask => vec![1; length],
                Column::Types => vec![0; length],
            };
            Tensor::new(vec![length], TensorData::Int64(elements)).expect("the one axis is the number of ids")
        };
        Ok(Row { inputs: self.columns.iter().map(filled).collect(), length, may_be_padded: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tensor::Datatype;

    fn topic() -> TextPreprocessor {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1");
        let spec = TextSpec {
            input: "input_ids".into(),
            attention_mask: None,
            token_type_ids: None,
            tokenizer: "tokenizer.json".into(),
            max_tokens: 128,
            max_text_bytes: 1_000,
            pad_id: 0,
            mask: Vec::new(),
        };
        let ids = TensorSpec { name: "input_ids".into(), datatype: Datatype::Int64, shape: vec![-1, -1] };
        TextPreprocessor::load(&spec, &[ids], Path::new(folder)).unwrap()
    }

    fn input(texts: &[&[u8]]) -> InferInput {
        let elements = TensorData::Bytes(texts.iter().map(|text| text.to_vec()).collect());
        InferInput {
            name: "text".into(),
            tensor: Tensor::new(vec![texts.len()], elements).unwrap(),
            binary_data: false,
        }
    }

    #[test]
    fn a_masked_text_is_tokenized_as_its_placeholders() {
        let mut topic = topic();
        let plain = topic.row(0, b"hockey [card] and [email]").unwrap();
        topic.spec.mask = vec![MaskKind::Card, MaskKind::Email];
        assert_eq!(topic.row(0, b"hockey 4111 1111 1111 1111 and jane@example.org").unwrap(), plain);
    }

    #[test]
    fn each_id_of_a_masked_text_has_its_place_in_what_came() {
        let mut topic = topic();
        topic.spec.mask = vec![MaskKind::Card, MaskKind::Email];
        let text = b"hockey 4111 1111 1111 1111 and jane@example.org wins";
        let spans = topic.spans(text).unwrap();
        assert_eq!(spans.len(), topic.row(0, text).unwrap().length);
        let spans: Vec<Span> = spans.into_iter().flatten().collect();
        let stood: Vec<&str> = spans.iter().map(|span| span.text.as_str()).collect();
        assert_eq!(stood, ["hockey", "4111 1111 1111 1111", "and", "jane@example.org", "wins"]);
        assert_eq!((spans[4].start, spans[4].end), (48, 52));
    }

    #[test]
    fn faults_name_the_row() {
        let cases: [(&[&[u8]], ErrorCode, &str); 4] = [
            (&[b"fine", b""], ErrorCode::InvalidInput, "row 1 of input `text` has no word in its 0 bytes"),
            (&[b"?! 42"], ErrorCode::InvalidInput, "row 0 of input `text` has no word in its 5 bytes"),
            (&[b"a\xffb"], ErrorCode::InvalidInput, "row 0 of input `text` is not UTF-8 at byte 1"),
            (
                &[&[b'a'; 1_001]],
                ErrorCode::InputTooLarge,
                "row 0 of input `text` has 1001 bytes, at most 1000 are taken (max_text_bytes)",
            ),
        ];
        for (texts, code, message) in cases {
            assert_eq!(topic().prepare(input(texts)).unwrap_err(), JobError::new(code, message));
        }
    }
}
