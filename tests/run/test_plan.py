"""Run, reuse or stale, and the reasons in words; what happens when given data is not there."""

import contextlib
import inspect
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from harness.answer.outputs import OUTPUTS
from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.artefact.keys import digest_of, file_digest
from harness.artefact.store import MadeOfAnother
from harness.cli.views.plan import show_plans
from harness.errors import HarnessError, InputError
from harness.judge.kinds.preference import PreferenceJudge
from harness.results import matrix
from harness.row.load import load_rows
from harness.row.twin import scaled
from harness.run.executors import placing
from harness.run.executors.local import LocalExecutor
from harness.run.needs import needs_of
from harness.train import checkpoints
from tests.helpers import (
    InstantExecutor,
    command,
    evaluation,
    give_gpus,
    make,
    planned,
    planner,
    some_gpus,
    write_row,
)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "lacks_cuda", lambda: False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "specs"
    return write_row(folder, eval=evaluation(folder))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def states(volume: Path, *specs: Path, **how: Any) -> dict[str, str]:
    """Stage (and label) -> its status and reasons."""
    return {
        f"{s.stage} {s.label}".strip(): f"{s.status}: {'; '.join(s.reasons)}"
        for plan in planned(volume, *specs, **how)
        for s in plan.stages
    }


def edit(spec: Path, **parts: Any) -> None:
    """Merge parts (a level deep) into a spec."""
    tree = yaml.safe_load(spec.read_text())
    for name, value in parts.items():
        merge = isinstance(value, dict) and isinstance(tree.get(name), dict)
        tree[name] = {**tree[name], **value} if merge else value
    spec.write_text(yaml.safe_dump(tree))


def test_a_row_that_never_ran_is_to_be_run_and_a_row_that_ran_is_reused(
    spec: Path, volume: Path
) -> None:
    stages = ("gen", "train", "answer", "judge")
    assert states(volume, spec) == dict.fromkeys(stages, "run: not made yet")
    assert make(volume, spec).made == list(stages)
    assert states(volume, spec) == dict.fromkeys(stages, "reuse: ")
    assert make(volume, spec).made == []


def test_planning_writes_nothing_to_the_volume(spec: Path, volume: Path) -> None:
    planned(volume, spec)
    assert not volume.exists()


def test_a_changed_parameter_makes_its_stage_stale_by_name_and_what_follows_by_its_input(
    spec: Path, volume: Path
) -> None:
    make(volume, spec)
    edit(spec, train={"steps": 2, "learning_rate": 0.001})
    assert states(volume, spec) == {
        "gen": "reuse: ",
        "train": "stale: train.learning_rate: 2e-05 -> 0.001; train.steps: 1 -> 2",
        "answer": "stale: its input (model) changed",
        "judge": "stale: its input (outputs) changed",
    }
    assert make(volume, spec).made == ["train", "answer", "judge"]


def test_a_parameter_that_goes_back_finds_its_old_artefacts_again(spec: Path, volume: Path) -> None:
    make(volume, spec)
    edit(spec, train={"steps": 2})
    make(volume, spec)
    edit(spec, train={"steps": 1})
    assert set(states(volume, spec).values()) == {"reuse: "}


def test_a_changed_prompt_is_stale_by_the_line_that_changed(spec: Path, volume: Path) -> None:
    make(volume, spec)
    (spec.parent / "prompt.txt").write_text("Q: {instruction}\nAnswer:")
    found = states(volume, spec)
    assert found["train"] == "stale: template.prompt.text: text changed in line 2"
    (spec.parent / "prompt.txt").write_text("Q: {instruction}\nA:\nmore")
    found = states(volume, spec)
    assert found["train"] == "stale: template.prompt.text: text changed after line 2"


def test_changed_bytes_of_a_data_set_are_said_to_have_changed(spec: Path, volume: Path) -> None:
    make(volume, spec)
    (spec.parent / "seeds.jsonl").write_text("{}\n")
    assert states(volume, spec)["gen"] == "stale: gen.seeds: its bytes changed"


