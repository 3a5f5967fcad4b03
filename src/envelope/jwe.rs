//! JSON Web Encryption (RFC 7516) pinned to A256KW and A256GCM, in the compact form and in a binary framing.
//!
//! The only user of aes-gcm and aes-kw. In both forms the additional data is the base64url header exactly as it was
//! received (RFC 7516, section 5.1, step 14): a header is never serialised again. Claims are not read here.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use aes_kw::KwAes256;
use base64::Engine as _;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::simd::Simd;
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::limits::MAX_REPLY_HEADER_CHARS;

/// Bytes of a wrapping key and of a content key.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of a wrapped content key: RFC 3394 adds one semiblock.
const WRAPPED_KEY_BYTES: usize = KEY_BYTES + 8;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// First bytes of the binary framing.
const BINARY_MAGIC: &[u8; 4] = b"MQJ1";

/// A shared 256-bit key that wraps content keys. Opaque: never printed, wiped when dropped.
#[derive(Clone)]
pub(super) struct WrappingKey(Zeroizing<[u8; KEY_BYTES]>);

impl WrappingKey {
    pub(super) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for its fingerprint and its file.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WrappingKey(hidden)")
    }
}

/// How the five parts of a JWE are laid out in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Five base64url segments with dots between them.
    Compact,
    /// `"MQJ1" | u16be length | header, base64url | encrypted key | iv | ciphertext | tag`.
    Binary,
}

/// Which step of opening failed. For metrics and debugging: outside, all look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum JweError {
    #[error("not five parts of the right sizes")]
    Form,
    #[error("the header is not base64url JSON")]
    Header,
    #[error("the content key does not unwrap")]
    Unwrap,
    #[error("the ciphertext is not base64url, or too large")]
    Ciphertext,
    #[error("the tag does not fit")]
    Tag,
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

/// The five parts of a JWE, all decoded but the header and the ciphertext.
pub(super) struct Parts<'a> {
    framing: Framing,
    /// base64url, as received.
    header: &'a [u8],
    encrypted_key: [u8; WRAPPED_KEY_BYTES],
    iv: [u8; IV_BYTES],
    ciphertext: &'a [u8],
    tag: [u8; TAG_BYTES],
}

fn base64url() -> Simd {
    Simd::url_safe(NO_PAD)
}

