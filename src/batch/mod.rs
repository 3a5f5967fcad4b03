//! How rows of many jobs become batches: formed late, when an executor is free, out of a pool of waiting rows.
//!
//! `pool` holds what waits, `policy` decides what to run (pure: no clock, no I/O), `batcher` is the async driver.

pub mod batcher;
pub mod policy;
pub mod pool;
pub mod row;
