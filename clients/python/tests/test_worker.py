"""The client against a real broker and a real worker, where INFERQ_AMQP_URL and INFERQ_TEST_KEYS name them."""

import json
import os
import struct
import unittest

from inferq_client import Client, JobFailed, Keys, NotAccepted

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
        for model, body, code in (
            ("topic:9", b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["x"]}]}', "UNKNOWN_MODEL"),
            ("topic", b'{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["x"]}]}', "INVALID_INPUT"),
            ("topic", b'{"inputs":[{"name":"text","shape":[1],"datatype":"FP32","data":[NaN]}]}', "MALFORMED_REQUEST"),
        ):
            with self.assertRaises(JobFailed) as failed:
                self.client.submit_body(model, body).result(PATIENCE_S)
            self.assertEqual(failed.exception.code, code)

    def test_a_job_that_is_late_already_is_told(self):
        with self.assertRaises(JobFailed) as failed:
            self.client.submit("topic", "late", deadline_s=-1).result(PATIENCE_S)
        self.assertEqual(failed.exception.code, "DEADLINE_EXCEEDED")

    def test_a_model_that_nobody_serves_is_not_accepted(self):
        with self.assertRaises(NotAccepted):
            self.client.submit("nosuch", "x")


if __name__ == "__main__":
    unittest.main()
