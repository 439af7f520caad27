"""Carrying out plans: what is checked first, what is run once, what the manifests say."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact import environment
from harness.artefact.leases import keeper_of
from harness.artefact.locks import Kind, note
from harness.artefact.store import Store
from harness.errors import HarnessError, InputError, Interrupted
from harness.run.executors import StageFailed, StagesFailed
from tests.helpers import (
    FakeStages,
    InstantExecutor,
    Volume,
    evaluation,
    harness,
    is_alive,
    planned,
    snapshot,
    start,
    until,
    write_row,
)

REAL = {"model": "gpt-4", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "ROW_TEST_KEY"}


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    return tmp_path / "specs"


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    for name in ("ROW_TEST_KEY", "ROW_TEST_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return Volume(tmp_path)


def test_stages_run_in_order_each_with_its_inputs_folder(specs: Path, volume: Volume) -> None:
    spec = write_row(specs, eval=evaluation(specs))
    volume.run(spec)
    assert volume.ran == ["gen", "train", "answer", "judge"]
    assert [
        {name: Path(folder).parent.name for name, folder in j.inputs.items()} for j in volume.jobs
    ] == [{}, {"data": "gen"}, {"model": "train"}, {"outputs": "answer"}]
    assert all(Path(folder).is_dir() for job in volume.jobs for folder in job.inputs.values())


def test_what_is_there_is_not_run_again(specs: Path, volume: Volume) -> None:
    spec = write_row(specs, eval=evaluation(specs))
    volume.run(spec)
    volume.jobs.clear()
    volume.run(spec)
    assert volume.ran == []
    assert "judge: one" in volume.output.getvalue()
    assert volume.output.getvalue().count("there already") == 4


def test_two_rows_with_the_same_gen_share_one_run_of_it(specs: Path, volume: Volume) -> None:
    one = write_row(specs, "one")
    two = write_row(specs, "two", train={"steps": 2})
    volume.run(one, two)
    assert volume.ran == ["gen", "train", "train"]
    assert volume.jobs[1].inputs == volume.jobs[2].inputs
    for row in ("one", "two"):
        assert set(volume.store.remembered(row)) == {"local: gen", "local: train"}


def test_each_replicate_is_run_and_shares_what_comes_before_it(specs: Path, volume: Volume) -> None:
    sampled = evaluation(specs)
    sampled["answer"]["decoding"] = {"temperature": 0.7}
    spec = write_row(
        specs,
        eval=sampled,
        replicates={"train_seeds": [1, 2], "sampling_seeds": [3, 4], "judge": 2},
    )
    volume.run(spec)
    assert {stage: volume.ran.count(stage) for stage in environment.STAGES} == {
        "gen": 1,
        "train": 2,
        "answer": 4,
        "judge": 8,
    }
    assert [j.params["train"].seed for j in volume.jobs if j.stage == "train"] == [1, 2]
    labels = [a.manifest.label for a in volume.store.match("judge/")]
    assert "train seed 2, sampling seed 4, judging 2" in labels
    assert len(set(labels)) == 8


@pytest.mark.parametrize("where", ["gen", "judge"])
def test_a_key_that_is_not_set_stops_the_run_before_anything_ran(
    specs: Path, volume: Volume, where: str
) -> None:
    changes: dict[str, Any] = {"gen": gen_with(REAL)} if where == "gen" else {}
    judge = REAL if where == "judge" else None
    spec = write_row(specs, eval=evaluation(specs, judge), **changes)
    with pytest.raises(InputError, match="ROW_TEST_KEY is not set") as caught:
        volume.run(spec)
    assert f"gpt-4, which the {where} stage of row one calls" in caught.value.message
    assert "ROW_TEST_KEY_FILE=PATH" in caught.value.hint
    assert volume.ran == []


def gen_with(teacher: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": "alpaca",
        "teacher": teacher,
        "seeds": "seeds.jsonl",
        "prompt": "tasks.txt",
        "examples": 3,
        "shown": 1,
    }


@pytest.mark.parametrize("content", [None, "", "two words\nand a line\n"])
def test_a_key_file_that_cannot_be_used_stops_the_run_before_anything_ran(
    specs: Path,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: str | None,
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("ROW_TEST_KEY_FILE", str(file))
    spec = write_row(specs, eval=evaluation(specs, REAL))
    with pytest.raises(InputError, match="ROW_TEST_KEY_FILE"):
        volume.run(spec)
    assert volume.ran == []


def test_a_key_is_asked_for_only_by_stages_that_will_run(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, eval=evaluation(specs, REAL))
    volume.run(spec, only=["gen", "train", "answer"])
    monkeypatch.setenv("ROW_TEST_KEY", "sk-1")
    volume.run(spec)
    monkeypatch.delenv("ROW_TEST_KEY")
    volume.run(spec)
    assert volume.ran == ["gen", "train", "answer", "judge"]


def test_only_a_stage_with_a_real_endpoint_gets_the_network_and_the_key(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROW_TEST_KEY", "sk-very-secret")
    simulated = write_row(specs, "simulated", eval=evaluation(specs))
    volume.run(simulated)
    assert {(j.network, j.secrets) for j in volume.jobs} == {(False, ())}

    volume.jobs.clear()
    volume.run(write_row(specs, "real", eval=evaluation(specs, REAL)))
    assert [(j.stage, j.network, j.secrets) for j in volume.jobs] == [
        ("judge", True, ("ROW_TEST_KEY",))
    ]
    volume.jobs.clear()
    other = write_row(specs, "other", eval=evaluation(specs), train={"steps": 3})
    volume.run(specs / "real.yaml", other)
    assert {j.others_keys for j in volume.jobs} == {frozenset({"ROW_TEST_KEY"})}
    written = [p for p in volume.store.root.rglob("*") if p.is_file()]
    assert written
    assert not [p for p in written if b"sk-very-secret" in p.read_bytes()]


def test_the_manifest_says_what_was_asked_used_made_and_what_it_cost(
    specs: Path, volume: Volume
) -> None:
    volume.outcomes["train"] = {
        "metrics": {"train_loss": {"value": 1.25}},
        "counts": {"steps": 1},
        "used": {"device": "cpu"},
        "seeds": {"train": 42},
        "cost": {"gpu_seconds": 0.5},
        "notes": ["a note"],
    }
    spec = write_row(specs)
    volume.run(spec)
    manifest = volume.artefact("train").manifest.to_json()
    (row,) = planned(volume.store.root, spec)
    gen, train = row.stages
    assert manifest["stage"] == "train"
    assert manifest["key"] == train.key
    assert manifest["row"] == "one"
    assert manifest["document"] == json.loads(json.dumps(train.document))
    assert manifest["document"]["params"]["train"]["batch_size"] == 8  # a default, filled in
    assert "local" in manifest["document"]["environment"]
    made_of = {"stage": "gen", "key": gen.key, "content": volume.artefact("gen").content}
    assert manifest["inputs"] == {"data": made_of}
    assert manifest["executor"] == {"executor": "instant", "image": None}
    assert manifest["metrics"] == {"train_loss": {"value": 1.25}}
    assert manifest["counts"] == {"steps": 1}
    assert manifest["used"] == {"device": "cpu"}
    assert manifest["seeds"] == {"train": 42}
    assert manifest["cost"]["gpu_seconds"] == 0.5
    assert manifest["cost"]["wall_seconds"] >= 0
    assert manifest["notes"] == ["a note"]
    assert list(manifest["files"]) == ["made.txt"]
    assert {"ran", "finished", "format"} <= set(manifest)
    assert "note: a note" in volume.output.getvalue()


def test_a_manifest_of_a_real_stage_process_says_what_it_ran_in(tmp_path: Path) -> None:
    fake = FakeStages(tmp_path / "fake")
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    assert harness(fake.env, "run", spec, "--volume", volume).returncode == 0
    (path,) = volume.glob("artefacts/gen/*/manifest.json")
    manifest = json.loads(path.read_text())
    here = manifest["used"]["environment"]
    assert "click" in here["packages"]
    assert {"python", "image", "system", "cpus", "memory_bytes", "processor"} <= set(here)
    assert manifest["used"]["offline"] is True
    assert manifest["cost"] == {
        "calls": 3,
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "stage_seconds": manifest["cost"]["stage_seconds"],
        "wall_seconds": manifest["cost"]["wall_seconds"],
    }
    assert manifest["cost"]["wall_seconds"] >= manifest["cost"]["stage_seconds"]


def test_what_was_simulated_is_inherited_by_all_that_is_made_of_it(
    specs: Path, volume: Volume
) -> None:
    volume.outcomes = {"gen": {"simulated": ["teacher"]}, "judge": {"simulated": ["judge"]}}
    volume.run(write_row(specs, eval=evaluation(specs)))
    assert {stage: volume.artefact(stage).manifest.simulated for stage in environment.STAGES} == {
        "gen": ["teacher"],
        "train": ["teacher"],
        "answer": ["teacher"],
        "judge": ["judge", "teacher"],
    }


@pytest.mark.parametrize("random", [True, False])
def test_random_weights_are_marked_in_all_that_is_made_of_them(
    specs: Path, volume: Volume, random: bool
) -> None:
    snapshot(specs / "model")
    changes = {} if random else {"model": {"path": "model"}}
    volume.run(write_row(specs, eval=evaluation(specs), **changes))
    marked = {stage: volume.artefact(stage).manifest.random_weights for stage in environment.STAGES}
    assert marked == {"gen": False, "train": random, "answer": random, "judge": random}


def test_one_stage_alone_needs_its_inputs_and_names_the_command_that_makes_them(
    specs: Path, volume: Volume
) -> None:
    spec = write_row(specs, eval=evaluation(specs))
    for only, missing in (("train", "gen"), ("answer", "train"), ("judge", "answer")):
        with pytest.raises(InputError) as caught:
            volume.run(spec, only=[only])
        assert "is not on the volume" in caught.value.message
        assert caught.value.hint == f"Make it with: harness run --only {missing} {spec}"
        assert volume.ran == []
        volume.run(spec, only=[missing])
        assert volume.ran == [missing]
        volume.jobs.clear()
    volume.run(spec, only=["judge"])
    assert volume.ran == ["judge"]


def test_stages_named_together_make_each_others_inputs(specs: Path, volume: Volume) -> None:
    spec = write_row(specs, eval=evaluation(specs))
    with pytest.raises(InputError, match=r"its model \(train"):
        volume.run(spec, only=["gen", "answer"])
    assert volume.ran == []
    volume.run(spec, only=["gen", "train", "answer"])
    assert volume.ran == ["gen", "train", "answer"]


@pytest.mark.parametrize(
    ("service", "only", "made_by"),
    [
        ("train-cpu", "train", "docker compose run --rm gen "),
        ("eval-cpu", "answer,judge", "docker compose run --rm train "),
    ],
)
def test_inside_an_image_the_missing_inputs_command_is_composes(
    tmp_path: Path, service: str, only: str, made_by: str
) -> None:
    fake = FakeStages(tmp_path / "fake")
    image = tmp_path / "image.json"
    lock = environment.lock_digest(service)
    image.write_text(json.dumps({"image": service, "lock": lock, "base": "b"}))
    spec = write_row(tmp_path / "specs", eval=evaluation(tmp_path / "specs"))
    done = harness(
        {**fake.env, "HARNESS_IMAGE_FILE": str(image)},
        *("run", "--only", only, spec, "--volume", tmp_path / "volume"),
    )
    assert done.returncode == 2, done.stdout
    assert f"Make it with: {made_by}{spec}" in done.stdout
    assert not fake.runs()


def test_an_input_that_was_changed_is_found_out_before_it_is_used(
    specs: Path, volume: Volume
) -> None:
    spec = write_row(specs)
    volume.run(spec, only=["gen"])
    (volume.artefact("gen").folder / "made.txt").write_text("changed")
    with pytest.raises(StagesFailed, match=r"made\.txt does not have the bytes"):
        volume.run(spec)
    assert volume.ran == ["gen"]


def test_a_row_whose_stage_fails_keeps_what_others_finished(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs)

    def fail(job: Any) -> dict[str, Any]:
        volume.jobs.append(job)
        if job.stage == "train":
            raise HarnessError("it failed")
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(volume, "_outcome", fail)
        with pytest.raises(HarnessError, match="it failed"):
            volume.run(spec)
    (row,) = planned(volume.store.root, spec)
    assert [s.status for s in row.stages] == ["reuse", "run"]
    assert row.stages[1].reasons == ["an interrupted run is there and goes on"]
    volume.run(spec)
    assert volume.ran == ["gen", "train", "train"]


def failing(volume: Volume, **messages: str) -> Callable[[Any], dict[str, Any]]:
    """Stages of which those fail whose kind and row, `STAGE_ROW`, have a message."""

    def outcome(job: Any) -> dict[str, Any]:
        volume.jobs.append(job)
        row = job.title.split()[1]
        if f"{job.stage}_{row}" in messages:
            code = 2 if job.stage == "gen" else 1
            raise StageFailed(job, messages[f"{job.stage}_{row}"], f"Mend {row}.", code)
        return {}

    return outcome


def test_a_failing_stage_keeps_only_what_depends_on_it_from_running(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_row(specs, "bad", eval=evaluation(specs))
    good = write_row(specs, "good", train={"steps": 2}, eval=evaluation(specs))
    with monkeypatch.context() as patch:
        patch.setattr(volume, "_outcome", failing(volume, train_bad="no loss"))
        with pytest.raises(StagesFailed) as caught:
            volume.run(bad, good)
    assert volume.ran == ["gen", "train", "train", "answer", "judge"]
    error = caught.value
    assert error.exit_code == 1
    assert re.fullmatch(r"train: bad \[\w+\] failed: no loss", error.message)
    assert re.fullmatch(
        r"Mend bad\.\nThe whole log: \S+\n"
        r"Not run because of it: answer: bad \[\w+\], judge: bad \[\w+\]",
        error.hint,
    )
    rows = planned(volume.store.root, bad, good)
    assert [[s.status for s in row.stages] for row in rows] == [
        ["reuse", "run", "run", "run"],
        ["reuse"] * 4,
    ]
    assert set(volume.store.remembered("bad")) == {"local: gen"}
    volume.jobs.clear()
    volume.run(bad, good)
    assert volume.ran == ["train", "answer", "judge"]


def test_every_failure_is_named_with_what_was_not_run_and_the_first_ones_exit_code(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_row(specs, "one")
    shares = write_row(specs, "shares", train={"steps": 2})
    other = write_row(specs, "other", gen=None, data="seeds.jsonl")
    fine = write_row(specs, "fine", gen=None, data="seeds.jsonl", train={"steps": 4})
    faults = failing(volume, gen_one="no teacher", train_other="no loss")
    monkeypatch.setattr(volume, "_outcome", faults)
    with pytest.raises(StagesFailed) as caught:
        volume.run(one, shares, other, fine)
    assert volume.ran == ["gen", "train", "train"]
    error = caught.value
    assert error.exit_code == 2
    assert re.fullmatch(
        r"2 stages failed\n"
        r"- gen: one \[\w+\] failed: no teacher\n  Mend one\.\n  The whole log: \S+\n"
        r"- train: other \[\w+\] failed: no loss\n  Mend other\.\n  The whole log: \S+",
        error.message,
    )
    assert re.fullmatch(
        r"Not run because of it: train: one \[\w+\], train: shares \[\w+\]", error.hint
    )


def test_what_is_there_is_used_though_what_it_was_made_of_fails_to_be_made_again(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, eval=evaluation(specs))
    volume.run(spec, only=["gen", "train"])
    volume.store.remove(volume.artefact("gen").folder)
    volume.jobs.clear()
    monkeypatch.setattr(volume, "_outcome", failing(volume, gen_one="no teacher"))
    with pytest.raises(StagesFailed, match="no teacher") as caught:
        volume.run(spec)
    assert volume.ran == ["gen", "answer", "judge"]
    assert "Not run" not in caught.value.hint


@pytest.mark.parametrize("error", [Interrupted("stopped"), OSError(28, "no space")])
def test_what_would_hit_every_row_stops_at_once(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def outcome(job: Any) -> dict[str, Any]:
        volume.jobs.append(job)
        raise error

    monkeypatch.setattr(volume, "_outcome", outcome)
    rows = [write_row(specs, n, gen=None, data="seeds.jsonl", train={"steps": s})
            for s, n in enumerate(("one", "two"), start=1)]  # fmt: skip
    with pytest.raises(type(error)) as caught:
        volume.run(*rows)
    assert caught.value is error
    assert volume.ran == ["train"]


GEN_IMAGE = {"image": "gen", "lock": "0" * 64, "base": "x"}
LOCAL_SERVER = {"model": "gpt-4", "base_url": "http://localhost:9/v1"}


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
def test_a_docker_stage_cannot_call_a_server_on_loopback(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    url = f"http://{address}:9/v1"
    spec = write_row(specs, eval=evaluation(specs, {"model": "gpt-4", "base_url": url}))
    monkeypatch.setattr(InstantExecutor, "name", "docker")
    with pytest.raises(InputError, match="inside a container that is the container") as caught:
        volume.run(spec)
    assert f"row one: the server {url}, which its judge stage calls" in caught.value.message
    assert "base_url: http://host.docker.internal:9/v1. Or" in caught.value.hint
    assert caught.value.hint.endswith("--executor local")
    assert volume.ran == []
    for good in ("http://host.docker.internal:9/v1", "https://127.example/v1"):
        judge = {"model": "gpt-4", "base_url": good}
        volume.run(write_row(specs, eval=evaluation(specs, judge)))
    assert volume.ran == ["gen", "train", "answer", "judge", "judge"]


def test_a_vllm_server_on_loopback_is_refused_too(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "vllm", "base_url": "http://127.0.0.1:8000/v1"}
    spec = write_row(specs, eval=parts)
    monkeypatch.setattr(InstantExecutor, "name", "docker")
    with pytest.raises(InputError, match="which its answer stage calls, is on a loopback address"):
        volume.run(spec)
    assert volume.ran == []


def test_a_server_on_loopback_is_called_where_the_stage_runs_beside_it(
    specs: Path, volume: Volume
) -> None:
    volume.run(write_row(specs, train=None, gen=gen_with(LOCAL_SERVER)))
    assert volume.ran == ["gen"]


def test_inside_an_image_a_server_on_loopback_has_to_answer_there(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.run.ready.environment.current_image", lambda: GEN_IMAGE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        spec = write_row(specs, train=None, gen=gen_with({"model": "gpt-4", "base_url": url}))
        volume.run(spec)  # the container shares the server's network
    assert volume.ran == ["gen"]
    spec = write_row(specs, train=None, gen=gen_with(LOCAL_SERVER))
    with pytest.raises(InputError, match="on a loopback address") as caught:
        volume.run(spec)
    assert "compose.yaml names it under extra_hosts" in caught.value.hint
    assert caught.value.hint.endswith(f"harness run {spec}")
    assert volume.ran == ["gen"]


HUB = {"model": {"hub": {"id": "some/model", "revision": "a" * 40}}}


def with_snapshot(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fetch stage leaves a snapshot, as the real one does."""
    plain: Callable[[Any], dict[str, Any]] = volume._outcome

    def outcome(job: Any) -> dict[str, Any]:
        if job.stage == "fetch":
            snapshot(job.folder / "snapshot")
        return plain(job)

    monkeypatch.setattr(volume, "_outcome", outcome)


