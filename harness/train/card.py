"""The trained model's card and its loss curve, from what the stage knows at its end."""

import json
import textwrap
from pathlib import Path
from typing import Any

from harness.artefact import environment
from harness.artefact.call import MANIFEST, StageCall, StageResult
from harness.common.plot_style import DPI, STYLE
from harness.common.progress import plain
from harness.spec.model_source import ModelSource
from harness.spec.train import Train
from harness.train.model_card import Facts, text_of

CARD, CURVE = "README.md", "loss_curve.png"
# A palette that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, GREEN, ORANGE, RED = "#0072B2", "#009E73", "#E69F00", "#D55E00"
TITLE_WIDTH = 100
"""Characters of a line above the picture."""
HELD_OUT = "held_out_loss"


def facts_of(call: StageCall, result: StageResult) -> dict[str, Any]:
    """What the card is written from: the manifest's fields, as far as the stage knows them."""
    inputs: dict[str, dict[str, Any]] = {}
    for name, folder in call.inputs.items():
        path = Path(folder) / MANIFEST
        if path.is_file():
            inputs[name] = json.loads(path.read_text(encoding="utf-8"))
    data = inputs.get("data")
    source = ModelSource.model_validate(call.params["model"])
    train = Train.model_validate(call.params["train"])
    filled = {"train": train.model_dump(mode="json"), "model": source.model_dump(mode="json")}
    return {
        "key": call.key,
        "document": {"params": {**call.params, **filled}},
        "inputs": {n: {"stage": m["stage"], "key": m["key"]} for n, m in inputs.items()},
        "data": data,
        "used": {**result.used, "environment": environment.describe_here(call.gpus)},
        "seeds": result.seeds,
        "metrics": result.metrics,
        "counts": result.counts,
        "simulated": sorted({*result.simulated, *(data["simulated"] if data else [])}),
        "random_weights": source.random is not None,
        "notes": result.notes,
    }


def write_card(folder: Path, facts: Facts) -> None:
    """Write README.md, the model card (harness.train.model_card says which facts there can be)."""
    (folder / CARD).write_text(text_of(facts), encoding="utf-8")


def plot_losses(log: Path, picture: Path, mark: str = "") -> None:
    """Draw the loss, its parts and the held-out loss against optimizer steps, from trainer_log.jsonl.

    The same log gives the same bytes. `mark` stands above, where the data or the weights are not
    what a reader would take them for.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    panels = _panels(lines)
    # The user's own matplotlibrc would change the bytes.
    built_in = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    with matplotlib.rc_context({**built_in, **STYLE}):
        figure = Figure(figsize=(7.5, 1.2 + 2.4 * len(panels)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        drawn = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (axis, names) in zip(drawn, panels.items(), strict=True):
            for name, colour in zip(names, (BLUE, ORANGE, GREEN, RED), strict=False):
                _draw(axes, lines, name, colour)
            axes.set_ylabel(axis)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False)
        drawn[-1].set_xlabel("optimizer steps")
        if mark:
            figure.suptitle(textwrap.fill(plain(mark), TITLE_WIDTH), color=RED, fontsize=9)
        # Without its own name and version in the file.
        figure.savefig(picture, format="png", metadata={"Software": None})


def _panels(lines: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Each panel's axis, and the log's fields that it shows: the loss, and the parts of ORPO's."""
    fields = dict.fromkeys(name for line in lines for name in line if line[name] is not None)
    rewards = [n for n in fields if n.startswith("rewards") and "accurac" not in n]
    panels: dict[str, list[str]] = {
        "loss (nats)" if "nll_loss" in fields else "loss (nats per token)": [
            n for n in ("loss", "nll_loss", HELD_OUT) if n in fields
        ],
        "log odds": [n for n in ("log_odds_chosen", "log_odds_ratio") if n in fields],
        "rewards": rewards,
    }
    return {axis: names for axis, names in panels.items() if names}


def _draw(axes: Any, lines: list[dict[str, Any]], name: str, colour: str) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = zip(*points, strict=True)
    label = f"{name.replace('_', ' ').replace('/', ' ')}: {values[-1]:.4g} at the end"
    # Single points, and those that stand apart, would not show as a line.
    marker = "o" if name == HELD_OUT else "." if len(points) == 1 else ""
    axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker, markersize=4, label=label)
