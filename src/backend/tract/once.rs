//! One run of a file on whole tensors: how single operators are tried, which have no rows.
//!
//! Used by `make operators` alone; whatever serves takes batches of rows.

use tract_onnx::prelude::{IntoTensor as _, TValue, TractResult, TypedRunnableModel};
use tract_onnx::tract_hir::internal::bail;

use super::LoadError;
use super::graph::Graph;
use super::plans::{compile, guarded};
use super::tensors::{from_tract, to_tract};
use crate::protocol::tensor::Tensor;
use crate::protocol::tensor_spec::TensorSpec;

/// Reads an ONNX file as a model's, compiles it for these inputs, and runs it once.
///
/// # Errors
/// What tract refuses, with the node and the reason.
pub fn run_once(
    onnx: &[u8],
    inputs: &[(TensorSpec, Tensor)],
    outputs: &[TensorSpec],
) -> Result<Vec<Tensor>, LoadError> {
    guarded(|| run(onnx, inputs, outputs)).map_err(|error| LoadError(format!("{error:#}")))
}

fn run(onnx: &[u8], inputs: &[(TensorSpec, Tensor)], outputs: &[TensorSpec]) -> TractResult<Vec<Tensor>> {
    let specs: Vec<TensorSpec> = inputs.iter().map(|(spec, _)| spec.clone()).collect();
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
    let plan = compile(Graph::parse(onnx, &specs, outputs)?.concrete(&shapes)?)?;
    let mut given = Vec::with_capacity(inputs.len());
    for (_, tensor) in inputs {
        // Stacked as one row, and the axis of rows taken away again.
        let row = to_tract(&[tensor], tensor.shape(), 0)?.into_shape(tensor.shape())?;
        given.push(TValue::from(row));
    }
    let mut answered = Vec::with_capacity(outputs.len());
    for output in TypedRunnableModel::run(&plan, given.into())? {
        let shape: Vec<usize> = std::iter::once(1).chain(output.shape().iter().copied()).collect();
        let row = TValue::from(output.into_tensor().into_shape(&shape)?);
        let Some(tensor) = from_tract(&row, 1)?.pop() else { bail!("an output is empty") };
        answered.push(tensor);
    }
    Ok(answered)
}
