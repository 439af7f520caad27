"""This harness's own judge and answer artefacts: a volume, or one artefact's folder.

Win rates are recomputed from annotations.json; what the manifest says of them is what is published. Its
own findings come along. Artefacts of other judges are left to their readers.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from harness.artefact.call import MANIFEST
from harness.artefact.store import SHORT, check_files
from harness.audit.checks.judged import check_dropped, check_length, check_position, scores
from harness.audit.checks.published import check_published
from harness.audit.checks.repeats import check_judged_twice
from harness.audit.checks.replies import check_replies
from harness.audit.checks.texts import StoredOutput, check_texts
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
    is_annotations,
    key_of,
    split,
    text,
)
from harness.audit.parse.files import AuditSource, Unreadable, read_json, read_rows
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
SAME_AS = {"role_words": "prompt_mismatch"}
"""Findings of the stages under an audit's names."""


def find(source: AuditSource) -> list[Result]:
    results = []
    manifests = {}
    for path in source.files_named(MANIFEST):
        try:
            value = read_json(path)
        except Unreadable as e:
            source.skip(path, str(e))
            continue
        if _is_manifest(value):
            manifests[path.parent] = value
    judged: set[Path] = set()
    for folder, manifest in manifests.items():
        if manifest["stage"] != "judge" or not (folder / ANNOTATIONS).is_file():
            continue
        try:
            values = read_json(folder / ANNOTATIONS)
        except Unreadable as e:
            source.skip(folder / ANNOTATIONS, str(e))
            continue
        if not is_annotations(values):
            continue
        answers = _answers(folder, manifest, manifests)
        if answers is not None:
            judged.add(answers)
        results.append(
            guarded_result(
                folder, KIND, partial(_judged, source, folder, manifest, values, answers)
            )
        )
    for folder, manifest in manifests.items():
        if manifest["stage"] == "answer":
            if folder not in judged and (folder / OUTPUTS).is_file():
                results += _answered(source, folder, manifest)
            source.claim(folder)
    return results


def _is_manifest(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("stage"), str)
        and isinstance(value.get("key"), str)
        and isinstance(value.get("files"), dict)
        and isinstance(value.get("metrics"), dict)
        and isinstance(value.get("counts"), dict)
    )


def _answers(
    folder: Path, manifest: dict[str, Any], manifests: dict[Path, dict[str, Any]]
) -> Path | None:
    """The folder of the answers that were judged, on the same volume."""
    inputs = manifest.get("inputs")
    outputs = inputs.get("outputs") if isinstance(inputs, dict) else None
    key = outputs.get("key") if isinstance(outputs, dict) else None
    if not isinstance(key, str):
        return None
    beside = folder.parent.parent / "answer" / key[:SHORT]
    elsewhere = (f for f, m in manifests.items() if m["key"] == key)
    return next((f for f in (beside, *elsewhere) if (f / OUTPUTS).is_file()), None)


def _judged(
    source: AuditSource,
    folder: Path,
    manifest: dict[str, Any],
    values: list[dict[str, Any]],
    answers: Path | None,
) -> Result:
    result = _result(folder, manifest)
    annotations = split(values)[0]
    for other in split(values)[1:]:
        annotations.stored += other.stored
        annotations.rows += other.rows
        annotations.readings += other.readings
        annotations.drawn += other.drawn
    figures = manifest["metrics"].get("win_rate")
    figures = figures if isinstance(figures, dict) else {}
    expected = figures.get("expected")
    counted = len(annotations.rows)
    if isinstance(expected, int) and 0 <= expected < MOST_PROMPTS:
        counted = expected
    expected = max(counted, len(annotations.rows))
    result.metrics = scores(annotations.rows, expected)
    result.published = {
        metric: figures[name] for name, metric in FIGURES.items() if figures.get(name) is not None
    }
    compare(result)
    check_replies(result, annotations)
    check_published(result, MANIFEST)
    answered = _answered_rows(source, answers)
    # Without the answers: a row of each prompt, and no more rows than prompts.
    times = Counter(map(key_of, answered)) or Counter(
        row.instruction for row in annotations.rows if len(annotations.rows) <= counted
    )
    check_judged_twice(result, annotations.rows, times, in_set=times)
    check_dropped(result, annotations.rows, [], f"the manifest says {counted}")
    _check_place(result, annotations)
    check_length(result, annotations.rows)
    cut = {key_of(row) for row in answered if row.get("finish_reason") == "length"}
    check_texts(
        result,
        [
            StoredOutput(
                row.instruction, row.output, None if row.preference is None else row.share,
                row.baseline, row.instruction in cut,
            )
            for row in annotations.rows
            if row.output is not None
        ],
    )  # fmt: skip
    result.material = Material(
        outputs={r.instruction: r.output for r in annotations.rows if r.output is not None},
        judgements=[(r.instruction, r.preference) for r in annotations.rows],
        judge=annotations.annotator,
        run=str(answers.resolve()) if answers else str(folder.resolve()),
    )
    _carry_over(result, manifest)
    if answers is not None:
        try:
            _carry_over(result, read_json(answers / MANIFEST))
        except Unreadable as e:
            source.skip(answers / MANIFEST, str(e))
    source.claim(folder)
    return result


