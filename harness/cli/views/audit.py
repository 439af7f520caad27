"""Audits at the terminal and as JSON."""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.artefact.manifest import Finding
from harness.audit.model import MOST_DIGITS, SEVERITIES, Result, finite
from harness.common import numbers
from harness.common.hanging import hanging, print_hanging
from harness.common.progress import plain
from harness.results.published import PublishedAudit

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}

FIRST = ("win_rate", "standard_error", "n_judged", "n_expected", "lower_bound", "upper_bound")
NOT_LISTED = frozenset({"n_judged", "n_expected", "lower_bound", "upper_bound"})
MOST_EXAMPLES = 3
MANY = 4
"""From so many on, what is alike is told once."""
MOST_NAMES = 3
SUBJECTS = ("task", "subject", "name", "model")
"""Of a finding's evidence, what it is about."""
_NUMBERS = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
LONGEST_TEXT = 160
"""Characters of an example at the terminal."""


def to_json(results: Sequence[Result]) -> str:
    """One result's object, or a list of them where there are several."""
    documents = [result.to_dict() for result in results]
    return json.dumps(
        documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=True
    )


def show_audits(console: Console, results: Sequence[Result]) -> None:
    """Each result with its numbers and findings, then how many there were of each.

    What many results, or many parts of one, have in common is told once, with their number and names.
    """
    common = CommonFindings(results)
    for result in results:
        _show(console, result, common)
    counts = {s: sum(f.severity == s for r in results for f in r.findings) for s in SEVERITIES}
    finding_counts = ", ".join(_number_of(n, s) for s, n in counts.items() if n)
    clean = sum(not r.findings and r.matches is not False for r in results)
    parts = [_number_of(len(results), "result"), finding_counts or "no finding"]
    if finding_counts and clean:
        parts.append(f"{clean} without one")
    _print(console, Text(", ".join(parts), "bold"), 0)


def show_published(console: Console, audit: PublishedAudit) -> None:
    """What a study published of a row: the audit's results, and the reported numbers beside those
    computed from the files."""
    show_audits(console, audit.results)
    for remark in audit.remarks:
        _print(console, Text(_line(remark), "bold red"), 0)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in (_line(audit.row), "reported", "recomputed", ""):
        table.add_column(
            heading, justify="right" if heading in ("reported", "recomputed") else "left"
        )
    for figure in audit.figures:
        name = figure.metric if figure.figure == "value" else f"  {figure.figure}"
        style = "bold red" if figure.is_equal is False else "dim"
        cells = (_figure(figure.reported), _figure(figure.recomputed))
        table.add_row(Text(_line(name) if figure.figure == "value" else name), *cells,
                      Text(figure.verdict, style))  # fmt: skip
    console.print(table, highlight=False)
    for sentence in audit.pooled:
        _print(console, Text(_line(sentence), "dim"), 0)


