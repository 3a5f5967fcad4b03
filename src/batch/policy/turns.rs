//! Whose turn it is: deficit round robin over tenants, in predicted cost (M. Shreedhar and G. Varghese, "Efficient fair queueing
//! using deficit round robin", SIGCOMM 1995).
//!
//! A tenant whose rows filled somebody else's batch is charged for them as well, and may be in debt: then it waits until a
//! few rounds have paid for that. However many rows it has waiting, others get their share.

use std::sync::Arc;

/// The tenants that have rows waiting or are in debt, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    tenants: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    tenant: Arc<str>,
    /// Seconds that it may still be run for in this round.
    credit: f64,
    is_waiting: bool,
}

impl Turns {
    /// The tenant whose row is to be run next, of those that wait; `waiting` has the tenant and the cost of each row.
    pub(super) fn next<'a>(&mut self, waiting: impl Iterator<Item = (&'a Arc<str>, f64)>) -> Option<Arc<str>> {
        self.tenants.iter_mut().for_each(|turn| turn.is_waiting = false);
        let mut quantum = 0.0_f64;
        for (tenant, seconds) in waiting {
            quantum = quantum.max(seconds);
            match self.tenants.iter_mut().find(|turn| turn.tenant == *tenant) {
                Some(turn) => turn.is_waiting = true,
                None => self.tenants.push(Turn { tenant: Arc::clone(tenant), credit: 0.0, is_waiting: true }),
            }
        }
        let quantum = if quantum > 0.0 { quantum } else { 1.0 };
        self.tenants.retain(|turn| turn.is_waiting || turn.credit < 0.0);
        let mut those = self.tenants.iter_mut().filter(|turn| turn.is_waiting);
        if let (Some(only), None) = (those.next(), those.next()) {
            // Nobody is kept waiting by it: it owes nobody.
            only.credit = 0.0;
            return Some(Arc::clone(&only.tenant));
        }
        let richest = self.waiting().map(|turn| turn.credit).fold(f64::NEG_INFINITY, f64::max);
        if richest <= 0.0 {
            // As many rounds as it takes until somebody may be run.
            let rounds = (-richest / quantum).floor() + 1.0;
            // Debts are paid off whether or not rows wait.
            self.tenants.iter_mut().for_each(|turn| turn.credit += rounds * quantum);
        }
        self.waiting().find(|turn| turn.credit > 0.0).map(|turn| Arc::clone(&turn.tenant))
    }

    /// Whether several tenants had rows waiting when it was asked last.
    pub(super) fn are_contended(&self) -> bool {
        self.waiting().nth(1).is_some()
    }

    /// A row of `tenant` is run for so many seconds.
    pub(super) fn charge(&mut self, tenant: &Arc<str>, seconds: f64) {
        let Some(place) = self.tenants.iter().position(|turn| turn.tenant == *tenant) else { return };
        let Some(turn) = self.tenants.get_mut(place) else { return };
        turn.credit -= seconds;
        if turn.credit <= 0.0 {
            // Its turn is over: to the end of the round.
            let turn = self.tenants.remove(place);
            self.tenants.push(turn);
        }
    }

    fn waiting(&self) -> impl Iterator<Item = &Turn> {
        self.tenants.iter().filter(|turn| turn.is_waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is run, where each of `tenants` always has rows waiting, of the costs given.
    fn run(tenants: &[(&str, f64)], times: usize) -> Vec<String> {
        let tenants: Vec<(Arc<str>, f64)> = tenants.iter().map(|(tenant, cost)| ((*tenant).into(), *cost)).collect();
        let mut turns = Turns::default();
        let one = || {
            let next = turns.next(tenants.iter().map(|(tenant, cost)| (tenant, *cost))).unwrap();
            let cost = tenants.iter().find(|(tenant, _)| *tenant == next).unwrap().1;
            turns.charge(&next, cost);
            next.to_string()
        };
        std::iter::repeat_with(one).take(times).collect()
    }

    fn count(run: &[String], tenant: &str) -> usize {
        run.iter().filter(|name| *name == tenant).count()
    }

    #[test]
    fn tenants_of_equal_rows_take_turns() {
        assert_eq!(run(&[("a", 1.0), ("b", 1.0)], 4), ["a", "b", "a", "b"]);
    }

    #[test]
    fn costs_are_shared_evenly_not_rows() {
        let run = run(&[("long", 10.0), ("short", 1.0)], 1_100);
        let (long, short) = (count(&run, "long"), count(&run, "short"));
        assert!((95..=105).contains(&long) && short == 1_100 - long, "{long} long, {short} short");
    }

    #[test]
    fn who_filled_the_batches_of_others_waits_for_as_long() {
        let mut turns = Turns::default();
        let (flood, quiet): (Arc<str>, Arc<str>) = ("flood".into(), "quiet".into());
        let both = [(&flood, 1.0), (&quiet, 1.0)];
        assert_eq!(turns.next(both.into_iter()).unwrap(), flood);
        turns.charge(&flood, 30.0);
        for _ in 0..29 {
            assert_eq!(turns.next(both.into_iter()).unwrap(), quiet);
            turns.charge(&quiet, 1.0);
        }
    }

    #[test]
    fn who_is_alone_owes_nobody() {
        let mut turns = Turns::default();
        let (flood, quiet): (Arc<str>, Arc<str>) = ("flood".into(), "quiet".into());
        for _ in 0..1_000 {
            turns.next([(&flood, 1.0)].into_iter()).unwrap();
            turns.charge(&flood, 1.0);
        }
        let both = [(&flood, 1.0), (&quiet, 1.0)];
        let next = || {
            let next = turns.next(both.into_iter()).unwrap();
            turns.charge(&next, 1.0);
            next
        };
        let after: Vec<Arc<str>> = std::iter::repeat_with(next).take(10).collect();
        assert!(after.iter().filter(|tenant| **tenant == flood).count() >= 4, "{after:?}");
        assert!(turns.next(std::iter::empty()).is_none());
    }
}
