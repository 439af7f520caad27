"""`harness export ROW --to DIR|FILE.zip`: everything that a replay of the row needs, in one folder."""

import contextlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from harness import __version__
from harness.artefact.keys import Files
from harness.artefact.network_files import files_below
from harness.artefact.store import Artefact, Store
from harness.common.commands import harness
from harness.common.numbers import byte_size
from harness.common.progress import counted, plain
from harness.crate import (
    ARCHIVES,
    CRATE_FILE,
    CRATE_FORMAT,
    METADATA,
    WEIGHTS,
    HeldBeside,
    HeldBridge,
    HeldCrate,
    HeldStage,
    check_target,
)
from harness.crate.metadata import metadata_of
from harness.crate.readme import readme_of
from harness.errors import InputError
from harness.row.row import Row, Stated
from harness.run.plan import RowPlan, StagePlan, dump, made_otherwise, unique
from harness.run.replay import NEEDED
from harness.spec.base import DATA_SCHEME, DataPath
from harness.spec.source import Fault, Node, load_tree
from harness.stats.bridge import Shift

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive: the same artefacts then give the same bytes."""
ROW_FIELDS = {
    "row",
    "table",
    "title",
    "varied",
    "source",
    "reported",
    "deviations",
    "assumptions",
    "limits",
}
"""What a crate tells of a row beside its stages."""
PUBLISHED = {"reported": {"outputs", "annotations", "bridge"}}
"""Addresses, which only the spec's copy tells."""


@dataclass
class Crate:
    """What is being packed."""

    plan: RowPlan
    store: Store
    files: Files
    folder: Path
    weights: bool
    given_files: dict[Path, str] = field(default_factory=dict)
    """A given file or folder -> its name in the crate."""
    spec_names: dict[str, str] = field(default_factory=dict)
    """That name -> how the spec names it."""
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    """Of the bridging models, by their rows' names."""
    left_out: list[str] = field(default_factory=list)
    """Weights that are not in the crate, relative to its root."""


def pack(
    store: Store,
    files: Files,
    plan: RowPlan,
    tables: dict[str, str],
    to: Path,
    weights: bool = False,
    shifts: Mapping[str, Shift] | None = None,
) -> list[str]:
    """Write the crate into a folder that appears when it is whole, or into one archive (.zip).

    Args:
        tables: file's name -> text, the row's lines of the matrix.
        weights: whether the trained models' weights go with it.
        shifts: bridging model's row -> how the two judges differ on it, which a replay computes anew.

    Returns:
        What was done, in words.

    Raises:
        InputError: the row is not finished, the target is there already, is named like an archive of
            another kind, or cannot be written.
        Damaged: an artefact is not what its manifest says.
    """
    if to.suffix.lower() in ARCHIVES:
        raise InputError(
            f"--to {to}: a crate is a folder or one archive, FILE.zip",
            f"Name {_without_ending(to)}.zip; or a folder, and pack that yourself.",
        )
    check_target(to, "Name a folder or a .zip file that is not.")
    absent = [s for s in plan.stages if s.artefact is None]
    if absent:
        raise InputError(
            f"row {plan.row.row} is not finished: its {absent[0].stage} "
            f"{absent[0].key[:12]} is not on the volume",
            f"Make it: {harness('run', plan.target)}{made_otherwise(absent)}",
        )
    plan.check_inputs()
    to.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        part.chmod(0o755)
        crate = Crate(plan, store, files, part / "crate", weights, shifts=shifts or {})
        crate.folder.mkdir()
        _fill(crate, tables)
        size = sum(p.stat().st_size for p in files_below(crate.folder))
        if to.suffix.lower() == ".zip":
            _zip(crate.folder, part / to.name)
            (part / to.name).rename(to)
            size = to.stat().st_size
        else:
            crate.folder.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sentences = [f"packed into {to}: {byte_size(size)}; anyone can run: harness replay {to}"]
    if crate.left_out:
        sentences.append(
            "left out, because a replay does not read them: "
            f"{counted(len(crate.left_out), 'file')} of weights (--weights takes them along)"
        )
    return [plain(line) for line in sentences]


def _without_ending(to: Path) -> Path:
    bare = to.with_suffix("")
    return bare.with_suffix("") if bare.suffix.lower() in ARCHIVES else bare


def _fill(crate: Crate, tables: dict[str, str]) -> None:
    stages = unique([crate.plan])
    for planned in stages:
        planned.made.check()
        _copy_artefact(crate, planned.made)
    snapshots = _copy_snapshots(crate, stages)
    dumped = [_dumped(crate, planned, stages) for planned in stages]
    specs = _copy_specs(crate)
    for name, text in tables.items():
        _write(crate.folder / "tables" / name, text)
    owners = {s.row: _told(s.owner) for s in stages}
    held: HeldCrate = {
        "format": CRATE_FORMAT,
        "harness": __version__,
        "row": crate.plan.row.row,
        "spec": specs[0],
        "rows": owners,
        "stages": dumped,
        "left_out": crate.left_out,
        "published": _beside(crate.plan.published, stages) if crate.plan.published else None,
        "bridge": [_bridged(crate, other, stages) for other in crate.plan.bridge],
    }
    _write(crate.folder / CRATE_FILE, _json(held))
    _write(
        crate.folder / "README.md", readme_of(crate.plan, stages, crate.spec_names, crate.left_out)
    )
    described = metadata_of(crate.plan, stages, specs, snapshots, crate.folder)
    _write(crate.folder / METADATA, _json(described))


