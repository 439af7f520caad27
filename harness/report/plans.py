"""A plan at the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from harness.plan import Estimate, RowPlan, unique
from harness.progress import plain

COLOURS = {"reuse": "green", "run": "cyan", "stale": "yellow"}


def show_plans(console: Console, plans: Sequence[RowPlan]) -> None:
    """Each row's stages with status, key, reason, and expected calls and tokens."""
    counted: set[tuple[str, str]] = set()
    for plan in plans:
        console.print(f"[bold]{plan.row.row}[/]  {escape(plain(plan.row.title))}", highlight=False)
        for stage in plan.stages:
            label = f" ({stage.label})" if stage.label else ""
            words = "; ".join(stage.reasons)
            shared = (stage.stage, stage.key) in counted and stage.status != "reuse"
            counted.add((stage.stage, stage.key))
            if shared:
                words = "shared with a row above"
            elif stage.estimate.calls:
                words += f"; about {_calls(stage.estimate)}"
            colour = COLOURS[stage.status]
            console.print(
                f"  {stage.stage + label:<16} [{colour}]{stage.status:<5}[/] {stage.key[:12]}"
                + (f"  [dim]{escape(plain(words))}[/]" if words else ""),
                highlight=False,
            )
    todo = [s for s in unique(plans) if s.status != "reuse"]
    total = Estimate(
        sum(s.estimate.calls for s in todo),
        sum(s.estimate.prompt_tokens for s in todo),
        sum(s.estimate.completion_tokens for s in todo),
    )
    console.print(
        f"{len(todo)} stages to run" + (f", about {_calls(total)}" if total.calls else "")
    )


def _calls(estimate: Estimate) -> str:
    return (
        f"{estimate.calls} calls, {estimate.prompt_tokens:,} prompt + "
        f"{estimate.completion_tokens:,} completion tokens"
    )
