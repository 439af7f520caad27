"""Replay: a row's artefacts made once more from what was recorded, with no network, and compared.

A replay is exact or it is not: every file must have the digest, and every metric and count the value,
that the manifest says. A training is not run again: its files are checked, and its losses read from
its log.
"""

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from harness.artefact import environment
from harness.artefact.call import TRANSCRIPT, StageResult
from harness.artefact.keys import file_digest, flatten
from harness.artefact.manifest import Manifest, MetricValue
from harness.artefact.network_files import files_below
from harness.artefact.store import Artefact, ReadStore, Store, Unwritable
from harness.common.json_files import read_object
from harness.common.paths import DISK_FULL
from harness.common.progress import ProgressView
from harness.errors import InputError, Interrupted
from harness.run.executors import carry_out
from harness.run.plan import LOG, RowPlan, StagePlan, made_otherwise
from harness.run.runner import Runner
from harness.spec.hub import HubData

CARD = ("card.json", "card.md", "plots/")
"""Describes the data set; its lengths in tokens are those of one row's tokenizer."""
NEEDED = ("hub", "prompts", "length_control")
"""Hub data sets that a replay reads. A model it does not, nor a task's questions: what they gave was
recorded."""
FROM_LOG = ("steps", "tokens", "prompt_tokens")
"""Counts of a training that its log has."""
ON_MACHINE = "ON_THE_MACHINE"
"""Stands for a path that cannot be known inside a container."""
NOT_TRAINED = "the weights were not made again: a replay checks a training's files and its log"


@dataclass
class Replayed:
    """How a replayed stage compares with its artefact."""

    planned: StagePlan
    artefact: Artefact
    files: int = 0
    """Files that were compared."""
    left_out: list[str] = field(default_factory=list)
    """Files that a crate came without."""
    same: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    """Files that are missing, new, or have other bytes; metrics and counts with another value. With a
    word on which."""
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    """As they came out of the replay."""
    numbers: int = 0
    """Metrics' figures and counts that are the manifest's."""
    calls: int = 0
    """Replies taken from the transcript."""
    folder: Path | None = None
    """What the replay made, kept where it differs."""

    @property
    def exact(self) -> bool:
        return not self.different


@contextlib.contextmanager
def workable(store: Store) -> Iterator[Store]:
    """The store; of a volume that cannot be written, or has no space left, one that works in a
    temporary folder, which stays where a stage fails or comes out different."""
    try:
        store.prepare()
        temporary = None
    except (Unwritable, OSError) as e:
        if isinstance(e, OSError) and e.errno not in DISK_FULL:
            raise
        temporary = Path(mkdtemp(prefix="harness-replay-")).resolve()
    if temporary is None:
        yield store
        return
    reader = ReadStore(store.root, temporary)
    reader.prepare()
    try:
        yield reader
    finally:
        if not any((temporary / "work").iterdir()):
            shutil.rmtree(temporary)


def to_replay(plan: RowPlan, stages: Sequence[str]) -> list[StagePlan]:
    """The row's own stages of these kinds, and those judged beside it, once each, in the order in which
    they ran.

    Raises:
        InputError: there is none, or none of them is on the volume.
    """
    by_key: dict[tuple[str, str], StagePlan] = {}
    for planned in itertools.chain(plan.own, *(other.own for other in plan.beside())):
        if planned.stage in stages:
            by_key.setdefault(planned.id, planned)
    chosen = list(by_key.values())
    if not chosen:
        kinds = ", ".join(stages[:-1]) + f" or {stages[-1]}" if len(stages) > 1 else stages[0]
        raise InputError(f"row {plan.row.row} has no {kinds} stage")
    if all(s.artefact is None for s in chosen):
        raise _absent(chosen[-1])
    return chosen


def left_to_others(stages: Sequence[StagePlan]) -> list[StagePlan]:
    """Inside an image: the stages that run in another. A training's check runs anywhere."""
    image = environment.current_image()
    if image is None:
        return []
    family = image["image"].split("-")[0]
    return [s for s in stages if s.stage != "train" and environment.FAMILY[s.stage] != family]


def where_replayed(stages: Sequence[StagePlan], name: str, mount: str = "") -> str:
    """How each of these stages of the row or crate `name` is replayed in its own image, a line per
    image; `mount`: what brings a crate into the container."""
    lines = []
    for service in dict.fromkeys(environment.FAMILY[s.stage] for s in stages):
        kinds = list(
            dict.fromkeys(s.stage for s in stages if environment.FAMILY[s.stage] == service)
        )
        command = environment.command_line("replay", name, service, mount)
        lines.append(f"{', '.join(kinds)}: {command}")
    if mount:
        lines.append(f"{ON_MACHINE} is where the crate lies outside of the container")
    return "\n".join(lines)


