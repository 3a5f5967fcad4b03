//! The key ring's renewal: read again when its files have changed, or when somebody asks for it.
//!
//! Started by `serve`. A ring that cannot be read is told of and changes nothing: the jobs go on with the one that
//! was read last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::envelope::{Fingerprint, KeyAccess, Keyring, KeyringError, LiveKeyring};
use crate::settings::KeySettings;
use crate::telemetry::labels::ReloadOutcome;
use crate::telemetry::metrics::Metrics;

/// Asks a worker to read its key ring at once.
#[derive(Debug, Clone, Default)]
pub struct KeyReload(Arc<Notify>);

impl KeyReload {
    /// Asks.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// The key ring that `settings` name.
pub(super) fn load(settings: &KeySettings) -> Result<Keyring, KeyringError> {
    let access = if settings.allow_group_read { KeyAccess::OwnerAndGroup } else { KeyAccess::Owner };
    Keyring::load_with(&settings.directory, access)
}

/// Keeps `keyring` like its files, until it is dropped.
pub async fn follow(settings: KeySettings, keyring: Arc<LiveKeyring>, metrics: Arc<Metrics>, reload: KeyReload) {
    let mut seen = look(&settings).await;
    let mut pauses = interval(settings.reload_interval.max(Duration::from_millis(1)));
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            () = reload.0.notified() => true,
            _ = pauses.tick() => false,
        };
        // Looked at before it is read: what changes meanwhile is read the next time.
        let now = look(&settings).await;
        if !is_asked && now == seen {
            continue;
        }
        seen = now;
        renew(&settings, &keyring, &metrics).await;
    }
}

/// What the folder looks like; `None` where it cannot be listed, which is never the same as before.
async fn look(settings: &KeySettings) -> Option<Fingerprint> {
    let directory = settings.directory.clone();
    tokio::task::spawn_blocking(move || Fingerprint::of(&directory).ok()).await.ok().flatten()
}

/// Reads the ring and puts it into use.
async fn renew(settings: &KeySettings, keyring: &LiveKeyring, metrics: &Metrics) {
    let wanted = settings.clone();
    let read = tokio::task::spawn_blocking(move || load(&wanted)).await;
    match read {
        Ok(Ok(ring)) => {
            tracing::info!(tenants = ring.tenants().count(), keys = ring.list().len(), "the key ring was read again");
            keyring.replace(ring);
            metrics.keyring_reloaded(ReloadOutcome::Renewed);
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the key ring cannot be read, the one that was read before stays in use");
            metrics.keyring_reloaded(ReloadOutcome::Refused);
        }
        Err(error) => {
            tracing::error!(%error, "reading the key ring panicked, the one that was read before stays in use");
            metrics.keyring_reloaded(ReloadOutcome::Refused);
        }
    }
}