def _answered(source: AuditSource, folder: Path, manifest: dict[str, Any]) -> list[Result]:
    """Answers that no judge artefact below the path has judged."""
    try:
        rows = read_rows(folder / OUTPUTS)
    except Unreadable as e:
        source.skip(folder / OUTPUTS, str(e))
        return []
    result = _result(folder, manifest)
    texts = [
        StoredOutput(key_of(r), text(r.get("output")), cut=r.get("finish_reason") == "length")
        for r in rows
    ]
    result.metrics = {
        "prompts": len(rows),
        "empty": sum(not o.text.strip() for o in texts),
        "cut_at_limit": sum(o.cut for o in texts),
    }
    result.published = {
        n: manifest["counts"][n]
        for n in result.metrics
        if isinstance(manifest["counts"].get(n), int)
    }
    compare(result)
    check_published(result, MANIFEST)
    check_texts(result, texts)
    result.material = Material(
        outputs={o.instruction: o.text for o in texts}, run=str(folder.resolve())
    )
    _carry_over(result, manifest)
    return [result]


def _result(folder: Path, manifest: dict[str, Any]) -> Result:
    """With the notes that any artefact has, and whether its files are those that were made."""
    result = Result(str(folder), KIND)
    result.notes.append(f"{manifest['stage']} of row {manifest.get('row')}")
    simulated = manifest.get("simulated")
    if isinstance(simulated, list) and simulated:
        result.notes.append(f"simulated: {', '.join(map(str, simulated))}")
    try:
        check_files(folder, manifest["files"])
    except HarnessError as e:
        result.add("count_mismatch", "error", e.message, {"artefact": str(folder)})
    except (KeyError, TypeError, OSError) as e:
        result.notes.append(f"its files could not be held against the manifest: {e}")
    return result


def _check_place(result: Result, annotations: Annotations) -> None:
    """Position bias: of gradings in both orders from their scores, of others from the order shown."""
    graded_scores = [
        row.get("scores") for row in annotations.stored if row.get("verdicts") is not None
    ]
    if not graded_scores:
        check_position(result, annotations.rows, annotations.order_from or "the annotations")
        return
    try:
        bias = position_bias(
            [((a[0], a[1]), (b[0], b[1])) for a, b in map(tuple, filter(None, graded_scores))]
        )
    except (TypeError, ValueError, LookupError, OverflowError):
        return
    p, gap = bias["p_value"], abs(bias["difference"] or 0.0)
    if p is not None and p < SURE and gap >= LARGE:
        message = f"the judge favours a place: {position_note(bias)}"
        result.add("position_bias", "warning", message, {**bias})


def _answered_rows(source: AuditSource, answers: Path | None) -> list[dict[str, Any]]:
    """The answers that were judged; none, and a note, where they cannot be read."""
    if answers is None:
        return []
    try:
        return read_rows(answers / OUTPUTS)
    except Unreadable as e:
        source.skip(answers / OUTPUTS, str(e))
        return []


def _carry_over(result: Result, manifest: Any) -> None:
    """The findings that the stage itself wrote, where the audit has none of that kind."""
    audited_kinds = {f.kind for f in result.findings}
    stage_findings = manifest.get("findings") if isinstance(manifest, dict) else None
    for finding in stage_findings if isinstance(stage_findings, list) else ():
        if not isinstance(finding, dict):
            continue
        kind = SAME_AS.get(str(finding.get("kind")), str(finding.get("kind")))
        severity, message = finding.get("severity"), str(finding.get("message"))
        evidence = finding.get("evidence")
        if kind not in KINDS or severity not in SEVERITIES:
            result.notes.append(f"the manifest's finding {kind}: {message}")
        elif kind not in audited_kinds:
            result.add(kind, severity, message, evidence if isinstance(evidence, dict) else {})


READER = Reader(
    "artefacts",
    looks_for="this harness's artefacts (manifest.json), on a volume or one by one",
    kinds=(KIND,),
    findings=frozenset(KINDS),
    find=find,
    states_copies=True,
)
