"""What on the volume no spec refers to any more."""

import contextlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.artefact.environment import STAGES, accelerator, image_name
from harness.artefact.store import PLAN, SHORT, Damaged, Store
from harness.common.paths import size_of
from harness.errors import HarnessError, InputError
from harness.row.load import LoadedRow
from harness.row.rejudged import BRIDGE, PUBLISHED
from harness.row.twin import SUFFIX, scaled
from harness.run.given import bring
from harness.run.plan import Planner
from harness.run.slurm.queue import waiting
from harness.run.slurm.records import Records


@dataclass(frozen=True)
class Item:
    name: str
    folder: Path
    size: int
    """Bytes."""
    why: str


@dataclass(frozen=True)
class Use:
    """A stage that another process is at, or that waits in Slurm."""

    words: str
    keys: str
    """A text that holds the keys and digests of all that it reads, its own, and what is remembered of
    its row."""
    row: str
    """Whose stages it is followed by; empty where each of those is in use itself."""


def uses(store: Store) -> list[Use]:
    """The stages on the volume that run or wait, each with what must stay for it."""
    found = []
    for path in sorted(store.root.glob(f"work/*/{PLAN}")):
        stage, _, key = path.parent.name.partition("-")
        plan, row = _planned(path.parent)
        if row and store.is_locked(stage, key):
            words = f"{stage} {key[:12]} of row {row}, which runs at this moment"
            remembered = store.remembered(row).values()
            found.append(Use(words, " ".join([plan, key, *map(str, remembered)]), row))
    records = Records(store.root / "slurm")
    for record in waiting(records):
        order = records.order_path(record.submission, record.task)
        if order.is_file():
            words = f"{record.stage} {record.key[:12]}, which is submitted to Slurm"
            found.append(Use(words, order.read_text(encoding="utf-8"), ""))
    return found


def used_by(store: Store, item: Item, uses: Sequence[Use]) -> str:
    """Which of them needs it, in words; empty where none does."""
    key = item.folder.name.rpartition("-")[2]
    is_fetched = item.folder.parent == store.files_folder
    row = ""
    with contextlib.suppress(Damaged):
        row = (_planned(item.folder)[1] or made_for(store, item.folder)) if uses else ""
    for use in uses:
        if len(key) >= SHORT and key in use.keys:
            return use.words
        if use.row and (is_fetched or _own_row(row) == _own_row(use.row)):
            return use.words
    return ""


