"""Hands stages over to Slurm: all that can be checked or downloaded first, then few submissions."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.artefact.keys import Files, key_names
from harness.artefact.store import Store
from harness.common.commands import harness
from harness.common.progress import counted, say
from harness.errors import HarnessError, InputError
from harness.run.executors import Executor, make, placing, waiting
from harness.run.executors.local import LocalExecutor
from harness.run.plan import RowPlan, StagePlan, unique
from harness.run.runner import Runner
from harness.run.site import SlurmSite, slurm_site
from harness.run.slurm import checkout, probe, queue, tools
from harness.run.slurm.asking import Asked, asked, check, options, partition_of
from harness.run.slurm.environment import exported, only_variables
from harness.run.slurm.grouping import Group, Id, Place, groups
from harness.run.slurm.records import COMMENT, LOCK, Order, Records, Submitted

if TYPE_CHECKING:
    from submitit import SlurmExecutor

TIMED_OUT = (124, 137)
"""How coreutils' timeout ends where the command did not, the second where it had to be killed."""


@dataclass(frozen=True)
class Kind:
    """Stages of one array have the same."""

    asked: Asked
    variables: tuple[str, ...]


class OnANode(LocalExecutor):
    """The local executor at the login node, where the GPUs that a job will have are not seen."""

    def check(self, stages: Sequence[StagePlan]) -> None:
        for stage in stages:
            if lacking := placing.missing_packages([stage.stage]):
                raise InputError(
                    f"row {stage.row}: its {stage.stage} stage needs {', '.join(lacking)}, not "
                    "installed in this environment, which the nodes use too",
                    "`make install` installs all that stages need.",
                )


def checking_executor(name: str, volume: Path) -> Executor:
    return OnANode() if name == "local" else make(name, volume)


