"""Commands as they are printed, to be typed from the same folder: they name the volume where the
present command was told it."""

import os
import shlex
from pathlib import Path

_named: list[Path] = []
"""The volume that the present command was told; empty where it was not."""


def name_volume(volume: Path | None) -> None:
    """The volume that stands on the present command's line; None where none does."""
    _named[:] = [volume] if volume is not None else []


def volume_option(volume: Path | None = None) -> str:
    """` --volume VOLUME`, the end of a printed command. `volume`: where it is not the present
    command's. Empty where a command uses it by itself: HARNESS_DATA names it, or it is the default."""
    told = next(iter(_named), None)
    volume = volume or told
    own = Path(os.environ.get("HARNESS_DATA") or "runs")
    if volume is None or volume.resolve() == own.resolve():
        return ""
    if told is not None and told.resolve() == volume.resolve():
        volume = told
    return f" --volume {shlex.quote(str(volume))}"


def harness(command: str, arguments: str = "", volume: Path | None = None) -> str:
    """`harness COMMAND ARGUMENTS`, with the volume where it has to be named (see volume_option)."""
    return f"harness {command}{' ' * bool(arguments)}{arguments}{volume_option(volume)}"
