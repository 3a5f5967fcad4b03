//! Tests of all policies: their bounds, and what each of them picks.

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::batch::row::Row;

const ADAPTIVE: BatchingPolicy = BatchingPolicy::Adaptive;

/// Rows as length, alone, tenant; a millisecond between two arrivals.
fn pool(began: Instant, rows: &[(usize, bool, u8)]) -> Pool {
    let mut pool = Pool::default();
    for (number, row) in rows.iter().enumerate() {
        pool.push(waiting(began + Duration::from_millis(number.try_into().unwrap()), *row));
    }
    pool
}

fn waiting(arrived: Instant, (length, alone, tenant): (usize, bool, u8)) -> Waiting {
    Waiting {
        row: Row { inputs: Vec::new(), length, may_be_padded: true },
        deadline: arrived + Duration::from_secs(60),
        due: arrived + Duration::from_secs(1),
        tenant: tenant.to_string().into(),
        alone,
        background: false,
        arrived,
        slot: None,
        answer: oneshot::channel().0,
    }
}

const fn bounds(max_batch_size: usize) -> Bounds {
    Bounds { max_batch_size, max_batch_tokens: usize::MAX, scope: BatchScope::Shared }
}

/// What a policy that has learned nothing yet does.
fn decide(policy: BatchingPolicy, pool: &Pool, idle: usize, bounds: Bounds, now: Instant) -> Decision {
    let plan = |rows, length| (rows, length);
    Policy::new(policy, bounds, 2, CostModel::default()).decide(Moment {
        pool,
        idle,
        plan: &plan,
        warm: &|_, _| true,
        now,
    })
}

/// The batch that `policy` runs at once.
fn batch(policy: BatchingPolicy, rows: &[(usize, bool, u8)], idle: usize, bounds: Bounds) -> Vec<usize> {
    let now = Instant::now();
    match decide(policy, &pool(now, rows), idle, bounds, now) {
        Decision::Run(dispatch) => dispatch.positions,
        Decision::WaitUntil(_) | Decision::Rest => Vec::new(),
    }
}

#[test]
fn the_best_size_is_the_smallest_that_is_about_as_good_as_any() {
    let plan = |rows, length| (rows, length);
    let learned = |seconds: fn(f64) -> f64| {
        let mut policy = Policy::new(ADAPTIVE, bounds(32), 2, CostModel::default());
        assert_eq!(policy.best_size(&plan, 8), 32, "as much as may be, while nothing is known");
        for round in 0..60 {
            let rows = [1_u32, 2, 4, 8, 16, 32][round % 6];
            policy.ran((rows as usize, 8), Duration::from_secs_f64(seconds(rows.into())));
        }
        policy.best_size(&plan, 8)
    };
    assert_eq!(learned(|rows| 0.010 + 0.001 * rows), 32);
    assert_eq!(learned(|rows| 0.001 + 0.001 * rows), 8);
    assert_eq!(learned(|rows| 0.005 * rows), 1);
    let fixed = |kind, bounds| Policy::new(kind, bounds, 2, CostModel::default()).best_size(&plan, 100);
    assert_eq!(fixed(BatchingPolicy::Single, bounds(32)), 1);
    assert_eq!(fixed(BatchingPolicy::Fifo { max_tokens: 500 }, bounds(32)), 5);
    assert_eq!(fixed(ADAPTIVE, Bounds { max_batch_tokens: 40, ..bounds(32) }), 1);
}

#[test]
fn a_size_that_does_not_pay_is_no_end_to_one_that_does() {
    let (now, plan) = (Instant::now(), |rows, length| (rows, length));
    let mut policy = Policy::new(ADAPTIVE, bounds(8), 2, CostModel::default());
    for round in 0..60 {
        let rows = [1_u32, 2, 4, 8][round % 4];
        // What is known of two rows is off: as if two cost more than twice as much as one.
        let off = if rows == 2 { 1.8 } else { 1.0 };
        policy.ran((rows as usize, 8), Duration::from_secs_f64(off * (0.004 + 0.004 * f64::from(rows))));
    }
    assert!(policy.costs().seconds(2, 8) > 2.0 * policy.costs().seconds(1, 8));
    let pool = pool(now, &[(8, false, 0); 8]);
    let moment = Moment { pool: &pool, idle: 1, plan: &plan, warm: &|_, _| true, now };
    let Decision::Run(dispatch) = policy.decide(moment) else { panic!("nothing is run") };
    assert_eq!((dispatch.positions.len(), dispatch.reason), (8, DispatchReason::Drained));
}

