"""This harness's own judge and answer artefacts: a volume, or one artefact's folder.

Win rates are recomputed from annotations.json; what the manifest says of them is what is published. Its
own findings come along. Artefacts of other judges are left to their readers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.artefact.call import MANIFEST
from harness.artefact.store import SHORT, check_files
from harness.audit.checks.judged import check_dropped, check_length, check_position, measure
from harness.audit.checks.published import check_published
from harness.audit.checks.repeats import check_judged_twice
from harness.audit.checks.replies import check_replies
from harness.audit.checks.texts import check_texts
from harness.audit.model import (
    KINDS,
    SEVERITIES,
    SURE,
    Material,
    Reader,
    Result,
    compare,
    guarded_result,
)
from harness.audit.parse.alpaca_rows import (
    Annotations,
    ModelOutput,
    annotations_in,
    read_outputs,
    split,
)
from harness.audit.parse.files import AuditSource, JsonObject, read_json, read_rows
from harness.audit.parse.judged_pairs import judged_outputs, material_of
from harness.errors import HarnessError
from harness.judge.grades import position_bias
from harness.judge.scores import LARGE, position_note

KIND = "artefact"
ANNOTATIONS, OUTPUTS = "annotations.json", "model_outputs.json"
MOST_PROMPTS = 10**9
FIGURES = {
    "value": "win_rate",
    "standard_error": "standard_error",
    "judged": "n_judged",
    "expected": "n_expected",
    "wins": "n_wins",
    "losses": "n_wins_base",
    "draws": "n_draws",
    "lower_bound": "lower_bound",
    "upper_bound": "upper_bound",
}
"""A manifest's names -> those of a result."""
CRATE = "harness.json"
SAME_AS = {"role_words": "prompt_mismatch"}
"""Findings of the stages under an audit's names."""


@dataclass(frozen=True)
class _Artefact:
    """What an artefact's manifest says, whichever version wrote it. figures: of its win rate, counts:
    those that are whole numbers, under the manifest's names. answers_key: of the answers that were
    judged. files, findings: as they stand, for who looks at them."""

    folder: Path
    stage: str
    key: str
    row: Any
    simulated: list[str]
    figures: JsonObject
    counts: dict[str, int]
    answers_key: str | None
    files: Any
    findings: list[JsonObject]


def find(source: AuditSource) -> list[Result]:
    results = []
    artefacts = [
        artefact
        for path in source.files_named(MANIFEST)
        if (artefact := _artefact(path.parent, _object(source, path))) is not None
    ]
    judged: set[Path] = set()
    verdicts = _published_verdicts(source)
    for artefact in artefacts:
        folder = artefact.folder
        if artefact.stage != "judge" or not (folder / ANNOTATIONS).is_file():
            continue
        rows = annotations_in(source.read(read_json, folder / ANNOTATIONS))
        if not rows:
            continue
        answers = _answers(artefact, artefacts)
        if answers is not None:
            judged.add(answers)
        make = partial(_judged, source, artefact, split(rows), answers)
        result = guarded_result(folder, KIND, make)
        result.material.same_run |= verdicts.get(str(artefact.row), set())
        results.append(result)
    for artefact in artefacts:
        if artefact.stage == "answer":
            if artefact.folder not in judged and (artefact.folder / OUTPUTS).is_file():
                results += _answered(source, artefact)
            source.claim(artefact.folder)
    return results


def _published_verdicts(source: AuditSource) -> dict[str, set[str]]:
    """A bridging model's row, as a crate calls it -> sha256 of the published judge's verdicts on the
    same outputs."""
    verdicts: dict[str, set[str]] = {}
    for path in source.files_named(CRATE):
        for part in _object(source, path).objects("bridge"):
            verdicts.setdefault(str(part.text("row")), set()).add(str(part.text("sha256")))
    return verdicts


def _object(source: AuditSource, path: Path) -> JsonObject:
    """What a file of JSON holds; an empty object where it holds none."""
    value = source.read(read_json, path)
    return JsonObject(value) if isinstance(value, dict) else JsonObject()


def _artefact(folder: Path, manifest: JsonObject) -> _Artefact | None:
    """None: the file is no artefact's manifest."""
    stage, key = manifest.text("stage"), manifest.text("key")
    parts = (manifest.get(name) for name in ("files", "metrics", "counts"))
    if stage is None or key is None or not all(isinstance(part, dict) for part in parts):
        return None
    counts = manifest.object("counts")
    return _Artefact(
        folder,
        stage,
        key,
        row=manifest.get("row"),
        simulated=[str(mark) for mark in manifest.entries("simulated")],
        figures=manifest.object("metrics").object("win_rate"),
        counts={name: count for name, count in counts.items() if isinstance(count, int)},
        answers_key=manifest.object("inputs").object("outputs").text("key"),
        files=manifest["files"],
        findings=manifest.objects("findings"),
    )


def _answers(artefact: _Artefact, artefacts: Sequence[_Artefact]) -> Path | None:
    """The folder of the answers that were judged, on the same volume."""
    key = artefact.answers_key
    if key is None:
        return None
    beside = artefact.folder.parent.parent / "answer" / key[:SHORT]
    elsewhere = (other.folder for other in artefacts if other.key == key)
    return next((f for f in (beside, *elsewhere) if (f / OUTPUTS).is_file()), None)


