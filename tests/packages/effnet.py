"""EfficientNet-lite0 as ONNX, from the weights that its package has: a file of torch's older format, read without torch."""

import collections
import pickle

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# Kernel, stride, expansion, output channels, repeats (Google's EfficientNet-lite).
BLOCKS = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1)]
TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8", "IntStorage": "<i4", "HalfStorage": "<f2"}


class Weights(pickle.Unpickler):
    """Only tensors, and nothing that runs."""

    def __init__(self, file):
        super().__init__(file)
        self.stored = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if name in TYPES:
            return name
        if name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return lambda *parts: parts
        raise pickle.UnpicklingError(f"{module}.{name} is no tensor")

    def persistent_load(self, own):
        _, kind, key, _, count, *_ = own
        self.stored[key] = (TYPES[kind], count)
        return key


def read(file):
    """Names and arrays in a file of torch's format before 1.6."""
    for _ in range(3):
        pickle.load(file)
    unpickler = Weights(file)
    tensors = unpickler.load()
    keys = pickle.load(file)
    arrays = {}
    for key in keys:
        kind, count = unpickler.stored[key]
        file.read(8)
        arrays[key] = np.frombuffer(file.read(count * np.dtype(kind).itemsize), kind)
    found = {}
    for name, (key, offset, size, *_) in tensors.items():
        count = int(np.prod(size))
        found[name] = arrays[key][offset:offset + count].reshape(size)
    return found


class Graph:
    def __init__(self, weights):
        self.weights, self.nodes, self.constants, self.count = weights, [], [], 0

    def add(self, operator, *inputs, **attributes):
        self.count += 1
        name = f"{operator.lower()}_{self.count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name, array=None):
        array = self.weights[name].astype("f4") if array is None else array
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolution(self, x, weights, norm, stride=1, groups=1, active=True):
        kernel = self.weights[weights].shape[-1]
        x = self.add("Conv", x, self.constant(weights), auto_pad="SAME_UPPER", strides=[stride] * 2, group=groups,
                     kernel_shape=[kernel] * 2)
        parts = [self.constant(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        x = self.add("BatchNormalization", x, *parts, epsilon=1e-3)
        return self.add("Clip", x, "zero", "six") if active else x


def model(file):
    graph = Graph(read(file))
    graph.constant("zero", np.array(0, "f4")), graph.constant("six", np.array(6, "f4"))
    x = graph.convolution("images", "_conv_stem.weight", "_bn0", stride=2)
    index, channels = 0, 32
    for kernel, stride, expansion, out, repeats in BLOCKS:
        for repeat in range(repeats):
            name, own, wide = f"_blocks.{index}", stride if repeat == 0 else 1, channels * expansion
            before = x
            if expansion > 1:
                x = graph.convolution(x, f"{name}._expand_conv.weight", f"{name}._bn0")
            x = graph.convolution(x, f"{name}._depthwise_conv.weight", f"{name}._bn1", own, wide)
            x = graph.convolution(x, f"{name}._project_conv.weight", f"{name}._bn2", active=False)
            if own == 1 and channels == out:
                x = graph.add("Add", x, before)
            index, channels = index + 1, out
    x = graph.convolution(x, "_conv_head.weight", "_bn1")
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("Gemm", x, graph.constant("_fc.weight"), graph.constant("_fc.bias"), transB=1)
    graph.nodes.append(helper.make_node("Softmax", [x], ["scores"], axis=1))
    value = helper.make_tensor_value_info
    made = helper.make_graph(graph.nodes, "effnet-lite0", [value("images", TensorProto.FLOAT, ["N", 3, 224, 224])],
                             [value("scores", TensorProto.FLOAT, ["N", 1000])], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
