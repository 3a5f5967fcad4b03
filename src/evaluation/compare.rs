//! Two models on the same texts: who is right where, whether that is more than chance, and on which texts they differ.

use serde::Serialize;

use super::answer::{Answered, labels_of};
use super::report::judged;
use super::samples::Sample;
use super::scores::{Judged, accuracy, macro_f1, ratio};
use super::significance::{RESAMPLES, SEED, mcnemar, paired_bootstrap};

/// A text that two models answer differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its line in the file.
    pub line: usize,
    /// What it is.
    pub label: String,
    /// What the first model says; nothing where it refused.
    pub first: Option<String>,
    /// What the second model says.
    pub second: Option<String>,
    /// The text.
    pub text: String,
}

/// Two models on the same texts. Differences are second minus first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first model with its version.
    pub first: String,
    /// The second.
    pub second: String,
    /// The share of texts that both answer alike.
    pub agreement: f64,
    /// Texts that both get right.
    pub both_right: usize,
    /// Texts that only the first gets right.
    pub only_first_right: usize,
    /// Texts that only the second gets right.
    pub only_second_right: usize,
    /// Texts that both get wrong.
    pub both_wrong: usize,
    /// The exact two-sided p of McNemar's test: how probable so uneven a count is if the models are equally good.
    pub mcnemar_p: f64,
    /// Difference of the accuracies.
    pub accuracy_difference: f64,
    /// Its 95% interval, by a paired bootstrap.
    pub accuracy_difference_interval: [f64; 2],
    /// Difference of the macro F1s.
    pub macro_f1_difference: f64,
    /// Its 95% interval, likewise.
    pub macro_f1_difference_interval: [f64; 2],
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// What they are drawn with.
    pub seed: u64,
    /// The texts that are answered differently.
    pub differences: Vec<Difference>,
}

/// Compares the answers of two models to `samples`; their labels may stand in different orders.
#[must_use]
pub fn compare(samples: &[Sample], first: &[Answered], second: &[Answered]) -> Comparison {
    let mut labels = labels_of(first);
    labels.extend(labels_of(second).into_iter().filter(|label| !labels.contains(label)).collect::<Vec<_>>());
    let (a, b) = (judged(samples, first, &labels), judged(samples, second, &labels));
    let right = |judged: &Judged| judged.1 == Some(judged.0);
    let count = |wanted: (bool, bool)| a.iter().zip(&b).filter(|(a, b)| (right(a), right(b)) == wanted).count();
    let (only_first_right, only_second_right) = (count((true, false)), count((false, true)));
    let [accuracy_interval, f1_interval] = paired_bootstrap(&a, &b, labels.len());
    let f1 = |judged: &[Judged]| macro_f1(judged.iter().copied(), labels.len());
    let differences = differences(samples, first, second);
    Comparison {
        first: model(first),
        second: model(second),
        agreement: 1.0 - ratio(differences.len(), samples.len()),
        both_right: count((true, true)),
        only_first_right,
        only_second_right,
        both_wrong: count((false, false)),
        mcnemar_p: mcnemar(only_first_right, only_second_right),
        accuracy_difference: accuracy(&b) - accuracy(&a),
        accuracy_difference_interval: accuracy_interval,
        macro_f1_difference: f1(&b) - f1(&a),
        macro_f1_difference_interval: f1_interval,
        resamples: RESAMPLES,
        seed: SEED,
        differences,
    }
}

fn model(answers: &[Answered]) -> String {
    answers.iter().map(|answered| &answered.model).find(|model| !model.is_empty()).cloned().unwrap_or_default()
}

fn differences(samples: &[Sample], first: &[Answered], second: &[Answered]) -> Vec<Difference> {
    let label = |answered: &Answered| answered.classes.as_ref().ok().map(|ranked| ranked.best().0.to_owned());
    let one = |(sample, (a, b)): (&Sample, (&Answered, &Answered))| {
        let (first, second) = (label(a), label(b));
        let Sample { line, text, label } = sample.clone();
        (first != second).then_some(Difference { line, label, first, second, text })
    };
    samples.iter().zip(first.iter().zip(second)).filter_map(one).collect()
}
