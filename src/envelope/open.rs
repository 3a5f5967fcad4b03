//! The order of validation of a request. The order matters, and `open_request` reads like the list.
//!
//! Called by the worker for every job. Until step 7 is passed nothing about a job is believed; what fails there is
//! dead-lettered untouched and looks the same from outside, whichever step it was.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::claims::{ContentKind, RequestClaims, RequestHeader};
use super::jwe::{Framing, Parts};
use super::keyring::{Direction, Key, Keyring};
use super::tenant::{Tenant, is_tenant_name};
use super::time::UnixSeconds;
use crate::error::ErrorCode;
use crate::limits::MAX_HEADER_CHARS;
use crate::protocol::model_ref::ModelRef;
use crate::protocol::properties::{CONTENT_TYPE_BINARY, CONTENT_TYPE_COMPACT, Message};

/// What a request is measured against.
#[derive(Debug, Clone)]
pub struct OpenPolicy {
    /// The service that requests must be meant for.
    pub audience: String,
    /// `exp - iat` at most.
    pub max_lifetime: Duration,
    /// Clock difference allowed.
    pub clock_skew: Duration,
    /// Body bytes at most.
    pub max_body_bytes: usize,
    /// Plaintext bytes at most.
    pub max_plaintext_bytes: usize,
}

/// An authenticated job.
pub struct OpenedJob {
    /// Its claims.
    pub claims: RequestClaims,
    /// The request; wiped when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// Length of the request's JSON where binary tensors follow it.
    pub json_length: Option<usize>,
    /// What its reply is sealed with.
    pub reply: ReplyContext,
    /// The tenant's grant, as it stood when the job was opened.
    pub tenant: Arc<Tenant>,
}

impl std::fmt::Debug for OpenedJob {
    /// Without the plaintext.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenedJob")
            .field("claims", &self.claims)
            .field("plaintext_bytes", &self.plaintext.len())
            .finish_non_exhaustive()
    }
}

/// What is needed to answer a job, all of it authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyContext {
    /// The tenant that asked.
    pub tenant: String,
    /// The job's id.
    pub message_id: String,
    /// The producer's word for the exchange.
    pub correlation_id: String,
    /// Where the reply goes.
    pub reply_to: String,
    /// The request's tag segment.
    pub request_tag: String,
    /// The model asked for.
    pub model: ModelRef,
}

/// A job that did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What went wrong; decides where the job goes.
    pub code: ErrorCode,
    /// What exactly. The same words for every failure of steps 1 to 7.
    pub reason: String,
    /// What is needed to answer, where the producer may be told.
    pub reply: Option<Box<ReplyContext>>,
}

/// Opens `message`, or says why not. `now` is the worker's clock.
///
/// # Errors
/// See [`Rejection`].
pub fn open_request(
    keyring: &Keyring,
    policy: &OpenPolicy,
    message: &Message,
    now: UnixSeconds,
) -> Result<OpenedJob, Rejection> {
    // 1. Body size and content type.
    let framing = framing(message, policy.max_body_bytes).ok_or_else(|| untold(1))?;
    // 2. Positional parse; only the header and the parts of fixed size are decoded.
    let parts = Parts::parse(framing, &message.body).map_err(|_| untold(2))?;
    if parts.header_chars() > MAX_HEADER_CHARS || parts.plaintext_bytes() > policy.max_plaintext_bytes {
        return Err(untold(2));
    }
    // 3. The header, with exactly its keys.
    let (header, model) = header(&parts).ok_or_else(|| untold(3))?;
    // 4. The pinned constants.
    if !header.is_pinned() {
        return Err(untold(4));
    }
    // 5. The key: a request key, neither revoked nor expired, and the tenant's own.
    let key = request_key(keyring, &header, now).ok_or_else(|| untold(5))?;
    // 6. Unwrap the content key.
    let content_key = parts.unwrap_key(&key.wrapping).map_err(|_| untold(6))?;
    // 7. Open. From here the job is authenticated.
    let plaintext = parts.open(&content_key).map_err(|_| untold(7))?;

    let json_length = json_length(&header, message);
    let (claims, reply) = authenticated(header, model, parts.tag_segment());
    // 8. The audience, and the properties that travel outside.
    check_binding(&claims.audience, &claims.claims, policy, message)?;
    let claims = claims.claims;
    // 9. The time window.
    check_window(&claims, policy, now)?;
    // 10. The grant.
    check_grant(&key.tenant, &claims, &reply)?;
    // 11. The replay guard is asked, and 12. the payload read, by the worker: a copy of a job in flight has to wait.
    Ok(OpenedJob { claims, plaintext, json_length, reply, tenant: Arc::clone(&key.tenant) })
}

/// The tenant that a message claims to come from, or a reply to go to. Nothing proves it: for an operator to sort by.
#[must_use]
pub fn claimed_tenant(message: &Message) -> Option<String> {
    let framing = framing(message, usize::MAX)?;
    let json = Parts::parse(framing, &message.body).ok()?.header_json().ok()?;
    let header: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let key_id = header.get("kid")?.as_str()?;
    key_id.split('.').next().filter(|tenant| is_tenant_name(tenant)).map(str::to_owned)
}

