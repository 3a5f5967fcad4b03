//! Makes a model smaller or faster, step by step, and keeps what measurably pays and does not cost more than a bound.
//!
//! Used by `inferq models optimize`. Every step is tried upon those that were kept before it: its answers are compared with the
//! original's, its time with the file that it was made of, in turn on the same rows. Nothing is written here but a version
//! that is new.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::golden;
use super::loaded::{digest, load_parts, read_checked};
use super::register::{RegisteredFiles, into_place, next_version};
use super::sample::{sample, sample_rows};
use super::trial::{Agreement, Figures, Form, Rows, compared, interleaved};
use super::{ModelError, ModelOptions, ModelSpec};
use crate::backend::tract::{GraphSpec, Padding, Rewritten, Step, TractBackend, inspect, rewrite};
use crate::batch::policy::BatchScope;
use crate::postprocess::PostprocessSpec;
use crate::preprocess::{PreprocessSpec, Preprocessor};

/// How far a step that should change nothing may move an output.
const LOSSLESS_DIFFERENCE: f64 = 1e-3;
/// A step that is there for speed is kept where it takes at most this share of the time.
const PAYS: f64 = 0.95;
/// A step that is there for size is dropped where it takes more than this share of the time.
const SLOWS: f64 = 1.1;
/// The largest tolerance that a golden answer may have.
const MAX_TOLERANCE: f64 = 0.1;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Optimization {
    /// The steps to try, in order.
    pub steps: Vec<Step>,
    /// Accuracy that may be lost, or without labelled texts the share of rows that may get another class.
    pub max_loss: f64,
    /// How far a lossy step may move an output: absolute up to 1, relative beyond.
    pub max_difference: f64,
    /// Texts with their labels; may be empty.
    pub texts: Vec<(String, String)>,
}

/// What is optimised: a version of a repository, or a file of its own.
#[derive(Debug)]
pub struct Subject {
    pub(super) spec: ModelSpec,
    /// Where the version lies.
    folder: Option<PathBuf>,
    onnx: Vec<u8>,
    preprocessor: Preprocessor,
    labels: Vec<String>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is part of the result.
    Kept,
    /// It found nothing to do.
    Nothing,
    /// It changes nothing for the better.
    Useless,
    /// It loses more than is allowed, or the runtime refuses it.
    Refused,
}

/// A step, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// The step.
    pub step: Step,
    /// Whether it was kept.
    pub verdict: Verdict,
    /// What it did, and why it was not kept.
    pub reason: String,
    /// How its answers agree with the original's, where it was run.
    pub agreement: Option<Agreement>,
    /// Bytes of its file.
    pub file_bytes: Option<usize>,
    /// Milliseconds of a row alone and in a batch, as shares of those before.
    pub time_ratio: Option<Vec<f64>>,
}

/// What came of it all.
#[derive(Debug, Serialize)]
pub struct Optimized {
    /// The steps in the order in which they were tried.
    pub steps: Vec<Tried>,
    /// The file before.
    pub before: Figures,
    /// The file after; nothing where no step was kept.
    pub after: Option<Figures>,
    /// How the answers agree.
    pub agreement: Option<Agreement>,
    /// Memory that the model takes beyond what it took.
    pub memory_bytes: u64,
    /// Rows that were compared.
    pub rows: usize,
    /// The content of the file.
    #[serde(skip)]
    pub onnx: Vec<u8>,
}