class Submission:
    """Stages of rows on one volume, at one place."""

    def __init__(
        self, store: Store, files: Files, site: SlurmSite, inputs: Path | None, console: Console
    ) -> None:
        self.store, self.files, self.site, self.inputs = store, files, site, inputs
        self.console = console
        self.records = Records(store.root / "slurm")

    def submit(self, plans: Sequence[RowPlan]) -> None:
        """Submit every stage that is neither there nor queued.

        Raises:
            InputError: Slurm, the partition or the account is not there; a stage could only fail;
                the volume's path is none for Slurm.
            StagesFailed: downloads failed.
            SlurmFault: one of Slurm's commands failed.
            HarnessError: sbatch took some stages' jobs and refused one.
        """
        tools.require()
        if "%" in str(self.records.jobs):
            raise InputError(
                f"the volume {self.store.root} has % in its path, which Slurm takes for a job's number "
                "or name in the path of an output",
                "Name another with --volume or HARNESS_DATA.",
            )
        partition = partition_of(self.site)
        self.records.prepare()
        with self.store.lock(*LOCK, waiting(self.console, "submit")):
            stages = unique(plans)
            queued = self._queued(stages)
            missing = [s for s in stages if s.artefact is None]
            to_submit = [s for s in missing if s.id not in queued]
            self._tell(len(stages) - len(missing), len(missing) - len(to_submit))
            if not to_submit:
                return
            executor = checking_executor(self.site.executor, self.store.root)
            runner = Runner(self.store, self.files, executor, self.console)
            runner.downloads.keys = key_names([plan.row for plan in plans])
            runner.prepare(plans, to_submit, ())
            kinds = {
                s.id: Kind(asked(s, self.site, partition), tuple(exported([s], self.site.export)))
                for s in to_submit
            }
            for kind in dict.fromkeys(kinds.values()):
                check(kind.asked, self.site)
            if self.site.probe:
                names = (stage.stage for stage in to_submit)
                probe.look(self.site, names, self.records.root, self.console)
            self._hand_over(to_submit, kinds, queued, _specs(plans))

    def _queued(self, stages: Sequence[StagePlan]) -> dict[Id, Place]:
        """Those that wait or run under an earlier submission."""
        records, known = queue.handed_over(self.records, stages)
        queued = {}
        for stage, record in records.items():
            job = queue.job_of(record, known)
            if job is not None and queue.is_kept(record, job):
                queued[stage] = Place(int(record.job), record.task)
        return queued

    def _tell(self, there: int, queued: int) -> None:
        if there:
            say(self.console, f"{counted(there, 'stage')} there already")
        if queued:
            say(self.console, f"{counted(queued, 'stage')} queued already")

    def _hand_over(
        self,
        stages: Sequence[StagePlan],
        kinds: dict[Id, Kind],
        queued: dict[Id, Place],
        specs: dict[Id, RowPlan],
    ) -> None:
        needed = {s.id: [i.id for i in s.inputs.values() if i.artefact is None] for s in stages}
        jobs: dict[int, int] = {}
        for group in groups(stages, needed, kinds, queued):
            first = next(iter(group.tasks.values()))
            kind = kinds[first.id]
            many = f"{', '.join(_stages(group))}, an array of {len(group.tasks)}"
            what = many if group.is_array else first.title
            try:
                job = self._submit_group(group, kind, _dependency(group, jobs), specs)
            except tools.SlurmFault as e:
                taken = ", ".join(map(str, jobs.values()))
                is_open = isinstance(e, tools.NoAnswer)
                raise HarnessError(
                    f"{e.message}: whether it took {what} the next submission sees"
                    if is_open
                    else f"sbatch did not take {what}: {e.said}",
                    f"Handed over before it: {f'jobs {taken}' if taken else 'nothing'}. The same "
                    "command again hands over the rest, and nothing twice.",
                ) from None
            jobs[-group.number] = job
            say(self.console, f"job {job}: {what}")
        say(
            self.console,
            f"Nothing has to stay here: `{harness('status')}` with the same specs says more.",
        )

    def _submit_group(
        self,
        group: Group[StagePlan],
        kind: Kind,
        dependency: str,
        specs: dict[Id, RowPlan],
    ) -> int:
        submission = uuid.uuid4().hex[:12]
        now = time.time()
        records = []
        for index, stage in group.tasks.items():
            task = index if group.is_array else None
            self.records.write_order(
                submission, task, self._order(stage, specs[stage.id], kind, now)
            )
            record = Submitted(
                stage.stage, stage.key, submission, task, at=now, name=job_name(group)
            )
            self.records.write_submitted(record)
            records.append(record)
        executor = self._executor(group, kind, dependency, submission)
        job = _handed_over(executor, self._command(group, submission), kind.variables)
        for record in records:
            self.records.write_submitted(replace(record, job=job))
        return int(job)

    def _command(self, group: Group[StagePlan], submission: str) -> str:
        """With which a job begins. All that it reads is there before sbatch is asked: a job whose
        sbatch was cut off is as good as any other."""
        words = [
            sys.executable, "-u", "-m", "harness.run.slurm.job", str(self.records.root), submission,
            *(["array"] if group.is_array else []),
        ]  # fmt: skip
        return shlex.join(words)

    def _executor(
        self, group: Group[StagePlan], kind: Kind, dependency: str, submission: str
    ) -> "SlurmExecutor":
        more: dict[str, Any] = {
            "comment": COMMENT + submission,
            # Of the few that sbatch is started with. A list of names would have every node run the
            # user's login shell besides, and jobs get what that says.
            "export": "ALL",
            "requeue": True,
            "chdir": os.getcwd(),
            **options(kind.asked, self.site),
        }
        if group.is_array:
            more["array"] = f"{','.join(map(str, group.tasks))}%{self.site.parallel}"
        if dependency:
            more |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
        executor = _in_time(self.records.jobs)
        executor.update_parameters(
            job_name=job_name(group),
            wckey=None,
            signal_delay_s=self.site.warning_seconds,
            setup=[or_end(line) for line in self.site.setup] or None,
            # Without one machine of a training the others would wait for it.
            srun_args=[
                "--export=ALL",
                "--kill-on-bad-exit=1",
                f"--cpus-per-task={kind.asked.cpus}",
            ],
            additional_parameters=more,
        )
        if group.is_array:
            # Has each task write files of its own; which indices there are says `array`.
            executor.parameters["map_count"] = len(group.tasks)
        return executor

    def _order(self, stage: StagePlan, plan: RowPlan, kind: Kind, now: float) -> Order:
        return Order(
            stage=stage.stage,
            key=stage.key,
            spec=str(plan.spec.resolve()),
            scale=plan.row.scale,
            volume=str(self.store.root),
            inputs=os.fspath(self.inputs) if self.inputs is not None else None,
            cwd=os.getcwd(),
            executor=self.site.executor,
            checkout=checkout.here(),
            document=stage.document,
            submitted=now,
            requeues=self.site.requeues,
            warning_seconds=self.site.warning_seconds,
            machines=kind.asked.machines,
        )


