"""The novelty filter beside Self-Instruct's way and beside plain rapidfuzz, at growing pools.

    python benchmarks/novelty.py [--data FOLDER] [--quick]

FOLDER (else inputs/) holds self_instruct/seed_tasks.jsonl and alpagasus/claude_t45.json. First a
pool is filled from the seeds, with what Self-Instruct stores for each kept instruction. Then new
candidates are compared with its first 5,000, 20,000 and 52,000 texts, by one side after the other
in one process. All sides must give the same decisions, and scores within 1e-12, or it ends with an
error. About two minutes; --quick: pools of 1,000 and 5,000, some seconds.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from harness.gen.similarity import Pool  # noqa: E402

MOST = 0.7  # Self-Instruct's threshold
SIZES, QUICK_SIZES = (5_000, 20_000, 52_000), (1_000, 5_000)
CANDIDATES, BY_ROUGE_SCORE = 300, 20
NEAR_COPIES, REPLACED = 0.15, 0.25
HOW = f"""\
Instructions: the seeds, then the real ones of claude_t45.json, shuffled, then recombinations of
both: the first words of one and the last words of another, or ({NEAR_COPIES:.0%}) one with
{REPLACED:.0%} of its words drawn anew by their frequency, so that some fall near the threshold;
seeded."""
ABOUT = f"""
Milliseconds a decision (kept or dropped, by the scores with the whole pool), mean of {CANDIDATES}
new recombinations, by each side in a row; by rouge_score one pair at a time for {BY_ROUGE_SCORE}
of them: all their pairs, nothing scaled, without the process pool that upstream makes for each.
"Cold" is ours with rapidfuzz's loop, not timed, before each. Then the fastest of rapidfuzz, and
rouge_score, by ours; the furthest of any side's scores from ours; how many were kept, of all and of
rouge_score's part. The decisions are the same by every side.