def _judged(
    source: AuditSource, artefact: _Artefact, sets: list[Annotations], answers: Path | None
) -> Result:
    result = _result(artefact)
    annotations = sets[0]
    for other in sets[1:]:
        annotations.stored += other.stored
        annotations.rows += other.rows
        annotations.readings += other.readings
        annotations.drawn += other.drawn
    expected = artefact.figures.get("expected")
    counted = len(annotations.rows)
    if isinstance(expected, int) and 0 <= expected < MOST_PROMPTS:
        counted = expected
    measure(result, annotations.rows, max(counted, len(annotations.rows)))
    result.published = {
        metric: figure
        for name, metric in FIGURES.items()
        if (figure := artefact.figures.get(name)) is not None
    }
    compare(result)
    check_replies(result, annotations)
    check_published(result, MANIFEST)
    answered = _outputs(source, answers) if answers else []
    manifest = _object(source, answers / MANIFEST) if answers else JsonObject()
    # Without the answers: a row of each prompt, and no more rows than prompts.
    times = Counter(row.prompt for row in answered) or Counter(
        row.instruction for row in annotations.rows if len(annotations.rows) <= counted
    )
    check_judged_twice(result, annotations.rows, times, in_set=times)
    check_dropped(result, annotations.rows, [], f"the manifest says {counted}")
    _check_place(result, annotations)
    check_length(result, annotations.rows)
    cut = {row.prompt for row in answered if row.is_cut}
    check_texts(result, judged_outputs(annotations.rows, cut))
    run, same_run = _run_of(answers or artefact.folder, manifest)
    result.material = material_of(
        annotations.rows, judge=annotations.annotator, run=run, same_run=same_run
    )
    _carry_over(result, artefact.findings)
    _carry_over(result, manifest.objects("findings"))
    source.claim(artefact.folder)
    return result


def _run_of(folder: Path, manifest: JsonObject) -> tuple[str, set[str]]:
    """The run of an answer artefact's outputs, and the sha256 of the file that they were given in,
    which then is the run."""
    engine = manifest.object("document").object("params").object("answer").object("engine")
    digest = engine.object("outputs").text("sha256")
    return (digest, {digest}) if digest else (str(folder.resolve()), set())


def _answered(source: AuditSource, artefact: _Artefact) -> list[Result]:
    """Answers that no judge artefact below the path has judged."""
    rows = source.read(read_rows, artefact.folder / OUTPUTS)
    if rows is None:
        return []
    result = _result(artefact)
    texts = [row.unjudged() for row in read_outputs(rows)]
    result.metrics = {
        "prompts": len(texts),
        "empty": sum(not o.text.strip() for o in texts),
        "cut_at_limit": sum(o.cut for o in texts),
    }
    result.published = {n: artefact.counts[n] for n in result.metrics if n in artefact.counts}
    compare(result)
    check_published(result, MANIFEST)
    check_texts(result, texts)
    run, same_run = _run_of(artefact.folder, _object(source, artefact.folder / MANIFEST))
    result.material = Material(
        outputs={o.instruction: o.text for o in texts}, run=run, same_run=same_run
    )
    _carry_over(result, artefact.findings)
    return [result]


def _result(artefact: _Artefact) -> Result:
    """With the notes that any artefact has, and whether its files are those that were made."""
    result = Result(str(artefact.folder), KIND)
    result.notes.append(f"{artefact.stage} of row {artefact.row}")
    if artefact.simulated:
        result.notes.append(f"simulated: {', '.join(artefact.simulated)}")
    try:
        check_files(artefact.folder, artefact.files)
    except HarnessError as e:
        result.mismatch(e.message, {"artefact": str(artefact.folder)})
    except (KeyError, TypeError):
        result.notes.append(
            "its files could not be held against the manifest: what stands there under `files` is not "
            "a size and a sha256 for each"
        )
    except OSError as e:
        result.notes.append(f"its files could not be held against the manifest: {e}")
    return result


def _check_place(result: Result, annotations: Annotations) -> None:
    """Position bias: of gradings in both orders from their scores, of others from the order shown."""
    if all(row.scores is None for row in annotations.stored):
        check_position(result, annotations.rows, annotations.order_from or "the annotations")
        return
    try:
        orders = [tuple(row.scores) for row in annotations.stored if row.scores]
        bias = position_bias([((a[0], a[1]), (b[0], b[1])) for a, b in orders])
    except (TypeError, ValueError, LookupError, OverflowError):
        return
    p, gap = bias["p_value"], abs(bias["difference"] or 0.0)
    if p is not None and p < SURE and gap >= LARGE:
        message = f"the judge favours a place: {position_note(bias)}"
        result.add("position_bias", "warning", message, {**bias})


def _outputs(source: AuditSource, answers: Path) -> list[ModelOutput]:
    """Those that were judged; none, and a note, where they cannot be read."""
    return read_outputs(source.read(read_rows, answers / OUTPUTS) or [])


def _carry_over(result: Result, findings: Sequence[JsonObject]) -> None:
    """The findings that the stage itself wrote, where the audit has none of that kind."""
    audited_kinds = {f.kind for f in result.findings}
    for finding in findings:
        kind = SAME_AS.get(str(finding.get("kind")), str(finding.get("kind")))
        severity, message = finding.get("severity"), str(finding.get("message"))
        if kind not in KINDS or severity not in SEVERITIES:
            result.notes.append(f"the manifest's finding {kind}: {message}")
        elif kind not in audited_kinds:
            result.add(kind, severity, message, finding.object("evidence"))


READER = Reader(
    "artefacts",
    looks_for="this harness's artefacts (manifest.json), on a volume or one by one",
    findings=frozenset(KINDS),
    find=find,
    states_copies=True,
    stated="recorded",
)
