//! The producer's side: seal a job, publish it confirmed, and wait for the reply that proves to be its own.
//!
//! The library's public face for programs that publish jobs. Works over either broker; [`connect`] gives one over
//! RabbitMQ, with a pool of publishing channels, for as many tasks as like to share it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use inferq::client::{Job, connect};
//! use inferq::envelope::ProducerKeys;
//! use inferq::protocol::response::ResponseBody;
//! use inferq::settings::{LoadOptions, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (settings, _) = Settings::load(&LoadOptions::default())?;
//! let keys = ProducerKeys::load(&settings.keys.directory, "acme")?;
//! let client = connect(&settings, keys).await?;
//! let job = Job::texts("topic".parse()?, &["the goalie stopped every shot"]);
//! match client.predict(&job, Duration::from_secs(10)).await? {
//!     ResponseBody::Result(response) => println!("{:?}", response.outputs),
//!     ResponseBody::Error(error) => eprintln!("{}: {}", error.code, error.error),
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::broker::{Address, Consumer, PublishError, Publisher};
use crate::envelope::{ProducerKeys, RequestDraft, SealError, UnixSeconds};
use crate::protocol::model_ref::ModelRef;
use crate::protocol::properties::{HEADER_DEADLINE_MS, HeaderValue};
use crate::protocol::response::ResponseBody;

mod connect;
mod directory;
mod discovery;
mod job;
mod nearest;
mod pending;
mod prediction;
mod receive;
mod window;

pub use connect::{connect, discover, reply_queue_name};
pub use directory::{RemoteModel, RemoteVersion};
pub use discovery::{Discovery, DiscoverySource, announcement_queue_name};
pub use job::Job;
use pending::PendingReplies;
pub use prediction::Prediction;
use receive::Receiver;
pub use window::{Finished, Window};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The service that jobs are meant for (`aud`).
    pub audience: String,
    /// The exchange that jobs are published to.
    pub jobs_exchange: String,
    /// The queue that replies come to; carries the tenant's prefix.
    pub reply_queue: String,
    /// How long a sealed job stays valid (`exp - iat`); what is not begun by then is not run any more.
    pub lifetime: Duration,
    /// Jobs that may wait for their reply at once.
    pub max_pending: usize,
}

/// Why a job got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The job was not confirmed by the broker.
    #[error("the job was not accepted: {0}")]
    NotPublished(#[from] PublishError),
    /// No reply in time. The job may still be run.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// More jobs wait than the client allows.
    #[error("{capacity} jobs wait for their reply already; read replies, or raise max_pending")]
    TooManyPending {
        /// The bound.
        capacity: usize,
    },
    /// Workers announce their models, and this is none of them.
    #[error("{0}")]
    UnknownModel(String),
    /// The job could not be sealed.
    #[error("the job could not be sealed: {0}")]
    Sealing(String),
    /// The reply was authentic, but is no reply of this protocol.
    #[error("the reply cannot be read: {0}")]
    MalformedReply(String),
    /// The client was closed while the job waited.
    #[error("the client was closed before the reply came")]
    Closed,
}

impl ClientError {
    /// One word for counting.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotPublished(_) => "not_published",
            Self::TimedOut(_) => "timed_out",
            Self::TooManyPending { .. } => "too_many_pending",
            Self::UnknownModel(_) => "unknown_model",
            Self::Sealing(_) => "not_sealed",
            Self::MalformedReply(_) => "malformed_reply",
            Self::Closed => "closed",
        }
    }
}

impl From<SealError> for ClientError {
    fn from(error: SealError) -> Self {
        Self::Sealing(error.to_string())
    }
}

/// A job that the broker has confirmed, and whose reply can be awaited.
#[derive(Debug)]
pub struct Submitted {
    message_id: String,
    answer: tokio::sync::oneshot::Receiver<pending::Answer>,
    pending: Arc<PendingReplies>,
}

impl Submitted {
    /// The job's id: in the worker's logs, and on a dead letter.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Waits for the reply, `limit` at most. A result and an error that the service answers are both replies.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`], [`ClientError::MalformedReply`] or [`ClientError::Closed`].
    pub async fn reply(self, limit: Duration) -> Result<ResponseBody, ClientError> {
        match timeout(limit, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => {
                self.pending.forget(&self.message_id);
                Err(ClientError::TimedOut(limit))
            }
        }
    }
}

