"""What the embedding begins with: vectors of the words' company, from the training texts alone.

Positive pointwise mutual information of words that stand within WINDOW of each other, factorised: what word2vec does
implicitly (Levy and Goldberg, "Neural word embedding as implicit matrix factorization", 2014), with their smoothing of
the contexts (0.75). A classifier of ten thousand posts sees most words too seldom to learn them from the topics alone.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import svds

from vocabulary import PAD, UNKNOWN

WINDOW, CONTEXT_SMOOTHING, SCALE = 30, 0.75, 0.3
SPECIAL = len([PAD, UNKNOWN])


def initial(texts: list[list[int]], words: int, size: int, seed: int) -> np.ndarray:
    """Vectors [words, size] float32 with a standard deviation of SCALE; padding is zero, the unknown word is random."""
    rng = np.random.default_rng(seed)
    left, _, singular = factorised(association(texts, words), size, rng)
    vectors = left * np.sqrt(singular)
    vectors *= SCALE / vectors.std()
    vectors[0] = 0
    vectors[1] = rng.normal(0, SCALE, size)
    return vectors.astype(np.float32)


def association(texts: list[list[int]], words: int) -> scipy.sparse.csr_array:
    """Positive pointwise mutual information [words, words] of words and their neighbours on both sides."""
    first, second = [], []
    for ids in map(np.array, texts):
        for distance in range(1, min(WINDOW + 1, len(ids))):
            first.append(ids[:-distance])
            second.append(ids[distance:])
    pairs = np.concatenate(first), np.concatenate(second)
    counts = scipy.sparse.coo_array((np.ones(len(pairs[0])), pairs), shape=(words, words)).tocsr()
    counts = (counts + counts.T).tocoo()
    known = (counts.row >= SPECIAL) & (counts.col >= SPECIAL)
    row, column, count = counts.row[known], counts.col[known], counts.data[known]
    of_word = np.bincount(row, count, words)
    of_context = of_word**CONTEXT_SMOOTHING / (of_word**CONTEXT_SMOOTHING).sum()
    information = np.log(count / (of_word[row] * of_context[column]))
    positive = information > 0
    kept = (information[positive], (row[positive], column[positive]))
    return scipy.sparse.csr_array(kept, shape=(words, words))


def factorised(
    matrix: scipy.sparse.csr_array, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `size` largest singular vectors and values; the signs are fixed, so that a seed gives the same vectors."""
    left, singular, right = svds(matrix, k=size, v0=rng.normal(size=min(matrix.shape)))
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(size)])
    return left * signs, right, singular
