//! `inferq models`: lists and describes the models of the repository as their `model.toml` tells, and checks that a
//! worker could serve them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::{print, print_json, print_table};
use super::{Context, block_on};
use crate::batch::batcher::Observer;
use crate::model::{LoadedModel, ModelOptions, ModelRepository, ModelSpec, find_versions};
use crate::postprocess::{PostprocessSpec, Postprocessor};
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::tensor_spec::TensorSpec;
use crate::settings::{ModelSettings, Settings};

/// List, describe and check the models of the repository
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the models and versions of the repository
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Describe one model: what it takes, what it answers, where it comes from
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Load every model that a worker would serve, and check it
    ///
    /// Compares each file with its digest, compiles the graph, reads tokenizer and labels, and compares the answers with
    /// golden.json where there is one. Fails with exit code 3 at the first model that a worker would refuse.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON: an array of models as their model.toml describes them
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The model, as a job names it; without a version the highest is meant
    #[arg(value_name = "NAME[:VERSION]")]
    model: ModelRef,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON: the model as its model.toml describes it, with `request_inputs`, `response_outputs` and `labels`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  inferq models list
  inferq models list --directory /usr/share/inferq/models --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  inferq models show topic
  inferq models show topic:1 --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  inferq models check
  inferq models check --directory ./models --set models.serve=topic";

/// A model of the repository, not loaded.
#[derive(Debug, Serialize)]
struct Described {
    /// Whether a worker with these settings serves it.
    served: bool,
    /// Its folder.
    folder: PathBuf,
    /// What its `model.toml` says.
    #[serde(flatten)]
    spec: ModelSpec,
}

/// A model with what its producers have to know.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    model: &'a Described,
    /// The inputs that a request must hold.
    request_inputs: Vec<TensorSpec>,
    /// The outputs that a request may ask for, those answered by default first.
    response_outputs: Vec<&'a str>,
    /// The labels of a classifier, in the order of its classes.
    labels: &'a [String],
}

pub(super) fn run(args: ModelsArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        ModelsCommand::List(args) => list(args, context),
        ModelsCommand::Show(args) => show(&args, context),
        ModelsCommand::Check(args) => check(args, context),
    }
}

/// The names of the models that a worker with these settings serves. Named ones need not be there yet: a broker may be
/// set up before its models.
pub(super) fn served_names(settings: &ModelSettings) -> Result<Vec<String>, Failure> {
    if !settings.serve.is_empty() {
        return Ok(settings.serve.clone());
    }
    Ok(ModelRepository::served_names(settings)?)
}

fn describe(directory: Option<PathBuf>, settings: &ModelSettings) -> Result<Vec<Described>, Failure> {
    let directory = directory.unwrap_or_else(|| settings.directory.clone());
    let described = |(name, _, folder): (String, u32, PathBuf)| {
        let served = settings.serve.is_empty() || settings.serve.contains(&name);
        Ok(Described { served, spec: ModelSpec::read(&folder)?, folder })
    };
    find_versions(&directory)?.into_iter().map(described).collect()
}

fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let models = describe(args.directory, &context.settings.models)?;
    if args.json {
        return print_json(&models);
    }
    let row = |Described { served, spec, .. }: Described| {
        let served = if served { "yes" } else { "no" };
        let batch = spec.batching.max_batch_size.to_string();
        [spec.name, spec.version.to_string(), served.to_owned(), batch, spec.licence, spec.description]
    };
    print_table(["MODEL", "VERSION", "SERVED", "MAX BATCH", "LICENCE", "DESCRIPTION"], models.into_iter().map(row))
}

