//! What only a real broker can do: crash, close connections, lose queues, raise alarms, refuse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "amqp/alarm.rs"]
mod alarm;
#[path = "amqp/client.rs"]
mod client;
#[path = "amqp/declare.rs"]
mod declare;
#[path = "amqp/frames.rs"]
mod frames;
#[path = "amqp/reach.rs"]
mod reach;
#[path = "amqp/recovery.rs"]
mod recovery;
#[path = "amqp/returns.rs"]
mod returns;
#[path = "amqp/silence.rs"]
mod silence;
mod support;
#[path = "amqp/tls.rs"]
mod tls;
#[path = "amqp/users.rs"]
mod users;
