//! `inferq models check`: loads what a worker would load, and says whether it is sound.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use crate::batch::report::Observer;
use crate::cli::failure::Failure;
use crate::cli::output::print;
use crate::cli::{Context, block_on};
use crate::model::{LoadedModel, ModelOptions, ModelRepository, find_versions};
use crate::settings::{BatchingSettings, ModelSettings, Settings};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  inferq models check
  inferq models check --directory ./models --set models.serve=topic";

/// Loads what a worker would load, one version at a time, and says of each whether it is sound.
pub(super) fn check(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let Settings { models, batching, .. } = &context.settings;
    let models =
        ModelSettings { directory: args.directory.unwrap_or_else(|| models.directory.clone()), ..models.clone() };
    let served = ModelRepository::served_names(&models)?;
    let versions = find_versions(&models.directory)?;
    let options = unmeasured(batching);
    let mut failures: Vec<Failure> = Vec::new();
    block_on(async {
        for (name, version, folder) in versions.into_iter().filter(|(name, ..)| served.contains(name)) {
            let began = Instant::now();
            match LoadedModel::load(&folder, &options) {
                Ok(_) => {
                    print(&format!("{name}:{version} is sound; loaded in {} ms\n", began.elapsed().as_millis()))?;
                }
                Err(error) => failures.push(error.into()),
            }
        }
        Ok(())
    })?;
    all_told(failures)
}

/// One failure as it is, several as one.
fn all_told(mut failures: Vec<Failure>) -> Result<(), Failure> {
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let messages: Vec<String> = failures.iter().map(|failure| failure.message.clone()).collect();
    let message = format!("a worker would refuse {} versions: {}", failures.len(), messages.join("; "));
    Err(Failure { message, ..failures.swap_remove(0) })
}

/// How a command loads models: nobody counts their batches.
pub(super) fn unmeasured(batching: &BatchingSettings) -> ModelOptions {
    let nobody_measures: Observer = Arc::new(|_| {});
    ModelOptions {
        batching: *batching,
        observe: Arc::new(move |_: &str| Arc::clone(&nobody_measures)),
        wrap: Arc::new(|_, backend| backend),
        changed: Arc::new(|_, _| {}),
    }
}
