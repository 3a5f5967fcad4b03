//! The demo on the embedded broker: two workers as tasks of this process.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::posts::Post;
use super::{DemoArgs, Outcome, WORKERS, say, submit_posts};
use crate::broker::memory::MemoryBroker;
use crate::broker::topology::{Names, Topology};
use crate::cli::Context;
use crate::cli::failure::Failure;
use crate::client::{Client, ClientSettings, reply_queue_name};
use crate::envelope::ProducerKeys;
use crate::limits::{MAX_PENDING_REPLIES, MAX_PREFETCH};
use crate::settings::Settings;
use crate::worker::{AssembleError, Parts, Worker};

pub(super) async fn run(
    settings: &Settings,
    keys: ProducerKeys,
    args: &DemoArgs,
    context: &Context,
    posts: &[Post],
) -> Result<Outcome, Failure> {
    say(context, &format!("starting {WORKERS} workers on the embedded broker"));
    let names = Names::new(&settings.broker.name_prefix);
    let broker = MemoryBroker::new(&Topology::for_models(&settings.broker, &settings.models.serve));
    let (stop, stopped) = watch::channel(false);
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let parts = Parts::load(settings).map_err(|error: AssembleError| Failure::from(error))?;
        let (_, queues) = parts.topology(settings);
        let worker = Arc::new(Worker::new(settings, parts, broker.publisher()));
        let consumer = broker.consumer(&queues, settings.broker.prefetch);
        let mut stopped = stopped.clone();
        workers.spawn(crate::worker::run(worker, consumer, async move {
            drop(stopped.wait_for(|stop| *stop).await);
        }));
    }
    let client = embedded_client(settings, keys, &broker, &names);
    let outcome = submit_posts(&client, args, context, posts, "the embedded broker".to_owned()).await;
    client.stop().await;
    stop.send_replace(true);
    workers.join_all().await;
    Ok(outcome)
}

fn embedded_client(
    settings: &Settings,
    keys: ProducerKeys,
    broker: &MemoryBroker,
    names: &Names,
) -> Client<crate::broker::memory::MemoryPublisher> {
    let reply_queue = reply_queue_name(&keys);
    broker.declare_reply_queue(&names.replies_exchange(), &reply_queue);
    let replies = broker.consumer(std::slice::from_ref(&reply_queue), MAX_PREFETCH);
    let client_settings = ClientSettings {
        audience: settings.service.audience.clone(),
        jobs_exchange: names.jobs_exchange(),
        reply_queue,
        lifetime: settings.limits.max_lifetime,
        max_pending: MAX_PENDING_REPLIES,
    };
    Client::new(client_settings, keys, broker.publisher(), replies)
}
