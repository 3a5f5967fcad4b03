//! The table: a line for each row as it ends, and `docs/faults.md` when all have.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::rows::{Outcome, Row};

/// Lines so far, and with what they were measured.
#[derive(Debug)]
pub struct Report {
    short: bool,
    began: Instant,
    circumstances: String,
    lines: Vec<(u32, String)>,
    misses: Vec<(u32, String)>,
    failed: usize,
}

impl Report {
    /// Prints the head of the table.
    pub fn begin(plan: &Plan) -> Self {
        let circumstances = format!("{} on {}; seed {}, development build", date(), machine(), plan.seed);
        let form = if plan.short { "short form" } else { "long form" };
        println!("\nrunning {} tests\n{form}, {circumstances}\n\n{HEAD}", plan.rows.len());
        let began = Instant::now();
        Self { short: plan.short, began, circumstances, lines: Vec::new(), misses: Vec::new(), failed: 0 }
    }

    /// Adds and prints a row.
    pub fn add(&mut self, row: &Row, outcome: &Outcome) {
        let account = &outcome.account;
        let passed = outcome.missed.is_empty();
        let line = format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.number,
            row.fault,
            row.mark,
            outcome.faults,
            account.jobs,
            account.lost.len(),
            account.duplicates,
            recovery(&outcome.recoveries, 50),
            recovery(&outcome.recoveries, 99),
            outcome.measured,
            if passed { "pass" } else { "**fail**" },
        );
        println!("{line}");
        println!(
            "test {} ... {} ({:.0} s)",
            row.name,
            if passed { "ok" } else { "FAILED" },
            self.began.elapsed().as_secs_f64()
        );
        self.lines.push((row.number, line));
        self.failed += usize::from(!passed);
        for missed in &outcome.missed {
            println!("  row {}: {missed}", row.number);
            self.misses.push((row.number, format!("- row {}: {missed}", row.number)));
        }
    }

    /// Whether every row passed.
    pub fn passed(&self) -> bool {
        self.failed == 0
    }

    /// Prints the sum as readers of `cargo test` expect it; the long form writes `docs/faults.md`.
    pub fn end(&mut self, left_out: usize) {
        if !self.short {
            self.write();
        }
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
            self.lines.len() - self.failed,
            self.failed,
            self.began.elapsed().as_secs_f64(),
        );
    }

    fn write(&mut self) {
        self.lines.sort();
        self.misses.sort();
        let texts = |lines: &[(u32, String)]| lines.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>().join("\n");
        let minutes = self.began.elapsed().as_secs() / 60;
        let head = format!("Measured {}, in {minutes} minutes.", self.circumstances);
        let mut page = format!("{PREFACE}\n{head}\n\n{HEAD}\n{}\n", texts(&self.lines));
        if !self.passed() {
            write!(page, "\nWhat missed its mark:\n\n{}\n", texts(&self.misses)).unwrap();
        }
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md"), page).unwrap();
    }
}

/// The smallest of `times` that `percent` of them do not exceed (nearest rank); zero where there are none.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Empty where nothing has to recover.
fn recovery(times: &[Duration], percent: usize) -> String {
    if times.is_empty() { String::new() } else { format!("{:.2} s", percentile(times, percent).as_secs_f64()) }
}

fn date() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn machine() -> String {
    let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = listed.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {}", model.unwrap_or("a processor that does not say its name"))
}

const HEAD: &str = "\
| # | fault | mark | faults | jobs | lost | duplicates | recovery p50 | recovery p99 | measured | verdict |
|---|---|---|---|---|---|---|---|---|---|---|";

const PREFACE: &str = "\
# Faults

<!-- Written by `make faults`; do not edit by hand. -->

A real service, RabbitMQ and worker processes, is killed, cut and stopped while encrypted jobs are under way. Every job that
the broker confirmed is accounted for by its id: it has a reply that opens and holds the right result, or a letter in the
dead-letter or undeliverable queue; else it is lost. A second, different reply to a job is a duplicate. Recovery is the time
from a fault to the reply of a job that was published right after it. A panicking input is told its producer, as an error that
it may see; only what ends or hangs the process becomes a dead letter. Row 20 is an addition to rows 1 to 19.

The short form of all rows runs with `cargo test --test faults`, also on RabbitMQ 4 (`make test-rabbitmq4`). There, marks for speed
are measured and not judged: several rows share the machine.

## What the rows catch

Each was seen to turn red when the code was broken so:

| broken | red |
|---|---|
| jobs acknowledged before their reply is confirmed | 3, 6, 7, 8, 18: jobs lost, replies kept nowhere |
| replies published without the mandatory flag | 6: the replies of deleted queues are lost |
| another prefetch after a reconnect | 3: the prefetch differs |
| suspects run like all other jobs | 9: dead letters of innocent jobs |
| a drain that does not wait for what runs | 11, 12: duplicates, jobs left in the queue |
| 1 KiB kept of each job | 18: memory grows by more than its mark |

## Measured
";