/// Steps 1 to 7 have one face.
fn untold(step: u8) -> Rejection {
    tracing::debug!(step, "an envelope was rejected");
    let reason = "the body is no envelope that this service can open".to_owned();
    Rejection { code: ErrorCode::EnvelopeRejected, reason, reply: None }
}

fn framing(message: &Message, max_body_bytes: usize) -> Option<Framing> {
    if message.body.len() > max_body_bytes {
        return None;
    }
    match message.properties.content_type.as_deref()? {
        CONTENT_TYPE_COMPACT => Some(Framing::Compact),
        CONTENT_TYPE_BINARY => Some(Framing::Binary),
        _ => None,
    }
}

fn header(parts: &Parts<'_>) -> Option<(RequestHeader, ModelRef)> {
    let header = RequestHeader::read(&parts.header_json().ok()?)?;
    let model = header.mdl.parse().ok()?;
    header.ids_are_sane().then_some((header, model))
}

fn request_key<'a>(keyring: &'a Keyring, header: &RequestHeader, now: UnixSeconds) -> Option<&'a Key> {
    keyring
        .key(&header.kid)
        .filter(|key| key.direction == Direction::Request && key.is_active(now) && key.tenant.name == header.iss)
}

/// Where the JSON ends. The header that says so is not authenticated, but only a length at which the authenticated
/// plaintext parses as JSON does anything.
fn json_length(header: &RequestHeader, message: &Message) -> Option<usize> {
    match header.cty {
        ContentKind::Json => None,
        ContentKind::Tensor => Some(message.properties.json_length()),
    }
}

/// Claims with the audience, which step 8 still has to look at.
struct Authenticated {
    audience: String,
    claims: RequestClaims,
}

fn authenticated(header: RequestHeader, model: ModelRef, request_tag: String) -> (Authenticated, ReplyContext) {
    let reply = ReplyContext {
        tenant: header.iss.clone(),
        message_id: header.jti.clone(),
        correlation_id: header.cid.clone(),
        reply_to: header.rto.clone(),
        request_tag,
        model: model.clone(),
    };
    let claims = RequestClaims {
        tenant: header.iss,
        key_id: header.kid,
        message_id: header.jti,
        correlation_id: header.cid,
        reply_to: header.rto,
        model,
        issued: header.iat,
        expires: header.exp,
    };
    (Authenticated { audience: header.aud, claims }, reply)
}

fn check_binding(
    audience: &str,
    claims: &RequestClaims,
    policy: &OpenPolicy,
    message: &Message,
) -> Result<(), Rejection> {
    let properties = &message.properties;
    let fault = if audience != policy.audience {
        "aud names another service"
    } else if properties.message_id.as_ref() != Some(&claims.message_id) {
        "message_id is not the header's jti"
    } else if properties.correlation_id.as_ref() != Some(&claims.correlation_id) {
        "correlation_id is not the header's cid"
    } else if properties.reply_to.as_ref() != Some(&claims.reply_to) {
        "reply_to is not the header's rto"
    } else {
        return Ok(());
    };
    Err(Rejection { code: ErrorCode::BindingMismatch, reason: fault.to_owned(), reply: None })
}

fn check_window(claims: &RequestClaims, policy: &OpenPolicy, now: UnixSeconds) -> Result<(), Rejection> {
    let skew = policy.clock_skew;
    let lifetime = claims.expires.0.checked_sub(claims.issued.0);
    let fault = if claims.issued > now.plus(skew) {
        format!("issued {} s in the future", claims.issued.0.saturating_sub(now.0))
    } else if now > claims.expires.plus(skew) {
        format!("expired {} s ago", now.0.saturating_sub(claims.expires.0))
    } else if lifetime.is_none_or(|seconds| seconds > policy.max_lifetime.as_secs()) {
        format!("exp - iat is not within 0 and {} s", policy.max_lifetime.as_secs())
    } else {
        return Ok(());
    };
    Err(Rejection { code: ErrorCode::OutsideTimeWindow, reason: fault, reply: None })
}

fn check_grant(tenant: &Arc<Tenant>, claims: &RequestClaims, reply: &ReplyContext) -> Result<(), Rejection> {
    if !tenant.may_reply_to(&claims.reply_to) {
        let reason = format!("reply queues of tenant `{}` begin with `{}`", tenant.name, tenant.grant.reply_prefix);
        return Err(Rejection { code: ErrorCode::ReplyQueueForbidden, reason, reply: None });
    }
    if !tenant.may_use(&claims.model.name) {
        let reason = format!("tenant `{}` has no grant for model `{}`", tenant.name, claims.model.name);
        return Err(Rejection { code: ErrorCode::ModelForbidden, reason, reply: Some(Box::new(reply.clone())) });
    }
    Ok(())
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
