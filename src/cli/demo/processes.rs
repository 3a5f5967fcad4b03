//! The demo on RabbitMQ: two worker processes, started, waited for, and asked to stop at the end.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::posts::Post;
use super::{DemoArgs, Outcome, WORKERS, say, submit_posts};
use crate::broker::amqp;
use crate::broker::topology::Topology;
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::health::is_ready;
use crate::client::connect;
use crate::envelope::ProducerKeys;
use crate::settings::{Settings, TlsSettings};

/// How long the workers may take until they consume.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(20);

pub(super) async fn run(
    settings: &Settings,
    keys: ProducerKeys,
    args: &DemoArgs,
    context: &Context,
    posts: &[Post],
) -> Result<Outcome, Failure> {
    let broker = amqp::Endpoint::of(&settings.broker)?.to_string();
    amqp::probe(&settings.broker).await.map_err(|error| {
        Failure::from(error).with_help("`make demo` starts a private broker; `inferq demo --embedded` needs none")
    })?;
    say(context, &format!("starting {WORKERS} worker processes on {broker}"));
    let mut workers = Vec::with_capacity(WORKERS);
    for _ in 0..WORKERS {
        workers.push(WorkerProcess::start(settings)?);
    }
    let outcome = async {
        for worker in &mut workers {
            worker.wait_until_ready().await?;
        }
        let client = connect(settings, keys).await?;
        let outcome = submit_posts(&client, args, context, posts, broker).await;
        client.close().await;
        Ok(outcome)
    };
    let outcome = outcome.await;
    for worker in workers {
        worker.stop(settings.worker.drain_grace).await;
    }
    // The demo's queues go, whatever came of it.
    let topology = Topology::for_models(&settings.broker, &settings.models.serve);
    amqp::remove(&settings.broker, &topology).await?;
    outcome
}

/// A worker that runs as a process of its own, killed if it is dropped.
struct WorkerProcess {
    child: Child,
    health: SocketAddr,
}

impl WorkerProcess {
    fn start(settings: &Settings) -> Result<Self, Failure> {
        let fault = |what: &str, error: std::io::Error| Failure::new(Exit::Failed, format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|error| fault("this program cannot be found", error))?;
        let health = free_address().map_err(|error| fault("no free port can be found", error))?;
        let child = Command::new(program)
            .arg("worker")
            .env("INFERQ_AMQP_URL", settings.broker.url.expose_secret())
            .env("INFERQ__BROKER__ALLOW_PLAINTEXT", settings.broker.allow_plaintext.to_string())
            .envs(certificates(&settings.broker.tls))
            .env("INFERQ__BROKER__NAME_PREFIX", &settings.broker.name_prefix)
            .env("INFERQ__KEYS__DIRECTORY", &settings.keys.directory)
            .env("INFERQ__MODELS__DIRECTORY", &settings.models.directory)
            .env("INFERQ__MODELS__SERVE", settings.models.serve.join(","))
            .env("INFERQ__BATCHING__EXECUTORS", settings.batching.executors.to_string())
            .env("INFERQ__TELEMETRY__LISTEN", health.to_string())
            .env("INFERQ__TELEMETRY__LOG_FILTER", "warn,lapin=off")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| fault("a worker process cannot be started", error))?;
        Ok(Self { child, health })
    }

    async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while !is_ready(self.health).await {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::new(Exit::Failed, format!("a worker ended while it started: {status}")));
            }
            if began.elapsed() > READY_LIMIT {
                return Err(Failure::new(Exit::TimedOut, format!("a worker was not ready within {READY_LIMIT:?}")));
            }
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// Asks the worker to stop, and kills it if it does not within its own grace and a little.
    async fn stop(mut self, grace: Duration) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A worker that has ended already needs no signal.
            let _either = kill_process(pid, Signal::TERM);
        }
        if timeout(grace + Duration::from_secs(2), self.child.wait()).await.is_err() {
            let _either = self.child.kill().await;
        }
    }
}

/// The settings that name the certificates.
fn certificates(tls: &TlsSettings) -> impl Iterator<Item = (&'static str, PathBuf)> {
    let (certificate, key) = tls.identity.clone().map(|files| (files.certificate, files.key)).unzip();
    let files = [
        ("INFERQ__BROKER__TLS_CA_FILE", tls.ca_file.clone()),
        ("INFERQ__BROKER__TLS_CERTIFICATE_FILE", certificate),
        ("INFERQ__BROKER__TLS_KEY_FILE", key),
    ];
    files.into_iter().filter_map(|(name, file)| Some((name, file?)))
}

/// An address of loopback that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