def _beside(plan: RowPlan, stages: Sequence[StagePlan]) -> HeldBeside:
    places = {s.id: number for number, s in enumerate(stages)}
    return {"row": plan.row.row, "stages": [places[s.stage, s.key] for s in plan.stages]}


def _bridged(crate: Crate, plan: RowPlan, stages: Sequence[StagePlan]) -> HeldBridge:
    retired, shift = plan.final()[0].retired, crate.shifts.get(plan.row.row)
    assert retired is not None
    assert retired.annotations.sha256 is not None
    return {
        **_beside(plan, stages),
        "annotations": _placer(crate)(retired.annotations),
        "sha256": retired.annotations.sha256,
        "judge": retired.judge.model_dump(mode="json"),
        "shift": asdict(shift) if shift is not None else None,
    }


def _told(row: Row) -> dict[str, Any]:
    """What is stated of its settings stands in its lists: the crate has no settings of the row's."""
    notes = {f"{kind}s": row.stated(kind) for kind in get_args(Stated)}
    return row.model_dump(mode="json", include=ROW_FIELDS, exclude=PUBLISHED) | notes


def _dumped(crate: Crate, planned: StagePlan, stages: Sequence[StagePlan]) -> HeldStage:
    places = {s.id: number for number, s in enumerate(stages)}
    return {
        "stage": planned.stage,
        "row": planned.row,
        "label": planned.label,
        "key": planned.key,
        "params": dump(planned.params, _placer(crate)),
        "inputs": {name: places[s.stage, s.key] for name, s in planned.inputs.items()},
        "tokenizer": dump(planned.tokenizer, _placer(crate)),
    }


def _placer(crate: Crate) -> Callable[[DataPath], str]:
    """Copies each given file into the crate, once, and says where it stands there."""

    written = _written_paths(crate.plan.spec)

    def place(data: DataPath) -> str:
        path = crate.files.locate(data)
        if path not in crate.given_files:
            name = f"given/{len(crate.given_files) + 1:02d}/{path.name}"
            crate.given_files[path] = name
            is_beside = data.path and not data.path.startswith(DATA_SCHEME)
            crate.spec_names[name] = written.get(path, path.name) if is_beside else data.name
            for file in files_below(path) if path.is_dir() else [path]:
                inside = Path(name, file.relative_to(path)) if path.is_dir() else Path(name)
                if path.is_dir() and _is_weights(file) and not crate.weights:
                    crate.left_out.append(str(inside))
                else:
                    _copy(file, crate.folder / inside)
        return crate.given_files[path]

    return place


def _copy_artefact(crate: Crate, artefact: Artefact) -> None:
    inside = Path("artefacts", artefact.stage, artefact.folder.name)
    for file in files_below(artefact.folder):
        name = inside / file.relative_to(artefact.folder)
        if artefact.stage == "train" and _is_weights(file) and not crate.weights:
            crate.left_out.append(str(name))
        else:
            _copy(file, crate.folder / name)


def _is_weights(file: Path) -> bool:
    return file.suffix in WEIGHTS


def _copy_snapshots(crate: Crate, stages: Sequence[StagePlan]) -> list[str]:
    """Data sets of the hub that a replay reads; their names in the crate."""
    copied = []
    for planned in stages:
        for name, hub in planned.hub_sets().items():
            folder = crate.store.hub_folder(hub)
            inside = f"datasets/{folder.name}"
            if name in NEEDED and folder.is_dir() and inside not in copied:
                shutil.copytree(folder, crate.folder / inside)
                copied.append(inside)
    return copied


def _copy_specs(crate: Crate) -> list[str]:
    """The row's spec, what it extends and the texts it names, as they were written, for reading.

    Returns their names in the crate, the row's own first.
    """
    files = list(dict.fromkeys(_spec_files(crate.plan.spec)))
    base = Path(*_common([p.parent for p in files]))
    names = [f"spec/{path.relative_to(base)}" for path in files]
    for path, name in zip(files, names, strict=True):
        _copy(path, crate.folder / name)
    return names


def _spec_files(spec: Path) -> Iterator[Path]:
    faults: list[Fault] = []
    trees: dict[Path, Node] = {}
    tree = load_tree(spec, faults, trees)
    yield spec.resolve()
    for path in trees:
        yield path.resolve()
    for text in _texts(tree) if tree is not None else []:
        folder = getattr(text, "folder", None)
        if folder is not None and text.endswith((".txt", ".yaml", ".yml")):
            path = folder / text
            if path.is_file():
                yield path.resolve()


def _written_paths(spec: Path) -> dict[Path, str]:
    """What the spec's texts name where they are paths from their own file -> as they are written."""
    tree = load_tree(spec, [], {})
    written = {}
    for text in _texts(tree) if tree is not None else []:
        folder = getattr(text, "folder", None)
        if folder is not None and not Path(text).is_absolute():
            # Most texts are no paths, and some cannot be any.
            with contextlib.suppress(ValueError):
                written[(folder / text).resolve()] = str(text)
    return written


def _texts(node: Node) -> Iterator[Any]:
    if isinstance(node.value, str):
        yield node.plain()
    for child in node.children.values():
        yield from _texts(child)


def _common(folders: list[Path]) -> tuple[str, ...]:
    shared = []
    for parts in zip(*(f.parts for f in folders), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as out:
        for file in files_below(folder):
            entry = zipfile.ZipInfo(str(file.relative_to(folder)), EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            # By its size zipfile knows whether the entry needs the form for over 2 GiB.
            entry.file_size = file.stat().st_size
            with out.open(entry, "w") as into, file.open("rb") as source:
                shutil.copyfileobj(source, into)
