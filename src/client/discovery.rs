//! Which models the workers serve, as they announce it: asked for once at the beginning, and heard ever after.
//!
//! A client refuses a job for a model that no worker announces. Where nobody announces anything it lets every job pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::directory::{Directory, RemoteModel, Standing};
use crate::broker::topology::Names;
use crate::broker::{Address, Consumer, Publisher};
use crate::envelope::{ProducerKeys, UnixSeconds};
use crate::limits::DISCOVERY_FRESH;
use crate::protocol::announcement::Announcement;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::properties::{HEADER_TENANT, HeaderValue, Message, Properties, TYPE_QUERY};

/// Hears announcements, and asks for them.
#[derive(Debug)]
pub struct Discovery<P> {
    publisher: P,
    query: Address,
    tenant: String,
    wait: Duration,
    shared: Arc<Shared>,
    /// Rung whenever a word was heard.
    heard: watch::Receiver<()>,
    /// Held by whoever asks: others wait for the same answers.
    asking: tokio::sync::Mutex<Asked>,
    stop: oneshot::Sender<()>,
    reader: JoinHandle<()>,
}

/// Where announcements come from.
#[derive(Debug, Clone)]
pub struct DiscoverySource {
    /// How exchanges are called.
    pub names: Names,
    /// The service whose workers are believed (`iss`).
    pub audience: String,
    /// How long answers are waited for.
    pub wait: Duration,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Directory>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Nobody has asked yet.
    Never,
    /// Workers answered what was asked then, as far as they did.
    At(Instant),
    /// Nobody answered: nobody is waited for again.
    InVain,
}

/// A queue's name for the announcements that the tenant of `keys` hears.
#[must_use]
pub fn announcement_queue_name(keys: &ProducerKeys) -> String {
    format!("{}models.{}", keys.reply_prefix(), Uuid::new_v4().simple())
}

impl<P: Publisher> Discovery<P> {
    /// Hears what `announcements` hand out for the tenant of `keys`, and asks through `publisher`.
    pub fn start<C: Consumer>(source: DiscoverySource, keys: ProducerKeys, publisher: P, announcements: C) -> Self {
        let shared = Arc::new(Shared::default());
        let (ring, heard) = watch::channel(());
        let (stop, stopped) = oneshot::channel();
        let tenant = keys.tenant().to_owned();
        let ears = Ears { keys, issuer: source.audience, shared: Arc::clone(&shared), ring };
        let reader = tokio::spawn(ears.listen(announcements, stopped));
        let asking = tokio::sync::Mutex::new(Asked::Never);
        Self { publisher, query: source.names.query(), tenant, wait: source.wait, shared, heard, asking, stop, reader }
    }

    /// Stops hearing.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.reader.await {
            tracing::error!(%error, "the task that hears announcements panicked");
        }
    }

    /// Asks, waits for the answers, and tells what was heard.
    pub async fn list(&self) -> Vec<RemoteModel> {
        let mut asked = self.asking.lock().await;
        let until = Instant::now() + self.wait;
        self.ask().await;
        *asked = Asked::At(Instant::now());
        tokio::time::sleep_until(until).await;
        self.shared.lock().list(Instant::now())
    }

    /// Whether jobs for `model` may be sent. What is known to be served passes at once; else the workers are asked, and
    /// answers are awaited.
    ///
    /// # Errors
    /// Why not: what there is instead.
    pub(super) async fn check(&self, model: &ModelRef) -> Result<(), String> {
        match self.standing(model) {
            Standing::Served | Standing::Away => return Ok(()),
            Standing::Untold | Standing::Unknown(_) => {}
        }
        let mut asked = self.asking.lock().await;
        let ask = match *asked {
            Asked::Never => true,
            Asked::At(then) => then.elapsed() >= DISCOVERY_FRESH,
            Asked::InVain => false,
        };
        if ask {
            *asked = self.ask_for(model).await;
        }
        drop(asked);
        match self.standing(model) {
            Standing::Unknown(words) => Err(words),
            Standing::Served | Standing::Away => Ok(()),
            Standing::Untold => {
                tracing::debug!(%model, "no worker has said which models there are; the job is sent all the same");
                Ok(())
            }
        }
    }

    fn standing(&self, model: &ModelRef) -> Standing {
        self.shared.lock().standing(model, Instant::now())
    }

    /// Asks, and waits until `model` is known to be served, or long enough.
    async fn ask_for(&self, model: &ModelRef) -> Asked {
        let mut heard = self.heard.clone();
        heard.mark_unchanged();
        let until = Instant::now() + self.wait;
        let mut answered = false;
        self.ask().await;
        while self.standing(model) != Standing::Served {
            match timeout_at(until, heard.changed()).await {
                Ok(Ok(())) => answered = true,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        if answered || self.standing(model) != Standing::Untold { Asked::At(Instant::now()) } else { Asked::InVain }
    }

    /// Publishes a query. It says nothing but whom to answer, and what it leads to is sealed.
    async fn ask(&self) {
        let tenant = HeaderValue::Text(self.tenant.clone());
        let properties = Properties {
            message_id: Some(Uuid::now_v7().to_string()),
            kind: Some(TYPE_QUERY.to_owned()),
            app_id: Some(concat!("inferq/", env!("CARGO_PKG_VERSION")).to_owned()),
            headers: [(HEADER_TENANT.to_owned(), tenant)].into(),
            ..Properties::default()
        };
        let message = Message { body: bytes::Bytes::new(), properties };
        if let Err(error) = self.publisher.publish(&self.query, message).await {
            tracing::debug!(%error, "no worker could be asked which models there are");
        }
    }
}

/// What the task that hears announcements has.
struct Ears {
    keys: ProducerKeys,
    issuer: String,
    shared: Arc<Shared>,
    ring: watch::Sender<()>,
}

impl Ears {
    /// Hears until the consumer ends, or the other end of `stopped` goes.
    async fn listen<C: Consumer>(self, mut announcements: C, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                delivery = announcements.next() => {
                    let Some(delivery) = delivery else { break };
                    let (message, receipt) = delivery.split();
                    receipt.taken();
                    self.hear(&message);
                }
            }
        }
        announcements.stop().await;
        announcements.close().await;
    }

    fn hear(&self, message: &Message) {
        let opened = match self.keys.open_announcement(&self.issuer, message, UnixSeconds::now()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "an announcement that is not authentic was dropped");
                return;
            }
        };
        let Some(said) = Announcement::decode(&opened.plaintext) else {
            tracing::debug!("an announcement that cannot be read was dropped");
            return;
        };
        if self.shared.lock().hear(said, opened.lifetime, Instant::now()) {
            self.ring.send_replace(());
        }
    }
}
