"""Where each stage of submitted rows stands: what Slurm, the volume and the jobs' own notes say."""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from harness.artefact.store import Store
from harness.common.commands import harness
from harness.common.logs import tail
from harness.run.plan import RowPlan, StagePlan, unique
from harness.run.slurm import queue, tools
from harness.run.slurm.probe import APART_S
from harness.run.slurm.queue import QueuedJob
from harness.run.slurm.records import LOCK, Attempt, MachineFault, Records, Submitted

CLOCK_S = 1.0
"""Within which times of a file and of the job that writes it are compared; a start takes longer."""
State = Literal["done", "running", "pending", "failed", "cancelled", "not run", "not submitted"]

WAITS = {
    "Priority": "while others go first",
    "Resources": "for nodes to become free",
    "Dependency": "for the stages before it",
    "BeginTime": "to be started again",
    "None": "to be looked at",
    "JobArrayTaskLimit": "for other jobs of its array (slurm.parallel)",
    "PartitionTimeLimit": "for ever: it asks for more time than its partition gives",
    "PartitionDown": "for its partition, which is down",
    "PartitionInactive": "for its partition, which is inactive",
    "ReqNodeNotAvail": "for nodes that are not available",
    "NodeDown": "for its node, which is down",
    "AssocGrpGRES": "for GPUs of your account's share",
    "QOSMaxJobsPerUserLimit": "for other jobs of yours: so many may run at a time",
    "JobHeldUser": "for you to release it (scontrol release)",
    "JobHeldAdmin": "for an administrator to release it",
    "InvalidAccount": "for ever: its account is not valid",
    "InvalidQOS": "for ever: its QOS is not valid",
    "Licenses": "for a licence",
    "Reservation": "for its reservation",
}
ENDED = {
    "TIMEOUT": "its time was up before it had stopped",
    "OUT_OF_MEMORY": "it took more memory than it asked for; limits.memory in the spec says how much",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "it was preempted and not queued again",
    "DEADLINE": "its deadline passed",
    "REVOKED": "it was revoked",
    "LAUNCH_FAILED": "its node could not start it",
}
FORGOTTEN = (
    "Slurm no longer knows its job, which left nothing on the volume: it was cancelled while it "
    "waited, or its node did not see the volume. Submit again"
)


@dataclass
class StageStatus:
    stage: StagePlan
    state: State
    job: str = ""
    node: str = ""
    since: float | None = None
    """When the present state began, as far as that is known."""
    why: str = ""
    tail: Sequence[str] = ()
    """The last lines of the log of what failed."""
    log: Path | None = None
    warning: str = ""


def statuses(plans: Sequence[RowPlan], store: Store) -> list[StageStatus]:
    """Each stage once, inputs before what needs them, by one question to Slurm (or two, where the
    controller has forgotten jobs).

    Raises:
        SlurmFault: the controller does not answer.
    """
    records = Records(store.root / "slurm")
    stages = unique(plans)
    submitted, known = queue.handed_over(records, [s for s in stages if s.artefact is None])
    missing = [r for r in submitted.values() if r.job and queue.job_of(r, known) is None]
    known = queue.forgotten(missing) | known
    found: dict[tuple[str, str], StageStatus] = {}
    for stage in stages:
        before = [found[i.id] for i in stage.inputs.values() if i.id in found]
        record = submitted.get(stage.id)
        found[stage.id] = _status(stage, record, known, before, store, records)
    return list(found.values())


def _status(
    stage: StagePlan,
    record: Submitted | None,
    known: Mapping[str, QueuedJob],
    before: Sequence[StageStatus],
    store: Store,
    records: Records,
) -> StageStatus:
    attempts = records.attempts(stage.stage, stage.key)
    last = attempts[-1] if attempts else None
    if stage.artefact is not None:
        by = stage.artefact.manifest.used.get("environment", {}).get("started_by", {})
        finished = _timestamp(stage.artefact.manifest.finished)
        return StageStatus(
            stage, "done", by.get("job", ""), by.get("node", ""), finished, warning=_clocks(last)
        )
    if record is None:
        return StageStatus(stage, "not submitted", why="; ".join(stage.reasons))
    own = last if last is not None and last.submission == record.submission else None
    job = queue.job_of(record, known)
    status = StageStatus(stage, "pending", record.ref, warning=_clocks(own))
    if job is not None and queue.is_kept(record, job):
        _open(status, job, own, before, records.outputs(record))
    elif record.cancelled or (job is not None and job.state == "CANCELLED" and own is None):
        _cancelled(status, before, record)
    else:
        _ended(status, job, own, store, records, record)
    return status


