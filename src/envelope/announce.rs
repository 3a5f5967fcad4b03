//! A worker's announcements: sealed for each tenant with the key of its replies, under a type of their own.
//!
//! Used by `worker` to seal, by `client` to open. The envelope proves who says it and when; what is said is read elsewhere.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::claims::{ALG, AnnouncementHeader, ContentKind, ENC, TYP_ANNOUNCEMENT};
use super::jwe::{self, Framing, Parts};
use super::keyring::{Direction, Keyring};
use super::producer::ProducerKeys;
use super::seal::SealError;
use super::tenant::Tenant;
use super::time::UnixSeconds;
use crate::limits::{CLIENT_CLOCK_SKEW, MAX_ANNOUNCEMENT_BODY_BYTES, MAX_ANNOUNCEMENT_LIFETIME};
use crate::protocol::properties::{CONTENT_TYPE_COMPACT, Headers, Message, Properties, TYPE_ANNOUNCEMENT};

/// For whom an announcement is, who makes it, and how long it holds.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncementContext<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The service that it comes from.
    pub issuer: &'a str,
    /// How long it holds.
    pub lifetime: Duration,
}

/// An announcement that proved to be authentic.
pub struct OpenedAnnouncement {
    /// What is announced.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// How long it holds, counted from when it was sealed.
    pub lifetime: Duration,
}

/// Why a message is no announcement for this tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementRejected {
    /// It cannot be opened with this tenant's keys.
    #[error("no envelope that this tenant's keys open")]
    Envelope,
    /// It is authentic, and from another service or for another tenant.
    #[error("its {0} is another one")]
    Binding(&'static str),
    /// It is over, from the future, or holds for longer than any does.
    #[error("it is outside its time window")]
    Window,
}

impl Keyring {
    /// The tenant of this name with its grant, where the ring has a key to seal for it.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.sealing_key(name).map(|key| Arc::clone(&key.tenant))
    }

    /// Seals `plaintext` as an announcement.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_announcement(
        &self,
        context: AnnouncementContext<'_>,
        plaintext: &[u8],
        now: UnixSeconds,
    ) -> Result<Message, SealError> {
        let AnnouncementContext { tenant, issuer, lifetime } = context;
        let key = self.sealing_key(tenant).ok_or_else(|| SealError::NoKey(tenant.to_owned()))?;
        let failed = |reason: String| SealError::Failed(reason);
        let header = AnnouncementHeader {
            alg: ALG.to_owned(),
            enc: ENC.to_owned(),
            typ: TYP_ANNOUNCEMENT.to_owned(),
            cty: ContentKind::Json,
            kid: key.id.clone(),
            iss: issuer.to_owned(),
            aud: tenant.to_owned(),
            jti: Uuid::now_v7().to_string(),
            iat: now,
            exp: now.plus(lifetime),
        };
        let json = serde_json::to_vec(&header).map_err(|error| failed(error.to_string()))?;
        let sealed =
            jwe::seal(Framing::Compact, &key.wrapping, &json, plaintext).map_err(|error| failed(error.to_string()))?;
        let properties = Properties {
            message_id: Some(header.jti),
            correlation_id: None,
            reply_to: None,
            content_type: Some(CONTENT_TYPE_COMPACT.to_owned()),
            kind: Some(TYPE_ANNOUNCEMENT.to_owned()),
            app_id: Some(concat!("inferq/", env!("CARGO_PKG_VERSION")).to_owned()),
            timestamp: Some(now.0),
            priority: None,
            headers: Headers::new(),
        };
        Ok(Message { body: sealed.body, properties })
    }
}

