//! `inferq models evaluate`: labelled texts through a model, here or in the workers of a broker.

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::check::unmeasured;
use super::scorecard::print_scorecard;
use crate::cli::campaign::Campaign;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{merged, print_json};
use crate::cli::submit::tenant_or_only;
use crate::cli::{Context, block_on};
use crate::client::{Finished, Job, Window, connect};
use crate::envelope::ProducerKeys;
use crate::evaluation::{
    Answered, Measured, Report, Sample, SamplesError, check_labels, compare, labels_of, page, read, report, request,
    run as run_here,
};
use crate::model::{LoadedModel, find_versions};
use crate::postprocess::PostprocessSpec;
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::response::ResponseBody;

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// The model; without a version the highest is meant
    #[arg(long, value_name = "NAME[:VERSION]")]
    model: ModelRef,
    /// The labelled texts, JSON lines of `text` and `label`; - for standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Compare with this version of the model, or with another model
    #[arg(long, value_name = "VERSION", value_parser = parse_compared)]
    compare: Option<Compared>,
    /// Print one JSON object: `accuracy`, `macro_f1`, `classes`, `confusion`, `calibration`, `latency`, `errors`
    #[arg(long)]
    json: bool,
    /// Write a page with tables and plots, complete in one file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER", conflicts_with = "broker")]
    directory: Option<PathBuf>,
    /// Texts under way at once
    #[arg(long, value_name = "TEXTS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Ask the workers of this broker instead, amqp://user:password@host:port/vhost
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Whose keys to use with --broker [default: the only tenant of the key ring]
    #[arg(long, value_name = "NAME", requires = "broker")]
    tenant: Option<String>,
    /// How long to wait for each reply of --broker
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "broker")]
    timeout_s: u64,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  inferq models evaluate --model topic --data models/topic/samples/posts.jsonl
  inferq models evaluate --model topic:2 --compare 1 --data test.jsonl --html report.html
  inferq models evaluate --model topic --data test.jsonl --json | jq .accuracy
  inferq models evaluate --model topic --data test.jsonl --broker amqps://user:password@broker/%2f";

/// What is compared with: a version of the same model, or a model.
#[derive(Debug, Clone)]
enum Compared {
    Version(u32),
    Model(ModelRef),
}

fn parse_compared(text: &str) -> Result<Compared, String> {
    match text.parse() {
        Ok(0) => Err("a model's version is a whole number from 1 on".to_owned()),
        Ok(version) => Ok(Compared::Version(version)),
        Err(_) => text.parse().map(Compared::Model).map_err(|error| format!("{error}")),
    }
}

impl Compared {
    fn model(&self, name: &str) -> ModelRef {
        match self {
            Self::Version(version) => ModelRef { name: name.to_owned(), version: Some(*version) },
            Self::Model(model) => model.clone(),
        }
    }
}

/// One model's answers to all texts.
struct Outcome {
    answers: Vec<Answered>,
    report: Report,
}

pub(super) fn run(args: &EvaluateArgs, context: &Context) -> Result<(), Failure> {
    let samples = read_samples(&args.data)?;
    let compared = args.compare.as_ref().map(|compared| compared.model(&args.model.name));
    let first = evaluate(args, context, &args.model, &samples)?;
    let second = compared.map(|model| evaluate(args, context, &model, &samples)).transpose()?;
    // Both come as second minus first: what the asked one is better by.
    let comparison = second.as_ref().map(|second| compare(&samples, &second.answers, &first.answers));
    let other = second.as_ref().map(|second| &second.report).zip(comparison.as_ref());
    if let Some(path) = &args.html {
        let fault = |error| Failure::new(Exit::Failed, format!("`{}` cannot be written: {error}", path.display()));
        std::fs::write(path, page(&first.report, other)).map_err(fault)?;
    }
    if args.json {
        let compared = json!({
            "compared_with": second.as_ref().map(|second| &second.report),
            "comparison": comparison,
        });
        let told = serde_json::to_value(&first.report).unwrap_or(Value::Null);
        return print_json(&merged(told, compared));
    }
    print_scorecard(&first.report, other)
}

pub(super) fn read_samples(path: &Path) -> Result<Vec<Sample>, Failure> {
    let read = if path.as_os_str() == "-" {
        read(stdin().lock())
    } else {
        File::open(path).map_err(SamplesError::from).and_then(|file| read(BufReader::new(file)))
    };
    read.map_err(|error| unusable(path, &error))
}

