//! What is measured and for how long: read from the environment once, handed down from `main`.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Fault, Result};

/// Jobs under way at once when the capacity is measured.
pub(crate) const WINDOW: usize = 256;
/// Open loads, as shares of a worker's own capacity.
pub(crate) const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Processes of each of the others, and executors of inferq: one a core of the machine that the figures are for.
pub(crate) const PROCESSES: usize = 2;
/// Words that a text has at least, so that every row is as long as the model reads.
const FULL_LENGTH_WORDS: usize = 128;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// This project: `inferq worker`, encrypted.
    Inferq,
    /// Celery 5, prefork, onnxruntime.
    Celery,
    /// A hand-written worker: aio-pika, onnxruntime, greedy batches.
    AioPika,
    /// mosec behind HTTP, without a broker.
    Mosec,
}

impl Worker {
    const ALL: [Self; 4] = [Self::Inferq, Self::Celery, Self::AioPika, Self::Mosec];

    /// Its key in the JSON file.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Inferq => "inferq",
            Self::Celery => "celery",
            Self::AioPika => "aio_pika",
            Self::Mosec => "mosec",
        }
    }

    /// Its name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Inferq => "inferq (encrypted)",
            Self::Celery => "Celery prefork + onnxruntime",
            Self::AioPika => "aio-pika + onnxruntime, batches",
            Self::Mosec => "mosec + onnxruntime (HTTP, no broker)",
        }
    }
}

/// The type of the job queues of Celery and aio-pika; inferq's are quorum queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueType {
    /// As safe as inferq's.
    Quorum,
    /// What a client gets that asks for nothing.
    Classic,
}

impl QueueType {
    /// RabbitMQ's word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// What is measured, and for how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) url: String,
    pub(crate) inferq: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) workers: Vec<Worker>,
    pub(crate) rounds: usize,
    pub(crate) block: Duration,
    pub(crate) queue_type: QueueType,
    /// Processes of inferq, which share `PROCESSES` executors.
    pub(crate) inferq_processes: usize,
    pub(crate) seed: u64,
    pub(crate) posts: Vec<Post>,
    pub(crate) json: PathBuf,
}

/// A text whose topic is known.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Post {
    pub(crate) text: String,
    pub(crate) label: String,
}

impl Plan {
    /// The plan that the environment asks for; `bench-peers.sh --help` lists its variables.
    pub(crate) fn of_environment() -> Result<Self> {
        let required = |name: &str| env::var(name).map_err(|_| format!("{name} is not set; run: make bench-peers"));
        let mut posts = read_posts()?;
        if env::var("BENCH_TEXTS").as_deref() != Ok("mixed") {
            posts = full_length(&posts);
        }
        Ok(Self {
            url: required("INFERQ_AMQP_URL")?,
            inferq: required("PEERS_INFERQ")?.into(),
            python: required("PEERS_PYTHON")?.into(),
            json: required("PEERS_JSON")?.into(),
            workers: workers(&env::var("BENCH_WORKERS").unwrap_or_default())?,
            rounds: number("BENCH_ROUNDS", 3)?,
            block: Duration::from_millis(number("BENCH_SECONDS", 8)? as u64 * 1_000),
            queue_type: match env::var("BENCH_QUEUES").as_deref() {
                Err(_) | Ok("" | "quorum") => QueueType::Quorum,
                Ok("classic") => QueueType::Classic,
                Ok(other) => return Err(format!("BENCH_QUEUES is `{other}`, expected quorum or classic").into()),
            },
            inferq_processes: match number("BENCH_INFERQ_PROCESSES", 1)? {
                processes if PROCESSES.is_multiple_of(processes) => processes,
                other => return Err(format!("BENCH_INFERQ_PROCESSES is {other}, expected 1 or {PROCESSES}").into()),
            },
            seed: number("BENCH_SEED", 1)? as u64,
            posts,
        })
    }
}

fn number(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{name} is `{text}`, expected a whole number of at least 1").into()),
        },
    }
}

fn workers(list: &str) -> Result<Vec<Worker>> {
    let names: BTreeSet<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let known: Vec<&str> = Worker::ALL.iter().map(|worker| worker.key()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("BENCH_WORKERS names `{unknown}`; known are {}", known.join(", ")).into());
    }
    Ok(Worker::ALL.into_iter().filter(|worker| names.is_empty() || names.contains(worker.key())).collect())
}

fn read_posts() -> Result<Vec<Post>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/samples/posts.jsonl");
    let text = std::fs::read_to_string(path)?;
    let read = |line| serde_json::from_str(line).map_err(|error| Fault::from(format!("{path}: {error}")));
    text.lines().map(read).collect()
}

/// Posts of one topic joined until each text is as long as the model reads: every row costs the same then, and no worker
/// gains by how it sorts lengths.
fn full_length(posts: &[Post]) -> Vec<Post> {
    let words = |text: &str| text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).count();
    let joined = |index: usize| {
        let post = posts.get(index)?;
        let mut text = post.text.clone();
        let mut others = posts.iter().cycle().skip(index + 1).filter(|other| other.label == post.label);
        while words(&text) < FULL_LENGTH_WORDS {
            text.push(' ');
            text.push_str(&others.next()?.text);
        }
        Some(Post { text, label: post.label.clone() })
    };
    (0..posts.len()).filter_map(joined).collect()
}
