"""Which checkout this process runs: its commit, and what its code is if somebody has edited it."""

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from harness.artefact.environment import root
from harness.errors import InputError

WAY_OUT = "Have both see one checkout, or bring both to one commit; then submit again."
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class Checkout:
    """`commit`: empty where the folder is no Git checkout; `code`: sha256 of harness/; `inode`: the
    folder's, by which one that several machines see is known."""

    folder: str
    commit: str
    code: str
    inode: int

    def __str__(self) -> str:
        return f"commit {self.commit[:12]}" if self.commit else "no Git checkout"


@functools.cache
def here() -> Checkout:
    folder = root()
    return Checkout(str(folder), _commit(folder), _code(folder), folder.stat().st_ino)


def differing(login: Checkout, node: Checkout, name: str) -> str:
    """What tells a node's checkout from the login node's, in words; empty where it may be used. A
    commit made meanwhile in the one that both see changes nothing, as long as the code is the same."""
    is_one = (login.folder, login.inode) == (node.folder, node.inode)
    if login.commit != node.commit and not (is_one and login.code == node.code):
        return (
            f"at the login node the checkout is {login} ({login.folder}), on {name} it is {node} "
            f"({node.folder})"
        )
    if login.code != node.code:
        return (
            f"both are {node}, but somebody has edited the code: harness/ is {login.code[:12]} at the "
            f"login node and {node.code[:12]} on {name}"
        )
    return ""


def check_same(submitted: Checkout, node: str) -> None:
    """Raises InputError where the checkout here is not the one that a stage was submitted from."""
    if what := differing(submitted, here(), node):
        raise InputError(
            f"since it was submitted, or on {node} alone, the checkout differs: {what}", WAY_OUT
        )


def _commit(folder: Path) -> str:
    """Read from the files, as a node need not have Git."""
    git = folder / ".git"
    try:
        if git.is_file():  # a worktree
            git = folder / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head if COMMIT.fullmatch(head) else ""
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
        for place in (git, shared):
            if (place / name).is_file():
                return (place / name).read_text(encoding="utf-8").strip()
        packed = (shared / "packed-refs").read_text(encoding="utf-8")
        return next(
            (c for c, _, n in (li.partition(" ") for li in packed.splitlines()) if n == name), ""
        )
    except OSError:
        return ""


def _code(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((folder / "harness").rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
