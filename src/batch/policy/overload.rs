//! What to give up when not all that is due can be kept.
//!
//! The row that is due first has little time left, so that the batch around it must be small, and small batches do less: under
//! overload, keeping every due time for as long as possible keeps few. Then the rows with the least time left are run late,
//! so that those after them can be run in good batches and in time.

use tokio::time::Instant;

use super::adaptive::Candidate;
use super::{Costs, Given};

/// From which of `rows`, earliest due first, on they are worth keeping, with so many arrivals a second and so many executors: the
/// first from which on all can be in time, or else the one from which on most is done in the time.
pub(super) fn worth_keeping(rows: &[Candidate<'_>], (arrivals, executors): (f64, f64), given: Given<'_>) -> usize {
    let Given { costs, bounds, moment } = given;
    let slack = |due: Instant| due.saturating_duration_since(moment.now).as_secs_f64();
    let slacks: Vec<f64> = rows.iter().map_while(|row| row.due).map(slack).collect();
    let rows = rows.get(..slacks.len()).unwrap_or(rows);
    let mut best = (0, 0.0);
    let mut last_size = 0;
    for (place, (row, slack)) in rows.iter().zip(&slacks).enumerate() {
        let most = bounds.most(row.length).min(rows.len() - place).max(1);
        let (size, seconds) = largest_within(*slack, row, costs, most);
        if place > 0 && size <= last_size {
            // As small as one that was looked at, and fewer of them.
            continue;
        }
        last_size = size;
        let each = seconds / real(size) / executors;
        let in_time = || slacks.iter().skip(place).zip(1_u32..).all(|(slack, count)| each * f64::from(count) <= *slack);
        // In time now, and no more arriving than can be done in batches like this one.
        let lasts = || each * arrivals <= 1.0;
        if size == most && most < rows.len() - place || lasts() && in_time() {
            return place;
        }
        let rate = real(size) / seconds;
        if rate > best.1 {
            best = (place, rate);
        }
    }
    best.0
}

/// The largest batch of rows like `row` that is likely to end within `slack`, and what it costs.
fn largest_within(slack: f64, row: &Candidate<'_>, costs: Costs<'_>, most: usize) -> (usize, f64) {
    let margin = costs.model.margin();
    let fits = |size: usize| costs.seconds(size, row.length) * margin <= slack;
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    (low, costs.seconds(low, row.length).max(f64::MIN_POSITIVE))
}

#[expect(clippy::cast_precision_loss, reason = "a count of rows")]
fn real(count: usize) -> f64 {
    count as f64
}
