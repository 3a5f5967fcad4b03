//! Draws the pictures of `docs/batching.md`: what was recorded against what is learned, and latency against load for every policy.
//!
//! Runs the program's own policy in the simulator of `tests/batching`, on recorded costs: the same pictures each time.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a program for developers may panic, and its numbers are small"
)]

#[path = "../tests/batching/simulator.rs"]
mod simulator;
#[path = "../tests/batching/tables.rs"]
mod tables;

use std::fmt::Write as _;
use std::time::Duration;

use inferq::batch::cost::CostModel;
use inferq::settings::BatchingPolicy;

use simulator::{Machine, Recorded, machine, poisson, simulate, simulate_and_learn};
use tables::{MAGIKA, MLP, OPENNSFW, PPOCR, TOPIC};

const COLOURS: [&str; 6] = ["#0b6e4f", "#c1292e", "#235789", "#f1a208", "#7d4f9e", "#5c5c5c"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right, bottom.
const MARGINS: [f64; 4] = [60.0, 40.0, 190.0, 50.0];
const EXECUTORS: usize = 2;
const MIXED: &[usize] = &[16, 24, 40, 64, 128, 128];

fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/img");
    std::fs::create_dir_all(folder).unwrap();
    let pictures = [
        ("batching-cost", cost()),
        ("batching-latency-topic", latency("topic, lengths from 16 to 128", &TOPIC, MIXED, 1.5)),
        ("batching-latency-convolution", latency("ppocr, a convolutional model", &PPOCR, &[1], 1.0)),
    ];
    for (name, picture) in pictures {
        let path = format!("{folder}/{name}.svg");
        std::fs::write(&path, picture).unwrap();
        println!("{path}");
    }
}

/// Cost of a row in a batch, relative to a row by itself: recorded as dots, learned as lines.
fn cost() -> String {
    let models = [
        ("topic, 128 tokens", &TOPIC, 128),
        ("topic, 32 tokens", &TOPIC, 32),
        ("dense layers", &MLP, 1),
        ("magika", &MAGIKA, 1),
        ("opennsfw", &OPENNSFW, 1),
        ("ppocr", &PPOCR, 1),
    ];
    let series = models.into_iter().map(|(name, table, length)| {
        let lengths: &[usize] = if length == 1 { &[1] } else { &[32, 128] };
        let costs = learned(table, lengths);
        let alone = table.seconds(1, length);
        let sizes = [1, 2, 4, 8, 16, 32];
        let line =
            sizes.iter().map(|size| (*size as f64, costs.seconds(*size, length) / *size as f64 / alone)).collect();
        let dots =
            sizes.iter().map(|size| (*size as f64, table.seconds(*size, length) / *size as f64 / alone)).collect();
        Series { name: name.to_owned(), line, dots }
    });
    let chart = Chart {
        title: "Cost of a row in a batch: recorded (dots) and learned (lines)",
        across: ("rows in the batch", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], true),
        up: ("times the cost of a row alone", &[0.25, 0.5, 1.0, 2.0, 4.0], true),
        series: series.collect(),
    };
    chart.draw()
}

/// What the adaptive policy has learned after it was idle, busy and overloaded.
fn learned(table: &Recorded, lengths: &[usize]) -> CostModel {
    let cost = |rows: usize, length: usize, _: f64| table.seconds(rows, length);
    let machine = Machine { noise: 0.1, ..machine(EXECUTORS, 32, &cost) };
    let alone = lengths.iter().map(|length| table.seconds(1, *length)).sum::<f64>() / lengths.len() as f64;
    [0.3, 0.9, 3.0].into_iter().fold(CostModel::default(), |costs, load| {
        let jobs = poisson(17, 2_000, load * EXECUTORS as f64 / alone, lengths, 100.0);
        simulate_and_learn(BatchingPolicy::Adaptive, &machine, &jobs, costs).1
    })
}

