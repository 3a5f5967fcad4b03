//! The workers under test as processes: started, looked at through `/proc`, and ended.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::plan::{PROCESSES, Plan, Worker};
use super::{Fault, Result};

/// The processes of one worker, with all that they start; killed if dropped.
pub(crate) struct Running {
    pub(crate) worker: Worker,
    /// The port of an HTTP server.
    pub(crate) port: Option<u16>,
    children: Vec<Child>,
}

/// Memory of several processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident sets added up: what processes share counts in each.
    pub(crate) rss_mib: f64,
    /// Proportional sets added up: what processes share counts once.
    pub(crate) pss_mib: f64,
}

impl Running {
    /// Starts `worker`. Its words go to a file in `logs`.
    pub(crate) fn start(worker: Worker, plan: &Plan, keys: &Path, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{}.log", worker.key()));
        let mut running = Self { worker, port: None, children: Vec::new() };
        let mut spawn = |command: &mut Command| -> Result<()> {
            let out = fs::File::options().create(true).append(true).open(&log)?;
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
            let child = command.spawn().map_err(|error| Fault::from(format!("{command:?}: {error}")))?;
            running.children.push(child);
            Ok(())
        };
        match worker {
            Worker::Inferq => {
                for _ in 0..plan.inferq_processes {
                    spawn(&mut inferq(plan, keys))?;
                }
            }
            Worker::AioPika => {
                for _ in 0..PROCESSES {
                    spawn(python(plan).arg("aio_pika_worker.py"))?;
                }
            }
            Worker::Celery => {
                let words = ["-m", "celery", "-A", "celery_worker", "worker", "--pool=prefork", "--optimization=fair"];
                let quiet = ["--without-gossip", "--without-mingle", "--loglevel=WARNING"];
                spawn(python(plan).args(words).args(quiet).arg(format!("--concurrency={PROCESSES}")))?;
            }
            Worker::Mosec => {
                let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                let words = ["mosec_server.py", "--address=127.0.0.1", "--log-level=warning"];
                // As much as a broker's queue would hold, for as long: by its defaults it refuses the 1,025th waiting job.
                let limits = ["--capacity=100000", "--timeout=60000"];
                spawn(python(plan).args(words).args(limits).arg(format!("--port={port}")))?;
                running.port = Some(port);
            }
        }
        Ok(running)
    }

    /// Fails when one of the processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                return Err(format!("a process of {} ended: {status}; see its log", self.worker.key()).into());
            }
        }
        Ok(())
    }

    /// Processor time that all processes have used, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.processes().iter().map(|process| process.cpu).sum()
    }

    /// What all processes hold now.
    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for process in self.processes() {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.id)).unwrap_or_default();
            memory.rss_mib += kibibytes(&text, "Rss:") / 1024.0;
            memory.pss_mib += kibibytes(&text, "Pss:") / 1024.0;
        }
        memory
    }

    /// How many processes there are.
    pub(crate) fn count(&self) -> usize {
        self.processes().len()
    }

    /// The processes that were started and all below them.
    fn processes(&self) -> Vec<Process> {
        let mut all: Vec<Process> = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            all.extend(id.and_then(Process::read));
        }
        let mut ids: Vec<u32> = self.children.iter().map(Child::id).collect();
        let mut reached = 0;
        while reached < ids.len() {
            reached = ids.len();
            for process in &all {
                if ids.contains(&process.parent) && !ids.contains(&process.id) {
                    ids.push(process.id);
                }
            }
        }
        all.retain(|process| ids.contains(&process.id));
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whole trees: a killed parent does not take its children along.
        for process in self.processes() {
            let pid = i32::try_from(process.id).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for child in &mut self.children {
            let _status = child.wait();
        }
    }
}

/// A process as `/proc` shows it.
struct Process {
    id: u32,
    parent: u32,
    cpu: Duration,
}

impl Process {
    /// Reads proc(5) stat: the parent is field 4, times are fields 14 and 15 in ticks of 10 ms.
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 10);
        Some(Self { id, parent: fields.get(1)?.parse().ok()?, cpu })
    }
}

fn kibibytes(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0.0)
}

/// A worker with its share of the executors; with all of them, it has no setting but the defaults.
fn inferq(plan: &Plan, keys: &Path) -> Command {
    let executors = PROCESSES / plan.inferq_processes;
    let mut command = Command::new(&plan.inferq);
    command
        .arg("worker")
        .env("INFERQ__KEYS__DIRECTORY", keys)
        .env("INFERQ__MODELS__DIRECTORY", models())
        .env("INFERQ__MODELS__SERVE", "topic")
        .env("INFERQ__BATCHING__EXECUTORS", executors.to_string())
        .env("INFERQ__TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("INFERQ__TELEMETRY__LOG_FILTER", "warn");
    command
}

fn python(plan: &Plan) -> Command {
    let mut command = Command::new(&plan.python);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers"))
        .env("PEERS_AMQP_URL", &plan.url)
        .env("PEERS_MODEL", models().join("topic/1"))
        .env("PEERS_QUEUE_TYPE", plan.queue_type.word())
        .env("OMP_NUM_THREADS", "1")
        .env("TOKENIZERS_PARALLELISM", "false")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn models() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/models"))
}
