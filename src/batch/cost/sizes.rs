//! What the surface cannot say: how much more or less than it a batch of a certain size costs.
//!
//! A runtime may be slow beyond the size at which its working set leaves the cache, or fill batches up to sizes of its own. So
//! the last observations of each power of two are kept, and compared with whatever the surface says now.

use super::surface::Surface;

/// Sizes 1, 2, 4, ..., 1,024.
const KNOTS: usize = 11;
/// Observations kept of each.
const KEPT: usize = 9;
/// Distances of the surface from what was observed, as logarithms, below which the surface is believed.
const BELIEVED: f64 = 0.05;
/// Observations that the surface counts for.
const SURFACE_COUNTS: f64 = 2.0;

/// A batch that has run.
#[derive(Debug, Clone, Copy)]
struct Ran {
    rows: f64,
    length: f64,
    seconds: f64,
    /// Which observation of all it was.
    number: u64,
}

/// The last observations by size.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    knots: [Knot; KNOTS],
    observations: u64,
    /// The last observation before everything changed.
    shifted_at: u64,
}

#[derive(Debug, Clone, Default)]
struct Knot {
    ran: Vec<Ran>,
    next: usize,
    /// Logarithm of observed over surface.
    excess: f64,
}

impl Sizes {
    /// Takes in that a batch of `rows` rows cost `seconds`, with the surface as it is after that.
    pub(super) fn observe(&mut self, rows: f64, length: f64, seconds: f64, surface: &Surface) {
        self.observations += 1;
        let ran = Ran { rows, length, seconds, number: self.observations };
        if let Some(knot) = self.knots.get_mut(nearest(rows)) {
            knot.push(ran);
        }
        for knot in &mut self.knots {
            knot.compare(surface);
        }
    }

    /// Everything costs `factor` times as much, or so it seems: sizes that are not run now may have changed otherwise. One
    /// observation of each is kept, until there are newer ones.
    pub(super) fn rescale(&mut self, factor: f64) {
        for knot in &mut self.knots {
            knot.ran.sort_unstable_by_key(|ran| std::cmp::Reverse(ran.number));
            knot.ran.truncate(1);
            knot.next = knot.ran.len();
            knot.ran.iter_mut().for_each(|ran| ran.seconds *= factor);
        }
        self.shifted_at = self.observations;
    }

    /// What to multiply the surface with for a batch of `rows` rows.
    pub(super) fn factor(&self, rows: f64) -> f64 {
        let place = rows.max(1.0).log2();
        let excess = |knot: usize| self.knots.get(knot.min(KNOTS - 1)).map_or(0.0, |knot| knot.excess);
        let below = nearest((place.floor()).exp2());
        let (low, high) = (excess(below), excess(below + 1));
        if low == 0.0 && high == 0.0 {
            return 1.0;
        }
        ((high - low).mul_add(place.fract(), low)).exp()
    }

    /// How many of the last `window` observations were of batches about as large; those from before a shift do not count.
    pub(super) fn recent(&self, rows: f64, window: u64) -> usize {
        let since = self.observations.saturating_sub(window).max(self.shifted_at);
        let count = |knot: &Knot| knot.ran.iter().filter(|ran| ran.number > since).count();
        self.knots.get(nearest(rows)).map_or(0, count)
    }
}

impl Knot {
    fn push(&mut self, ran: Ran) {
        match self.ran.get_mut(self.next) {
            Some(oldest) => *oldest = ran,
            None => self.ran.push(ran),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// The median, so that a stall among the observations does not count, drawn towards the surface.
    fn compare(&mut self, surface: &Surface) {
        let mut ratios: Vec<f64> = self
            .ran
            .iter()
            .map(|ran| (ran.seconds / surface.seconds(ran.rows, ran.length)).ln())
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a few observations")]
        let count = ratios.len() as f64;
        let drawn = median * count / (count + SURFACE_COUNTS);
        self.excess = drawn.signum() * (drawn.abs() - BELIEVED).max(0.0);
    }
}

/// The knot for batches of `rows` rows.
fn nearest(rows: f64) -> usize {
    let place = rows.max(1.0).log2().round();
    (0_u8..).zip(0..KNOTS).find(|(knot, _)| f64::from(*knot) >= place).map_or(KNOTS - 1, |(_, knot)| knot)
}