impl ProducerKeys {
    /// Opens `message` if it is an announcement of the service `issuer` for this tenant.
    ///
    /// # Errors
    /// See [`AnnouncementRejected`].
    pub fn open_announcement(
        &self,
        issuer: &str,
        message: &Message,
        now: UnixSeconds,
    ) -> Result<OpenedAnnouncement, AnnouncementRejected> {
        let is_compact = message.properties.content_type.as_deref() == Some(CONTENT_TYPE_COMPACT);
        if !is_compact || message.body.len() > MAX_ANNOUNCEMENT_BODY_BYTES {
            return Err(AnnouncementRejected::Envelope);
        }
        let parts = Parts::parse(Framing::Compact, &message.body).map_err(|_| AnnouncementRejected::Envelope)?;
        let header = parts.header_json().ok().and_then(|json| AnnouncementHeader::read(&json));
        let header = header.filter(AnnouncementHeader::is_pinned).ok_or(AnnouncementRejected::Envelope)?;
        let key = self.ring.key(&header.kid).filter(|key| key.direction == Direction::Response && !key.is_revoked());
        let content_key = key.and_then(|key| parts.unwrap_key(&key.wrapping).ok());
        let content_key = content_key.ok_or(AnnouncementRejected::Envelope)?;
        let plaintext = parts.open(&content_key).map_err(|_| AnnouncementRejected::Envelope)?;
        if header.iss != issuer {
            return Err(AnnouncementRejected::Binding("iss"));
        }
        if header.aud != self.tenant() {
            return Err(AnnouncementRejected::Binding("aud"));
        }
        let lifetime = header.exp.0.checked_sub(header.iat.0).map(Duration::from_secs);
        let lifetime = lifetime.filter(|lifetime| *lifetime <= MAX_ANNOUNCEMENT_LIFETIME);
        let is_current = header.iat <= now.plus(CLIENT_CLOCK_SKEW) && now <= header.exp.plus(CLIENT_CLOCK_SKEW);
        let lifetime = lifetime.filter(|_| is_current).ok_or(AnnouncementRejected::Window)?;
        Ok(OpenedAnnouncement { plaintext, lifetime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Grant, generate};

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// A ring of two tenants, and the keys of each.
    fn tenants() -> (Keyring, ProducerKeys, ProducerKeys) {
        let folder = tempfile::tempdir().unwrap();
        for tenant in ["acme", "other"] {
            generate(folder.path(), tenant, &Grant::new(tenant, vec!["*".into()])).unwrap();
        }
        let keys = |tenant| ProducerKeys::load(folder.path(), tenant).unwrap();
        (Keyring::load(folder.path()).unwrap(), keys("acme"), keys("other"))
    }

    fn sealed(ring: &Keyring, seconds: u64) -> Message {
        let lifetime = Duration::from_secs(seconds);
        let context = AnnouncementContext { tenant: "acme", issuer: "inferq.v1", lifetime };
        ring.seal_announcement(context, b"the models", NOW).unwrap()
    }

    #[test]
    fn its_tenant_opens_it_and_nobody_else() {
        let (ring, acme, other) = tenants();
        let message = sealed(&ring, 35);
        let opened = acme.open_announcement("inferq.v1", &message, NOW).unwrap();
        assert_eq!((opened.plaintext.as_slice(), opened.lifetime.as_secs()), (&b"the models"[..], 35));
        let refused = |keys: &ProducerKeys, issuer, now| keys.open_announcement(issuer, &message, now).err();
        assert_eq!(refused(&other, "inferq.v1", NOW), Some(AnnouncementRejected::Envelope));
        assert_eq!(refused(&acme, "inferq.v2", NOW), Some(AnnouncementRejected::Binding("iss")));
        let before = UnixSeconds(NOW.0 - 61);
        let after = UnixSeconds(NOW.0 + 35 + 61);
        assert_eq!(refused(&acme, "inferq.v1", before), Some(AnnouncementRejected::Window));
        assert_eq!(refused(&acme, "inferq.v1", after), Some(AnnouncementRejected::Window));
        let everlasting = sealed(&ring, MAX_ANNOUNCEMENT_LIFETIME.as_secs() + 1);
        let error = acme.open_announcement("inferq.v1", &everlasting, NOW).err();
        assert_eq!(error, Some(AnnouncementRejected::Window));
    }

    #[test]
    fn no_bit_of_it_can_be_changed() {
        let (ring, acme, _) = tenants();
        let message = sealed(&ring, 35);
        for place in 0..message.body.len() {
            let mut body = message.body.to_vec();
            body[place] ^= 1;
            let changed = Message { body: body.into(), properties: message.properties.clone() };
            assert!(acme.open_announcement("inferq.v1", &changed, NOW).is_err(), "byte {place}");
        }
        let long = Message { body: vec![b'a'; MAX_ANNOUNCEMENT_BODY_BYTES + 1].into(), ..message };
        assert!(acme.open_announcement("inferq.v1", &long, NOW).is_err());
    }

    #[test]
    fn an_announcement_is_no_reply_and_a_reply_no_announcement() {
        let (ring, acme, _) = tenants();
        let mut header: serde_json::Value = serde_json::from_slice(
            &Parts::parse(Framing::Compact, &sealed(&ring, 35).body).unwrap().header_json().unwrap(),
        )
        .unwrap();
        header["typ"] = super::super::claims::TYP_REPLY.into();
        let key = ring.sealing_key("acme").unwrap();
        let json = serde_json::to_vec(&header).unwrap();
        let body = jwe::seal(Framing::Compact, &key.wrapping, &json, b"x").unwrap().body;
        let message = Message { body, properties: sealed(&ring, 35).properties };
        let error = acme.open_announcement("inferq.v1", &message, NOW).err();
        assert_eq!(error, Some(AnnouncementRejected::Envelope));
    }
}
