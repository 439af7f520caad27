"""`harness verify`: a row's verdict with its reasons, in words or as data."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.artefact.metrics import metric_of
from harness.common.progress import plain
from harness.results import losses
from harness.results.matrix import MatrixLine, choose_plan, lines_of
from harness.results.verdict.deciding import KIND_WORDS, assumed, more, number
from harness.results.verdict.verdict import Weighed, assess
from harness.row.load import LoadedRow
from harness.row.row import Row
from harness.run.plan import Planner
from harness.stats.variance import VariancePart

REPRODUCED, NOT_REPRODUCED, UNDECIDED = 0, 3, 4
"""Exit codes."""
COLOURS = {"reproduced": "green", "not reproduced": "red"}
ERRORS = {
    "reported": "as reported",
    "binomial": "the largest that a score of this value can have over so many prompts, as none is "
    "reported",
    "ours": "taken to be ours, as none is reported",
}
"""Where the reported number's standard error comes from."""


@dataclass(frozen=True)
class Verified:
    """One metric of a row: its verdict, and the line of the matrix that has it."""

    row: Row
    line: MatrixLine
    weighed: Weighed

    @property
    def metric(self) -> str:
        return str(self.line.cells.metric)


def show_verification(
    console: Console, loaded: LoadedRow, planners: Sequence[Planner], as_json: bool
) -> int:
    """Print the verdict on every reported metric of a row and what it rests on; of a row without one
    on every metric it has. Returns the exit code of the worst with a reported number: 3, then 4,
    then 0; 4 where there is none.

    Raises:
        Damaged: an artefact of the row was changed.
    """
    results = verify(loaded, planners)
    code = exit_code(results)
    if as_json:
        report = {"row": loaded.row.row, "exit_code": code, "metrics": list(map(to_dict, results))}
        console.file.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
        return code
    if not results:
        name = escape(plain(loaded.row.row))
        console.print(f"{name}: neither reports nor measures a score", highlight=False)
    for result in results:
        _show(console, result)
    for heading, notes in _notes(results):
        console.print(f"[bold]{heading}[/]")
        for note in notes:
            console.print(f"  - {escape(plain(note))}", highlight=False, soft_wrap=True)
    return code


def _notes(results: Sequence[Verified]) -> list[tuple[str, list[str]]]:
    """What differs from the published set-up and what was found, of all metrics, each once."""
    sections = [
        ("deviations", [note for result in results for note in result.line.deviations]),
        ("assumptions", [note for result in results for note in result.row.assumptions]),
        ("findings", [str(f) for result in results for f in result.line.findings]),
    ]
    return [(heading, list(dict.fromkeys(notes))) for heading, notes in sections if notes]


def verify(loaded: LoadedRow, planners: Sequence[Planner]) -> list[Verified]:
    row = loaded.row
    plan, _ = choose_plan(loaded, planners)
    results = []
    for line in lines_of(loaded, planners):
        metric = line.cells.metric
        if row.reported and metric not in row.reported:
            continue
        is_loss = metric_of(metric).is_loss
        planned = losses.stages_of(plan) if is_loss else plan.final() if plan else []
        results.append(Verified(row, line, assess(row, metric, planned)))
    return results


def exit_code(results: Sequence[Verified]) -> int:
    """The worst over the metrics of which a number is reported."""
    names = set()
    for result in results:
        reported = result.row.reported.get(result.metric)
        if reported is not None and reported.value is not None:
            names.add(result.weighed.verdict.name)
    if "not reproduced" in names:
        return NOT_REPRODUCED
    return REPRODUCED if names == {"reproduced"} else UNDECIDED


