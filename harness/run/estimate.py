"""What a stage will ask of a teacher or judge: calls and tokens, before it runs. Rough, and said so."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.answer.answer import Answer
from harness.answer.engine import TOKENS_PER_ANSWER, EndpointEngine
from harness.artefact.keys import Files
from harness.gen.recipe import Recipe
from harness.judge.judge import RowOutputs
from harness.judge.kinds.alpaca_eval import ANNOTATOR_CHARACTERS, AlpacaEvalJudge
from harness.judge.kinds.flow_judge import RUBRIC_CHARACTERS, TOKENS_PER_FEEDBACK, RubricJudge
from harness.judge.kinds.grading import TOKENS_PER_GRADING, GradingJudge
from harness.judge.kinds.preference import TOKENS_PER_VERDICT, PreferenceJudge
from harness.judge.kinds.union import Judge, ModelJudge
from harness.llm.estimate import (
    CHARACTERS_PER_TOKEN,
    ON_HUB,
    Estimate,
    prompt_lengths,
    text_lengths,
)
from harness.spec.prompts import PromptSet

ANSWER_CHARACTERS = 1200
"""Of an answer that is not there to be counted."""


def of_stage(
    stage: str, params: Mapping[str, Any], files: Files, previous: Estimate | None = None
) -> Estimate:
    """What a stage will need, from its parameters and the sizes of what they name.

    `previous`: of the step before, in a chain of gen steps. Given transcripts leave nothing to call.
    """
    if stage == "gen":
        return _gen(params["gen"], files, previous or Estimate())
    if stage == "answer":
        return _answer(params["answer"], files)
    if stage == "judge":
        return _judge(params["judge"], params.get("prompts"), files)
    return Estimate()


def _gen(step: Recipe, files: Files, previous: Estimate) -> Estimate:
    if previous.examples is None and not step.estimates_limit:
        return Estimate(examples=None, unknown=previous.unknown)
    expected = step.estimate(files, previous.examples or 0)
    return Estimate(examples=expected.examples) if step.needs().is_recorded else expected


def _answer(answer: Answer, files: Files) -> Estimate:
    """Of a served model; none where the row's own answers."""
    engine = answer.engine
    if not isinstance(engine, EndpointEngine) or engine.transcript is not None:
        return Estimate()
    lengths = prompt_lengths(answer.prompts, files)
    if lengths is None:
        return Estimate(unknown=ON_HUB)
    most = min(TOKENS_PER_ANSWER, answer.decoding.max_new_tokens or TOKENS_PER_ANSWER)
    return Estimate(len(lengths), sum(lengths) // CHARACTERS_PER_TOKEN, len(lengths) * most)


def _judge(judge: Judge, prompts: PromptSet | None, files: Files) -> Estimate:
    if isinstance(judge, ModelJudge) or prompts is None or _recorded(judge):
        return Estimate()
    if isinstance(judge, RubricJudge) and not isinstance(judge.engine, EndpointEngine):
        return Estimate()
    lengths = prompt_lengths(prompts, files)
    if lengths is None:
        return Estimate(unknown=ON_HUB)
    calls = len(lengths)
    if isinstance(judge, RubricJudge):
        prompt_characters = RUBRIC_CHARACTERS + ANSWER_CHARACTERS
        characters = sum(lengths) + calls * prompt_characters
        return Estimate(calls, characters // CHARACTERS_PER_TOKEN, calls * TOKENS_PER_FEEDBACK)
    fixed = ANNOTATOR_CHARACTERS
    if not isinstance(judge, AlpacaEvalJudge):
        fixed = len(judge.prompt.text)
    characters = calls * fixed + 2 * _answer_characters(judge, lengths, files)
    if isinstance(judge, GradingJudge):
        prompt_tokens = 2 * characters // CHARACTERS_PER_TOKEN
        return Estimate(2 * calls, prompt_tokens, 2 * calls * TOKENS_PER_GRADING)
    return Estimate(calls, characters // CHARACTERS_PER_TOKEN, calls * TOKENS_PER_VERDICT)


def _recorded(judge: Judge) -> bool:
    holder = judge.engine if isinstance(judge, RubricJudge) else judge
    return getattr(holder, "transcript", None) is not None


def _answer_characters(
    judge: PreferenceJudge | AlpacaEvalJudge | GradingJudge, lengths: Sequence[int], files: Files
) -> int:
    """Of the baseline's answers with their instructions; the model's are taken to be as long."""
    if isinstance(judge.reference, RowOutputs):
        return sum(lengths) + len(lengths) * ANSWER_CHARACTERS
    return sum(text_lengths(files.locate(judge.reference))[: len(lengths)])
