"""Sixty tiny rows by `harness run`, and the same stage calls by make and Snakemake.

    python benchmarks/many_rows.py [--rows 60] [--rounds 1] [--train] [--snakemake PROGRAM]

A row has the answers of a control, and a simulated judging of them: real stages in processes of their
own, of which none loads PyTorch. With --train it trains a tiny model, which answers. make and
Snakemake start `python -m harness.stage` with the same calls, each once what it reads is there; they
keep no digests, manifests or locks. Beside the seconds stand those of all processes on the CPU, which
other work on the machine changes less.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "specs" / "smoke"
sys.path.insert(0, str(ROOT))

from harness.artefact.keys import Files  # noqa: E402
from harness.artefact.store import Store  # noqa: E402
from harness.common import env_variables  # noqa: E402
from harness.row.load import load_rows  # noqa: E402
from harness.run.executors import Job  # noqa: E402
from harness.run.plan import Planner, StagePlan, unique  # noqa: E402

TOLD = {"HARNESS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def write_specs(folder: Path, rows: int, train: bool) -> Path:
    """Rows that share no stage."""
    folder.mkdir()
    for number in range(rows):
        row: dict[str, Any] = {
            "extends": str(SMOKE / "base.yaml"),
            "row": f"many-{number:02}",
            "eval": {"answer": {"engine": {"kind": "null", "output": f"no {number}"}}},
        }
        if train:
            row["data"] = str(SMOKE / "prompts.jsonl")
            row["train"] = {"steps": 2, "seed": number, "cutoff_length": 256, "threads": 1}
            del row["eval"]
        (folder / f"row_{number:02}.yaml").write_text(yaml.safe_dump(row), encoding="utf-8")
    return folder


def harness(specs: Path, volume: Path, jobs: int) -> list[str]:
    options = ["--volume", str(volume), "--jobs", str(jobs)]
    return [sys.executable, "-m", "harness", "run", str(specs), *options]


def stages_of(specs: Path, volume: Path) -> tuple[list[StagePlan], Files]:
    files = Files(None, None)
    planner = Planner(Store(volume), files, "local")
    return unique([planner.plan(row) for row in load_rows([specs])]), files


def write_calls(stages: list[StagePlan], files: Files, folder: Path) -> dict[str, list[str]]:
    """Each stage's call in a work folder of its own; name of a stage -> those that it reads."""
    needed: dict[str, list[str]] = {}
    for stage in stages:
        work = folder / name_of(stage)
        work.mkdir(parents=True)
        inputs = {name: str(folder / name_of(source)) for name, source in stage.inputs.items()}
        job = Job(
            stage=stage.stage, key=stage.key, title=stage.title, params=stage.params, inputs=inputs,
            work=str(work), log=work / "log", lock=0, image_stage=stage.stage,
            environment=stage.document["environment"], budget=stage.owner.budget.model_dump(),
            tokenizer=stage.tokenizer,
        )  # fmt: skip
        job.placed(str(work), inputs, lambda data: str(files.locate(data))).write(
            work / "call.json"
        )
        needed[name_of(stage)] = [name_of(source) for source in stage.inputs.values()]
    return needed


def name_of(stage: StagePlan) -> str:
    return f"{stage.stage}-{stage.key[:12]}"


def makefile(needed: dict[str, list[str]], folder: Path) -> list[str]:
    python = shlex.quote(sys.executable)
    stage = f"@{python} -m harness.stage $(@D)/call.json >$(@D)/out 2>$(@D)/log"
    lines = ["all: " + " ".join(f"{name}/result.json" for name in needed)]
    for name, inputs in needed.items():
        before = " ".join(f"{i}/result.json" for i in inputs)
        lines += [f"{name}/result.json: {before}", f"\t{stage}"]
    (folder / "Makefile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["make", "-s", "-C", str(folder)]


def snakefile(needed: dict[str, list[str]], folder: Path, program: str) -> list[str]:
    python = shlex.quote(sys.executable)
    files = [f"{name}/result.json" for name in needed]
    lines = ["rule all:", f"    input: {files}"]
    for name, inputs in needed.items():
        lines += [
            f"rule {name.replace('-', '_')}:",
            f"    input: {[f'{i}/result.json' for i in inputs]}",
            f'    output: "{name}/result.json"',
            f'    shell: "{python} -m harness.stage {name}/call.json >{name}/out 2>{name}/log"',
        ]
    (folder / "Snakefile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [
        program,
        "--quiet",
        "all",
        "-d",
        str(folder),
        "-s",
        str(folder / "Snakefile"),
        "--cores",
    ]


def run(name: str, command: list[str], env: dict[str, str]) -> None:
    """Run a command, and print how long it took."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    spent, after = time.perf_counter() - began, os.times()
    on_cpu = after.children_user + after.children_system
    on_cpu -= before.children_user + before.children_system
    load = os.getloadavg()[0]
    print(f"{name:<44} {spent:8.1f} s, on the CPU {on_cpu:7.1f} s   load {load:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--train", action="store_true", help="train a tiny model in each row")
    parser.add_argument("--snakemake", help="its program; without it Snakemake is left out")
    chosen = parser.parse_args()
    for program in filter(None, ("make", chosen.snakemake)):
        if shutil.which(program) is None:
            parser.error(f"there is no program {program}")
    os.environ.update(TOLD)
    env = {**os.environ, **env_variables.given("gen"), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="many-rows-") as name:
        folder = Path(name)
        specs = write_specs(folder / "specs", chosen.rows, chosen.train)
        stages, files = stages_of(specs, folder / "none")
        print(f"{chosen.rows} rows, {len(stages)} stages", flush=True)
        for _ in range(chosen.rounds):
            for jobs in chosen.jobs:
                volume = folder / "volume"
                run(f"harness run --jobs {jobs}", harness(specs, volume, jobs), env)
                run("  the same again, all of it there", harness(specs, volume, jobs), env)
                shutil.rmtree(volume)
                for peer in ("make", *(["snakemake"] if chosen.snakemake else [])):
                    work = folder / peer
                    needed = write_calls(stages, files, work)
                    if peer == "make":
                        command = [*makefile(needed, work), f"-j{jobs}"]
                    else:
                        command = [*snakefile(needed, work, chosen.snakemake), str(jobs)]
                    run(f"{peer}, {jobs} at a time", command, env)
                    shutil.rmtree(work)


if __name__ == "__main__":
    main()
