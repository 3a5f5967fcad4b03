//! What a job costs without inference: the identity model beside a bare lapin echo, in one run on one broker.
//!
//! Interleaved blocks of the same sealed jobs, published by the same generator, which neither seals nor opens while it
//! measures. Run by `make bench-echo`, which starts the broker; prints medians over the blocks and their ratio.
//!
//! With `--confirms` (`make bench-confirms`): what confirmed replies cost. The same worker, built from the library, beside one
//! whose replies nobody confirms. That publisher is here and nowhere else.

#![allow(clippy::disallowed_methods, reason = "a bench has no settings: it is told its broker by a variable")]

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use inferq::broker::amqp::{self, Subscription};
use inferq::broker::topology::Names;
use inferq::broker::{Address, Confirmed, PublishError, Publisher};
use inferq::client::Job;
use inferq::envelope::{Grant, ProducerKeys, RequestDraft, UnixSeconds, generate};
use inferq::protocol::properties::Message;
use inferq::protocol::request::InferInput;
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::{LoadOptions, Settings};
use inferq::worker::{Parts, Worker, run};
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
/// First parts of the queues' names of the two workers that `--confirms` compares.
const CONFIRMED: &str = "confirmed";
const UNCONFIRMED: &str = "unconfirmed";

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
    let told = |word: &str| std::env::args().any(|argument| argument == word);
    if told("--echo") {
        return echo(&url).await;
    }
    if told("--worker") {
        return work(&url).await;
    }
    let keys = tempfile::tempdir()?;
    generate(keys.path(), "bench", &Grant::new("bench", vec!["identity".to_owned()]))?;
    let own = ProducerKeys::load(keys.path(), "bench")?;
    let generator = Generator::connect(&url).await?;
    if told("--confirms") {
        return compare_confirms(&generator, &own, keys.path()).await;
    }

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
    let sides = [("", ECHO_QUEUE, bare.id()), ("inferq.jobs", "identity", worker.id())];
    let measured = interleaved(&generator, &own, sides).await;
    end([&mut bare, &mut worker])?;
    let [of_bare, of_worker] = measured?;
    report(["bare lapin echo", "inferq, identity model"], [&of_bare, &of_worker]);
    Ok(())
}

/// Blocks of both sides in turn: exchange, routing key, and whose processor time is counted.
async fn interleaved(
    generator: &Generator,
    own: &ProducerKeys,
    sides: [(&str, &str, u32); 2],
) -> Result<[Vec<Block>; 2]> {
    let mut blocks = [Vec::new(), Vec::new()];
    // The first block of each warms up.
    for number in 0..=BLOCKS {
        for ((exchange, routing_key, pid), blocks) in sides.iter().zip(&mut blocks) {
            // Fresh ones: a worker answers no copy of a job that it has answered.
            let block = generator.run_block(&seal_jobs(own)?, exchange, routing_key, *pid).await?;
            eprintln!("block {number} to {exchange}/{routing_key}: {block:?}");
            if number > 0 {
                blocks.push(block);
            }
        }
    }
    Ok(blocks)
}

