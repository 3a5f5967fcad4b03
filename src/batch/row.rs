//! What a batch is made of: rows in, rows out, each without its batch axis.
//!
//! `preprocess` makes [`Row`]s, the batcher gathers them into a [`Batch`], a backend answers with as many
//! [`RowOutput`]s in the same order.

use std::time::Duration;

use crate::protocol::tensor::Tensor;

/// Who may share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchScope {
    /// Rows of all tenants.
    Shared,
    /// Rows of one tenant.
    Tenant,
}

/// One row of a model's inputs, ready to be batched.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// One tensor per graph input, in the order of the model's spec, without the batch axis.
    pub inputs: Vec<Tensor>,
    /// Length along the open axis (tokens of a text); 1 where every axis is fixed. What padding costs follows it.
    pub length: usize,
    /// Whether the model reads padding as padding. Rows that may not be padded share a batch only with their like.
    pub may_be_padded: bool,
}

impl Row {
    /// Elements of all its inputs.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.inputs.iter().map(|input| input.elements().len()).sum()
    }

    /// Moves the row out; what stays has its length and no inputs.
    pub(super) fn take(&mut self) -> Self {
        let Self { length, may_be_padded, .. } = *self;
        Self { inputs: std::mem::take(&mut self.inputs), length, may_be_padded }
    }

    /// Whether both rows can be in one batch.
    #[must_use]
    pub fn fits_with(&self, other: &Self) -> bool {
        let same_shape = || self.inputs.iter().map(Tensor::shape).eq(other.inputs.iter().map(Tensor::shape));
        (self.may_be_padded && other.may_be_padded) || same_shape()
    }
}

/// Rows that are run together.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows; never empty.
    pub rows: Vec<Row>,
}

impl Batch {
    /// The longest row's length: what every row is padded to.
    #[must_use]
    pub fn padded_length(&self) -> usize {
        self.rows.iter().map(|row| row.length).max().unwrap_or(0)
    }
}

/// One row of a model's outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct RowOutput {
    /// One tensor per graph output, in the order of the model's spec, without the batch axis.
    pub outputs: Vec<Tensor>,
}

/// What a backend made of a batch: as many rows as went in, in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOutput {
    /// The rows.
    pub rows: Vec<RowOutput>,
}

/// A row's result, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// What the model answered.
    pub output: RowOutput,
    /// Rows in its batch.
    pub batch_size: usize,
    /// How long it waited for an executor.
    pub waited: Duration,
    /// How long its batch ran.
    pub ran: Duration,
}
