"""What a client makes of what it hears; needs no broker."""

import json
import secrets
import time
import unittest

from joserfc import jwe

from inferq_discovery import Directory
from inferq_envelope import _REGISTRY, EnvelopeError, Key, Keys, _encode, open_announcement


def word(instance, sequence, *models, leaving=False, complete=True):
    said = [{"name": name, "versions": [{"version": number} for number in numbers]} for name, numbers in models]
    return {"instance": instance, "sequence": sequence, "leaving": leaving, "complete": complete, "models": said}


class Heard(unittest.TestCase):
    def setUp(self):
        self.directory = Directory()

    def test_replicas_are_counted_and_a_goodbye_holds(self):
        self.directory.hear(word("a", 1, ("topic", [1])), 35, 0)
        self.directory.hear(word("b", 1, ("topic", [1, 2])), 35, 1)
        topic = self.directory.models(2)["topic"]
        self.assertEqual((topic.replicas, topic.versions[1]["replicas"], topic.versions[2]["replicas"]), (2, 2, 1))
        self.assertTrue(self.directory.hear(word("a", 2, leaving=True), 35, 2))
        self.assertFalse(self.directory.hear(word("a", 1, ("topic", [1])), 35, 3))
        self.assertEqual(self.directory.models(3)["topic"].replicas, 1)
        self.assertEqual(self.directory.models(37), {})

    def test_refusals_name_what_there_is_and_silence_refuses_nothing(self):
        self.assertIsNone(self.directory.refusal("topik", 0))
        self.directory.hear(word("a", 1, ("identity", [1]), ("topic", [1, 3])), 35, 0)
        self.assertIsNone(self.directory.refusal("topic:3", 1))
        self.assertIn("served are `topic`, `identity`", self.directory.refusal("topik", 1))
        self.assertIn("has no version 2; it has 1, 3", self.directory.refusal("topic:2", 1))
        self.directory.hear(word("b", 1, complete=False), 35, 1)
        self.assertIsNone(self.directory.refusal("topik", 1), "not everything was said")

    def test_a_known_model_without_workers_is_away_and_not_unknown(self):
        self.directory.hear(word("a", 1, ("topic", [1])), 35, 0)
        self.directory.hear(word("b", 1, ("other", [1])), 35, 0)
        self.directory.hear(word("a", 2, leaving=True), 35, 1)
        self.assertIsNone(self.directory.refusal("topic", 2))
        self.assertIsNotNone(self.directory.refusal("third", 2))


class Envelope(unittest.TestCase):
    def setUp(self):
        self.keys = Keys(self.key("acme", "req"), {})
        response = self.key("acme", "res")
        self.keys.responses[response.kid] = response
        self.now = int(time.time())
        self.header = {
            "alg": "A256KW", "enc": "A256GCM", "typ": "inferq-ann+jwe", "cty": "json", "kid": response.kid,
            "iss": "inferq.v1", "aud": "acme", "jti": "1", "iat": self.now, "exp": self.now + 35,
        }  # fmt: skip
        self.response = response

    @staticmethod
    def key(tenant, direction):
        import hashlib
        import hmac

        raw = secrets.token_bytes(32)
        fingerprint = _encode(hmac.new(raw, b"inferq-kid-v1", hashlib.sha256).digest()).decode()[:16]
        members = {"kty": "oct", "alg": "A256KW", "kid": f"{tenant}.{direction}.{fingerprint}", "k": _encode(raw).decode()}
        return Key.from_jwk(members, direction)

    def sealed(self, **changes):
        header = {**self.header, **changes}
        return jwe.encrypt_compact(header, json.dumps(word("a", 1)), self.response.jwk, registry=_REGISTRY).encode()

    def test_an_announcement_opens(self):
        plaintext, lifetime_s = open_announcement(self.keys, self.sealed(), now=self.now)
        self.assertEqual((json.loads(plaintext)["instance"], lifetime_s), ("a", 35))

    def test_what_is_changed_foreign_or_old_does_not(self):
        changed = bytearray(self.sealed())
        changed[-30] ^= 1
        bodies = [bytes(changed), self.sealed(typ="inferq-res+jwe"), self.sealed(iss="other"), self.sealed(aud="other")]
        bodies += [self.sealed(exp=self.now + 25 * 3600), self.sealed(iat=self.now - 400, exp=self.now - 365), b"x"]
        bodies += [self.sealed(kid="acme.res.unknown"), self.sealed(more="x")]
        for body in bodies:
            with self.assertRaises(EnvelopeError):
                open_announcement(self.keys, body, now=self.now)


if __name__ == "__main__":
    unittest.main()
