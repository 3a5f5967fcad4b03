//! `inferq worker`: serves until it is told to stop.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::failure::{Exit, Failure};
use super::{Context, block_on};
use crate::worker::{AssembleError, KeyReload, ServeError, serve};

/// Serve models: take jobs from the broker, run them, reply
///
/// Declares its exchanges and queues, consumes the job queues of every model it serves, and answers each job on the
/// reply queue of its producer. Start as many as the load asks for: they share the queues. A broker that cannot be
/// reached is waited for; /readyz says whether jobs are consumed.
///
/// The key ring is read again when its files have changed, and on SIGHUP; a ring that cannot be read changes nothing.
///
/// SIGTERM or SIGINT: no new jobs are taken, what is begun is finished within worker.drain_grace_ms, everything else goes
/// back to the broker. A second signal ends the process at once; the broker then delivers again what was not settled.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WorkerArgs {}

const EXAMPLES: &str = "\
Examples:
  inferq worker
  INFERQ_AMQP_URL=amqps://user:password@broker/%2f inferq worker --config worker.toml
  inferq worker --set models.serve=topic --set batching.executors=1 --log-format json";

pub(super) fn run(_args: WorkerArgs, context: &Context) -> Result<(), Failure> {
    let settings = context.settings.clone();
    block_on(on_a_worker_thread(async move {
        let (asked, stopping) = oneshot::channel();
        // Beside the service: a worker that already stops for another reason is asked twice, too.
        tokio::spawn(obey(Signals::listen()?, asked));
        let stop = async { drop(stopping.await) };
        let reload = KeyReload::default();
        tokio::spawn(hang_ups(reload.clone(), signal(SignalKind::hangup()).map_err(uncaught)?));
        let drained = serve(&settings, reload, stop).await?;
        tracing::info!(jobs.abandoned = drained.abandoned, "stopped");
        Ok(())
    }))
}

/// Does `service` on the runtime's own threads: the thread that blocks on the runtime is none of them, and would have to be woken
/// for every delivery.
async fn on_a_worker_thread<T: Send + 'static>(service: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(service).await {
        Ok(done) => done,
        // Neither aborted nor left behind by its runtime, it can only have panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn uncaught(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("signals cannot be caught: {error}"))
}

/// The first signal asks to stop, the second ends the process.
async fn obey(mut signals: Signals, asked: oneshot::Sender<()>) {
    let name = signals.next().await;
    tracing::info!(signal = name, "asked to stop; once more to stop at once");
    // A worker that is ending anyway does not listen any more.
    let _either = asked.send(());
    let name = signals.next().await;
    tracing::warn!(signal = name, "stopping at once; the broker delivers again what was not settled");
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

/// Each SIGHUP asks for the key ring to be read again.
async fn hang_ups(reload: KeyReload, mut signal: tokio::signal::unix::Signal) {
    while signal.recv().await.is_some() {
        tracing::info!(signal = "SIGHUP", "asked to read the key ring again");
        reload.ask();
    }
}

/// The signals that ask a process to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(uncaught)?,
            interrupt: signal(SignalKind::interrupt()).map_err(uncaught)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Assemble(error) => error.into(),
            ServeError::Endpoint(error) => error.into(),
            ServeError::Overdue { .. } => Self::new(Exit::Overdue, error.to_string())
                .with_help("start the worker again; a job that hangs again and again becomes a dead letter"),
            ServeError::Telemetry(error) => Self::new(Exit::Invalid, error.to_string())
                .with_help("set telemetry.listen to a free address, to port 0 for any, or to nothing"),
        }
    }
}

impl From<AssembleError> for Failure {
    fn from(error: AssembleError) -> Self {
        match error {
            AssembleError::Keyring(error) => error.into(),
            AssembleError::Model(error) => error.into(),
            AssembleError::Shared(error) => Self::new(Exit::Invalid, error.to_string()).with_help(
                "set worker.replay_redis_url to redis://host:port, with broker.allow_plaintext = true beyond this machine, or leave it empty",
            ),
        }
    }
}
