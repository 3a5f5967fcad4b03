//! Runs a model before its first job does: what batches take is compiled, and what they cost is measured.
//!
//! Called where a model is loaded to be served. Bounded in time; sizes for which none is left are compiled when batches of
//! them would pay, as far as is known, and measured then. Time is the processor's: beside jobs, a thread of the least priority waits
//! for most of the clock's, and a model that seems slow would run in the wrong batches.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::backend::{Backend, BackendError, run_caught};
use crate::batch::cost::CostModel;
use crate::batch::policy::Bounds;
use crate::batch::row::{Batch, Row};
use crate::protocol::tensor::{Tensor, TensorData};

/// Runs of each shape that are measured, of which the fastest counts: loading shares the machine's caches.
const RUNS: u32 = 3;
/// A size is begun where this many times what it took to try half of it is left: all its runs, twice as long.
const NEEDED: u32 = 2 * (RUNS + 1);

/// How a model is warmed up.
#[derive(Debug, Clone, Copy)]
pub(super) struct WarmUp {
    /// The bounds of its batches.
    pub(super) bounds: Bounds,
    /// The longest that a row gets, where rows are filled up.
    pub(super) longest: Option<usize>,
    /// How much of the processor's time it may take.
    pub(super) most: Duration,
}

/// What a shape has cost.
struct Measured {
    batch: Batch,
    fastest: Duration,
}

/// A run.
struct Ran {
    /// From handing the batch over to the run's beginning, by the clock.
    handed: Duration,
    /// What the run took of the processor.
    took: Duration,
}

impl WarmUp {
    /// Runs `backend` on rows like `rows`, in batches of 1, 2, 4 ... rows; answers what is known of costs then, nothing where
    /// there are no rows.
    pub(super) fn run(self, backend: &dyn Backend, rows: &[Row]) -> Result<CostModel, BackendError> {
        let mut measured: Vec<Measured> = Vec::new();
        let mut soonest = Duration::MAX;
        // As the batcher does it: on another thread, from handing it over until it has run.
        std::thread::scope(|scope| {
            let (batches, taken) = sync_channel::<(Batch, Instant)>(1);
            let (done, results) = sync_channel(1);
            scope.spawn(move || run_all(backend, &taken, &done));
            let (began, mut running) = (thread_time(), Duration::ZERO);
            let mut run = |batch: &Batch| {
                let handed = batches.send((batch.clone(), Instant::now()));
                let ran = handed.ok().and_then(|()| results.recv().ok()).unwrap_or(Err(BackendError::Panicked))?;
                running += ran.took;
                soonest = soonest.min(ran.handed);
                Ok((ran.took, running + thread_time().saturating_sub(began)))
            };
            let (mut spent, mut last) = (Duration::ZERO, Duration::ZERO);
            for size in self.sizes() {
                if spent + last * NEEDED >= self.most {
                    break;
                }
                let before = spent;
                for batch in self.batches(rows, size) {
                    backend.prepare(size, batch.padded_length());
                    // What was just compiled is slow for the first time.
                    spent = run(&batch)?.1;
                    measured.push(Measured { batch, fastest: Duration::MAX });
                }
                last = spent.saturating_sub(before);
            }
            for round in 0..RUNS {
                for Measured { batch, fastest } in &mut measured {
                    if round > 0 && spent > self.most {
                        return Ok(());
                    }
                    let (took, so_far) = run(batch)?;
                    (*fastest, spent) = (took.min(*fastest), so_far);
                }
            }
            Ok(())
        })?;
        let known = measured.iter().map(|Measured { batch, fastest }| {
            let shape = backend.planned_shape(batch.rows.len(), batch.padded_length());
            (shape, *fastest + soonest)
        });
        Ok(CostModel::measured((0..RUNS).flat_map(|_| known.clone())))
    }

    fn sizes(self) -> impl Iterator<Item = usize> {
        let powers = std::iter::successors(Some(1_usize), |size| size.checked_mul(2));
        powers.take_while(move |size| *size <= self.bounds.max_batch_size)
    }

    /// A batch of `size` rows in each length: of the first of `rows`, or, where they are filled up, of all of them, in the longest
    /// there is and in a quarter of it.
    fn batches(self, rows: &[Row], size: usize) -> Vec<Batch> {
        let (lengths, kinds) = match self.longest {
            Some(longest) => (vec![Some(longest.div_ceil(4)), Some(longest)], rows.len()),
            None => (vec![None], 1),
        };
        let batch = |length: Option<usize>| Batch {
            rows: rows.iter().take(kinds).cycle().take(size).map(|row| resized(row, length)).collect(),
        };
        let fits = |batch: &Batch| {
            let tokens = batch.padded_length().saturating_mul(size);
            !batch.rows.is_empty() && (size == 1 || tokens <= self.bounds.max_batch_tokens)
        };
        lengths.into_iter().map(batch).filter(fits).collect()
    }
}

