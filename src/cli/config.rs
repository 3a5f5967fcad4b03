//! `inferq config`: what the program would run with, and where each value came from.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::failure::Failure;
use super::output::{print_json, print_table};
use crate::broker::amqp::Endpoint;

/// Check the settings
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings, and print each value and where it came from
    ///
    /// The certificates for the broker are read, and whether it may be spoken to without TLS is told; nothing is connected.
    /// Passwords are hidden. Fails with exit code 3 and the key, value and bound where a value cannot be used.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Print JSON: an array of {key, value, origin}
        #[arg(long)]
        json: bool,
    },
}

const CHECK_EXAMPLES: &str = "\
Examples:
  inferq config check
  inferq --config worker.toml config check --json
  INFERQ__BROKER__PREFETCH=128 inferq config check | grep prefetch";

pub(super) fn run(args: ConfigArgs, context: &Context) -> Result<(), Failure> {
    let ConfigCommand::Check { json } = args.command;
    Endpoint::of(&context.settings.broker)?;
    let entries = context.provenance.entries();
    if json {
        let list: Vec<_> = entries
            .iter()
            .map(|entry| json!({ "key": entry.key, "value": entry.value, "origin": entry.origin.to_string() }))
            .collect();
        return print_json(&list);
    }
    let rows = entries.iter().map(|entry| [entry.key.clone(), entry.value.to_string(), entry.origin.to_string()]);
    print_table(["KEY", "VALUE", "FROM"], rows)
}
