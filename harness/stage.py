"""Runs one stage: `python -m harness.stage CALL.json`. The same in every executor and image.

Events go to standard output, logs to standard error, the outcome to result.json in the work folder.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.answer.answer import Answer
from harness.artefact import environment, events
from harness.artefact.call import BUILD_ANEW, NOT_THIS_CHECKOUT, RESULT_FILE, StageCall, StageResult
from harness.artefact.network_files import files_below, sync
from harness.common import device_faults, swallowed
from harness.common.paths import DISK_FULL
from harness.errors import HarnessError, InputError, Interrupted
from harness.gen.recipes.union import Gen
from harness.judge.kinds.union import Judge

MODULES = {
    "gen": "harness.gen.run",
    "train": "harness.train.run",
    "answer": "harness.answer.run",
    "judge": "harness.judge.run",
    "fetch": "harness.modeling.fetch",
    "export": "harness.modeling.upload",
}
MODELS: dict[str, Any] = {"gen": Gen, "answer": Answer, "judge": Judge}
"""Stage -> the spec model of the parameter of its name, in which a code version may stand."""
LOCK_FILE = ".stage-lock"
PARENT_VARIABLE = "HARNESS_PARENT"
"""Process id of a local executor; a stage must not outlive it."""


@swallowed.given_again()
def main(argv: list[str]) -> int:
    events.claim_stdout()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    # Slurm's warning goes to every process of a job; what is to be done then, the executor says.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    _end_with_parent()
    try:
        call = StageCall.read(Path(argv[0]))
    except HarnessError as e:
        return _fail(e.message, e.hint, e.exit_code)
    try:
        with _alone(call):
            _run(call)
    except HarnessError as e:
        device_faults.log(e)
        return _fail(e.message, e.hint, e.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", "", Interrupted.exit_code)
    except OSError as e:
        if e.errno in DISK_FULL:
            return _fail(
                f"no space left on the device while writing {e.filename or call.folder}",
                "Free some and run the same command again; what is finished stays.",
                1,
            )
        return _unforeseen(call, e)
    except Exception as e:
        return _unforeseen(call, e)
    return 0


def _run(call: StageCall) -> None:
    _check_environment(call)
    if call.replay:
        from harness.llm.replay import refuse_network

        refuse_network()
    started = time.monotonic()
    result: StageResult = importlib.import_module(MODULES[call.stage]).run(call)
    for path in filter(Path.exists, (call.folder / name for name in result.keep)):
        for file in files_below(path) if path.is_dir() else [path]:
            sync(file)
    result.cost["stage_seconds"] = round(time.monotonic() - started, 3)
    result.used["environment"] = environment.describe_here(call.gpus)
    path = call.folder / RESULT_FILE
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result.to_json(), indent=2, sort_keys=True), encoding="utf-8")
    part.replace(path)


@contextlib.contextmanager
def _alone(call: StageCall) -> Iterator[None]:
    """Hold the work folder: a container that a killed harness left behind may still write there."""
    path = call.folder / LOCK_FILE
    if call.lease_seconds is not None:
        with _lease(path, call.lease_seconds):
            yield
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _occupied() from None
        yield


@contextlib.contextmanager
def _lease(path: Path, seconds: float) -> Iterator[None]:
    """Kept by this process itself, for only it knows how long it writes there."""
    from filelock import Timeout

    from harness.artefact import lease_keeper

    lease = lease_keeper.lease(str(path), seconds)
    try:
        try:
            lease.acquire_write(blocking=False)
        except Timeout:
            events.note(f"waiting up to {2 * seconds:.0f} s for what another machine may have left")
            lease.acquire_write(2 * seconds)
    except Timeout:
        raise _occupied() from None
    try:
        yield
    finally:
        lease.release(force=True)


def _occupied() -> HarnessError:
    return HarnessError(
        "another process still works on this artefact",
        "A killed run may have left its container: `docker ps` shows it. Wait for it or "
        "stop it, then run the same command again.",
    )


def _check_environment(call: StageCall) -> None:
    """The key names an image, a lock and a code version; what runs must be these."""
    params = dict(call.params)
    if call.stage in MODELS and call.stage in params:
        try:
            part = TypeAdapter(MODELS[call.stage]).validate_python(params[call.stage])
        except ValidationError:
            raise InputError(NOT_THIS_CHECKOUT, BUILD_ANEW) from None
        params[call.stage] = part
    code = environment.code_name(call.stage, params)
    version = environment.code_version(call.stage, params)
    image = environment.current_image()
    build = environment.build_command(environment.FAMILY.get(call.stage, "train eval"))
    if version != call.code_version:
        raise InputError(
            f"the image holds version {version} of the {code} stage's code, and "
            f"version {call.code_version} was planned",
            f"Build it anew: {build}",
        )
    planned = call.environment
    if "image" in planned and (
        image is None or (image["image"], image["lock"]) != (planned["image"], planned["lock"])
    ):
        here = f"{image['image']} with lock {image['lock'][:12]}" if image else "no pinned image"
        raise InputError(
            f"planned for {planned['image']} with lock {planned['lock'][:12]}, but this is {here}",
            f"Build the image from this checkout: {build}",
        )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Have the kernel stop this process when the executor that started it is gone (Linux)."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        sys.exit(Interrupted.exit_code)


def _unforeseen(call: StageCall, error: Exception) -> int:
    fault = device_faults.as_fault(error)
    if fault is not None:
        device_faults.log(error)
        return _fail(fault.message, fault.hint, fault.exit_code)
    traceback.print_exc()
    return _fail(
        f"{type(error).__name__}: {error}",
        "The log has the details. This may be a fault of the harness itself.",
        1,
    )


def _fail(message: str, hint: str, code: int) -> int:
    events.error(message, hint, code)
    return code


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    # Else the interpreter looks through all that was imported for garbage before it ends: with torch
    # and transformers half a million objects, for seconds on a busy machine.
    gc.freeze()
    sys.exit(exit_code)
