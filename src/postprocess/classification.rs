//! Classes: a stable softmax, labels, and the top k as the classification extension of the protocol writes them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{failed, plain};
use crate::batch::row::RowOutput;
use crate::error::JobError;
use crate::protocol::response::InferOutput;
use crate::protocol::tensor::{Tensor, TensorData};
use crate::protocol::tensor_spec::TensorSpec;

const LABEL: &str = "label";
const LABELS: &str = "labels";
const PROBABILITIES: &str = "probabilities";

/// `[postprocess]` of a classifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationSpec {
    /// The graph's output with one score a class: FP32 `[N, C]`.
    pub output: String,
    /// The labels' file beside `model.toml`: one a line, in the output's order.
    pub labels: String,
    /// What makes probabilities of the scores.
    #[serde(default)]
    pub activation: Activation,
}

/// `[postprocess]` of a model whose rows may have several labels, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultilabelSpec {
    /// The graph's output with one score a label: FP32 `[N, L]`.
    pub output: String,
    /// The labels' file beside `model.toml`: one a line, in the output's order.
    pub labels: String,
    /// Whether the scores are logits.
    #[serde(default)]
    pub activation: LabelActivation,
    /// The probability from which a row has a label.
    #[serde(default = "half")]
    pub threshold: f32,
}

const fn half() -> f32 {
    0.5
}

/// What makes a probability of each score by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelActivation {
    /// The scores are logits.
    #[default]
    Sigmoid,
    /// The scores are probabilities already.
    None,
}

/// From the scores of a row to what is said of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// One class of all.
    One(Activation),
    /// Every label from a probability on.
    From(f32, LabelActivation),
}

/// What makes probabilities of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The scores are logits.
    #[default]
    Softmax,
    /// The scores are probabilities already.
    None,
}

/// The labels cannot be read, or do not fit.
#[derive(Debug, thiserror::Error)]
#[error("labels `{path}`: {fault}")]
pub struct LabelsError {
    path: PathBuf,
    fault: String,
}

/// Turns scores into labels and probabilities.
#[derive(Debug)]
pub struct Classifier {
    labels: Vec<String>,
    /// Which of the graph's outputs has the scores.
    output: usize,
    rule: Rule,
}

impl Classifier {
    /// What classifiers derive, beside the graph's own outputs.
    pub(crate) const OUTPUTS: [&'static str; 3] = [LABEL, LABELS, PROBABILITIES];

    pub(super) fn one_of(
        spec: &ClassificationSpec,
        outputs: &[TensorSpec],
        folder: &Path,
    ) -> Result<Self, LabelsError> {
        Self::load((&spec.output, &spec.labels), Rule::One(spec.activation), outputs, folder)
    }

    pub(super) fn some_of(spec: &MultilabelSpec, outputs: &[TensorSpec], folder: &Path) -> Result<Self, LabelsError> {
        Self::load((&spec.output, &spec.labels), Rule::From(spec.threshold, spec.activation), outputs, folder)
    }

    fn load(
        (scores, labels): (&str, &str),
        rule: Rule,
        outputs: &[TensorSpec],
        folder: &Path,
    ) -> Result<Self, LabelsError> {
        let path = folder.join(labels);
        let fault = |fault: String| LabelsError { path: path.clone(), fault };
        let text = fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        let labels: Vec<String> = text.lines().map(str::to_owned).collect();
        if labels.is_empty() || labels.iter().any(String::is_empty) {
            return Err(fault("one label a line was expected, and no empty line".to_owned()));
        }
        let output = outputs.iter().position(|output| output.name == scores);
        let output = output.ok_or_else(|| fault(format!("the model has no output `{scores}`")))?;
        let classes = outputs.get(output).and_then(|output| output.row_axes().next()).flatten();
        match classes {
            Some(classes) if classes != labels.len() => {
                Err(fault(format!("has {} labels, output `{scores}` has {classes} classes", labels.len())))
            }
            Some(_) | None => Ok(Self { labels, output, rule }),
        }
    }

    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The outputs that it derives: those answered by default.
    pub(super) const fn derived(&self) -> [&'static str; 2] {
        match self.rule {
            Rule::One(_) => [LABEL, PROBABILITIES],
            Rule::From(..) => [LABELS, PROBABILITIES],
        }
    }

    /// `label` or `labels` BYTES `[N]`, and `probabilities` FP32 `[N, C]`.
    pub(super) fn default_outputs(&self, rows: &[RowOutput]) -> Result<Vec<InferOutput>, JobError> {
        self.derived().into_iter().map(|name| plain(name, self.output(rows, name)?)).collect()
    }

    /// One of [`Self::derived`]. Several labels are a JSON array, the most probable first.
    pub(super) fn output(&self, rows: &[RowOutput], name: &str) -> Result<Tensor, JobError> {
        let probabilities = self.probabilities(rows)?;
        if name == PROBABILITIES {
            let elements = probabilities.concat();
            return tensor(vec![rows.len(), self.labels.len()], TensorData::Fp32(elements));
        }
        let label = |class: usize| self.labels.get(class).cloned();
        let said = |row: &Vec<f32>| match self.rule {
            Rule::One(_) => ranked(row).first().and_then(|(class, _)| label(*class)),
            Rule::From(threshold, _) => {
                let some = ranked(row).into_iter().take_while(|(_, probability)| *probability >= threshold);
                let some: Vec<String> = some.filter_map(|(class, _)| label(class)).collect();
                serde_json::to_string(&some).ok()
            }
        };
        let labels: Option<Vec<Vec<u8>>> = probabilities.iter().map(|row| Some(said(row)?.into_bytes())).collect();
        let labels = labels.ok_or_else(|| failed("the model answered no class".to_owned()))?;
        tensor(vec![rows.len()], TensorData::Bytes(labels))
    }

    /// The `k` most probable classes of each row, best first, as `probability:index:label`: BYTES `[N, k]`.
    /// A `k` beyond the number of classes is all of them.
    pub(super) fn top(&self, rows: &[RowOutput], k: usize) -> Result<Tensor, JobError> {
        let k = k.min(self.labels.len());
        let probabilities = self.probabilities(rows)?;
        let of_row = |row: &Vec<f32>| {
            let labelled = ranked(row).into_iter().take(k);
            labelled.map(|(class, score)| self.written(class, score)).collect::<Vec<_>>()
        };
        let elements = probabilities.iter().flat_map(of_row).collect();
        tensor(vec![rows.len(), k], TensorData::Bytes(elements))
    }

    fn written(&self, class: usize, score: f32) -> Vec<u8> {
        let label = self.labels.get(class).map_or("", String::as_str);
        format!("{score}:{class}:{label}").into_bytes()
    }

    fn probabilities(&self, rows: &[RowOutput]) -> Result<Vec<Vec<f32>>, JobError> {
        rows.iter().map(|row| self.row_probabilities(row)).collect()
    }

    pub(super) fn row_probabilities(&self, row: &RowOutput) -> Result<Vec<f32>, JobError> {
        let scores = match row.outputs.get(self.output).map(Tensor::elements) {
            Some(TensorData::Fp32(scores)) if scores.len() == self.labels.len() => scores,
            Some(other) => {
                let (count, datatype) = (other.len(), other.datatype());
                let expected = self.labels.len();
                return Err(failed(format!("the model answered {count} {datatype} scores for {expected} labels")));
            }
            None => return Err(failed("the model answered no scores".to_owned())),
        };
        Ok(match self.rule {
            Rule::One(Activation::Softmax) => softmax(scores),
            Rule::From(_, LabelActivation::Sigmoid) => {
                scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect()
            }
            Rule::One(Activation::None) | Rule::From(_, LabelActivation::None) => scores.clone(),
        })
    }
}

fn tensor(shape: Vec<usize>, elements: TensorData) -> Result<Tensor, JobError> {
    Tensor::new(shape, elements).map_err(|error| failed(error.to_string()))
}

/// Softmax of finite scores; the largest is subtracted first, so that no exponential overflows.
fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|exponential| exponential / sum).collect()
}

