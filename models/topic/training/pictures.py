"""The pictures of the model card: the training curve and the confusion matrix."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def curve(points: list[dict], file: Path) -> None:
    """Loss, and validation accuracy of the model and of its average, by epoch."""
    epochs = [point["epoch"] for point in points]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(epochs, [point["loss"] for point in points], color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss (label smoothing 0.05)")
    right = left.twinx()
    right.plot(epochs, [point["validation"] for point in points], "--", label="validation")
    right.plot(epochs, [point["validation_averaged"] for point in points], label="validation, averaged weights")
    right.set_ylabel("accuracy")
    right.set_ylim(0.8, 1.0)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def confusion(matrix: np.ndarray, labels: list[str], file: Path) -> None:
    """Counts in the cells, the share of the true topic as colour."""
    share = matrix / matrix.sum(1, keepdims=True)
    figure, axes = plt.subplots(figsize=(5.6, 5), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}\n{share[row, column]:.1%}", ha="center", va="center", color=color, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
