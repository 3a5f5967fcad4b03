//! Tests of the driver with rows in the background, which give way to those of jobs.

use super::*;

fn in_background() -> SubmitOptions {
    SubmitOptions { class: JobClass::Background, ..options() }
}

#[tokio::test(start_paused = true)]
async fn jobs_overtake_what_is_in_the_background() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = batcher(&backend, settings(1, 4));
    let explained = async {
        // Of two explanations: what runs, and what waits.
        let (background, rows) = (in_background(), |from: i64| (from..from + 6).map(row).collect::<Vec<_>>());
        join(batcher.submit_all(rows(100), &background), batcher.submit_all(rows(200), &background)).await
    };
    let jobs = async {
        begun(&backend, 1).await;
        let answers = submit_each(&batcher, 0..4);
        let open = async {
            settle().await;
            backend.open_gate();
        };
        join(answers, open).await.0
    };
    let ((first, second), jobs) = join(explained, jobs).await;
    assert!(jobs.iter().all(|(sent, answer)| answer.as_ref().is_ok_and(|answer| mark(answer) == *sent)));
    for (explained, from) in [(first, 100), (second, 200)] {
        assert_eq!(explained.unwrap().iter().map(mark).collect::<Vec<_>>(), (from..from + 6).collect::<Vec<_>>());
    }
    let batches = backend.batches();
    assert!(batches[0].iter().all(|mark| *mark >= 100), "it had nothing before it: {batches:?}");
    assert_eq!(batches[1], [0, 1, 2, 3], "the jobs are next, by themselves: {batches:?}");
    assert_eq!(batcher.background_slots.free.available_permits(), batcher.background_slots.most);
}

#[tokio::test(start_paused = true)]
async fn a_full_background_keeps_no_job_out() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = batcher(&backend, BatcherSettings { max_waiting_rows: 4, ..settings(1, 1) });
    let explained = async { batcher.submit_all((100..120).map(row).collect(), &in_background()).await };
    let jobs = async {
        begun(&backend, 1).await;
        settle().await;
        assert_eq!(batcher.background_slots.free.available_permits(), 0);
        let jobs = join(submit_each(&batcher, 0..4), async {
            settle().await;
            assert_eq!(batcher.slots.free.available_permits(), 0, "all four wait in the pool");
            backend.open_gate();
        });
        jobs.await.0
    };
    let (explained, jobs) = join(explained, jobs).await;
    assert_eq!((explained.unwrap().len(), jobs.iter().filter(|(_, answer)| answer.is_ok()).count()), (20, 4));
    assert_eq!(backend.batches()[1..5], [[0], [1], [2], [3]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_in_the_background_is_run_row_by_row_behind_jobs() {
    // The batch of eight fails at once; what is run of it then waits for the gate.
    let backend = Arc::new(ScriptedBackend::gated_with(vec![(105, Misdeed::Fail)]));
    let batcher = batcher(&backend, settings(1, 8));
    let background = in_background();
    let explained = join_all((100..108).map(|mark| batcher.submit(row(mark), &background)));
    let jobs = async {
        begun(&backend, 2).await;
        let open = async {
            settle().await;
            backend.open_gate();
        };
        join(submit_each(&batcher, 0..2), open).await.0
    };
    let (explained, jobs) = join(explained, jobs).await;
    assert!(jobs.iter().all(|(_, answer)| answer.is_ok()));
    for (mark, answer) in (100..108).zip(explained) {
        assert_eq!(answer.is_err(), mark == 105, "only the culprit fails");
    }
    let batches = backend.batches();
    assert_eq!((batches[0].len(), &batches[2]), (8, &vec![0, 1]), "{batches:?}");
    assert!(batches[3..].iter().all(|batch| batch.len() == 1) && batches.len() == 10, "{batches:?}");
    assert_eq!(batcher.background_slots.free.available_permits(), batcher.background_slots.most);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_that_is_given_up_or_late_leaves_nothing_behind() {
    let backend = Arc::new(ScriptedBackend::gated());
    let batcher = Arc::new(batcher(&backend, settings(1, 2)));
    let explain = |options: SubmitOptions, from: i64| {
        let batcher = Arc::clone(&batcher);
        tokio::spawn(async move { batcher.submit_all((from..from + 10).map(row).collect(), &options).await })
    };
    let running = explain(in_background(), 100);
    begun(&backend, 1).await;
    let given_up = explain(in_background(), 200);
    let soon = Instant::now() + Duration::from_secs(1);
    let late = explain(SubmitOptions { deadline: soon, ..in_background() }, 300);
    settle().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(late.await.unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded, "told while another one runs");
    backend.open_gate();
    assert_eq!(running.await.unwrap().unwrap().len(), 10);
    assert!(backend.batches().concat().iter().all(|mark| (100..110).contains(mark)), "{:?}", backend.batches());
    assert_eq!(batcher.background_slots.free.available_permits(), batcher.background_slots.most);
}
