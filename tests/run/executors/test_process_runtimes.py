"""Apptainer and charliecloud by stand-ins that take the options of theirs that the harness uses, and no
other, and note what they were given. Neither program is on every machine; tests marked `docker` run the
real charliecloud. No test has run a real Apptainer."""

import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artefact import environment
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.errors import InputError, Interrupted
from harness.row.row import Limits
from harness.run.executors import Executor, Job, StageFailed, apptainer, cut_off, make, process
from harness.run.executors.image_archive import CONFIG
from harness.run.slurm.submit import checking_executor
from harness.spec.base import DataPath
from harness.spec.train import Train
from tests.helpers import give_gpus, some_gpus, until
from tests.run.executors.test_docker import job

__all__ = ["job"]

STAND_IN = '''#!{python}
"""Takes a command line apart as the program does, notes it, and does what orders.json says."""
import json, os, signal, sys, time
from pathlib import Path

here = Path(__file__).parent
FLAGS = {flags}
VALUES = {values}
arguments = sys.argv[1:]
if arguments[:1] == ["inspect"]:
    assert arguments[1:3] == ["--labels", "--json"], arguments
    text = Path(arguments[3]).read_text()
    if not text.startswith("SIF"):
        sys.exit("FATAL: could not open image: image format not recognized")
    labels = json.loads(text[3:])
    print(json.dumps({{"data": {{"attributes": {{"labels": labels}}}}, "type": "container"}}))
    sys.exit()
if {verb!r}:
    assert arguments.pop(0) == {verb!r}
flags, values, binds = [], {{}}, {{}}
while arguments[0].startswith("-"):
    name, has_value, value = arguments.pop(0).partition("=")
    if name in FLAGS and not has_value:
        flags.append(name)
        continue
    assert name in VALUES, name
    value = value if has_value else arguments.pop(0)
    if name == "--bind":
        source, inside, *mode = value.split(":")
        assert Path(source).exists(), source
        binds[inside] = [source, *mode]
    else:
        values.setdefault(name, []).append(value)
image, *command = arguments
texts = {{n: Path(v[0]).read_text() for n, v in values.items() if n == "--set-env"}}
record = {{"flags": flags, "values": values, "binds": binds, "image": image, "command": command,
    "variables": dict(os.environ), "pid": os.getpid(), "texts": texts,
    "network": Path("/proc/net/dev").read_text().count(":"),
    "can_write": {{inside: os.access(bind[0], os.W_OK) for inside, bind in binds.items()}},
    "stand_ins": {{inside: sorted(str(p.relative_to(bind[0])) for p in Path(bind[0]).rglob("*"))
        for inside, bind in binds.items() if "stand-ins" in bind[0]}},
    "inside": {{n: Path(b[0]).read_text() for n, b in binds.items() if n.startswith("/run/secrets/")}}}}
(here / "part").write_text(json.dumps(record))
(here / "part").rename(here / "record.json")
orders = json.loads((here / "orders.json").read_text())
def stopped(number, frame):
    error = {{"event": "error", "message": "stopped", "hint": "", "exit_code": 130}}
    print(json.dumps(error), flush=True)
    sys.exit(130)
if orders.get("obeys", True):
    signal.signal(signal.SIGINT, stopped)
else:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
for event in orders.get("events", []):
    print(json.dumps(event), flush=True)
print("a warning", file=sys.stderr)
if orders.get("waits"):
    (here / "waiting").touch()
    time.sleep(60)
sys.exit(orders.get("code", 0))
'''

OPTIONS: dict[str, dict[str, Any]] = {
    "apptainer": {
        "verb": "exec",
        "flags": ["--containall", "--no-home", "--no-privs", "--net", "--nv"],
        "values": [
            "--workdir",
            "--pwd",
            "--network",
            "--bind",
            "--memory",
            "--cpus",
            "--pids-limit",
        ],
    },
    "charliecloud": {
        "verb": "",
        "flags": ["--private-tmp", "--env-no-expand"],
        "values": ["--cd", "--unset-env", "--set-env", "--bind"],
    },
}
PROGRAMS = {"apptainer": "apptainer", "charliecloud": "ch-run"}


