//! The producer's side of the envelope: seal a request, and open the reply that proves to answer it.
//!
//! Used by `client`, and by tests that play a producer.

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::claims::{ALG, ContentKind, ENC, ReplyHeader, RequestHeader, TYP_REQUEST};
use super::jwe::{self, Framing, Parts};
use super::keyring::{Direction, Key, Keyring, KeyringError};
use super::seal::{SealError, content_kind, framing, json_length_header};
use super::time::UnixSeconds;
use crate::limits::{CLIENT_CLOCK_SKEW, MAX_HEADER_CHARS};
use crate::protocol::body::EncodedBody;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::properties::{CONTENT_TYPE_BINARY, CONTENT_TYPE_COMPACT, Message, Properties, TYPE_REQUEST};

/// One tenant's keys, as a producer holds them.
#[derive(Debug, Clone)]
pub struct ProducerKeys {
    pub(super) ring: Keyring,
    request: Key,
}

/// What a request is to say in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestDraft {
    /// A fresh id, unique for ever.
    pub message_id: String,
    /// The producer's word for the exchange.
    pub correlation_id: String,
    /// The reply queue; carries the tenant's prefix.
    pub reply_to: String,
    /// The model.
    pub model: ModelRef,
    /// The service asked.
    pub audience: String,
    /// How long the job may wait to be taken up.
    pub lifetime: Duration,
}

impl RequestDraft {
    /// A draft with a fresh id, which is the correlation id too.
    #[must_use]
    pub fn new(model: ModelRef, reply_to: &str, audience: &str, lifetime: Duration) -> Self {
        let message_id = Uuid::now_v7().to_string();
        Self {
            correlation_id: message_id.clone(),
            message_id,
            reply_to: reply_to.to_owned(),
            model,
            audience: audience.to_owned(),
            lifetime,
        }
    }
}

/// What a reply must prove to answer a certain request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingReply {
    /// The request's id.
    pub message_id: String,
    /// The producer's word for the exchange.
    pub correlation_id: String,
    /// The reply queue.
    pub reply_to: String,
    /// The service asked.
    pub audience: String,
    /// The request's tag segment.
    pub request_tag: String,
}

/// A reply that proved to be the one.
pub struct OpenedReply {
    /// The response; wiped when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// Length of its JSON where binary tensors follow it.
    pub json_length: Option<usize>,
}

/// Why a message is not the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyRejected {
    /// It cannot be opened with this tenant's keys.
    #[error("no envelope that this tenant's keys open")]
    Envelope,
    /// It is authentic, but answers something else, or comes from someone else.
    #[error("its {0} does not match the request")]
    Binding(&'static str),
    /// It is expired, or from the future.
    #[error("it is outside its time window")]
    Window,
}

