//! What the blocks come to: figures for each arm and load, ratios with their intervals, batches, fitted costs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::fit::CostFit;
use super::measure::{Block, Measured, Plan, load_name};
use super::play::Played;
use super::statistics::{Ratio, mean, number};
use super::trace::{Arrivals, Lengths};
use crate::batch::report::BatchReport;

/// Lengths are told apart in steps of so many.
const LENGTH_STEP: usize = 16;
/// Quantiles of the curves in the report.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// Everything that the report tells; the JSON file is this.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) run: Run,
    pub(super) loads: Vec<LoadFigures>,
    pub(super) batches: Vec<BatchFigures>,
}

/// What was run.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub(super) version: &'static str,
    pub(super) broker: &'static str,
    pub(super) seed: u64,
    pub(super) arrivals: Arrivals,
    pub(super) lengths: Lengths,
    pub(super) models: Vec<String>,
    pub(super) tenants: usize,
    pub(super) blocks: usize,
    pub(super) block_ms: f64,
    pub(super) executors: usize,
    pub(super) cores: usize,
    /// Jobs a second at batch 1, which the loads are multiples of.
    pub(super) m1_jobs_per_s: f64,
    /// How long a row runs by itself.
    pub(super) row_ms: f64,
    /// Within which time a result is worth having.
    pub(super) objective_ms: f64,
}

/// All arms at one load.
#[derive(Debug, Serialize)]
pub(super) struct LoadFigures {
    pub(super) load: String,
    /// The multiple of the capacity at batch 1.
    pub(super) share: f64,
    pub(super) arms: Vec<ArmFigures>,
}

/// One arm at one load.
#[derive(Debug, Serialize)]
pub(super) struct ArmFigures {
    pub(super) arm: String,
    pub(super) jobs_per_s: f64,
    pub(super) latency_ms: BTreeMap<&'static str, f64>,
    /// The share of jobs with a result within the objective.
    pub(super) within_objective: f64,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) mean_batch_size: f64,
    /// This arm divided by the first one, over blocks; for the first arm itself there is none.
    pub(super) against_first: Option<Ratios>,
}

/// An arm's figures divided by the first arm's.
#[derive(Debug, Serialize)]
pub(super) struct Ratios {
    pub(super) p50: Option<Judged>,
    pub(super) p99: Option<Judged>,
    /// Results within the objective, a second.
    pub(super) goodput: Option<Judged>,
}

/// A ratio, and whether it is more than the noise between the first arm and its twin.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Judged {
    #[serde(flatten)]
    pub(super) ratio: Ratio,
    /// Nothing where no twin was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) beyond_noise: Option<bool>,
}

/// The batches of one arm and model, over all loads.
#[derive(Debug, Serialize)]
pub(super) struct BatchFigures {
    pub(super) arm: String,
    pub(super) model: String,
    pub(super) cells: Vec<Cell>,
    pub(super) fit: Option<CostFit>,
}

/// Batches of about the same size and length.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Cell {
    pub(super) size: usize,
    /// The longest of the step.
    pub(super) length: usize,
    pub(super) batches: usize,
    pub(super) mean_ms: f64,
}

impl Summary {
    pub(super) fn of(plan: &Plan, measured: &Measured) -> Self {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let calibration = &measured.calibration;
        let run = Run {
            version: env!("CARGO_PKG_VERSION"),
            broker: plan.ground.name(),
            seed: plan.seed,
            arrivals: plan.arrivals,
            lengths: plan.lengths.clone(),
            models: measured.models.clone(),
            tenants: plan.tenants.len(),
            blocks: plan.blocks,
            block_ms: milliseconds(plan.block),
            executors: plan.settings.batching.executors,
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            m1_jobs_per_s: calibration.jobs_per_s,
            row_ms: milliseconds(calibration.row),
            objective_ms: milliseconds(calibration.objective),
        };
        let loads = plan.loads.iter().enumerate().map(|(load, share)| LoadFigures {
            load: load_name(plan.arrivals, *share, plan.window),
            share: *share,
            arms: (0..plan.arms.len()).map(|arm| arm_figures(plan, measured, arm, load)).collect(),
        });
        Self { run, loads: loads.collect(), batches: batches(plan, measured) }
    }
}

fn blocks_of(measured: &Measured, arm: usize, load: usize) -> impl Iterator<Item = &Block> {
    measured.blocks.iter().filter(move |block| block.arm == arm && block.load == load)
}

