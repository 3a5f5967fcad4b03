//! Tests of the replay guard: what every state makes of a copy, what bounds it, and that it forgets in time.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// The number of the delivery that answered.
type Answer = u32;

fn guard(max_jobs: usize) -> Arc<ReplayGuard<Answer>> {
    let bounds = ReplayBounds { max_jobs, max_lifetime: Duration::from_secs(300), clock_skew: Duration::from_secs(60) };
    Arc::new(ReplayGuard::new(bounds, |answer| *answer))
}

fn job(tenant: &str, id: &str, tag: &str) -> JobIdentity {
    JobIdentity::new(tenant, id, tag, NOW.plus(Duration::from_secs(300)))
}

/// What the guard says at once; `None` while it holds the job.
fn admit(guard: &Arc<ReplayGuard<Answer>>, job: &JobIdentity, now: UnixSeconds) -> Option<Admitted<Answer>> {
    match pin!(guard.admit(job, now)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(admitted) => Some(admitted),
        Poll::Pending => None,
    }
}

fn run(guard: &Arc<ReplayGuard<Answer>>, job: &JobIdentity) -> Admission<Answer> {
    match admit(guard, job, NOW) {
        Some(Admitted::Run(admission)) => admission,
        other => panic!("it must run: {other:?}"),
    }
}

#[test]
fn a_copy_of_an_answered_job_is_a_duplicate() {
    let guard = guard(10);
    let job = job("acme", "1", "tag");
    run(&guard, &job).answered(7);
    assert!(matches!(admit(&guard, &job, NOW), Some(Admitted::Duplicate(7))));
}

#[test]
fn a_job_that_was_lost_runs_again() {
    let guard = guard(10);
    let job = job("acme", "1", "tag");
    drop(run(&guard, &job));
    run(&guard, &job).answered(8);
    assert!(matches!(admit(&guard, &job, NOW), Some(Admitted::Duplicate(8))));
}

/// Regression: a worker that was told of another ciphertext's earlier claim refused that one afterwards.
#[test]
fn what_was_withdrawn_stands_against_nobody() {
    let guard = guard(1);
    let (first, second) = (job("acme", "1", "first"), job("acme", "1", "second"));
    run(&guard, &second).withdrawn();
    run(&guard, &first).answered(7);
    assert!(matches!(admit(&guard, &second, NOW), Some(Admitted::Conflict)));
}

/// Regression: what became of a job that ran beyond its envelope's end was noted of the one that had its id by then.
#[test]
fn a_job_that_is_forgotten_says_nothing_of_the_next_one_with_its_id() {
    let later = NOW.plus(Duration::from_secs(2_000));
    let mut next = job("acme", "1", "next");
    next.expires = later.plus(Duration::from_secs(300));
    for end in [|first: Admission<Answer>| first.answered(7), Admission::withdrawn, drop] {
        let guard = guard(10);
        let first = run(&guard, &job("acme", "1", "first"));
        let Some(Admitted::Run(running)) = admit(&guard, &next, later) else { panic!("the first is forgotten") };
        end(first);
        assert!(admit(&guard, &next, later).is_none(), "a copy of the next one is held as long as that runs");
        running.answered(8);
        assert!(matches!(admit(&guard, &next, later), Some(Admitted::Duplicate(8))));
    }
}

#[test]
fn another_ciphertext_under_the_same_id_is_a_conflict_in_every_state() {
    let guard = guard(10);
    let (job, other) = (job("acme", "1", "tag"), job("acme", "1", "another"));
    let running = run(&guard, &job);
    assert!(matches!(admit(&guard, &other, NOW), Some(Admitted::Conflict)), "in flight");
    drop(running);
    assert!(matches!(admit(&guard, &other, NOW), Some(Admitted::Conflict)), "lost");
    run(&guard, &job).answered(1);
    assert!(matches!(admit(&guard, &other, NOW), Some(Admitted::Conflict)), "answered");
    assert!(matches!(admit(&guard, &job, NOW), Some(Admitted::Duplicate(1))), "the first is not harmed");
}

#[tokio::test]
async fn a_copy_of_a_job_in_flight_is_held_and_then_told() {
    let guard = guard(10);
    let job = job("acme", "1", "tag");
    let first = run(&guard, &job);
    assert!(admit(&guard, &job, NOW).is_none(), "it is held");
    let copies: Vec<_> = (0..3)
        .map(|_| {
            let (guard, job) = (Arc::clone(&guard), job.clone());
            tokio::spawn(async move { guard.admit(&job, NOW).await })
        })
        .collect();
    tokio::task::yield_now().await;
    first.answered(5);
    for copy in copies {
        assert!(matches!(copy.await.unwrap(), Admitted::Duplicate(5)));
    }
}

