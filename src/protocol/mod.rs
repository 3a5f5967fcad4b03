//! The words on the wire: AMQP properties, tensors, requests and responses of the Open Inference Protocol v2.
//!
//! Pure types and their reading and writing; no I/O, no keys, no models.

pub mod announcement;
pub mod body;
pub mod model_ref;
pub mod properties;
pub mod request;
pub mod response;
pub mod tensor;
pub mod tensor_rows;
pub mod tensor_spec;

mod json_elements;
mod json_tokens;
mod named_tensor;
mod tensor_binary;
mod tensor_json;

#[cfg(test)]
mod strategies_tests;
