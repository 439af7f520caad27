"""What tests of the core share: small rows, fake stages, the command line in a process of its own."""

import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu

ROOT = Path(__file__).resolve().parents[1]
HARNESS = [sys.executable, "-m", "harness"]


def give_gpus(patch: pytest.MonkeyPatch, *devices: Gpu) -> None:
    """This machine has these GPUs, and all of them may be used."""
    patch.setattr(gpus, "_tool", lambda: "nvidia-smi")
    patch.setattr(gpus, "_asked", lambda: (devices, ""))
    patch.setattr(gpus, "_there", lambda: devices)
    patch.setattr(environment, "accelerator", lambda: "cuda" if devices else "cpu")
    # What one test's machine is, is kept for no other's.
    patch.setattr(environment, "environment_of", inspect.unwrap(environment.environment_of))
    patch.delenv(gpus.VISIBLE, raising=False)


def some_gpus(count: int, **facts: Any) -> list[Gpu]:
    """Alike but for their numbers."""
    common: dict[str, Any] = {"driver": "580.95.05", "capability": (9, 0), **facts}
    return [Gpu("NVIDIA H", 80 * 2**30, i, f"GPU-{i}{i}{i}{i}", **common) for i in range(count)]


TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4}  # fmt: skip
"""A model of which any machine has room for several."""


def write_rows(folder: Path, count: int, **changes: Any) -> list[Path]:
    """Rows `row0`, `row1` ... with trainings of their own, on given data and one thread each."""
    parts = evaluation(folder)
    parts["answer"]["engine"] = {"threads": 1}
    common = {
        "model": {"random": {"config": {"model_type": "qwen2", **TINY}}},
        "gen": None,
        "data": "seeds.jsonl",
        "eval": parts,
        **changes,
    }
    rows = range(count)
    return [
        write_row(folder, f"row{i}", **{"train": {"steps": i + 1, "threads": 1}, **common})
        for i in rows
    ]


def write_row(folder: Path, row: str = "one", **changes: Any) -> Path:
    """A spec `ROW.yaml` with gen and train; `changes` replace or (None) drop its parts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.txt").write_text("Q: {instruction}\nA:")
    (folder / "tasks.txt").write_text("{count} {examples} {next}")
    # Fit for a teacher's seeds and for a training.
    seed = {"id": "seed", "name": "yes", "instruction": "Say yes.", "output": "yes"}
    seed |= {"instances": [{"input": "", "output": "yes"}], "is_classification": False}
    (folder / "seeds.jsonl").write_text(json.dumps(seed) + "\n")
    spec: dict[str, Any] = {
        "row": row,
        "table": "tests",
        "title": f"The row {row}",
        "model": {"random": {"config": {"model_type": "qwen2"}}},
        "template": {"prompt": "prompt.txt"},
        "gen": {
            "recipe": "alpaca",
            "teacher": {"model": "teacher", "simulated": {}},
            "seeds": "seeds.jsonl",
            "prompt": "tasks.txt",
            "examples": 3,
            "shown": 1,
        },
        "train": {"steps": 1},
        **changes,
    }
    path = folder / f"{row}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}))
    return path


def evaluation(folder: Path, judge: dict[str, Any] | None = None) -> dict[str, Any]:
    """The `eval` part of a row written in `folder`, with a simulated judge unless told."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text('{"instruction": "Say no.", "output": "no"}\n')
    (folder / "judge.txt").write_text("{instruction} {output_a} {output_b}")
    return {
        "answer": {"prompts": {"file": "prompts.jsonl"}},
        "judge": {
            "kind": "preference",
            "judge": judge or {"model": "judge", "simulated": {}},
            "prompt": "judge.txt",
            "reference": "prompts.jsonl",
        },
    }


def snapshot(folder: Path) -> None:
    """A model, for a look at its files; and also a prompt set, and a task's questions."""
    shutil.copytree(ROOT / "specs/smoke/tasks/arc_challenge", folder, dirs_exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "set.json").write_text('[{"instruction": "Say no.", "reference_answer": "no"}]')


