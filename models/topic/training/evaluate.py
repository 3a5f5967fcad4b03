"""Accuracy, macro-F1 and the confusion matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

BATCH = 128


def padded(texts: list[list[int]]) -> torch.Tensor:
    """Ids [N, T], padded with 0 to the longest."""
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(ids)


@torch.no_grad()
def predict(model: nn.Module, examples: list[tuple[list[int], int]], max_tokens: int) -> np.ndarray:
    """The topic of every example, in order."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]))
    predicted = np.zeros(len(examples), dtype=np.int64)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        predicted[rows] = model(padded([examples[i][0][:max_tokens] for i in rows])).argmax(1).numpy()
    return predicted


def accuracy(model: nn.Module, examples: list[tuple[list[int], int]], max_tokens: int) -> float:
    """The share of examples whose topic is predicted."""
    return float((predict(model, examples, max_tokens) == [topic for _, topic in examples]).mean())


def confusion(predicted: np.ndarray, topics: list[int], classes: int) -> np.ndarray:
    """Counts, true topic by predicted topic."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (topics, predicted), 1)
    return matrix


def macro_f1(matrix: np.ndarray) -> float:
    """The mean over topics of the harmonic mean of precision and recall."""
    hits = matrix.diagonal()
    return float((2 * hits / (matrix.sum(0) + matrix.sum(1))).mean())
