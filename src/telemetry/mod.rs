//! Logs, metrics, health: what an operator sees of a worker.
//!
//! `names` declares every metric, `labels` every label's closed set of words, [`metrics`] counts, [`health`] tells
//! whether jobs are consumed, [`http`] serves both, [`logging`] writes to standard error. No content of a job ever
//! gets here: ids, codes, sizes and times alone.

pub mod labels;
pub mod names;

pub mod batches;
pub mod metrics;
mod process;

pub mod health;
pub mod http;
pub mod logging;
