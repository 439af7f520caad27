"""A model served by vLLM beside a stage, on a network that the two share and nothing else is on."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import docker.errors

from harness.answer.engines.vllm import VllmEngine
from harness.artefact.gpus import Gpu
from harness.common.progress import Event, progress_event
from harness.errors import HarnessError, InputError
from harness.run.executors import Job, Serve, devices, stopped
from harness.run.executors.mounts import Bind, read_only
from harness.run.executors.serving import ADAPTER, ENVIRONMENT, HOST, MODEL, PORT, arguments

LOG_LINES = 15
_ALIVE = (
    "import urllib.request as r; r.build_opener(r.ProxyHandler({}))"
    f".open('http://127.0.0.1:{PORT}/health', timeout=5)"
)
_SECOND = 10**9


def find_image(client: Any, engine: VllmEngine) -> Any:
    """Raises InputError where vLLM's image is not there."""
    try:
        return client.images.get(engine.image)
    except docker.errors.ImageNotFound:
        raise InputError(
            f"the image of vLLM is not there: {engine.image}",
            f"Get it (about 9 GiB): docker pull {engine.image}",
        ) from None


@contextlib.contextmanager
def serving(
    client: Any,
    job: Job,
    on_event: Callable[[Event], None],
    chosen: Sequence[Gpu],
    adapted: Callable[[dict[str, Any]], dict[str, Any]] = lambda settings: settings,
    checks_health: bool = True,
) -> Iterator[tuple[str, str]]:
    """The network's name and the server's base URL on it, while the server runs on `chosen`.

    `adapted`: a container's settings as the engine wants them; `checks_health`: whether the engine
    itself asks the server whether it is up.

    Raises:
        InputError: the image is not there.
        HarnessError: Docker cannot pass the GPUs on, or the server did not come up in
            `start_timeout_s`.
    """
    serve = job.serve
    assert serve is not None
    labels = {"harness.key": job.key, "harness.work": str(job.folder.resolve())}
    image = find_image(client, serve.engine)
    name = f"harness-vllm-{job.key[:12]}"
    _remove_networks(client, name)
    network = container = None
    try:
        with _uninterrupted():
            network = client.networks.create(name, driver="bridge", internal=True, labels=labels)
            container = client.containers.create(
                image.id,
                command=arguments(serve),
                network=name,
                networking_config={name: client.api.create_endpoint_config(aliases=[HOST])},
                **adapted(_settings(job, serve, labels, chosen)),
            )
        container.start()
        _wait(container, job, serve, on_event, checks_health)
        yield name, f"http://{HOST}:{PORT}/v1"
    except docker.errors.APIError as e:
        reason = str(e.explanation or e)
        raise devices.fault(f"{job.title}: vLLM", reason) or HarnessError(
            f"{job.title}: vLLM could not be started: {reason}",
            "It needs an NVIDIA GPU that Docker can pass on (`harness doctor` shows it); without one "
            "use the engine transformers.",
        ) from None
    finally:
        with contextlib.suppress(docker.errors.APIError):
            if container is not None:
                container.remove(force=True)
        with contextlib.suppress(docker.errors.APIError):
            if network is not None:
                network.remove()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold a Ctrl-C back until what is being made is known, and can be removed."""
    stops = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove_networks(client: Any, name: str) -> None:
    """What a killed harness left; its containers were removed before."""
    for network in client.networks.list(names=[f"^{name}$"]):
        with contextlib.suppress(docker.errors.APIError):
            network.remove()


def _settings(
    job: Job, serve: Serve, labels: dict[str, str], chosen: Sequence[Gpu]
) -> dict[str, Any]:
    passed = devices.asked_for(chosen)
    binds = read_only(serve.model, MODEL)
    if serve.adapter is not None:
        binds.append(Bind(ADAPTER, serve.adapter.resolve()))
    return {
        "mounts": [bind.as_mount() for bind in binds],
        "labels": labels,
        "environment": {**ENVIRONMENT, **passed.pop("environment", {})},
        "user": f"{os.getuid()}:{os.getgid()}",
        "read_only": True,
        # Kernels compiled at run time are loaded from here.
        "tmpfs": {"/tmp": "mode=1777,exec"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": job.limits.shm,
        "init": True,
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _ALIVE],
            "interval": 2 * _SECOND,
            "timeout": 10 * _SECOND,
            "retries": 1_000_000,
        },
        **passed,
    }


def _answers(container: Any) -> bool:
    return bool(container.exec_run(["python3", "-c", _ALIVE]).exit_code == 0)


def _wait(
    container: Any,
    job: Job,
    serve: Serve,
    on_event: Callable[[Event], None],
    checks_health: bool,
) -> None:
    began = time.monotonic()
    limit = serve.engine.start_timeout_s
    while (spent := time.monotonic() - began) < limit:
        container.reload()
        state = container.attrs["State"]
        health = state.get("Health") or {}
        if health.get("Status") == "healthy" if checks_health else _answers(container):
            return
        if state["Status"] in ("exited", "dead"):
            break
        if job.stop.is_set():
            raise stopped(job)
        on_event(progress_event("vLLM starts", int(spent), int(limit), "s at most"))
        time.sleep(0.5)
    log = container.logs(tail=200).decode("utf-8", "replace")
    with job.log.open("a", encoding="utf-8") as file:
        file.write(f"vLLM's log:\n{log}\n")
    last = "\n".join(f"  | {line}" for line in log.splitlines()[-LOG_LINES:])
    raise HarnessError(
        f"{job.title}: vLLM did not come up"
        + (f" in {limit:.0f} s" if spent >= limit else ": it ended"),
        f"The last lines of its log:\n{last}\nThe whole log: {job.log}",
    )
