"""The small labelled sample that the demo and the tests use, drawn from the test posts."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer

from data import LABELS, Post

COUNT, WITH_IDS, MAX_CHARACTERS = 600, 200, 1_000


def cut(text: str) -> str:
    """The beginning of a text, cut between words."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit(" ", 1)[0]


def write(folder: Path, posts: list[Post], tokenizer: Tokenizer, max_tokens: int, seed: int) -> None:
    """posts.jsonl, the same number of every topic; ids.json with the expected word ids of the first of them."""
    rng = random.Random(seed)
    chosen = []
    for topic in range(len(LABELS)):
        own = [(i, post) for i, post in enumerate(posts) if post.topic == topic]
        chosen += rng.sample(own, COUNT // len(LABELS))
    rng.shuffle(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "posts.jsonl").open("w") as file:
        for i, post in chosen:
            line = {"id": f"test-{i}", "text": cut(post.text), "label": LABELS[post.topic]}
            file.write(json.dumps(line) + "\n")
    ids = {f"test-{i}": tokenizer.encode(cut(post.text)).ids[:max_tokens] for i, post in chosen[:WITH_IDS]}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(own, separators=(',', ':'))}" for name, own in ids.items())
    (folder / "ids.json").write_text("{\n" + lines + "\n}\n")
