//! A model that is ready to serve: its spec, and the way of a request through it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::aside::DropsAside;
use super::explain::invalid;
use super::units::Units;
use super::warm_up::WarmUp;
use super::{ModelError, ModelSpec, golden};
use crate::backend::tract::{GraphSpec, Padding, TractBackend};
use crate::backend::{Backend, BackendError};
use crate::batch::batcher::{Batcher, BatcherSettings, SubmitOptions};
use crate::batch::cost::CostModel;
use crate::batch::policy::Bounds;
use crate::batch::report::Observer;
use crate::batch::row::{Batch, BatchOutput, Inferred, Row, RowOutput};
use crate::error::{ErrorCode, JobError};
use crate::limits::{INLINE_PREPARE_BYTES, WARM_UP};
use crate::postprocess::Postprocessor;
use crate::preprocess::{Layout, Preprocessor};
use crate::protocol::request::{InferenceRequest, RequestFacts};
use crate::protocol::response::InferenceResponse;
use crate::protocol::tensor::TensorData;
use crate::settings::{BatchingSettings, Objectives};
use crate::telemetry::labels::ModelChange;

/// How models are loaded.
#[derive(Clone)]
pub struct ModelOptions {
    /// Bounds of the batches.
    pub batching: BatchingSettings,
    /// Makes, for the model of a name, what is told of its batches.
    pub observe: Arc<dyn Fn(&str) -> Observer + Send + Sync>,
    /// Puts what belongs there around the backend of the model of a name.
    pub wrap: Wrap,
    /// Told what happens to the versions of a model while it is served.
    pub changed: ChangeObserver,
}

impl std::fmt::Debug for ModelOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ModelOptions").field("batching", &self.batching).finish_non_exhaustive()
    }
}

/// Makes of a model's name and its backend another backend.
pub type Wrap = Arc<dyn Fn(&str, Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;

/// A model with everything that serving it takes. Must be made inside a tokio runtime: its batcher runs there.
#[derive(Debug)]
pub struct LoadedModel {
    spec: ModelSpec,
    preprocessor: Arc<DropsAside<Preprocessor>>,
    batcher: Batcher,
    /// What it says itself, and the settings allow.
    max_batch_size: usize,
    postprocessor: Postprocessor,
}

impl LoadedModel {
    /// Loads the model in `folder`: checks its digest, compiles it, and compares it with its golden outputs.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load(folder: &Path, options: &ModelOptions) -> Result<Self, ModelError> {
        let (spec, parts) = load_checked(folder)?;
        Ok(Self::assemble(spec, parts, CostModel::default(), options))
    }

    /// Loads it, compiles what its batches take, and measures what they cost, for a bounded time: the first jobs then find
    /// both.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) fn load_warm(folder: &Path, options: &ModelOptions) -> Result<Self, ModelError> {
        let (spec, parts) = load_checked(folder)?;
        let refused = |fault: String| ModelError::Load { name: spec.name.clone(), version: spec.version, fault };
        let rows = golden::rows(&spec, folder, &parts.preprocessor).map_err(refused)?;
        let warm_up = WarmUp { bounds: bounds(&spec, options), longest: spec.preprocess.longest_row(), most: WARM_UP };
        let costs = warm_up.run(&*parts.backend, &rows).map_err(|error| refused(error.to_string()))?;
        Ok(Self::assemble(spec, parts, costs, options))
    }

    fn assemble(spec: ModelSpec, parts: ModelParts, costs: CostModel, options: &ModelOptions) -> Self {
        let ModelParts { preprocessor, backend, postprocessor } = parts;
        let bounds = bounds(&spec, options);
        let settings = BatcherSettings {
            executors: options.batching.executors,
            max_waiting_rows: options.batching.max_waiting_rows,
            policy: options.batching.policy,
            bounds,
            objectives: objectives(&spec, options.batching.objectives),
        };
        let backend = (options.wrap)(&spec.name, Arc::new(DropsAside::new(backend)));
        let batcher = Batcher::new(backend, settings, costs, (options.observe)(&spec.name));
        let preprocessor = Arc::new(DropsAside::new(preprocessor));
        Self { spec, preprocessor, batcher, max_batch_size: bounds.max_batch_size, postprocessor }
    }

    /// What the model is.
    #[must_use]
    pub const fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Its labels; empty for a raw model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        self.postprocessor.labels()
    }

    /// Rows that a batch has at most.
    pub(super) const fn max_batch_size(&self) -> usize {
        self.max_batch_size
    }

    /// The outputs that a request may ask for, those answered by default first.
    #[must_use]
    pub fn output_names(&self) -> Vec<&str> {
        self.postprocessor.output_names()
    }

    /// Checks the request against the model and turns it into rows. Long texts are tokenized off the async threads.
    ///
    /// # Errors
    /// `INVALID_INPUT` and `INPUT_TOO_LARGE`, naming the input.
    pub async fn prepare(&self, request: InferenceRequest) -> Result<Vec<Row>, JobError> {
        if content_bytes(&request) <= INLINE_PREPARE_BYTES {
            return self.preprocessor.prepare(request);
        }
        let preprocessor = Arc::clone(&self.preprocessor);
        let prepared = tokio::task::spawn_blocking(move || preprocessor.prepare(request)).await;
        prepared.unwrap_or_else(|_| Err(JobError::new(ErrorCode::InferenceFailed, "preparing the input panicked")))
    }

    /// Runs the rows, each in whatever batch suits it; answers them in their order.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED`, `INFERENCE_FAILED`, `MODEL_UNAVAILABLE`: the first that any row met.
    pub async fn infer(&self, rows: Vec<Row>, options: SubmitOptions) -> Result<Vec<Inferred>, JobError> {
        self.batcher.submit_all(rows, &options).await
    }

    /// The probabilities of all classes of a row.
    pub(super) fn probabilities(&self, row: &RowOutput) -> Result<Vec<f64>, JobError> {
        let found = self.postprocessor.probabilities(row)?;
        let found = found.ok_or_else(|| invalid("only a model with labels can be explained".to_owned()))?;
        Ok(found.into_iter().map(f64::from).collect())
    }

    /// The parts of `row` that an explanation takes away; `text` is what the row was made of. Long texts are tokenized off the async
    /// threads.
    pub(super) async fn units(&self, row: Row, text: Option<Vec<u8>>) -> Result<Units, JobError> {
        if text.as_ref().map_or(0, Vec::len) <= INLINE_PREPARE_BYTES {
            return units(&self.preprocessor, row, text.as_deref());
        }
        let preprocessor = Arc::clone(&self.preprocessor);
        let found = tokio::task::spawn_blocking(move || units(&preprocessor, row, text.as_deref())).await;
        found.unwrap_or_else(|_| Err(JobError::new(ErrorCode::InferenceFailed, "parting the input panicked")))
    }

    /// The response to a request, from the results of its rows.
    ///
    /// # Errors
    /// `INVALID_INPUT` for an output that the model does not have, `INFERENCE_FAILED` for values that are not finite.
    pub fn shape(&self, rows: Vec<Inferred>, asked: &RequestFacts) -> Result<InferenceResponse, JobError> {
        let parameters = measurements(&rows);
        let rows: Vec<_> = rows.into_iter().map(|row| row.output).collect();
        Ok(InferenceResponse {
            model_name: self.spec.name.clone(),
            model_version: self.spec.version.to_string(),
            id: asked.id.clone(),
            parameters,
            outputs: self.postprocessor.shape(&rows, &asked.outputs)?,
        })
    }
}

