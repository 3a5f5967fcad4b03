//! Opens and closes one connection, with a limit on how long that may take.

use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties};
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
            Self::NoAnswer { .. } | Self::Broken(_) => false,
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
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer(format!("no answer within {limit:?}"))),
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
