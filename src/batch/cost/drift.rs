//! How far what was observed is from what was predicted: what to allow for, and whether it has shifted for good.

use std::collections::VecDeque;

/// Ratios kept.
const KEPT: usize = 256;
/// What is assumed before anything was observed: a quarter above the prediction.
const ASSUMED_RATIO: f64 = 1.25;
/// Which of the kept ratios, counted from the largest, is the upper quartile. Not one further up: a batch that is planned for the stall
/// that hits one in a hundred is small, small batches do less, and then many are late to keep a few from it.
const FROM_THE_TOP: usize = KEPT / 4;
/// One observation counts for no more than this, so that a single stall is no shift.
const MOST: f64 = 0.5;
/// Half of the shift that is looked for: 25%, as a logarithm.
const ALLOWED: f64 = 0.11;
/// The sum at which a shift is believed.
const BELIEVED: f64 = 1.2;

/// The last ratios of observed to predicted, and the sums of a CUSUM test (E. S. Page, "Continuous inspection schemes",
/// Biometrika 41, 1954).
#[derive(Debug, Clone)]
pub(super) struct Drift {
    /// In the order in which they came.
    ratios: VecDeque<f64>,
    sorted: Vec<f64>,
    up: Sum,
    down: Sum,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sum: f64,
    total: f64,
    count: f64,
}

impl Drift {
    pub(super) fn new() -> Self {
        let ratios: VecDeque<f64> = std::iter::repeat_n(ASSUMED_RATIO, KEPT).collect();
        let sorted = ratios.iter().copied().collect();
        Self { ratios, sorted, up: Sum::default(), down: Sum::default() }
    }

    /// The upper quartile of observed over predicted.
    pub(super) fn margin(&self) -> f64 {
        self.sorted.iter().rev().nth(FROM_THE_TOP).copied().unwrap_or(ASSUMED_RATIO)
    }

    /// Takes in a ratio; answers by which factor costs have shifted, where they have.
    pub(super) fn observe(&mut self, ratio: f64) -> Option<f64> {
        if let Some(oldest) = self.ratios.pop_front() {
            let place = self.sorted.partition_point(|kept| *kept < oldest);
            if place < self.sorted.len() {
                self.sorted.remove(place);
            }
        }
        self.ratios.push_back(ratio);
        self.sorted.insert(self.sorted.partition_point(|kept| *kept < ratio), ratio);
        let distance = ratio.ln();
        let shifted = self.up.add(distance).or_else(|| self.down.add(-distance).map(|by| -by));
        if shifted.is_some() {
            (self.up, self.down) = (Sum::default(), Sum::default());
        }
        shifted.map(f64::exp)
    }
}

impl Sum {
    /// Takes in a distance; answers the mean distance since the shift began, where there is one.
    fn add(&mut self, distance: f64) -> Option<f64> {
        self.sum += distance.clamp(-MOST, MOST) - ALLOWED;
        if self.sum <= 0.0 {
            *self = Self::default();
            return None;
        }
        self.total += distance.clamp(-2.0, 2.0);
        self.count += 1.0;
        (self.sum > BELIEVED).then(|| self.total / self.count)
    }
}
