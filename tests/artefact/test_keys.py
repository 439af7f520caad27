"""What decides a key, and what must not: every parameter of a row stands in one of two tables."""

import os
import shutil
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from harness.answer.engines.transformers import TransformersEngine
from harness.answer.engines.union import _Engine
from harness.answer.engines.vllm import VllmEngine
from harness.artefact import environment
from harness.artefact.keys import Files, file_digest, flatten, key_view
from harness.gen.recipes.alpaca import AlpacaGen
from harness.gen.recipes.naive import NaiveGen
from harness.gen.recipes.union import Gen
from harness.judge.judge import RowOutputs
from harness.judge.kinds.preference import PreferenceJudge
from harness.judge.kinds.union import KINDS
from harness.row.row import Row
from harness.spec.base import DataPath, FileText, models_in
from harness.spec.prompts import PromptSet
from harness.spec.template import Template
from harness.spec.train import Train
from tests.helpers import evaluation, planned, write_row

STAGES = ("gen", "train", "answer", "judge")

FROM_GEN = {
    "gen.teacher.model": "another-teacher",
    "gen.teacher.base_url": "http://localhost:9",
    "gen.teacher.simulated.seed": 1,
    "gen.teacher.simulated.error_rate": 0.5,
    "gen.teacher.simulated.position_bias": 0.5,
    "gen.teacher.simulated.faults": {"429": 0.1},
    "gen.seeds": "other.jsonl",
    "gen.prompt": "other.txt",
    "gen.examples": 4,
    "gen.shown": 2,
    "gen.tasks_per_reply": 19,
    "gen.requests_per_round": 4,
    "gen.max_requests": 99,
    "gen.filter.fewest_words": 3,
    "gen.filter.most_words": 99,
    "gen.filter.blacklist": ["poem"],
    "gen.filter.max_similarity": 0.6,
    "gen.transcript": "other.jsonl",
    "gen.sampling.temperature": 0.9,
    "gen.sampling.top_p": 0.9,
    "gen.sampling.max_tokens": 3000,
    "gen.sampling.presence_penalty": 0.1,
    "gen.sampling.frequency_penalty": 0.1,
    "gen.sampling.stop": ["###"],
    "gen.sampling.seed": 1,
    "gen.include_seeds": False,
    "gen.seed": 43,
}
FROM_TRAIN = {
    "model.random.config": {"model_type": "llama"},
    "model.random.tokenizer": "tokenizer",
    "model.random.seed": 1,
    "model.path": "tokenizer",
    "model.hub.id": "other/model",
    "model.hub.revision": "b" * 40,
    "model.trust_remote_code": True,
    "model.chat_format": "chatml",
    "template.prompt": "other.txt",
    "template.stop": ["\n"],
    "train.learning_rate": 3e-5,
    "train.epochs": 2,
    "train.steps": 7,
    "train.batch_size": 4,
    "train.accumulation": 2,
    "train.scheduler": "cosine",
    "train.warmup_steps": 3,
    "train.weight_decay": 0.1,
    "train.betas": [0.9, 0.99],
    "train.max_grad_norm": 2.0,
    "train.cutoff_length": 512,
    "train.precision": "bfloat16",
    "train.gradient_checkpointing": True,
    "train.seed": 43,
    "train.threads": 1,
}
FROM_ANSWER = {
    "eval.answer.prompts.file": "other.jsonl",
    "eval.answer.prompts.first": 1,
    "eval.answer.template.prompt": "other.txt",
    "eval.answer.template.stop": ["\n"],
    "eval.answer.decoding.max_new_tokens": 100,
    "eval.answer.decoding.temperature": 0.7,
    "eval.answer.decoding.top_p": 0.9,
    "eval.answer.decoding.seed": 43,
    "eval.answer.decoding.stop": ["###"],
    "eval.answer.engine.batch_size": 8,
    "eval.answer.engine.batching": "continuous",
    "eval.answer.engine.precision": "bfloat16",
    "eval.answer.engine.threads": 1,
}
FROM_JUDGE = {
    "eval.judge.kind": "alpaca_eval",
    "eval.judge.judge.model": "another-judge",
    "eval.judge.judge.base_url": "http://localhost:9",
    "eval.judge.judge.simulated.seed": 1,
    "eval.judge.judge.simulated.error_rate": 0.5,
    "eval.judge.judge.simulated.position_bias": 0.5,
    "eval.judge.judge.simulated.faults": {"429": 0.1},
    "eval.judge.prompt": "other.txt",
    "eval.judge.reference": "other.jsonl",
    "eval.judge.asks": 3,
    "eval.judge.on_model_change": "stop",
    "eval.judge.transcript": "other.jsonl",
    "eval.judge.annotator": "another",
    "eval.judge.sampling.temperature": 0.5,
    "eval.judge.sampling.top_p": 0.9,
    "eval.judge.sampling.max_tokens": 5,
    "eval.judge.sampling.presence_penalty": 0.1,
    "eval.judge.sampling.frequency_penalty": 0.1,
    "eval.judge.sampling.stop": ["###"],
    "eval.judge.sampling.seed": 1,
}
KEYED = {
    (name, value): first
    for first, table in (
        ("gen", FROM_GEN), ("train", FROM_TRAIN), ("answer", FROM_ANSWER), ("judge", FROM_JUDGE),
    )
    for name, value in ((n, yaml.safe_dump(v)) for n, v in table.items())
}  # fmt: skip
"""Parameter and another value (YAML) -> the first stage whose key it must change."""