def job_name(group: Group[StagePlan]) -> str:
    """For squeue: STAGE:ROW and what tells its replicates apart, or of an array STAGE:xCOUNT."""
    first = next(iter(group.tasks.values()))
    which = f"x{len(group.tasks)}" if group.is_array else f"{first.row}:{first.label}"
    name = f"{'+'.join(_stages(group))}:{which}".rstrip(":")
    return re.sub(r"[^\w.+:-]+", "-", name, flags=re.ASCII)


def _stages(group: Group[StagePlan]) -> list[str]:
    return list(dict.fromkeys(stage.stage for stage in group.tasks.values()))


def or_end(line: str) -> str:
    """A line of setup without which a job does not go on: its stage would run without what it loads."""
    words = shlex.quote(f"harness.toml: this line of setup failed: {line}")
    return f"{{ {line}\n}} || {{ echo {words} >&2; exit 1; }}"


def _in_time(folder: Path) -> "SlurmExecutor":
    """One whose sbatch is ended, with what it started, if it does not answer: submitit would wait for
    ever."""
    from submitit import SlurmExecutor

    class InTime(SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            command = super()._make_submission_command(submission_file_path)
            return ["timeout", "--kill-after=5", f"{tools.TIMEOUT_S}", *command]

    return InTime(folder)


def _handed_over(executor: "SlurmExecutor", command: str, variables: Sequence[str]) -> str:
    """Slurm's number. Raises SlurmFault where sbatch refuses, does not answer, or says nothing that
    makes sense."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        # submitit writes what sbatch said there too.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            with only_variables(variables):
                return executor._submit_command(command).job_id
    except (FailedJobError, FailedSubmissionError) as e:
        why = e.__cause__
        if isinstance(why, subprocess.CalledProcessError) and why.returncode in TIMED_OUT:
            raise tools.NoAnswer("sbatch", tools.TIMEOUT_S) from None
        # Below what it quotes of sbatch submitit says how to use itself.
        words = " ".join(str(e).partition("\nJob instance")[0].split())
        raise tools.SlurmFault("sbatch", words or "no reason") from None


def _specs(plans: Sequence[RowPlan]) -> dict[Id, RowPlan]:
    """Of each stage the first row in whose plan it stands."""
    found: dict[Id, RowPlan] = {}
    for plan in plans:
        for stage in plan.stages:
            found.setdefault(stage.id, plan)
    return found


def _dependency(group: Group[StagePlan], jobs: dict[int, int]) -> str:
    """As sbatch takes it."""

    def number(job: int) -> int:
        return jobs[job] if job < 0 else job

    parts = [
        f"afterok:{number(place.job)}" + (f"_{place.task}" if place.task is not None else "")
        for place in sorted(group.after, key=lambda p: (p.job, p.task or 0))
    ]
    if group.each_after is not None:
        parts.append(f"aftercorr:{number(group.each_after)}")
    return ",".join(parts)


def site_here() -> SlurmSite:
    """This place's settings; what it says of GPUs counts from now on, as HARNESS_ACCELERATOR does."""
    site = slurm_site()
    if site.accelerator is not None:
        os.environ.setdefault("HARNESS_ACCELERATOR", site.accelerator)
    return site
