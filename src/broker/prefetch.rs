//! How many deliveries of each queue may be unsettled with a consumer: told by whoever knows what the consumer can do.
//!
//! A worker turns the [`PrefetchDial`], both brokers' consumers follow their [`Prefetch`]. Nothing here knows why.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::limits::MAX_PREFETCH;

#[derive(Debug, Clone)]
struct Setting {
    /// For queues that nothing was said of.
    otherwise: u16,
    of_queue: BTreeMap<String, u16>,
}

/// Says how many deliveries may be unsettled.
#[derive(Debug)]
pub struct PrefetchDial(watch::Sender<Setting>);

/// What a consumer follows. Clones follow the same.
#[derive(Debug, Clone)]
pub struct Prefetch {
    setting: watch::Receiver<Setting>,
    most: u16,
}

impl Prefetch {
    /// `most` for every queue, for ever.
    #[must_use]
    pub fn fixed(most: u16) -> Self {
        Self::turned(most, most).1
    }

    /// `start` for every queue until the dial is turned, and never more than `most`.
    #[must_use]
    pub fn turned(start: u16, most: u16) -> (PrefetchDial, Self) {
        let most = most.clamp(1, MAX_PREFETCH);
        let (dial, setting) = watch::channel(Setting { otherwise: start, of_queue: BTreeMap::new() });
        (PrefetchDial(dial), Self { setting, most })
    }

    /// What it can never be more than.
    #[must_use]
    pub const fn most(&self) -> u16 {
        self.most
    }

    /// What holds for `queue` now: at least 1.
    #[must_use]
    pub fn of(&self, queue: &str) -> u16 {
        let setting = self.setting.borrow();
        setting.of_queue.get(queue).copied().unwrap_or(setting.otherwise).clamp(1, self.most)
    }

    /// Resolves, with what holds then, once that is not `now` any more. Cancel safe.
    pub(super) async fn changed(&mut self, queue: &str, now: u16) -> u16 {
        loop {
            // Marked as seen before it is looked at, so that no turn in between is missed.
            self.setting.mark_unchanged();
            let holds = self.of(queue);
            if holds != now {
                return holds;
            }
            if self.setting.changed().await.is_err() {
                // Nobody turns it any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl PrefetchDial {
    /// From now on `count` deliveries of `queue` may be unsettled.
    pub fn set(&self, queue: &str, count: u16) {
        self.0.send_if_modified(|setting| setting.of_queue.insert(queue.to_owned(), count) != Some(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_reaches_its_queue_alone_and_keeps_the_bounds() {
        let (dial, mut prefetch) = Prefetch::turned(4, 16);
        assert_eq!((prefetch.of("a"), prefetch.of("b"), prefetch.most()), (4, 4, 16));
        dial.set("a", 9);
        assert_eq!(prefetch.changed("a", 4).await, 9);
        assert_eq!(prefetch.of("b"), 4);
        dial.set("a", 900);
        assert_eq!(prefetch.changed("a", 9).await, 16);
        dial.set("a", 0);
        assert_eq!(prefetch.changed("a", 16).await, 1);
        assert_eq!(Prefetch::fixed(u16::MAX).of("a"), MAX_PREFETCH);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_is_gone_changes_nothing() {
        let mut prefetch = Prefetch::fixed(7);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), prefetch.changed("a", 7)).await;
        assert!(waited.is_err());
    }
}
