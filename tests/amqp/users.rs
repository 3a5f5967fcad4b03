//! Users of the broker that may do what they need and nothing else: the permissions in `deploy/rabbitmq/permissions.json`, tried
//! out on a node.

use inferq::broker::amqp;
use inferq::broker::amqp::letters::LetterBox;
use inferq::broker::topology::Topology;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::support::broker_settings;
use crate::support::brokers::{Rabbit, names, topology};
use crate::support::rabbitmq::{VirtualHost, virtual_host};
use crate::support::soon;

const PASSWORD: &str = "a-password-of-a-test";

/// Makes a user with the permissions of `role` in this virtual host alone; answers its URL.
async fn user(vhost: &VirtualHost<'_>, role: &str, tenant: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq/permissions.json");
    let permissions: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let granted = |kind: &str| permissions[role][kind].as_str().unwrap().replace("{tenant}", tenant);
    let name = format!("{}-{role}-{tenant}", vhost.name);
    vhost.node.control(&["add_user", &name, PASSWORD]).await;
    let rights = [granted("configure"), granted("write"), granted("read")];
    let command = ["set_permissions", "--vhost", &vhost.name, &name, &rights[0], &rights[1], &rights[2]];
    vhost.node.control(&command).await;
    let url = vhost.url().expose_secret().to_owned();
    let (_, place) = url.rsplit_once('@').unwrap();
    format!("amqp://{name}:{PASSWORD}@{place}")
}

async fn connect(url: &str) -> Connection {
    soon("connecting", Connection::connect(url, ConnectionProperties::default())).await.unwrap()
}

/// Whether the broker lets `deed` be done; what it refuses costs the channel, so that each has one of its own.
async fn may<F: Future<Output = lapin::Result<()>>>(connection: &Connection, deed: impl FnOnce(Channel) -> F) -> bool {
    let channel = soon("a channel", connection.create_channel()).await.unwrap();
    match soon("an answer", deed(channel)).await {
        Ok(()) => true,
        Err(error) => {
            assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
            false
        }
    }
}

async fn may_declare(connection: &Connection, queue: &str) -> bool {
    may(connection, async |channel| {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.map(drop)
    })
    .await
}

async fn may_bind(connection: &Connection, queue: &str, exchange: &str, key: &str) -> bool {
    may(connection, async |channel| {
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
    })
    .await
}

async fn may_consume(connection: &Connection, queue: &str) -> bool {
    may(connection, async |channel| {
        let options = BasicConsumeOptions::default();
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.map(drop)
    })
    .await
}

