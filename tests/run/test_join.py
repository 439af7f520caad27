"""Another machine takes part in a training only where a run there would not be refused."""

from pathlib import Path
from typing import Any

import pytest

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.common.env_variables import RENDEZVOUS
from harness.errors import InputError
from harness.run import join
from tests.helpers import give_gpus, planner, some_gpus, write_row

CASES: list[tuple[list[Gpu], dict[str, bool], str]] = [
    (some_gpus(2, driver="550.54"), {"has_cuda_13": True}, "its driver is 550.54"),
    (some_gpus(2, capability=(7, 0)), {"has_cuda_13": True}, "is sm_70"),
    (some_gpus(1), {}, "needs 2 GPUs"),
    (some_gpus(2), {"lacks_cuda": True}, "torch here is a build for the CPU"),
    ([], {}, "nvidia-smi is there and finds no GPU"),
    (some_gpus(2), {"has_cuda_13": True}, ""),
]


@pytest.mark.parametrize(("devices", "facts", "refusal"), CASES)
def test_a_machine_joins_only_where_a_run_would_not_be_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[Gpu],
    facts: dict[str, bool],
    refusal: str,
) -> None:
    from harness.row.load import load_rows

    joined: list[Any] = []
    monkeypatch.setattr(join, "join", lambda *call: joined.append(call) or 0)
    monkeypatch.setenv(RENDEZVOUS, "10.0.0.1:29500")
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)
    give_gpus(monkeypatch, *devices)
    if not devices:
        monkeypatch.setattr(gpus, "_asked", lambda: ((), "it cannot reach the driver"))
    for name in ("has_cuda_13", "lacks_cuda"):
        monkeypatch.setattr(environment, name, lambda name=name: facts.get(name, False))
    train = {"steps": 1, "launch": {"processes": 2, "machines": 2}, "batch_size": 4}
    plan = planner(tmp_path / "runs").plan_model(load_rows([write_row(tmp_path, train=train)])[0])
    if refusal:
        with pytest.raises(InputError, match=refusal):
            join.join_row(plan, planner(tmp_path / "runs").store)
    else:
        join.join_row(plan, planner(tmp_path / "runs").store)
    assert bool(joined) != bool(refusal)
