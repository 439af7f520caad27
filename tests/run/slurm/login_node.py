"""What a person at a login node does, for tests."""

import json
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers import write_row
from tests.run.slurm.cluster import Cluster

Login = dict[str, str]
"""The variables of a shell there."""


def small_row(folder: Path, row: str = "one", **changes: Any) -> Path:
    """Its model would be large, were it not for the fake stages."""
    return write_row(folder, row, limits={"cpus": 1, "memory": "1g"}, **changes)


def until(cluster: Cluster, condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(cluster.call("squeue", "--states=all", "--format=%i %T %r %N %k"))
        time.sleep(0.2)


def ended(cluster: Cluster) -> bool:
    return not cluster.call("squeue", "--noheader", "--states=PD,R,CG")


def submissions(output: str) -> list[str]:
    """Numbers of the jobs that `harness submit` says it made."""
    return re.findall(r"^job (\d+): ", output, re.MULTILINE)


def manifests(login: Login) -> dict[str, dict[str, Any]]:
    """STAGE/KEY -> manifest."""
    found = Path(login["HARNESS_DATA"]).glob("artefacts/*/*/manifest.json")
    return {f"{p.parent.parent.name}/{p.parent.name}": json.loads(p.read_text()) for p in found}


def attempts(login: Login, stage: str) -> list[list[dict[str, Any]]]:
    """What the jobs of each such stage said of themselves."""
    found = sorted(Path(login["HARNESS_DATA"]).glob(f"slurm/attempts/{stage}-*.json"))
    return [json.loads(p.read_text())["attempts"] for p in found]


def configure(login: Login, **settings: Any) -> None:
    """Add to this place's settings."""
    path = Path(login["HARNESS_CONFIG"])
    merged = {**tomllib.loads(path.read_text())["slurm"], **settings}
    lines = [f"{name} = {json.dumps(value)}" for name, value in merged.items()]
    path.write_text("\n".join(["[slurm]", *lines, ""]))
