//! What a job costs without inference: the identity model beside a bare lapin echo, in one run on one broker.
//!
//! Interleaved blocks of the same sealed jobs, published by the same generator, which neither seals nor opens while it
//! measures. Run by `make bench-echo`, which starts the broker; prints medians over the blocks and their ratio.

#![allow(clippy::disallowed_methods, reason = "a bench has no settings: it is told its broker by a variable")]

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use inferq::client::Job;
use inferq::envelope::{Grant, ProducerKeys, RequestDraft, UnixSeconds, generate};
use inferq::protocol::request::InferInput;
use inferq::protocol::tensor::{Tensor, TensorData};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

const JOBS: usize = 10_000;
const BLOCKS: usize = 5;
const WINDOW: usize = 256;
const PREFETCH: u16 = 256;
const ECHO_QUEUE: &str = "bare-echo";
const REPLY_QUEUE: &str = "bench.replies";
const REPLIES: &str = "inferq.replies";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A job, sealed before anything is measured.
struct Sealed {
    body: Vec<u8>,
    properties: BasicProperties,
}

/// What one block came to.
#[derive(Debug, Clone, Copy)]
struct Block {
    jobs_per_s: f64,
    cpu_us_per_job: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("INFERQ_AMQP_URL").map_err(|_| "INFERQ_AMQP_URL is not set; run: make bench-echo")?;
    if std::env::args().any(|argument| argument == "--echo") {
        return echo(&url).await;
    }
    let keys = tempfile::tempdir()?;
    generate(keys.path(), "bench", &Grant::new("bench", vec!["identity".to_owned()]))?;
    let jobs = seal_jobs(&ProducerKeys::load(keys.path(), "bench")?)?;
    let generator = Generator::connect(&url).await?;

    let mut bare = start(Command::new(std::env::current_exe()?).arg("--echo"))?;
    let mut worker = start(
        Command::new(env!("CARGO_BIN_EXE_inferq"))
            .arg("worker")
            .env("INFERQ__KEYS__DIRECTORY", keys.path())
            .env("INFERQ__MODELS__DIRECTORY", concat!(env!("CARGO_MANIFEST_DIR"), "/models"))
            .env("INFERQ__MODELS__SERVE", "identity")
            .env("INFERQ__BROKER__PREFETCH", PREFETCH.to_string())
            .env("INFERQ__TELEMETRY__LISTEN", "")
            .env("INFERQ__TELEMETRY__LOG_FILTER", "warn"),
    )?;
    let measured = async {
        let (mut of_bare, mut of_worker) = (Vec::new(), Vec::new());
        // The first block of each warms up.
        for block in 0..=BLOCKS {
            let bare = generator.run_block(&jobs, "", ECHO_QUEUE, bare.id()).await?;
            let worker = generator.run_block(&jobs, "inferq.jobs", "identity", worker.id()).await?;
            eprintln!("block {block}: bare {bare:?}, worker {worker:?}");
            if block > 0 {
                of_bare.push(bare);
                of_worker.push(worker);
            }
        }
        Ok((of_bare, of_worker))
    };
    let measured: Result<_> = measured.await;
    for child in [&mut bare, &mut worker] {
        child.kill()?;
        child.wait()?;
    }
    let (of_bare, of_worker) = measured?;
    report(&of_bare, &of_worker);
    Ok(())
}

fn report(bare: &[Block], worker: &[Block]) {
    let row = |name: &str, blocks: &[Block]| {
        let (rate, cpu) = (median(blocks, |b| b.jobs_per_s), median(blocks, |b| b.cpu_us_per_job));
        println!("{name:<28} {rate:>10.0} {cpu:>18.1}");
        (rate, cpu)
    };
    println!("{:<28} {:>10} {:>18}", "worker", "jobs/s", "CPU us per job");
    let (bare_rate, bare_cpu) = row("bare lapin echo", bare);
    let (rate, cpu) = row("inferq, identity model", worker);
    println!("ratio                        {:>10.2} {:>18.2}", rate / bare_rate, cpu / bare_cpu);
    println!("medians of {BLOCKS} blocks of {JOBS} jobs, window {WINDOW}");
}

