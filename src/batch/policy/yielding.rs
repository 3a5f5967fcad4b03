//! When rows have a turn that give way to others: while none of the others waits, and else for a share of the time.
//!
//! Rows in the background give way to those of jobs, and what is late anyhow to what can be in time. The share keeps them from waiting for
//! ever under lasting load. It is earned by what the others run while such rows wait, and is not saved up: where either kind does
//! not wait, earning begins anew. So who comes when none of the others waits finds nothing before it but what runs.

/// What rows that give way have earned.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    /// In batches of theirs, as the dearest that is possible: by what the others ran.
    earned: f64,
}

impl Yielding {
    /// Whether the next batch is one of theirs; never where none of them waits. While both wait, the others run so many batches
    /// for each of theirs, by the cost.
    pub(super) fn has_turn(&mut self, do_others_wait: bool, do_they_wait: bool, others_for_each: f64) -> bool {
        if !(do_others_wait && do_they_wait) {
            self.earned = 0.0;
        }
        do_they_wait && (!do_others_wait || self.earned >= others_for_each)
    }

    /// A batch of theirs is run, for `seconds`, which is paid out of what was earned for the `price`. What is left over is kept, up
    /// to one turn more.
    pub(super) fn had_turn(&mut self, (seconds, price): (f64, f64), others_for_each: f64) {
        if self.earned < others_for_each {
            // None of the others waited: nothing is owed.
            return;
        }
        let batches = (seconds / price.max(f64::MIN_POSITIVE)).min(1.0);
        self.earned = others_for_each.mul_add(-batches, self.earned.min(2.0 * others_for_each));
    }

    /// The others run for `seconds`, while rows wait that give way and whose batch would cost `price`. Both are known equally well at
    /// one moment; from one moment to another what costs are thought to be changes.
    pub(super) fn give_way(&mut self, seconds: f64, price: f64) {
        self.earned += seconds / price.max(f64::MIN_POSITIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many batches are theirs, where each runs for `seconds` and theirs could cost `price`.
    fn turns(batches: u32, (seconds, price): (f64, f64)) -> Vec<u32> {
        let mut yielding = Yielding::default();
        let mut turns = Vec::new();
        for batch in 0..batches {
            if yielding.has_turn(true, true, 15.0) {
                turns.push(batch);
                yielding.had_turn((seconds, price), 15.0);
            } else {
                yielding.give_way(seconds, price);
            }
        }
        turns
    }

    #[test]
    fn a_sixteenth_of_the_time_is_theirs_while_others_wait() {
        assert_eq!(turns(64, (0.1, 0.1)), [15, 31, 47, 63]);
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut yielding = Yielding::default();
        (0..14).for_each(|_| yielding.give_way(1.0, 1.0));
        assert!(yielding.has_turn(false, true, 15.0), "none of the others waits");
        yielding.give_way(1.0, 1.0);
        assert!(!yielding.has_turn(true, true, 15.0), "what was earned before is gone");
        (0..15).for_each(|_| yielding.give_way(1.0, 1.0));
        assert!(!yielding.has_turn(true, false, 15.0), "none of them waits");
        assert!(!yielding.has_turn(true, true, 15.0), "nor is it kept for those that come later");
    }

    #[test]
    fn a_turn_that_was_not_taken_is_kept() {
        let mut yielding = Yielding::default();
        (0..15).for_each(|_| yielding.give_way(1.0, 1.0));
        assert!(yielding.has_turn(true, true, 15.0) && yielding.has_turn(true, true, 15.0));
        yielding.had_turn((0.1, 0.1), 15.0);
        assert!(!yielding.has_turn(true, true, 15.0));
    }

    #[test]
    fn a_turn_is_paid_for_with_what_it_ran() {
        // A batch could cost as much as four of the others; what runs costs as much as one.
        assert_eq!(turns(108, (1.0, 4.0)), [60, 76, 92]);
    }

    #[test]
    fn of_what_is_left_over_no_more_than_one_turn_is_kept() {
        let mut yielding = Yielding::default();
        yielding.give_way(100.0, 1.0);
        for _ in 0..2 {
            assert!(yielding.has_turn(true, true, 15.0));
            yielding.had_turn((1.0, 1.0), 15.0);
        }
        assert!(!yielding.has_turn(true, true, 15.0));
    }
}
