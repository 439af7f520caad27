"""A crate as a volume and a plan again, for `harness replay DIR|FILE.zip`."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from harness.answer.answer import Answer
from harness.answer.engine import QUANTIZATION
from harness.artefact import environment
from harness.artefact.call import CHECKPOINT
from harness.artefact.keys import Files, digest_of, file_digest, flatten, key_view
from harness.artefact.network_files import files_below
from harness.artefact.store import Artefact, Damaged, Store
from harness.common.numbers import byte_size
from harness.crate import (
    ARCHIVES,
    CRATE_FILE,
    CRATE_FORMAT,
    METADATA,
    HeldBeside,
    HeldCrate,
    HeldStage,
)
from harness.errors import HarnessError, InputError, Interrupted
from harness.gen.recipes.union import Gen
from harness.judge.kinds.union import Judge
from harness.row.rejudged import RetiredVerdicts
from harness.row.reported import PublishedJudge
from harness.row.row import Row
from harness.run.plan import RowPlan, StagePlan
from harness.run.replay import ON_MACHINE
from harness.spec.base import Data, DataPath
from harness.spec.model_source import ModelSource
from harness.spec.prompts import PromptSet
from harness.spec.template import Template
from harness.spec.train import Quantization, Train
from harness.stats.bridge import Shift

PARTS = ("artefacts", "given", "datasets")
"""Folders of a crate that a replay reads."""
READ_FILES = (CRATE_FILE, METADATA)
"""Files beside them that it reads."""
MOST_GROWTH = 200
"""An archive's content over its own size, beyond one GiB: more is a mistake or worse."""
MANIFEST_PARTS = frozenset({"metrics", "counts", "files", "cost", "simulated"})
PARAMS: dict[str, Any] = {
    "gen": Gen,
    "train": Train,
    "model": ModelSource | None,
    "template": Template | None,
    "data": Data | None,
    "answer": Answer,
    "judge": Judge,
    "prompts": PromptSet,
    "replicate": int,
    CHECKPOINT: int,
    QUANTIZATION: Quantization,
}
"""A stage's parameters (harness.run.plan): name -> spec model."""


@dataclass
class Opened:
    """A crate, laid out as a volume in a folder of its own."""

    plan: RowPlan
    store: Store
    files: Files
    notes: list[str]
    """How this harness differs from the one that made the artefacts."""
    shifts: dict[str, Shift]
    """Of the bridging models, by their rows' names, as they were when it was packed."""


class CrateFiles(Files):
    """Given files in a crate; a model whose weights were left out is where it would be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, None)
        self.folder = folder

    def locate(self, data: DataPath) -> Path:
        path = self.folder / data.path
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{data.path} leads out of the crate")
        return path


class CrateStore(Store):
    """A volume without the weights that a replay does not read."""

    def __init__(self, root: Path, left_out: frozenset[str]) -> None:
        super().__init__(root)
        self.left_out = left_out

    def _read(self, folder: Path) -> Artefact | None:
        artefact = super()._read(folder)
        if artefact is None:
            return None
        inside = f"artefacts/{folder.parent.name}/{folder.name}/"
        absent = {n.removeprefix(inside) for n in self.left_out if n.startswith(inside)}
        return replace(artefact, left_out=frozenset(absent))


def is_crate(name: str) -> bool:
    """Whether this names a crate, and no row.

    Raises:
        InputError: it is an archive of another kind.
    """
    path = Path(name)
    if path.suffix.lower() in ARCHIVES:
        raise InputError(
            f"{path}: a crate is a folder or one archive, FILE.zip",
            f"Unpack it, and name the folder that holds {CRATE_FILE}.",
        )
    is_zip = path.suffix.lower() == ".zip" or (path.is_file() and zipfile.is_zipfile(path))
    return is_zip or any((path / name).is_file() for name in (CRATE_FILE, METADATA))


def mount_of(path: Path) -> str:
    """What brings a crate that is read inside a container into another one, as an option of compose's.
    Empty where compose's own mounts hold it."""
    place = path.resolve()
    mounts = [os.environ.get(name) for name in ("HARNESS_DATA", "HARNESS_INPUTS")]
    if any(place.is_relative_to(Path(folder).resolve()) for folder in mounts if folder):
        return ""
    return f"-v {ON_MACHINE}:{place}:ro"


