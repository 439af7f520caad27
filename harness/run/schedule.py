"""Runs planned stages several at a time: as many as the machine bears, and none that another run has.

A stage whose lock another process holds is set aside; when nothing else is left, it is waited for.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.artefact.store import Store
from harness.common.board import Board
from harness.common.numbers import byte_size
from harness.common.progress import plain, say
from harness.errors import HarnessError, InputError, Interrupted
from harness.run.executors import STOP_LIMIT, Executor, has_made, stopped
from harness.run.failures import Failures
from harness.run.machine import Ledger, Machine, Part, endpoints_of
from harness.run.plan import RowPlan, StageId, StagePlan
from harness.run.resources import Resources, resources_of, threads_are_open
from harness.run.runner import Runner, Turn

HELD_SECONDS = 1.0
"""How often a stage is asked for again that another process holds."""


def run(
    runner: Runner,
    new_executor: Callable[[], Executor],
    plans: Sequence[RowPlan],
    only: Sequence[str] = (),
    jobs: int | None = None,
    machine: Machine | None = None,
) -> None:
    """Run every stage (or the stages named in `only`) that is not there yet, `jobs` at a time at most;
    None: as many as the machine bears while each has what it has alone.

    `new_executor`: one for each stage that runs. Raises as Runner.run; and InputError where several are
    wanted at a time and one is foretold to need more memory than there is.
    """
    if jobs == 1:
        runner.run(plans, only)
        return
    # What is downloaded first makes known how much memory a model takes.
    everything = runner.begin(plans, only)
    machine = machine or Machine.here()
    stages = [stage for stage in everything if stage.status != "reuse"]
    wanted = {stage.id: resources_of(stage) for stage in stages}
    if jobs is None and not _bears_two(stages, wanted, Ledger(machine, runner.executor.name)):
        runner.go_through(everything, plans)
        return
    if jobs is not None:
        _check_memory(stages, wanted, machine)
    ledger = Ledger(machine, runner.executor.name, jobs)
    Schedule(runner, new_executor, plans, wanted, ledger, jobs).run(everything)


@dataclass
class _Running:
    """A stage that runs in a thread of its own."""

    stage: StagePlan
    part: Part
    turn: Turn
    lock: int
    held: contextlib.ExitStack
    """Lets go of the lock."""
    thread: threading.Thread | None = None
    error: BaseException | None = None

    @property
    def began(self) -> bool:
        return self.thread is not None and self.thread.ident is not None

    @property
    def has_ended(self) -> bool:
        return self.thread is None or not self.thread.is_alive()


class Schedule:
    """One run of many stages. All but the stages themselves happens in the thread that calls `run`."""

    def __init__(
        self,
        runner: Runner,
        new_executor: Callable[[], Executor],
        plans: Sequence[RowPlan],
        wanted: dict[StageId, Resources],
        ledger: Ledger,
        jobs: int | None,
    ) -> None:
        self.runner, self.new_executor, self.plans = runner, new_executor, plans
        self.store, self.console = runner.store, runner.console
        self.wanted, self.ledger, self.jobs = wanted, ledger, jobs
        self.board = Board(self.console, len(wanted))
        self.waiting: list[StagePlan] = []
        self.running: list[_Running] = []
        self.held: dict[StageId, bool] = {}
        """Those that another process works on, and whether that was said."""
        self.failures = Failures()
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self, stages: Sequence[StagePlan]) -> None:
        """Go through all stages. Raises as Runner.run."""
        self.waiting = [stage for stage in stages if stage.id in self.wanted]
        with self.failures.told_when_stopped():
            for stage in stages:
                if stage.id not in self.wanted:
                    self.runner.attempt(stage, self.plans, self.failures)
            self._tell_threads()
            with self.board:
                try:
                    self._keep_out()
                    self._go_through()
                except KeyboardInterrupt:
                    raise self._interrupted() from None
                except BaseException:
                    self._stop()
                    raise
        self.failures.tell()

    def _tell_threads(self) -> None:
        count, cpus = self.ledger.open_threads, self.ledger.machine.cpus
        kinds = {s.id: self.wanted[s.id].kind for s in self.waiting if threads_are_open(s)}
        if count < cpus and "cpu" in kinds.values():
            say(
                self.console,
                f"models on the CPU get {count} of {cpus} threads each where their spec leaves "
                "`threads` open: the last bits of float sums depend on it",
            )

    def _go_through(self) -> None:
        while self.waiting or self.running:
            self._start()
            if not self.running:
                self._say_who_holds()
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=HELD_SECONDS if self.held else None)
            for running in [r for r in self.running if r.has_ended]:
                self._settle(running)

    def _start(self) -> None:
        """Start what can be, in the plan's order: none is overtaken by another that takes the same."""
        full: set[tuple[str, frozenset[tuple[str | None, str]]]] = set()
        unmade = {s.id for s in [*self.waiting, *(r.stage for r in self.running)]}
        for stage in list(self.waiting):
            if self.jobs is not None and len(self.running) >= self.jobs:
                return
            wanted = self.wanted[stage.id]
            scarce = (wanted.kind, endpoints_of(stage))
            if scarce in full or any(s.id in unmade for s in stage.inputs.values()):
                continue
            part = self.ledger.take(stage, wanted)
            if part is None:
                full.add(scarce)
            elif not self._begin(stage, part):
                self.ledger.give_back(part)

    def _begin(self, stage: StagePlan, part: Part) -> bool:
        """Run the stage in a thread, unless another process holds it; whether it runs."""
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(self.store.try_lock(stage.stage, stage.key))
            if lock is None:
                self.held.setdefault(stage.id, False)
                return False
            view = self.board.view(stage.title)
            turn = Turn(self.runner.executor, view, part.share)
            running = _Running(stage, part, turn, lock, stack.pop_all())
        self.held.pop(stage.id, None)
        self.waiting.remove(stage)
        self.running.append(running)
        running.thread = threading.Thread(target=self._work, args=(running,), name=stage.title)
        running.thread.start()
        return True

    def _work(self, running: _Running) -> None:
        """The stage's thread, which lives as long as its process: the kernel ends that with it."""
        try:
            with running.held:
                if not running.turn.stop.is_set():
                    turn = replace(running.turn, executor=self.new_executor())
                    self.runner.run_stage(running.stage, turn, running.lock)
        except BaseException as e:
            running.error = e
        finally:
            self._woken.put(None)

    def _settle(self, running: _Running) -> None:
        """Note how a stage ended. Raises what would hit every stage."""
        assert running.thread is not None
        running.thread.join()
        self.running.remove(running)
        self.ledger.give_back(running.part)
        stage, error = running.stage, running.error
        if error is None:
            self.board.count("done")
            self.runner.remember(stage, self.plans)
            return
        if not isinstance(error, HarnessError) or isinstance(error, Interrupted):
            raise error
        reason = self.failures.note(stage, error)
        self.board.count("failed")
        running.turn.view.say(f"failed: {plain(reason)}", "red")
        self._keep_out()

    def _keep_out(self) -> None:
        """Wait no longer for what needs a failed stage."""
        for stage in list(self.waiting):
            if self.failures.keep_out(stage):
                self.waiting.remove(stage)
                self.held.pop(stage.id, None)
                self.board.count("not run")

    def _say_who_holds(self) -> None:
        for stage in self.waiting:
            if self.held.get(stage.id) is False:
                owner = _holder(self.store, stage)
                if owner:
                    say(self.console, f"{stage.title}: waiting for {owner}")
                    self.held[stage.id] = True

    def _interrupted(self) -> Interrupted:
        """End all stages, each in its time; what to say then."""
        count = len(self.running)
        stages = f"{count} stages get" if count > 1 else "the stage gets"
        if count:
            self._tell(f"stopping: {stages} {STOP_LIMIT} to end in order; Ctrl-C again kills")
        stopped_stages = self._stop()
        if len(stopped_stages) == 1:
            return stopped(stopped_stages[0])
        titles = ", ".join(stage.title for stage in stopped_stages)
        kept = "; what they have made so far is kept"
        return Interrupted(
            f"{len(stopped_stages)} stages were stopped"
            + kept * any(map(has_made, stopped_stages))
            + (f": {titles}" if titles else ""),
            "Run the same command again to go on.",
        )

    def _stop(self) -> list[StagePlan]:
        """End all that runs, at once when asked a second time; those that were not done."""
        for running in self.running:
            running.turn.stop.set()
        while True:
            try:
                while not all(running.has_ended for running in self.running):
                    with contextlib.suppress(queue.Empty):
                        self._woken.get(timeout=HELD_SECONDS)
                break
            except KeyboardInterrupt:
                told = any(running.turn.kill.is_set() for running in self.running)
                for running in self.running:
                    running.turn.kill.set()
                if not told:
                    self._tell("killing what has not ended")
        done = [r for r in self.running if r.began and r.error is None and r.stage.artefact]
        for running in done:
            self.board.count("done")
            self.runner.remember(running.stage, self.plans)
        for running in self.running:
            if isinstance(running.error, HarnessError) and not isinstance(
                running.error, Interrupted
            ):
                self.failures.note(running.stage, running.error)
                self.board.count("failed")
                done.append(running)
        return [running.stage for running in self.running if running not in done]

    def _tell(self, text: str) -> None:
        # Ctrl-C ends what the output is piped into as well.
        with contextlib.suppress(OSError):
            say(self.console, text)


