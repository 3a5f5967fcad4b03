//! What the graph around the operator allows it to take over.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, Tensor, ToDim as _, TractResult, TypedFact, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::{AxisOp, TypedModelPatch};
use tract_onnx::tract_core::ops::array::Gather;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::Mul;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::{OutletId, anyhow};

use super::fused::{FusedLstm, Source};

impl FusedLstm {
    /// Takes the ids where the input is looked up by them in a constant table, as an embedding's is: then each id that occurs
    /// is projected once, however often it occurs.
    pub(super) fn by_ids(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        let (Source::Inputs, Some(input)) = (&self.source, node.inputs.first()) else { return Ok(None) };
        let mut producer = model.node(input.node);
        let swaps = |op: &AxisOp| matches!(op, AxisOp::Move(0, 1) | AxisOp::Move(1, 0));
        let rows_first = producer.op_as::<AxisOp>().is_some_and(swaps);
        if rows_first {
            let before = producer.inputs.first().ok_or_else(|| anyhow!("an axis is moved of nothing"))?;
            producer = model.node(before.node);
        }
        let (Some(gather), &[table, ids]) = (producer.op_as::<Gather>(), producer.inputs.as_slice()) else {
            return Ok(None);
        };
        let is_ids = |fact: &TypedFact| fact.datum_type == DatumType::I64 && fact.rank() == 2;
        let is_table = |table: &Arc<Tensor>| {
            table.datum_type() == DatumType::F32
                && matches!(table.shape(), &[_, width] if width == self.weights.features)
        };
        let table = model.outlet_fact(table)?.konst.clone().filter(is_table);
        let (Some(table), 0, None) = (table, gather.axis, gather.output_type) else { return Ok(None) };
        if !is_ids(model.outlet_fact(ids)?) {
            return Ok(None);
        }
        // Now, so that no job waits for it; nothing where another table was multiplied before, or this one is too large.
        let folded = self.folded.clone().filter(|folded| self.fold(&table, folded));
        let by_ids = Self { folded, source: Source::Ids { table, rows_first }, ..self.clone() };
        let mut inputs = node.inputs.clone();
        if let Some(first) = inputs.first_mut() {
            *first = ids;
        }
        TypedModelPatch::replace_single_op(model, node, &inputs, by_ids).map(Some)
    }

    /// Answers the sum of the hidden states over the steps, each times a number of its own, where nothing else is made of
    /// them: a mean over the steps that count begins so. Then no state but the last has to be kept, and a row has ended where
    /// nothing counts any more.
    pub(super) fn summed(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        let (false, Some(0), Some(states)) = (self.is_summed, self.outputs.hidden, node.outputs.first()) else {
            return Ok(None);
        };
        let is_wanted = |slot: usize| model.outputs.contains(&OutletId::new(node.id, slot));
        let others_are_used = node.outputs.iter().skip(1).any(|other| !other.successors.is_empty());
        if others_are_used || (0..node.outputs.len()).any(is_wanted) {
            return Ok(None);
        }
        let squeezed = |op: &AxisOp| matches!(op, AxisOp::Rm(1));
        let rows_first = |op: &AxisOp| matches!(op, AxisOp::Move(0, 1) | AxisOp::Move(1, 0));
        let Some(squeeze) = only_successor(model, node.id).filter(|next| next.op_as().is_some_and(squeezed)) else {
            return Ok(None);
        };
        let Some(turn) = only_successor(model, squeeze.id).filter(|next| next.op_as().is_some_and(rows_first)) else {
            return Ok(None);
        };
        let multiplies = |op: &TypedBinOp| op.0.is::<Mul>();
        let Some(product) = only_successor(model, turn.id).filter(|next| next.op_as().is_some_and(multiplies)) else {
            return Ok(None);
        };
        let sums = |op: &Reduce| op.reducer == Reducer::Sum && *op.axes == [1];
        let Some(sum) = only_successor(model, product.id).filter(|next| next.op_as().is_some_and(sums)) else {
            return Ok(None);
        };
        let Some(scales) = product.inputs.iter().find(|input| input.node != turn.id) else { return Ok(None) };
        let fact = model.outlet_fact(*scales)?;
        let [steps, _, rows, _] = &*states.fact.shape else { return Ok(None) };
        let counts_steps =
            matches!(&*fact.shape, [own, each, one] if own == rows && each == steps && *one == 1.to_dim());
        if fact.datum_type != DatumType::F32 || !counts_steps {
            return Ok(None);
        }
        let mut patch = TypedModelPatch::default();
        let inputs: Vec<OutletId> = node.inputs.iter().chain([scales]).copied().collect();
        let inputs = patch.taps(model, &inputs)?;
        let wired = patch.wire_node(&node.name, Self { is_summed: true, ..self.clone() }, &inputs)?;
        let wired = wired.first().ok_or_else(|| anyhow!("an operator has no output"))?;
        patch.shunt_outside(model, sum.id.into(), *wired)?;
        Ok(Some(patch))
    }
}

/// The node that takes the first output of the node `id`, where it is the only one and a graph's output is not made of it.
fn only_successor(model: &TypedModel, id: usize) -> Option<&TypedNode> {
    let outlet = model.nodes().get(id)?.outputs.first()?;
    let (&[next], false) = (&*outlet.successors, model.outputs.contains(&OutletId::new(id, 0))) else { return None };
    model.nodes().get(next.node)
}
