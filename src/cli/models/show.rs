//! `inferq models list` and `inferq models show`: the models of the repository as their `model.toml` tells. Loads none.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::remote;
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{print, print_json, print_table};
use crate::model::{ModelSpec, find_versions};
use crate::postprocess::{PostprocessSpec, Postprocessor};
use crate::preprocess::PreprocessSpec;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::tensor_spec::TensorSpec;
use crate::settings::ModelSettings;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER", conflicts_with = "remote")]
    directory: Option<PathBuf>,
    /// Ask the workers at the broker instead
    #[arg(long)]
    remote: bool,
    /// Whose keys to use with --remote [default: the only tenant of the key ring]
    #[arg(long, value_name = "NAME", requires = "remote")]
    tenant: Option<String>,
    /// Print JSON: an array of models as their model.toml describes them, or as workers do
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
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

pub(super) const LIST_EXAMPLES: &str = "\
Examples:
  inferq models list
  inferq models list --directory /usr/share/inferq/models --json
  inferq models list --remote --tenant acme";

pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  inferq models show topic
  inferq models show topic:1 --json";

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

fn describe(directory: Option<PathBuf>, settings: &ModelSettings) -> Result<Vec<Described>, Failure> {
    let directory = directory.unwrap_or_else(|| settings.directory.clone());
    let described = |(name, _, folder): (String, u32, PathBuf)| {
        let served = settings.serve.is_empty() || settings.serve.contains(&name);
        Ok(Described { served, spec: ModelSpec::read(&folder)?, folder })
    };
    find_versions(&directory)?.into_iter().map(described).collect()
}

pub(super) fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    if args.remote {
        return remote::list(args.tenant.as_ref(), args.json, context);
    }
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

pub(super) fn show(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
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
        PreprocessSpec::Image(image) => {
            let (bytes, pixels) = (image.max_image_bytes, image.max_pixels);
            let (width, height) = (image.width, image.height);
            format!(
                "{inputs}: PNG or JPEG, at most {bytes} bytes and {pixels} pixels each, resized to {width} x {height}"
            )
        }
        PreprocessSpec::Bytes(bytes) => {
            let (most, first, last) = (bytes.max_file_bytes, bytes.first, bytes.last);
            format!("{inputs}: at most {most} bytes each, of which the first {first} and the last {last} count")
        }
        PreprocessSpec::Tensor {} => inputs,
    }
}

fn answered(spec: &ModelSpec) -> String {
    match &spec.postprocess {
        PostprocessSpec::Classification(_) => {
            "a label and its probability for each row; all or the top k of them".to_owned()
        }
        PostprocessSpec::Multilabel(labels) => {
            format!("for each row the labels of at least {} probability; all or the top k of them", labels.threshold)
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
