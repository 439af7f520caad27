"""The content keys of every row under specs/ and of its twin, as tests/golden_keys.json has them.

Moving code must move no key: an artefact that was paid for would no longer be found. Where a spec or a
code version changed on purpose:

    python -m tests.golden_keys --write

For a diff of two checkouts, `python -m tests.golden_keys --print` lists every value in every key. The
golden keys are those of a machine without a GPU whose images' locks never change, where each given file
is the one that its spec pins: they hold on every machine, without the given data.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.artefact.environment import image_name
from harness.artefact.keys import Files, digest_of, flatten
from harness.artefact.store import Store
from harness.row.load import load_rows
from harness.row.twin import scaled
from harness.run.plan import Planner, StagePlan
from harness.spec.base import DATA_SCHEME, DataPath

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("golden_keys.json")
SPECS = Path("specs")
KEY, PART = 16, 6
"""Hexadecimal digits of a key, and of the digest of a part of it, that the record has."""

Golden = dict[str, dict[str, str]]
"""Row's target -> stage and its label -> `KEY code_version=4 params.train=c3f68f ...`."""


class PinnedFiles(Files):
    """Knows given data by what its spec pins, whether it is here or not."""

    def digest(self, data: DataPath) -> str:
        if data.path.startswith(DATA_SCHEME):
            return data.sha256 or f"the bytes of {data.path}"
        return super().digest(data)


def document_of(stage: StagePlan) -> dict[str, Any]:
    """What decides the stage's own key, but for what the machine decides of it."""
    inputs = {name: digest_of(document_of(source)) for name, source in stage.inputs.items()}
    environment = {"image": image_name(stage.stage, "cpu")}
    return {**stage.document, "inputs": inputs, "environment": environment}


def golden_key(document: dict[str, Any]) -> str:
    """A key, and what of each part of its document a change shows in."""
    parts = {name: str(value) for name, value in document.items() if isinstance(value, int)}
    for group in ("params", "inputs"):
        for name, value in document[group].items():
            parts[f"{group}.{name}"] = digest_of(value)[:PART]
    return " ".join([digest_of(document)[:KEY], *(f"{n}={parts[n]}" for n in sorted(parts))])


@contextlib.contextmanager
def _checkout() -> Iterator[None]:
    """Specs name other specs, and a twin its files, from the checkout."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(before)


def stages() -> Iterator[tuple[str, str, StagePlan]]:
    """Every stage of every row and of its twin, with the row's target and the stage's name in it."""
    with _checkout(), tempfile.TemporaryDirectory() as volume:
        planner = Planner(Store(Path(volume)), PinnedFiles(None, None), "docker")
        for loaded in load_rows([SPECS]):
            for row in (loaded, scaled(loaded)):
                plan = planner.plan(row)
                for stage in plan.stages:
                    label = f" ({stage.label})" if stage.label else ""
                    yield plan.target, stage.stage + label, stage


def present() -> Golden:
    """The golden keys as the code and the specs have them now."""
    golden: Golden = {}
    for target, name, stage in stages():
        golden.setdefault(target, {})[name] = golden_key(document_of(stage))
    return golden


def moved(recorded: Golden, now: Golden) -> list[str]:
    """What is not as recorded, a line for each row that is new or gone, else for each stage."""
    lines = [f"{target}: the row is gone" for target in sorted(recorded.keys() - now.keys())]
    lines += [f"{target}: the row is new" for target in sorted(now.keys() - recorded.keys())]
    for target in sorted(recorded.keys() & now.keys()):
        before, after = recorded[target], now[target]
        for stage in sorted(before.keys() | after.keys()):
            old, new = before.get(stage, ""), after.get(stage, "")
            if old != new:
                lines.append(f"{target}: {stage}: {_change(old, new)}")
    return lines


def _change(old: str, new: str) -> str:
    if not old or not new:
        return "the stage is new" if new else "the stage is gone"
    before, after = (dict(part.split("=") for part in key.split()[1:]) for key in (old, new))
    names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    changes = [f"{n} {before.get(n, 'none')} -> {after.get(n, 'none')}" for n in names]
    return ", ".join(changes) or "how the key is made of its parts"


def record() -> Golden:
    """The golden keys as the file has them."""
    golden: Golden = json.loads(RECORD.read_text(encoding="utf-8"))
    return golden


def write() -> None:
    text = json.dumps(present(), indent=1, sort_keys=True)
    RECORD.write_text(text + "\n", encoding="utf-8")


def _print() -> None:
    for target, name, stage in stages():
        for field, value in sorted(flatten(document_of(stage)).items()):
            print(f"{target}: {name}: {field} = {json.dumps(value)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write"]:
            write()
        case ["--print"]:
            _print()
        case _:
            sys.exit("usage: python -m tests.golden_keys --write | --print")