impl Subject {
    /// The version in `folder`, checked as a worker checks it.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn version(folder: &Path) -> Result<Self, ModelError> {
        let spec = ModelSpec::read(folder)?;
        let parts = load_parts(&spec, folder)?;
        let onnx = read_checked(&spec, folder)?;
        let labels = parts.postprocessor.labels().to_vec();
        Ok(Self { spec, folder: Some(folder.to_owned()), onnx, preprocessor: parts.preprocessor, labels })
    }

    /// A file that is in no repository: its inputs are sampled as tensors.
    ///
    /// # Errors
    /// When it cannot be read, or is no ONNX file.
    pub fn file(path: &Path) -> Result<Self, ModelError> {
        let onnx = fs::read(path).map_err(|source| ModelError::File { path: path.to_owned(), source })?;
        let graph =
            inspect(&onnx).map_err(|error| ModelError::Refused { path: path.to_owned(), fault: error.to_string() })?;
        let preprocessor = Preprocessor::Tensor(graph.inputs.clone());
        let spec = ModelSpec {
            name: "file".to_owned(),
            version: 1,
            description: String::new(),
            file: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            sha256: digest(&onnx),
            licence: String::new(),
            source: String::new(),
            batch_scope: BatchScope::Shared,
            preprocess: PreprocessSpec::Tensor {},
            inputs: graph.inputs,
            outputs: graph.outputs,
            postprocess: PostprocessSpec::Raw {},
            golden_tolerance: LOSSLESS_DIFFERENCE,
            batching: super::spec::BatchingSpec { max_batch_size: 8, ..Default::default() },
        };
        Ok(Self { spec, folder: None, onnx, preprocessor, labels: Vec::new() })
    }

    /// The labels of its classes.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    fn refused(&self, fault: String) -> ModelError {
        ModelError::Load { name: self.spec.name.clone(), version: self.spec.version, fault }
    }

    fn load(&self, onnx: &[u8]) -> Result<TractBackend, String> {
        let padding = Padding { value: self.spec.preprocess.padding(), longest: self.spec.preprocess.longest_row() };
        let graph = GraphSpec { inputs: &self.spec.inputs, outputs: &self.spec.outputs, padding };
        TractBackend::load(onnx, graph).map_err(|error| error.to_string())
    }

    /// The rows that are compared: the golden ones, or a sample; then the labelled texts.
    fn rows(&self, texts: &[(String, String)]) -> Result<Rows, String> {
        let mut rows = match &self.folder {
            Some(folder) => golden::rows(&self.spec, folder, &self.preprocessor)?,
            None => Vec::new(),
        };
        if rows.is_empty() {
            rows = sample_rows(&self.preprocessor)?;
        }
        Rows::with_texts(&self.spec, rows, (&self.preprocessor, &self.labels), texts)
    }
}

/// Tries the steps on `subject`.
///
/// # Errors
/// When the model itself does not run, or the texts do not fit it. That no step pays is no error.
pub fn optimize(subject: &Subject, asked: &Optimization) -> Result<Optimized, ModelError> {
    let refused = |fault: String| subject.refused(fault);
    let rows = subject.rows(&asked.texts).map_err(refused)?;
    let original = Form::of(&subject.onnx, subject.load(&subject.onnx).map_err(refused)?, &rows).map_err(refused)?;
    let mut onnx = subject.onnx.clone();
    let mut current = subject.load(&onnx).map_err(refused)?;
    let mut kept = None;
    let (mut steps, mut memory_bytes) = (Vec::new(), 0);
    for step in &asked.steps {
        let rewritten = rewrite(&onnx, *step).map_err(|error| refused(error.to_string()))?;
        let Some(rewritten) = rewritten else {
            steps.push(Tried::untried(*step, Verdict::Nothing, "finds nothing to do".to_owned()));
            continue;
        };
        let (tried, form) = attempt(subject, asked, &rows, (&original, &current, onnx.len()), (*step, &rewritten));
        steps.push(tried);
        if let Some(form) = form {
            onnx = rewritten.onnx;
            current = subject.load(&onnx).map_err(refused)?;
            memory_bytes += rewritten.memory_bytes;
            kept = Some(form);
        }
    }
    let agreement = kept.as_ref().map(|form| compared(&original, form, &rows));
    let last = kept.as_ref().unwrap_or(&original);
    let times = interleaved(&original.backend, &last.backend, &rows).map_err(refused)?;
    let before = original.figures(&rows, &times.before);
    let after = kept.as_ref().map(|form| form.figures(&rows, &times.after));
    Ok(Optimized { steps, before, after, agreement, memory_bytes, rows: rows.rows.len(), onnx })
}