def replay(runner: Runner, planned: StagePlan) -> Replayed:
    """Make a stage's artefact again from what it recorded and its inputs, and compare every file and
    number.

    Raises:
        InputError: there is nothing to replay, or an input is not on the volume.
        Damaged: the artefact, or an input, is not what its manifest says.
        StageFailed: the transcript lacks a request, or something tried to reach a network.
        Interrupted: it was stopped; nothing of it is kept.
    """
    store, artefact = runner.store, planned.artefact
    if artefact is None:
        raise _absent(planned)
    artefact.check()
    if planned.stage == "train":
        return _read_training(planned, artefact)
    folders = {"recorded": artefact.folder, **_inputs(runner, planned)}
    name = f"replay-{planned.key}"
    work = store.root / "work" / f"{planned.stage}-replay-{artefact.folder.name}"
    with (
        # Named as its folder is, by which `gc` knows that it is in use.
        store.lock(planned.stage, name) as lock,
        _removed_when_stopped(work, f"replay {planned.title}"),
    ):
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        if (artefact.folder / TRANSCRIPT).exists():
            shutil.copyfile(artefact.folder / TRANSCRIPT, work / TRANSCRIPT)
        title = f"replay {planned.title}"
        log = store.root / "logs" / f"{planned.stage}-{name[:23]}.log"
        job = runner.job(planned, title, folders, work, lock, log, replay=True)
        result = carry_out(
            job, runner.executor, runner.files, ProgressView(runner.console, job.title)
        )
        replayed = _compare(planned, artefact, work, result)
        if replayed.exact:
            shutil.rmtree(work)
        else:
            replayed.folder = work
    return replayed


@contextlib.contextmanager
def _removed_when_stopped(work: Path, title: str) -> Iterator[None]:
    """A replay begins anew each time: what a stopped one has made is of no use."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        shutil.rmtree(work, ignore_errors=True)
        raise Interrupted(
            f"{title} was stopped; nothing of it is kept.", "The same command begins it anew."
        ) from None


def _absent(planned: StagePlan) -> InputError:
    service = environment.FAMILY[planned.stage]
    command = environment.command_line("run", planned.target, service)
    return InputError(
        f"row {planned.row}: its {planned.name} {planned.key[:12]} is not on the volume, so "
        "there is nothing to replay",
        f"Make it: {command}{made_otherwise([planned])}",
    )


def _inputs(runner: Runner, planned: StagePlan) -> dict[str, Path]:
    """Input's name -> folder. Models, given or trained, may be absent."""
    folders: dict[str, Path] = {}
    for name, source in planned.inputs.items():
        if name == "model":
            trained = runner.store.find(source.stage, source.key)
            folders |= {name: trained.folder} if trained is not None else {}
        else:
            folders[name] = runner.input(source).folder
    for name, model in (("hub", planned.base), ("judge_hub", planned.judge_model)):
        if model is not None and model.hub is not None:
            folder = runner.store.hub_folder(model.hub, model.trust_remote_code)
            folders |= {name: folder} if folder.is_dir() else {}
    for name, hub in planned.hub_sets().items():
        folder = runner.store.hub_folder(hub)
        if folder.is_dir():
            folders[name] = folder
        elif name in NEEDED:
            raise _not_fetched(planned, hub)
    return folders


def _not_fetched(planned: StagePlan, hub: HubData) -> InputError:
    return InputError(
        f"row {planned.row}: the data set {hub.id} is not on the volume, and a replay reaches no "
        "network",
        f"Download it: {environment.command_line('fetch', str(planned.spec), 'fetch')}",
    )


def _compare(planned: StagePlan, artefact: Artefact, work: Path, result: StageResult) -> Replayed:
    new_files: dict[str, Path] = {}
    for name in result.keep:
        path = work / name
        if not path.exists():
            continue
        paths = files_below(path) if path.is_dir() else [path]
        new_files |= {str(p.relative_to(work)): p for p in paths}
    replayed = Replayed(planned, artefact, metrics=result.metrics)
    replayed.calls = int(result.cost.get("replayed_calls", 0))
    recorded = artefact.manifest.files
    other_tokenizer = _tokenizer(artefact.folder) != _tokenizer(work)
    skipped = False
    for name in sorted({*new_files, *recorded}):
        if name.startswith(CARD) and other_tokenizer:
            skipped = True
        elif name not in new_files:
            replayed.different.append(f"{name} (the replay did not make it)")
        elif name not in recorded:
            replayed.different.append(f"{name} (only the replay made it)")
        elif file_digest(new_files[name]) != recorded[name]["sha256"]:
            replayed.different.append(f"{name} (other bytes)")
        else:
            replayed.same.append(name)
    replayed.files = len(replayed.same) + len(replayed.different)
    if skipped:
        replayed.notes.append(
            "the data card was not compared: it was counted with another row's tokenizer"
        )
    _compare_numbers(replayed, _json(artefact.manifest.metrics), _json(result.metrics), "metric")
    _compare_numbers(replayed, artefact.manifest.counts, result.counts, "count")
    _compare_marks(replayed, artefact.manifest, result)
    return replayed


