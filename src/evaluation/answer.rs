//! What a model answered for one text: all its classes with their probabilities, or why not.
//!
//! Read from a response whose only output is the classification extension's, of as many classes as there are: the same
//! whether the model ran in this process or in a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::protocol::response::InferenceResponse;
use crate::protocol::tensor::TensorData;

/// A class with its probability.
#[derive(Debug, Clone, PartialEq)]
struct Class {
    index: usize,
    label: String,
    probability: f64,
}

/// All classes of one text, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked(Vec<Class>);

/// Why a text has no classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// An error code.
    pub code: String,
    /// What exactly.
    pub message: String,
}

/// A text's answer, and how it came about.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The classes, or why there are none.
    pub classes: Result<Ranked, Refusal>,
    /// From before the text was prepared to when its answer was shaped; over a broker, to its reply.
    pub latency: Duration,
    /// Rows in its batch.
    pub batch_size: usize,
    /// How long its batch ran.
    pub ran: Duration,
    /// The model and version that answered.
    pub model: String,
}

impl Ranked {
    /// Reads the classes of `response`'s first row.
    ///
    /// # Errors
    /// When they are not there, or are not written as `probability:index:label`.
    pub fn read(response: &InferenceResponse) -> Result<Self, Refusal> {
        let fault = |message: &str| Refusal { code: "no_classes".to_owned(), message: message.to_owned() };
        let elements = response.outputs.first().map(|output| output.tensor.elements());
        let Some(TensorData::Bytes(written)) = elements else {
            return Err(fault("the model answered no classes; only classifiers can be evaluated"));
        };
        let classes: Option<Vec<Class>> = written.iter().map(|class| Class::read(class)).collect();
        match classes {
            Some(classes) if !classes.is_empty() => Ok(Self(classes)),
            Some(_) | None => Err(fault("the classes are not written as probability:index:label")),
        }
    }

    /// The best class: its label and its probability.
    #[must_use]
    pub fn best(&self) -> (&str, f64) {
        self.0.first().map_or(("", 0.0), |class| (class.label.as_str(), class.probability))
    }

    /// The probabilities in the order of the model's classes.
    #[must_use]
    pub fn probabilities(&self) -> Vec<f64> {
        let mut by_index: Vec<(usize, f64)> = self.0.iter().map(|class| (class.index, class.probability)).collect();
        by_index.sort_by_key(|(index, _)| *index);
        by_index.into_iter().map(|(_, probability)| probability).collect()
    }
}

impl Class {
    fn read(written: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(written).ok()?.splitn(3, ':');
        let probability = parts.next()?.parse().ok()?;
        Some(Self { probability, index: parts.next()?.parse().ok()?, label: parts.next()?.to_owned() })
    }
}

impl Answered {
    /// The answer in `response`, which took `latency`.
    #[must_use]
    pub fn read(response: &InferenceResponse, latency: Duration) -> Self {
        let number = |name: &str| response.parameters.get(name).and_then(Value::as_u64).unwrap_or(0);
        Self {
            classes: Ranked::read(response),
            latency,
            batch_size: usize::try_from(number("batch_size")).unwrap_or(usize::MAX).max(1),
            ran: Duration::from_micros(number("run_us")),
            model: format!("{}:{}", response.model_name, response.model_version),
        }
    }

    /// No answer, but a refusal after `latency`.
    #[must_use]
    pub fn refused(code: &str, message: &str, latency: Duration) -> Self {
        let refusal = Refusal { code: code.to_owned(), message: message.to_owned() };
        Self { classes: Err(refusal), latency, batch_size: 1, ran: Duration::ZERO, model: String::new() }
    }
}

/// The labels of the model that gave `answers`, in the order of its classes; empty where nothing was answered.
#[must_use]
pub fn labels_of(answers: &[Answered]) -> Vec<String> {
    let first = answers.iter().find_map(|answered| answered.classes.as_ref().ok());
    let classes = first.map_or(&[][..], |ranked| &ranked.0);
    let by_index: BTreeMap<usize, &str> = classes.iter().map(|class| (class.index, class.label.as_str())).collect();
    by_index.into_values().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::protocol::response::InferOutput;
    use crate::protocol::tensor::Tensor;

    fn response(classes: &[&str]) -> InferenceResponse {
        let elements = TensorData::Bytes(classes.iter().map(|class| class.as_bytes().to_vec()).collect());
        let tensor = Tensor::new(vec![1, classes.len()], elements).unwrap();
        let outputs = vec![InferOutput { name: "label".into(), tensor, binary_data: false }];
        let (model_name, model_version) = ("m".into(), "3".into());
        InferenceResponse { model_name, model_version, id: None, parameters: Map::new(), outputs }
    }

    #[test]
    fn classes_are_read_and_put_into_the_models_order() {
        let answered = Answered::read(&response(&["0.5:2:c:d", "0.3:0:a", "0.2:1:b"]), Duration::ZERO);
        let ranked = answered.classes.clone().unwrap();
        assert_eq!(ranked.best(), ("c:d", 0.5));
        assert_eq!(ranked.probabilities(), [0.3, 0.2, 0.5]);
        assert_eq!(labels_of(&[Answered::refused("X", "y", Duration::ZERO), answered]), ["a", "b", "c:d"]);
    }

    #[test]
    fn what_is_no_class_is_a_refusal() {
        for classes in [&["0.5:2"][..], &["x:1:a"], &["0.5:-1:a"], &[]] {
            assert!(Ranked::read(&response(classes)).is_err(), "{classes:?}");
        }
    }
}