def _planned(work: Path) -> tuple[str, str]:
    """What stands in a work folder of its stage's plan, and the row that it is made for; both empty
    where it does not say so."""
    try:
        text = (work / PLAN).read_text(encoding="utf-8")
        return text, str(json.loads(text)["row"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "", ""


def collect(
    store: Store,
    rows: Sequence[LoadedRow],
    planners: Sequence[Planner],
    settled: Sequence[LoadedRow] = (),
    elsewhere_settled: Sequence[str] = (),
) -> list[Item]:
    """Artefacts, unfinished work and what is left of removals that no row needs as it stands now, nor
    its twin (`--scale tiny`). `settled`: rows with replicates that their specs do not name;
    `elsewhere_settled`: rows that money was spent on and whose specs are not among these, of which
    everything is kept.

    What a row refers to is computed for each planner's environment. Of rows that cannot be planned
    (their given data is absent), everything they ever made is kept; so is what images for another
    accelerator made, which another machine on this volume may need.
    """
    here = {image_name(stage, accelerator()) for stage in STAGES}
    elsewhere = {
        (a.stage, a.folder.name)
        for a in store.whole()
        if a.manifest.document["environment"].get("image", "gen") not in here
    }
    needed: set[tuple[str, str]] = set()
    unplanned = set(elsewhere_settled)
    for row in elsewhere_settled:
        needed.update(_remembered(store, row))
    for loaded in [*rows, *settled, *_twins(rows)]:
        for planner in planners:
            try:
                stages = planner.plan(loaded).stages
            except Damaged:
                raise
            except HarnessError:
                unplanned.add(loaded.row.row)
                needed.update(_remembered(store, loaded.row.row))
                continue
            needed.update((s.stage, s.key[:SHORT]) for s in stages)
            needed.update(u for s in stages for data in s.data() for u in bring.units(data))
    items = []
    for folder in store.all_folders():
        if (folder.parent.name, folder.name) in needed | elsewhere:
            continue
        if unplanned and _is_of(made_for(store, folder), unplanned):
            continue
        items.append(_item(store, folder, "no spec refers to it"))
    for folder in sorted(store.files_folder.glob("*")):
        if (bring.STAGE, folder.name[:SHORT]) not in needed and not unplanned:
            items.append(_item(store, folder, "fetched, and no spec refers to it"))
    for folder in sorted((store.root / "work").glob("*")):
        stage, _, key = folder.name.partition("-")
        if (stage, key) not in needed and not unplanned and not store.is_locked(stage, key):
            items.append(_item(store, folder, "unfinished, and no spec refers to it"))
    return items


def _twins(rows: Sequence[LoadedRow]) -> list[LoadedRow]:
    """The rows' twins; none where the files are absent that they are made with."""
    try:
        return [scaled(loaded) for loaded in rows]
    except InputError:
        return []


def _remembered(store: Store, row: str) -> set[tuple[str, str]]:
    """What a row made or shared when it last ran: name -> key, `train-cpu: train (label)` -> key."""
    names = store.remembered(row).items()
    return {(name.partition(": ")[2].partition(" ")[0], str(key)[:SHORT]) for name, key in names}


def _is_of(row: str, rows: Collection[str]) -> bool:
    """Whether it is one of these, a twin, or what one's judge judges beside it."""
    own = _own_row(row).removesuffix(SUFFIX)
    return row in rows or own in rows


def _own_row(row: str) -> str:
    """That of what the row's judge judges beside it."""
    return re.sub(rf"-({PUBLISHED}|{BRIDGE}-\d+)$", "", row)


def strangers(store: Store, items: Sequence[Item], rows: Sequence[LoadedRow]) -> list[str]:
    """Rows that some of the items were made for, and whose specs are not among these."""
    names = {loaded.row.row for loaded in rows}
    made = {made_for(store, item.folder) for item in items} - {""}
    return sorted(row for row in made if not _is_of(row, names))


def made_for(store: Store, folder: Path) -> str:
    """The row that an artefact was made for; empty where that is not known."""
    matches = store.match(f"{folder.parent.name}/{folder.name}")
    return str(matches[0].manifest.row) if matches else ""


def named_items(store: Store, names: Sequence[str]) -> list[Item]:
    """The artefacts called STAGE/KEY (whole or damaged)."""
    items = []
    for name in names:
        stage, _, key = name.partition("/")
        well_formed = stage in STAGES and re.fullmatch(r"\w[\w.-]*", key)
        folders = (store.root / "artefacts" / stage).glob(f"{key[:SHORT]}*") if well_formed else ()
        matches = sorted(folders)
        if not matches:
            raise InputError(
                f"there is no artefact {name} on {store.root}",
                "Name it as STAGE/KEY, for example train/0123456789ab.",
            )
        if len(matches) > 1:
            raise InputError(
                f"{name} is the beginning of {len(matches)} artefacts: "
                + ", ".join(f"{stage}/{folder.name}" for folder in matches),
                "Name one of them with more of its key.",
            )
        items.append(_item(store, matches[0], "named"))
    return items


def remove(store: Store, items: Sequence[Item]) -> None:
    """Remove items; one that another process works on, or a stage at work needs, is refused before
    anything is removed."""
    in_use = uses(store)
    for item in items:
        if words := used_by(store, item, in_use):
            raise HarnessError(f"{item.name} is needed by {words}", "Try again once it has ended.")
        stage, _, key = item.name.replace("/", "-", 1).partition("-")
        if store.is_locked(stage, key):
            raise HarnessError(f"{item.name} is in use by another process", "Try again later.")
    for item in items:
        store.remove(item.folder)


def _item(store: Store, folder: Path, why: str) -> Item:
    name = folder.name if folder.parent.name == "work" else f"{folder.parent.name}/{folder.name}"
    return Item(name, folder, size_of(folder), why)