def _json(metrics: dict[str, MetricValue]) -> dict[str, object]:
    return {name: metric.to_json() for name, metric in metrics.items()}


def _compare_marks(replayed: Replayed, manifest: Manifest, result: StageResult) -> None:
    """What must stand beside the numbers: that they are simulated, and what was found."""
    inputs = [source.artefact for source in replayed.planned.inputs.values() if source.artefact]
    inherited = {mark for artefact in inputs for mark in artefact.manifest.simulated}
    for mark in sorted((inherited | set(result.simulated)) - set(manifest.simulated)):
        replayed.different.append(f"mark simulated (the manifest does not say so of the {mark})")
    recorded, recomputed = ([f.to_json() for f in m.findings] for m in (manifest, result))
    if recorded != recomputed:
        replayed.different.append("findings (others than the manifest says)")
    if manifest.deviations != result.deviations:
        replayed.different.append("deviations (others than the manifest says)")


def _compare_numbers(
    replayed: Replayed, recorded: Mapping[str, object], recomputed: Mapping[str, object], kind: str
) -> None:
    """Every figure, to the last digit."""
    old, new = flatten(recorded), flatten(recomputed)
    for name in sorted({*old, *new}):
        if name not in new:
            replayed.different.append(f"{kind} {name} (the replay gives none)")
        elif name not in old:
            replayed.different.append(f"{kind} {name} (only the replay gives it: {new[name]!r})")
        elif old[name] != new[name]:
            replayed.different.append(f"{kind} {name} (recorded {old[name]!r}, now {new[name]!r})")
        else:
            replayed.numbers += 1


def _read_training(planned: StagePlan, artefact: Artefact) -> Replayed:
    """A training, whose files have been checked as far as they are here: its numbers once more, from
    its log."""
    files = sorted(artefact.manifest.files)
    here = [name for name in files if (artefact.folder / name).exists()]
    left_out = [name for name in files if name not in here]
    replayed = Replayed(planned, artefact, len(here), left_out, here)
    replayed.notes.append(NOT_TRAINED)
    counts = artefact.manifest.counts
    metrics, counted = _logged(artefact.folder / LOG, counts.get("held_out"))
    _compare_numbers(replayed, _json(artefact.manifest.metrics), _json(metrics), "metric")
    recorded_counts = {name: counts[name] for name in FROM_LOG if name in counts}
    _compare_numbers(replayed, recorded_counts, counted, "count")
    replayed.metrics = metrics
    return replayed


def _logged(log: Path, held_out: int | None) -> tuple[dict[str, MetricValue], dict[str, int]]:
    """The metrics and counts that a training's log gives; none where there is no log.

    The bytes of the held-out answers follow from nats a token, tokens and bits a byte.
    """
    if not log.is_file():
        return {}, {}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "held_out_loss" in line]
    metrics: dict[str, MetricValue] = {}
    counts: dict[str, int] = {}
    if steps:
        metrics["train_loss"] = MetricValue.from_json({"value": steps[-1]["loss"]})
        counts = {name: steps[-1][name] for name in FROM_LOG[1:]} | {"steps": len(steps)}
    if measured:
        last = measured[-1]
        nats, bits, tokens = last["held_out_loss"], last["bits_per_byte"], last["held_out_tokens"]
        size = round(nats * tokens / math.log(2) / bits) if bits else 0
        shared = {"examples": held_out, "tokens": tokens}
        metrics["held_out_loss"] = MetricValue.from_json({"value": nats, **shared})
        metrics["bits_per_byte"] = MetricValue.from_json({"value": bits, **shared, "bytes": size})
    return metrics, counts


def _tokenizer(folder: Path) -> Any:
    """What the data card in a folder says its tokens were counted with."""
    return (read_object(folder / CARD[0]) or {}).get("tokenizer")
