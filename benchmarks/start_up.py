"""How long the core takes: `harness --help`, a plan, and plan and tables of 100 finished rows.

    python benchmarks/start_up.py [REPEATS]

Beside each figure stands what the interpreter, and the libraries the core cannot do without, take by
themselves on the same machine in the same run. Python's compiled files are kept, as they are after an
installation, also where PYTHONDONTWRITEBYTECODE is set; the first run, which compiles, is not counted.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HARNESS = [sys.executable, "-m", "harness"]
ROWS = 100
COMPILED = tempfile.mkdtemp(prefix="compiled-")
"""Folder of the compiled files."""


def seconds(command: list[str], repeats: int) -> list[float]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = COMPILED
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
        times.append(time.perf_counter() - start)
    return times[1:]


def show(name: str, times: list[float], limit: str = "") -> None:
    middle = statistics.median(times)
    print(f"{name:<58} {min(times):6.3f} {middle:6.3f} {max(times):6.3f}  {limit}")


def finished_rows(folder: Path) -> tuple[Path, Path]:
    """100 specs whose stages are all on a volume: the smoke table's base row under other seeds."""
    base = ROOT / "specs" / "smoke"
    specs, volume = folder / "specs", folder / "volume"
    specs.mkdir()
    for number in range(ROWS):
        row = {
            "extends": str(base / "base.yaml"),
            "row": f"row-{number}",
            "eval": {"answer": {"decoding": {"seed": number}}},
        }
        (specs / f"row_{number}.yaml").write_text(yaml.safe_dump(row), encoding="utf-8")
    sys.path.insert(0, str(ROOT))
    from harness.artefact.keys import Files
    from harness.artefact.manifest import Manifest
    from harness.artefact.store import Store
    from harness.row.load import load_rows
    from harness.run.plan import Planner

    store = Store(volume)
    store.prepare()
    planner = Planner(store, Files(None, None), "local")
    metric = {"value": 50.0, "standard_error": 5.0, "judged": 100, "expected": 100}
    for loaded in load_rows([specs]):
        keys = {}
        for stage in planner.plan(loaded).stages:
            work = store.work_folder(stage.stage, stage.key)
            work.mkdir(parents=True)
            (work / "outputs.json").write_text("x" * 200_000, encoding="utf-8")
            manifest = {
                "stage": stage.stage, "key": stage.key, "document": stage.document,
                "row": stage.row, "label": "", "inputs": {}, "executor": {"executor": "local"},
                "used": {}, "seeds": {}, "counts": {}, "notes": [], "random_weights": True,
                "metrics": {"win_rate": metric} if stage.stage == "judge" else {},
                "cost": {"calls": 100, "prompt_tokens": 1, "completion_tokens": 1,
                         "wall_seconds": 1.0},
                "simulated": ["judge"], "ran": "",
            }  # fmt: skip
            store.seal(Manifest.from_json(manifest), ["outputs.json"])
            keys[stage.memory_name] = stage.key
        store.remember(loaded.row.row, keys)
    return specs, volume


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    processors = len(os.sched_getaffinity(0))
    print(f"{processors} processors, {repeats} repeats; seconds: minimum, median, maximum")
    show("python -c pass", seconds([sys.executable, "-c", "pass"], repeats))
    show("  click alone", seconds([sys.executable, "-c", "import click"], repeats))
    show("harness --help", seconds([*HARNESS, "--help"], repeats), "at most 0.1")
    libraries = "import click, pydantic, yaml, rich.console"
    show("  click, pydantic, yaml, rich alone", seconds([sys.executable, "-c", libraries], repeats))
    with tempfile.TemporaryDirectory() as folder:
        volume = str(Path(folder) / "empty")
        plan = [*HARNESS, "plan", "specs/smoke", "--volume", volume]
        show("harness plan specs/smoke", seconds(plan, repeats), "at most 0.6")
        specs, full = finished_rows(Path(folder))
        many = [str(specs), "--volume", str(full)]
        plans = seconds([*HARNESS, "plan", *many], repeats)
        out = str(Path(folder) / "results")
        tables = seconds([*HARNESS, "table", *many, "--out", out], repeats)
        show(f"harness plan, {ROWS} finished rows", plans)
        show(f"harness table, {ROWS} finished rows", tables)
        both = [a + b for a, b in zip(plans, tables, strict=True)]
        show("  both together, two processes", both, "at most 1")


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(COMPILED)
