"""Replay: a stage made once more from its artefact's transcript, with no network, and compared.

A replay is exact or it is not: every file must have the digest that the manifest says.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InputError
from harness.keys import file_digest
from harness.plan import StagePlan
from harness.progress import ProgressView
from harness.run import Runner, result_of, title_of
from harness.store import Artefact, files_below

TRANSCRIPT = "transcript.jsonl"
CARD = ("card.json", "card.md", "plots/")
"""Describes the data set; its lengths in tokens are those of one row's tokenizer."""


@dataclass
class Replayed:
    """How a replayed stage compares with its artefact."""

    planned: StagePlan
    artefact: Artefact
    same: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    """Files that are missing, new, or have other bytes; with a word on which."""
    notes: list[str] = field(default_factory=list)
    calls: int = 0
    """Replies taken from the transcript."""
    folder: Path | None = None
    """What the replay made, kept where it differs."""

    @property
    def exact(self) -> bool:
        return not self.different


def replay(runner: Runner, planned: StagePlan) -> Replayed:
    """Make a stage's artefact again from its own transcript and inputs, and compare every file.

    Raises:
        InputError: there is nothing to replay, or an input is not on the volume.
        Damaged: the artefact, or an input, is not what its manifest says.
        StageFailed: the transcript lacks a request, or something tried to reach a network.
    """
    store, artefact = runner.store, planned.artefact
    if artefact is None:
        raise InputError(
            f"row {planned.row}: its {planned.stage} {planned.key[:12]} is not on the volume "
            f"{store.root}, so there is nothing to replay",
            f"Make it: harness run --only {planned.stage} {planned.spec}; or, if it was made by "
            "the other executor, name that with --executor.",
        )
    artefact.check()
    folders = {name: runner.input(plan).folder for name, plan in planned.inputs.items()}
    if planned.hub_data is not None:
        folders["hub"] = _snapshot(runner, planned)
    name = f"replay-{planned.key}"
    work = store.root / "work" / f"{planned.stage}-replay-{artefact.folder.name}"
    with store.lock(f"{planned.stage}-replay", planned.key) as lock:
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        if (artefact.folder / TRANSCRIPT).exists():
            shutil.copyfile(artefact.folder / TRANSCRIPT, work / TRANSCRIPT)
        title = f"replay {title_of(planned)}"
        job = runner.job(planned, title, folders, work, lock, replay=True)
        job.log = store.root / "logs" / f"{planned.stage}-{name[:23]}.log"
        with ProgressView(runner.console, title) as view:
            runner.executor.run(job, runner.files, view.show)
        result = result_of(job)
        if result is None:
            raise HarnessError(f"{title} ended without saying what it made", f"Its log: {job.log}")
        replayed = _compare(planned, artefact, work, result)
        if replayed.exact:
            shutil.rmtree(work)
        else:
            replayed.folder = work
    return replayed


def _snapshot(runner: Runner, planned: StagePlan) -> Path:
    assert planned.hub_data is not None
    folder = runner.store.hub_folder(planned.hub_data)
    if not folder.is_dir():
        raise InputError(
            f"row {planned.row}: the data set {planned.hub_data.id} is not on the volume, and a "
            "replay reaches no network",
            f"Download it: harness fetch {planned.spec}",
        )
    return folder


def _compare(
    planned: StagePlan, artefact: Artefact, work: Path, result: dict[str, Any]
) -> Replayed:
    made: dict[str, Path] = {}
    for name in result["keep"]:
        path = work / name
        found = files_below(path) if path.is_dir() else [path]
        made |= {str(p.relative_to(work)): p for p in found}
    replayed = Replayed(planned, artefact)
    replayed.calls = int(result["cost"].get("replayed_calls", 0))
    recorded = artefact.manifest["files"]
    other_tokenizer = _tokenizer(artefact.folder) != _tokenizer(work)
    skipped = False
    for name in sorted({*made, *recorded}):
        if name.startswith(CARD) and other_tokenizer:
            skipped = True
        elif name not in made:
            replayed.different.append(f"{name} (the replay did not make it)")
        elif name not in recorded:
            replayed.different.append(f"{name} (only the replay made it)")
        elif file_digest(made[name]) != recorded[name]["sha256"]:
            replayed.different.append(f"{name} (other bytes)")
        else:
            replayed.same.append(name)
    if skipped:
        replayed.notes.append(
            "the data card was not compared: it was counted with another row's tokenizer"
        )
    return replayed


def _tokenizer(folder: Path) -> Any:
    """What the data card in a folder says its tokens were counted with."""
    try:
        return json.loads((folder / CARD[0]).read_text(encoding="utf-8")).get("tokenizer")
    except (OSError, ValueError, AttributeError):
        return None
