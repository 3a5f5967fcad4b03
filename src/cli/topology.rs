//! `inferq topology`: prints the exchanges and queues that a worker needs, or declares them.

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure};
use super::output::{print, print_json, print_table};
use super::{Context, block_on, models};
use crate::broker::amqp;
use crate::broker::topology::{Queue, Topology};

/// Print or declare the exchanges and queues
#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(subcommand)]
    command: TopologyCommand,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Print the exchanges and queues, with their arguments
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        #[command(flatten)]
        selection: Selection,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Declare the exchanges and queues on the broker
    ///
    /// Declaring what exists already changes nothing. A worker declares the same when it starts; this is for a broker
    /// that is set up before any worker runs. Fails with exit code 4 where something exists with other arguments.
    #[command(after_help = APPLY_EXAMPLES)]
    Apply {
        #[command(flatten)]
        selection: Selection,
    },
}

#[derive(Debug, Args)]
struct Selection {
    /// A model whose queues are meant; may be repeated [default: models.serve, or all of the repository]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  inferq topology show
  inferq topology show --model topic --json";

const APPLY_EXAMPLES: &str = "\
Examples:
  INFERQ_AMQP_URL=amqp://user:password@rabbit:5672/%2f inferq topology apply
  inferq topology apply --model topic";

pub(super) fn run(args: TopologyArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        TopologyCommand::Show { selection, json } => {
            let topology = selection.topology(context)?;
            if json { print_json(&topology) } else { show(&topology) }
        }
        TopologyCommand::Apply { selection } => {
            let topology = selection.topology(context)?;
            block_on(async { Ok(amqp::apply(&context.settings.broker, &topology).await?) })?;
            print(&format!("declared {} exchanges and {} queues\n", topology.exchanges.len(), topology.queues.len()))
        }
    }
}

impl Selection {
    fn topology(self, context: &Context) -> Result<Topology, Failure> {
        let models = if self.models.is_empty() { models::served_names(&context.settings.models)? } else { self.models };
        if models.is_empty() {
            let message = format!("no model in `{}`", context.settings.models.directory.display());
            return Err(
                Failure::new(Exit::Invalid, message).with_help("name one with --model, or set models.directory")
            );
        }
        Ok(Topology::for_models(&context.settings.broker, &models))
    }
}

fn show(topology: &Topology) -> Result<(), Failure> {
    print_table(["DIRECT EXCHANGE"], topology.exchanges.iter().map(|name| [name.clone()]))?;
    print("\n")?;
    print_table(["QUEUE", "BOUND TO", "ARGUMENTS"], topology.queues.iter().map(row))
}

fn row(queue: &Queue) -> [String; 3] {
    let bindings: Vec<String> =
        queue.bindings.iter().map(|binding| format!("{} / {}", binding.exchange, binding.routing_key)).collect();
    let arguments: Vec<String> = queue.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [queue.name.clone(), bindings.join("\n"), arguments.join("\n")]
}