| pool | ours | cold | LCSseq loop | cdist | cdist, 2 workers | rouge_score | rapidfuzz / ours \
| rouge_score / ours | furthest | kept | of the part |
|{" --- |" * 12}"""

Scores = Callable[[str], NDArray[np.float64]]


def real_texts(data: Path) -> tuple[list[str], list[str]]:
    """The seeds' instructions and the other real ones."""
    try:
        lines = (data / "self_instruct/seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
        rows = json.loads((data / "alpagasus/claude_t45.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} is not there; name the folder of the inputs with --data")
    return [json.loads(x)["instruction"] for x in lines], [row["instruction"] for row in rows]


def recombined(rng: random.Random, given: list[str]) -> Iterator[str]:
    sources = [text.split() for text in given]
    words = [word for source in sources for word in source]
    while True:
        first, second = rng.choice(sources), rng.choice(sources)
        if rng.random() < NEAR_COPIES:
            yield " ".join(rng.choice(words) if rng.random() < REPLACED else w for w in first)
        else:
            begun = rng.randint(1, len(first))
            yield " ".join(first[:begun] + second[rng.randrange(len(second)) :])


def fill(seeds: list[str], proposed: Iterator[str], sizes: tuple[int, ...]) -> list[str]:
    """The texts of a pool of the last size; prints the time at each."""
    size = sizes[-1]
    texts, asked, seconds = list(seeds), 0, 0.0
    start = time.perf_counter()
    pool = Pool()
    pool.extend(seeds)
    pool.scores("anything")
    seconds = time.perf_counter() - start
    print("\n| pool filled to | candidates | seconds |\n| --- | --- | --- |")
    print(f"| nothing: the compiler | | {seconds:.1f} |")
    while len(pool) < size:
        block = list(islice(proposed, 1_000))  # made outside of the time
        start = time.perf_counter()
        for text in block:
            asked += 1
            if pool.nearest_above(text, MOST) is None:
                pool.nearest(text)
                pool.add(text)
                texts.append(text)
                if len(pool) in sizes:
                    now = seconds + time.perf_counter() - start
                    print(f"| {len(pool):,} | {asked:,} | {now:.1f} |", flush=True)
                if len(pool) == size:
                    break
        seconds += time.perf_counter() - start
    return texts


class Rapidfuzz:
    """The whole pool by rapidfuzz: a text is a string with one character for each token."""

    def __init__(self, texts: list[str]) -> None:
        self._tokens = DefaultTokenizer(use_stemmer=False)
        self._characters: dict[str, str] = {}
        self._texts = [self._encode(text) for text in texts]
        self._lengths = np.array([len(text) for text in self._texts])

    def loop(self, text: str) -> NDArray[np.float64]:
        new = self._encode(text)
        common = np.array([LCSseq.similarity(new, old) for old in self._texts])
        return self._f(common, len(new))

    def matrix(self, text: str, workers: int = 1) -> NDArray[np.float64]:
        new = self._encode(text)
        common = cdist([new], self._texts, scorer=LCSseq.similarity, workers=workers)[0]
        return self._f(common, len(new))

    def _encode(self, text: str) -> str:
        known = self._characters
        # Characters from U+10000 on: no surrogates among them.
        return "".join(
            known.setdefault(token, chr(0x10000 + len(known)))
            for token in self._tokens.tokenize(text)
        )

    def _f(self, common: NDArray[np.integer], new: int) -> NDArray[np.float64]:
        hit = np.flatnonzero(common)
        precision, recall = common[hit] / new, common[hit] / self._lengths[hit]
        scores = np.zeros(len(common))
        scores[hit] = 2 * precision * recall / (precision + recall)
        return scores


def decide(
    scores: Scores, texts: list[str], before: Callable[[str], object] = str
) -> tuple[float, list[bool]]:
    """Mean milliseconds a text, and which are kept; `before` is not timed."""
    kept, seconds = [], 0.0
    for text in texts:
        before(text)
        start = time.perf_counter()
        kept.append(not scores(text).max() > MOST)
        seconds += time.perf_counter() - start
    return 1e3 * seconds / len(texts), kept


def furthest(ours: Scores, theirs: Scores, texts: list[str]) -> float:
    return max(float(abs(ours(text) - theirs(text)).max()) for text in texts)


def compare(texts: list[str], new: list[str]) -> None:
    """One row of the table."""
    pool, rapidfuzz = Pool(), Rapidfuzz(texts)
    pool.extend(texts)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    ours, kept = decide(pool.scores, new)
    assert kept == [pool.nearest_above(text, MOST) is None for text in new]
    cold, again = decide(pool.scores, new, rapidfuzz.loop)
    assert again == kept
    part = slice(None, None, len(new) // BY_ROUGE_SCORE)
    peers: dict[str, tuple[Scores, slice]] = {
        "loop": (rapidfuzz.loop, slice(None)),
        "cdist": (rapidfuzz.matrix, slice(None)),
        "cdist, 2 workers": (lambda text: rapidfuzz.matrix(text, 2), slice(None)),
        "rouge_score": (
            lambda text: np.array([scorer.score(text, old)["rougeL"].fmeasure for old in texts]),
            part,
        ),
    }
    times, far = {}, 0.0
    for name, (scores, of) in peers.items():
        times[name], theirs = decide(scores, new[of])
        assert theirs == kept[of], name
        far = max(far, furthest(pool.scores, scores, new[of]))
    assert far <= 1e-12, far
    by_rouge_score = times.pop("rouge_score")
    cells = [f"{len(texts):,}", f"{ours:.3f}", f"{cold:.3f}"]
    cells += [f"{each:.2f}" for each in times.values()]
    cells += [f"{by_rouge_score:.0f}", f"{min(times.values()) / ours:.1f}"]
    cells += [f"{by_rouge_score / ours:,.0f}", f"{far:.0e}"]
    cells += [f"{sum(each)} of {len(each)}" for each in (kept, kept[part])]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT / "inputs")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes = QUICK_SIZES if options.quick else SIZES
    seeds, real = real_texts(options.data)
    given = seeds + real
    rng = random.Random(0)
    proposed = chain(rng.sample(real, len(real)), recombined(rng, given))
    new = list(islice(recombined(random.Random(1), given), CANDIDATES))
    print(HOW)
    print(f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}")
    texts = fill(seeds, proposed, sizes)
    print(ABOUT)
    for size in sizes:
        compare(texts[:size], new)


if __name__ == "__main__":
    main()
