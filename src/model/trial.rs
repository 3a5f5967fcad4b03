//! Two forms of one model on the same rows: how their answers agree, and what each takes.
//!
//! Used where a model is optimised. Times are taken in turn, so that what else the machine does hits both alike.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::ModelSpec;
use super::golden::{distance, elements};
use crate::backend::Backend as _;
use crate::backend::tract::TractBackend;
use crate::batch::row::{Batch, Row, RowOutput};
use crate::postprocess::PostprocessSpec;
use crate::preprocess::{PreprocessSpec, Preprocessor};
use crate::protocol::tensor::{Datatype, TensorData};

/// Rows in a measured batch at most.
const MEASURED_BATCH: usize = 16;
/// Runs of each form for a figure: at least, and at most.
const RUNS: (usize, usize) = (7, 101);
/// After so long the runs are enough.
const ENOUGH: Duration = Duration::from_secs(3);
/// Rows that are run at once where only the answers matter.
const COMPARED_BATCH: usize = 16;

/// The rows of a trial.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// The first so many are the golden ones, or a sample.
    golden: usize,
    /// The class of each of the others.
    classes: Vec<usize>,
    /// Which output has the classes.
    output: Option<usize>,
    /// Rows in a batch that the model takes.
    max_batch_size: usize,
}

impl Rows {
    /// `rows`, and those of labelled `texts` for a classifier with `labels`.
    pub(super) fn with_texts(
        spec: &ModelSpec,
        rows: Vec<Row>,
        (preprocessor, labels): (&Preprocessor, &[String]),
        texts: &[(String, String)],
    ) -> Result<Self, String> {
        let golden = rows.len();
        let name = match &spec.postprocess {
            PostprocessSpec::Classification(own) => Some(own.output.as_str()),
            PostprocessSpec::Multilabel(_) | PostprocessSpec::Raw {} => None,
        };
        let output = match name {
            Some(name) => spec.outputs.iter().position(|output| output.name == name),
            // Scores of classes, most probably.
            None => spec.outputs.iter().position(|output| output.datatype == Datatype::Fp32 && output.shape.len() == 2),
        };
        let mut all = Self { rows, golden, classes: Vec::new(), output, max_batch_size: spec.batching.max_batch_size };
        if texts.is_empty() {
            return Ok(all);
        }
        let (Preprocessor::Text(tokenizer), Some(_), PreprocessSpec::Text(_)) = (preprocessor, name, &spec.preprocess)
        else {
            return Err("labelled texts are for classifiers of texts".to_owned());
        };
        for (index, (text, label)) in texts.iter().enumerate() {
            let class = labels.iter().position(|own| own == label);
            all.classes.push(class.ok_or_else(|| format!("the model has no label `{label}`"))?);
            all.rows.push(tokenizer.row(index, text.as_bytes()).map_err(|error| error.message)?);
        }
        Ok(all)
    }

    fn batch(&self, size: usize, round: usize) -> Batch {
        let first = (round * size) % self.rows.len().max(1);
        let mut rows: Vec<Row> = self.rows.iter().cycle().skip(first).take(size).cloned().collect();
        // Rows of one shape where they may not be filled up.
        if let Some(like) = rows.first().cloned() {
            rows.iter_mut().filter(|row| !row.fits_with(&like)).for_each(|row| row.clone_from(&like));
        }
        Batch { rows }
    }
}

/// A loaded file, and what it answers to the rows.
pub(super) struct Form {
    pub(super) backend: TractBackend,
    file_bytes: usize,
    answers: Vec<RowOutput>,
}

/// What a file takes, and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Bytes on disk.
    pub file_bytes: usize,
    /// Milliseconds of a row alone, the median.
    pub row_ms: f64,
    /// Milliseconds of a row in a batch of `batch_size`, the median; nothing where the model takes no batches.
    pub row_in_batch_ms: Option<f64>,
    /// Rows in that batch.
    pub batch_size: usize,
    /// The share of labelled texts that get their label.
    pub accuracy: Option<f64>,
}

/// How the answers of a form agree with the original's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The largest difference of two elements: absolute up to 1, relative beyond.
    pub max_difference: f64,
    /// The same on the golden rows alone.
    pub golden_difference: f64,
    /// The share of rows whose most probable class is the same.
    pub equal_classes: Option<f64>,
    /// Accuracy lost; negative where it is gained.
    pub accuracy_lost: Option<f64>,
}

/// Medians of two forms, milliseconds of a row: alone, then in a batch where there is one.
pub(super) struct Times {
    pub(super) before: Vec<(usize, f64)>,
    pub(super) after: Vec<(usize, f64)>,
    /// Medians of the ratios of neighbouring runs.
    ratios: Vec<f64>,
}

impl Times {
    pub(super) fn ratios(&self) -> Vec<f64> {
        self.ratios.clone()
    }
}

