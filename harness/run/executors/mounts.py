"""What a container sees of this machine's files."""

from pathlib import Path

from docker.types import Mount

from harness.artefact import links


def read_only(path: Path, inside: str) -> list[Mount]:
    """The mounts of a file or folder. Links in a folder lead nowhere in a container: of such a folder
    each file is mounted under its own name."""
    files = links.linked(path) if path.is_dir() else None
    if files is None:
        return [Mount(inside, str(path.resolve()), "bind", read_only=True)]
    return [Mount(f"{inside}/{n}", str(f), "bind", read_only=True) for n, f in files.items()]
