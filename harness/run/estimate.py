"""What a stage will ask of a teacher or judge: calls and tokens, before it runs. Rough, and said so."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.answer.answer import Answer
from harness.answer.engine import TOKENS_PER_ANSWER, EndpointEngine
from harness.artefact.keys import Files
from harness.gen.recipes.alpaca import AlpacaGen, estimate_alpaca
from harness.gen.recipes.choose import LongestGen, RandomGen, estimate_chosen
from harness.gen.recipes.expand import ExpandGen, estimate_expand
from harness.gen.recipes.importing import ImportGen, estimate_import
from harness.gen.recipes.naive import NaiveGen, estimate_naive
from harness.gen.recipes.rate import RateGen, estimate_rate
from harness.gen.recipes.seeds_only import SeedsGen, estimate_seeds
from harness.gen.recipes.self_instruct import SelfInstructGen, estimate_self_instruct
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
        step = params["gen"]
        estimator = _GEN.get(type(step))
        examples = previous.examples if previous else 0
        if examples is None and not isinstance(step, RandomGen | LongestGen):
            assert previous is not None
            return Estimate(examples=None, unknown=previous.unknown)
        expected = (
            estimator(step, files, examples or 0) if estimator else Estimate(examples=examples)
        )
        is_recorded = getattr(step, "transcript", None) is not None
        return Estimate(examples=expected.examples) if is_recorded else expected
    if stage == "answer":
        return _answer(params["answer"], files)
    if stage == "judge":
        return _judge(params["judge"], params.get("prompts"), files)
    return Estimate()


_GEN: dict[type, Callable[[Any, Files, int], Estimate]] = {
    AlpacaGen: estimate_alpaca,
    SelfInstructGen: estimate_self_instruct,
    NaiveGen: estimate_naive,
    ExpandGen: estimate_expand,
    RateGen: estimate_rate,
    SeedsGen: estimate_seeds,
    ImportGen: estimate_import,
    RandomGen: estimate_chosen,
    LongestGen: estimate_chosen,
}


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
