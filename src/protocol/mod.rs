//! The words on the wire: AMQP properties, tensors, requests and responses of the Open Inference Protocol v2.
//!
//! Pure types and their reading and writing; no I/O, no keys, no models.

pub mod properties;
pub mod tensor;

pub mod request;
pub mod response;
