//! Opens and closes one connection, with a limit on how long that may take.

use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::time::timeout;

use super::uri::{BrokerUri, UriError};

/// Why there is no connection, or no topology.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error(transparent)]
    Uri(#[from] UriError),
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
    /// The connection broke while it was being set up.
    #[error("the broker closed the connection: {0}")]
    Broken(#[from] lapin::Error),
}

impl ConnectError {
    /// Whether trying again is pointless until somebody changes something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Uri(_) | Self::Declare { .. } => true,
            // A password or virtual host is set right at the broker as often as here.
            Self::NoAnswer { .. } | Self::Refused { .. } | Self::Silent { .. } | Self::Broken(_) => false,
        }
    }
}

/// Connects to `uri` within `limit`.
pub(super) async fn connect(uri: &BrokerUri, name: &str, limit: Duration) -> Result<Connection, ConnectError> {
    // No recovery of lapin's own: after a channel-level close it leaves consumers that wait for ever.
    let properties = ConnectionProperties::default().with_connection_name(name.to_owned().into());
    let no_answer = |reason: String| ConnectError::NoAnswer { uri: uri.to_string(), reason };
    match timeout(limit, Connection::connect_uri(uri.to_lapin(), properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ProtocolError(fault) => {
                ConnectError::Refused { uri: uri.to_string(), reason: fault.get_message().to_string() }
            }
            _ => no_answer(error.to_string()),
        }),
        Err(_) => Err(no_answer(format!("no answer within {limit:?}"))),
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

/// Closes `connection`: what was written before has reached the broker when this returns.
pub(super) async fn close(connection: &Connection) {
    match timeout(CLOSE_LIMIT, connection.close(SUCCESS, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection was closed already"),
        Err(_) => tracing::warn!("a connection did not close within {CLOSE_LIMIT:?}"),
    }
}
