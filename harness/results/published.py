"""What a study itself published of a row (`reported.outputs`, `reported.annotations`): fetched,
audited, and its numbers computed anew beside the reported ones."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.audit import audit_paths
from harness.audit.model import Result, agreeing_digits
from harness.audit.parse.alpaca_rows import with_input
from harness.audit.parse.contents import read_values
from harness.audit.parse.files import JsonObject, Unreadable, objects_in
from harness.common.progress import counted
from harness.errors import InputError, kept
from harness.row.row import Row
from harness.run.bridging import check_published
from harness.run.given.bring import bring
from harness.spec.base import DataPath

Figure = Literal["value", "standard_error", "judged", "expected"]
AUDITED: Mapping[Figure, str] = {
    "standard_error": "standard_error",
    "judged": "n_judged",
    "expected": "n_expected",
}
"""What the readers of an audit call the figures beside a value."""
OTHER_NAMES = {"rubric_score": "mean_score"}
"""Metric -> what its reader calls it."""
VERDICTS = ("preference", "review", "score")
"""Columns of judges' verdicts, which no file of answers has."""
COUNTS = ("n_wins", "n_draws", "n_wins_base")


@dataclass(frozen=True)
class Recomputed:
    """One reported figure, and what the published files give for it."""

    metric: str
    figure: Figure
    reported: float | None
    """None: the study's table leaves the cell empty."""
    recomputed: float | None
    """None: the files do not give it."""

    @property
    def is_equal(self) -> bool | None:
        """To the decimals that are reported; None where there are not two numbers."""
        if self.reported is None or self.recomputed is None:
            return None
        decimals = len(repr(self.reported).partition(".")[2]) if self.reported % 1 else 0
        return agreeing_digits(self.reported, self.recomputed) >= decimals

    @property
    def verdict(self) -> str:
        """In words."""
        if self.recomputed is None:
            return "not in the files"
        if self.reported is None:
            return "not reported"
        if self.is_equal:
            return "equal"
        return f"differs by {self.recomputed - self.reported:+.4g}"


@dataclass(frozen=True)
class PublishedAudit:
    row: str
    results: list[Result]
    figures: list[Recomputed]
    remarks: list[str]
    """What is wrong with the files as those of this row, a sentence each."""
    pooled: list[str]
    """Which figures are over several results together, and what each of these gives by itself."""

    @property
    def is_clean(self) -> bool:
        return not (
            self.remarks
            or any(figure.is_equal is False for figure in self.figures)
            or any(result.findings or result.matches is False for result in self.results)
        )


def audit_published(row: Row, store: Store, files: Files, console: Console) -> PublishedAudit:
    """Fetch a row's published files, and compute from them what was reported.

    Raises:
        InputError: the spec names none, or no annotations, or nothing in these can be read.
        NotBrought: a file cannot be had, or is not the one that the spec pins any more.
    """
    published = row.reported
    if not published.annotations:
        have = "only outputs" if published.outputs else "nothing"
        raise InputError(
            f"row {row.row} names {have} that the study published of it",
            "Give the judge's verdicts as reported.annotations: {url: ..., sha256: ...} in its spec. "
            f"To audit what was run here: harness audit {store.root}",
        )
    bring([*published.outputs, *published.annotations], store, files, console)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, row.row)
        annotations = _laid_out(published.annotations, files, root)
        outputs = _laid_out(published.outputs, files, root)
        remarks = [text for path, data in annotations.items() if (text := _no_verdicts(path, data))]
        if len(remarks) == len(annotations):
            raise InputError(
                "; ".join(remarks), "See what stands in the files that the spec names."
            )
        results = [result for result in audit_paths([root]) if _is_judged(result)]
        remarks += _faults_of_outputs(outputs, results)
        remarks += _faults_of_judge(row, annotations, root)
        for result in results:
            _without_folder(result, f"{name}/")
    return PublishedAudit(row.row, results, _figures(row, results), remarks, _pools(row, results))


def _laid_out(published: Sequence[DataPath], files: Files, root: Path) -> dict[Path, DataPath]:
    """The files in one folder, under their own names, as the readers of an audit look for them."""
    places = {}
    for data in published:
        path = root / data.file_name
        number = 1
        while path.exists():
            number += 1
            path = root / str(number) / data.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        local = files.pinned(data)
        (shutil.copytree if local.is_dir() else shutil.copyfile)(local, path)
        places[path] = data
    return places


def _is_judged(result: Result) -> bool:
    return result.metrics.get(AUDITED["judged"]) is not None


def _no_verdicts(path: Path, data: DataPath) -> str:
    """A sentence where no reader finds a judge's verdicts in the file alone."""
    try:
        if any(map(_is_judged, audit_paths([path]))):
            return ""
        why = "what it holds are no judge's verdicts"
    except InputError as e:
        why = e.message.rpartition(f"{path}: ")[2].replace(f"{path.parent}/", "")
    return f"reported.annotations: {data.name} cannot be read as annotations: {why}"


def _faults_of_outputs(outputs: Mapping[Path, DataPath], results: Sequence[Result]) -> list[str]:
    judged = [prompt for result in results for prompt, _ in result.material.judgements]
    answers = [a for result in results for a in (result.material.outputs or {}).values()]
    faults, texts, names = [], set(), []
    for path, data in outputs.items():
        try:
            rows = [row for file in _files_in(path) for row in objects_in(read_values(file))]
        except Unreadable as e:
            faults.append(f"reported.outputs: {data.name} cannot be read: {e}")
            continue
        if not rows or not all(map(_is_answer, rows)):
            faults.append(
                f"reported.outputs: {data.name} is no file of answers: each entry has a prompt and an "
                "answer, and no verdict"
            )
            continue
        names.append(data.name)
        texts |= {text for row in rows for text in _texts(row)}
    absent = sum(prompt.strip() not in texts for prompt in judged)
    other = sum(answer.strip() not in texts for answer in answers)
    which = f"{', '.join(names)}: these are not the outputs that were judged"
    if names and absent:
        prompts = counted(len(judged), "judged prompt")
        faults.append(f"reported.outputs: {absent} of {prompts} have no answer in {which}")
    elif names and other:
        judged_answers = counted(len(answers), "judged answer")
        faults.append(f"reported.outputs: {other} of {judged_answers} do not stand in {which}")
    return faults