#[test]
fn a_batch_is_bounded_in_tokens_and_filled_with_what_still_fits() {
    let rows = [(40, false, 0), (45, false, 0), (50, false, 0), (30, false, 0), (10, false, 0)];
    let tokens = |max_batch_tokens| batch(ADAPTIVE, &rows, 1, Bounds { max_batch_tokens, ..bounds(32) });
    // Two of 45 are 90; with the one of 50 three would be 150, with the one of 30 they are 135.
    assert_eq!(tokens(140), [0, 1, 3]);
    assert_eq!(tokens(usize::MAX), [0, 1, 2, 3, 4]);
    assert_eq!(tokens(90), [0, 1]);
    assert_eq!(tokens(39), [0], "a row that is longer runs alone");
}

#[test]
fn the_oldest_runs_with_its_nearest_in_length() {
    let rows = [(10, false, 0), (100, false, 0), (12, false, 0), (11, false, 0)];
    assert_eq!(batch(ADAPTIVE, &rows, 1, bounds(3)), [0, 3, 2]);
}

/// The batch and what it missed, where only batches of `compiled` rows are compiled for.
fn among(compiled: &[usize], rows: usize, most: usize) -> (usize, DispatchReason, Option<(usize, usize)>) {
    let now = Instant::now();
    let (plan, warm) = (|rows, length| (rows, length), |rows: usize, _: usize| compiled.contains(&rows));
    let pool = pool(now, &vec![(7, false, 0); rows]);
    let mut policy = Policy::new(ADAPTIVE, bounds(most), 1, CostModel::default());
    match policy.decide(Moment { pool: &pool, idle: 1, plan: &plan, warm: &warm, now }) {
        Decision::Run(dispatch) => (dispatch.positions.len(), dispatch.reason, dispatch.missed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_one_that_is_compiled_for_and_asks_for_a_better_one() {
    assert_eq!(among(&[1, 2, 4], 6, 32), (4, DispatchReason::Cold, Some((6, 7))));
    assert_eq!(among(&[1, 8], 9, 8), (8, DispatchReason::Full, None), "what is in between does not matter");
    assert_eq!(among(&[], 3, 32), (1, DispatchReason::Cold, Some((3, 7))), "a row alone is run in any case");
    assert_eq!(among(&[1, 2, 3], 3, 32), (3, DispatchReason::Drained, None));
}

#[test]
fn a_trial_makes_none_of_its_rows_late() {
    // Two rows cost more than twice as much as one, and of four nothing is known.
    let measured = [(1, 10), (1, 10), (1, 10), (2, 21), (2, 21), (2, 21)];
    let measured = measured.map(|(rows, millis)| ((rows, 8), Duration::from_millis(millis)));
    let (now, plan) = (Instant::now() + Duration::from_secs(20), |rows, length| (rows, length));
    let tried = |due: Duration| {
        let mut policy = Policy::new(ADAPTIVE, bounds(32), 2, CostModel::measured(measured));
        let mut decide =
            |pool: &Pool| match policy.decide(Moment { pool, idle: 1, plan: &plan, warm: &|_, _| true, now }) {
                Decision::Run(dispatch) => (dispatch.positions.len(), dispatch.reason),
                other => panic!("{other:?}"),
            };
        // What runs by itself earns a trial.
        (0..2_000).for_each(|_| assert_eq!(decide(&pool(now, &[(8, false, 0)])).0, 1));
        // The batch begins with a row that was late long ago.
        let mut pool = pool(now, &[(8, false, 0), (8, false, 0)]);
        pool.push(waiting(now - Duration::from_secs(20), (8, false, 0)));
        pool.push(Waiting { due: now + due, ..waiting(now, (8, false, 0)) });
        decide(&pool)
    };
    assert_eq!(tried(Duration::from_millis(500)), (4, DispatchReason::Trial));
    // Two are done by then, three are not.
    assert_eq!(tried(Duration::from_millis(35)), (1, DispatchReason::Costly));
}

#[test]
fn the_background_takes_no_turn_from_what_was_passed_over() {
    let (now, plan) = (Instant::now() + Duration::from_secs(3), |rows, length| (rows, length));
    let measured = [(1, 8, 8), (2, 8, 17), (1, 64, 64), (2, 64, 136)];
    let measured = measured.map(|(rows, length, millis)| ((rows, length), Duration::from_millis(millis)));
    let mut policy = Policy::new(ADAPTIVE, bounds(32), 1, CostModel::measured(measured));
    let mut pool = Pool::default();
    // It has waited for three objectives, and its turn costs as much as eight of the others, which four and a third of those earn.
    pool.push(waiting(now - Duration::from_secs(3), (64, true, 0)));
    pool.push(waiting(now, (8, true, 0)));
    pool.push(Waiting { background: true, ..waiting(now, (8, true, 0)) });
    let mut ran = [0, 0, 0];
    for _ in 0..400 {
        let moment = Moment { pool: &pool, idle: 1, plan: &plan, warm: &|_, _| true, now };
        let Decision::Run(dispatch) = policy.decide(moment) else { panic!("nothing is run") };
        dispatch.positions.iter().for_each(|position| ran[*position] += 1);
    }
    let [passed_over, others, background] = ran;
    assert!(others / 40 <= passed_over && passed_over <= others / 30, "{ran:?}");
    assert!(background >= 20, "{ran:?}");
}

#[test]
fn idle_executors_share_what_waits() {
    assert_eq!(batch(ADAPTIVE, &[(1, false, 0); 4], 2, bounds(32)).len(), 2);
}

#[test]
fn single_never_makes_company() {
    assert_eq!(batch(BatchingPolicy::Single, &[(1, false, 0); 4], 1, bounds(32)), [0]);
}

#[test]
fn fifo_closes_at_the_first_row_that_does_not_fit() {
    let fifo = BatchingPolicy::Fifo { max_tokens: 100 };
    let rows = [(40, false, 0), (45, false, 0), (60, false, 0), (5, false, 0)];
    assert_eq!(batch(fifo, &rows, 1, bounds(32)), [0, 1]);
    assert_eq!(batch(fifo, &rows[2..], 1, bounds(32)), [0], "two of 60 are 120");
    assert_eq!(batch(fifo, &[(300, false, 0), (1, false, 0)], 1, bounds(32)), [0], "a longer row runs alone");
}

#[test]
fn delay_waits_for_company_or_for_the_time_to_be_up() {
    let now = Instant::now();
    let delay = BatchingPolicy::Delay { wait: Duration::from_millis(4), rows: 3 };
    let at = |rows: usize, after| {
        let moment = now + Duration::from_millis(after);
        match decide(delay, &pool(now, &vec![(1, false, 0); rows]), 1, bounds(32), moment) {
            Decision::Run(dispatch) => Ok(dispatch.positions),
            Decision::WaitUntil(moment) => Err(Some(moment)),
            Decision::Rest => Err(None),
        }
    };
    assert_eq!(at(2, 3), Err(Some(now + Duration::from_millis(4))));
    assert_eq!(at(2, 4), Ok(vec![0, 1]));
    assert_eq!(at(3, 0), Ok(vec![0, 1, 2]));
    assert_eq!(at(0, 0), Err(None));
}

#[test]
fn a_pool_gives_out_what_is_asked_for_and_keeps_the_rest() {
    let now = Instant::now();
    let lengths = |rows: Vec<Waiting>| rows.iter().map(|waiting| waiting.row.length).collect::<Vec<_>>();
    let mut pool = pool(now, &[(0, false, 0), (1, false, 0), (2, false, 0), (3, false, 0), (4, false, 0)]);
    assert_eq!(lengths(pool.take(&[3, 0, 4, 9])), [3, 0, 4]);
    let left = pool.by_arrival(false);
    assert_eq!(lengths(pool.take(&left)), [1, 2]);
}

fn policies() -> impl Strategy<Value = BatchingPolicy> {
    prop_oneof![
        3 => Just(BatchingPolicy::Adaptive),
        1 => Just(BatchingPolicy::Single),
        1 => (1_usize..3_000).prop_map(|max_tokens| BatchingPolicy::Fifo { max_tokens }),
        1 => (1_usize..40).prop_map(|rows| BatchingPolicy::Delay { wait: Duration::ZERO, rows }),
    ]
}

/// Checks a batch of `pool`.
fn check(batch: &[usize], pool: &Pool, bounds: Bounds) -> Result<(), TestCaseError> {
    prop_assert!(batch.len() <= bounds.max_batch_size);
    let mut unique = batch.to_vec();
    unique.sort_unstable();
    unique.dedup();
    prop_assert_eq!(unique.len(), batch.len());
    let rows: Vec<&Waiting> = batch.iter().map(|position| pool.get(*position).unwrap()).collect();
    let longest = rows.iter().map(|row| row.row.length).max().unwrap();
    prop_assert!(rows.len() == 1 || longest * rows.len() <= bounds.max_batch_tokens);
    prop_assert!(rows.len() == 1 || rows.iter().all(|row| !row.alone), "a lonely row has company");
    prop_assert!(rows.iter().all(|row| row.background == rows[0].background), "a job's batch has others in it");
    if bounds.scope == BatchScope::Tenant {
        prop_assert!(rows.iter().all(|row| row.tenant == rows[0].tenant));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_batch_keeps_its_bounds(
        policy in policies(),
        rows in proptest::collection::vec(((1_usize..200, any::<bool>(), 0_u8..3), any::<bool>()), 0..40),
        idle in 1_usize..5,
        max_batch_size in 1_usize..33,
        max_batch_tokens in 1_usize..3_000,
        tenant_scope: bool,
        known: bool,
        background: bool,
        // From batches that end long before anybody is late to such that all others are passed over.
        (overhead, by_row) in (0_u32..200, 1_u32..200),
    ) {
        let scope = if tenant_scope { BatchScope::Tenant } else { BatchScope::Shared };
        let bounds = Bounds { max_batch_size, max_batch_tokens, scope };
        let (mut now, plan) = (Instant::now(), |rows, length| (rows, length));
        let cost = |rows: usize| Duration::from_millis((overhead + by_row * u32::try_from(rows).unwrap()).into());
        let measured = [1, 8].map(|rows| ((rows, 50), cost(rows)));
        let costs = if known { CostModel::measured(measured) } else { CostModel::default() };
        let mut policy = Policy::new(policy, bounds, 2, costs);
        let mut pool = Pool::default();
        for (number, (row, gives_way)) in rows.iter().enumerate() {
            let arrived = now + Duration::from_millis(number.try_into().unwrap());
            pool.push(Waiting { background: background && *gives_way, ..waiting(arrived, *row) });
        }
        // When all have come.
        now += Duration::from_millis(40);
        let mut is_first = true;
        while !pool.is_empty() {
            let decision = policy.decide(Moment { pool: &pool, idle, plan: &plan, warm: &|_, _| true, now });
            let Decision::Run(dispatch) = decision else { panic!("nothing is run of {}", pool.len()) };
            prop_assert!(!dispatch.positions.is_empty());
            check(&dispatch.positions, &pool, bounds)?;
            let gives_way = pool.get(dispatch.positions[0]).unwrap().background;
            if is_first {
                prop_assert!(!gives_way || pool.of_kind(false).next().is_none(), "a job waits for the background");
                let oldest = pool.by_arrival(gives_way)[0];
                prop_assert!(known || dispatch.positions[0] == oldest, "the oldest never waits for younger ones");
            }
            is_first = false;
            let taken = pool.take(&dispatch.positions);
            let ran = cost(taken.len());
            policy.ran((taken.len(), taken.iter().map(|row| row.row.length).max().unwrap()), ran);
            now += ran;
        }
        let decision = policy.decide(Moment { pool: &pool, idle, plan: &plan, warm: &|_, _| true, now });
        prop_assert_eq!(decision, Decision::Rest);
    }
}
