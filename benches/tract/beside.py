"""Runs the batches that come on standard input in onnxruntime on one thread, and answers what each has cost.

A line is a JSON list of rows of ids of one length; the answer is a JSON list of the milliseconds of CPU that the run took on its
thread, and the outputs. Started by the benchmark with the model's file as its argument.
"""

import json
import sys
import time

import numpy
import onnxruntime


def main(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for line in sys.stdin:
        ids = numpy.array(json.loads(line), dtype=numpy.int64)
        start = time.thread_time()
        (outputs,) = session.run(None, {"input_ids": ids})
        took = (time.thread_time() - start) * 1e3
        print(json.dumps([took, outputs.ravel().tolist()]), flush=True)


main(sys.argv[1])
