//! `inferq submit`.

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};

/// `inferq submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {}

pub(super) fn run(_args: SubmitArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, "`inferq submit` is not built yet"))
}
