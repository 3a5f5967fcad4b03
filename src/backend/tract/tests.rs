//! Tests on the reference model: a fresh state for every batch, and rows that do not know their neighbours.

use tract_onnx::prelude::tract_ndarray::Array2;
use tract_onnx::prelude::{
    Datum as _, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, Tensor as TractTensor, tvec,
};

use super::graph::reset_recurrent_states;
use super::*;
use crate::batch::row::Row;
use crate::protocol::tensor::Datatype;
use crate::protocol::tensor::{Tensor, TensorData};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1/model.onnx");

fn spec() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    (
        vec![TensorSpec { name: "input_ids".into(), datatype: Datatype::Int64, shape: vec![-1, -1] }],
        vec![TensorSpec { name: "logits".into(), datatype: Datatype::Fp32, shape: vec![-1, 5] }],
    )
}

const PADDING: Padding = Padding { value: 0, longest: Some(128) };

fn topic() -> TractBackend {
    let (inputs, outputs) = spec();
    let onnx = std::fs::read(MODEL).unwrap();
    TractBackend::load(&onnx, GraphSpec { inputs: &inputs, outputs: &outputs, padding: PADDING }).unwrap()
}

fn floats(name: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() }
}

fn fixture(file: &str, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<TractBackend, LoadError> {
    let onnx = std::fs::read(format!("{}/tests/fixtures/onnx/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    TractBackend::load(&onnx, GraphSpec { inputs, outputs, padding: PADDING })
}

fn float_row(inputs: &[&[f32]], shape: &[usize]) -> Row {
    let tensor = |elements: &&[f32]| Tensor::new(shape.to_vec(), TensorData::Fp32(elements.to_vec())).unwrap();
    Row { inputs: inputs.iter().map(tensor).collect(), length: 1, may_be_padded: false }
}

fn row(ids: &[i64]) -> Row {
    let tensor = Tensor::new(vec![ids.len()], TensorData::Int64(ids.to_vec())).unwrap();
    Row { inputs: vec![tensor], length: ids.len(), may_be_padded: true }
}

/// The elements of output `index` of every row.
fn answers(backend: &TractBackend, rows: &[Row], index: usize) -> Vec<Vec<f32>> {
    let output = backend.run(&Batch { rows: rows.to_vec() }).unwrap();
    let own = |row: RowOutput| match row.outputs[index].elements() {
        TensorData::Fp32(elements) => elements.clone(),
        other => panic!("{other:?}"),
    };
    output.rows.into_iter().map(own).collect()
}

fn logits(backend: &TractBackend, rows: &[Row]) -> Vec<Vec<f32>> {
    answers(backend, rows, 0)
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_batch_leaves_no_trace_in_the_next() {
    let backend = topic();
    let (first, second) = (row(&[17, 400, 23, 9_000, 5]), row(&[812, 33, 4_021]));
    let alone = logits(&backend, std::slice::from_ref(&second));
    for _ in 0..3 {
        logits(&backend, std::slice::from_ref(&first));
        let after = logits(&backend, std::slice::from_ref(&second));
        assert_eq!(after, alone, "the hidden state of one batch has reached the next");
    }
}

/// How far a second run with the same state is from the first.
fn trace_in_a_reused_state(reset: bool) -> f32 {
    let mut model = tract_onnx::onnx().with_ignore_value_info(true).model_for_path(MODEL).unwrap();
    let shape = tvec!(1_usize, 3);
    model.set_input_fact(0, InferenceFact::dt_shape(i64::datum_type(), shape)).unwrap();
    let mut model = model.into_typed().unwrap();
    if reset {
        reset_recurrent_states(&mut model);
    }
    let mut state = model.into_optimized().unwrap().into_runnable().unwrap().spawn().unwrap();
    let mut run = || {
        let input = Array2::from_shape_vec((1, 3), vec![812_i64, 33, 4_021]).unwrap();
        let outputs = state.run(tvec!(TractTensor::from(input).into())).unwrap();
        outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect::<Vec<f32>>()
    };
    let (fresh, reused) = (run(), run());
    worst(&fresh, &reused)
}

/// The trap that the test above guards against is real: one state, used twice, answers differently.
#[test]
fn a_reused_state_would_leave_one_but_for_the_second_belt() {
    assert!(trace_in_a_reused_state(false) > 1e-3, "tract has changed: a reused state answers as a fresh one does");
    assert!(trace_in_a_reused_state(true) < 1e-6, "the loop does not begin at its initial state");
}

#[test]
fn a_row_does_not_know_its_neighbours() {
    let backend = topic();
    let rows = [row(&[812, 33, 4_021]), row(&[5; 128]), row(&[7]), row(&(2..60).collect::<Vec<_>>())];
    let together = logits(&backend, &rows);
    for (row, together) in rows.iter().zip(&together) {
        let alone = logits(&backend, std::slice::from_ref(row));
        assert!(worst(&alone[0], together) < 1e-5, "{alone:?} alone, {together:?} in a batch");
    }
}

/// Rows of many lengths, from ids that repeat as words do and from ids that do not.
fn mixed_rows(seed: i64, count: usize) -> Vec<Row> {
    let mut state = seed;
    let mut next = |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).rem_euclid(below)
    };
    let ids = |next: &mut dyn FnMut(i64) -> i64| {
        let (length, known) = (next(128) + 1, if next(2) == 0 { 10_000 } else { 40 });
        (0..length).map(|_| next(known)).collect::<Vec<_>>()
    };
    (0..count).map(|_| row(&ids(&mut next))).collect()
}

#[test]
fn the_fused_model_answers_as_tract_alone_does() {
    let (inputs, outputs) = spec();
    let onnx = std::fs::read(MODEL).unwrap();
    let spec = GraphSpec { inputs: &inputs, outputs: &outputs, padding: PADDING };
    let (fused, unfused) = (topic(), TractBackend::load_unfused(&onnx, spec).unwrap());
    assert!(fused.plans.operators().iter().any(|name| name == "FusedLstm"));
    assert!(!unfused.plans.operators().iter().any(|name| name == "FusedLstm"));
    for (seed, count) in [(1, 1), (2, 3), (3, 8), (4, 17)] {
        let rows = mixed_rows(seed, count);
        let (fused, unfused) = (logits(&fused, &rows), logits(&unfused, &rows));
        let worst = fused.iter().zip(&unfused).map(|(a, b)| worst(a, b)).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{count} rows: {worst:e}");
    }
}

/// In place of the embedding and the product with it stands the operator, which takes the ids themselves.
#[test]
fn the_fused_model_looks_nothing_up_by_itself() {
    let operators = topic().plans.operators();
    assert!(!operators.iter().any(|name| name == "Gather" || name == "Scan"), "{operators:?}");
    let sums = operators.iter().filter(|name| *name == "Reduce<Sum>").count();
    assert_eq!(sums, 1, "of the steps that count, not of what the operator sums up itself: {operators:?}");
}

#[test]
fn an_id_that_the_embedding_does_not_have_fails_the_batch_alone() {
    let backend = topic();
    let failed = backend.run(&Batch { rows: vec![row(&[3, 10_000])] }).unwrap_err().to_string();
    assert!(failed.contains("id 10000 is not in an embedding of 10000"), "{failed}");
    assert_eq!(logits(&backend, &[row(&[3])]).len(), 1);
}

#[test]
fn a_batch_that_is_run_in_parts_keeps_its_order() {
    let backend = fixture("scale.onnx", &[floats("x", &[-1, 2])], &[floats("y", &[-1, 2])]).unwrap();
    assert!(!backend.is_warm(13, 1) && backend.prepare(13, 1) && backend.is_warm(13, 1));
    let rows: Vec<Row> = (0_u8..13).map(|i| float_row(&[&[f32::from(i), 0.5]], &[2])).collect();
    let doubled: Vec<Vec<f32>> = (0_u8..13).map(|i| vec![f32::from(i) * 2.0, 1.0]).collect();
    assert_eq!(answers(&backend, &rows, 0), doubled);
}

#[test]
fn a_recurrent_model_that_must_be_shaped_anew_answers_alike_in_every_batch() {
    let backend = fixture("lstm.onnx", &[floats("x", &[-1, 3, 2])], &[floats("y", &[-1, 2])]).unwrap();
    let rows: Vec<Row> = [0.1, -0.4, 0.9].iter().map(|x| float_row(&[&[*x, 1.0, -x, 0.5, 0.0, *x]], &[3, 2])).collect();
    let together = answers(&backend, &rows, 0);
    assert!(worst(&together[0], &together[1]) > 1e-3, "the rows shall differ");
    for (row, together) in rows.iter().zip(&together) {
        assert!(worst(&answers(&backend, std::slice::from_ref(row), 0)[0], together) < 1e-6);
    }
}

/// The rows of a batch are answered alike whatever is compiled: in parts of one, of several, or all at once.
#[test]
fn a_batch_without_a_plan_of_its_own_runs_in_what_is_there() {
    let backend = fixture("lstm.onnx", &[floats("x", &[-1, -1, 2])], &[floats("y", &[-1, 2])]).unwrap();
    let rows: Vec<Row> = (1_u8..=7)
        .map(|i| Row { length: 4, ..float_row(&[&[0.1, f32::from(i), -0.5, 0.3, 0.0, 1.0, 0.2, 0.4]], &[4, 2]) })
        .collect();
    let alone: Vec<Vec<f32>> = rows.iter().flat_map(|row| answers(&backend, std::slice::from_ref(row), 0)).collect();
    for prepared in [1, 2, 4] {
        assert!(backend.prepare(prepared, 4) && backend.is_warm(prepared, 4));
        assert_eq!(backend.is_warm(7, 4), prepared == 4, "a batch of seven is run as 4, 2 and 1");
        let together = answers(&backend, &rows, 0);
        assert!(alone.iter().zip(&together).all(|(a, b)| worst(a, b) < 1e-6), "{alone:?} {together:?}");
    }
    let backend = fixture("lstm.onnx", &[floats("x", &[-1, -1, 2])], &[floats("y", &[-1, 2])]).unwrap();
    assert_eq!(answers(&backend, &rows, 0).len(), 7, "where nothing fits, it is compiled");
    assert!(backend.is_warm(4, 4) && !backend.is_warm(8, 4));
}

/// Three lengths, of which one has a plan: shorter rows are filled up to it rather than wait for one of their own.
#[test]
fn shorter_rows_take_the_plan_of_longer_ones_and_get_their_own_when_asked() {
    let backend = fixture("pair.onnx", &[floats("a", &[-1, 3]), floats("b", &[-1, 3])], &[floats("sum", &[-1, 3])]);
    assert!(backend.unwrap().is_warm(1, 1), "rows of a fixed shape are compiled for at load");
    let mut backend = fixture("lstm.onnx", &[floats("x", &[-1, -1, 2])], &[floats("y", &[-1, 2])]).unwrap();
    backend.padding.longest = Some(128);
    assert!(backend.prepare(1, 16));
    let row = Row { may_be_padded: true, length: 3, ..float_row(&[&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], &[3, 2]) };
    let filled_further = answers(&backend, std::slice::from_ref(&row), 0);
    assert!(!backend.is_warm(1, 3), "nothing was compiled for it");
    assert!(backend.prepare(1, 3) && backend.is_warm(1, 4));
    assert!(worst(&answers(&backend, &[row], 0)[0], &filled_further[0]) > 0.0, "now filled up to four");
    assert_eq!(backend.planned_shape(5, 9), (5, 16));
}

/// A graph that tract takes for one shape at a time is filled up to powers of two, but not beyond the model's longest.
#[test]
fn lengths_are_rounded_only_where_shapes_are_compiled_apart() {
    let open = fixture("lstm.onnx", &[floats("x", &[-1, -1, 2])], &[floats("y", &[-1, 2])]).unwrap();
    assert_eq!([1, 5, 64, 100, 200].map(|length| open.plans.padded(length, 100)), [1, 8, 64, 100, 200]);
    assert_eq!(topic().plans.padded(5, 100), 5);
}

#[test]
fn inputs_and_outputs_come_in_the_order_of_model_toml() {
    let (a, b) = (floats("a", &[-1, 3]), floats("b", &[-1, 3]));
    let (sum, difference) = (floats("sum", &[-1, 3]), floats("difference", &[-1, 3]));
    let backend = fixture("pair.onnx", &[a, b], &[difference, sum]).unwrap();
    let rows = [float_row(&[&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]], &[3])];
    assert_eq!(answers(&backend, &rows, 0), [[9.0, 18.0, 27.0]]);
    assert_eq!(answers(&backend, &rows, 1), [[11.0, 22.0, 33.0]]);
}

#[test]
fn what_the_graph_is_not_is_refused_with_both_sides() {
    let integers = TensorSpec { datatype: Datatype::Int64, ..floats("y", &[-1, 4]) };
    let cases = [
        (floats("z", &[-1, 4]), floats("y", &[-1, 4]), "the graph has the inputs `x`, model.toml has `z`"),
        (floats("x", &[-1, 4]), floats("q", &[-1, 4]), "q"),
        (floats("x", &[-1, 4]), integers, "output `y` is F32 in the graph, model.toml says I64"),
        (floats("x", &[-1, 4]), floats("y", &[-1, 5]), "model.toml says [-1, 5]"),
        (floats("x", &[-1, 4]), floats("y", &[-1]), "model.toml says [-1]"),
    ];
    for (input, output, part) in cases {
        let error = fixture("scale.onnx", &[input], &[output]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let (inputs, outputs) = spec();
    let whole = std::fs::read(MODEL).unwrap();
    for share in [0, 1, 2] {
        let spec = GraphSpec { inputs: &inputs, outputs: &outputs, padding: PADDING };
        let cut = TractBackend::load(&whole[..whole.len() * share / 3], spec);
        assert!(cut.is_err(), "{share}/3 of the file were loaded");
    }
}
