//! `inferq models`: lists and describes the models of the repository.

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};
use crate::settings::ModelSettings;

/// `inferq models`
#[derive(Debug, Args)]
pub struct ModelsArgs {}

pub(super) fn run(_args: ModelsArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, "`inferq models` is not built yet"))
}

/// The names of the models that a worker with these settings serves.
pub(super) fn served_names(settings: &ModelSettings) -> Result<Vec<String>, Failure> {
    Ok(settings.serve.clone())
}
