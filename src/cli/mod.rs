//! The command line: what can be typed, and which command it goes to.
//!
//! Called by `main`. It parses, loads the settings, sets up logging and hands on; each command has a file of its own
//! and answers with success or a [`Failure`]. Nothing below this module knows that there is a command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::settings::{LoadOptions, LogFormat, Origin, Override, Provenance, Settings};
use crate::telemetry::logging;

mod campaign;
mod embedded_client;
mod explained;
mod failure;
mod output;
mod tally;

pub mod bench;
pub mod config;
pub mod dead_letter;
pub mod demo;
pub mod health;
pub mod keys;
pub mod models;
pub mod submit;
pub mod topology;
pub mod worker;

pub use failure::{Exit, Failure};

/// What is logged by a command that answers and ends. Its errors are told on the last line, not by a library before it.
const COMMAND_LOG_FILTER: &str = "warn,lapin=off";
/// What is logged under `--quiet`.
const QUIET_LOG_FILTER: &str = "error,lapin=off";

/// How long threads that are still busy may take once a command has its result.
const STOP_GRACE: Duration = Duration::from_secs(1);

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the command failed: a job was answered with an error, a check found a fault
  2    the command line is wrong
  3    the settings, the key ring or the model repository are wrong
  4    the broker cannot be reached, or refused
  5    no reply came in time
  6    a run of a model did not end; the worker has to be started again
  130  interrupted

Settings come from the defaults, then the file named by --config or INFERQ_CONFIG, then the
environment (INFERQ__SECTION__KEY, and INFERQ_AMQP_URL for broker.url), then --set.
`inferq config check` prints every value and where it came from.";

/// An asynchronous inference worker on RabbitMQ.
///
/// Encrypted prediction jobs come in over a queue, encrypted results go out over another.
#[derive(Debug, Parser)]
#[command(name = "inferq", version, after_help = EXIT_CODES, term_width = 100, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// Read settings from this TOML file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, such as broker.prefetch=128; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,
    /// How log lines on standard error look
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["human", "json"])]
    pub log_format: Option<String>,
    /// Which log lines are written, such as info or warn,inferq::broker=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Write errors alone: no progress, no notes; goes before --log-filter
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands; what each is for stands with its arguments.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "a comment here would take the place of the help in the command's own file")]
pub enum Command {
    Worker(worker::WorkerArgs),
    Submit(submit::SubmitArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Keys(keys::KeysArgs),
    Models(models::ModelsArgs),
    Config(config::ConfigArgs),
    Topology(topology::TopologyArgs),
    DeadLetter(dead_letter::DeadLetterArgs),
    Health(health::HealthArgs),
}

/// What a command is given beside its own arguments.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// Where each of them came from.
    pub provenance: Provenance,
    /// Whether notes and progress are to be left out.
    pub quiet: bool,
}

/// Parses `arguments` (the program's name first), runs the command and answers the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version come this way, too, and go to standard output. A closed pipe is nobody's fault.
            _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let quiet = cli.global.quiet;
    let (mut settings, provenance) = Settings::load(&cli.global.into_load_options())?;
    // Commands answer on standard output; only a worker's log is of interest unless somebody asked for it.
    let filter_asked_for = provenance.origin("telemetry.log_filter") != Some(&Origin::Default);
    if !cli.command.is_service() && !filter_asked_for {
        settings.telemetry.log_filter = COMMAND_LOG_FILTER.to_owned();
        settings.telemetry.log_format = LogFormat::Human;
    }
    logging::init(&settings.telemetry)?;
    cli.command.dispatch(&Context { settings, provenance, quiet })
}

impl GlobalOptions {
    fn into_load_options(self) -> LoadOptions {
        let from_set = self.set.into_iter().map(|(key, value)| Override { key, value, option: "--set".to_owned() });
        let given =
            |key: &str, value: String, option: &str| Override { key: key.to_owned(), value, option: option.to_owned() };
        let format = self.log_format.map(|format| given("telemetry.log_format", format, "--log-format"));
        let filter = self.log_filter.map(|filter| given("telemetry.log_filter", filter, "--log-filter"));
        let quiet = self.quiet.then(|| given("telemetry.log_filter", QUIET_LOG_FILTER.to_owned(), "--quiet"));
        LoadOptions { file: self.config, overrides: from_set.chain(format).chain(filter).chain(quiet).collect() }
    }
}

impl Command {
    /// Whether its log is its voice: a worker's is, a command's that answers and ends is not.
    const fn is_service(&self) -> bool {
        match self {
            Self::Worker(_) => true,
            Self::Submit(_)
            | Self::Demo(_)
            | Self::Bench(_)
            | Self::Keys(_)
            | Self::Models(_)
            | Self::Config(_)
            | Self::Topology(_)
            | Self::DeadLetter(_)
            | Self::Health(_) => false,
        }
    }

    fn dispatch(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Worker(args) => worker::run(args, context),
            Self::Submit(args) => submit::run(args, context),
            Self::Demo(args) => demo::run(args, context),
            Self::Bench(args) => bench::run(args, context),
            Self::Keys(args) => keys::run(args, context),
            Self::Models(args) => models::run(args, context),
            Self::Config(args) => config::run(args, context),
            Self::Topology(args) => topology::run(args, context),
            Self::DeadLetter(args) => dead_letter::run(args, context),
            Self::Health(args) => health::run(args, context),
        }
    }
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as broker.prefetch=128")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Runs `future` on a runtime of its own: for commands that talk to a broker or worker.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no threads can be started: {error}")))?;
    let result = runtime.block_on(future);
    // A batch that still runs on a thread of its own must not keep the process.
    runtime.shutdown_timeout(STOP_GRACE);
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_become_overrides_that_name_them() {
        let arguments = ["inferq", "--set", "a.b=c=d", "config", "check", "--log-format", "json", "-q"];
        let options = Cli::try_parse_from(arguments).unwrap().global.into_load_options();
        let found: Vec<_> = options.overrides.iter().map(|o| (&*o.key, &*o.value, &*o.option)).collect();
        assert_eq!(
            found,
            [
                ("a.b", "c=d", "--set"),
                ("telemetry.log_format", "json", "--log-format"),
                ("telemetry.log_filter", QUIET_LOG_FILTER, "--quiet"),
            ]
        );
    }
}
