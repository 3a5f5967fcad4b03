//! An LSTM as one operator, where tract would run a loop of operators for each step.
//!
//! `graph` has ONNX's `LSTM` read by [`read`]. Where the node is what `fused` can run (forward, the plain gates, constant
//! weights of one direction, a hidden size that fills vectors), it becomes that operator; anything else becomes what
//! tract makes of it. The arithmetic is in the crate `inferq_kernels`.

use std::sync::Arc;

use inferq_kernels::{Level, OnnxWeights, Weights};
use tract_onnx::model::ParsingContext;
use tract_onnx::ops::rec::common::CommonRec;
use tract_onnx::ops::rec::lstm::LSTM;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, SpecialOps as _, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::ops::{math::tanh, nn::sigmoid};
use tract_onnx::tract_hir::infer::{InferenceOp, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, InferenceResult, OutletId, StaticName, Validation, expand};

use self::fused::{Folded, FusedLstm, Outputs, Source};
use super::rewrite::embedding;

mod absorb;
mod fused;
mod summed;

/// An `LSTM` of ONNX: tract's reading of it, and whether we may run it ourselves.
#[derive(Debug, Clone)]
struct Lstm {
    plain: CommonRec,
    is_plain: bool,
    /// Whether the file asks for its embedding to be multiplied with the input weights at once.
    folds_embedding: bool,
    /// What came of that: once, however many plans are compiled.
    folded: Folded,
}

/// Reads an `LSTM` node.
pub(super) fn read(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let body = LSTM { f: Box::new(sigmoid()), g: Box::new(tanh()), h: Box::new(tanh()) };
    let plain = CommonRec::from_node_and_options(node, 3, 0, Box::new(body))?;
    let is_plain = has_plain_attributes(node)
        && !plain.batch_first
        && plain.optional_sequence_lens_input.is_none()
        && plain.optional_p_input.is_none();
    let folds_embedding = embedding::is_marked(context.model);
    Ok((expand(Lstm { plain, is_plain, folds_embedding, folded: Arc::default() }), Vec::new()))
}

/// Whether every attribute says what it would say by default.
fn has_plain_attributes(node: &NodeProto) -> bool {
    node.attribute.iter().all(|attribute| match attribute.name.as_str() {
        "hidden_size" => true,
        "direction" => attribute.s == b"forward",
        "layout" | "input_forget" => attribute.i == 0,
        "activations" => attribute.strings == [b"Sigmoid".as_slice(), b"Tanh", b"Tanh"],
        _ => false,
    })
}

impl Lstm {
    /// The operator of our own, where the inputs are such that it can run.
    fn fused(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<Option<FusedLstm>> {
        let plain = &self.plain;
        let constant = |index: usize| -> TractResult<_> {
            let Some(outlet) = inputs.get(index) else { return Ok(None) };
            let tensor = model.outlet_fact(*outlet)?.konst.clone();
            Ok(tensor.filter(|tensor| tensor.datum_type() == DatumType::F32))
        };
        let (Some(input), Some(recurrent)) = (constant(1)?, constant(2)?) else { return Ok(None) };
        let bias = plain.optional_bias_input.map(constant).transpose()?;
        let (&[1, _, features], &[1, _, hidden]) = (input.shape(), recurrent.shape()) else { return Ok(None) };
        // A bias that is there, but is not constant.
        if !self.is_plain || matches!(bias, Some(None)) {
            return Ok(None);
        }
        let bias = bias.flatten();
        let bias_view = bias.as_ref().map(|bias| bias.to_plain_array_view::<f32>()).transpose()?;
        let onnx = OnnxWeights {
            hidden,
            features,
            input: input.to_plain_array_view::<f32>()?.to_slice().unwrap_or_default(),
            recurrent: recurrent.to_plain_array_view::<f32>()?.to_slice().unwrap_or_default(),
            bias: bias_view.as_ref().and_then(|bias| bias.as_slice()).unwrap_or_default(),
        };
        let outputs = Outputs {
            hidden: plain.optional_y_output,
            last_hidden: plain.optional_y_h_output,
            last_cell: plain.optional_y_c_output,
        };
        Ok(Weights::lay_out(onnx, Level::new()).filter(|_| outputs.count() > 0).map(|weights| FusedLstm {
            weights: Arc::new(weights),
            source: Source::Inputs,
            folded: self.folds_embedding.then(|| Arc::clone(&self.folded)),
            has_initial_hidden: plain.optional_initial_h_input.is_some(),
            has_initial_cell: plain.optional_initial_c_input.is_some(),
            outputs,
            is_summed: false,
        }))
    }
}

impl Expansion for Lstm {
    fn name(&self) -> StaticName {
        Expansion::name(&self.plain)
    }

    fn validation(&self) -> Validation {
        Expansion::validation(&self.plain)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Expansion::nboutputs(&self.plain)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        Expansion::rules(&self.plain, solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some(fused) = self.fused(model, inputs)? else { return self.plain.wire(prefix, model, inputs) };
        let states = [self.plain.optional_initial_h_input, self.plain.optional_initial_c_input];
        let wired = std::iter::once(Some(0)).chain(states).flatten();
        let wired: TVec<OutletId> = wired.filter_map(|index| inputs.get(index).copied()).collect();
        model.wire_node(prefix, fused, &wired)
    }
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
