//! `inferq dead-letter`: looks into the queues of jobs that failed for good and of replies that nobody took.
//!
//! `filter` chooses letters, `letters` goes through the queues and lists, shows, replays or purges.

use clap::{Args, Subcommand};

use super::Context;
use super::failure::Failure;

mod filter;
mod letters;

use filter::Filter;

/// Look at dead letters and undeliverable replies; replay or purge them
#[derive(Debug, Args)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List dead letters: id, model, tenant, reason, age
    ///
    /// Bodies are ciphertext and stay closed. The tenant is the one that the letter claims; for a forged letter that
    /// proves nothing. Listing takes letters out of their queue and puts them back; they stay in order.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Print JSON: an array of letters
        #[arg(long)]
        json: bool,
    },
    /// Show everything that is known of one letter
    #[command(after_help = "Example:\n  inferq dead-letter show 01a20d0c-f2db-741f-817e-3368cbe3c138")]
    Show {
        /// Its message id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        filter: Filter,
    },
    /// Send letters again: jobs to their job queue, replies to their reply queue
    ///
    /// A letter is taken away only when the broker has confirmed its copy. A job whose envelope has expired is rejected
    /// again by the worker and comes back as a dead letter.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        #[command(flatten)]
        filter: Filter,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete letters for good
    #[command(after_help = PURGE_EXAMPLES)]
    Purge {
        #[command(flatten)]
        filter: Filter,
        /// Say what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Delete; without this nothing is deleted
        #[arg(long, required_unless_present = "dry_run")]
        yes: bool,
    },
}

const LIST_EXAMPLES: &str = "\
Examples:
  inferq dead-letter list
  inferq dead-letter list --model topic --code DELIVERY_LIMIT_EXCEEDED --older-than-s 3600
  inferq dead-letter list --undeliverable --json";

const REPLAY_EXAMPLES: &str = "\
Examples:
  inferq dead-letter replay --model topic --code DELIVERY_LIMIT_EXCEEDED --dry-run
  inferq dead-letter replay --undeliverable --tenant acme";

const PURGE_EXAMPLES: &str = "\
Examples:
  inferq dead-letter purge --code ENVELOPE_REJECTED --older-than-s 86400 --dry-run
  inferq dead-letter purge --id 01a20d0c-f2db-741f-817e-3368cbe3c138 --yes";

pub(super) fn run(args: DeadLetterArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        DeadLetterCommand::List { filter, json } => letters::list(&filter, json, context),
        DeadLetterCommand::Show { id, filter } => letters::show(&id, &filter, context),
        DeadLetterCommand::Replay { filter, dry_run } => letters::replay(&filter, dry_run, context),
        DeadLetterCommand::Purge { filter, dry_run, yes: _ } => letters::purge(&filter, dry_run, context),
    }
}