/// A backend whose weights are given back aside, whoever lets go of it last.
impl Backend for DropsAside<Arc<dyn Backend>> {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        (**self).run(batch)
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        (**self).planned_shape(rows, length)
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        (**self).is_warm(rows, length)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        (**self).prepare(rows, length)
    }
}

fn units(preprocessor: &Preprocessor, row: Row, text: Option<&[u8]>) -> Result<Units, JobError> {
    match (preprocessor, text) {
        (Preprocessor::Text(tokenizer), Some(text)) => {
            let (nothing, input) = (tokenizer.id_of_nothing(), tokenizer.place_of_ids());
            Ok(Units::tokens(row, tokenizer.spans(text)?, nothing, input))
        }
        (Preprocessor::Image(image), _) => {
            Ok(Units::patches(row, image.layout == Layout::Nhwc, image.height, image.width))
        }
        (Preprocessor::Text(_) | Preprocessor::Bytes(..) | Preprocessor::Tensor(_), _) => {
            Err(invalid("only models of texts and images can be explained".to_owned()))
        }
    }
}

/// Told, with a model's name, what has happened to one of its versions.
pub type ChangeObserver = Arc<dyn Fn(&str, ModelChange) + Send + Sync>;

/// What a model is put together from.
pub(super) struct ModelParts {
    pub(super) preprocessor: Preprocessor,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) postprocessor: Postprocessor,
}

/// Reads and compiles the model in `folder`, and compares it with its golden outputs.
fn load_checked(folder: &Path) -> Result<(ModelSpec, ModelParts), ModelError> {
    let spec = ModelSpec::read(folder)?;
    let parts = load_parts(&spec, folder)?;
    golden::check(&spec, folder, &parts.preprocessor, &*parts.backend).map_err(|fault| ModelError::Golden {
        name: spec.name.clone(),
        version: spec.version,
        fault,
    })?;
    Ok((spec, parts))
}