NOT_KEYED = {
    "row": "another-id",
    "table": "another-table",
    "title": "Another title",
    "varied": {"training": "none"},
    "source.document": "another.pdf",
    "source.table": "Table 7",
    "source.line": 7,
    "source.url": "https://example.org",
    "sources": {"train": {"document": "a.pdf"}},
    "reported": {
        "judge": {"model": "gpt-4"},
        "outputs": {"url": "https://example.org/a.json", "sha256": "a" * 64},
        "win_rate": {"value": 1, "standard_error": 1, "judged": 1, "expected": 1},
    },
    "gen.teacher.api_key_env": "TEACHER_KEY",
    "gen.teacher.concurrency": 1,
    "gen.teacher.timeout_s": 1,
    "gen.teacher.max_attempts": 1,
    "gen.teacher.mode": "batch",
    "gen.teacher.token_limit": "max_completion_tokens",
    "gen.teacher.batch_poll_s": 1,
    "eval.judge.judge.api_key_env": "JUDGE_KEY",
    "eval.judge.judge.concurrency": 1,
    "eval.judge.judge.timeout_s": 1,
    "eval.judge.judge.max_attempts": 1,
    "eval.judge.judge.mode": "batch",
    "eval.judge.judge.token_limit": "max_completion_tokens",
    "eval.judge.judge.batch_poll_s": 1,
    "train.checkpoint_steps": 1,
    "train.merge_micro_batches": False,
    "budget.calls": 1,
    "budget.tokens": 1,
    "budget.usd": 1,
    "limits.cpus": 1,
    "limits.memory": "1g",
    "limits.shm": "2g",
    "limits.pids": 100,
    "limits.gpus": 1,
    "deviations": ["the teacher is retired"],
    "assumptions": ["greedy decoding"],
    "margins": {"win_rate": 2.0},
    "studied": ["train"],
    "scale": "tiny",
}
ONE_VALUE = {"gen.recipe"}
"""Parameters that can only be what they are."""
ELSEWHERE = {
    "data",
    "eval.checkpoint",
    "replicates.train_seeds",
    "replicates.sampling_seeds",
    "replicates.judge",
}
"""Parameters with tests of their own below."""

Keys = dict[tuple[str, str], str]


