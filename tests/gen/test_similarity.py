"""ROUGE-L against Self-Instruct's own stored scores and against the textbook definition."""

import json
import random
import re
from pathlib import Path

import pytest

from harness.gen.seeds import read_seeds
from harness.gen.similarity import Pool, f_measure

_WORDS = ["The", "the", "cat,", "Sat.", "on", "2", "mats", "été"]


def textbook_lcs(a: list[str], b: list[str]) -> int:
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


def textbook_f(a: str, b: str) -> float:
    x, y = (re.findall("[a-z0-9]+", t.lower()) for t in (a, b))
    return f_measure(textbook_lcs(x, y), len(x), len(y)) if x and y else 0.0


def test_the_highest_scores_are_those_that_self_instruct_stored(shared_data: Path) -> None:
    stored = shared_data.parent / "oracles/self_instruct"
    lines = (stored / "machine_generated_instructions_first300.jsonl").read_text().splitlines()
    pool = Pool()
    for seed in read_seeds(shared_data / "self_instruct/seed_tasks.jsonl"):
        pool.add(seed.task.instruction)
    for row in map(json.loads, lines):
        found = pool.nearest_above(row["instruction"], 0.0)
        assert found is not None
        assert found[0] == max(row["most_similar"].values())
        pool.add(row["instruction"])


def test_scores_and_places_agree_with_the_textbook() -> None:
    rng = random.Random(0)
    texts = [
        " ".join(rng.choice(_WORDS) for _ in range(n))
        for n in (rng.randrange(12) for _ in range(120))
    ]
    pool = Pool()
    for number, text in enumerate(texts):
        scores = [textbook_f(text, old) for old in texts[:number]]
        for threshold in (0.0, 0.5, 0.7):
            best = max(scores, default=0.0)
            expected = (best, scores.index(best)) if best > threshold else None
            assert pool.nearest_above(text, threshold) == expected
        pool.add(text)


@pytest.mark.parametrize(("shared", "is_above"), [(7, False), (8, True)])
def test_exactly_the_threshold_stays(shared: int, is_above: bool) -> None:
    pool = Pool()
    pool.add(" ".join(f"w{i}" for i in range(10)))
    text = " ".join(f"w{i}" if i < shared else f"v{i}" for i in range(10))
    assert (pool.nearest_above(text, 0.7) is not None) is is_above


def test_texts_without_a_latin_token_are_like_nothing() -> None:
    pool = Pool()
    pool.add("日本語")
    assert pool.nearest_above("日本語", 0.0) is None
