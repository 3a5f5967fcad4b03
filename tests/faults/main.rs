//! The fault scorecard: a real service is killed, cut and stopped, and every job is accounted for.
//!
//! Run by `make faults`; no part of `cargo test`, since it takes minutes. `FAULTS_N` jobs a row, `FAULTS_SEED`, and
//! `FAULTS_ROWS` (numbers separated by commas) choose what is run. Prints the table as it goes, writes `docs/faults.md`, and
//! fails when a row does. A mark is never loosened here: what fails is reported as it is.

#![allow(unreachable_pub, reason = "each module is read by this program alone")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a scorecard fails by panicking")]

mod ledger;
mod proxy;
mod report;
mod rows;
mod stand;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use report::Report;
use rows::ROWS;
use stand::Stand;

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

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    let Some(written) = std::env::var_os(name) else { return default };
    let parsed = written.to_str().and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("{name} is {}, a whole number was expected", written.display()))
}

/// The rows asked for; all unless some are named.
fn chosen() -> Vec<u32> {
    let all = ROWS.iter().map(|row| row.number).collect();
    let Some(written) = std::env::var_os("FAULTS_ROWS") else { return all };
    let parse = |word: &str| {
        let number = word.trim().parse().unwrap_or_else(|_| panic!("FAULTS_ROWS: `{word}` is no number"));
        assert!(all.contains(&number), "FAULTS_ROWS: there is no row {number}, there are {all:?}");
        number
    };
    written.to_string_lossy().split(',').map(parse).collect()
}

#[tokio::main]
async fn main() -> ExitCode {
    let jobs = usize::try_from(number("FAULTS_N", 500)).unwrap();
    let seed = number("FAULTS_SEED", 1);
    let chosen = chosen();
    let mut report = Report::begin(jobs, seed);
    for row in ROWS.iter().filter(|row| chosen.contains(&row.number)) {
        let mut stand = Stand::build(Seeded(seed.wrapping_add(u64::from(row.number))), row.number == 2).await;
        let outcome = match row.number {
            1 => rows::kill_a_worker(&mut stand, jobs).await,
            3 => rows::reset_connections(&mut stand, jobs).await,
            11 => rows::terminate_under_load(&mut stand, jobs).await,
            2 => rows::end_the_broker(&mut stand, jobs).await,
            12 => rows::scale_up_and_down(&mut stand, jobs).await,
            10 => rows::spoil_jobs(&mut stand, jobs).await,
            13 => rows::let_jobs_expire(&mut stand, jobs).await,
            other => panic!("row {other} is listed and not written"),
        };
        report.add(row, &outcome);
        stand.close().await;
    }
    report.write();
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
