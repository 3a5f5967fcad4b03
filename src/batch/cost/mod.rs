//! What a batch of a certain shape costs, learned from the batches that ran.
//!
//! `surface` is the smooth part, `sizes` how far batches of a certain size are from it, `drift` how much to allow
//! for errors and whether they have shifted. Fed by the batcher, read by the policy. No clock, no I/O.

use std::time::Duration;

use self::drift::Drift;
use self::sizes::Sizes;
use self::surface::Surface;

mod drift;
mod sizes;
mod surface;

/// How much of what is known in a direction one observation in it leaves.
const FORGETTING: f64 = 0.99;
/// The same for a while after costs have shifted.
const FORGETTING_AFTER_SHIFT: f64 = 0.9;
/// For how many observations.
const SHIFT_LASTS: u32 = 64;
/// What a shift leaves of what was known.
const KEPT_AFTER_SHIFT: f64 = 0.1;
/// Errors, as logarithms, beyond which an observation counts less (P. Huber, "Robust estimation of a location parameter",
/// 1964).
const TRUSTED_ERROR: f64 = 0.25;

/// The cost of a batch by its rows and its length, in seconds.
#[derive(Debug, Clone)]
pub struct CostModel {
    /// `None` until something was observed.
    surface: Option<Surface>,
    sizes: Sizes,
    drift: Drift,
    /// Observations for which a shift is still felt.
    shifting: u32,
}

impl Default for CostModel {
    fn default() -> Self {
        Self { surface: None, sizes: Sizes::default(), drift: Drift::new(), shifting: 0 }
    }
}

impl CostModel {
    /// What is known after batches of these rows and lengths were measured, one after the other: no drift is looked for.
    #[must_use]
    pub fn measured(batches: impl IntoIterator<Item = ((usize, usize), Duration)>) -> Self {
        let mut model = Self::default();
        for ((rows, length), ran) in batches {
            if let Some((seconds, rows, length)) = observable(rows, length, ran) {
                let first = || Surface::guessed(rows, length, seconds);
                let surface = model.surface.get_or_insert_with(first);
                surface.observe((rows, length), seconds, 1.0, 1.0);
                model.sizes.observe(rows, length, seconds, surface);
            }
        }
        model
    }

    /// What a batch of `rows` rows of `length` is expected to cost; 0 while nothing was observed.
    #[must_use]
    pub fn seconds(&self, rows: usize, length: usize) -> f64 {
        let (rows, length) = (real(rows), real(length));
        self.surface.as_ref().map_or(0.0, |surface| surface.seconds(rows, length) * self.sizes.factor(rows))
    }

    /// By which factor one batch in four costs more than expected.
    #[must_use]
    pub fn margin(&self) -> f64 {
        self.drift.margin()
    }

    /// Whether anything was observed.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.surface.is_some()
    }

    /// `t0`, `t1`, `t2` and `t3` of `t0 + t1 b + t2 b L + t3 b L^2`, in seconds; `None` while nothing was observed.
    #[must_use]
    pub fn coefficients(&self) -> Option<[f64; 4]> {
        self.surface.as_ref().map(Surface::coefficients)
    }

    /// How many of the last `window` observations were of batches of about `rows` rows.
    #[must_use]
    pub fn recent(&self, rows: usize, window: u64) -> usize {
        self.sizes.recent(real(rows), window)
    }

    /// Takes in that a batch ran for `ran`. On a clock that stands still nothing can be learned.
    pub fn observe(&mut self, rows: usize, length: usize, ran: Duration) {
        let expected = self.seconds(rows, length);
        let Some((seconds, rows, length)) = observable(rows, length, ran) else { return };
        let Some(surface) = &mut self.surface else {
            let mut surface = Surface::guessed(rows, length, seconds);
            surface.observe((rows, length), seconds, 1.0, FORGETTING);
            self.sizes.observe(rows, length, seconds, &surface);
            self.surface = Some(surface);
            return;
        };
        let ratio = if expected > 0.0 { seconds / expected } else { 1.0 };
        if let Some(factor) = self.drift.observe(ratio) {
            surface.rescale(factor, KEPT_AFTER_SHIFT);
            self.sizes.rescale(factor);
            self.shifting = SHIFT_LASTS;
        }
        let (weight, forgetting) = if self.shifting > 0 {
            (1.0, FORGETTING_AFTER_SHIFT)
        } else {
            ((TRUSTED_ERROR / ratio.ln().abs().max(TRUSTED_ERROR)), FORGETTING)
        };
        self.shifting = self.shifting.saturating_sub(1);
        surface.observe((rows, length), seconds, weight, forgetting);
        self.sizes.observe(rows, length, seconds, surface);
    }
}

/// Seconds, rows and length of an observation that tells something.
fn observable(rows: usize, length: usize, ran: Duration) -> Option<(f64, f64, f64)> {
    let seconds = ran.as_secs_f64();
    (seconds > 0.0 && rows > 0).then(|| (seconds, real(rows), real(length.max(1))))
}

#[expect(clippy::cast_precision_loss, reason = "rows and lengths are far below 2^53")]
fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
