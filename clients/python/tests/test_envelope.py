"""The Python side against the vectors that the Rust side writes: tests/vectors/*.json."""

import base64
import json
import os
import stat
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from joserfc import jwe

import inferq_envelope
from inferq_client import JobFailed, Response, read_response, text_request
from inferq_envelope import EnvelopeError, Key, Keys, Pending, open_reply, seal_request, to_binary, to_compact

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors"


def vector(name: str) -> dict:
    read = json.loads((VECTORS / f"{name}.json").read_text())
    read["bytes"] = read["body"].encode() if read.get("body") else bytes.fromhex(read.get("body_hex") or "")
    return read


def keys() -> Keys:
    read = json.loads((VECTORS / "keys.json").read_text())
    return Keys.from_jwks(read["request_jwk"], read["response_jwk"])


def pending(request: dict) -> Pending:
    header = request["protected_header"]
    return Pending(header["jti"], header["cid"], header["rto"], header["aud"], request["tag_segment"])


def opened(reply: dict, request: dict) -> tuple:
    return open_reply(keys(), pending(request), reply["bytes"], reply["properties"]["content_type"], reply["now"])


class Requests(unittest.TestCase):
    def test_the_workers_vectors_open_with_a_stock_library(self):
        for name in ("request-text", "request-tensor"):
            request = vector(name)
            compact = request["bytes"] if request["body"] else to_compact(request["bytes"])
            read = jwe.decrypt_compact(compact, keys().request.jwk, registry=inferq_envelope._REGISTRY)
            self.assertEqual(read.plaintext.hex(), request["plaintext_hex"])
            self.assertEqual(read.headers(), request["protected_header"])

    def test_a_sealed_request_says_what_the_vector_says(self):
        wanted = vector("request-text")
        header = wanted["protected_header"]
        sealed = seal_request(
            keys(), bytes.fromhex(wanted["plaintext_hex"]), model=header["mdl"], reply_to=header["rto"],
            message_id=header["jti"], correlation_id=header["cid"], now=wanted["now"],
        )  # fmt: skip
        segment = sealed.body.split(b".")[0]
        self.assertEqual(json.loads(base64.urlsafe_b64decode(segment + b"==")), header)
        self.assertEqual(sealed.content_type, wanted["properties"]["content_type"])
        self.assertEqual(sealed.pending.request_tag, sealed.body.rsplit(b".", 1)[1].decode())

    def test_the_two_framings_are_one_message(self):
        framed = vector("request-tensor")["bytes"]
        self.assertEqual(to_binary(to_compact(framed)), framed)
        for length in (0, 3, 5, 6, 80):
            with self.assertRaises(EnvelopeError, msg=str(length)):
                to_compact(framed[:length])

    def test_a_header_that_the_worker_would_refuse_is_refused_here(self):
        with self.assertRaises(EnvelopeError):
            seal_request(keys(), b"{}", model="topic", reply_to="acme." + "x" * 250, correlation_id="y" * 2000)

    def test_a_large_body_passes_the_librarys_own_bounds(self):
        sealed = seal_request(keys(), b" " * 300_000, model="topic", reply_to="acme.r")
        read = jwe.decrypt_compact(sealed.body, keys().request.jwk, registry=inferq_envelope._REGISTRY)
        self.assertEqual(len(read.plaintext), 300_000)


