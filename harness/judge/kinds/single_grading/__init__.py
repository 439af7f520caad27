"""Grades of single answers, as MT-Bench has them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import model_validator

from harness.artefact.call import StageCall, StageResult
from harness.errors import InputError
from harness.judge.judge import AskingJudge, with_sets
from harness.spec.base import FileText, Sampling, TextFile, with_fields
from harness.spec.prompts import PromptSet
from harness.spec.twin import smoke_data

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

METRIC = "rating"
CATEGORY = "category"
LOWEST, HIGHEST = 1, 10
TURN_NAMES = ("turn_1", "turn_2")
TURNS = ("question_1", "answer_1", "question_2", "answer_2")


def references_of(prompt: "Prompt") -> list[str]:
    """The right answers that the question's record has, one a turn; empty where it has none.

    Raises InputError where `reference` is no list of texts."""
    value = prompt.fields.get("reference")
    if value in (None, [], ""):
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"the prompt {prompt.instruction[:60]!r} has a `reference` that is no list of texts",
            "Give the right answer to each turn: [first, second].",
        )
    return texts


def _check_names(prompts: "Sequence[Prompt]") -> None:
    """Raises InputError where a category's metric would have the name of a turn's or a set's."""
    categories = _numbers_by([prompt.fields.get(CATEGORY) for prompt in prompts])
    sets = _numbers_by([prompt.dataset for prompt in prompts])
    for name, numbers in categories.items():
        taken_by = "a turn" if name in TURN_NAMES else "a prompt set"
        # A set of the same questions has the same rating.
        if name in TURN_NAMES or sets.get(name, numbers) != numbers:
            raise InputError(
                f"the category {name!r}, as of {prompts[numbers[0]].instruction[:60]!r}, is called "
                f"like {taken_by}: both would have the metric {METRIC}/{name}",
                "Give the category another name.",
            )


def _numbers_by(names: Sequence[object]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name is not None:
            numbers.setdefault(str(name), []).append(number)
    return numbers


def _check_twice(prompts: "Sequence[Prompt]") -> None:
    """Raises InputError where questions, or answers to several turns, could not be told apart."""
    ids = Counter(
        (prompt.dataset, str(number))
        for prompt in prompts
        if (number := prompt.fields.get("question_id")) is not None
    )
    twice = [number for (_, number), count in ids.items() if count > 1]
    if twice:
        raise InputError(
            f"{len(twice)} question_ids are there more than once, for example {twice[0]}",
            "Give each question an id of its own.",
        )
    times = Counter(prompt.key for prompt in prompts)
    repeated = [prompt.instruction for prompt in prompts if times[prompt.key] > 1]
    if repeated and any(prompt.later for prompt in prompts):
        raise InputError(
            f"{len(set(repeated))} questions are there more than once, for example "
            f"{repeated[0][:60]!r}, and of several turns each answer is matched by its question",
            "Give each question only once.",
        )


class SingleGradingJudge(AskingJudge):
    """Each answer graded 1 to 10 by itself, as MT-Bench does it (arXiv 2306.05685): the answer to a
    second turn is shown with the first, and where a question has a reference the judge is shown it."""

    code_version = 2
    reads_turns = True
    tokens_per_call = 200
    kind: Literal["single_grading"] = "single_grading"
    system: TextFile | None = None
    """The system message; left open: none."""
    prompt: Annotated[TextFile, with_fields("question", "answer")]
    """Template with {question} and {answer}; the reply must hold the grade as [[8]]."""
    prompt_turns: Annotated[TextFile, with_fields(*TURNS)] | None = None
    """Of a second turn: {question_1}, {answer_1}, {question_2} and {answer_2}."""
    prompt_reference: (
        Annotated[TextFile, with_fields("question", "answer", "ref_answer_1")] | None
    ) = None
    """Of a question with a right answer, {ref_answer_1}; left open: such are graded as all others."""
    prompt_reference_turns: (
        Annotated[TextFile, with_fields(*TURNS, "ref_answer_1", "ref_answer_2")] | None
    ) = None
    """Of a second turn with a right answer, {ref_answer_1} and {ref_answer_2} beside those of
    prompt_turns."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=2048)
    """Decoding parameters of the judge's replies."""

    @model_validator(mode="after")
    def _fits_together(self) -> "SingleGradingJudge":
        if self.prompt_turns and bool(self.prompt_reference) != bool(self.prompt_reference_turns):
            raise ValueError("give both of prompt_reference, prompt_reference_turns, or neither")
        return self

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return with_sets([METRIC], prompts)

    def may_give(self, metric: str) -> bool:
        """`rating/turn_1` and that of each category, which only the questions show."""
        return metric.startswith(f"{METRIC}/")

    def fixed_characters(self) -> int:
        return len(self.prompt.text)

    def prompt_for(self, turn: int, has_reference: bool) -> FileText | None:
        if turn == 1:
            return self.prompt_reference if has_reference and self.prompt_reference else self.prompt
        if has_reference and self.prompt_reference_turns is not None:
            return self.prompt_reference_turns
        return self.prompt_turns

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        for prompt in prompts:
            if len(prompt.later) > 1:
                raise InputError(
                    f"{prompt.instruction[:60]!r} has {1 + len(prompt.later)} turns, and two are graded"
                )
            references = references_of(prompt)
            turns = 1 + len(prompt.later)
            if turns == 2 and self.prompt_turns is None:
                raise InputError(
                    f"{prompt.instruction[:60]!r} has two turns, and no prompt says how the second is "
                    "graded",
                    "Name one in eval.judge.prompt_turns.",
                )
            if len(references) > turns:
                raise InputError(
                    f"{prompt.instruction[:60]!r} has {turns} turn{'s' * (turns > 1)}, and "
                    f"{len(references)} references, which would not be shown",
                    "Give one right answer for each turn.",
                )
            if references and self.prompt_reference is not None and len(references) < turns:
                raise InputError(
                    f"{prompt.instruction[:60]!r} has {turns} turns, and a reference for "
                    f"{len(references)}",
                    "Give a right answer for each turn, or none.",
                )
        _check_names(prompts)
        _check_twice(prompts)

    def twin_prompts(self, smoke: Path) -> PromptSet | None:
        if self.prompt_turns is None:
            return None
        return PromptSet(file=smoke_data(smoke / "turns.jsonl"))

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.single_grading.judge import run

        return run(call, self)
