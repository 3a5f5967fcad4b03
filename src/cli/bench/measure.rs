//! The run: capacity at batch 1 first, then blocks of all arms in turn, each playing the same traces.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::arms::Arm;
use super::cargo::{Ingredients, Load};
use super::play::{Played, closed, open};
use super::random::Random;
use super::stand::{Ground, Ran, Stand};
use super::statistics::median;
use super::trace::{Arrivals, Lengths, trace};
use crate::cli::failure::{Exit, Failure};
use crate::settings::{Objectives, Settings};

/// Jobs under way while the capacity is measured.
const CALIBRATION_WINDOW: usize = 64;
/// The objective as a multiple of a row's own time, where none is asked for.
const OBJECTIVE_FACTOR: f64 = 10.0;
/// Parts that random numbers are drawn for, beside the traces.
const CARGO_PART: u64 = u64::MAX;

/// What is measured, and how.
pub(super) struct Plan {
    pub(super) arms: Vec<Arm>,
    pub(super) ground: Ground,
    pub(super) settings: Settings,
    pub(super) tenants: Vec<String>,
    pub(super) texts: Vec<String>,
    pub(super) lengths: Lengths,
    pub(super) arrivals: Arrivals,
    pub(super) loads: Vec<f64>,
    pub(super) window: usize,
    pub(super) blocks: usize,
    pub(super) block: Duration,
    pub(super) objective: Option<Duration>,
    pub(super) seed: u64,
    pub(super) quiet: bool,
}

/// What the machine can do at batch 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibration {
    /// Jobs a second, every row by itself.
    pub(super) jobs_per_s: f64,
    /// How long a row runs by itself.
    pub(super) row: Duration,
    /// Within which time a result is worth having.
    pub(super) objective: Duration,
}

/// One block of one arm.
pub(super) struct Block {
    pub(super) arm: usize,
    pub(super) load: usize,
    pub(super) number: usize,
    pub(super) played: Played,
    pub(super) ran: Vec<Ran>,
}

/// Everything that was measured.
pub(super) struct Measured {
    pub(super) calibration: Calibration,
    pub(super) models: Vec<String>,
    pub(super) blocks: Vec<Block>,
}

pub(super) async fn measure(plan: &Plan) -> Result<Measured, Failure> {
    let progress = progress_bar(plan)?;
    progress.set_message("capacity at batch 1");
    let single = Stand::start(&Arm::single(), plan.ground, &plan.settings, &plan.tenants).await?;
    let single = Arc::new(single);
    let ingredients =
        Ingredients { models: &single.models, tenants: plan.tenants.len(), texts: &plan.texts, lengths: &plan.lengths };
    let cargo = Arc::new(ingredients.make(&mut Random::of_part(plan.seed, CARGO_PART))?);
    let models = single.models.iter().map(|model| model.name.clone()).collect();
    let calibration = calibrate(plan, &single, &cargo).await;
    stop(single).await?;
    let calibration = calibration?;
    progress.inc(1);

    let objectives = Objectives { normal: calibration.objective, ..plan.settings.batching.objectives };
    let mut settings = plan.settings.clone();
    settings.batching.objectives = objectives;
    let mut stands = Vec::with_capacity(plan.arms.len());
    for arm in &plan.arms {
        progress.set_message(format!("starting {}", arm.name));
        stands.push(Arc::new(Stand::start(arm, plan.ground, &settings, &plan.tenants).await?));
    }
    let blocks = run_blocks(plan, &stands, &cargo, (calibration, &progress)).await;
    for stand in stands {
        stop(stand).await?;
    }
    progress.finish_and_clear();
    Ok(Measured { calibration, models, blocks: blocks? })
}

/// Capacity and run time with every row by itself. A first, shorter block warms up.
async fn calibrate(plan: &Plan, single: &Arc<Stand>, cargo: &Arc<Vec<Load>>) -> Result<Calibration, Failure> {
    closed(single, cargo, (CALIBRATION_WINDOW, plan.block / 2)).await?;
    single.take_ran();
    let played = closed(single, cargo, (CALIBRATION_WINDOW, plan.block)).await?;
    if played.answered() == 0 {
        let failed = format!("no job got a result: {:?}", played.failed);
        return Err(Failure::new(Exit::Failed, failed).with_help("docs/errors.md says what each code means"));
    }
    let row = Duration::from_secs_f64(median(single.take_ran().iter().map(|ran| ran.report.ran.as_secs_f64())));
    let objective = plan.objective.unwrap_or_else(|| row.mul_f64(OBJECTIVE_FACTOR)).max(Duration::from_millis(1));
    Ok(Calibration { jobs_per_s: played.per_second(), row, objective })
}

async fn run_blocks(
    plan: &Plan,
    stands: &[Arc<Stand>],
    cargo: &Arc<Vec<Load>>,
    (calibration, progress): (Calibration, &ProgressBar),
) -> Result<Vec<Block>, Failure> {
    // Plans are compiled and costs learned before anything counts.
    for stand in stands {
        progress.set_message(format!("{}: warming up", stand.name));
        closed(stand, cargo, (CALIBRATION_WINDOW, plan.block)).await?;
        stand.take_ran();
        progress.inc(1);
    }
    let mut blocks = Vec::new();
    for number in 0..plan.blocks {
        for (load, share) in plan.loads.iter().enumerate() {
            // Each block begins with another arm, so that none always runs after the same one.
            for turn in 0..stands.len() {
                let arm = (turn + number) % stands.len();
                let Some(stand) = stands.get(arm) else { continue };
                progress.set_message(format!("{}: {}", stand.name, load_name(plan.arrivals, *share, plan.window)));
                let played = match plan.arrivals {
                    Arrivals::Window => closed(stand, cargo, (plan.window, plan.block)).await?,
                    Arrivals::Poisson | Arrivals::Bursty => {
                        let part = (number * plan.loads.len() + load) as u64;
                        let mut random = Random::of_part(plan.seed, part);
                        let rate = calibration.jobs_per_s * share;
                        open(stand, cargo, trace(&mut random, plan.arrivals, rate, (plan.block, cargo.len()))).await?
                    }
                };
                blocks.push(Block { arm, load, number, played, ran: stand.take_ran() });
                progress.inc(1);
            }
        }
    }
    Ok(blocks)
}

/// A load in words.
pub(super) fn load_name(arrivals: Arrivals, share: f64, window: usize) -> String {
    match arrivals {
        Arrivals::Window => format!("window of {window}"),
        Arrivals::Poisson | Arrivals::Bursty => format!("{share} of m1"),
    }
}

async fn stop(stand: Arc<Stand>) -> Result<(), Failure> {
    // Every task that held it has ended with its block.
    match Arc::into_inner(stand) {
        Some(stand) => stand.stop().await,
        None => Ok(()),
    }
}

fn progress_bar(plan: &Plan) -> Result<ProgressBar, Failure> {
    if plan.quiet {
        return Ok(ProgressBar::hidden());
    }
    let steps = 1 + plan.arms.len() * (1 + plan.blocks * plan.loads.len());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} blocks  {elapsed} (about {eta} left)  {msg}")
        .map_err(|error| Failure::new(Exit::Failed, format!("the progress bar: {error}")))?;
    Ok(ProgressBar::new(steps as u64).with_style(style))
}
