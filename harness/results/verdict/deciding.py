"""What would decide a verdict, and what it takes as given, in words."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from harness.common import numbers
from harness.common.progress import counted
from harness.results.verdict.forecast import (
    DECIDED,
    MOST_ADDED,
    QUANTILES,
    USUAL_SPREAD,
    More,
    first_of_a_kind,
    more_in_words,
)
from harness.results.verdict.outlook import BridgeForetold
from harness.results.verdict.sides import KIND_WORDS, share_of_range
from harness.results.verdict.verdict import Weighed
from harness.row.reported import Reported
from harness.stats.intervals import LEVEL, t_quantile

LIKELY_MOVE = NormalDist().inv_cdf(QUANTILES[-1]) / t_quantile(math.inf)
"""Of half of a 95 % interval, as far as a forecast looks."""


@dataclass(frozen=True)
class AtBest:
    """What all that can be bought could decide."""

    verdicts: tuple[str, ...]
    """Those of DECIDED that are in reach."""
    words: str


def at_best(weighed: Weighed) -> AtBest | None:
    """What endless replicates (and all prompts of bridging models) could make of an open verdict; None
    where it is not known, or not open.

    They leave half an interval L of the present H (95 %); and by the error that they take off,
    H^2 - L^2, they are taken to move the difference no further than nine of ten would, either way.
    """
    verdict, foretold = weighed.verdict, weighed.bridge_foretold or weighed.foretold
    if foretold is None or weighed.interval is None or verdict.margin is None:
        return None
    low, high = weighed.interval(LEVEL)
    half, difference = (high - low) / 2, abs(verdict.difference or 0.0)
    limit = foretold.limit
    moved = math.sqrt(max(0.0, half**2 - limit**2)) * LIKELY_MOVE
    is_in_reach = (
        max(0.0, difference - moved) + limit <= verdict.margin,
        difference + moved - limit > verdict.margin,
    )
    verdicts = tuple(name for name, is_so in zip(DECIDED, is_in_reach, strict=True) if is_so)
    alone = dict(first_of_a_kind(weighed.evidence)) if weighed.evidence is not None else {}
    second = "".join(f"a second {KIND_WORDS[kind][0]}" for kind in alone)
    if second and round(limit, weighed.digits) == 0:
        # All that there is of an error is taken to be what replicates take off.
        return AtBest(verdicts, f"what can at best be reached is not known before {second}")
    more = f", or more, which {second} would show" * bool(second)
    if weighed.evidence is not None and weighed.evidence.trained_once:
        usual = share_of_range(USUAL_SPREAD, weighed.evidence, verdict.margin)
        more += (
            f" (trainings are taken to differ by a standard deviation of {usual:g}, as is usual, and "
            f"not by the {weighed.assumed:g} that one training is allowed for)"
        )
    return AtBest(
        verdicts,
        f"at best (endless replicates{' and all bridging prompts' * bool(weighed.bridge_foretold)}) "
        f"±{weighed.number(limit)} about the difference is left{more}, margin {verdict.margin:g}: "
        f"{' or '.join(verdicts) or 'no verdict'} is in reach",
    )


def more(weighed: Weighed, reported: Reported | None) -> str:
    """What would decide an inconclusive verdict, or what keeps it open; empty for all others."""
    verdict, foretold, reported_span = weighed.verdict, weighed.foretold, weighed.reported_span
    if weighed.bridge_foretold is not None:
        return _of_bridge(weighed, weighed.bridge_foretold)
    if foretold is None or reported_span is None or verdict.margin is None:
        return ""
    item = weighed.item
    if foretold.is_first:
        return _to_show(weighed, foretold.more)
    if foretold.more:
        assert foretold.chance is not None
        text = (
            f"{more_in_words(foretold.more)} would, if the difference stays where it is; the chance of "
            f"a verdict is then about {numbers.percent(foretold.chance, digits=0)}"
        )
        if weighed.assumed:
            text += ", if trainings differ by what is usual, of which one shows nothing"
        return text
    reach = at_best(weighed)
    moved = " or ".join(reach.verdicts) if reach is not None else ""
    text = (
        f"more replicates alone, up to {MOST_ADDED} of a kind, would not, if the difference stays at "
        f"{weighed.number(verdict.difference, signed=True)}: endless ones would leave an interval of "
        f"±{weighed.number(foretold.limit)} about it, or more"
        f"{f' (by moving it they may yet bring {moved})' * bool(moved)}"
    )
    if weighed.against is not None:
        end = f"it takes more {item}s, or more runs of the study's own, of which there is one"
        if foretold.unjudged:
            open_ = weighed.number(2 * foretold.unjudged)
            text += f". What the unjudged {item}s of either side leave open spans {open_} of it"
        return f"{text}: {end}"
    error_half = t_quantile(math.inf) * min(reported_span.low_error, reported_span.high_error)
    half = (reported_span.high - reported_span.low) / 2
    if error_half + half > verdict.margin:
        return f"{text}; {_reported_part(weighed, reported, error_half, half, verdict.margin)}"
    ours = weighed.reproduced.span if weighed.reproduced else None
    if ours is not None and ours.low < ours.high:
        span = weighed.number(ours.high - ours.low)
        return (
            f"{text}. What our unjudged {item}s leave open spans {span} of it: it takes verdicts on "
            f"them, or more {item}s"
        )
    common = t_quantile(math.inf) * math.sqrt(_in_common(weighed))
    if common > verdict.margin:
        return (
            f"{text}. What replicates differ by in all {item}s at once leaves "
            f"±{weighed.number(common)} of one run alone: it takes more runs of the study's "
            "own, of which there is one"
        )
    return f"{text}: it takes more {item}s"


def _in_common(weighed: Weighed) -> float:
    """Variance between our replicates that all prompts have in common, where it enters."""
    ours = weighed.reproduced
    if ours is None or not ours.replicated:
        return 0.0
    return ours.split.parts[ours.replicated].common if ours.split is not None else ours.between


def _to_show(weighed: Weighed, first: More) -> str:
    return (
        f"{more_in_words(first)} would show what each adds to the error over {weighed.item}s, and so "
        "whether more of them can decide it"
    )


def _of_bridge(weighed: Weighed, foretold: BridgeForetold) -> str:
    """Which replicates, or how many prompts of the bridging models, or that it takes more models."""
    outlook = weighed.outlook
    assert outlook is not None
    assert outlook.bridge is not None
    if foretold.is_first:
        return _to_show(weighed, foretold.more)
    now, models = outlook.bridge.prompts, counted(len(outlook.bridge.shifts), "bridging model")
    ways = []
    if foretold.more:
        ways.append(more_in_words(foretold.more))
    if foretold.prompts is not None:
        ways.append(
            f"{foretold.prompts} prompts of each bridging model in place of {now} (reported.bridge, "
            "prompts)"
        )
    if ways:
        return f"{', or '.join(ways)} would, if the difference stays where it is"
    limit = weighed.number(foretold.limit)
    if foretold.together:
        return (
            f"neither up to {MOST_ADDED} more replicates of a kind nor all {foretold.most} prompts of "
            f"the {models} would alone; both together would, at best"
        )
    return (
        f"endless replicates and all {foretold.most} prompts of the {models} would leave ±{limit} "
        "about the difference: it takes more bridging models, or the study's own answers "
        "(reported.outputs)"
    )


def _reported_part(
    weighed: Weighed, reported: Reported | None, error_half: float, half: float, margin: float
) -> str:
    """Why nothing that is run here can call the number reproduced. error_half, half: half of the
    interval that its own error, and its unjudged prompts, leave."""
    end = "whatever is run here, this number cannot be called reproduced"
    if not half:
        alone = weighed.number(error_half)
        return f"the reported number's own error alone leaves ±{alone}, more than the margin: {end}"
    assert reported is not None
    assert reported.expected is not None
    assert reported.judged is not None
    count = reported.expected - reported.judged
    unjudged = counted(count, f"unjudged {weighed.item}")
    text = (
        f"what {unjudged} of the published run leave{'s' * (count == 1)} open spans "
        f"{weighed.number(2 * half)} alone"
    )
    if half <= margin:
        text += f", with the reported number's own error {weighed.number(2 * (half + error_half))}"
    return f"{text}, more than the {weighed.number(2 * margin)} between both margins: {end}"


def assumed(weighed: Weighed) -> str:
    """What the verdict takes as given where the judge was asked once; else empty."""
    evidence = weighed.evidence
    if evidence is None or weighed.reported_span is None:
        return ""
    if not evidence.judges or len(evidence.runs) > 1:
        return ""
    return (
        "that another judging would change prompts each for itself and not all of them one way: the "
        "judge was asked once, which cannot show it, and if it is not so the verdict is wrong more "
        "often. replicates: {judge: 2}, or 3, would show it"
    )