/// Classes with their scores, best first; equal ones in the order of the classes.
fn ranked(scores: &[f32]) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    ranked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classifier() -> Classifier {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        Classifier { labels, output: 0, rule: Rule::One(Activation::Softmax) }
    }

    fn row(scores: &[f32]) -> RowOutput {
        RowOutput { outputs: vec![Tensor::new(vec![scores.len()], TensorData::Fp32(scores.to_vec())).unwrap()] }
    }

    #[test]
    fn the_best_class_gives_the_label() {
        let rows = [row(&[0.0, 5.0, 1.0]), row(&[9.0, 9.0, 1.0])];
        let label = classifier().output(&rows, LABEL).unwrap();
        assert_eq!(label.elements(), &TensorData::Bytes(vec![b"b".to_vec(), b"a".to_vec()]));
    }

    #[test]
    fn the_top_k_are_written_as_the_extension_asks() {
        let classifier = Classifier { rule: Rule::One(Activation::None), ..classifier() };
        let top = classifier.top(&[row(&[0.25, 0.75, 0.0])], 2).unwrap();
        assert_eq!(top.shape(), [1, 2]);
        assert_eq!(top.elements(), &TensorData::Bytes(vec![b"0.75:1:b".to_vec(), b"0.25:0:a".to_vec()]));
        assert_eq!(classifier.top(&[row(&[0.1, 0.2, 0.7])], 99).unwrap().shape(), [1, 3]);
    }

    #[test]
    fn a_row_may_have_several_labels_or_none() {
        let several = Classifier { rule: Rule::From(0.5, LabelActivation::Sigmoid), ..classifier() };
        let rows = [row(&[0.1, -3.0, 4.0]), row(&[-1.0, -2.0, -200.0])];
        let labels = several.output(&rows, LABELS).unwrap();
        assert_eq!(labels.elements(), &TensorData::Bytes(vec![br#"["c","a"]"#.to_vec(), b"[]".to_vec()]));
        let outputs = several.default_outputs(&rows).unwrap();
        assert_eq!(outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["labels", "probabilities"]);
        let TensorData::Fp32(probabilities) = outputs[1].tensor.elements() else { panic!("floats were expected") };
        assert!((probabilities[0] - 0.524_98).abs() < 1e-4 && probabilities[5].abs() < 1e-6);
        let given = Classifier { rule: Rule::From(0.9, LabelActivation::None), ..classifier() };
        let labels = given.output(&[row(&[0.95, 0.9, 0.1])], LABELS).unwrap();
        assert_eq!(labels.elements(), &TensorData::Bytes(vec![br#"["a","b"]"#.to_vec()]));
    }

    #[test]
    fn another_number_of_scores_is_a_failure() {
        assert!(classifier().output(&[row(&[1.0, 2.0])], LABEL).is_err());
    }

    proptest! {
        #[test]
        fn softmax_agrees_with_double_precision(scores in proptest::collection::vec(-1e4_f32..1e4, 1..20)) {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact: Vec<f64> = scores.iter().map(|s| (f64::from(*s) - f64::from(largest)).exp()).collect();
            let sum: f64 = exact.iter().sum();
            let computed = softmax(&scores);
            prop_assert!((computed.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for (exact, computed) in exact.iter().zip(&computed) {
                prop_assert!((exact / sum - f64::from(*computed)).abs() < 1e-5, "{exact} {computed}");
            }
        }
    }
}
