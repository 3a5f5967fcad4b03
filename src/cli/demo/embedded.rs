//! The demo on the embedded broker: two workers as tasks of this process.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::posts::Post;
use super::{DemoArgs, Outcome, WORKERS, say, submit_posts};
use crate::broker::memory::MemoryBroker;
use crate::broker::topology::Topology;
use crate::cli::Context;
use crate::cli::embedded_client::embedded_client;
use crate::cli::failure::Failure;
use crate::envelope::ProducerKeys;
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
    let client = embedded_client(settings, keys, &broker);
    let outcome = submit_posts(&client, args, context, posts, "the embedded broker".to_owned()).await;
    client.stop().await;
    stop.send_replace(true);
    workers.join_all().await;
    Ok(outcome)
}