def test_a_raised_code_version_is_the_reason(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(volume, spec)
    old = PreferenceJudge.code_version
    monkeypatch.setattr(PreferenceJudge, "code_version", old + 1)
    found = states(volume, spec)
    assert found["judge"] == f"stale: code_version: {old} -> {old + 1}"
    assert found["answer"] == "reuse: "


def test_a_changed_image_lock_is_the_reason(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = {"train-cpu": "a" * 64}
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    monkeypatch.setattr(environment, "lock_digest", lambda image: digest.get(image, "0" * 64))
    environment.environment_of.cache_clear()
    make(volume, spec, kind="docker")
    digest["train-cpu"] = "b" * 64
    environment.environment_of.cache_clear()
    found = states(volume, spec, executor="docker")
    environment.environment_of.cache_clear()
    assert found["train"] == "stale: image lock: aaaaaaaaaaaa -> bbbbbbbbbbbb"
    assert found["answer"] == "stale: its input (model) changed"


def test_a_changed_local_package_is_the_reason(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(volume, spec)
    was = environment.installed_packages()
    monkeypatch.setattr(environment, "installed_packages", lambda: {**was, "trl": "99.0"})
    environment.environment_of.cache_clear()
    found = states(volume, spec)
    environment.environment_of.cache_clear()
    assert found["train"] == f"stale: package trl: {was['trl']} -> 99.0"
    assert found["gen"] == "reuse: "


def test_a_part_that_is_new_or_gone_is_said_to_be(spec: Path, volume: Path) -> None:
    make(volume, spec)
    edit(spec, model={"random": {"config": {"vocab_size": 8}}})
    assert states(volume, spec)["train"] == (
        "stale: model.random.config.model_type: 'qwen2' is gone; "
        "model.random.config.vocab_size: 8 is new"
    )


def test_a_made_artefact_of_the_other_executor_is_not_reused_and_not_stale(
    spec: Path, volume: Path
) -> None:
    make(volume, spec)
    assert set(states(volume, spec, executor="docker").values()) == {"run: not made yet"}


def test_an_artefact_that_was_removed_is_made_again_and_what_needs_it_is_reused(
    spec: Path, volume: Path
) -> None:
    make(volume, spec)
    shutil.rmtree(volume / "artefacts" / "train")
    found = states(volume, spec)
    assert found["train"] == "run: its artefact is gone"
    assert found["judge"] == "reuse: "


def test_of_a_stale_stage_whose_last_artefact_is_gone_the_change_is_not_guessed(
    spec: Path, volume: Path
) -> None:
    make(volume, spec)
    shutil.rmtree(volume / "artefacts" / "train")
    edit(spec, train={"steps": 2})
    assert states(volume, spec)["train"] == (
        "stale: its last artefact is gone, so what changed is not known"
    )


def test_a_long_label_does_not_break_the_columns(spec: Path, volume: Path) -> None:
    edit(spec, replicates={"train_seeds": [1, 123456], "judge": 2})
    lines = [line for line in shown(volume, spec).splitlines() if " run " in line]
    assert "  judge (train seed 123456, judging 2)\n" + " " * 29 in shown(volume, spec)
    assert {line.index(" run ") for line in lines if "stages" not in line} == {28}


def test_an_interrupted_run_is_said_to_go_on(spec: Path, volume: Path) -> None:
    def stop_in_training(job: Any) -> dict[str, Any]:
        if job.stage == "train":
            raise HarnessError("stopped")
        return {}

    with pytest.raises(HarnessError, match="stopped"):
        make(volume, spec, executor=InstantExecutor(stop_in_training))
    found = states(volume, spec)
    assert found["gen"] == "reuse: "
    assert found["train"] == "run: an interrupted run is there and goes on"
    (work,) = volume.glob("work/train-*")
    checkpoint = work / "checkpoints" / "checkpoint-40"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").touch()
    (work / "log").touch()
    checkpoints.seal(checkpoint, 40, work / "log")
    kept = "an interrupted run is there and goes on (a checkpoint after step 40 kept)"
    assert states(volume, spec)["train"] == f"run: {kept}"
    (work / "outputs.jsonl").write_text("{}\n" * 192)
    assert "goes on (192 answers kept)" in states(volume, spec)["train"]


def test_a_stage_that_another_process_is_at_is_said_to_run(spec: Path, volume: Path) -> None:
    found: dict[str, str] = {}
    said: list[str] = []

    def look(job: Any) -> dict[str, Any]:
        if job.stage == "train":
            found.update(states(volume, spec))
            line = matrix.lines_of(load_rows([spec])[0], [planner(volume)])[0]
            said.append(line.cells.verdict_reason)
        return {}

    make(volume, spec, executor=InstantExecutor(look))
    by = f"running now, by process {os.getpid()} on {socket.gethostname()}"
    assert found["train"] == f"run: {by}"
    assert found["answer"] == "run: not made yet"
    assert said == [f"train {by}"]


def test_two_rows_with_the_same_gen_make_it_once(spec: Path, volume: Path) -> None:
    folder = spec.parent
    other = write_row(folder, "other", train={"steps": 2}, eval=evaluation(folder))
    assert sorted(make(volume, spec, other).made) == sorted(
        ["gen", "train", "answer", "judge", "train", "answer", "judge"]
    )


def test_a_row_that_shares_an_artefact_still_says_what_changed_for_itself(
    spec: Path, volume: Path
) -> None:
    other = write_row(spec.parent, "other", train={"steps": 2}, eval=evaluation(spec.parent))
    make(volume, spec, other)
    edit(other, gen={"examples": 5})
    assert states(volume, other)["gen"] == "stale: gen.examples: 3 -> 5"


def test_a_renamed_row_reuses_everything(spec: Path, volume: Path) -> None:
    make(volume, spec)
    edit(spec, row="new-name", title="New", table="other", reported={"win_rate": {"value": 3}})
    assert set(states(volume, spec).values()) == {"reuse: "}


def test_calls_are_estimated_from_examples_and_prompts(spec: Path, volume: Path) -> None:
    prompts = [{"instruction": "x" * 40, "output": "y" * 80}] * 5
    (spec.parent / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    edit(spec, gen={"examples": 41, "tasks_per_reply": 20})
    (plan,) = planned(volume, spec)
    calls = {s.stage: s.estimate.calls for s in plan.stages}
    assert calls == {"gen": 3, "train": 0, "answer": 0, "judge": 5}
    tree = yaml.safe_load(spec.read_text())
    tree["eval"]["answer"]["prompts"]["first"] = 2
    spec.write_text(yaml.safe_dump(tree))
    (plan,) = planned(volume, spec)
    (judge,) = plan.final()
    template = len((spec.parent / "judge.txt").read_text())
    assert judge.estimate.calls == 2
    assert judge.estimate.prompt_tokens == (2 * template + 2 * 2 * 120) // 4


def test_plan_prints_each_stage_with_its_state_reason_and_expected_calls(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    other = write_row(spec.parent, "other", train={"steps": 2}, eval=evaluation(spec.parent))
    result = command("plan", spec, other)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines() if "memory:" not in line]
    assert lines[0] == ["one", "The", "row", "one"]
    assert lines[1][:2] == ["gen", "run"]
    assert " ".join(lines[1][3:]).startswith("not made yet; about 1 call, ")
    assert " ".join(lines[6][3:]) == "shared with a row above"
    total = result.stdout.partition("\nneeds\n")[0].splitlines()[-1]
    assert total.startswith("7 stages to run, about 3 calls, ")
    make(volume, spec)
    edit(spec, train={"steps": 3})
    lines = [x for x in command("plan", spec).stdout.splitlines() if "memory:" not in x]
    assert [line.split()[1] for line in lines[1:5]] == ["reuse", "stale", "stale", "stale"]
    assert "train.steps: 1 -> 3" in lines[2]


def test_calls_that_wait_for_a_hub_data_set_are_said_to_be_left_out_of_the_total(
    spec: Path, volume: Path
) -> None:
    (spec.parent / "rate.txt").write_text("{instruction} {output}")
    hub = {"id": "owner/set", "revision": "a" * 40}
    rate = {"recipe": "rate", "judge": {"model": "gpt-4.1-mini"}, "prompt": "rate.txt"}
    edit(spec, gen=None)
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = [{"recipe": "import", "hub": hub}, rate, {"recipe": "select"}]
    spec.write_text(yaml.safe_dump(tree))
    told = " ".join(command("plan", spec).stdout.partition("\nneeds\n")[0].split())
    said = "calls not known: how many examples the hub data set has is known once it is fetched"
    assert told.count(said) == 1
    assert f"not made yet; {said} gen (step 3 select)" in told
    assert "6 stages to run, at least 1 call, " in told
    assert told.endswith(f"; calls not known for 1 gen stage until `harness fetch {spec}`")
    second = write_row(spec.parent, "second", train={"steps": 2})
    renamed = spec.read_text().replace("row: one\n", "row: second\n")
    second.write_text(renamed.replace("gpt-4.1-mini", "gpt-4.1-nano"))
    told = " ".join(command("plan", spec, second).stdout.partition("\nneeds\n")[0].split())
    assert told.count(said) == 1, "why is said once"
    assert f"calls not known for 2 gen stages until `harness fetch {spec} {second}`" in told


def test_a_refusal_that_rows_share_is_told_once_and_then_named(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: True)
    other = write_row(spec.parent, "other", train={"steps": 2})
    edit(spec, eval=None)
    edit(other, eval=None)
    text = shown(volume, spec, other)
    assert text.count("torch here is a build") == 1
    assert text.count("    run refuses this too, as of row one\n") == 1


def test_stages_that_a_row_shares_in_succession_take_one_line(spec: Path, volume: Path) -> None:
    other = write_row(spec.parent, "other")
    other.write_text(spec.read_text().replace("row: one\n", "row: other\n"))
    text = shown(volume, spec, other)
    names = "gen, train, answer, judge"
    assert text.count(f"  4 stages shared with rows above: {names}\n4 stages to run") == 1


def test_a_long_line_of_a_plan_hangs_below_its_column(spec: Path, volume: Path) -> None:
    out = io.StringIO()
    show_plans(Console(file=out, width=70), planned(volume, spec))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 70
    (at,) = [n for n, line in enumerate(lines) if line.startswith("  gen ")]
    assert lines[at].index("not made yet") == 49
    assert lines[at + 1][:49].isspace()
    assert lines[at + 1][49] != " "


def with_given_data(spec: Path, **pin: str) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"]["seeds"] = {"path": "data:tasks/seeds.jsonl", **pin}
    spec.write_text(yaml.safe_dump(tree))


def test_a_row_that_is_named_and_lacks_its_data_is_refused_with_the_way_out(spec: Path) -> None:
    with_given_data(spec)
    result = command("plan", spec)
    assert result.exit_code == 2
    told = r"specs/one.yaml:\d+:3: data:tasks/seeds.jsonl is below the folder of given data"
    assert re.search(told, result.stderr)
    assert "--inputs DIR" in result.stderr
    Path("inputs").mkdir()
    result = command("run", spec)
    assert result.exit_code == 2
    assert "inputs holds no tasks/seeds.jsonl" in result.stderr
    result = command("plan", "--data", "nowhere", spec)
    assert result.exit_code == 2
    assert "the folder of given data nowhere is not there" in result.stderr


def test_of_a_folder_a_row_that_lacks_its_data_is_left_out_with_a_note(spec: Path) -> None:
    with_given_data(spec)
    write_row(spec.parent, "other")
    result = command("plan", "specs")
    assert result.exit_code == 0
    assert result.stderr == (
        "left out, because their given data is absent:\n  data:tasks/seeds.jsonl: one\n"
        "Name the folder with --inputs DIR, or in HARNESS_INPUTS.\n"
    )
    assert result.stdout.splitlines()[0].split()[0] == "other"
    assert "2 stages to run" in result.stdout
    assert command("plan", "specs", spec).exit_code == 2


def test_what_an_address_brings_is_no_reason_why_a_row_is_left_out(spec: Path) -> None:
    with_given_data(spec)
    tree = yaml.safe_load(spec.read_text())
    address = {"url": "https://example.com/set.jsonl", "sha256": "1" * 64}
    tree["eval"]["answer"]["prompts"] = {"files": {"set": address}}
    spec.write_text(yaml.safe_dump(tree))
    write_row(spec.parent, "other")
    assert command("plan", "specs").stderr.splitlines()[1:] == [
        "  data:tasks/seeds.jsonl: one", "Name the folder with --inputs DIR, or in HARNESS_INPUTS."
    ]  # fmt: skip


def test_a_folder_whose_rows_all_lack_their_data_is_refused(spec: Path) -> None:
    with_given_data(spec)
    for name in ("two", "three"):
        with_given_data(write_row(spec.parent, name))
    result = command("plan", "specs")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "left out, because their given data is absent:",
        "  data:tasks/seeds.jsonl: one, three, two",
        "error: no row is left",
        "Name the folder with --inputs DIR, or in HARNESS_INPUTS.",
    ]
    Path("inputs").mkdir()
    assert "Put it into inputs, or name another folder" in command("plan", "specs").stderr


def test_given_data_is_found_by_option_variable_or_in_the_folder_inputs(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_given_data(spec)
    (tmp_path / "given" / "tasks").mkdir(parents=True)
    (tmp_path / "given" / "tasks" / "seeds.jsonl").write_text(
        (spec.parent / "seeds.jsonl").read_text()
    )
    assert command("plan", spec, "--data", tmp_path / "given").exit_code == 0
    monkeypatch.setenv("HARNESS_INPUTS", "given")
    assert command("plan", spec).exit_code == 0
    monkeypatch.delenv("HARNESS_INPUTS")
    assert command("plan", spec).exit_code == 2
    (tmp_path / "given").rename(tmp_path / "inputs")
    assert command("plan", spec).exit_code == 0


def test_given_data_with_other_bytes_than_pinned_is_refused_even_in_a_folder(
    spec: Path, tmp_path: Path
) -> None:
    data = tmp_path / "inputs" / "tasks" / "seeds.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text((spec.parent / "seeds.jsonl").read_text())
    digest = file_digest(data)
    with_given_data(spec, sha256=digest)
    assert command("plan", "specs").exit_code == 0
    data.write_text(data.read_text() + "\n")
    result = command("plan", "specs")
    assert result.exit_code == 2
    assert file_digest(data) in result.stderr
    assert digest in result.stderr
    assert "write its sha256 into the spec" in result.stderr


def test_given_data_cannot_lead_out_of_its_folder(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "secret").write_text("x")
    tree = yaml.safe_load(spec.read_text())
    tree["gen"]["seeds"] = "data:../secret"
    spec.write_text(yaml.safe_dump(tree))
    result = command("plan", "specs")
    assert result.exit_code == 2
    assert "leads out of the folder of given data" in result.stderr


def test_a_damaged_cache_of_digests_costs_nothing_but_time(spec: Path, volume: Path) -> None:
    before = states(volume, spec)
    (volume / "cache").mkdir(parents=True)
    for content in ("{not json", "[]", "null", '{"x": 1}', "[" * 100000):
        (volume / "cache" / "digests.json").write_text(content)
        assert states(volume, spec) == before
        assert command("plan", spec).exit_code == 0


def test_a_stage_that_failed_says_why_until_it_runs_again(spec: Path, volume: Path) -> None:
    from harness.run.executors import StageFailed

    def fails(job: Any) -> dict[str, Any]:
        raise StageFailed(job, "the teacher is on holiday", "", 1)

    with pytest.raises(HarnessError):
        make(volume, spec, executor=InstantExecutor(fails))
    assert states(volume, spec)["gen"] == "run: failed last time: the teacher is on holiday"
    make(volume, spec)
    assert states(volume, spec)["gen"] == "reuse: "


def shown(volume: Path, *specs: Path, **how: Any) -> str:
    """The plan as the terminal shows it."""
    out = io.StringIO()
    show_plans(Console(file=out, width=1000), planned(volume, *specs, **how))
    return out.getvalue()


GPU_MODEL = {
    "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "tie_word_embeddings": True,
    "vocab_size": 151936,
}  # fmt: skip


def test_a_training_to_run_shows_the_memory_it_will_need_and_one_that_is_there_does_not(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    edit(spec, model={"random": {"config": GPU_MODEL}}, train={"batch_size": 1})
    (line,) = [x for x in shown(volume, spec).splitlines() if "memory:" in x]
    assert "(weights 1.7, gradients 1.7, optimizer 3.5, activations " in line
    assert "there is no GPU;" in line
    assert "this machine's memory" in line
    make(volume, spec)
    assert "memory:" not in shown(volume, spec)


@pytest.mark.parametrize(
    ("gibibytes", "verdict"),
    [
        (80, "; fits NVIDIA X (80.0 GiB)"),
        (12, "; does not fit NVIDIA X (12.0 GiB): would fit with gradient_checkpointing: true"),
        (1, "; does not fit NVIDIA X (1.0 GiB): "),
    ],
)
def test_with_a_gpu_a_plan_says_whether_the_training_fits_it_and_what_would(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, gibibytes: int, verdict: str
) -> None:
    other = Gpu("NVIDIA Y", 90 * 2**30)
    give_gpus(monkeypatch, Gpu("NVIDIA X", gibibytes * 2**30), other)
    edit(spec, model={"random": {"config": GPU_MODEL}})
    assert verdict in shown(volume, spec)


def test_of_answers_on_a_gpu_a_plan_says_that_vllm_is_there_and_changes_nothing(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    monkeypatch.setattr(environment, "accelerator", lambda: "cuda")
    monkeypatch.delenv("HARNESS_VLLM_URL", raising=False)
    without = shown(volume, spec)
    assert "vLLM" not in without
    give_gpus(monkeypatch, Gpu("NVIDIA X", 80 * 2**30))
    text = shown(volume, spec)
    (line,) = [x for x in text.splitlines() if "speed:" in x]
    assert "vLLM (engine: {kind: vllm}) is made for many prompts on a GPU" in line
    assert "it needs --executor docker, or HARNESS_VLLM_URL and a server" in line
    assert [x for x in text.splitlines() if not x.startswith("    ")] == [
        x for x in without.splitlines() if not x.startswith("    ")
    ]
    monkeypatch.setenv("HARNESS_VLLM_URL", "http://127.0.0.1:8000/v1")
    assert "HARNESS_VLLM_URL names a running one" in shown(volume, spec)
    edit(spec, train={"method": "lora"})
    assert "speed:" not in shown(volume, spec), "vLLM has no base to put the adapter on"
    edit(spec, train={"method": "lora", "lora": {"merge": True}})
    assert "speed:" in shown(volume, spec)
    make(volume, spec)
    assert "speed:" not in shown(volume, spec)


def test_a_plan_looks_at_the_gpus_that_the_training_will_get_and_no_other(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Gpu("NVIDIA X", 12 * 2**30, index=1, uuid="GPU-1")
    give_gpus(monkeypatch, Gpu("NVIDIA Y", 90 * 2**30, uuid="GPU-0"), small)
    edit(spec, model={"random": {"config": GPU_MODEL}})
    assert "; fits NVIDIA Y (90.0 GiB)" in shown(volume, spec)
    edit(spec, train={"launch": {"processes": 2}})
    assert "NVIDIA X (12.0 GiB)" in shown(volume, spec)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    edit(spec, train={"launch": {"processes": 1}})
    assert "; does not fit NVIDIA X" in shown(volume, spec)


REFUSED: list[tuple[list[Gpu], dict[str, Any], dict[str, str]]] = [
    (some_gpus(1, driver="550.54"), {}, {}),
    (some_gpus(1, capability=(7, 0)), {}, {}),
    (some_gpus(1), {"launch": {"processes": 2}, "batch_size": 2}, {}),
    (some_gpus(1), {"liger_kernels": True}, {"CC": "no-such-compiler"}),
    (some_gpus(1), {}, {"CUDA_VISIBLE_DEVICES": ""}),
    ([], {"tf32": True}, {}),
]


@pytest.mark.parametrize(("devices", "train", "variables"), REFUSED)
def test_a_plan_tells_the_sentence_with_which_run_refuses_and_not_that_it_fits(
    spec: Path,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[Gpu],
    train: dict[str, Any],
    variables: dict[str, str],
) -> None:
    give_gpus(monkeypatch, *devices)
    monkeypatch.setattr(environment, "has_cuda_13", lambda: True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    edit(spec, model={"random": {"config": GPU_MODEL}}, train=train)
    (plan,) = planned(volume, spec)
    with pytest.raises(InputError) as refusal:
        LocalExecutor().check([s for s in plan.stages if s.stage == "train"])
    text = shown(volume, spec)
    assert f"    run refuses: {refusal.value.message}\n      {refusal.value.hint}\n" in text
    assert "; fits" not in text
    edit(spec, train=None)
    assert "liger" not in shown(volume, spec)


def test_a_plan_tells_a_build_of_torch_for_the_cpu_beside_a_gpu_to_the_local_executor_alone(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: True)
    sentence = "run refuses: row one: its train stage is to run on a GPU, and torch here is a build"
    assert sentence in shown(volume, spec)
    assert "run refuses" not in shown(volume, spec, executor="docker")


def devices_of(text: str) -> list[str]:
    return [line.split("device: ")[1] for line in text.splitlines() if "device: " in line]


def test_a_plan_names_the_gpus_of_each_stage_where_there_are_any(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    assert devices_of(shown(volume, spec)) == []
    give_gpus(monkeypatch, *some_gpus(3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    edit(spec, train={"launch": {"processes": 2}, "batch_size": 2})
    both = "GPUs 2 NVIDIA H and 1 NVIDIA H"
    assert devices_of(shown(volume, spec)) == ["the CPU", both, "GPU 2 NVIDIA H", "the CPU"]
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    text = shown(volume, spec)
    asked = "the CPU, as HARNESS_ACCELERATOR says"
    assert devices_of(text) == ["the CPU", asked, asked, "the CPU"]
    assert "there is no GPU" not in text


@pytest.mark.parametrize(("capability", "is_told"), [((7, 5), True), ((8, 0), False)])
def test_a_plan_notes_that_a_card_emulates_the_bfloat16_that_is_asked_for(
    spec: Path,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    is_told: bool,
) -> None:
    give_gpus(monkeypatch, *some_gpus(1, capability=capability))
    note = "    note: NVIDIA H (sm_75) has no arithmetic in bfloat16: it is emulated, which is slow"
    assert note not in shown(volume, spec)
    edit(spec, train={"precision": "bfloat16"})
    assert shown(volume, spec).count(note) == is_told
    parts = yaml.safe_load(spec.read_text())["eval"]
    parts["answer"]["engine"] = {"kind": "transformers", "precision": "bfloat16"}
    edit(spec, eval=parts)
    assert shown(volume, spec).count(note) == 2 * is_told


def test_a_driver_that_fails_is_told_by_plan_and_refused_by_run_unless_the_cpu_is_asked_for(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    monkeypatch.setattr(gpus, "_asked", lambda: ((), "it cannot reach the driver"))
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)
    (plan,) = planned(volume, spec)
    said = (
        "row one: its train stage would work on the CPU, for nvidia-smi is there and finds no GPU"
    )
    with pytest.raises(InputError, match=said) as refusal:
        LocalExecutor().check(plan.stages)
    assert "HARNESS_ACCELERATOR=cpu" in refusal.value.hint
    assert f"run refuses: {refusal.value.message}" in shown(volume, spec)
    assert "its gen stage" not in shown(volume, spec)
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    LocalExecutor().check(plan.stages)
    assert "run refuses" not in shown(volume, spec)


def answered_by(spec: Path, **engine: Any) -> None:
    parts = yaml.safe_load(spec.read_text())["eval"]
    parts["answer"]["engine"] = engine
    edit(spec, eval=parts)


def test_a_server_that_is_to_be_started_here_needs_its_gpus_before_the_training(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    answered_by(spec, kind="vllm", tensor_parallel=2)
    (plan,) = planned(volume, spec, executor="docker")
    with pytest.raises(InputError, match="row one: vLLM needs 2 GPUs, and there is 1 here") as e:
        placing.check(plan.stages, "docker")
    assert "base_url can name a server elsewhere" in e.value.hint
    assert "HARNESS_VLLM_URL" not in e.value.hint, "it has no effect on Docker's executor"
    assert f"run refuses: {e.value.message}" in shown(volume, spec, executor="docker")
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    with pytest.raises(
        InputError, match="row one: vLLM: its image works on NVIDIA GPUs alone"
    ) as e:
        placing.check(plan.stages, "docker")
    assert f"run refuses: {e.value.message}" in shown(volume, spec, executor="docker")


def test_a_server_that_nobody_names_is_missed_before_the_training(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    monkeypatch.delenv("HARNESS_VLLM_URL", raising=False)
    answered_by(spec, kind="vllm")
    (plan,) = planned(volume, spec)
    with pytest.raises(InputError, match="row one: its answer stage: no vLLM server is named") as e:
        LocalExecutor().check(plan.stages)
    assert f"harness run --only gen,train {spec}" in e.value.hint
    assert f"run refuses: {e.value.message}" in shown(volume, spec)
    answered_by(spec, kind="transformers")
    make(volume, spec)
    answered_by(spec, kind="vllm")
    (plan,) = planned(volume, spec)
    with pytest.raises(InputError, match="no vLLM server is named") as e:
        LocalExecutor().check([s for s in plan.stages if s.status != "reuse"])
    assert f"VLLM_MODEL={volume}" in e.value.hint
    assert "docker compose --profile vllm up" in e.value.hint
    monkeypatch.setenv("HARNESS_VLLM_URL", "http://elsewhere:8000/v1")
    LocalExecutor().check(plan.stages)
    assert "run refuses" not in shown(volume, spec)


@pytest.mark.parametrize("judges", [False, True])
def test_a_model_that_vllm_cannot_serve_is_refused_before_its_server_is_asked_for(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, judges: bool
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.delenv("HARNESS_VLLM_URL", raising=False)
    model = {"hub": {"id": "a/b", "revision": "0" * 40}, "chat_format": "chatml"}
    if judges:
        parts = yaml.safe_load(spec.read_text())["eval"]
        judge = {"kind": "flow_judge", "rubric": "response_relevance_3point"}
        parts["judge"] = {**judge, "model": model, "engine": {"kind": "vllm"}}
        edit(spec, eval=parts)
    else:
        answered_by(spec, kind="vllm")
        edit(spec, model={**model, "random": None}, train=None, gen=None)
    stage = "judge" if judges else "answer"
    told = f"row one: eval.{stage}.engine: vLLM serves a base with the vocabulary"
    (plan,) = planned(volume, spec)
    with pytest.raises(InputError, match=told):
        LocalExecutor().check([s for s in plan.stages if s.stage == stage])
    text = shown(volume, spec)
    assert f"run refuses: {told}" in text
    assert "no vLLM server" not in text
    items = needs_of([plan], planner(volume), [spec]).items
    (item,) = [item for item in items if item.name == f"for {stage}"]
    assert item.note.startswith(told)


@pytest.mark.parametrize(
    ("devices", "train", "obstacle"),
    [
        (some_gpus(1, capability=(7, 0)), {}, "is sm_70"),
        (some_gpus(1, driver="550.54"), {}, "its driver is 550.54"),
        (some_gpus(1), {"launch": {"processes": 2}, "batch_size": 2}, "needs 2 GPUs"),
    ],
)
def test_what_another_build_of_torch_would_not_mend_is_told_before_it(
    spec: Path,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[Gpu],
    train: dict[str, Any],
    obstacle: str,
) -> None:
    give_gpus(monkeypatch, *devices)
    monkeypatch.setattr(environment, "lacks_cuda", lambda: True)
    edit(spec, train=train)
    (plan,) = planned(volume, spec)
    with pytest.raises(InputError, match=obstacle) as e:
        LocalExecutor().check([s for s in plan.stages if s.stage == "train"])
    assert "make install" not in e.value.hint
    assert "in the images for it" not in e.value.hint


def test_a_twin_beside_a_gpu_and_torch_for_the_cpu_is_told_that_the_cpu_will_do(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: True)
    assert "A twin needs no GPU" not in shown(volume, spec)
    twin = scaled(load_rows([spec])[0])
    with pytest.raises(InputError, match="torch here is a build") as e:
        LocalExecutor().check(planner(volume).plan(twin).stages)
    assert e.value.hint.startswith("A twin needs no GPU: HARNESS_ACCELERATOR=cpu")


@pytest.mark.parametrize("executor", ["local", "docker"])
def test_tf32_on_a_card_without_it_is_refused_before_anything_runs(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    edit(spec, train={"tf32": True})
    give_gpus(monkeypatch, *some_gpus(1, capability=(7, 5)))
    (plan,) = planned(volume, spec, executor=executor)
    with pytest.raises(InputError, match=r"row one: train.tf32: GPU 0 .* is sm_75") as e:
        placing.check(plan.stages, executor)
    assert "sm_80 or newer" in e.value.hint
    give_gpus(monkeypatch, *some_gpus(1, capability=(8, 0)))
    placing.check(plan.stages, executor)


def test_a_wrong_name_of_an_accelerator_is_no_fault_of_a_spec(
    spec: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "accelerator", inspect.unwrap(environment.accelerator))
    monkeypatch.setenv("HARNESS_ACCELERATOR", "gpu")
    done = command("plan", spec, "--volume", volume)
    assert "HARNESS_ACCELERATOR is 'gpu'" in done.stderr
    assert str(spec) not in done.stderr


def test_what_a_plan_shows_takes_no_torch() -> None:
    code = (
        "import sys, harness.cli.views.plan; print('torch' in sys.modules, 'docker' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_hub_model_that_was_not_downloaded_leaves_the_memory_unknown_and_says_why(
    spec: Path, volume: Path
) -> None:
    edit(spec, model=None)
    edit(spec, model={"hub": {"id": "owner/name", "revision": "0" * 40}})
    told = "memory not known for 1 train stage: the model is not on the volume yet"
    assert told in shown(volume, spec)
    second = write_row(spec.parent, "second", train={"steps": 2})
    edit(second, model=None)
    edit(second, model={"hub": {"id": "owner/other", "revision": "0" * 40}})
    told = " ".join(command("plan", spec, second, "--volume", volume).stdout.split())
    fetch = f"harness fetch {spec} {second}"  # "runs", where the command was given
    assert told.count("memory not known for 2") == told.count("memory: ") + 1 == 1
    assert f"memory not known for 2 train stages until `{fetch}`" in told
    edit(second, model=None)
    edit(second, model={"random": {"config": {"model_type": "mamba"}}})
    told = " ".join(command("plan", second, "--volume", volume).stdout.split())
    words = "memory not known for 1 train stage: the model's configuration does not say enough"
    assert words in told
    folder = volume / "models" / f"owner--name-{'0' * 12}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(GPU_MODEL))
    assert "memory: about" in shown(volume, spec)


def test_a_plan_made_over_for_another_executor_is_the_one_that_it_would_make(
    spec: Path, volume: Path
) -> None:
    loaded = load_rows([spec])[0]
    make(volume, spec, kind="local")
    in_images, here = planner(volume, executor="docker").plan(loaded), planner(volume)
    fresh, replanned = here.plan(loaded), here.replan(in_images)
    for stage, expected in zip(replanned.stages, fresh.stages, strict=True):
        assert (stage.key, stage.document) == (expected.key, expected.document)
        assert (stage.status, stage.reasons) == (expected.status, expected.reasons)
        assert [s.key for s in stage.inputs.values()] == [s.key for s in expected.inputs.values()]
    assert {s.status for s in replanned.stages} == {"reuse"}
    assert {s.status for s in in_images.stages} == {"run"}


def manifest_of(volume: Path, stage: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the manifest of the only artefact of a stage says."""
    (path,) = (volume / "artefacts" / stage).glob("*/manifest.json")
    document = json.loads(path.read_text())
    del document["seal"]
    change(document)
    path.write_text(json.dumps({**document, "seal": digest_of(document)}))


def answering(*answers: dict[str, Any]) -> InstantExecutor:
    def outcome(job: Any) -> dict[str, Any]:
        if job.stage != "answer":
            return {}
        (job.folder / OUTPUTS).write_text(
            json.dumps([{"instruction": "Add.", **a} for a in answers])
        )
        return {"keep": [OUTPUTS]}

    return InstantExecutor(outcome)


BEFORE: dict[str, Any] = {"output": "4", "finish_reason": "stop", "tokens": 1, "prompt_tokens": 3}


@pytest.mark.parametrize(
    ("again", "is_same"),
    [
        ({}, True),
        ({"tokens": 2, "prompt_tokens": None}, True),
        ({"output": "5"}, False),
        ({"finish_reason": "length"}, False),
    ],
)
def test_answers_made_anew_are_others_where_a_judge_reads_others(
    spec: Path, volume: Path, again: dict[str, Any], is_same: bool
) -> None:
    make(volume, spec, executor=answering(BEFORE))
    shutil.rmtree(volume / "artefacts" / "answer")
    make(volume, spec, executor=answering({**BEFORE, **again}))
    (plan,) = planned(volume, spec)
    with contextlib.nullcontext() if is_same else pytest.raises(MadeOfAnother, match="otherwise"):
        plan.check_inputs()
    # Of what was made before texts stood there the whole file counts.
    manifest_of(volume, "judge", lambda m: m["inputs"]["outputs"].pop("texts"))
    (plan,) = planned(volume, spec)
    with pytest.raises(MadeOfAnother) if again else contextlib.nullcontext():
        plan.check_inputs()


def test_nothing_is_made_of_what_was_made_of_another(spec: Path, volume: Path) -> None:
    """Of removed data, made anew with other words: the answers of the old model are not judged."""

    def saying(words: str) -> InstantExecutor:
        def outcome(job: Any) -> dict[str, Any]:
            (job.folder / "data.jsonl").write_text(words)
            return {"keep": ["made.txt", "data.jsonl"]}

        return InstantExecutor(outcome)

    make(volume, spec, executor=saying("words"))
    for stage in ("gen", "judge"):
        shutil.rmtree(volume / "artefacts" / stage)
    again = saying("others")
    with pytest.raises(HarnessError, match="was made of another gen/"):
        make(volume, spec, executor=again)
    assert again.made == ["gen"]
    shutil.rmtree(volume / "artefacts" / "gen")
    again = saying("words")
    make(volume, spec, executor=again)
    assert again.made == ["gen", "judge"]


@pytest.mark.parametrize(("hours", "is_told"), [(0, False), (0.9, False), (1.1, True)])
def test_an_input_that_is_newer_than_what_was_made_of_it_is_another_where_nothing_says_what_it_was(
    spec: Path, volume: Path, hours: float, is_told: bool
) -> None:
    make(volume, spec)
    (plan,) = planned(volume, spec)
    (answer,) = [s.made.folder.name for s in plan.stages if s.stage == "answer"]
    (judge,) = [s.made.folder.name for s in plan.stages if s.stage == "judge"]
    later = datetime.now(UTC) + timedelta(hours=hours)
    manifest_of(volume, "train", lambda m: m.update(finished=later.isoformat()))
    (plan,) = planned(volume, spec)
    plan.check_inputs()  # what it was is written down
    manifest_of(volume, "answer", lambda m: m["inputs"]["model"].pop("content"))
    (plan,) = planned(volume, spec)
    if not is_told:
        plan.check_inputs()
        return
    with pytest.raises(MadeOfAnother, match="came out the same was not written down") as caught:
        plan.check_inputs()
    assert f"gc --yes answer/{answer} judge/{judge}" in caught.value.hint
    manifest_of(volume, "train", lambda m: m.update(finished="yesterday"))
    (plan,) = planned(volume, spec)
    plan.check_inputs()


def test_a_stages_title_names_its_row_once(spec: Path) -> None:
    (plan,) = planned(Path("runs"), spec)
    stage = plan.stages[0]
    for label, told in (
        (f"of {stage.row}, train seed 1", f"{stage.row} (train seed 1) ["),
        (f"of {stage.row}", f"{stage.row} ["),
        ("of another", f"{stage.row} (of another) ["),
    ):
        assert replace(stage, label=label).title.startswith(f"{stage.stage}: {told}")
