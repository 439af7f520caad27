"""An image archive of this machine's Python and of what stages import that neither train nor run a
model: for tests by real runtimes, so that no engine has to build an image first."""

import hashlib
import io
import json
import subprocess
import sys
import sysconfig
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from harness.artefact import environment
from tests.helpers import ROOT

PACKAGES = ("aiohttp", "click", "filelock", "openai", "pydantic", "pyyaml", "rich", "truststore")
LEFT_OUT = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests"}
PLACE, PYTHON = "opt/packages", "usr/local/bin/python"


def write_archive(path: Path, stage: str) -> None:
    """As `docker save` writes it, with the stage's tag and lock, for CPUs."""
    name, tag = environment.image_name(stage, "cpu"), environment.image_tag(stage, "cpu")
    facts = {"image": name, "lock": environment.lock_digest(name), "base": "none"}
    layer = _layer(facts)
    settings = {
        "Env": ["PATH=/usr/local/bin", f"PYTHONPATH=/opt/harness:/{PLACE}", "HOME=/tmp"],
        "Labels": {f"harness.{key}": value for key, value in facts.items()},
        "WorkingDir": "/work",
    }
    digest = hashlib.sha256(layer).hexdigest()
    root = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": root}
    entry = {"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}
    with tarfile.open(path, "w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps([entry]).encode())


def _layer(facts: dict[str, str]) -> bytes:
    python = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    files = {str(p).lstrip("/"): p for p in (python, *_files(stdlib))}
    for package in _with_needs(PACKAGES):
        for file in distribution(package).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                files[f"{PLACE}/{file}"] = Path(str(file.locate()))
    for folder in ("harness", "requirements"):
        files |= {f"opt/harness/{p.relative_to(ROOT)}": p for p in _files(ROOT / folder)}
    compiled = [p for p in files.values() if p == python or ".so" in p.name]
    files |= {str(p).lstrip("/"): p for p in _libraries(compiled)}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", dereference=True) as tar:
        for name, path in files.items():
            tar.add(path, name, recursive=False, filter=_readable)
        _add(tar, "opt/harness/image.json", json.dumps(facts).encode())
        for name in ("passwd", "group", "hosts", "resolv.conf"):
            _add(tar, f"etc/{name}", b"")
        for folder in ("dev", "proc", "sys", "tmp", "run"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        link = tarfile.TarInfo(PYTHON)
        link.type, link.linkname = tarfile.SYMTYPE, str(python)
        tar.addfile(link)
    return file.getvalue()


def _files(folder: Path) -> list[Path]:
    return [
        p
        for p in folder.rglob("*")
        if p.is_file() and not LEFT_OUT & set(p.relative_to(folder).parts)
    ]


def _with_needs(packages: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    left = list(packages)
    while left:
        name = left.pop()
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:  # for another system or Python
            continue
        if name not in found:
            found.add(name)
            wanted = map(Requirement, needs)
            left += [n.name for n in wanted if n.marker is None or n.marker.evaluate({"extra": ""})]
    return found


def _libraries(compiled: list[Path]) -> set[Path]:
    said = subprocess.run(["ldd", *compiled], capture_output=True, text=True, check=False).stdout
    return {Path(w) for w in said.split() if w.startswith("/") and not w.endswith(":")}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode |= 0o555 if member.isdir() or member.mode & 0o100 else 0o444
    return member
