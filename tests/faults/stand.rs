//! What a row runs on: a virtual host, keys, a ledger, and worker processes.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use inferq::broker::amqp;
use inferq::broker::topology::Topology;
use inferq::envelope::{Grant, ProducerKeys, generate};
use inferq::settings::{Environment, LoadOptions, Override, Settings};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Seeded;
use super::ledger::Ledger;
use super::support::rabbitmq::{Node, VirtualHost, virtual_host};
use super::support::soon;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TENANT: &str = "acme";
/// The model whose jobs cost nothing but their way.
pub const MODEL: &str = "identity";
const POLL: Duration = Duration::from_millis(5);

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
    keys: tempfile::TempDir,
}

impl Stand {
    /// Declares the topology and opens the ledger; no worker runs yet. A row that ends its broker has one of its own.
    pub async fn build(seeded: Seeded, own_broker: bool) -> Self {
        let vhost = if own_broker {
            // Its script ends it when this program ends.
            Box::leak(Box::new(Node::start().await)).fresh_vhost()
        } else {
            virtual_host().await
        };
        let keys = tempfile::tempdir().unwrap();
        generate(keys.path(), TENANT, &Grant::new(TENANT, vec![MODEL.to_owned()])).unwrap();
        let set = |key: &str, value: String| Override { key: key.into(), value, option: "faults".into() };
        let overrides = vec![
            set("broker.url", vhost.url().expose_secret().to_owned()),
            set("keys.directory", keys.path().display().to_string()),
        ];
        let settings = Settings::load_in(&LoadOptions { file: None, overrides }, &Environment::of([])).unwrap().0;
        amqp::apply(&settings.broker, &Topology::for_models(&settings.broker, &[MODEL.to_owned()])).await.unwrap();
        let foreign = tempfile::tempdir().unwrap();
        generate(foreign.path(), TENANT, &Grant::new(TENANT, vec![MODEL.to_owned()])).unwrap();
        let load = |folder: &tempfile::TempDir| ProducerKeys::load(folder.path(), TENANT).unwrap();
        let ledger = Ledger::open(&settings, load(&keys), load(&foreign)).await;
        Self { vhost, settings, ledger, seeded, keys }
    }

    /// Where the broker listens.
    pub fn broker_address(&self) -> SocketAddr {
        let url = self.settings.broker.url.expose_secret();
        url.split(['@', '/']).nth(3).and_then(|part| part.parse().ok()).unwrap_or_else(|| panic!("no address in {url}"))
    }

    /// Starts a worker that reaches the broker at `broker`; does not wait for it.
    pub fn start_worker(&self, broker: SocketAddr) -> WorkerProcess {
        let url = self.settings.broker.url.expose_secret();
        let url = url.replace(&self.broker_address().to_string(), &broker.to_string());
        let health = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_inferq"))
            .arg("worker")
            .env_clear()
            .env("INFERQ_AMQP_URL", url)
            .env("INFERQ__KEYS__DIRECTORY", self.keys.path())
            .env("INFERQ__MODELS__DIRECTORY", format!("{ROOT}/models"))
            .env("INFERQ__MODELS__SERVE", MODEL)
            .env("INFERQ__TELEMETRY__LOG_FILTER", "error,lapin=off")
            .env("INFERQ__BATCHING__EXECUTORS", "1")
            .env("INFERQ__TELEMETRY__LISTEN", health.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        WorkerProcess { child, health }
    }

    /// Starts a worker and waits until it consumes.
    pub async fn ready_worker(&self, broker: SocketAddr) -> WorkerProcess {
        let mut worker = self.start_worker(broker);
        soon("a worker's readiness", async {
            while !worker.is_ready().await {
                let ended = worker.child.try_wait().unwrap();
                assert!(ended.is_none(), "a worker ended while it started: {ended:?}, see its words above");
                sleep(POLL).await;
            }
        })
        .await;
        worker
    }

    /// Ends the ledger. Workers end with their rows.
    pub async fn close(self) {
        self.ledger.close().await;
    }
}

/// A worker, killed when dropped.
pub struct WorkerProcess {
    child: Child,
    health: SocketAddr,
}

impl WorkerProcess {
    async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.health).await else { return false };
        let request = b"GET /readyz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        stream.write_all(request).await.is_ok()
            && stream.read_to_end(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 200")
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM and waits for it, `limit` at most: `None` when it is still there then.
    pub async fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(POLL).await;
            }
        };
        tokio::time::timeout(limit, ended).await.ok()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _either = self.child.kill();
        let _either = self.child.wait();
    }
}
