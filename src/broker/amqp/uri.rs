//! The broker's URL, and how it is shown: never with its password.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::{ExposeSecret as _, SecretString};

/// The text is no AMQP URL. It is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker.url is no AMQP URL ({0}); expected amqp://user:password@host:port/vhost")]
pub struct UriError(String);

/// A parsed AMQP URL. Shown and logged without its password.
#[derive(Clone)]
pub(super) struct BrokerUri(AMQPUri);

impl BrokerUri {
    /// Reads `url`; the heartbeat is the settings', whatever the URL asks for.
    ///
    /// # Errors
    /// When it is no AMQP URL.
    pub(super) fn parse(url: &SecretString, heartbeat: Duration) -> Result<Self, UriError> {
        let url = url.expose_secret();
        let mut uri: AMQPUri = url.parse().map_err(UriError)?;
        // The parser takes an IPv6 address for no host at all, and no host for localhost.
        if let Some(address) = ipv6_address(url) {
            uri.authority.host = address.to_owned();
        }
        uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
        Ok(Self(uri))
    }

    pub(super) fn is_tls(&self) -> bool {
        match self.0.scheme {
            AMQPScheme::AMQP => false,
            AMQPScheme::AMQPS => true,
        }
    }

    /// Whether the host is this machine by its very name: what a name resolves to is for others to say.
    pub(super) fn is_loopback(&self) -> bool {
        let host = &self.0.authority.host;
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    pub(super) fn to_lapin(&self) -> AMQPUri {
        self.0.clone()
    }
}

/// The address between brackets, where the host of `url` is one.
fn ipv6_address(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(address, _)| address)
}

impl fmt::Display for BrokerUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.0.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let authority = &self.0.authority;
        let user = &authority.userinfo.username;
        let host = &authority.host;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(formatter, "{scheme}://{user}@{open}{host}{close}:{}", authority.port)?;
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

    #[test]
    fn an_ipv6_address_is_a_host() {
        for (url, shown) in [
            ("amqp://user:word@[2001:db8::7]:5673/jobs", "amqp://user@[2001:db8::7]:5673/jobs"),
            ("amqps://user:word@[::1]", "amqps://user@[::1]:5671"),
            ("amqp://user:word@example.org", "amqp://user@example.org:5672"),
        ] {
            let uri = BrokerUri::parse(&url.into(), Duration::ZERO).unwrap();
            assert_eq!(uri.to_string(), shown);
        }
    }

    #[test]
    fn loopback_is_what_is_named_so() {
        let loopback = |host: &str| {
            let url = SecretString::from(format!("amqp://user:word@{host}:5672/%2f"));
            BrokerUri::parse(&url, Duration::ZERO).unwrap().is_loopback()
        };
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.8.9.1", "[::1]"] {
            assert!(loopback(host), "{host}");
        }
        for host in
            ["rabbitmq", "localhost.example", "127.0.0.1.example", "10.0.0.1", "0.0.0.0", "[::2]", "[::ffff:10.0.0.1]"]
        {
            assert!(!loopback(host), "{host}");
        }
    }
}
