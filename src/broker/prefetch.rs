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
    /// Whether it is 1 for now, whatever the dial says.
    one_by_one: watch::Receiver<bool>,
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
        (PrefetchDial(dial), Self { setting, most, one_by_one: watch::channel(false).1 })
    }

    /// The same, but 1 for as long as the sender says so.
    pub(super) fn or_one_by_one(self) -> (watch::Sender<bool>, Self) {
        let (sender, one_by_one) = watch::channel(false);
        (sender, Self { one_by_one, ..self })
    }

    /// What it can never be more than.
    #[must_use]
    pub const fn most(&self) -> u16 {
        self.most
    }

    /// What holds for `queue` now: at least 1.
    #[must_use]
    pub fn of(&self, queue: &str) -> u16 {
        if *self.one_by_one.borrow() {
            return 1;
        }
        let setting = self.setting.borrow();
        setting.of_queue.get(queue).copied().unwrap_or(setting.otherwise).clamp(1, self.most)
    }

    /// Resolves, with what holds then, once that is not `now` any more. Cancel safe.
    pub(super) async fn changed(&mut self, queue: &str, now: u16) -> u16 {
        loop {
            // Marked as seen before it is looked at, so that no turn in between is missed.
            self.setting.mark_unchanged();
            self.one_by_one.mark_unchanged();
            let holds = self.of(queue);
            if holds != now {
                return holds;
            }
            tokio::select! {
                () = turned(&mut self.setting) => {}
                () = turned(&mut self.one_by_one) => {}
            }
        }
    }
}

/// Resolves at the next turn; never, where nobody turns it any more.
async fn turned<T>(dial: &mut watch::Receiver<T>) {
    if dial.changed().await.is_err() {
        std::future::pending::<()>().await;
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

    #[tokio::test]
    async fn one_by_one_goes_before_the_dial_and_passes() {
        let (dial, prefetch) = Prefetch::turned(4, 16);
        let (one_by_one, mut prefetch) = prefetch.or_one_by_one();
        assert_eq!(prefetch.of("a"), 4);
        one_by_one.send_replace(true);
        assert_eq!(prefetch.changed("a", 4).await, 1);
        dial.set("a", 9);
        assert_eq!(prefetch.of("a"), 1);
        one_by_one.send_replace(false);
        assert_eq!(prefetch.changed("a", 1).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_is_gone_changes_nothing() {
        let mut prefetch = Prefetch::fixed(7);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), prefetch.changed("a", 7)).await;
        assert!(waited.is_err());
    }
}
