"""What the built images are and can do. `make images` first; for CUDA's set HARNESS_ACCELERATOR."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
ACCELERATOR = os.environ.get("HARNESS_ACCELERATOR", "cpu")
IMAGES = {
    "gen": "harness-gen:latest",
    f"train-{ACCELERATOR}": f"harness-train:{ACCELERATOR}",
    f"eval-{ACCELERATOR}": f"harness-eval:{ACCELERATOR}",
}
CONFINED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345:12345", "--network", "none", "--tmpfs", "/tmp"),
)
STACK = {
    "gen": "import openai, aiohttp, datasets, rapidfuzz, numba, matplotlib, lemminflect, transformers",
    "train": "import torch, trl, peft, deepspeed, bitsandbytes; from trl import SFTTrainer",
    "eval": "import torch, transformers, datasets, openai, alpaca_eval.main, lm_eval, flow_judge",
}
CPU_ADAM = """
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
torch.manual_seed(0)
ours, theirs = torch.nn.Linear(300, 77), torch.nn.Linear(300, 77)
theirs.load_state_dict(ours.state_dict())
settings = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
optimizers = [
    (ours, DeepSpeedCPUAdam(ours.parameters(), **settings)),
    (theirs, torch.optim.AdamW(theirs.parameters(), **settings)),
]
for step in range(5):
    x = torch.randn(8, 300)
    for model, optimizer in optimizers:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
pairs = zip(ours.parameters(), theirs.parameters())
print(max((a - b).abs().max().item() for a, b in pairs))
"""
CODE_DIGEST = """
import hashlib, pathlib
root = pathlib.Path({root!r})
files = sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
text = b"".join(str(p.relative_to(root)).encode() + p.read_bytes() for p in files)
print(hashlib.sha256(text).hexdigest())
"""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], check=check, capture_output=True, text=True, cwd=ROOT
    )


def python(image: str, code: str, *options: str) -> str:
    done = docker("run", "--rm", *options, "--entrypoint", "python", image, "-c", code, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=IMAGES.items(), ids=IMAGES)
def built(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(lock's name, image's name)"""
    lock, image = request.param
    if docker("image", "inspect", image, check=False).returncode:
        pytest.fail(f"there is no image {image}: make images")
    return lock, image


def test_an_image_says_which_lock_and_base_it_was_built_from(built: tuple[str, str]) -> None:
    lock, image = built
    digest = hashlib.sha256((ROOT / "requirements" / f"{lock}.txt").read_bytes()).hexdigest()
    facts = json.loads(python(image, "print(open('/opt/harness/image.json').read())"))
    assert facts.keys() == {"image", "lock", "base"}
    assert (facts["image"], facts["lock"]) == (lock, digest), "built from another lock: make images"
    (inspected,) = json.loads(docker("image", "inspect", image).stdout)
    labels = {f"harness.{name}": value for name, value in facts.items()}
    assert labels.items() <= inspected["Config"]["Labels"].items()


def test_an_image_has_what_its_lock_has_and_nothing_else(built: tuple[str, str]) -> None:
    lock, image = built
    code = "from importlib.metadata import distributions as d; print(*{x.name for x in d()})"
    installed = {name.lower().replace("_", "-") for name in python(image, code).split()}
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    locked = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    assert installed - {"pip", "setuptools"} == locked - {"setuptools"}
    assert docker("run", "--rm", "--entrypoint", "python", image, "-m", "pip", "check")


def test_an_image_holds_this_checkouts_code(built: tuple[str, str]) -> None:
    here = subprocess.run(
        ["python3", "-c", CODE_DIGEST.format(root=str(ROOT / "harness"))],
        check=True,
        capture_output=True,
        text=True,
    )
    there = python(built[1], CODE_DIGEST.format(root="/opt/harness/harness"))
    assert there == here.stdout, "built from other code: make images"


def test_an_image_is_not_run_as_root_and_holds_nothing_of_its_build(built: tuple[str, str]) -> None:
    _, image = built
    assert python(image, "import os; print(os.getuid())") == "10001\n"
    code = (
        "import os; print([os.listdir(p) for p in ('/tmp', '/root', '/run') if os.path.isdir(p)])"
    )
    left = python(image, code, "--user", "0")
    for trace in (".pem", "secrets", ".cache/", "pip"):
        assert trace not in left


def test_any_user_imports_the_whole_stack_on_a_read_only_file_system(
    built: tuple[str, str],
) -> None:
    lock, image = built
    code = f"{STACK[lock.split('-')[0]]}; import harness.stage; print('imported')"
    assert python(image, code, *CONFINED).endswith("imported\n")


def test_what_is_imported_was_compiled_at_build_time(built: tuple[str, str]) -> None:
    """A read-only file system cannot keep what Python compiles at the first import."""
    run = ("run", "--rm", *CONFINED, "--entrypoint", "python", built[1], "-v", "-c")
    report = docker(*run, "import harness.artefact.call, pydantic.main, datasets").stderr
    loaded = re.findall(r"code object from '?(/opt/\S+?)'?$", report, re.MULTILINE)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []


@pytest.fixture(scope="module")
def train_image() -> str:
    image = IMAGES[f"train-{ACCELERATOR}"]
    if docker("image", "inspect", image, check=False).returncode:
        pytest.fail(f"there is no image {image}: make images")
    return image


def test_any_user_of_the_train_image_has_deepspeeds_cpu_optimizer_without_a_compiler(
    train_image: str,
) -> None:
    code = "import shutil; print(shutil.which('c++'), shutil.which('gcc'))"
    assert python(train_image, code) == "None None\n"
    difference = float(python(train_image, CPU_ADAM, *CONFINED).splitlines()[-1])
    assert 0 < difference < 1e-6, "it should be AdamW, but not torch's own"


def test_two_processes_train_with_zero_2_and_offload_without_a_network(train_image: str) -> None:
    program = Path(__file__).parent / "train_zero2.py"
    mount = ("--mount", f"type=bind,source={program},target=/program.py,readonly")
    launch = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    run = ("run", "--rm", *CONFINED, *mount, "--entrypoint", "timeout", train_image, "200")
    done = docker(*run, "torchrun", *launch, "/program.py", "/tmp/out", check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["processes"], report["optimizer"]) == (2, "DeepSpeedCPUAdam")
    assert report["losses"][-1] < report["losses"][0] - 1


def test_a_wrong_lock_digest_stops_the_build() -> None:
    base = os.environ.get("BASE_IMAGE")
    arguments = ["--build-arg", f"LOCK_DIGEST={'0' * 64}", "--file", "Dockerfile.gen"]
    arguments += ["--build-arg", f"BASE_IMAGE={base}"] if base else []
    for name, secret in (("EXTRA_CA_BUNDLE", "extra_ca"), ("PIP_CONF", "pip_conf")):
        if path := os.environ.get(name):
            arguments += ["--secret", f"id={secret},src={path}"]
    wheels = os.environ.get("WHEELHOUSE") or "requirements/wheels"
    done = docker("build", *arguments, "--build-context", f"wheels={wheels}", ".", check=False)
    assert done.returncode != 0
    assert f"LOCK_DIGEST is {'0' * 64}" in done.stderr
