//! `inferq models add`: puts a model into the repository, once it has been loaded and tried.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::check::unmeasured;
use crate::batch::policy::BatchScope;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{print, print_json};
use crate::cli::{Context, block_on};
use crate::limits::MAX_BATCH_SIZE;
use crate::model::{About, Registered, Registration, register};
use crate::protocol::model_ref::is_model_name;

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The ONNX file, weights included
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The model's name: letters, digits, `-` and `_`
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its version [default: one more than the highest]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// The labels of its classes, one a line: it becomes a classifier
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A tokenizer.json: it becomes a model of texts
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Tokens after which a text is cut
    #[arg(long, value_name = "TOKENS", default_value_t = 128, requires = "tokenizer")]
    max_tokens: usize,
    /// The id that shorter texts of a batch are filled up with
    #[arg(long, value_name = "ID", default_value_t = 0, requires = "tokenizer")]
    pad_id: i64,
    /// What stands below [preprocess] in model.toml, as TOML: for models of images or files
    #[arg(long, value_name = "FILE", conflicts_with = "tokenizer", requires = "golden")]
    preprocess: Option<PathBuf>,
    /// What the model answered where it was made, as docs/models.md describes it [default: what it answers here]
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// How far answers may be from the golden ones: absolute up to 1, relative beyond
    #[arg(long, value_name = "DIFFERENCE", default_value_t = 1e-4)]
    golden_tolerance: f64,
    /// Whose rows may share a batch
    #[arg(long, value_name = "SCOPE", default_value = "shared")]
    batch_scope: Scope,
    /// Rows in a batch at most [default: 32 where a batch is measured to pay, else 1]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=MAX_BATCH_SIZE as u64))]
    max_batch_size: Option<u64>,
    /// What the model does, in a sentence
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// The licence of its weights
    #[arg(long, value_name = "TEXT", default_value = "")]
    licence: String,
    /// Where they come from
    #[arg(long, value_name = "TEXT", default_value = "")]
    source: String,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON: `folder`, `graph` as the file says, `spec` as it was written, `sampled` as it was measured
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Rows of all tenants
    Shared,
    /// Rows of one tenant alone
    Tenant,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  inferq models add topic.onnx --name topic --tokenizer tokenizer.json --labels labels.txt
  inferq models add scores.onnx --name scores --version 3 --golden golden.json --licence Apache-2.0";

pub(super) fn run(args: AddArgs, context: &Context) -> Result<(), Failure> {
    if !is_model_name(&args.name) {
        let message = format!("`{}` is no name for a model: letters, digits, `-` and `_` were expected", args.name);
        return Err(Failure::new(Exit::Usage, message).with_help("such as topic, or face-crop_v2"));
    }
    let directory = args.directory.unwrap_or_else(|| context.settings.models.directory.clone());
    let asked = Registration {
        file: args.file,
        name: args.name,
        version: args.version,
        about: About { description: args.description, licence: args.licence, source: args.source },
        labels: args.labels,
        tokenizer: args.tokenizer,
        max_tokens: args.max_tokens,
        pad_id: args.pad_id,
        batch_scope: match args.batch_scope {
            Scope::Shared => BatchScope::Shared,
            Scope::Tenant => BatchScope::Tenant,
        },
        max_batch_size: args.max_batch_size.and_then(|rows| usize::try_from(rows).ok()),
        preprocess: args.preprocess,
        golden: args.golden,
        golden_tolerance: args.golden_tolerance,
    };
    let options = unmeasured(&context.settings.batching);
    let registered = block_on(async { Ok(register(&directory, &asked, &options)?) })?;
    if args.json { print_json(&registered) } else { print(&page(&registered)) }
}

fn page(registered: &Registered) -> String {
    let Registered { folder, graph, spec, sampled, golden_is_own } = registered;
    let operators: Vec<String> = graph.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let batch = match (&sampled.row_in_batch_ms, &sampled.batch_fault) {
        (Some(in_batch), _) => format!(
            "{:.2} ms a row alone, {in_batch:.2} ms in a batch of 8: max_batch_size = {}",
            sampled.row_ms, spec.batching.max_batch_size
        ),
        (None, Some(fault)) => format!("{:.2} ms a row; no batches: {fault}", sampled.row_ms),
        (None, None) => format!("{:.2} ms a row", sampled.row_ms),
    };
    let golden = if *golden_is_own {
        "this runtime's own answers; they will show a change, not a fault of today (--golden FILE compares)"
    } else {
        "the answers match"
    };
    let lines = [
        ("added", format!("{}:{} in {}", spec.name, spec.version, folder.display())),
        ("graph", format!("opset {}, by {}: {}", graph.opset, graph.producer, operators.join(", "))),
        ("speed", batch),
        ("golden", golden.to_owned()),
        ("next", format!("grant it to tenants; `inferq models alias {}` gives it a share of the jobs", spec.name)),
    ];
    lines.iter().map(|(name, text)| format!("{name:<8}{text}\n")).collect()
}