/// The 99th percentile of the latency against the load, for every policy, in run times of a row by itself.
fn latency(title: &str, table: &Recorded, lengths: &[usize], most: f64) -> String {
    let alone = lengths.iter().map(|length| table.seconds(1, *length)).sum::<f64>() / lengths.len() as f64;
    let cost = |rows: usize, length: usize, _: f64| table.seconds(rows, length);
    let machine = Machine { noise: 0.1, ..machine(EXECUTORS, 32, &cost) };
    let arms = [
        ("adaptive", BatchingPolicy::Adaptive),
        ("single", BatchingPolicy::Single),
        ("fifo, 1,024 tokens", BatchingPolicy::Fifo { max_tokens: 1_024 }),
        ("fifo, 8 rows", BatchingPolicy::Delay { wait: Duration::ZERO, rows: 8 }),
        ("delay, 4 ms or 32 rows", BatchingPolicy::Delay { wait: Duration::from_millis(4), rows: 32 }),
    ];
    let loads: Vec<f64> = (1..=20).map(|step| most * f64::from(step) / 20.0).collect();
    let series = arms.into_iter().map(|(name, policy)| {
        let at = |load: &f64| {
            let mut jobs = poisson(19, 4_000, load * EXECUTORS as f64 / alone, lengths, 10.0 * alone);
            jobs.iter_mut().for_each(|job| job.deadline = 200.0 * alone);
            let outcome = simulate(policy, &machine, &jobs, CostModel::default());
            (*load, (outcome.quantile(0.99, 500) / alone).min(100.0))
        };
        Series { name: name.to_owned(), line: loads.iter().map(at).collect(), dots: Vec::new() }
    });
    let across: Vec<f64> = (0..=5).map(|step| most * f64::from(step) / 5.0).collect();
    let chart = Chart {
        title: &format!("99th percentile of the latency: {title}"),
        across: ("load, in multiples of what is done row by row", &across, false),
        up: ("run times of a row alone", &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0], true),
        series: series.collect(),
    };
    chart.draw()
}

/// A line, and dots beside it.
struct Series {
    name: String,
    line: Vec<(f64, f64)>,
    dots: Vec<(f64, f64)>,
}

/// A name, the marks, and whether the scale is logarithmic.
type Axis<'a> = (&'a str, &'a [f64], bool);

struct Chart<'a> {
    title: &'a str,
    across: Axis<'a>,
    up: Axis<'a>,
    series: Vec<Series>,
}

impl Chart<'_> {
    fn x(&self, at: f64) -> f64 {
        MARGINS[0] + share(self.across, at) * (WIDTH - MARGINS[0] - MARGINS[2])
    }

    fn y(&self, at: f64) -> f64 {
        HEIGHT - MARGINS[3] - share(self.up, at) * (HEIGHT - MARGINS[1] - MARGINS[3])
    }

    fn draw(&self) -> String {
        let (left, right) = (MARGINS[0], WIDTH - MARGINS[2]);
        let (top, bottom) = (MARGINS[1], HEIGHT - MARGINS[3]);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, more: &str, words: &str| {
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{words}</text>").unwrap();
        };
        text(left, 22.0, "start", " font-size=\"15\" font-weight=\"bold\"", self.title);
        text((left + right) / 2.0, HEIGHT - 12.0, "middle", "", self.across.0);
        let turned = format!(" transform=\"rotate(-90 16 {:.1})\"", (top + bottom) / 2.0);
        text(16.0, (top + bottom) / 2.0, "middle", &turned, self.up.0);
        for mark in self.across.1 {
            text(self.x(*mark), bottom + 18.0, "middle", "", &shown(*mark));
        }
        for mark in self.up.1 {
            text(left - 8.0, self.y(*mark) + 4.0, "end", "", &shown(*mark));
        }
        for (place, series) in self.series.iter().enumerate() {
            let colour = format!(" fill=\"{}\"", COLOURS[place]);
            text(right + 14.0, top + 14.0 + 20.0 * place as f64, "start", &colour, &series.name);
        }
        for mark in self.up.1 {
            let y = self.y(*mark);
            writeln!(svg, "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>").unwrap();
        }
        for (series, colour) in self.series.iter().zip(COLOURS) {
            let points: Vec<String> =
                series.line.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y))).collect();
            let points = points.join(" ");
            writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")
                .unwrap();
            for (x, y) in &series.dots {
                let (x, y) = (self.x(*x), self.y(*y));
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>").unwrap();
            }
        }
        svg + "</svg>\n"
    }
}

/// Where between the outer marks of an axis `at` is.
fn share((_, marks, logarithmic): Axis<'_>, at: f64) -> f64 {
    let scale = |value: f64| if logarithmic { value.ln() } else { value };
    let (low, high) = (scale(marks[0]), scale(marks[marks.len() - 1]));
    ((scale(at) - low) / (high - low)).clamp(0.0, 1.0)
}

fn shown(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}").trim_end_matches('0').to_owned()
    }
}
