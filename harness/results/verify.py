"""`harness verify`: a row's verdict with its reasons, in words or as data."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from harness.artefact.keys import Files
from harness.common import numbers
from harness.common.commands import harness
from harness.common.hanging import print_hanging
from harness.common.progress import counted, plain
from harness.errors import InputError
from harness.results.line import MatrixLine, marks
from harness.results.matrix import lines_of
from harness.results.purchase import first_asked
from harness.results.verdict.deciding import assumed, more
from harness.results.verdict.evidence import served_models
from harness.results.verdict.forecast import DECIDED
from harness.results.verdict.outlook import PERCENT
from harness.results.verdict.sides import KIND_WORDS, KINDS
from harness.results.verdict.verdict import ANOTHER_JUDGE, Weighed, also_within
from harness.row.load import LoadedRow
from harness.row.published_judge import another_judge, in_words, own_judge
from harness.row.rejudged import WIN_RATE, is_rejudged
from harness.row.reported import Reported
from harness.run import ready
from harness.run.given.bring import lacking
from harness.run.plan import Planner
from harness.sim.retired import NAME as RETIRED
from harness.stats.bridge import FEW_MODELS
from harness.stats.intervals import t_quantile
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


def show_verification(
    console: Console, loaded: LoadedRow, planners: Sequence[Planner], as_json: bool
) -> int:
    """Print the verdict on every reported metric of a row and what it rests on; of a row without one
    on every metric it has. Returns the exit code of the worst with a reported number: 3, then 4,
    then 0; 4 where there is none.

    Raises:
        Damaged: an artefact of the row was changed.
        InputError: what `harness settle` wrote of the row was changed.
    """
    lines = lines_of(loaded, planners)
    if loaded.row.reported:
        lines = [line for line in lines if line.cells.metric in loaded.row.reported]
    code = exit_code(lines)
    faults = _faults(loaded, lines)
    if as_json:
        metrics = {
            "row": loaded.row.row,
            "exit_code": code,
            "metrics": list(map(to_dict, lines)),
            "faults": faults,
        }
        console.file.write(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        return code
    if not lines:
        name = plain(loaded.row.row)
        print_hanging(console, f"{name}: neither reports nor measures a score")
    for line in lines:
        _show(console, line)
    for heading, notes in [*_notes(lines), *([("faults", faults)] if faults else [])]:
        console.print(f"[bold]{heading}[/]")
        for note in notes:
            print_hanging(console, f"  - {plain(note)}")
    for text in _commands(loaded, lines):
        print_hanging(console, plain(text))
    return code


def _faults(loaded: LoadedRow, lines: Sequence[MatrixLine]) -> list[str]:
    """What is wrong with the files of what is judged beside the row, as `harness validate` tells it,
    without what the verdicts say. Not among the sentences: specs' paths stand in it."""
    plan = next((line.plan for line in lines if line.plan is not None), None)
    planner = plan.stages[0].planner if plan is not None and plan.stages else None
    try:
        ready.check_beside(loaded, planner.files if planner is not None else Files(None, None))
    except InputError as e:
        said = " ".join(line.cells.verdict_reason for line in lines)
        parts = [part for part in e.parts if part.message not in said]
        return [f"{loaded.place(part.setting)}: {part.message}. {part.hint}" for part in parts]
    return []


def _commands(loaded: LoadedRow, lines: Sequence[MatrixLine]) -> Iterator[str]:
    """What to run next. Not among the sentences, which a report has too, and specs' paths are not."""
    plan = next((line.plan for line in lines if line.plan is not None), None)
    plans = [plan, *plan.beside()] if plan is not None else []
    missing = {s.id for p in plans for s in p.stages if s.artefact is None}
    if plan is not None and missing:
        yield f"{counted(len(missing), 'stage')} of it not made yet: {harness('run', plan.target)}"
    planner = plan.stages[0].planner if plan is not None and plan.stages else None
    if plan is not None and planner is not None:
        verdicts = [s.retired.annotations for s in plan.stages if s.retired is not None]
        if absent := lacking(verdicts, planner.files):
            files = counted(len(absent), "file")
            yield f"{files} of published verdicts not here: {harness('fetch', plan.target)}"
    if loaded.row.reported.annotations:
        command = harness("audit", str(loaded.path))
        yield f"the study published its verdicts: {command} computes its number anew"


