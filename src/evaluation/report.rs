//! Everything that is to be known of one evaluation: the form of its JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::answer::{Answered, labels_of};
use super::calibration::{Calibration, Sure, calibration};
use super::samples::Sample;
use super::scores::{self, ClassScores, Judged, ratio};

/// A text that was not answered; it counts as wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its line in the file.
    pub line: usize,
    /// The error code.
    pub code: String,
    /// What exactly.
    pub message: String,
}

/// How long it took. Milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// All texts together.
    pub wall_ms: f64,
    /// Texts a second.
    pub texts_per_s: f64,
    /// Texts under way at once: those that wait for their turn count that, too.
    pub window: usize,
    /// Of half of the texts, at most.
    pub p50_ms: f64,
    /// Of nine in ten.
    pub p90_ms: f64,
    /// Of 99 in a hundred.
    pub p99_ms: f64,
    /// Of the slowest.
    pub max_ms: f64,
    /// The run alone of a text's batch, half of the texts at most.
    pub run_p50_ms: f64,
    /// Rows in a batch, on average over batches.
    pub mean_batch_size: f64,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model with its version.
    pub model: String,
    /// Texts.
    pub texts: usize,
    /// The share of them that was given its class.
    pub accuracy: f64,
    /// Its 95% interval (Wilson).
    pub accuracy_interval: [f64; 2],
    /// The mean F1 of the classes that occur.
    pub macro_f1: f64,
    /// The classes, in the model's order.
    pub labels: Vec<String>,
    /// Their scores.
    pub classes: Vec<ClassScores>,
    /// How often each class (row) was given each class (column).
    pub confusion: Vec<Vec<usize>>,
    /// How sure the model is, against how right.
    pub calibration: Calibration,
    /// How long it took.
    pub latency: Latency,
    /// Texts that were not answered, by code.
    pub errors: BTreeMap<String, usize>,
    /// Those texts.
    pub refused: Vec<Refused>,
}

/// What was measured around the answers.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From the first text to the last answer.
    pub elapsed: Duration,
    /// Texts under way at once.
    pub window: usize,
}

/// What `answers` to `samples` come to.
#[must_use]
pub fn report(samples: &[Sample], answers: &[Answered], measured: Measured) -> Report {
    let labels = labels_of(answers);
    let judged = judged(samples, answers, &labels);
    let right = judged.iter().filter(|(truth, given)| *given == Some(*truth)).count();
    let refused = refused(samples, answers);
    let mut errors = BTreeMap::new();
    for one in &refused {
        *errors.entry(one.code.clone()).or_default() += 1;
    }
    Report {
        model: answers
            .iter()
            .map(|answered| &answered.model)
            .find(|model| !model.is_empty())
            .cloned()
            .unwrap_or_default(),
        texts: samples.len(),
        accuracy: scores::accuracy(&judged),
        accuracy_interval: scores::wilson(right, judged.len()),
        macro_f1: scores::macro_f1(judged.iter().copied(), labels.len()),
        classes: scores::by_class(&judged, &labels),
        confusion: scores::confusion(&judged, labels.len()),
        calibration: calibration(&sure(samples, answers, &labels)),
        latency: latency(answers, measured),
        labels,
        errors,
        refused,
    }
}

/// Which class each text has, and which it was given.
pub(super) fn judged(samples: &[Sample], answers: &[Answered], labels: &[String]) -> Vec<Judged> {
    let class = |label: &str| labels.iter().position(|own| own == label);
    let judge = |(sample, answered): (&Sample, &Answered)| {
        let given = answered.classes.as_ref().ok().and_then(|ranked| class(ranked.best().0));
        (class(&sample.label).unwrap_or(usize::MAX), given)
    };
    samples.iter().zip(answers).map(judge).collect()
}

fn sure(samples: &[Sample], answers: &[Answered], labels: &[String]) -> Vec<Sure> {
    let one = |(sample, answered): (&Sample, &Answered)| {
        let ranked = answered.classes.as_ref().ok()?;
        let (label, confidence) = ranked.best();
        let truth = labels.iter().position(|own| *own == sample.label)?;
        Some(Sure { probabilities: ranked.probabilities(), truth, confidence, is_right: label == sample.label })
    };
    samples.iter().zip(answers).filter_map(one).collect()
}

fn refused(samples: &[Sample], answers: &[Answered]) -> Vec<Refused> {
    let one = |(sample, answered): (&Sample, &Answered)| {
        let refusal = answered.classes.as_ref().err()?;
        Some(Refused { line: sample.line, code: refusal.code.clone(), message: refusal.message.clone() })
    };
    samples.iter().zip(answers).filter_map(one).collect()
}

fn latency(answers: &[Answered], Measured { elapsed, window }: Measured) -> Latency {
    let sorted = |of: fn(&Answered) -> Duration| {
        let mut values: Vec<Duration> = answers.iter().map(of).collect();
        values.sort_unstable();
        values
    };
    let (latencies, runs) = (sorted(|answered| answered.latency), sorted(|answered| answered.ran));
    let batches: f64 = answers.iter().map(|answered| 1.0 / answered.batch_size.max(1) as f64).sum();
    Latency {
        wall_ms: milliseconds(elapsed),
        texts_per_s: answers.len() as f64 / elapsed.as_secs_f64().max(1e-9),
        window,
        p50_ms: quantile(&latencies, 0.5),
        p90_ms: quantile(&latencies, 0.9),
        p99_ms: quantile(&latencies, 0.99),
        max_ms: quantile(&latencies, 1.0),
        run_p50_ms: quantile(&runs, 0.5),
        mean_batch_size: if batches > 0.0 { answers.len() as f64 / batches } else { ratio(0, 1) },
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The smallest of `sorted` that at least `share` of them do not exceed.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).map_or(0.0, |value| milliseconds(*value))
}