def test_a_hub_model_is_fetched_once_with_network_and_used_without(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_snapshot(volume, monkeypatch)
    spec = write_row(specs, eval=evaluation(specs), **HUB)
    volume.run(spec)
    assert volume.ran == ["fetch", "gen", "train", "answer", "judge"]
    fetch, _, train, answer = volume.jobs[:4]
    assert fetch.network
    assert fetch.secrets == ("HF_TOKEN",)
    assert fetch.image_stage == "train"
    assert train.network is False
    hub = volume.store.root / "models" / "some--model-aaaaaaaaaaaa"
    assert train.inputs["hub"] == str(hub)
    assert (hub / "config.json").exists()
    assert "hub" not in answer.inputs  # the trained model is its input
    assert not list((volume.store.root / "work").iterdir())

    volume.jobs.clear()
    volume.run(write_row(specs, "untrained", gen=None, train=None, eval=evaluation(specs), **HUB))
    assert volume.ran == ["answer", "judge"]
    assert volume.jobs[0].inputs["hub"] == train.inputs["hub"]


def test_a_hub_data_set_is_fetched_once_with_network_and_imported_without(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_snapshot(volume, monkeypatch)
    hub = {"id": "some/data", "revision": "b" * 40}
    columns = {"instruction": "question", "output": "answerKey"}
    chain = [
        {"recipe": "import", "hub": hub, "columns": columns},
        {"recipe": "random_k", "k": 3},
    ]
    volume.run(write_row(specs, gen=chain, train=None))
    assert volume.ran == ["fetch", "gen", "gen"]
    fetch, imported, drawn = volume.jobs
    assert (fetch.network, fetch.image_stage) == (True, "gen")
    assert fetch.params["hub_data"].id == "some/data"
    assert (imported.network, drawn.network) == (False, False)
    hub = volume.store.root / "datasets" / "some--data-bbbbbbbbbbbb"
    assert imported.inputs["hub"] == str(hub)
    assert set(drawn.inputs) == {"data"}
    volume.jobs.clear()
    chain[0]["sample"] = {"k": 3}
    volume.run(write_row(specs, gen=chain, train=None))
    assert volume.ran == ["gen", "gen"]


def test_prompt_sets_task_data_and_a_judges_model_on_the_hub_are_fetched_under_their_names(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_snapshot(volume, monkeypatch)
    parts = evaluation(specs)
    data = {"id": "some/prompts", "revision": "b" * 40, "file": "set.json"}
    parts["answer"]["prompts"] = {"hub": data}
    parts["judge"] = {
        "kind": "flow_judge",
        "rubric": "response_correctness_binary",
        "model": {"hub": {"id": "some/judge", "revision": "c" * 40}},
    }
    volume.run(write_row(specs, gen=None, train=None, eval=parts))
    assert volume.ran == ["fetch", "fetch", "answer", "judge"]
    root = volume.store.root
    prompts = root / "datasets" / "some--prompts-bbbbbbbbbbbb"
    assert volume.jobs[0].placed("", {}, str).params["hub_data"]["id"] == "some/prompts"
    assert "file" not in volume.jobs[0].placed("", {}, str).params["hub_data"]
    assert volume.jobs[2].inputs == {"prompts": str(prompts)}
    judging = volume.jobs[3].inputs
    assert judging["prompts"] == str(prompts)
    assert judging["judge_hub"] == str(root / "models" / "some--judge-cccccccccccc")

    volume.jobs.clear()
    hub = {"id": "some/questions", "revision": "d" * 40}
    judge = {"kind": "lm_eval", "tasks": {"arc_challenge": {"hub": hub}}}
    volume.run(write_row(specs, "tasks", gen=None, train=None, eval={"judge": judge}))
    assert volume.ran == ["fetch", "judge"]
    folder = root / "datasets" / "some--questions-dddddddddddd"
    assert volume.jobs[1].inputs == {"task-arc_challenge": str(folder)}


def test_another_rows_answers_are_made_first_and_are_the_judges_baseline(
    specs: Path, volume: Volume
) -> None:
    parts = evaluation(specs)
    other = write_row(specs, "other", train=None, eval=parts)
    parts["judge"]["reference"] = {"spec": "other.yaml"}
    spec = write_row(specs, "one", eval=parts)
    volume.run(spec)
    assert volume.ran == ["gen", "train", "answer", "answer", "judge"]
    ours, theirs = volume.jobs[2].key, volume.jobs[3].key
    assert ours != theirs
    assert {name: Path(folder).name for name, folder in volume.jobs[4].inputs.items()} == {
        "outputs": ours[:16],
        "baseline": theirs[:16],
    }
    volume.jobs.clear()
    volume.run(other, only=["answer"])
    assert volume.ran == []


@pytest.mark.parametrize(
    ("reference", "message"),
    [("one.yaml", "its judge's reference is the row itself"), ("none.yaml", "has no eval.answer")],
)
def test_a_row_without_answers_of_its_own_is_no_baseline(
    specs: Path, volume: Volume, reference: str, message: str
) -> None:
    parts = evaluation(specs)
    parts["judge"]["reference"] = {"spec": reference}
    write_row(specs, "none")
    spec = write_row(specs, "one")
    spec = write_row(specs, "one", eval=parts)
    with pytest.raises(InputError, match=message):
        volume.run(spec)


def test_a_judge_of_the_model_itself_needs_no_answers(specs: Path, volume: Volume) -> None:
    evaluation(specs)
    judge = {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}
    volume.run(write_row(specs, eval={"judge": judge}))
    assert volume.ran == ["gen", "train", "judge"]
    asked = volume.jobs[2]
    assert set(asked.inputs) == {"model"}
    assert asked.params["judge"].template.prompt.text == "Q: {instruction}\nA:"
    assert asked.params["model"].random is not None


def test_a_control_that_needs_no_model_is_given_none(specs: Path, volume: Volume) -> None:
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "null", "output": "no"}
    volume.run(write_row(specs, model=None, template=None, gen=None, train=None, eval=parts))
    assert volume.ran == ["answer", "judge"]
    assert volume.jobs[0].params["model"] is None
    assert volume.jobs[0].inputs == {}


def test_vllm_is_given_the_trained_model_or_the_adapter_with_its_base(
    specs: Path, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    snapshot(base)
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "vllm"}
    volume.run(write_row(specs, "whole", model={"path": str(base)}, eval=parts))
    serve = volume.jobs[2].serve
    assert serve.name == f"harness-{volume.jobs[2].key[:12]}"
    assert serve.model == Path(volume.jobs[2].inputs["model"]) / "model"
    assert serve.adapter is None
    assert volume.jobs[3].serve is None
    assert volume.jobs[2].network is False

    monkeypatch.setattr("harness.run.executors.serving.is_adapter", lambda trained: True)
    volume.jobs.clear()
    row = write_row(specs, "adapter", model={"path": str(base)}, eval=parts, train={"steps": 2})
    volume.run(row)
    serve = volume.jobs[1].serve
    assert serve.model == base
    assert serve.adapter == Path(volume.jobs[1].inputs["model"]) / "model"


def test_random_weights_are_not_served(specs: Path, volume: Volume) -> None:
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "vllm"}
    with pytest.raises(InputError, match="vLLM serves a model from a folder"):
        volume.run(write_row(specs, gen=None, train=None, eval=parts))


def test_the_last_step_of_a_chain_is_what_is_trained_on(specs: Path, volume: Volume) -> None:
    chain = [{"recipe": "import", "file": "seeds.jsonl"}, {"recipe": "random_k", "k": 1}]
    volume.run(write_row(specs, gen=chain))
    assert volume.ran == ["gen", "gen", "train"]
    imported, drawn, train = volume.jobs
    assert "data" not in imported.inputs
    assert Path(drawn.inputs["data"]).name == imported.key[:16]
    assert Path(train.inputs["data"]).name == drawn.key[:16]


def test_a_threshold_costs_no_rating(specs: Path, volume: Volume) -> None:
    (specs / "rate.txt").parent.mkdir(exist_ok=True)
    (specs / "rate.txt").write_text("{instruction} {output}")
    rate = {"recipe": "rate", "prompt": "rate.txt", "judge": {"model": "m", "simulated": {}}}
    chain = [{"recipe": "import", "file": "seeds.jsonl"}, rate, {"recipe": "select"}]
    volume.run(write_row(specs, gen=chain, train=None))
    volume.jobs.clear()
    chain[2] = {"recipe": "select", "threshold": 4}
    volume.run(write_row(specs, gen=chain, train=None))
    assert [job.params["gen"].recipe for job in volume.jobs] == ["select"]


def test_recorded_calls_that_stand_for_a_teacher_need_neither_network_nor_key(
    specs: Path, volume: Volume
) -> None:
    spec = write_row(specs)
    row = yaml.safe_load(spec.read_text())
    (specs / "calls.jsonl").write_text("")
    spec = write_row(
        specs, train=None, gen={**row["gen"], "teacher": REAL, "transcript": "calls.jsonl"}
    )
    volume.run(spec)
    (job,) = volume.jobs
    assert (job.network, job.secrets) == (False, ())


def test_a_hub_models_tokenizer_is_given_to_gen_where_the_volume_has_it(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_snapshot(volume, monkeypatch)
    volume.run(write_row(specs, **HUB))
    assert "tokenizer" not in volume.jobs[0].inputs
    volume.jobs.clear()
    volume.run(write_row(specs, "two", gen={"recipe": "seeds_only", "seeds": "seeds.jsonl"}, **HUB))
    assert Path(volume.jobs[0].inputs["tokenizer"]).name == "some--model-aaaaaaaaaaaa"


def test_a_fetch_that_was_cut_short_leaves_no_model(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(job: Any) -> dict[str, Any]:
        (job.folder / "snapshot").mkdir(exist_ok=True)
        raise HarnessError("the network is gone")

    spec = write_row(specs, gen=None, data="seeds.jsonl", **HUB)
    with monkeypatch.context() as patch:
        patch.setattr(volume, "_outcome", cut)
        with pytest.raises(HarnessError, match="the network is gone"):
            volume.run(spec)
    assert not list((volume.store.root / "models").glob("*"))
    with_snapshot(volume, monkeypatch)
    volume.run(spec)
    assert volume.ran == ["fetch", "train"]


@pytest.mark.parametrize("adapter", [False, True])
def test_a_base_model_goes_to_the_answers_with_an_adapter_alone(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch, adapter: bool
) -> None:
    def make(job: Any) -> dict[str, Any]:
        volume.jobs.append(job)
        if job.stage == "fetch":
            snapshot(job.folder / "snapshot")
        if job.stage == "train" and adapter:
            # In the place of the file that every stage here keeps.
            monkeypatch.setattr("harness.run.hub.ADAPTER_FILE", "made.txt")
        return {}

    monkeypatch.setattr(volume, "_outcome", make)
    spec = write_row(specs, gen=None, data="seeds.jsonl", eval=evaluation(specs), **HUB)
    volume.run(spec, only=["train", "answer"])
    assert volume.ran == ["fetch", "train", "answer"]
    assert set(volume.jobs[-1].inputs) == ({"model", "hub"} if adapter else {"model"})


def test_code_beside_a_model_is_fetched_for_the_rows_that_trust_it_and_stands_apart(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_snapshot(volume, monkeypatch)
    volume.run(write_row(specs, gen=None, data="seeds.jsonl", **HUB))
    trusting = {"model": {**HUB["model"], "trust_remote_code": True}}
    volume.run(write_row(specs, "two", gen=None, data="seeds.jsonl", **trusting))
    assert volume.ran == ["fetch", "train", "fetch", "train"]
    plain, _, trusted, train = volume.jobs
    assert "code" not in plain.params
    assert trusted.params["code"] is True
    assert Path(train.inputs["hub"]).name == "some--model-aaaaaaaaaaaa-code"


def test_the_lock_of_a_fetch_is_the_one_its_process_inherits(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def look(job: Any) -> dict[str, Any]:
        held.append((job.stage, Path(f"/proc/self/fd/{job.lock}").readlink().name))
        if job.stage == "fetch":
            snapshot(job.folder / "snapshot")
        return {}

    monkeypatch.setattr(volume, "_outcome", look)
    volume.run(write_row(specs, gen=None, data="seeds.jsonl", **HUB))
    (fetch, fetch_lock), (train, train_lock) = held
    assert fetch == "fetch"
    assert fetch_lock.startswith("fetch-")
    assert train == "train"
    assert train_lock.startswith("train-")


@pytest.mark.parametrize("only", ["training", "gen,fetch"])
def test_a_stage_that_does_not_exist_is_refused_and_the_stages_are_named(
    tmp_path: Path, only: str
) -> None:
    fake = FakeStages(tmp_path / "fake")
    spec = write_row(tmp_path / "specs")
    done = harness(fake.env, "run", "--only", only, spec, "--volume", tmp_path / "volume")
    assert done.returncode == 2
    assert "is no stage; there are gen, train, answer, judge" in done.stdout


def test_in_the_train_image_a_hub_model_must_be_there_already(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, gen=None, data="seeds.jsonl", **HUB)
    image = {"image": "train-cpu", "lock": "0" * 64, "base": "x"}
    monkeypatch.setattr("harness.run.hub.environment.current_image", lambda: image)
    with pytest.raises(InputError, match="some/model is not on the volume") as caught:
        volume.run(spec)
    assert caught.value.hint == f"Download it with: docker compose run --rm fetch {spec}"
    assert volume.ran == []
    snapshot(volume.store.root / "models" / "some--model-aaaaaaaaaaaa")
    volume.run(spec)
    assert volume.ran == ["train"]


def test_what_a_stage_made_of_a_file_that_was_changed_meanwhile_is_set_aside(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, train=None)
    seeds = specs / "seeds.jsonl"

    def edits_and_puts_back(job: Any) -> dict[str, Any]:
        text = seeds.read_text()
        seeds.write_text("another\n")
        seeds.write_text(text)
        (job.folder / "transcript.jsonl").write_text("paid for\n")
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(volume, "_outcome", edits_and_puts_back)
        with pytest.raises(HarnessError, match="was changed while the stage ran"):
            volume.run(spec)
    assert volume.store.all_folders() == []
    assert len(list((volume.store.root / "work").glob("gen-*-aside-*"))) == 1

    def finds_the_calls(job: Any) -> dict[str, Any]:
        assert (job.folder / "transcript.jsonl").read_text() == "paid for\n"
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(volume, "_outcome", finds_the_calls)
        volume.run(spec)
    assert len(volume.store.all_folders()) == 1


def test_a_given_file_that_gets_other_rights_while_a_stage_runs_is_the_same_file(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, train=None)

    def changes_rights(job: Any) -> dict[str, Any]:
        (specs / "seeds.jsonl").chmod(0o600)
        (specs / "another-name.jsonl").hardlink_to(specs / "seeds.jsonl")
        return {}

    monkeypatch.setattr(volume, "_outcome", changes_rights)
    volume.run(spec)
    assert len(volume.store.all_folders()) == 1


def test_a_copy_of_simulated_data_carries_its_mark_and_a_file_they_share_does_not(
    specs: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.outcomes["gen"] = {"simulated": ["teacher"]}
    volume.run(write_row(specs, train=None))
    gen = volume.artefact("gen")
    (name,) = gen.manifest.files
    # Given in the test's own form: what counts is that the bytes are an artefact's.
    (specs / "copied.jsonl").write_bytes((gen.folder / name).read_bytes())
    monkeypatch.setattr("harness.run.training_data.read", lambda *of: [])
    copy = {"gen": None, "data": "copied.jsonl"}
    volume.run(write_row(specs, "two", **copy))
    assert volume.artefact("train").manifest.simulated == []  # as a tokenizer's would be

    monkeypatch.setattr("harness.run.runner.MADE", (name,))
    volume.run(write_row(specs, "three", **copy, train={"steps": 2}))
    marks = [a.manifest.simulated for a in volume.store.match("train/")]
    assert sorted(marks) == [[], ["teacher"]]


def test_a_stage_whose_lease_another_took_is_killed_and_the_run_says_why(tmp_path: Path) -> None:
    fakes, store = FakeStages(tmp_path / "fakes"), Store(tmp_path / "volume")
    fakes.order("gen", "ignore and wait")
    store.locks.folder.mkdir(parents=True)
    note(store.locks.folder, Kind("lease", "a test", False, "here", seconds=3))
    spec = write_row(tmp_path / "specs", train=None)
    run = start({**fakes.env, "HARNESS_DATA": str(store.root)}, "run", spec)
    until((fakes.folder / "waiting").exists, 60)
    stage, key, _ = fakes.runs()[0].split()
    keeper = keeper_of(store.locks.folder / f"{stage}-{key[:16]}")
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    with store.lock(stage, key):
        os.kill(keeper, signal.SIGCONT)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1, output
    assert f"the lease gen-{key[:16]} was lost: this machine did not reach the volume" in output
    assert "another may work on the same artefact now" in output
    assert not is_alive(fakes.pid())
