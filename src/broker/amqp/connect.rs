//! Opens and closes one connection, with a limit on how long that may take.

use std::io;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::time::timeout;

use super::connected::Connected;
use super::dial::Attempt;
use super::endpoint::{Endpoint, EndpointError};
use super::tls;

/// Why there is no connection, or no topology.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings name no broker that may be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody answers, or not in time.
    #[error("no broker answers at {uri}: {reason}")]
    NoAnswer {
        /// Where, without the password.
        uri: String,
        /// What the system or the clock says.
        reason: String,
    },
    /// Somebody answers, and does not let this user in or does not know the virtual host.
    #[error("the broker at {uri} refused the connection: {reason}")]
    Refused {
        /// Where, without the password.
        uri: String,
        /// The broker's words.
        reason: String,
    },
    /// Somebody answers, and one side does not trust the other's certificate.
    #[error("no TLS with the broker at {uri}: {reason}")]
    Untrusted {
        /// Where, without the password.
        uri: String,
        /// What the TLS library says.
        reason: String,
    },
    /// The broker let us in, and then did not answer in time.
    #[error("the broker did not answer within {limit:?}: {what}")]
    Silent {
        /// What was asked.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// An exchange or queue exists with other arguments, or may not be declared.
    #[error("{what} cannot be declared: {reason}")]
    Declare {
        /// Which exchange, queue or binding.
        what: String,
        /// The broker's words; they name the argument that differs.
        reason: String,
    },
    /// This user may not read a queue.
    #[error("queue `{queue}` may not be read by the user of `broker.url`: {reason}")]
    Unreadable {
        /// The queue.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// A queue is there, and nothing is handed out of it.
    #[error("no letter can be taken out of queue `{queue}`: {reason}")]
    NotTaken {
        /// The queue.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// The connection broke while it was being set up.
    #[error("the broker closed the connection: {0}")]
    Broken(#[from] lapin::Error),
}

impl ConnectError {
    /// Whether the broker knows what is asked for and does not allow it.
    pub(super) fn is_forbidden(&self) -> bool {
        match self {
            Self::Declare { reason, .. } => is_access_refused(reason),
            Self::Unreadable { .. } => true,
            Self::Endpoint(_)
            | Self::NoAnswer { .. }
            | Self::Refused { .. }
            | Self::Untrusted { .. }
            | Self::Silent { .. }
            | Self::NotTaken { .. }
            | Self::Broken(_) => false,
        }
    }

    /// Whether trying again is pointless until somebody changes something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::Declare { .. } | Self::Unreadable { .. } => true,
            // A password, virtual host or certificate is set right at the broker as often as here.
            Self::NoAnswer { .. }
            | Self::Refused { .. }
            | Self::Untrusted { .. }
            | Self::Silent { .. }
            | Self::NotTaken { .. }
            | Self::Broken(_) => false,
        }
    }
}

/// Whether `reason`, in the broker's words, is that the user may not do it.
pub(super) fn is_access_refused(reason: &str) -> bool {
    reason.starts_with("ACCESS_REFUSED")
}

/// Connects to `endpoint` within `limit`.
pub(super) async fn connect(endpoint: &Endpoint, name: &str, limit: Duration) -> Result<Connected, ConnectError> {
    // No recovery of lapin's own: after a channel-level close it leaves consumers that wait for ever.
    let properties = ConnectionProperties::default().with_connection_name(name.to_owned().into());
    let uri = || endpoint.to_string();
    let certificates = certificates(endpoint).await?;
    // Dropped where nobody answers in time, and where nobody waits for the answer any more.
    let attempt = Attempt::new();
    let answer = timeout(limit, attempt.connect(endpoint.uri().to_lapin(), properties, certificates)).await;
    if answer.is_ok() {
        attempt.answered();
    }
    match answer {
        Ok(Ok(connection)) => Ok(Connected::new(connection)),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ProtocolError(fault) => {
                ConnectError::Refused { uri: uri(), reason: fault.get_message().to_string() }
            }
            // What the other side says in TLS, as the connector hands it on.
            ErrorKind::IOError(fault) if endpoint.uri().is_tls() && fault.kind() == io::ErrorKind::InvalidData => {
                ConnectError::Untrusted { uri: uri(), reason: fault.to_string() }
            }
            _ => ConnectError::NoAnswer { uri: uri(), reason: error.to_string() },
        }),
        Err(_) => Err(ConnectError::NoAnswer { uri: uri(), reason: format!("no answer within {limit:?}") }),
    }
}

/// The certificates of `endpoint`, as its files hold them now; none where it does without TLS.
async fn certificates(endpoint: &Endpoint) -> Result<OwnedTLSConfig, ConnectError> {
    if !endpoint.uri().is_tls() {
        return Ok(OwnedTLSConfig::default());
    }
    let settings = endpoint.tls().clone();
    // The system's authorities are many files.
    let read = tokio::task::spawn_blocking(move || tls::read(&settings)).await;
    match read {
        Ok(Ok(certificates)) => Ok(certificates),
        Ok(Err(error)) => Err(EndpointError::from(error).into()),
        Err(fault) => Err(ConnectError::NoAnswer { uri: endpoint.to_string(), reason: fault.to_string() }),
    }
}

/// Waits for the broker's answer to `request`, `limit` at most; `what` says what was asked for.
///
/// A request that the broker refuses costs its channel, and the words name the reason, such as the argument that differs.
/// What costs the connection is no fault of the request.
pub(super) async fn answered<T>(
    limit: Duration,
    what: impl FnOnce() -> String,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, ConnectError> {
    match timeout(limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ProtocolError(fault) if error.is_amqp_soft_error() => {
                ConnectError::Declare { what: what(), reason: fault.get_message().to_string() }
            }
            _ => ConnectError::Broken(error),
        }),
        Err(_) => Err(ConnectError::Silent { what: what(), limit }),
    }
}

/// AMQP's reply code for an orderly end.
const SUCCESS: u16 = 200;
/// How long a channel or connection may take to say goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Closes `channel`: the broker has seen all that was sent on it when this returns.
///
/// A channel that lapin closes by itself, when its last handle is dropped, can meet the closing of its connection and
/// turn that into an error, which drops what was not written yet. So every channel is closed before its connection.
pub(super) async fn close_channel(channel: &Channel) {
    if !channel.status().connected() {
        return;
    }
    match timeout(CLOSE_LIMIT, channel.close(SUCCESS, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a channel was closed already"),
        Err(_) => tracing::warn!("a channel did not close within {CLOSE_LIMIT:?}"),
    }
}

/// Closes `connection`, for [`Connected`], which every connection is.
pub(super) async fn goodbye(connection: &Connection) {
    match timeout(CLOSE_LIMIT, connection.close(SUCCESS, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection was closed already"),
        Err(_) => tracing::warn!("a connection did not close within {CLOSE_LIMIT:?}"),
    }
}