def keys(spec: Path, volume: Path | None = None, **how: Any) -> Keys:
    """(stage, label) -> key."""
    (plan,) = planned(volume or spec.parent / "volume", spec, **how)
    beside = {other.row.row for other in plan.beside()}
    return {(s.stage, s.label): s.key for s in plan.stages if s.row not in beside}


def changed(before: Keys, after: Keys) -> tuple[str, ...]:
    assert list(before) == list(after)
    return tuple(stage for stage, label in before if before[stage, label] != after[stage, label])


def downstream(first: str) -> tuple[str, ...]:
    return STAGES[STAGES.index(first) :]


def setting(spec: Path, name: str, value: Any) -> None:
    """Write a parameter into a spec; where a choice excludes another, that other one goes."""
    tree = yaml.safe_load(spec.read_text())
    part = tree
    *parents, last = name.split(".")
    for parent in parents:
        if not isinstance(part.get(parent), dict):
            part[parent] = {}
        part = part[parent]
    part[last] = value
    if last == "base_url":
        part.pop("simulated")
    if last == "epochs":
        part.pop("steps")
    spec.write_text(yaml.safe_dump(tree))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A row with all four stages, and other files that it might name."""
    folder = tmp_path / "specs"
    path = write_row(folder, eval=evaluation(folder))
    (folder / "other.txt").write_text(
        "Other: {instruction} {output_a} {output_b} {count} {examples} {next}"
    )
    (folder / "other.jsonl").write_text('{"instruction": "Say so.", "output": "so"}\n')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def fresh_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test change what the present environment seems to be."""
    environment.environment_of.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    environment.environment_of.cache_clear()


def with_fresh_environment(spec: Path, **how: Any) -> Keys:
    environment.environment_of.cache_clear()
    return keys(spec, **how)


