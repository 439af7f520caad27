"""What the locks, Dockerfiles and compose.yaml must say, read as text: no engine needed."""

import hashlib
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools  # noqa: F401  # requirements/install.py imports pip, after which this cannot be imported
import yaml
from packaging.markers import Marker

from harness.artefact import environment
from harness.common import env_variables
from harness.run.executors import HOST, serving

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
IMAGE_LOCKS = ("gen", "train-cpu", "train-cuda", "eval-cpu", "eval-cuda")
DOCKERFILES = ("gen", "train", "eval")
STAGES = ("gen", "train", "eval")

installer = runpy.run_path(str(ROOT / "requirements" / "install.py"))
sys.path.insert(0, str(ROOT / "requirements"))  # as for a script that is run from there
compiler = runpy.run_path(str(ROOT / "requirements" / "extensions.py"))
sys.path.pop(0)
comparison = runpy.run_path(str(ROOT / "tests" / "docker" / "compare_matrices.py"))


class _Compose(yaml.SafeLoader):
    """Reads compose's own tags too."""


_Compose.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lock(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


def versions(name: str) -> dict[str, str]:
    """Package -> the requirement itself for this platform, without its hashes."""
    packages: dict[str, str] = {}
    for requirement in requirements(lock(name)):
        version, _, marker = requirement.partition(" ; ")
        if not marker or Marker(marker).evaluate():
            packages[re.split(r"==|\[", version)[0]] = version
    return packages


def requirements(path: Path) -> list[str]:
    return re.findall(
        r"^(\S.*?)(?: \\)?$", re.sub(r"^ *#.*\n", "", path.read_text(), flags=re.M), re.M
    )


def test_there_is_a_lock_for_each_image_and_each_accelerator() -> None:
    assert {path.stem for path in LOCKS} == {*IMAGE_LOCKS, "core", "local-cpu", "local-cuda"}


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_every_requirement_of_a_lock_is_pinned_and_hashed(path: Path) -> None:
    packages = installer["read_lock"](path)
    assert (
        sum(entry.count("\n    --hash") > 0 for entry in packages.values()) == len(packages) >= 15
    )
    for name, entry in packages.items():
        for one in re.split(r"\n(?=\S)", entry.replace("\\\n", "").strip()):
            requirement, *hashes = re.split(r"\s+(?=--hash)", one)
            assert re.fullmatch(rf"{re.escape(name)}(\[[\w,-]+\])?==[\w.+!]+( ; .+)?", requirement)
            assert hashes
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_a_lock_names_no_index_and_no_path_of_the_machine_that_made_it(path: Path) -> None:
    content = path.read_text()
    assert "://" not in content
    assert "/" not in content.replace("https://", "")
    assert not re.search(r"^\s*-(?!-hash)", content, flags=re.MULTILINE)


@pytest.mark.parametrize("name", IMAGE_LOCKS)
def test_an_image_holds_the_versions_that_the_local_environment_holds(name: str) -> None:
    local = versions("local-cuda" if name.endswith("cuda") else "local-cpu")
    assert versions(name).items() <= local.items()


def test_cpu_and_cuda_locks_differ_in_torch_alone_where_both_have_a_package() -> None:
    cpu, cuda = versions("local-cpu"), versions("local-cuda")
    assert {p for p in cpu.keys() & cuda.keys() if cpu[p] != cuda[p]} == {"torch"}
    assert cpu["torch"].endswith("+cpu")
    assert not [p for p in cpu if p.startswith("nvidia-")]


def test_filelock_has_everywhere_the_version_whose_insides_are_used() -> None:
    """harness.artefact.lease_keeper puts a class of its own into filelock's leases, and
    harness.artefact.leases reads their records, neither of which filelock promises to leave as it is:
    another version is taken here once tests/artefact/test_locks.py passes with it."""
    wanted = "filelock==4.2.11"
    dependencies = tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]
    assert [d for d in dependencies if d.startswith("filelock")] == [wanted]
    assert wanted in text("requirements/host.in").splitlines()
    assert {versions(path.stem)["filelock"] for path in LOCKS} == {wanted}
    assert distribution("filelock").version == wanted.partition("==")[2]


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_the_three_parts_together_are_the_lock(path: Path, tmp_path: Path) -> None:
    parts = installer["split"](path, tmp_path)
    read = [installer["read_lock"](part) for part in parts]
    assert {k: v for part in read for k, v in part.items()} == installer["read_lock"](path)
    assert sum(len(part) for part in read) == len(installer["read_lock"](path))
    assert ("torch" in read[0]) == ("torch" in versions(path.stem))


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_train_and_eval_can_share_the_torch_layer(accelerator: str, tmp_path: Path) -> None:
    torch = [
        installer["split"](lock(f"{image}-{accelerator}"), tmp_path / image)[0].read_bytes()
        for image in ("train", "eval")
    ]
    assert torch[0] == torch[1] != b""
    shared = [
        re.search(r"^FROM \S+ AS packages$.*?torch\.txt$", text(f"Dockerfile.{image}"), re.M | re.S)
        for image in ("train", "eval")
    ]
    assert shared[0]
    assert shared[1]
    assert shared[0].group() == shared[1].group()