fn median(blocks: &[Block], of: impl Fn(&Block) -> f64) -> f64 {
    let mut values: Vec<f64> = blocks.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn seal_jobs(keys: &ProducerKeys) -> Result<Vec<Sealed>> {
    let tensor = Tensor::new(vec![1, 4], TensorData::Fp32(vec![1.0, 2.0, 3.0, 4.0]))?;
    let input = InferInput { name: "x".to_owned(), tensor, binary_data: false };
    let job = Job::tensors("identity".parse()?, vec![input]);
    let body = job.request.encode()?;
    (0..JOBS)
        .map(|_| {
            let draft = RequestDraft::new(job.model.clone(), REPLY_QUEUE, "inferq.v1", Duration::from_secs(300));
            let (message, _) = keys.seal_request(&draft, &body, UnixSeconds::now())?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default().into();
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(text(&message.properties.message_id))
                .with_correlation_id(text(&message.properties.correlation_id))
                .with_reply_to(text(&message.properties.reply_to))
                .with_content_type(text(&message.properties.content_type));
            Ok(Sealed { body: message.body.to_vec(), properties })
        })
        .collect()
}

fn start(command: &mut Command) -> Result<Child> {
    Ok(command.stdin(Stdio::null()).spawn()?)
}

/// Publishes jobs and counts replies, without looking into either.
struct Generator {
    publishing: Channel,
    replies: Channel,
    connection: Connection,
}

impl Generator {
    async fn connect(url: &str) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let (publishing, replies) = (connection.create_channel().await?, connection.create_channel().await?);
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        replies.exchange_declare(REPLIES.into(), ExchangeKind::Direct, durable, FieldTable::default()).await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        replies.queue_declare(REPLY_QUEUE.into(), options, FieldTable::default()).await?;
        let bind = QueueBindOptions::default();
        replies.queue_bind(REPLY_QUEUE.into(), REPLIES.into(), REPLY_QUEUE.into(), bind, FieldTable::default()).await?;
        Ok(Self { publishing, replies, connection })
    }

    /// Publishes every job, `WINDOW` under way at once; `pid` is whose processor time is counted.
    async fn run_block(&self, jobs: &[Sealed], exchange: &str, routing_key: &str, pid: u32) -> Result<Block> {
        wait_for_queue(&self.connection, exchange, routing_key).await?;
        let consumer_tag = format!("block-{}", uuid::Uuid::new_v4());
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut replies = self
            .replies
            .basic_consume(REPLY_QUEUE.into(), consumer_tag.as_str().into(), no_ack, FieldTable::default())
            .await?;
        let (cpu_before, began) = (cpu_time(pid)?, Instant::now());
        let mut waiting = jobs.iter();
        for job in waiting.by_ref().take(WINDOW) {
            self.publish(job, exchange, routing_key).await?;
        }
        for _ in 0..jobs.len() {
            let reply = tokio::time::timeout(Duration::from_secs(30), replies.next()).await;
            reply?.ok_or("the replies ended")??;
            if let Some(job) = waiting.next() {
                self.publish(job, exchange, routing_key).await?;
            }
        }
        let elapsed = began.elapsed();
        let cpu = cpu_time(pid)?.saturating_sub(cpu_before);
        self.replies.basic_cancel(consumer_tag.as_str().into(), lapin::options::BasicCancelOptions::default()).await?;
        #[expect(clippy::cast_precision_loss, reason = "a block has ten thousand jobs")]
        let count = jobs.len() as f64;
        Ok(Block { jobs_per_s: count / elapsed.as_secs_f64(), cpu_us_per_job: cpu.as_secs_f64() * 1e6 / count })
    }

    async fn publish(&self, job: &Sealed, exchange: &str, routing_key: &str) -> Result<()> {
        let options = BasicPublishOptions::default();
        let published = self
            .publishing
            .basic_publish(exchange.into(), routing_key.into(), options, &job.body, job.properties.clone())
            .await?;
        // No confirms on this channel: the reply is the proof.
        published.await?;
        Ok(())
    }
}

/// Waits until the worker has declared its queue and consumes it.
async fn wait_for_queue(connection: &Connection, exchange: &str, routing_key: &str) -> Result<()> {
    let queue = if exchange.is_empty() { routing_key.to_owned() } else { format!("{exchange}.{routing_key}") };
    for _ in 0..200 {
        // Asking for a queue that is not there closes the channel.
        let probe = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = probe.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
        if found.is_ok_and(|found| found.consumer_count() > 0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("nobody consumes queue `{queue}`").into())
}

/// Processor time that a process has used, user and system (proc(5), fields 14 and 15 of stat, in ticks of 10 ms).
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no process")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// The bare echo: consume, publish back confirmed, acknowledge. No envelope, no model.
async fn echo(url: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let (consuming, publishing) = (connection.create_channel().await?, connection.create_channel().await?);
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    consuming.queue_declare(ECHO_QUEUE.into(), options, arguments).await?;
    consuming.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let consume = BasicConsumeOptions::default();
    let mut jobs = consuming.basic_consume(ECHO_QUEUE.into(), "echo".into(), consume, FieldTable::default()).await?;
    while let Some(job) = jobs.next().await {
        let job = job?;
        let reply_to = job.properties.reply_to().clone().ok_or("a job without reply_to")?;
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = publishing.basic_publish(REPLIES.into(), reply_to, options, &job.data, properties).await?;
        tokio::spawn(async move {
            if confirm.await.is_ok_and(|confirmation| confirmation.is_ack()) {
                // A channel that is gone ends the process through the stream of jobs.
                drop(job.acker.ack(BasicAckOptions::default()).await);
            }
        });
    }
    Ok(())
}
