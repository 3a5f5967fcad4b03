//! A tenant that floods a worker, and another that does not: who waits for whom, counted on the embedded broker, and the quiet
//! tenant's latencies on both brokers.
//!
//! `INFERQ_FLOOD_SECONDS` sets how long a block of the measurement lasts, and makes it five rounds; `make flood` sets it to 10 and prints
//! the figures. A latency is never judged here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use inferq::broker::Publisher;
use inferq::broker::memory::{MemoryBroker, MemoryPublisher};
use inferq::broker::topology::{Names, Topology};
use inferq::client::{Client, ClientSettings, Job, Window, connect, reply_queue_name};
use inferq::envelope::{Grant, ProducerKeys, generate};
use inferq::protocol::response::ResponseBody;
use inferq::seeded::Seeded;
use inferq::settings::{Environment, LoadOptions, Override, Settings};
use inferq::telemetry::metrics::Metrics;
use inferq::worker::{KeyReload, Parts, Worker, run, serve_parts};
use secrecy::ExposeSecret as _;
use support::rabbitmq::virtual_host;
use tokio::time::{Instant, sleep_until};

/// No answer takes so long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(120);
/// Jobs that the quiet tenant sends in a second.
const TRICKLE: f64 = 20.0;
/// Jobs that the other tenant keeps under way: none, what keeps both executors busy, more than a worker ever holds.
const WINDOWS: [usize; 3] = [0, 4, 400];

/// Keys of both tenants, and a worker's settings and parts.
struct Stand {
    keys: tempfile::TempDir,
    settings: Settings,
    parts: Parts,
}

impl Stand {
    /// With the defaults, but for `more`.
    fn new(more: &[(&str, &str)]) -> Self {
        let keys = tempfile::tempdir().unwrap();
        for tenant in ["quiet", "flood"] {
            generate(keys.path(), tenant, &Grant::new(tenant, vec!["*".into()])).unwrap();
        }
        let set = |key: &str, value: &str| Override { key: key.into(), value: value.into(), option: "test".into() };
        let mut overrides = vec![
            set("keys.directory", &keys.path().display().to_string()),
            set("models.directory", concat!(env!("CARGO_MANIFEST_DIR"), "/models")),
            set("models.serve", "topic"),
            set("discovery.answer_wait_ms", "0"),
            set("telemetry.listen", ""),
        ];
        overrides.extend(more.iter().map(|(key, value)| set(key, value)));
        let settings = Settings::load_in(&LoadOptions { file: None, overrides }, &Environment::of([])).unwrap().0;
        let parts = Parts::load(&settings).unwrap();
        Self { keys, settings, parts }
    }

    fn producer(&self, tenant: &str) -> ProducerKeys {
        ProducerKeys::load(self.keys.path(), tenant).unwrap()
    }

    fn embedded(&self) -> MemoryBroker {
        MemoryBroker::new(&self.parts.topology(&self.settings).0)
    }

    /// A worker on the embedded broker, until `stop` resolves.
    async fn work(&self, broker: &MemoryBroker, stop: impl Future<Output = ()>) {
        let queues = self.parts.topology(&self.settings).1;
        let worker = Arc::new(Worker::new(&self.settings, self.parts.clone(), broker.publisher()));
        let consumer = broker.consumer(&queues, self.settings.broker.prefetch);
        assert_eq!(run(worker, consumer, stop).await.abandoned, 0);
    }

    fn client(&self, broker: &MemoryBroker, tenant: &str) -> Arc<Client<MemoryPublisher>> {
        let names = Names::new(&self.settings.broker.name_prefix);
        let keys = self.producer(tenant);
        let reply_queue = reply_queue_name(&keys);
        broker.declare_reply_queue(&names.replies_exchange(), &reply_queue);
        let replies = broker.consumer(&vec![reply_queue.clone()].into(), 1_000);
        let settings = ClientSettings {
            audience: self.settings.service.audience.clone(),
            jobs_exchange: names.jobs_exchange(),
            reply_queue,
            lifetime: Duration::from_secs(300),
            max_pending: 10_000,
        };
        Arc::new(Client::new(settings, keys, broker.publisher(), replies))
    }
}

/// A text of some length: short, middling, long, and so on.
fn job(number: usize) -> Job {
    text_job(number, [8, 24, 60][number % 3])
}

fn text_job(number: usize, count: usize) -> Job {
    let words =
        "the shuttle put a satellite into orbit and the crew came back to the station after the launch".split(' ');
    let text: Vec<&str> = words.cycle().skip(number % 7).take(count).collect();
    Job::texts("topic".parse().unwrap(), &[text.join(" ").as_str()])
}

