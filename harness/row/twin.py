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

from harness.answer.answer import Answer, Decoding
from harness.artefact.keys import file_digest
from harness.errors import InputError
from harness.judge.judge import BaseJudge
from harness.row.load import LoadedRow
from harness.row.rejudged import OUTPUT, bridge_rows, published_outputs, published_row
from harness.row.reported import BridgingModel, PublishedJudge, ReportedNumbers
from harness.row.row import Budget, Eval, Limits, Replicates, Row
from harness.sim.retired import ANSWERS, BASELINE, BRIDGING, NAME, OWN, PROMPT_SETS, VERDICTS
from harness.spec.base import DataPath
from harness.spec.model_source import ModelSource, RandomModel
from harness.spec.prompts import OutputFiles, PromptSet
from harness.spec.template import Template
from harness.spec.train import Train
from harness.spec.twin import (
    CUTOFF,
    PROMPTS,
    SETS,
    at_most,
    few_prompts,
    name_of,
    smoke_data,
    smoke_examples,
)

SUFFIX = "-tiny"
SMOKE = "smoke"
STEPS, ANSWER_TOKENS, REPLICATES = 12, 24, 2
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
UNPUBLISHED: dict[str, object] = {
    "outputs": (), "output_column": None, "annotations": (), "bridge": (),
}  # fmt: skip
"""A twin is compared with nothing that was published."""
RETIRED, BRIDGING_PROMPTS = "retired", 40
ARCHITECTURE: dict[str, float] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
_FOLDERS = re.compile(r'"path":"[^"]*/')
"""Where a file is replaced to be depends on the folder that the command runs in."""


def scaled(loaded: LoadedRow) -> LoadedRow:
    """A row's twin; of a twin, itself. Its id and its table end with `-tiny`.

    Raises:
        InputError: specs/smoke, whose files stand for the row's, is not found.
    """
    row = loaded.row
    if row.scale == "tiny":
        return loaded
    smoke = smoke_folder(loaded.path)
    reported = _reported(loaded, smoke)
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
            "eval": _eval(row.eval, row.train, smoke, reported) if row.eval else None,
            "replicates": _replicates(row.replicates),
            "budget": Budget(),
            "limits": Limits(shm=row.limits.shm, pids=row.limits.pids),
            "reported": reported,
            "deviations": [*row.deviations, _deviation(row, reported)],
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


def _deviation(row: Row, reported: ReportedNumbers) -> str:
    """What of the row was replaced, and by what. reported: the twin's, see `_reported`."""
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
        replaced += _replaced_in_evaluation(row.eval, reported)
    if reported.outputs or reported.bridge:
        replaced.append("what an older version of the simulated judge left for what was published")
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


def _replaced_in_evaluation(evaluation: Eval, reported: ReportedNumbers) -> Iterator[str]:
    answer, judge = evaluation.answer, evaluation.judge
    if answer is not None:
        yield "few prompts, of specs/smoke"
        sets = len(PROMPT_SETS) if reported.bridge else SETS
        if len(answer.prompts.files or {}) > sets:
            yield f"prompt sets that repeat after {sets}"
        yield from answer.engine.replaced()
    if judge is not None:
        yield from judge.replaced_in_twin()


# What was published


def _reported(loaded: LoadedRow, smoke: Path) -> ReportedNumbers:
    """The study's numbers. Where the row's judge judges beside the row, the older version of the
    simulated judge stands for the published one (harness.sim.retired): the twin goes the same way, and
    by how much the two versions differ is known."""
    row = loaded.row
    update, folder = dict(UNPUBLISHED), smoke / "twin" / RETIRED
    judge = row.judge
    if judge is None or judge.twin_prompts(smoke) is not None:
        return row.reported.model_copy(update=update)
    if published_row(loaded) is not None:
        update["outputs"] = (_published(folder / ANSWERS.format(OWN)),)
        if isinstance(published_outputs(row), OutputFiles):
            update["output_column"] = OUTPUT
    else:
        update["bridge"] = tuple(
            BridgingModel(
                outputs=_published(folder / ANSWERS.format(model)),
                annotations=_published(folder / VERDICTS.format(model)),
                prompts=BRIDGING_PROMPTS,
            )
            for model, _ in zip(BRIDGING, bridge_rows(loaded), strict=False)
        )
    if not (update["outputs"] or update["bridge"]):
        return row.reported.model_copy(update=update)
    update["judge"] = PublishedJudge(model=NAME, annotator=NAME, baseline=BASELINE)
    update |= {name: cell.model_copy(update={"judge": None}) for name, cell in row.reported.items()}
    return row.reported.model_copy(update=update)


