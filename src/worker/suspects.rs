//! Jobs that several workers have already died with: run one at a time, so that only the guilty one is a dead letter.
//!
//! When a process dies, everything that it held is delivered again and counts one delivery more, guilty or not. Were all of
//! it run at once, an input that ends processes would take its neighbours along, delivery by delivery, up to their limit.
//! So a job with several unsettled deliveries waits for its turn here, and has it until it is settled. The first time they
//! run in the order in which they came, which settles all that stand before the guilty one; the next time in the opposite
//! order, which settles all behind it; after that, for there may be several, in any order.
//!
//! A lost connection counts a delivery more, too. Where this process has outlived one lately, that explains it, and nobody is
//! suspected: running singly what breaks off again and again would only bring it nearer to its limit.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::limits::{SURVIVED_LOSS, SUSPECT_DELIVERIES, SUSPECTS_GATHER};

/// A place among those that wait: fewer deliveries first, then by rank. The last number makes it the only one of its kind: tags
/// begin anew with each session.
type Place = (u32, u64, u64);

#[derive(Debug, Default)]
struct Row {
    waiting: BTreeSet<Place>,
    /// Places given out so far.
    places: u64,
    busy: bool,
    last_loss: Option<Instant>,
}

impl Row {
    fn give_place(&mut self, count: u32, rank: u64) -> Place {
        self.places = self.places.wrapping_add(1);
        let place = (count, rank, self.places);
        self.waiting.insert(place);
        place
    }
}

/// The suspects of a worker.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    row: Mutex<Row>,
    moved: Notify,
}

/// The only suspect that may run; dropped, it is the next one's turn.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Suspects);

/// A suspect that waits; dropped, it waits no more.
struct Waiting<'a> {
    suspects: &'a Suspects,
    place: Place,
}

impl Suspects {
    /// A session was lost, and this process lives on.
    pub(super) fn outlived_a_loss(&self) {
        self.row().last_loss = Some(Instant::now());
    }

    /// Waits for the turn of the job of delivery `tag`, which was delivered `count` times before; `None` for one that is
    /// above suspicion.
    pub(super) async fn turn(&self, count: u32, tag: u64) -> Option<Turn<'_>> {
        let times = count.checked_sub(SUSPECT_DELIVERIES)?;
        if self.row().last_loss.is_some_and(|at| at.elapsed() < SURVIVED_LOSS) {
            return None;
        }
        let rank = match times {
            0 => tag,
            1 => u64::MAX - tag,
            _ => random(),
        };
        let waiting = Waiting { suspects: self, place: self.row().give_place(count, rank) };
        // All that came back with it shall have come, and whoever is above suspicion be done.
        sleep(SUSPECTS_GATHER).await;
        loop {
            let moved = self.moved.notified();
            if waiting.begin() {
                return Some(Turn(self));
            }
            moved.await;
        }
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    fn begin(&self) -> bool {
        let mut row = self.suspects.row();
        let mine = !row.busy && row.waiting.first() == Some(&self.place);
        row.busy |= mine;
        mine
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.suspects.row().waiting.remove(&self.place);
        self.suspects.moved.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.row().busy = false;
        self.0.moved.notify_waiters();
    }
}

/// Without randomness the order is the same for all: no worse than any other.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;

    use super::*;

    /// The order in which jobs with these counts and tags have their turn; the one with the tag `crashes` never ends it.
    async fn order(jobs: &[(u32, u64)], crashes: Option<u64>) -> Vec<u64> {
        let suspects = Arc::new(Suspects::default());
        let ran = Arc::new(Mutex::new(Vec::new()));
        let one = |(count, tag): (u32, u64)| {
            let (suspects, ran) = (Arc::clone(&suspects), Arc::clone(&ran));
            async move {
                let turn = suspects.turn(count, tag).await;
                assert!(suspects.row().busy && turn.is_some());
                if crashes == Some(tag) {
                    std::future::pending::<()>().await;
                }
                tokio::task::yield_now().await;
                ran.lock().unwrap().push(tag);
            }
        };
        let all = join_all(jobs.iter().map(|job| one(*job)));
        let _either = tokio::time::timeout(SUSPECTS_GATHER * 1_000, all).await;
        let ran = ran.lock().unwrap();
        ran.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn two_rounds_clear_everybody_but_the_guilty() {
        let first = [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)];
        assert_eq!(order(&first, Some(3)).await, [1, 2]);
        let second = [(3, 1), (3, 2), (3, 3)];
        assert_eq!(order(&second, Some(1)).await, [3, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_deliveries_come_first_and_each_runs_by_itself() {
        assert_eq!(order(&[(5, 1), (3, 2), (2, 3), (4, 4)], None).await, [3, 2, 4, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_tag_of_two_sessions_has_two_turns() {
        assert_eq!(order(&[(2, 5), (2, 5), (3, 7)], None).await, [5, 5, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_session_that_the_process_outlives_is_nobodys_fault() {
        let suspects = Suspects::default();
        suspects.outlived_a_loss();
        assert!(suspects.turn(5, 1).await.is_none());
        tokio::time::advance(SURVIVED_LOSS).await;
        assert!(suspects.turn(5, 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_given_up_holds_nobody_up() {
        let suspects = Suspects::default();
        let given_up = tokio::time::timeout(SUSPECTS_GATHER / 2, suspects.turn(2, 1)).await;
        assert!(given_up.is_err());
        assert!(suspects.turn(2, 2).await.is_some());
        assert!(suspects.turn(1, 3).await.is_none(), "one delivery more can happen to anybody");
    }
}
