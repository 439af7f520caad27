"""Result folders as other people's tools leave them, made up: clean, and with a fault put in."""

import csv
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.audit import Result, audit_paths
from harness.audit.checks import across
from harness.judge.kinds.alpaca_eval.readings import shows_model_first
from harness.judge.scores import BASELINE, DRAW, MODEL, describe

_ALL_WORDS = (
    "the a of to and in is it that for on with as was at by from this which or an be are not have has "
    "river stone cloud market garden teacher winter letter signal colour bridge engine paper window "
    "method number system reason person answer question moment country history language music water "
    "make take give find keep turn show move hold write read learn build open close carry bring"
)
WORDS = _ALL_WORDS.split()
DATASETS = ("helpful_base", "koala", "oasst", "selfinstruct", "vicuna")
CHATGPT, WEIGHTED = "chatgpt", "weighted_alpaca_eval_gpt4_turbo"
Row = dict[str, Any]
Change = Callable[[list[Row]], Any]


def text(draw: random.Random, words: int, unfinished: float = 0.05) -> str:
    """A text of so many words, in sentences; now and then one that ends without a full stop."""
    parts = []
    while words > 0:
        length = min(words, draw.randint(4, 18))
        parts.append(" ".join(draw.choice(WORDS) for _ in range(length)).capitalize())
        words -= length
    body = ". ".join(parts)
    return body if draw.random() < unfinished else body + "."


def rows_of(
    seed: int = 0,
    n: int = 200,
    win: float = 0.3,
    annotator: str = CHATGPT,
    model: str = "model",
    words: float = 60,
    slope: float = 0.0,
    place: float = 0.0,
    outputs: Sequence[str] | None = None,
    instructions: str = "Tell me about",
) -> list[Row]:
    """Rows of an annotations.json that follow from the replies, in alpaca_eval's order.

    win: the chance of a win. slope: what a difference in length of one standard deviation adds to its
    log odds. place: the same of standing first (half of it is taken off in second place).
    """
    draw = random.Random(f"{seed} {model}")
    rows = []
    for k in range(n):
        instruction = f"{instructions} {text(random.Random(k), 6)} ({k})"
        size = max(2, int(draw.lognormvariate(math.log(words), 0.6)))
        output = outputs[k] if outputs is not None else text(draw, size)
        baseline = text(random.Random(f"baseline {k}"), max(2, int(words * 0.5 + (k * 37 % 97))))
        first = shows_model_first(annotator, instruction)
        gap = math.tanh((len(output) - len(baseline)) / (6 * words))
        odds = math.log(win / (1 - win)) + slope * gap + (place if first else -place)
        chance = 1 / (1 + math.exp(-odds))
        row: Row = {
            "instruction": instruction, "output_1": baseline, "generator_1": "gpt4_1106_preview",
            "dataset": DATASETS[k % 5], "output_2": output, "generator_2": model,
            "annotator": annotator,
        }  # fmt: skip
        if output == baseline:
            rows.append(row | {"preference": DRAW, "raw_completion": None})
            continue
        if annotator == WEIGHTED:
            share = min(max(draw.gauss(chance, 0.3), 0.001), 0.999)
            row |= _weighed(share, first)
        else:
            won = draw.random() < chance
            row |= {
                "preference": MODEL if won else BASELINE,
                "raw_completion": "Output (a)" if won == first else "Output (b)",
            }
        rows.append(row | {"time_per_example": round(draw.random(), 9)})
    return rows


def _weighed(share: float, first: bool) -> Row:
    """A reply of one token with log-probs, and the preference that it comes to."""
    ahead = share if first else 1 - share
    top = [
        {"token": "m", "logprob": math.log(ahead)},
        {"token": "M", "logprob": math.log(1 - ahead)},
    ]
    reading = 2 - ahead
    return {
        "preference": round(3 - reading if first else reading, 10),
        "raw_completion": {"logprobs": {"content": [{"token": "m", "top_logprobs": top}]}},
    }


