"""`--scale tiny`: a row's scaled-down twin, which runs in a minute with no network, key or GPU.

The twin keeps a row's recipes and chain, training method, objective, optimizer, scheduler and DeepSpeed
settings, template, prompts for judges and kind of judge. Other things stand for what is large, paid or
elsewhere: a random model of the same family, simulated endpoints, transformers for vLLM, float32, some
steps for epochs, and the files of specs/smoke for given and hub data. The code of what was replaced
(vLLM, a judge model run here, the import from the hub, bfloat16) is not run by a twin, and its last
deviation names what that is of its row. What it scores says nothing about the study.
"""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.answer.answer import Answer, Decoding
from harness.answer.engine import (
    EndpointEngine,
    Engine,
    ReferenceEngine,
    TransformersEngine,
    VllmEngine,
)
from harness.errors import InputError
from harness.judge.judge import RowOutputs
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.judge.kinds.flow_judge import Rubric, RubricJudge
from harness.judge.kinds.held_out_loss import LossJudge
from harness.judge.kinds.lm_eval import TaskData, TasksJudge
from harness.judge.kinds.union import Judge
from harness.row.load import LoadedRow
from harness.row.row import Budget, Eval, Limits, Replicates, Row
from harness.spec.base import Endpoint
from harness.spec.model_source import ModelSource, RandomModel
from harness.spec.prompts import PromptColumns, PromptSet
from harness.spec.template import Template
from harness.spec.train import Train
from harness.spec.twin import few_of, simulated, smoke_data, smoke_examples

SUFFIX = "-tiny"
SMOKE = "smoke"
PROMPTS, STEPS, ANSWER_TOKENS, CUTOFF, REPLICATES = 12, 12, 24, 256, 2
JUDGE_ERRS = 0.2
"""Share of judgements that are turned round: a tiny model's answers lose every right one."""
SETS = 8
"""Small prompt sets in specs/smoke/twin, for rows with several named ones; of more, some repeat."""
FAMILIES = {
    "qwen": "qwen2",
    "llama": "llama",
    "vicuna": "llama",
    "alpaca": "llama",
    "mistral": "mistral",
    "mixtral": "mistral",
    "phi": "phi3",
}
"""Part of a hub id, or else of a template's name -> the architecture that transformers calls so."""
USUAL_FAMILY = "qwen2"
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
TASK_FOLDERS = {"truthfulqa_mc2": "truthfulqa"}
"""Of tasks whose folder in specs/smoke/tasks has another name."""
_FOLDERS = re.compile(r'"path":"[^"]*/')
"""Where a file is replaced to be depends on the folder that the command runs in."""
GROUNDS = "output"
"""The field of the smoke prompts that a rubric is shown as context or reference answer."""


def scaled(loaded: LoadedRow) -> LoadedRow:
    """A row's twin; of a twin, itself. Its id and its table end with `-tiny`.

    Raises:
        InputError: specs/smoke, whose files stand for the row's, is not found.
    """
    row = loaded.row
    if row.scale == "tiny":
        return loaded
    smoke = smoke_folder(loaded.path)
    kind = "preference" if row.train and row.train.objective == "orpo" else ""
    twin = row.model_copy(
        update={
            "row": row.row + SUFFIX,
            "table": row.table + SUFFIX,
            "scale": "tiny",
            "model": _model(row, row.model, smoke) if row.model else None,
            "gen": [step.twin(smoke) for step in row.gen] if row.gen else None,
            "data": smoke_examples(smoke, kind) if row.data else None,
            "train": _train(row.train, smoke) if row.train else None,
            "eval": _eval(row.eval, smoke) if row.eval else None,
            "replicates": _replicates(row.replicates),
            "budget": Budget(),
            "limits": Limits(shm=row.limits.shm, pids=row.limits.pids),
            "deviations": [*row.deviations, _deviation(row)],
        }
    )
    return LoadedRow(twin, loaded.path, loaded.is_named)


def smoke_folder(spec: Path) -> Path:
    """specs/smoke: beside the spec's study, below the current folder, or of this checkout.

    Raises:
        InputError: it is in none of these.
    """
    for folder in _candidates(spec):
        if (folder / "twin" / "tokenizer" / "tokenizer.json").is_file():
            return folder
    raise InputError(
        f"specs/smoke is not there, whose files stand for the data of {spec} at --scale tiny",
        "Run it from the checkout, or keep the spec in a folder beside specs/smoke.",
    )


def _candidates(spec: Path) -> Iterator[Path]:
    for above in (*spec.parents, *spec.resolve().parents):
        yield from (above / SMOKE, above / "specs" / SMOKE)
    yield Path(__file__).parents[2] / "specs" / SMOKE


