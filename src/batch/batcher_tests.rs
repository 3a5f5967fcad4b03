//! Tests of the driver: every row gets its own answer, whatever happens to its batch.

use std::collections::HashSet;
use std::sync::Mutex;

use futures_util::future::{join, join_all};

use super::*;
use crate::backend::scripted::{Misdeed, ScriptedBackend};
use crate::batch::policy::BatchScope;
use crate::protocol::tensor::{Tensor, TensorData};

#[path = "batcher_background_tests.rs"]
mod background;
#[path = "batcher_property_tests.rs"]
mod property;

fn row(mark: i64) -> Row {
    let tensor = Tensor::new(vec![1], TensorData::Int64(vec![mark])).unwrap();
    Row { inputs: vec![tensor], length: 1, may_be_padded: true }
}

fn settings(executors: usize, max_batch_size: usize) -> BatcherSettings {
    let bounds = Bounds { max_batch_size, max_batch_tokens: usize::MAX, scope: BatchScope::Shared };
    let objectives = Objectives { normal: Duration::from_secs(1), urgent: Duration::from_millis(100) };
    BatcherSettings { executors, max_waiting_rows: 1_000, policy: BatchingPolicy::Adaptive, bounds, objectives }
}

fn options() -> SubmitOptions {
    let deadline = Instant::now() + Duration::from_secs(60);
    SubmitOptions { deadline, class: JobClass::Normal, tenant: "t".into(), alone: false }
}

fn mark(inferred: &Inferred) -> i64 {
    match inferred.output.outputs[0].elements() {
        TensorData::Int64(elements) => elements[0],
        other => panic!("{other:?}"),
    }
}

fn batcher(backend: &Arc<ScriptedBackend>, settings: BatcherSettings) -> Batcher {
    Batcher::new(Arc::clone(backend) as Arc<dyn Backend>, settings, CostModel::default(), Arc::new(|_| {}))
}

async fn submit_each(batcher: &Batcher, marks: impl Iterator<Item = i64>) -> Vec<(i64, Answer)> {
    let submits = marks.map(|mark| async move { (mark, batcher.submit(row(mark), &options()).await) });
    join_all(submits).await
}

/// Lets everything run that can, without moving the clock.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Waits until so many batches were begun: their threads are the system's to start.
async fn begun(backend: &ScriptedBackend, batches: usize) {
    while backend.batch_sizes().len() < batches {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_row_gets_its_own_answer() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(2, 8));
    for (sent, answer) in submit_each(&batcher, 0..100).await {
        assert_eq!(mark(&answer.unwrap()), sent);
    }
    assert_eq!(backend.batch_sizes().iter().sum::<usize>(), 100);
    assert!(backend.batch_sizes().iter().all(|size| *size <= 8));
    assert!(backend.batch_sizes().len() < 100, "a burst is batched: {:?}", backend.batch_sizes());
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_a_job_share_batches_from_the_first_on() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 8));
    let rows = (0..20).map(row).collect();
    let answers = batcher.submit_all(rows, &options()).await.unwrap();
    assert_eq!(answers.iter().map(mark).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(backend.batch_sizes(), [8, 8, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_jobs_is_one_batch() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 32));
    submit_each(&batcher, 0..32).await;
    assert_eq!(backend.batch_sizes(), [32]);
}

#[tokio::test(start_paused = true)]
async fn only_the_culprit_fails() {
    for misdeed in [Misdeed::Fail, Misdeed::Panic, Misdeed::LoseARow, Misdeed::InventARow] {
        let backend = Arc::new(ScriptedBackend::with(vec![(13, misdeed)]));
        let batcher = batcher(&backend, settings(1, 32));
        for (sent, answer) in submit_each(&batcher, 0..32).await {
            match answer {
                Ok(inferred) => assert_eq!((mark(&inferred), sent == 13), (sent, false), "{misdeed:?}"),
                Err(error) => assert_eq!((error.code, sent), (ErrorCode::InferenceFailed, 13), "{misdeed:?}"),
            }
        }
        assert_eq!(backend.batch_sizes().len(), 11, "32 rows are halved five times: {:?}", backend.batch_sizes());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_not_run() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 8));
    let late = SubmitOptions { deadline: Instant::now(), ..options() };
    let error = batcher.submit(row(1), &late).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(backend.batch_sizes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_busy_model_is_told_at_the_deadline() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = batcher(&backend, settings(1, 8));
    let began = Instant::now();
    let first = submit_each(&batcher, 1..2);
    let second = async {
        begun(&backend, 1).await;
        let soon = SubmitOptions { deadline: began + Duration::from_secs(5), ..options() };
        let answer = join(batcher.submit(row(2), &soon), async {
            settle().await;
            // The clock stands while a batch runs.
            tokio::time::advance(Duration::from_secs(6)).await;
        });
        let code = answer.await.0.unwrap_err().code;
        backend.open_gate();
        code
    };
    let (first, second) = join(first, second).await;
    assert_eq!((mark(first[0].1.as_ref().unwrap()), second), (1, ErrorCode::DeadlineExceeded));
    assert_eq!(backend.batches(), [[1]], "the late row was run");
}

