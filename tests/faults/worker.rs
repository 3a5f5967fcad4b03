//! A worker process: started, asked how it is, and ended in every way there is.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const POLL: Duration = Duration::from_millis(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A worker, killed when dropped.
pub struct WorkerProcess {
    child: Child,
    health: SocketAddr,
}

impl WorkerProcess {
    /// Starts `command` with a free port for its telemetry.
    pub fn start(mut command: Command) -> Self {
        let health = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = command
            .env("INFERQ__TELEMETRY__LISTEN", health.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, health }
    }

    /// Where it tells how it is.
    pub const fn health(&self) -> SocketAddr {
        self.health
    }

    /// Resolves when it consumes; fails when it ends before.
    pub async fn until_ready(&mut self) {
        while !is_ready(self.health).await {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "a worker ended while it started: {ended:?}, see its words above");
            sleep(POLL).await;
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops its threads where they are, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it with SIGTERM and waits for it, `limit` at most: `None` when it is still there then.
    pub async fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        timeout(limit, self.ended()).await.ok()
    }

    /// Resolves when it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            sleep(POLL).await;
        }
    }

    /// How it has ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _either = self.child.kill();
        let _either = self.child.wait();
    }
}

/// Whether the worker at `health` consumes.
pub async fn is_ready(health: SocketAddr) -> bool {
    get(health, "/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What the worker at `health` answers; `None` when it does not.
pub async fn get(health: SocketAddr, path: &str) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect(health).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    timeout(ANSWER_LIMIT, asked).await.ok().flatten()
}

/// The sum of all series of `metric` of the worker at `health`; `None` when it says nothing of it.
pub async fn metric(health: SocketAddr, metric: &str) -> Option<u64> {
    let answer = get(health, "/metrics").await?;
    let series =
        answer.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with([' ', '{']));
    let values: Vec<u64> = series.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
