//! The jobs that are sent: made before anything is measured, from a seed.

use std::path::Path;

use serde::Deserialize;

use super::random::Random;
use super::trace::Lengths;
use crate::cli::failure::{Exit, Failure};
use crate::client::Job;
use crate::model::ModelSpec;
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::request::InferInput;
use crate::protocol::tensor::{Datatype, Tensor, TensorData};
use crate::protocol::tensor_spec::TensorSpec;

/// Jobs made; a trace sends each as often as it is drawn.
const JOBS: usize = 1_000;
/// Length of an open axis of a model that takes no text, where no lengths are asked for.
const OPEN_AXIS: usize = 16;

/// A job and whose it is.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) job: Job,
    pub(super) tenant: usize,
}

/// What jobs are made of.
pub(super) struct Ingredients<'run> {
    pub(super) models: &'run [ModelSpec],
    pub(super) tenants: usize,
    pub(super) texts: &'run [String],
    pub(super) lengths: &'run Lengths,
}

impl Ingredients<'_> {
    /// Jobs for models and tenants drawn at random, each as probable as another.
    pub(super) fn make(&self, random: &mut Random) -> Result<Vec<Load>, Failure> {
        (0..JOBS).map(|_| self.one(random)).collect()
    }

    fn one(&self, random: &mut Random) -> Result<Load, Failure> {
        let model = self.models.get(random.below(self.models.len()));
        let model = model.ok_or_else(|| Failure::new(Exit::Usage, "there is no model to ask"))?;
        let tenant = random.below(self.tenants);
        let length = self.lengths.draw(random);
        let named = ModelRef { name: model.name.clone(), version: None };
        let job = match model.preprocess {
            PreprocessSpec::Text(_) => Job::texts(named, &[self.text(random, length)]),
            PreprocessSpec::Image(_) | PreprocessSpec::Bytes(_) => {
                return Err(unmakeable(model, "it takes images or files, and there are none at hand"));
            }
            PreprocessSpec::Tensor {} => {
                let length = length.unwrap_or(OPEN_AXIS);
                let inputs = model.inputs.iter().map(|spec| input(spec, length)).collect::<Result<_, _>>();
                Job::tensors(named, inputs.map_err(|fault| unmakeable(model, &fault))?)
            }
        };
        Ok(Load { job, tenant })
    }

    /// A text, cut after so many words or continued with the next ones.
    fn text(&self, random: &mut Random, words: Option<usize>) -> String {
        let first = random.below(self.texts.len());
        let Some(words) = words else { return self.texts.get(first).cloned().unwrap_or_default() };
        let endless = self.texts.iter().cycle().skip(first).flat_map(|text| text.split_whitespace());
        endless.take(words).collect::<Vec<_>>().join(" ")
    }
}

fn unmakeable(model: &ModelSpec, fault: &str) -> Failure {
    Failure::new(Exit::Usage, format!("no jobs can be made for model `{}`: {fault}", model.name))
}

/// One row of an input, its open axes `length` long.
fn input(spec: &TensorSpec, length: usize) -> Result<InferInput, String> {
    let shape: Vec<usize> = std::iter::once(1).chain(spec.row_axes().map(|axis| axis.unwrap_or(length))).collect();
    let count = shape.iter().product();
    let elements = match spec.datatype {
        Datatype::Fp32 => TensorData::Fp32(vec![0.5; count]),
        Datatype::Int64 => TensorData::Int64(vec![1; count]),
        Datatype::Int32 => TensorData::Int32(vec![1; count]),
        Datatype::Uint8 => TensorData::Uint8(vec![1; count]),
        other @ (Datatype::Bool
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Fp16
        | Datatype::Fp64
        | Datatype::Bytes) => {
            return Err(format!("input `{}` is {other}; FP32, INT64, INT32 and UINT8 can be made", spec.name));
        }
    };
    let tensor = Tensor::new(shape, elements).map_err(|error| error.to_string())?;
    Ok(InferInput { name: spec.name.clone(), tensor, binary_data: true })
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The texts of lines of `{"text": ...}`.
pub(super) fn read_texts(path: &Path) -> Result<Vec<String>, Failure> {
    let fault = |reason: String| {
        Failure::new(Exit::Usage, format!("texts `{}`: {reason}", path.display()))
            .with_help("run the bench in the folder of the project, or name a file with --texts FILE")
    };
    let content = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let read = |(index, line): (usize, &str)| {
        let lacks = |_| fault(format!("line {} has no string `text`", index + 1));
        serde_json::from_str::<Line>(line).map(|line| line.text).map_err(lacks)
    };
    let texts: Vec<String> = content.lines().enumerate().map(read).collect::<Result<_, _>>()?;
    if texts.is_empty() { Err(fault("has no line".to_owned())) } else { Ok(texts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_or_continued_to_the_length_that_is_asked_for() {
        let texts = ["a b c".to_owned(), "d e".to_owned()];
        let lengths = Lengths::Texts;
        let ingredients = Ingredients { models: &[], tenants: 1, texts: &texts, lengths: &lengths };
        let mut random = Random::new(1);
        for words in [1, 2, 7] {
            assert_eq!(ingredients.text(&mut random, Some(words)).split(' ').count(), words);
        }
        let whole = ingredients.text(&mut random, None);
        assert!(texts.contains(&whole));
    }

    #[test]
    fn an_input_has_the_shape_of_one_row() {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Int64, shape: vec![-1, 3, -1] };
        assert_eq!(input(&spec, 5).unwrap().tensor.shape(), [1, 3, 5]);
        let spec = TensorSpec { datatype: Datatype::Bool, ..spec };
        assert!(input(&spec, 5).unwrap_err().contains("input `x` is BOOL"));
    }
}
