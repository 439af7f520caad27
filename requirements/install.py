"""Installs a lock into the environment of the Python that runs this, in three parts.

    python requirements/install.py local FILE                   the development environment; FILE
                                                                then says cpu or cuda
    python requirements/install.py slim FILE                    the command line without torch; FILE
                                                                then says slim
    python requirements/install.py split LOCK FOLDER            FOLDER/{torch,wheels,sources}.txt
    python requirements/install.py install PART.txt...          hands these to pip, hashes required
    python requirements/install.py image NAME BASE LOCK DIGEST  checks DIGEST, writes image.json

The parts are layers of the images: torch, which is large and seldom changes, then all other wheels,
then the packages that exist only as source and are built with what the lock has installed (pip's
isolated builds would fetch their build tools unchecked).

What pip needs beyond its own settings: a folder of wheels in WHEELHOUSE (/wheels in a build), a PEM
bundle in EXTRA_CA_BUNDLE (the secret extra_ca in a build), pip's own settings (there the secret
pip_conf), and TORCH_INDEX, an index that holds torch's CPU build in place of PyTorch's own.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = re.compile(r"torch|triton|nvidia-.+|cuda-.+")
SOURCES = {"deepspeed", "rouge-score", "sqlitedict", "word2number"}
PARTS = ("torch", "wheels", "sources")

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""The CPU builds; the plain package index does not have them, but for macOS."""

NO_CPU_TORCH = """
torch's CPU build could not be installed; pip says why above. It was looked for where pip looks, and in
{index}.
Ways out (in brackets: with docker build in place of make or docker compose):
  - WHEELHOUSE=FOLDER, a folder with the wheel that the lock names (--build-context wheels=FOLDER)
  - TORCH_INDEX=URL, a mirror of that index (--build-arg TORCH_INDEX=URL)
  - PIP_CONF=FILE, a pip.conf that names such an index (--secret id=pip_conf,src=FILE)
  - the CUDA build, which runs without a GPU too and is some GB larger: ACCELERATOR=cuda for
    make install, COMPOSE_FILE=compose.yaml:compose.cuda.yaml (--build-arg ACCELERATOR=cuda)
  - `make slim`, which does without torch: plan, audit, table, report, and runs in the images
"""


def read_lock(lock: Path) -> dict[str, str]:
    """Package name -> its requirement with hashes, comments left out; one requirement for each platform
    where they differ."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    packages: dict[str, str] = {}
    for entry in filter(str.strip, entries):
        name = re.split(r"==|\[", entry)[0]
        packages[name] = packages.get(name, "") + entry
    return packages


def part_of(package: str) -> str:
    if package in SOURCES:
        return "sources"
    return "torch" if TORCH.fullmatch(package) else "wheels"


def split(lock: Path, folder: Path) -> list[Path]:
    """Writes the parts; the same torch in two locks gives the same bytes, and so the same layer."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = read_lock(lock)
    for part in PARTS:
        chosen = [entry for name, entry in packages.items() if part_of(name) == part]
        (folder / f"{part}.txt").write_text("".join(chosen), encoding="utf-8")
    return [folder / f"{part}.txt" for part in PARTS]


def given(*candidates: str | None) -> Path | None:
    """The first of these that is a file or folder with something in it."""
    for path in (Path(c) for c in candidates if c):
        if any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size:
            return path
    return None


def trusting(bundle: Path) -> dict[str, str]:
    """Settings that make pip trust `bundle` beside what it trusts by itself."""
    import pip._vendor.certifi as certifi

    with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as both:
        both.write(Path(certifi.where()).read_bytes() + b"\n" + bundle.read_bytes())
    return {"PIP_CERT": both.name, "SSL_CERT_FILE": both.name, "REQUESTS_CA_BUNDLE": both.name}


