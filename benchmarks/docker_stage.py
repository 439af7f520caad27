"""What the docker executor adds: a gen stage by `harness run`, beside plain `docker run` of the same
image with the same call and the same restrictions.

    python benchmarks/docker_stage.py [REPEATS]

Needs the image harness-gen:latest. The harness's time holds everything: its start, the plan, keys and
digests, the lock, the container, sealing the artefact, and the last look at the matrix.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout.decode()}{done.stderr.decode()}")
    return time.perf_counter() - start


def harness(spec: Path, volume: Path) -> list[str]:
    return [
        sys.executable, "-m", "harness", "run", "--executor", "docker", "--only", "gen",
        "--volume", str(volume), str(spec),
    ]  # fmt: skip


def plain(work: Path, spec_folder: Path) -> list[str]:
    return [
        "docker", "run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--network", "none",
        "--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{work}:/work",
        "--volume", f"{spec_folder / 'seeds.jsonl'}:/data/0/seeds.jsonl:ro",
        "--entrypoint", "python", "harness-gen:latest", "-m", "harness.stage", "/work/CALL.json",
    ]  # fmt: skip


def call_file(folder: Path, spec: Path) -> Path:
    """The call that the executor writes for this row's gen stage."""
    sys.path.insert(0, str(ROOT))
    from harness.artefact.keys import Files
    from harness.artefact.store import Store
    from harness.row.load import load_rows
    from harness.run.executors import Job
    from harness.run.plan import Planner

    stage = Planner(Store(folder), Files(None, None), "docker").plan(load_rows([spec])[0]).stages[0]
    job = Job(
        stage="gen", key=stage.key, title="", params=stage.params, inputs={}, work=str(folder),
        log=folder, lock=0, image_stage="gen", environment=stage.document["environment"],
    )  # fmt: skip
    path = folder / "CALL.json"
    job.placed("/work", {}, lambda data: f"/data/0/{Path(data.path).name}").write(path)
    return path


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours, peers = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = folder / "row.yaml"
        spec.write_text(
            f"extends: {ROOT / 'specs/smoke/sft.yaml'}\nrow: one\ngen: {{examples: 20}}\n",
            encoding="utf-8",
        )
        call = call_file(folder, spec)
        for number in range(repeats):
            ours.append(timed(harness(spec, folder / f"volume{number}")))
            work = folder / f"work{number}"
            work.mkdir()
            shutil.copy(call, work)
            peers.append(timed(plain(work, ROOT / "specs/smoke")))
    print(f"{repeats} pairs, seconds: minimum, median, maximum")
    extra = [a - b for a, b in zip(ours, peers, strict=True)]
    for title, times in (
        ("harness run --executor docker --only gen", ours),
        ("docker run, the same stage call", peers),
        ("difference of each pair", extra),
    ):
        print(f"{title:<44} {min(times):6.2f} {statistics.median(times):6.2f} {max(times):6.2f}")


if __name__ == "__main__":
    main()