/// Characters of `bytes` bytes in base64url without padding.
const fn base64_chars(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Decodes the segment of `BYTES` bytes that `body` begins with, and steps over the dot behind it.
fn split_segment<const BYTES: usize>(body: &[u8]) -> Option<([u8; BYTES], &[u8])> {
    let (segment, rest) = body.split_at_checked(base64_chars(BYTES))?;
    Some((base64url().decode(segment).ok()?.try_into().ok()?, rest.strip_prefix(b".")?))
}

impl<'a> Parts<'a> {
    /// Finds the five parts of `body` and decodes the short ones.
    pub(super) fn parse(framing: Framing, body: &'a [u8]) -> Result<Self, JweError> {
        let parts = match framing {
            Framing::Compact => Self::parse_compact(body),
            Framing::Binary => Self::parse_binary(body),
        };
        parts.filter(|parts| parts.header.len() <= MAX_REPLY_HEADER_CHARS).ok_or(JweError::Form)
    }

    /// All but the header and the ciphertext have one size: they lie where that says. The ciphertext is not looked at here,
    /// so that a large body costs nothing until its key is known; a dot in it is no base64url, and fails when it is opened.
    fn parse_compact(body: &'a [u8]) -> Option<Self> {
        let dot = body.iter().take(MAX_REPLY_HEADER_CHARS + 1).position(|byte| *byte == b'.')?;
        let (header, rest) = body.split_at_checked(dot)?;
        let (encrypted_key, rest) = split_segment(rest.strip_prefix(b".")?)?;
        let (iv, rest) = split_segment(rest)?;
        let (rest, tag) = rest.split_at_checked(rest.len().checked_sub(base64_chars(TAG_BYTES))?)?;
        let ciphertext = rest.strip_suffix(b".")?;
        let tag = base64url().decode(tag).ok()?.try_into().ok()?;
        Some(Self { framing: Framing::Compact, header, encrypted_key, iv, ciphertext, tag })
    }

    fn parse_binary(body: &'a [u8]) -> Option<Self> {
        let rest = body.strip_prefix(BINARY_MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (header, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (encrypted_key, rest) = rest.split_first_chunk()?;
        let (iv, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        Some(Self { framing: Framing::Binary, header, encrypted_key: *encrypted_key, iv: *iv, ciphertext, tag: *tag })
    }

    /// The header's JSON.
    pub(super) fn header_json(&self) -> Result<Vec<u8>, JweError> {
        base64url().decode(self.header).map_err(|_| JweError::Header)
    }

    /// The tag as base64url: what ties a reply to the exact ciphertext of its request.
    pub(super) fn tag_segment(&self) -> String {
        base64url().encode(self.tag)
    }

    /// Characters of the header; a request's has a bound of its own.
    pub(super) const fn header_chars(&self) -> usize {
        self.header.len()
    }

    /// Bytes of the plaintext.
    pub(super) fn plaintext_bytes(&self) -> usize {
        match self.framing {
            Framing::Compact => self.ciphertext.len() / 4 * 3 + self.ciphertext.len() % 4 * 3 / 4,
            Framing::Binary => self.ciphertext.len(),
        }
    }

    /// Unwraps the content key.
    pub(super) fn unwrap_key(&self, key: &WrappingKey) -> Result<ContentKey, JweError> {
        let unwrapped = KwAes256::new(key.expose().into())
            .unwrap_fixed_key::<aes_kw::cipher::consts::U32>(&self.encrypted_key.into())
            .map_err(|_| JweError::Unwrap)?;
        Ok(ContentKey(Zeroizing::new(unwrapped.into())))
    }

    /// Decodes the ciphertext and opens it in place. What comes out is authentic.
    pub(super) fn open(&self, key: &ContentKey) -> Result<Zeroizing<Vec<u8>>, JweError> {
        let mut buffer = Zeroizing::new(match self.framing {
            Framing::Compact => base64url().decode(self.ciphertext).map_err(|_| JweError::Ciphertext)?,
            Framing::Binary => self.ciphertext.to_vec(),
        });
        let tag = Tag::from(self.tag);
        Aes256Gcm::new((&*key.0).into())
            .decrypt_inout_detached(&Nonce::from(self.iv), self.header, buffer.as_mut_slice().into(), &tag)
            .map_err(|_| JweError::Tag)?;
        Ok(buffer)
    }
}

/// A content key: made for one message, wiped when dropped.
pub(super) struct ContentKey(Zeroizing<[u8; KEY_BYTES]>);

/// A sealed body, and its tag as base64url.
pub(super) struct Sealed {
    pub(super) body: Bytes,
    pub(super) tag_segment: String,
}

/// Encrypts `plaintext` under a fresh content key, wrapped with `key`, behind the protected header `header_json`.
pub(super) fn seal(
    framing: Framing,
    key: &WrappingKey,
    header_json: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, JweError> {
    Fresh::random()?.seal(framing, key, header_json, plaintext)
}

/// What must never be used for two messages.
pub(super) struct Fresh {
    content_key: ContentKey,
    iv: [u8; IV_BYTES],
}

impl Fresh {
    fn random() -> Result<Self, JweError> {
        let mut fresh = Self { content_key: ContentKey(Zeroizing::new([0; KEY_BYTES])), iv: [0; IV_BYTES] };
        getrandom::fill(&mut *fresh.content_key.0).map_err(|_| JweError::NoRandomness)?;
        getrandom::fill(&mut fresh.iv).map_err(|_| JweError::NoRandomness)?;
        Ok(fresh)
    }

    /// Fixed values: test vectors have to come out the same every time.
    #[cfg(test)]
    pub(super) fn fixed(byte: u8) -> Self {
        Self { content_key: ContentKey(Zeroizing::new([byte; KEY_BYTES])), iv: [byte; IV_BYTES] }
    }

    pub(super) fn seal(
        self,
        framing: Framing,
        key: &WrappingKey,
        header_json: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, JweError> {
        let Self { content_key, iv } = self;
        let header = base64url().encode(header_json);
        if header.len() > MAX_REPLY_HEADER_CHARS {
            return Err(JweError::Header);
        }
        let wrapped: [u8; WRAPPED_KEY_BYTES] = KwAes256::new(key.expose().into())
            .wrap_fixed_key::<aes_kw::cipher::consts::U32>((&*content_key.0).into())
            .into();
        // Wiped on an early return; after a successful encryption it holds ciphertext.
        let mut buffer = Zeroizing::new(plaintext.to_vec());
        let tag = Aes256Gcm::new((&*content_key.0).into())
            .encrypt_inout_detached(&Nonce::from(iv), header.as_bytes(), buffer.as_mut_slice().into())
            .map_err(|_| JweError::Ciphertext)?;
        let tag_segment = base64url().encode(tag);
        let body = match framing {
            Framing::Compact => {
                let (wrapped, iv) = (base64url().encode(wrapped), base64url().encode(iv));
                Bytes::from(
                    [&header, &wrapped, &iv, &base64url().encode(&*buffer), &tag_segment].map(String::as_str).join("."),
                )
            }
            Framing::Binary => {
                let length = u16::try_from(header.len()).map_err(|_| JweError::Header)?.to_be_bytes();
                Bytes::from([BINARY_MAGIC, &length[..], header.as_bytes(), &wrapped, &iv, &buffer, &tag].concat())
            }
        };
        Ok(Sealed { body, tag_segment })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> WrappingKey {
        WrappingKey::new(Zeroizing::new([byte; KEY_BYTES]))
    }

    fn open(framing: Framing, key: &WrappingKey, body: &[u8]) -> Result<Vec<u8>, JweError> {
        let parts = Parts::parse(framing, body)?;
        let content_key = parts.unwrap_key(key)?;
        Ok(parts.open(&content_key)?.to_vec())
    }

    #[test]
    fn every_single_bit_of_a_message_counts() {
        for framing in [Framing::Compact, Framing::Binary] {
            let sealed = seal(framing, &key(1), br#"{"alg":"A256KW"}"#, b"some plaintext").unwrap();
            assert_eq!(open(framing, &key(1), &sealed.body).unwrap(), b"some plaintext");
            for bit in 0..sealed.body.len() * 8 {
                let mut body = sealed.body.to_vec();
                body[bit / 8] ^= 1 << (bit % 8);
                assert!(open(framing, &key(1), &body).is_err(), "{framing:?}: bit {bit} is not protected");
            }
            for length in 0..sealed.body.len() {
                assert!(open(framing, &key(1), &sealed.body[..length]).is_err(), "{framing:?}: cut to {length}");
            }
        }
    }

    /// The parts are found by their sizes: a part too many must not pass for a ciphertext.
    #[test]
    fn a_compact_message_has_five_parts() {
        let sealed = seal(Framing::Compact, &key(1), b"{}", b"some plaintext").unwrap();
        for at in 0..=sealed.body.len() {
            let mut body = sealed.body.to_vec();
            body.insert(at, b'.');
            assert!(open(Framing::Compact, &key(1), &body).is_err(), "a dot more at {at}");
        }
        let parts: Vec<&[u8]> = sealed.body.split(|byte| *byte == b'.').collect();
        for left_out in 0..parts.len() {
            let mut four = parts.clone();
            four.remove(left_out);
            assert!(open(Framing::Compact, &key(1), &four.join(&b'.')).is_err(), "without part {left_out}");
        }
        let empty = seal(Framing::Compact, &key(1), b"{}", b"").unwrap();
        assert_eq!(open(Framing::Compact, &key(1), &empty.body).unwrap(), b"");
    }

    #[test]
    fn another_key_does_not_open() {
        let sealed = seal(Framing::Compact, &key(1), b"{}", b"x").unwrap();
        assert_eq!(open(Framing::Compact, &key(2), &sealed.body), Err(JweError::Unwrap));
    }

    /// RFC 3394, section 4.6: 256 bits of key data wrapped with a 256-bit key.
    #[test]
    fn wrapping_agrees_with_its_rfc() {
        let kek: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let content: [u8; 32] =
            hex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F").try_into().unwrap();
        let wrapped: [u8; 40] =
            KwAes256::new((&kek).into()).wrap_fixed_key::<aes_kw::cipher::consts::U32>((&content).into()).into();
        assert_eq!(
            wrapped.as_slice(),
            hex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")
        );
    }

    /// RFC 7516, appendix A.1: content encryption with A256GCM, from the content key on (its key wrap is another one).
    #[test]
    fn encryption_agrees_with_its_rfc() {
        let segment = |text: &str| base64url().decode(text).unwrap();
        let parts = Parts {
            framing: Framing::Compact,
            header: b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ",
            encrypted_key: [0; WRAPPED_KEY_BYTES],
            iv: segment("48V1_ALb6US04U3b").try_into().unwrap(),
            ciphertext: b"5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A",
            tag: segment("XFBoMYUZodetZdvTiFvSkQ").try_into().unwrap(),
        };
        let content_key = [
            177, 161, 244, 128, 84, 143, 225, 115, 63, 180, 3, 255, 107, 154, 212, 246, 138, 7, 110, 91, 112, 46, 34,
            105, 47, 130, 203, 46, 122, 234, 64, 252,
        ];
        let plaintext = parts.open(&ContentKey(Zeroizing::new(content_key))).unwrap();
        assert_eq!(plaintext.as_slice(), b"The true sign of intelligence is not knowledge but imagination.");
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plaintext in proptest::collection::vec(any::<u8>(), 0..300)) {
            for framing in [Framing::Compact, Framing::Binary] {
                let sealed = seal(framing, &key(7), b"{}", &plaintext).unwrap();
                let parts = Parts::parse(framing, &sealed.body).unwrap();
                prop_assert_eq!(parts.plaintext_bytes(), plaintext.len());
                prop_assert_eq!(parts.tag_segment(), sealed.tag_segment);
                prop_assert_eq!(open(framing, &key(7), &sealed.body).unwrap(), plaintext.clone());
            }
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for framing in [Framing::Compact, Framing::Binary] {
                let _either = open(framing, &key(1), &body);
            }
        }
    }
}
