"""What a stage is said to take of a machine, and what is handed to it."""

from pathlib import Path
from typing import Any

import pytest

from harness.artefact import environment
from harness.errors import InputError
from harness.run import machine
from harness.run.executors.placing import place
from harness.run.machine import Ledger, Machine
from harness.run.plan import StagePlan
from harness.run.resources import MODEL_PROCESS, PROCESS, Resources, resources_of, seconds_of
from tests.helpers import (
    TINY,
    Volume,
    evaluation,
    give_gpus,
    planned,
    some_gpus,
    write_row,
    write_rows,
)

GIB = 2**30
MODEL = {"random": {"config": {"model_type": "qwen2", **TINY}}}
PAID = {"model": "gpt-4", "base_url": "http://127.0.0.1:9/v1"}


def stages_of(folder: Path, *specs: Path, **how: Any) -> dict[str, StagePlan]:
    (plan,) = planned(folder / "volume", *specs, **how)
    return {stage.stage: stage for stage in plan.stages}


def test_on_a_cpu_what_has_a_model_takes_threads_and_memory_and_what_calls_takes_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    parts = evaluation(tmp_path / "specs", PAID)
    stages = stages_of(tmp_path, write_row(tmp_path / "specs", model=MODEL, eval=parts))
    taken = {name: resources_of(stage) for name, stage in stages.items()}
    assert {name: r.kind for name, r in taken.items()} == {
        "gen": "cpu", "train": "cpu", "answer": "cpu", "judge": "network",
    }  # fmt: skip
    assert {name: r.cpus for name, r in taken.items()} == {
        "gen": 1, "train": environment.cpus(), "answer": environment.cpus(), "judge": 1,
    }  # fmt: skip
    assert {r.gpus for r in taken.values()} == {0}
    assert taken["gen"].memory == taken["judge"].memory == PROCESS
    assert MODEL_PROCESS < (taken["answer"].memory or 0) < (taken["train"].memory or 0) < GIB
    assert {seconds_of(stage) for stage in stages.values()} == {None}


def test_threads_are_those_of_the_spec_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    train = {"steps": 1, "threads": 3, "launch": {"processes": 2}}
    stages = stages_of(tmp_path, *write_rows(tmp_path / "specs", 1, train=train))
    assert resources_of(stages["train"]).cpus == 6
    assert resources_of(stages["answer"]).cpus == 1


def test_gpus_are_those_of_the_stages_process_or_of_the_server_that_is_started_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    parts = evaluation(tmp_path / "specs")
    parts["answer"]["engine"] = {"kind": "vllm", "tensor_parallel": 2}
    train = {"steps": 1, "launch": {"processes": 4}}
    spec = write_row(tmp_path / "specs", model=MODEL, train=train, eval=parts)
    taken = {n: resources_of(s) for n, s in stages_of(tmp_path, spec, executor="docker").items()}
    assert {name: (r.kind, r.gpus) for name, r in taken.items()} == {
        "gen": ("cpu", 0), "train": ("gpu", 4), "answer": ("gpu", 2), "judge": ("cpu", 0),
    }  # fmt: skip
    monkeypatch.setenv("HARNESS_VLLM_URL", "http://elsewhere:8000/v1")
    answer = stages_of(tmp_path, spec)["answer"]
    assert resources_of(answer) == Resources("network", 0, 1, PROCESS)