def _deviation(row: Row) -> str:
    """What of the row was replaced, and by what."""
    replaced = []
    if row.model is not None:
        family = _family(row.model, row.template)
        replaced.append(f"a tiny {family} model with random weights for the row's")
    if row.gen or row.data:
        replaced.append("few examples")
    replaced += [words for step in row.gen or [] for words in step.replaced()]
    if row.data:
        replaced.append("specs/smoke's examples for the given ones")
    if row.train:
        replaced += _replaced_in_training(row.train)
    if row.eval:
        replaced += _replaced_in_evaluation(row.eval)
    replicates = row.replicates
    if _replicates(replicates) != replicates:
        replaced.append(f"at most {REPLICATES} replicates of a kind")
    if not replaced:
        return "scaled down"
    return f"scaled down, whatever other notes say: {', '.join(dict.fromkeys(replaced))}"


def _replaced_in_training(train: Train) -> Iterator[str]:
    if train.steps is None:
        yield f"{STEPS} training steps for epochs"
    else:
        yield f"{STEPS} training steps for {train.steps}"
    yield "small batches of short examples"
    if train.precision != "float32":
        yield f"training in float32 for {train.precision}"
    if train.liger_kernels:
        yield "no Liger kernels"
    if train.tf32:
        yield "training in whole float32 for TF32"
    if train.launch.machines > 1 or train.launch.processes > 2:
        yield "at most 2 processes on one machine"


def _replaced_in_evaluation(evaluation: Eval) -> Iterator[str]:
    answer, judge = evaluation.answer, evaluation.judge
    if answer is not None:
        yield "few prompts, of specs/smoke"
        sets = answer.prompts.files or {}
        if len(sets) > SETS:
            yield f"prompt sets that repeat after {SETS}"
        yield from _replaced_in_engine(answer.engine)
    if isinstance(judge, LossJudge | TasksJudge):
        yield (
            "few held-out examples"
            if isinstance(judge, LossJudge)
            else "few questions of each task"
        )
        if judge.precision != "float32":
            yield f"judging in float32 for {judge.precision}"
    elif isinstance(judge, RubricJudge) and judge.model is not None:
        yield f"a simulated judge behind an endpoint for {_name(judge.model) or 'the judge model'}"
    elif judge is not None:
        served = judge.engine.endpoint if isinstance(judge, RubricJudge) else judge.judge  # type: ignore[union-attr]
        if served.simulated is None:
            yield f"a simulated judge for {served.model}"
        if isinstance(judge, AlpacaEvalJudge) and judge.length_control is not None:
            yield "no length control"
    if isinstance(judge, RubricJudge) and judge.fields:
        yield "specs/smoke's outputs as what the rubric is shown"
    reference = getattr(judge, "reference", None)
    if reference is not None and not isinstance(reference, RowOutputs):
        yield "specs/smoke's outputs as the baseline"


def _replaced_in_engine(engine: Engine) -> Iterator[str]:
    if isinstance(engine, VllmEngine):
        yield "transformers for vLLM"
    if isinstance(engine, VllmEngine | TransformersEngine) and engine.precision != "float32":
        yield f"answers in float32 for {engine.precision}"
    if isinstance(engine, EndpointEngine) and engine.endpoint.simulated is None:
        yield f"simulated answers for {engine.endpoint.model}"
    if isinstance(engine, ReferenceEngine):
        yield "specs/smoke's outputs for the given ones"


def _least(asked: int | None, most: int) -> int:
    return most if asked is None else min(asked, most)


# Models


def _model(row: Row, source: ModelSource, smoke: Path) -> ModelSource:
    config = {"model_type": _family(source, row.template), **ARCHITECTURE}
    tokenizer = smoke_data(smoke / "twin" / "tokenizer")
    return ModelSource(random=RandomModel(config=config, tokenizer=tokenizer, seed=_seed(row)))


def _seed(row: Row) -> int:
    """Of the random weights: other ones where the model or the data is another. Trained so shortly,
    rows that begin alike would answer alike, and a judge that compares two would not be asked."""
    parts = [part for part in (row.model, *(row.gen or []), row.data) if part is not None]
    text = "".join(part.model_dump_json() for part in parts)
    return zlib.crc32(_FOLDERS.sub('"path":"', text).encode())


def _family(source: ModelSource, template: Template | None) -> str:
    if source.random is not None and source.random.config.get("model_type") in FAMILIES.values():
        return str(source.random.config["model_type"])
    template_name = (template.name or "") if template else ""
    # The template only where the model's own name says nothing: a Qwen may be asked as Alpaca.
    for name in (_name(source), template_name):
        for part, family in FAMILIES.items():
            if part in name.lower():
                return family
    return USUAL_FAMILY


def _name(source: ModelSource) -> str:
    if source.hub is not None:
        return source.hub.id
    return Path(source.path.path).name if source.path else ""


