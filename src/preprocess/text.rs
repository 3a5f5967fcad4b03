//! Text to token ids, with the tokenizer.json that the model was trained with. The only user of tokenizers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::invalid;
use crate::batch::row::Row;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::InferInput;
use crate::protocol::tensor::{Tensor, TensorData};

/// `[preprocess]` of a model of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// The graph's input that the ids go to: INT64 `[N, T]`.
    pub input: String,
    /// The tokenizer's file, beside `model.toml`.
    pub tokenizer: String,
    /// Tokens after which a text is cut.
    pub max_tokens: usize,
    /// Bytes of a text at most; longer ones are refused.
    pub max_text_bytes: usize,
    /// The id that shorter texts of a batch are filled up with.
    pub pad_id: i64,
}

/// A tokenizer's file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer `{path}`: {fault}")]
pub struct TokenizerError {
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    fault: String,
}

/// Tokenizes texts.
#[derive(Debug)]
pub struct TextPreprocessor {
    tokenizer: Tokenizer,
    spec: TextSpec,
}

impl TextPreprocessor {
    /// Reads the tokenizer that `spec` names from `folder`.
    pub(super) fn load(spec: &TextSpec, folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join(&spec.tokenizer);
        let mut tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| TokenizerError { path: path.clone(), fault: error.to_string() })?;
        // Cutting and padding are ours, after model.toml: one place says how long a text is.
        tokenizer.with_padding(None);
        let untruncated = tokenizer.with_truncation(None).map(|_| ());
        untruncated.map_err(|error| TokenizerError { path, fault: error.to_string() })?;
        Ok(Self { tokenizer, spec: spec.clone() })
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

    fn row(&self, row: usize, text: &[u8]) -> Result<Row, JobError> {
        if text.len() > self.spec.max_text_bytes {
            let (bytes, most) = (text.len(), self.spec.max_text_bytes);
            let message =
                format!("row {row} of input `text` has {bytes} bytes, at most {most} are taken (max_text_bytes)");
            return Err(JobError::new(ErrorCode::InputTooLarge, message));
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            invalid(format!("row {row} of input `text` is not UTF-8 at byte {}", error.valid_up_to()))
        })?;
        let ids = self.ids(text).map_err(|_| invalid(format!("row {row} of input `text` cannot be tokenized")))?;
        if ids.is_empty() {
            return Err(invalid(format!("row {row} of input `text` has no word in its {} bytes", text.len())));
        }
        let length = ids.len();
        let tensor = Tensor::new(vec![length], TensorData::Int64(ids)).expect("the one axis is the number of ids");
        Ok(Row { inputs: vec![tensor], length, may_be_padded: true })
    }

    /// The ids of a text, cut to the model's length.
    ///
    /// # Errors
    /// What the tokenizer says; it may quote the text.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<i64>, tokenizers::Error> {
        let encoding = self.tokenizer.encode_fast(text, true)?;
        Ok(encoding.get_ids().iter().take(self.spec.max_tokens).map(|id| i64::from(*id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn topic() -> TextPreprocessor {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1");
        let spec = TextSpec {
            input: "input_ids".into(),
            tokenizer: "tokenizer.json".into(),
            max_tokens: 128,
            max_text_bytes: 1_000,
            pad_id: 0,
        };
        TextPreprocessor::load(&spec, Path::new(folder)).unwrap()
    }

    fn input(texts: &[&[u8]]) -> InferInput {
        let elements = TensorData::Bytes(texts.iter().map(|text| text.to_vec()).collect());
        InferInput {
            name: "text".into(),
            tensor: Tensor::new(vec![texts.len()], elements).unwrap(),
            binary_data: false,
        }
    }

    /// The ids were written by the training script, which compares them with plain Python on the whole test split.
    #[test]
    fn ids_are_those_of_the_training_script() {
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/samples");
        let read = |name: &str| std::fs::read_to_string(format!("{samples}/{name}")).unwrap();
        let expected: HashMap<String, Vec<i64>> = serde_json::from_str(&read("ids.json")).unwrap();
        let topic = topic();
        let mut compared = 0;
        for line in read("posts.jsonl").lines() {
            let post: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(ids) = expected.get(post["id"].as_str().unwrap()) {
                assert_eq!(&topic.ids(post["text"].as_str().unwrap()).unwrap(), ids, "{}", post["id"]);
                compared += 1;
            }
        }
        assert_eq!((compared, expected.len()), (200, 200));
    }

    #[test]
    fn case_and_signs_do_not_matter() {
        let topic = topic();
        assert_eq!(topic.ids("Hello, WORLD! 42 times").unwrap(), topic.ids("hello world times").unwrap());
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