def install(parts: list[Path]) -> int:
    environment = {"DS_BUILD_OPS": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
    if bundle := given("/run/secrets/extra_ca", os.environ.get("EXTRA_CA_BUNDLE")):
        environment |= trusting(bundle)
    if conf := given("/run/secrets/pip_conf", os.environ.get("PIP_CONF")):
        environment["PIP_CONFIG_FILE"] = str(conf)
    wheels = given("/wheels", os.environ.get("WHEELHOUSE"))
    try:
        for part in parts:
            requirements = part.read_text(encoding="utf-8")
            if not requirements:
                continue
            print(f"pip install: {part.stem}, {len(read_lock(part))} packages", flush=True)
            command = _pip(part, wheels)
            if "+cpu" in requirements:
                code = _install_torch(command, environment)
            else:
                code = subprocess.run(command, env=environment).returncode
            if code:
                return code
    finally:
        if bundle:
            Path(environment["PIP_CERT"]).unlink()
    return 0


def _install_torch(command: list[str], environment: dict[str, str]) -> int:
    """From where pip looks by itself, and only then from PyTorch's index: a machine that has the wheel
    may not reach that, and pip would wait for it."""
    index = os.environ.get("TORCH_INDEX")
    if not index:
        if subprocess.run(command, env=environment, capture_output=True).returncode == 0:
            return 0
        index = TORCH_INDEX
    code = subprocess.run([*command, "--extra-index-url", index], env=environment).returncode
    if code:
        print(NO_CPU_TORCH.format(index=index), file=sys.stderr)
    return code


def _pip(part: Path, wheels: Path | None) -> list[str]:
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps"]
    command += ["--quiet", "--progress-bar", "off", "--no-warn-script-location", "-r", str(part)]
    if part.stem == "sources":
        command += ["--no-build-isolation", "--use-pep517"]
    else:
        command += ["--only-binary", ":all:"]
    return command + (["--find-links", str(wheels)] if wheels else [])


def local(installed: Path) -> int:
    """Installs the lock that fits this machine, and the checkout; `installed` then says which."""
    accelerator, why = _accelerator()
    return _environment(f"local-{accelerator}", why, installed, accelerator)


def slim(installed: Path) -> int:
    return _environment("core", "without torch", installed, "slim")


def _environment(lock: str, why: str, installed: Path, mark: str) -> int:
    requirements = Path(__file__).parent
    print(f"using requirements/{lock}.txt: {why}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        if code := install(split(requirements / f"{lock}.txt", Path(scratch))):
            return code
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--editable", str(requirements.parent)]
    if code := subprocess.run(command).returncode:
        return code
    installed.write_text(f"{mark}\n", encoding="ascii")
    return 0


def _accelerator() -> tuple[str, str]:
    """`cpu` or `cuda`, and why."""
    if choice := os.environ.get("ACCELERATOR"):
        if choice not in ("cpu", "cuda"):
            raise SystemExit(f"ACCELERATOR is {choice!r}: it can be cpu or cuda")
        return choice, "ACCELERATOR says so"
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from harness.artefact import gpus  # what a run looks for, too

    return ("cuda", "there is an NVIDIA GPU") if gpus.is_there() else ("cpu", "no NVIDIA GPU here")


def image(name: str, base: str, lock: Path, digest: str) -> int:
    """What the image says of itself; a label is only as good as this check."""
    found = hashlib.sha256(lock.read_bytes()).hexdigest()
    if digest != found:
        print(f"LOCK_DIGEST is {digest}\nbut {lock.name} is {found}: make lock", file=sys.stderr)
        return 1
    facts = {"image": name, "lock": found, "base": base}
    Path("image.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["split", lock, folder]:
            split(Path(lock), Path(folder))
            return 0
        case ["install", *parts] if parts:
            return install([Path(part) for part in parts])
        case ["local", installed]:
            return local(Path(installed))
        case ["slim", installed]:
            return slim(Path(installed))
        case ["image", name, base, lock, digest]:
            return image(name, base, Path(lock), digest)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
