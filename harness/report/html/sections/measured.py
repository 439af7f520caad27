"""What a row's artefacts measured: data sets, loss curves, lengths, flags, places, judge replicates."""

import itertools
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from harness.answer.hygiene import FLAGS
from harness.report.html import charts
from harness.report.html.collect import DataSet, Story
from harness.report.html.markup import Html, section, table, tag
from harness.results import agreement


def data(story: Story) -> Html | None:
    blocks = [_data_set(story.row, n, data_set) for n, data_set in enumerate(story.data, start=1)]
    return section("Data", *blocks) if blocks else None


def _data_set(row: str, number: int, data: DataSet) -> Html:
    overview, *rest = data.parts
    mark = [tag("span", "simulated", class_="mark v-simulated"), " "] if data.simulated else None
    lines = tag("ul", [tag("li", line) for line in overview.lines])
    drawn = None
    if data.bins:
        total = sum(count for _, count in data.bins)
        most = max(data.bins, key=lambda b: b[1])
        text = f"{total:,} outputs; the commonest length is {most[0]} words ({most[1]:,} of {total:,})."
        drawn = charts.histogram(
            f"figure-{row}-data-{number}", "Lengths of the data set's outputs", text, data.bins
        )
    tables: list[Any] = []
    for part in rest:
        content = [tag("p", line) for line in part.lines]
        if part.rows:
            rows = [list(cells) for cells in part.rows]
            content.append(table(part.title, list(part.headings), rows, numeric=_numeric(rows)))
        tables.append(tag("div", tag("h5", part.title) if not part.rows else None, content))
    card = tag("details", tag("summary", "The whole data card"), tables) if tables else None
    label = tag("p", tag("strong", data.label)) if data.label else None
    return tag("div", label, tag("div", tag("div", mark, lines), drawn, class_="figures"), card)


def _numeric(rows: Sequence[Sequence[str]]) -> frozenset[int]:
    """Columns in which every cell begins with a digit or is a dash."""
    return frozenset(
        place
        for place in range(1, min(map(len, rows)))
        if all(row[place][:1].isdigit() or row[place] == "–" for row in rows)
    )


def training(story: Story) -> Html | None:
    runs = story.trainings
    if not runs:
        return None
    parts = []
    for run in runs:
        (first, began), (last, ended) = run.loss[0], run.loss[-1]
        text = f"{run.label}: " if run.label else ""
        text += f"train loss {began:.4f} at step {first:.0f}, {ended:.4f} at step {last:.0f}"
        if run.held_out:
            step, held = run.held_out[-1]
            text += f"; held-out loss {held:.4f} at step {step:.0f}"
        parts.append(text)
    each = math.ceil(max(len(run.loss) for run in runs) / charts.POINTS)
    note = f" Each point is the mean of {each} steps." if each > 1 else ""
    sentence = "; ".join(parts) + "."
    sentence = sentence[0].upper() + sentence[1:] + note
    drawn = charts.losses(
        f"figure-{story.row}-loss",
        "Loss curve",
        sentence,
        [r.loss for r in runs],
        [r.held_out for r in runs],
    )
    rows = [row for run in runs for row in _sampled(run.label, run.loss, run.held_out)]
    artefacts = [s.artefact for s in story.stages if s.stage == "train" and s.artefact]
    counts = artefacts[0].manifest.counts if artefacts else {}
    facts = [
        tag("div", tag("dt", name.replace("_", " ")), tag("dd", f"{counts[name]:,}"))
        for name in ("examples", "steps", "tokens", "prompt_tokens", "truncated", "held_out")
        if name in counts
    ]
    numbers = tag(
        "details", tag("summary", "The curve in numbers"),
        table("Loss at a few steps", ["step", "training", "train loss", "held-out loss"], rows,
              numeric=frozenset({2, 3})),
    )  # fmt: skip
    beside = tag("div", tag("dl", facts, class_="facts"), numbers)
    return section("Training", tag("div", drawn, beside, class_="figures"))


def _sampled(label: str, loss: charts.Curve, held: charts.Curve) -> list[list[Any]]:
    """First, last and eight between."""
    places = sorted({round(i * (len(loss) - 1) / 9) for i in range(10)})
    measured = dict(held)
    rows: list[list[Any]] = []
    for step in sorted({loss[p][0] for p in places} | set(measured)):
        train = dict(loss).get(step)
        rows.append([
            f"{step:.0f}", label or "the only one", "" if train is None else f"{train:.4f}",
            f"{measured[step]:.4f}" if step in measured else "",
        ])  # fmt: skip
    return rows


def answers(story: Story) -> Html | None:
    """Lengths, flags, whether the place decides, and how far the judge agrees with itself."""
    parts: list[Html | None] = [_lengths(story), *_positions(story), _flags(story)]
    parts += [_agreement(judge_agreement) for judge_agreement in story.agreements]
    figures = [part for part in parts if part is not None]
    return (
        section("Answers and judging", tag("div", figures, class_="figures")) if figures else None
    )


def _lengths(story: Story) -> Html | None:
    if story.outputs is None or not story.outputs.prompts:
        return None
    prompts = story.outputs.prompts
    answer_lengths = [len(str(p.fields.get("output") or "").split()) for p in prompts]
    baseline_lengths = [len(p.baseline.split()) for p in prompts if p.baseline is not None]
    tokens = [p.fields["tokens"] for p in prompts if isinstance(p.fields.get("tokens"), int)]
    edges = _edges(max([*answer_lengths, *baseline_lengths]))
    text = f"{len(answer_lengths):,} answers, median {median(answer_lengths):g} words (upwards)"
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
        assert stage.artefact is not None
        bias = stage.artefact.manifest.used.get("position_bias") or {}
        bars = []
        for name in ("shown_first", "shown_second"):
            place = bias.get(name) or {}
            if place.get("win_rate") is None:
                continue
            error = place.get("standard_error")
            note = f"{place['win_rate']:.1f} %" + (f" ± {error:.1f}" if error is not None else "")
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
                rows.append([flag.replace("_", " ") + label, f"{count} of {total}",
                             f"{100 * count / total:.1f} %"])  # fmt: skip
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
