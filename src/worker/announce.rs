//! Says which models this worker serves: again and again, at once where they change or somebody asks, and at the end that it goes.
//!
//! Run by `serve` beside the jobs, on connections of its own, so that nothing that happens here can hold up a job. Each tenant
//! is told of the models of its grant alone, sealed with the key of its replies. A query proves nothing and says nothing but
//! which tenant is to be told; those that come together are answered together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::Parts;
use crate::broker::topology::Names;
use crate::broker::{Consumer, PublishError, Publisher};
use crate::envelope::{AnnouncementContext, Keyring, LiveKeyring, UnixSeconds};
use crate::limits::{GOODBYE_LIMIT, MAX_ANNOUNCEMENT_BYTES, QUERY_ANSWER_PAUSE};
use crate::model::ModelRepository;
use crate::protocol::announcement::{AnnouncedModel, Announcement};
use crate::protocol::properties::{HEADER_TENANT, Message};
use crate::seeded::Seeded;
use crate::settings::Settings;

/// Announcements that are published at a time.
const PUBLISHED_AT_ONCE: usize = 8;
/// Announcements that may be lost before a worker counts as gone.
const MISSED_INTERVALS: u32 = 3;
/// What an announcement holds beyond them, for whatever is slow.
const SPARE_LIFETIME: Duration = Duration::from_secs(5);

/// Announces the models of a worker.
#[derive(Debug)]
pub struct Announcer<P> {
    keyring: Arc<LiveKeyring>,
    models: Arc<ModelRepository>,
    changes: Arc<Notify>,
    publisher: P,
    names: Names,
    issuer: String,
    interval: Duration,
    instance: String,
    sequence: u64,
    jitter: Seeded,
}

/// Whether a worker is there, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Serving,
    Leaving,
}

impl<P: Publisher> Announcer<P> {
    /// Announces what `parts` serve through `publisher`, every `interval`.
    #[must_use]
    pub fn new(settings: &Settings, parts: &Parts, interval: Duration, publisher: P) -> Self {
        let instance = Uuid::new_v4();
        Self {
            keyring: Arc::clone(&parts.keyring),
            models: Arc::clone(&parts.models),
            changes: Arc::clone(&parts.changes),
            publisher,
            names: Names::new(&settings.broker.name_prefix),
            issuer: settings.service.audience.clone(),
            interval,
            instance: instance.simple().to_string(),
            sequence: 0,
            jitter: Seeded::new(instance.as_u64_pair().0),
        }
    }

    /// The queue of its queries.
    #[must_use]
    pub fn query_queue(&self) -> String {
        self.names.query_queue(&self.instance)
    }

    /// Announces until `stop` resolves, then says goodbye; gives the publisher back.
    pub async fn run<C: Consumer>(mut self, mut queries: C, stop: impl Future<Output = ()>) -> P {
        tokio::pin!(stop);
        let mut due = Instant::now();
        let mut asked = BTreeSet::new();
        let mut answer_at = due;
        loop {
            let changes = Arc::clone(&self.changes);
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = sleep_until(due) => {
                    self.announce(self.tenants(), Presence::Serving).await;
                    due = Instant::now() + self.pause();
                    asked.clear();
                }
                () = changes.notified() => due = Instant::now(),
                () = sleep_until(answer_at), if !asked.is_empty() => {
                    self.announce(std::mem::take(&mut asked), Presence::Serving).await;
                    answer_at = Instant::now() + QUERY_ANSWER_PAUSE;
                }
                query = queries.next() => {
                    let Some(query) = query else { break };
                    let (message, receipt) = query.split();
                    asked.extend(self.asking(&message));
                    receipt.taken();
                }
            }
        }
        if timeout(GOODBYE_LIMIT, self.announce(self.tenants(), Presence::Leaving)).await.is_err() {
            tracing::debug!("the goodbye took too long, the readers will notice by themselves");
        }
        queries.stop().await;
        queries.close().await;
        self.publisher
    }

    /// The interval, a fifth more or less, so that a thousand workers do not speak at the same time.
    fn pause(&mut self) -> Duration {
        let thousandths = u32::try_from(self.jitter.below(401)).unwrap_or(200).saturating_add(800);
        self.interval.saturating_mul(thousandths) / 1_000
    }

    fn tenants(&self) -> BTreeSet<String> {
        self.keyring.current().tenants().map(str::to_owned).collect()
    }

    /// The tenant that asks, where the key ring knows it.
    fn asking(&self, query: &Message) -> Option<String> {
        let tenant = query.properties.text_header(HEADER_TENANT)?;
        self.keyring.current().tenant(tenant).map(|tenant| tenant.name.clone())
    }

    /// Tells each of `tenants` of its models. What is not heard is said again.
    async fn announce(&mut self, tenants: BTreeSet<String>, presence: Presence) {
        self.sequence = self.sequence.saturating_add(1);
        let (ring, models) = (self.keyring.current(), self.models.announced());
        let (this, ring, models) = (&*self, &*ring, &*models);
        let told = stream::iter(tenants).map(|tenant| async move {
            let Some(message) = this.sealed(ring, &tenant, models, presence) else { return };
            match this.publisher.publish(&this.names.announcement(&tenant), message).await {
                // Nobody listens.
                Ok(_) | Err(PublishError::Returned { .. }) => {}
                Err(error) => tracing::debug!(%error, tenant, "an announcement was not published"),
            }
        });
        told.buffer_unordered(PUBLISHED_AT_ONCE).collect::<()>().await;
    }

    fn sealed(&self, ring: &Keyring, tenant: &str, models: &[AnnouncedModel], presence: Presence) -> Option<Message> {
        let granted = ring.tenant(tenant)?;
        let reached = |model: &&AnnouncedModel| presence == Presence::Serving && granted.may_use(&model.name);
        let announcement = Announcement {
            instance: self.instance.clone(),
            sequence: self.sequence,
            leaving: presence == Presence::Leaving,
            complete: true,
            models: models.iter().filter(reached).cloned().collect(),
        };
        let lifetime = self.interval.saturating_mul(MISSED_INTERVALS).saturating_add(SPARE_LIFETIME);
        let context = AnnouncementContext { tenant, issuer: &self.issuer, lifetime };
        let json = announcement.encode(MAX_ANNOUNCEMENT_BYTES).map_err(|error| error.to_string());
        let sealed = json.and_then(|json| {
            ring.seal_announcement(context, &json, UnixSeconds::now()).map_err(|error| error.to_string())
        });
        sealed.inspect_err(|error| tracing::warn!(error, tenant, "an announcement could not be sealed")).ok()
    }
}
