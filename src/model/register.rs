//! A model's way into a repository: looked at, described, tried, and only then moved to where workers find it.
//!
//! Used by `inferq models add`. Everything is prepared in a folder that no worker looks into; what is there at the end has
//! been loaded as a worker loads it, and a version that exists is never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::loaded::{digest, load_parts};
use super::repository::find_versions;
use super::sample::{Sampled, measured, sample};
use super::spec::BatchingSpec;
use super::{LoadedModel, ModelError, ModelOptions, ModelSpec, check, golden};
use crate::backend::tract::{GraphFacts, inspect};
use crate::batch::policy::BatchScope;
use crate::postprocess::{Activation, ClassificationSpec, PostprocessSpec};
use crate::preprocess::{Layout, PreprocessSpec, Preprocessor, TextSpec};
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

const ONNX_FILE: &str = "model.onnx";
const LABELS_FILE: &str = "labels.txt";
const TOKENIZER_FILE: &str = "tokenizer.json";
const GOLDEN_FILE: &str = "golden.json";

/// Rows of a batch that a model is given to bound, where it gains by batches at all.
const USUAL_BATCH: usize = 32;

/// A model to be added, and what its file does not tell.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The ONNX file.
    pub file: PathBuf,
    /// The model's name.
    pub name: String,
    /// Its version; one more than the highest where `None`.
    pub version: Option<u32>,
    /// What it does, under which licence, and where it comes from.
    pub about: About,
    /// Labels, one a line: makes it a classifier.
    pub labels: Option<PathBuf>,
    /// A tokenizer.json: makes it a model of texts.
    pub tokenizer: Option<PathBuf>,
    /// Tokens after which a text is cut.
    pub max_tokens: usize,
    /// What shorter texts of a batch are filled up with.
    pub pad_id: i64,
    /// Whether rows of several tenants may share a batch.
    pub batch_scope: BatchScope,
    /// Rows in a batch at most; measured where `None`.
    pub max_batch_size: Option<usize>,
    /// A file of what stands below `[preprocess]`: makes it a model of images or files.
    pub preprocess: Option<PathBuf>,
    /// What the model answered where it was made, beside the files that are named there; this runtime's own answers are kept where `None`.
    pub golden: Option<PathBuf>,
    /// How far answers may be from it.
    pub golden_tolerance: f64,
}

/// Words about a model.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What it does.
    pub description: String,
    /// The licence of its weights.
    pub licence: String,
    /// Where they come from.
    pub source: String,
}

/// A model that was added.
#[derive(Debug, Serialize)]
pub struct Registered {
    /// Its folder.
    pub folder: PathBuf,
    /// What its file says of itself.
    pub graph: GraphFacts,
    /// What was written.
    pub spec: ModelSpec,
    /// What was measured of it.
    pub sampled: Sampled,
    /// Whether its golden answers are this runtime's own: those find later changes, but no fault of today.
    pub golden_is_own: bool,
}

/// Adds a model to the repository in `directory`; must be called inside a tokio runtime.
///
/// # Errors
/// See [`ModelError`]; nothing is left behind.
pub fn register(directory: &Path, asked: &Registration, options: &ModelOptions) -> Result<Registered, ModelError> {
    let onnx = fs::read(&asked.file).map_err(|source| ModelError::File { path: asked.file.clone(), source })?;
    let graph =
        inspect(&onnx).map_err(|error| ModelError::Refused { path: asked.file.clone(), fault: error.to_string() })?;
    let version = asked.version.unwrap_or_else(|| next_version(directory, &asked.name));
    let folder = directory.join(&asked.name).join(version.to_string());
    if folder.exists() {
        return Err(ModelError::Exists { path: folder });
    }
    let spec = describe(asked, version, &graph, digest(&onnx))?;
    // Before anything is written: a name may be a path that leads out of the repository.
    check::place(&spec, &folder).map_err(|fault| ModelError::Refused { path: asked.file.clone(), fault })?;
    let mut tried = None;
    let folder = into_place(directory, &spec, options, |staged| {
        copy_files(asked, &onnx, staged)?;
        tried = Some(try_out(asked, spec.clone(), staged)?);
        Ok(())
    })?;
    let (spec, sampled) = tried.ok_or(ModelError::Exists { path: folder.clone() })?;
    Ok(Registered { folder, graph, spec, sampled, golden_is_own: asked.golden.is_none() })
}

