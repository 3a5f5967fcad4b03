//! The acknowledgements of one channel: gathered, and sent as few frames as may be.
//!
//! `multiple=true` acknowledges everything up to a tag, so it is only ever sent for a tag below which everything is
//! settled; a straggler in the middle is acknowledged singly once it has waited `ACK_COALESCE`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::receipt::{Settled, Settlement};
use crate::limits::ACK_COALESCE;

/// Settlements handled before the gathered acknowledgements are sent.
const GATHER: usize = 256;

/// How many deliveries of a channel are not settled yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsettled(Arc<AtomicUsize>);

impl Unsettled {
    /// One more has come.
    pub(super) fn delivered(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn settled(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether nothing is under way.
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Applies settlements until every receipt of the channel is gone; each may take as long as `limit` to be sent.
pub(super) async fn settle(
    channel: Channel,
    mut settlements: mpsc::Receiver<Settled>,
    unsettled: Unsettled,
    limit: Duration,
) -> Result<(), String> {
    let mut acks = Acks::default();
    let mut gathered = Vec::with_capacity(GATHER);
    loop {
        let due = acks.oldest_straggler().map(|since| since + ACK_COALESCE);
        let open = tokio::select! {
            count = settlements.recv_many(&mut gathered, GATHER) => count > 0,
            () = until(due) => true,
        };
        unsettled.settled(gathered.len());
        for Settled { tag, settlement } in gathered.drain(..) {
            match settlement {
                Settlement::Ack => acks.settled(tag, Some(Instant::now())),
                Settlement::Requeue | Settlement::Return => {
                    acks.settled(tag, None);
                    settle_one(&channel, Settled { tag, settlement }, limit).await?;
                }
            }
        }
        let now = Instant::now();
        let frames = if open { acks.take_due(now) } else { acks.take_due(now + ACK_COALESCE) };
        for Frame { tag, multiple } in frames {
            sent(limit, channel.basic_ack(tag, BasicAckOptions { multiple })).await?;
        }
        if !open {
            return Ok(());
        }
    }
}

/// Applies one settlement at once.
pub(super) async fn settle_one(channel: &Channel, settled: Settled, limit: Duration) -> Result<(), String> {
    let Settled { tag, settlement } = settled;
    match settlement {
        Settlement::Ack => sent(limit, channel.basic_ack(tag, BasicAckOptions { multiple: false })).await,
        Settlement::Requeue => sent(limit, channel.basic_reject(tag, BasicRejectOptions { requeue: true })).await,
        Settlement::Return => {
            sent(limit, channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true })).await
        }
    }
}

async fn sent(limit: Duration, frame: impl Future<Output = lapin::Result<()>>) -> Result<(), String> {
    match timeout(limit, frame).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err(format!("a settlement was not sent within {limit:?}")),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// An acknowledgement to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    tag: u64,
    multiple: bool,
}

/// Which tags are settled, and which of them the broker has been told.
#[derive(Debug, Default)]
struct Acks {
    /// Everything up to here is settled.
    complete: u64,
    /// Everything up to here is settled and told.
    told: u64,
    /// The highest tag up to `complete` that waits to be acknowledged.
    waiting: Option<u64>,
    /// Settled tags above `complete`, as runs from first to last: one job that is held for hours costs a run, not each job after it.
    settled: BTreeMap<u64, u64>,
    /// Those among them whose acknowledgement still has to be sent.
    untold: BTreeSet<u64>,
    /// The same in the order of settlement, with the time of it; some may be complete by now.
    alone: VecDeque<(Instant, u64)>,
}

impl Acks {
    /// `tag` is settled; `since` where its acknowledgement still has to be sent.
    fn settled(&mut self, tag: u64, since: Option<Instant>) {
        if let Some(since) = since {
            self.untold.insert(tag);
            self.alone.push_back((since, tag));
        }
        self.add(tag);
        let Some(last) = self.settled.remove(&(self.complete + 1)) else { return };
        self.complete = last;
        let above = self.untold.split_off(&(last + 1));
        if let Some(highest) = std::mem::replace(&mut self.untold, above).last() {
            self.waiting = Some(*highest);
        }
    }

