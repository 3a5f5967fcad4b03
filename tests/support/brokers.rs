//! Both brokers behind one face, for tests that hold for either.

use inferq::broker::amqp::{self, AmqpConsumer, AmqpPublisher, Connectivity, Subscription};
use inferq::broker::memory::{MemoryBroker, MemoryConsumer, MemoryPublisher};
use inferq::broker::prefetch::Prefetch;
use inferq::broker::topology::{Names, Topology};
use inferq::broker::{Consumer, Publisher, Queues};
use inferq::settings::BrokerSettings;
use tokio::sync::watch;

use super::rabbitmq::{VirtualHost, virtual_host};
use super::{broker_settings, soon};

/// The model whose queues the tests use.
pub const MODEL: &str = "topic";

/// A broker with the topology of one model.
pub trait TestBroker: Sized {
    /// Its consumer.
    type Consumer: Consumer;
    /// Its publisher.
    type Publisher: Publisher;

    /// A fresh broker; `adjust` changes the settings that the topology is made of.
    async fn fresh(adjust: impl FnOnce(&mut BrokerSettings)) -> Self;

    /// Consumes `queues` with this prefetch, and publishes.
    async fn open(&self, queues: &[String], prefetch: u16) -> (Self::Consumer, Self::Publisher) {
        self.open_following(queues, Prefetch::fixed(prefetch)).await
    }

    /// The same with a prefetch that may change.
    async fn open_following(&self, queues: &[String], prefetch: Prefetch) -> (Self::Consumer, Self::Publisher) {
        self.open_all(queues.to_vec().into(), prefetch).await
    }

    /// The same with queues of either kind.
    async fn open_all(&self, queues: Queues, prefetch: Prefetch) -> (Self::Consumer, Self::Publisher);

    /// Declares a reply queue and binds it.
    async fn declare_reply_queue(&self, name: &str);
}

/// How the tests' exchanges and queues are called.
pub fn names() -> Names {
    Names::new("inferq")
}

/// The topology of one model.
pub fn topology(settings: &BrokerSettings) -> Topology {
    Topology::for_models(settings, &[MODEL.to_owned()])
}

/// The broker inside the process.
pub struct Memory {
    /// The broker itself.
    pub broker: MemoryBroker,
}

impl TestBroker for Memory {
    type Consumer = MemoryConsumer;
    type Publisher = MemoryPublisher;

    async fn fresh(adjust: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut settings = broker_settings(String::new().into());
        adjust(&mut settings);
        Self { broker: MemoryBroker::new(&topology(&settings)) }
    }

    async fn open_all(&self, queues: Queues, prefetch: Prefetch) -> (MemoryConsumer, MemoryPublisher) {
        (self.broker.consumer_following(&queues, prefetch), self.broker.publisher())
    }

    async fn declare_reply_queue(&self, name: &str) {
        self.broker.declare_reply_queue(&names().replies_exchange(), name);
    }
}

/// RabbitMQ: a virtual host of its own.
pub struct Rabbit<'a> {
    /// Where it is.
    pub vhost: VirtualHost<'a>,
    /// What its topology was made of.
    pub settings: BrokerSettings,
}

impl<'a> Rabbit<'a> {
    /// The broker at `vhost`.
    pub fn at(vhost: VirtualHost<'a>) -> Self {
        Self { settings: broker_settings(vhost.url()), vhost }
    }

    /// Starts consuming `queues`; does not wait for it.
    pub fn start(
        &self,
        queues: &[String],
        prefetch: u16,
    ) -> (AmqpConsumer, AmqpPublisher, watch::Receiver<Connectivity>) {
        self.start_following(queues.to_vec().into(), Prefetch::fixed(prefetch))
    }

    /// The same with queues of either kind, and a prefetch that may change.
    pub fn start_following(
        &self,
        queues: Queues,
        prefetch: Prefetch,
    ) -> (AmqpConsumer, AmqpPublisher, watch::Receiver<Connectivity>) {
        let subscription =
            Subscription { topology: topology(&self.settings), queues, connection_name: "a test".to_owned() };
        amqp::start_following(&self.settings, subscription, prefetch).unwrap()
    }
}

impl TestBroker for Rabbit<'static> {
    type Consumer = AmqpConsumer;
    type Publisher = AmqpPublisher;

    async fn fresh(adjust: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut rabbit = Self::at(virtual_host().await);
        adjust(&mut rabbit.settings);
        rabbit
    }

    async fn open_all(&self, queues: Queues, prefetch: Prefetch) -> (AmqpConsumer, AmqpPublisher) {
        let (consumer, publisher, mut connectivity) = self.start_following(queues, prefetch);
        consuming(&mut connectivity).await;
        (consumer, publisher)
    }

    async fn declare_reply_queue(&self, name: &str) {
        amqp::apply(&self.settings, &Topology::for_replies(&names(), name)).await.unwrap();
    }
}

/// Waits until every queue is consumed.
pub async fn consuming(connectivity: &mut watch::Receiver<Connectivity>) {
    soon("consuming", connectivity.wait_for(|now| *now == Connectivity::Consuming)).await.unwrap();
}

/// Waits until it is noticed that nothing is consumed; what was noticed. For a broker that stays away.
pub async fn not_consuming(connectivity: &mut watch::Receiver<Connectivity>) -> Connectivity {
    soon("losing the broker", connectivity.wait_for(|now| *now != Connectivity::Consuming)).await.unwrap().clone()
}

/// Does `deed` and waits until the session that it ends is lost; what was noticed. The watch begins before the deed:
/// the next session may stand before the deed has returned.
pub async fn losing_the_session(
    connectivity: &watch::Receiver<Connectivity>,
    deed: impl Future<Output = ()>,
) -> Connectivity {
    let mut watched = connectivity.clone();
    let noticed = tokio::spawn(async move { not_consuming(&mut watched).await });
    deed.await;
    noticed.await.unwrap()
}