fn show(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let models = describe(args.directory.clone(), &context.settings.models)?;
    let asked = &args.model;
    let fits = |model: &&Described| {
        model.spec.name == asked.name && asked.version.is_none_or(|version| version == model.spec.version)
    };
    let Some(found) = models.iter().rev().find(fits) else {
        let failure = Failure::new(Exit::Failed, format!("the repository has no model `{asked}`"));
        return Err(failure.with_help("`inferq models list` shows what it has"));
    };
    let Described { spec, folder, .. } = found;
    let postprocessor = Postprocessor::load(&spec.postprocess, &spec.outputs, folder)
        .map_err(|error| Failure::new(Exit::Invalid, error.to_string()))?;
    let shown = Shown {
        model: found,
        request_inputs: spec.preprocess.request_inputs(&spec.inputs),
        response_outputs: postprocessor.output_names(),
        labels: postprocessor.labels(),
    };
    if args.json { print_json(&shown) } else { print(&page(&shown)) }
}

/// Loads what a worker would load, one version at a time, and says so.
fn check(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let Settings { models, batching, .. } = &context.settings;
    let models =
        ModelSettings { directory: args.directory.unwrap_or_else(|| models.directory.clone()), ..models.clone() };
    let served = ModelRepository::served_names(&models)?;
    let versions = find_versions(&models.directory)?;
    let nobody_measures: Observer = Arc::new(|_| {});
    let observe = Arc::new(move |_: &str| Arc::clone(&nobody_measures));
    let options = ModelOptions { batching: batching.clone(), observe };
    block_on(async {
        for (name, version, folder) in versions.into_iter().filter(|(name, ..)| served.contains(name)) {
            let began = Instant::now();
            LoadedModel::load(&folder, &options)?;
            print(&format!("{name}:{version} is sound; loaded in {} ms\n", began.elapsed().as_millis()))?;
        }
        Ok(())
    })
}

/// A model's description for people.
fn page(shown: &Shown<'_>) -> String {
    let Described { served, folder, spec } = shown.model;
    let lines = [
        ("model", format!("{}:{}", spec.name, spec.version)),
        ("description", spec.description.clone()),
        ("served", if *served { "yes" } else { "no" }.to_owned()),
        ("takes", taken(shown)),
        ("answers", answered(spec)),
        ("outputs", shown.response_outputs.join(", ")),
        ("labels", shown.labels.join(", ")),
        ("graph inputs", tensors(&spec.inputs)),
        ("graph outputs", tensors(&spec.outputs)),
        ("largest batch", largest_batch(spec)),
        ("licence", spec.licence.clone()),
        ("source", spec.source.clone()),
        ("file", spec.model_file(folder).display().to_string()),
        ("sha256", spec.sha256.clone()),
    ];
    let told = lines.iter().filter(|(_, text)| !text.is_empty());
    told.map(|(name, text)| format!("{name:<15}{text}\n")).collect()
}

fn taken(shown: &Shown<'_>) -> String {
    let inputs = tensors(&shown.request_inputs);
    match &shown.model.spec.preprocess {
        PreprocessSpec::Text(text) => {
            let (bytes, tokens) = (text.max_text_bytes, text.max_tokens);
            format!("{inputs}: at most {bytes} bytes each, of which the first {tokens} tokens count")
        }
        PreprocessSpec::Tensor {} => inputs,
    }
}

fn answered(spec: &ModelSpec) -> String {
    match &spec.postprocess {
        PostprocessSpec::Classification(_) => {
            "a label and its probability for each row; all or the top k of them".to_owned()
        }
        PostprocessSpec::Raw {} => "the graph's outputs".to_owned(),
    }
}

fn largest_batch(spec: &ModelSpec) -> String {
    let rows = spec.batching.max_batch_size;
    match spec.batching.max_batch_tokens {
        Some(tokens) => format!("{rows} rows, {tokens} tokens with padding"),
        None => format!("{rows} rows"),
    }
}

/// Tensors in words: `input_ids INT64 [rows, any]`.
fn tensors(specs: &[TensorSpec]) -> String {
    let one = |tensor: &TensorSpec| {
        let axes = tensor.row_axes().map(|axis| axis.map_or_else(|| "any".to_owned(), |length| length.to_string()));
        let axes: Vec<String> = std::iter::once("rows".to_owned()).chain(axes).collect();
        format!("{} {} [{}]", tensor.name, tensor.datatype, axes.join(", "))
    };
    specs.iter().map(one).collect::<Vec<_>>().join("; ")
}