#[tokio::test(start_paused = true)]
async fn no_more_rows_wait_than_may() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = batcher(&backend, BatcherSettings { max_waiting_rows: 2, ..settings(1, 1) });
    // One runs, two wait, the others wait for a place.
    let submits = submit_each(&batcher, 0..5);
    let watch = async {
        begun(&backend, 1).await;
        settle().await;
        assert_eq!(batcher.slots.free.available_permits(), 0);
        assert_eq!(backend.batches(), [[0]]);
        let now = SubmitOptions { deadline: Instant::now(), ..options() };
        let crowded_out = batcher.submit(row(9), &now).await.unwrap_err();
        assert_eq!(crowded_out.code, ErrorCode::DeadlineExceeded);
        backend.open_gate();
    };
    let (answers, ()) = join(submits, watch).await;
    assert!(answers.iter().all(|(sent, answer)| answer.as_ref().is_ok_and(|answer| mark(answer) == *sent)));
    assert_eq!(batcher.slots.free.available_permits(), 2, "every place was given back");
}

#[tokio::test(start_paused = true)]
async fn the_observer_hears_of_every_batch_and_of_the_rows_that_wait() {
    let backend = Arc::new(ScriptedBackend::gated());
    let heard: Arc<Mutex<Vec<Observed>>> = Arc::default();
    let observer = Arc::clone(&heard);
    let observer: Observer = Arc::new(move |observed| observer.lock().unwrap().push(observed));
    let batcher =
        Batcher::new(Arc::clone(&backend) as Arc<dyn Backend>, settings(1, 4), CostModel::default(), observer);
    let watch = async {
        begun(&backend, 1).await;
        settle().await;
        assert_eq!(*heard.lock().unwrap(), [Observed::Waiting { before: 0, now: 2 }], "four of six run");
        backend.open_gate();
    };
    join(submit_each(&batcher, 0..6), watch).await;
    settle().await;
    let heard = heard.lock().unwrap();
    let sizes = heard.iter().filter_map(|observed| match observed {
        Observed::Ran(report) => Some(report.size),
        Observed::Waiting { .. } => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [4, 2]);
    assert!(heard.contains(&Observed::Waiting { before: 2, now: 0 }), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_waits_in_halves() {
    let backend = Arc::new(ScriptedBackend::with(vec![(0, Misdeed::Fail)]));
    let most = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&most);
    let observer: Observer = Arc::new(move |observed| {
        if let Observed::Waiting { now, .. } = observed {
            let mut seen = seen.lock().unwrap();
            *seen = (seen.0.max(now), now);
        }
    });
    let batcher =
        Batcher::new(Arc::clone(&backend) as Arc<dyn Backend>, settings(1, 8), CostModel::default(), observer);
    submit_each(&batcher, 0..8).await;
    settle().await;
    assert_eq!(*most.lock().unwrap(), (4, 0), "one half runs, the other waits; in the end none does");
}

#[tokio::test(start_paused = true)]
async fn larger_batches_run_once_they_are_compiled_for() {
    let backend = Arc::new(ScriptedBackend::cold_for(2..=8));
    let batcher = batcher(&backend, settings(1, 8));
    for _ in 0..2 {
        let answers = submit_each(&batcher, 0..8).await;
        assert!(answers.iter().all(|(sent, answer)| answer.as_ref().is_ok_and(|answer| mark(answer) == *sent)));
        while backend.prepared().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(backend.prepared()[0], 8, "the batch that could not be");
    assert_eq!(backend.batch_sizes()[0], 1, "nothing waits for it");
    while backend.batch_sizes().last() != Some(&8) {
        submit_each(&batcher, 0..8).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_compiled_is_tried_once_and_rows_run_without() {
    let backend = Arc::new(ScriptedBackend::never_warm_for(2..=8));
    let batcher = batcher(&backend, settings(1, 8));
    for _ in 0..20 {
        let answers = submit_each(&batcher, 0..8).await;
        assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
        settle().await;
    }
    assert!(backend.batch_sizes().iter().all(|size| *size == 1));
    let mut tried = backend.prepared();
    let tries = tried.len();
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tries, tried.len(), "each size once");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_ran_cold_teaches_nothing_and_is_compiled_for() {
    let backend = Arc::new(ScriptedBackend::cold_for([1]));
    let heard: Arc<Mutex<Vec<Observed>>> = Arc::default();
    let observer = Arc::clone(&heard);
    let observer: Observer = Arc::new(move |observed| observer.lock().unwrap().push(observed));
    let costs = CostModel::measured([((1, 1), Duration::from_millis(5))]);
    let batcher = Batcher::new(Arc::clone(&backend) as Arc<dyn Backend>, settings(1, 8), costs, observer);
    submit_each(&batcher, 0..1).await;
    while backend.prepared().is_empty() {
        settle().await;
    }
    submit_each(&batcher, 0..1).await;
    let expected = |observed: &Observed| match observed {
        Observed::Ran(report) => Some(report.expected),
        Observed::Waiting { .. } => None,
    };
    let expected: Vec<Duration> = heard.lock().unwrap().iter().filter_map(expected).collect();
    assert_eq!((expected.len(), expected[0]), (2, Duration::ZERO), "nothing is expected of a cold one");
    assert!(expected[1] > Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_job_of_more_rows_than_may_wait_is_served() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, BatcherSettings { max_waiting_rows: 3, ..settings(1, 8) });
    let answers = batcher.submit_all((0..10).map(row).collect(), &options()).await.unwrap();
    assert_eq!(answers.iter().map(mark).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_redelivered_row_has_its_batch_to_itself() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 32));
    let alone = async {
        let inferred = batcher.submit(row(-1), &SubmitOptions { alone: true, ..options() }).await.unwrap();
        assert_eq!(inferred.batch_size, 1);
    };
    let (_, others) = join(alone, submit_each(&batcher, 0..20)).await;
    assert!(others.iter().all(|(_, answer)| answer.is_ok()));
    assert!(backend.batches().contains(&vec![-1]));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_waits_for_company_is_asked_again_when_its_time_is_up() {
    let backend = Arc::new(ScriptedBackend::new());
    let policy = BatchingPolicy::Delay { wait: Duration::from_millis(4), rows: 3 };
    let batcher = batcher(&backend, BatcherSettings { policy, ..settings(1, 32) });
    let began = Instant::now();
    let answers = submit_each(&batcher, 0..5).await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!((backend.batch_sizes(), began.elapsed()), (vec![3, 2], Duration::from_millis(4)));
}

#[tokio::test(start_paused = true)]
async fn tenants_are_kept_apart_where_the_model_says_so() {
    let backend = Arc::new(ScriptedBackend::new());
    let bounds = Bounds { scope: BatchScope::Tenant, ..settings(1, 32).bounds };
    let batcher = batcher(&backend, BatcherSettings { bounds, ..settings(1, 32) });
    let submits = (0..30).map(|mark| {
        let options = SubmitOptions { tenant: (mark % 3).to_string().into(), ..options() };
        let batcher = &batcher;
        async move { batcher.submit(row(mark), &options).await.unwrap() }
    });
    join_all(submits).await;
    for batch in backend.batches() {
        let tenants: HashSet<i64> = batch.iter().map(|mark| mark % 3).collect();
        assert_eq!(tenants.len(), 1, "{batch:?}");
    }
    assert_eq!(backend.batch_sizes(), [10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_owner_has_gone_is_skipped() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = Arc::new(batcher(&backend, settings(1, 1)));
    let running = tokio::spawn({
        let batcher = Arc::clone(&batcher);
        async move { batcher.submit(row(0), &options()).await }
    });
    begun(&backend, 1).await;
    let abandoned = tokio::spawn({
        let batcher = Arc::clone(&batcher);
        async move { batcher.submit_all((1..5).map(row).collect(), &options()).await }
    });
    settle().await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    backend.open_gate();
    assert_eq!(mark(&batcher.submit(row(9), &options()).await.unwrap()), 9);
    assert_eq!(mark(&running.await.unwrap().unwrap()), 0);
    assert_eq!(backend.batches(), [[0], [9]]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_failed_takes_its_waiting_rows_back() {
    // The row after the one that fails may have begun before its job hears of the failure; it is held until the job has.
    let backend = Arc::new(ScriptedBackend::gated_with(vec![(0, Misdeed::Fail)]));
    let batcher = batcher(&backend, settings(1, 1));
    let error = batcher.submit_all((0..50).map(row).collect(), &options()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InferenceFailed);
    backend.open_gate();
    batcher.submit(row(99), &options()).await.unwrap();
    assert!(backend.batches().len() <= 3, "rows that nobody waits for were run: {:?}", backend.batches());
}