/// Runs a sample of the model that is staged, and writes down what it shows.
fn try_out(asked: &Registration, mut spec: ModelSpec, staged: &Path) -> Result<(ModelSpec, Sampled), ModelError> {
    write_spec(&spec, staged)?;
    let parts = load_parts(&ModelSpec::read(staged)?, staged)?;
    let sampled = match &parts.preprocessor {
        Preprocessor::Image(_) | Preprocessor::Bytes(..) => golden::rows(&spec, staged, &parts.preprocessor)
            .and_then(|rows| measured(&spec, &*parts.backend, &rows).map(|(sampled, _)| sampled)),
        Preprocessor::Text(_) | Preprocessor::Tensor(_) => {
            sample(&spec, &parts.preprocessor, Arc::clone(&parts.backend))
        }
    };
    let sampled =
        sampled.map_err(|fault| ModelError::Load { name: spec.name.clone(), version: spec.version, fault })?;
    spec.batching.max_batch_size = asked.max_batch_size.unwrap_or(if sampled.gains { USUAL_BATCH } else { 1 });
    // Not every exporter leaves a softmax that can be told from the graph.
    if let PostprocessSpec::Classification(classes) = &mut spec.postprocess
        && sampled.probabilities.contains(&classes.output)
    {
        classes.activation = Activation::None;
    }
    write_spec(&spec, staged)?;
    if asked.golden.is_none() {
        let path = staged.join(GOLDEN_FILE);
        fs::write(&path, &sampled.golden).map_err(|source| write_fault(&path, source))?;
    }
    Ok((spec, sampled))
}

/// Puts a version into the repository whole, or not at all: `fill` writes it into a folder that no worker looks into, where
/// it is loaded as a worker will load it.
pub(super) fn into_place(
    directory: &Path,
    spec: &ModelSpec,
    options: &ModelOptions,
    fill: impl FnOnce(&Path) -> Result<(), ModelError>,
) -> Result<PathBuf, ModelError> {
    let folder = directory.join(&spec.name).join(spec.version.to_string());
    if folder.exists() {
        return Err(ModelError::Exists { path: folder });
    }
    // Named so that no worker takes it for a model; on the same file system, so that it can be moved.
    fs::create_dir_all(directory).map_err(|source| write_fault(directory, source))?;
    let staging = tempfile::Builder::new().prefix(".adding-").tempdir_in(directory);
    let staging = staging.map_err(|source| write_fault(directory, source))?;
    let staged = staging.path().join(&spec.name).join(spec.version.to_string());
    fs::create_dir_all(&staged).map_err(|source| write_fault(&staged, source))?;
    fill(&staged)?;
    // What a worker will do with it.
    drop(LoadedModel::load(&staged, options)?);

    let parent = directory.join(&spec.name);
    fs::create_dir_all(&parent).map_err(|source| write_fault(&parent, source))?;
    fs::rename(&staged, &folder).map_err(|source| match source.kind() {
        std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists => {
            ModelError::Exists { path: folder.clone() }
        }
        _ => write_fault(&folder, source),
    })?;
    Ok(folder)
}

/// The files of a version that was made of another one.
pub(super) struct RegisteredFiles<'a> {
    /// The new ONNX file.
    pub(super) onnx: &'a [u8],
    /// The new golden.json, where the other version has none.
    pub(super) golden: Option<&'a str>,
    /// The other version's folder.
    pub(super) folder: &'a Path,
    /// Its golden.json and the files named there.
    pub(super) names: &'a [String],
}

impl RegisteredFiles<'_> {
    /// Writes them and `spec` into `staged`; tokenizer and labels are those of the other version.
    pub(super) fn write(&self, spec: &ModelSpec, staged: &Path) -> Result<(), ModelError> {
        let own = [(spec.file.as_str(), Some(self.onnx)), (GOLDEN_FILE, self.golden.map(str::as_bytes))];
        for (name, content) in own {
            let path = staged.join(name);
            let Some(content) = content else { continue };
            fs::write(&path, content).map_err(|source| write_fault(&path, source))?;
        }
        let named = [spec.preprocess.file(), spec.postprocess.file()];
        for name in named.into_iter().flatten().chain(self.names.iter().map(String::as_str)) {
            let from = self.folder.join(name);
            fs::copy(&from, staged.join(name)).map_err(|source| ModelError::File { path: from, source })?;
        }
        write_spec(spec, staged)
    }
}

pub(super) fn next_version(directory: &Path, name: &str) -> u32 {
    let versions = find_versions(directory).unwrap_or_default();
    let own = versions.iter().filter(|(other, ..)| other == name).map(|(_, version, _)| *version);
    own.max().map_or(1, |highest| highest.saturating_add(1))
}

fn write_fault(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Write { path: path.to_owned(), source }
}

