//! Tests of the steps on the reference model and on small graphs: what comes out answers the same.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{OperatorSetIdProto, ValueInfoProto};

use super::*;
use crate::backend::Backend as _;
use crate::backend::tract::{GraphSpec, Padding, TractBackend, inspect};
use crate::batch::row::{Batch, Row};
use crate::protocol::tensor::{Tensor, TensorData};

fn topic() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1/model.onnx")).unwrap()
}

fn logits(onnx: &[u8]) -> (Vec<f32>, Vec<String>) {
    let facts = inspect(onnx).unwrap();
    let padding = Padding { value: 0, longest: Some(128) };
    let backend =
        TractBackend::load(onnx, GraphSpec { inputs: &facts.inputs, outputs: &facts.outputs, padding }).unwrap();
    let row = |ids: &[i64]| Row {
        inputs: vec![Tensor::new(vec![ids.len()], TensorData::Int64(ids.to_vec())).unwrap()],
        length: ids.len(),
        may_be_padded: true,
    };
    let rows = vec![row(&[2, 1381, 240, 17, 9999]), row(&[5, 5, 7]), row(&[11])];
    let mut all = Vec::new();
    for row in backend.run(&Batch { rows }).unwrap().rows {
        match row.outputs[0].elements() {
            TensorData::Fp32(elements) => all.extend(elements),
            other => panic!("{other:?}"),
        }
    }
    (all, backend.plans.operators())
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_folded_embedding_answers_bit_for_bit_the_same() {
    let rewritten = rewrite(&topic(), Step::Embedding).unwrap().unwrap();
    assert_eq!(rewritten.memory_bytes, 10_000 * 1_024 * 4);
    assert!(rewritten.onnx.len() < topic().len() + 100, "the file says it in a word");
    let (folded, operators) = logits(&rewritten.onnx);
    assert_eq!(folded, logits(&topic()).0);
    assert!(operators.iter().any(|name| name == "FusedLstm"), "{operators:?}");
    assert!(rewrite(&rewritten.onnx, Step::Embedding).unwrap().is_none(), "once is enough");
}

#[test]
fn halved_weights_are_half_the_file_and_stay_fused() {
    let rewritten = rewrite(&topic(), Step::Half).unwrap().unwrap();
    assert!(rewritten.onnx.len() * 100 < topic().len() * 51, "{}", rewritten.onnx.len());
    let (halved, operators) = logits(&rewritten.onnx);
    let difference = worst(&halved, &logits(&topic()).0);
    assert!(difference > 0.0 && difference < 0.02, "{difference}");
    assert!(operators.iter().any(|name| name == "FusedLstm"), "{operators:?}");
    assert!(rewrite(&rewritten.onnx, Step::Half).unwrap().is_none());
    // Folded afterwards they stay halves: the file would double.
    if let Some(folded) = rewrite(&rewritten.onnx, Step::Fold).unwrap() {
        assert!(folded.onnx.len() <= rewritten.onnx.len());
    }
    let both = rewrite(&rewritten.onnx, Step::Embedding).unwrap().unwrap();
    assert_eq!(logits(&both.onnx).0, halved);
}

#[test]
fn folded_constants_answer_the_same_with_fewer_nodes() {
    let rewritten = rewrite(&topic(), Step::Fold).unwrap().unwrap();
    let (before, after) = (inspect(&topic()).unwrap(), inspect(&rewritten.onnx).unwrap());
    assert!(!after.operators.contains_key("Constant"), "{:?}", after.operators);
    assert_eq!((before.inputs, before.outputs), (after.inputs, after.outputs));
    assert_eq!(logits(&rewritten.onnx).0, logits(&topic()).0);
}

fn tensor(name: &str, numbers: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![numbers.len() as i64],
        data_type: DataType::Float as i32,
        float_data: numbers.to_vec(),
        ..TensorProto::default()
    }
}

fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    let input = input.iter().map(|name| (*name).to_owned()).collect();
    NodeProto { op_type: op_type.into(), input, output: vec![output.into()], ..NodeProto::default() }
}

fn graph(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    let value = |name: &str| ValueInfoProto { name: name.into(), ..ValueInfoProto::default() };
    let graph = GraphProto {
        node: nodes,
        initializer: initializers,
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
}

#[test]
fn what_is_constant_is_computed_and_what_nobody_reads_is_dropped() {
    let nodes = vec![
        node("Add", &["a", "b"], "sum"),
        node("Neg", &["sum"], "less"),
        node("RandomNormalLike", &["a"], "noise"),
        node("Identity", &["x"], "same"),
        node("Abs", &["x"], "unread"),
        node("Mul", &["same", "less"], "product"),
        node("Add", &["product", "noise"], "y"),
    ];
    let mut model = graph(nodes, vec![tensor("a", &[1.0, 2.0]), tensor("b", &[3.0, 4.0])]);
    let done = folding::fold(&mut model).unwrap();
    assert_eq!(done, "2 nodes computed, 1 passed over; 7 nodes to 3, 2 constants to 2");
    let graph = model.graph.unwrap();
    let left: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(left, ["RandomNormalLike", "Mul", "Add"]);
    let less = initializer(&graph, "less").unwrap();
    let numbers: Vec<f32> =
        less.raw_data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(numbers, [-4.0, -6.0]);
    assert_eq!(graph.node[1].input, ["x", "less"]);
}

#[test]
fn what_grows_by_being_computed_stays() {
    let mut shape = tensor("shape", &[]);
    shape.dims = vec![1];
    shape.data_type = DataType::Int64 as i32;
    shape.int64_data = vec![100_000];
    let nodes = vec![node("ConstantOfShape", &["shape"], "zeros"), node("Add", &["x", "zeros"], "y")];
    assert_eq!(folding::fold(&mut graph(nodes, vec![shape])), None);
}

#[test]
fn weights_beyond_half_precision_stay() {
    let mut numbers = vec![0.5; 300];
    let mut model = graph(vec![node("Add", &["x", "w"], "y")], vec![tensor("w", &numbers)]);
    assert!(halves::narrow(model.graph.as_mut().unwrap()).is_some());
    halves::widen(model.graph.as_mut().unwrap());
    let widened = model.graph.unwrap();
    assert_eq!((widened.node.len(), widened.initializer.len()), (1, 1));
    for x in [1e5, f32::INFINITY, f32::NAN] {
        numbers[7] = x;
        let mut model = graph(vec![node("Add", &["x", "w"], "y")], vec![tensor("w", &numbers)]);
        assert_eq!(halves::narrow(model.graph.as_mut().unwrap()), None, "{x}");
    }
}

#[test]
fn what_is_no_onnx_file_is_refused() {
    assert!(rewrite(b"no", Step::Fold).unwrap_err().to_string().contains("is no ONNX file"));
}
