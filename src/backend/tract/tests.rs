//! Tests on the reference model: a fresh state for every batch, and rows that do not know their neighbours.

use tract_onnx::prelude::tract_ndarray::Array2;
use tract_onnx::prelude::{Tensor as TractTensor, tvec};

use super::*;
use crate::batch::row::Row;
use crate::protocol::tensor::{Tensor, TensorData};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1/model.onnx");

fn spec() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    (
        vec![TensorSpec { name: "input_ids".into(), datatype: Datatype::Int64, shape: vec![-1, -1] }],
        vec![TensorSpec { name: "logits".into(), datatype: Datatype::Fp32, shape: vec![-1, 5] }],
    )
}

fn topic() -> TractBackend {
    let (inputs, outputs) = spec();
    TractBackend::load(Path::new(MODEL), GraphSpec { inputs: &inputs, outputs: &outputs, padding: 0 }).unwrap()
}

fn row(ids: &[i64]) -> Row {
    let tensor = Tensor::new(vec![ids.len()], TensorData::Int64(ids.to_vec())).unwrap();
    Row { inputs: vec![tensor], length: ids.len(), may_be_padded: true }
}

fn logits(backend: &TractBackend, rows: &[Row]) -> Vec<Vec<f32>> {
    let output = backend.run(&Batch { rows: rows.to_vec() }).unwrap();
    let own = |row: RowOutput| match row.outputs[0].elements() {
        TensorData::Fp32(elements) => elements.clone(),
        other => panic!("{other:?}"),
    };
    output.rows.into_iter().map(own).collect()
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

/// The trap that the test above guards against is real: one state, used twice, answers differently.
#[test]
fn a_reused_state_would_leave_one() {
    let (inputs, outputs) = spec();
    let graph = GraphSpec { inputs: &inputs, outputs: &outputs, padding: 0 };
    let plan = compile(typed(Path::new(MODEL), graph).unwrap().0).unwrap();
    let mut state = plan.spawn().unwrap();
    let mut run = |ids: &[i64]| {
        let input = Array2::from_shape_vec((1, ids.len()), ids.to_vec()).unwrap();
        let outputs = state.run(tvec!(TractTensor::from(input).into())).unwrap();
        outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect::<Vec<f32>>()
    };
    let fresh = run(&[812, 33, 4_021]);
    let reused = run(&[812, 33, 4_021]);
    assert!(worst(&fresh, &reused) > 1e-3, "tract has changed: a reused state answers as a fresh one does");
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

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let (inputs, outputs) = spec();
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(MODEL).unwrap();
    for share in [0, 1, 2] {
        let path = folder.path().join("cut.onnx");
        std::fs::write(&path, &whole[..whole.len() * share / 3]).unwrap();
        let spec = GraphSpec { inputs: &inputs, outputs: &outputs, padding: 0 };
        assert!(TractBackend::load(&path, spec).is_err(), "{share}/3 of the file were loaded");
    }
}
