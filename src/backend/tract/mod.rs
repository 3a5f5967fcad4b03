//! The runtime that serves: ONNX models through tract. The only user of tract.
//!
//! `graph` reads a file, `plans` and `concrete` hold it compiled for the shapes that come, `tensors` stacks rows and takes them apart. Every
//! run takes a fresh state: a tract state that is used again on a recurrent model carries the hidden state of the last
//! batch into the next.

use std::sync::Arc;

use tract_onnx::prelude::{TValue, TractResult, TypedRunnableModel};

pub use self::inspect::{GraphFacts, inspect};
pub use self::once::run_once;
pub use self::rewrite::{Rewritten, Step, rewrite};

use self::concrete::{Concrete, Shapes};
use self::graph::Graph;
use self::plans::{Plan, Plans, guarded, part_sizes};
use self::tensors::{from_tract, largest, to_tract};
use crate::backend::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput, Row, RowOutput};
use crate::protocol::tensor_spec::TensorSpec;

mod concrete;
mod graph;
mod inspect;
mod lstm;
mod once;
mod plans;
mod rewrite;
mod source;
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
    /// The longest that a row of the model gets, filling included; `None` where rows are not filled up.
    pub longest: Option<usize>,
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

    fn run_rows(&self, batch: &Batch) -> TractResult<BatchOutput> {
        let shapes = self.shapes(&batch.rows)?;
        let mut rows = Vec::with_capacity(batch.rows.len());
        while let Some(rest) = batch.rows.get(rows.len()..).filter(|rest| !rest.is_empty()) {
            rows.extend(self.run_part(rest, &shapes)?);
        }
        Ok(BatchOutput { rows })
    }

    /// Runs the first of `rows` at once, as many as there is a plan for, filled up to `shapes` at least; answers those.
    fn run_part(&self, rows: &[Row], shapes: &Shapes) -> TractResult<Vec<RowOutput>> {
        let (count, shapes, plan) = match &self.plans {
            Plans::Symbolic(plan) => (rows.len(), of_rows(shapes, rows.len()), Arc::clone(plan)),
            Plans::Concrete(concrete) => part(concrete, rows, shapes)?,
        };
        let rows = rows.get(..count).unwrap_or_default();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (index, shape) in shapes.iter().enumerate() {
            let tensors: Vec<_> = rows.iter().filter_map(|row| row.inputs.get(index)).collect();
            let row_shape = shape.get(1..).unwrap_or_default();
            inputs.push(TValue::from(to_tract(&tensors, row_shape, self.padding.value)?));
        }
        // `run` spawns a state of its own for this one batch.
        let outputs = TypedRunnableModel::run(&plan, inputs.into())?;
        let mut answered = vec![RowOutput { outputs: Vec::with_capacity(self.outputs) }; rows.len()];
        for output in &outputs {
            for (row, tensor) in answered.iter_mut().zip(from_tract(output, rows.len())?) {
                row.outputs.push(tensor);
            }
        }
        Ok(answered)
    }

    /// The shapes of inputs of `rows`, filled up as far as plans are.
    fn shapes(&self, rows: &[Row]) -> TractResult<Shapes> {
        let may_be_padded = rows.iter().all(|row| row.may_be_padded);
        let mut shapes = Vec::with_capacity(self.inputs.len());
        for (index, spec) in self.inputs.iter().enumerate() {
            let mut shape = largest(rows.iter().filter_map(|row| row.inputs.get(index)))?;
            for (axis, fixed) in shape.iter_mut().zip(spec.row_axes()).filter(|_| may_be_padded) {
                if fixed.is_none() {
                    *axis = self.planned_length(*axis);
                }
            }
            shapes.push(std::iter::once(rows.len()).chain(shape).collect());
        }
        Ok(shapes)
    }

    /// What rows of `length` are filled up to.
    fn planned_length(&self, length: usize) -> usize {
        self.padding.longest.map_or(length, |longest| self.plans.padded(length, longest))
    }

    /// The longest open axis of inputs of these shapes; `None` where none is open.
    fn open_length(&self, shapes: &Shapes) -> Option<usize> {
        let own = |(spec, shape): (&TensorSpec, &Vec<usize>)| {
            let axes = spec.row_axes().zip(shape.iter().skip(1));
            axes.filter_map(|(fixed, size)| fixed.is_none().then_some(*size)).max()
        };
        self.inputs.iter().zip(shapes).filter_map(own).max()
    }

    /// Whether inputs of these shapes are those of rows of `length`.
    fn are_of_length(&self, shapes: &Shapes, length: usize) -> bool {
        self.open_length(shapes).is_none_or(|open| open == self.planned_length(length))
    }

    /// The shapes of inputs of `rows` rows of `length`; `None` where the length does not tell them.
    fn shapes_of_length(&self, concrete: &Concrete, rows: usize, length: usize) -> Option<Shapes> {
        // Like those of a batch that has run: then even several open axes are known.
        let ran = concrete.latest(|shapes| self.are_of_length(shapes, length));
        let shapes = ran.or_else(|| {
            let open_axes = self.inputs.iter().flat_map(TensorSpec::row_axes).filter(Option::is_none).count();
            let length = self.planned_length(length);
            let shape = |input: &TensorSpec| {
                std::iter::once(rows).chain(input.row_axes().map(|axis| axis.unwrap_or(length))).collect()
            };
            (self.padding.longest.is_some() || open_axes < 2).then(|| self.inputs.iter().map(shape).collect())
        })?;
        Some(of_rows(&shapes, rows))
    }
}

/// How many of `rows` to run next, in inputs of which shapes, in which plan.
fn part(concrete: &Concrete, rows: &[Row], shapes: &Shapes) -> TractResult<(usize, Shapes, Plan)> {
    let largest = 1 << rows.len().ilog2();
    let sizes = || std::iter::successors(Some(largest), |size| Some(size / 2)).take_while(|size| *size > 0);
    let may_be_padded = rows.iter().all(|row| row.may_be_padded);
    // The largest part that has a plan of its own shape, before any in which rows are filled up further.
    for may_be_padded in [false, may_be_padded] {
        let mut warm = sizes().filter_map(|size| Some((size, concrete.warm(&of_rows(shapes, size), may_be_padded)?)));
        if let Some((size, shapes)) = warm.next() {
            let plan = concrete.plan(&shapes)?;
            return Ok((size, shapes, plan));
        }
    }
    let shapes = of_rows(shapes, largest);
    let plan = concrete.plan(&shapes)?;
    Ok((largest, shapes, plan))
}

/// `shapes` with so many rows.
fn of_rows(shapes: &Shapes, rows: usize) -> Shapes {
    let mut shapes = shapes.clone();
    shapes.iter_mut().filter_map(|shape| shape.first_mut()).for_each(|own| *own = rows);
    shapes
}

impl Backend for TractBackend {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        self.run_rows(batch).map_err(|error| BackendError::Failed(format!("{error:#}")))
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        (rows, self.planned_length(length))
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        match &self.plans {
            Plans::Symbolic(_) => true,
            Plans::Concrete(concrete) => {
                part_sizes(rows).all(|size| concrete.is_warm(size, |shapes| self.are_of_length(shapes, length)))
            }
        }
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        match &self.plans {
            Plans::Symbolic(_) => true,
            Plans::Concrete(concrete) => part_sizes(rows).all(|size| {
                concrete.is_warm(size, |shapes| self.are_of_length(shapes, length)) || {
                    let shapes = self.shapes_of_length(concrete, size, length);
                    shapes.is_some_and(|shapes| concrete.plan(&shapes).is_ok())
                }
            }),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
