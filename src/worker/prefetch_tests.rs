//! Tests of the prefetch: the decision on made-up loads, and the dial that it turns.

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::prefetch::Prefetch;
use crate::broker::topology::Topology;
use crate::broker::{Address, Consumer as _, Publisher as _};
use crate::protocol::properties::Message;
use crate::settings::{Environment, LoadOptions};
use crate::telemetry::labels::DispatchReason;

const SPAN: Duration = PREFETCH_LOOK;

/// Two executors, batches of up to 32 rows, at most 256 deliveries.
fn settings() -> Settings {
    let (mut settings, _) = Settings::load_in(&LoadOptions::default(), &Environment::default()).unwrap();
    settings.batching.executors = 2;
    settings.batching.max_batch_size = 32;
    settings.broker.prefetch = 256;
    settings.broker.adaptive_prefetch = true;
    settings
}

/// A load of `per_second` jobs of one row, of which each spends `outside` on its way, on busy executors.
fn load(per_second: u32, best_size: usize, outside: Duration) -> Load {
    let jobs = per_second * 5;
    let inside = Duration::from_millis(20);
    Load {
        jobs,
        held: (inside * 2 + outside) * jobs,
        waited: inside * jobs,
        ran: inside * jobs,
        rows: jobs as usize,
        busy: SPAN * 2,
        best_size,
    }
}

/// What is set within a minute of this load.
fn set_by(prefetcher: &mut Prefetcher, load: &Load) -> Option<u16> {
    let start = Instant::now();
    (0..12).find_map(|look| prefetcher.look(load, SPAN, start + SPAN * look))
}

#[test]
fn it_begins_with_two_batches_an_executor_and_keeps_what_suits() {
    let mut prefetcher = Prefetcher::new(&settings());
    assert_eq!(prefetcher.now, 128);
    assert_eq!(set_by(&mut prefetcher, &load(500, 32, Duration::from_millis(10))), None);
}

#[test]
fn a_model_on_which_batches_do_not_pay_hoards_nothing() {
    let mut prefetcher = Prefetcher::new(&settings());
    // Two run, two wait, and 100 a second are on their way for 10 ms.
    assert_eq!(set_by(&mut prefetcher, &load(100, 1, Duration::from_millis(10))), Some(5));
    assert_eq!(set_by(&mut prefetcher, &load(100, 1, Duration::from_millis(10))), None);
    assert_eq!(set_by(&mut prefetcher, &load(100, 32, Duration::from_millis(10))), Some(129));
}

#[test]
fn jobs_on_their_way_and_jobs_of_many_rows_are_told_apart() {
    let mut prefetcher = Prefetcher::new(&settings());
    assert_eq!(set_by(&mut prefetcher, &load(500, 32, Duration::from_millis(300))), Some(256), "128 and 150, bounded");
    let mut many = load(50, 32, Duration::ZERO);
    many.rows *= 16;
    assert_eq!(set_by(&mut prefetcher, &many), Some(8));
}

#[test]
fn a_passing_want_changes_nothing() {
    let mut prefetcher = Prefetcher::new(&settings());
    let (few, many) = (load(100, 1, Duration::ZERO), load(500, 32, Duration::ZERO));
    let start = Instant::now();
    for look in 0..60 {
        let load = if look % 6 == 5 { &many } else { &few };
        assert_eq!(prefetcher.look(load, SPAN, start + SPAN * look), None, "look {look}");
    }
    let nothing = Load::default();
    for look in 60..120 {
        let load = if look % 2 == 0 { &few } else { &nothing };
        assert_eq!(prefetcher.look(load, SPAN, start + SPAN * look), None, "look {look}");
    }
}

#[test]
fn idle_executors_beside_a_full_prefetch_want_more_and_rows_that_lie_long_want_less() {
    let mut settings = settings();
    settings.broker.prefetch = 16;
    let mut prefetcher = Prefetcher { bounds: (4, 256), ..Prefetcher::new(&settings) };
    // Every delivery is in use all the time, and the executors run half of it.
    let starving = Load { held: SPAN * 16, waited: SPAN, ran: SPAN * 14, busy: SPAN, ..load(100, 8, Duration::ZERO) };
    let set = set_by(&mut prefetcher, &starving).unwrap();
    assert!(set >= 48, "{set}");
    let spare = prefetcher.spare_batches;
    let lying = Load { waited: SPAN * 1_000, held: SPAN * 1_200, ..load(100, 8, Duration::ZERO) };
    set_by(&mut prefetcher, &lying);
    assert!(prefetcher.spare_batches < spare / 4.0);
    assert!(set_by(&mut prefetcher, &lying).is_none_or(|set| set >= 16), "there is always something for each executor");
}

