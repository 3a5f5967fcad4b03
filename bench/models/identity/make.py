"""Makes the identity model: y = x, FP32 [N, 4]. For measuring everything that is not inference, and for tests.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 && venv/bin/python bench/models/identity/make.py
"""

import hashlib
from pathlib import Path

from onnx import TensorProto, checker, helper

HERE = Path(__file__).parent / "1"


def main() -> None:
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="inferq")
    checker.check_model(model, full_check=True)
    (HERE / "model.onnx").write_bytes(model.SerializeToString())
    digest = hashlib.sha256((HERE / "model.onnx").read_bytes()).hexdigest()
    (HERE / "model.toml").write_text(f'''\
name = "identity"
version = 1
description = "answers its input; what a job costs without inference"
file = "model.onnx"
sha256 = "{digest}"
licence = "MIT OR Apache-2.0"
source = "bench/models/identity/make.py"
batch_scope = "shared"

[preprocess]
kind = "tensor"

[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 4]

[[outputs]]
name = "y"
datatype = "FP32"
shape = [-1, 4]

[postprocess]
kind = "raw"

[batching]
max_batch_size = 32
''')


if __name__ == "__main__":
    main()
