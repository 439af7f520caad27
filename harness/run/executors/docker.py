"""Runs a stage in its pinned image: read-only, without capabilities, as the calling user."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
from docker.types import Mount

from harness.artefact import environment
from harness.artefact.gpus import Gpu
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.env_variables import ENDPOINT
from harness.common.progress import Event
from harness.errors import HarnessError, InputError
from harness.llm.secrets import key_variable, read_key
from harness.run.executors import (
    HOST,
    STOP_SECONDS,
    EventReader,
    ExecutorRecord,
    Job,
    devices,
    ended_when_asked,
    on_loopback,
    placing,
    start_log,
    stopped,
    tell_stopping,
    vllm,
    wait_for_end,
)
from harness.run.executors.mounts import read_only
from harness.run.plan import StagePlan
from harness.spec.base import DataPath
from harness.spec.train import Train

WORK, INPUTS, DATA, CACHE, SECRETS = "/work", "/inputs", "/data", "/cache", "/run/secrets"
NO_ENGINE = (
    docker.errors.DockerException,
    requests.exceptions.ConnectionError,
    requests.exceptions.ReadTimeout,
)
OUT_OF_MEMORY = 137
MEMORY, KEYS = Path("/dev/shm"), "harness-keys"
"""Where keys stand as files while a container runs, and what their folders' names begin with."""


def connect() -> Any:
    """A client of the engine that DOCKER_HOST or the present context names.

    Raises:
        HarnessError: no engine answers.
    """
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except NO_ENGINE as e:
        raise HarnessError(
            f"no Docker engine answers: {_first_line(e)}",
            "Start it (for example `sudo systemctl start docker`), name it in DOCKER_HOST, or use "
            "`--executor local`. `harness doctor` shows what is there.",
        ) from None
    return client


