//! Declares a topology: every exchange, queue and binding, or an error that names which argument differs.

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ExchangeKind};

use super::connect::{ConnectError, close_channel};
use crate::broker::topology::{Argument, Queue, Topology};

/// Declares all of `topology` on a channel of its own; declaring again what stands changes nothing.
pub(super) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), ConnectError> {
    let channel = connection.create_channel().await?;
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions {
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
        };
        channel
            .exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default())
            .await
            .map_err(|error| refused(format!("exchange `{exchange}`"), &error))?;
    }
    for queue in &topology.queues {
        declare_queue(&channel, queue).await?;
    }
    close_channel(&channel).await;
    Ok(())
}

/// Deletes all of `topology`; what does not stand is no error.
pub(super) async fn delete(connection: &Connection, topology: &Topology) -> Result<(), ConnectError> {
    let channel = connection.create_channel().await?;
    for queue in &topology.queues {
        let options = QueueDeleteOptions { if_unused: false, if_empty: false, nowait: false };
        channel.queue_delete(queue.name.as_str().into(), options).await?;
    }
    for exchange in &topology.exchanges {
        let options = ExchangeDeleteOptions { if_unused: false, nowait: false };
        channel.exchange_delete(exchange.as_str().into(), options).await?;
    }
    close_channel(&channel).await;
    Ok(())
}

async fn declare_queue(channel: &lapin::Channel, queue: &Queue) -> Result<(), ConnectError> {
    let name = &queue.name;
    let options =
        QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };
    channel
        .queue_declare(name.as_str().into(), options, arguments(queue))
        .await
        .map_err(|error| refused(format!("queue `{name}`"), &error))?;
    for binding in &queue.bindings {
        let (exchange, key) = (binding.exchange.as_str(), binding.routing_key.as_str());
        channel
            .queue_bind(
                name.as_str().into(),
                exchange.into(),
                key.into(),
                QueueBindOptions { nowait: false },
                FieldTable::default(),
            )
            .await
            .map_err(|error| refused(format!("binding of queue `{name}` to exchange `{exchange}`"), &error))?;
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

/// The broker closes the channel with words that name the argument, what stands and what came. Everything else, such as
/// a broken connection, is no fault of the declaration.
fn refused(what: String, error: &lapin::Error) -> ConnectError {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(fault) => ConnectError::Declare { what, reason: fault.to_string() },
        _ => ConnectError::Broken(error.clone()),
    }
}
