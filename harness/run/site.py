"""What belongs to a place and to no row: `harness.toml` beside the checkout, or the file that
HARNESS_CONFIG names; single settings also from the environment, which has the last word.

    [slurm]
    partition = "gpu"                 # HARNESS_SLURM_PARTITION
    account = "lab"                   # HARNESS_SLURM_ACCOUNT
    qos = "normal"                    # HARNESS_SLURM_QOS
    time = "12:00:00"                 # HARNESS_SLURM_TIME; of stages whose time is not foretold
    flags = ["--constraint=a100"]     # HARNESS_SLURM_FLAGS; sbatch's own, as on its command line
    executor = "apptainer"            # HARNESS_SLURM_EXECUTOR; what runs a stage on its node
    cpus = 4                          # of stages whose model's threads the spec leaves open
    accelerator = "cuda"              # HARNESS_ACCELERATOR; where the login node has no GPU
    export = ["LAB_PROXY"]            # more variables that jobs get of the caller's
    setup = ["module load cuda"]      # lines of shell before a job's work
    warning_seconds = 120             # between Slurm's warning and the end of a job's time
    requeues = 5                      # how often a job that was warned, preempted or lost goes on
    parallel = 64                     # jobs of one array at the same time
    probe = true                      # look at one free node before jobs are submitted
"""

import difflib
import os
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.artefact.environment import ACCELERATORS, root
from harness.common.executor_names import check_name
from harness.errors import InputError

CONFIG = "HARNESS_CONFIG"
FILE = "harness.toml"
TABLE = "slurm"
PREFIX = "HARNESS_SLURM_"
FROM_ENVIRONMENT = ("partition", "account", "qos", "time", "flags", "executor")
FLAG = re.compile(r"--[a-z][a-z0-9-]*(=\S.*)?")
OURS = (
    "array", "chdir", "clusters", "comment", "dependency", "error", "export", "export-file",
    "get-user-env", "help", "job-name", "kill-on-invalid-dep", "no-requeue", "nodes", "ntasks",
    "ntasks-per-node", "open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only",
    "usage", "version", "wait", "wrap",
)  # fmt: skip
"""Of sbatch's options those with which jobs would not be what the harness takes them for, or sbatch
would submit none, or not say its number."""
LEAST_WARNING = 10
"""Seconds."""
EXPECTED = {
    "extra_forbidden": "there is no such setting",
    "tuple_type": 'must be a list of texts, such as ["--constraint=a100"]',
    "string_type": "must be a text in quotes",
    "int_type": "must be a whole number, such as 4, without quotes",
    "bool_type": "must be true or false, without quotes",
}


class SlurmSite(BaseModel):
    """`[slurm]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    flags: tuple[str, ...] = ()
    executor: str = "local"
    cpus: Annotated[int, Field(ge=1, strict=True)] = 4
    accelerator: str | None = None
    export: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    warning_seconds: Annotated[int, Field(ge=LEAST_WARNING, strict=True)] = 120
    requeues: Annotated[int, Field(ge=0, strict=True)] = 5
    parallel: Annotated[int, Field(ge=1, strict=True)] = 64
    probe: Annotated[bool, Field(strict=True)] = True

    def options(self) -> dict[str, str | bool]:
        """The flags as sbatch's long options: name -> value, True for one without."""
        parts = [flag.removeprefix("--").partition("=") for flag in self.flags]
        return {name: value if sign else True for name, sign, value in parts}


def slurm_site(environ: Mapping[str, str] = os.environ) -> SlurmSite:
    """The settings of this place.

    Raises:
        InputError: the file is not there, no TOML, or has something else than settings; so have the
            variables.
    """
    path = _path(environ)
    tables = _read(path) if path is not None else {}
    _check_tables(tables, path)
    settings = tables.get(TABLE, {})
    origin = str(path) if path is not None else "the environment"
    if not isinstance(settings, dict):
        raise InputError(f"{origin}: slurm is no table", "Write [slurm] and its settings below.")
    for name in FROM_ENVIRONMENT:
        value = environ.get(PREFIX + name.upper(), "").strip()
        if value:
            settings[name] = _parted(value) if name == "flags" else value
    try:
        site = SlurmSite.model_validate(settings)
    except ValidationError as e:
        raise InputError(
            _faults(origin, e), f"Settings: {', '.join(SlurmSite.model_fields)}"
        ) from None
    _check(site, origin, environ)
    return site


