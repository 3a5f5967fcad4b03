//! Tests of the fused operator in a graph: against tract's loop, and of what is left to tract.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
};
use tract_onnx::prelude::{
    Datum as _, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, TValue, Tensor, TractResult,
    TypedModel, TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::InferenceOp;

use super::kernel_tests::{FEATURES, HIDDEN, numbers};

type Read = fn(&ParsingContext<'_>, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// An `LSTM` node with its weights and what makes it special.
#[derive(Clone)]
struct Node {
    hidden: usize,
    directions: usize,
    attributes: Vec<AttributeProto>,
    /// Inputs after `R`, by name: "B", "sequence_lens", "initial_h", "initial_c", "P".
    inputs: Vec<&'static str>,
    /// "Y", "Y_h", "Y_c"; "" for one that is not wanted.
    outputs: Vec<&'static str>,
    rows: usize,
}

fn node() -> Node {
    Node { hidden: HIDDEN, directions: 1, attributes: Vec::new(), inputs: vec!["B"], outputs: vec!["Y"], rows: 3 }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: r#type.into(), ..AttributeProto::default() }
}

impl Node {
    fn with(mut self, attribute: AttributeProto) -> Self {
        self.attributes.push(attribute);
        self
    }

    fn initializers(&self) -> Vec<TensorProto> {
        let (d, h, n) = (self.directions, self.hidden, self.rows);
        let tensor = |name: &str, seed: u32, dims: &[usize]| TensorProto {
            name: name.to_owned(),
            dims: dims.iter().map(|dim| i64::try_from(*dim).unwrap()).collect(),
            data_type: DataType::Float.into(),
            float_data: numbers(dims.iter().product(), seed),
            ..TensorProto::default()
        };
        let all = [
            tensor("W", 1, &[d, 4 * h, FEATURES]),
            tensor("R", 2, &[d, 4 * h, h]),
            tensor("B", 3, &[d, 8 * h]),
            tensor("initial_h", 4, &[d, n, h]),
            tensor("initial_c", 5, &[d, n, h]),
            tensor("P", 6, &[d, 3 * h]),
        ];
        let used = |tensor: &TensorProto| {
            ["W", "R"].contains(&tensor.name.as_str()) || self.inputs.contains(&tensor.name.as_str())
        };
        all.into_iter().filter(used).collect()
    }

    /// The typed graph, with the operator that `read` makes of the node, or tract's own reading.
    fn model(&self, read: Option<Read>) -> TypedModel {
        let floats = TensorType { elem_type: DataType::Float.into(), shape: None };
        let floats = TypeProto { value: Some(TypeValue::TensorType(floats)), ..TypeProto::default() };
        let named = |name: &str| ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(floats.clone()),
            ..ValueInfoProto::default()
        };
        let wanted = self.outputs.iter().filter(|name| !name.is_empty());
        let lstm = NodeProto {
            op_type: "LSTM".to_owned(),
            name: "lstm".to_owned(),
            input: ["x", "W", "R"].into_iter().chain(self.inputs.iter().copied()).map(str::to_owned).collect(),
            output: self.outputs.iter().map(|name| (*name).to_owned()).collect(),
            attribute: self.attributes.clone(),
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![lstm],
            initializer: self.initializers(),
            input: vec![named("x")],
            output: wanted.map(|name| named(name)).collect(),
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
        let proto = ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
        let mut reader = tract_onnx::onnx();
        if let Some(read) = read {
            reader.op_register.insert("LSTM", read);
        }
        let mut model = reader.model_for_proto_model(&proto).unwrap();
        let fact = InferenceFact::dt_shape(f32::datum_type(), tvec!(4, self.rows, FEATURES));
        model.set_input_fact(0, fact).unwrap();
        model.into_typed().unwrap().into_decluttered().unwrap()
    }

    /// The outputs on one input, and whether the fused operator was in the graph.
    fn run(&self, read: Option<Read>) -> (Vec<Vec<f32>>, bool) {
        let model = self.model(read);
        let is_fused = model.nodes().iter().any(|node| node.op.name() == "FusedLstm");
        let plan = model.into_optimized().unwrap().into_runnable().unwrap();
        let input = Tensor::from_shape(&[4, self.rows, FEATURES], &numbers(4 * self.rows * FEATURES, 9)).unwrap();
        let outputs = TypedRunnableModel::run(&plan, tvec!(TValue::from(input))).unwrap();
        let floats = |output: &TValue| output.to_plain_array_view::<f32>().unwrap().iter().copied().collect();
        (outputs.iter().map(floats).collect(), is_fused)
    }
}

#[test]
fn what_is_fused_answers_as_tracts_loop_does() {
    let cases = [
        node(),
        Node { inputs: vec![], ..node() },
        Node { inputs: vec!["B", "", "initial_h", "initial_c"], ..node() },
        Node { inputs: vec!["", "", "", "initial_c"], ..node() },
        // Of a last state, tract's loop runs one row alone.
        Node { outputs: vec!["Y", "Y_h", "Y_c"], rows: 1, ..node() },
        Node { outputs: vec!["", "Y_h"], rows: 1, ..node() },
        Node { outputs: vec!["", "", "Y_c"], inputs: vec!["B", "", "initial_h"], rows: 1, ..node() },
        node().with(AttributeProto { s: b"forward".to_vec(), ..attribute("direction", AttributeType::String) }),
    ];
    for (index, case) in cases.iter().enumerate() {
        let ((fused, is_fused), (plain, _)) = (case.run(Some(super::read)), case.run(None));
        assert!(is_fused, "case {index} was left to tract");
        assert_eq!(fused.len(), plain.len());
        for (fused, plain) in fused.iter().zip(&plain) {
            assert_eq!(fused.len(), plain.len());
            let worst = fused.iter().zip(plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "case {index}: {worst:e}");
        }
    }
}

#[test]
fn the_last_hidden_state_is_that_of_the_last_step() {
    let (outputs, is_fused) = Node { outputs: vec!["Y", "Y_h", "Y_c"], ..node() }.run(Some(super::read));
    assert!(is_fused);
    assert_eq!([outputs[0].len(), outputs[1].len(), outputs[2].len()], [4 * 3 * HIDDEN, 3 * HIDDEN, 3 * HIDDEN]);
    assert_eq!(outputs[0][3 * 3 * HIDDEN..], outputs[1]);
}

/// What the operator cannot run is tract's to run or to refuse.
#[test]
fn whatever_is_special_is_left_to_tract() {
    let text = |name: &str, text: &str| AttributeProto { s: text.into(), ..attribute(name, AttributeType::String) };
    let activations = AttributeProto {
        strings: [b"Sigmoid".to_vec(), b"Relu".to_vec(), b"Tanh".to_vec()].to_vec(),
        ..attribute("activations", AttributeType::Strings)
    };
    let cases = [
        ("a hidden size that fills no vector", Node { hidden: 24, ..node() }),
        ("two directions", Node { directions: 2, ..node() }.with(text("direction", "bidirectional"))),
        ("backwards", node().with(text("direction", "reverse"))),
        ("peepholes", Node { inputs: vec!["B", "", "", "", "P"], ..node() }),
        ("a clip", node().with(AttributeProto { f: 0.5, ..attribute("clip", AttributeType::Float) })),
        ("rows first", node().with(AttributeProto { i: 1, ..attribute("layout", AttributeType::Int) })),
        ("a coupled gate", node().with(AttributeProto { i: 1, ..attribute("input_forget", AttributeType::Int) })),
        ("another gate", node().with(activations)),
    ];
    for (what, case) in cases {
        let ((ours, is_fused), (plain, _)) = (case.run(Some(super::read)), case.run(None));
        assert!(!is_fused, "{what} was fused");
        assert_eq!(ours, plain, "{what}");
    }
}

/// A graph that sums up the states of an `LSTM`, each times what its second input says; `states_too` has it answer them, too.
fn summing(states_too: bool) -> ModelProto {
    let node = |op: &str, name: &str, input: &[&str]| NodeProto {
        op_type: op.to_owned(),
        name: name.to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![name.to_owned()],
        ..NodeProto::default()
    };
    let integers = |name: &str, number: i64| TensorProto {
        name: name.to_owned(),
        dims: vec![1],
        data_type: DataType::Int64.into(),
        int64_data: vec![number],
        ..TensorProto::default()
    };
    let named = |name: &str| {
        let floats = TensorType { elem_type: DataType::Float.into(), shape: None };
        let r#type = TypeProto { value: Some(TypeValue::TensorType(floats)), ..TypeProto::default() };
        ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
    };
    let perm = AttributeProto { ints: vec![1, 0, 2], ..attribute("perm", AttributeType::Ints) };
    let keep = AttributeProto { i: 0, ..attribute("keepdims", AttributeType::Int) };
    let outputs = if states_too { vec![named("sum"), named("turned")] } else { vec![named("sum")] };
    let graph = GraphProto {
        node: vec![
            node("LSTM", "states", &["x", "W", "R"]),
            node("Squeeze", "squeezed", &["states", "one"]),
            NodeProto { attribute: vec![perm], ..node("Transpose", "turned", &["squeezed"]) },
            node("Mul", "scaled", &["turned", "scales"]),
            NodeProto { attribute: vec![keep], ..node("ReduceSum", "sum", &["scaled", "one"]) },
        ],
        initializer: Node { inputs: Vec::new(), ..self::node() }
            .initializers()
            .into_iter()
            .chain([integers("one", 1)])
            .collect(),
        input: vec![named("x"), named("scales")],
        output: outputs,
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
    ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() }
}

/// The first output, and the operators.
fn run_summing(read: Option<Read>, states_too: bool, width: usize, scales: &[f32]) -> (Vec<f32>, Vec<String>) {
    let mut reader = tract_onnx::onnx();
    if let Some(read) = read {
        reader.op_register.insert("LSTM", read);
    }
    let mut model = reader.model_for_proto_model(&summing(states_too)).unwrap();
    let shapes = [tvec!(4, 3, FEATURES), tvec!(3, 4, width)];
    for (index, shape) in shapes.iter().enumerate() {
        model.set_input_fact(index, InferenceFact::dt_shape(f32::datum_type(), shape.clone())).unwrap();
    }
    let model = model.into_typed().unwrap().into_decluttered().unwrap();
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let operators = plan.model().nodes().iter().map(|node| node.op.name().into_owned()).collect();
    let inputs =
        [Tensor::from_shape(&shapes[0], &numbers(4 * 3 * FEATURES, 9)), Tensor::from_shape(&shapes[1], scales)];
    let inputs = inputs.into_iter().map(|input| TValue::from(input.unwrap())).collect();
    let outputs = TypedRunnableModel::run(&plan, inputs).unwrap();
    (outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect(), operators)
}

#[test]
fn a_weighted_sum_of_the_states_is_the_operators_own_where_nothing_else_is_made_of_them() {
    // Rows that end early, late, and never begin; a step in between that counts nothing, and some that count less than nothing.
    let scales = [1.0, 0.5, 0.0, 0.0, 1.0, 0.0, -2.0, 0.25, 0.0, 0.0, 0.0, 0.0];
    let wide: Vec<f32> = scales.iter().flat_map(|scale| [*scale; HIDDEN]).collect();
    let has_sum = |operators: &[String]| operators.iter().any(|name| name == "Reduce<Sum>");
    let (plain, _) = run_summing(None, false, 1, &scales);
    assert!(plain[..HIDDEN].iter().any(|sum| sum.abs() > 0.01), "{plain:?}");
    for (states_too, width, scales, left_out) in
        [(false, 1, &scales[..], true), (true, 1, &scales[..], false), (false, HIDDEN, &wide[..], false)]
    {
        let (ours, operators) = run_summing(Some(super::read), states_too, width, scales);
        assert_eq!(has_sum(&operators), !left_out, "{operators:?}");
        let worst = plain.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(plain.len() == ours.len() && worst < 1e-5, "{worst:e}");
    }
}
