"""Preference pairs out of two models' judged answers to one prompt, as AlpaGasus's review files have
them: what the judge scored higher is chosen, the other one rejected.

A record has the prompt (`prompt`, `instruction`, `question`, `query` or `text`; its input in `input` or
in Self-Instruct's `instances`), a column with the answer of each model, and `score`: the two scores in
the order in which the judge saw the answers. A prompt that was judged several times, in both orders
say, is one pair, decided by the sign of the sum of the verdicts (AlpaGasus, arXiv 2307.08701, section
4).
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample, Lineage
from harness.data.dropped import Tally
from harness.data.layouts import USUAL
from harness.data.tables import Every, TableRow, read_files
from harness.errors import InputError
from harness.gen.recipe import Recipe, RecipeResult
from harness.llm.estimate import Estimate
from harness.spec.base import Data, Spec
from harness.spec.twin import smoke_data

PROMPT = (*USUAL["instruction"], "text")
"""What the column with the prompt is called; it is another one in each of the study's sets."""


class Reviews(Spec):
    """A file of judged answers."""

    file: Data
    """Answers of two models with a judge's scores, a record for each prompt."""
    order: tuple[str, str]
    """The columns of the answers, as the judge saw them: the first score is the first one's."""

    @model_validator(mode="after")
    def _two_models(self) -> "Reviews":
        if self.order[0] == self.order[1]:
            raise ValueError(f"order names {self.order[0]} twice: a pair has two answers")
        return self


@dataclass
class _Pair:
    """A prompt with both models' answers. verdicts: by model, how often it had the higher score."""

    instruction: str
    input: str
    answers: Mapping[str, str]
    verdicts: Counter[str] = field(default_factory=Counter)
    unread: bool = False

    def chosen(self) -> str | None:
        """The model whose answer won; None for a tie."""
        (first, wins), (_, other_wins) = ((name, self.verdicts[name]) for name in self.answers)
        if wins == other_wins:
            return None
        return first if wins > other_wins else next(n for n in self.answers if n != first)

    def fault(self) -> str:
        """The rule that drops it; empty where it is a pair to learn from."""
        if self.unread:
            return "unread_score"
        if not all(self.answers.values()):
            return "empty_answer"
        if len({*self.answers.values()}) == 1:
            return "identical_answers"
        return "tie" if self.chosen() is None else ""


class GradedPairsGen(Recipe):
    """Pairs of a chosen and a rejected answer out of answers that a judge scored; ties are dropped."""

    code_version: ClassVar[int] = 1
    makes_examples: ClassVar[bool] = True
    estimates_limit: ClassVar[bool] = True
    recipe: Literal["graded_pairs"] = "graded_pairs"
    reviews: Annotated[list[Reviews], Field(min_length=1)]
    """The files; a pair is judged by all that have it."""

    @property
    def makes_preferences(self) -> bool:
        return True

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """The pairs in the order of the files.

        Raises:
            InputError: a file cannot be read, a record lacks a prompt, an answer or the scores, or two
                reviews of one prompt are of different answers.
        """
        pairs = _pairs(self.reviews, [Path(r.file.path) for r in self.reviews])
        result = RecipeResult([], [Tally("pairs", "pairs")])
        [step] = result.filters
        wins: Counter[str] = Counter()
        for number, pair in enumerate(pairs):
            name = f"pair_{number}"
            if rule := pair.fault():
                texts = {"instruction": pair.instruction, "input": pair.input}
                step.drop(rule, id=name, **texts, **pair.answers)
                continue
            chosen = pair.chosen()
            assert chosen is not None
            [rejected] = (model for model in pair.answers if model != chosen)
            wins[chosen] += 1
            example = DatasetExample(
                id=name,
                instruction=pair.instruction,
                input=pair.input,
                chosen=pair.answers[chosen],
                rejected=pair.answers[rejected],
                origin="imported",
            )
            result.examples.append(example.after(Lineage(self.recipe, self.recipe)))
        step.kept = len(result.examples)
        result.notes = [
            f"{model}'s answer is the chosen one in {count} of {step.kept} pairs"
            for model, count in wins.most_common(1)
        ]
        result.counts = {f"chosen_{model}": count for model, count in sorted(wins.items())}
        return result

    def estimate(self, files: Files, examples: int) -> Estimate:
        with contextlib.suppress(InputError):
            pairs = _pairs(self.reviews, [files.locate(r.file) for r in self.reviews])
            return Estimate(examples=sum(not pair.fault() for pair in pairs))
        return Estimate(
            examples=None, unknown="how many pairs there are is known once they are read"
        )

    def check(self, snapshots: dict[str, str]) -> None:
        _pairs(self.reviews, [Path(r.file.path) for r in self.reviews])

    def twin(self, smoke: Path) -> Self:
        file = smoke_data(smoke / "twin" / "reviews.json")
        return self.model_copy(update={"reviews": [Reviews(file=file, order=("first", "second"))]})

    def replaced(self) -> Iterator[str]:
        yield "specs/smoke's judged answers for the given ones"


def _pairs(reviews: Sequence[Reviews], paths: Sequence[Path]) -> list[_Pair]:
    """Raises InputError as `GradedPairsGen.make`."""
    pairs: dict[tuple[frozenset[str], str, str], _Pair] = {}
    for review, path in zip(reviews, paths, strict=True):
        for row in read_files(path, Every(), "gen.reviews").rows:
            instruction, input_text = _prompt(row)
            # Blanks around it would tell the models apart where one begins with a newline.
            answers = {model: _text(row, model).strip() for model in sorted(review.order)}
            key = frozenset(review.order), instruction, input_text
            pair = pairs.setdefault(key, _Pair(instruction, input_text, answers))
            if pair.answers != answers:
                raise InputError(
                    f"{row.place}: another review of the same prompt is of other answers",
                    "Give the reviews of one pair of answers, or a step for each.",
                )
            scores = _scores(row)
            if scores is None:
                pair.unread = True
            elif scores[0] != scores[1]:
                pair.verdicts[review.order[scores[1] > scores[0]]] += 1
    return list(pairs.values())


def _prompt(row: TableRow) -> tuple[str, str]:
    column = next((name for name in PROMPT if name in row.fields), PROMPT[0])
    instances = row.fields.get("instances")
    first: Any = instances[0] if isinstance(instances, list) and instances else row.fields
    given = first.get("input") if isinstance(first, dict) else None
    return _text(row, column), given if isinstance(given, str) else ""


def _text(row: TableRow, column: str) -> str:
    value = row.fields.get(column)
    if not isinstance(value, str):
        has = ", ".join(row.fields) or "none"
        raise InputError(
            f"{row.place}: no text in `{column}`; the fields here are: {has}",
            "Name the columns of the two answers in gen.reviews.order.",
        )
    return value


def _scores(row: TableRow) -> tuple[float, float] | None:
    """None where the judge's reply was not read, which the study's code stores as [-1, -1]."""
    match row.fields.get("score"):
        case [int() | float() as first, int() | float() as second]:
            is_read = all(math.isfinite(score) and score >= 0 for score in (first, second))
            return (first, second) if is_read else None
    raise InputError(
        f"{row.place}: `score` must be the two scores, not {str(row.fields.get('score'))[:60]}",
        "Give review files such as AlpaGasus's: {prompt, answers, score: [7, 9]}.",
    )
