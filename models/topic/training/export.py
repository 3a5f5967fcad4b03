"""Exports the trained model as plain ONNX and writes what stands beside it in the model repository."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import nn
from tokenizers import Tokenizer

from data import LABELS
from evaluate import padded

GOLDEN_TEXTS = [
    "the new graphics card needs another driver before windows will start",
    "our team scored twice in the third period and won the hockey game",
    "the shuttle put a satellite into orbit around the moon",
    "congress voted on the gun control bill after a long debate",
    "he read the gospel and spoke about faith and the church",
]


def export(model: nn.Module, file: Path) -> None:
    """Writes `file`: input_ids int64 [batch, tokens] -> logits float32 [batch, 5], opset 17."""
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.ones(2, 8, dtype=torch.int64),),
            str(file),
            dynamo=False,
            opset_version=17,
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_axes={"input_ids": {0: "batch", 1: "tokens"}, "logits": {0: "batch"}},
        )


def write_golden(folder: Path, tokenizer: Tokenizer, max_tokens: int) -> None:
    """What onnxruntime answers on a few texts: the worker compares when it loads the model."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    golden = []
    for text in GOLDEN_TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]
        (logits,) = session.run(["logits"], {"input_ids": padded([ids]).numpy()})
        golden.append({"text": text, "input_ids": ids, "logits": [round(float(x), 6) for x in logits[0]]})
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


def write_spec(folder: Path, max_tokens: int) -> None:
    """model.toml and labels.txt."""
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / "model.toml").write_text(f'''\
name = "topic"
version = 1
description = "English text to one of five topics; embedding 100, LSTM 256, mean over the valid steps"
file = "model.onnx"
sha256 = "{digest}"
licence = "MIT OR Apache-2.0"
source = "trained by models/topic/training on 20 Newsgroups, by-date split (K. Lang; this form by A. Cardoso Cachopo)"
batch_scope = "shared"

[preprocess]
kind = "text"
input = "input_ids"
tokenizer = "tokenizer.json"
max_tokens = {max_tokens}
max_text_bytes = 262144
pad_id = 0

[[inputs]]
name = "input_ids"
datatype = "INT64"
shape = [-1, -1]

[[outputs]]
name = "logits"
datatype = "FP32"
shape = [-1, 5]

[postprocess]
kind = "classification"
output = "logits"
labels = "labels.txt"
activation = "softmax"

[batching]
max_batch_size = 32
max_batch_tokens = 1024
''')
