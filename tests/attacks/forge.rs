//! A forger: seals what no honest producer would, with keys that it has read from the ring. Written from RFC 7516 alone, with
//! nothing of the program's own envelope.

use std::path::Path;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use aes_kw::KwAes256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inferq::envelope::UnixSeconds;
use inferq::protocol::properties::{CONTENT_TYPE_BINARY, CONTENT_TYPE_COMPACT, Message, Properties};
use serde_json::{Map, Value, json};

/// A wrapping key and its id.
#[derive(Clone)]
pub(super) struct StolenKey {
    pub(super) id: String,
    bytes: [u8; 32],
}

impl StolenKey {
    /// Reads `file` of `tenant` in the ring.
    pub(super) fn read(ring: &Path, tenant: &str, file: &str) -> Self {
        let jwk: Value = serde_json::from_slice(&std::fs::read(ring.join(tenant).join(file)).unwrap()).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(jwk["k"].as_str().unwrap()).unwrap();
        Self { id: jwk["kid"].as_str().unwrap().to_owned(), bytes: bytes.try_into().unwrap() }
    }

    /// The key itself, as its file has it.
    pub(super) fn material(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes)
    }
}

/// A message in the making.
#[derive(Clone)]
pub(super) struct Forgery {
    pub(super) header: Map<String, Value>,
    /// Stands in the header's place where that is no object that serde could write.
    pub(super) raw_header: Option<String>,
    pub(super) key: StolenKey,
    pub(super) plaintext: Vec<u8>,
    pub(super) binary: bool,
}

impl Forgery {
    /// What an honest producer would send as job `id`.
    pub(super) fn honest(key: &StolenKey, id: &str, reply_to: &str, plaintext: &str) -> Self {
        let now = UnixSeconds::now().0;
        let header = json!({
            "alg": "A256KW", "enc": "A256GCM", "typ": "inferq-req+jwe", "cty": "json",
            "kid": key.id, "iss": key.id.split('.').next(), "aud": "inferq.v1",
            "jti": id, "cid": id, "rto": reply_to, "mdl": "topic", "iat": now, "exp": now + 300,
        });
        let Value::Object(header) = header else { panic!("an object") };
        Self { header, raw_header: None, key: key.clone(), plaintext: plaintext.into(), binary: false }
    }

    /// With `value` as member `name`.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Without member `name`.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.header.remove(name).unwrap();
        self
    }

    /// The header as text, for changes that no JSON library makes.
    pub(super) fn text(&self) -> String {
        self.raw_header.clone().unwrap_or_else(|| Value::Object(self.header.clone()).to_string())
    }

    /// With a header of any text.
    pub(super) fn with_text(mut self, text: String) -> Self {
        self.raw_header = Some(text);
        self
    }

    /// The five parts, base64url.
    pub(super) fn segments(&self) -> [String; 5] {
        let (content_key, iv) = ([7; 32], [9; 12]);
        let header = URL_SAFE_NO_PAD.encode(self.text());
        let wrapped: [u8; 40] = KwAes256::new((&self.key.bytes).into())
            .wrap_fixed_key::<aes_kw::cipher::consts::U32>((&content_key).into())
            .into();
        let mut buffer = self.plaintext.clone();
        let tag = Aes256Gcm::new((&content_key).into())
            .encrypt_inout_detached(&Nonce::from(iv), header.as_bytes(), buffer.as_mut_slice().into())
            .unwrap();
        [
            header,
            URL_SAFE_NO_PAD.encode(wrapped),
            URL_SAFE_NO_PAD.encode(iv),
            URL_SAFE_NO_PAD.encode(buffer),
            URL_SAFE_NO_PAD.encode(tag),
        ]
    }

    /// The message, with the properties that its header asks for.
    pub(super) fn seal(&self) -> Message {
        let segments = self.segments();
        let (body, content_type) = if self.binary {
            let [_, wrapped, iv, ciphertext, tag] =
                segments.each_ref().map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
            let header = segments[0].as_bytes();
            let length = u16::try_from(header.len()).unwrap().to_be_bytes();
            ([b"MQJ1", &length[..], header, &wrapped, &iv, &ciphertext, &tag].concat(), CONTENT_TYPE_BINARY)
        } else {
            (segments.join(".").into_bytes(), CONTENT_TYPE_COMPACT)
        };
        let word = |name: &str| self.header.get(name).and_then(Value::as_str).map(str::to_owned);
        let properties = Properties {
            message_id: word("jti"),
            correlation_id: word("cid"),
            reply_to: word("rto"),
            content_type: Some(content_type.to_owned()),
            ..Properties::default()
        };
        Message { body: body.into(), properties }
    }
}
