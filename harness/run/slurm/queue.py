"""What Slurm says of jobs: one call for all; accounting's word on those that the controller forgot."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.run.slurm import tools
from harness.run.slurm.grouping import HasKey, Id
from harness.run.slurm.records import Records, Submitted

FIELDS = "%i|%T|%N|%S|%k|%r"
"""Job, state, nodes, start, comment, reason (last, for it is free text)."""
WAITING = frozenset({
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
})  # fmt: skip
RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "STAGE_OUT", "SIGNALING", "STOPPED"}
)
REF = re.compile(r"\d+(?:[_+]\d+)?")
TASKS = re.compile(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]")
PART = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?")
MOST_TASKS = 4_000_001
"""The most that Slurm's MaxArraySize can be."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or an array's task."""

    ref: str
    state: str
    node: str = ""
    start: str = ""
    comment: str = ""
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs, so that its stage need not be submitted."""
        return self.state in WAITING or self.state in RUNNING


def jobs() -> dict[str, QueuedJob]:
    """Every job of this user that the controller knows, by its number (`12`, `12_3`).

    Raises:
        SlurmFault: the controller does not answer.
        HarnessError: its answer is none.
    """
    # By number, for not every user has a name on every machine.
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    found: dict[str, QueuedJob] = {}
    line = ""
    for text in tools.call([*command, f"--format={FIELDS}"]).split("\n"):
        line = f"{line} {text}".strip()
        parts = [part.strip() for part in line.split("|", 5)]
        refs = _refs(parts[0])
        if line and not refs:
            break
        if len(parts) == 6:
            found |= {ref: QueuedJob(ref, *parts[1:]) for ref in refs}
            line = ""
        # Else a comment that goes on in the next line.
    if line:
        # Taken for no job, it would have stages submitted that are queued.
        shown = line if len(line) <= 80 else f"{line[:80]}..."
        raise HarnessError(
            f"squeue's answer could not be read: {shown!r}",
            f"Each line should be a job as --format='{FIELDS}' writes it; see what `squeue --me "
            f"--format='{FIELDS}'` says.",
        )
    return found


def handed_over(
    records: Records, stages: Iterable[HasKey]
) -> tuple[dict[Id, Submitted], dict[str, QueuedJob]]:
    """Under which job each stage was handed over last, of those that were; and all jobs, by one
    question to Slurm. A job whose number a submission that was cut off did not note is known by its
    comment, or by what it said of itself.

    Raises:
        SlurmFault: the controller does not answer.
        InputError: a stage's record is damaged.
    """
    found = {
        (s.stage, s.key): record
        for s in stages
        if (record := records.submitted(s.stage, s.key)) is not None
    }
    known = jobs() if found else {}
    numbers = {job.comment: job.ref.split("_")[0] for job in known.values()}
    return {
        stage: record
        if record.job
        else replace(record, job=numbers.get(record.comment) or _own_number(records, record))
        for stage, record in found.items()
    }, known


def waiting(records: Records) -> list[Submitted]:
    """The last submissions of stages whose jobs wait or run. Where Slurm cannot be asked of one, as of
    another user's, it counts until its job says that it has ended."""
    submitted = records.all_submitted()
    own = [r for r in submitted if records.is_own(r)] if shutil.which("squeue") else []
    try:
        found, known = handed_over(records, own)
    except HarnessError:
        found, known = {}, {}

    def is_open(record: Submitted) -> bool:
        noted = found.get((record.stage, record.key))
        if noted is not None and noted.job:
            job = job_of(noted, known)
            return job is not None and is_kept(noted, job)
        attempts = records.attempts(record.stage, record.key)
        ended = (a for a in attempts if a.outcome in ("done", "failed", "refused"))
        return not record.cancelled and all(a.submission != record.submission for a in ended)

    return [record for record in submitted if is_open(record)]


def _own_number(records: Records, record: Submitted) -> str:
    own = (
        attempt.job
        for attempt in records.attempts(record.stage, record.key)
        if attempt.submission == record.submission
    )
    return next(own, "").split("_")[0]


def job_of(record: Submitted, known: Mapping[str, QueuedJob]) -> QueuedJob | None:
    """The record's job; None where Slurm knows none of its number, or another that has got it since."""
    job = known.get(record.ref) if record.job else None
    return job if job is not None and job.comment == record.comment else None


def is_kept(record: Submitted, job: QueuedJob) -> bool:
    """Whether the record's job waits or runs, as Slurm says it: a cancelled one may have been let go
    on. Only of one that ends the note says whether it is over."""
    return job.is_open and not (record.cancelled and job.state == "COMPLETING")


def forgotten(records: Iterable[Submitted]) -> dict[str, QueuedJob]:
    """Of jobs that the controller no longer knows what accounting says; empty where there is none. Not
    every accounting keeps comments: where it does not, the job's name has to be the same."""
    asked = {record.ref: record for record in records}
    if not asked or shutil.which("sacct") is None:
        return {}
    command = [
        "sacct",
        "--allocations",
        "--noheader",
        "--parsable2",
        f"--jobs={','.join(sorted(asked))}",
    ]
    try:
        said = tools.call([*command, "--format=JobID,State,NodeList,JobName,Comment"])
    except tools.SlurmFault:
        return {}
    found: dict[str, QueuedJob] = {}
    for line in said.splitlines():
        parts = line.split("|")
        record = asked.get(parts[0])
        if len(parts) != 5 or record is None or not parts[1].strip():
            continue
        comment = parts[4] or (record.comment if parts[3] == record.name else "")
        # "CANCELLED by 1000" has more than the state.
        found[record.ref] = QueuedJob(record.ref, parts[1].split()[0], parts[2], comment=comment)
    return found


def _refs(text: str) -> list[str]:
    """`12`, `12_3`, or with several tasks in one line `12_[0-2,5%4]`; none where it is no job."""
    if REF.fullmatch(text):
        return [text]
    match = TASKS.fullmatch(text)
    numbers: list[int] = []
    for part in match[2].split(",") if match else ():
        tasks = PART.fullmatch(part)
        if tasks is None or int(tasks[2] or tasks[1]) >= MOST_TASKS:
            return []
        numbers += range(int(tasks[1]), int(tasks[2] or tasks[1]) + 1, int(tasks[3] or 1) or 1)
    return [f"{text.partition('_')[0]}_{number}" for number in numbers]