class DockerExecutor:
    name = "docker"

    def __init__(self) -> None:
        self._client = connect()
        self._image: dict[str, str] = {}

    def describe(self) -> ExecutorRecord:
        return {"executor": self.name, "image": self._image}

    def check(self, stages: Sequence[StagePlan]) -> None:
        """Every stage's image, and that of the vLLM server beside it; and their GPUs.

        Raises:
            InputError: an image is not there, was built from another lock, or lacks a compiler that a
                stage needs; or see placing.place.
        """
        placing.check(stages, self.name)
        images = {name: self._find_image(name) for name in dict.fromkeys(s.stage for s in stages)}
        for stage in stages:
            train, engine = stage.params.get("train"), stage.served
            if isinstance(train, Train) and train.liger_kernels:
                _check_compiler(images[stage.stage], f"row {stage.row}: train.liger_kernels")
            if engine is not None and engine.base_url is None:
                vllm.find_image(self._client, engine)

    def run(self, job: Job, files: Files, on_event: Callable[[Event], None]) -> None:
        image = self._find_image(job.image_stage)
        chosen = job.own_gpus()
        self._remove_left_over(job)
        mounts = [Mount(WORK, str(job.folder.resolve()), "bind")]
        inputs = {}
        for name, folder in job.inputs.items():
            inputs[name] = f"{INPUTS}/{name}"
            mounts.append(Mount(inputs[name], str(Path(folder).resolve()), "bind", read_only=True))
        places: dict[Path, str] = {}

        def place(data: DataPath) -> str:
            path = files.locate(data)
            if path not in places:
                places[path] = f"{DATA}/{len(places)}/{path.name}"
                mounts.extend(read_only(path, places[path]))
            return places[path]

        if job.cache is not None:
            mounts.append(Mount(CACHE, str(Path(job.cache).resolve()), "bind"))
        start_log(job, self.name)
        with contextlib.ExitStack() as stack:
            network, base_url = None, None
            beside: tuple[Gpu, ...] = ()
            if job.serve is not None and job.serve.engine.base_url is None:
                beside = placing.of_server(job.serve.engine, f"{job.title}: vLLM", job.share.gpus)
                serving = vllm.serving(self._client, job, on_event, beside)
                network, base_url = stack.enter_context(serving)
            elif job.serve is not None:
                network, base_url = "bridge", job.serve.engine.base_url
            cache = CACHE if job.cache else None
            call = job.placed(WORK, inputs, place, cache, base_url, [*chosen, *beside])
            call.write(job.call_path)
            secret_mounts, keys = stack.enter_context(_secret_files(job))
            env = {**keys, **_passed_on(job, on_event)}
            try:
                container = self._client.containers.create(
                    image.id,
                    entrypoint=["python", "-m", "harness.stage"],
                    command=[f"{WORK}/{job.call_path.name}"],
                    **_settings(job, [*mounts, *secret_mounts], env, network, chosen),
                )
            except NO_ENGINE as e:
                reason = _first_line(e)
                raise devices.fault(job.title, " ".join(str(e).split())) or HarnessError(
                    f"{job.title} could not start: {reason}"
                ) from None
            try:
                self._follow(container, job, on_event)
            finally:
                with contextlib.suppress(*NO_ENGINE):
                    container.remove(force=True)

    def _find_image(self, stage: str) -> Any:
        tag = environment.image_tag(stage, environment.accelerator())
        name = environment.image_name(stage, environment.accelerator())
        build = f"Build it: {environment.build_command(environment.FAMILY[stage])}"
        try:
            image = self._client.images.get(tag)
        except docker.errors.ImageNotFound:
            raise InputError(f"there is no image {tag}", build) from None
        except NO_ENGINE as e:
            raise HarnessError(f"the Docker engine does not answer: {_first_line(e)}") from None
        lock = image.labels.get("harness.lock", "")
        if lock != environment.lock_digest(name):
            raise InputError(
                f"the image {tag} was built from another lock ({lock[:12] or 'none'}) than "
                f"requirements/{name}.txt ({environment.lock_digest(name)[:12]})",
                build,
            )
        self._image = {
            "tag": tag,
            "id": image.id,
            "lock": lock,
            "base": image.labels.get("harness.base", ""),
        }
        return image

    def _remove_left_over(self, job: Job) -> None:
        """Stop what a killed harness left running on this work folder."""
        filters = {"label": [f"harness.key={job.key}", f"harness.work={job.folder.resolve()}"]}
        try:
            for container in self._client.containers.list(all=True, filters=filters):
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True)
        except NO_ENGINE as e:
            raise HarnessError(
                f"{job.title}: the container that a killed run left cannot be removed: "
                f"{_first_line(e)}",
                "Run the same command again, or remove it with `docker rm -f`; `docker ps -a "
                f"--filter label=harness.key={job.key}` shows it.",
            ) from None

    def _follow(self, container: Any, job: Job, on_event: Callable[[Event], None]) -> None:
        reader = EventReader(job, on_event)
        try:
            stream = container.attach(stdout=True, stderr=True, stream=True, demux=True)
            container.start()
            with ended_when_asked(job, lambda: _stop(container, job)):
                for out, err in stream:
                    if err:
                        reader.log(err)
                    if out:
                        reader.feed(out)
            code = int(container.wait()["StatusCode"])
            if code == OUT_OF_MEMORY:
                container.reload()
        except KeyboardInterrupt:
            tell_stopping(on_event)
            _stop(container, job)
            raise stopped(job) from None
        except NO_ENGINE as e:
            reason = _first_line(e)
            raise devices.fault(job.title, " ".join(str(e).split())) or HarnessError(
                f"{job.title}: the Docker engine stopped answering: {reason}",
                "Run the same command again to go on.",
            ) from None
        if job.stop.is_set():
            raise stopped(job)
        killed = ""
        if code == OUT_OF_MEMORY:
            memory = container.attrs["State"].get("OOMKilled")
            killed = "it was killed" + (": it ran out of memory (limits.memory)" if memory else "")
        reader.finish(code, killed)


def _check_compiler(image: Any, user: str) -> None:
    """Raises InputError for an image that does not say that it holds a C compiler, which Triton needs:
    a lock names packages, and one from before has the same."""
    if environment.COMPILER_LABEL not in image.labels:
        raise InputError(
            f"{user} needs a C compiler, and the image {environment.image_tag('train', 'cuda')} was "
            "built before it held one",
            f"Rebuild the image: {environment.build_command('train')}; or set "
            "train.liger_kernels: false",
        )