pub(super) fn unusable(path: &Path, error: &SamplesError) -> Failure {
    Failure::new(Exit::Usage, format!("`{}`: {error}", path.display()))
        .with_help("every line is a JSON object with a string `text` and a string `label`, one of the model's labels")
}

fn evaluate(args: &EvaluateArgs, context: &Context, model: &ModelRef, samples: &[Sample]) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let (answers, elapsed) = match &args.broker {
        Some(url) => there(args, context, (url, model), samples)?,
        None => here(args, context, model, samples)?,
    };
    tracing::debug!(elapsed = ?began.elapsed(), "evaluated");
    let labels = labels_of(&answers);
    if labels.is_empty() {
        let refusal = answers.iter().find_map(|answered| answered.classes.as_ref().err());
        let reason = refusal.map_or_else(String::new, |refusal| format!("{}: {}", refusal.code, refusal.message));
        return Err(Failure::new(Exit::Failed, format!("model `{model}` answered no text: {reason}"))
            .with_help("docs/errors.md says what each code means and what to do"));
    }
    check_labels(samples, &labels).map_err(|error| unusable(&args.data, &error))?;
    let report = report(samples, &answers, Measured { elapsed, window: args.window as usize });
    Ok(Outcome { answers, report })
}

/// In this process, through the model of the repository.
fn here(
    args: &EvaluateArgs,
    context: &Context,
    asked: &ModelRef,
    samples: &[Sample],
) -> Result<(Vec<Answered>, Duration), Failure> {
    let settings = &context.settings;
    let directory = args.directory.as_ref().unwrap_or(&settings.models.directory);
    let fits = |name: &str, version: u32| name == asked.name && asked.version.is_none_or(|own| own == version);
    let versions = find_versions(directory)?;
    let Some((.., folder)) = versions.into_iter().rev().find(|(name, version, _)| fits(name, *version)) else {
        return Err(Failure::new(Exit::Invalid, format!("the repository has no model `{asked}`"))
            .with_help("`inferq models list` shows what it has"));
    };
    block_on(async {
        let model = LoadedModel::load(&folder, &unmeasured(&settings.batching))?;
        let takes_texts = matches!(model.spec().preprocess, PreprocessSpec::Text(_));
        if !takes_texts || !matches!(model.spec().postprocess, PostprocessSpec::Classification(_)) {
            return Err(Failure::new(Exit::Invalid, format!("model `{asked}` is no classifier of texts"))
                .with_help("`inferq models show NAME` tells what a model takes and answers"));
        }
        check_labels(samples, model.labels()).map_err(|error| unusable(&args.data, &error))?;
        let progress = progress_bar(samples.len(), context.quiet);
        let began = Instant::now();
        let answers = run_here(&model, samples, args.window as usize, || progress.inc(1)).await;
        progress.finish_and_clear();
        Ok((answers, began.elapsed()))
    })
}

/// In the workers of the broker at a URL.
fn there(
    args: &EvaluateArgs,
    context: &Context,
    (url, model): (&str, &ModelRef),
    samples: &[Sample],
) -> Result<(Vec<Answered>, Duration), Failure> {
    let mut settings = context.settings.clone();
    settings.broker.url = SecretString::from(url.to_owned());
    let tenant = tenant_or_only(args.tenant.as_ref(), &settings)?;
    let keys = ProducerKeys::load(&settings.keys.directory, &tenant)?;
    let job = |sample: &Sample| Job { model: model.clone(), request: request(&sample.text), deadline: None };
    let jobs = samples.iter().map(job).collect();
    let window = Window { size: args.window as usize, limit: Duration::from_secs(args.timeout_s) };
    let Campaign { finished, elapsed, .. } = block_on(async {
        let client = connect(&settings, keys).await?;
        let campaign = Campaign::run(&client, jobs, window, context.quiet).await;
        client.close().await;
        Ok(campaign)
    })?;
    Ok((finished.iter().map(answered).collect(), elapsed))
}

fn answered(finished: &Finished) -> Answered {
    match &finished.reply {
        Ok(ResponseBody::Result(response)) => Answered::read(response, finished.latency),
        Ok(ResponseBody::Error(error)) => Answered::refused(&error.code, &error.error, finished.latency),
        Err(error) => Answered::refused(error.kind(), &error.to_string(), finished.latency),
    }
}

/// A progress bar on standard error, hidden where nobody looks.
fn progress_bar(texts: usize, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} texts  {per_sec}  {elapsed} (about {eta} left)")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(texts as u64).with_style(style)
}