def parameters(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Of gen's recipes, those of one; a test of its own covers the others."""
    for name, field in model.model_fields.items():
        aside = (DataPath, FileText, RowOutputs)
        inner = [m for m in models_in(field.annotation) if m not in aside]
        if at == "" and name == "gen":
            inner = [AlpacaGen]
        if inner and name not in ("reported", "sources", "reference"):
            for m in inner:
                yield from parameters(m, f"{at}{name}.")
        else:
            yield at + name


def test_every_parameter_is_said_to_decide_a_key_or_not_to() -> None:
    """Those of training, templates, engines and judges stand in a test of their own, and some of them
    here too."""
    tables = {name for name, _ in KEYED}, set(NOT_KEYED), ONE_VALUE, ELSEWHERE
    said, there = set().union(*tables), set(parameters(Row))
    assert said <= there
    elsewhere = ("train.", "template.", "eval.answer.", "eval.judge.")
    assert not [name for name in there - said if not name.startswith(elsewhere)]
    assert sum(map(len, tables)) == len(said)


@pytest.mark.parametrize(("name", "value"), sorted(KEYED))
def test_a_changed_parameter_changes_the_keys_from_its_stage_on_and_no_other(
    spec: Path, name: str, value: str
) -> None:
    if name.startswith(("model.path", "model.hub")):
        setting(spec, "model", {})
    if name.startswith("model.hub"):
        setting(spec, "model", {"hub": {"id": "a/b", "revision": "a" * 40}})
    if name.startswith("eval.answer.template.stop"):
        setting(spec, "eval.answer.template.prompt", "prompt.txt")
    judge = {"kind": "alpaca_eval", "judge": {"model": "judge", "simulated": {}}}
    judge["reference"] = "prompts.jsonl"
    if name == "eval.judge.annotator":
        setting(spec, "eval.judge", judge)
    if name == "model.path":
        setting(spec, "model.path", "seeds.jsonl")
    before = keys(spec)
    if name == "eval.judge.kind":
        setting(spec, "eval.judge", judge)
    else:
        setting(spec, name, yaml.safe_load(value))
    assert changed(before, keys(spec)) == downstream(KEYED[name, value])


RECIPES = typing.get_args(typing.get_args(Gen)[0])
WHERE = {"path", "url", "member", "bytes"}
"""Where a given file is, which its digest stands for."""
HOW = WHERE | {
    "api_key_env",
    "concurrency",
    "timeout_s",
    "max_attempts",
    "mode",
    "token_limit",
    "batch_poll_s",
}
"""How calls are made, and what files are called."""


class AnyFile:
    def digest(self, data: DataPath) -> str:
        return "of its bytes"


def built(model: type[BaseModel]) -> BaseModel:
    """An instance with something in every field."""
    values = {}
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        values[name] = built(inner[0]) if inner else "something"
    return model.model_construct(**values)


def leaves(model: type[BaseModel], at: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if inner:
            yield from leaves(inner[0], f"{at}{name}.")
        else:
            yield at + name


@pytest.mark.parametrize("part", [Train, Template])
def test_every_parameter_of_training_and_templates_stands_in_the_key_but_names_and_how_it_runs(
    part: type[BaseModel],
) -> None:
    keyed = set(flatten(key_view(built(part), AnyFile())))
    aside = WHERE | {"name", "checkpoint_steps", "merge_micro_batches"}
    assert keyed == {name for name in leaves(part) if name.rpartition(".")[2] not in aside}


SERVED = {"base_url", "gpu_memory", "tensor_parallel", "concurrency", "start_timeout_s"}
"""Where and how a vLLM server runs."""


@pytest.mark.parametrize("engine", typing.get_args(typing.get_args(_Engine)[0]))
def test_every_parameter_of_an_engine_stands_in_the_key_but_those_of_how_it_is_run(
    engine: type[BaseModel],
) -> None:
    keyed = set(flatten(key_view(built(engine), AnyFile())))
    aside = SERVED if engine is VllmEngine else HOW
    assert keyed == {name for name in leaves(engine) if name.rpartition(".")[2] not in aside}


@pytest.mark.parametrize("judge", KINDS.values())
def test_every_parameter_of_a_judge_stands_in_the_key_but_those_of_how_it_is_asked(
    judge: type[BaseModel],
) -> None:
    keyed = set(flatten(key_view(built(judge), AnyFile())))
    # A template's content decides; how a base is quantised is a parameter of the stage itself.
    aside = HOW | {"name", "quantization"}
    assert {name for name in keyed if name.rpartition(".")[2] not in aside} == {
        name for name in leaves(judge) if name.rpartition(".")[2] not in aside
    }


def test_another_rows_outputs_decide_a_key_by_their_own_key_alone(spec: Path) -> None:
    other = spec.with_name("other.yaml")
    tree = yaml.safe_load(spec.read_text())
    other.write_text(
        yaml.safe_dump({**tree, "row": "other", "eval": dict(tree["eval"], judge=None)})
    )
    setting(spec, "eval.judge.reference", {"spec": "other.yaml"})
    before = keys(spec)
    assert [stage for stage, label in before if not label] == list(STAGES)
    shutil.copyfile(other, other.with_name("renamed.yaml"))
    setting(spec, "eval.judge.reference", {"spec": "renamed.yaml"})
    assert changed(before, keys(spec)) == ()
    setting(other, "eval.answer.decoding.max_new_tokens", 7)
    setting(spec, "eval.judge.reference", {"spec": "other.yaml"})
    after = keys(spec)
    assert before["answer", ""] == after["answer", ""]
    assert before["judge", ""] != after["judge", ""]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_parameter_of_a_recipe_stands_in_its_key_but_those_of_how_it_is_run(
    recipe: type[BaseModel],
) -> None:
    keyed = set(flatten(key_view(built(recipe), AnyFile())))
    assert keyed == {name for name in leaves(recipe) if name.rpartition(".")[2] not in HOW}


def test_another_checkpoint_is_another_answer_of_the_same_training(spec: Path) -> None:
    setting(spec, "train.steps", 4)
    setting(spec, "train.keep", [2])
    before = keys(spec)
    setting(spec, "eval.checkpoint", 2)
    assert changed(before, keys(spec)) == downstream("answer")


@pytest.mark.parametrize("name", NOT_KEYED)
def test_what_does_not_decide_the_content_changes_no_key(spec: Path, name: str) -> None:
    before = keys(spec)
    if name.startswith("source."):
        setting(spec, "source.document", "a.pdf")
    setting(spec, name, NOT_KEYED[name])
    assert changed(before, keys(spec)) == ()


def test_a_field_that_came_later_is_in_no_key_at_its_default() -> None:
    prompts = PromptSet(file=DataPath(path="p.json"))
    last, first = (prompts.model_copy(update={"turns": turns}) for turns in ("last", "first"))
    assert "turns" not in key_view(last, AnyFile())
    assert key_view(first, AnyFile())["turns"] == "first"


def test_writing_a_default_out_changes_no_key(spec: Path) -> None:
    before = keys(spec)
    for name, value in {
        "gen.tasks_per_reply": 20,
        "gen.sampling": {"temperature": 1, "top_p": 1.0, "max_tokens": 3072},
        "train.batch_size": 8,
        "train.learning_rate": 0.00002,
        "eval.answer.decoding": {"seed": 42},
        "eval.answer.template": {"prompt": "prompt.txt"},
    }.items():
        setting(spec, name, value)
    assert changed(before, keys(spec)) == ()


@pytest.mark.parametrize(
    ("model", "field", "default", "first"),
    [
        ("AlpacaGen", "tasks_per_reply", 9, "gen"),
        ("Endpoint", "base_url", "http://localhost:9", "gen"),
        ("Train", "batch_size", 9, "train"),
        ("Decoding", "top_p", 0.9, "answer"),
        ("PromptSet", "first", 9, "answer"),
    ],
)
def test_a_changed_default_in_the_code_changes_the_key(
    spec: Path, monkeypatch: pytest.MonkeyPatch, model: str, field: str, default: Any, first: str
) -> None:
    from harness.row import load

    before = keys(spec)

    def with_another_default(loaded: Any) -> Any:
        def replaced(value: Any) -> Any:
            if isinstance(value, list):
                return [replaced(item) for item in value]
            if not isinstance(value, BaseModel):
                return value
            found = {n: replaced(getattr(value, n)) for n in type(value).model_fields}
            if type(value).__name__ == model:
                assert field not in value.model_fields_set
                found[field] = default
            return value.model_copy(update=found)

        return replaced(loaded)

    real = load.Row.model_validate
    monkeypatch.setattr(load.Row, "model_validate", lambda tree: with_another_default(real(tree)))
    assert changed(before, keys(spec)) == downstream(first)


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("tasks.txt", "gen"),
        ("seeds.jsonl", "gen"),
        ("prompt.txt", "train"),
        ("prompts.jsonl", "answer"),
        ("judge.txt", "judge"),
    ],
)
def test_a_changed_byte_of_a_file_changes_the_keys_from_its_stage_on(
    spec: Path, file: str, first: str
) -> None:
    before = keys(spec)
    path = spec.parent / file
    path.write_bytes(path.read_bytes() + b"\n")
    assert changed(before, keys(spec)) == downstream(first)


