//! Why a model said what it said: what each token of a text, or each patch of an image, adds to the probability of the class.
//!
//! Called by the worker for jobs that ask for it, after they are answered. A part is taken away by putting something that means nothing
//! in its place, and the model is asked again, in the background of the batcher that all jobs share, a batch at a time.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::LoadedModel;
use super::units::Units;
use crate::batch::batcher::SubmitOptions;
use crate::batch::pool::JobClass;
use crate::batch::row::{Row, RowOutput};
use crate::error::{ErrorCode, JobError};
use crate::limits::{INLINE_MASK_ELEMENTS, MAX_EXPLAIN_RUNS};
use crate::protocol::request::InferenceRequest;
use crate::protocol::response::{InferOutput, InferenceResponse};
use crate::protocol::tensor::{Tensor, TensorData};
use crate::seeded::Seeded;

/// The parameter of a request.
const PARAMETER: &str = "explain";
/// Model runs that sampling may take unless told.
const USUAL_RUNS: usize = 512;
/// The width of the windows that show what neighbours do together.
const WINDOW: usize = 3;

/// How attributions come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// What the probability loses without a part, alone and with its neighbours.
    Occlusion,
    /// What a part adds, on average over sampled orders in which the parts come (Strumbelj and Kononenko 2014).
    Shapley { runs: usize, seed: u64 },
}

/// What a job asks for beside its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    method: Method,
    /// The text, where the model takes one: attributions name its parts.
    text: Option<Vec<u8>>,
}

impl ExplainRequest {
    /// Reads the parameter `explain` of `request`: `"occlusion"`, `"shapley"`, or an object of `method`, `budget` and `seed`.
    /// Nothing where it is not there.
    ///
    /// # Errors
    /// `MALFORMED_REQUEST` for anything else, `INVALID_INPUT` for a request of several rows.
    pub fn read(request: &InferenceRequest) -> Result<Option<Self>, JobError> {
        let Some(value) = request.parameters.get(PARAMETER) else { return Ok(None) };
        let nothing = Map::new();
        let (word, members) = match value {
            Value::String(word) => (Some(word.as_str()), &nothing),
            Value::Object(members) => (members.get("method").and_then(Value::as_str), members),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => (None, &nothing),
        };
        let known = ["method", "budget", "seed"];
        let is_known = members.keys().all(|key| known.contains(&key.as_str()));
        let number = |name: &str, usual: u64| members.get(name).map_or(Some(usual), Value::as_u64);
        let runs = number("budget", USUAL_RUNS as u64).and_then(|runs| usize::try_from(runs).ok());
        let runs = runs.filter(|runs| (1..=MAX_EXPLAIN_RUNS).contains(runs));
        let method = match (word, runs, number("seed", 0)) {
            (Some("occlusion"), Some(_), Some(_)) if is_known => Method::Occlusion,
            (Some("shapley"), Some(runs), Some(seed)) if is_known => Method::Shapley { runs, seed },
            _ => {
                let message = format!(
                    "`explain` is \"occlusion\", \"shapley\", or an object of `method`, `budget` (1 to {MAX_EXPLAIN_RUNS} \
                     model runs) and `seed`"
                );
                return Err(JobError::new(ErrorCode::MalformedRequest, message));
            }
        };
        if request.rows() != 1 {
            return Err(invalid(format!("an explained request has one row, {} came", request.rows())));
        }
        let text = request.inputs.first().and_then(|input| match input.tensor.elements() {
            TensorData::Bytes(elements) => elements.first().cloned(),
            _ => None,
        });
        Ok(Some(Self { method, text }))
    }
}

/// Attributions as they were found.
struct Found {
    attributions: Vec<f64>,
    /// Model runs that it took.
    runs: usize,
    /// How far the attributions are from summing up to what all parts together add; where the method promises that.
    completeness_error: Option<f64>,
}

