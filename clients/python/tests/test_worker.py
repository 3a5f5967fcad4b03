"""The client against a real broker and a real worker, where INFERQ_AMQP_URL and INFERQ_TEST_KEYS name them."""

import json
import os
import struct
import unittest

from inferq_client import Client, JobFailed, Keys, NotAccepted, UnknownModel

URL = os.environ.get("INFERQ_AMQP_URL")
KEYS = os.environ.get("INFERQ_TEST_KEYS")
PATIENCE_S = 60


@unittest.skipUnless(URL and KEYS, "needs a broker and a worker")
class Worker(unittest.TestCase):
    def setUp(self):
        self.client = Client(URL, Keys.load(KEYS, "acme"))
        self.addCleanup(self.client.close)

    def test_texts_are_classified(self):
        jobs = {
            "recreation": self.client.submit("topic", "the goalie stopped every shot in overtime"),
            "religion": self.client.submit("topic:1", "the church and the gospel of jesus christ"),
        }
        for label, job in reversed(jobs.items()):
            response = job.result(PATIENCE_S)
            self.assertEqual(response.outputs["label"].data, [label])
            self.assertEqual((response.model_name, response.model_version), ("topic", "1"))

    def test_one_job_may_have_many_rows(self):
        texts = ["the goalie stopped every shot", "windows crashed after the driver update"]
        response = self.client.submit("topic", texts).result(PATIENCE_S)
        self.assertEqual(response.outputs["label"].data, ["recreation", "computers"])
        self.assertEqual(response.outputs["probabilities"].shape[0], 2)

    def test_tensors_travel_as_binary_data_both_ways(self):
        text = "the goalie stopped every shot".encode()
        tail = struct.pack("<I", len(text)) + text
        head = json.dumps({
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }).encode()  # fmt: skip
        job = self.client.submit_body("topic", head + tail, json_length=len(head))
        output = job.result(PATIENCE_S).outputs["probabilities"]
        self.assertEqual((output.datatype, output.shape), ("FP32", [1, len(output.data)]))
        self.assertAlmostEqual(sum(output.data), 1.0, places=4)

    def test_errors_are_answered_with_their_code(self):
        unasking = Client(URL, Keys.load(KEYS, "acme"), discovery_wait_s=None)
        self.addCleanup(unasking.close)
        for model, body, code in (
            ("topic:9", b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["x"]}]}', "UNKNOWN_MODEL"),
            ("topic", b'{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["x"]}]}', "INVALID_INPUT"),
            ("topic", b'{"inputs":[{"name":"text","shape":[1],"datatype":"FP32","data":[NaN]}]}', "MALFORMED_REQUEST"),
        ):
            with self.assertRaises(JobFailed) as failed:
                unasking.submit_body(model, body).result(PATIENCE_S)
            self.assertEqual(failed.exception.code, code)

    def test_a_job_that_is_late_already_is_told(self):
        with self.assertRaises(JobFailed) as failed:
            self.client.submit("topic", "late", deadline_s=-1).result(PATIENCE_S)
        self.assertEqual(failed.exception.code, "DEADLINE_EXCEEDED")

    def test_a_model_that_nobody_serves_is_not_accepted(self):
        unasking = Client(URL, Keys.load(KEYS, "acme"), discovery_wait_s=None)
        self.addCleanup(unasking.close)
        with self.assertRaises(NotAccepted) as refused:
            unasking.submit("nosuch", "x")
        self.assertNotIsInstance(refused.exception, UnknownModel)

    def test_the_workers_tell_what_they_serve(self):
        topic = self.client.models()["topic"]
        self.assertEqual((topic.replicas, list(topic.versions)), (1, [1]))
        version = topic.versions[1]
        self.assertEqual((version["inputs"][0]["name"], version["label_count"]), ("text", 5))
        self.assertIn("recreation", version["labels"])

    def test_an_unknown_model_is_refused_before_it_is_sent(self):
        for model, words in (("topik", "served are `topic`"), ("topic:9", "has no version 9; it has 1")):
            with self.assertRaises(UnknownModel) as refused:
                self.client.submit(model, "x")
            self.assertIn(words, str(refused.exception))


if __name__ == "__main__":
    unittest.main()
