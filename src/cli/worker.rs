//! `inferq worker`.

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};

/// `inferq worker`
#[derive(Debug, Args)]
pub struct WorkerArgs {}

pub(super) fn run(_args: WorkerArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, "`inferq worker` is not built yet"))
}
