//! The smooth part of the cost of a batch: `t0 + t1 b + t2 b L + t3 b L^2`, every coefficient at least 0, fitted while running.
//!
//! Recursive least squares in its information form. Errors count relative to the cost (weight 1/T^2). Old observations are
//! forgotten in the direction of the new one only (L. Cao and H. Schwartz, "A directional forgetting algorithm based on the
//! decomposition of the information matrix", Automatica 36, 2000), so that what a constant batch size or length cannot tell
//! stays as it was. The coefficients are the non-negative minimum of the same sum of squares, found by coordinate descent.

/// Length that the features are scaled by, so that they are of one size.
const LENGTH_SCALE: f64 = 128.0;
/// Share of a first observation that is taken for a batch's own, not its rows': worth trying to merge, until it is known better.
const FIRST_GUESS_OVERHEAD: f64 = 0.5;
/// What the first guess weighs against one observation, for each coefficient.
const FIRST_GUESS_WEIGHT: f64 = 0.02;
/// Sweeps of the descent: it starts from the last coefficients, which are near.
const SWEEPS: usize = 24;

type Vector = [f64; 4];

/// The fitted surface; costs in seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Surface {
    /// Sum of the weighted outer products of the features: what is known, in which direction.
    information: [Vector; 4],
    /// Sum of the weighted features times what was observed.
    observed: Vector,
    coefficients: Vector,
}

impl Surface {
    /// A surface through one observation.
    pub(super) fn guessed(rows: f64, length: f64, seconds: f64) -> Self {
        let [one, by_row, by_length, by_square] = features(rows, length);
        let guess = [FIRST_GUESS_OVERHEAD, 0.0, 1.0 - FIRST_GUESS_OVERHEAD, 0.0];
        // Each coefficient in units in which it would explain the whole observation.
        let units = [one, by_row, by_length, by_square].map(|feature| seconds / feature);
        let mut surface = Self::default();
        for (place, (unit, share)) in units.into_iter().zip(guess).enumerate() {
            let weight = FIRST_GUESS_WEIGHT / (unit * unit);
            if let Some(cell) = surface.information.get_mut(place).and_then(|row| row.get_mut(place)) {
                *cell = weight;
            }
            if let Some(cell) = surface.observed.get_mut(place) {
                *cell = weight * unit * share;
            }
        }
        surface.solve();
        surface
    }

    /// What a batch of this shape costs.
    pub(super) fn seconds(&self, rows: f64, length: f64) -> f64 {
        dot(&self.coefficients, &features(rows, length))
    }

    /// `t0`, `t1`, `t2`, `t3`, for lengths as they are.
    pub(super) fn coefficients(&self) -> [f64; 4] {
        let [overhead, by_row, by_length, by_square] = self.coefficients;
        [overhead, by_row, by_length / LENGTH_SCALE, by_square / (LENGTH_SCALE * LENGTH_SCALE)]
    }

    /// Takes in that a batch cost `seconds`; `weight` is relative to that of other observations of the same cost.
    pub(super) fn observe(&mut self, (rows, length): (f64, f64), seconds: f64, weight: f64, forgetting: f64) {
        let features = features(rows, length);
        let predicted = self.seconds(rows, length).max(seconds / 16.0);
        self.forget(&features, forgetting);
        let weight = weight / (predicted * predicted);
        for (row, feature) in self.information.iter_mut().zip(features) {
            add(row, &features, weight * feature);
        }
        add(&mut self.observed, &features, weight * seconds);
        self.solve();
    }

    /// Everything costs `factor` times as much, and is known less well.
    pub(super) fn rescale(&mut self, factor: f64, kept: f64) {
        for row in &mut self.information {
            row.iter_mut().for_each(|cell| *cell *= kept);
        }
        self.observed.iter_mut().for_each(|cell| *cell *= kept * factor);
        self.coefficients.iter_mut().for_each(|cell| *cell *= factor);
    }

    fn forget(&mut self, features: &Vector, forgetting: f64) {
        let seen = self.information.map(|row| dot(&row, features));
        let known = dot(&seen, features);
        if known <= 0.0 {
            return;
        }
        let forgotten = (1.0 - forgetting) / known;
        let observed = dot(&self.observed, features);
        for (row, own) in self.information.iter_mut().zip(seen) {
            add(row, &seen, -forgotten * own);
        }
        add(&mut self.observed, &seen, -forgotten * observed);
    }

    fn solve(&mut self) {
        for _ in 0..SWEEPS {
            for (place, (row, observed)) in self.information.iter().zip(self.observed).enumerate() {
                let Some(diagonal) = row.get(place).filter(|diagonal| **diagonal > 0.0) else { continue };
                let left = observed - dot(row, &self.coefficients);
                if let Some(coefficient) = self.coefficients.get_mut(place) {
                    *coefficient = (*coefficient + left / diagonal).max(0.0);
                }
            }
        }
    }
}

fn features(rows: f64, length: f64) -> Vector {
    let length = length / LENGTH_SCALE;
    [1.0, rows, rows * length, rows * length * length]
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut Vector, what: &Vector, times: f64) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what * times;
    }
}