/// The class that is explained, and what asks the model for it.
struct Asked<'a> {
    model: &'a LoadedModel,
    units: &'a Arc<Units>,
    class: usize,
    options: &'a SubmitOptions,
}

impl LoadedModel {
    /// Adds to `response` why the most probable class of `row`, which the model has answered with `whole`, is that: the outputs
    /// `attributions` and, for texts, `tokens` and `offsets`, and the parameter `explain`. Whatever the class of the job, the rows for
    /// this give way to those of jobs.
    ///
    /// # Errors
    /// `INVALID_INPUT` where the model is none of texts or images with classes; else as inferring does.
    pub async fn explain(
        &self,
        asked: &ExplainRequest,
        (row, whole): (Row, &RowOutput),
        options: &SubmitOptions,
        response: &mut InferenceResponse,
    ) -> Result<(), JobError> {
        let options = &SubmitOptions { class: JobClass::Background, ..options.clone() };
        let units = Arc::new(self.units(row, asked.text.clone()).await?);
        let (parts, most) = (units.count(), MAX_EXPLAIN_RUNS / 2);
        if parts == 0 || parts > most {
            return Err(invalid(format!("the input has {parts} parts, 1 to {most} are explained")));
        }
        let probabilities = self.probabilities(whole)?;
        let best = |best: usize, (class, p): (usize, &f64)| match probabilities.get(best) {
            Some(most) if p > most => class,
            Some(_) | None => best,
        };
        let class = probabilities.iter().enumerate().fold(0, best);
        let score = probabilities.get(class).copied().unwrap_or_default();
        let model = Asked { model: self, units: &units, class, options };
        let found = match asked.method {
            Method::Occlusion => model.occlusion(score).await?,
            Method::Shapley { runs, seed } => model.shapley(score, runs, seed).await?,
        };
        let (method, seed) = match asked.method {
            Method::Occlusion => ("occlusion", None),
            Method::Shapley { seed, .. } => ("shapley", Some(seed)),
        };
        let explained = json!({
            "method": method,
            "seed": seed,
            "class": class,
            "label": self.labels().get(class),
            "probability": score,
            "runs": found.runs + 1,
            "completeness_error": found.completeness_error,
        });
        response.parameters.insert(PARAMETER.to_owned(), explained);
        response.outputs.extend(outputs(&units, &found.attributions)?);
        Ok(())
    }
}

