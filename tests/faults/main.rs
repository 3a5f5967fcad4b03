//! The fault scorecard: a real service is killed, cut and stopped, and every job is accounted for.
//!
//! `cargo test --test faults` runs the short form: all rows with few jobs and faults, several at once, and no marks for
//! speed. `make faults` runs the long one and writes `docs/faults.md`; see `plan` for what chooses jobs, seed, rows and
//! minutes. A mark is never loosened here: what fails is reported as it is, and fails the program.

#![allow(unreachable_pub, reason = "each module is read by this program alone")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a scorecard fails by panicking")]

mod ledger;
mod misdeeds;
mod plan;
mod proxy;
mod report;
mod rows;
mod stand;
#[path = "../support/mod.rs"]
mod support;
mod worker;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use plan::{Pace, Plan};
use report::Report;
use rows::{Outcome, ROWS, Row};
use stand::Stand;

/// Rows of the short form that run at once.
const AT_ONCE: usize = 4;

/// The broker that a row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// A virtual host of the node that the rows share.
    Shared,
    /// A node of its own, for the row does something to it.
    Own,
    /// Three nodes of its own.
    Cluster,
}

/// Steers where in a burst a fault falls.
#[derive(Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The next number below `bound`. (SplitMix64: Steele, Lea, Flood, OOPSLA 2014.)
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::var_os(misdeeds::WORKER).is_some() {
        return misdeeds::serve().await;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        ROWS.iter().for_each(|row| println!("{}: test", row.name));
        return ExitCode::SUCCESS;
    }
    let names: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let plan = Plan::read(&names);
    let mut report = Report::begin(&plan);
    if plan.short {
        let run = |place: usize| run(&plan, place);
        let mut ended = stream::iter(0..plan.rows.len()).map(run).buffer_unordered(AT_ONCE);
        while let Some((row, outcome)) = ended.next().await {
            report.add(row, &outcome);
        }
    } else {
        run_long(&plan, &mut report).await;
    }
    report.end(ROWS.len() - plan.rows.len());
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One row after the other, so that speed is measured undisturbed; the soak, which is gentle, beside all others.
async fn run_long(plan: &Plan, report: &mut Report) {
    let is_soak = |place: &usize| plan.rows[*place].weight == 0;
    let (soaks, others): (Vec<usize>, Vec<usize>) = (0..plan.rows.len()).partition(is_soak);
    let soak = async {
        match soaks.first() {
            Some(place) => Some(run(plan, *place).await),
            None => None,
        }
    };
    let rest = async {
        for place in others {
            let (row, outcome) = run(plan, place).await;
            report.add(row, &outcome);
        }
    };
    let (soaked, ()) = tokio::join!(soak, rest);
    if let Some((row, outcome)) = soaked {
        report.add(row, &outcome);
    }
}

/// A row that panics has failed, and does not end the others.
async fn run(plan: &Plan, place: usize) -> (&'static Row, Outcome) {
    let outcome = AssertUnwindSafe(run_row(plan, place)).catch_unwind().await;
    (plan.rows[place], outcome.unwrap_or_else(|_| Outcome::broken_off()))
}

async fn run_row(plan: &Plan, place: usize) -> Outcome {
    let row = plan.rows[place];
    let pace: Pace = plan.pace(place);
    let seeded = Seeded(plan.seed.wrapping_add(u64::from(row.number)));
    let mut stand = Stand::build(seeded, pace, row.broker, rows::overrides(row.number, plan.short)).await;
    let mut outcome = rows::run(row.number, &mut stand).await;
    if outcome.faults == 0 {
        outcome.missed.push("no fault was injected, for its time was up".to_owned());
    }
    stand.close().await;
    outcome
}