class Runtime:
    """A stand-in on PATH, and image files that it takes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.images = name, folder / "bin", folder / "images"
        self.folder.mkdir()
        self.images.mkdir()
        self.install(PROGRAMS[name])
        self.order()
        self.give_image()

    def install(self, program: str) -> None:
        path = self.folder / program
        path.write_text(STAND_IN.format(python=sys.executable, **OPTIONS[self.name]))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def give_image(self, lock: str | None = None, **labels: str) -> Path:
        lock = lock or environment.lock_digest("train-cpu")
        labels = {"harness.lock": lock, "harness.base": "python@sha256:def", **labels}
        if self.name == "apptainer":
            path = self.images / "harness-train-cpu.sif"
            path.write_text("SIF" + json.dumps(labels))
        else:
            path = self.images / "harness-train-cpu"
            path.mkdir(exist_ok=True)
            config = {"Env": ["PATH=/opt/venv/bin", "HOME=/tmp"], "Labels": labels}
            (path / CONFIG).write_text(json.dumps({"config": config}))
        apptainer.labels_of.cache_clear()
        return path

    def order(self, **orders: Any) -> None:
        (self.folder / "orders.json").write_text(json.dumps(orders))

    def run(self, job: Job, events: list[Any] | None = None) -> Executor:
        executor = make(self.name)
        show: Callable[[Any], None] = events.append if events is not None else lambda event: None
        executor.run(job, Files(None, None), show)
        return executor

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / "record.json").read_text())
        return record

    @property
    def variables(self) -> dict[str, str]:
        """Those of the stage."""
        record = self.record
        if self.name == "charliecloud":
            lines = record["texts"]["--set-env"].splitlines()
            return dict(line.split("=", 1) for line in lines)
        own = record["variables"].items()
        prefix = "APPTAINERENV_"
        return {n.removeprefix(prefix): v for n, v in own if n.startswith(prefix)}


@pytest.fixture(params=["apptainer", "charliecloud"])
def runtime(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Runtime:
    if request.param == "charliecloud" and (why := cut_off.refusal()):
        pytest.skip(why)
    runtime = Runtime(request.param, tmp_path)
    monkeypatch.setenv("PATH", f"{runtime.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HARNESS_IMAGES", str(runtime.images))
    monkeypatch.setenv("SOME_SECRET", "of the caller's")
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    monkeypatch.setattr(apptainer, "_can_limit", lambda: False)
    return runtime


@pytest.fixture
def held(job: Job, tmp_path: Path) -> Any:
    """The job with a lock that is held."""
    with (tmp_path / "lock").open("w") as lock:
        yield replace(job, lock=lock.fileno())


def test_the_stage_runs_in_its_image_with_its_own_files_and_writes_only_its_work_folder(
    runtime: Runtime, held: Job, tmp_path: Path
) -> None:
    (tmp_path / "data.json").write_text("[]")
    job = replace(held, params={"a": DataPath(path=str(tmp_path / "data.json"))})
    runtime.run(job)
    record = runtime.record
    assert Path(record["image"]).name.startswith("harness-train-cpu")
    command = record["command"]
    assert command[-4:] == ["python", "-m", "harness.stage", "/work/CALL.json"]
    call = StageCall.read(job.folder / "CALL.json")
    assert (call.work, call.inputs) == ("/work", {"model": "/inputs/model"})
    assert call.params["a"]["path"] == "/data/0/data.json"
    binds = {inside: bind[0] for inside, bind in record["binds"].items()}
    assert binds["/work"] == str(job.folder)
    assert binds["/inputs/model"] == job.inputs["model"]
    assert binds["/data/0/data.json"] == str(tmp_path / "data.json")
    if runtime.name == "apptainer":
        modes = {inside: bind[1] for inside, bind in record["binds"].items()}
        assert modes == {"/work": "rw", "/inputs/model": "ro", "/data/0/data.json": "ro"}
    else:
        assert record["stand_ins"] == {"/inputs": ["model"], "/data": ["0", "0/data.json"]}
        writable = {inside for inside, can in record["can_write"].items() if can}
        assert writable == {"/work", "/inputs", "/data"}, "the last two being empty stand-ins"


def test_no_home_no_variable_and_no_privilege_of_the_callers_reaches_it(
    runtime: Runtime, held: Job
) -> None:
    runtime.run(held)
    record = runtime.record
    assert "SOME_SECRET" not in {**record["variables"], **runtime.variables}
    assert runtime.variables["HF_HUB_OFFLINE"] == "1"
    if runtime.name == "apptainer":
        assert {"--containall", "--no-home", "--no-privs"} <= set(record["flags"])
        assert record["values"]["--pwd"] == ["/work"]
        assert not Path(record["values"]["--workdir"][0]).exists(), "its /tmp is removed"
    else:
        assert record["flags"] == ["--private-tmp", "--env-no-expand"]
        assert record["values"]["--unset-env"] == ["*"]
        assert record["values"]["--cd"] == ["/work"]
        assert runtime.variables["PATH"] == "/opt/venv/bin"
        assert runtime.variables["HOME"] == "/tmp"


@pytest.mark.parametrize("network", [True, False])
def test_the_network_is_there_only_for_a_stage_that_needs_it_which_is_then_said(
    runtime: Runtime, held: Job, network: bool
) -> None:
    executor = runtime.run(replace(held, network=network))
    record = runtime.record
    if runtime.name == "apptainer":
        assert ("--net" in record["flags"]) != network
        assert record["values"].get("--network") == (None if network else ["none"])
    elif not network:
        assert record["network"] == 1, "the loopback device alone"
    said = "the network of the stage is this machine's own"
    assert (said in executor.describe().get("lacks", [])) == network


def test_a_key_is_a_file_in_memory_and_on_no_command_line(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret-of-a-test")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:password@proxy.example:3128")
    runtime.run(replace(held, stage="gen", network=True, secrets=("SOME_KEY",)))
    record = runtime.record
    assert record["inside"] == {"/run/secrets/SOME_KEY": "sk-secret-of-a-test"}
    assert runtime.variables["SOME_KEY_FILE"] == "/run/secrets/SOME_KEY"
    assert runtime.variables["HTTPS_PROXY"] == "http://me:password@proxy.example:3128"
    seen = json.dumps([record["flags"], record["values"], record["binds"], record["command"]])
    assert "sk-secret-of-a-test" not in json.dumps([seen, record["variables"]])
    assert "password" not in seen


def test_gpus_are_named_and_that_others_can_be_opened_is_said(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    lock = environment.lock_digest("train-cuda")
    path = runtime.give_image(lock)
    path.rename(path.with_name(path.name.replace("cpu", "cuda")))
    launch = {"launch": {"processes": 2}}
    executor = runtime.run(replace(held, params={"train": Train.model_validate(launch)}))
    assert runtime.variables["CUDA_VISIBLE_DEVICES"] == "GPU-0000,GPU-1111"
    assert ("--nv" in runtime.record["flags"]) == (runtime.name == "apptainer")
    assert any("every GPU" in lack for lack in executor.describe()["lacks"])


def test_limits_that_do_not_hold_stand_in_the_record(runtime: Runtime, held: Job) -> None:
    assert "lacks" not in runtime.run(held).describe()
    executor = runtime.run(replace(held, limits=Limits(cpus=1.5, memory="8g")))
    (lack,) = executor.describe()["lacks"]
    assert lack == f"limits.memory and limits.cpus: {process.NO_LIMITS}"


@pytest.mark.parametrize("runtime", ["apptainer"], indirect=True)
def test_where_control_groups_are_the_users_apptainer_is_given_the_limits(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apptainer, "_can_limit", lambda: True)
    limits = Limits(cpus=1.5, memory="8g", pids=64)
    assert "lacks" not in runtime.run(replace(held, limits=limits)).describe()
    values = runtime.record["values"]
    assert (values["--memory"], values["--cpus"], values["--pids-limit"]) == (
        ["8g"],
        ["1.5"],
        ["64"],
    )


@pytest.mark.parametrize("runtime", ["apptainer"], indirect=True)
def test_singularity_is_taken_where_apptainer_is_not_with_its_own_prefix_for_variables(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime.folder / "apptainer").unlink()
    runtime.install("singularity")
    runtime.run(held)
    assert runtime.record["variables"]["SINGULARITYENV_HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("runtime", ["apptainer"], indirect=True)
def test_a_path_that_apptainer_would_take_apart_is_refused(
    runtime: Runtime, held: Job, tmp_path: Path
) -> None:
    model = tmp_path / "model:1"
    model.mkdir()
    with pytest.raises(InputError, match="there is a ':' in its name"):
        runtime.run(replace(held, inputs={"model": str(model)}))


def test_the_record_names_the_image_by_tag_lock_and_file(runtime: Runtime, held: Job) -> None:
    record = runtime.run(held).describe()
    assert record["executor"] == runtime.name
    image = record["image"]
    assert image is not None
    assert image["tag"] == "harness-train:cpu"
    assert image["lock"] == environment.lock_digest("train-cpu")
    assert image["file"].startswith("harness-train-cpu")
    assert bool(image["id"]) == (runtime.name == "charliecloud")


def test_events_and_log_are_told_apart_and_a_fault_is_the_stages(
    runtime: Runtime, held: Job
) -> None:
    progress = {"event": "progress", "done": 1}
    error = {"event": "error", "message": "no seeds", "hint": "Name some.", "exit_code": 2}
    runtime.order(events=[progress, error], code=2)
    events: list[Any] = []
    with pytest.raises(StageFailed, match="no seeds") as e:
        runtime.run(held, events)
    assert (events, e.value.exit_code) == ([progress], 2)
    assert held.log.read_text().splitlines()[1:] == ["a warning"]


@pytest.mark.parametrize("obeys", [True, False])
def test_asked_to_stop_it_ends_in_order_or_is_killed(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    from harness.run.executors import child

    monkeypatch.setattr(child, "STOP_SECONDS", 0.5)
    runtime.order(waits=True, obeys=obeys)
    stop = threading.Event()

    def watch() -> None:
        until((runtime.folder / "waiting").exists)
        stop.set()

    threading.Thread(target=watch).start()
    began = time.monotonic()
    with pytest.raises(Interrupted, match="was stopped"):
        runtime.run(replace(held, stop=stop))
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(runtime.record["pid"], 0)


def test_a_later_interrupt_of_ctrl_c_is_told_and_ends_it(runtime: Runtime, held: Job) -> None:
    runtime.order(waits=True)

    def watch() -> None:
        until((runtime.folder / "waiting").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch).start()
    events: list[Any] = []
    with pytest.raises(Interrupted):
        runtime.run(held, events)
    assert "stopping" in events[-1]["message"]


def test_a_machine_without_the_image_is_told_the_command_that_makes_it(
    runtime: Runtime, held: Job
) -> None:
    path = runtime.give_image()
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(InputError, match=r"there is no image file .* of harness-train:cpu") as e:
        runtime.run(held)
    assert f"harness images --executor {runtime.name}" in e.value.hint
    assert "docker save -o images.tar harness-train:cpu" in e.value.hint
    assert not (runtime.folder / "record.json").exists()


def test_images_on_the_volume_that_was_named_are_found_and_made_there(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HARNESS_IMAGES")
    path = runtime.give_image()
    (tmp_path / "a volume" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="there is no image file") as e:
        checking_executor(runtime.name, tmp_path / "a volume").find_image("train")  # type: ignore[attr-defined]
    make_it = f"harness images --executor {runtime.name} --volume '{tmp_path}/a volume'"
    assert e.value.hint.count(make_it) == 2
    path.rename(tmp_path / "a volume" / "images" / path.name)
    assert checking_executor(runtime.name, tmp_path / "a volume").find_image("train")  # type: ignore[attr-defined]


def test_an_image_of_another_checkout_is_refused(runtime: Runtime, held: Job) -> None:
    runtime.give_image("a" * 64)
    with pytest.raises(InputError, match=r"was built from another lock \(aaaaaaaaaaaa\)"):
        runtime.run(held)


def test_what_is_no_image_is_told_as_such(runtime: Runtime, held: Job) -> None:
    path = runtime.give_image()
    (path if path.is_file() else path / CONFIG).write_text("text")
    with pytest.raises(InputError, match="is no image that") as e:
        runtime.run(held)
    assert "make it anew" in e.value.hint


def test_a_machine_without_the_program_is_told_so(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime.folder / PROGRAMS[runtime.name]).unlink()
    monkeypatch.setenv("PATH", str(runtime.folder))
    with pytest.raises(InputError, match="on this machine") as e:
        make(runtime.name)
    assert "`harness doctor`" in e.value.hint


@pytest.mark.parametrize("runtime", ["charliecloud"], indirect=True)
def test_a_kernel_without_user_namespaces_is_told(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut_off, "refusal", lambda: "the kernel refuses: [Errno 1]")
    with pytest.raises(InputError, match="the kernel refuses"):
        runtime.run(held)


def test_no_variable_of_the_hubs_reaches_a_stage_that_does_not_download(
    runtime: Runtime, held: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080")
    runtime.run(replace(held, network=True))
    assert "HF_ENDPOINT" not in runtime.variables
    runtime.run(replace(held, stage="fetch", network=True))
    assert runtime.variables["HF_ENDPOINT"] == "http://127.0.0.1:8080", "its loopback is ours"
    assert not {*env_variables.OFFLINE} & set(runtime.variables)
