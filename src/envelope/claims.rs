//! The protected headers: the claims of a request and of a reply, exactly these keys and no other.
//!
//! Unknown keys are refused, so that `zip`, `crit`, `jwk`, `jku` and `p2c` never have an effect; a key that stands
//! twice is refused by serde.

use serde::{Deserialize, Serialize};

use super::time::UnixSeconds;
use crate::limits::MAX_ID_CHARS;
use crate::protocol::model_ref::ModelRef;

pub(super) const ALG: &str = "A256KW";
pub(super) const ENC: &str = "A256GCM";
pub(super) const TYP_REQUEST: &str = "inferq-req+jwe";
pub(super) const TYP_REPLY: &str = "inferq-res+jwe";
pub(super) const TYP_ANNOUNCEMENT: &str = "inferq-ann+jwe";

/// What the plaintext is (`cty`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentKind {
    /// JSON alone.
    #[serde(rename = "json")]
    Json,
    /// JSON with binary tensors behind it.
    #[serde(rename = "x-tensor")]
    Tensor,
}

/// The header of a request as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestHeader {
    pub(super) alg: String,
    pub(super) enc: String,
    pub(super) typ: String,
    pub(super) cty: ContentKind,
    pub(super) kid: String,
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) jti: String,
    pub(super) cid: String,
    pub(super) rto: String,
    pub(super) mdl: String,
    pub(super) iat: UnixSeconds,
    pub(super) exp: UnixSeconds,
}

/// The header of a reply as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyHeader {
    pub(super) alg: String,
    pub(super) enc: String,
    pub(super) typ: String,
    pub(super) cty: ContentKind,
    pub(super) kid: String,
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) jti: String,
    pub(super) cid: String,
    pub(super) rto: String,
    /// The request's `jti`.
    pub(super) irt: String,
    /// The request's tag segment.
    pub(super) rqt: String,
    pub(super) iat: UnixSeconds,
    pub(super) exp: UnixSeconds,
}

/// The header of an announcement as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnnouncementHeader {
    pub(super) alg: String,
    pub(super) enc: String,
    pub(super) typ: String,
    pub(super) cty: ContentKind,
    pub(super) kid: String,
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) jti: String,
    pub(super) iat: UnixSeconds,
    pub(super) exp: UnixSeconds,
}

/// The authenticated claims of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestClaims {
    /// The tenant (`iss`).
    pub tenant: String,
    /// The key that it was sealed with (`kid`).
    pub key_id: String,
    /// The job's id (`jti`).
    pub message_id: String,
    /// The producer's word for the exchange (`cid`).
    pub correlation_id: String,
    /// Where the reply goes (`rto`).
    pub reply_to: String,
    /// The model (`mdl`).
    pub model: ModelRef,
    /// When it was sealed (`iat`).
    pub issued: UnixSeconds,
    /// When it ends to be valid (`exp`).
    pub expires: UnixSeconds,
}

/// Reads a header: one JSON object. serde would take an array of the values in their order, too.
fn read<'de, H: Deserialize<'de>>(json: &'de [u8]) -> Option<H> {
    if json.starts_with(b"{") { serde_json::from_slice(json).ok() } else { None }
}

impl RequestHeader {
    /// Reads a header with exactly these keys.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        read(json)
    }

    /// Whether the algorithms and the type are the pinned ones.
    pub(super) fn is_pinned(&self) -> bool {
        self.alg == ALG && self.enc == ENC && self.typ == TYP_REQUEST
    }

    /// Whether every id has a sane length and no control characters: they go into logs and queue names.
    pub(super) fn ids_are_sane(&self) -> bool {
        [&self.kid, &self.iss, &self.aud, &self.jti, &self.cid, &self.rto].into_iter().all(|id| is_sane(id))
    }
}

impl ReplyHeader {
    /// Reads a header with exactly these keys.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        read(json)
    }

    /// Whether the algorithms and the type are the pinned ones.
    pub(super) fn is_pinned(&self) -> bool {
        self.alg == ALG && self.enc == ENC && self.typ == TYP_REPLY
    }
}

impl AnnouncementHeader {
    /// Reads a header with exactly these keys.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        read(json)
    }

    /// Whether the algorithms, the type and the content are the pinned ones.
    pub(super) fn is_pinned(&self) -> bool {
        self.alg == ALG && self.enc == ENC && self.typ == TYP_ANNOUNCEMENT && self.cty == ContentKind::Json
    }
}

fn is_sane(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_CHARS && !id.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"alg":"A256KW","enc":"A256GCM","typ":"inferq-req+jwe","cty":"json","kid":"k","iss":"t",
        "aud":"inferq.v1","jti":"1","cid":"2","rto":"t.q","mdl":"topic","iat":1,"exp":2}"#;

    #[test]
    fn exactly_these_keys_are_taken() {
        assert!(serde_json::from_str::<RequestHeader>(GOOD).unwrap().is_pinned());
        for extra in
            [r#""zip":"DEF""#, r#""crit":["exp"]"#, r#""jwk":{}"#, r#""p2c":1"#, r#""alg":"A256KW""#, r#""exp":9"#]
        {
            let header = GOOD.replacen('{', &format!("{{{extra},"), 1);
            assert!(serde_json::from_str::<RequestHeader>(&header).is_err(), "{extra}");
        }
        for key in ["alg", "cty", "kid", "iss", "aud", "jti", "cid", "rto", "mdl", "iat", "exp"] {
            let header = GOOD.replacen(&format!("\"{key}\""), "\"other\"", 1);
            assert!(serde_json::from_str::<RequestHeader>(&header).is_err(), "without {key}");
        }
    }

    #[test]
    fn a_header_is_an_object() {
        assert!(RequestHeader::read(GOOD.as_bytes()).is_some());
        let values = r#"["A256KW","A256GCM","inferq-req+jwe","json","k","t","inferq.v1","1","2","t.q","topic",1,2]"#;
        assert!(serde_json::from_str::<RequestHeader>(values).is_ok(), "else this test says nothing");
        assert!(RequestHeader::read(values.as_bytes()).is_none());
    }

    #[test]
    fn other_algorithms_are_not_pinned() {
        for (from, to) in [("A256KW", "dir"), ("A256KW", "A128KW"), ("A256GCM", "A128GCM"), ("req+jwe", "res+jwe")] {
            let header: RequestHeader = serde_json::from_str(&GOOD.replace(from, to)).unwrap();
            assert!(!header.is_pinned(), "{to}");
        }
        let reply = GOOD.replace("req+jwe", "res+jwe").replace(r#""mdl":"topic""#, r#""irt":"1","rqt":"t""#);
        assert!(serde_json::from_str::<ReplyHeader>(&reply).unwrap().is_pinned());
        for (from, to) in [("A256KW", "dir"), ("A256GCM", "A128GCM"), ("res+jwe", "req+jwe")] {
            let header: ReplyHeader = serde_json::from_str(&reply.replace(from, to)).unwrap();
            assert!(!header.is_pinned(), "{to} in a reply");
        }
    }
}
