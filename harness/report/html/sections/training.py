"""The row's trainings: their loss curves, and what they counted."""

import math

from harness.report.html import charts
from harness.report.html.collect import Story
from harness.report.html.markup import Html, table, tag
from harness.report.html.section import StorySection


def _training(story: Story) -> Html | None:
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
    curves, held_out = [r.loss for r in runs], [r.held_out for r in runs]
    drawn = charts.losses(f"figure-{story.row}-loss", sentence, curves, held_out)
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
    return tag("div", drawn, beside, class_="figures")


def _sampled(label: str, loss: charts.Curve, held: charts.Curve) -> list[list[str]]:
    """First, last and eight between."""
    places = sorted({round(i * (len(loss) - 1) / 9) for i in range(10)})
    measured = dict(held)
    rows: list[list[str]] = []
    for step in sorted({loss[p][0] for p in places} | set(measured)):
        train = dict(loss).get(step)
        rows.append([
            f"{step:.0f}", label or "the only one", "" if train is None else f"{train:.4f}",
            f"{measured[step]:.4f}" if step in measured else "",
        ])  # fmt: skip
    return rows


SECTION = StorySection("Training", _training)