async fn answered<P: Publisher>(client: &Client<P>, number: usize) {
    let reply = client.predict(&job(number), LIMIT).await.unwrap();
    assert!(matches!(reply, ResponseBody::Result(_)), "{reply:?}");
}

/// Sends `jobs` as the tenant that floods, as many at once as `size` says, and counts what is answered.
async fn flood<P: Publisher>(client: &Client<P>, size: usize, jobs: impl Iterator<Item = Job>, count: &AtomicUsize) {
    let window = Window { size, limit: LIMIT };
    let counted = |finished: inferq::client::Finished| {
        assert!(matches!(finished.reply, Ok(ResponseBody::Result(_))), "{:?}", finished.reply);
        count.fetch_add(1, Ordering::Relaxed);
    };
    client.submit_all(jobs, window, counted).await;
}

/// A worker that holds 32 jobs is sent 400 by one tenant, and then ten by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_jobs_are_answered_while_most_of_a_flood_waits() {
    let stand = Stand::new(&[("broker.prefetch", "32"), ("batching.max_batch_size", "8")]);
    let broker = stand.embedded();
    let (quiet, flooding) = (stand.client(&broker, "quiet"), stand.client(&broker, "flood"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let asking = async {
        // Since then the worker knows that the tenant is there.
        answered(&quiet, 0).await;
        let mut flood = Vec::new();
        for number in 0..400 {
            // Long ones, so that running them takes far longer than putting them off.
            flood.push(flooding.submit(&text_job(number, 200)).await.unwrap());
        }
        let count = AtomicUsize::new(0);
        let flood = flood.into_iter().map(async |submitted| {
            let reply = submitted.reply(LIMIT).await;
            assert!(matches!(reply, Ok(ResponseBody::Result(_))), "{reply:?}");
            count.fetch_add(1, Ordering::Relaxed);
        });
        let few = async {
            join_all((0..10).map(|number| answered(&quiet, number))).await;
            count.load(Ordering::Relaxed)
        };
        let (before, _) = tokio::join!(few, join_all(flood));
        println!("{before} of the flood's 400 jobs were answered before the last of ten");
        // In the order of their arrival it would be all but what a worker holds: 368.
        assert!(before < 350, "{before} jobs of the flood were answered first");
        assert_eq!(count.load(Ordering::Relaxed), 400, "what was put off is answered in the end");
        drop(stop);
    };
    tokio::join!(asking, stand.work(&broker, async { drop(stopped.await) }));
}

/// What a block of the measurement came to, or the medians of many.
#[derive(Clone, Copy)]
struct Figures {
    p50: f64,
    p99: f64,
    /// Jobs that the other tenant had answered in a second.
    flood: f64,
    /// Jobs of it that were put off in a second.
    postponed: f64,
}

impl Figures {
    fn medians(blocks: &[Self]) -> Self {
        let median = |of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = blocks.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            p50: median(|block| block.p50),
            p99: median(|block| block.p99),
            flood: median(|block| block.flood),
            postponed: median(|block| block.postponed),
        }
    }
}

/// Both tenants' clients, and the metrics of the worker that they ask.
struct Tenants<P: Publisher> {
    quiet: Arc<Client<P>>,
    flood: Arc<Client<P>>,
    metrics: Arc<Metrics>,
}

