//! Whether the worker takes jobs, and if not, why.
//!
//! The worker holds the [`ReadinessSetter`], `http` and whoever wants to wait for readiness a [`Readiness`]. Ready means
//! consuming: a worker that is connected but gets no deliveries is not ready.

use tokio::sync::watch;

/// Whether jobs are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Jobs are consumed.
    Ready,
    /// They are not; in a few words, why not: `connecting to the broker for 12 s: connection refused`.
    NotReady(String),
    /// The worker was asked to stop and finishes what it has begun.
    Draining,
    /// The process has to be replaced; in a few words, why.
    Dead(String),
}

impl State {
    /// Whether jobs are consumed.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        match self {
            Self::Ready => true,
            Self::NotReady(_) | Self::Draining | Self::Dead(_) => false,
        }
    }

    /// Whether the process can still be of use.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        match self {
            Self::Ready | Self::NotReady(_) | Self::Draining => true,
            Self::Dead(_) => false,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => formatter.write_str("ready"),
            Self::NotReady(reason) => write!(formatter, "not ready: {reason}"),
            Self::Draining => formatter.write_str("not ready: draining"),
            Self::Dead(reason) => write!(formatter, "dead: {reason}"),
        }
    }
}

/// Tells whether jobs are taken. Owned by the worker.
#[derive(Debug)]
pub struct ReadinessSetter(watch::Sender<State>);

impl ReadinessSetter {
    /// From now on it is `state`. A worker that drains never becomes ready again, nor one that is dead.
    pub fn set(&self, state: State) {
        self.0.send_if_modified(|current| {
            let is_over = matches!(current, State::Draining | State::Dead(_));
            let changes = *current != state && !is_over;
            if changes {
                *current = state;
            }
            changes
        });
    }
}

/// Knows whether jobs are taken.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Receiver<State>);

impl Readiness {
    /// The two ends; not ready for `reason` at first.
    #[must_use]
    pub fn channel(reason: &str) -> (ReadinessSetter, Self) {
        let (sender, receiver) = watch::channel(State::NotReady(reason.to_owned()));
        (ReadinessSetter(sender), Self(receiver))
    }

    /// How it is now. A worker that is gone is not ready.
    #[must_use]
    pub fn state(&self) -> State {
        if self.0.has_changed().is_err() {
            return State::NotReady("the worker has ended".to_owned());
        }
        self.0.borrow().clone()
    }

    /// Waits until jobs are taken. Returns false where that cannot come any more. Cancel safe.
    pub async fn wait_until_ready(&mut self) -> bool {
        self.0.wait_for(State::is_ready).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_final() {
        let (setter, readiness) = Readiness::channel("starting");
        assert_eq!(readiness.state().to_string(), "not ready: starting");
        setter.set(State::Ready);
        assert!(readiness.state().is_ready());
        setter.set(State::Draining);
        setter.set(State::Ready);
        assert_eq!(readiness.state(), State::Draining);
    }

    #[test]
    fn a_worker_that_has_to_be_replaced_is_neither_ready_nor_alive_again() {
        let (setter, readiness) = Readiness::channel("starting");
        assert!(readiness.state().is_alive());
        setter.set(State::Dead("a run does not end".to_owned()));
        setter.set(State::Ready);
        assert!(!readiness.state().is_alive() && !readiness.state().is_ready());
        assert_eq!(readiness.state().to_string(), "dead: a run does not end");
    }

    #[test]
    fn a_worker_that_is_gone_is_not_ready() {
        let (setter, readiness) = Readiness::channel("starting");
        setter.set(State::Ready);
        drop(setter);
        assert!(!readiness.state().is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_with_readiness_or_with_the_worker() {
        let (setter, mut readiness) = Readiness::channel("starting");
        let mut other = readiness.clone();
        let waiting = tokio::spawn(async move { readiness.wait_until_ready().await });
        setter.set(State::Ready);
        assert!(waiting.await.unwrap());
        setter.set(State::NotReady("connection lost".to_owned()));
        drop(setter);
        assert!(!other.wait_until_ready().await);
    }
}
