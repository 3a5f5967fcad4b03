//! Rows, batches, and how they are formed.

pub mod row;
