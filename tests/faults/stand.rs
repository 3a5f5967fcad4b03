//! What a row runs on: a virtual host, keys, a ledger, and how worker processes are started.

use std::net::SocketAddr;
use std::process::Command;

use inferq::broker::amqp;
use inferq::broker::topology::Topology;
use inferq::envelope::{Grant, ProducerKeys, generate};
use inferq::settings::{Environment, LoadOptions, Override, Settings};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::ledger::{Ledger, PATIENCE};
use super::misdeeds;
use super::plan::Pace;
use super::proxy::Proxy;
use super::support::cluster::Cluster;
use super::support::rabbitmq::{Node, VirtualHost, virtual_host};
use super::worker::WorkerProcess;
use super::{Broker, Seeded};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TENANT: &str = "acme";
/// The model whose jobs cost nothing but their way.
pub const MODEL: &str = "identity";

/// A service under test.
pub struct Stand {
    /// Its virtual host.
    pub vhost: VirtualHost<'static>,
    /// What its processes run with.
    pub settings: Settings,
    /// Its jobs.
    pub ledger: Ledger,
    /// Where faults fall.
    pub seeded: Seeded,
    /// How much is done.
    pub pace: Pace,
    /// Its nodes, where it has several, and what leads to them.
    pub cluster: Option<(&'static Cluster, Proxy)>,
    /// What its workers are told beside the rest, as `section.key` and value.
    overrides: Vec<(&'static str, String)>,
    keys: tempfile::TempDir,
}

impl Stand {
    /// Declares the topology and opens the ledger; no worker runs yet. `overrides` are settings, `section.key` and value.
    pub async fn build(seeded: Seeded, pace: Pace, broker: Broker, overrides: Vec<(&'static str, String)>) -> Self {
        let (vhost, cluster) = broker_for(broker).await;
        let keys = tempfile::tempdir().unwrap();
        generate(keys.path(), TENANT, &Grant::new(TENANT, vec![MODEL.to_owned()])).unwrap();
        let set = |key: &str, value: String| Override { key: key.into(), value, option: "faults".into() };
        let url = vhost.url().expose_secret().to_owned();
        let url = match &cluster {
            Some((_, balancer)) => url.replace(&address_in(&url).to_string(), &balancer.address.to_string()),
            None => url,
        };
        let mut all = vec![set("broker.url", url), set("keys.directory", keys.path().display().to_string())];
        all.extend(overrides.iter().map(|(key, value)| set(key, value.clone())));
        let options = LoadOptions { file: None, overrides: all };
        let settings = Settings::load_in(&options, &Environment::of([])).unwrap().0;
        amqp::apply(&settings.broker, &Topology::for_models(&settings.broker, &[MODEL.to_owned()])).await.unwrap();
        let foreign = tempfile::tempdir().unwrap();
        generate(foreign.path(), TENANT, &Grant::new(TENANT, vec![MODEL.to_owned()])).unwrap();
        let load = |folder: &tempfile::TempDir| ProducerKeys::load(folder.path(), TENANT).unwrap();
        let ledger = Ledger::open(&settings, load(&keys), load(&foreign), cluster.is_some()).await;
        Self { vhost, settings, ledger, seeded, pace, cluster, overrides, keys }
    }

    /// Where the broker listens, or what leads to it.
    pub fn broker_address(&self) -> SocketAddr {
        address_in(self.settings.broker.url.expose_secret())
    }

    /// A command of inferq in this service's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("INFERQ_AMQP_URL", self.settings.broker.url.expose_secret())
            .env("INFERQ__KEYS__DIRECTORY", self.keys.path())
            .env("INFERQ__MODELS__DIRECTORY", format!("{ROOT}/models"))
            .env("INFERQ__MODELS__SERVE", MODEL)
            .env("INFERQ__TELEMETRY__LOG_FILTER", "error,lapin=off")
            .env("INFERQ__BATCHING__EXECUTORS", "1")
            // What is in flight when something breaks shall not depend on how fast this machine is.
            .env("INFERQ__BROKER__PREFETCH", "64")
            .env("INFERQ__BROKER__ADAPTIVE_PREFETCH", "false");
        for (key, value) in &self.overrides {
            command.env(format!("INFERQ__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command
    }

    /// Starts a worker that reaches the broker at `broker`; does not wait for it.
    pub fn start_worker(&self, broker: SocketAddr) -> WorkerProcess {
        let url = self.settings.broker.url.expose_secret();
        let mut command = self.command(env!("CARGO_BIN_EXE_inferq"));
        command.arg("worker");
        command.env("INFERQ_AMQP_URL", url.replace(&self.broker_address().to_string(), &broker.to_string()));
        WorkerProcess::start(command)
    }

    /// Starts a worker whose backend crashes on marked inputs.
    pub fn start_misbehaving(&self) -> WorkerProcess {
        let mut command = self.command(std::env::current_exe().unwrap().to_str().unwrap());
        command.env(misdeeds::WORKER, "1").stderr(std::process::Stdio::null());
        WorkerProcess::start(command)
    }

    /// Starts a worker and waits until it consumes.
    pub async fn ready_worker(&self, broker: SocketAddr) -> WorkerProcess {
        let mut worker = self.start_worker(broker);
        timeout(PATIENCE, worker.until_ready()).await.expect("a worker becomes ready");
        worker
    }

    /// Ends the ledger. Workers end with their rows.
    pub async fn close(self) {
        self.ledger.close().await;
    }
}

/// A virtual host on the broker that a row asks for. A broker of a row's own is ended by its script when this program ends.
async fn broker_for(broker: Broker) -> (VirtualHost<'static>, Option<(&'static Cluster, Proxy)>) {
    match broker {
        Broker::Shared => (virtual_host().await, None),
        Broker::Own => (Box::leak(Box::new(Node::start().await)).fresh_vhost(), None),
        Broker::Cluster => {
            let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await));
            let vhost = cluster.nodes[0].fresh_vhost();
            let addresses = cluster.nodes.iter().map(|node| address_in(node.base())).collect();
            (vhost, Some((cluster, Proxy::start(addresses).await)))
        }
    }
}

/// Host and port of an AMQP URL.
fn address_in(url: &str) -> SocketAddr {
    url.split(['@', '/']).nth(3).and_then(|part| part.parse().ok()).unwrap_or_else(|| panic!("no address in {url}"))
}
