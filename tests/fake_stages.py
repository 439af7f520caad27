"""Stages that do next to nothing, for tests of what runs them: no torch, no calls.

They stand in the places of the real ones in a stage process whose PYTHONPATH begins with the folder
that `tests.helpers.fake_stages` makes. FAKE_STAGES names a folder: `runs` gets a line for each run,
`variables` holds the last one's environment (`variables-KEY` that of each, with twelve digits of the
key), and a file STAGE or STAGE-KEY there says what else that stage does.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

HARNESS = Path(__file__).resolve().parents[1] / "harness"
STAGES = ("gen.run", "train.run", "answer.run", "judge.run", "modeling.fetch")


def install() -> None:
    for name in STAGES:
        module = ModuleType(f"harness.{name}")
        module.run = run
        # The command line's own process imports parts of these.
        module.__path__ = [str(HARNESS.joinpath(*name.split(".")))]
        sys.modules[module.__name__] = module


def run(call):
    from harness.artefact import events
    from harness.artefact.call import StageResult
    from harness.artefact.manifest import MetricValue

    folder = Path(os.environ["FAKE_STAGES"])
    with (folder / "runs").open("a") as file:
        file.write(f"{call.stage} {call.key} {os.getpid()}\n")
    for name in ("variables", f"variables-{call.key[:12]}"):
        (folder / name).write_text(json.dumps(dict(os.environ)))
    events.progress("working", 1, 2, "step", loss=0.5)
    print("a print of a library")
    logging.getLogger().warning("a warning of a library")
    state = call.folder / "state.txt"
    before = state.read_text() if state.exists() else ""
    state.write_text(before + "x")
    for orders in (folder / call.stage, folder / f"{call.stage}-{call.key[:12]}"):
        if orders.exists():
            ORDERS[orders.read_text()]()
    events.progress("working", 2, 2, "step")
    keep = KEPT[call.stage]
    (call.folder / "checkpoints").mkdir(exist_ok=True)
    (call.folder / "checkpoints" / "1").write_text("not for the artefact")
    for name in keep:
        (call.folder / name).parent.mkdir(exist_ok=True)
        (call.folder / name).write_text(json.dumps({"tries": len(before) + 1}) + "\n")
    metrics = {}
    if call.stage == "judge":
        metrics["win_rate"] = MetricValue(
            value=50.0, standard_error=5.0, judged=2, expected=2, lower_bound=50.0, upper_bound=50.0
        )
    return StageResult(
        keep=sorted({name.split("/")[0] for name in keep}),
        metrics=metrics,
        counts={"tries": len(before) + 1},
        used={"inputs": call.inputs, "offline": os.environ.get("HF_HUB_OFFLINE") == "1"},
        seeds={"fake": 7},
        cost={"calls": 3, "prompt_tokens": 5, "completion_tokens": 7},
        simulated=["teacher"] if call.stage == "gen" else [],
        notes=["a note of the stage"],
    )


KEPT = {
    "gen": ["data.jsonl", "transcript.jsonl"],
    "train": ["model/config.json"],
    "answer": ["model_outputs.json"],
    "judge": ["annotations.json"],
    "fetch": ["snapshot/config.json"],
}


def _wait() -> None:
    """Until something ends it, but for a minute at most: no test may leave it behind."""
    Path(os.environ["FAKE_STAGES"], "waiting").touch()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)


def _ignore_and_wait() -> None:
    """Deaf to a request to stop, and with a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    helper = subprocess.Popen(["sleep", "60"], stdout=sys.stderr)
    Path(os.environ["FAKE_STAGES"], "helper").write_text(str(helper.pid))
    _wait()


class _Swallowing:
    def __del__(self) -> None:
        Path(os.environ["FAKE_STAGES"], "waiting").touch()
        time.sleep(20)


def _swallow_and_wait() -> None:
    """Asked to stop where nothing can be raised, and then at work for long."""
    _Swallowing()
    time.sleep(20)


class _Garbage:
    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        os.write(2, b"looked for garbage\n")


def _leave_garbage() -> None:
    """Something that only a look for garbage finds once this module is gone."""
    global garbage
    garbage = _Garbage()


def _until_told() -> None:
    """A piece of work that ends when the test makes the file `go`."""
    Path(os.environ["FAKE_STAGES"], "waiting").touch()
    end = time.monotonic() + 60
    while time.monotonic() < end and not Path(os.environ["FAKE_STAGES"], "go").exists():
        time.sleep(0.02)


def _deaf_until_told() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _until_told()


def _raise(error: Exception) -> None:
    raise error


def _refuse() -> None:
    from harness.errors import InputError

    raise InputError("the data set is empty", "Name another.")


def _fail() -> None:
    from harness.errors import HarnessError

    for number in range(20):
        print(f"library line {number}")
    raise HarnessError("the loss is not a number", "Lower the learning rate.")


ORDERS = {
    "wait": _wait,
    "swallow and wait": _swallow_and_wait,
    "ignore and wait": _ignore_and_wait,
    "leave garbage": _leave_garbage,
    "until told": _until_told,
    "deaf until told": _deaf_until_told,
    "refuse": _refuse,
    "fail": _fail,
    "break": lambda: _raise(KeyError("learning_rate")),
    "disk full": lambda: _raise(OSError(28, "No space left on device", "/volume/model.bin")),
    "no memory": lambda: _raise(MemoryError()),
    "no memory to map a file": lambda: _raise(OSError(12, "Cannot allocate memory", "/model")),
    "no GPU memory": lambda: _raise(RuntimeError("CUDA error: out of memory\nCUDA kernel errors")),
    "a broken GPU": lambda: _raise(
        RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be late")
    ),
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda: sys.exit(0),
}
