"""Seals two requests with the keys of the vectors and prints them as JSON lines, for the Rust side to open."""

import json
import sys
from pathlib import Path

from inferq_client import text_request
from inferq_envelope import Keys, seal_request

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors"


def main() -> None:
    read = json.loads((VECTORS / "keys.json").read_text())
    keys = Keys.from_jwks(read["request_jwk"], read["response_jwk"])
    text = json.dumps(text_request(["schöne Grüße"], request_id="7")).encode()
    head = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT16", "parameters": {"binary_data_size": 4}}]}
    ).encode()
    for body, length in ((text, None), (head + b"\x01\x00\xff\xff", len(head))):
        sealed = seal_request(keys, body, model="topic", reply_to="acme.replies.py", json_length=length)
        pending = sealed.pending
        line = {
            "body_hex": sealed.body.hex(), "content_type": sealed.content_type, "headers": sealed.headers,
            "message_id": pending.message_id, "correlation_id": pending.correlation_id, "reply_to": pending.reply_to,
        }  # fmt: skip
        json.dump(line, sys.stdout)
        print()


if __name__ == "__main__":
    main()
