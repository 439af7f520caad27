"""A row as a research object (RO-Crate) that another machine can replay: `pack` writes it, `unpack`
makes a volume and a plan of it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

from harness.errors import InputError

CRATE_FILE = "harness.json"
"""What the harness itself reads of a crate."""
CRATE_FORMAT = 1
METADATA = "ro-crate-metadata.json"
ARCHIVES = (
    ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz", ".lz4",
    ".7z", ".rar",
)  # fmt: skip
"""Endings of archives that a crate is not."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
"""Files that a replay does not read, and that are left out unless they are asked for."""


class HeldStage(TypedDict):
    """A stage as a crate holds it; its inputs by their place among the stages."""

    stage: str
    row: str
    label: str
    key: str
    params: dict[str, object]
    inputs: dict[str, int]
    tokenizer: object


class HeldBeside(TypedDict):
    """What the row's judge judged beside it; its stages by their places."""

    row: str
    stages: list[int]


class HeldBridge(HeldBeside):
    """A bridging model, with the published judge's verdicts on it."""

    annotations: str
    """Their file's name in the crate."""
    sha256: str
    judge: dict[str, object]
    shift: dict[str, object] | None
    """How the two judges differ (harness.stats.bridge.Shift); None where it was not known."""


class HeldCrate(TypedDict):
    """What stands in CRATE_FILE."""

    format: int
    harness: str
    row: str
    spec: str
    rows: Mapping[str, object]
    stages: list[HeldStage]
    left_out: list[str]
    published: NotRequired[HeldBeside | None]
    """The study's own answers under the row's judge."""
    bridge: NotRequired[list[HeldBridge]]


def check_target(to: Path, instead: str) -> None:
    """Raises InputError where nothing can be written under this name: it is an ending alone, it begins
    as an address does, it stands below a file, or it is there (`instead`: what to name then)."""
    if to.name.lower() in (".zip", *ARCHIVES):
        raise InputError(
            f"--to {to}: {to.name} is an ending alone", f"Name {to.parent}/NAME{to.name}."
        )
    scheme, colon, _ = to.parts[0].partition(":") if to.parts else ("", "", "")
    if colon and scheme.isalnum():
        raise InputError(
            f"--to {to}: there is no {scheme}: to write to",
            f"Name hub:OWNER/NAME, or, if a folder is called so, ./{to}.",
        )
    ancestor = next(p for p in to.absolute().parents if p.exists() or p.is_symlink())
    if not ancestor.is_dir():
        raise InputError(f"--to {to}: {ancestor} is no folder", "Name a place in a folder.")
    if to.exists() or to.is_symlink():
        raise InputError(f"{to} is there already", instead)