class _Held(Exception):
    """Who holds a lock."""


def _holder(store: Store, stage: StagePlan) -> str:
    """Who holds a stage's lock, in words; empty where nobody does any more."""

    def waiting(owner: str) -> None:
        raise _Held(owner)

    try:
        with store.lock(stage.stage, stage.key, waiting):
            return ""
    except _Held as e:
        return str(e)


def _bears_two(
    stages: Sequence[StagePlan], wanted: dict[StageId, Resources], ledger: Ledger
) -> bool:
    """Whether any two that do not need one another have room beside each other."""
    before: dict[StageId, set[StageId]] = {}
    for number, stage in enumerate(stages):
        inputs = [s.id for s in stage.inputs.values()]
        before[stage.id] = {*inputs, *(n for i in inputs for n in before.get(i, ()))}
        first = ledger.take(stage, wanted[stage.id])
        if first is None:
            continue
        for other in stages[:number]:
            if other.id in before[stage.id]:
                continue
            if ledger.take(other, wanted[other.id]) is not None:
                return True
        ledger.give_back(first)
    return False


def _check_memory(
    stages: Sequence[StagePlan], wanted: dict[StageId, Resources], machine: Machine
) -> None:
    """Raises InputError for a stage that is foretold to need more main memory than there is."""
    for stage in stages:
        memory = wanted[stage.id].memory
        if memory is not None and memory > machine.usable_memory:
            raise InputError(
                f"row {stage.row}: its {stage.stage} stage will need about {byte_size(memory)} of main "
                f"memory, and this machine has {byte_size(machine.memory)}",
                "Run it on a machine that has it; or, as that is an estimate, by itself and one stage "
                "at a time: --jobs 1.",
            )