impl Form {
    /// Runs all rows through `backend`.
    pub(super) fn of(onnx: &[u8], backend: TractBackend, rows: &Rows) -> Result<Self, String> {
        let mut answers = Vec::with_capacity(rows.rows.len());
        let mut rest = rows.rows.as_slice();
        while let Some(first) = rest.first() {
            let most = if first.may_be_padded { COMPARED_BATCH } else { 1 };
            let (part, later) = rest.split_at(most.min(rest.len()));
            let output = backend.run(&Batch { rows: part.to_vec() }).map_err(|error| error.to_string())?;
            answers.extend(output.rows);
            rest = later;
        }
        Ok(Self { backend, file_bytes: onnx.len(), answers })
    }

    pub(super) fn figures(&self, rows: &Rows, times: &[(usize, f64)]) -> Figures {
        let alone = times.first().map_or(0.0, |(_, milliseconds)| *milliseconds);
        let batch = times.get(1);
        Figures {
            file_bytes: self.file_bytes,
            row_ms: alone,
            row_in_batch_ms: batch.map(|(_, milliseconds)| *milliseconds),
            batch_size: batch.map_or(1, |(size, _)| *size),
            accuracy: self.accuracy(rows),
        }
    }

    fn accuracy(&self, rows: &Rows) -> Option<f64> {
        if rows.classes.is_empty() {
            return None;
        }
        let answered = self.answers.iter().skip(rows.golden).zip(&rows.classes);
        let right = answered.filter(|(row, class)| best(row, rows.output) == Some(**class)).count();
        Some(right as f64 / rows.classes.len() as f64)
    }
}

/// How `form` agrees with `original`.
pub(super) fn compared(original: &Form, form: &Form, rows: &Rows) -> Agreement {
    let pairs = || original.answers.iter().zip(&form.answers);
    let differences: Vec<f64> = pairs().map(|(own, other)| row_distance(own, other)).collect();
    let worst = |differences: &[f64]| {
        differences.iter().copied().fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a })
    };
    let classes = pairs().filter_map(|(own, other)| Some(best(own, rows.output)? == best(other, rows.output)?));
    let classes: Vec<bool> = classes.collect();
    let equal = classes.iter().filter(|equal| **equal).count();
    Agreement {
        max_difference: worst(&differences),
        golden_difference: worst(differences.get(..rows.golden).unwrap_or_default()),
        equal_classes: (!classes.is_empty()).then(|| equal as f64 / classes.len() as f64),
        accuracy_lost: original.accuracy(rows).zip(form.accuracy(rows)).map(|(before, after)| before - after),
    }
}

fn row_distance(own: &RowOutput, other: &RowOutput) -> f64 {
    let pairs = own.outputs.iter().zip(&other.outputs);
    pairs
        .map(|(own, other)| distance(&elements(other), &elements(own)))
        .fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a })
}

/// The most probable class of a row.
fn best(row: &RowOutput, output: Option<usize>) -> Option<usize> {
    let TensorData::Fp32(scores) = row.outputs.get(output?)?.elements() else { return None };
    let better = |best: Option<(usize, f32)>, (index, score): (usize, &f32)| match best {
        Some((_, most)) if most >= *score => best,
        Some(_) | None => Some((index, *score)),
    };
    scores.iter().enumerate().fold(None, better).map(|(index, _)| index)
}

/// Runs both forms in turn, a row alone and a batch.
pub(super) fn interleaved(before: &TractBackend, after: &TractBackend, rows: &Rows) -> Result<Times, String> {
    let mut times = Times { before: Vec::new(), after: Vec::new(), ratios: Vec::new() };
    let mut sizes = vec![1];
    if rows.max_batch_size > 1 {
        sizes.push(rows.max_batch_size.min(MEASURED_BATCH));
    }
    for size in sizes {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let began = Instant::now();
        for round in 0..=RUNS.1 {
            if round > RUNS.0 && began.elapsed() > ENOUGH {
                break;
            }
            let batch = rows.batch(size, round);
            // Who comes first finds the caches as the other left them: they take turns.
            let (own, other) = if round % 2 == 0 {
                let own = timed(before, &batch)?;
                (own, timed(after, &batch)?)
            } else {
                let other = timed(after, &batch)?;
                (timed(before, &batch)?, other)
            };
            // The first run compiles.
            if round > 0 {
                first.push(own / size as f64);
                second.push(other / size as f64);
            }
        }
        let ratios = first.iter().zip(&second).map(|(own, other)| other / own).collect();
        times.ratios.push(median(ratios));
        times.before.push((size, median(first)));
        times.after.push((size, median(second)));
    }
    Ok(times)
}

fn timed(backend: &TractBackend, batch: &Batch) -> Result<f64, String> {
    let began = Instant::now();
    backend.run(batch).map_err(|error| error.to_string())?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