@contextmanager
def opened(path: Path, executor: str) -> Iterator[Opened]:
    """Lay a crate out in a temporary folder. The crate itself is only read.

    Raises:
        InputError: it is no crate of this harness, or what it holds does not fit together.
        HarnessError: an artefact is not what its manifest says, also where that is found out later.
    """
    temporary = Path(mkdtemp(prefix="harness-crate-")).resolve()
    try:
        crate = _opened(path, temporary / "volume", executor)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # Where a replay fails, what it made stays to be looked at: the messages name it.
    try:
        yield crate
    except Damaged as e:
        shutil.rmtree(temporary)
        raise _damaged(path, e) from None
    except (Interrupted, KeyboardInterrupt):
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _opened(path: Path, root: Path, executor: str) -> Opened:
    if path.is_dir() and not (path / CRATE_FILE).is_file():
        raise _damaged(path, InputError(f"it has no {CRATE_FILE}"))
    try:
        _lay_out(path, root)
    except HarnessError:
        raise
    except Exception as e:  # an archive can be damaged in more ways than zipfile names
        raise InputError(f"{path} is no crate of the harness: {_reason(e)}") from None
    if not (root / CRATE_FILE).is_file():
        raise InputError(f"{path} is no crate of the harness: it has no {CRATE_FILE}")
    try:
        held = json.loads((root / CRATE_FILE).read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise ValueError(f"{CRATE_FILE} is no mapping")
        if held.get("format") != CRATE_FORMAT:
            raise InputError(
                f"{path} is a crate of the format {held.get('format')!r}, and this harness reads "
                f"{CRATE_FORMAT}",
                "Take the version of the harness that wrote it.",
            )
        plan, store, files = _plan(cast(HeldCrate, held), root, executor)
        shifts = held_shifts(cast(HeldCrate, held))
    except Damaged as e:
        raise _damaged(path, e) from None
    except HarnessError:
        raise
    except Exception as e:  # what a stranger wrote may have any shape
        raise InputError(
            f"{path}: its {CRATE_FILE} or a manifest cannot be read: {_reason(e)}", "Get it anew."
        ) from None
    _check_whole(path, root)
    return Opened(plan, store, files, _notes(plan), shifts)


def _check_whole(path: Path, root: Path) -> None:
    """Raises HarnessError where the crate lacks a file that its description lists, or has none."""
    if path.is_dir():
        names = {str(file.relative_to(path)) for file in files_below(path)}
    else:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    if not (root / METADATA).is_file():
        raise _damaged(path, HarnessError(f"the crate is not whole: it has no {METADATA}"))
    try:
        text = (root / METADATA).read_bytes()
        listed = [e["@id"] for e in json.loads(text)["@graph"] if "File" in e["@type"]]
        missing = sorted(set(listed) - names)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise _damaged(path, HarnessError(f"its {METADATA} cannot be read: {e}")) from None
    if missing:
        count = f"{len(missing)} of {len(listed)} files are missing"
        raise _damaged(path, HarnessError(f"the crate is not whole: {count}: {', '.join(missing)}"))


def _damaged(path: Path, error: HarnessError) -> HarnessError:
    """Of a crate nothing can be removed and made anew, as of a volume."""
    return HarnessError(f"{path}: {error.message}", "Get the crate anew.")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, OSError):
        return f"{Path(error.filename).name if error.filename else ''}: {error.strerror}"
    return str(error)


def _lay_out(path: Path, root: Path) -> None:
    """Only what a crate holds is taken, and no links, so that nothing outside is reached."""
    if path.is_dir():
        for name in PARTS:
            part = path / name
            links = [p for p in (part, *part.rglob("*")) if p.is_symlink()]
            if links:
                raise InputError(f"{path} is no crate: {links[0].relative_to(path)} is a link")
            if part.is_dir():
                shutil.copytree(part, root / name)
        root.mkdir(parents=True, exist_ok=True)
        for name in filter(lambda name: (path / name).is_file(), READ_FILES):
            shutil.copyfile(path / name, root / name, follow_symlinks=False)
        return
    root.mkdir(parents=True)
    with zipfile.ZipFile(path) as archive:
        entries = [
            e for e in archive.infolist() if e.filename.split("/")[0] in (*PARTS, *READ_FILES)
        ]
        for entry in entries:
            if not (root / entry.filename).resolve().is_relative_to(root):
                raise InputError(f"{path} is no crate: it holds {entry.filename[:80]!r}")
        size, free = sum(e.file_size for e in entries), shutil.disk_usage(root).free
        if size > free or size > MOST_GROWTH * path.stat().st_size + 2**30:
            raise InputError(
                f"{path} would unpack to {byte_size(size)}, and {byte_size(free)} are free",
                "Name another folder for temporary files in TMPDIR, or unpack it yourself.",
            )
        archive.extractall(root, entries)


