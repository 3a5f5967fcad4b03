//! The runtime that serves: ONNX models through tract. The only user of tract.
//!
//! `graph` reads a file, `plans` compiles it for the shapes that come, `tensors` stacks rows and takes them apart. Every
//! run takes a fresh state: a tract state that is used again on a recurrent model carries the hidden state of the last
//! batch into the next.

use tract_onnx::prelude::{TValue, TractResult, TypedRunnableModel};

pub use self::inspect::{GraphFacts, inspect};

use self::graph::Graph;
use self::plans::{Plans, guarded};
use self::tensors::{from_tract, largest, to_tract};
use crate::backend::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput, Row, RowOutput};
use crate::protocol::tensor_spec::TensorSpec;

mod graph;
mod inspect;
mod lstm;
mod plans;
mod tensors;

/// What a model is loaded with.
#[derive(Debug, Clone, Copy)]
pub struct GraphSpec<'a> {
    /// The graph's inputs, in the order in which rows have them.
    pub inputs: &'a [TensorSpec],
    /// The graph's outputs, in the order in which rows get them.
    pub outputs: &'a [TensorSpec],
    /// What open axes are filled up with.
    pub padding: Padding,
}

/// How rows are filled up to one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// The filling.
    pub value: i64,
    /// The longest that a row of the model gets, filling included.
    pub longest: usize,
}

/// Why a model cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

/// A loaded ONNX model.
#[derive(Debug)]
pub struct TractBackend {
    plans: Plans,
    inputs: Vec<TensorSpec>,
    outputs: usize,
    padding: Padding,
}

impl TractBackend {
    /// Loads a model from the content of an ONNX file, and checks it against `spec`.
    ///
    /// # Errors
    /// What tract refuses, with the node and the reason; a panic in tract is an error too.
    pub fn load(onnx: &[u8], spec: GraphSpec<'_>) -> Result<Self, LoadError> {
        Self::of(|| Graph::parse(onnx, spec.inputs, spec.outputs), spec)
    }

    /// Loads a model as tract alone would run it: what the operators of our own are measured and tested against.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_unfused(onnx: &[u8], spec: GraphSpec<'_>) -> Result<Self, LoadError> {
        Self::of(|| Graph::parse_unfused(onnx, spec.inputs, spec.outputs), spec)
    }

    fn of(parse: impl FnOnce() -> TractResult<Graph>, spec: GraphSpec<'_>) -> Result<Self, LoadError> {
        let plans = guarded(|| Plans::new(parse()?));
        // The whole chain: the outermost says which node, the innermost why.
        let plans = plans.map_err(|error| LoadError(format!("{error:#}")))?;
        Ok(Self { plans, inputs: spec.inputs.to_vec(), outputs: spec.outputs.len(), padding: spec.padding })
    }

    /// Runs `rows` at once.
    fn run_part(&self, rows: &[Row]) -> TractResult<Vec<RowOutput>> {
        let mut shapes = Vec::with_capacity(self.inputs.len());
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (index, spec) in self.inputs.iter().enumerate() {
            let tensors: Vec<_> = rows.iter().filter_map(|row| row.inputs.get(index)).collect();
            let mut shape = largest(&tensors)?;
            if rows.iter().all(|row| row.may_be_padded) {
                self.fill_up(spec, &mut shape);
            }
            let tensor = to_tract(&tensors, &shape, self.padding.value)?;
            shapes.push(tensor.shape().to_vec());
            inputs.push(TValue::from(tensor));
        }
        // `run` spawns a state of its own for this one batch.
        let outputs = TypedRunnableModel::run(&self.plans.plan(&shapes)?, inputs.into())?;
        let mut answered = vec![RowOutput { outputs: Vec::with_capacity(self.outputs) }; rows.len()];
        for output in &outputs {
            for (row, tensor) in answered.iter_mut().zip(from_tract(output, rows.len())?) {
                row.outputs.push(tensor);
            }
        }
        Ok(answered)
    }

    fn fill_up(&self, spec: &TensorSpec, shape: &mut [usize]) {
        for (axis, fixed) in shape.iter_mut().zip(spec.row_axes()) {
            if fixed.is_none() {
                *axis = self.plans.padded(*axis, self.padding.longest);
            }
        }
    }

    fn run_rows(&self, batch: &Batch) -> TractResult<BatchOutput> {
        let mut rows = Vec::with_capacity(batch.rows.len());
        let mut rest = batch.rows.as_slice();
        while !rest.is_empty() {
            let (part, later) = rest.split_at(self.plans.part_size(rest.len()));
            rows.extend(self.run_part(part)?);
            rest = later;
        }
        Ok(BatchOutput { rows })
    }
}

impl Backend for TractBackend {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        self.run_rows(batch).map_err(|error| BackendError::Failed(format!("{error:#}")))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