@pytest.mark.parametrize("image", DOCKERFILES)
def test_a_dockerfile_pins_its_base_by_digest_and_names_no_registry(image: str) -> None:
    dockerfile = text(f"Dockerfile.{image}")
    bases = re.findall(r"^ARG BASE_IMAGE=(.+)$", dockerfile, re.M)
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11-[a-z-]+@sha256:[0-9a-f]{64}", bases[0])
    assert bases[0] in text("compose.yaml")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.M))
    sources = set(re.findall(r"^FROM (\S+)", dockerfile, re.M))
    assert sources <= stages | {"scratch", "${BASE_IMAGE}", "${ACCELERATOR}"}
    assert not dockerfile.startswith("# syntax")


@pytest.mark.parametrize("image", DOCKERFILES)
def test_a_dockerfile_states_the_digests_of_its_locks(image: str) -> None:
    stated = re.findall(r"^ARG LOCK_DIGEST=(.+)$", text(f"Dockerfile.{image}"), re.M)
    names = [name for name in IMAGE_LOCKS if name.split("-")[0] == image]
    assert stated == [hashlib.sha256(lock(name).read_bytes()).hexdigest() for name in names]


def test_make_lock_writes_the_digest_of_every_lock_into_its_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    for path in (ROOT / "requirements").glob("*.txt"):
        shutil.copy(path, tmp_path / "requirements")
    for image in DOCKERFILES:
        old = re.sub(r"LOCK_DIGEST=\w+", f"LOCK_DIGEST={'0' * 64}", text(f"Dockerfile.{image}"))
        (tmp_path / f"Dockerfile.{image}").write_text(old)
    script = text("requirements/lock")
    end = "set -e\n" + script[script.index("digest() {") :]
    subprocess.run(["bash", "-c", end], cwd=tmp_path / "requirements", check=True)
    for image in DOCKERFILES:
        assert (tmp_path / f"Dockerfile.{image}").read_text() == text(f"Dockerfile.{image}")


@pytest.mark.parametrize("image", DOCKERFILES)
def test_every_pip_run_in_a_dockerfile_gets_the_proxy_settings_and_leaves_no_trace(
    image: str,
) -> None:
    lines = text(f"Dockerfile.{image}").replace("\\\n", "").splitlines()
    runs = [line for line in lines if line.startswith("RUN ")]
    pip = [run for run in runs if "install.py install" in run]
    assert pip
    for run in pip:
        for mount in ("from=wheels", "id=extra_ca", "id=pip_conf", "type=cache"):
            assert mount in run
    assert not [run for run in runs if re.search(r"\bpip install|-m pip\b", run)]


def test_the_cpp_compiler_stays_in_the_build_and_its_work_is_for_any_avx2_cpu() -> None:
    final = text("Dockerfile.train").rpartition("\nFROM ")[2]
    assert "COPY --from=extensions /extensions /opt/venv" in final
    assert "extensions.py" not in final
    assert compiler["PORTABLE"] == {"cpu_arch": "-march=x86-64-v3", "simd_width": "-D__AVX256__"}


