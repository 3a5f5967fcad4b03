//! How rows of many jobs become batches: formed late, when an executor is free, out of a pool of waiting rows.
//!
//! `pool` holds what waits, `cost` knows what batches cost, `policy` decides what to run (both pure: no clock, no I/O),
//! `batcher` is the async driver, `compiling` has it compile beside the jobs, `report` is what it tells.

pub mod batcher;
mod compiling;
pub mod cost;
pub mod policy;
pub mod pool;
pub mod report;
pub mod row;
