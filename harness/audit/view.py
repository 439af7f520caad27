"""Audits at the terminal and as JSON."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from harness.audit.model import MOST_DIGITS, SEVERITIES, Finding, Result, finite
from harness.progress import plain

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}

FIRST = ("win_rate", "standard_error", "n_judged", "n_expected", "lower_bound", "upper_bound")
NOT_LISTED = frozenset({"n_judged", "n_expected", "lower_bound", "upper_bound"})
MOST_EXAMPLES = 3
LONGEST_TEXT = 160
"""Characters of an example at the terminal."""


def to_json(results: Sequence[Result]) -> str:
    """One result's object, or a list of them where there are several."""
    told = [result.to_dict() for result in results]
    return json.dumps(told[0] if len(told) == 1 else told, indent=2, ensure_ascii=True)


def show_audits(console: Console, results: Sequence[Result]) -> None:
    """Each result with its numbers and findings, then how many there were of each."""
    for result in results:
        _show(console, result)
    counts = {s: sum(f.severity == s for r in results for f in r.findings) for s in SEVERITIES}
    found = ", ".join(_number_of(n, s) for s, n in counts.items() if n)
    clean = sum(not r.findings and r.matches is not False for r in results)
    parts = [_number_of(len(results), "result"), found or "no finding"]
    if found and clean:
        parts.append(f"{clean} without one")
    console.print(f"[bold]{', '.join(parts)}[/]", highlight=False)


def _show(console: Console, result: Result) -> None:
    console.print(
        f"[bold]{escape(_line(result.path))}[/] [dim]{escape(_line(result.kind))}[/]",
        highlight=False,
        soft_wrap=True,
    )
    for line in _numbers(result):
        _print(console, line, 2)
    order = {severity: n for n, severity in enumerate(SEVERITIES)}
    for finding in sorted(result.findings, key=lambda f: order[f.severity]):
        _show_finding(console, finding)
    if not result.findings:
        _print(console, Text("no finding", "green"), 2)
    for note in result.notes:
        _print(console, Text(f"note: {_line(note)}", "dim"), 2)
    console.print()


def _numbers(result: Result) -> Iterator[Text]:
    m = result.metrics
    judged, expected = m.get("n_judged"), m.get("n_expected")
    if judged is not None and expected is not None:
        text = f"judged {judged:,} of {expected:,}"
        if judged < expected and m.get("lower_bound") is not None:
            text += (
                f": between {m['lower_bound']:.2f} and {m['upper_bound']:.2f} "
                "with the others lost or won"
            )
        yield Text(text)
    verdict = {True: "matches", False: "DOES NOT MATCH", None: "not all of it could be read"}
    compared = [name for name in _in_order(result.published) if name in result.digits]
    if result.digits:
        style = {True: "green", False: "bold red", None: "yellow"}[result.matches]
        yield Text.assemble("published and recomputed: ", (verdict[result.matches], style))
    width = max((len(name) for name in [*m, *result.published]), default=0)
    for name in compared:
        digits = result.digits[name]
        if digits >= result.wanted.get(name, MOST_DIGITS) and digits >= MOST_DIGITS:
            agree, style = "exact", "dim"
        elif digits >= result.wanted.get(name, 0):
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
        told = ", ".join(f"{_line(n)} {_figure(result.published[n])}" for n in alone)
        yield Text(f"published, not recomputed: {told}")


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
    for line in text.wrap(console, max(console.width - indent, 20)):
        line.rstrip()
        console.print(Text(" " * indent) + line, highlight=False, soft_wrap=True)


def _in_order(values: dict[str, Any]) -> list[str]:
    return sorted(values, key=lambda n: (FIRST.index(n) if n in FIRST else len(FIRST), 0))


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