def _notes(lines: Sequence[MatrixLine]) -> list[tuple[str, list[str]]]:
    """What differs from the published set-up and what was found, of all metrics, each once."""
    sections = [
        ("deviations", [note for line in lines for note in line.deviations]),
        ("assumptions", [note for line in lines for note in line.row.stated("assumption")]),
        ("findings", [str(f) for line in lines for f in line.findings]),
    ]
    return [(heading, list(dict.fromkeys(notes))) for heading, notes in sections if notes]


def exit_code(lines: Sequence[MatrixLine]) -> int:
    """The worst over the metrics of which a number is reported."""
    names = {line.cells.verdict for line in lines if line.cells.reported is not None}
    if "not reproduced" in names:
        return NOT_REPRODUCED
    return REPRODUCED if names == {"reproduced"} else UNDECIDED


def _show(console: Console, line: MatrixLine) -> None:
    name = line.cells.verdict
    colour = COLOURS.get(name, "yellow")
    metric = f" {line.cells.metric}" if line.cells.metric else ""
    row = Text(plain(line.row.row), "bold")
    print_hanging(console, Text.assemble(row, f"{plain(metric)}: ", (name, colour)))
    parts = [*sentences(line), *[("settle", line.looks)] * bool(line.looks)]
    width = max(len(heading) for heading, _ in parts)
    for heading, text in parts:
        print_hanging(console, f"  {heading:<{width}}  {plain(text)}", width + 4)


def sentences(line: MatrixLine) -> list[tuple[str, str]]:
    """What a person reads of its verdict, each with its heading; not escaped."""
    reported = line.row.reported.get(line.cells.metric)
    parts = [
        ("reported", _reported(line)),
        ("ours", _ours(line)),
        ("judges", _judges(line)),
        ("their answers", _against(line)),
        ("bridge", _bridge(line)),
        ("spread", _spread(line)),
        ("unjudged", _unjudged(line)),
        ("difference", _difference(line)),
        ("margin", _margin(line)),
        ("verdict", _verdict(line)),
        ("to decide it", _to_decide(line, reported) or _to_compare(line)),
        ("assumed", assumed(line.counted)),
        ("not counted", _not_counted(line)),
    ]
    return [(heading, text) for heading, text in parts if text]


def _to_decide(line: MatrixLine, reported: Reported | None) -> str:
    """Empty for what is decided, and for what `harness settle` has ended."""
    if line.has_ended:
        return ""
    text = more(line.counted, reported)
    if not text and line.last_look and line.weighed.verdict.name not in DECIDED:
        return "at 95 % it were decided; settle goes on, at the level of its next look"
    return text


def _reported(line: MatrixLine) -> str:
    c, weighed = line.cells, line.weighed
    where = f" ({c.source})" if c.source else ""
    reported = line.row.reported.get(c.metric)
    if reported is None:
        return "no number"
    if reported.value is None:
        return f"the study leaves this cell empty{where}"
    error, origin = reported.standard_error, "reported"
    if weighed.reported_span is not None:
        error, origin = weighed.reported_error, weighed.reported_error_from
    text = weighed.number(reported.value) + numbers.error(error, weighed.digits)
    if error is not None:
        text += f" ({ERRORS[origin]})"
    if reported.judged is not None or reported.expected is not None:
        text += f", judged {numbers.out_of(reported.judged, reported.expected)}"
    return f"{text}; one run{where}"


def _judges(line: MatrixLine) -> str:
    """Who judged the published number and who judges ours; empty where nobody judges outputs."""
    judge = line.row.judge
    c = line.cells
    if judge is None or not judge.judges_outputs or c.reported is None or c.measure.is_loss:
        return ""
    own = own_judge(judge)
    model = f"simulated {own.model}" if own.is_simulated else own.model
    ours = f"ours {in_words(model, own.annotator, own.baseline)}"
    if own.is_asked and (served := _served(line)) not in ([], [own.model]):
        ours += f", whose server says that {' and '.join(served)} answered"
    published = line.row.reported.judge_of(c.metric)
    if published is not None and published.model == RETIRED:
        return f"of the answers in place of the study's a simulated retired one; {ours}"
    if published is None:
        return f"who judged the published number is not named, and is taken to be as {ours}"
    words = in_words(published.model, published.annotator, published.baseline)
    return f"of the published number {words}; {ours}"


def _served(line: MatrixLine) -> list[str]:
    """What servers called the models that judged ours."""
    evidence = line.weighed.evidence
    return sorted(served_models(evidence)) if evidence is not None else []