def test_a_byte_that_changes_neither_size_nor_time_of_a_file_is_seen_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.artefact.keys.SETTLED_NS", -1)
    path = tmp_path / "data.json"
    path.write_text("[1]")
    stat = path.stat()
    files = Files(None, tmp_path / "cache" / "digests.json")
    before = files.digest(DataPath(path=str(path)))
    files.save()
    time.sleep(0.02)
    path.write_text("[2]")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    again = Files(None, tmp_path / "cache" / "digests.json")
    assert before != again.digest(DataPath(path=str(path))) == file_digest(path)


def test_a_file_that_was_just_written_is_not_remembered_by_its_stamp(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("[1]")
    cache = tmp_path / "cache" / "digests.json"
    files = Files(None, cache)
    files.digest(DataPath(path=str(path)))
    files.save()
    assert not cache.exists()


def test_a_file_that_has_settled_is_read_once_for_all_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.artefact.keys.SETTLED_NS", -1)
    path = tmp_path / "data.json"
    path.write_text("[1]")
    cache = tmp_path / "cache" / "digests.json"
    files = Files(None, cache)
    found = files.digest(DataPath(path=str(path)))
    files.save()
    monkeypatch.setattr("harness.artefact.keys.file_digest", None)
    assert Files(None, cache).digest(DataPath(path=str(path))) == found


@pytest.mark.parametrize("change", ["bytes", "name", "another file"])
def test_a_given_folder_is_keyed_by_the_names_and_bytes_of_its_files(
    spec: Path, change: str
) -> None:
    setting(spec, "model.random.tokenizer", "tokenizer")
    before = keys(spec)
    file = spec.parent / "tokenizer" / "tokenizer.json"
    if change == "bytes":
        file.write_text("{ }")
    elif change == "name":
        file.rename(file.with_name("vocab.json"))
    else:
        (file.parent / "merges.txt").write_text("")
    assert changed(before, keys(spec)) == downstream("train")


def test_reordered_yaml_and_comments_change_no_key(spec: Path) -> None:
    before = keys(spec)

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: turned(v) for k, v in reversed(value.items())}
        return value

    text = yaml.safe_dump(turned(yaml.safe_load(spec.read_text())), sort_keys=False)
    spec.write_text("# A comment.\n" + text.replace("\n", " # and one more\n"))
    assert changed(before, keys(spec)) == ()


