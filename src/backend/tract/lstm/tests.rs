//! Tests of the fused operator: against exact arithmetic, against tract's loop, and of what is left to tract.

use inferq_kernels::{Aligned, Level, OnnxWeights, Projection, Recurrence, Summation, Weights, levels};
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

type Read = fn(&ParsingContext<'_>, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

const HIDDEN: usize = 32;
const FEATURES: usize = 5;

/// Numbers between -1 and 1, the same ones every time.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The hidden states by step and row, in exact arithmetic.
fn exact(onnx: OnnxWeights<'_>, inputs: &[f32], rows: usize, initial: &[f32], cells: &[f32]) -> Vec<f64> {
    let (units, features) = (onnx.hidden, onnx.features);
    let wide = |numbers: &[f32]| -> Vec<f64> { numbers.iter().map(|x| f64::from(*x)).collect() };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (w, r, bias) = (wide(onnx.input), wide(onnx.recurrent), wide(onnx.bias));
    let (mut hidden, mut cells, mut all) = (wide(initial), wide(cells), Vec::new());
    for step in wide(inputs).chunks(rows * features) {
        let before = hidden.clone();
        for row in 0..rows {
            let (x, h) = (&step[row * features..][..features], &before[row * units..][..units]);
            for unit in 0..units {
                let gate = |gate: usize| {
                    let column = gate * units + unit;
                    dot(&w[column * features..][..features], x)
                        + dot(&r[column * units..][..units], h)
                        + bias[column]
                        + bias[4 * units + column]
                };
                let cell = &mut cells[row * units + unit];
                *cell = logistic(gate(2)) * *cell + logistic(gate(0)) * gate(3).tanh();
                hidden[row * units + unit] = logistic(gate(1)) * cell.tanh();
            }
        }
        all.extend(&hidden);
    }
    all
}

/// What the kernel makes of the same.
fn kernel(onnx: OnnxWeights<'_>, level: Level, inputs: &[f32], rows: usize, states: (&[f32], &[f32])) -> Vec<f32> {
    let weights = Weights::lay_out(onnx, level).unwrap();
    let places: Vec<usize> = (0..inputs.len() / onnx.features).collect();
    let mut projected = Aligned::zeros(places.len() * weights.columns());
    Projection { weights: &weights, inputs, outputs: projected.as_mut_slice() }.run();
    let mut hidden = vec![0.0; places.len() * onnx.hidden];
    let mut cells = states.1.to_vec();
    Recurrence {
        weights: &weights,
        rows,
        projected: projected.as_slice(),
        places: &places,
        initial: states.0,
        cells: &mut cells,
        hidden: &mut hidden,
    }
    .run();
    hidden
}

#[test]
fn every_kind_of_instructions_comes_to_what_exact_arithmetic_does() {
    let (input, recurrent) = (numbers(4 * HIDDEN * FEATURES, 1), numbers(4 * HIDDEN * HIDDEN, 2));
    let bias = numbers(8 * HIDDEN, 3);
    let onnx = OnnxWeights { hidden: HIDDEN, features: FEATURES, input: &input, recurrent: &recurrent, bias: &bias };
    for level in levels() {
        for rows in [1, 2, 5, 6, 7, 13] {
            let inputs = numbers(9 * rows * FEATURES, 4);
            let (initial, cells) = (numbers(rows * HIDDEN, 5), numbers(rows * HIDDEN, 6));
            let exact = exact(onnx, &inputs, rows, &initial, &cells);
            let found = kernel(onnx, level, &inputs, rows, (&initial, &cells));
            assert_eq!(exact.len(), found.len());
            let worst = exact.iter().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{level:?}, {rows} rows: {worst:e}");
        }
    }
}

/// Bit for bit: a row's arithmetic is the same in every tile.
#[test]
fn a_row_is_the_same_in_any_company() {
    let (input, recurrent) = (numbers(4 * HIDDEN * FEATURES, 1), numbers(4 * HIDDEN * HIDDEN, 2));
    let onnx = OnnxWeights { hidden: HIDDEN, features: FEATURES, input: &input, recurrent: &recurrent, bias: &[] };
    let zeros = [0.0; 13 * HIDDEN];
    let steps = 4;
    let own = numbers(steps * FEATURES, 7);
    for level in levels() {
        let alone = kernel(onnx, level, &own, 1, (&zeros[..HIDDEN], &zeros[..HIDDEN]));
        for (rows, place) in [(2, 1), (6, 0), (7, 5), (13, 12)] {
            let mut inputs = numbers(steps * rows * FEATURES, 8);
            for (step, own) in own.chunks(FEATURES).enumerate() {
                inputs[(step * rows + place) * FEATURES..][..FEATURES].copy_from_slice(own);
            }
            let states = &zeros[..rows * HIDDEN];
            let together = kernel(onnx, level, &inputs, rows, (states, states));
            for (step, alone) in alone.chunks(HIDDEN).enumerate() {
                assert_eq!(&together[(step * rows + place) * HIDDEN..][..HIDDEN], alone);
            }
        }
    }
}

/// Rows that end one after the other: what is summed up is what each has on its way, bit for bit what it would be alone.
#[test]
fn rows_that_have_ended_are_left_out_and_the_others_do_not_notice() {
    let (input, recurrent) = (numbers(4 * HIDDEN * FEATURES, 1), numbers(4 * HIDDEN * HIDDEN, 2));
    let onnx = OnnxWeights { hidden: HIDDEN, features: FEATURES, input: &input, recurrent: &recurrent, bias: &[] };
    let (rows, active) = (9, [9, 9, 7, 3, 1, 1]);
    let inputs = numbers(active.len() * rows * FEATURES, 8);
    let zeros = vec![0.0; rows * HIDDEN];
    let places: Vec<usize> =
        (0..active.len()).flat_map(|step| (0..active[step]).map(move |r| step * rows + r)).collect();
    let scales: Vec<f32> = places.iter().map(|place| if place % 5 == 3 { 0.0 } else { 0.5 }).collect();
    for level in levels() {
        let all = kernel(onnx, level, &inputs, rows, (&zeros, &zeros));
        let mut expected = zeros.clone();
        for (place, scale) in places.iter().zip(&scales) {
            let row = place % rows;
            for unit in 0..HIDDEN {
                expected[row * HIDDEN + unit] += scale * all[place * HIDDEN + unit];
            }
        }
        let weights = Weights::lay_out(onnx, level).unwrap();
        let mut projected = Aligned::zeros(active.len() * rows * weights.columns());
        Projection { weights: &weights, inputs: &inputs, outputs: projected.as_mut_slice() }.run();
        let (mut hidden, mut cells, mut sums) = (zeros.clone(), zeros.clone(), zeros.clone());
        Summation {
            weights: &weights,
            active: &active,
            projected: projected.as_slice(),
            places: &places,
            scales: &scales,
            hidden: &mut hidden,
            cells: &mut cells,
            sums: &mut sums,
        }
        .run();
        let worst = expected.iter().zip(&sums).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{level:?}: {worst:e}");
        assert_eq!(hidden[..HIDDEN], all[5 * rows * HIDDEN..][..HIDDEN], "the longest, to the last bit");
    }
}

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
