//! A private RabbitMQ node for the tests of one program, with a virtual host for each test.
//!
//! The node is a child of `scripts/rabbitmq.sh run`, which stops it and deletes its folder when its standard input ends:
//! however the tests end, the system closes that pipe, and no node is left behind. Without a broker the tests fail.
//! `INFERQ_TEST_RABBITMQ` names another script with the same face, such as `scripts/rabbitmq4.sh`.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::SecretString;

/// Virtual hosts that the shared node has: one for each test of a program.
const VHOSTS: usize = 40;

static SHARED: OnceLock<Node> = OnceLock::new();
static NODES: AtomicUsize = AtomicUsize::new(0);

/// A running node.
#[derive(Debug)]
pub struct Node {
    script: PathBuf,
    folder: PathBuf,
    /// `amqp://user:password@host:port`
    base: String,
    next_vhost: AtomicUsize,
    /// Dropped before the child is waited for, which ends it.
    lifeline: Option<ChildStdin>,
    runner: Child,
}

impl Node {
    /// Starts a node of its own for a test that kills it.
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(|| Self::start_with(2, None, &[])).await.unwrap()
    }

    /// Starts a node that takes TLS as well, with `ca.pem`, `cert.pem` and `key.pem` of `folder`; where it demands
    /// certificates, from nobody without one.
    pub async fn start_with_tls(folder: &Path, demands: bool) -> Self {
        let mut options = vec!["--tls".into(), folder.as_os_str().to_owned()];
        options.extend(demands.then(|| "--demand".into()));
        tokio::task::spawn_blocking(move || Self::start_with(2, None, &options)).await.unwrap()
    }

    /// The port at which it takes TLS.
    pub fn tls_port(&self) -> u16 {
        std::fs::read_to_string(self.folder.join("tls_port")).unwrap().trim().parse().unwrap()
    }

    /// Starts a node that joins the cluster of `other`.
    pub async fn start_beside(other: &Self) -> Self {
        let folder = other.folder.clone();
        tokio::task::spawn_blocking(move || Self::start_with(0, Some(&folder), &[])).await.unwrap()
    }

    fn start_with(vhosts: usize, join: Option<&Path>, options: &[OsString]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let chosen = std::env::var_os("INFERQ_TEST_RABBITMQ").unwrap_or_else(|| "scripts/rabbitmq.sh".into());
        let script = root.join(chosen);
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("inferq-test-{}-{number}", std::process::id()));
        let mut runner = Command::new(&script)
            .args(["run", "--remove", "--vhosts", &vhosts.to_string(), "--dir"])
            .arg(&folder)
            .args(options)
            .args(join.map(|other| ["--join".as_ref(), other.as_os_str()]).into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let lifeline = runner.stdin.take();
        let mut url = String::new();
        BufReader::new(runner.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let base = url.trim().strip_suffix("/%2f").unwrap_or_else(|| {
            panic!("no broker, no test: {} printed {url:?} instead of a URL, see its words above", script.display())
        });
        Self { base: base.to_owned(), script, folder, next_vhost: AtomicUsize::new(1), lifeline, runner }
    }

    /// The URL of a virtual host that no other test has.
    pub fn fresh_vhost(&self) -> VirtualHost<'_> {
        let number = self.next_vhost.fetch_add(1, Ordering::Relaxed);
        assert!(number <= VHOSTS, "the tests of one program need more than {VHOSTS} virtual hosts");
        VirtualHost { node: self, name: format!("t{number}") }
    }

    /// Has the node write to disk which queues there are.
    ///
    /// A node buffers its definitions, and Ra its directory of quorum queues, for some time (Mnesia's log and a DETS table
    /// in 3.10). One that is killed before starts its youngest quorum queues from scratch, empty and without ever electing a
    /// leader: publishes to them wait for ever. Messages are written at once; that is another matter.
    pub async fn sync_definitions(&self) {
        self.control(&["eval", "[dets:sync(Table) || Table <- dets:all()], catch mnesia:sync_log()."]).await;
    }

    /// Ends the node as a crash would.
    pub async fn kill(&self) {
        self.run_script(&["kill"], &[]).await;
    }

    /// Ends the node in order, as an operator would.
    pub async fn stop(&self) {
        self.run_script(&["stop"], &[]).await;
    }

    /// Brings a killed node back, with its queues, at the same port.
    pub async fn bring_back(&self) {
        self.run_script(&["start"], &[]).await;
    }

    /// Stops its processes where they are: to everybody else it is cut off.
    pub async fn freeze(&self) {
        self.run_script(&["freeze"], &[]).await;
    }

    /// Lets its processes go on.
    pub async fn thaw(&self) {
        self.run_script(&["thaw"], &[]).await;
    }

    /// What other nodes know it as.
    pub fn erlang_name(&self) -> String {
        std::fs::read_to_string(self.folder.join("name")).unwrap().trim().to_owned()
    }

    /// Its URL without a virtual host.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Runs rabbitmqctl.
    pub async fn control(&self, arguments: &[&str]) -> String {
        self.run_script(&["ctl"], arguments).await
    }

    async fn run_script(&self, command: &[&str], arguments: &[&str]) -> String {
        let mut script = Command::new(&self.script);
        script.args(command).arg("--dir").arg(&self.folder).arg("--").args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _either = self.runner.wait();
    }
}

/// A virtual host of a node, empty at first.
#[derive(Debug, Clone)]
pub struct VirtualHost<'a> {
    /// Its node.
    pub node: &'a Node,
    /// Its name.
    pub name: String,
}

impl VirtualHost<'_> {
    /// Where to connect.
    pub fn url(&self) -> SecretString {
        format!("{}/{}", self.node.base, self.name).into()
    }

    /// Breaks every connection to this virtual host from the broker's side.
    pub async fn close_connections(&self) {
        self.node.control(&["close_all_connections", "--vhost", &self.name, "a test closes it"]).await;
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, queue: &str) {
        self.node.control(&["delete_queue", "--vhost", &self.name, queue]).await;
    }

    /// Messages of a queue that are ready, and that are delivered but not acknowledged.
    pub async fn depth(&self, queue: &str) -> (u64, u64) {
        let columns = ["name", "messages_ready", "messages_unacknowledged"];
        let mut arguments = vec!["list_queues", "--no-table-headers", "--vhost", &self.name];
        arguments.extend(columns);
        let listed = self.node.control(&arguments).await;
        let row = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|row| row[0] == queue);
        let row = row.unwrap_or_else(|| panic!("no queue {queue} in {listed}"));
        (row[1].parse().unwrap(), row[2].parse().unwrap())
    }
}

/// A virtual host of its own on the node that the tests of this program share.
pub async fn virtual_host() -> VirtualHost<'static> {
    let node =
        tokio::task::spawn_blocking(|| SHARED.get_or_init(|| Node::start_with(VHOSTS, None, &[]))).await.unwrap();
    node.fresh_vhost()
}
