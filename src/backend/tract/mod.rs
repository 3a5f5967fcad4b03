//! The runtime that serves: ONNX models through tract. The only user of tract.
//!
//! A model is loaded once with open axes as symbols. Where only the batch axis is open, a plan of fixed shapes is made
//! for every batch size that comes, since those are several times faster on convolutions; where a length is open too,
//! one symbolic plan serves all shapes, and is as fast for recurrent models. Every run takes a fresh state: a tract
//! state that is used again on a recurrent model carries the hidden state of the last batch into the next.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, TDim, TValue, ToDim as _,
    TractResult, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::bail;

use self::tensors::{from_tract, to_tract};
use crate::backend::{Backend, BackendError};
use crate::batch::row::{Batch, BatchOutput, RowOutput};
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

mod tensors;

/// What a model is loaded with.
#[derive(Debug, Clone, Copy)]
pub struct GraphSpec<'a> {
    /// The graph's inputs, in the order in which rows have them.
    pub inputs: &'a [TensorSpec],
    /// The graph's outputs, in the order in which rows get them.
    pub outputs: &'a [TensorSpec],
    /// What open axes are filled up with.
    pub padding: i64,
}

/// Why a model cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl LoadError {
    fn new(error: &tract_onnx::prelude::TractError) -> Self {
        // The whole chain: the outermost says which node, the innermost why.
        Self(format!("{error:#}"))
    }
}

/// A loaded ONNX model.
#[derive(Debug)]
pub struct TractBackend {
    plans: Plans,
    inputs: Vec<TensorSpec>,
    outputs: usize,
    padding: i64,
}

/// The compiled forms of a model.
#[derive(Debug)]
enum Plans {
    /// One plan for all shapes.
    Symbolic(Arc<TypedRunnableModel>),
    /// A plan for every batch size; there are at most as many as the batcher's largest batch.
    PerBatchSize { model: Box<TypedModel>, batch: TDim, compiled: Mutex<HashMap<usize, Arc<TypedRunnableModel>>> },
}

impl TractBackend {
    /// Loads the ONNX file `path` and checks it against `spec`.
    ///
    /// # Errors
    /// What tract refuses, with the node and the reason; a panic in tract is an error too.
    pub fn load(path: &Path, spec: GraphSpec<'_>) -> Result<Self, LoadError> {
        let load = std::panic::AssertUnwindSafe(|| Self::load_unguarded(path, spec));
        std::panic::catch_unwind(load)
            .unwrap_or_else(|_| Err(LoadError("tract panicked while it loaded the model".to_owned())))
    }

    fn load_unguarded(path: &Path, spec: GraphSpec<'_>) -> Result<Self, LoadError> {
        let (model, batch) = typed(path, spec).map_err(|error| LoadError::new(&error))?;
        let plans = if spec.inputs.iter().any(TensorSpec::has_open_row_axis) {
            let plan = compile(model).map_err(|error| LoadError::new(&error))?;
            Plans::Symbolic(plan)
        } else {
            Plans::PerBatchSize { model: Box::new(model), batch, compiled: Mutex::new(HashMap::new()) }
        };
        let backend = Self { plans, inputs: spec.inputs.to_vec(), outputs: spec.outputs.len(), padding: spec.padding };
        backend.plan(1).map_err(|error| LoadError::new(&error))?;
        Ok(backend)
    }

    /// The plan for a batch of `size` rows.
    fn plan(&self, size: usize) -> TractResult<Arc<TypedRunnableModel>> {
        match &self.plans {
            Plans::Symbolic(plan) => Ok(Arc::clone(plan)),
            Plans::PerBatchSize { model, batch, compiled } => {
                let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(plan) = compiled.get(&size) {
                    return Ok(Arc::clone(plan));
                }
                let plan = compile(fix(model, batch, size)?)?;
                compiled.insert(size, Arc::clone(&plan));
                Ok(plan)
            }
        }
    }