def _against(line: MatrixLine) -> str:
    """The study's own answers under today's judge, and ours beside them."""
    against, c = line.weighed.against, line.cells
    plan = line.plan
    theirs = "the study's own answers"
    if line.row.scale == "tiny":
        theirs = "the simulated answers in place of the study's"
    if against is None:
        if plan is None or plan.published is None or not is_rejudged(c.metric):
            return ""
        if plan.against_itself:  # which the verdict says
            return ""
        if all(stage.artefact for stage in plan.published.final()):
            return f"of {theirs} and ours fewer than two prompts were both judged"
        return f"{theirs} are not judged yet"
    number = line.weighed.number
    moved = against.theirs - (c.reported or 0.0)
    judge, how = (
        "the judge of ours",
        (f", {number(abs(moved))} {'above' if moved > 0 else 'below'} the published number"),
    )
    if line.weighed.is_simulated:
        judge, how = "the simulated judge", ""
    return (
        f"{judge} gives {theirs} {number(against.theirs)}{how}; ours differ "
        f"from them by {number(against.difference, True)} under the same judge, 95 % interval "
        f"{numbers.interval(against.low, against.high, line.weighed.digits)}, over "
        f"{counted(against.prompts, 'prompt')}"
    )


def _bridge(line: MatrixLine) -> str:
    """Ours in the published judge's terms, and what its interval is made of."""
    terms, plan = line.weighed.in_their_terms, line.plan
    if terms is None:
        if plan is None or not plan.bridge or line.cells.metric != WIN_RATE:
            return ""
        if any(stage.artefact for other in plan.bridge for stage in other.final()):
            return "it tells nothing: see the verdict"
        return "the bridging models are not judged yet"
    number, ours = line.weighed.number, terms.ours
    value, low, high = terms.percent
    mean, spread = PERCENT * ours.bridge_error, PERCENT * ours.spread
    judge = "the published judge's"
    if line.weighed.is_simulated:
        judge = "a simulated retired judge's"
    text = (
        f"in {judge} terms ours is {number(value)}, 95 % interval "
        f"{numbers.interval(low, high, line.weighed.digits)}, by "
        f"{counted(terms.models, 'bridging model')}; "
        f"standard errors: over prompts and replicates {number(ours.slope * _own_error(line))}, of the "
        f"mean shift between judges {number(mean)}, of the shift between models {number(spread)}"
    )
    if terms.models <= FEW_MODELS:
        text += " (so few models cannot show the last: it is that of AlpacaEval's published boards)"
    return text


def _own_error(line: MatrixLine) -> float:
    """Of our score under today's judge, from the half of its interval."""
    c = line.cells
    return ((c.interval_high or 0.0) - (c.interval_low or 0.0)) / 2 / t_quantile(math.inf)


def _ours(line: MatrixLine) -> str:
    c, weighed = line.cells, line.weighed
    if weighed.evidence is None or c.ours is None:
        return f"nothing yet{': ' if c.verdict_reason else ''}{c.verdict_reason}"
    text = weighed.number(c.ours)
    if c.standard_error is not None:
        each = ", each run" if len(weighed.evidence.runs) > 1 else ""
        error = numbers.error(c.standard_error, weighed.digits)
        text += f"{each}{error} over {weighed.item}s"
    interval = numbers.interval(c.interval_low, c.interval_high, weighed.digits)
    text += f", 95 % interval {interval}" if interval else ""
    if c.expected is not None:
        text += f"; judged {numbers.out_of(c.judged, c.expected)}"
    return f"{text}; {runs_in_words(line)}{marks(c)}"


def runs_in_words(line: MatrixLine) -> str:
    """`6 runs (3 trainings, 2 judgings of each)`."""
    evidence = line.weighed.evidence
    assert evidence is not None
    total, planned = len(evidence.runs), line.cells.replicates_planned
    above, parts = 1, []
    for depth, kind in enumerate(KINDS):
        count = evidence.count(depth)
        if count > above:
            each = f"{count / above:g} " if count % above == 0 else f"{count} in all: "
            parts.append(f"{each}{KIND_WORDS[kind][1]}{' of each' * (above > 1)}")
        above = count
    text = counted(total, "run")
    if planned is not None and planned != total:
        text += f" of {planned} planned"
    return text + (f" ({', '.join(parts)})" if parts else "")


