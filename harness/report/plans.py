"""A plan at the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from harness.estimate import Estimate
from harness.plan import RowPlan, StagePlan, unique
from harness.progress import plain

COLOURS = {"reuse": "green", "run": "cyan", "stale": "yellow"}


def show_plans(console: Console, plans: Sequence[RowPlan]) -> None:
    """Each row's stages with status, key, reason, and expected calls, tokens and dollars."""
    counted: set[tuple[str, str]] = set()
    for plan in plans:
        console.print(f"[bold]{plan.row.row}[/]  {escape(plain(plan.row.title))}", highlight=False)
        for stage in plan.stages:
            label = f" ({stage.label})" if stage.label else ""
            words, over = "; ".join(stage.reasons), ""
            shared = (stage.stage, stage.key) in counted and stage.status != "reuse"
            counted.add((stage.stage, stage.key))
            if shared:
                words = "shared with a row above"
            elif stage.estimate.calls:
                words += f"; about {_calls(stage.estimate)}, {_dollars(stage)}"
                over = _over_budget(stage)
            elif stage.status != "reuse" and _is_recorded(stage):
                words += "; replies from a given transcript"
            colour = COLOURS[stage.status]
            console.print(
                f"  {stage.stage + label:<26} [{colour}]{stage.status:<5}[/] {stage.key[:12]}"
                + (f"  [dim]{escape(plain(words))}[/]" if words else "")
                + (f"[dim];[/] [yellow]{over}[/]" if over else ""),
                highlight=False,
            )
    _show_total(console, [s for s in unique(plans) if s.status != "reuse"])


def _show_total(console: Console, todo: Sequence[StagePlan]) -> None:
    total = sum((s.estimate for s in todo), Estimate())
    text = f"{len(todo)} stages to run"
    if total.calls:
        known = [usd for s in todo if (usd := s.usd()) is not None]
        unpriced = sorted({s.endpoint.model for s in todo if s.endpoint and s.usd() is None})
        text += f", about {_calls(total)}, {_usd(sum(known))}"
        if unpriced:
            text += f" and what {', '.join(map(plain, unpriced))} costs, whose price is not known"
        dated = next((s.price_dated for s in todo if s.price_dated and s.usd()), "")
        if dated:
            text += f" (prices dated {dated})"
    console.print(text, highlight=False, markup=False)


def _over_budget(stage: StagePlan) -> str:
    """`exceeds the budget of $0.05 for a stage`; empty where the estimate stays within it."""
    limits, expected = stage.owner.budget, stage.estimate
    usd, tokens = stage.usd(), expected.prompt_tokens + expected.completion_tokens
    passed = []
    if limits.calls is not None and expected.calls > limits.calls:
        passed.append(f"{limits.calls:,} calls")
    if limits.tokens is not None and tokens > limits.tokens:
        passed.append(f"{limits.tokens:,} tokens")
    if limits.usd is not None and usd is not None and usd > limits.usd:
        passed.append(f"${limits.usd:g}")
    return f"exceeds the budget of {' and '.join(passed)} for a stage" if passed else ""


def _is_recorded(stage: StagePlan) -> bool:
    return getattr(stage.params.get("gen"), "transcript", None) is not None


def _dollars(stage: StagePlan) -> str:
    endpoint, usd = stage.endpoint, stage.usd()
    if usd is None and endpoint is not None:
        return f"the price of {endpoint.model} is not known"
    if endpoint is not None and endpoint.simulated is not None:
        return f"{_usd(usd or 0)} (simulated)"
    return _usd(usd or 0)


def _usd(usd: float) -> str:
    """To the cent, and smaller sums to a tenth of one."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def _calls(estimate: Estimate) -> str:
    return (
        f"{estimate.calls:,} calls, {estimate.prompt_tokens:,} prompt + "
        f"{estimate.completion_tokens:,} completion tokens"
    )
