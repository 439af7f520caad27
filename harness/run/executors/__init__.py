"""Where a stage runs. Every executor takes the same Job and reports the same events."""

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict
from urllib.parse import urlsplit

from rich.console import Console

from harness.answer.engines.vllm import VllmEngine
from harness.artefact import environment, gpus
from harness.artefact.call import CALL_FILE, RESULT_FILE, StageCall, StageResult, model_input
from harness.artefact.gpus import Gpu
from harness.artefact.keys import Files
from harness.artefact.store import Unusable
from harness.common import env_variables
from harness.common.executor_names import check_name
from harness.common.logs import BEGINNING, tail
from harness.common.progress import Event, StageView, note_event, say
from harness.errors import HarnessError, InputError, Interrupted
from harness.row.row import Limits
from harness.run.plan import StagePlan, dump, needs_of
from harness.spec.base import DataPath
from harness.spec.train import Train

STOP_SECONDS = env_variables.stop_seconds()
STOP_LIMIT = "as long as the job lasts" if math.isinf(STOP_SECONDS) else f"{STOP_SECONDS:g} s"
LOOK_SECONDS = 0.2
"""How often a running stage's executor looks whether another thread has asked it to stop."""

HOST = "host.docker.internal"
"""What this machine is called inside a container that has a network."""


@dataclass(frozen=True)
class Serve:
    """A model to be served beside a stage."""

    engine: VllmEngine
    name: str
    """What the server calls it."""
    model: Path
    """The host's folder of the whole model."""
    adapter: Path | None
    """The host's folder of a LoRA adapter to it."""
    trust_remote_code: bool
    quantised: bool = False
    """Whether the server quantises the model as QLoRA's training did."""


@dataclass(frozen=True)
class Share:
    """What of the machine a stage has while others run beside it. No other content comes of it, but for
    the last bits of float sums where the spec leaves its threads open."""

    gpus: tuple[Gpu, ...] | None = None
    """The stage's own and its server's are among these; None: among all that may be used."""
    threads: int | None = None
    """CPU threads; None: as many as it takes for itself."""


@dataclass(frozen=True, kw_only=True)
class Job(StageCall):
    """A stage's call with the host's paths and models not yet dumped, and how an executor runs it."""

    title: str
    log: Path
    lock: int
    """Descriptor of the held lock; a local stage inherits it."""
    image_stage: str
    """The stage whose image it runs in."""
    network: bool = False
    secrets: tuple[str, ...] = ()
    """Names of environment variables that hold keys the stage needs."""
    others_keys: frozenset[str] = frozenset()
    """Those of other stages' keys, as rows name them."""
    limits: Limits = field(default_factory=Limits)
    caches: Path | None = None
    """Where a local stage's libraries keep theirs; None: where they do by themselves."""
    serve: Serve | None = None
    share: Share = Share()
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from another thread: the executor ends the stage in order, within STOP_SECONDS, and raises
    Interrupted."""
    kill: threading.Event = field(default_factory=threading.Event)
    """Set after `stop`: what has not ended yet is killed at once."""

    def placed(
        self,
        work: str,
        inputs: dict[str, str],
        place: Callable[[DataPath], str],
        cache: str | None = None,
        base_url: str | None = None,
        chosen: Sequence[Gpu] = (),
    ) -> StageCall:
        """The call with paths as the stage sees them; `base_url`: of the server beside it; `chosen`:
        the GPUs of both."""
        serve = self.serve if base_url else None
        if "model" in inputs:
            inputs = {**inputs, "model": str(model_input(Path(inputs["model"]), self.params))}
        return StageCall(
            stage=self.stage,
            key=self.key,
            params=dump(self.params, place),
            inputs=inputs,
            work=work,
            code_version=environment.code_version(self.stage, self.params),
            environment=self.environment,
            budget=self.budget,
            prices=self.prices,
            replay=self.replay,
            tokenizer=dump(self.tokenizer, place),
            cache=cache,
            lease_seconds=self.lease_seconds,
            server={"base_url": base_url, "model": serve.name} if serve and base_url else None,
            gpus=gpus.record(chosen),
        )

    def own_gpus(self) -> tuple[Gpu, ...]:
        """Those of the stage's own process. Raises InputError where there are too few."""
        needs_one = environment.accelerator() == "cuda" and not self.replay
        if not needs_one:
            return ()
        count = gpus_of(self.stage, self.params)
        return gpus.choose(count, self.title, among=self.share.gpus)

    @property
    def call_path(self) -> Path:
        return self.folder / CALL_FILE


def gpus_of(stage: str, params: Mapping[str, Any]) -> int:
    """On how many GPUs the stage's own process works: one a training process, one for a model that
    answers or is scored in it, none for what only asks a server."""
    match params.get(stage):
        case Train(launch=launch):
            return launch.processes
        case _:
            return needs_of(params).gpus


class ExecutorRecord(TypedDict):
    """In a manifest: what ran the stage."""

    executor: str
    image: dict[str, str] | None
    lacks: NotRequired[list[str]]
    """What of the usual confinement it could not do for this stage, in sentences."""


