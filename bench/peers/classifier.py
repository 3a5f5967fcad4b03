"""The topic model as every Python peer runs it: the same tokenizer file, the same ONNX file, onnxruntime on one thread.

Texts are cut at 128 tokens and padded to the longest of their batch, as inferq does it.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

MAX_TOKENS = 128
PAD_ID = 0


class Classifier:
    """A model that is ready to run; not shared between threads."""

    def __init__(self) -> None:
        folder = Path(os.environ["PEERS_MODEL"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding(pad_id=PAD_ID, pad_token="[PAD]")
        self.labels = (folder / "labels.txt").read_text().split()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # A thread that spins while it waits takes the core from the other worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(folder / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.run(["the goalie stopped every shot"])

    def run(self, texts: list[str]) -> list[dict]:
        """One `{"label", "probability"}` for each text, in their order."""
        encodings = self.tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        (logits,) = self.session.run(["logits"], {"input_ids": ids})
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = logits.argmax(axis=1)
        shares = shifted[np.arange(len(best)), best] / shifted.sum(axis=1)
        return [
            {"label": self.labels[index], "probability": float(share)}
            for index, share in zip(best, shares, strict=True)
        ]
