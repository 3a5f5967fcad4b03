//! Ratios of blocks and how sure they are: geometric means with bootstrap intervals.

use serde::Serialize;

use super::random::Random;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 4_000;

/// A ratio over all blocks, with the interval that holds it in 95 of 100 runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Geometric mean of the blocks' ratios.
    pub(super) mean: f64,
    /// Lower end of the 95% interval.
    pub(super) low: f64,
    /// Upper end of the 95% interval.
    pub(super) high: f64,
}

impl Ratio {
    /// The ratio over blocks, by a percentile bootstrap (Efron 1979) of their logarithms. `None` where no block has one.
    pub(super) fn over_blocks(ratios: &[f64], seed: u64) -> Option<Self> {
        let logarithms: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).filter(|ln| ln.is_finite()).collect();
        if logarithms.is_empty() {
            return None;
        }
        let mut random = Random::new(seed);
        let resample =
            |_| mean((0..logarithms.len()).filter_map(|_| logarithms.get(random.below(logarithms.len())).copied()));
        let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
        means.sort_by(f64::total_cmp);
        let at = |share| quantile(&means, share).exp();
        Some(Self { mean: mean(logarithms.iter().copied()).exp(), low: at(0.025), high: at(0.975) })
    }

    /// Whether it differs from 1 for sure, and by more than `noise`, the ratio of an arm to its own twin.
    pub(super) fn is_beyond(&self, noise: &Self) -> bool {
        let widest = noise.low.ln().abs().max(noise.high.ln().abs());
        (self.low > 1.0 || self.high < 1.0) && self.mean.ln().abs() > widest
    }
}

/// The arithmetic mean; 0 of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The value at `share` of sorted values, between neighbours where it falls between them; 0 of nothing.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (below, above) = (at(place.floor()), at(place.ceil()));
    below + (above - below) * place.fract()
}

/// The median of values in any order; 0 of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "nothing here is counted to 2^52")]
pub(super) const fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        let ratio = Ratio::over_blocks(&[0.5, 2.0, 4.0, 0.25], 1).unwrap();
        assert!((ratio.mean - 1.0).abs() < 1e-12);
        assert!(ratio.low < 1.0 && ratio.high > 1.0);
        assert_eq!(Ratio::over_blocks(&[], 1), None);
        assert_eq!(Ratio::over_blocks(&[f64::NAN, 0.0], 1), None);
    }

    #[test]
    fn the_interval_of_equal_blocks_is_a_point_and_repeats_with_its_seed() {
        let ratio = Ratio::over_blocks(&[1.5; 8], 1).unwrap();
        assert!((ratio.low - 1.5).abs() < 1e-9 && (ratio.high - 1.5).abs() < 1e-9);
        let blocks = [0.9, 1.1, 1.3, 0.8, 1.0];
        assert_eq!(Ratio::over_blocks(&blocks, 7), Ratio::over_blocks(&blocks, 7));
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        // Blocks of a true ratio of 1.2 with noise of 10%; ten of them a run.
        let mut random = Random::new(11);
        let mut noise = || 1.2 * (0.1 * (0..12).map(|_| random.uniform() - 0.5).sum::<f64>()).exp();
        let held = (0..200).filter(|run| {
            let blocks: Vec<f64> = (0..10).map(|_| noise()).collect();
            let ratio = Ratio::over_blocks(&blocks, *run).unwrap();
            ratio.low <= 1.2 && 1.2 <= ratio.high
        });
        // A percentile bootstrap of ten is a little narrow: 90 of 100.
        let held = held.count();
        assert!((164..=196).contains(&held), "{held} of 200");
    }

    #[test]
    fn a_win_is_one_only_above_the_noise() {
        let of = |mean, low, high| Ratio { mean, low, high };
        let noise = of(1.0, 0.97, 1.03);
        assert!(of(1.2, 1.1, 1.3).is_beyond(&noise));
        assert!(of(0.8, 0.7, 0.9).is_beyond(&noise));
        assert!(!of(1.02, 1.01, 1.03).is_beyond(&noise), "as small as the noise");
        assert!(!of(1.2, 0.9, 1.6).is_beyond(&noise), "not sure");
    }

    #[test]
    fn quantiles_fall_between_neighbours() {
        assert!((quantile(&[1.0, 2.0, 3.0, 4.0], 0.5) - 2.5).abs() < 1e-12);
        assert!((quantile(&[1.0, 2.0], 1.0) - 2.0).abs() < 1e-12);
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-12);
        assert!(quantile(&[], 0.5).abs() < 1e-12);
    }
}