def record_of(executor: str, image: dict[str, str], lacks: list[str]) -> ExecutorRecord:
    record: ExecutorRecord = {"executor": executor, "image": image}
    return {**record, "lacks": lacks} if lacks else record


def notes_of(record: ExecutorRecord) -> list[str]:
    """What a stage's reader is told of how it ran."""
    return [f"{record['executor']}: {lack}" for lack in record.get("lacks", [])]


class Executor(Protocol):
    name: str

    def check(self, stages: Sequence[StagePlan]) -> None:
        """Raises InputError where one of the stages could not even start."""

    def run(self, job: Job, files: Files, on_event: Callable[[Event], None]) -> None:
        """Run the stage to its end.

        Raises:
            StageFailed: it ended with a fault; Interrupted: it was stopped.
        """

    def describe(self) -> ExecutorRecord: ...


class StageFailed(HarnessError):
    """A stage ended with a fault. Exit code 2 where the stage blames the input, else 1."""

    def __init__(self, job: Job, message: str, hint: str, code: int) -> None:
        parts = [hint] if hint else []
        if code != InputError.exit_code and (lines := tail(job.log)):
            parts.append("The last lines of its log:\n" + "\n".join(f"  | {t}" for t in lines))
        parts.append(f"The whole log: {job.log}")
        super().__init__(f"{job.title} failed: {message}", "\n".join(parts))
        self.reason, self.advice, self.log = message, hint, job.log
        self.exit_code = code


class StagesFailed(HarnessError):
    """Stages or downloads ended with a fault; `not_run` needed what they make. `damaged`: a stage's id
    -> the damaged artefact that ended it."""

    def __init__(
        self,
        failures: Sequence[HarnessError],
        not_run: Sequence[StagePlan],
        damaged: Mapping[tuple[str, str], Unusable] | None = None,
    ) -> None:
        first = failures[0]
        message, hint = first.message, first.hint
        if len(failures) > 1:
            messages = [f"{len(failures)} stages failed", *map(listed, failures)]
            message, hint = "\n".join(messages), ""
        if not_run:
            titles = ", ".join(s.title for s in not_run)
            hint = "\n".join(filter(None, [hint, f"Not run because of it: {titles}"]))
        super().__init__(message, hint)
        self.failures, self.not_run, self.damaged = failures, not_run, damaged or {}
        self.exit_code = first.exit_code


def listed(error: HarnessError) -> str:
    """One of several failures: what, the way out, and the log of a stage that itself failed."""
    if isinstance(error, StageFailed):
        return _indented(error.message, error.advice, f"The whole log: {error.log}")
    return _indented(error.message, error.hint)


def _indented(*parts: str) -> str:
    lines = [line for part in parts for line in part.splitlines()]
    return "\n".join(["- " + lines[0], *("  " + line for line in lines[1:])])


def waiting(console: Console, title: str) -> Callable[[str], None]:
    """Says who holds a stage's lock, while it is waited for."""
    return lambda owner: say(console, f"{title}: waiting for {owner}")


def tell_stopping(on_event: Callable[[Event], None]) -> None:
    """An interrupt came: say so before the stage has ended, which can take a while."""
    message = f"stopping: the stage gets {STOP_LIMIT} to end in order"
    # Ctrl-C ends what the output is piped into as well.
    with contextlib.suppress(OSError):
        on_event(note_event(message))


def carry_out(job: Job, executor: Executor, files: Files, view: StageView) -> StageResult:
    """Run the stage to its end, showing how far it is; what it says that it made.

    Raises:
        StageFailed: it ended with a fault; Interrupted: it was stopped.
        HarnessError: it ended without a word.
    """
    with view:
        executor.run(job, files, view.show)
    result = StageResult.read(job.folder)
    if result is None:
        raise HarnessError(
            f"{job.title} ended without saying what it made ({job.folder / RESULT_FILE} is missing)",
            f"Its log: {job.log}",
        )
    return result


class EventReader:
    """Takes a stage's standard output apart: events go to a callback, all else to the log."""

    def __init__(self, job: Job, on_event: Callable[[Event], None]) -> None:
        self._job = job
        self._on_event = on_event
        self._rest = b""
        self._error: Event | None = None

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.log(line + b"\n")
            return
        if kind == "error":
            self._error = event
        else:
            self._on_event(event)

    def log(self, data: bytes) -> None:
        with self._job.log.open("ab") as file:
            file.write(data)

    def finish(self, code: int, killed: str = "") -> None:
        """Raise what the stage's exit code and last error say."""
        if self._rest:
            self._line(self._rest)
        if code == 0:
            return
        if self._error is not None:
            if self._error["exit_code"] == Interrupted.exit_code:
                raise stopped(self._job)
            raise StageFailed(
                self._job, self._error["message"], self._error["hint"], self._error["exit_code"]
            )
        why = killed or (f"it ended with exit code {code}")
        raise StageFailed(self._job, why, "Run the same command again to go on.", 1)


