//! Weights in half precision: an initializer of half its size, and a `Cast` that widens it.
//!
//! [`widen`] undoes that in memory before the graph is parsed, so that everything that looks for constant weights finds them.

use std::collections::BTreeMap;

use half::f16;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::{count, operator};

/// Smaller tensors are not worth a node.
const MIN_NUMBERS: usize = 256;

/// Halves the weights of `graph`; says how many.
pub(super) fn narrow(graph: &mut GraphProto) -> Option<String> {
    let mut casts = Vec::new();
    let mut saved = 0;
    for tensor in &mut graph.initializer {
        // An initializer that is an input, too, may be given by whoever runs the file.
        if graph.input.iter().any(|input| input.name == tensor.name) || count(tensor) < MIN_NUMBERS {
            continue;
        }
        let Some(numbers) = floats(tensor).filter(|numbers| numbers.iter().all(|x| fits(*x))) else { continue };
        let halves: Vec<u8> = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        saved += halves.len();
        let wide = std::mem::take(&mut tensor.name);
        tensor.name = format!("{wide}_half");
        tensor.data_type = DataType::Float16 as i32;
        tensor.float_data = Vec::new();
        tensor.raw_data = halves;
        casts.push(cast(&tensor.name, &wide));
    }
    if casts.is_empty() {
        return None;
    }
    let done = format!("{} weights in half precision, {saved} bytes saved", casts.len());
    graph.node.splice(0..0, casts);
    Some(done)
}

/// Turns every `Cast` of a constant of half precision into a constant of single precision.
pub(in crate::backend::tract) fn widen(graph: &mut GraphProto) {
    let is_half = |tensor: &&TensorProto| tensor.data_type == DataType::Float16 as i32;
    let halves: BTreeMap<String, usize> = graph
        .initializer
        .iter()
        .enumerate()
        .filter(|(_, tensor)| is_half(tensor))
        .map(|(place, tensor)| (tensor.name.clone(), place))
        .collect();
    if halves.is_empty() {
        return;
    }
    let (initializers, outputs) = (&graph.initializer, &graph.output);
    let mut wide = Vec::new();
    graph.node.retain(|node| {
        let widened = widened(node, initializers, &halves);
        let Some(tensor) = widened.filter(|tensor| outputs.iter().all(|output| output.name != tensor.name)) else {
            return true;
        };
        wide.push(tensor);
        false
    });
    graph.initializer.extend(wide);
    // Those that nobody reads any more; a graph inside of a node may.
    let mut read = std::collections::BTreeSet::new();
    for node in &graph.node {
        read.extend(node.input.iter().cloned());
        super::names_inside(node, &mut read);
    }
    graph.initializer.retain(|tensor| !halves.contains_key(&tensor.name) || read.contains(&tensor.name));
}

fn widened(node: &NodeProto, initializers: &[TensorProto], halves: &BTreeMap<String, usize>) -> Option<TensorProto> {
    let to_float = node.attribute.iter().any(|own| own.name == "to" && own.i == i64::from(DataType::Float as i32));
    if operator(node) != Some("Cast") || !to_float {
        return None;
    }
    let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { return None };
    let half = initializers.get(*halves.get(input)?)?;
    if half.raw_data.len() != 2 * count(half) {
        return None;
    }
    let wide = |pair: &[u8]| match pair {
        [low, high] => f16::from_le_bytes([*low, *high]).to_f32().to_le_bytes(),
        _ => [0; 4],
    };
    Some(TensorProto {
        name: output.clone(),
        dims: half.dims.clone(),
        data_type: DataType::Float as i32,
        raw_data: half.raw_data.chunks_exact(2).flat_map(wide).collect(),
        ..TensorProto::default()
    })
}

/// Whether `x` keeps its magnitude in half precision.
fn fits(x: f32) -> bool {
    x.is_finite() && x.abs() <= f16::MAX.to_f32()
}

/// The numbers of a tensor of single precision.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    let numbers: Vec<f32> = if tensor.raw_data.is_empty() {
        tensor.float_data.clone()
    } else {
        let number = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        tensor.raw_data.chunks_exact(4).map(number).collect()
    };
    (numbers.len() == count(tensor)).then_some(numbers)
}

fn cast(from: &str, to: &str) -> NodeProto {
    let single = AttributeProto {
        name: "to".to_owned(),
        r#type: AttributeType::Int as i32,
        i: i64::from(DataType::Float as i32),
        ..AttributeProto::default()
    };
    NodeProto {
        name: format!("{to}_widened"),
        op_type: "Cast".to_owned(),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![single],
        ..NodeProto::default()
    }
}
