//! When rows in the background have a turn: while no row of a job waits, and else for a sixteenth of the time.
//!
//! That share keeps them from waiting for ever under lasting load. It is earned by what jobs run while such rows wait, and is not saved
//! up: where either kind does not wait, earning begins anew. So a job that comes when none waits finds nothing before it but what runs.

/// Batches of the background, by their cost, that jobs run for each that the background does, while both wait.
const JOBS_FOR_EACH: f64 = 15.0;

/// What rows in the background have earned.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// In batches of theirs.
    earned: f64,
}

impl Background {
    /// Whether the next batch is one of rows in the background; never where none waits.
    pub(super) fn has_turn(&mut self, do_jobs_wait: bool, do_they_wait: bool) -> bool {
        let has_turn = do_they_wait && (!do_jobs_wait || self.earned >= JOBS_FOR_EACH);
        if has_turn || !do_they_wait {
            self.earned = 0.0;
        }
        has_turn
    }

    /// Jobs run for `seconds`, while rows in the background wait whose batch would cost `price`. Both are known equally well at one
    /// moment; from one moment to another what costs are thought to be changes.
    pub(super) fn give_way(&mut self, seconds: f64, price: f64) {
        self.earned += seconds / price.max(f64::MIN_POSITIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_of_the_time_is_theirs_while_jobs_wait() {
        let mut background = Background::default();
        let mut turns = Vec::new();
        for turn in 0..64 {
            if background.has_turn(true, true) {
                turns.push(turn);
            } else {
                background.give_way(0.1, 0.1);
            }
        }
        assert_eq!(turns, [15, 31, 47, 63]);
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut background = Background::default();
        (0..14).for_each(|_| background.give_way(1.0, 1.0));
        assert!(background.has_turn(false, true), "no job waits");
        background.give_way(1.0, 1.0);
        assert!(!background.has_turn(true, true), "what was earned before is gone");
        (0..15).for_each(|_| background.give_way(1.0, 1.0));
        assert!(!background.has_turn(true, false), "none waits");
        assert!(!background.has_turn(true, true), "nor is it kept for those that come later");
    }
}