def _spread(line: MatrixLine) -> str:
    """The variance of one run's score in its parts, as standard deviations."""
    weighed, ours = line.weighed, line.weighed.reproduced
    if ours is None:
        return ""
    split, item = ours.split, weighed.item
    if split is None:
        if not ours.replicated:
            return ""
        spread = weighed.number(math.sqrt(ours.between))
        return f"between trainings a standard deviation of {spread}; no grade per {item} is kept"
    parts = [f"the choice of {item}s {weighed.number(math.sqrt(split.prompts))}"]
    parts += [_part(weighed, kind, split.parts[kind]) for kind in KIND_WORDS if kind in split.parts]
    scope = f"over the {split.complete} {item}s judged in every run"
    text = f"standard deviation of one run's score, {scope}: {', '.join(parts)}"
    sd = line.cells.replicate_sd
    if sd is None:
        return text
    return (
        f"{text}; the sd of the tables, {line.number(sd)}, is that between the runs' scores as they "
        "came: of all but the choice of prompts at once"
    )


def _part(weighed: Weighed, kind: str, part: VariancePart) -> str:
    """`training 1.20 (of it 0.95 common to all prompts)`; what does not enter is said not to."""
    text = f"{KIND_WORDS[kind][0]} {weighed.number(math.sqrt(part.variance))}"
    if part.common == 0:
        return text
    text += f" (of it {weighed.number(math.sqrt(part.common))} common to all {weighed.item}s"
    if not part.is_common:
        text += ", no more than chance makes"
    return f"{text})"


def _unjudged(line: MatrixLine) -> str:
    c, weighed = line.cells, line.weighed
    texts = []
    reported = line.row.reported.get(c.metric)
    if c.expected is not None and c.judged is not None and c.judged < c.expected:
        text = f"{c.expected - c.judged} of ours"
        if c.lower_bound is not None and c.upper_bound is not None:
            low, high = map(weighed.number, (c.lower_bound, c.upper_bound))
            text += f": all lost the score were {low}, all won {high}"
        texts.append(text)
    reported_span = weighed.reported_span
    if reported and reported_span is not None and reported_span.low < reported_span.high:
        assert reported.expected is not None
        assert reported.judged is not None
        count = reported.expected - reported.judged
        low, high = map(weighed.number, (reported_span.low, reported_span.high))
        texts.append(f"{count} of the published run: all lost {low}, all won {high}")
    if not texts:
        return ""
    text = "; ".join(texts)
    if weighed.is_simulated:
        return text
    return f"{text}. The interval of the difference reaches from one end to the other"


def _difference(line: MatrixLine) -> str:
    verdict, weighed = line.weighed.verdict, line.weighed
    if verdict.difference is None:
        return ""
    what = "ours - reported"
    if verdict.margin is not None and weighed.against is not None:
        what = "ours - the study's own answers, under the same judge"
    elif verdict.margin is not None and weighed.in_their_terms is not None:
        what = "ours in the published judge's terms - reported"
    text = f"{weighed.number(verdict.difference, signed=True)} ({what})"
    interval = numbers.interval(verdict.low, verdict.high, weighed.digits, signed=True)
    if not interval:
        return text
    if line.with_bought is not None:
        bought, of = line.with_bought, line.with_bought.verdict
        ends = numbers.interval(of.low, of.high, bought.digits, signed=True)
        text = (
            f"with what settle bought {bought.number(of.difference, signed=True)}, 95 % interval "
            f"{ends}; with the spec's replicates alone {text}"
        )
    text += f", 95 % interval {interval}{', as of a single look' * bool(line.last_look)}"
    if weighed.assumed:
        text += (
            f", with a standard deviation of {weighed.assumed:g} between trainings allowed for on "
            "both sides: there is one training, which does not show it"
        )
    elif weighed.reproduced is not None and weighed.reproduced.replicated:
        what = KIND_WORDS[weighed.reproduced.replicated][1]
        text += f", with what {what} differ by on both sides ({weighed.reproduced.df + 1} of ours)"
    return text


def _margin(line: MatrixLine) -> str:
    margin, evidence = line.weighed.verdict.margin, line.weighed.evidence
    if margin is None:
        return ""
    row, kind = line.row, line.cells.metric.partition("/")[0]
    is_named = line.cells.metric in row.margins or kind in row.margins
    within = also_within(line.cells.reported, margin, evidence) if evidence else ""
    return f"{margin:g}{'' if is_named else ' points, where a spec names none'}{within}"