#[tokio::test]
async fn of_the_copies_of_a_lost_job_one_runs_and_the_others_hear_of_it() {
    let guard = guard(10);
    let job = job("acme", "1", "tag");
    let first = run(&guard, &job);
    let copies: Vec<_> = (0..4)
        .map(|number| {
            let (guard, job) = (Arc::clone(&guard), job.clone());
            tokio::spawn(async move {
                match guard.admit(&job, NOW).await {
                    Admitted::Run(admission) => {
                        tokio::task::yield_now().await;
                        admission.answered(number);
                        true
                    }
                    Admitted::Duplicate(_) => false,
                    other => panic!("{other:?}"),
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(first);
    let mut ran = 0;
    for copy in copies {
        ran += u32::from(copy.await.unwrap());
    }
    assert_eq!(ran, 1);
}

#[test]
fn a_full_memory_takes_no_new_job_and_still_knows_the_old() {
    let guard = guard(2);
    run(&guard, &job("acme", "1", "tag")).answered(1);
    drop(run(&guard, &job("acme", "2", "tag")));
    assert!(matches!(admit(&guard, &job("acme", "3", "tag"), NOW), Some(Admitted::Full)));
    assert!(matches!(admit(&guard, &job("acme", "1", "tag"), NOW), Some(Admitted::Duplicate(1))));
    run(&guard, &job("acme", "2", "tag")).answered(2);
    run(&guard, &job("other", "3", "tag")).answered(3);
    let later = NOW.plus(Duration::from_secs(300 + 60 + 60));
    let fresh = JobIdentity::new("acme", "3", "tag", later);
    assert!(matches!(admit(&guard, &fresh, later), Some(Admitted::Run(_))), "what has expired makes room");
}

#[test]
fn tenants_may_use_the_same_ids() {
    let guard = guard(10);
    run(&guard, &job("acme", "1", "tag")).answered(1);
    run(&guard, &job("other", "1", "another")).answered(2);
    assert!(matches!(admit(&guard, &job("acme", "1", "tag"), NOW), Some(Admitted::Duplicate(1))));
}

#[test]
fn nothing_is_forgotten_while_its_envelope_is_taken() {
    for lifetime in [1, 2, 7, 60, 299, 300] {
        let guard = guard(10);
        let job = JobIdentity::new("acme", "1", "tag", NOW.plus(Duration::from_secs(lifetime)));
        run(&guard, &job).answered(1);
        // The last second at which step 9 lets a copy pass.
        let last = job.expires.plus(Duration::from_secs(60));
        for now in [NOW, job.expires, last] {
            assert!(matches!(admit(&guard, &job, now), Some(Admitted::Duplicate(1))), "{lifetime}: at {now:?}");
        }
        let later = last.plus(Duration::from_secs(60));
        let another = JobIdentity::new("acme", "2", "tag", later);
        run_at(&guard, &another, later);
        assert_eq!(guard.lock()["acme"].count, 1, "{lifetime}: it is forgotten");
    }
}

fn run_at(guard: &Arc<ReplayGuard<Answer>>, job: &JobIdentity, now: UnixSeconds) {
    assert!(matches!(admit(guard, job, now), Some(Admitted::Run(_))));
}

#[test]
fn a_job_that_outlives_its_envelope_ends_in_peace() {
    let guard = guard(10);
    let first = run(&guard, &job("acme", "1", "tag"));
    let later = NOW.plus(Duration::from_secs(3_600));
    run_at(&guard, &JobIdentity::new("acme", "2", "tag", later), later);
    first.answered(1);
}

#[derive(Debug, Clone)]
enum Step {
    Deliver { id: u8, tag: u8 },
    Answer,
    Lose,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8, 0..2_u8).prop_map(|(id, tag)| Step::Deliver { id, tag }),
        2 => Just(Step::Answer),
        1 => Just(Step::Lose),
        1 => (0..90_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever comes in whatever order: one ciphertext an id, one answer a job, and no more jobs than the bound.
    #[test]
    fn a_job_is_answered_once_while_its_envelope_is_taken(steps in steps()) {
        let guard = guard(3);
        let mut now = NOW;
        let mut running: Vec<(u8, Admission<Answer>)> = Vec::new();
        let mut answered: BTreeMap<u8, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Deliver { id, tag } => {
                    let job = JobIdentity::new("acme", &id.to_string(), &tag.to_string(), UnixSeconds(u64::MAX / 2));
                    match admit(&guard, &job, now) {
                        Some(Admitted::Run(admission)) => {
                            prop_assert!(!answered.contains_key(&id), "answered before");
                            prop_assert!(running.iter().all(|(other, _)| *other != id), "run twice at a time");
                            running.push((id, admission));
                        }
                        Some(Admitted::Duplicate(_)) => prop_assert!(answered.contains_key(&id)),
                        Some(Admitted::Conflict | Admitted::Full) => {}
                        None => prop_assert!(running.iter().any(|(other, _)| *other == id)),
                    }
                }
                Step::Answer => {
                    if let Some((id, admission)) = running.pop() {
                        admission.answered(0);
                        *answered.entry(id).or_default() += 1;
                    }
                }
                Step::Lose => drop(running.pop()),
                Step::Wait(seconds) => now = now.plus(Duration::from_secs(seconds)),
            }
            prop_assert!(guard.lock().get("acme").is_none_or(|jobs| jobs.count <= 3));
        }
        prop_assert!(answered.values().all(|times| *times == 1));
    }
}
