//! Jobs that workers have died with: set apart, so that an input that ends processes takes no other job along.
//!
//! When a process dies, everything that it held is delivered again and counts one delivery more, guilty or not. A job with
//! several unsettled deliveries is therefore moved to a queue of suspects, where each consumer holds one job at a time and
//! counting begins anew: there, only what is held when a process dies counts a delivery more. The innocent are answered
//! from it; what has ended several workers even so is a dead letter, long before the broker's own limit.
//!
//! A lost connection counts a delivery, too. Where this process has outlived one lately, that explains it, and nobody is
//! suspected.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::process::Circumstances;
use crate::limits::{SURVIVED_LOSS, SUSPECT_CRASHES, SUSPECT_DELIVERIES};

/// What is to be thought of a job before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may run.
    Clear,
    /// It belongs into the queue of suspects.
    Suspect,
    /// It has ended workers even there.
    Guilty,
}

/// What a process remembers in order to suspect nobody without reason.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    last_loss: Mutex<Option<Instant>>,
}

impl Suspicion {
    /// A session was lost, and this process lives on.
    pub(super) fn outlived_a_loss(&self) {
        *self.last_loss.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// What is to be thought of a job that came under these circumstances.
    pub(super) fn standing(&self, circumstances: &Circumstances) -> Standing {
        let lost = *self.last_loss.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_some_and(|at| at.elapsed() < SURVIVED_LOSS) {
            return Standing::Clear;
        }
        let count = circumstances.delivery_count;
        match circumstances.suspected {
            true if count >= SUSPECT_CRASHES => Standing::Guilty,
            false if count >= SUSPECT_DELIVERIES => Standing::Suspect,
            true | false => Standing::Clear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::pool::JobClass;

    fn standing(suspicion: &Suspicion, suspected: bool, delivery_count: u32) -> Standing {
        let redelivered = delivery_count > 0;
        suspicion.standing(&Circumstances { redelivered, class: JobClass::Normal, delivery_count, suspected })
    }

    #[tokio::test]
    async fn it_takes_two_deaths_to_be_suspected_and_three_more_to_be_guilty() {
        let suspicion = Suspicion::default();
        let of = |suspected| (0..5).map(|count| standing(&suspicion, suspected, count)).collect::<Vec<_>>();
        use Standing::{Clear, Guilty, Suspect};
        assert_eq!(of(false), [Clear, Clear, Suspect, Suspect, Suspect]);
        assert_eq!(of(true), [Clear, Clear, Clear, Guilty, Guilty]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_session_that_the_process_outlives_is_nobodys_fault() {
        let suspicion = Suspicion::default();
        suspicion.outlived_a_loss();
        assert_eq!(standing(&suspicion, false, 5), Standing::Clear);
        assert_eq!(standing(&suspicion, true, 5), Standing::Clear);
        tokio::time::advance(SURVIVED_LOSS).await;
        assert_eq!(standing(&suspicion, false, 5), Standing::Suspect);
    }
}