def _plan(held: HeldCrate, root: Path, executor: str) -> tuple[RowPlan, Store, Files]:
    store = CrateStore(root, frozenset(held["left_out"]))
    store.prepare()
    files = CrateFiles(root)
    rows = {name: Row.model_validate(row) for name, row in held["rows"].items()}
    stages: list[StagePlan] = []
    for entry in held["stages"]:
        params = {
            name: TypeAdapter(PARAMS[name]).validate_python(value)
            for name, value in entry["params"].items()
        }
        artefact = store.find(entry["stage"], entry["key"])
        if artefact is None:
            raise InputError(f"the crate lacks its artefact {entry['stage']}/{entry['key'][:12]}")
        document = artefact.manifest.document
        _check_manifest(artefact, document, entry, stages)
        _check_params(document["params"], key_view(params, _Recorded(files, store.left_out)), entry)
        stages.append(
            StagePlan(
                owner=rows[entry["row"]],
                spec=Path(held["spec"]),
                stage=entry["stage"],
                label=entry["label"],
                params=params,
                inputs={name: stages[number] for name, number in entry["inputs"].items()},
                document={
                    **document,
                    "environment": environment.environment_of(entry["stage"], executor),
                },
                key=entry["key"],
                status="reuse",
                artefact=artefact,
                tokenizer=TypeAdapter(ModelSource | None).validate_python(entry["tokenizer"]),
            )
        )
    plan = RowPlan(rows[held["row"]], Path(held["spec"]), stages)

    def beside(part: HeldBeside) -> RowPlan:
        return RowPlan(rows[part["row"]], plan.spec, [stages[number] for number in part["stages"]])

    if published := held.get("published"):
        plan.published = beside(published)
    for part in held.get("bridge", []):
        other, annotations = beside(part), DataPath(path=part["annotations"], sha256=part["sha256"])
        if file_digest(files.locate(annotations)) != annotations.sha256:
            raise InputError(
                f"the published judge's verdicts {part['annotations']} are not those that were packed",
                "They were changed after the crate was made. Get it anew.",
            )
        retired = RetiredVerdicts(annotations, PublishedJudge.model_validate(part["judge"]))
        for stage in other.final():
            stage.retired = retired
        plan.bridge.append(other)
    return plan, store, files


def held_shifts(held: HeldCrate) -> dict[str, Shift]:
    """Bridging model's row -> how the two judges differ on it, as the crate has it."""
    parts = {part["row"]: part["shift"] for part in held.get("bridge", [])}
    shape = TypeAdapter(Shift)
    return {row: shape.validate_python(shift) for row, shift in parts.items() if shift is not None}


class _Recorded(Files):
    """Digests of the given files that are whole in the crate; of others none."""

    def __init__(self, files: CrateFiles, left_out: frozenset[str]) -> None:
        super().__init__(None, None)
        self._files, self._left_out = files, left_out

    def digest(self, data: DataPath) -> str:
        path = self._files.locate(data)
        if any(name.startswith(f"{data.path}/") for name in self._left_out):
            return "left out"
        return self.digest_path(path)


def _check_manifest(
    artefact: Artefact, document: dict[str, Any], entry: HeldStage, stages: list[StagePlan]
) -> None:
    """Its key is that of what it says it was made from, its inputs are those beside it, and it has the
    parts that a replay reads."""
    input_keys = {name: stages[number].key for name, number in entry["inputs"].items()}
    if digest_of(document) != entry["key"] or document["inputs"] != input_keys:
        raise InputError(
            f"the crate's {entry['stage']} {entry['key'][:12]} is not what its key stands for",
            "It was changed after it was made. Get it anew.",
        )
    lacking = artefact.manifest.absent & MANIFEST_PARTS
    if lacking:
        raise ValueError(
            f"{entry['stage']} {entry['key'][:12]} has no {', '.join(sorted(lacking))}"
        )


def _check_params(recorded: Any, params: Any, entry: HeldStage) -> None:
    """What the crate says of a stage must be what its artefact was made from."""
    old, new = flatten(_plain(recorded)), flatten(_plain(params))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name) and new.get(name) != "left out":
            raise InputError(
                f"the crate's {entry['stage']} {entry['key'][:12]} was not made from what stands here: "
                f"{name} is another",
                "It was changed after it was made. Get it anew.",
            )


def _plain(value: Any) -> Any:
    """As JSON reads it back: tuples as lists."""
    return json.loads(json.dumps(value))


def _notes(plan: RowPlan) -> list[str]:
    notes = []
    for planned in plan.stages:
        document = planned.made.manifest.document
        code = environment.code_name(planned.stage, planned.params)
        here = environment.code_version(planned.stage, planned.params)
        if here != document["code_version"]:
            notes.append(
                f"{planned.stage} {planned.key[:12]} was made by version "
                f"{document['code_version']} of the {code} stage's code; here it is version {here}"
            )
    return notes
