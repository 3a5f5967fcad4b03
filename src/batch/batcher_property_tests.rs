//! Whatever jobs come and fail: each gets its own rows in order, or the one error that was coming to it.

use proptest::prelude::*;

use super::*;

/// One job of the property test.
#[derive(Debug, Clone)]
struct Job {
    rows: usize,
    alone: bool,
    tenant: u8,
    late: bool,
    given_up: bool,
    background: bool,
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let job = (1_usize..12, proptest::bool::weighted(0.1), 0_u8..3, proptest::bool::weighted(0.1), any::<bool>());
    let made =
        |((rows, alone, tenant, late, given_up), background)| Job { rows, alone, tenant, late, given_up, background };
    let job = (job, proptest::bool::weighted(0.3));
    proptest::collection::vec(job.prop_map(made), 1..20)
}

/// Every job either gets its own rows in order, or the one error that was coming to it.
async fn run_jobs(jobs: Vec<Job>, settings: BatcherSettings, culprits: Vec<(i64, Misdeed)>, costs: CostModel) {
    let backend = Arc::new(ScriptedBackend::with(culprits.clone()));
    let batcher = Batcher::new(Arc::clone(&backend) as Arc<dyn Backend>, settings, costs, Arc::new(|_| {}));
    let mut next = 0;
    let submits = jobs.iter().map(|job| {
        let marks: Vec<i64> = (next..next + i64::try_from(job.rows).unwrap()).collect();
        next += i64::try_from(job.rows).unwrap();
        let deadline = if job.late { Instant::now() } else { options().deadline };
        let options = SubmitOptions {
            deadline,
            class: if job.background { JobClass::Background } else { JobClass::Normal },
            tenant: job.tenant.to_string().into(),
            alone: job.alone,
        };
        let batcher = &batcher;
        async move {
            let submitted = batcher.submit_all(marks.iter().copied().map(row).collect(), &options);
            if job.given_up {
                // Polled once, then dropped.
                let _gone = tokio::time::timeout(Duration::ZERO, submitted).await;
                return None;
            }
            Some((marks, submitted.await))
        }
    });
    for (job, outcome) in jobs.iter().zip(join_all(submits).await) {
        let Some((marks, answers)) = outcome else { continue };
        let is_culprit = marks.iter().any(|mark| culprits.iter().any(|(culprit, _)| culprit == mark));
        match answers {
            Ok(answers) => {
                assert!(!is_culprit && !job.late, "{job:?}");
                assert_eq!(answers.iter().map(mark).collect::<Vec<_>>(), marks, "{job:?}");
            }
            Err(error) if job.late => assert_eq!(error.code, ErrorCode::DeadlineExceeded),
            Err(error) => assert_eq!((error.code, is_culprit), (ErrorCode::InferenceFailed, true), "{job:?}"),
        }
    }
    // The last in line: when it has run, everything before it has left the pool.
    batcher.submit(row(-1), &SubmitOptions { alone: true, class: JobClass::Background, ..options() }).await.unwrap();
    assert!(backend.batch_sizes().iter().all(|size| *size <= settings.bounds.max_batch_size));
    for slots in [&batcher.slots, &batcher.background_slots] {
        assert_eq!(slots.free.available_permits(), slots.most, "a place was lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_row_is_lost(
        jobs in jobs(),
        executors in 1_usize..4,
        max_batch_size in 1_usize..10,
        max_waiting_rows in 1_usize..30,
        culprits in proptest::collection::vec(
            (0_i64..60, prop_oneof![Just(Misdeed::Fail), Just(Misdeed::LoseARow), Just(Misdeed::InventARow)]),
            0..4,
        ),
        tenant_scope: bool,
        known: bool,
        // A batch of eight, by what a row by itself costs: merging pays, or it does not.
        eight in 1_u32..12,
    ) {
        let scope = if tenant_scope { BatchScope::Tenant } else { BatchScope::Shared };
        let settings = BatcherSettings {
            max_waiting_rows,
            bounds: Bounds { max_batch_size, max_batch_tokens: usize::MAX, scope },
            ..settings(executors, max_batch_size)
        };
        // A clock that stands still teaches nothing: what is not known from the beginning stays unknown.
        let measured = [(1, 1), (8, eight)].map(|(rows, millis)| ((rows, 1), Duration::from_millis(millis.into())));
        let costs = if known { CostModel::measured(measured) } else { CostModel::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run_jobs(jobs, settings, culprits, costs));
    }
}
