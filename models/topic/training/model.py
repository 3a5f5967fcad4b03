"""The reference model: Embedding(10,000 x 100) -> LSTM(256) -> mean over the valid steps -> Linear(5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING, HIDDEN = 100, 256
WORD_DROPOUT, EMBEDDING_DROPOUT, OUTPUT_DROPOUT = 0.3, 0.4, 0.5
UNKNOWN_ID = 1


class TopicClassifier(nn.Module):
    """Ids [N, T] int64, 0 = padding -> logits [N, topics]. The mask is derived from the ids."""

    def __init__(self, words: int, topics: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDING, padding_idx=0)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, topics)

    def embed(self, vectors: np.ndarray) -> None:
        """Begins with these word vectors [words, EMBEDDING] in place of random ones."""
        with torch.no_grad():
            self.embedding.weight.copy_(torch.from_numpy(vectors))

    def forward(self, input_ids: Tensor) -> Tensor:
        valid = (input_ids != 0).to(torch.float32).unsqueeze(2)
        embedded = self.embedding(self._with_words_dropped(input_ids))
        if self.training:
            # One mask a text, the same at every step: noise that the recurrence cannot average away.
            kept = torch.rand(embedded.shape[0], 1, EMBEDDING) > EMBEDDING_DROPOUT
            embedded = embedded * kept / (1 - EMBEDDING_DROPOUT)
        hidden, _ = self.lstm(embedded)
        pooled = (hidden * valid).sum(1) / valid.sum(1).clamp(min=1)
        return self.output(F.dropout(pooled, OUTPUT_DROPOUT, self.training))

    def _with_words_dropped(self, input_ids: Tensor) -> Tensor:
        """In training, some words are unknown: test posts are later in time and have words of their own."""
        if not self.training:
            return input_ids
        dropped = (torch.rand(input_ids.shape) < WORD_DROPOUT) & (input_ids != 0)
        return torch.where(dropped, torch.full_like(input_ids, UNKNOWN_ID), input_ids)