/// Publishes jobs and collects their replies. Share it by reference among as many tasks as like.
#[derive(Debug)]
pub struct Client<P> {
    settings: ClientSettings,
    keys: ProducerKeys,
    publisher: P,
    pending: Arc<PendingReplies>,
    receiver: Receiver,
    discovery: Option<Discovery<P>>,
}

impl<P: Publisher> Client<P> {
    /// A client that publishes through `publisher` and reads `replies`, a consumer of `settings.reply_queue`.
    pub fn new<C: Consumer>(settings: ClientSettings, keys: ProducerKeys, publisher: P, replies: C) -> Self {
        let pending = Arc::new(PendingReplies::new(settings.max_pending));
        let receiver = Receiver::start(replies, keys.clone(), Arc::clone(&pending));
        Self { settings, keys, publisher, pending, receiver, discovery: None }
    }

    /// The same, refusing jobs for models that no worker serves, as far as `discovery` knows.
    #[must_use]
    pub fn with_discovery(self, discovery: Discovery<P>) -> Self {
        Self { discovery: Some(discovery), ..self }
    }

    /// The models that workers say they serve; none where nobody says anything, or this client does not ask.
    pub async fn models(&self) -> Vec<RemoteModel> {
        match &self.discovery {
            Some(discovery) => discovery.list().await,
            None => Vec::new(),
        }
    }

    /// Whether jobs for `model` may be sent, as far as is known. [`Client::submit`] asks the same for every job.
    ///
    /// # Errors
    /// [`ClientError::UnknownModel`], with the names that exist.
    pub async fn check_model(&self, model: &ModelRef) -> Result<(), ClientError> {
        match &self.discovery {
            Some(discovery) => discovery.check(model).await.map_err(ClientError::UnknownModel),
            None => Ok(()),
        }
    }

    /// Stops reading replies and gives the publisher back. Jobs that still wait are told [`ClientError::Closed`].
    pub async fn stop(self) -> P {
        self.receiver.stop().await;
        self.pending.close();
        if let Some(discovery) = self.discovery {
            discovery.stop().await;
        }
        self.publisher
    }

    /// Seals `job`, publishes it, and resolves once the broker has confirmed it.
    ///
    /// # Errors
    /// [`ClientError::UnknownModel`] when workers announce others; [`ClientError::NotPublished`] when no queue serves the model, or the broker refuses or does not answer;
    /// [`ClientError::TooManyPending`]; [`ClientError::Sealing`].
    pub async fn submit(&self, job: &Job) -> Result<Submitted, ClientError> {
        self.check_model(&job.model).await?;
        let ClientSettings { reply_queue, audience, lifetime, .. } = &self.settings;
        let draft = RequestDraft::new(job.model.clone(), reply_queue, audience, *lifetime);
        let message_id = draft.message_id.clone();
        let body = job.request.encode().map_err(|error| ClientError::Sealing(error.message))?;
        let (mut message, expected) = self.keys.seal_request(&draft, &body, UnixSeconds::now())?;
        if let Some(deadline) = job.deadline {
            let deadline = HeaderValue::Integer(unix_milliseconds_in(deadline));
            message.properties.headers.insert(HEADER_DEADLINE_MS.to_owned(), deadline);
        }
        let address = Address::new(&self.settings.jobs_exchange, &job.model.name);
        let answer = self.pending.enter(expected)?;
        match self.publisher.publish(&address, message).await {
            Ok(_confirmed) => Ok(Submitted { message_id, answer, pending: Arc::clone(&self.pending) }),
            Err(error) => {
                self.pending.forget(&message_id);
                Err(error.into())
            }
        }
    }

    /// Submits `job` and waits for its reply, `limit` at most.
    ///
    /// # Errors
    /// See [`Client::submit`] and [`Submitted::reply`].
    pub async fn predict(&self, job: &Job, limit: Duration) -> Result<ResponseBody, ClientError> {
        self.submit(job).await?.reply(limit).await
    }
}

/// The moment after `span`, in milliseconds since the epoch; the last there is for a span that reaches beyond it.
fn unix_milliseconds_in(span: Duration) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(span).as_millis()).unwrap_or(i64::MAX)
}