fn describe(asked: &Registration, version: u32, graph: &GraphFacts, sha256: String) -> Result<ModelSpec, ModelError> {
    let refused = |fault: String| ModelError::Refused { path: asked.file.clone(), fault };
    let About { description, licence, source } = asked.about.clone();
    let preprocess = match &asked.preprocess {
        Some(path) => read_preprocess(path)?,
        None => preprocess(asked, graph).map_err(refused)?,
    };
    Ok(ModelSpec {
        name: asked.name.clone(),
        version,
        description,
        file: ONNX_FILE.to_owned(),
        sha256,
        licence,
        source,
        batch_scope: asked.batch_scope,
        inputs: inputs(&preprocess, graph),
        preprocess,
        outputs: graph.outputs.clone(),
        postprocess: postprocess(asked, graph).map_err(refused)?,
        golden_tolerance: asked.golden_tolerance,
        batching: BatchingSpec::default(),
    })
}

fn read_preprocess(path: &Path) -> Result<PreprocessSpec, ModelError> {
    let text = fs::read_to_string(path).map_err(|source| ModelError::File { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| ModelError::Spec { path: path.to_owned(), fault: error.message().replace('\n', " ") })
}

/// The graph's inputs; where images come in one size, it is theirs.
fn inputs(preprocess: &PreprocessSpec, graph: &GraphFacts) -> Vec<TensorSpec> {
    let mut inputs = graph.inputs.clone();
    if let (PreprocessSpec::Image(image), [input]) = (preprocess, inputs.as_mut_slice()) {
        let sizes = [image.height, image.width].map(|side| i64::try_from(side).unwrap_or(-1));
        let first = match image.layout {
            Layout::Nchw => 2,
            Layout::Nhwc => 1,
        };
        for (axis, size) in input.shape.iter_mut().skip(first).zip(sizes).filter(|(axis, _)| **axis == -1) {
            *axis = size;
        }
    }
    inputs
}

fn preprocess(asked: &Registration, graph: &GraphFacts) -> Result<PreprocessSpec, String> {
    if asked.tokenizer.is_none() {
        return Ok(PreprocessSpec::Tensor {});
    }
    let [TensorSpec { name, datatype: Datatype::Int64, .. }] = graph.inputs.as_slice() else {
        return Err("takes other inputs than one of token ids, INT64 [-1, -1]; a tokenizer is of no use".to_owned());
    };
    Ok(PreprocessSpec::Text(TextSpec {
        input: name.clone(),
        attention_mask: None,
        token_type_ids: None,
        tokenizer: TOKENIZER_FILE.to_owned(),
        max_tokens: asked.max_tokens,
        max_text_bytes: 256 << 10,
        pad_id: asked.pad_id,
        mask: Vec::new(),
    }))
}

fn postprocess(asked: &Registration, graph: &GraphFacts) -> Result<PostprocessSpec, String> {
    if asked.labels.is_none() {
        return Ok(PostprocessSpec::Raw {});
    }
    let is_scores = |output: &&TensorSpec| output.datatype == Datatype::Fp32 && output.shape.len() == 2;
    let Some(output) = graph.outputs.iter().find(is_scores) else {
        return Err("has no output FP32 [-1, classes]; labels are of no use".to_owned());
    };
    let is_probability = graph.probabilities.contains(&output.name);
    Ok(PostprocessSpec::Classification(ClassificationSpec {
        output: output.name.clone(),
        labels: LABELS_FILE.to_owned(),
        activation: if is_probability { Activation::None } else { Activation::Softmax },
    }))
}

fn copy_files(asked: &Registration, onnx: &[u8], folder: &Path) -> Result<(), ModelError> {
    let path = folder.join(ONNX_FILE);
    // The bytes that were looked at, whatever has become of the file meanwhile.
    fs::write(&path, onnx).map_err(|source| write_fault(&path, source))?;
    let files = [(&asked.labels, LABELS_FILE), (&asked.tokenizer, TOKENIZER_FILE), (&asked.golden, GOLDEN_FILE)];
    for (from, name) in files {
        let Some(from) = from else { continue };
        fs::copy(from, folder.join(name)).map_err(|source| ModelError::File { path: from.clone(), source })?;
    }
    let Some(golden) = &asked.golden else { return Ok(()) };
    let names = golden::files(folder).map_err(|fault| ModelError::Refused { path: golden.clone(), fault })?;
    for name in names.iter().skip(1) {
        let from = golden.with_file_name(name);
        fs::copy(&from, folder.join(name)).map_err(|source| ModelError::File { path: from, source })?;
    }
    Ok(())
}

fn write_spec(spec: &ModelSpec, folder: &Path) -> Result<(), ModelError> {
    let path = folder.join("model.toml");
    let text =
        toml::to_string(spec).map_err(|error| ModelError::Spec { path: path.clone(), fault: error.to_string() })?;
    fs::write(&path, text).map_err(|source| write_fault(&path, source))
}
