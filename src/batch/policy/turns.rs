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
    /// Whether it has rows of the other kind waiting, which are not to be run now.
    has_others: bool,
}

impl Turns {
    /// The tenant whose row is to be run next, of those that wait; `waiting` has the tenant and the cost of each row. `others` are
    /// the tenants of rows of the other kind, of which none is to be run now, and whether these are of jobs: then they are kept
    /// waiting, and what is run instead is made up for.
    pub(super) fn next<'a>(
        &mut self,
        waiting: impl Iterator<Item = (&'a Arc<str>, f64)>,
        (others, are_jobs): (impl Iterator<Item = &'a Arc<str>>, bool),
    ) -> Option<Arc<str>> {
        self.tenants.iter_mut().for_each(|turn| (turn.is_waiting, turn.has_others) = (false, false));
        let mut quantum = 0.0_f64;
        for (tenant, seconds) in waiting {
            quantum = quantum.max(seconds);
            self.note(tenant, |turn| turn.is_waiting = true);
        }
        // Nobody's turn it is, and no debt is paid off.
        self.waiting().next()?;
        others.for_each(|tenant| self.note(tenant, |turn| turn.has_others = true));
        let quantum = if quantum > 0.0 { quantum } else { 1.0 };
        self.tenants.retain(|turn| turn.is_waiting || turn.has_others || turn.credit < 0.0);
        let mut those = self.tenants.iter_mut().filter(|turn| turn.is_waiting || turn.has_others);
        if let (Some(only), None) = (those.next(), those.next()) {
            // Nobody is kept waiting by it: it owes nobody.
            only.credit = 0.0;
            return Some(Arc::clone(&only.tenant));
        }
        let richest = self.waiting().map(|turn| turn.credit).fold(f64::NEG_INFINITY, f64::max);
        if richest <= 0.0 {
            // As many rounds as it takes until somebody may be run.
            let rounds = (-richest / quantum).floor() + 1.0;
            for turn in &mut self.tenants {
                // Debts are paid off whether or not rows wait; what gives way to jobs gets no more than that.
                let most =
                    if turn.is_waiting || turn.has_others && are_jobs { f64::INFINITY } else { turn.credit.max(0.0) };
                turn.credit = (rounds.mul_add(quantum, turn.credit)).min(most);
            }
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

    /// Notes `what` of the turn of `tenant`, which is the last where it had none.
    fn note(&mut self, tenant: &Arc<str>, what: impl FnOnce(&mut Turn)) {
        match self.tenants.iter_mut().find(|turn| turn.tenant == *tenant) {
            Some(turn) => what(turn),
            None => {
                let mut turn = Turn { tenant: Arc::clone(tenant), credit: 0.0, is_waiting: false, has_others: false };
                what(&mut turn);
                self.tenants.push(turn);
            }
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
            let next = turns.next(tenants.iter().map(|(tenant, cost)| (tenant, *cost)), nobody()).unwrap();
            let cost = tenants.iter().find(|(tenant, _)| *tenant == next).unwrap().1;
            turns.charge(&next, cost);
            next.to_string()
        };
        std::iter::repeat_with(one).take(times).collect()
    }

    fn nobody() -> (std::iter::Empty<&'static Arc<str>>, bool) {
        (std::iter::empty(), false)
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
        assert_eq!(turns.next(both.into_iter(), nobody()).unwrap(), flood);
        turns.charge(&flood, 30.0);
        for _ in 0..29 {
            assert_eq!(turns.next(both.into_iter(), nobody()).unwrap(), quiet);
            turns.charge(&quiet, 1.0);
        }
    }

    #[test]
    fn who_is_alone_owes_nobody() {
        let mut turns = Turns::default();
        let (flood, quiet): (Arc<str>, Arc<str>) = ("flood".into(), "quiet".into());
        for _ in 0..1_000 {
            turns.next([(&flood, 1.0)].into_iter(), nobody()).unwrap();
            turns.charge(&flood, 1.0);
        }
        let both = [(&flood, 1.0), (&quiet, 1.0)];
        let next = || {
            let next = turns.next(both.into_iter(), nobody()).unwrap();
            turns.charge(&next, 1.0);
            next
        };
        let after: Vec<Arc<str>> = std::iter::repeat_with(next).take(10).collect();
        assert!(after.iter().filter(|tenant| **tenant == flood).count() >= 4, "{after:?}");
        assert!(turns.next(std::iter::empty(), nobody()).is_none());
    }
    #[test]
    fn a_debt_outlasts_a_moment_in_which_nobody_waits() {
        let mut turns = Turns::default();
        let (flood, quiet): (Arc<str>, Arc<str>) = ("flood".into(), "quiet".into());
        let both = [(&flood, 1.0), (&quiet, 1.0)];
        assert_eq!(turns.next(both.into_iter(), nobody()).unwrap(), flood);
        turns.charge(&flood, 10.0);
        assert!(turns.next(std::iter::empty(), nobody()).is_none());
        for _ in 0..9 {
            assert_eq!(turns.next(both.into_iter(), nobody()).unwrap(), quiet);
            turns.charge(&quiet, 1.0);
        }
    }

    #[test]
    fn who_only_has_rows_of_the_other_kind_is_charged_for_them_and_saves_nothing_up() {
        let mut turns = Turns::default();
        let (asks, explains): (Arc<str>, Arc<str>) = ("asks".into(), "explains".into());
        // Its explanation had a turn, which cost as much as ten of the other's jobs.
        assert_eq!(turns.next([(&explains, 10.0)].into_iter(), ([&asks].into_iter(), true)).unwrap(), explains);
        turns.charge(&explains, 10.0);
        let both = [(&asks, 1.0), (&explains, 1.0)];
        let next = |turns: &mut Turns, rows: &[(&Arc<str>, f64)], others: &[&Arc<str>]| {
            let next = turns.next(rows.iter().copied(), (others.iter().copied(), false)).unwrap();
            turns.charge(&next, 1.0);
            next
        };
        let first: Vec<Arc<str>> = (0..9).map(|_| next(&mut turns, &both, &[])).collect();
        assert!(first.iter().filter(|tenant| **tenant == explains).count() <= 1, "{first:?}");
        // While the other's jobs run, it waits without a turn: for that it gets nothing later on.
        (0..100).for_each(|_| assert_eq!(next(&mut turns, &[(&asks, 1.0)], &[&explains]), asks));
        let then: Vec<Arc<str>> = (0..10).map(|_| next(&mut turns, &both, &[])).collect();
        assert_eq!(then.iter().filter(|tenant| **tenant == explains).count(), 5, "{then:?}");
    }
}
