"""Writes models/identity/1/model.onnx: y = x, FP32 [N, 4]. Run it with the package `onnx`: python make.py

The digest that it prints belongs into model.toml. The model answers what it was sent, so that what a benchmark measures
is the way there and back, not arithmetic.
"""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

PATH = Path(__file__).parent / "1" / "model.onnx"


def main():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, producer_name="", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    PATH.write_bytes(model.SerializeToString())
    print(hashlib.sha256(PATH.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
