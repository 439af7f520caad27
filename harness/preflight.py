"""What can be known of a row before anything runs: training data or a prompt set that cannot be read,
a baseline that lacks prompts, an annotator that does not exist. A training is not to end in these.

The stages check the same, and more, with the same functions.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from harness import given
from harness.errors import InputError
from harness.eval import length_control
from harness.eval.alpaca_readings import check_annotator
from harness.eval.judge_pairs import check_baselines
from harness.eval.outputs import given_outputs
from harness.eval.prompts import Prompt, read_prompts
from harness.eval.rubrics import inputs_for
from harness.keys import Files
from harness.modeling.pieces import pieces
from harness.plan import RowPlan, StagePlan, dump
from harness.spec.answer import Answer, PromptSet, ReferenceEngine
from harness.spec.judges import (
    AlpacaEvalJudge,
    Judge,
    LossJudge,
    OutputJudge,
    RowOutputs,
    Rubric,
    RubricJudge,
    RubricLine,
)
from harness.spec.template import Template

CHECKED = {"gen", "train", "answer", "judge"}
_SHOWN = {"correctness": ["query", "reference_answer"]}
_SHOWN_ELSE = ["query", "context"]
"""What flow-judge's own rubrics show the judge, by the second word of their names."""


def check(plan: RowPlan, files: Files, only: Sequence[str] = ()) -> None:
    """Look at the stages of a row that are to run (of those in `only`, if any), as far as their data is
    here.

    What is on the hub is not looked at, and neither are files that only a package reads which is not
    installed here.

    Raises:
        InputError: a stage could only fail.
    """
    for stage in plan.own:
        if stage.status == "reuse" or stage.stage not in (set(only or CHECKED) & CHECKED):
            continue
        try:
            _check(stage, files)
        except InputError as e:
            raise InputError(f"row {stage.row}: {e.message}", e.hint) from None
        except ImportError:
            continue


def _check(stage: StagePlan, files: Files) -> None:
    if stage.stage in ("gen", "train"):
        given.read(stage.stage, stage.params, files)
        return
    told = dump(stage.params, lambda data: str(files.locate(data)))
    if stage.stage == "answer":
        answer = Answer.model_validate(told["answer"])
        prompts = _read(answer.prompts)
        _check_turns(prompts, answer.template if answer.uses_template else None)
        if isinstance(answer.engine, ReferenceEngine) and prompts:
            given_outputs(answer.engine.outputs, prompts)
        return
    judge: Judge = TypeAdapter(Judge).validate_python(told["judge"])
    if isinstance(judge, LossJudge):
        _check_turns(_read(judge.examples), judge.template)
    elif isinstance(judge, OutputJudge):
        _check_judge(judge, _read(PromptSet.model_validate(told["prompts"])))


def _read(prompts: PromptSet) -> list[Prompt]:
    """Empty for a set on the hub."""
    return [] if prompts.hub is not None else read_prompts(prompts, None)


def _check_turns(prompts: Sequence[Prompt], template: Template | None) -> None:
    """Raises InputError for earlier turns that the template has no place for."""
    if template is None or template.from_tokenizer:
        return
    for prompt in prompts:
        if prompt.history:
            pieces(template, prompt.asked, prompt.input, None, "", prompt.history)


def _check_judge(judge: OutputJudge, prompts: Sequence[Prompt]) -> None:
    if isinstance(judge, AlpacaEvalJudge):
        check_annotator(judge.annotator)
        control = judge.length_control
        if control is not None and control.folder is not None and prompts:
            given = [prompt.instruction for prompt in prompts]
            length_control.check(Path(control.folder.path), given)
    if isinstance(judge, RubricJudge):
        if prompts:
            inputs_for(_rubric(judge), prompts, judge.fields)
    elif not isinstance(judge.reference, RowOutputs) and prompts:
        check_baselines(Path(judge.reference.path), prompts)


def _rubric(judge: RubricJudge) -> Rubric:
    """The rubric; of one of the package's only what it shows, as the package may not be here."""
    if isinstance(judge.rubric, Rubric):
        return judge.rubric
    shown = _SHOWN.get(judge.rubric.split("_")[1], _SHOWN_ELSE)
    lines = [RubricLine(score=score, description="the package's own") for score in judge.scale]
    return Rubric(name=judge.rubric, criteria="the package's own", scores=lines, inputs=shown)