@pytest.mark.parametrize(
    ("program", "packages"),
    [("g++", ["g++", "python3-dev"]), ("gcc", ["gcc", "libc6-dev", "python3-dev"])],
)
def test_a_compiler_is_installed_through_the_proxy_and_trusts_the_given_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, packages: list[str]
) -> None:
    (tmp_path / "extra.pem").write_text("an extra certificate\n")
    monkeypatch.setenv("EXTRA_CA_BUNDLE", str(tmp_path / "extra.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    runs: list[list[str]] = []

    def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        runs.append(command)
        assert env["https_proxy"] == "proxy:3128"
        (option,) = [o for o in command if o.startswith("Acquire::https::CAInfo=")]
        bundle = Path(option.partition("=")[2])
        assert "an extra certificate" in bundle.read_text()
        assert bundle.stat().st_mode & 0o004
        return subprocess.CompletedProcess(command, 0)

    functions = compiler["install_compiler"].__globals__
    monkeypatch.setattr(functions["subprocess"], "run", run)
    monkeypatch.setattr(functions["shutil"], "which", lambda name: None)
    monkeypatch.setattr(functions["sysconfig"], "get_path", lambda name: str(tmp_path))
    assert compiler["main"](["compiler", program]) == 0
    update, install = runs
    assert update[-1] == "update"
    assert install[-len(packages) :] == packages


def test_the_train_image_for_cuda_alone_keeps_a_c_compiler_and_no_lists_of_packages() -> None:
    """Triton compiles on first use what launches its kernels."""
    parts = text("Dockerfile.train").replace("\\\n", "").split("\nFROM ")
    stages = {stage.split(" AS ")[1].split()[0]: stage for stage in parts if " AS " in stage}
    installing = {
        name: stage for name, stage in stages.items() if "extensions.py compiler" in stage
    }
    assert set(installing) == {"extensions", "cuda"}
    assert "compiler g++\n" in installing["extensions"]
    (run,) = re.findall(r"^RUN .+ compiler gcc$", installing["cuda"], re.M)
    for mount in ("id=extra_ca", "tmpfs,target=/var/lib/apt/lists", "tmpfs,target=/var/cache/apt"):
        assert mount in run
    assert re.search(rf"^LABEL {environment.COMPILER_LABEL}=gcc$", installing["cuda"], re.M)
    assert environment.COMPILER_LABEL not in installing["extensions"] + stages["cpu"]
    assert "extensions.py" not in text("Dockerfile.eval")


def test_a_base_that_has_a_compiler_needs_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = compiler["install_compiler"].__globals__
    monkeypatch.setattr(functions["subprocess"], "run", None)  # whatever happens, this runs no apt
    monkeypatch.setattr(functions["shutil"], "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(functions["Path"], "exists", lambda path: True)
    for program in ("g++", "gcc"):
        assert compiler["main"](["compiler", program]) == 0


def test_the_build_context_holds_the_package_and_the_locks_alone() -> None:
    lines = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {"!harness", "!requirements"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load(text("compose.yaml"))["services"]


@pytest.mark.parametrize("stage", [*STAGES, "train-node", "fetch"])
def test_a_service_is_confined(services: dict[str, dict], stage: str) -> None:
    service = services[stage]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${HARNESS_UID")
    assert "privileged" not in service
    assert "cap_add" not in service
    volumes = service["volumes"]
    named = [v for v in volumes if isinstance(v, dict)]
    assert all(v["read_only"] for v in named)
    writable = [v for v in volumes if v not in named and not v.endswith(":ro")]
    assert writable == ["${HARNESS_DATA:-./runs}:/work/runs"]


def test_train_has_neither_network_nor_keys(services: dict[str, dict]) -> None:
    assert services["train"]["network_mode"] == "none"
    assert "secrets" not in services["train"]
    assert not [name for name in services["train"]["environment"] if "KEY" in name]


def test_gen_and_eval_can_call_a_server_on_this_machine(services: dict[str, dict]) -> None:
    for stage in ("gen", "eval"):
        assert services[stage]["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_a_node_of_a_training_has_a_network_but_no_keys_and_is_started_only_by_name(
    services: dict[str, dict],
) -> None:
    node = services["train-node"]
    assert node["network_mode"] == "host"
    assert node["profiles"] == ["train-node"]
    assert node["image"] == services["train"]["image"]
    assert "secrets" not in node
    assert not [name for name in node["environment"] if "KEY" in name or "TOKEN" in name]
    assert node["environment"].items() >= services["train"]["environment"].items()


@pytest.mark.parametrize("service", ["train", "train-node", "fetch"])
def test_every_service_of_the_train_image_takes_the_cuda_image_where_there_is_a_gpu(
    service: str,
) -> None:
    laid_over = yaml.load(text("compose.cuda.yaml"), Loader=_Compose)["services"]
    assert laid_over[service]["image"] == "harness-train:cuda"
    assert laid_over[service]["environment"]["HARNESS_ACCELERATOR"] == "cuda"


@pytest.mark.parametrize("service", ["train", "train-node", "eval"])
def test_how_the_caller_has_a_gpus_memory_divided_reaches_the_services_on_a_gpu(
    service: str,
) -> None:
    laid_over = yaml.load(text("compose.cuda.yaml"), Loader=_Compose)["services"]
    environment = laid_over[service]["environment"]
    assert {environment[name] for name in env_variables.ALLOCATOR} == {None}


@pytest.mark.parametrize("service", ["train", "train-node", "eval", "vllm"])
def test_a_service_takes_the_gpus_that_the_caller_names(
    services: dict[str, dict], service: str
) -> None:
    laid_over = yaml.load(text("compose.cuda.yaml"), Loader=_Compose)["services"]
    told = services[service] if service == "vllm" else laid_over[service]
    assert told["environment"]["CUDA_VISIBLE_DEVICES"] is None, "passed on where it is set"
    (device,) = told["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["${HARNESS_GPUS:-all}"]
    assert "count" not in device


def make_images(folder: Path, **variables: str) -> str:
    """What `make images` tells Docker, in a folder of its own; the settings that it leaves."""
    shutil.copyfile(ROOT / "Makefile", folder / "Makefile")
    (folder / "bin").mkdir()
    for tool, script in {"docker": 'echo "docker $*"', "nvidia-smi": "exit 0"}.items():
        (folder / "bin" / tool).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / tool).chmod(0o755)
    kept = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", **variables}
    subprocess.run(["make", "images"], cwd=folder, env=kept, check=True, capture_output=True)
    return (folder / ".env").read_text()


@pytest.mark.parametrize(
    ("variables", "cuda"),
    [
        ({}, True),
        ({"HARNESS_ACCELERATOR": "cpu"}, False),
        ({"COMPOSE_FILE": "compose.yaml"}, False),
    ],
    ids=["a GPU", "the CPU is asked for", "the files are named"],
)
def test_make_images_builds_those_that_a_run_on_this_machine_looks_for(
    tmp_path: Path, variables: dict[str, str], cuda: bool
) -> None:
    left = make_images(tmp_path, **variables)
    assert "HARNESS_UID=" in left
    assert ("COMPOSE_FILE=compose.yaml:compose.cuda.yaml\n" in left) == cuda


def test_keys_are_handed_on_by_name_never_by_value(services: dict[str, dict]) -> None:
    for stage in ("gen", "eval"):
        environment = services[stage]["environment"]
        assert environment["OPENAI_API_KEY"] is None
        assert "/run/secrets/openai_api_key" in environment["OPENAI_API_KEY_FILE"]
        assert not [arg for arg in services[stage]["build"]["args"] if "KEY" in arg]


@pytest.mark.parametrize(
    ("service", "network"),
    [("gen", True), ("fetch", True), ("eval", True), ("train", False), ("train-node", False),
     ("vllm", False)],
)  # fmt: skip
def test_where_the_hub_is_its_token_and_proxies_reach_the_services_that_may_download(
    services: dict[str, dict], service: str, network: bool
) -> None:
    environment = services[service]["environment"]
    names = {*env_variables.HUB, *env_variables.PROXY, *env_variables.NO_PROXY}
    assert names & set(environment) == (names if network else set())
    if network:
        as_here = names - {"HF_TOKEN_FILE", *env_variables.NO_PROXY}
        assert {environment[name] for name in as_here} == {None}
        assert environment["HF_TOKEN_FILE"] == "${HF_TOKEN_FILE:+/run/secrets/hf_token}"
        assert "hf_token" in services[service]["secrets"]
        beside = environment["NO_PROXY"].split(",")
        assert {"localhost", "127.0.0.1", HOST, serving.HOST} <= set(beside)
        assert environment["no_proxy"] == environment["NO_PROXY"]


def test_what_compose_mounts_when_nothing_is_set_is_in_the_checkout(
    services: dict[str, dict],
) -> None:
    mounts = [
        mount["source"] if isinstance(mount, dict) else mount
        for service in services.values()
        for mount in service["volumes"]
    ]
    mounts += [
        s["build"]["additional_contexts"]["wheels"] for s in services.values() if "build" in s
    ]
    places = {re.sub(r"^\$\{\w+:-(.+?)\}", r"\1", mount).split(":")[0] for mount in mounts}
    table = "./specs/prices.yaml"
    assert places == {"./runs", "./specs", "./inputs", "./requirements/wheels", table}
    assert [place for place in places - {table} if not (ROOT / place).is_dir()] == []
    assert (ROOT / table).is_file()


def test_a_wrong_lock_digest_is_refused_and_a_right_one_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert installer["main"](["image", "gen", "some-base", str(lock("gen")), "0" * 64]) == 1
    right = hashlib.sha256(lock("gen").read_bytes()).hexdigest()
    assert right in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert installer["main"](["image", "gen", "some-base", str(lock("gen")), right]) == 0
    facts = yaml.safe_load((tmp_path / "image.json").read_text())
    assert facts == {"image": "gen", "lock": right, "base": "some-base"}


def test_where_torch_for_cpu_is_missing_the_ways_out_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = installer["split"](lock("train-cpu"), tmp_path)
    for name in ("PIP_FIND_LINKS", "WHEELHOUSE", "TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DRY_RUN", "1")
    parts[0].write_text(parts[0].read_text().replace("2.13.0+cpu", "99.13.0+cpu"))
    assert installer["main"](["install", str(parts[0])]) != 0
    message = capfd.readouterr().err
    assert installer["TORCH_INDEX"] in message
    for way in ("WHEELHOUSE=", "TORCH_INDEX=", "ACCELERATOR=cuda", "make slim"):
        assert way in message


class Pip:
    """Stands for subprocess: what pip was called with; calls that hold `wanted` succeed."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.commands: list[str] = []

    def run(self, command: list[str], **options: object) -> SimpleNamespace:
        self.commands.append(" ".join(command))
        return SimpleNamespace(returncode=0 if self.wanted in self.commands[-1] else 1)


@pytest.mark.parametrize(
    ("wanted", "named", "indexes"),
    [
        ("-r", None, [None]),
        ("--extra-index-url", None, [None, installer["TORCH_INDEX"]]),
        ("--extra-index-url", "https://mirror.example/cpu", ["https://mirror.example/cpu"]),
    ],
    ids=["pip has it", "PyTorch's index has it", "a mirror is named"],
)
def test_torch_for_cpu_comes_from_where_pip_looks_and_then_from_pytorchs_index(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    named: str | None,
    indexes: list[str | None],
) -> None:
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    if named:
        monkeypatch.setenv("TORCH_INDEX", named)
    pip = Pip(wanted)
    monkeypatch.setitem(installer["install"].__globals__, "subprocess", pip)
    assert installer["install"]([installer["split"](lock("local-cpu"), tmp_path)[0]]) == 0
    asked = [re.search(r"--extra-index-url (\S+)", command) for command in pip.commands]
    assert [match and match.group(1) for match in asked] == indexes


def test_the_cpu_lock_holds_torch_for_every_machine_that_the_readme_names() -> None:
    """As its digests' file has them: PyTorch's own index cannot be had in every build of a lock."""
    lines = [line.split() for line in text("requirements/torch-cpu.digests").splitlines()[1:]]
    machines = [("cp311", "x86_64"), ("cp312", "x86_64"), ("cp313", "x86_64")]
    machines += [(python, "aarch64") for python, _ in machines]
    assert sorted(
        (parts[2], parts[4].removeprefix("manylinux_2_28_").removesuffix(".whl"))
        for parts in (name.split("-") for _, name in lines)
    ) == sorted(machines)
    for name in ("local-cpu", "train-cpu", "eval-cpu"):
        entry = installer["read_lock"](lock(name))["torch"]
        assert all(f"--hash=sha256:{digest}" in entry for digest, _ in lines)


@pytest.mark.parametrize(
    ("gpu", "wanted", "lock_used"),
    [
        (False, None, "local-cpu.txt"),
        (True, None, "local-cuda.txt"),
        (False, "cuda", "local-cuda.txt"),
        (True, "cpu", "local-cpu.txt"),
    ],
    ids=["no GPU", "a GPU", "CUDA is asked for", "CPU is asked for"],
)
def test_the_local_lock_is_chosen_with_a_reason(
    gpu: bool,
    wanted: str | None,
    lock_used: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[str] = []

    def install(parts: list[Path]) -> int:
        tried.extend(part.read_text() for part in parts)
        return 1  # nothing goes on after it

    functions = installer["local"].__globals__
    monkeypatch.setitem(functions, "install", install)
    monkeypatch.setitem(functions, "subprocess", None)  # whatever happens, this runs no pip
    monkeypatch.setattr("harness.artefact.gpus.is_there", lambda: gpu)
    monkeypatch.delenv("ACCELERATOR", raising=False)
    if wanted:
        monkeypatch.setenv("ACCELERATOR", wanted)
    assert installer["main"](["local", "no-such-folder/installed"]) == 1
    assert re.search(rf"using requirements/{lock_used}: \w+", capsys.readouterr().out)
    assert ("+cpu" in "".join(tried)) == (lock_used == "local-cpu.txt")


def test_the_slim_environment_is_the_core_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    functions = installer["slim"].__globals__
    monkeypatch.setitem(
        functions, "install", lambda parts: tried.extend(part.read_text() for part in parts)
    )
    monkeypatch.setitem(functions, "subprocess", Pip("--editable"))
    assert installer["main"](["slim", str(tmp_path / "installed")]) == 0
    assert (tmp_path / "installed").read_text() == "slim\n"
    assert "torch" not in "".join(tried)
    assert "pydantic==" in "".join(tried)


def test_an_unknown_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATOR", "tpu")
    with pytest.raises(SystemExit, match=r"'tpu'.*cpu or cuda"):
        installer["main"](["local", "no-such-folder/installed"])


@pytest.mark.parametrize("wanted", ["cpu", "cuda"])
def test_what_was_installed_is_noted_for_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    functions = installer["local"].__globals__
    monkeypatch.setitem(functions, "install", lambda parts: 0)
    code = SimpleNamespace(returncode=1)
    monkeypatch.setitem(functions, "subprocess", SimpleNamespace(run=lambda command: code))
    monkeypatch.setenv("ACCELERATOR", wanted)
    assert installer["main"](["local", str(tmp_path / "installed")]) == 1
    assert not (tmp_path / "installed").exists()
    code.returncode = 0
    assert installer["main"](["local", str(tmp_path / "installed")]) == 0
    assert (tmp_path / "installed").read_text() == f"{wanted}\n"


MAKES_ENVIRONMENTS = """#!/bin/sh
case "$*" in
*--clear*) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
*install.py*) echo "${ACCELERATOR:-cpu}" >"$3"; echo "$3 ${ACCELERATOR:-cpu}" >>log;;
esac
"""


def test_make_install_follows_a_change_of_accelerator_and_nothing_flips_it_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "requirements").mkdir()
    for name in (
        "Makefile",
        "pyproject.toml",
        *(f"requirements/local-{a}.txt" for a in environment.ACCELERATORS),
    ):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copyfile(ROOT / "requirements" / "install.py", tmp_path / "requirements" / "install.py")
    (tmp_path / "python").write_text(MAKES_ENVIRONMENTS)
    (tmp_path / "python").chmod(0o755)

    def install(*arguments: str, **variables: str) -> int:
        command = ["make", "install", f"PYTHON={tmp_path / 'python'}", *arguments]
        paths = {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=tmp_path, env=paths | variables, capture_output=True)
        return done.returncode

    def installed() -> str:
        return (tmp_path / "log").read_text().replace(".venv/installed ", "").replace("\n", " ")

    assert install() == 0
    assert install("ACCELERATOR=cpu") == 0
    assert installed() == "cpu "
    assert install(ACCELERATOR="cuda") == install() == install("ACCELERATOR=cuda") == 0
    assert installed() == "cpu cuda "
    assert install(ACCELERATOR="tpu") != 0
    assert (tmp_path / ".venv" / "installed").read_text() == "cuda\n"
    assert install(ACCELERATOR="cpu") == 0
    assert installed() == "cpu cuda cpu "
    # Of an environment from before the note it is not known what it holds.
    (tmp_path / ".venv" / "installed").write_text("")
    assert install() == 0
    assert installed() == "cpu cuda cpu "
    assert install(ACCELERATOR="cpu") == 0
    assert installed() == "cpu cuda cpu cpu "


def test_matrices_are_the_same_when_only_the_environment_differs(tmp_path: Path) -> None:
    local, docker = tmp_path / "local.csv", tmp_path / "docker.csv"
    local.write_text("row,win_rate,env_executor\nsft,81.5,local\n")
    docker.write_text("row,win_rate,env_executor\nsft,81.5,docker\n")
    assert comparison["main"]([str(local), str(docker)]) == 0


@pytest.mark.parametrize(
    "other",
    ["row,win_rate,env_x\nsft,81.6,a\n", "row,env_x\nsft,a\n", "row,win_rate,env_x\n"],
    ids=["a number differs", "a column is missing", "a row is missing"],
)
def test_matrices_that_differ_are_told_apart(tmp_path: Path, other: str) -> None:
    local, docker = tmp_path / "local.csv", tmp_path / "docker.csv"
    local.write_text("row,win_rate,env_x\nsft,81.5,a\n")
    docker.write_text(other)
    assert comparison["main"]([str(local), str(docker)]) == 1