    fn run_rows(&self, batch: &Batch) -> TractResult<BatchOutput> {
        let inputs = self
            .inputs
            .iter()
            .enumerate()
            .map(|(index, _)| {
                let rows: Vec<_> = batch.rows.iter().filter_map(|row| row.inputs.get(index)).collect();
                to_tract(&rows, self.padding).map(TValue::from)
            })
            .collect::<TractResult<_>>()?;
        // `run` spawns a state of its own for this one batch.
        let outputs = self.plan(batch.rows.len())?.run(inputs)?;
        let mut rows = vec![RowOutput { outputs: Vec::with_capacity(self.outputs) }; batch.rows.len()];
        for output in &outputs {
            for (row, tensor) in rows.iter_mut().zip(from_tract(output, batch.rows.len())?) {
                row.outputs.push(tensor);
            }
        }
        Ok(BatchOutput { rows })
    }
}

impl Backend for TractBackend {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        self.run_rows(batch).map_err(|error| BackendError::Failed(format!("{error:#}")))
    }
}

/// Parses the file, fixes what is known of the inputs, and simplifies. Answers the batch axis beside the model.
fn typed(path: &Path, spec: GraphSpec<'_>) -> TractResult<(TypedModel, TDim)> {
    let mut model = tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        // Exporters write sizes of their example into the value info.
        .with_ignore_value_info(true)
        .model_for_path(path)?;
    let scope = model.symbols.clone();
    let batch = scope.sym("N").to_dim();
    let names: Vec<&str> = spec.inputs.iter().map(|input| input.name.as_str()).collect();
    model.set_input_names(names)?;
    model.select_outputs_by_name(spec.outputs.iter().map(|output| output.name.as_str()))?;
    for (index, input) in spec.inputs.iter().enumerate() {
        let axes = input.row_axes().enumerate().map(|(axis, size)| match size {
            Some(size) => size.to_dim(),
            None => scope.sym(&format!("L{index}_{axis}")).to_dim(),
        });
        let shape: Vec<TDim> = std::iter::once(batch.clone()).chain(axes).collect();
        model.set_input_fact(index, InferenceFact::dt_shape(datum_type(input.datatype)?, shape))?;
    }
    check_outputs(&model, spec)?;
    Ok((model.into_typed()?.into_decluttered()?, batch))
}

/// An output of another type than declared would only show in the first answer.
fn check_outputs(model: &tract_onnx::prelude::InferenceModel, spec: GraphSpec<'_>) -> TractResult<()> {
    for (index, output) in spec.outputs.iter().enumerate() {
        let declared = datum_type(output.datatype)?;
        if let Some(actual) = model.output_fact(index)?.datum_type.concretize().filter(|actual| *actual != declared) {
            bail!("output `{}` is {actual:?}, model.toml says {declared:?}", output.name);
        }
    }
    Ok(())
}

fn fix(model: &TypedModel, batch: &TDim, size: usize) -> TractResult<TypedModel> {
    let TDim::Sym(symbol) = batch else { return Ok(model.clone()) };
    model.set_symbols(&HashMap::from([(symbol.clone(), size.to_dim())]))
}

fn compile(model: TypedModel) -> TractResult<Arc<TypedRunnableModel>> {
    model.into_optimized()?.into_runnable()
}

fn datum_type(datatype: Datatype) -> TractResult<DatumType> {
    Ok(match datatype {
        Datatype::Bool => DatumType::Bool,
        Datatype::Int8 => DatumType::I8,
        Datatype::Int16 => DatumType::I16,
        Datatype::Int32 => DatumType::I32,
        Datatype::Int64 => DatumType::I64,
        Datatype::Uint8 => DatumType::U8,
        Datatype::Uint16 => DatumType::U16,
        Datatype::Uint32 => DatumType::U32,
        Datatype::Uint64 => DatumType::U64,
        Datatype::Fp16 => DatumType::F16,
        Datatype::Fp32 => DatumType::F32,
        Datatype::Fp64 => DatumType::F64,
        Datatype::Bytes => bail!("a graph takes numbers, not BYTES"),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
