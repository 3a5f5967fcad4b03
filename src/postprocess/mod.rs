//! From a model's output rows to the outputs of a response.
//!
//! Called by a loaded model at the end of a job. A classification answers a label and probabilities, a
//! multi-label model all that is probable enough, a raw model its tensors as they are.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::batch::row::RowOutput;
use crate::error::{ErrorCode, JobError};
use crate::protocol::request::RequestedOutput;
use crate::protocol::response::InferOutput;
use crate::protocol::tensor::{Tensor, TensorData};
use crate::protocol::tensor_rows::stack;
use crate::protocol::tensor_spec::TensorSpec;

mod classification;

pub use classification::{Activation, ClassificationSpec, Classifier, LabelActivation, LabelsError, MultilabelSpec};

/// `[postprocess]` of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PostprocessSpec {
    /// Labels and probabilities of one output.
    Classification(ClassificationSpec),
    /// Every label of one output that is probable enough.
    Multilabel(MultilabelSpec),
    /// Every output as it is.
    Raw {},
}

impl PostprocessSpec {
    /// The file beside `model.toml` that it names.
    #[must_use]
    pub const fn file(&self) -> Option<&str> {
        match self {
            Self::Classification(own) => Some(own.labels.as_str()),
            Self::Multilabel(own) => Some(own.labels.as_str()),
            Self::Raw {} => None,
        }
    }
}

/// Turns output rows into response outputs.
#[derive(Debug)]
pub struct Postprocessor {
    outputs: Vec<TensorSpec>,
    classifier: Option<Classifier>,
}

impl Postprocessor {
    /// The postprocessor that `spec` asks for; labels are looked for in `folder`.
    ///
    /// # Errors
    /// When the labels cannot be read or do not fit the output.
    pub fn load(spec: &PostprocessSpec, outputs: &[TensorSpec], folder: &Path) -> Result<Self, LabelsError> {
        let classifier = match spec {
            PostprocessSpec::Classification(spec) => Some(Classifier::one_of(spec, outputs, folder)?),
            PostprocessSpec::Multilabel(spec) => Some(Classifier::some_of(spec, outputs, folder)?),
            PostprocessSpec::Raw {} => None,
        };
        Ok(Self { outputs: outputs.to_vec(), classifier })
    }

    /// The labels, in the order of the output; empty for a raw model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        self.classifier.as_ref().map_or(&[], Classifier::labels)
    }

    /// The probabilities of all classes of one row; `None` for a raw model.
    ///
    /// # Errors
    /// `INFERENCE_FAILED` for values that are not finite, or not as many as there are labels.
    pub fn probabilities(&self, row: &RowOutput) -> Result<Option<Vec<f32>>, JobError> {
        check_finite(std::slice::from_ref(row))?;
        self.classifier.as_ref().map(|classifier| classifier.row_probabilities(row)).transpose()
    }

    /// The names of all outputs that may be asked for, those answered by default first.
    #[must_use]
    pub fn output_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.classifier.iter().flat_map(Classifier::derived).collect();
        names.extend(self.outputs.iter().map(|output| output.name.as_str()));
        names
    }

    /// The outputs that were `asked` for, or the default ones, for `rows` of one request.
    ///
    /// # Errors
    /// `INVALID_INPUT` for an output that the model does not have, `INFERENCE_FAILED` for values that are not finite.
    pub fn shape(&self, rows: &[RowOutput], asked: &[RequestedOutput]) -> Result<Vec<InferOutput>, JobError> {
        check_finite(rows)?;
        if asked.is_empty() {
            return match &self.classifier {
                Some(classifier) => classifier.default_outputs(rows),
                None => self.outputs.iter().map(|output| plain(&output.name, self.raw(rows, &output.name)?)).collect(),
            };
        }
        asked.iter().map(|output| self.one(rows, output)).collect()
    }

    fn one(&self, rows: &[RowOutput], asked: &RequestedOutput) -> Result<InferOutput, JobError> {
        let derived = self.classifier.as_ref().filter(|own| own.derived().contains(&asked.name.as_str()));
        let tensor = match (asked.classification, &self.classifier, derived) {
            (Some(k), Some(classifier), _) if self.has(&asked.name) => classifier.top(rows, k)?,
            (Some(_), None, _) => {
                return Err(invalid(format!(
                    "output `{}` has no classes to rank: the model has no labels",
                    asked.name
                )));
            }
            (None, _, Some(classifier)) => classifier.output(rows, &asked.name)?,
            (Some(_) | None, _, _) => self.raw(rows, &asked.name)?,
        };
        Ok(InferOutput { name: asked.name.clone(), tensor, binary_data: asked.binary_data })
    }

    fn has(&self, name: &str) -> bool {
        self.output_names().contains(&name)
    }

    /// One of the graph's own outputs, all rows together.
    fn raw(&self, rows: &[RowOutput], name: &str) -> Result<Tensor, JobError> {
        let index = self.outputs.iter().position(|output| output.name == name).ok_or_else(|| {
            let names = self.output_names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            invalid(format!("the model has no output `{name}`; it has {names}"))
        })?;
        let tensors: Vec<&Tensor> = rows.iter().filter_map(|row| row.outputs.get(index)).collect();
        stack(&tensors).ok_or_else(|| failed(format!("output `{name}` has rows of several shapes")))
    }
}

fn plain(name: &str, tensor: Tensor) -> Result<InferOutput, JobError> {
    Ok(InferOutput { name: name.to_owned(), tensor, binary_data: false })
}

/// A model that answers NaN or infinity has failed on that row, whatever JSON would make of it.
fn check_finite(rows: &[RowOutput]) -> Result<(), JobError> {
    let finite = |tensor: &Tensor| match tensor.elements() {
        TensorData::Fp16(elements) => elements.iter().all(|x| x.is_finite()),
        TensorData::Fp32(elements) => elements.iter().all(|x| x.is_finite()),
        TensorData::Fp64(elements) => elements.iter().all(|x| x.is_finite()),
        TensorData::Bool(_)
        | TensorData::Int8(_)
        | TensorData::Int16(_)
        | TensorData::Int32(_)
        | TensorData::Int64(_)
        | TensorData::Uint8(_)
        | TensorData::Uint16(_)
        | TensorData::Uint32(_)
        | TensorData::Uint64(_)
        | TensorData::Bytes(_) => true,
    };
    match rows.iter().position(|row| !row.outputs.iter().all(finite)) {
        Some(row) => Err(failed(format!("the model answered a value that is not finite for row {row}"))),
        None => Ok(()),
    }
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidInput, message)
}

fn failed(message: String) -> JobError {
    JobError::new(ErrorCode::InferenceFailed, message)
}
