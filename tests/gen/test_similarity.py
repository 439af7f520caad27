"""ROUGE-L against Self-Instruct's stored scores, the package rouge_score and the textbook."""

import random
import re
from itertools import permutations
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from harness.gen import similarity
from harness.gen.similarity import MOST_SIMILAR, Pool, f_measure
from tests.helpers import read_jsonl

_WORDS = ["The", "the", "cat,", "Sat.", "on", "2", "mats", "été", "日本", "İx", "ﬁt", "a_b", "-"]
# About the ends of a machine word's 64 bits, and of two.
_LENGTHS = [0, 1, 2, 63, 64, 65, 66, 127, 128, 129, 130, 191, 192, 193, 200]


@pytest.fixture(autouse=True, params=[0, 10**12], ids=["all at once", "one by one"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "PATIENCE", request.param)


def textbook_lcs(a: list[str], b: list[str]) -> int:
    last = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for j, y in enumerate(b):
            row.append(last[j] + 1 if x == y else max(last[j + 1], row[j]))
        last = row
    return last[-1]


def textbook_f(a: str, b: str) -> float:
    x, y = (re.findall("[a-z0-9]+", t.lower()) for t in (a, b))
    return f_measure(textbook_lcs(x, y), len(x), len(y)) if x and y else 0.0


def random_texts(rng: random.Random, count: int, longest: int) -> list[str]:
    """From two words to all of them, so that long runs of hits and rare ones both occur."""
    texts = []
    for _ in range(count):
        words = rng.sample(_WORDS, rng.randint(2, len(_WORDS)))
        texts.append(" ".join(rng.choices(words, k=rng.randint(0, longest))))
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_textbook_for_texts_of_any_length(seed: int) -> None:
    rng = random.Random(seed)
    texts = random_texts(rng, 12, 200)
    texts += [" ".join(rng.choices(["a", "b"], k=length)) for length in _LENGTHS]
    pool = Pool()
    pool.extend(texts)
    for text in [*rng.sample(texts, 8), "a " * 200, "new words alone"]:
        assert pool.scores(text).tolist() == [textbook_f(text, old) for old in texts]


def test_a_late_match_gives_way_to_an_earlier_one_many_tokens_before_it() -> None:
    blocks = [list(order) for order in permutations("abcd")]
    texts = [" ".join(word for word in order for _ in range(64)) for order in blocks]
    pool = Pool()
    pool.extend(texts)
    for order in blocks:
        text = " ".join(order)
        assert pool.scores(text).tolist() == [textbook_f(text, old) for old in texts]


def test_scores_are_those_of_rouge_score_to_the_last_bit() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    texts = random_texts(random.Random(1), 150, 15) + random_texts(random.Random(2), 15, 200)
    pool = Pool()
    for text in texts:
        expected = [scorer.score(text, old)["rougeL"].fmeasure for old in texts[: len(pool)]]
        assert pool.scores(text).tolist() == expected
        pool.add(text)


def test_a_pool_of_thousands_scores_as_one_of_its_parts_would() -> None:
    rng = random.Random(3)
    words = [f"w{min(int(rng.paretovariate(0.7)), 2000)}" for _ in range(20_000)]
    texts = [" ".join(rng.choices(words, k=rng.choice((3, 5, 8, 70)))) for _ in range(3_000)]
    pool = Pool()
    pool.extend(texts)
    for text in texts[::1000]:
        assert len(pool.scores(text)) == len(pool) == len(texts)
        for start in range(0, len(texts), 300):
            part = Pool()
            part.extend(texts[start : start + 300])
            assert (part.scores(text) == pool.scores(text)[start : start + 300]).all()
            assert part.scores(text)[7] == textbook_f(text, texts[start + 7])


def test_the_nearest_above_is_the_first_text_of_the_highest_score() -> None:
    texts = random_texts(random.Random(0), 120, 12)
    pool = Pool()
    for text in texts:
        scores = [textbook_f(text, old) for old in texts[: len(pool)]]
        for threshold in (0.0, 0.5, 0.7):
            best = max(scores, default=0.0)
            expected = (best, scores.index(best)) if best > threshold else None
            assert pool.nearest_above(text, threshold) == expected
        pool.add(text)


def test_the_nearest_are_the_highest_scores_with_the_first_of_equals_first() -> None:
    texts = random_texts(random.Random(4), 60, 8)
    pool = Pool()
    assert pool.nearest("the cat") == ([], 0.0)
    for text in texts:
        scores = [textbook_f(text, old) for old in texts[: len(pool)]]
        found, mean = pool.nearest(text)
        expected = sorted(enumerate(scores), key=lambda entry: (-entry[1], entry[0]))
        assert found == expected[:MOST_SIMILAR]
        assert mean == pytest.approx(sum(scores) / len(scores) if scores else 0.0, abs=1e-12)
        pool.add(text)
    assert len(pool.nearest("the cat", 3)[0]) == 3


def test_a_text_added_after_a_score_counts_in_the_next() -> None:
    pool = Pool()
    pool.add("count the cats")
    assert pool.nearest_above("name a dog", 0.0) is None
    pool.add("name a dog")
    assert pool.nearest_above("name a dog", 0.0) == (1.0, 1)
    assert pool.scores("name a dog").tolist() == [0.0, 1.0]


def test_asking_does_not_change_the_pool() -> None:
    pool = Pool()
    pool.add("one two three")
    before = pool.scores("three four").tolist()
    pool.scores("four five six")
    assert pool.scores("three four").tolist() == before
    assert len(pool) == 1


@pytest.mark.parametrize(("shared", "is_above"), [(7, False), (8, True)])
def test_exactly_the_threshold_stays(shared: int, is_above: bool) -> None:
    pool = Pool()
    pool.add(" ".join(f"w{i}" for i in range(10)))
    text = " ".join(f"w{i}" if i < shared else f"v{i}" for i in range(10))
    assert (pool.nearest_above(text, 0.7) is not None) is is_above


@pytest.mark.parametrize("text", ["", " \n", "日本語", "?!"])
def test_texts_without_a_latin_token_are_like_nothing(text: str) -> None:
    pool = Pool()
    pool.extend([text, "a cat"])
    assert pool.nearest_above(text, 0.0) is None
    assert pool.scores(text).tolist() == [0.0, 0.0]
    assert pool.scores("a cat").tolist() == [0.0, 1.0]
    assert pool.nearest(text) == ([(0, 0.0), (1, 0.0)], 0.0)


def test_every_score_and_decision_is_the_one_that_self_instruct_stored(shared_data: Path) -> None:
    seeds = read_jsonl(shared_data / "self_instruct/seed_tasks.jsonl")
    stored = read_jsonl(
        shared_data.parent / "oracles/self_instruct/machine_generated_instructions_first300.jsonl"
    )
    assert (len(seeds), len(stored)) == (175, 300)
    texts = [row["instruction"] for row in seeds]
    pool = Pool()
    pool.extend(texts)
    for row in stored:
        text, similar = row["instruction"], row["most_similar"]
        assert pool.nearest_above(text, 0.7) is None  # it was kept
        found, mean = pool.nearest(text)
        # Among equals upstream's choice is its sort's, so the places are compared by their scores.
        assert [score for _, score in found] == list(similar.values())
        scores = pool.scores(text)
        assert all(scores[texts.index(old)] == score for old, score in similar.items())
        assert mean == row["avg_similarity_score"]
        pool.add(text)
        texts.append(text)
        assert pool.nearest_above(text, 0.7) == (1.0, texts.index(text))


def test_the_scores_do_not_change_when_patience_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(0, 90))) for _ in range(60)]
    monkeypatch.setattr(similarity, "PATIENCE", 0)
    at_once = decisions(texts)
    monkeypatch.setattr(similarity, "PATIENCE", 700)
    assert decisions(texts) == at_once


def decisions(texts: list[str]) -> list[list[float]]:
    pool, found = Pool(), []
    for text in texts:
        found.append(pool.scores(text).tolist())
        pool.add(text)
    return found