def test_moving_a_parameter_into_a_file_that_is_extended_changes_no_key(spec: Path) -> None:
    before = keys(spec)
    tree = yaml.safe_load(spec.read_text())
    base = {name: tree.pop(name) for name in ("gen", "model", "template")}
    (spec.parent / "_base.yaml").write_text(yaml.safe_dump(base))
    spec.write_text(yaml.safe_dump({"extends": "_base.yaml", **tree}))
    assert changed(before, keys(spec)) == ()


def test_moving_the_specs_and_their_files_to_another_folder_changes_no_key(
    spec: Path, tmp_path: Path
) -> None:
    before = keys(spec, tmp_path / "volume")
    shutil.copytree(spec.parent, tmp_path / "else" / "where")
    moved = tmp_path / "else" / "where" / spec.name
    assert changed(before, keys(moved, tmp_path / "volume")) == ()


def test_a_renamed_file_changes_no_key(spec: Path) -> None:
    before = keys(spec)
    folder = spec.parent
    (folder / "seeds.jsonl").rename(folder / "tasks.jsonl")
    (folder / "tasks.txt").rename(folder / "wording.txt")
    setting(spec, "gen.seeds", "tasks.jsonl")
    setting(spec, "gen.prompt", "wording.txt")
    assert changed(before, keys(spec)) == ()


def test_a_given_data_set_is_keyed_by_its_bytes_and_pinning_them_changes_nothing(
    spec: Path, tmp_path: Path
) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree.pop("gen")
    (tmp_path / "given").mkdir()
    data = tmp_path / "given" / "alpaca.json"
    data.write_text("[1]")
    spec.write_text(yaml.safe_dump({**tree, "data": "data:alpaca.json"}))
    before = keys(spec, inputs=data.parent)
    pinned = {"path": "data:alpaca.json", "sha256": file_digest(data)}
    spec.write_text(yaml.safe_dump({**tree, "data": pinned}))
    assert changed(before, keys(spec, inputs=data.parent)) == ()
    data.write_text("[2]")
    spec.write_text(yaml.safe_dump({**tree, "data": "data:alpaca.json"}))
    assert changed(before, keys(spec, inputs=data.parent)) == downstream("train")