class CommonFindings:
    """Findings and notes that many results, or parts of one, have but for numbers and names."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._names: dict[Hashable, list[str]] = {}
        self._shown_before: set[Hashable] = set()
        for result in results:
            for finding in result.findings:
                names = self._names.setdefault(_pattern(result, finding), [])
                names.append(_subject(finding) or result.path)
            for note in dict.fromkeys(result.notes):
                self._names.setdefault(_note_pattern(result, note), []).append(result.path)

    def other_names(self, key: Hashable) -> list[str] | None:
        """The names of the others that have it, where it is told first; None: it has been told."""
        names = self._names[key]
        if len(names) < MANY:
            return []
        if key in self._shown_before:
            return None
        self._shown_before.add(key)
        return names[1:]


def _pattern(result: Result, finding: Finding) -> Hashable:
    """The same of findings that differ in numbers, and in names that their evidence has."""
    names = [v for v in finding.evidence.values() if isinstance(v, str)]
    text = _without(finding.message, [*names, Path(result.path).name, result.path])
    return result.kind, finding.kind, finding.severity, text


def _note_pattern(result: Result, note: str) -> Hashable:
    return result.kind, _without(note, [Path(result.path).name, result.path])


def _without(text: str, names: Sequence[str]) -> str:
    """A text without numbers and names."""
    for name in sorted(set(names), key=len, reverse=True):
        if len(name) > 1:
            text = text.replace(name, "*")
    return _NUMBERS.sub("0", text)


def _subject(finding: Finding) -> str:
    """The part of a result that a finding is about."""
    return next((str(finding.evidence[n]) for n in SUBJECTS if finding.evidence.get(n)), "")


def _so_too(names: Sequence[str]) -> str:
    """`so too in 56 more: a, b, c and others`; of paths what is different."""
    first = list(dict.fromkeys(names))[:MOST_NAMES]
    parts = [Path(name).parts for name in first]
    if all(len(p) > 1 for p in parts) and len(parts) > 1:
        common = next(
            (n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), 0
        )
        first = ["/".join(p[common:]) for p in parts]
    listed = ", ".join(_clip(name) for name in first)
    return f"so too in {len(names):,} more: {listed}" + (
        " and others" if len(names) > len(first) else ""
    )


def _show(console: Console, result: Result, common: CommonFindings) -> None:
    print_hanging(
        console, Text.assemble((_line(result.path), "bold"), " ", (_line(result.kind), "dim"))
    )
    for line in _numbers(result):
        _print(console, line, 2)
    again = 0
    for finding in result.sorted_findings:
        other_names = common.other_names(_pattern(result, finding))
        if other_names is None:
            again += 1
            continue
        _show_finding(console, finding)
        if other_names:
            _print(console, Text(_so_too(other_names), "dim"), 6)
    if again:
        repeats = "1 finding" if again == 1 else f"{again} findings"
        _print(console, Text(f"{repeats} told above, with others that are alike", "dim"), 2)
    if not result.findings:
        _print(console, Text("no finding", "green"), 2)
    for note in dict.fromkeys(result.notes):
        other_names = common.other_names(_note_pattern(result, note))
        if other_names is None:
            continue
        _print(console, Text(f"note: {_line(note)}", "dim"), 2)
        if other_names:
            _print(console, Text(_so_too(other_names), "dim"), 6)
    console.print()


def _numbers(result: Result) -> Iterator[Text]:
    m = result.metrics
    judged, expected = m.get("n_judged"), m.get("n_expected")
    if judged is not None and expected is not None:
        text = f"judged {numbers.out_of(judged, expected, grouping=',')}"
        if judged < expected and m.get("lower_bound") is not None:
            low, high = map(numbers.number, (m["lower_bound"], m["upper_bound"]))
            text += f": between {low} and {high} with the others lost or won"
        yield Text(text)
    verdict = {True: "matches", False: "DOES NOT MATCH", None: "not all of it could be read"}
    compared = [name for name in _in_order(result.published) if name in result.digits]
    if result.digits:
        style = {True: "green", False: "bold red", None: "yellow"}[result.matches]
        heading = f"{result.reader.stated} and recomputed: "
        yield Text.assemble(heading, (verdict[result.matches], style))
    width = max((len(name) for name in [*m, *result.published]), default=0)
    for name in compared:
        digits = result.digits[name]
        if digits >= result.required_digits.get(name, MOST_DIGITS) and digits >= MOST_DIGITS:
            agree, style = "exact", "dim"
        elif digits >= result.required_digits.get(name, 0):
            agree, style = f"to {digits} decimals", "dim"
        else:
            agree, style = "differs" if digits < 0 else f"only to {digits} decimals", "bold red"
        yield Text.assemble(
            f"  {_line(name):<{width}}  {_figure(result.published[name]):>14}"
            f"  {_figure(m[name]):>14}  ",
            (agree, style),
        )
    rest = [n for n in _in_order(m) if n not in compared and n not in NOT_LISTED]
    if rest:
        title = "recomputed" if result.published or judged is not None else "counted"
        yield Text(f"{title}: " + ", ".join(f"{_line(n)} {_figure(m[n])}" for n in rest))
    alone = [n for n in _in_order(result.published) if n not in compared]
    if alone:
        figures = ", ".join(f"{_line(n)} {_figure(result.published[n])}" for n in alone)
        yield Text(f"{result.reader.stated}, not recomputed: {figures}")


def _show_finding(console: Console, finding: Finding) -> None:
    _print(
        console,
        Text.assemble(
            (f"{finding.severity} ", STYLES[finding.severity]),
            (finding.kind, "bold"),
            f": {_line(finding.message)}",
        ),
        2,
    )
    examples = finding.evidence.get("examples")
    texts = [e for e in examples if not isinstance(e, list)] if isinstance(examples, list) else []
    for example in texts[:MOST_EXAMPLES]:
        _print(console, Text(f"e.g. {_example(example)}", "dim"), 6)


def _example(example: Any) -> str:
    if isinstance(example, dict):
        return "; ".join(
            f"{_line(k)}: {_clip(v)}" for k, v in example.items() if v not in (None, "")
        )
    return _clip(example)


def _clip(value: Any) -> str:
    text = _line(value if isinstance(value, str) else json.dumps(finite(value), default=str))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "\u2026"


def _print(console: Console, text: Text, indent: int) -> None:
    line = hanging(console, Text(" " * indent) + text, indent)
    console.print(line, highlight=False, soft_wrap=True)


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda n: (FIRST.index(n) if n in FIRST else len(FIRST), 0))


def _figure(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1000 else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else _clip(value)


def _line(text: Any) -> str:
    return " ".join(plain(str(text)).split())


def _number_of(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 or word == "info" else f"{n} {word}s"
