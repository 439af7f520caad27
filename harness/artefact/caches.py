"""Where stages keep what can be made again: tokenised data sets, compiled kernels, libraries' files."""

import os
import tempfile
from pathlib import Path

from harness.artefact import environment
from harness.artefact.file_system import file_system_of
from harness.common.paths import DISK_FULL
from harness.errors import InputError

VARIABLE = "HARNESS_CACHE"
TOKENS, LIBRARIES = "tokens", "libraries"


def cache_folder(volume: Path) -> Path:
    """The folder that HARNESS_CACHE names; else one on the volume, or, where other machines share the
    volume, on this machine's own disk."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    if file_system_of(volume).is_shared:
        return Path(tempfile.gettempdir()) / f"harness-{os.getuid()}"
    return volume / "cache"


def prepare(volume: Path) -> Path:
    """The same, made.

    Raises:
        InputError: it cannot be written, or is another user's: kernels are loaded from it.
    """
    folder = cache_folder(volume)
    try:
        for name in (TOKENS, LIBRARIES):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        is_ours = folder.stat().st_uid == os.getuid() or folder == volume / "cache"
        reason = "" if is_ours and os.access(folder / TOKENS, os.W_OK) else "it is another user's"
    except OSError as e:
        if e.errno in DISK_FULL:
            raise
        reason = str(e.strerror)
    if reason:
        raise InputError(
            f"the folder for caches {folder} cannot be used by user {os.getuid()}: {reason}",
            f"Name another in {VARIABLE}, on a disk of this machine's own.",
        )
    return folder


def for_libraries(folder: Path) -> Path | None:
    """Where in the prepared folder libraries keep theirs; None in an image, which has them below /tmp
    unless HARNESS_CACHE names a folder."""
    if environment.current_image() is not None and not os.environ.get(VARIABLE):
        return None
    return folder / LIBRARIES