def _settings(
    job: Job,
    mounts: list[Mount],
    env: dict[str, str],
    network: str | None,
    chosen: Sequence[Gpu],
) -> dict[str, Any]:
    """`network`: one that the stage shares with a server; None for the job's own choice."""
    limits = job.limits
    passed = devices.asked_for(chosen)
    mode = network or ("bridge" if job.network else "none")
    settings: dict[str, Any] = {
        "mounts": mounts,
        "environment": {
            **env,
            **env_variables.given(job.stage),
            **env_variables.threads(job.share.threads),
            **passed.pop("environment", {}),
        },
        # Of the engine's own client, which may be told of a proxy in ~/.docker/config.json.
        "use_config_proxy": job.network,
        "labels": {"harness.key": job.key, "harness.work": str(job.folder.resolve())},
        "user": f"{os.getuid()}:{os.getgid()}",
        "working_dir": WORK,
        "read_only": True,
        # Kernels compiled at run time are loaded from here.
        "tmpfs": {"/tmp": "mode=1777,exec" if chosen else "mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "network_mode": mode,
        "shm_size": limits.shm,
        "pids_limit": limits.pids,
        "init": True,
        **passed,
    }
    if mode == "bridge":
        settings["extra_hosts"] = {HOST: "host-gateway"}
    if limits.memory:
        settings["mem_limit"] = limits.memory
    if cpus := limits.cpus or job.share.threads:
        settings["nano_cpus"] = int(cpus * 1e9)
    return settings


def _passed_on(job: Job, on_event: Callable[[Event], None]) -> dict[str, str]:
    """The caller's variables that say where the hub is and how to reach a network.

    Raises:
        InputError: the hub is named on this machine's loopback address.
    """
    withheld = env_variables.withheld(job.stage, job.network)
    names = {*env_variables.PROXY, ENDPOINT} - withheld
    passed = {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}
    unreachable = [name for name, url in passed.items() if on_loopback(url)]
    if ENDPOINT in unreachable:
        raise InputError(
            f"{ENDPOINT} is {passed[ENDPOINT]}, a loopback address; inside a "
            "container that is the container itself, not this machine",
            "Have the hub listen on this machine's address on Docker's bridge (`ip -4 addr show "
            "docker0`, often 172.17.0.1) and name that, or use --executor local.",
        )
    for name in unreachable:
        # Not its value, which may hold a password.
        message = f"{name} is a loopback address, which no container reaches: it is not passed on"
        on_event({"event": "note", "message": message})
        del passed[name]
    if any(name in passed for name in env_variables.PROXY):
        no_proxy = next(filter(None, map(os.environ.get, reversed(env_variables.NO_PROXY))), "")
        direct = ",".join(filter(None, [no_proxy, "localhost", "127.0.0.1", HOST]))
        passed |= dict.fromkeys(env_variables.NO_PROXY, direct)
    return passed


@contextlib.contextmanager
def _secret_files(job: Job) -> Iterator[tuple[list[Mount], dict[str, str]]]:
    """Keys as files in memory that only this user can read: the engine's records name them only."""
    values = {n: read_key(n, job.title) for n in job.secrets if key_variable(n)}
    memory = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    _remove_keys_of_killed(memory)
    if not values:
        yield [], {}
        return
    with tempfile.TemporaryDirectory(prefix=f"{KEYS}-{os.getpid()}-", dir=memory) as folder:
        mounts, variables = [], {}
        for name, value in values.items():
            path = Path(folder) / name
            path.touch(mode=0o600)
            path.write_text(value, encoding="utf-8")
            mounts.append(Mount(f"{SECRETS}/{name}", str(path), "bind", read_only=True))
            variables[f"{name}_FILE"] = f"{SECRETS}/{name}"
        yield mounts, variables


def _remove_keys_of_killed(memory: Path) -> None:
    """A harness that was killed could not remove its keys."""
    for folder in memory.glob(f"{KEYS}-*-*"):
        owner = folder.name.removeprefix(f"{KEYS}-").split("-")[0]
        with contextlib.suppress(FileNotFoundError):
            if not Path("/proc", owner).exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder)


def _stop(container: Any, job: Job) -> None:
    def has_ended(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            container.reload()
            if container.status != "running":
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)

    with contextlib.suppress(*NO_ENGINE):
        container.kill("SIGINT")
        if not wait_for_end(job, has_ended, STOP_SECONDS):
            container.kill()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