impl<P: Publisher> Tenants<P> {
    /// Sends jobs at random moments for as long as `length`, whatever becomes of those before; their latencies in order.
    async fn trickle(&self, length: Duration, seeded: &mut Seeded) -> Vec<f64> {
        let (begin, mut at) = (Instant::now(), Duration::ZERO);
        let mut asked = tokio::task::JoinSet::new();
        for number in 0.. {
            let uniform = (seeded.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            at += Duration::from_secs_f64(-(1.0 - uniform).ln() / TRICKLE);
            if at > length {
                break;
            }
            sleep_until(begin + at).await;
            let (client, began) = (Arc::clone(&self.quiet), std::time::Instant::now());
            asked.spawn(async move {
                answered(&client, number).await;
                began.elapsed().as_secs_f64()
            });
        }
        let mut latencies = asked.join_all().await;
        latencies.sort_unstable_by(f64::total_cmp);
        latencies
    }

    fn postponed(&self) -> f64 {
        let page = self.metrics.exposition();
        let of =
            |line: &str| line.strip_prefix("inferq_jobs_postponed_total{")?.split_once("} ")?.1.parse::<f64>().ok();
        page.lines().filter_map(of).sum()
    }

    /// The trickle beside a tenant that keeps `window` jobs under way. What happens in the first quarter is not counted.
    async fn block(&self, window: usize, length: Duration, seeded: &mut Seeded) -> Figures {
        let count = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(window == 0));
        let flooding = tokio::spawn({
            let (client, stop, count) = (Arc::clone(&self.flood), Arc::clone(&stop), Arc::clone(&count));
            async move {
                let jobs = (0..).take_while(|_| !stop.load(Ordering::Relaxed)).map(job);
                flood(&client, window, jobs, &count).await;
            }
        });
        self.trickle(length / 3, seeded).await;
        let (began, before, postponed) = (Instant::now(), count.load(Ordering::Relaxed), self.postponed());
        let latencies = self.trickle(length, seeded).await;
        let seconds = began.elapsed().as_secs_f64();
        let flood = (count.load(Ordering::Relaxed) - before) as f64 / seconds;
        let postponed = (self.postponed() - postponed) / seconds;
        stop.store(true, Ordering::Relaxed);
        flooding.await.unwrap();
        let quantile = |percent: usize| latencies[latencies.len() * percent / 100];
        Figures { p50: quantile(50), p99: quantile(99), flood, postponed }
    }

    /// Blocks of each window in turn, and a table of their medians.
    async fn measure(&self, broker: &str) {
        let (rounds, length) = match std::env::var_os("INFERQ_FLOOD_SECONDS") {
            Some(written) => (5, Duration::from_secs_f64(written.to_str().unwrap().parse().unwrap())),
            None => (1, Duration::from_secs(1)),
        };
        let mut seeded = Seeded::new(31);
        let mut blocks = WINDOWS.map(|_| Vec::new());
        for _ in 0..rounds {
            for (window, blocks) in WINDOWS.into_iter().zip(&mut blocks) {
                blocks.push(self.block(window, length, &mut seeded).await);
            }
        }
        let figures = blocks.map(|blocks| Figures::medians(&blocks));
        println!("{broker}, medians of {rounds} blocks of {length:?}; the quiet tenant sends {TRICKLE} jobs/s");
        println!("the other's window   p50 ms   p99 ms   p99 to alone   to busy   the other's jobs/s   put off/s");
        for (window, Figures { p50, p99, flood, postponed }) in WINDOWS.into_iter().zip(figures) {
            let (alone, busy) = (p99 / figures[0].p99, p99 / figures[1].p99);
            let (p50, p99) = (p50 * 1e3, p99 * 1e3);
            println!("{window:>18} {p50:>8.2} {p99:>8.2} {alone:>13.2}x {busy:>8.2}x {flood:>20.0} {postponed:>11.0}");
        }
        assert!(figures[2].flood > 0.0, "there was no flood");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latencies_beside_a_flood_on_the_embedded_broker() {
    let stand = Stand::new(&[]);
    let broker = stand.embedded();
    let (quiet, flood) = (stand.client(&broker, "quiet"), stand.client(&broker, "flood"));
    let tenants = Tenants { quiet, flood, metrics: Arc::clone(&stand.parts.metrics) };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let measured = async {
        tenants.measure("embedded broker").await;
        drop(stop);
    };
    tokio::join!(measured, stand.work(&broker, async { drop(stopped.await) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latencies_beside_a_flood_on_rabbitmq() {
    let url = virtual_host().await.url().expose_secret().to_owned();
    let stand = Stand::new(&[("broker.url", &url)]);
    inferq::broker::amqp::apply(
        &stand.settings.broker,
        &Topology::for_models(&stand.settings.broker, &["topic".to_owned()]),
    )
    .await
    .unwrap();
    let client = async |tenant| Arc::new(connect(&stand.settings, stand.producer(tenant)).await.unwrap());
    let (quiet, flood) = (client("quiet").await, client("flood").await);
    let tenants = Tenants { quiet, flood, metrics: Arc::clone(&stand.parts.metrics) };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let measured = async {
        // Answered once the worker consumes.
        answered(&tenants.quiet, 0).await;
        tenants.measure("RabbitMQ").await;
        drop(stop);
    };
    let served = serve_parts(&stand.settings, stand.parts.clone(), KeyReload::default(), async { drop(stopped.await) });
    let ((), drained) = tokio::join!(measured, served);
    assert_eq!(drained.unwrap().abandoned, 0);
}
