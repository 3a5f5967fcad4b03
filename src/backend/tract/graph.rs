//! From an ONNX file to a typed graph: parsed once, its inputs and outputs checked against `model.toml`, then shaped.
//!
//! Called by `plans`, for open axes as symbols or for one concrete shape. Knows nothing of batches or runs.

use tract_onnx::Onnx;
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModel, InferenceModelExt as _, Symbol, TDim, ToDim as _,
    TractResult, TypedModel,
};
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::bail;

use super::lstm;
use super::rewrite::halves;
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

/// A parsed ONNX file whose inputs and outputs are those of `model.toml`, in that order.
#[derive(Debug)]
pub(super) struct Graph {
    model: InferenceModel,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Graph {
    /// Parses the content of an ONNX file.
    pub(super) fn parse(onnx: &[u8], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> TractResult<Self> {
        let mut reader = tract_onnx::onnx();
        reader.op_register.insert("LSTM", lstm::read);
        Self::read(reader, onnx, inputs, outputs)
    }

    /// Parses the content of an ONNX file, with the operators that tract has of its own alone.
    pub(super) fn parse_unfused(onnx: &[u8], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> TractResult<Self> {
        Self::read(tract_onnx::onnx(), onnx, inputs, outputs)
    }

    fn read(reader: Onnx, mut onnx: &[u8], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> TractResult<Self> {
        // Exporters write sizes of their example into the value info.
        let reader = reader.with_ignore_output_shapes(true).with_ignore_value_info(true);
        let mut file = reader.proto_model_for_read(&mut onnx)?;
        if let Some(graph) = &mut file.graph {
            halves::widen(graph);
        }
        let mut model = reader.model_for_proto_model(&file)?;
        check_inputs(&model, inputs)?;
        model.set_input_names(inputs.iter().map(|input| input.name.as_str()))?;
        model.select_outputs_by_name(outputs.iter().map(|output| output.name.as_str()))?;
        Ok(Self { model, inputs: inputs.to_vec(), outputs: outputs.to_vec() })
    }

    /// The inputs as `model.toml` has them.
    pub(super) fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The graph with every open axis as a symbol, and the symbol of the batch axis. tract refuses many graphs so.
    pub(super) fn symbolic(&self) -> TractResult<(TypedModel, Symbol)> {
        let scope = &self.model.symbols;
        let batch = scope.sym("batch_axis");
        let shapes = self.inputs.iter().enumerate().map(|(index, input)| {
            let axes = input.row_axes().enumerate().map(|(axis, size)| match size {
                Some(size) => size.to_dim(),
                None => scope.sym(&format!("row_axis_{index}_{axis}")).to_dim(),
            });
            std::iter::once(batch.to_dim()).chain(axes).collect()
        });
        Ok((self.typed(shapes.collect())?, batch))
    }

    /// The graph for inputs of exactly these shapes, the batch axis first.
    pub(super) fn concrete(&self, shapes: &[Vec<usize>]) -> TractResult<TypedModel> {
        let in_dims = |shape: &Vec<usize>| shape.iter().map(|axis| axis.to_dim()).collect();
        self.typed(shapes.iter().map(in_dims).collect())
    }

    fn typed(&self, shapes: Vec<Vec<TDim>>) -> TractResult<TypedModel> {
        let mut model = self.model.clone();
        for (index, (input, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            model.set_input_fact(index, InferenceFact::dt_shape(datum_type(input.datatype)?, shape))?;
        }
        model.analyse(false)?;
        self.check_outputs(&model)?;
        let mut model = model.into_typed()?;
        reset_recurrent_states(&mut model);
        model.into_decluttered()
    }

    /// An output of another type or rank than declared would only show in the first answer.
    fn check_outputs(&self, model: &InferenceModel) -> TractResult<()> {
        for (index, output) in self.outputs.iter().enumerate() {
            let declared = datum_type(output.datatype)?;
            let fact = model.output_fact(index)?;
            if let Some(actual) = fact.datum_type.concretize().filter(|actual| *actual != declared) {
                bail!("output `{}` is {actual:?} in the graph, model.toml says {declared:?}", output.name);
            }
            let Some(shape) = fact.shape.concretize() else { continue };
            let fits = shape.len() == output.shape.len()
                && output.shape.iter().zip(&shape).all(|(declared, actual)| {
                    let actual = actual.to_i64().ok();
                    *declared == -1 || actual.is_none_or(|actual| actual == *declared)
                });
            if !fits {
                let declared = &output.shape;
                bail!("output `{}` has shape {shape:?} in the graph, model.toml says {declared:?}", output.name);
            }
        }
        Ok(())
    }
}

/// The graph's inputs are those of `model.toml`, no more and no less.
fn check_inputs(model: &InferenceModel, inputs: &[TensorSpec]) -> TractResult<()> {
    let own: Vec<&str> = model.input_outlets()?.iter().map(|outlet| model.node(outlet.node).name.as_str()).collect();
    let declared: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    if own.len() != declared.len() || declared.iter().any(|name| !own.contains(name)) {
        let listed = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        bail!("the graph has the inputs {}, model.toml has {}", listed(&own), listed(&declared));
    }
    Ok(())
}

/// The second belt beside a fresh state for every run: a loop begins each run at its initial state.
pub(super) fn reset_recurrent_states(model: &mut TypedModel) {
    for node in model.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
            reset_recurrent_states(&mut scan.body);
        }
    }
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