/// Regression: jobs that are on their way for long, and hardly in the batcher, are never more than the prefetch, and so never asked for
/// another one: a model that runs in no time had half of what it could do.
#[test]
fn what_a_full_prefetch_hides_is_asked_for_within_seconds() {
    let mut prefetcher = Prefetcher::new(&settings());
    let inside = Duration::from_micros(100);
    let load = |held: u32| Load {
        jobs: 20_000,
        held: SPAN * held,
        waited: inside * 20_000,
        ran: inside * 20_000,
        rows: 20_000,
        busy: SPAN / 10,
        best_size: 1,
    };
    let start = Instant::now();
    let sets: Vec<_> = (0..4).map(|look| prefetcher.look(&load(126), SPAN, start + SPAN * look)).collect();
    assert_eq!(sets, [None, Some(256), None, None], "the most that may be");
    let mut prefetcher = Prefetcher::new(&settings());
    assert_eq!(set_by(&mut prefetcher, &load(90)), None, "the broker has no more");
}

#[test]
fn the_bounds_hold_whatever_is_counted() {
    let mut prefetcher = Prefetcher::new(&settings());
    for (per_second, best, outside) in [(1, 0, 0), (100_000, 1_024, 3_600), (1, 1, 3_600)] {
        set_by(&mut prefetcher, &load(per_second, best, Duration::from_secs(outside)));
        assert!((4..=256).contains(&prefetcher.now), "{}", prefetcher.now);
    }
    let mut settings = settings();
    settings.broker.prefetch = 1;
    let mut prefetcher = Prefetcher::new(&settings);
    assert_eq!((prefetcher.now, set_by(&mut prefetcher, &load(100, 8, Duration::ZERO))), (1, None));
    settings.broker.prefetch = 40;
    settings.broker.adaptive_prefetch = false;
    assert_eq!(first(&settings), 40);
}

/// A worker on which batches do not pay: half a minute later it leaves to others what it cannot run.
#[tokio::test(start_paused = true)]
async fn a_worker_leaves_to_others_what_it_cannot_run() {
    let settings = settings();
    let models = ["topic".to_owned()];
    let names = Names::new(&settings.broker.name_prefix);
    let broker = MemoryBroker::new(&Topology::for_models(&settings.broker, &models));
    let (dial, prefetch) = Prefetch::turned(first(&settings), settings.broker.prefetch);
    let mut consumer = broker.consumer_following(&vec![names.job_queue("topic")].into(), prefetch);
    let loads = Arc::new(Loads::of(&models));
    let metrics = Arc::new(Metrics::new("w", &models));
    let steering = Steering { loads: Arc::clone(&loads), dial, metrics: Arc::clone(&metrics) };
    let steerer = tokio::spawn(steer(settings, steering));

    let publisher = broker.publisher();
    let address = Address::new(&names.jobs_exchange(), "topic");
    for _ in 0..300 {
        publisher.publish(&address, Message::default()).await.unwrap();
    }
    let mut held = Vec::new();
    let taken = async {
        while let Some(delivery) = consumer.next().await {
            held.push(delivery)
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1), taken).await.is_err());
    assert_eq!(held.len(), 128);

    let report = BatchReport {
        size: 1,
        padded_length: 8,
        planned_shape: (1, 8),
        real_length: 8,
        ran: Duration::from_millis(100),
        reason: DispatchReason::Drained,
        expected: Duration::ZERO,
        expected_apart: Duration::ZERO,
        contended: false,
        background: false,
        best_size: 1,
    };
    for _ in 0..10 {
        for _ in 0..100 {
            loads.batch("topic", &report);
            loads.job("topic", Duration::from_millis(110), (Duration::ZERO, report.ran));
        }
        tokio::time::sleep(PREFETCH_LOOK).await;
    }
    assert!(metrics.exposition().contains("inferq_prefetch_jobs{model=\"topic\"} 5\n"), "{}", metrics.exposition());
    held.drain(..).for_each(|delivery| delivery.receipt.give_back());
    let taken = async {
        while let Some(delivery) = consumer.next().await {
            held.push(delivery)
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1), taken).await.is_err());
    assert_eq!(held.len(), 5);
    steerer.abort();
    drop(held);
    consumer.close().await;
}