impl Asked<'_> {
    /// The probability of the class with those units alone that each of `kept` says yes of. There are never more rows of that than
    /// fill a batch.
    async fn scores(&self, kept: impl Iterator<Item = Vec<bool>> + Send) -> Result<Vec<f64>, JobError> {
        let (mut kept, size) = (kept.fuse(), self.model.max_batch_size());
        let mut scores = Vec::new();
        loop {
            let batch: Vec<Vec<bool>> = kept.by_ref().take(size).collect();
            if batch.is_empty() {
                return Ok(scores);
            }
            let rows = self.masked(batch).await?;
            for inferred in self.model.infer(rows, self.options.clone()).await? {
                let probabilities = self.model.probabilities(&inferred.output)?;
                scores.push(probabilities.get(self.class).copied().unwrap_or_default());
            }
        }
    }

    /// A row for each of `kept`; large ones are made off the async threads.
    async fn masked(&self, kept: Vec<Vec<bool>>) -> Result<Vec<Row>, JobError> {
        let units = Arc::clone(self.units);
        let make = move || kept.iter().map(|kept| units.masked(kept)).collect::<Vec<Row>>();
        if self.units.whole().elements() <= INLINE_MASK_ELEMENTS / self.model.max_batch_size().max(1) {
            return Ok(make());
        }
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|_| JobError::new(ErrorCode::InferenceFailed, "taking parts of the input away panicked"))
    }

    /// The mean of what is lost for each unit of the windows that it is in: alone, and with its neighbours.
    async fn occlusion(&self, whole: f64) -> Result<Found, JobError> {
        let count = self.units.count();
        let mut windows: Vec<std::ops::Range<usize>> = (0..count).map(|unit| unit..unit + 1).collect();
        if self.units.have_neighbours() && count > WINDOW {
            windows.extend((0..=count - WINDOW).map(|first| first..first + WINDOW));
        }
        let kept = windows.iter().map(|window| (0..count).map(|unit| !window.contains(&unit)).collect());
        let scores = self.scores(kept).await?;
        let mut sums = vec![(0.0, 0_usize); count];
        for (window, score) in windows.iter().zip(&scores) {
            for (sum, seen) in sums.get_mut(window.clone()).into_iter().flatten() {
                *sum += (whole - score) / window.len() as f64;
                *seen += 1;
            }
        }
        let attributions = sums.into_iter().map(|(sum, seen)| sum / seen.max(1) as f64).collect();
        Ok(Found { attributions, runs: windows.len(), completeness_error: None })
    }

    /// The mean of what each unit adds when the units come one by one, in orders drawn in pairs that are each other's reverse.
    async fn shapley(&self, whole: f64, runs: usize, seed: u64) -> Result<Found, JobError> {
        let count = self.units.count();
        let nothing = self.scores(std::iter::once(vec![false; count])).await?.first().copied().unwrap_or_default();
        // The first and the last step of all walks are the same: nothing, and the whole. They are run once.
        let walks = (runs.saturating_sub(2) / count.saturating_sub(1).max(1)).max(1);
        let mut seeded = Seeded::new(seed);
        let (mut sums, mut order) = (vec![0.0; count], (0..count).collect::<Vec<usize>>());
        for walk in 0..walks {
            if walk % 2 == 0 {
                seeded.shuffle(&mut order);
            } else {
                order.reverse();
            }
            let mut kept = vec![false; count];
            let steps = order.iter().take(count.saturating_sub(1)).map(|unit| {
                kept.get_mut(*unit).into_iter().for_each(|own| *own = true);
                kept.clone()
            });
            let scores = self.scores(steps).await?;
            let after = scores.iter().copied().chain([whole]);
            let before = std::iter::once(nothing).chain(scores.iter().copied());
            for (unit, (after, before)) in order.iter().zip(after.zip(before)) {
                sums.get_mut(*unit).into_iter().for_each(|sum| *sum += after - before);
            }
        }
        let attributions: Vec<f64> = sums.into_iter().map(|sum| sum / walks as f64).collect();
        // Of what is sent, which is rounded.
        let sent: f64 = attributions.iter().map(|attribution| f64::from(*attribution as f32)).sum();
        let error = (sent - (whole - nothing)).abs();
        let runs = walks * count.saturating_sub(1) + 1;
        Ok(Found { attributions, runs, completeness_error: Some(error) })
    }
}

fn outputs(units: &Units, attributions: &[f64]) -> Result<Vec<InferOutput>, JobError> {
    let floats = TensorData::Fp32(attributions.iter().map(|attribution| *attribution as f32).collect());
    let shape: Vec<usize> = std::iter::once(1).chain(units.shape()).collect();
    let mut tensors = vec![("attributions", shape, floats)];
    if let Some(spans) = units.spans() {
        let tokens = spans.iter().map(|span| span.text.clone().into_bytes()).collect();
        let offsets: Vec<u64> = spans.iter().flat_map(|span| [span.start as u64, span.end as u64]).collect();
        tensors.push(("tokens", vec![1, spans.len()], TensorData::Bytes(tokens)));
        tensors.push(("offsets", vec![1, spans.len(), 2], TensorData::Uint64(offsets)));
    }
    let output = |(name, shape, elements): (&str, Vec<usize>, TensorData)| {
        let tensor = Tensor::new(shape, elements)
            .map_err(|error| JobError::new(ErrorCode::InferenceFailed, format!("output `{name}`: {error}")))?;
        Ok(InferOutput { name: name.to_owned(), tensor, binary_data: false })
    };
    tensors.into_iter().map(output).collect()
}

pub(super) fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidInput, message)
}
