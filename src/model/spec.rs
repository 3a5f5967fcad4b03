//! `model.toml`: everything that is to be known of a model before it is loaded.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::batch::policy::BatchScope;
use crate::limits::MAX_TEXT_FILE_BYTES;
use crate::postprocess::PostprocessSpec;
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::is_model_name;
use crate::protocol::tensor_spec::TensorSpec;

/// A model's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Default for BatchingSpec {
    /// A batch of one: what is right for most models until somebody has measured.
    fn default() -> Self {
        Self { max_batch_size: 1 }
    }
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
        let spec: Self = toml::from_str(&text).map_err(|error| fault(error.to_string().trim().replace('\n', " ")))?;
        spec.check(folder).map_err(fault)?;
        Ok(spec)
    }

    /// Where the ONNX file lies.
    #[must_use]
    pub fn model_file(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }

    fn check(&self, folder: &Path) -> Result<(), String> {
        let parts: Vec<&str> = folder.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
        if !is_model_name(&self.name) {
            return Err(format!("name is `{}`: letters, digits, `-` and `_` were expected", self.name));
        }
        if parts != [self.version.to_string().as_str(), &self.name] {
            return Err(format!("says `{}` version {}, which belongs in {0}/{1}/", self.name, self.version));
        }
        if self.sha256.len() != 64 || !self.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err("sha256 is no digest of 64 hexadecimal digits".to_owned());
        }
        for file in [&self.file] {
            if file.contains('/') || file.starts_with('.') {
                return Err(format!("file is `{file}`: a name beside model.toml was expected"));
            }
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err("at least one [[inputs]] and one [[outputs]] were expected".to_owned());
        }
        for tensor in self.inputs.iter().chain(&self.outputs) {
            check_tensor(tensor)?;
        }
        if self.batching.max_batch_size == 0 {
            return Err("batching.max_batch_size is 0, at least 1 was expected".to_owned());
        }
        self.check_text_input()
    }

    fn check_text_input(&self) -> Result<(), String> {
        let PreprocessSpec::Text(text) = &self.preprocess else { return Ok(()) };
        match self.inputs.as_slice() {
            [only] if only.name == text.input && only.shape == [-1, -1] => Ok(()),
            _ => Err(format!(
                "preprocess.input is `{}`: exactly one [[inputs]] of that name and shape [-1, -1] was expected",
                text.input
            )),
        }
    }
}

fn check_tensor(tensor: &TensorSpec) -> Result<(), String> {
    let TensorSpec { name, shape, .. } = tensor;
    if shape.first() != Some(&-1) {
        return Err(format!("`{name}` has shape {shape:?}: the first axis is the batch axis and must be -1"));
    }
    if shape.iter().any(|axis| *axis < -1 || *axis == 0) {
        return Err(format!("`{name}` has shape {shape:?}: axes are -1 or at least 1"));
    }
    Ok(())
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
    fn every_fault_names_its_key() {
        for (from, to, part) in [
            ("batch_scope", "batch_skope", "batch_skope"),
            ("version = 1", "version = 2", "belongs in topic/2/"),
            ("file = \"model.onnx\"", "file = \"../model.onnx\"", "file is"),
            ("shape = [-1, -1]", "shape = [1, -1]", "batch axis"),
            ("max_batch_size = 32", "max_batch_size = 0", "max_batch_size"),
            ("input = \"input_ids\"", "input = \"other\"", "preprocess.input"),
            ("sha256 = \"", "sha256 = \"zz", "sha256"),
        ] {
            let error = with(from, to);
            assert!(error.contains(part) && error.contains("model.toml"), "{to}: {error}");
        }
    }
}