def _open(
    status: StageStatus,
    job: QueuedJob,
    own: Attempt | None,
    before: Sequence[StageStatus],
    outputs: Sequence[Path],
) -> None:
    again = ""
    if own is not None and own.outcome in ("requeued", "stopped"):
        again = f"; {own.message} at its start number {own.restart + 1}, it goes on"
    if job.state in queue.RUNNING:
        status.state, status.node = "running", job.node
        status.since = _timestamp(job.start)
        if job.state == "COMPLETING":
            # Of one that Slurm stops only the end says whether it is queued again.
            status.why = "ending" + (again if own and own.outcome == "requeued" else "")
        else:
            status.why = f"starting{again}" if again else _progress(outputs) or "starting"
        return
    lost = _lost(before)
    reason = job.reason.strip("()").split(",")[0]
    if lost is not None:
        status.state, status.why = "not run", lost
    elif reason == "DependencyNeverSatisfied":
        status.state, status.why = "not run", "a stage before it did not end well"
    elif own is not None and not again:
        status.why = f"queued again after it was lost on {own.node}; it goes on from what is kept"
    elif reason == "Dependency":
        names = ", ".join(
            f"{b.stage.stage} {b.stage.key[:12]}" for b in before if b.state != "done"
        )
        status.why = f"waits for {names}" if names else "waits for the stages before it"
    else:
        status.why = f"waits {WAITS[reason]}" if reason in WAITS else f"waits: {job.reason}"
        status.why += again


def _cancelled(status: StageStatus, before: Sequence[StageStatus], record: Submitted) -> None:
    lost = _lost(before)
    if lost is not None and not record.cancelled:
        status.state, status.why = "not run", lost
    else:
        status.state, status.since = "cancelled", record.at if record.cancelled else None
        status.why = "by harness cancel" if record.cancelled else "by scancel, or an administrator"


def _ended(
    status: StageStatus,
    job: QueuedJob | None,
    own: Attempt | None,
    store: Store,
    records: Records,
    record: Submitted,
) -> None:
    """It is no longer queued, and its artefact is not there."""
    stage = status.stage
    status.state = "failed"
    log = store.log_path(stage.stage, stage.key)
    of_the_job = records.errors(record)
    if own is None and job is None and record.job and not of_the_job.is_file():
        # Of an array's task that was cancelled while it waited Slurm keeps nothing.
        status.state, status.why = "not run", FORGOTTEN
        return
    if own is None:
        status.why, status.log = _never_began(job, record, records, store), _there(of_the_job)
        status.tail = tail(of_the_job)
        return
    logs = [log, of_the_job] if _is_written_since(log, own) else [of_the_job]
    status.node, status.since, status.log = own.node, own.ended, _there(*logs)
    fault = records.fault(stage.stage, stage.key, own.submission, own.restart)
    if fault is not None:
        _of_another_machine(status, fault, records.errors(record, fault.rank))
        return
    if own.outcome in ("failed", "refused"):
        status.why = _sentences(own.message, own.hint)
    elif job is not None and job.state in ENDED:
        status.why = ENDED[job.state]
    elif own.outcome == "stopped" and job is not None and job.state == "FAILED":
        status.why = "one of its machines ended with a fault and left no word"
    elif own.outcome == "stopped" or (job is not None and job.state == "CANCELLED"):
        status.state, status.why = "cancelled", "by scancel, or an administrator, while it ran"
        return
    else:
        status.why = f"its job ended without a word on {own.node}"
    if own.outcome == "refused":
        status.log = None
        return
    status.tail = next(filter(None, map(tail, logs)), [])


def _of_another_machine(status: StageStatus, fault: MachineFault, log: Path) -> None:
    """What ended the first machine's part, which knows no reason itself."""
    status.node = fault.node
    status.why = _sentences(fault.message, fault.hint)
    status.tail, status.log = tail(log), _there(log)


