//! Declares a topology: every exchange, queue and binding, or an error that names which argument differs.
//!
//! Called for each session and by `inferq topology`. Changes nothing that stands.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::connect::{ConnectError, answered, close_channel};
use crate::broker::topology::{Argument, Queue, Topology};

/// Declares all of `topology` on a channel of its own; declaring again what stands changes nothing. Each answer is waited
/// for as long as `limit`.
pub(super) async fn declare(connection: &Connection, topology: &Topology, limit: Duration) -> Result<(), ConnectError> {
    let mut channel = answered(limit, || "a channel".to_owned(), connection.create_channel()).await?;
    for exchange in &topology.exchanges {
        match declare_exchange(&channel, exchange, Presence::Declared, limit).await {
            // Who may not declare it may use what others have declared. The refusal has cost the channel.
            Err(refusal @ ConnectError::Declare { .. }) if refusal.is_forbidden() => {
                channel = answered(limit, || "a channel".to_owned(), connection.create_channel()).await?;
                declare_exchange(&channel, exchange, Presence::Expected, limit).await.map_err(|_| refusal)?;
            }
            declared => declared?,
        }
    }
    for queue in &topology.queues {
        declare_queue(&channel, queue, limit).await?;
    }
    close_channel(&channel).await;
    Ok(())
}

/// Whether an exchange may be made, or has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Declared,
    Expected,
}

async fn declare_exchange(
    channel: &Channel,
    exchange: &str,
    presence: Presence,
    limit: Duration,
) -> Result<(), ConnectError> {
    let passive = presence == Presence::Expected;
    let options = ExchangeDeclareOptions { passive, durable: true, auto_delete: false, internal: false, nowait: false };
    let declared = channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, FieldTable::default());
    answered(limit, || format!("exchange `{exchange}`"), declared).await
}

/// Deletes all of `topology`; what does not stand is no error.
pub(super) async fn delete(connection: &Connection, topology: &Topology, limit: Duration) -> Result<(), ConnectError> {
    let channel = answered(limit, || "a channel".to_owned(), connection.create_channel()).await?;
    for queue in &topology.queues {
        let options = QueueDeleteOptions { if_unused: false, if_empty: false, nowait: false };
        let deleted = channel.queue_delete(queue.name.as_str().into(), options);
        answered(limit, || format!("queue `{}`", queue.name), deleted).await?;
    }
    for exchange in &topology.exchanges {
        let options = ExchangeDeleteOptions { if_unused: false, nowait: false };
        let deleted = channel.exchange_delete(exchange.as_str().into(), options);
        answered(limit, || format!("exchange `{exchange}`"), deleted).await?;
    }
    close_channel(&channel).await;
    Ok(())
}

async fn declare_queue(channel: &Channel, queue: &Queue, limit: Duration) -> Result<(), ConnectError> {
    let name = &queue.name;
    let is_exclusive = queue.is_exclusive;
    let options = QueueDeclareOptions {
        passive: false,
        durable: !is_exclusive,
        exclusive: is_exclusive,
        auto_delete: is_exclusive,
        nowait: false,
    };
    let declared = channel.queue_declare(name.as_str().into(), options, arguments(queue));
    answered(limit, || format!("queue `{name}`"), declared).await?;
    for binding in &queue.bindings {
        let (exchange, key) = (binding.exchange.as_str(), binding.routing_key.as_str());
        let options = QueueBindOptions { nowait: false };
        let bound =
            channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), options, FieldTable::default());
        answered(limit, || format!("binding of queue `{name}` to exchange `{exchange}`"), bound).await?;
    }
    Ok(())
}

fn arguments(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Integer(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}
