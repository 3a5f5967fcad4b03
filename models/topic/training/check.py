"""Checks the exported model: against the trained one, and a row in a padded batch against the row alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from evaluate import padded

TOLERANCE = 1e-5


def check_export(model: nn.Module, file: Path, texts: list[list[int]]) -> float:
    """The largest difference found; fails beyond TOLERANCE."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    run = lambda rows: session.run(["logits"], {"input_ids": padded(rows).numpy()})[0]
    together = run(texts)
    alone = np.concatenate([run([text]) for text in texts])
    with torch.no_grad():
        trained = model.eval()(padded(texts)).numpy()
    worst = float(max(np.abs(together - alone).max(), np.abs(together - trained).max()))
    if worst > TOLERANCE:
        raise SystemExit(f"check: {file} differs by {worst:.2e}, at most {TOLERANCE:.0e} was expected")
    return worst