def _sentences(message: str, hint: str) -> str:
    """A fault and the way out in one line."""
    ended = message if message.endswith((".", "!", "?", ":")) else f"{message}."
    return f"{ended} {hint}" if hint else message


def _is_written_since(log: Path, attempt: Attempt) -> bool:
    """Whether a stage's log has anything of this attempt, by the volume's clock."""
    began = attempt.started - attempt.skew
    return log.is_file() and log.stat().st_mtime >= began - CLOCK_S


def _there(*logs: Path) -> Path | None:
    return next((log for log in logs if log.is_file()), None)


def _never_began(job: QueuedJob | None, record: Submitted, records: Records, store: Store) -> str:
    if not record.job:
        return "its submission was cut off, and Slurm knows no job of it. Submit again"
    if job is not None and job.state in ENDED:
        return ENDED[job.state]
    if records.errors(record).is_file():
        return "its job ended before it had begun the stage"
    where = f" on {job.node}" if job is not None and job.node else ""
    return (
        f"its job left nothing on the volume{where}: most often the node does not see {store.root}"
    )


def _lost(before: Sequence[StageStatus]) -> str | None:
    for status in before:
        if status.state in ("failed", "cancelled", "not run"):
            word = {"failed": "failed", "cancelled": "was cancelled"}.get(
                status.state, "was not run"
            )
            return f"because {status.stage.stage} {status.stage.key[:12]} {word}"
    return None


def _clocks(attempt: Attempt | None) -> str:
    if attempt is None:
        return ""
    if abs(attempt.skew) > APART_S:
        side = "ahead of" if attempt.skew > 0 else "behind"
        return f"the clock of {attempt.node} is {abs(attempt.skew):.0f} s {side} the volume's"
    if attempt.behind > APART_S:
        return (
            f"the clock of {attempt.node} is {attempt.behind:.0f} s or more behind the login node's"
        )
    return ""


def _progress(outputs: Sequence[Path]) -> str:
    """The last line that says how far the stage is. A training's first process may work on another
    machine than the first, and tells it there as an event."""
    for output in outputs:
        if lines := tail(output, 1):
            return _in_words(lines[0].strip())
    return ""


def _in_words(line: str) -> str:
    try:
        event = json.loads(line)
        if event["event"] == "note":
            return str(event["message"])
        return f"{event['task']}: {event['done']} of {event['total']} {event['unit']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return line


def _timestamp(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def nothing_submitted(store: Store, specs: Sequence[Path]) -> str:
    """A sentence where nothing was ever submitted on this volume; else empty. `specs`: how a command
    names the rows.

    Raises:
        InputError: something was, and this machine has no Slurm to ask about it.
    """
    if not Records(store.root / "slurm").root.is_dir():
        there = f"`{harness('plan', shlex.join(map(str, specs)))}` says what is there"
        return f"nothing was submitted on the volume {store.root}; {there}"
    tools.require("Do this on a login node of the cluster that something was submitted to.")
    return ""


def cancel(
    plans: Sequence[RowPlan], store: Store, waiting: Callable[[str], None]
) -> list[StagePlan]:
    """End the jobs of the rows' stages that wait or run; which stages they were of. `waiting` is told
    who submits or cancels at this moment.

    Raises:
        SlurmFault: Slurm refuses.
    """
    records = Records(store.root / "slurm")
    if not records.root.is_dir():
        return []
    with store.lock(*LOCK, waiting):
        stages = unique(plans)
        submitted, known = queue.handed_over(records, stages)
        chosen = []
        for stage in stages:
            record = submitted.get(stage.id)
            job = queue.job_of(record, known) if record is not None else None
            if record is not None and job is not None and job.is_open:
                chosen.append((stage, record))
        if chosen:
            # Noted first: what is cancelled must not look as if it had failed.
            for _, record in chosen:
                records.write_submitted(replace(record, cancelled=True, at=time.time()))
            try:
                tools.call(["scancel", *(record.ref for _, record in chosen)])
            except tools.SlurmFault:
                for _, record in chosen:
                    records.write_submitted(record)
                raise
    return [stage for stage, _ in chosen]
