//! The broker's URL, and how it is shown: never with its password.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::{ExposeSecret as _, SecretString};

/// The text is no AMQP URL. It is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker.url is no AMQP URL ({0}); expected amqp://user:password@host:port/vhost")]
pub struct UriError(String);

/// A parsed AMQP URL. Shown and logged without its password.
#[derive(Clone)]
pub struct BrokerUri(AMQPUri);

impl BrokerUri {
    /// Reads `url`; the heartbeat is the settings', whatever the URL asks for.
    ///
    /// # Errors
    /// When it is no AMQP URL.
    pub fn parse(url: &SecretString, heartbeat: Duration) -> Result<Self, UriError> {
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(UriError)?;
        uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
        Ok(Self(uri))
    }

    pub(super) fn to_lapin(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for BrokerUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.0.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let authority = &self.0.authority;
        let user = &authority.userinfo.username;
        write!(formatter, "{scheme}://{user}@{}:{}", authority.host, authority.port)?;
        if self.0.vhost == "/" { Ok(()) } else { write!(formatter, "/{}", self.0.vhost) }
    }
}

impl fmt::Debug for BrokerUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url = SecretString::from("amqp://user:canary-4711@example.org:5673/jobs");
        let uri = BrokerUri::parse(&url, Duration::from_secs(10)).unwrap();
        assert_eq!(uri.to_string(), "amqp://user@example.org:5673/jobs");
        assert!(!format!("{uri:?}").contains("canary"));
        let broken = BrokerUri::parse(&SecretString::from("http://user:canary-4711@x"), Duration::ZERO).unwrap_err();
        assert!(!broken.to_string().contains("canary"), "{broken}");
    }
}
