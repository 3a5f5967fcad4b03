//! Keeps a session with the broker alive: connect, run until something breaks, back off, again; for ever.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::publisher::Requests;
use super::session::Session;
use super::{Config, Connectivity};
use crate::broker::Delivery;

/// What the consumer's owner asks of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Consume.
    Running,
    /// Consume no more; settlements and publishes go on.
    Stopping,
    /// Send what is left and close.
    Closing,
}

/// Resolves once the owner asks for `phase` or a later one, or is gone without asking.
pub(super) async fn reached(phases: &mut watch::Receiver<Phase>, phase: Phase) {
    // The guard must not live on: it is a lock.
    let reached = phases.wait_for(|now| *now >= phase).await;
    drop(reached);
}

/// What publishing takes beside a connection.
#[derive(Debug, Clone)]
pub(super) struct Publishing {
    pub(super) requests: Requests,
    /// Whether the broker takes no publishes for now: an alarm of its memory or disk.
    pub(super) blocked: watch::Sender<bool>,
}

/// The ends of the channels that outlive a session.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) deliveries: mpsc::Sender<Delivery>,
    /// `None` for a session that only consumes.
    pub(super) publishing: Option<Publishing>,
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) connectivity: watch::Sender<Connectivity>,
}

/// How long a session must have lasted for the next pause to be a short one again, and for what broke the last one to be gone.
const SETTLED_SESSION: Duration = Duration::from_secs(1);

/// In lapin's words for a session that broke on a frame that one side could not take.
const FRAME_ERROR: &str = "FRAME-ERROR";

/// Runs sessions until asked to close.
pub(super) async fn supervise(mut config: Config, mut links: Links) {
    // A delivery that lapin cannot read ends the session before anyone sees it, and comes again until the broker gives it up.
    // What is delivered beside it is counted with it: after a session that broke so, nothing is.
    let (one_by_one, prefetch) = config.prefetch.or_one_by_one();
    config.prefetch = prefetch;
    let mut failures = 0;
    let mut attempt = 0;
    while *links.phases.borrow() == Phase::Running {
        let reason = match Session::open(&config, &links).await {
            Ok(session) => {
                tracing::info!(broker = %config.endpoint, queues = config.queues.count(), "consuming");
                links.connectivity.send_replace(Connectivity::Consuming);
                let began = Instant::now();
                let settled = async {
                    sleep(SETTLED_SESSION).await;
                    one_by_one.send_replace(false);
                    std::future::pending().await
                };
                let ended = tokio::select! {
                    ended = session.run(&mut links) => ended,
                    never = settled => never,
                };
                if let Some(publishing) = &links.publishing {
                    // Who blocked is gone; whoever waits for it waits as long as for any other publish.
                    publishing.blocked.send_replace(false);
                }
                // What ends a session at once may end the next one as well; but the broker answers, so the pause stays short.
                attempt = if began.elapsed() >= SETTLED_SESSION { 0 } else { attempt.min(1) };
                match ended {
                    Ok(()) => break,
                    Err(reason) => reason,
                }
            }
            Err(error) => error.to_string(),
        };
        if reason.contains(FRAME_ERROR) {
            one_by_one.send_replace(true);
        }
        failures += 1;
        links.connectivity.send_replace(Connectivity::Connecting { reason: reason.clone(), failures });
        let pause = backoff(attempt, config.backoff_min, config.backoff_max);
        attempt += 1;
        tracing::warn!(broker = %config.endpoint, reason, pause_ms = pause.as_millis(), "not consuming, trying again");
        // A request to stop ends the pause.
        let _either = timeout(pause, reached(&mut links.phases, Phase::Stopping)).await;
    }
    links.connectivity.send_replace(Connectivity::Stopped);
}

/// Full jitter: a uniform pause below an exponentially growing cap, so that a thousand workers do not come back at once.
/// (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.)
fn backoff(attempt: u32, min: Duration, max: Duration) -> Duration {
    let cap = min.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
    let mut random = [0; 8];
    // Without randomness the whole cap is waited: slower, never wrong.
    let share = match getrandom::fill(&mut random) {
        Ok(()) => u64::from_le_bytes(random) % 1_000,
        Err(_) => 1_000,
    };
    let jittered = cap.mul_f64(f64::from(u32::try_from(share).unwrap_or(1_000)) / 1_000.0);
    jittered.max(min / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(15));
        for attempt in 0..100 {
            let pause = backoff(attempt, min, max);
            let cap = min.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
            assert!(pause >= min / 4 && pause <= cap.max(min / 4), "attempt {attempt}: {pause:?}");
        }
    }
}
