//! The worker's replies: sealed with the tenant's response key, tied to the exact request.

use serde_json::to_vec;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::claims::{ALG, ContentKind, ENC, ReplyHeader, TYP_REPLY};
use super::jwe::{self, Framing};
use super::keyring::Keyring;
use super::open::ReplyContext;
use super::time::UnixSeconds;
use crate::limits::REPLY_LIFETIME;
use crate::protocol::body::EncodedBody;
use crate::protocol::properties::{
    CONTENT_TYPE_BINARY, CONTENT_TYPE_COMPACT, HEADER_JSON_LENGTH, Headers, Message, Properties, TYPE_REPLY,
};

/// A reply that only its producer can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedReply {
    /// The message.
    pub message: Message,
    /// The queue that it goes to: the authenticated one.
    pub reply_queue: String,
}

/// Why something could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The tenant is gone from the key ring.
    #[error("tenant `{0}` has no key to seal with")]
    NoKey(String),
    /// The claims do not fit into a header, or the system gives no random bytes.
    #[error("sealing failed: {0}")]
    Failed(String),
}

/// Seals `body` as the reply that `context` asks for. `issuer` is this service's name.
///
/// # Errors
/// See [`SealError`].
pub fn seal_reply(
    keyring: &Keyring,
    context: &ReplyContext,
    body: &EncodedBody,
    issuer: &str,
    now: UnixSeconds,
) -> Result<SealedReply, SealError> {
    let key = keyring.sealing_key(&context.tenant).ok_or_else(|| SealError::NoKey(context.tenant.clone()))?;
    let reply_id = reply_id(context);
    let header = ReplyHeader {
        alg: ALG.to_owned(),
        enc: ENC.to_owned(),
        typ: TYP_REPLY.to_owned(),
        cty: content_kind(body),
        kid: key.id.clone(),
        iss: issuer.to_owned(),
        aud: context.tenant.clone(),
        jti: reply_id.clone(),
        cid: context.correlation_id.clone(),
        rto: context.reply_to.clone(),
        irt: context.message_id.clone(),
        rqt: context.request_tag.clone(),
        iat: now,
        exp: now.plus(REPLY_LIFETIME),
    };
    let json = to_vec(&header).map_err(|error| SealError::Failed(error.to_string()))?;
    let (framing, content_type) = framing(body);
    let sealed =
        jwe::seal(framing, &key.wrapping, &json, &body.bytes).map_err(|error| SealError::Failed(error.to_string()))?;
    let properties = Properties {
        message_id: Some(reply_id),
        correlation_id: Some(context.correlation_id.clone()),
        reply_to: None,
        content_type: Some(content_type.to_owned()),
        kind: Some(TYPE_REPLY.to_owned()),
        app_id: Some(concat!("inferq/", env!("CARGO_PKG_VERSION")).to_owned()),
        timestamp: Some(now.0),
        priority: None,
        headers: json_length_header(body),
    };
    Ok(SealedReply { message: Message { body: sealed.body, properties }, reply_queue: context.reply_to.clone() })
}

/// The id of the reply to one exact request: always the same, so that whoever gets two of them knows them for one.
fn reply_id(context: &ReplyContext) -> String {
    let mut digest = Sha256::new_with_prefix(b"inferq-reply-v1");
    for part in [&context.tenant, &context.message_id, &context.request_tag] {
        digest.update([0]);
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    Uuid::new_v8(digest.first_chunk().copied().unwrap_or_default()).to_string()
}

/// The `cty` of a body.
pub(super) const fn content_kind(body: &EncodedBody) -> ContentKind {
    match body.json_length {
        None => ContentKind::Json,
        Some(_) => ContentKind::Tensor,
    }
}

/// Binary tensors are large: they are spared the third that base64 adds.
pub(super) const fn framing(body: &EncodedBody) -> (Framing, &'static str) {
    match body.json_length {
        None => (Framing::Compact, CONTENT_TYPE_COMPACT),
        Some(_) => (Framing::Binary, CONTENT_TYPE_BINARY),
    }
}

/// Where the JSON of a body with binary tensors ends.
pub(super) fn json_length_header(body: &EncodedBody) -> Headers {
    let length = body.json_length.and_then(|length| i64::try_from(length).ok());
    length.map(|length| (HEADER_JSON_LENGTH.to_owned(), length.into())).into_iter().collect()
}
