//! Constant folding: what does not depend on the inputs is computed now, and what nobody reads is dropped.
//!
//! tract computes it: each node that has constant inputs alone is run as a graph of its own.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceModelExt as _, IntoRunnable as _, Tensor, TractResult, tvec,
};
use tract_onnx::tract_hir::internal::bail;

use super::super::plans::guarded;
use super::{count, has_graphs, names_inside, operator};

/// A result may be so much larger than what it is made of: beyond, the file would grow for nothing.
const MAX_GROWTH_BYTES: usize = 1 << 10;
/// Operators whose answer is not the same twice.
const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// Folds the constants of `model`; says what was done, or nothing where there was nothing to do.
pub(super) fn fold(model: &mut ModelProto) -> Option<String> {
    let mut graph = model.graph.take()?;
    let before = (graph.node.len(), graph.initializer.len());
    let computed = compute(model, &mut graph);
    let passed = drop_identities(&mut graph);
    drop_unread(&mut graph);
    let after = (graph.node.len(), graph.initializer.len());
    model.graph = Some(graph);
    (before != after).then(|| {
        let ((nodes, constants), (nodes_left, constants_left)) = (before, after);
        format!(
            "{computed} nodes computed, {passed} passed over; {nodes} nodes to {nodes_left}, {constants} constants to \
             {constants_left}"
        )
    })
}

/// Computes every node that has constant inputs alone; how many.
fn compute(model: &ModelProto, graph: &mut GraphProto) -> usize {
    let given: BTreeSet<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let outputs: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let own = graph.initializer.iter().filter(|tensor| !given.contains(&tensor.name));
    let mut known: BTreeMap<String, TensorProto> = own.map(|tensor| (tensor.name.clone(), tensor.clone())).collect();
    let mut computed = 0;
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let is_output = node.output.iter().any(|output| outputs.contains(output));
        match if is_output { None } else { results(model, &node, &known) } {
            Some(tensors) => {
                computed += 1;
                known.extend(tensors.iter().map(|tensor| (tensor.name.clone(), tensor.clone())));
                graph.initializer.extend(tensors);
            }
            None => kept.push(node),
        }
    }
    graph.node = kept;
    computed
}

/// What `node` answers, where that can be known.
fn results(model: &ModelProto, node: &NodeProto, known: &BTreeMap<String, TensorProto>) -> Option<Vec<TensorProto>> {
    let name = operator(node)?;
    if name == "Constant" {
        let value = node.attribute.iter().find(|attribute| attribute.name == "value")?.t.clone()?;
        return Some(vec![TensorProto { name: node.output.first()?.clone(), ..value }]);
    }
    if node.input.is_empty() || RANDOM.contains(&name) || has_graphs(node) || node.output.iter().any(String::is_empty) {
        return None;
    }
    let inputs: Option<Vec<TensorProto>> =
        node.input.iter().filter(|input| !input.is_empty()).map(|input| known.get(input).cloned()).collect();
    let inputs = inputs?;
    let bytes = |tensors: &[TensorProto]| tensors.iter().map(bytes_of).sum::<usize>();
    let allowed = bytes(&inputs) + MAX_GROWTH_BYTES;
    let tensors = guarded(|| run(model, node, inputs)).ok()?;
    (bytes(&tensors) <= allowed).then_some(tensors)
}

fn bytes_of(tensor: &TensorProto) -> usize {
    let wide = [DataType::Int64, DataType::Double, DataType::Uint64].map(|own| own as i32);
    let narrow = [DataType::Float16, DataType::Int16, DataType::Uint16].map(|own| own as i32);
    let bytes = [DataType::Bool, DataType::Int8, DataType::Uint8].map(|own| own as i32);
    let width = match tensor.data_type {
        own if wide.contains(&own) => 8,
        own if narrow.contains(&own) => 2,
        own if bytes.contains(&own) => 1,
        _ => 4,
    };
    count(tensor) * width
}

/// Runs `node` alone.
fn run(model: &ModelProto, node: &NodeProto, inputs: Vec<TensorProto>) -> TractResult<Vec<TensorProto>> {
    let output = |name: &String| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() };
    let graph = GraphProto {
        node: vec![node.clone()],
        initializer: inputs,
        output: node.output.iter().map(output).collect(),
        ..GraphProto::default()
    };
    let alone = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    };
    let plan = tract_onnx::onnx().model_for_proto_model(&alone)?.into_typed()?.into_runnable()?;
    let results = plan.run(tvec!())?;
    node.output.iter().zip(&results).map(|(name, result)| written(name, result)).collect()
}

/// A tensor as a file has it.
fn written(name: &str, tensor: &Tensor) -> TractResult<TensorProto> {
    let data_type = match tensor.datum_type() {
        DatumType::F32 => DataType::Float,
        DatumType::F64 => DataType::Double,
        DatumType::F16 => DataType::Float16,
        DatumType::I64 | DatumType::TDim => DataType::Int64,
        DatumType::I32 => DataType::Int32,
        DatumType::I8 => DataType::Int8,
        DatumType::U8 => DataType::Uint8,
        DatumType::Bool => DataType::Bool,
        other => bail!("constants of {other:?} are left as they are"),
    };
    let tensor = if tensor.datum_type() == DatumType::TDim {
        tensor.cast_to_dt(DatumType::I64)?.into_owned()
    } else {
        tensor.clone()
    };
    let dims = tensor.shape().iter().map(|axis| i64::try_from(*axis)).collect::<Result<_, _>>()?;
    Ok(TensorProto {
        name: name.to_owned(),
        dims,
        data_type: data_type as i32,
        raw_data: tensor.try_as_plain_ram()?.as_bytes().to_vec(),
        ..TensorProto::default()
    })
}

/// Takes nodes out that pass on what they get; how many.
fn drop_identities(graph: &mut GraphProto) -> usize {
    let outputs: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut inside = BTreeSet::new();
    for node in &graph.node {
        names_inside(node, &mut inside);
    }
    let before = graph.node.len();
    let mut passed: BTreeMap<String, String> = BTreeMap::new();
    graph.node.retain(|node| {
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else { return true };
        let is_passed = operator(node) == Some("Identity") && !outputs.contains(output) && !inside.contains(output);
        if is_passed {
            let source = passed.get(input).unwrap_or(input).clone();
            passed.insert(output.clone(), source);
        }
        !is_passed
    });
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(source) = passed.get(input) {
            input.clone_from(source);
        }
    }
    before - graph.node.len()
}

/// Drops nodes, constants and shapes that no output needs.
fn drop_unread(graph: &mut GraphProto) {
    let mut read: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    // Nodes stand in an order in which each comes after those that it reads.
    for mut node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| read.contains(output)) {
            read.extend(node.input.iter().cloned());
            names_inside(&node, &mut read);
            // Some exporters leave a stack trace here.
            node.doc_string = String::new();
            kept.push(node);
        }
    }
    kept.reverse();
    let made: BTreeSet<&String> = kept.iter().flat_map(|node| &node.output).collect();
    graph.value_info.retain(|value| made.contains(&value.name));
    graph.initializer.retain(|tensor| read.contains(&tensor.name));
    graph.node = kept;
}