def _show(console: Console, result: Verified) -> None:
    name = result.weighed.verdict.name
    colour = COLOURS.get(name, "yellow")
    metric = f" {result.metric}" if result.metric else ""
    console.print(
        f"[bold]{escape(plain(result.row.row))}[/]{escape(plain(metric))}: [{colour}]{name}[/]",
        highlight=False,
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in sentences(result):
        table.add_row(heading, escape(plain(text)))
    console.print(table)


def sentences(result: Verified) -> list[tuple[str, str]]:
    """What a person reads of it, each with its heading; not escaped."""
    reported = result.row.reported.get(result.metric)
    parts = [
        ("reported", _reported(result)),
        ("ours", _reproduced(result)),
        ("spread", _spread(result)),
        ("unjudged", _unjudged(result)),
        ("difference", _difference(result)),
        ("margin", _margin(result)),
        ("verdict", _verdict(result)),
        ("to decide it", more(result.weighed, reported)),
        ("assumed", assumed(result.weighed)),
        ("not counted", _not_counted(result)),
    ]
    return [(heading, text) for heading, text in parts if text]


def _number(result: Verified, value: float, signed: bool = False) -> str:
    return number(result.weighed, value, signed)


def _reported(result: Verified) -> str:
    c, weighed = result.line.cells, result.weighed
    where = f" ({c.source})" if c.source else ""
    reported = result.row.reported.get(result.metric)
    if reported is None:
        return f"no number{where}"
    if reported.value is None:
        return f"the study leaves this cell empty{where}"
    text = _number(result, reported.value)
    if weighed.reported_span is not None:
        error = reported.standard_error
        if error is None:
            error = weighed.reported_error
        text += f" ± {_number(result, error or 0.0)} ({ERRORS[weighed.reported_error_from]})"
    elif reported.standard_error is not None:
        text += f" ± {_number(result, reported.standard_error)} (as reported)"
    if reported.judged is not None or reported.expected is not None:
        judged = "?" if reported.judged is None else reported.judged
        text += f", judged {judged} of {reported.expected or '?'}"
    return f"{text}; one run{where}"


def _reproduced(result: Verified) -> str:
    c, verdict, evidence = result.line.cells, result.weighed.verdict, result.weighed.evidence
    if evidence is None or c.reproduced is None:
        return f"nothing yet{': ' if c.verdict_reason else ''}{c.verdict_reason}"
    text = _number(result, c.reproduced)
    if c.standard_error is not None:
        each = ", each run" if len(evidence.runs) > 1 else ""
        text += f"{each} ± {_number(result, c.standard_error)} over prompts"
    if verdict.reproduced_low is not None and verdict.reproduced_high is not None:
        low, high = (
            _number(result, verdict.reproduced_low),
            _number(result, verdict.reproduced_high),
        )
        text += f", 95 % interval {low} to {high}"
    if c.expected is not None:
        text += f"; judged {c.judged} of {c.expected}"
    return f"{text}; {runs_in_words(result)}{losses.marks(c.simulated, c.random_weights)}"


def runs_in_words(result: Verified) -> str:
    """`6 runs (3 trainings, 2 judgings of each)`."""
    evidence = result.weighed.evidence
    assert evidence is not None
    total, planned = len(evidence.runs), result.line.cells.replicates_planned
    above, parts = 1, []
    for depth, kind in enumerate(("train", "sampling", "judge")):
        count = evidence.count(depth)
        if count > above:
            each = f"{count / above:g} " if count % above == 0 else f"{count} in all: "
            parts.append(f"{each}{KIND_WORDS[kind][1]}{' of each' * (above > 1)}")
        above = count
    text = f"{total} run{'s' * (total > 1)}"
    if planned is not None and planned != total:
        text += f" of {planned} planned"
    return text + (f" ({', '.join(parts)})" if parts else "")


def _spread(result: Verified) -> str:
    """The variance of one run's score in its parts, as standard deviations."""
    weighed = result.weighed
    split, evidence = weighed.split, weighed.evidence
    if evidence is None:
        return ""
    if split is None:
        if weighed.replicated:
            spread = _number(result, math.sqrt(weighed.between))
            return (
                f"between trainings a standard deviation of {spread}; no grade per prompt is kept"
            )
        return ""
    parts = [f"the choice of prompts {_number(result, math.sqrt(split.prompts))}"]
    parts += [_part(result, kind, split.parts[kind]) for kind in KIND_WORDS if kind in split.parts]
    scope = f"over the {split.complete} prompts judged in every run"
    return f"standard deviation of one run's score, {scope}: {', '.join(parts)}"


def _part(result: Verified, kind: str, part: VariancePart) -> str:
    """`training 1.20 (of it 0.95 common to all prompts)`; what does not enter is said not to."""
    text = f"{KIND_WORDS[kind][0]} {_number(result, math.sqrt(part.variance))}"
    if part.common == 0:
        return text
    text += f" (of it {_number(result, math.sqrt(part.common))} common to all prompts"
    if not part.is_common:
        text += ", no more than chance makes"
    return f"{text})"


def _unjudged(result: Verified) -> str:
    c = result.line.cells
    texts = []
    reported = result.row.reported.get(result.metric)
    if c.expected is not None and c.judged is not None and c.judged < c.expected:
        text = f"{c.expected - c.judged} of ours"
        if c.lower_bound is not None and c.upper_bound is not None:
            low, high = _number(result, c.lower_bound), _number(result, c.upper_bound)
            text += f": all lost the score were {low}, all won {high}"
        texts.append(text)
    reported_span = result.weighed.reported_span
    if reported and reported_span is not None and reported_span.low < reported_span.high:
        assert reported.expected is not None
        assert reported.judged is not None
        count = reported.expected - reported.judged
        low, high = _number(result, reported_span.low), _number(result, reported_span.high)
        texts.append(f"{count} of the published run: all lost {low}, all won {high}")
    if not texts:
        return ""
    return "; ".join(texts) + ". The interval of the difference reaches from one end to the other"


def _difference(result: Verified) -> str:
    verdict, weighed = result.weighed.verdict, result.weighed
    if verdict.difference is None:
        return ""
    text = f"{_number(result, verdict.difference, True)} (ours - reported)"
    if verdict.low is None or verdict.high is None:
        return text
    low, high = _number(result, verdict.low, True), _number(result, verdict.high, True)
    text += f", 95 % interval {low} to {high}"
    if weighed.assumed:
        text += (
            f", with a standard deviation of {weighed.assumed:g} between trainings allowed for on "
            "both sides: there is one training, which does not show it"
        )
    elif weighed.replicated:
        what = KIND_WORDS[weighed.replicated][1]
        text += f", with what {what} differ by on both sides ({weighed.df + 1} of ours)"
    return text


def _margin(result: Verified) -> str:
    margin = result.weighed.verdict.margin
    if margin is None:
        return ""
    row, kind = result.row, result.metric.partition("/")[0]
    is_named = result.metric in row.margins or kind in row.margins
    return f"{margin:g}{'' if is_named else ' points, where a spec names none'}"


def _verdict(result: Verified) -> str:
    """The name with the reason, in a sentence."""
    verdict, c = result.weighed.verdict, result.line.cells
    if verdict.margin is None or verdict.low is None or verdict.high is None:
        reason = verdict.reason or c.verdict_reason
        return reason if verdict.name == "simulated" else f"{verdict.name}: {reason}".rstrip(": ")
    where = f"±{verdict.margin:g}"
    if verdict.name == "reproduced":
        return f"reproduced: the whole interval lies within {where}"
    if verdict.name == "not reproduced":
        return f"not reproduced: the whole interval lies outside {where}"
    if verdict.low >= -verdict.margin and verdict.high <= verdict.margin:
        return f"inconclusive: the interval lies within {where}, but one training cannot show it"
    return f"inconclusive: the interval lies partly within {where} and partly outside"


def _not_counted(result: Verified) -> str:
    evidence, row = result.weighed.evidence, result.row
    if evidence is None or result.weighed.reported_span is None:
        return ""
    effects = ["that both runs may have answered the same prompts, which would narrow the interval"]
    sources = [step.reply_source for step in row.gen or []]
    if evidence.trains and any(source and source.role == "teacher" for source in sources):
        effects.append(
            "what another data set by the same recipe would change, which would widen it"
        )
    return "; ".join(effects)


def to_dict(result: Verified) -> dict[str, Any]:
    """The same as data. Standard errors, deviations and intervals are in the metric's own units."""
    weighed, c = result.weighed, result.line.cells
    verdict, split, evidence = weighed.verdict, weighed.split, weighed.evidence
    reported = result.row.reported.get(result.metric)
    return {
        "metric": result.metric,
        "verdict": verdict.name,
        "reason": verdict.reason or c.verdict_reason,
        "reported": None
        if reported is None
        else {
            **reported.model_dump(),
            "source": c.source,
            "standard_error_used": weighed.reported_error if weighed.reported_span else None,
            "standard_error_from": weighed.reported_error_from or None,
        },
        "reproduced": None
        if evidence is None
        else {
            "value": c.reproduced,
            "standard_error": c.standard_error,
            "low": verdict.reproduced_low,
            "high": verdict.reproduced_high,
            "judged": c.judged,
            "expected": c.expected,
            "lower_bound": c.lower_bound,
            "upper_bound": c.upper_bound,
            "simulated": c.simulated,
            "runs": len(evidence.runs),
            "runs_planned": c.replicates_planned,
            "trainings": evidence.count(0) if evidence.trains else 0,
            "samplings": evidence.count(1),
            "judgings": evidence.count(2),
        },
        "variance": None
        if split is None
        else {
            "prompts_judged_in_every_run": split.complete,
            "prompts": split.prompts,
            **{kind: asdict(part) for kind, part in split.parts.items()},
        },
        "difference": {"value": verdict.difference, "low": verdict.low, "high": verdict.high},
        "margin": verdict.margin,
        "assumed": assumed(result.weighed) or None,
        "assumed_sd_between_trainings": weighed.assumed or None,
        "half_width_with_endless_replicates": weighed.foretold.limit if weighed.foretold else None,
        "half_width_of_unjudged": weighed.foretold.unjudged if weighed.foretold else None,
        "chance_with_more": weighed.foretold.chance if weighed.foretold else None,
        "more_only_shows": bool(weighed.foretold and weighed.foretold.is_first),
        "more": [{"kind": kind, "replicates": count} for kind, count in verdict.more],
        "deviations": list(result.line.deviations),
        "assumptions": list(result.row.assumptions),
        "findings": list(map(str, result.line.findings)),
    }
