//! What an ONNX file says of itself, before it is compiled: opset, operators, inputs and outputs.
//!
//! Used where a model is added to a repository. Shapes come as `model.toml` writes them: the first axis is the batch axis, and
//! whatever the file leaves open is -1.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::Framework as _;

use super::LoadError;
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor_spec::TensorSpec;

/// The operator set of the operators that have no domain.
const DEFAULT_DOMAINS: [&str; 2] = ["", "ai.onnx"];

/// What an ONNX file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GraphFacts {
    /// The version of the standard operator set.
    pub opset: i64,
    /// The program that wrote the file.
    pub producer: String,
    /// The inputs that have to be given.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// The outputs that a softmax makes: probabilities already.
    pub probabilities: BTreeSet<String>,
    /// How often each operator stands in the graph.
    pub operators: BTreeMap<String, usize>,
}

/// Reads what the content of an ONNX file says of itself.
///
/// # Errors
/// When it is no ONNX file, or says too little of an input or output.
pub fn inspect(onnx: &[u8]) -> Result<GraphFacts, LoadError> {
    let fault = |fault: String| LoadError(fault);
    let model: ModelProto = tract_onnx::onnx()
        .proto_model_for_read(&mut &*onnx)
        .map_err(|error| fault(format!("is no ONNX file: {error:#}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| fault("is no ONNX file: it has no graph".to_owned()))?;
    let opset = model.opset_import.iter().find(|set| DEFAULT_DOMAINS.contains(&set.domain.as_str()));
    let weights: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !weights.contains(input.name.as_str()));
    let (inputs, outputs) = (specs(inputs, "input")?, specs(graph.output.iter(), "output")?);
    Ok(GraphFacts {
        opset: opset.map_or(1, |set| set.version),
        producer: [model.producer_name.as_str(), model.producer_version.as_str()].join(" ").trim().to_owned(),
        inputs,
        probabilities: probabilities(graph),
        outputs,
        operators: operators(graph),
    })
}

fn specs<'a>(infos: impl Iterator<Item = &'a ValueInfoProto>, side: &str) -> Result<Vec<TensorSpec>, LoadError> {
    infos.map(|info| spec(info).map_err(|fault| LoadError(format!("{side} `{}` {fault}", info.name)))).collect()
}

fn spec(info: &ValueInfoProto) -> Result<TensorSpec, String> {
    let tensor = match info.r#type.as_ref().and_then(|own| own.value.as_ref()) {
        Some(Type::TensorType(tensor)) => tensor,
        None => return Err("has no type in the file".to_owned()),
    };
    let datatype = datatype(tensor.elem_type)
        .ok_or_else(|| format!("has elements of ONNX type {}, which the protocol has no word for", tensor.elem_type))?;
    let shape = tensor.shape.as_ref().ok_or("has no shape in the file")?;
    let axes = shape.dim.iter().map(|axis| match axis.value {
        Some(Dimension::DimValue(length)) if length > 0 => length,
        Some(Dimension::DimValue(_) | Dimension::DimParam(_)) | None => -1,
    });
    let mut shape: Vec<i64> = axes.collect();
    // A batch of one in the file is the exporter's example.
    *shape.first_mut().ok_or("has no axis, a batch axis was expected")? = -1;
    Ok(TensorSpec { name: info.name.clone(), datatype, shape })
}

/// The protocol's word for an ONNX element type (`TensorProto.DataType`).
const fn datatype(elem_type: i32) -> Option<Datatype> {
    Some(match elem_type {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        _ => return None,
    })
}

fn probabilities(graph: &GraphProto) -> BTreeSet<String> {
    let outputs: BTreeSet<&String> = graph.output.iter().map(|output| &output.name).collect();
    let softmaxes = graph.node.iter().filter(|node| node.op_type == "Softmax");
    softmaxes.flat_map(|node| &node.output).filter(|output| outputs.contains(output)).cloned().collect()
}

fn operators(graph: &GraphProto) -> BTreeMap<String, usize> {
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(node.op_type.clone()).or_default() += 1;
    }
    operators
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(path: &str) -> GraphFacts {
        inspect(&std::fs::read(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()).unwrap()
    }

    #[test]
    fn the_reference_model_says_what_its_model_toml_says() {
        let facts = shipped("models/topic/1/model.onnx");
        let spec =
            |name: &str, datatype, shape: &[i64]| TensorSpec { name: name.into(), datatype, shape: shape.to_vec() };
        assert_eq!(facts.inputs, [spec("input_ids", Datatype::Int64, &[-1, -1])]);
        assert_eq!(facts.outputs, [spec("logits", Datatype::Fp32, &[-1, 5])]);
        assert_eq!((facts.opset, facts.operators["LSTM"]), (17, 1));
        assert!(facts.probabilities.is_empty());
    }

    #[test]
    fn weights_are_no_inputs_and_a_fixed_batch_is_an_example() {
        let facts = shipped("tests/fixtures/onnx/scale.onnx");
        assert_eq!(facts.inputs.len(), 1);
        assert_eq!(facts.inputs[0].shape[0], -1);
    }

    #[test]
    fn what_is_no_onnx_file_is_refused() {
        assert!(inspect(b"no").unwrap_err().to_string().contains("is no ONNX file"));
        assert!(inspect(b"").unwrap_err().to_string().contains("has no graph"));
    }
}
