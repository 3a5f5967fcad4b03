"""Trains the reference model. Deterministic from a seed; goes on from the last finished epoch when it was cut off."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import embedding
from evaluate import accuracy, padded
from model import EMBEDDING, EMBEDDING_DROPOUT, OUTPUT_DROPOUT, WORD_DROPOUT, TopicClassifier

EPOCHS, BATCH, MAX_TOKENS = 10, 64, 128
LEARNING_RATE, WEIGHT_DECAY, LABEL_SMOOTHING, GRADIENT_NORM = 2.5e-3, 0.01, 0.05, 1.0
AVERAGING = 0.998
FIRST_WINDOW_SHARE = 0.4
BUCKET = 32

Example = tuple[list[int], int]


def train(training: list[Example], validation: list[Example], sizes: tuple[int, int], seed: int, out: Path) -> nn.Module:
    """Answers the averaged model after the last epoch. `sizes`: words, topics.

    `validation` is only looked at: with none of it, the same run is made on whatever is to be trained on.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    model = TopicClassifier(*sizes)
    model.embed(embedding.initial([ids for ids, _ in training], sizes[0], EMBEDDING, seed))
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    parts = {"model": model, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    state = resume(parts, recipe(seed), out)
    for epoch in range(state["epochs"], EPOCHS):
        # Every epoch has its own seed, so that a resumed run is the run it would have been.
        torch.manual_seed(seed * 1_000 + epoch)
        loss = run_epoch(parts, training, random.Random(seed * 1_000 + epoch), f"epoch {epoch + 1}/{EPOCHS}")
        point = {"epoch": epoch + 1, "loss": round(loss, 4)}
        if validation:
            point["validation"] = round(accuracy(model, validation, MAX_TOKENS), 4)
            point["validation_averaged"] = round(accuracy(averaged, validation, MAX_TOKENS), 4)
        print("train:", json.dumps(point), flush=True)
        state["curve"].append(point)
        state["epochs"] = epoch + 1
        save(parts, state, recipe(seed), out)
    (out / "curve.json").write_text(json.dumps(state["curve"], indent=1) + "\n")
    return averaged


def run_epoch(parts: dict, training: list[Example], rng: random.Random, name: str) -> float:
    """One pass over a fresh window of every text; answers the mean loss."""
    model, averaged = parts["model"].train(), parts["averaged"]
    losses = []
    for batch in tqdm(batches(training, rng), desc=name, unit="batch", leave=False):
        logits = model(padded([ids for ids, _ in batch]))
        topics = torch.tensor([topic for _, topic in batch])
        loss = F.cross_entropy(logits, topics, label_smoothing=LABEL_SMOOTHING)
        parts["optimizer"].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        parts["optimizer"].step()
        parts["schedule"].step()
        losses.append(loss.item())
        # The average forgets its random beginning quickly, and then reaches over more and more steps.
        step = parts["schedule"].last_epoch
        kept = min(AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1 - kept)
    return float(np.mean(losses))


def batches(training: list[Example], rng: random.Random) -> list[list[Example]]:
    """Shuffled batches of texts of like length."""
    shuffled = [(window(ids, rng), topic) for ids, topic in training]
    rng.shuffle(shuffled)
    made = []
    for start in range(0, len(shuffled), BATCH * BUCKET):
        bucket = sorted(shuffled[start : start + BATCH * BUCKET], key=lambda example: len(example[0]))
        made += [bucket[i : i + BATCH] for i in range(0, len(bucket), BATCH)]
    rng.shuffle(made)
    return made


def window(ids: list[int], rng: random.Random) -> list[int]:
    """A window of a long text: often the first, which is what is served, else a random one."""
    if len(ids) <= MAX_TOKENS or rng.random() < FIRST_WINDOW_SHARE:
        return ids[:MAX_TOKENS]
    start = rng.randrange(len(ids) - MAX_TOKENS + 1)
    return ids[start : start + MAX_TOKENS]


def recipe(seed: int) -> dict:
    """What a run is made of: a checkpoint of another recipe belongs to another run."""
    return {
        "seed": seed,
        "schedule": [EPOCHS, BATCH, MAX_TOKENS, BUCKET, LEARNING_RATE, FIRST_WINDOW_SHARE],
        "regularisation": [WEIGHT_DECAY, LABEL_SMOOTHING, GRADIENT_NORM, AVERAGING],
        "dropout": [WORD_DROPOUT, EMBEDDING_DROPOUT, OUTPUT_DROPOUT],
        "embedding": [embedding.WINDOW, embedding.CONTEXT_SMOOTHING, embedding.SCALE],
    }


def resume(parts: dict, expected: dict, out: Path) -> dict:
    """Loads the last finished epoch, if there is one. Fails if it is of another recipe than `expected`."""
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.exists():
        return {"epochs": 0, "curve": []}
    saved = torch.load(checkpoint)
    if saved.get("recipe") != expected:
        raise SystemExit(f"train: {checkpoint} is of another run ({saved.get('recipe')}); remove it, or use --work")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    print(f"train: going on after epoch {saved['state']['epochs']}", flush=True)
    return saved["state"]


def save(parts: dict, state: dict, of: dict, out: Path) -> None:
    """Keeps everything that the next epoch needs; a half-written file never takes the place of a whole one."""
    fresh = out / "checkpoint.tmp"
    torch.save({"state": state, "recipe": of} | {name: part.state_dict() for name, part in parts.items()}, fresh)
    fresh.replace(out / "checkpoint.pt")
