//! `inferq bench`: ways of forming batches against each other, in one process, on one trace.
//!
//! `trace`, `cargo` and `random` say what is sent and when; `arms` and `stand` are what it is sent to; `play` is one block,
//! `measure` all of them; `statistics`, `fit` and `summary` say what they come to; `table`, `page` and `plot` show it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::print_json;
use super::{Context, block_on};
use crate::envelope::{Grant, generate};
use crate::model::ModelRepository;
use crate::settings::Settings;

mod arms;
mod cargo;
mod fit;
mod measure;
mod page;
mod play;
mod plot;
pub mod random;
mod stand;
mod statistics;
mod summary;
mod table;
mod trace;

use arms::Arm;
use measure::{Plan, measure};
use stand::Ground;
use summary::Summary;
use trace::{Arrivals, Lengths};

/// Measure how batches are formed: adaptive against single, fifo and delay
///
/// Every arm is a worker of its own in this process, with the same models and one way of forming batches. First the capacity
/// at batch 1 is measured, m1; then blocks of all arms take turns, and in each block all of them get the same jobs at the same
/// moments, drawn from --seed. Jobs are sealed, sent through a broker, opened, run, and answered, as in service. Latency
/// counts from the moment at which a job should have been sent.
///
/// Each arm is compared with the first one block by block; told are geometric means with 95% intervals. A twin of the first arm
/// says how much is noise: a difference is claimed only above that. For figures that are worth keeping take at least ten
/// blocks of 20 seconds on a machine that does nothing else.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Ways of forming batches, the first one compared with the others
    #[arg(long, value_name = "ARM,...", value_delimiter = ',', default_value = "adaptive,single,fifo,delay")]
    arms: Vec<Arm>,
    /// Do not measure the first arm twice: faster, and blind to noise
    #[arg(long)]
    no_twin: bool,
    /// Loads, as multiples of the capacity at batch 1
    #[arg(long, value_name = "LOAD,...", value_delimiter = ',', default_value = "0.1,0.5,0.9,1.5", value_parser = parse_load)]
    loads: Vec<f64>,
    /// How jobs arrive
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,
    /// Jobs under way at once with --arrivals window
    #[arg(long, value_name = "JOBS", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,
    /// Blocks of each arm and load
    #[arg(long, value_name = "BLOCKS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    blocks: u16,
    /// Milliseconds of a block
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(50..))]
    block_ms: u32,
    /// Models to ask, each as often as another
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "topic")]
    models: Vec<String>,
    /// Texts to send: lines of {"text": ...}
    #[arg(long, value_name = "FILE", default_value = "models/topic/samples/posts.jsonl")]
    texts: PathBuf,
    /// How long texts are: `texts` as they are, or WORDS[:WEIGHT],... such as 16:3,128:1
    #[arg(long, value_name = "MIX", default_value = "texts")]
    lengths: Lengths,
    /// Tenants, each with keys of its own
    #[arg(long, value_name = "TENANTS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    tenants: u16,
    /// Milliseconds within which a result is worth having [default: ten times a row's own time]
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    objective_ms: Option<u64>,
    /// Seed of arrivals, texts and tenants
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Use the broker of broker.url, under names that are removed at the end, instead of the one inside this process
    #[arg(long)]
    broker: bool,
    /// Write the figures to this file as JSON; - for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file: one file, nothing from elsewhere
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Arms:
  adaptive                   what the worker does by default
  single                     every row by itself
  fifo[:TOKENS]              in the order of arrival, up to so many tokens; 1024
  delay[:MILLISECONDS:ROWS]  waits for company, so long or until so many rows are there; 4 and 32

Examples:
  inferq bench                                             about five minutes
  inferq bench --html bench.html --json bench.json
  inferq bench --lengths 16:3,128:1 --arrivals bursty --tenants 4
  inferq bench --arms adaptive,fifo:256,fifo:512,fifo:2048 --blocks 10 --block-ms 20000
  inferq bench --arrivals window --arms adaptive,single    what goes through at most
  INFERQ_AMQP_URL=amqps://user:password@broker/%2f inferq bench --broker";

/// The file name that means standard output.
const STANDARD_OUTPUT: &str = "-";

pub(super) fn run(args: BenchArgs, context: &Context) -> Result<(), Failure> {
    let keys = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Failed, format!("no temporary folder can be made: {error}")))?;
    let plan = plan(&args, context, keys.path())?;
    if !context.quiet {
        eprintln!("bench: {}", estimate(&plan));
    }
    let measured = block_on(measure(&plan))?;
    let summary = Summary::of(&plan, &measured);
    if let Some(path) = &args.html {
        write(path, &page::page(&summary))?;
    }
    match &args.json {
        Some(path) if path.as_os_str() == STANDARD_OUTPUT => return print_json(&summary),
        Some(path) => {
            let text = serde_json::to_string_pretty(&summary).map_err(|error| {
                Failure::new(Exit::Failed, format!("the figures cannot be written as JSON: {error}"))
            })?;
            write(path, &format!("{text}\n"))?;
        }
        None => {}
    }
    table::print_summary(&summary)
}

fn plan(args: &BenchArgs, context: &Context, keys: &std::path::Path) -> Result<Plan, Failure> {
    let mut arms = args.arms.clone();
    if let Some(first) = arms.first().filter(|_| !args.no_twin) {
        let twin = first.twin();
        arms.insert(1, twin);
    }
    let tenants: Vec<String> = (1..=args.tenants).map(|number| format!("bench-{number}")).collect();
    for tenant in &tenants {
        generate(keys, tenant, &Grant::new(tenant, args.models.clone()))?;
    }
    let loads = match args.arrivals {
        // A window has no rate: one round of blocks is all there is.
        Arrivals::Window => vec![1.0],
        Arrivals::Poisson | Arrivals::Bursty => args.loads.clone(),
    };
    let settings = settings(&context.settings, keys, &args.models);
    // A wrong name is told before anything is started.
    ModelRepository::served_names(&settings.models)?;
    Ok(Plan {
        arms,
        ground: if args.broker { Ground::Broker } else { Ground::Embedded },
        settings,
        tenants,
        texts: cargo::read_texts(&args.texts)?,
        lengths: args.lengths.clone(),
        arrivals: args.arrivals,
        loads,
        window: usize::from(args.window),
        blocks: usize::from(args.blocks),
        block: Duration::from_millis(args.block_ms.into()),
        objective: args.objective_ms.map(Duration::from_millis),
        seed: args.seed,
        quiet: context.quiet,
    })
}

/// The settings of the arms: keys of their own, the models that are asked.
fn settings(settings: &Settings, keys: &std::path::Path, models: &[String]) -> Settings {
    let mut settings = settings.clone();
    settings.keys.directory = keys.to_owned();
    settings.models.serve = models.to_vec();
    settings
}

fn estimate(plan: &Plan) -> String {
    let blocks = plan.arms.len() * (plan.blocks * plan.loads.len() + 1) + 2;
    let length = plan.block.mul_f64(statistics::number(blocks));
    let names: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
    format!("{} arms ({}), {blocks} blocks, about {:.0} s", names.len(), names.join(", "), length.as_secs_f64())
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(Exit::Failed, format!("`{}` cannot be written: {error}", path.display())))
}

fn parse_load(text: &str) -> Result<f64, String> {
    let load = text.trim().parse::<f64>().ok().filter(|load| load.is_finite() && *load > 0.0 && *load <= 100.0);
    load.ok_or_else(|| format!("`{text}`: expected a number above 0, such as 0.5"))
}