/// Reads and compiles what `spec` names in `folder`; answers are not compared yet.
pub(super) fn load_parts(spec: &ModelSpec, folder: &Path) -> Result<ModelParts, ModelError> {
    let onnx = read_checked(spec, folder)?;
    let refused = |fault: String| ModelError::Load { name: spec.name.clone(), version: spec.version, fault };
    let preprocessor =
        Preprocessor::load(&spec.preprocess, &spec.inputs, folder).map_err(|error| refused(error.to_string()))?;
    let postprocessor =
        Postprocessor::load(&spec.postprocess, &spec.outputs, folder).map_err(|error| refused(error.to_string()))?;
    let padding = Padding { value: spec.preprocess.padding(), longest: spec.preprocess.longest_row() };
    let graph = GraphSpec { inputs: &spec.inputs, outputs: &spec.outputs, padding };
    let backend = TractBackend::load(&onnx, graph).map_err(|error| refused(format!("{}: {error}", spec.file)))?;
    Ok(ModelParts { preprocessor, backend: Arc::new(backend), postprocessor })
}

/// The bounds of the model's batches: its own, and those of the settings.
fn bounds(spec: &ModelSpec, options: &ModelOptions) -> Bounds {
    Bounds {
        max_batch_size: spec.batching.max_batch_size.min(options.batching.max_batch_size),
        max_batch_tokens: spec.batching.max_batch_tokens.unwrap_or(usize::MAX),
        scope: spec.batch_scope,
    }
}

/// What the settings say, or the model instead.
fn objectives(spec: &ModelSpec, settings: Objectives) -> Objectives {
    Objectives {
        normal: spec.batching.objective_ms.map_or(settings.normal, Duration::from_millis),
        urgent: spec.batching.urgent_objective_ms.map_or(settings.urgent, Duration::from_millis),
    }
}

/// How the rows fared: the largest of each, since that is what the job waited for.
fn measurements(rows: &[Inferred]) -> Map<String, Value> {
    let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let most = |of: fn(&Inferred) -> Duration| rows.iter().map(of).max().map_or(0, microseconds);
    let batch_size = rows.iter().map(|row| row.batch_size).max().unwrap_or(0);
    Map::from_iter([
        ("batch_size".to_owned(), batch_size.into()),
        ("queue_us".to_owned(), most(|row| row.waited).into()),
        ("run_us".to_owned(), most(|row| row.ran).into()),
    ])
}

fn content_bytes(request: &InferenceRequest) -> usize {
    let bytes = |elements: &TensorData| match elements {
        TensorData::Bytes(elements) => elements.iter().map(Vec::len).sum(),
        TensorData::Bool(_)
        | TensorData::Int8(_)
        | TensorData::Int16(_)
        | TensorData::Int32(_)
        | TensorData::Int64(_)
        | TensorData::Uint8(_)
        | TensorData::Uint16(_)
        | TensorData::Uint32(_)
        | TensorData::Uint64(_)
        | TensorData::Fp16(_)
        | TensorData::Fp32(_)
        | TensorData::Fp64(_) => elements.len(),
    };
    request.inputs.iter().map(|input| bytes(input.tensor.elements())).sum()
}

/// The content of the ONNX file, read once, so that what is loaded is what was checked.
pub(super) fn read_checked(spec: &ModelSpec, folder: &Path) -> Result<Vec<u8>, ModelError> {
    let path = spec.model_file(folder);
    let onnx = fs::read(&path).map_err(|error| ModelError::File { path: path.clone(), source: error })?;
    let actual = digest(&onnx);
    if actual.eq_ignore_ascii_case(&spec.sha256) {
        Ok(onnx)
    } else {
        Err(ModelError::Digest { path, expected: spec.sha256.clone(), actual })
    }
}

/// SHA-256, hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::settings::BatchingPolicy;

    /// Tells the thread on which it is dropped.
    struct Telling(Arc<dyn Backend>, mpsc::SyncSender<Option<String>>);

    impl Drop for Telling {
        fn drop(&mut self) {
            self.1.send(std::thread::current().name().map(str::to_owned)).unwrap();
        }
    }

    impl Backend for Telling {
        fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
            self.0.run(batch)
        }

        fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
            self.0.planned_shape(rows, length)
        }

        fn is_warm(&self, rows: usize, length: usize) -> bool {
            self.0.is_warm(rows, length)
        }

        fn prepare(&self, rows: usize, length: usize) -> bool {
            self.0.prepare(rows, length)
        }
    }

    #[tokio::test]
    async fn whoever_lets_go_of_a_model_last_does_not_wait_for_its_weights() {
        let objective = Duration::from_secs(1);
        let options = ModelOptions {
            batching: BatchingSettings {
                max_run: objective,
                executors: 1,
                max_batch_size: 1,
                max_waiting_rows: 1,
                policy: BatchingPolicy::Adaptive,
                objectives: Objectives { normal: objective, urgent: objective },
            },
            observe: Arc::new(|_| Arc::new(|_| {})),
            wrap: Arc::new(|_, backend| backend),
            changed: Arc::new(|_, _| {}),
        };
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/identity/1"));
        let (spec, mut parts) = load_checked(folder).unwrap();
        let (told, hears) = mpsc::sync_channel(1);
        parts.backend = Arc::new(Telling(parts.backend, told));
        drop(LoadedModel::assemble(spec, parts, CostModel::default(), &options));
        let thread = tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
        assert_eq!(thread.as_deref(), Some("model-drop"));
    }
}