/// Loads what `step` has made, and judges it.
fn attempt(
    subject: &Subject,
    asked: &Optimization,
    rows: &Rows,
    (original, current, bytes_before): (&Form, &TractBackend, usize),
    (step, rewritten): (Step, &Rewritten),
) -> (Tried, Option<Form>) {
    let refuse = |reason: String| (Tried::untried(step, Verdict::Refused, reason), None);
    let loaded = subject.load(&rewritten.onnx).and_then(|backend| Form::of(&rewritten.onnx, backend, rows));
    let form = match loaded {
        Ok(form) => form,
        Err(fault) => return refuse(format!("{}; the runtime says: {fault}", rewritten.done)),
    };
    let times = match interleaved(current, &form.backend, rows) {
        Ok(times) => times,
        Err(fault) => return refuse(fault),
    };
    let agreement = compared(original, &form, rows);
    let ratios = times.ratios();
    let fault = loss(step, asked, &agreement);
    let (fastest, slowest) =
        (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    let bytes = rewritten.onnx.len();
    let useless = match step {
        Step::Embedding => (fastest > PAYS).then_some("saves no time"),
        Step::Fold | Step::Half if bytes >= bytes_before => Some("saves nothing"),
        Step::Fold | Step::Half => (slowest > SLOWS).then_some("takes longer"),
    };
    let (verdict, why) = match (fault, useless) {
        (Some(fault), _) => (Verdict::Refused, format!("; {fault}")),
        (None, Some(why)) => (Verdict::Useless, format!("; {why}")),
        (None, None) => (Verdict::Kept, String::new()),
    };
    let tried = Tried {
        step,
        verdict,
        reason: format!("{}{why}", rewritten.done),
        agreement: Some(agreement),
        file_bytes: Some(bytes),
        time_ratio: Some(ratios),
    };
    (tried, (verdict == Verdict::Kept).then_some(form))
}

/// What a step loses beyond what is allowed.
fn loss(step: Step, asked: &Optimization, agreement: &Agreement) -> Option<String> {
    let most = if step.is_lossless() { LOSSLESS_DIFFERENCE } else { asked.max_difference };
    let worst = agreement.max_difference;
    if worst.is_nan() || worst > most {
        return Some(format!("moves an output by {worst:.1e}, at most {most:.0e} is allowed"));
    }
    let lost = agreement.accuracy_lost.or_else(|| agreement.equal_classes.map(|equal| 1.0 - equal));
    let word = if agreement.accuracy_lost.is_some() { "accuracy" } else { "of the classes" };
    let lost = lost.filter(|lost| *lost > asked.max_loss)?;
    Some(format!("loses {lost:.4} {word}, at most {} is allowed", asked.max_loss))
}

impl Tried {
    fn untried(step: Step, verdict: Verdict, reason: String) -> Self {
        Self { step, verdict, reason, agreement: None, file_bytes: None, time_ratio: None }
    }
}

/// Adds what was made of a version as the next version of its model; must be called inside a tokio runtime.
///
/// The golden answers are the original's: the tolerance is widened to what the steps cost, so that the file still has to
/// answer as the model did where it was made.
///
/// # Errors
/// See [`ModelError`]; nothing is left behind.
pub fn register_optimized(
    directory: &Path,
    subject: &Subject,
    optimized: &Optimized,
    options: &ModelOptions,
) -> Result<(PathBuf, ModelSpec), ModelError> {
    let Some(folder) = &subject.folder else {
        return Err(subject.refused("a file is no version of a repository".to_owned()));
    };
    let names: Vec<&str> =
        optimized.steps.iter().filter(|tried| tried.verdict == Verdict::Kept).map(Tried::name).collect();
    let mut spec = subject.spec.clone();
    let origin = format!("version {} of it, optimised: {}", spec.version, names.join(", "));
    spec.source = if spec.source.is_empty() { origin } else { format!("{}; {origin}", spec.source) };
    spec.version = next_version(directory, &spec.name);
    spec.sha256 = digest(&optimized.onnx);
    let moved = optimized.agreement.as_ref().map_or(0.0, |agreement| agreement.golden_difference);
    spec.golden_tolerance = rounded_up(2.0 * moved).max(spec.golden_tolerance).min(MAX_TOLERANCE);
    let golden_files = golden::files(folder).map_err(|fault| subject.refused(fault))?;
    let own_golden = if golden_files.is_empty() {
        let original: Arc<TractBackend> =
            Arc::new(subject.load(&subject.onnx).map_err(|fault| subject.refused(fault))?);
        let sampled = sample(&subject.spec, &subject.preprocessor, original);
        Some(sampled.map_err(|fault| subject.refused(fault))?.golden)
    } else {
        None
    };
    let files = RegisteredFiles { onnx: &optimized.onnx, golden: own_golden.as_deref(), folder, names: &golden_files };
    let place = into_place(directory, &spec, options, |staged| files.write(&spec, staged))?;
    Ok((place, spec))
}

impl Tried {
    fn name(&self) -> &'static str {
        self.step.as_str()
    }
}

/// The next larger of 1, 2 and 5 times a power of ten.
fn rounded_up(x: f64) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return 0.0;
    }
    let power = 10_f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= x).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_round() {
        for (x, expected) in [(0.0, 0.0), (1.2e-4, 2e-4), (3e-3, 5e-3), (7e-3, 1e-2), (2e-2, 2e-2)] {
            assert!((rounded_up(x) - expected).abs() < 1e-12, "{x}: {}", rounded_up(x));
        }
    }
}
