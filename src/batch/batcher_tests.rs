//! Tests of the driver: every row gets its own answer, whatever happens to its batch.

use super::*;
use crate::backend::scripted::{Misdeed, ScriptedBackend};
use crate::batch::policy::BatchScope;
use crate::protocol::tensor::{Tensor, TensorData};

fn row(mark: i64) -> Row {
    let tensor = Tensor::new(vec![1], TensorData::Int64(vec![mark])).unwrap();
    Row { inputs: vec![tensor], length: 1, may_be_padded: true }
}

fn settings(executors: usize, max_batch_size: usize) -> BatcherSettings {
    let bounds = Bounds { max_batch_size, scope: BatchScope::Shared };
    BatcherSettings { executors, max_waiting_rows: 1_000, bounds }
}

fn options() -> SubmitOptions {
    let deadline = Instant::now() + Duration::from_secs(60);
    SubmitOptions { deadline, tenant: "t".into(), alone: false }
}

fn mark(inferred: &Inferred) -> i64 {
    match inferred.output.outputs[0].elements() {
        TensorData::Int64(elements) => elements[0],
        other => panic!("{other:?}"),
    }
}

fn batcher(backend: &Arc<ScriptedBackend>, settings: BatcherSettings) -> Batcher {
    Batcher::new(Arc::clone(backend) as Arc<dyn Backend>, settings, Arc::new(|_| {}))
}

async fn submit_all(batcher: &Batcher, marks: impl Iterator<Item = i64>) -> Vec<(i64, Answer)> {
    let submits = marks.map(|mark| async move { (mark, batcher.submit(row(mark), options()).await) });
    futures_util::future::join_all(submits).await
}

#[tokio::test(start_paused = true)]
async fn every_row_gets_its_own_answer() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(2, 8));
    for (sent, answer) in submit_all(&batcher, 0..100).await {
        assert_eq!(mark(&answer.unwrap()), sent);
    }
    assert_eq!(backend.batch_sizes().iter().sum::<usize>(), 100);
    assert!(backend.batch_sizes().iter().all(|size| *size <= 8));
    assert!(backend.batch_sizes().len() < 100, "a burst is batched: {:?}", backend.batch_sizes());
}

#[tokio::test(start_paused = true)]
async fn only_the_culprit_fails() {
    for misdeed in [Misdeed::Fail, Misdeed::Panic, Misdeed::LoseARow] {
        let backend = Arc::new(ScriptedBackend::with(13, misdeed));
        let batcher = batcher(&backend, settings(1, 32));
        for (sent, answer) in submit_all(&batcher, 0..32).await {
            match answer {
                Ok(inferred) => assert_eq!((mark(&inferred), sent == 13), (sent, false), "{misdeed:?}"),
                Err(error) => assert_eq!((error.code, sent), (ErrorCode::InferenceFailed, 13), "{misdeed:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_not_run() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 8));
    let late = SubmitOptions { deadline: Instant::now(), ..options() };
    let error = batcher.submit(row(1), late).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(backend.batch_sizes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_redelivered_row_has_its_batch_to_itself() {
    let backend = Arc::new(ScriptedBackend::new());
    let batcher = batcher(&backend, settings(1, 32));
    let alone = async {
        let inferred = batcher.submit(row(-1), SubmitOptions { alone: true, ..options() }).await.unwrap();
        assert_eq!(inferred.batch_size, 1);
    };
    let (_, others) = tokio::join!(alone, submit_all(&batcher, 0..20));
    assert!(others.iter().all(|(_, answer)| answer.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_owner_has_gone_is_skipped() {
    let backend = Arc::new(ScriptedBackend { takes: Duration::from_millis(20), ..ScriptedBackend::new() });
    let batcher = batcher(&backend, settings(1, 1));
    let gone = async {
        let submits = (0..5).map(|mark| batcher.submit(row(mark), options()));
        let _gave_up = tokio::time::timeout(Duration::ZERO, futures_util::future::join_all(submits)).await;
    };
    gone.await;
    let answer = batcher.submit(row(9), options()).await.unwrap();
    assert_eq!(mark(&answer), 9);
    assert!(backend.batch_sizes().len() <= 3, "abandoned rows were run: {:?}", backend.batch_sizes());
}
