"""What a judge's words mean under alpaca_eval's annotators, read without the package.

For checking stored annotations, ours or other people's: the order in which an instruction's two
outputs were shown, and which of them a raw completion (a text, or a choice of OpenAI's API with its
log-probs) says is better.
"""

import ast
import difflib
import importlib.util
import json
import math
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import InputError

FIRST, SECOND = 1.0, 2.0
"""A reading: 1 where the output shown first is the better one, 2 where the second is."""

Reader = Callable[[Any], float | None]


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether the model's output was shown first, and the baseline's second."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def shows_model_first(annotator: str, instruction: str, seed: int = 0) -> bool:
    """The same for any annotator: some always show the baseline first."""
    return annotator not in UNSWITCHED and is_switched(instruction, seed)


def _by_pattern(first: str, second: str) -> Reader:
    """One match of either pattern, and no more."""
    either = re.compile(f"(?P<first>{first})|(?P<second>{second})")

    def read(completion: Any) -> float | None:
        if not isinstance(completion, str):
            return None
        # A match begins at the line end, which the text behind the last match no longer has.
        verdicts, at = [], 0
        while match := either.search(completion[at:]):
            verdicts.append(FIRST if match["first"] is not None else SECOND)
            at += match.end()
        return verdicts[0] if len(verdicts) == 1 else None

    return read


def _by_rank(name: str, key: str | None = None) -> Reader:
    """The rank of the model `name`, which is shown first, in a list of models with their ranks."""

    def read(completion: Any) -> float | None:
        try:
            if key is not None:
                completion = json.loads(completion)[key]
            ranks = ast.literal_eval(completion) if isinstance(completion, str) else completion
            rank = next(entry["rank"] for entry in ranks if entry["model"] == name)
        except (ValueError, SyntaxError, TypeError, KeyError, StopIteration, RecursionError):
            return None
        return float(rank) if rank in (1, 2) else None

    return read


def _by_scores(completion: Any) -> float | None:
    """Two scores on the first line; the draw that equal ones are."""
    try:
        scores = [float(part) for part in completion.split("\n")[0].replace(",", " ").split(" ")]
    except (ValueError, AttributeError):
        return None
    if len(scores) != 2 or any(map(math.isnan, scores)):
        return None
    if scores[0] == scores[1]:
        return (FIRST + SECOND) / 2
    return FIRST if scores[0] > scores[1] else SECOND


def _by_probability(first: str, second: str, at: int, rounded: bool) -> Reader:
    """2 - p(first) / (p(first) + p(second)) of the token at place `at`; a token that is not among
    the most likely ones has no probability."""

    def read(completion: Any) -> float | None:
        try:
            tokens = completion["logprobs"]["content"]
            if at == 0 and len(tokens) != 1:
                return None
            top = {token["token"]: token["logprob"] for token in tokens[at]["top_logprobs"]}
        except (TypeError, KeyError, IndexError):
            return None
        p, q = (math.exp(top[token]) if token in top else 0.0 for token in (first, second))
        if p + q == 0:
            return None
        if rounded:
            return FIRST if p > q else SECOND
        return SECOND - p / (p + q)

    return read


_OUTPUT_A_OR_B = _by_pattern(r"(?:^|\n) ?Output \(a\)", r"(?:^|\n) ?Output \(b\)")
_RANK_OF_MODEL_1 = _by_rank("model_1")

READERS: Mapping[str, Reader] = {
    **dict.fromkeys(
        (
            "bedrock_claude", "bedrock_claude_2", "chatgpt", "claude", "claude_2", "cohere",
            "gpt35_turbo_instruct", "gpt4", "gpt4_turbo", "guanaco_33b", "oasst_pythia_12b", "test",
            "text_davinci_003",
        ),
        _OUTPUT_A_OR_B,
    ),
    "chatgpt_fn": _by_pattern(r"(?i:output \(a\))", r"(?i:output \(b\))"),
    **dict.fromkeys(
        (
            "alpaca_eval_gpt4", "alpaca_eval_gpt4_0314", "alpaca_eval_gpt4_0613",
            "alpaca_eval_llama3_70b_fn", "alpaca_eval_vllm_llama3_70b_fn", "aviary_gpt4",
            "claude_3_opus_ranking", "claude_ranking", "gpt-3.5-turbo-1106_ranking",
            "improved_aviary_gpt4", "mistral-large-2402_ranking",
        ),
        _RANK_OF_MODEL_1,
    ),
    "alpaca_eval_gpt4_fn": _by_rank("model_1", "ordered_models"),
    "alpaca_eval_gpt4_turbo_fn": _by_rank("m", "ordered_models"),
    "alpaca_eval_cot_gpt4_turbo_fn": _by_rank("m", "ordered_models"),
    "improved_lmsys_gpt4": _by_scores,
    "lmsys_gpt4": _by_scores,
    "alpaca_eval_clf_gpt4_turbo": _by_probability("m", "M", 0, rounded=True),
    "alpaca_eval_clf_cot_gpt4_turbo": _by_probability("m", "M", -1, rounded=True),
    "gpt4_turbo_clf": _by_probability("A", "B", 0, rounded=True),
    "gpt4_turbo_cot_clf": _by_probability("A", "B", -1, rounded=True),
    "gpt4_turbo_logprob": _by_probability("A", "B", 0, rounded=False),
    "gpt4_turbo_cot_logprob": _by_probability("A", "B", -1, rounded=False),
    **dict.fromkeys(
        (
            "weighted_alpaca_eval_gpt4_turbo", "weighted_alpaca_eval_gpt4_turbo_new",
            "weighted_alpaca_eval_gpt-4o-mini-2024-07-18", "weighted_alpaca_eval_vllm_llama3_70b",
        ),
        _by_probability("m", "M", 0, rounded=False),
    ),
    "weighted_alpaca_eval_cot_gpt4_turbo": _by_probability("m", "M", -1, rounded=False),
}  # fmt: skip
"""Of alpaca_eval 0.6.6: every annotator that is shown one prompt at a time, by how it is read."""

UNSWITCHED = frozenset({"aviary_gpt4", "lmsys_gpt4"})
"""Those that show the baseline's output first, always."""


def check_annotator(name: str) -> None:
    """Raises InputError where the package has no annotator of this name. Looked up in its folder, as
    importing it takes seconds; without the package nothing is said."""
    package = importlib.util.find_spec("alpaca_eval")
    if package is None or not package.submodule_search_locations:
        return
    folder = Path(package.submodule_search_locations[0]) / "evaluators_configs"
    names = sorted(path.parent.name for path in folder.glob("*/configs.yaml"))
    if names and name not in names:
        near = difflib.get_close_matches(name, names, 3)
        hint = f"Near: {', '.join(near)}; there are {len(names)}." if near else ""
        raise InputError(
            f"alpaca_eval has no annotator {name!r}", hint or f"There are {', '.join(names)}."
        )
