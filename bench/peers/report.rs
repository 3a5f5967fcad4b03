//! What was measured, as one table in Markdown and as `target/bench-peers.json`.

use std::fs;

use serde_json::{Map, Value, json};

use super::load::Block;
use super::plan::{LOADS, PROCESSES, Plan, WINDOW, Worker};
use super::workers::Memory;
use super::{Broken, Result, Round};

/// All rounds of one worker.
pub(crate) struct Measured {
    pub(crate) worker: Worker,
    pub(crate) processes: usize,
    pub(crate) rounds: Vec<Round>,
}

impl Measured {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }

    fn load(&self, at: usize, of: impl Fn(&Block) -> f64) -> f64 {
        median(self.rounds.iter().filter_map(|round| round.loads.get(at)).map(of))
    }

    fn memory(&self, of: impl Fn(&Memory) -> f64) -> f64 {
        self.median(|round| of(&round.memory))
    }

    /// One object of the JSON file. `p50_ms` is alone, `p99_ms` is with the window full, as `jobs_per_s` is.
    fn to_json(&self) -> Value {
        let block = |of: &dyn Fn(&Round) -> &Block| {
            json!({
                "jobs_per_s": round(self.median(|r| of(r).jobs_per_s)),
                "p50_ms": round(self.median(|r| of(r).p50_ms)),
                "p99_ms": round(self.median(|r| of(r).p99_ms)),
                "cpu_s_per_1000": round(self.median(|r| of(r).cpu_s_per_1000)),
            })
        };
        let loads: Map<String, Value> = LOADS
            .iter()
            .enumerate()
            .map(|(at, load)| {
                let of = |of: fn(&Block) -> f64| round(self.load(at, of));
                let figures = json!({
                    "jobs_per_s": of(|b| b.jobs_per_s),
                    "p50_ms": of(|b| b.p50_ms),
                    "p99_ms": of(|b| b.p99_ms),
                    "cpu_s_per_1000": of(|b| b.cpu_s_per_1000),
                });
                (format!("{:.0}%", load * 100.0), figures)
            })
            .collect();
        json!({
            "jobs_per_s": round(self.median(|r| r.window.jobs_per_s)),
            "p50_ms": round(self.median(|r| r.alone.p50_ms)),
            "p99_ms": round(self.median(|r| r.window.p99_ms)),
            "cpu_s_per_1000": round(self.median(|r| r.window.cpu_s_per_1000)),
            "rss_mib": round(self.memory(|m| m.rss_mib)),
            "pss_mib": round(self.memory(|m| m.pss_mib)),
            "processes": self.processes,
            "failed": self.rounds.iter().map(Round::failed).sum::<usize>(),
            "accuracy": round(self.median(|r| r.window.accuracy)),
            "alone": block(&|r| &r.alone),
            "window": block(&|r| &r.window),
            "loads": loads,
        })
    }

    fn row(&self) -> String {
        let loads: Vec<String> = (0..LOADS.len())
            .map(|at| format!("{} / {}", short(self.load(at, |b| b.p50_ms)), short(self.load(at, |b| b.p99_ms))))
            .collect();
        format!(
            "| {} | {:.0} | {} | {} | {} | {:.2} | {:.0} | {:.0} | {:.1}% |\n",
            self.worker.title(),
            self.median(|r| r.window.jobs_per_s),
            short(self.median(|r| r.alone.p50_ms)),
            short(self.median(|r| r.window.p99_ms)),
            loads.join(" | "),
            self.median(|r| r.window.cpu_s_per_1000),
            self.memory(|m| m.rss_mib),
            self.memory(|m| m.pss_mib),
            self.median(|r| r.window.accuracy) * 100.0,
        )
    }
}

/// Writes the JSON file and the tables beside it, and prints the tables with the ratios.
pub(crate) fn report(plan: &Plan, all: &[Measured], broken: &[Broken]) -> Result<()> {
    let mut objects: Map<String, Value> = all.iter().map(|one| (one.worker.key().to_owned(), one.to_json())).collect();
    let mut text = table(plan, all);
    for Broken { worker, reason } in broken {
        objects.insert(worker.key().to_owned(), json!({ "error": reason }));
        text.push_str(&format!("\n**{} failed and was not measured**: {reason}\n", worker.title()));
    }
    fs::write(&plan.json, serde_json::to_string_pretty(&objects)? + "\n")?;
    fs::write(plan.json.with_extension("md"), &text)?;
    println!("{text}");
    Ok(())
}

fn table(plan: &Plan, all: &[Measured]) -> String {
    let mut text = String::from(
        "| worker | jobs/s | p50 alone, ms | p99 window, ms | p50 / p99 at 10%, ms | at 50% | at 90% | CPU s per 1,000 jobs \
         | RSS MiB | PSS MiB | right |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    all.iter().for_each(|one| text.push_str(&one.row()));
    if let Some(ours) = all.iter().find(|one| one.worker == Worker::Inferq).filter(|_| all.len() > 1) {
        text.push_str("\n| inferq against | jobs/s | p50 alone | p99 window | CPU per job | RSS | PSS |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        all.iter().filter(|one| one.worker != Worker::Inferq).for_each(|one| text.push_str(&ratios(ours, one)));
    }
    for (one, failed) in all.iter().map(|one| (one, one.rounds.iter().map(Round::failed).sum::<usize>())) {
        if failed > 0 {
            text.push_str(&format!("\n{}: {failed} jobs got no answer.\n", one.worker.title()));
        }
    }
    text.push_str(&format!(
        "\nMedians of {} rounds, blocks of {:?}, window {WINDOW}, inferq in {} with {} executors in all, {} queues for Celery \
         and aio-pika, seed {}. {}\n",
        plan.rounds,
        plan.block,
        if plan.inferq_processes == 1 { "one process".to_owned() } else { format!("{} processes", plan.inferq_processes) },
        PROCESSES,
        plan.queue_type.word(),
        plan.seed,
        machine(),
    ));
    text
}

fn ratios(ours: &Measured, other: &Measured) -> String {
    let ratio = |of: fn(&Round) -> f64| ours.median(of) / other.median(of);
    format!(
        "| {} | {:.2}x | {:.2}x | {:.2}x | {:.2}x | {:.2}x | {:.2}x |\n",
        other.worker.title(),
        ratio(|r| r.window.jobs_per_s),
        ratio(|r| r.alone.p50_ms),
        ratio(|r| r.window.p99_ms),
        ratio(|r| r.window.cpu_s_per_1000),
        ratio(|r| r.memory.rss_mib),
        ratio(|r| r.memory.pss_mib),
    )
}

/// Processor, cores, memory and kernel, as `/proc` tells them.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / (1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let processor = after(&read("/proc/cpuinfo"), "model name");
    format!("{processor}, {cores} cores for everything, {memory} GiB, Linux {}.", kernel.trim())
}

/// A latency with as many digits as mean something.
fn short(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}