def _train(train: Train, smoke: Path) -> Train:
    validation = train.validation
    if validation is not None:
        every = validation.every_steps
        kind = "preference" if train.objective == "orpo" else ""
        validation = validation.model_copy(
            update={
                "file": smoke_examples(smoke, kind) if validation.file else None,
                "first": _least(validation.first, PROMPTS) if validation.file else None,
                "share": max(validation.share, 0.2) if validation.share else None,
                "every_steps": min(every, STEPS // 2) if every else None,
            }
        )
    launch = train.launch.model_copy(
        update={"processes": min(train.launch.processes, 2), "machines": 1}
    )
    return train.model_copy(
        update={
            "epochs": None,
            "steps": STEPS,
            "warmup_steps": min(train.warmup_steps, 2),
            "batch_size": min(train.batch_size, 2),
            "accumulation": min(train.accumulation, 2),
            "cutoff_length": min(train.cutoff_length, CUTOFF),
            "precision": "float32",
            "tf32": False,
            "liger_kernels": False,
            "launch": launch,
            "validation": validation,
            "threads": 1,
        }
    )


# Evaluation


def _eval(evaluation: Eval, smoke: Path) -> Eval:
    answer, judge = evaluation.answer, evaluation.judge
    return evaluation.model_copy(
        update={
            "answer": _answer(answer, smoke) if answer else None,
            "judge": _judge(judge, smoke) if judge else None,
        }
    )


def _answer(answer: Answer, smoke: Path) -> Answer:
    tokens = min(answer.decoding.max_new_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
    return answer.model_copy(
        update={
            "prompts": _prompts(answer.prompts, smoke),
            "engine": _engine(answer.engine, smoke),
            "decoding": Decoding(**{**answer.decoding.model_dump(), "max_new_tokens": tokens}),
        }
    )


def _prompts(prompts: PromptSet, smoke: Path) -> PromptSet:
    """A file stands for one; several named ones stay several, each with prompts of its own."""
    if prompts.files is None:
        sample = few_of(prompts.sample, PROMPTS)
        return PromptSet(
            file=smoke_data(smoke / "prompts.jsonl"),
            columns=PromptColumns(),
            first=None if sample else _least(prompts.first, PROMPTS),
            sample=sample,
        )
    sets = {
        name: smoke_data(smoke / "twin" / "sets" / f"{number % SETS + 1}.jsonl")
        for number, name in enumerate(prompts.files)
    }
    return PromptSet(files=sets, first=prompts.first, sample=few_of(prompts.sample, 3))


def _engine(engine: Engine, smoke: Path) -> Engine:
    if isinstance(engine, VllmEngine):
        return TransformersEngine(threads=1)
    if isinstance(engine, TransformersEngine):
        return engine.model_copy(update={"precision": "float32", "threads": 1})
    if isinstance(engine, EndpointEngine):
        return engine.model_copy(
            update={"endpoint": simulated(engine.endpoint), "transcript": None}
        )
    if isinstance(engine, ReferenceEngine):
        return ReferenceEngine(outputs=smoke_data(smoke / "prompts.jsonl"))
    return engine


def _judge(judge: Judge, smoke: Path) -> Judge:
    if isinstance(judge, TasksJudge):
        folders = {name: smoke / "tasks" / TASK_FOLDERS.get(name, name) for name in judge.tasks}
        return judge.model_copy(
            update={
                "tasks": {name: TaskData(folder=smoke_data(folders[name])) for name in judge.tasks},
                "first": _least(judge.first, PROMPTS),
                "precision": "float32",
                "threads": 1,
            }
        )
    if isinstance(judge, LossJudge):
        return judge.model_copy(
            update={
                "examples": _prompts(judge.examples, smoke),
                "cutoff_length": min(judge.cutoff_length, CUTOFF),
                "precision": "float32",
                "threads": 1,
            }
        )
    if isinstance(judge, RubricJudge):
        return _rubric_judge(judge, smoke)
    changes: dict[str, Any] = {
        "judge": simulated(judge.judge, JUDGE_ERRS),
        "transcript": None,
    }
    if not isinstance(judge.reference, RowOutputs):
        changes["reference"] = smoke_data(smoke / "prompts.jsonl")
    if isinstance(judge, AlpacaEvalJudge):
        # Defined for AlpacaEval's own 805 instructions alone.
        changes["length_control"] = None
    return judge.model_copy(update=changes)


def _rubric_judge(judge: RubricJudge, smoke: Path) -> RubricJudge:
    """A local judge model becomes a served one: a random one would give no score."""
    if isinstance(judge.engine, EndpointEngine):
        endpoint = simulated(judge.engine.endpoint, JUDGE_ERRS)
        engine = judge.engine.model_copy(update={"endpoint": endpoint, "transcript": None})
    else:
        engine = EndpointEngine(endpoint=simulated(Endpoint(model="judge"), JUDGE_ERRS))
    if isinstance(judge.rubric, Rubric):
        inputs = judge.rubric.inputs
    else:
        inputs = ["reference_answer" if "correctness" in judge.rubric else "context"]
    return judge.model_copy(
        update={
            "model": None,
            "template": None,
            "engine": engine,
            "fields": {name: GROUNDS for name in inputs if name != "query"},
        }
    )


def _replicates(replicates: Replicates) -> Replicates:
    train, sampling = replicates.train_seeds, replicates.sampling_seeds
    return Replicates(
        train_seeds=train[:REPLICATES] if train else None,
        sampling_seeds=sampling[:REPLICATES] if sampling else None,
        judge=min(replicates.judge, REPLICATES),
    )
