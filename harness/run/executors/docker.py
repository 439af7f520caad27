"""Runs a stage in its pinned image: read-only, without capabilities, as the calling user."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import docker
import docker.errors
import requests.exceptions

from harness.artefact import environment
from harness.artefact.gpus import Gpu
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.env_variables import ENDPOINT
from harness.common.progress import Event, note_event
from harness.errors import HarnessError, InputError
from harness.run.executors import (
    HOST,
    STOP_SECONDS,
    EventReader,
    ExecutorRecord,
    Job,
    check_compilers,
    devices,
    ended_when_asked,
    image_record,
    on_loopback,
    placing,
    record_of,
    start_log,
    stopped,
    tell_stopping,
    vllm,
    wait_for_end,
)
from harness.run.executors.mounts import WORK, Bind, StageFiles
from harness.run.executors.secret_files import secret_files
from harness.run.plan import StagePlan

NO_ENGINE = (
    docker.errors.DockerException,
    requests.exceptions.ConnectionError,
    requests.exceptions.ReadTimeout,
)
OUT_OF_MEMORY = 137


def connect() -> Any:
    """A client of the engine that DOCKER_HOST or the present context names.

    Raises:
        InputError: no engine answers.
    """
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except NO_ENGINE as e:
        raise InputError(
            f"no Docker engine answers: {reason_of(e)}",
            "Start it (for example `sudo systemctl start docker`), name it in DOCKER_HOST, or use "
            "`--executor local`. `harness doctor` shows what is there.",
        ) from None
    return client


class DockerExecutor:
    """Of an engine that speaks Docker's API; what is Docker's own about it, a subclass says anew."""

    name = "docker"
    engine = "Docker"
    """In sentences."""
    host = HOST
    """What a container calls this machine."""
    checks_health = True
    """Whether the engine itself carries out a container's health check."""

    def __init__(self) -> None:
        self._client = self._connect()
        self._image: dict[str, str] = {}

    def _connect(self) -> Any:
        return connect()

    def _adapted(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A container's settings as the engine wants them."""
        if settings.get("network_mode") == "bridge":
            settings["extra_hosts"] = {self.host: "host-gateway"}
        return settings

    def _build_hint(self, stage: str) -> str:
        return f"Build it: {environment.build_command(environment.FAMILY[stage])}"

    def describe(self) -> ExecutorRecord:
        return record_of(self.name, self._image, self.lacks())

    def lacks(self) -> list[str]:
        """What of a stage's confinement this engine cannot do here, in sentences."""
        return []

    def check(self, stages: Sequence[StagePlan]) -> None:
        """Every stage's image, and that of the vLLM server beside it; and their GPUs.

        Raises:
            InputError: an image is not there, was built from another lock, or lacks a compiler that a
                stage needs; or see placing.place.
        """
        placing.check(stages, self.name)
        images = {name: self.find_image(name) for name in dict.fromkeys(s.stage for s in stages)}
        check_compilers(stages, {name: image.labels for name, image in images.items()})
        for stage in stages:
            engine = stage.served
            if engine is not None and engine.base_url is None:
                vllm.find_image(self._client, engine)

    def run(self, job: Job, files: Files, on_event: Callable[[Event], None]) -> None:
        image = self.find_image(job.image_stage)
        chosen = job.own_gpus()
        self._remove_left_over(job)
        stage_files = StageFiles(job, files)
        start_log(job, self.name)
        with contextlib.ExitStack() as stack:
            network, base_url = None, None
            beside: tuple[Gpu, ...] = ()
            if job.serve is not None and job.serve.engine.base_url is None:
                beside = placing.of_server(job.serve.engine, f"{job.title}: vLLM", job.share.gpus)
                serving = vllm.serving(
                    self._client, job, on_event, beside, self._adapted, self.checks_health
                )
                network, base_url = stack.enter_context(serving)
            elif job.serve is not None:
                network, base_url = "bridge", job.serve.engine.base_url
            gpus = [*chosen, *beside]
            inputs, cache = stage_files.inputs, stage_files.cache
            call = job.placed(WORK, inputs, stage_files.place, cache, base_url, gpus)
            call.write(job.call_path)
            secret_binds, keys = stack.enter_context(secret_files(job))
            binds = [*stage_files.binds, *secret_binds]
            env = {**keys, **passed_on(job, on_event, self.engine, self.host)}
            try:
                container = self._client.containers.create(
                    image.id,
                    entrypoint=["python", "-m", "harness.stage"],
                    command=[f"{WORK}/{job.call_path.name}"],
                    **self._adapted(_settings(job, binds, env, network, chosen)),
                )
            except NO_ENGINE as e:
                reason = reason_of(e)
                raise devices.fault(job.title, " ".join(str(e).split()), self.name) or HarnessError(
                    f"{job.title} could not start: {reason}"
                ) from None
            try:
                self._follow(container, job, on_event)
            finally:
                with contextlib.suppress(*NO_ENGINE):
                    container.remove(force=True)

    def find_image(self, stage: str) -> Any:
        tag = environment.image_tag(stage, environment.accelerator())
        build = self._build_hint(stage)
        try:
            image = self._client.images.get(tag)
        except docker.errors.NotFound:
            raise InputError(f"there is no image {tag}", build) from None
        except NO_ENGINE as e:
            raise HarnessError(f"{self.engine} does not answer: {reason_of(e)}") from None
        record = image_record(stage, image.labels, f"image {tag}", build)
        self._image = {**record, "id": image.id}
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
                f"{reason_of(e)}",
                f"Run the same command again, or remove it with `{self.name} rm -f`; `{self.name} ps "
                f"-a --filter label=harness.key={job.key}` shows it.",
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
            reason = reason_of(e)
            raise devices.fault(job.title, " ".join(str(e).split()), self.name) or HarnessError(
                f"{job.title}: {self.engine} stopped answering: {reason}",
                "Run the same command again to go on.",
            ) from None
        if job.stop.is_set():
            raise stopped(job)
        killed = ""
        if code == OUT_OF_MEMORY:
            memory = container.attrs["State"].get("OOMKilled")
            killed = "it was killed" + (": it ran out of memory (limits.memory)" if memory else "")
        reader.finish(code, killed)


def _settings(
    job: Job,
    binds: Sequence[Bind],
    env: dict[str, str],
    network: str | None,
    chosen: Sequence[Gpu],
) -> dict[str, Any]:
    """`network`: one that the stage shares with a server; None for the job's own choice."""
    limits = job.limits
    passed = devices.asked_for(chosen)
    mode = network or ("bridge" if job.network else "none")
    settings: dict[str, Any] = {
        "mounts": [bind.as_mount() for bind in binds],
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
    if limits.memory:
        settings["mem_limit"] = limits.memory
    if cpus := limits.cpus or job.share.threads:
        settings["nano_cpus"] = int(cpus * 1e9)
    return settings


def passed_on(
    job: Job, on_event: Callable[[Event], None], engine: str, host: str
) -> dict[str, str]:
    """The caller's variables that say where the hub is and how to reach a network. `host`: what the
    container calls this machine.

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
            f"Have the hub listen on this machine's address on {engine}'s bridge (`ip -4 addr`; "
            f"a container calls it {host}) and name that, or use --executor local.",
        )
    for name in unreachable:
        # Not its value, which may hold a password.
        unusable = f"{name} is a loopback address, which no container reaches: it is not passed on"
        on_event(note_event(unusable))
        del passed[name]
    if any(name in passed for name in env_variables.PROXY):
        no_proxy = next(filter(None, map(os.environ.get, reversed(env_variables.NO_PROXY))), "")
        direct = ",".join(filter(None, [no_proxy, "localhost", "127.0.0.1", host]))
        passed |= dict.fromkeys(env_variables.NO_PROXY, direct)
    return passed


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


def reason_of(error: BaseException) -> str:
    """What the system said (`Connection refused`), however deep a client has wrapped it; else the
    error's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
