"""What the page tells of a row, read from its spec and its artefacts and nothing else."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from harness.answer.outputs import OUTPUTS
from harness.artefact.manifest import Finding
from harness.artefact.store import Artefact, Unusable, made_anew
from harness.errors import InputError
from harness.gen.card.text import Section, sections
from harness.report.html.appendix import Appendix, SpecText
from harness.report.html.charts import Curve
from harness.results.agreement import ANNOTATIONS, Agreement, agreement_of
from harness.results.line import MatrixLine
from harness.results.matrix import choose_plan, each_once
from harness.results.outputs import Chosen, read_outputs
from harness.row.load import LoadedRow
from harness.run.plan import LOG, Planner, RowPlan, StagePlan

Parsed = TypeVar("Parsed")
CARD = "card.json"
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of reading an artefact's file whose values are missing or of another kind."""


@dataclass(frozen=True)
class Training:
    """One training's log."""

    label: str
    loss: Curve
    held_out: Curve


@dataclass(frozen=True)
class DataSet:
    """A data set that a step of `gen` made, and what its card says."""

    label: str
    parts: Sequence[Section]
    bins: Sequence[tuple[str, int]]
    """Words of the outputs: a bin's label, and how many have so many."""
    simulated: bool


@dataclass(frozen=True)
class Story:
    """All that the page tells of one row."""

    loaded: LoadedRow
    plan: RowPlan | None
    """None: it cannot be planned here, and `problem` says why."""
    problem: str
    lines: Sequence[MatrixLine]
    agreements: Sequence[Agreement]
    fault: Unusable | None
    spec: SpecText
    parents: Sequence[SpecText]
    """What the spec extends, directly or not."""
    appendix: Appendix
    most_outputs: int
    """In the reader."""
    trainings: Sequence[Training] = ()
    data: Sequence[DataSet] = ()
    outputs: Chosen | None = None
    findings: Sequence[Finding] = ()

    @property
    def row(self) -> str:
        return self.loaded.row.row

    @property
    def stages(self) -> list[StagePlan]:
        """The row's own."""
        return self.plan.own if self.plan else []


def story_of(
    loaded: LoadedRow,
    planners: Sequence[Planner],
    lines: Sequence[MatrixLine],
    appendix: Appendix,
    most_outputs: int,
    fault: Unusable | None = None,
) -> Story:
    """Read all that the page tells of a row; `lines`: its own of the matrix; `fault`: why nothing that
    was made of it is read.

    Raises:
        Damaged: an artefact that belongs to the row was changed.
        Unusable: one of its files does not hold what its format says.
    """
    plan, problem = lines[0].plan if lines else None, fault.message if fault else ""
    if plan is None and fault is None:
        plan, problem = choose_plan(loaded, planners)
    spec, *parents = _spec_texts(loaded.path)
    finished = [s for s in plan.own if s.artefact is not None] if plan else []
    return Story(
        loaded,
        plan,
        problem,
        lines,
        agreement_of(plan) if plan and loaded.row.replicates.judge > 1 else [],
        fault,
        spec,
        parents,
        appendix,
        most_outputs,
        [t for s in finished if s.stage == "train" for t in _parsed(s, LOG, _training)],
        [
            d
            for s in finished
            if s.stage == "gen"
            for d in _parsed(s, CARD, partial(_data_set, s.made.manifest.row))
        ],
        _outputs(plan) if plan else None,
        _findings(finished, lines),
    )


def _spec_texts(path: Path, visited: tuple[Path, ...] = ()) -> list[SpecText]:
    """The spec, then each that it extends, once."""
    text = path.read_text(encoding="utf-8", errors="replace")
    texts = [SpecText(_name(path), text)]
    extends = yaml.safe_load(text).get("extends") or []
    for name in [extends] if isinstance(extends, str) else extends:
        parent = (path.parent / name).resolve()
        if parent not in visited:
            texts += _spec_texts(parent, (*visited, path.resolve()))
    return list(dict.fromkeys(texts))


def _name(path: Path) -> str:
    """Without the folders above specs/, which are the machine's own."""
    parts = path.resolve().parts
    at = max((i for i, part in enumerate(parts) if part == "specs"), default=len(parts) - 1)
    return "/".join(parts[at:])


def _checked(artefact: Artefact, name: str) -> str | None:
    """The text of a file, which alone is compared with its digest; None where the artefact has none of
    this name."""
    if name not in artefact.manifest.files:
        return None
    artefact.check_file(name)
    return (artefact.folder / name).read_text(encoding="utf-8", errors="replace")


def _unreadable(artefact: Artefact, name: str) -> Unusable:
    return Unusable(
        f"{name} of the artefact {artefact.stage}/{artefact.folder.name} does not hold what its format "
        "says",
        made_anew(artefact.folder),
    )


def _parsed(
    planned: StagePlan, name: str, parse: Callable[[str, str], Parsed | None]
) -> Iterator[Parsed]:
    """What a file of the stage's artefact holds, where there is one: `parse` is given the stage's label
    and the text."""
    text = _checked(planned.made, name)
    if text is None:
        return
    try:
        parsed = parse(planned.label, text)
    except UNREADABLE:
        raise _unreadable(planned.made, name) from None
    if parsed is not None:
        yield parsed


def _training(label: str, text: str) -> Training | None:
    rows = [json.loads(line) for line in text.splitlines()]
    loss, held_out = (
        [(float(r["step"]), float(r[name])) for r in rows if name in r]
        for name in ("loss", "held_out_loss")
    )
    finite = [point for point in loss if math.isfinite(point[1])]
    return Training(label, finite, [p for p in held_out if math.isfinite(p[1])]) if finite else None


def _data_set(row: str, label: str, text: str) -> DataSet:
    card = json.loads(text)
    parts = sections(card, row)
    words = card["lengths"]["words"]
    field_ = next((name for name in ("output", "chosen") if name in words), None)
    counted = words[field_]["bins"] if field_ else []
    bins = [(_range(b["from"], b["to"]), int(b["count"])) for b in counted]
    return DataSet(label, parts, bins, bool(card["simulated"]))


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def _outputs(plan: RowPlan) -> Chosen | None:
    """The row's outputs, None where there are none that can be read."""
    answered = [s.artefact for s in plan.own if s.stage == "answer" and s.artefact is not None]
    if not answered or OUTPUTS not in answered[0].manifest.files:
        return None
    for stage in plan.final():
        judged = stage.artefact
        reads = judged is not None and "outputs" in stage.inputs
        if reads and judged and ANNOTATIONS not in judged.manifest.files:
            return None
    try:
        return read_outputs(plan, "")
    except InputError:
        return None
    except UNREADABLE:
        raise _unreadable(answered[0], f"{OUTPUTS}, or a judgement of it,") from None


def _findings(finished: Sequence[StagePlan], lines: Sequence[MatrixLine]) -> list[Finding]:
    """What the manifests list, each once, and what only the matrix knows: rows that are confounded."""
    findings = each_once(s.artefact.manifest.findings for s in finished if s.artefact)
    texts = set(map(str, findings))
    more = {str(f): f for line in lines for f in line.findings if str(f) not in texts}
    return [*findings, *more.values()]
