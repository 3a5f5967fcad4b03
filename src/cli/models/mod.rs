//! `inferq models`: what the repository has, whether a worker could serve it, and how good it is.
//!
//! `show` reads descriptions, `remote` asks workers, `check` loads, `add` and `alias` write, `evaluate` runs labelled texts.

use clap::{Args, Subcommand};

use super::Context;
use super::failure::Failure;
use crate::model::ModelRepository;
use crate::settings::ModelSettings;

mod add;
mod alias;
mod check;
mod evaluate;
mod optimize;
mod remote;
mod scorecard;
mod show;

/// List, describe, check and evaluate the models of the repository
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the models and versions of the repository, or those that workers serve
    ///
    /// With --remote the workers at the broker are asked which models they serve for the tenant whose keys are used: versions, aliases,
    /// inputs, labels, and how many workers serve each. What they answer is encrypted for this tenant.
    #[command(after_help = show::LIST_EXAMPLES)]
    List(show::ListArgs),
    /// Describe one model: what it takes, what it answers, where it comes from
    #[command(after_help = show::SHOW_EXAMPLES)]
    Show(show::ShowArgs),
    /// Load every model that a worker would serve, and check it
    ///
    /// Compares each file with its digest, compiles the graph, reads tokenizer and labels, and compares the answers with
    /// golden.json where there is one. Looks at all of them; fails with exit code 3 where a worker would refuse any.
    #[command(after_help = check::CHECK_EXAMPLES)]
    Check(check::CheckArgs),
    /// Put a model into the repository
    ///
    /// Reads from the ONNX file what it takes and answers, loads it as a worker would, runs a sample, and writes model.toml and
    /// golden.json with what was found: inputs, outputs, digest, whether a row is answered alike alone and in a batch, and
    /// whether batches pay. Only then is the folder moved into the repository, whole. A version that is there is never
    /// overwritten. Running workers take it up by themselves where they serve the model already.
    #[command(after_help = add::EXAMPLES)]
    Add(add::AddArgs),
    /// Say which version answers the jobs that name none, and by what share
    ///
    /// `stable=1 canary=2@0.1` gives a tenth of them to version 2, and the rest to version 1. Which jobs depends on their ids, so
    /// that a job that is delivered again is answered by the same version, and a larger share keeps whom it had. Without a
    /// stable version the rest goes to the highest. Jobs that name a version are not concerned. Workers that run take it up
    /// within models.watch_interval_ms; `inferq models rollback` takes it back.
    #[command(after_help = alias::EXAMPLES)]
    Alias(alias::AliasArgs),
    /// Take the last change of a model's aliases back
    #[command(after_help = alias::ROLLBACK_EXAMPLES)]
    Rollback(alias::RollbackArgs),
    /// Make a model smaller or faster, where that pays, and add the result as a new version
    ///
    /// Tries each step on top of those that were kept: fold computes what does not depend on the inputs, embedding multiplies
    /// an embedding with its LSTM's input weights when the model is loaded, half keeps weights in half precision on disk. The
    /// answers are compared with those of the model, and times are taken in turn. A step that loses more than the bounds, or
    /// brings nothing, is left out; where none is left, nothing is written and the exit code is 1. What comes out is a plain
    /// ONNX file.
    #[command(after_help = optimize::EXAMPLES)]
    Optimize(optimize::OptimizeArgs),
    /// Run labelled texts through a model, and say how good it is
    ///
    /// Every line of the file is a JSON object with a string `text` and a string `label`, one of the model's own. The texts go
    /// the way that jobs go: prepared, batched, run, shaped; or, with --broker, to the workers there. Told are accuracy, macro
    /// F1, precision and recall of each class, who is taken for whom, calibration and latency. A text that is not
    /// answered counts as wrong.
    ///
    /// With --compare a second version runs on the same texts: McNemar's exact test and a paired bootstrap say whether they
    /// differ by more than chance, and the texts on which they differ are listed.
    #[command(after_help = evaluate::EXAMPLES)]
    Evaluate(evaluate::EvaluateArgs),
}

pub(super) fn run(args: ModelsArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        ModelsCommand::List(args) => show::list(args, context),
        ModelsCommand::Show(args) => show::show(&args, context),
        ModelsCommand::Check(args) => check::check(args, context),
        ModelsCommand::Add(args) => add::run(args, context),
        ModelsCommand::Alias(args) => alias::run(&args, context),
        ModelsCommand::Rollback(args) => alias::rollback(&args, context),
        ModelsCommand::Optimize(args) => optimize::run(&args, context),
        ModelsCommand::Evaluate(args) => evaluate::run(&args, context),
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