    /// Puts `tag` into the runs.
    fn add(&mut self, tag: u64) {
        let last = self.settled.remove(&(tag + 1)).unwrap_or(tag);
        match self.settled.range_mut(..tag).next_back() {
            Some((_, end)) if *end + 1 == tag => *end = last,
            Some(_) | None => drop(self.settled.insert(tag, last)),
        }
    }

    fn oldest_straggler(&mut self) -> Option<Instant> {
        while self.alone.front().is_some_and(|(_, tag)| *tag <= self.complete) {
            self.alone.pop_front();
        }
        self.alone.front().map(|(since, _)| *since)
    }

    /// The frames that are to be sent now.
    fn take_due(&mut self, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        if let Some(tag) = self.waiting.take() {
            frames.push(Frame { tag, multiple: tag > self.told + 1 });
            self.told = tag;
        }
        while self.oldest_straggler().is_some_and(|since| since + ACK_COALESCE <= now) {
            let Some((_, tag)) = self.alone.pop_front() else { break };
            self.untold.remove(&tag);
            frames.push(Frame { tag, multiple: false });
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_keeps_what_is_above_it_single() {
        let start = Instant::now();
        let mut acks = Acks::default();
        for tag in [1, 2, 4] {
            acks.settled(tag, Some(start));
        }
        assert_eq!(acks.take_due(start), [Frame { tag: 2, multiple: true }]);
        assert_eq!(acks.take_due(start + ACK_COALESCE), [Frame { tag: 4, multiple: false }]);
        acks.settled(3, Some(start));
        acks.settled(5, Some(start));
        assert_eq!(acks.take_due(start), [Frame { tag: 5, multiple: true }]);
    }

    #[test]
    fn what_is_settled_above_a_held_job_takes_no_room() {
        let start = Instant::now();
        let mut acks = Acks::default();
        for tag in 2..10_000 {
            acks.settled(tag, Some(start));
            acks.take_due(start + ACK_COALESCE);
        }
        assert_eq!((acks.settled.len(), acks.untold.len(), acks.alone.len()), (1, 0, 0));
        acks.settled(1, Some(start));
        assert_eq!(acks.take_due(start), [Frame { tag: 1, multiple: false }]);
        assert_eq!(acks.complete, 9_999);
        acks.settled(10_000, Some(start));
        assert_eq!(acks.take_due(start), [Frame { tag: 10_000, multiple: true }]);
    }

    proptest! {
        /// Whatever the order of settlement, every acknowledged tag is told exactly once, and no tag before it is settled.
        #[test]
        fn no_tag_is_acknowledged_before_it_is_settled(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            rejected in proptest::collection::btree_set(1..=40_u64, 0..10),
            flush_every in 1_usize..8,
        ) {
            let start = Instant::now();
            let mut acks = Acks::default();
            let mut settled = BTreeSet::new();
            let mut open: BTreeSet<u64> = (1..=40).filter(|tag| !rejected.contains(tag)).collect();
            for (step, tag) in order.iter().enumerate() {
                let ack = !rejected.contains(tag);
                acks.settled(*tag, ack.then_some(start));
                settled.insert(*tag);
                if step % flush_every == 0 || step == 39 {
                    for Frame { tag, multiple } in acks.take_due(start + ACK_COALESCE) {
                        let told: Vec<u64> = if multiple { (1..=tag).collect() } else { vec![tag] };
                        for told in told {
                            prop_assert!(settled.contains(&told), "tag {told} is not settled yet");
                            open.remove(&told);
                        }
                    }
                }
            }
            prop_assert!(open.is_empty(), "never acknowledged: {open:?}");
        }
    }
}
