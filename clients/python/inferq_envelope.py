"""The envelope of a job and of its reply: JWE with A256KW and A256GCM, by the stock JOSE library joserfc.

Used by inferq_client; needs no broker. docs/wire-protocol.md describes every field.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwe
from joserfc.jwk import OctKey

ALGORITHMS = ["A256KW", "A256GCM"]
CONTENT_TYPE_COMPACT = "application/jose"
CONTENT_TYPE_BINARY = "application/vnd.inferq.jwe"
TYPE_REQUEST = "inferq.request.v1"
TYPE_ANNOUNCEMENT = "inferq.models.v1"
TYPE_QUERY = "inferq.query.v1"
HEADER_TENANT = "x-inferq-tenant"
HEADER_JSON_LENGTH = "inference-header-content-length"
MAX_HEADER_CHARS = 2048
CLOCK_SKEW_S = 60
REPLY_CLAIMS = {
    "alg", "enc", "typ", "cty", "kid", "iss", "aud", "jti", "cid", "rto", "irt", "rqt", "iat", "exp",
}  # fmt: skip
ANNOUNCEMENT_CLAIMS = {"alg", "enc", "typ", "cty", "kid", "iss", "aud", "jti", "iat", "exp"}
MAX_ANNOUNCEMENT_LIFETIME_S = 24 * 3600
MAGIC = b"MQJ1"


class EnvelopeError(Exception):
    """A key, a message or a reply that is not what it should be. Never holds key material or content."""


class _Registry(jwe.JWERegistry):
    """joserfc's registry with this protocol's bounds: its own are 1,024 characters of header and 64 KiB of content."""

    max_protected_header_length = MAX_HEADER_CHARS + 256
    max_ciphertext_length = 96 * 1024 * 1024


# Header names such as cid and rto are this protocol's own: the strict check would refuse them.
_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


@dataclass(frozen=True)
class Key:
    """One shared key, with the id that its tenant, direction and bytes make."""

    kid: str
    tenant: str
    jwk: OctKey

    @classmethod
    def from_jwk(cls, members: dict, direction: str) -> "Key":
        """Reads a JWK file's members; direction is "req" or "res"."""
        if members.get("kty") != "oct" or members.get("alg") != "A256KW":
            raise EnvelopeError("a key must have kty oct and alg A256KW")
        kid = str(members.get("kid"))
        tenant = kid.split(".")[0]
        raw = _decode(str(members.get("k")).encode())
        if len(raw) != 32:
            raise EnvelopeError(f"key {kid} has {len(raw)} bytes, 32 were expected")
        fingerprint = _encode(hmac.new(raw, b"inferq-kid-v1", hashlib.sha256).digest()).decode()[:16]
        if kid != f"{tenant}.{direction}.{fingerprint}":
            raise EnvelopeError(f"kid {kid} is not the id that this key has for direction {direction}")
        return cls(kid, tenant, OctKey.import_key(raw))


@dataclass(frozen=True)
class Keys:
    """A tenant's keys: one to seal requests, one or more to open replies."""

    request: Key
    responses: dict

    @classmethod
    def from_jwks(cls, request: dict, *responses: dict) -> "Keys":
        opened = [Key.from_jwk(members, "res") for members in responses]
        request_key = Key.from_jwk(request, "req")
        if not opened or any(key.tenant != request_key.tenant for key in opened):
            raise EnvelopeError("the request key and at least one response key of the same tenant are needed")
        return cls(request_key, {key.kid: key for key in opened})

    @classmethod
    def load(cls, directory, tenant: str) -> "Keys":
        """Reads <directory>/<tenant>/request.jwk and response*.jwk, as `inferq keys generate` writes them."""
        folder = Path(directory) / tenant
        request = _read_jwk(folder / "request.jwk")
        return cls.from_jwks(request, *(_read_jwk(path) for path in sorted(folder.glob("response*.jwk"))))

    @property
    def tenant(self) -> str:
        return self.request.tenant


@dataclass(frozen=True)
class Pending:
    """What a reply must prove to answer a certain request."""

    message_id: str
    correlation_id: str
    reply_to: str
    service: str
    request_tag: str


@dataclass(frozen=True)
class SealedRequest:
    """A message body with the AMQP properties that must go with it."""

    body: bytes
    content_type: str
    headers: dict
    timestamp: int
    pending: Pending


def seal_request(
    keys: Keys,
    plaintext: bytes,
    *,
    model: str,
    reply_to: str,
    json_length: int | None = None,
    service: str = "inferq.v1",
    lifetime_s: int = 300,
    message_id: str | None = None,
    correlation_id: str | None = None,
    now: int | None = None,
) -> SealedRequest:
    """Encrypts a request. json_length: where its JSON ends, if binary tensors follow it."""
    now = int(time.time()) if now is None else now
    message_id = message_id or secrets.token_hex(16)
    correlation_id = correlation_id or message_id
    header = {
        "alg": "A256KW", "enc": "A256GCM", "typ": "inferq-req+jwe",
        "cty": "json" if json_length is None else "x-tensor",
        "kid": keys.request.kid, "iss": keys.tenant, "aud": service,
        "jti": message_id, "cid": correlation_id, "rto": reply_to, "mdl": model,
        "iat": now, "exp": now + lifetime_s,
    }  # fmt: skip
    compact = jwe.encrypt_compact(header, plaintext, keys.request.jwk, registry=_REGISTRY).encode()
    if compact.index(b".") > MAX_HEADER_CHARS:
        raise EnvelopeError(f"the header has more than {MAX_HEADER_CHARS} characters: shorten the ids")
    pending = Pending(message_id, correlation_id, reply_to, service, compact.rsplit(b".", 1)[1].decode())
    if json_length is None:
        return SealedRequest(compact, CONTENT_TYPE_COMPACT, {}, now, pending)
    return SealedRequest(to_binary(compact), CONTENT_TYPE_BINARY, {HEADER_JSON_LENGTH: json_length}, now, pending)


