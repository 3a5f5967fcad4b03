//! The report as one HTML page: tables and plots, no script, nothing from elsewhere.

use std::fmt::Write as _;

use super::plot::{Plot, Scale, colour, escape};
use super::statistics::number;
use super::summary::{ArmFigures, BatchFigures, Judged, Summary};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884}\
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}\
.plots{display:flex;flex-wrap:wrap;gap:1.5rem}figure{margin:0;flex:1 1 26rem}svg{width:100%;height:auto}\
svg text{font:11px system-ui,sans-serif;fill:currentColor}.grid{stroke:#8884}\
.key{display:inline-block;margin-right:1rem}.key i{display:inline-block;width:1rem;height:.7rem;margin-right:.3rem}";

/// Lengths drawn in the plot of costs.
const COST_LINES: usize = 4;

/// The page.
pub(super) fn page(summary: &Summary) -> String {
    let mut page = String::with_capacity(64 << 10);
    let title = format!("inferq bench: {}", escape(&summary.run.models.join(", ")));
    page += &format!("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>");
    page += &format!("<style>{STYLE}</style><h1>{title}</h1>");
    page += &run(summary);
    page += "<h2>Load and latency</h2>";
    page += &keys(arms(summary).map(str::to_owned));
    page += "<div class=\"plots\">";
    for quantile in ["p50", "p99"] {
        page += &format!("<figure>{}</figure>", latency_curve(summary, quantile));
    }
    page += "</div>";
    page += &table(summary);
    page += "<h2>Batches</h2><p>Left: which batches were run, the darker the more rows of all were in them. Right: what a batch \
             cost; points are measured means, lines the fitted cost T(b, L) = t0 + t1 b + t2 b L + t3 b L&sup2;.</p>";
    for batches in summary.batches.iter().filter(|batches| !batches.cells.is_empty()) {
        page += &batches_part(batches);
    }
    page += "</html>\n";
    page
}

fn run(summary: &Summary) -> String {
    let run = &summary.run;
    format!(
        "<p>{} blocks of {:.1} s for each arm and load, in turn; {} broker; {} tenants; {} executors; {} cores; seed {}; inferq \
         {}.<br>Capacity at batch 1: m1 = {:.0} jobs/s, {:.2} ms a row. Objective: {:.1} ms.</p>",
        run.blocks,
        run.block_ms / 1e3,
        run.broker,
        run.tenants,
        run.executors,
        run.cores,
        run.seed,
        run.version,
        run.m1_jobs_per_s,
        run.row_ms,
        run.objective_ms,
    )
}

/// The arms, in their order.
fn arms(summary: &Summary) -> impl Iterator<Item = &str> {
    summary.loads.first().into_iter().flat_map(|load| load.arms.iter().map(|arm| arm.arm.as_str()))
}

/// What the colours of a plot mean.
fn keys(names: impl Iterator<Item = String>) -> String {
    let key = |(place, name): (usize, String)| {
        format!("<span class=\"key\"><i style=\"background:{}\"></i>{}</span>", colour(place), escape(&name))
    };
    format!("<p>{}</p>", names.enumerate().map(key).collect::<String>())
}

fn latency_curve(summary: &Summary, quantile: &str) -> String {
    let of = |arm: &ArmFigures| arm.latency_ms.get(quantile).copied().unwrap_or(0.0);
    let all: Vec<f64> = summary.loads.iter().flat_map(|load| load.arms.iter().map(of)).collect();
    let x = Scale::from_zero(summary.loads.iter().map(|load| load.share));
    let y = Scale::decades(all.iter().copied());
    let mut plot = Plot::new(("load, multiples of m1", x), (&format!("{quantile}, ms"), y));
    for (place, name) in arms(summary).enumerate() {
        let points: Vec<(f64, f64)> =
            summary.loads.iter().filter_map(|load| Some((load.share, of(load.arms.get(place)?)))).collect();
        plot.line(&points, colour(place), false);
        for (share, ms) in points {
            plot.point((share, ms), colour(place), &format!("{name} at {share}: {ms:.2} ms"));
        }
    }
    plot.finish()
}

fn table(summary: &Summary) -> String {
    let mut table = String::from(
        "<table><tr><th>load<th>arm<th>jobs/s<th>p50 ms<th>p99 ms<th>p99.9 ms<th>in time<th>batch<th>failed<th>p50 : \
         first<th>p99 : first<th>goodput : first</tr>",
    );
    for load in &summary.loads {
        for arm in &load.arms {
            let latency = |name: &str| arm.latency_ms.get(name).copied().unwrap_or(0.0);
            let ratios = arm.against_first.as_ref();
            _ = write!(
                table,
                "<tr><td>{}<td>{}<td>{:.0}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.1}%<td>{:.1}<td>{}<td>{}<td>{}<td>{}</tr>",
                escape(&load.load),
                escape(&arm.arm),
                arm.jobs_per_s,
                latency("p50"),
                latency("p99"),
                latency("p99.9"),
                arm.within_objective * 100.0,
                arm.mean_batch_size,
                arm.failed.values().sum::<u64>(),
                judged(ratios.and_then(|ratios| ratios.p50)),
                judged(ratios.and_then(|ratios| ratios.p99)),
                judged(ratios.and_then(|ratios| ratios.goodput)),
            );
        }
    }
    table += "</table><p>In time: the share of jobs with a result within the objective. Ratios to the first arm are geometric means \
              over blocks with their 95% intervals, printed bold where they are more than the first arm differs from its twin.</p>";
    table
}

fn judged(judged: Option<Judged>) -> String {
    let Some(Judged { ratio, beyond_noise }) = judged else { return String::new() };
    let text = format!("{:.2} ({:.2}&ndash;{:.2})", ratio.mean, ratio.low, ratio.high);
    if beyond_noise == Some(true) { format!("<b>{text}</b>") } else { text }
}

fn batches_part(batches: &BatchFigures) -> String {
    let mut part = format!("<h3>{} by {}</h3>", escape(&batches.model), escape(&batches.arm));
    if let Some(fit) = &batches.fit {
        let [t0, t1, t2, t3] = fit.coefficients_ms;
        _ = write!(
            part,
            "<p>T = {t0:.2} + {t1:.3} b + {t2:.5} b L + {t3:.7} b L&sup2; ms; {} batches, median error {:.0}%.</p>",
            fit.batches,
            fit.median_error * 100.0
        );
    }
    _ = write!(
        part,
        "<div class=\"plots\"><figure>{}</figure><figure>{}{}</figure></div>",
        heat_map(batches),
        keys(drawn_lengths(batches).iter().map(|length| format!("up to {length}"))),
        cost_plot(batches)
    );
    part
}

/// Batch size against length; each square as dark as the rows in it.
fn heat_map(batches: &BatchFigures) -> String {
    let rows = |cell: &super::summary::Cell| number(cell.size * cell.batches);
    let all: f64 = batches.cells.iter().map(rows).sum();
    let most = batches.cells.iter().map(rows).fold(0.0_f64, f64::max).max(1.0);
    let step = batches.cells.iter().map(|cell| cell.length).min().unwrap_or(1);
    let x = Scale::from_zero(batches.cells.iter().map(|cell| number(cell.size) + 0.5));
    let y = Scale::from_zero(batches.cells.iter().map(|cell| number(cell.length)));
    let mut plot = Plot::new(("rows in the batch", x), ("padded length", y));
    for cell in &batches.cells {
        let (size, length) = (number(cell.size), number(cell.length));
        let note = format!("{} rows of up to {}: {:.1}% of all rows", cell.size, cell.length, rows(cell) / all * 100.0);
        let height = number(step.min(cell.length).min(16));
        plot.square((size - 0.5, length - height), (size + 0.5, length), (rows(cell) / most).sqrt().max(0.05), &note);
    }
    plot.finish()
}

/// The lengths that the plot of costs shows: some of all, from the longest down, so that this is always among them.
fn drawn_lengths(batches: &BatchFigures) -> Vec<usize> {
    let mut lengths: Vec<usize> = batches.cells.iter().map(|cell| cell.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let every = lengths.len().div_ceil(COST_LINES).max(1);
    lengths.iter().rev().step_by(every).copied().collect()
}

fn cost_plot(batches: &BatchFigures) -> String {
    let drawn = drawn_lengths(batches);
    let shown = || batches.cells.iter().filter(|cell| drawn.contains(&cell.length));
    let x = Scale::from_zero(shown().map(|cell| number(cell.size)));
    let y = Scale::from_zero(shown().map(|cell| cell.mean_ms));
    let mut plot = Plot::new(("rows in the batch", x), ("ms a batch", y));
    for (place, length) in drawn.iter().enumerate() {
        let most = shown().filter(|cell| cell.length == *length).map(|cell| cell.size).max().unwrap_or(1);
        if let Some(fit) = &batches.fit {
            let points: Vec<(f64, f64)> = (1..=most).map(|size| (number(size), fit.predict(size, *length))).collect();
            plot.line(&points, colour(place), true);
        }
        for cell in shown().filter(|cell| cell.length == *length) {
            let note =
                format!("{} rows of up to {length}: {:.2} ms, {} batches", cell.size, cell.mean_ms, cell.batches);
            plot.point((number(cell.size), cell.mean_ms), colour(place), &note);
        }
    }
    plot.finish()
}
