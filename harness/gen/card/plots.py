"""The data card's plots, from what card.json says; the same card gives the same bytes."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.common.plot_style import plot
from harness.gen.card.record import Bin, Card, LengthSummary, Novelty, Ratings, Rewritten, Verbs

COLOURS = {
    "instruction": "#0072B2",
    "input": "#E69F00",
    "output": "#009E73",
    "chosen": "#009E73",
    "rejected": "#D55E00",
    "before": "#999999",
    "after": "#009E73",
}
"""Each text has one colour in all plots; the palette is one that colour-blind readers can tell
apart (Okabe and Ito 2008)."""
NOUN_SHADES = ("#0072B2", "#3D94C6", "#7AB5DA", "#B3D5EC")
OTHERS = "#DDDDDD"
_MARK = "simulated: not a model's replies"
_GROWING = "in ranges that grow"


def draw(card: Card, folder: Path) -> list[str]:
    """Draw the plots that the card has figures for into the folder; their names, without .png."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    _find_place_for_caches(folder.parent)
    plots = _plots(card)
    for name, draw_on in plots.items():
        with plot(folder / f"{name}.png") as figure:
            draw_on(figure)
            if card["simulated"]:
                figure.suptitle(_MARK, color=COLOURS["rejected"], fontsize=9)
    return list(plots)


def _plots(card: Card) -> dict[str, partial[None]]:
    """Those that there are figures for."""
    plots = {"lengths": partial(_lengths, card["lengths"]["words"])}
    if card["novelty"]["measured"]:
        plots["novelty"] = partial(_novelty, card["novelty"])
    if card["verbs"]["top"]:
        plots["verbs"] = partial(_verbs, card["verbs"])
    if card["rewritten"] and card["rewritten"]["compared"]:
        plots["before_after"] = partial(_before_after, card["rewritten"])
    if card["ratings"]:
        plots["ratings"] = partial(_ratings, card["ratings"])
    return plots


def _find_place_for_caches(work: Path) -> None:
    """matplotlib keeps a list of fonts; where the home folder takes none, beside the plots."""
    if "MPLCONFIGDIR" in os.environ:
        return
    home = Path(os.path.expanduser("~"))
    folders = {
        Path(os.environ.get(variable) or home / default) / "matplotlib"
        for variable, default in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
    }
    if not all(map(_can_be_written, folders)):
        os.environ["MPLCONFIGDIR"] = str(work / ".matplotlib")


def _can_be_written(folder: Path) -> bool:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _lengths(fields: Mapping[str, LengthSummary], figure: Any) -> None:
    texts = {n: s for n, s in fields.items() if s["n"]}
    ordered = [name for name in COLOURS if name in texts]
    figure.set_size_inches(7.5, 2.3 * len(ordered))
    panels = figure.subplots(len(ordered), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, ordered, strict=True):
        lengths = texts[name]
        _bars(axes, lengths["bins"], _range_label, COLOURS[name])
        median = lengths["percentiles"]["50"]
        title = f"{name}: n = {lengths['n']:,}, median {median:,g} words"
        xlabel = f"length of {name} (words, {_GROWING})"
        axes.set(title=title, xlabel=xlabel, ylabel="examples")


def _novelty(novelty: Novelty, figure: Any) -> None:
    axes = _single_axes(figure)
    _bars(axes, novelty["bins"], lambda b: f"{b['from']:.1f}–{b['to']:.1f}", COLOURS["instruction"])
    of = "" if novelty["sample_seed"] is None else f", a random sample of {novelty['comparable']:,}"
    axes.set(
        title=f"Novelty of instructions: n = {novelty['measured']:,}{of}",
        xlabel="highest ROUGE-L F-measure with an earlier instruction (1: the same words)",
        ylabel="instructions",
    )


def _verbs(verbs: Verbs, figure: Any) -> None:
    top = verbs["top"]
    figure.set_size_inches(8.5, 1.2 + 0.3 * len(top))
    axes = figure.subplots()
    axes.grid(False)
    for row, verb in enumerate(top):
        left = 0
        counts = [noun["count"] for noun in verb["nouns"]]
        parts = [*zip(counts, NOUN_SHADES, strict=False), (verb["count"] - sum(counts), OTHERS)]
        for count, colour in parts:
            axes.barh(row, count, left=left, color=colour, height=0.75)
            left += count
        nouns = ", ".join(f"{noun['noun']} {noun['count']:,}" for noun in verb["nouns"])
        axes.annotate(
            nouns, (left, row), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    axes.set_yticks(range(len(top)), [verb["verb"] for verb in top])
    axes.set_ylim(len(top) - 0.4, -0.6)
    # Room for the nouns beside the longest bar.
    axes.set_xlim(0, 1.6 * top[0]["count"])
    axes.set_xlabel(
        "distinct instructions; dark to light: the objects named beside the bar, grey: all others"
    )
    axes.set_title(
        f"Most frequent verbs and their objects: n = {verbs['with_pair']:,} with such a pair, of "
        f"{verbs['instructions']:,}"
    )


def _before_after(comparison: Rewritten, figure: Any) -> None:
    axes = _single_axes(figure)
    places = max((comparison["before"]["bins"], comparison["after"]["bins"]), key=len)
    sides = {"before": (comparison["before"], -0.21), "after": (comparison["after"], 0.21)}
    for name, (lengths, offset) in sides.items():
        counts = [b["count"] for b in lengths["bins"]]
        median = lengths["percentiles"]["50"]
        axes.bar(
            [i + offset for i in range(len(counts))],
            counts,
            width=0.42,
            color=COLOURS[name],
            label=f"{name}: median {median:,g} words",
        )
    _ticks(axes, [_range_label(b) for b in places])
    axes.legend(frameon=False)
    axes.set_title(
        f"Outputs before and after: n = {comparison['compared']:,}, "
        f"{comparison['longer']:,} of them longer"
    )
    axes.set_xlabel(f"length of output (words, {_GROWING})")
    axes.set_ylabel("examples")


def _ratings(ratings: Ratings, figure: Any) -> None:
    axes = _single_axes(figure)

    def label(b: Bin) -> str:
        return f"{b['from']:g}" + (f"–{b['to']:g}" if b["to"] != b["from"] else "")

    _bars(axes, ratings["bins"], label, COLOURS["output"])
    title = f"Ratings: n = {ratings['rated']:,}, not rated {ratings['unrated']:,}"
    axes.set(title=title, xlabel="rating", ylabel="examples")


def _single_axes(figure: Any) -> Any:
    figure.set_size_inches(7.5, 3.6)
    return figure.subplots()


def _range_label(b: Bin) -> str:
    """The whole numbers of a bin."""
    return f"{b['from']:,}" + (f"–{b['to']:,}" if b["to"] != b["from"] else "")


def _bars(axes: Any, bins: Sequence[Bin], label: Callable[[Bin], str], colour: str) -> None:
    axes.bar(range(len(bins)), [b["count"] for b in bins], width=0.9, color=colour)
    _ticks(axes, [label(b) for b in bins])


def _ticks(axes: Any, labels: Sequence[str]) -> None:
    many = len(labels) > 8
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=45 if many else 0,
        ha="right" if many else "center",
        rotation_mode="anchor",
    )
    axes.yaxis.get_major_locator().set_params(integer=True)
