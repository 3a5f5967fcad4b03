//! The batching policy on a virtual clock, with recorded cost tables: ratios without noise.
//!
//! `goals` compares it with the best that settings without learning can do, `failures` holds what can go wrong and must not,
//! `fairness` a tenant that floods the worker, `background` rows that give way to jobs, `scatter` a machine that is shared.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod background;
mod failures;
mod fairness;
mod goals;
mod scatter;
mod simulator;
mod tables;
