"""Runs a stage in its pinned image by podman, rootless or not: Docker's executor on podman's socket."""

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
from docker.types import DeviceRequest

from harness.artefact import environment
from harness.common import env_variables
from harness.errors import InputError
from harness.run.executors import cut_off
from harness.run.executors.docker import NO_ENGINE, DockerExecutor, reason_of

SOCKET_VARIABLE = "CONTAINER_HOST"
"""What podman's own client reads."""
SYSTEM_SOCKET = Path("/run/podman/podman.sock")
START_SECONDS = 30
CDI = "nvidia.com/gpu"
"""The kind of device that NVIDIA's toolkit lists for the Container Device Interface."""
HOST = "host.containers.internal"
"""What podman calls this machine inside a container that has a network."""
WITHOUT_DELEGATION = ("memory", "cpu", "pids")
"""The controllers that limits.memory, limits.cpus and limits.pids need."""


class _Api(docker.APIClient):  # type: ignore[misc]
    """Docker's client with the one setting of a container's that its types refuse."""

    user_namespace = ""

    def create_container_from_config(self, config: Any, *rest: Any, **named_rest: Any) -> Any:
        if self.user_namespace:
            config["HostConfig"]["UsernsMode"] = self.user_namespace
        return super().create_container_from_config(config, *rest, **named_rest)


class PodmanExecutor(DockerExecutor):
    name = "podman"
    engine = "podman"
    host = HOST
    checks_health = False  # podman has systemd's timers do it, which not every machine runs

    def __init__(self) -> None:
        super().__init__()
        self._host = host_facts(self._client)
        if self._host["security"]["rootless"]:
            # Files that the stage writes are the caller's, whose number it has inside, too.
            self._client.api.user_namespace = "keep-id"

    def _connect(self) -> Any:
        return connect()

    def _adapted(self, settings: dict[str, Any]) -> dict[str, Any]:
        # Where SELinux is in force, else none of the caller's folders could be read.
        settings["security_opt"] = ["no-new-privileges", "label=disable"]
        if "device_requests" in settings:
            ids = settings["device_requests"][0]["DeviceIDs"] or ["all"]
            names = [f"{CDI}={gpu}" for gpu in ids]
            settings["device_requests"] = [DeviceRequest(driver="cdi", device_ids=names)]
        return settings

    def _build_hint(self, stage: str) -> str:
        return build_hint(stage)

    def version(self) -> str:
        rootless = self._host["security"]["rootless"]
        return f"{self._client.version()['Version']}, {'rootless' if rootless else 'as root'}"

    def lacks(self) -> list[str]:
        return lacking(self._host)


def connect() -> Any:
    """A client of podman's service: the one that CONTAINER_HOST names, this user's, the system's for
    root, or one that is started for as long as this process lives.

    Raises:
        InputError: none answers and none can be started.
    """
    named = os.environ.get(SOCKET_VARIABLE)
    if named:
        return _client(named, f"Correct {SOCKET_VARIABLE}, or unset it")
    for path in sockets():
        if path.is_socket():
            try:
                return _client(f"unix://{path}", "")
            except InputError:
                continue  # left by a service that has ended
    return _client(f"unix://{_start_service()}", "`podman info` says more")


def sockets() -> list[Path]:
    """Where podman's service listens by its own rules."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    own = Path(runtime, "podman", "podman.sock")
    return [own, SYSTEM_SOCKET] if os.getuid() == 0 else [own]


def build_hint(stage: str) -> str:
    """How a stage's image comes to podman."""
    tag = environment.image_tag(stage, environment.accelerator())
    family = environment.FAMILY[stage]
    cuda = " --build-arg ACCELERATOR=cuda" if tag.endswith(":cuda") else ""
    return (
        f"Build it: podman build{cuda} -f Dockerfile.{family} -t {tag} . Or bring it from where Docker "
        f"built it: docker save {tag} | podman load"
    )


def host_facts(client: Any) -> dict[str, Any]:
    """What podman says of the machine it runs on."""
    info = client.api.get(f"{client.api.base_url}/v4.0.0/libpod/info", timeout=60).json()
    host = info.get("host", {})
    return {**host, "security": {"rootless": False, **host.get("security", {})}}


def lacking(host: Mapping[str, Any]) -> list[str]:
    """What of a stage's confinement podman cannot do, from what it says of its machine."""
    if not host["security"]["rootless"]:
        return []
    if host.get("cgroupVersion") == "v1":
        return ["limits.memory, limits.cpus and limits.pids do not hold: rootless on cgroups v1"]
    controllers = host.get("cgroupControllers") or []
    absent = [name for name in WITHOUT_DELEGATION if name not in controllers]
    if not absent:
        return []
    settings = {"memory": "limits.memory", "cpu": "limits.cpus", "pids": "limits.pids"}
    words = " and ".join(settings[name] for name in absent)
    return [f"{words} cannot hold: cgroup controllers not delegated to this user"]


def _client(url: str, hint: str) -> Any:
    try:
        client = docker.DockerClient(base_url=url, timeout=600)
        client.api = _Api(base_url=url, timeout=600, version="auto")
        client.ping()
    except (*NO_ENGINE, requests.exceptions.RequestException, ValueError) as e:
        raise InputError(
            f"podman does not answer at {url}: {reason_of(e)}",
            f"{hint}. Or start its service: podman system service --time=0 {url}",
        ) from None
    return client


@functools.cache
def _start_service() -> Path:
    """The socket of a podman service that ends with this process; the first call starts it."""
    if shutil.which("podman") is None:
        raise InputError(
            "podman is not on this machine",
            "Install it (on Debian or Ubuntu: apt install podman uidmap slirp4netns), name a running "
            f"service's socket in {SOCKET_VARIABLE}, or use another executor: `harness doctor` shows "
            "what is there.",
        )
    folder = Path(tempfile.mkdtemp(prefix="harness-podman-"))
    path = folder / "podman.sock"
    log = folder / "log"
    # A proxy's address, which may hold a password, would be passed into every container.
    ways = env_variables.withheld("train", network=False)
    with log.open("wb") as file:
        service = subprocess.Popen(
            [*cut_off.prefix(), "podman", "system", "service", "--time=0", f"unix://{path}"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={name: value for name, value in os.environ.items() if name not in ways},
            # Ctrl-C reaches the harness alone, whose containers need the service to be stopped.
            start_new_session=True,
        )

    def end() -> None:
        service.terminate()
        service.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    deadline = time.monotonic() + START_SECONDS
    while not _listens(path):
        if service.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise InputError(
                f"podman's service does not start: {words[-1] if words else 'it says nothing'}",
                "`podman info` must work for this user; rootless it needs ranges in /etc/subuid and "
                "/etc/subgid, and the package uidmap.",
            )
        time.sleep(0.05)
    return path


def _listens(path: Path) -> bool:
    """Whether a service takes connections; its socket's file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0
