"""Compares two matrix.csv files cell by cell: the same rows by the local and the docker executor.

    python tests/docker/compare_matrices.py LOCAL.csv DOCKER.csv

Columns whose names start with `env_` say where a stage ran and may differ; all others must not.
"""

import csv
import sys
from pathlib import Path

ENVIRONMENT = "env_"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [{k: v for k, v in row.items() if not k.startswith(ENVIRONMENT)} for row in rows]


def differences(left: list[dict[str, str]], right: list[dict[str, str]]) -> list[str]:
    """One line for each cell that differs, and for each row or column that only one side has."""
    if not left or not right:
        return [f"{len(left)} rows on one side, {len(right)} on the other: nothing to compare"]
    if list(left[0]) != list(right[0]):
        return [f"columns {list(left[0])}\n     and {list(right[0])}"]
    if len(left) != len(right):
        return [f"{len(left)} rows on one side, {len(right)} on the other"]
    return [
        f"row {number}, {column}: {a[column]!r} and {b[column]!r}"
        for number, (a, b) in enumerate(zip(left, right, strict=True), start=1)
        for column in a
        if a[column] != b[column]
    ]


def main(paths: list[str]) -> int:
    if len(paths) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    left, right = (read(Path(path)) for path in paths)
    found = differences(left, right)
    print("\n".join(found) or f"{len(left)} rows, {len(left[0])} columns: the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
