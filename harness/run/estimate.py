"""What a stage will ask of a teacher or judge: calls and tokens, before it runs. Rough, and said so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.answer.answer import Answer
from harness.artefact.keys import Files
from harness.gen.recipe import Recipe
from harness.judge.judge import BaseJudge
from harness.llm.estimate import Estimate, text_lengths


def of_stage(
    stage: str,
    params: Mapping[str, Any],
    files: Files,
    previous: Estimate | None = None,
    answers: Sequence[Path] = (),
) -> Estimate:
    """What a stage will need, from its parameters and the sizes of what they name.

    `previous`: of the step before, in a chain of gen steps. `answers`: files of those to be
    judged, where they are there. Given transcripts leave nothing to call.
    """
    if stage == "gen":
        return _gen(params["gen"], files, previous or Estimate())
    if stage == "answer":
        answer: Answer = params["answer"]
        return answer.engine.estimate(answer, files)
    if stage == "judge":
        judge: BaseJudge = params["judge"]
        lengths = [n for path in answers for n in text_lengths(path)]
        mean = sum(lengths) // len(lengths) if lengths else None
        return judge.estimate(params.get("prompts"), files, mean)
    return Estimate()


def _gen(step: Recipe, files: Files, previous: Estimate) -> Estimate:
    if previous.examples is None and not step.estimates_limit:
        return Estimate(examples=None, unknown=previous.unknown)
    expected = step.estimate(files, previous.examples or 0)
    return Estimate(examples=expected.examples) if step.needs().is_recorded else expected