def _verdict(line: MatrixLine) -> str:
    """The name with the reason, in a sentence."""
    verdict, c = line.weighed.verdict, line.cells
    if verdict.margin is None or verdict.low is None or verdict.high is None:
        reason = verdict.reason or c.verdict_reason
        return reason if verdict.name == "simulated" else f"{verdict.name}: {reason}".rstrip(": ")
    if line.last_look:
        return f"{verdict.name}: {line.last_look}"
    where = f"±{verdict.margin:g}"
    if verdict.name == "reproduced":
        return f"reproduced: the whole interval lies within {where}"
    if verdict.name == "not reproduced":
        return f"not reproduced: the whole interval lies outside {where}"
    if verdict.low >= -verdict.margin and verdict.high <= verdict.margin:
        return f"inconclusive: the interval lies within {where}, but one training cannot show it"
    return f"inconclusive: the interval lies partly within {where} and partly outside"


def _to_compare(line: MatrixLine) -> str:
    """What would bring the two judges together, where the spec names nothing of it."""
    reported, c = line.row.reported, line.cells
    is_open = c.verdict == ANOTHER_JUDGE and is_rejudged(c.metric)
    if not is_open:
        return ""
    published, judge = reported.judge_of(c.metric), line.row.judge
    is_known = bool(
        published and judge and another_judge(published, judge)
    )  # before a server says so
    if is_known and (reported.outputs or reported.bridge):
        return ""
    text = "" if is_known else "in the row's judge the name of the model that answered, and "
    text += "the study's own answers, judged by our judge (reported.outputs)"
    if c.metric == WIN_RATE:
        text += ", or verdicts of its judge on other models' answers (reported.bridge)"
    return f"{text}: docs/results.md"


def _not_counted(line: MatrixLine) -> str:
    evidence, row = line.weighed.evidence, line.row
    if evidence is None or line.weighed.reported_span is None:
        return ""
    effects = []
    if line.weighed.against is None:
        item = line.weighed.item
        effects.append(
            f"that both runs may have had the same {item}s, which would narrow the interval"
        )
    sources = [step.reply_source for step in row.gen or []]
    if evidence.trains and any(source and source.role == "teacher" for source in sources):
        effects.append(
            "what another data set by the same recipe would change, which would widen it"
        )
    return "; ".join(effects)


def to_dict(line: MatrixLine) -> dict[str, JsonValue]:
    """The same as data. Standard errors, deviations and intervals are in the metric's own units."""
    weighed, c = line.weighed, line.cells
    verdict, evidence, known = weighed.verdict, weighed.evidence, line.counted
    split = weighed.reproduced.split if weighed.reproduced else None
    reported, published = line.row.reported.get(c.metric), line.row.reported.judge_of(c.metric)
    return {
        "metric": line.cells.metric,
        "verdict": verdict.name,
        "reason": verdict.reason or c.verdict_reason,
        "settle": line.looks or None,
        "reported": None
        if reported is None
        else {
            **reported.model_dump(exclude={"judge"}),
            "judge": published.model_dump() if published and published.model != RETIRED else None,
            "source": c.source,
            "standard_error_used": weighed.reported_error if weighed.reported_span else None,
            "standard_error_from": weighed.reported_error_from or None,
        },
        "ours": None
        if evidence is None
        else {
            "value": c.ours,
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
            "served_models": [*_served(line)],
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
        "assumed": assumed(line.counted) or None,
        "assumed_sd_between_trainings": weighed.assumed or None,
        "half_width_with_endless_replicates": known.foretold.limit if known.foretold else None,
        "half_width_of_unjudged": known.foretold.unjudged if known.foretold else None,
        "chance_with_more": known.foretold.chance if known.foretold and verdict.more else None,
        "more_only_shows": bool(verdict.more) and bool(first_asked(known)),
        "more": [{"kind": kind, "replicates": count} for kind, count in verdict.more],
        "published_answers": asdict(weighed.against)
        if weighed.against and not weighed.is_simulated
        else None,
        "bridge": asdict(weighed.in_their_terms)
        if weighed.in_their_terms and not weighed.is_simulated
        else None,
        "bridge_would": asdict(known.bridge_foretold) if known.bridge_foretold else None,
        "deviations": list(line.deviations),
        "assumptions": list(line.row.stated("assumption")),
        "findings": list(map(str, line.findings)),
    }
