"""What can be known of a row before anything runs: a model without weights, training data, seeds or a
prompt set that cannot be read, a baseline that lacks prompts, an annotator that does not exist. No paid
call and no training is to end in these.

The stages check the same, and more, with the same functions.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.answer.answer import Answer
from harness.answer.engine import ReferenceEngine, VllmEngine
from harness.answer.outputs import given_outputs
from harness.answer.prompts import Prompt, read_prompts
from harness.artefact.environment import STAGES
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.errors import DataAbsent, InputError
from harness.judge.judge import RowOutputs
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge, length_control
from harness.judge.kinds.alpaca_eval.readings import check_annotator
from harness.judge.kinds.flow_judge import Rubric, RubricJudge, RubricLine
from harness.judge.kinds.flow_judge.rubrics import inputs_for
from harness.judge.kinds.held_out_loss import LossJudge
from harness.judge.kinds.lm_eval import TasksJudge
from harness.judge.kinds.lm_eval.benchmarks import MMLU
from harness.judge.kinds.lm_eval.data import read_task
from harness.judge.kinds.union import Judge, OutputJudge
from harness.judge.pairs import check_baselines
from harness.modeling import load
from harness.modeling.memory import shapes
from harness.modeling.template_pieces import pieces
from harness.row.row import Row
from harness.run import training_data
from harness.run.plan import RowPlan, StagePlan, dump, evaluated
from harness.run.runner import serving_needs_a_folder
from harness.spec.model_source import ModelSource
from harness.spec.prompts import PromptSet
from harness.spec.template import Template
from harness.spec.train import Train

_SHOWN = {"correctness": ["query", "reference_answer"]}
_SHOWN_ELSE = ["query", "context"]
"""What flow-judge's own rubrics show the judge, by the second word of their names."""


def check(
    plan: RowPlan, files: Files, only: Sequence[str] = (), store: Store | None = None
) -> None:
    """Look at the stages of a row that are to run (of those in `only`, if any), as far as their data
    is here. With the `store`: at those alone that read from the hub, whose snapshots are in it by now.

    Files that only a package reads which is not installed here are not looked at.

    Raises:
        InputError: a stage could only fail.
    """
    for stage in plan.own:
        if stage.status == "reuse" or stage.stage not in (only or STAGES):
            continue
        hubs = stage.hubs()
        if store is not None and not hubs:
            continue
        snapshots = {n: store.hub_folder(*hub) for n, hub in hubs.items()} if store else {}
        try:
            _check(stage, files, {n: str(p) for n, p in snapshots.items() if p.is_dir()})
        except InputError as e:
            raise InputError(f"row {stage.row}: {e.message}", e.hint) from None
        except ImportError:
            continue


def _check(stage: StagePlan, files: Files, snapshots: dict[str, str]) -> None:
    """`snapshots`: input's name -> the folder of what it reads from the hub, where that is here."""
    trained = stage.inputs.get("model")
    if trained is None or trained.stage != "train":
        for source, name in ((stage.base, "hub"), (stage.judge_model, "judge_hub")):
            if source is not None and source.path is not None:
                load.check_model(files.locate(source.path))
            elif source is not None and source.hub is not None and name in snapshots:
                load.check_model(Path(snapshots[name]))
    if stage.stage == "answer":
        train = trained.params.get("train") if trained is not None else None
        _check_served(stage.params["answer"], train, stage.base)
    _check_judge_served(stage.params.get("judge"))
    if stage.stage in ("gen", "train"):
        training_data.read(stage.stage, stage.params, files)
    if stage.stage == "gen":
        _check_size(stage)
    elif stage.stage == "train":
        _check_layers(stage)
    _check_reads(stage.stage, stage.params, files, snapshots)


def check_row(row: Row, files: Files) -> None:
    """Look at what the stages of a row read that is no training data (harness.run.training_data),
    without a plan: as far as its files are here, and nothing of the hub's.

    Raises:
        InputError: a stage could only fail.
    """
    stages: list[tuple[str, dict[str, Any]]] = [("gen", {"gen": step}) for step in row.gen or []]
    stages += evaluated(row).items()
    for stage, params in stages:
        with contextlib.suppress(DataAbsent, ImportError):
            _check_reads(stage, params, files, {})
    if row.eval is not None and row.eval.answer is not None:
        _check_served(row.eval.answer, row.train, row.model)
    if row.eval is not None:
        _check_judge_served(row.eval.judge)
    if row.model is not None and row.model.path is not None:
        with contextlib.suppress(DataAbsent):
            load.check_model(files.locate(row.model.path))


