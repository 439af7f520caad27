"""What submissions and jobs leave on the volume, below slurm/: what a task is to do, under which job a
stage was submitted, and what each job says of itself. No secret is in any of it."""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.artefact.store import SHORT, write_atomically
from harness.common.json_files import read_object
from harness.errors import InputError
from harness.run.slurm.checkout import Checkout

FORMAT = 2
COMMENT = "harness:"
LOCK = ("slurm", "submission")
"""Of the store's: two submissions at a time would hand over the same stage."""


@dataclass(frozen=True)
class Order:
    """What a job is told: everything with which its node plans the stage again."""

    stage: str
    key: str
    spec: str
    scale: str
    volume: str
    inputs: str | None
    cwd: str
    executor: str
    checkout: Checkout
    document: dict[str, Any]
    """What the key is of, to say what differs where the node has another."""
    submitted: float
    """By the login node's clock."""
    requeues: int
    warning_seconds: int
    machines: int = 1

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Order":
        if values.pop("format", None) != FORMAT:
            raise InputError("another version of the harness submitted this job", "Submit again.")
        return cls(**{**values, "checkout": Checkout(**values["checkout"])})

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Submitted:
    """Under which job a stage was handed over last."""

    stage: str
    key: str
    submission: str
    """Stands in the job's comment too, by which it is known: Slurm gives numbers out again."""
    task: int | None
    """Its index in an array; None for a job alone."""
    job: str = ""
    """Slurm's number, of an array the array's; empty until sbatch has answered."""
    at: float = 0.0
    cancelled: bool = False
    name: str = ""
    """The job's: what accounting knows it by where it keeps no comments."""

    @property
    def ref(self) -> str:
        """As Slurm's commands take and say it."""
        return self.job if self.task is None else f"{self.job}_{self.task}"

    @property
    def comment(self) -> str:
        """The job's."""
        return COMMENT + self.submission


@dataclass(frozen=True)
class Attempt:
    """A job's own words, from one start to its end."""

    job: str
    submission: str
    node: str
    started: float
    restart: int = 0
    skew: float = 0.0
    """Seconds by which the node's clock is ahead of the volume's."""
    behind: float = 0.0
    """Seconds by which it starts before it was submitted: the login node's clock is ahead."""
    ended: float | None = None
    outcome: str = ""
    """done, failed, refused, requeued or stopped; empty: it runs, or ended without a word."""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class MachineFault:
    """Why one of a training's other machines ended before the first."""

    submission: str
    restart: int
    rank: int
    node: str
    outcome: str
    """failed or refused."""
    message: str
    hint: str = ""


@dataclass
class Records:
    """Those of one volume."""

    root: Path
    """The volume's folder `slurm`."""

    @property
    def jobs(self) -> Path:
        """submitit's batch files, and the jobs' output."""
        return self.root / "jobs"

    def prepare(self) -> None:
        for name in ("jobs", "orders", "submitted", "attempts", "faults"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def order_path(self, submission: str, task: int | None) -> Path:
        return self.root / "orders" / submission / f"{task or 0}.json"

    def write_order(self, submission: str, task: int | None, order: Order) -> None:
        path = self.order_path(submission, task)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(order.to_json(), sort_keys=True) + "\n")

    def submitted(self, stage: str, key: str) -> Submitted | None:
        """None where it never was.

        Raises:
            InputError: the record is damaged; taken for none, the stage would be submitted twice.
        """
        path = self._path("submitted", stage, key)
        try:
            record = Submitted(**json.loads(path.read_text(encoding="utf-8")))
            if not all(isinstance(v, str) for v in (record.key, record.submission, record.job)):
                raise TypeError
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as e:
            why = f": {e.strerror}" if isinstance(e, OSError) else ""
            raise InputError(
                f"{path}, which says under which job a stage was submitted, cannot be read{why}",
                f"Where `squeue --me` shows no {stage} job of this row (else `scancel` it first), "
                "delete this file and submit again.",
            ) from None
        return record if record.key == key else None

    def all_submitted(self) -> list[Submitted]:
        """Of every stage; those whose record is damaged are left out."""
        found = []
        for path in sorted((self.root / "submitted").glob("*.json")):
            with contextlib.suppress(TypeError):
                found.append(Submitted(**(read_object(path) or {})))
        return found

    def is_own(self, record: Submitted) -> bool:
        """Whether this user submitted it."""
        return self._path("submitted", record.stage, record.key).stat().st_uid == os.getuid()

    def write_submitted(self, record: Submitted) -> None:
        _write(self._path("submitted", record.stage, record.key), asdict(record))

    def attempts(self, stage: str, key: str) -> list[Attempt]:
        values = read_object(self._path("attempts", stage, key)) or {}
        try:
            return [Attempt(**a) for a in values.get("attempts", [])]
        except TypeError:  # damaged, or another version's
            return []

    def begin(self, stage: str, key: str, attempt: Attempt) -> None:
        self._keep(stage, key, [*self.attempts(stage, key), attempt])

    def end(self, stage: str, key: str, outcome: str, message: str = "", hint: str = "") -> None:
        """Of the last attempt."""
        *before, last = self.attempts(stage, key)
        ended = replace(last, ended=time.time(), outcome=outcome, message=message, hint=hint)
        self._keep(stage, key, [*before, ended])

    def tell_fault(self, stage: str, key: str, fault: MachineFault) -> None:
        """The first of a start counts, the first machine's own too: others end because of it."""
        start = (fault.submission, fault.restart)
        own = [a for a in self.attempts(stage, key) if (a.submission, a.restart) == start]
        has_failed = any(a.outcome in ("failed", "refused") for a in own)
        if not has_failed and self.fault(stage, key, *start) is None:
            _write(self._path("faults", stage, key), asdict(fault))

    def fault(self, stage: str, key: str, submission: str, restart: int) -> MachineFault | None:
        """Of this start."""
        values = read_object(self._path("faults", stage, key)) or {}
        try:
            fault = MachineFault(**values)
        except TypeError:  # there is none, or a damaged one, or another version's
            return None
        return fault if (fault.submission, fault.restart) == (submission, restart) else None

    def _keep(self, stage: str, key: str, attempts: list[Attempt]) -> None:
        _write(
            self._path("attempts", stage, key), {"attempts": [asdict(a) for a in attempts[-20:]]}
        )

    def outputs(self, record: Submitted) -> list[Path]:
        """Of each of its machines, the one first that was written last."""
        found = [
            p for p in self.jobs.glob(f"{record.ref}_*_log.out") if _task(p, record) is not None
        ]
        return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)

    def errors(self, record: Submitted, rank: int = 0) -> Path:
        return self.jobs / f"{record.ref}_{rank}_log.err"

    def _path(self, kind: str, stage: str, key: str) -> Path:
        return self.root / kind / f"{stage}-{key[:SHORT]}.json"


def _task(path: Path, record: Submitted) -> int | None:
    """Whose output it is; None for another job whose name begins alike, as an array's tasks' do."""
    number = path.name.removeprefix(f"{record.ref}_").removesuffix("_log.out")
    return int(number) if number.isdigit() else None


def _write(path: Path, values: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(values, sort_keys=True) + "\n")
