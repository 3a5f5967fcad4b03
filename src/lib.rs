//! inferq: an asynchronous inference worker on RabbitMQ.
//!
//! The walk of one job, and the module that takes each step:
//!
//! 1. [`broker`] hands out a `Delivery`, parted into a `Message` and a `Receipt`.
//! 2. [`envelope`] opens the message: an authenticated `OpenedJob`.
//! 3. [`protocol`] reads its plaintext as an Open Inference Protocol v2 request.
//! 4. [`model`] resolves the model's name and version.
//! 5. [`preprocess`] prepares the input: rows of tensors.
//! 6. [`batch`] gathers rows of many jobs and hands them to an executor.
//! 7. [`backend`] runs the batch.
//! 8. [`postprocess`] shapes a row's outputs into a response.
//! 9. [`envelope`] seals the response for its producer.
//! 10. [`broker`] publishes it, waits for the confirm, and only then acknowledges the job.
//!
//! [`worker`] is the straight function through these; [`client`] is the producer's side.

pub mod error;
pub mod limits;
pub mod protocol;
pub mod seeded;

pub mod envelope;
pub mod postprocess;
pub mod preprocess;
pub mod settings;

pub mod backend;
pub mod batch;
pub mod broker;
pub mod model;
pub mod telemetry;

pub mod client;
pub mod evaluation;
pub mod worker;

pub mod cli;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
