"""The vocabulary and its tokenizer.json, which training and the worker read alike.

A word is a run of the letters a-z in the lower-cased text. `words` says it in plain Python; tokenizer.json says it for
the `tokenizers` library. `check_agreement` shows on given texts that both give the same ids.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split

PAD, UNKNOWN = "[PAD]", "[UNK]"
SIZE = 10_000
CHECKED_AT_ONCE = 20_000
WORD = re.compile("[a-z]+")


def words(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower())


def build(texts: list[str]) -> list[str]:
    """The vocabulary: padding, unknown, then the words that most texts have; ties in alphabetical order.

    Counted once a text: a name that one thread repeats a hundred times says nothing about the next month's posts.
    """
    counts = Counter(word for text in texts for word in set(words(text)))
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [PAD, UNKNOWN] + [word for word, _ in frequent[: SIZE - 2]]


def tokenizer(vocabulary: list[str]) -> Tokenizer:
    """The vocabulary as the `tokenizers` library reads it. Truncation and padding are the worker's, not its."""
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    made.normalizer = Lowercase()
    made.pre_tokenizer = Split(Regex("[^a-z]+"), behavior="removed")
    return made


def encode(vocabulary: list[str], texts: list[str]) -> list[list[int]]:
    """Word ids in plain Python."""
    ids = {word: i for i, word in enumerate(vocabulary)}
    unknown = ids[UNKNOWN]
    return [[ids.get(word, unknown) for word in words(text)] for text in texts]


def check_agreement(vocabulary: list[str], file: Path, texts: list[str]) -> None:
    """Fails unless tokenizer.json gives the ids of plain Python on every text."""
    loaded = Tokenizer.from_file(str(file))
    for start in range(0, len(texts), CHECKED_AT_ONCE):
        some = texts[start : start + CHECKED_AT_ONCE]
        made = loaded.encode_batch(some, add_special_tokens=False)
        for text, expected, actual in zip(some, encode(vocabulary, some), made, strict=True):
            if actual.ids != expected:
                raise SystemExit(f"check: {file} gives other ids than plain Python for {text[:60]!r}")


def every_character(first: int = 0, last: int = sys.maxunicode) -> list[str]:
    """A text for every character, surrogates aside, that has it inside a word, between words and alone.

    The posts hold letters a-z only and cannot show what the two readings do elsewhere. Two characters outside ASCII
    become words or parts of them: the Kelvin sign is a k, and the capital I with a dot is an i and a dot.
    """
    characters = (chr(code) for code in range(first, last + 1) if not 0xD800 <= code <= 0xDFFF)
    return [f"the{own}good {own}the{own} {own}" for own in characters]
