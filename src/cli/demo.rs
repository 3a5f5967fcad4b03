//! `inferq demo`.

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};

/// `inferq demo`
#[derive(Debug, Args)]
pub struct DemoArgs {}

pub(super) fn run(_args: DemoArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, "`inferq demo` is not built yet"))
}