def copy_of_model(model: Path, folder: Path) -> Path:
    """The model's files in a new folder, where they can be changed; its weights are linked."""
    folder.mkdir()
    for path in model.iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
        else:
            shutil.copyfile(path, folder / path.name)
    return folder


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class FakeStages:
    """Stages of tests/fake_stages.py in place of the real ones, for processes started with `env`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import sys\nsys.path.append({str(ROOT)!r})\n"
            "from tests import fake_stages\nfake_stages.install()\n"
        )
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HARNESS_")},
            "PYTHONPATH": str(folder),
            "FAKE_STAGES": str(folder),
            "COLUMNS": "200",
        }

    def order(self, stage: str, what: str | None) -> None:
        """What `stage` does from now on; None: only its normal work."""
        (self.folder / "waiting").unlink(missing_ok=True)
        (self.folder / "go").unlink(missing_ok=True)
        if what is None:
            (self.folder / stage).unlink()
        else:
            (self.folder / stage).write_text(what)

    def runs(self, stage: str = "") -> list[str]:
        """`STAGE KEY PID` of each run so far."""
        try:
            lines = (self.folder / "runs").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.startswith(stage)]

    def pid(self, stage: str = "") -> int:
        """Process id of the last run."""
        return int(self.runs(stage)[-1].split()[2])

    def wait_until_waiting(self) -> None:
        until((self.folder / "waiting").exists)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition that must come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for does not happen"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(env: dict[str, str], *arguments: str | Path, cwd: Path = ROOT) -> "subprocess.Popen[str]":
    """`harness ARGUMENTS` in the background; standard error comes with standard output."""
    return subprocess.Popen(
        [*HARNESS, *map(str, arguments)],
        env=env,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )


def harness(
    env: dict[str, str], *arguments: str | Path, cwd: Path = ROOT, seconds: float = 300
) -> "subprocess.CompletedProcess[str]":
    """`harness ARGUMENTS`, run to its end; standard error comes with standard output."""
    process = start(env, *arguments, cwd=cwd)
    output, _ = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


class InstantExecutor:
    """Makes each artefact at once and in this process; `outcome` says what a stage's result holds."""

    name = "instant"

    def __init__(self, outcome: Callable[[Any], dict[str, Any]] = lambda job: {}) -> None:
        self.outcome = outcome
        self.made: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"executor": self.name, "image": None}

    def check(self, stages: Any) -> None:
        pass

    def run(self, job: Any, files: Any, on_event: Callable[[dict[str, Any]], None]) -> None:
        from harness.artefact.call import RESULT_FILE, StageResult

        self.made.append(job.stage)
        (job.folder / "made.txt").write_text(job.key)
        result = StageResult(**{"keep": ["made.txt"], **self.outcome(job)})
        (job.folder / RESULT_FILE).write_text(json.dumps(asdict(result)))


def planner(volume: Path, inputs: Path | None = None, executor: str = "local") -> Any:
    from harness.artefact.keys import Files
    from harness.artefact.store import Store
    from harness.run.plan import Planner

    store = Store(volume)
    files = Files(inputs, store.root / "cache" / "digests.json", store.files_folder)
    return Planner(store, files, executor)


def planned(volume: Path, *specs: Path, **how: Any) -> list[Any]:
    """The RowPlan of each spec, as `planner(volume, **how)` sees it now."""
    from harness.row.load import load_rows

    plan = planner(volume, **how).plan
    return [plan(loaded) for loaded in load_rows(specs)]


def make(
    volume: Path,
    *specs: Path,
    executor: InstantExecutor | None = None,
    kind: str = "local",
    inputs: Path | None = None,
) -> InstantExecutor:
    """Run every stage of the specs with an executor that takes no time; `kind`: whose keys."""
    from rich.console import Console

    from harness.artefact.keys import Files
    from harness.artefact.store import Store
    from harness.run.runner import Runner

    executor = executor or InstantExecutor()
    store = Store(volume)
    store.prepare()
    console = Console(file=io.StringIO())
    runner = Runner(store, Files(inputs, None, store.files_folder), executor, console)
    runner.run(planned(volume, *specs, inputs=inputs, executor=kind))
    return executor


def command(*arguments: str | Path) -> Any:
    """`harness ARGUMENTS` in this process: click's result; what is not foreseen is raised."""
    from click.testing import CliRunner

    from harness.cli import main

    handler = signal.getsignal(signal.SIGTERM)
    try:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class Volume:
    """A volume below `folder` whose stages are made at once; `jobs` are those that were run."""

    def __init__(self, folder: Path) -> None:
        from harness.artefact.store import Store

        self.store = Store(folder / "volume")
        self.store.prepare()
        self.jobs: list[Any] = []
        self.outcomes: dict[str, dict[str, Any]] = {}
        """Stage -> what its result holds."""
        self.output = io.StringIO()

    def _outcome(self, job: Any) -> dict[str, Any]:
        self.jobs.append(job)
        return self.outcomes.get(job.stage, {})

    @property
    def ran(self) -> list[str]:
        return [job.stage for job in self.jobs]

    def run(self, *specs: Path, only: Sequence[str] = ()) -> None:
        from rich.console import Console

        from harness.artefact.keys import Files
        from harness.run.runner import Runner

        executor, console = InstantExecutor(self._outcome), Console(file=self.output, width=200)
        files = Files(None, None, self.store.files_folder)
        runner = Runner(self.store, files, executor, console)
        runner.run(planned(self.store.root, *specs), only)

    def artefact(self, stage: str) -> Any:
        """The only artefact of a stage."""
        (found,) = self.store.match(f"{stage}/")
        return found