def test_seconds_are_those_that_the_same_work_took_before(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    volume.outcomes["train"] = {"cost": {"stage_seconds": 40.0}}
    one, other = (
        write_row(tmp_path / "specs", f"row{n}", model=MODEL, train={"steps": 5, "seed": n})
        for n in (1, 2)
    )
    volume.run(one)
    assert seconds_of(stages_of(tmp_path, other)["train"]) == 40.0


def test_a_model_whose_size_is_not_known_has_no_memory_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    hub = {"hub": {"id": "some/model", "revision": "a" * 40}}
    parts = evaluation(tmp_path / "specs")
    stages = stages_of(tmp_path, write_row(tmp_path / "specs", model=hub, eval=parts))
    assert resources_of(stages["train"]).memory is None
    named = {"hub": {"id": "some/model-0.5B", "revision": "a" * 40}}
    spec = write_row(tmp_path / "specs", "b", model=named, gen=None, train=None, eval=parts)
    assert resources_of(stages_of(tmp_path, spec)["answer"]).memory == MODEL_PROCESS + 2 * 10**9


def test_a_control_groups_limit_is_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_7/step_0\n")
    job = tmp_path / "groups" / "slurm" / "job_7"
    (job / "step_0").mkdir(parents=True)
    (job / "step_0" / "memory.max").write_text("max\n")
    (job / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_CGROUP", own)
    assert Machine.here().memory == 2**20
    own.unlink()
    assert Machine.here().memory > 2**30


def test_parts_of_a_gpu_go_to_what_works_on_one_and_whole_ones_to_what_needs_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = some_gpus(3)
    part = type(whole[0])("NVIDIA H MIG 1g", 10 * 10**9, 2, "MIG-1", "580.1", (9, 0))
    give_gpus(monkeypatch, *whole[:2], part)
    rows = write_rows(tmp_path / "specs", 2, eval=None)
    write_row(tmp_path / "specs", "row1", model=MODEL, gen=None, data="seeds.jsonl",
              train={"steps": 2, "launch": {"processes": 2}})  # fmt: skip
    one, two = (plan.stages[0] for plan in planned(tmp_path / "volume", *rows))
    ledger = Ledger(Machine.here(), "local")
    first, second = ledger.take(one, resources_of(one)), ledger.take(two, resources_of(two))
    assert first is not None
    assert second is not None
    assert first.gpus == (part,)
    assert second.gpus == tuple(whole[:2])
    assert ledger.take(two, resources_of(two)) is None
    ledger.give_back(second)
    assert ledger.take(two, resources_of(two)) is not None


def test_a_server_is_one_with_and_without_a_slash_at_its_end(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    judges = []
    for name, url in (("a", PAID["base_url"]), ("b", f"{PAID['base_url']}/"), ("c", "http://h/v1")):
        parts = evaluation(specs, PAID | {"base_url": url})
        spec = write_row(specs, name, model=MODEL, eval=parts)
        judges.append(stages_of(tmp_path, spec)["judge"])
    ledger = Ledger(Machine((), 4, 64 * GIB), "local")
    taken = [ledger.take(judge, resources_of(judge)) is not None for judge in judges]
    assert taken == [True, False, True]
    assert judges[0].key != judges[1].key


def test_of_the_cpus_threads_a_gpu_stage_gets_its_gpus_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    (plan,) = planned(tmp_path / "volume", *write_rows(tmp_path / "specs", 1, eval=None))
    (train,) = plan.stages
    machine_of_32 = Machine(tuple(some_gpus(4)), 32, 64 * GIB)
    part = Ledger(machine_of_32, "local").take(train, resources_of(train))
    assert part is not None
    assert part.share.threads == 8
    one_gpu = Machine(tuple(some_gpus(1)), 32, 64 * GIB)
    alone = Ledger(one_gpu, "local").take(train, resources_of(train))
    assert alone is not None
    assert alone.share.threads is None


def test_a_card_without_room_for_a_training_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = some_gpus(2)
    small = type(small)(small.name, 2**20, 1, small.uuid, small.driver, small.capability)
    give_gpus(monkeypatch, small, large)
    (plan,) = planned(tmp_path / "volume", *write_rows(tmp_path / "specs", 1, eval=None))
    (train,) = plan.stages
    part = Ledger(Machine.here(), "local").take(train, resources_of(train))
    assert part is not None
    assert part.gpus == (large,)


def test_more_gpus_than_the_specs_limit_or_than_there_are_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: False)
    train = {"steps": 1, "launch": {"processes": 2}}
    specs = tmp_path / "specs"
    row = {"model": MODEL, "gen": None, "data": "seeds.jsonl", "train": train}
    limited = stages_of(tmp_path, write_row(specs, **row, limits={"gpus": 1}))["train"]
    with pytest.raises(InputError, match=r"works on 2 GPUs .*, and limits\.gpus is 1") as e:
        place(limited, "local")
    assert "limits.gpus: 2" in e.value.hint
    allowed = stages_of(tmp_path, write_row(specs, **row, limits={"gpus": 2}))["train"]
    assert allowed.key == limited.key
    assert len(place(allowed, "local")) == 2
    train["launch"] = {"processes": 3}
    with pytest.raises(InputError, match="needs 3 GPUs, and there are 2 here"):
        place(stages_of(tmp_path, write_row(specs, **row))["train"], "local")


def test_in_a_container_its_limit_is_the_memory_it_takes(tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs", model=MODEL, limits={"memory": "3g"})
    assert resources_of(stages_of(tmp_path, spec, executor="docker")["train"]).memory == 3 * GIB
    assert (resources_of(stages_of(tmp_path, spec)["train"]).memory or 0) < GIB