fn run_all(backend: &dyn Backend, taken: &Receiver<(Batch, Instant)>, done: &SyncSender<Result<Ran, BackendError>>) {
    for (batch, handed) in taken {
        let (handed, began) = (handed.elapsed(), thread_time());
        let result = run_caught(backend, &batch).map(|_| Ran { handed, took: thread_time().saturating_sub(began) });
        if done.send(result).is_err() {
            return;
        }
    }
}

/// What this thread has had of the processor.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// A row of `length` ids, made of those of `row`; others stay as they are.
fn resized(row: &Row, length: Option<usize>) -> Row {
    let Some(length) = length.filter(|_| row.may_be_padded) else { return row.clone() };
    let input = |tensor: &Tensor| match (tensor.elements(), tensor.shape()) {
        (TensorData::Int64(ids), [_]) if !ids.is_empty() => {
            let ids = ids.iter().copied().cycle().take(length).collect();
            Tensor::new(vec![length], TensorData::Int64(ids)).ok()
        }
        _ => None,
    };
    let inputs: Option<Vec<Tensor>> = row.inputs.iter().map(input).collect();
    inputs.map_or_else(|| row.clone(), |inputs| Row { inputs, length, may_be_padded: true })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::backend::tract::{GraphSpec, Padding, TractBackend};
    use crate::batch::policy::{BatchScope, Decision, Moment, Policy};
    use crate::batch::pool::{Pool, Waiting};
    use crate::batch::row::{BatchOutput, RowOutput};
    use crate::protocol::tensor::Datatype;
    use crate::protocol::tensor_spec::TensorSpec;
    use crate::settings::BatchingPolicy;

    /// Notes what it is run with, and is cold for everything that it was not prepared for.
    #[derive(Default)]
    struct Noting {
        prepared: Mutex<Vec<(usize, usize)>>,
        ran: Mutex<Vec<(usize, usize)>>,
    }

    impl Backend for Noting {
        fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
            let shape = (batch.rows.len(), batch.padded_length());
            assert!(self.is_warm(shape.0, shape.1), "{shape:?} is run cold");
            self.ran.lock().unwrap().push(shape);
            Ok(BatchOutput { rows: vec![RowOutput { outputs: Vec::new() }; shape.0] })
        }

        fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
            (rows, length)
        }

        fn is_warm(&self, rows: usize, length: usize) -> bool {
            self.prepared.lock().unwrap().contains(&(rows, length))
        }

        fn prepare(&self, rows: usize, length: usize) -> bool {
            self.prepared.lock().unwrap().push((rows, length));
            true
        }
    }

    fn row(ids: &[i64], may_be_padded: bool) -> Row {
        let tensor = Tensor::new(vec![ids.len()], TensorData::Int64(ids.to_vec())).unwrap();
        Row { inputs: vec![tensor], length: ids.len(), may_be_padded }
    }

    fn warm_up(max_batch_tokens: usize, longest: Option<usize>, most: Duration) -> WarmUp {
        WarmUp { bounds: Bounds { max_batch_size: 5, max_batch_tokens, scope: BatchScope::Shared }, longest, most }
    }

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn every_size_is_compiled_for_and_measured_in_two_lengths() {
        let backend = Noting::default();
        let rows = [row(&[1, 2, 3], true), row(&[4], true)];
        let costs = warm_up(64, Some(32), LONG).run(&backend, &rows).unwrap();
        let shapes = [(1, 8), (1, 32), (2, 8), (2, 32), (4, 8)];
        assert_eq!(*backend.prepared.lock().unwrap(), shapes, "128 tokens are more than may be");
        let ran = backend.ran.lock().unwrap();
        assert!(shapes.iter().all(|shape| ran.iter().filter(|ran| *ran == shape).count() == 4), "{ran:?}");
        assert!(costs.is_known() && costs.recent(4, 512) == 3, "each size is known");
    }

    #[test]
    fn rows_that_are_not_filled_up_are_run_as_they_are() {
        let backend = Noting::default();
        warm_up(usize::MAX, None, LONG).run(&backend, &[row(&[1, 2, 3], false), row(&[4], false)]).unwrap();
        assert_eq!(*backend.prepared.lock().unwrap(), [(1, 3), (2, 3), (4, 3)]);
    }

    #[test]
    fn where_no_time_is_left_or_nothing_to_run_nothing_is_known() {
        let backend = Noting::default();
        assert!(!warm_up(64, Some(32), Duration::ZERO).run(&backend, &[row(&[1], true)]).unwrap().is_known());
        assert!(!warm_up(64, Some(32), LONG).run(&backend, &[]).unwrap().is_known());
        assert!(backend.ran.lock().unwrap().is_empty());
    }

    /// Whose runs wait, while somebody else has the processor: for so long, or, where that is nothing, they panic.
    struct Kept(Duration);

    impl Backend for Kept {
        fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
            assert!(self.0 > Duration::ZERO, "as told");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let began = Instant::now();
                    while began.elapsed() < self.0 {
                        std::hint::spin_loop();
                    }
                });
            });
            Ok(BatchOutput { rows: vec![RowOutput { outputs: Vec::new() }; batch.rows.len()] })
        }

        fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
            (rows, length)
        }

        fn is_warm(&self, _rows: usize, _length: usize) -> bool {
            true
        }

        fn prepare(&self, _rows: usize, _length: usize) -> bool {
            true
        }
    }

    #[test]
    fn what_a_run_waits_for_the_processor_is_not_what_it_costs() {
        let kept = Duration::from_millis(20);
        let costs = warm_up(64, Some(32), 20 * kept).run(&Kept(kept), &[row(&[1], true)]).unwrap();
        assert!(costs.recent(4, 512) == 3, "nor does it end the warm-up: all sizes are known");
        for size in [1, 2, 4] {
            let cost = costs.seconds(size, 8);
            assert!(cost < kept.as_secs_f64() / 2.0, "{size} rows cost {cost} s");
        }
    }

    #[test]
    fn a_model_that_panics_is_refused() {
        let refused = warm_up(64, Some(32), LONG).run(&Kept(Duration::ZERO), &[row(&[1], true)]);
        assert_eq!(refused.unwrap_err(), BackendError::Panicked);
    }

    const CONVOLUTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/convolutions.onnx");

    /// How many of eight rows that wait the policy runs at once, knowing `costs`.
    fn chosen(costs: CostModel, backend: &dyn Backend, row: &Row) -> usize {
        let now = tokio::time::Instant::now();
        let mut pool = Pool::default();
        for _ in 0..8 {
            let far = now + LONG;
            let (row, tenant, answer) = (row.clone(), "t".into(), tokio::sync::oneshot::channel().0);
            pool.push(Waiting {
                row,
                deadline: far,
                due: far,
                tenant,
                alone: false,
                background: false,
                arrived: now,
                slot: None,
                answer,
            });
        }
        let bounds = Bounds { max_batch_size: 8, max_batch_tokens: usize::MAX, scope: BatchScope::Shared };
        let mut policy = Policy::new(BatchingPolicy::Adaptive, bounds, 1, costs);
        let (plan, warm) =
            (|rows, length| backend.planned_shape(rows, length), |rows, length| backend.is_warm(rows, length));
        match policy.decide(Moment { pool: &pool, idle: 1, plan: &plan, warm: &warm, now }) {
            Decision::Run(dispatch) => dispatch.positions.len(),
            other => panic!("{other:?}"),
        }
    }

    /// Real runs of a real model: a batch of images costs more than its rows one by one, or does not, as the machine has it; what
    /// the policy does from the first job on follows what was measured.
    #[test]
    fn a_convolution_runs_row_by_row_where_its_batches_cost_more() {
        let floats = |name: &str, shape: &[i64]| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let (inputs, outputs) = ([floats("x", &[-1, 3, 48, 48])], [floats("y", &[-1, 32])]);
        let padding = Padding { value: 0, longest: None };
        let onnx = std::fs::read(CONVOLUTIONS).unwrap();
        let backend = TractBackend::load(&onnx, GraphSpec { inputs: &inputs, outputs: &outputs, padding }).unwrap();
        let pixels = (0_u16..3 * 48 * 48).map(|at| f32::from(at % 251) / 251.0).collect();
        let tensor = Tensor::new(vec![3, 48, 48], TensorData::Fp32(pixels)).unwrap();
        let row = Row { inputs: vec![tensor], length: 1, may_be_padded: false };
        let bounds = Bounds { max_batch_size: 8, max_batch_tokens: usize::MAX, scope: BatchScope::Shared };
        let costs = WarmUp { bounds, longest: None, most: LONG }.run(&backend, std::slice::from_ref(&row)).unwrap();
        assert!([1, 2, 4, 8].iter().all(|size| backend.is_warm(*size, 1)), "every size is compiled for");
        let each = [1, 2, 4, 8].map(|size: u8| costs.seconds(size.into(), 1) / f64::from(size));
        println!("a row of 1, 2, 4, 8 costs {each:?} s");
        let batches_cost = each[1..].iter().all(|other| *other > 1.02 * each[0]);
        let size = chosen(costs, &backend, &row);
        assert!(
            !batches_cost || size == 1,
            "a row costs {each:?} s in batches of 1, 2, 4, 8, and {size} are run at once"
        );
        let batches_pay = each.is_sorted_by(|fewer, more| *more < 0.9 * fewer);
        assert!(!batches_pay || size > 1, "a row costs {each:?} s, and one is run at once");
    }
}