fn arm_figures(plan: &Plan, measured: &Measured, arm: usize, load: usize) -> ArmFigures {
    let mut all = Played::empty();
    blocks_of(measured, arm, load).for_each(|block| all.add(&block.played));
    let sizes = blocks_of(measured, arm, load).flat_map(|block| &block.ran).map(|ran| number(ran.report.size));
    let objective = measured.calibration.objective;
    ArmFigures {
        arm: plan.arms.get(arm).map_or_else(String::new, |arm| arm.name.clone()),
        jobs_per_s: all.per_second(),
        latency_ms: QUANTILES.iter().map(|(name, share)| (*name, all.latency_ms(*share))).collect(),
        within_objective: all.within(objective),
        mean_batch_size: mean(sizes),
        failed: all.failed,
        against_first: (arm > 0).then(|| Ratios {
            p50: judged(plan, measured, (arm, load), |played| played.latency_ms(0.5)),
            p99: judged(plan, measured, (arm, load), |played| played.latency_ms(0.99)),
            goodput: judged(plan, measured, (arm, load), |played| played.within(objective) * played.per_second()),
        }),
    }
}

fn judged(
    plan: &Plan,
    measured: &Measured,
    (arm, load): (usize, usize),
    of: impl Fn(&Played) -> f64,
) -> Option<Judged> {
    let ratio = |arm: usize| {
        let pairs = blocks_of(measured, arm, load).filter_map(|block| {
            let first = blocks_of(measured, 0, load).find(|first| first.number == block.number)?;
            Some(of(&block.played) / of(&first.played))
        });
        Ratio::over_blocks(&pairs.collect::<Vec<_>>(), plan.seed)
    };
    let first_twin = plan.arms.first().map(super::arms::Arm::twin);
    let twin = plan.arms.iter().position(|arm| Some(arm) == first_twin.as_ref());
    let own = ratio(arm)?;
    let noise = twin.filter(|twin| *twin != arm).and_then(ratio);
    Some(Judged { ratio: own, beyond_noise: noise.map(|noise| own.is_beyond(&noise)) })
}

fn batches(plan: &Plan, measured: &Measured) -> Vec<BatchFigures> {
    let mut figures = Vec::new();
    for (place, arm) in plan.arms.iter().enumerate() {
        for (model, name) in measured.models.iter().enumerate() {
            let own = measured.blocks.iter().filter(|block| block.arm == place).flat_map(|block| &block.ran);
            let reports: Vec<BatchReport> = own.filter(|ran| ran.model == model).map(|ran| ran.report).collect();
            figures.push(BatchFigures {
                arm: arm.name.clone(),
                model: name.clone(),
                cells: cells(&reports),
                fit: CostFit::to(&reports),
            });
        }
    }
    figures
}

fn cells(reports: &[BatchReport]) -> Vec<Cell> {
    let mut sums: BTreeMap<(usize, usize), (usize, f64)> = BTreeMap::new();
    for report in reports {
        let length = report.padded_length.div_ceil(LENGTH_STEP).max(1) * LENGTH_STEP;
        let sum = sums.entry((report.size, length)).or_default();
        sum.0 += 1;
        sum.1 += report.ran.as_secs_f64() * 1e3;
    }
    let cell = |((size, length), (batches, sum)): ((usize, usize), (usize, f64))| Cell {
        size,
        length,
        batches,
        mean_ms: sum / number(batches),
    };
    sums.into_iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::DispatchReason;

    #[test]
    fn batches_of_about_the_same_shape_are_one_cell() {
        let report = |size, padded_length, ms| BatchReport {
            size,
            padded_length,
            planned_shape: (size, padded_length),
            real_length: padded_length,
            ran: Duration::from_millis(ms),
            reason: DispatchReason::Drained,
            expected: Duration::ZERO,
            expected_apart: Duration::ZERO,
            contended: false,
            background: false,
            best_size: size,
        };
        let cells = cells(&[report(2, 17, 4), report(2, 32, 6), report(2, 33, 9), report(1, 0, 1)]);
        let found: Vec<_> = cells.iter().map(|cell| (cell.size, cell.length, cell.batches)).collect();
        assert_eq!(found, [(1, 16, 1), (2, 32, 2), (2, 48, 1)]);
        assert!(cells.get(1).is_some_and(|cell| (cell.mean_ms - 5.0).abs() < 1e-9));
    }
}