async fn may_publish(connection: &Connection, exchange: &str, key: &str) -> bool {
    may(connection, async |channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(exchange.into(), key.into(), options, b"x", properties).await?.await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_tenants_user_reaches_its_own_replies_and_nothing_else() {
    let rabbit = Rabbit::at(virtual_host().await);
    amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    let acme = connect(&user(&rabbit.vhost, "tenant", "acme").await).await;
    let other = connect(&user(&rabbit.vhost, "tenant", "other").await).await;
    assert!(may_declare(&other, "other.replies").await);

    assert!(may_declare(&acme, "acme.replies").await);
    assert!(may_bind(&acme, "acme.replies", "inferq.replies", "acme.replies").await);
    assert!(may_publish(&acme, "inferq.jobs", "topic").await);
    assert!(may_publish(&acme, "inferq.queries", "query").await, "it cannot ask which models there are");
    assert!(may_bind(&acme, "acme.replies", "inferq.models", "acme").await, "it cannot hear which models there are");
    assert!(may_consume(&acme, "acme.replies").await);

    for queue in ["inferq.jobs.topic", "inferq.dead.topic", "inferq.undeliverable", "other.replies"] {
        assert!(!may_consume(&acme, queue).await, "it reads {queue}");
    }
    for exchange in ["inferq.dead", "inferq.retry", "inferq.replies", "inferq.models", ""] {
        assert!(!may_publish(&acme, exchange, "topic").await, "it publishes to `{exchange}`");
    }
    for queue in ["inferq.jobs.mine", "other.mine", "acmex.mine"] {
        assert!(!may_declare(&acme, queue).await, "it declares {queue}");
    }
    for exchange in ["inferq.jobs", "inferq.dead", "inferq.retry", "inferq.queries"] {
        assert!(!may_bind(&acme, "acme.replies", exchange, "topic").await, "it listens at {exchange}");
    }
    let deletes = may(&acme, async |channel| {
        channel.queue_delete("inferq.jobs.topic".into(), QueueDeleteOptions::default()).await.map(drop)
    });
    assert!(!deletes.await, "it deletes a queue of jobs");
}

/// Regression: a client declared the exchange of replies, which its user may not, although it stands.
#[tokio::test]
async fn a_client_needs_no_more_than_its_users_permissions() {
    let rabbit = Rabbit::at(virtual_host().await);
    amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    let settings = broker_settings(user(&rabbit.vhost, "tenant", "acme").await.into());
    let replies = Topology::for_replies(&names(), "acme.replies.1");
    amqp::apply(&settings, &replies).await.unwrap();
    let announcements = Topology::for_announcements(&names(), "acme.models.1", "acme");
    amqp::apply(&settings, &announcements).await.unwrap();
    // Where the exchange is missing, the client is told so: it may not make one.
    amqp::remove(&rabbit.settings, &Topology { queues: Vec::new(), ..replies.clone() }).await.unwrap();
    let error = amqp::apply(&settings, &replies).await.unwrap_err().to_string();
    assert!(error.contains("inferq.replies") && error.contains("ACCESS_REFUSED"), "{error}");
}

/// Regression: whoever may not read dead letters was told that their queue is not there.
#[tokio::test]
async fn who_may_not_read_letters_is_told_so() {
    let rabbit = Rabbit::at(virtual_host().await);
    amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    let settings = broker_settings(user(&rabbit.vhost, "tenant", "acme").await.into());
    let told = LetterBox::open(&settings, "inferq.dead.topic").await.unwrap_err().to_string();
    assert!(told.contains("may not be read") && told.contains("ACCESS_REFUSED"), "{told}");
    let missing = LetterBox::open(&rabbit.settings, "inferq.dead.nosuch").await.unwrap_err().to_string();
    assert!(missing.contains("is not there") && missing.contains("NOT_FOUND"), "{missing}");
    // It is there, and another connection's own.
    let owner = connect(rabbit.settings.url.expose_secret()).await;
    let channel = soon("a channel", owner.create_channel()).await.unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    soon("a queue", channel.queue_declare("mine".into(), options, FieldTable::default())).await.unwrap();
    let locked = LetterBox::open(&rabbit.settings, "mine").await.unwrap_err().to_string();
    assert!(locked.starts_with("no letter can be taken out of queue `mine`: RESOURCE_LOCKED"), "{locked}");
}

#[tokio::test]
async fn the_workers_user_declares_its_own_and_reads_no_replies() {
    let rabbit = Rabbit::at(virtual_host().await);
    let url = user(&rabbit.vhost, "worker", "any").await;
    let settings = broker_settings(url.clone().into());
    amqp::apply(&settings, &topology(&settings)).await.unwrap();
    let worker = connect(&url).await;
    let acme = connect(&user(&rabbit.vhost, "tenant", "acme").await).await;
    assert!(may_declare(&acme, "acme.replies").await);

    assert!(may_consume(&worker, "inferq.jobs.topic").await);
    for exchange in ["inferq.replies", "inferq.dead", "inferq.retry", "inferq.models"] {
        assert!(may_publish(&worker, exchange, "topic").await, "{exchange}");
    }
    assert!(!may_consume(&worker, "acme.replies").await, "it reads a tenant's replies");
    assert!(!may_declare(&worker, "acme.mine").await && !may_declare(&worker, "mine").await);
    assert!(!may_publish(&worker, "", "acme.replies").await, "it goes around the exchange of replies");
}
