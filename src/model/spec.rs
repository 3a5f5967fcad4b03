//! `model.toml`: everything that is to be known of a model before it is loaded.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ModelError, check};
use crate::batch::row::BatchScope;
use crate::limits::MAX_TEXT_FILE_BYTES;
use crate::postprocess::PostprocessSpec;
use crate::preprocess::PreprocessSpec;
use crate::protocol::tensor_spec::TensorSpec;

/// A model's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The model's name; the name of its folder.
    pub name: String,
    /// Its version; the name of the folder below.
    pub version: u32,
    /// What it does, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The ONNX file beside `model.toml`.
    pub file: String,
    /// The file's SHA-256, hexadecimal.
    pub sha256: String,
    /// The licence of the weights.
    #[serde(default)]
    pub licence: String,
    /// Where the weights come from.
    #[serde(default)]
    pub source: String,
    /// Whether rows of several tenants may share a batch.
    pub batch_scope: BatchScope,
    /// From a request to rows.
    pub preprocess: PreprocessSpec,
    /// The graph's inputs.
    pub inputs: Vec<TensorSpec>,
    /// The graph's outputs.
    pub outputs: Vec<TensorSpec>,
    /// From output rows to a response.
    pub postprocess: PostprocessSpec,
    /// How far an output may be from `golden.json`: absolute up to 1, relative beyond.
    #[serde(default = "default_tolerance")]
    pub golden_tolerance: f64,
    /// Bounds of its batches.
    #[serde(default)]
    pub batching: BatchingSpec,
}

/// `[batching]` of `model.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchingSpec {
    /// Rows in a batch at most.
    pub max_batch_size: usize,
    /// Rows times the longest row's length at most; no bound where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch_tokens: Option<usize>,
    /// How soon a job should be answered, instead of `batching.objective_ms` of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective_ms: Option<u64>,
    /// How soon an urgent job should be answered, instead of `batching.urgent_objective_ms` of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urgent_objective_ms: Option<u64>,
}

impl Default for BatchingSpec {
    /// A batch of one: what is right for most models until somebody has measured.
    fn default() -> Self {
        Self { max_batch_size: 1, max_batch_tokens: None, objective_ms: None, urgent_objective_ms: None }
    }
}

const fn default_tolerance() -> f64 {
    1e-4
}

impl ModelSpec {
    /// Reads `folder/model.toml`; `folder` is `<name>/<version>`.
    ///
    /// # Errors
    /// [`ModelError::Spec`], naming the file and the key.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("model.toml");
        let fault = |fault: String| ModelError::Spec { path: path.clone(), fault };
        let size = fs::metadata(&path).map_err(|error| fault(error.to_string()))?.len();
        if size > MAX_TEXT_FILE_BYTES {
            return Err(fault(format!("has {size} bytes, at most {MAX_TEXT_FILE_BYTES} are read")));
        }
        let text = fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        let spec: Self = toml::from_str(&text).map_err(|error| fault(toml_fault(&text, &error)))?;
        check::place(&spec, folder).and_then(|()| check::content(&spec)).map_err(fault)?;
        Ok(spec)
    }

    /// Where the ONNX file lies.
    #[must_use]
    pub fn model_file(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }
}