impl ProducerKeys {
    /// Reads `tenant`'s keys from the key ring `directory`.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn load(directory: &Path, tenant: &str) -> Result<Self, KeyringError> {
        let ring = Keyring::load_one(directory, tenant)?;
        let request = ring.request_key(tenant).cloned().ok_or_else(|| KeyringError::Missing {
            tenant: tenant.to_owned(),
            direction: Direction::Request,
            expected: directory.join(tenant).join("request.jwk"),
        })?;
        Ok(Self { ring, request })
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.request.tenant.name
    }

    /// What the tenant's reply queues begin with.
    #[must_use]
    pub fn reply_prefix(&self) -> &str {
        &self.request.tenant.grant.reply_prefix
    }

    /// Seals `body` as `draft` says; answers the message, and what its reply must prove.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_request(
        &self,
        draft: &RequestDraft,
        body: &EncodedBody,
        now: UnixSeconds,
    ) -> Result<(Message, PendingReply), SealError> {
        let header = RequestHeader {
            alg: ALG.to_owned(),
            enc: ENC.to_owned(),
            typ: TYP_REQUEST.to_owned(),
            cty: content_kind(body),
            kid: self.request.id.clone(),
            iss: self.tenant().to_owned(),
            aud: draft.audience.clone(),
            jti: draft.message_id.clone(),
            cid: draft.correlation_id.clone(),
            rto: draft.reply_to.clone(),
            mdl: draft.model.to_string(),
            iat: now,
            exp: now.plus(draft.lifetime),
        };
        let json = serde_json::to_vec(&header).map_err(|error| SealError::Failed(error.to_string()))?;
        if (json.len() * 4).div_ceil(3) > MAX_HEADER_CHARS {
            return Err(SealError::Failed(format!("the header has more than {MAX_HEADER_CHARS} characters")));
        }
        let (framing, content_type) = framing(body);
        let sealed = jwe::seal(framing, &self.request.wrapping, &json, &body.bytes)
            .map_err(|error| SealError::Failed(error.to_string()))?;
        let properties = Properties {
            message_id: Some(draft.message_id.clone()),
            correlation_id: Some(draft.correlation_id.clone()),
            reply_to: Some(draft.reply_to.clone()),
            content_type: Some(content_type.to_owned()),
            kind: Some(TYPE_REQUEST.to_owned()),
            app_id: Some(concat!("inferq/", env!("CARGO_PKG_VERSION")).to_owned()),
            timestamp: Some(now.0),
            priority: None,
            headers: json_length_header(body),
        };
        let pending = PendingReply {
            message_id: draft.message_id.clone(),
            correlation_id: draft.correlation_id.clone(),
            reply_to: draft.reply_to.clone(),
            audience: draft.audience.clone(),
            request_tag: sealed.tag_segment,
        };
        Ok((Message { body: sealed.body, properties }, pending))
    }

    /// Opens `message` if it is the reply to `pending`.
    ///
    /// # Errors
    /// See [`ReplyRejected`].
    pub fn open_reply(
        &self,
        pending: &PendingReply,
        message: &Message,
        now: UnixSeconds,
    ) -> Result<OpenedReply, ReplyRejected> {
        let framing = match message.properties.content_type.as_deref() {
            Some(CONTENT_TYPE_COMPACT) => Framing::Compact,
            Some(CONTENT_TYPE_BINARY) => Framing::Binary,
            Some(_) | None => return Err(ReplyRejected::Envelope),
        };
        let parts = Parts::parse(framing, &message.body).map_err(|_| ReplyRejected::Envelope)?;
        let header = parts.header_json().ok().and_then(|json| ReplyHeader::read(&json));
        let header = header.filter(ReplyHeader::is_pinned).ok_or(ReplyRejected::Envelope)?;
        let key = self.ring.key(&header.kid).filter(|key| key.direction == Direction::Response && !key.is_revoked());
        let content_key = key.and_then(|key| parts.unwrap_key(&key.wrapping).ok()).ok_or(ReplyRejected::Envelope)?;
        let plaintext = parts.open(&content_key).map_err(|_| ReplyRejected::Envelope)?;
        self.check_reply(&header, pending, now)?;
        let json_length = match header.cty {
            ContentKind::Json => None,
            ContentKind::Tensor => Some(message.properties.json_length()),
        };
        Ok(OpenedReply { plaintext, json_length })
    }

    fn check_reply(&self, header: &ReplyHeader, pending: &PendingReply, now: UnixSeconds) -> Result<(), ReplyRejected> {
        let bound = [
            ("iss", &*header.iss, &*pending.audience),
            ("aud", &*header.aud, self.tenant()),
            ("cid", &*header.cid, &*pending.correlation_id),
            ("rto", &*header.rto, &*pending.reply_to),
            ("irt", &*header.irt, &*pending.message_id),
            ("rqt", &*header.rqt, &*pending.request_tag),
        ];
        if let Some((claim, ..)) = bound.into_iter().find(|(_, actual, expected)| actual != expected) {
            return Err(ReplyRejected::Binding(claim));
        }
        if header.iat > now.plus(CLIENT_CLOCK_SKEW) || now > header.exp.plus(CLIENT_CLOCK_SKEW) {
            return Err(ReplyRejected::Window);
        }
        Ok(())
    }
}