fn end(children: [&mut Child; 2]) -> Result<()> {
    for child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// The worker with confirmed replies beside the worker without.
async fn compare_confirms(generator: &Generator, own: &ProducerKeys, keys: &Path) -> Result<()> {
    let worker = |prefix: &str| {
        start(
            Command::new(std::env::current_exe()?)
                .arg("--worker")
                .env("INFERQ__KEYS__DIRECTORY", keys)
                .env("INFERQ__MODELS__DIRECTORY", concat!(env!("CARGO_MANIFEST_DIR"), "/models"))
                .env("INFERQ__MODELS__SERVE", "identity")
                .env("INFERQ__BROKER__NAME_PREFIX", prefix)
                .env("INFERQ__BROKER__PREFETCH", PREFETCH.to_string()),
        )
    };
    let (mut without, mut with) = (worker(UNCONFIRMED)?, worker(CONFIRMED)?);
    let exchanges = [UNCONFIRMED, CONFIRMED].map(|prefix| Names::new(prefix).jobs_exchange());
    let [plain, confirmed] = &exchanges;
    let sides = [(plain.as_str(), "identity", without.id()), (confirmed.as_str(), "identity", with.id())];
    let measured = interleaved(generator, own, sides).await;
    end([&mut without, &mut with])?;
    let [of_plain, of_confirmed] = measured?;
    report(["without confirms", "with confirmed replies"], [&of_plain, &of_confirmed]);
    Ok(())
}

/// A worker built from the library; its replies are confirmed or not, as its prefix says.
async fn work(url: &str) -> Result<()> {
    let settings = Settings::load(&LoadOptions::default())?.0;
    let parts = Parts::load(&settings)?;
    let (topology, queues) = parts.topology(&settings);
    let subscription = Subscription { topology, queues, connection_name: "a bench".to_owned() };
    let (consumer, publisher, mut connectivity) = amqp::start(&settings.broker, subscription)?;
    if settings.broker.name_prefix == CONFIRMED {
        run(Arc::new(Worker::new(&settings, parts, publisher)), consumer, std::future::pending()).await;
        return Ok(());
    }
    connectivity.wait_for(|now| *now == amqp::Connectivity::Consuming).await?;
    let letter = Names::new(UNCONFIRMED).undeliverable();
    let proof = publisher.publish(&letter, Message::default()).await?;
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let publisher = Unconfirmed { channel: connection.create_channel().await?, proof };
    run(Arc::new(Worker::new(&settings, parts, publisher)), consumer, std::future::pending()).await;
    Ok(())
}

/// Says of every publish that it was confirmed: exactly what the product must not do.
struct Unconfirmed {
    channel: Channel,
    /// Of another message.
    proof: Confirmed,
}

impl Publisher for Unconfirmed {
    async fn publish(&self, address: &Address, message: Message) -> std::result::Result<Confirmed, PublishError> {
        let lost = |error: lapin::Error| PublishError::Unavailable(error.to_string());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, routing_key) = ((&*address.exchange).into(), (&*address.routing_key).into());
        let properties = properties(&message);
        let published = self.channel.basic_publish(exchange, routing_key, options, &message.body, properties).await;
        published.map_err(lost)?;
        Ok(self.proof.for_duplicate())
    }
}

fn report(names: [&str; 2], blocks: [&[Block]; 2]) {
    let row = |name: &str, blocks: &[Block]| {
        let (rate, cpu) = (median(blocks, |b| b.jobs_per_s), median(blocks, |b| b.cpu_us_per_job));
        println!("{name:<28} {rate:>10.0} {cpu:>18.1}");
        (rate, cpu)
    };
    println!("{:<28} {:>10} {:>18}", "worker", "jobs/s", "CPU us per job");
    let ([first, second], [first_blocks, second_blocks]) = (names, blocks);
    let (bare_rate, bare_cpu) = row(first, first_blocks);
    let (rate, cpu) = row(second, second_blocks);
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
            Ok(Sealed { body: message.body.to_vec(), properties: properties(&message) })
        })
        .collect()
}

fn properties(message: &Message) -> BasicProperties {
    let text = |text: &Option<String>| text.clone().unwrap_or_default().into();
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(text(&message.properties.message_id))
        .with_correlation_id(text(&message.properties.correlation_id))
        .with_reply_to(text(&message.properties.reply_to))
        .with_content_type(text(&message.properties.content_type))
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
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        replies.queue_declare(REPLY_QUEUE.into(), options, FieldTable::default()).await?;
        for exchange in
            [REPLIES.to_owned(), Names::new(CONFIRMED).replies_exchange(), Names::new(UNCONFIRMED).replies_exchange()]
        {
            let (name, kind, none) = (exchange.as_str().into(), ExchangeKind::Direct, FieldTable::default());
            replies.exchange_declare(name, kind, durable, none).await?;
            let (name, bind, none) = (exchange.as_str().into(), QueueBindOptions::default(), FieldTable::default());
            replies.queue_bind(REPLY_QUEUE.into(), name, REPLY_QUEUE.into(), bind, none).await?;
        }
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
