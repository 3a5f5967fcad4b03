//! Where the broker is and how it may be spoken to: the URL, TLS, and the refusal to go without it beyond this machine.
//!
//! Made of the settings by everybody who connects, before anything is sent. What stands in files is read in `tls`.

use super::tls::{self, TlsError};
use super::uri::{BrokerUri, UriError};
use crate::settings::{BrokerSettings, TlsSettings};

/// Why the settings name no broker that may be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The URL is none.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The broker is on another machine, and TLS is not asked for.
    #[error(
        "{uri} is beyond this machine and without TLS: the password, and who sends how much to which model, could be read on the \
         way"
    )]
    Plaintext {
        /// Where, without the password.
        uri: String,
    },
    /// Certificates are set for a URL without TLS.
    #[error("`broker.{key}` is set, and {uri} does not use TLS")]
    Unused {
        /// The setting.
        key: &'static str,
        /// Where, without the password.
        uri: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl EndpointError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Uri(_) => "set broker.url, or INFERQ_AMQP_URL, to amqps://user:password@host:port/vhost",
            Self::Plaintext { .. } => {
                "use amqps:// (a private authority goes into broker.tls_ca_file), or set broker.allow_plaintext = true \
                 (INFERQ__BROKER__ALLOW_PLAINTEXT=true) where the network between is yours alone"
            }
            Self::Unused { .. } => "write amqps:// in broker.url (or INFERQ_AMQP_URL), or leave the certificates out",
            Self::Tls(error) => error.remedy(),
        }
    }
}

/// A broker that may be spoken to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    uri: BrokerUri,
    tls: TlsSettings,
}

impl Endpoint {
    /// The broker of `settings`; its files of certificates are read once, to tell early what is wrong with them.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn of(settings: &BrokerSettings) -> Result<Self, EndpointError> {
        let uri = BrokerUri::parse(&settings.url, settings.heartbeat)?;
        let endpoint = Self { uri, tls: settings.tls.clone() };
        if endpoint.uri.is_tls() {
            tls::read(&endpoint.tls)?;
            return Ok(endpoint);
        }
        let set = [("tls_ca_file", settings.tls.ca_file.is_some()), ("tls_key_file", settings.tls.identity.is_some())];
        if let Some((key, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
            return Err(EndpointError::Unused { key, uri: endpoint.to_string() });
        }
        if !settings.allow_plaintext && !endpoint.uri.is_loopback() {
            return Err(EndpointError::Plaintext { uri: endpoint.to_string() });
        }
        Ok(endpoint)
    }

    pub(super) fn uri(&self) -> &BrokerUri {
        &self.uri
    }

    pub(super) fn tls(&self) -> &TlsSettings {
        &self.tls
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(formatter)
    }
}
