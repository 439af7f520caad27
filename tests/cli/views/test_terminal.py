"""The matrix at the terminal."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from harness.cli.views.plan import show_plans
from harness.cli.views.terminal import show_artefact, show_matrix
from harness.results.line import MatrixLine
from tests.helpers import make, planned
from tests.results.matrix_rows import HOSTILE, SCORE, hostile_lines, lines, scored


def test_the_terminal_shows_hostile_text_without_obeying_it(
    row: Callable[..., Path], volume: Path
) -> None:
    found = hostile_lines(row, volume)
    (plan,) = planned(volume, row(title=HOSTILE + " [bold]x[/nothing] :smile:", varied={}))
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=True, color_system=None, emoji=False)
    show_matrix(console, found)
    show_plans(console, [plan])
    for stage in plan.stages:
        show_artefact(console, stage.artefact, checked=False, parameters=True)
    assert not set("\x1b\x07\u202e") & set(out.getvalue())
    assert "[bold]x[/nothing] :smile:" in out.getvalue()
    assert '"model_type": "qwen2"' in out.getvalue()


def printed(found: list[MatrixLine], width: int) -> str:
    out = io.StringIO()
    show_matrix(Console(file=out, width=width, emoji=False), found)
    return out.getvalue()


def test_a_narrow_terminal_has_a_block_for_each_line_with_all_that_a_wide_one_shows(
    row: Callable[..., Path], volume: Path
) -> None:
    reported = {"win_rate": {"value": 29.31, "judged": 713, "expected": 805}}
    specs = [row("one", reported=reported), row("two", train={"steps": 2})]
    make(volume, *specs, executor=scored({**SCORE, "value": 28.9}, SCORE))
    found = lines(volume, *specs)
    (low, high) = (getattr(found[0].cells, f"interval_{side}") for side in ("low", "high"))
    wide, narrow = printed(found, 300), printed(found, 60)
    for part in ("29.31 of 713/805", "28.90 ± 2.00", f"[{low:.2f}, {high:.2f}]", "3/3",
                 "inconclusive"):  # fmt: skip
        assert part in wide
        assert part in narrow
    assert "  ours          28.90 ± 2.00 (random weights)\n" in narrow
    assert narrow.count("\none") + narrow.startswith("one") == 1
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_confounded_row_is_told_at_the_terminal_once_with_the_settings(
    row: Callable[..., Path], volume: Path
) -> None:
    specs = [row(name, studied=["model"], replicates={"judge": n}, train={"steps": n})
             for name, n in (("one", 1), ("two", 1), ("odd", 2))]  # fmt: skip
    make(volume, *specs, executor=scored(*[SCORE] * 4))
    text = printed(lines(volume, *specs), 300)
    assert text.count("confounded") == 1
    assert "odd: confounded: differs from other rows in more than what is studied" in text
    assert "train.steps: 2 against 1 (in one, two)" in " ".join(text.split())
