//! What a batch costs, fitted to what was measured: `T(b, L) = t0 + t1 b + t2 b L + t3 b L^2`, no coefficient below 0.

use serde::Serialize;

use super::statistics::median;
use crate::batch::report::BatchReport;

/// Rounds of the descent: far more than four coefficients take.
const ROUNDS: usize = 2_000;
/// Batches without which a fit says nothing.
const FEWEST: usize = 8;

/// The coefficients, in milliseconds, and how well they fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CostFit {
    /// `t0` to `t3`, in milliseconds.
    pub(super) coefficients_ms: [f64; 4],
    /// Median of |predicted / measured - 1|.
    pub(super) median_error: f64,
    /// Batches that it was fitted to.
    pub(super) batches: usize,
}

impl CostFit {
    /// Fits by least squares of relative errors, with coefficients of at least 0 (coordinate descent on the normal
    /// equations; they are convex, so that it ends at the optimum). `None` for too few batches.
    pub(super) fn to(reports: &[BatchReport]) -> Option<Self> {
        let measured = || reports.iter().filter(|report| !report.ran.is_zero());
        let batches = measured().count();
        if batches < FEWEST {
            return None;
        }
        // Rows divided by what was measured: each then asks for a sum of 1.
        let rows = || measured().map(|report| features(report).map(|feature| feature / milliseconds(report)));
        let mut normal = [[0.0; 4]; 4];
        let mut target = [0.0; 4];
        for row in rows() {
            for ((equation, goal), factor) in normal.iter_mut().zip(&mut target).zip(row) {
                *goal += factor;
                equation.iter_mut().zip(row).for_each(|(sum, other)| *sum += factor * other);
            }
        }
        let coefficients_ms = descend(&normal, &target);
        let fit = Self { coefficients_ms, median_error: 0.0, batches };
        let errors = measured()
            .map(|report| (fit.predict(report.size, report.padded_length) / milliseconds(report) - 1.0).abs());
        Some(Self { median_error: median(errors), ..fit })
    }

    /// Milliseconds that a batch of `size` rows of `length` should take.
    pub(super) fn predict(&self, size: usize, length: usize) -> f64 {
        shape(size, length).iter().zip(self.coefficients_ms).map(|(feature, t)| feature * t).sum()
    }
}

fn descend(normal: &[[f64; 4]; 4], target: &[f64; 4]) -> [f64; 4] {
    let mut solution = [0.0_f64; 4];
    for _ in 0..ROUNDS {
        for (place, (equation, goal)) in normal.iter().zip(target).enumerate() {
            let own = equation.get(place).copied().unwrap_or(0.0);
            let predicted: f64 = equation.iter().zip(solution).map(|(factor, t)| factor * t).sum();
            if let Some(t) = solution.get_mut(place).filter(|_| own > 0.0) {
                *t = (*t + (goal - predicted) / own).max(0.0);
            }
        }
    }
    solution
}

fn features(report: &BatchReport) -> [f64; 4] {
    shape(report.size, report.padded_length)
}

fn shape(size: usize, length: usize) -> [f64; 4] {
    let (b, l) = (super::statistics::number(size), super::statistics::number(length));
    [1.0, b, b * l, b * l * l]
}

fn milliseconds(report: &BatchReport) -> f64 {
    report.ran.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::labels::DispatchReason;

    fn reports(cost_ms: impl Fn(f64, f64) -> f64) -> Vec<BatchReport> {
        let cells = [1, 2, 4, 8, 16, 32].into_iter().flat_map(|size| [8, 32, 64, 128].map(|length| (size, length)));
        cells
            .map(|(size, padded_length)| BatchReport {
                size,
                padded_length,
                planned_shape: (size, padded_length),
                real_length: size * padded_length,
                reason: DispatchReason::Drained,
                expected: Duration::ZERO,
                expected_apart: Duration::ZERO,
                contended: false,
                background: false,
                best_size: size,
                ran: Duration::from_secs_f64(
                    cost_ms(super::super::statistics::number(size), super::super::statistics::number(padded_length))
                        / 1e3,
                ),
            })
            .collect()
    }

    #[test]
    fn a_cost_of_this_form_is_found_again() {
        let fit = CostFit::to(&reports(|b, l| 2.0 + 0.1 * b + 0.01 * b * l)).unwrap();
        assert!(fit.median_error < 0.02, "{fit:?}");
        for (size, length) in [(1, 8), (16, 64), (32, 128)] {
            let (b, l) = (super::super::statistics::number(size), super::super::statistics::number(length));
            let truth = 2.0 + 0.1 * b + 0.01 * b * l;
            assert!((fit.predict(size, length) / truth - 1.0).abs() < 0.05, "{fit:?} at {size}, {length}");
        }
    }

    #[test]
    fn no_coefficient_falls_below_zero_and_few_batches_give_no_fit() {
        // Cheaper by the row than a straight line: the best t0 is a large one, none is negative.
        let fit = CostFit::to(&reports(|b, _| 5.0 + b.sqrt())).unwrap();
        assert!(fit.coefficients_ms.iter().all(|t| *t >= 0.0), "{fit:?}");
        assert_eq!(CostFit::to(&[]), None);
    }
}
