//! Tests of the kernels: against exact arithmetic, in any company, and with rows that end.

use inferq_kernels::{Aligned, Level, OnnxWeights, Projection, Recurrence, Summation, Weights, levels};

pub(super) const HIDDEN: usize = 32;
pub(super) const FEATURES: usize = 5;

/// Numbers between -1 and 1, the same ones every time.
pub(super) fn numbers(count: usize, seed: u32) -> Vec<f32> {
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
