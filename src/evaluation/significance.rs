//! Whether two models that judged the same texts differ by more than chance. Pure.

use super::scores::{Judged, accuracy, macro_f1};
use crate::seeded::Seeded;

/// Resamples of a bootstrap.
pub(super) const RESAMPLES: usize = 1_000;
/// What they are drawn with, so that whoever computes them again gets the same.
pub(super) const SEED: u64 = 7;

/// The exact two-sided p of McNemar's test: how probable it is that of the texts that one of both models got right, the
/// shares are as uneven or more, if it were a coin that decides.
pub(super) fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let discordant = only_first + only_second;
    if discordant == 0 {
        return 1.0;
    }
    let fewer = only_first.min(only_second);
    // Logarithms of the binomial coefficients, so that thousands of texts neither overflow nor vanish.
    let mut log_coefficient = 0.0_f64;
    let log_half = 0.5_f64.ln() * discordant as f64;
    let mut tail = 0.0;
    for k in 0..=fewer {
        if k > 0 {
            log_coefficient += ((discordant - k + 1) as f64).ln() - (k as f64).ln();
        }
        tail += (log_coefficient + log_half).exp();
    }
    (2.0 * tail).min(1.0)
}

/// The 95% intervals of second minus first, by resampling the texts in pairs: of the accuracy, of the macro F1.
pub(super) fn paired_bootstrap(first: &[Judged], second: &[Judged], classes: usize) -> [[f64; 2]; 2] {
    let count = first.len().min(second.len());
    let mut seeded = Seeded::new(SEED);
    let (mut accuracies, mut f1s) = (Vec::with_capacity(RESAMPLES), Vec::with_capacity(RESAMPLES));
    for _ in 0..RESAMPLES {
        let drawn: Vec<usize> = (0..count).map(|_| seeded.below(count)).collect();
        let of = |judged: &[Judged]| -> Vec<Judged> {
            drawn.iter().filter_map(|index| judged.get(*index).copied()).collect()
        };
        let (a, b) = (of(first), of(second));
        accuracies.push(accuracy(&b) - accuracy(&a));
        f1s.push(macro_f1(b, classes) - macro_f1(a, classes));
    }
    [middle(accuracies), middle(f1s)]
}

/// What is between the lowest and the highest 2.5%.
fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * (values.len().saturating_sub(1)) as f64).round() as usize;
        values.get(index).copied().unwrap_or(0.0)
    };
    [at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_the_exact_binomial_one() {
        for (b, c, expected) in [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021_484_375), (9, 1, 0.021_484_375)]
        {
            assert!((mcnemar(b, c) - expected).abs() < 1e-9, "{b} {c}: {}", mcnemar(b, c));
        }
        assert!(
            mcnemar(4_000, 4_400) < 1e-4 && mcnemar(4_000, 4_400) > 0.0,
            "large counts neither overflow nor vanish"
        );
    }

    #[test]
    fn an_interval_of_equal_models_is_nothing_and_of_unequal_ones_keeps_off_zero() {
        let right: Vec<Judged> = (0..200).map(|i| (i % 2, Some(i % 2))).collect();
        let worse: Vec<Judged> = (0..200).map(|i| (i % 2, Some(if i % 4 == 0 { 1 } else { i % 2 }))).collect();
        assert_eq!(paired_bootstrap(&right, &right, 2), [[0.0; 2]; 2]);
        let [[low, high], [f1_low, f1_high]] = paired_bootstrap(&worse, &right, 2);
        assert!(low > 0.15 && high < 0.35 && low < high, "{low} {high}");
        assert!(f1_low > 0.1 && f1_high < 0.4, "{f1_low} {f1_high}");
        assert_eq!(paired_bootstrap(&worse, &right, 2), paired_bootstrap(&worse, &right, 2));
    }
}
