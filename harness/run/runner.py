"""Carries out a plan: each stage that is not there yet is run, sealed and remembered."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.artefact import caches
from harness.artefact.caches import TOKENS
from harness.artefact.call import StageResult
from harness.artefact.keys import Files, file_digest, key_names
from harness.artefact.manifest import Manifest
from harness.artefact.store import FAILED, Artefact, Store
from harness.common import env_variables
from harness.common.paths import files_of
from harness.common.progress import ProgressView, StageView, plain, say
from harness.errors import HarnessError, InputError, Interrupted, kept, raise_all
from harness.run import ready
from harness.run.executors import (
    Executor,
    Job,
    Share,
    StageFailed,
    carry_out,
    notes_of,
    waiting,
)
from harness.run.executors.serving import served
from harness.run.failures import Failures
from harness.run.hub import Downloads, check_pinned, needs_base
from harness.run.plan import RowPlan, StagePlan, check_lineage, texts_of, unique

MADE = (".jsonl", ".safetensors", "model_outputs.json")
"""Endings of files whose content a stage made; a model's tokenizer and configuration were given."""


Around = Callable[[StagePlan], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class Turn:
    """How a stage is run: what with, shown where, on what share of the machine, and stopped by what."""

    executor: Executor
    view: StageView
    share: Share = field(default_factory=Share)
    stop: threading.Event = field(default_factory=threading.Event)
    kill: threading.Event = field(default_factory=threading.Event)


class Runner:
    """Runs planned stages with one executor on one volume."""

    def __init__(self, store: Store, files: Files, executor: Executor, console: Console) -> None:
        self.store = store
        self.files = files
        self.executor = executor
        self.console = console
        self.downloads = Downloads(store, files, executor, console)
        self.started_by: Callable[[], dict[str, Any]] | None = None
        """For manifests: what started the stage, and on which node."""

    def run(self, plans: Sequence[RowPlan], only: Sequence[str] = ()) -> None:
        """Run every stage (or the stages named in `only`) that is not there yet.

        Before the first of them, all that can be known of any of them is checked, and all that they
        read from the hub is downloaded: none is to pay for calls when another could only fail.

        Raises:
            InputError: an input is missing and its stage is not among `only`, a key is not set, a
                server cannot be reached from where its stage runs, a revision on the hub is open.
            StagesFailed: stages failed, or an artefact that they read is damaged; all that does not
                depend on them was run.
            HarnessError: no stage can run, it was interrupted.
        """
        self.go_through(self.begin(plans, only), plans)

    def go_through(
        self,
        stages: Sequence[StagePlan],
        plans: Sequence[RowPlan],
        around: Around = contextlib.nullcontext,
    ) -> None:
        """Run the stages that `begin` gave, one after the other, each within `around` it; those that
        another process works on come last. Raises as `run`, and what `around` does, at once."""
        failures = Failures()
        with failures.told_when_stopped():
            self._go_through(stages, plans, failures, around)
        failures.tell()

    def _go_through(
        self,
        stages: Sequence[StagePlan],
        plans: Sequence[RowPlan],
        failures: Failures,
        around: Around,
    ) -> None:
        pending = list(stages)
        while pending:
            with contextlib.ExitStack() as stack:
                stage, lock = self._next(pending, stack)
                pending.remove(stage)
                stack.enter_context(around(stage))
                self.attempt(stage, plans, failures, lock)

    def attempt(
        self,
        stage: StagePlan,
        plans: Sequence[RowPlan],
        failures: Failures,
        lock: int | None = None,
    ) -> None:
        """Run a stage and remember it; a fault is noted, and what needs a failed one is not run.
        `lock`: see run_stage. Raises what would hit every stage."""
        if stage.artefact is None and failures.keep_out(stage):
            return
        try:
            self.run_stage(stage, None, lock)
        except Interrupted:
            raise
        except HarnessError as e:
            say(self.console, f"  failed: {plain(failures.note(stage, e))}")
        else:
            self.remember(stage, plans)

    def _next(
        self, pending: Sequence[StagePlan], stack: contextlib.ExitStack
    ) -> tuple[StagePlan, int | None]:
        """The first stage that no other process holds, with its lock, for which `stack` is held; where
        all are held, the first, to be waited for."""
        names = {s.id for s in pending}
        ready = (s for s in pending if names.isdisjoint(i.id for i in s.inputs.values()))
        for stage in ready:
            lock = stack.enter_context(self.store.try_lock(stage.stage, stage.key))
            if lock is not None:
                return stage, lock
        return pending[0], None

    def begin(self, plans: Sequence[RowPlan], only: Sequence[str] = ()) -> list[StagePlan]:
        """The stages to be gone through, inputs before what needs them, once all that can be is checked
        and downloaded. Raises as `run`."""
        self.downloads.keys = key_names([plan.row for plan in plans])
        stages = [s for s in unique(plans) if not only or s.stage in only]
        self.prepare(plans, [s for s in stages if s.status != "reuse"], only)
        return stages

    def prepare(
        self, plans: Sequence[RowPlan], stages: Sequence[StagePlan], only: Sequence[str]
    ) -> None:
        """Check and download all that can be before the first of `stages` runs."""
        check_pinned(plans)
        to_run = {s.id for s in stages}
        paying = [p for p in plans if any(s.pays and s.id in to_run for s in p.own)]
        read = [s for p in paying for s in p.own if s.status != "reuse"]
        self.downloads.bring_files([*stages, *read])
        faults: list[InputError] = []
        for plan in plans:
            # What a stage pays for is lost where one that is to follow can only fail.
            pays = plan in paying
            with kept(faults):
                ready.check(plan, self.files, () if pays else only)
                if pays:
                    self.downloads.note_not_fetched(plan, only)
        raise_all(faults)
        for stage in stages:
            ready.check_stage(stage, only, self.store, self.executor.name)
        with env_variables.restored(self._caches()):
            self.executor.check(stages)
        self.downloads.fetch_all(stages)
        for plan in plans:
            ready.check(plan, self.files, only, self.store)

    def _caches(self) -> dict[str, str]:
        """Where a training finds what it compiled before."""
        folder = caches.for_libraries(caches.prepare(self.store.root))
        return env_variables.caches("train", folder) if folder else {}

    def run_stage(
        self, planned: StagePlan, turn: Turn | None = None, lock: int | None = None
    ) -> None:
        """Make a stage's artefact, or find it made. `turn`: how, where others run beside it;
        `lock`: the descriptor of its held lock; without one, the lock is waited for.

        Raises:
            StageFailed: it ended with a fault; Interrupted: it was stopped.
            HarnessError: an input is damaged, or was made of another than is there now; or a given
                file was changed meanwhile.
        """
        stage, key, title = planned.stage, planned.key, planned.title
        turn = turn or Turn(self.executor, ProgressView(self.console, title))
        with contextlib.ExitStack() as stack:
            if lock is None:
                told = waiting(self.console, title)
                lock = stack.enter_context(self.store.lock(stage, key, told))
            artefact = self.store.find(stage, key)
            if artefact is not None:
                planned.artefact = artefact
                say(self.console, f"{title}: there already")
                return
            check_lineage(planned)  # what is removed may come out otherwise when it is made anew
            inputs = {name: self.input(plan) for name, plan in planned.inputs.items()}
            folders = {name: a.folder for name, a in inputs.items()}
            for name, (hub, code) in planned.hubs(needs_base(inputs.get("model"))).items():
                folders[name] = self.downloads.snapshot(hub, planned, code)
            work = self.store.work_folder(stage, key)
            work.mkdir(exist_ok=True)
            self.store.note_plan(stage, key, {"row": planned.row, "document": planned.document})
            log = self.store.log_path(stage, key)
            job = self.job(planned, title, folders, work, lock, log)
            job = replace(job, share=turn.share, stop=turn.stop, kill=turn.kill)
            started = time.monotonic()
            stamps = self._stamps(planned)
            planned.artefact = self._execute(job, planned, inputs, started, stamps, turn)

    def remember(self, planned: StagePlan, plans: Sequence[RowPlan]) -> None:
        """Note a made stage's key for each row that it is of."""
        for plan in plans:
            for row, made in plan.remembered():
                name = made.memory_name
                if made.key != planned.key or self.store.remembered(row).get(name) == made.key:
                    continue
                # Other runs on this volume may be at other stages of the row.
                with self.store.lock("row", row):
                    self.store.remember(row, {name: made.key})

    def job(
        self,
        planned: StagePlan,
        title: str,
        folders: dict[str, Path],
        work: Path,
        lock: int,
        log: Path,
        replay: bool = False,
    ) -> Job:
        """The stage as an executor is given it."""
        tokenizer = planned.tokenizer
        if tokenizer is not None and tokenizer.hub is not None:
            snapshot = self.store.hub_folder(tokenizer.hub, tokenizer.trust_remote_code)
            if snapshot.is_dir():
                folders["tokenizer"] = snapshot
        cache = caches.prepare(self.store.root)
        return Job(
            stage=planned.stage,
            key=planned.key,
            title=title,
            params=planned.params,
            inputs={name: str(folder) for name, folder in folders.items()},
            work=str(work),
            log=log,
            lock=lock,
            image_stage=planned.stage,
            environment=planned.document["environment"],
            network=planned.pays and not replay,
            secrets=() if replay else tuple(sorted(key_names(planned.endpoints))),
            others_keys=self.downloads.keys | key_names(planned.owner),
            budget=planned.owner.budget.model_dump(),
            prices=planned.call_prices(),
            tokenizer=tokenizer,
            replay=replay,
            limits=planned.owner.limits,
            cache=str(cache / TOKENS) if planned.stage == "train" else None,
            caches=caches.for_libraries(cache),
            lease_seconds=self.store.locks.lease_seconds,
            serve=None if replay else served(planned, folders, self.files),
        )

    def _execute(
        self,
        job: Job,
        planned: StagePlan,
        inputs: dict[str, Artefact],
        started: float,
        stamps: dict[str, tuple[int, ...]],
        turn: Turn,
    ) -> Artefact:
        result = StageResult.read(job.folder)
        if result is None:
            result = self._follow(job, turn)
        else:
            say(self.console, f"{job.title}: an interrupted run had ended it")
        seconds = max(time.monotonic() - started, result.cost.get("stage_seconds", 0))
        self._check_untouched(job, planned, stamps)
        manifest = self._manifest(planned, result, inputs, seconds, turn.executor)
        artefact = self.store.seal(manifest, result.keep)
        turn.view.say(f"done in {manifest.cost['wall_seconds']:.1f} s")
        for note in manifest.notes:
            turn.view.say(f"note: {plain(note)}")
        for deviation in manifest.deviations:
            turn.view.say(f"deviation: {plain(deviation)}")
        for finding in manifest.findings:
            turn.view.say(f"finding: {finding.kind}: {plain(finding.message)}", "yellow")
        return artefact

    def _follow(self, job: Job, turn: Turn) -> StageResult:
        """Run the stage; why it failed is noted, so that a plan can say it.

        Where its lease is lost meanwhile it is killed: another may write into its work folder.
        """
        failed = job.folder / FAILED
        failed.unlink(missing_ok=True)
        losses: list[HarnessError] = []

        def kill(loss: HarnessError) -> None:
            losses.append(loss)
            job.kill.set()  # first: else it is given its time
            job.stop.set()

        try:
            with self.store.watched_lock(job.stage, job.key, kill):
                return carry_out(job, turn.executor, self.files, turn.view)
        except Interrupted as e:
            # Whoever was stopped by Ctrl-C stays so.
            if losses and not isinstance(e.__context__, KeyboardInterrupt):
                raise losses[0] from None
            raise
        except StageFailed as e:
            with contextlib.suppress(OSError):  # on a full disk the stage's own words are enough
                failed.write_text(e.reason, encoding="utf-8")
            raise

    def _manifest(
        self,
        planned: StagePlan,
        result: StageResult,
        inputs: dict[str, Artefact],
        seconds: float,
        executor: Executor,
    ) -> Manifest:
        """What was asked, what was used, what came out, what it cost. Simulation is inherited."""
        if self.started_by is not None:
            result.used.setdefault("environment", {})["started_by"] = self.started_by()
        sources = [*inputs.values(), *self._made_here(planned)]
        inherited = {s for a in sources for s in a.manifest.simulated}
        source = planned.params.get("model")
        document = {
            "stage": planned.stage,
            "key": planned.key,
            "document": planned.document,
            "row": planned.row,
            "label": planned.label,
            "inputs": {
                name: {"stage": a.stage, "key": a.key, "content": a.content, **texts_of(a)}
                for name, a in inputs.items()
            },
            "executor": executor.describe(),
            "used": result.used,
            "seeds": result.seeds,
            "metrics": {name: metric.to_json() for name, metric in result.metrics.items()},
            "counts": result.counts,
            "cost": {**result.cost, "wall_seconds": round(seconds, 3)},
            "simulated": sorted(inherited | set(result.simulated)),
            "random_weights": any(a.manifest.random_weights for a in sources)
            or bool(source is not None and source.random is not None),
            "notes": [*result.notes, *notes_of(executor.describe())],
            "findings": [finding.to_json() for finding in result.findings],
            "deviations": result.deviations,
            "ran": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return Manifest.from_json(document)

    def _stamps(self, planned: StagePlan) -> dict[str, tuple[int, ...]]:
        """The stamps of the given files a stage reads, which are the files that were planned.

        Raises:
            InputError: one has changed since.
        """
        fresh = Files(self.files.inputs, None, self.files.fetched)
        stamps: dict[str, tuple[int, ...]] = {}
        for data in planned.data():
            stamps |= fresh.stamps(data)
            if fresh.digest(data) != self.files.digest(data):
                raise InputError(f"{data.path} has changed since this run began", "Run it again.")
        return stamps

    def _check_untouched(
        self, job: Job, planned: StagePlan, before: dict[str, tuple[int, ...]]
    ) -> None:
        """Set aside what a stage made while a given file that it read was changed."""
        now: dict[str, tuple[int, ...]] = {}
        try:
            for data in planned.data():
                now |= self.files.stamps(data)
        except InputError:
            now = {}
        changed = sorted(n for n in {*before, *now} if _differs(before.get(n), now.get(n)))
        # A file that was only given other rights, another name or a link has its bytes.
        if not changed and before != now:
            fresh = Files(self.files.inputs, None, self.files.fetched)
            changed = [d.path for d in planned.data() if fresh.digest(d) != self.files.digest(d)]
        if changed:
            aside = job.folder.with_name(f"{job.folder.name}-aside-{time.time_ns()}")
            job.folder.rename(aside)
            job.folder.mkdir()
            for calls in aside.glob("*transcript*.jsonl"):
                shutil.copyfile(calls, job.folder / calls.name)
            raise HarnessError(
                f"{job.title}: {changed[0]} was changed while the stage ran, so what it made may "
                "not be what its key says",
                f"It stands in {aside}. Run the same command again: no answered call is made twice.",
            )

    def _made_here(self, planned: StagePlan) -> list[Artefact]:
        """Artefacts on this volume that given files are copies of: their marks are inherited."""
        digests = set()
        for data in planned.data():
            path = self.files.locate(data)
            digests |= {file_digest(p) for p in files_of(path)}
        return [
            artefact
            for artefact in (self.store.whole() if digests else [])
            if digests
            & {
                file["sha256"]
                for name, file in artefact.manifest.files.items()
                if name.endswith(MADE) and file["size"]
            }
        ]

    def input(self, planned: StagePlan) -> Artefact:
        """An input artefact whose files are what its manifest says."""
        artefact = self.store.find(planned.stage, planned.key)
        if artefact is None:
            raise HarnessError(
                f"the {planned.stage} artefact {planned.key[:12]} disappeared from the volume",
                "Run the same command again to make it anew.",
            )
        artefact.check()
        return artefact


def _differs(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> bool:
    """Whether two stamps differ in more than the time of a file's last change of any kind."""
    return before is None or now is None or before[:3] != now[:3]