@contextlib.contextmanager
def ended_when_asked(job: Job, end: Callable[[], None]) -> Iterator[None]:
    """Meanwhile `end` is called, from a thread of its own, once `job.stop` is set."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(LOOK_SECONDS):
            if job.stop.is_set():
                end()
                return

    watcher = threading.Thread(target=watch, name=f"stops {job.title}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def wait_for_end(job: Job, has_ended: Callable[[float], bool], seconds: float) -> bool:
    """Give a stage that was asked to stop its time, or none once it is to be killed; whether it ended
    meanwhile. `has_ended(s)`: waits for its end for s seconds at most."""
    deadline = time.monotonic() + seconds
    while not job.kill.is_set() and (rest := deadline - time.monotonic()) > 0:
        if has_ended(min(rest, LOOK_SECONDS)):
            return True
    return has_ended(0)


def stopped(job: Job | StagePlan) -> Interrupted:
    if not has_made(job):
        return Interrupted(f"{job.title} was stopped before it had made anything.")
    return Interrupted(
        f"{job.title} was stopped; what it has made so far is kept.",
        "Run the same command again to go on.",
    )


def has_made(job: Job | StagePlan) -> bool:
    """Whether anything stands in the stage's work folder but its call."""
    if isinstance(job, Job):
        folder = job.folder
    elif job.planner is not None:
        folder = job.planner.store.work_folder(job.stage, job.key)
    else:
        return True
    names = (p.relative_to(folder) for p in folder.rglob("*"))
    made = (n for n in names if n.parts[0] != CALL_FILE and not n.parts[0].startswith("."))
    return any((folder / n).is_file() and (folder / n).stat().st_size for n in made)


def start_log(job: Job, executor: str) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as file:
        file.write(f"{BEGINNING}{job.title}, {executor} executor, key {job.key}\n")


def check_lock(name: str, image: str, lock: str, mend: str) -> None:
    """Raises InputError for an image that was built from another lock than requirements/`name`.txt."""
    if lock != environment.lock_digest(name):
        raise InputError(
            f"the {image} was built from another lock ({lock[:12] or 'none'}) than "
            f"requirements/{name}.txt ({environment.lock_digest(name)[:12]})",
            mend,
        )


def image_record(stage: str, labels: Mapping[str, str], image: str, mend: str) -> dict[str, str]:
    """What a manifest says of the image of a stage's by its labels, which are those of this checkout.
    `image`: what it is called in a message.

    Raises:
        InputError: see check_lock.
    """
    accelerator, lock = environment.accelerator(), labels.get("harness.lock", "")
    check_lock(environment.image_name(stage, accelerator), image, lock, mend)
    tag = environment.image_tag(stage, accelerator)
    return {"tag": tag, "lock": lock, "base": labels.get("harness.base", "")}


def check_compilers(stages: Sequence[StagePlan], labels: Mapping[str, Mapping[str, str]]) -> None:
    """Raises InputError for a stage whose image does not say that it holds a C compiler, which Triton
    needs: a lock names packages, and one from before has the same. `labels`: of each stage's image."""
    for stage in stages:
        train = stage.params.get("train")
        needs_one = isinstance(train, Train) and train.liger_kernels
        if needs_one and environment.COMPILER_LABEL not in labels[stage.stage]:
            raise InputError(
                f"row {stage.row}: train.liger_kernels needs a C compiler, and the image "
                f"{environment.image_tag('train', 'cuda')} was built before it held one",
                f"Rebuild the image: {environment.build_command('train')}; or set "
                "train.liger_kernels: false",
            )


def make(name: str, volume: Path | None = None) -> Executor:
    """`volume`: where image files lie unless HARNESS_IMAGES names their folder.

    Raises:
        InputError: there is no such executor; or not in here.
    """
    check_name(name, "executor")
    if name != "local" and environment.current_image() is not None:
        raise InputError("inside a container there is the local executor only")
    match name:
        case "docker":
            from harness.run.executors.docker import DockerExecutor

            return DockerExecutor()
        case "podman":
            from harness.run.executors.podman import PodmanExecutor

            return PodmanExecutor()
        case "apptainer":
            from harness.run.executors.apptainer import ApptainerExecutor

            return ApptainerExecutor(images_folder(volume))
        case "charliecloud":
            from harness.run.executors.charliecloud import CharliecloudExecutor

            return CharliecloudExecutor(images_folder(volume))
    from harness.run.executors.local import LocalExecutor

    return LocalExecutor()


def images_folder(volume: Path | None = None) -> Path:
    """Where the image files of apptainer and charliecloud lie: HARNESS_IMAGES, else `images` on the
    volume."""
    named = os.environ.get("HARNESS_IMAGES")
    volume = volume or Path(os.environ.get("HARNESS_DATA") or "runs")
    return Path(named) if named else volume / "images"


def on_loopback(url: str) -> bool:
    """Whether a URL names this machine itself, which inside a container is the container."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