def is_configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this place has settings for Slurm, or a file of settings with a fault."""
    try:
        path = _path(environ)
        return path is not None and TABLE in _read(path)
    except InputError:
        return True


def _parted(flags: str) -> list[str]:
    try:
        return shlex.split(flags)
    except ValueError as e:
        raise InputError(
            f"{PREFIX}FLAGS cannot be taken apart as a shell does: {e}: {flags}",
            "Write it as on sbatch's command line, each quotation closed.",
        ) from None


def _path(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(CONFIG, "").strip()
    if named:
        path = Path(named)
        if not path.is_file():
            raise InputError(f"{CONFIG} names {path}, which is no file")
        return path
    for folder in (Path.cwd(), root()):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InputError(f"{path} is no TOML: {e}") from None


def _check_tables(tables: Mapping[str, object], path: Path | None) -> None:
    """Raises InputError where the file has anything besides [slurm], which would set nothing."""
    for name, value in tables.items():
        if name == TABLE:
            continue
        if name in SlurmSite.model_fields:
            raise InputError(
                f"{path}: {name} stands outside of its table", "Write [slurm] above it."
            )
        what = f"[{name}]" if isinstance(value, dict) else name
        raise InputError(
            f"{path}: there is no table or setting {what}{_nearest(name, [TABLE])}",
            "A place has one table, [slurm]. Its settings: " + ", ".join(SlurmSite.model_fields),
        )


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _faults(origin: str, error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = ".".join(map(str, fault["loc"]))
        what = EXPECTED.get(fault["type"], fault["msg"])
        if fault["type"] == "extra_forbidden":
            what += _nearest(name, SlurmSite.model_fields)
        faults.append(f"slurm.{name}: {what}")
    return f"{origin}: " + "; ".join(faults)


def _check(site: SlurmSite, origin: str, environ: Mapping[str, str]) -> None:
    for name, value in site:
        for text in value if isinstance(value, tuple) else (value,):
            # Of setup a text may be several lines.
            allowed = "\t\n" if name == "setup" else ""
            if isinstance(text, str) and any(
                unicodedata.category(c) == "Cc" and c not in allowed for c in text
            ):
                variable = PREFIX + name.upper()
                is_variable = name in FROM_ENVIRONMENT and environ.get(variable, "").strip()
                raise InputError(
                    f"{variable if is_variable else f'{origin}: slurm.{name}'}: {text!r} has a "
                    "control character",
                    "Write it without.",
                )
    if site.accelerator and site.accelerator not in ACCELERATORS:
        raise InputError(
            f"{origin}: slurm.accelerator is {site.accelerator!r}; it can be cpu or cuda",
            "Without it, what this machine has counts.",
        )
    for flag in site.flags:
        if not FLAG.fullmatch(flag):
            raise InputError(
                f"{origin}: slurm.flags: {flag!r} is no long option of sbatch",
                "Write each as one text: --constraint=a100",
            )
    if taken := [name for name in site.options() if _is_ours(name)]:
        raise InputError(
            f"{origin}: slurm.flags: --{taken[0]} is set by the harness itself",
            "By such options jobs are found again, chained, sized and given their keys.",
        )
    named = environ.get(PREFIX + "EXECUTOR", "").strip()
    check_name(site.executor, f"{PREFIX}EXECUTOR" if named else f"{origin}: slurm.executor")
    if site.time is not None and seconds(site.time) == 0:
        raise InputError(
            f"slurm.time: {site.time!r} gives a job no time",
            "For example 12:00:00; UNLIMITED is without end.",
        )


def _is_ours(name: str) -> bool:
    """sbatch takes the beginning of an option's name for it."""
    return any(ours.startswith(name) for ours in OURS)


def seconds(time: str, origin: str = "slurm.time") -> int | None:
    """Of a time as Slurm writes it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None: without end.
    `origin`: whose it is.

    Raises:
        InputError: it is none.
    """
    if time.upper() in ("UNLIMITED", "INFINITE", "NONE"):
        return None
    days, dash, rest = time.rpartition("-")
    parts = rest.split(":")
    if not all(p.isdigit() for p in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise InputError(
            f"{origin}: {time!r} is no time of Slurm's", "For example 12:00:00, or 1-12:00:00."
        )
    numbers = [int(p) for p in parts]
    if dash:  # D-H, D-H:M, D-H:M:S
        h, m, s = numbers + [0] * (3 - len(numbers))
        return ((int(days) * 24 + h) * 60 + m) * 60 + s
    if len(numbers) == 1:  # minutes
        return numbers[0] * 60
    if len(numbers) == 2:  # M:S
        return numbers[0] * 60 + numbers[1]
    return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
