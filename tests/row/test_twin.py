"""Scaled-down twins: what they keep of a row, and that they need nothing from outside the checkout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from harness.answer.engines.endpoint import EndpointEngine
from harness.answer.engines.transformers import TransformersEngine
from harness.artefact.keys import iter_data, open_hubs
from harness.errors import InputError
from harness.row import twin as scale
from harness.row.load import LoadedRow, load_rows
from harness.row.row import Row
from harness.row.twin import PROMPTS, STEPS, scaled
from harness.run import gc
from harness.run.runner import Runner
from harness.spec.base import DATA_SCHEME, Endpoint, Hub
from harness.spec.template import TOKENIZER, load_template, template_names
from tests.helpers import ROOT, InstantExecutor, evaluation, planner, write_row

ROWS = load_rows([ROOT / "specs"])
EACH = pytest.mark.parametrize("loaded", ROWS, ids=[r.row.row for r in ROWS])


def parts(value: Any, kind: type) -> Iterator[Any]:
    """Every model of a kind within a spec."""
    if isinstance(value, kind):
        yield value
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    ):
        yield from parts(item, kind)


def twin_of(folder: Path, **changes: Any) -> Row:
    return scaled(load_rows([write_row(folder, **changes)])[0]).row


@EACH
def test_a_twin_needs_no_network_no_key_and_no_given_data(loaded: LoadedRow) -> None:
    twin = scaled(loaded).row
    assert list(parts(twin, Hub)) == []
    for endpoint in parts(twin, Endpoint):
        assert endpoint.simulated is not None
        assert (endpoint.base_url, endpoint.api_key_env) == (None, None)
    published = list(iter_data(twin.reported))
    for data in iter_data(twin):
        assert not data.path.startswith(DATA_SCHEME)
        assert Path(data.path).exists(), data.path
        assert data.sha256 is None or data in published
    planner(ROOT / "nowhere").plan(scaled(loaded))


@EACH
def test_a_twin_is_a_row_that_a_spec_could_say(loaded: LoadedRow) -> None:
    twin = scaled(loaded).row
    assert Row.model_validate(twin.model_dump()) == twin


@EACH
def test_a_twin_goes_the_rows_own_way(loaded: LoadedRow) -> None:
    row, twin = loaded.row, scaled(loaded).row
    assert twin.template == row.template
    assert [s.recipe for s in twin.gen or []] == [s.recipe for s in row.gen or []]
    assert (twin.data is None, twin.train is None, twin.eval is None) == (
        row.data is None,
        row.train is None,
        row.eval is None,
    )
    if row.train and twin.train:
        kept = (
            "objective method lora quantization orpo train_on_prompt train_on_history optimizer "
            "learning_rate betas epsilon weight_decay max_grad_norm scheduler warmup_ratio packing "
            "truncation_side truncation tokenize append_end gradient_checkpointing deepspeed "
            "deterministic seed"
        )
        for name in kept.split():
            assert getattr(twin.train, name) == getattr(row.train, name), name
        assert twin.train.steps == STEPS
    if row.eval and twin.eval:
        judge, small = row.eval.judge, twin.eval.judge
        assert type(small) is type(judge)
        for name in ("prompt", "system", "annotator", "rubric", "sampling"):
            assert getattr(small, name, None) == getattr(judge, name, None), name
        if row.eval.answer and twin.eval.answer:
            assert twin.eval.answer.template == row.eval.answer.template
            assert twin.eval.answer.decoding.temperature == row.eval.answer.decoding.temperature


@EACH
def test_a_twin_says_what_it_is_and_keeps_what_was_reported(loaded: LoadedRow) -> None:
    row, twin = loaded.row, scaled(loaded).row
    assert (twin.row, twin.table, twin.scale) == (f"{row.row}-tiny", f"{row.table}-tiny", "tiny")
    assert (twin.source, twin.varied) == (row.source, row.varied)
    assert dict(twin.reported) == dict(row.reported)
    assert twin.deviations[:-1] == row.deviations
    assert twin.deviations[-1].startswith("scaled down")
    assert "\n" not in twin.deviations[-1]
    assert scaled(scaled(loaded)).row == twin


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen1.5-0.5B", "qwen2"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama"),
        ("mistralai/Mistral-Small-Instruct-2409", "mistral"),
        ("microsoft/Phi-3.5-mini-instruct", "phi3"),
        ("someone/anything", "qwen2"),
    ],
)
def test_the_tiny_models_architecture_is_the_rows(tmp_path: Path, name: str, family: str) -> None:
    model = twin_of(tmp_path, model={"hub": {"id": name}}).model
    assert model is not None
    assert model.random is not None
    assert model.random.config["model_type"] == family


def test_a_name_that_says_nothing_leaves_it_to_the_template(tmp_path: Path) -> None:
    model = twin_of(tmp_path, model={"hub": {"id": "a/b"}}, template="llama3").model
    assert model is not None
    assert model.random is not None
    assert model.random.config["model_type"] == "llama"


def test_several_prompt_sets_stay_several_with_prompts_of_their_own(tmp_path: Path) -> None:
    parts = evaluation(tmp_path)
    names = ("koala", "sinstruct", "vicuna", "wizardlm", "fifth", "sixth", "seventh", "eighth")
    parts["answer"]["prompts"] = {"files": dict.fromkeys(names, "prompts.jsonl")}
    twin = twin_of(tmp_path, eval=parts)
    assert twin.eval is not None
    assert twin.eval.answer is not None
    files = twin.eval.answer.prompts.files
    assert files is not None
    assert sorted(files) == sorted(names)
    lines = [line for data in files.values() for line in Path(data.path).read_text().splitlines()]
    assert len(set(lines)) == len(lines) >= 2 * len(names)
    assert not any("repeat" in text for text in twin.deviations)
    judge = twin.eval.judge
    reference = Path(judge.reference.path).read_text()  # type: ignore[union-attr]
    assert all(line in reference for line in lines)


def test_of_more_prompt_sets_than_there_are_small_ones_the_twin_says_that_they_repeat(
    tmp_path: Path,
) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["prompts"] = {
        "files": {f"s{n}": "prompts.jsonl" for n in range(scale.SETS + 1)}
    }
    twin = twin_of(tmp_path, eval=parts)
    assert f"prompt sets that repeat after {scale.SETS}" in twin.deviations[-1]


def test_a_twin_names_what_was_replaced_of_that_very_row(tmp_path: Path) -> None:
    parts = evaluation(tmp_path, judge={"model": "gpt-x"})
    parts["answer"]["engine"] = {"kind": "vllm"}
    said = twin_of(tmp_path, eval=parts, train={"epochs": 3, "precision": "bfloat16"}).deviations[
        -1
    ]
    for words in (
        f"{STEPS} training steps for epochs",
        "training in float32 for bfloat16",
        "transformers for vLLM",
        "answers in float32 for bfloat16",
        "a simulated judge for gpt-x",
    ):
        assert words in said
    said = twin_of(tmp_path, gen=None, train=None, eval=evaluation(tmp_path)).deviations[-1]
    for words in ("teacher", "judge", "steps", "examples", "bfloat16", "vLLM", "length control"):
        assert words not in said
    local = {
        "kind": "flow_judge",
        "model": {"hub": {"id": "flowaicom/Flow-Judge-v0.1"}},
        "rubric": "response_correctness_5point",
        "fields": {"reference_answer": "output"},
    }
    said = twin_of(tmp_path, eval={"answer": parts["answer"], "judge": local}).deviations[-1]
    assert "a simulated judge behind an endpoint for flowaicom/Flow-Judge-v0.1" in said
    assert "teacher" not in said
    alpaca = {
        "kind": "alpaca_eval",
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "judge": {"model": "gpt-x"},
        "reference": "prompts.jsonl",
        "length_control": {"folder": "."},
    }
    said = twin_of(tmp_path, eval={"answer": parts["answer"], "judge": alpaca}).deviations[-1]
    assert "no length control" in said


def test_what_needs_a_gpu_or_another_machine_runs_here(tmp_path: Path) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["engine"] = {"kind": "vllm"}
    train = {
        "precision": "bfloat16",
        "liger_kernels": True,
        "launch": {"processes": 8, "machines": 2},
        "batch_size": 64,
        "cutoff_length": 4096,
        "warmup_steps": 100,
        "epochs": 15,
    }
    twin = twin_of(tmp_path, eval=parts, train=train, replicates={"train_seeds": [1, 2, 3]})
    assert twin.eval is not None
    assert twin.eval.answer is not None
    assert isinstance(twin.eval.answer.engine, TransformersEngine)
    assert twin.train is not None
    assert (twin.train.precision, twin.train.liger_kernels) == ("float32", False)
    rounded = twin_of(tmp_path, train={"tf32": True})
    assert rounded.train is not None
    assert not rounded.train.tf32
    assert "whole float32" in rounded.deviations[-1]
    assert (twin.train.launch.processes, twin.train.launch.machines) == (2, 1)
    assert twin.train.epochs is None
    assert twin.train.warmup_steps < STEPS
    assert twin.replicates.train_seeds == [1, 2]


@pytest.mark.parametrize(
    ("rubric", "shown"),
    [
        ("response_correctness_5point", "reference_answer"),
        ("response_faithfulness_3point", "context"),
        ("response_relevance_binary", "context"),
    ],
)
def test_a_local_flow_judge_becomes_the_simulated_one_and_has_something_to_judge_by(
    tmp_path: Path, rubric: str, shown: str
) -> None:
    parts = evaluation(tmp_path)
    parts["judge"] = {
        "kind": "flow_judge",
        "model": {"hub": {"id": "flowaicom/Flow-Judge-v0.1"}},
        "rubric": rubric,
        "fields": {shown: "somewhere"},
    }
    twin = twin_of(tmp_path, eval=parts)
    assert twin.eval is not None
    judge: Any = twin.eval.judge
    assert isinstance(judge.engine, EndpointEngine)
    assert judge.model is None
    assert judge.fields == {shown: "output"}


def test_counts_are_cut_and_smaller_ones_stay(tmp_path: Path) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["prompts"]["first"] = 805
    twin = twin_of(tmp_path, eval=parts)
    assert twin.gen is not None
    assert twin.gen[0].examples == 3  # type: ignore[union-attr]
    assert twin.eval is not None
    assert twin.eval.answer is not None
    assert twin.eval.answer.prompts.first == PROMPTS


def test_rows_that_differ_in_their_data_set_alone_have_twins_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seed(name: str, **changes: Any) -> int:
        model = twin_of(tmp_path, gen={"recipe": "import", "hub": {"id": name}}, **changes).model
        assert model is not None
        assert model.random is not None
        return model.random.seed

    assert seed("a/one") == seed("a/one", eval=evaluation(tmp_path), row="two")
    assert len({seed("a/one"), seed("a/two"), seed("a/one", model={"hub": {"id": "a/b"}})}) == 3
    given = twin_of(tmp_path).model
    monkeypatch.chdir(tmp_path)
    assert given is not None
    assert given.random is not None
    there = scaled(load_rows([Path("one.yaml")])[0]).row.model
    assert there is not None
    assert there.random is not None
    assert there.random.seed == given.random.seed


def test_a_baseline_that_is_another_row_is_that_rows_twin(tmp_path: Path) -> None:
    loaded = load_rows([ROOT / "specs/smoke/eval_grading.yaml"])[0]
    plan = planner(tmp_path).plan(scaled(loaded))
    assert {s.row for s in plan.stages} == {"smoke-eval-grading-tiny", "smoke-base-tiny"}
    judge = plan.final()[0]
    assert judge.inputs["baseline"].row == "smoke-base-tiny"


def test_a_twins_artefacts_are_none_of_the_rows(tmp_path: Path) -> None:
    loaded = load_rows([ROOT / "specs/smoke/sft.yaml"])[0]
    plans = planner(tmp_path)
    keys = [{s.key for s in plans.plan(r).stages} for r in (loaded, scaled(loaded))]
    assert keys[0] & keys[1] == set()


def test_the_files_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert scaled(load_rows([Path("mine/one.yaml")])[0]).row.scale == "tiny"
    assert scaled(load_rows([spec])[0]).row.scale == "tiny"


def test_specs_beside_a_smoke_folder_take_that_one(tmp_path: Path) -> None:
    (tmp_path / "specs" / "smoke").mkdir(parents=True)
    (tmp_path / "specs" / "smoke" / "twin").symlink_to(ROOT / "specs" / "smoke" / "twin")
    spec = write_row(tmp_path / "specs" / "study")
    assert scale.smoke_folder(spec) == tmp_path / "specs" / "smoke"


def test_without_the_smoke_files_the_error_says_where_they_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "__file__", str(tmp_path / "harness" / "spec" / "scale.py"))
    with pytest.raises(InputError, match="specs/smoke is not there"):
        twin_of(tmp_path / "alone")


def test_the_twins_tokenizer_fits_every_template() -> None:
    from harness.modeling.load import load_tokenizer
    from harness.modeling.text import Encoder, missing_tokens
    from harness.spec.model_source import ModelSource

    folder = str(ROOT / "specs" / "smoke" / "twin" / "tokenizer")
    source = ModelSource.model_validate(
        {"random": {"config": {"model_type": "qwen2"}, "tokenizer": folder}}
    )
    tokenizer = load_tokenizer(source, {})
    for name in template_names():
        template = load_template(name)
        if name != TOKENIZER:
            assert missing_tokens(tokenizer, template) == [], name
        tokens = Encoder(tokenizer, template).example("What is the opposite of hot?", "", "cold")
        begin, end = tokens.answers[0]
        assert len(tokens.ids) < scale.CUTOFF, name
        assert "cold" in tokenizer.decode(tokens.ids[begin:end])


def test_gc_keeps_what_twins_made_as_long_as_their_rows_are_there(tmp_path: Path) -> None:
    rows = load_rows([ROOT / "specs/smoke/data_import.yaml"])
    plans = planner(tmp_path)
    plans.store.prepare()
    runner = Runner(plans.store, plans.files, InstantExecutor(), Console(quiet=True))
    runner.run([plans.plan(scaled(loaded)) for loaded in rows])
    assert gc.collect(plans.store, rows, [plans]) == []
    assert len(gc.collect(plans.store, [], [plans])) == 2


def test_an_open_revision_is_no_matter_at_tiny_scale(tmp_path: Path) -> None:
    twin = twin_of(tmp_path, model={"hub": {"id": "owner/model"}})
    assert open_hubs(twin) == []
