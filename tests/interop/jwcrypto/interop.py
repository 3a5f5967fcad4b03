"""Opens every test vector with jwcrypto, and seals two requests for the Rust side to open: one JSON line each."""

import base64
import json
import sys
import time
import uuid
from pathlib import Path

from jwcrypto import jwe, jwk
from jwcrypto.common import JWSEHeaderParameter

# Private members of the header have to be registered, or jwcrypto refuses them.
PRIVATE = ("iss", "aud", "jti", "cid", "rto", "mdl", "iat", "exp", "irt", "rqt")
REGISTRY = {name: JWSEHeaderParameter(name, True, True, None) for name in PRIVATE}


def compact(body: bytes) -> str:
    """The compact form of a body in the binary framing: the same five parts."""
    assert body[:4] == b"MQJ1"
    header = 6 + int.from_bytes(body[4:6], "big")
    cuts = ((header, header + 40), (header + 40, header + 52), (header + 52, -16), (len(body) - 16, len(body)))
    parts = [base64.urlsafe_b64encode(body[start:end]).rstrip(b"=").decode() for start, end in cuts]
    return ".".join([body[6:header].decode(), *parts])


def opened(token: str, key: jwk.JWK) -> jwe.JWE:
    """An opened envelope; only the pinned algorithms are taken."""
    envelope = jwe.JWE(algs=["A256KW", "A256GCM"], header_registry=REGISTRY)
    envelope.deserialize(token, key)
    return envelope


def main() -> None:
    vectors = Path(sys.argv[1])
    read = json.loads((vectors / "keys.json").read_text())
    keys = {name: jwk.JWK(**read[member]) for name, member in (("request", "request_jwk"), ("reply", "response_jwk"))}
    for name in ("request-text", "request-tensor", "reply-text", "reply-tensor", "reply-error"):
        vector = json.loads((vectors / f"{name}.json").read_text())
        token = vector["body"] or compact(bytes.fromhex(vector["body_hex"]))
        envelope = opened(token, keys[name.split("-")[0]])
        assert envelope.payload.hex() == vector["plaintext_hex"], name
        header = json.loads(envelope.objects["protected"])
        assert header == vector["protected_header"], name
        print(f"opened {name}", file=sys.stderr)

    text = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["schöne Grüße"]}]}
    tensor = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT16", "parameters": {"binary_data_size": 4}}]}
    head = json.dumps(tensor).encode()
    for plaintext, length in ((json.dumps(text).encode(), None), (head + b"\x01\x00\xff\xff", len(head))):
        job, now, queue = str(uuid.uuid4()), int(time.time()), "acme.replies.jw"
        header = {
            "alg": "A256KW", "enc": "A256GCM", "typ": "inferq-req+jwe", "cty": "x-tensor" if length else "json",
            "kid": read["request_jwk"]["kid"], "iss": read["tenant"], "aud": "inferq.v1", "jti": job, "cid": job,
            "rto": queue, "mdl": "topic", "iat": now, "exp": now + 300,
        }  # fmt: skip
        envelope = jwe.JWE(plaintext, json.dumps(header), header_registry=REGISTRY)
        envelope.add_recipient(keys["request"])
        line = {
            "body_hex": envelope.serialize(compact=True).encode().hex(), "content_type": "application/jose",
            "headers": {"inference-header-content-length": length} if length else {},
            "message_id": job, "correlation_id": job, "reply_to": queue,
        }  # fmt: skip
        print(json.dumps(line))


if __name__ == "__main__":
    main()