class Replies(unittest.TestCase):
    def test_a_result_opens(self):
        plaintext, kind = opened(vector("reply-text"), vector("request-text"))
        response = read_response(plaintext)
        self.assertIsInstance(response, Response)
        self.assertEqual((kind, response.outputs["label"].data, response.id), ("json", ["recreation"], "42"))

    def test_an_error_opens(self):
        plaintext, _ = opened(vector("reply-error"), vector("request-text"))
        failed = read_response(plaintext)
        self.assertIsInstance(failed, JobFailed)
        self.assertEqual((failed.code, failed.message), ("UNKNOWN_MODEL", "model `topic` has no version 3; it has 1"))

    def test_binary_tensors_open(self):
        reply = vector("reply-tensor")
        plaintext, kind = opened(reply, vector("request-tensor"))
        response = read_response(plaintext, reply["properties"]["headers"]["inference-header-content-length"])
        self.assertEqual((kind, response.outputs["logits"].data), ("x-tensor", [0.5, -1.25]))

    def test_a_reply_answers_one_request_only(self):
        reply, asked = vector("reply-text"), pending(vector("request-text"))
        for change in (
            {"message_id": "another"}, {"correlation_id": "another"}, {"reply_to": "acme.another"},
            {"service": "inferq.v2"}, {"request_tag": "another"},
        ):  # fmt: skip
            with self.assertRaisesRegex(EnvelopeError, "does not match the request", msg=str(change)):
                open_reply(keys(), replace(asked, **change), reply["bytes"], "application/jose", reply["now"])

    def test_a_reply_has_a_time_window(self):
        reply, asked = vector("reply-text"), pending(vector("request-text"))
        for offset in (-61, 86_400 + 61):
            with self.assertRaisesRegex(EnvelopeError, "time window"):
                open_reply(keys(), asked, reply["bytes"], "application/jose", reply["now"] + offset)

    def test_every_bit_of_a_reply_counts(self):
        reply, asked = vector("reply-text"), pending(vector("request-text"))
        for bit in range(len(reply["bytes"]) * 8):
            broken = bytearray(reply["bytes"])
            broken[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(EnvelopeError, msg=str(bit)):
                open_reply(keys(), asked, bytes(broken), "application/jose", reply["now"])

    def test_a_reply_has_one_spelling(self):
        reply, asked = vector("reply-text"), pending(vector("request-text"))
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        # The last character of the tag has four bits that say nothing.
        last = alphabet.index(chr(reply["bytes"][-1]))
        for other in (last & 0b110000 | low for low in range(16) if low != last & 0b1111):
            respelt = reply["bytes"][:-1] + alphabet[other].encode()
            with self.assertRaises(EnvelopeError, msg=alphabet[other]):
                open_reply(keys(), asked, respelt, "application/jose", reply["now"])

    def test_a_request_is_no_reply(self):
        request = vector("request-text")
        with self.assertRaises(EnvelopeError):
            opened(request, request)

    def test_a_reply_that_cannot_be_read_is_still_an_answer(self):
        for plaintext in (b"[]", b"{}", b"\xff", b'{"outputs":[]}', b'{"error":"x"}'):
            self.assertEqual(read_response(plaintext).code, "UNREADABLE_REPLY")


class KeyFiles(unittest.TestCase):
    def test_a_key_cannot_take_anothers_id_or_direction(self):
        read = json.loads((VECTORS / "keys.json").read_text())
        with self.assertRaises(EnvelopeError):
            Key.from_jwk(read["request_jwk"], "res")
        with self.assertRaises(EnvelopeError):
            Key.from_jwk({**read["request_jwk"], "k": read["response_jwk"]["k"]}, "req")

    @unittest.skipUnless(os.name == "posix", "permissions are POSIX's")
    def test_a_file_that_others_can_read_is_refused(self):
        read = json.loads((VECTORS / "keys.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            tenant = Path(folder) / "acme"
            tenant.mkdir()
            for name in ("request", "response"):
                path = tenant / f"{name}.jwk"
                path.write_text(json.dumps(read[f"{name}_jwk"]))
                path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            self.assertEqual(Keys.load(folder, "acme").tenant, "acme")
            (tenant / "request.jwk").chmod(0o644)
            with self.assertRaisesRegex(EnvelopeError, "chmod 600"):
                Keys.load(folder, "acme")


class Bodies(unittest.TestCase):
    def test_texts_become_rows(self):
        self.assertEqual(
            text_request(["a", "b"], request_id="1"),
            {"id": "1", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]},
        )


if __name__ == "__main__":
    unittest.main()
