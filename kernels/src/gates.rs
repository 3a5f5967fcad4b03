//! The gates of an LSTM on vectors: what becomes of the cell and of the hidden state in one step.
//!
//! Called by `kernel`, in whose loops it is inlined. The hyperbolic tangent is a quotient of two polynomials, and the
//! logistic function is made of it; the quotients of one cell are brought to a common denominator, since a division
//! costs as much as four of these polynomials' steps. Within [`GATE_ERROR`] of the exact value.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

/// Gates of a unit, in the order of ONNX: input, output, forget, cell.
pub const GATES: usize = 4;

/// How far both states may be from those of exact functions, relative to 1 + |c| of the cell before.
pub const GATE_ERROR: f64 = 1e-6;

/// Beyond it a tangent is 1 within 3e-7, and the polynomials are not meant for it.
const TANH_BOUND: f32 = 7.905_311;

/// Minimax coefficients of Eigen's `ptanh_float`, highest power of x^2 first; the numerator has one more factor x.
const NUMERATOR: [f32; 7] =
    [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297_3e-8, 1.485_722_35e-5, 6.372_619_4e-4, 4.893_524_6e-3];
const DENOMINATOR: [f32; 4] = [1.198_258_4e-6, 1.185_347e-4, 2.268_434_6e-3, 4.893_525e-3];

/// The next hidden state and the next cell of a vector of units, from their preactivations and their cells.
#[inline(always)]
pub(crate) fn cell<S: Simd>(
    simd: S,
    [input, output, forget, cell]: [S::f32s; GATES],
    before: S::f32s,
) -> (S::f32s, S::f32s) {
    let half = S::f32s::splat(simd, 0.5);
    let (input, input_q) = logistic(simd, input);
    let (output, output_q) = logistic(simd, output);
    let (forget, forget_q) = logistic(simd, forget);
    let (cell, cell_q) = tangent(simd, cell);
    let new_q = input_q * cell_q;
    let kept = forget * before * new_q;
    let new = input * cell * forget_q;
    let after = half * (kept + new) / (forget_q * new_q);
    let (seen, seen_q) = tangent(simd, after);
    let hidden = half * output * seen / (output_q * seen_q);
    (hidden, after)
}

/// Twice the logistic function as numerator and denominator: it is (q + p) / 2q, where p / q is the tangent of x / 2.
#[inline(always)]
fn logistic<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (p, q) = tangent(simd, S::f32s::splat(simd, 0.5) * x);
    (q + p, q)
}

/// The hyperbolic tangent as numerator and denominator.
#[inline(always)]
fn tangent<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    // By comparison, not by minimum and maximum: those would make a number of what is none.
    let (low, high) = (S::f32s::splat(simd, -TANH_BOUND), S::f32s::splat(simd, TANH_BOUND));
    let x = x.simd_gt(high).select(high, x);
    let x = x.simd_lt(low).select(low, x);
    let square = x * x;
    (x * polynomial(simd, square, NUMERATOR), polynomial(simd, square, DENOMINATOR))
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, coefficients: [f32; N]) -> S::f32s {
    let mut sum = S::f32s::splat(simd, 0.0);
    for coefficient in coefficients {
        sum = sum.mul_add(x, S::f32s::splat(simd, coefficient));
    }
    sum
}

#[cfg(test)]
mod tests {
    use fearless_simd::dispatch;

    use super::*;

    /// Hidden states and cells in the place of cases: four preactivations and a cell before.
    #[inline(always)]
    fn run<S: Simd>(simd: S, cases: &[[f32; 5]]) -> Vec<(f32, f32)> {
        let one = |case: &[f32; 5]| {
            let [i, o, f, c, before] = case.map(|x| S::f32s::splat(simd, x));
            let (hidden, after) = cell(simd, [i, o, f, c], before);
            (hidden.as_slice()[0], after.as_slice()[0])
        };
        cases.iter().map(one).collect()
    }

    /// What each kind of instructions that this machine has makes of the cases.
    fn by_every_level(cases: &[[f32; 5]]) -> Vec<Vec<(f32, f32)>> {
        crate::weights::levels().into_iter().map(|level| dispatch!(level, simd => run(simd, cases))).collect()
    }

    fn exact([i, o, f, c, before]: [f64; 5]) -> (f64, f64) {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let after = logistic(f) * before + logistic(i) * c.tanh();
        (logistic(o) * after.tanh(), after)
    }

    fn worst(cases: &[[f32; 5]], found: &[(f32, f32)]) -> f64 {
        let error = |(case, found): (&[f32; 5], &(f32, f32))| {
            let (hidden, after) = exact(case.map(f64::from));
            let error = (hidden - f64::from(found.0)).abs().max((after - f64::from(found.1)).abs());
            error / (1.0 + f64::from(case[4].abs()))
        };
        cases.iter().zip(found).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn gates_are_within_their_bound_of_exact_functions() {
        let points = [-200.0, -20.0, -8.0, -7.9, -4.0, -1.0, -0.1, -1e-6, 0.0, 1e-6, 0.3, 0.9, 2.0, 5.0, 7.91, 30.0];
        let mut cases = Vec::new();
        for (a, b) in points.iter().flat_map(|a| points.iter().map(move |b| (*a, *b))) {
            cases.extend([[a, b, 0.4, -0.7, 0.2], [0.1, a, b, 0.6, -3.0], [a, 0.5, -0.2, b, 0.9], [b, 1.0, a, 2.0, b]]);
        }
        // A fine grid along the diagonal: no seam between the polynomials and the bound.
        cases.extend((-4_000_i16..4_000).map(|step| [f32::from(step) / 400.0; 5]));
        for found in by_every_level(&cases) {
            assert!(worst(&cases, &found) < GATE_ERROR, "{:e}", worst(&cases, &found));
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for place in 0..5 {
            let mut case = [0.5; 5];
            case[place] = f32::NAN;
            for found in by_every_level(&[case]) {
                assert!(found[0].0.is_nan(), "place {place}: {found:?}");
            }
        }
    }
}