def _faults_of_judge(row: Row, annotations: Mapping[Path, DataPath], root: Path) -> list[str]:
    """Of verdicts that are not the published judge's; the row's own reference decides nothing here."""
    faults: list[InputError] = []
    for path in annotations:
        with kept(faults):
            check_published(path, row.reported.judges(), None)
    return [f"reported.annotations: {e.message.replace(f'{root}/', '')}" for e in faults]


def _files_in(path: Path) -> list[Path]:
    return sorted(path.rglob("*.json*")) if path.is_dir() else [path]


def _is_answer(row: JsonObject) -> bool:
    """A prompt and an answer at least, and no verdict."""
    return sum(isinstance(value, str) for value in row.values()) > 1 and not (
        row.keys() & set(VERDICTS)
    )


def _texts(row: JsonObject) -> list[str]:
    """All that may be its prompt, also with the input of the row or of its first instance; and its
    answers."""
    texts = [value for value in row.values() if isinstance(value, str)]
    source = next(iter(row.objects("instances")), row)
    return [text.strip() for text in (*texts, *(with_input(text, source) for text in texts))]


def _figures(row: Row, results: Sequence[Result]) -> list[Recomputed]:
    figures = []
    for metric, cell in row.reported.items():
        values = _values_of(metric, results)
        for figure in ("value", *AUDITED):
            reported = getattr(cell, figure)
            recomputed = values.get(figure)
            if reported is not None or (recomputed is not None and figure != "expected"):
                figures.append(Recomputed(metric, figure, reported, recomputed))
    return figures


def _values_of(metric: str, results: Sequence[Result]) -> dict[str, float | None]:
    """A metric's figures: of the one result that gives it, or over those of several prompt sets."""
    kind = metric.partition("/")[0]
    name, giving = _giving(metric, results)
    if not giving:
        return {}
    if len(giving) == 1:
        metrics = giving[0].metrics
        return {"value": metrics[name], **{figure: metrics.get(n) for figure, n in AUDITED.items()}}
    return _pooled(kind, giving)


def _giving(metric: str, results: Sequence[Result]) -> tuple[str, list[Result]]:
    """What readers call the metric, and the results that give it."""
    kind, _, part = metric.partition("/")
    name = OTHER_NAMES.get(kind, kind)
    giving = [r for r in results if isinstance(r.metrics.get(name), int | float)]
    return name, [r for r in giving if not part or _is_of(part, r)]


def _pools(row: Row, results: Sequence[Result]) -> list[str]:
    """A sentence for each reported metric that several results give."""
    sentences = []
    for metric in row.reported:
        name, giving = _giving(metric, results)
        if len(giving) > 1:
            how = (
                "pooled over" if _values_of(metric, giving) else "not pooled, wins not counted, of"
            )
            each = [f"{r.path} {r.metrics[name]:.6g}{_of_judged(r)}" for r in giving]
            sentences.append(f"{metric}: {how} {len(giving)} results: {'; '.join(each)}")
    return sentences


def _of_judged(result: Result) -> str:
    judged = result.metrics.get(AUDITED["judged"])
    return f" ({judged} judged)" if judged is not None else ""


def _is_of(part: str, result: Result) -> bool:
    """Whether a result is that of a prompt set, by its name or what is noted of it."""
    texts = (result.path.rpartition("#")[2], *result.notes)
    return any(re.search(rf"(^|\W|_){re.escape(part)}(\W|_|$)", text) for text in texts)


def _pooled(kind: str, results: Sequence[Result]) -> dict[str, float | None]:
    """Every prompt of every set weighs the same; sets whose wins are not counted are not pooled."""
    if not all(isinstance(r.metrics.get(name), int) for r in results for name in COUNTS):
        return {}
    wins, draws, losses = (sum(r.metrics[name] for r in results) for name in COUNTS)
    total = wins + draws + losses
    rate = 100 * (wins + draws / 2) / total if total else None
    values = {"win_rate": rate, "winning_score": rate / 50 if rate is not None else None}
    expected = [r.metrics.get(AUDITED["expected"]) for r in results]
    return {
        "value": values.get(kind),
        "judged": total,
        "expected": sum(filter(None, expected)) or None,
    }


def _without_folder(result: Result, folder: str) -> None:
    """The names of the files without the folder that they were laid out in."""
    result.path = result.path.replace(folder, "")
    result.notes = [note.replace(folder, "") for note in result.notes]
    result.findings = [replace(f, message=f.message.replace(folder, "")) for f in result.findings]


def to_json(audit: PublishedAudit) -> dict[str, Any]:
    """The reported figures beside the recomputed ones, and the audit's results."""
    return {
        "row": audit.row,
        "reported": [
            {
                "metric": f.metric,
                "figure": f.figure,
                "reported": f.reported,
                "recomputed": f.recomputed,
                "equal": f.is_equal,
            }
            for f in audit.figures
        ],
        "remarks": audit.remarks,
        "pooled": audit.pooled,
        "results": [json.loads(json.dumps(result.to_dict())) for result in audit.results],
    }