def write(
    folder: Path,
    rows: list[Row],
    change: Change | None = None,
    outputs: bool = True,
    board: dict[str, Any] | None = None,
    stored: list[Row] | None = None,
) -> Path:
    """annotations.json, leaderboard.csv and model_outputs.json of these rows.

    change: what is done to the annotations before anything is computed. board: figures of the
    leaderboard that are written in place of those that follow.
    """
    annotations = [dict(row) for row in rows]
    if change is not None:
        changed = change(annotations)
        annotations = changed if isinstance(changed, list) else annotations
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(annotations))
    source = stored if stored is not None else annotations
    if outputs:
        model_outputs = [
            {"instruction": r["instruction"], "output": r["output_2"], "dataset": r["dataset"],
             "generator": r["generator_2"]}
            for r in source
        ]  # fmt: skip
        (folder / "model_outputs.json").write_text(json.dumps(model_outputs))
    described = describe([r["preference"] for r in annotations])
    length = int(sum(len(r["output_2"]) for r in annotations) / len(annotations))
    write_board(folder / "leaderboard.csv", {annotations[0]["generator_2"]: {
        **described, "avg_length": length, "mode": "community", **(board or {})}})  # fmt: skip
    return folder


def write_board(path: Path, lines: dict[str, dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for figures in lines.values() for column in figures))
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", *columns])
        for name, figures in lines.items():
            table.writerow([name, *(figures.get(column, "") for column in columns)])


def reviews(
    folder: Path,
    seed: int = 0,
    n: int = 80,
    better: float = 0.5,
    place: float = 0.0,
    step: float = 1.0,
    change: Callable[[list[Row], list[Row]], Any] | None = None,
    counts: dict[str, int] | None = None,
) -> Path:
    """AlpaGasus's files of `ours` against `theirs` on the set `koala`. step: between scores."""
    draw = random.Random(seed)
    orders: tuple[list[Row], list[Row]] = ([], [])
    for k in range(n):
        texts = {
            "ours": text(draw, draw.randint(20, 80)),
            "theirs": text(draw, draw.randint(20, 80)),
        }
        for number, rows in enumerate(orders):
            good = {"ours": 7 + better + draw.gauss(0, 0.8), "theirs": 7 + draw.gauss(0, 0.8)}
            names = ("ours", "theirs") if number == 0 else ("theirs", "ours")
            scores = [round((good[name] + (place if i == 0 else 0)) / step) * step
                      for i, name in enumerate(names)]  # fmt: skip
            scores = [min(max(score, 1.0), 10.0) for score in scores]
            score_line = " ".join(f"{score:g}" for score in scores)
            rows.append({"question_id": f"koala_{k}", "text": text(random.Random(k), 7), **texts,
                         "review": f"{score_line}\n\nThe first is clear.",
                         "score": scores})  # fmt: skip
    if change is not None:
        change(*orders)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ours-theirs-koala.json").write_text(json.dumps(orders[0]))
    (folder / "theirs-ours-koala.json").write_text(json.dumps(orders[1]))
    published_counts = counts or count(orders)
    (folder / "koala_result.json").write_text(
        json.dumps({"test_name": "koala", **published_counts})
    )
    return folder


def count(orders: tuple[list[Row], list[Row]], as_read: Callable[[float], float] = float) -> Row:
    """AlpaGasus's counts: the sign of the sum of both orders' signs."""

    def sign(value: float) -> int:
        return (value > 0) - (value < 0)

    verdicts = []
    for first, second in zip(*orders, strict=True):
        a, b = (as_read(score) for score in first["score"])
        c, d = (as_read(score) for score in second["score"])
        verdicts.append(sign(sign(a - b) + sign(d - c)))
    return {"win": verdicts.count(1), "draw": verdicts.count(0), "lose": verdicts.count(-1)}


def audit(*paths: Path, reference: Path | None = None) -> list[Result]:
    """The results; their findings are those that their readers declare."""
    results = audit_paths(paths, reference=reference)
    for result in results:
        assert {*kinds(result)} <= result.reader.findings | across.FINDINGS
    return results


def only_result(path: Path, reference: Path | None = None) -> Result:
    """The only result of a folder."""
    (result,) = audit(path, reference=reference)
    return result


def kinds(result: Result) -> list[str]:
    return sorted({finding.kind for finding in result.findings})


def finding_of(result: Result, kind: str) -> Any:
    """The finding of a kind, of which there must be one."""
    (match,) = [f for f in result.findings if f.kind == kind]
    return match