def test_an_untrained_row_goes_straight_from_its_model_to_its_answers(spec: Path) -> None:
    tree = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**tree, "gen": None, "train": None}))
    before = keys(spec)
    assert [stage for stage, _ in before] == ["answer", "judge"]
    setting(spec, "model.random.seed", 9)
    assert changed(before, keys(spec)) == ("answer", "judge")


@pytest.mark.parametrize("stage", STAGES)
def test_a_raised_code_version_changes_the_keys_from_its_stage_on(
    spec: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = keys(spec)
    kinds = {"gen": AlpacaGen, "answer": TransformersEngine, "judge": PreferenceJudge}
    if stage in kinds:
        monkeypatch.setattr(kinds[stage], "code_version", 99)
    else:
        monkeypatch.setitem(environment.CODE_VERSIONS, stage, 99)
    assert changed(before, keys(spec)) == downstream(stage)


def test_a_raised_version_of_another_recipe_changes_no_key(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(spec)
    monkeypatch.setattr(NaiveGen, "code_version", 99)
    assert changed(before, keys(spec)) == ()


def test_the_version_of_the_simulation_is_in_the_keys_of_what_it_plays_a_part_in_alone(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(spec)
    setting(spec, "gen.teacher.base_url", "http://localhost:9")
    real = keys(spec)
    monkeypatch.setitem(environment.CODE_VERSIONS, "sim", 99)
    assert changed(real, keys(spec)) == ("judge",)
    setting(spec, "gen.teacher", {"model": "teacher", "simulated": {}})
    assert changed(before, keys(spec)) == STAGES


def test_a_change_in_one_step_of_a_chain_changes_the_keys_from_it_on(spec: Path) -> None:
    (spec.parent / "data.jsonl").write_text('{"instruction": "Say so.", "output": "so"}\n')
    chain = [{"recipe": "import", "file": "data.jsonl"}, {"recipe": "random_k", "k": 5},
             {"recipe": "longest_k", "k": 3}]  # fmt: skip
    setting(spec, "gen", chain)
    before = keys(spec)
    assert [label for stage, label in before if stage == "gen"] == [
        "step 1 import", "step 2 random_k", "step 3 longest_k",
    ]  # fmt: skip
    chain[1]["k"] = 4
    setting(spec, "gen", chain)
    now = keys(spec)
    labels = [label for place, label in before if before[place, label] != now[place, label]]
    assert labels == ["step 2 random_k", "step 3 longest_k", "", "", ""]


def test_one_step_alone_and_a_chain_of_one_have_the_same_key(spec: Path) -> None:
    before = keys(spec)
    setting(spec, "gen", [yaml.safe_load(spec.read_text())["gen"]])
    assert changed(before, keys(spec)) == ()


@pytest.mark.parametrize(
    ("image", "first"), [("gen", "gen"), ("train-cpu", "train"), ("eval-cpu", "answer")]
)
def test_a_changed_image_lock_changes_the_keys_of_docker_stages_in_that_image(
    spec: Path, fresh_environment: pytest.MonkeyPatch, image: str, first: str
) -> None:
    fresh_environment.setattr(environment, "accelerator", lambda: "cpu")
    before = with_fresh_environment(spec, executor="docker")
    real = environment.lock_digest
    fresh_environment.setattr(
        environment, "lock_digest", lambda name: "0" * 64 if name == image else real(name)
    )
    assert changed(before, with_fresh_environment(spec, executor="docker")) == downstream(first)


def test_another_accelerator_is_another_image_for_training_and_evaluation(
    spec: Path, fresh_environment: pytest.MonkeyPatch
) -> None:
    fresh_environment.setattr(environment, "accelerator", lambda: "cpu")
    before = with_fresh_environment(spec, executor="docker")
    fresh_environment.setattr(environment, "accelerator", lambda: "cuda")
    after = with_fresh_environment(spec, executor="docker")
    assert changed(before, after) == downstream("train")


@pytest.mark.parametrize(
    ("package", "stages"),
    [
        ("openai", ("gen", "train", "answer", "judge")),
        ("trl", ("train", "answer", "judge")),
        ("alpaca-eval", ("answer", "judge")),
        ("a-package-of-no-image", ()),
    ],
)
def test_a_local_stage_is_keyed_by_the_installed_version_of_each_package_of_its_image(
    spec: Path,
    fresh_environment: pytest.MonkeyPatch,
    package: str,
    stages: tuple[str, ...],
) -> None:
    before = with_fresh_environment(spec)
    installed = {**environment.installed_packages(), package: "99.0"}
    fresh_environment.setattr(environment, "installed_packages", lambda: installed)
    assert changed(before, with_fresh_environment(spec)) == stages


def test_a_package_that_the_lock_names_in_another_spelling_is_found(
    fresh_environment: pytest.MonkeyPatch,
) -> None:
    fresh_environment.setattr(environment, "lock_text", lambda name: "Typing_Extensions[x]==1 \\\n")
    fresh_environment.setattr(environment, "installed_packages", lambda: {"typing-extensions": "4"})
    environment.environment_of.cache_clear()
    here = environment.environment_of("gen", "local")
    assert here["local"]["packages"] == {"Typing_Extensions": "4"}


def test_local_and_docker_keys_never_meet(spec: Path) -> None:
    local, docker = keys(spec, executor="local"), keys(spec, executor="docker")
    assert changed(local, docker) == STAGES
    assert not set(local.values()) & set(docker.values())


def test_two_rows_with_the_same_gen_share_one_gen_key_and_no_other(spec: Path) -> None:
    folder = spec.parent
    other = write_row(folder, "other", eval=evaluation(folder), train={"steps": 2})
    one, two = keys(spec), keys(other)
    assert changed(one, two) == downstream("train")


def test_replicates_are_every_combination_each_with_a_label_and_a_key_of_its_own(
    spec: Path,
) -> None:
    setting(spec, "eval.answer.decoding", {"temperature": 0.7})
    setting(spec, "replicates", {"train_seeds": [1, 2], "sampling_seeds": [3, 4, 5], "judge": 2})
    found = keys(spec)
    assert len(found) == len(set(found.values())) == 1 + 2 + 2 * 3 + 2 * 3 * 2
    assert [label for stage, label in found if stage == "train"] == ["train seed 1", "train seed 2"]
    assert ("judge", "train seed 2, sampling seed 5, judging 2") in found


def test_a_replicate_with_the_rows_own_seed_has_the_rows_own_keys(spec: Path) -> None:
    setting(spec, "eval.answer.decoding", {"temperature": 0.7})
    before = keys(spec)
    seeds = {"train_seeds": [41, 42], "sampling_seeds": [42, 43], "judge": 2}
    setting(spec, "replicates", seeds)
    after = keys(spec)
    assert before["gen", ""] == after["gen", ""]
    assert before["train", ""] == after["train", "train seed 42"]
    assert before["answer", ""] == after["answer", "train seed 42, sampling seed 42"]
    assert before["judge", ""] == after["judge", "train seed 42, sampling seed 42, judging 1"]


def test_judge_replicates_share_one_answer_artefact(spec: Path) -> None:
    setting(spec, "replicates", {"judge": 3})
    (plan,) = planned(spec.parent / "volume", spec)
    judgings = plan.final()
    assert len(judgings) == 3
    assert len({s.key for s in judgings}) == 3
    assert {s.inputs["outputs"].key for s in judgings} == {
        s.key for s in plan.stages if s.stage == "answer"
    }
    assert [s.stage for s in plan.stages].count("answer") == 1


def test_a_row_that_is_not_judged_has_no_judge_stage(spec: Path) -> None:
    setting(spec, "eval.judge", None)
    assert [stage for stage, _ in keys(spec)] == ["gen", "train", "answer"]
