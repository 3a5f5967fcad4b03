//! Trying a batch of a size of which little is known, so that what batches of that size cost is never just believed.
//!
//! A small share of the time that batches run may be spent on it. Where batches do not pay, this is the only way to find
//! out when they begin to; where they pay, it keeps the cost of small ones known.

use super::adaptive::Candidate;
use super::merge::Merge;
use crate::telemetry::labels::DispatchReason;

/// Share of the running time that trials may cost.
const BUDGET: f64 = 0.005;
/// Trials that may be saved up, in batches as they are now.
const SAVED_UP: f64 = 8.0;
/// Of so many batches,
const WINDOW: u64 = 512;
/// so many should be of a size for it to be known.
const ENOUGH: usize = 3;

/// What may be spent.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    /// Seconds.
    credit: f64,
}

impl Explorer {
    /// A batch is run that is expected to take so many seconds.
    pub(super) fn earn(&mut self, seconds: f64) {
        self.credit = BUDGET.mul_add(seconds, self.credit).min(SAVED_UP * seconds.max(self.credit / SAVED_UP));
    }

    /// Makes the batch larger or smaller than it was formed, where that is worth knowing and can be paid for.
    pub(super) fn vary<'a>(&mut self, merge: &mut Merge<'a>, neighbours: &[Candidate<'a>], share: usize) {
        if !merge.costs.model.is_known() {
            return;
        }
        match merge.reason() {
            DispatchReason::Costly => {
                self.reduce(merge);
                // What was made smaller is as it should be.
                if merge.reason() == DispatchReason::Costly {
                    self.enlarge(merge, neighbours, share);
                }
            }
            DispatchReason::Full | DispatchReason::Drained | DispatchReason::Shared => self.reduce(merge),
            DispatchReason::Due | DispatchReason::Alone | DispatchReason::Trial | DispatchReason::Fixed => {}
            DispatchReason::Cold | DispatchReason::Bisected => {}
        }
    }

    fn enlarge<'a>(&mut self, merge: &mut Merge<'a>, neighbours: &[Candidate<'a>], share: usize) {
        let most = share.min(merge.bounds.max_batch_size).min(neighbours.len() + 1);
        let larger = powers().skip_while(|size| *size <= merge.rows.len()).take_while(|size| *size <= most);
        let Some(size) = unknown(merge, larger) else { return };
        let longest = neighbours.iter().map(|other| other.length).chain(merge.rows.iter().map(|row| row.length)).max();
        // All of it: what a batch of an unknown size costs beyond what is expected is unknown, too.
        let price = merge.costs.seconds(size, longest.unwrap_or(1));
        if self.credit >= price
            && merge.can_be_tried(size, longest.unwrap_or(1))
            && merge.stretch(neighbours, size, DispatchReason::Trial)
        {
            self.credit -= price;
        }
    }

    fn reduce(&mut self, merge: &mut Merge<'_>) {
        let rows = merge.rows.len();
        // Rows by themselves first: they are what everything else is compared with.
        let Some(size) = unknown(merge, powers().take_while(|size| *size < rows)) else { return };
        let longest = merge.rows.iter().map(|row| row.length).max().unwrap_or(1);
        let parts = merge.costs.seconds(size, longest) + merge.costs.seconds(rows - size, longest);
        let price = (parts - merge.expected()).max(0.0);
        if self.credit >= price && merge.can_be_tried(size, longest) {
            self.credit -= price;
            merge.cut(size, DispatchReason::Trial);
        }
    }
}

/// The first of `sizes` of which too few batches have run lately.
fn unknown(merge: &Merge<'_>, mut sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.find(|size| merge.costs.model.recent(*size, WINDOW) < ENOUGH)
}

fn powers() -> impl Iterator<Item = usize> {
    (0..u32::BITS - 1).map(|power| 1_usize << power)
}