def open_reply(
    keys: Keys, pending: Pending, body: bytes, content_type: str, now: int | None = None
) -> tuple[bytes, str]:
    """Decrypts a reply and checks that it answers exactly the request that pending stands for.

    Answers the plaintext and its kind, "json" or "x-tensor".
    """
    now = int(time.time()) if now is None else now
    compact = to_compact(body) if content_type == CONTENT_TYPE_BINARY else body
    header = _read_header(compact)
    if (header["alg"], header["enc"], header["typ"]) != ("A256KW", "A256GCM", "inferq-res+jwe"):
        raise EnvelopeError("not a reply of this protocol")
    key = keys.responses.get(header["kid"])
    if key is None:
        raise EnvelopeError("the reply is sealed with a key that is not this tenant's")
    try:
        plaintext = jwe.decrypt_compact(compact, key.jwk, registry=_REGISTRY).plaintext
    except Exception as error:  # the library lets errors of base64 and of its cryptography through as they are
        raise EnvelopeError("the reply does not open") from error
    bound = {
        "iss": pending.service, "aud": keys.tenant, "cid": pending.correlation_id,
        "rto": pending.reply_to, "irt": pending.message_id, "rqt": pending.request_tag,
    }  # fmt: skip
    for claim, expected in bound.items():
        if header[claim] != expected:
            raise EnvelopeError(f"the reply's {claim} does not match the request")
    if not header["iat"] - CLOCK_SKEW_S <= now <= header["exp"] + CLOCK_SKEW_S:
        raise EnvelopeError("the reply is outside its time window")
    if header["cty"] not in ("json", "x-tensor"):
        raise EnvelopeError("the reply's cty is neither json nor x-tensor")
    return plaintext, header["cty"]


def open_announcement(keys: Keys, body: bytes, *, service: str = "inferq.v1", now: int | None = None) -> tuple[bytes, int]:
    """Decrypts a worker's announcement for this tenant; answers its JSON and for how many seconds it holds."""
    now = int(time.time()) if now is None else now
    header = _read_header(body, ANNOUNCEMENT_CLAIMS)
    pinned = (header["alg"], header["enc"], header["typ"], header["cty"])
    if pinned != ("A256KW", "A256GCM", "inferq-ann+jwe", "json"):
        raise EnvelopeError("not an announcement of this protocol")
    key = keys.responses.get(header["kid"])
    if key is None:
        raise EnvelopeError("the announcement is sealed with a key that is not at hand")
    try:
        plaintext = jwe.decrypt_compact(body, key.jwk, registry=_REGISTRY).plaintext
    except Exception as error:  # joserfc lets errors of its cryptography through as they are
        raise EnvelopeError("the announcement does not open") from error
    if (header["iss"], header["aud"]) != (service, keys.tenant):
        raise EnvelopeError("the announcement is of another service or for another tenant")
    lifetime_s = header["exp"] - header["iat"]
    current = header["iat"] - CLOCK_SKEW_S <= now <= header["exp"] + CLOCK_SKEW_S
    if not current or not 0 <= lifetime_s <= MAX_ANNOUNCEMENT_LIFETIME_S:
        raise EnvelopeError("the announcement is outside its time window")
    return plaintext, lifetime_s


def to_binary(compact: bytes) -> bytes:
    """The binary framing of a compact JWE: for large bodies, a quarter shorter."""
    if compact.count(b".") != 4:
        raise EnvelopeError("not a JWE in compact form")
    header, key, iv, ciphertext, tag = compact.split(b".")
    parts = (_decode(key), _decode(iv), _decode(ciphertext), _decode(tag))
    if len(header) > 0xFFFF or (len(parts[0]), len(parts[1]), len(parts[3])) != (40, 12, 16):
        raise EnvelopeError("the parts of a JWE do not have the sizes of A256KW and A256GCM")
    return MAGIC + len(header).to_bytes(2, "big") + header + b"".join(parts)


def to_compact(framed: bytes) -> bytes:
    """The compact form of a JWE in binary framing."""
    if len(framed) < 6 or framed[:4] != MAGIC:
        raise EnvelopeError("not a JWE in binary framing")
    start = 6 + int.from_bytes(framed[4:6], "big")
    header, rest = framed[6:start], framed[start:]
    if len(rest) < 40 + 12 + 16:
        raise EnvelopeError("a JWE in binary framing is cut short")
    parts = (rest[:40], rest[40:52], rest[52:-16], rest[-16:])
    return b".".join((header, *(_encode(part) for part in parts)))


def _read_header(compact: bytes, claims: set = REPLY_CLAIMS) -> dict:
    """The protected header, with exactly these claims."""
    segment = compact.split(b".", 1)[0]
    if len(segment) > _REGISTRY.max_protected_header_length:
        raise EnvelopeError("the reply's header is too long")
    try:
        header = json.loads(_decode(segment), object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise EnvelopeError("the reply's header is no JSON") from error
    if not isinstance(header, dict) or set(header) != claims:
        raise EnvelopeError("the reply's header does not have exactly its claims")
    for claim, value in header.items():
        kind = int if claim in ("iat", "exp") else str
        if type(value) is not kind:
            raise EnvelopeError(f"the reply's {claim} is of the wrong kind")
    return header


def _without_duplicates(pairs: list) -> dict:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _read_jwk(path: Path) -> dict:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise EnvelopeError(f"others can read {path}; run: chmod 600 '{path}'")
    return json.loads(path.read_text())


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise EnvelopeError("not base64url") from error