def _check_reads(
    stage: str, params: dict[str, Any], files: Files, snapshots: dict[str, str]
) -> None:
    if isinstance(params.get("judge"), AlpacaEvalJudge):
        check_annotator(params["judge"].annotator)
    values = dump(params, lambda data: str(files.locate(data)))
    if stage == "gen":
        type(params["gen"]).model_validate(values["gen"]).check(snapshots)
    if stage in ("gen", "train"):
        return
    if stage == "answer":
        answer = Answer.model_validate(values["answer"])
        prompts = _read(answer.prompts, snapshots)
        _check_turns(prompts, answer.template if answer.uses_template else None)
        if isinstance(answer.engine, ReferenceEngine) and prompts:
            given_outputs(answer.engine.outputs, prompts)
        return
    judge: Judge = TypeAdapter(Judge).validate_python(values["judge"])
    if isinstance(judge, LossJudge):
        _check_turns(_read(judge.examples, snapshots), judge.template)
    elif isinstance(judge, TasksJudge):
        for name, data in judge.tasks.items():
            # Which subjects MMLU has, only lm-eval knows, and importing it takes long.
            if name != MMLU and (data.folder is not None or f"task-{name}" in snapshots):
                read_task(name, data, snapshots, ())
    elif isinstance(judge, OutputJudge):
        prompts = _read(PromptSet.model_validate(values["prompts"]), snapshots)
        _check_judge(judge, prompts, snapshots)


def _check_size(stage: StagePlan) -> None:
    most = _most_examples(stage.inputs["data"]) if "data" in stage.inputs else None
    if most is not None:
        stage.params["gen"].check_size(most)


def _most_examples(stage: StagePlan) -> int | None:
    """How many examples a gen stage leaves at most; None where that is not known before it runs."""
    if stage.artefact is not None or stage.params["gen"].estimates_limit:
        return stage.estimate.examples
    return _most_examples(stage.inputs["data"]) if "data" in stage.inputs else None


def _check_layers(stage: StagePlan) -> None:
    """Raises InputError for a random model whose heads do not part its width, and for names of layers
    that it has not, where its type's shape is known."""
    source, train = stage.base, stage.params["train"]
    shape = shapes.from_config(source.random.config) if source and source.random else None
    if shape is None:
        return
    assert source is not None
    assert source.random is not None
    if "head_dim" not in source.random.config and shape.hidden % shape.heads:
        raise InputError(
            f"model.random.config: hidden_size {shape.hidden} is no multiple of num_attention_heads "
            f"{shape.heads}"
        )
    targets = train.lora.target_modules if train.lora is not None else []
    lacking = [] if isinstance(targets, str) else sorted({*targets} - {*shape.linears})
    if lacking:
        raise InputError(
            f"train.lora.target_modules: the model has no linear layer {', '.join(lacking)}",
            f"It has: {', '.join(shape.linears)}.",
        )


def _check_served(answer: Answer, train: Train | None, source: ModelSource | None) -> None:
    """Raises InputError for random weights that no training leaves in a folder; and for an adapter to
    weights in float32: vLLM's LoRA kernels take none. Of a server that the spec names it is not known
    what it serves."""
    is_adapter = train is not None and train.lora is not None and not train.lora.merge
    engine = answer.engine
    if not isinstance(engine, VllmEngine):
        return
    if source is not None and source.random is not None and (train is None or is_adapter):
        raise serving_needs_a_folder("eval.answer.engine: ")
    if not is_adapter or engine.base_url is not None:
        return
    if engine.precision == "float32":
        raise InputError(
            "eval.answer.engine: vLLM serves adapters in bfloat16 and float16 alone, not in float32",
            "Take another precision, train.lora: {merge: true}, or the engine transformers.",
        )


def _check_judge_served(judge: Judge | None) -> None:
    if (
        isinstance(judge, RubricJudge)
        and isinstance(judge.engine, VllmEngine)
        and judge.model is not None
        and judge.model.random is not None
    ):
        raise serving_needs_a_folder("eval.judge.engine: ")


def _check_turns(prompts: Sequence[Prompt], template: Template | None) -> None:
    """Raises InputError for earlier turns that the template has no place for."""
    if template is None or template.from_tokenizer:
        return
    for prompt in prompts:
        if prompt.history:
            pieces(template, prompt.asked, prompt.input, None, "", prompt.history)


def _read(prompts: PromptSet, snapshots: dict[str, str]) -> list[Prompt]:
    """Empty for a set on the hub that is not here."""
    folder = snapshots.get("prompts")
    return [] if prompts.hub is not None and folder is None else read_prompts(prompts, folder)


def _check_judge(judge: OutputJudge, prompts: Sequence[Prompt], snapshots: dict[str, str]) -> None:
    if isinstance(judge, AlpacaEvalJudge):
        control = judge.length_control
        if control is not None and prompts:
            folder = control.folder.path if control.folder else snapshots.get("length_control")
            if folder is not None:
                length_control.check(Path(folder), [prompt.instruction for prompt in prompts])
    if isinstance(judge, RubricJudge):
        if prompts:
            inputs_for(_rubric(judge), prompts, judge.fields)
    elif not isinstance(judge.reference, RowOutputs) and prompts:
        check_baselines(Path(judge.reference.path), prompts)


def _rubric(judge: RubricJudge) -> Rubric:
    """The rubric; of one of the package's only what it shows, as the package may not be here."""
    if isinstance(judge.rubric, Rubric):
        return judge.rubric
    inputs = _SHOWN.get(judge.rubric.split("_")[1], _SHOWN_ELSE)
    lines = [RubricLine(score=score, description="the package's own") for score in judge.scale]
    return Rubric(name=judge.rubric, criteria="the package's own", scores=lines, inputs=inputs)