def _published(path: Path) -> DataPath:
    return DataPath(path=str(path), sha256=file_digest(path))


# Models


def _model(row: Row, source: ModelSource, smoke: Path) -> ModelSource:
    config = {"model_type": _family(source, row.template), **ARCHITECTURE}
    tokenizer = smoke_data(smoke / "twin" / "tokenizer")
    random = RandomModel(config=config, tokenizer=tokenizer, seed=_seed(row))
    return ModelSource(random=random, chat_format=source.chat_format)


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
    for name in (name_of(source), template_name):
        for part, family in FAMILIES.items():
            if part in name.lower():
                return family
    return USUAL_FAMILY


def _train(train: Train, smoke: Path) -> Train:
    validation = train.validation
    if validation is not None:
        every = validation.every_steps
        kind = "preference" if train.objective == "orpo" else ""
        validation = validation.model_copy(
            update={
                "file": smoke_examples(smoke, kind) if validation.file else None,
                "first": at_most(validation.first, PROMPTS) if validation.file else None,
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
            "keep": sorted({_scaled_step(step, train) for step in train.keep}),
            "warmup_steps": min(train.warmup_steps, 2),
            "batch_size": min(train.batch_size, 2),
            "accumulation": min(train.accumulation, 2),
            "cutoff_length": min(train.cutoff_length, CUTOFF),
            "max_prompt_length": train.max_prompt_length
            and min(train.max_prompt_length, CUTOFF // 2),
            "precision": "float32",
            "tf32": False,
            "liger_kernels": False,
            "launch": launch,
            "validation": validation,
            "threads": 1,
        }
    )


def _scaled_step(step: int, train: Train) -> int:
    """Where the same share of the twin's few steps has gone by."""
    return STEPS if train.steps is None else max(1, step * STEPS // train.steps)


# Evaluation


def _eval(evaluation: Eval, train: Train | None, smoke: Path, reported: ReportedNumbers) -> Eval:
    answer, judge, step = evaluation.answer, evaluation.judge, evaluation.checkpoint
    return evaluation.model_copy(
        update={
            "answer": _answer(answer, judge, smoke, reported) if answer else None,
            "judge": judge.twin(smoke) if judge else None,
            "checkpoint": _scaled_step(step, train) if step and train else None,
        }
    )


def _answer(
    answer: Answer, judge: BaseJudge | None, smoke: Path, reported: ReportedNumbers
) -> Answer:
    prompts = judge.twin_prompts(smoke) if judge else None
    if reported.bridge and answer.prompts.files:
        prompts = _bridged_sets(answer.prompts, smoke)
    tokens = min(answer.decoding.max_new_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
    return answer.model_copy(
        update={
            "prompts": prompts or few_prompts(answer.prompts, smoke),
            "engine": answer.engine.twin(smoke),
            "decoding": Decoding(**{**answer.decoding.model_dump(), "max_new_tokens": tokens}),
        }
    )


def _bridged_sets(prompts: PromptSet, smoke: Path) -> PromptSet:
    """Few prompts of sets that are larger than those of other rows: a bridging model is asked more."""
    few = few_prompts(prompts, smoke)
    files = {
        name: smoke_data(smoke / "twin" / RETIRED / PROMPT_SETS[number % len(PROMPT_SETS)])
        for number, name in enumerate(few.files or {})
    }
    first = None if few.sample else at_most(few.first, PROMPTS // len(PROMPT_SETS))
    return few.model_copy(update={"files": files, "first": first})


def _replicates(replicates: Replicates) -> Replicates:
    train, sampling = replicates.train_seeds, replicates.sampling_seeds
    return Replicates(
        train_seeds=train[:REPLICATES] if train else None,
        sampling_seeds=sampling[:REPLICATES] if sampling else None,
        judge=min(replicates.judge, REPLICATES),
    )