/// The fault with its line, in one line.
fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1");

    fn with(from: &str, to: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("topic/1");
        fs::create_dir_all(&model).unwrap();
        let text = fs::read_to_string(format!("{TOPIC}/model.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(model.join("model.toml"), text.replacen(from, to, 1)).unwrap();
        ModelSpec::read(&model).expect_err("it must be refused").to_string()
    }

    #[test]
    fn the_reference_model_is_read() {
        let spec = ModelSpec::read(Path::new(TOPIC)).unwrap();
        assert_eq!((spec.name.as_str(), spec.version), ("topic", 1));
    }

    #[test]
    fn every_fault_names_its_key_its_value_and_the_bound() {
        for (from, to, part) in [
            ("batch_scope", "batch_skope", "line 8: unknown field `batch_skope`"),
            ("pad_id = 0", "pad_id = 0\npad_side = 1", "line 10: unknown field `pad_side`"),
            ("version = 1", "version = 2", "says `topic` version 2, which belongs in topic/2/"),
            ("version = 1", "version = 0", "version is 0, at least 1 was expected"),
            ("name = \"topic\"", "name = \"to pic\"", "name is `to pic`"),
            ("\"model.onnx\"", "\"../model.onnx\"", "file is `../model.onnx`: a name beside model.toml"),
            ("\"tokenizer.json\"", "\"/etc/x\"", "preprocess.tokenizer is `/etc/x`: a name beside model.toml"),
            ("\"labels.txt\"", "\".labels\"", "postprocess.labels is `.labels`: a name beside model.toml"),
            ("shape = [-1, -1]", "shape = [1, -1]", "has shape [1, -1]: the first axis is the batch axis"),
            ("shape = [-1, 5]", "shape = [-1, 0]", "has shape [-1, 0]: axes are -1 or at least 1"),
            ("shape = [-1, 5]", "shape = [-1, 5, 1]", "postprocess.output is `logits`, which is FP32 [-1, 5, 1]"),
            ("shape = [-1, 5]", "shape = []", "has shape []: the first axis is the batch axis"),
            ("\"FP32\"", "\"INT32\"", "postprocess.output is `logits`, which is INT32 [-1, 5]"),
            ("\"FP32\"", "\"BYTES\"", "`logits` is BYTES: a graph has numbers only"),
            ("\"FP32\"", "\"FLOAT\"", "line 25: unknown variant `FLOAT`"),
            ("max_batch_size = 32", "max_batch_size = 0", "batching.max_batch_size is 0, 1 to 1024 were expected"),
            ("max_batch_size = 32", "max_batch_size = 1025", "batching.max_batch_size is 1025, 1 to 1024"),
            (
                "max_batch_tokens = 1024",
                "max_batch_tokens = 0",
                "batching.max_batch_tokens is 0, at least 1 was expected",
            ),
            (
                "max_batch_tokens = 1024",
                "urgent_objective_ms = 0",
                "batching.urgent_objective_ms is 0, at least 1 was expected",
            ),
            ("input = \"input_ids\"", "input = \"other\"", "preprocess.input is `other`"),
            ("datatype = \"INT64\"", "datatype = \"INT32\"", "preprocess.input is `input_ids`"),
            ("max_tokens = 128", "max_tokens = 0", "preprocess.max_tokens is 0, 1 to 65536 were expected"),
            ("max_text_bytes = 262144", "max_text_bytes = 0", "preprocess.max_text_bytes is 0, at least 1"),
            ("output = \"logits\"", "output = \"scores\"", "postprocess.output is `scores`"),
            ("sha256 = \"", "sha256 = \"zz", "sha256 is no digest of 64 hexadecimal digits"),
            ("name = \"logits\"", "name = \"label\"", "`label` is what a classification adds"),
            (
                "[[outputs]]",
                "[[inputs]]\nname = \"input_ids\"\ndatatype = \"INT64\"\nshape = [-1]\n[[outputs]]",
                "twice",
            ),
            ("[postprocess]", "golden_tolerance = 2\n[postprocess]", "line 28: unknown field `golden_tolerance`"),
            (
                "[preprocess]",
                "golden_tolerance = 2.0\n[preprocess]",
                "golden_tolerance is 2, more than 0 and at most 0.1",
            ),
        ] {
            let error = with(from, to);
            assert!(error.contains(part) && error.contains("model.toml"), "{to}: {error}");
        }
    }

    #[test]
    fn a_kind_without_keys_takes_none() {
        let identity = concat!(env!("CARGO_MANIFEST_DIR"), "/models/identity/1/model.toml");
        let text = fs::read_to_string(identity).unwrap();
        for kind in ["kind = \"tensor\"", "kind = \"raw\""] {
            assert!(text.contains(kind));
            let error =
                toml::from_str::<ModelSpec>(&text.replace(kind, &format!("{kind}\nlabels = \"x\""))).unwrap_err();
            assert!(error.message().contains("unknown field `labels`"), "{error}");
        }
    }
}
