"""The answers and how they were judged: lengths, flags, places, judge replicates."""

import itertools
import math
from collections.abc import Sequence
from statistics import median

from harness.answer.hygiene import FLAGS
from harness.common import numbers
from harness.report.html import charts
from harness.report.html.collect import Story
from harness.report.html.markup import Html, table, tag
from harness.report.html.section import StorySection
from harness.results import agreement


def _answers(story: Story) -> Html | None:
    """Lengths, flags, whether the place decides, and how far the judge agrees with itself."""
    parts: list[Html | None] = [_lengths(story), *_positions(story), _flags(story)]
    parts += [_agreement(judge_agreement) for judge_agreement in story.agreements]
    figures = [part for part in parts if part is not None]
    return tag("div", figures, class_="figures") if figures else None


def _lengths(story: Story) -> Html | None:
    if story.outputs is None or not story.outputs.prompts:
        return None
    prompts = story.outputs.prompts
    answer_lengths = [len(str(p.fields.get("output") or "").split()) for p in prompts]
    baseline_lengths = [len(p.baseline.split()) for p in prompts if p.baseline is not None]
    tokens = [n for n in (p.fields.get("tokens") for p in prompts) if isinstance(n, int)]
    edges = _edges(max([*answer_lengths, *baseline_lengths]))
    count = len(answer_lengths)
    text = (
        f"{count:,} answer{'s' * (count != 1)}, median {median(answer_lengths):g} words (upwards)"
    )
    if baseline_lengths:
        text += f"; {len(baseline_lengths):,} baseline outputs, "
        text += f"median {median(baseline_lengths):g} words (downwards)"
    drawn = charts.histogram(
        f"figure-{story.row}-lengths", "Lengths of the answers", text + ".",
        _binned(answer_lengths, edges), _binned(baseline_lengths, edges) if baseline_lengths else (),
    )  # fmt: skip
    sets = {
        "answers, words": answer_lengths,
        "answers, tokens": tokens,
        "baseline, words": baseline_lengths,
    }
    columns = {name: _spread(lengths) for name, lengths in sets.items() if lengths}
    names = ("n", "mean", "shortest", "5 %", "median", "95 %", "longest")
    # A text's lengths stand below one another: seven of them side by side are too wide for a phone.
    rows = [[name, *numbers] for name, *numbers in zip(names, *columns.values(), strict=True)]
    numeric = frozenset(range(1, len(columns) + 1))
    numbers = table("Lengths", ["measure", *columns], rows, "narrow", numeric)
    return tag("div", drawn, tag("details", tag("summary", "Lengths in numbers"), numbers))


def _edges(most: int) -> list[int]:
    """Bins that grow: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on."""
    edges, step = [0, 1, 2, 3], 4
    while edges[-1] <= most:
        edges += [step, step * 3 // 2]
        step *= 2
    return edges


def _binned(lengths: Sequence[int], edges: Sequence[int]) -> list[tuple[str, int]]:
    return [
        (str(low), sum(low <= n < high for n in lengths)) for low, high in itertools.pairwise(edges)
    ]


def _spread(lengths: Sequence[int]) -> list[str]:
    """n, mean, and order statistics by nearest rank."""
    ordered = sorted(lengths)

    def at(share: float) -> str:
        return f"{ordered[max(math.ceil(share * len(ordered)), 1) - 1]:,}"

    mean = f"{math.fsum(ordered) / len(ordered):,.1f}"
    return [f"{len(ordered):,}", mean, at(0), at(0.05), at(0.5), at(0.95), at(1)]


def _positions(story: Story) -> list[Html]:
    figures = []
    judgings = [s for s in story.stages if s.stage == "judge" and s.artefact is not None]
    for number, stage in enumerate(judgings, start=1):
        bias = stage.made.manifest.used.get("position_bias") or {}
        bars = []
        for name in ("shown_first", "shown_second"):
            place = bias.get(name) or {}
            if place.get("win_rate") is None:
                continue
            error = place.get("standard_error")
            note = f"{place['win_rate']:.1f} %{numbers.error(error, 1)}"
            label = name.replace("_", " ").capitalize()
            bars.append(charts.Bar(label, place["win_rate"], error, f"{note} of {place['judged']}"))
        if not bars:
            continue
        each = "; ".join(f"{bar.label.lower()}: {bar.note}" for bar in bars)
        caption = "Without both places no difference is known."
        if bias.get("p_value") is not None:
            caption = f"Difference {bias['difference']:+.1f} points, p = {bias['p_value']:.2g}."
        title = "Wins by the place shown in" + (f", {stage.label}" if stage.label else "")
        words = f"{each[0].upper()}{each[1:]}. {caption}"
        name = f"figure-{story.row}-place-{number}"
        figures.append(charts.bars(name, title, words, bars, caption))
    return figures


def _flags(story: Story) -> Html | None:
    rows = []
    for stage in story.stages:
        if stage.stage != "answer" or stage.artefact is None:
            continue
        counts = stage.artefact.manifest.counts
        total = counts.get("prompts") or 0
        label = f", {stage.label}" if stage.label else ""
        for flag in FLAGS:
            count = counts.get(f"flag_{flag}")
            if count is not None and total:
                rows.append([flag.replace("_", " ") + label, numbers.out_of(count, total),
                             numbers.percent(count, total)])  # fmt: skip
    if not rows:
        return None
    return table("Hygiene: answers with a flag", ["flag", "answers", "share"], rows,
                 numeric=frozenset({1, 2}))  # fmt: skip


def _agreement(judge_agreement: agreement.Agreement) -> Html:
    first, *rest = agreement.sentences(judge_agreement)
    return tag(
        "div", tag("h5", "The same outputs judged again"), tag("p", first),
        tag("ul", [tag("li", text) for text in rest]),
    )  # fmt: skip


SECTION = StorySection("Answers and judging", _answers)
