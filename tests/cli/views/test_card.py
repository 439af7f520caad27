"""The data card at the terminal: what it says, its denominators, and text that steers nothing."""

import contextlib
import io
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artefact.call import StageCall
from harness.cli.views.card import BAR_WIDTH, show_card
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.errors import HarnessError
from harness.gen.card import card
from harness.gen.recipe import RecipeResult


def a_card(tmp_path: Path, rule: str = "too_short") -> dict[str, Any]:
    examples = [
        DatasetExample(
            str(i), f"Write {i} poems", output="so " * (i + 1), rating=[4.5, 5, None][i % 3]
        )
        for i in range(9)
    ]
    dropped = Tally("tasks", "tasks", 9, Counter({rule: 3}))
    made = RecipeResult(examples, [dropped], counts={"requests": 4}, before=examples)
    return card.measure(StageCall("gen", "0" * 64, {}, {}, str(tmp_path)), "expand", made)


def shown(card: dict[str, Any]) -> str:
    stream = io.StringIO()
    show_card(Console(file=stream, width=120, force_terminal=False), card)
    return stream.getvalue()


def test_every_part_is_there_with_its_denominators(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in shown(a_card(tmp_path)).splitlines()]
    expected = [
        "9 examples of instruction data, from the recipe expand",
        "requests: 4",
        "output 9 5 1 1.4 3 5 7 8.6 9",
        "not counted: the row has no model, so no tokenizer",
        "longer than before: 0 of 9 (0.0 %); as long: 9 of 9 (100.0 %); shorter: 0 of 9 (0.0 %)",
        "instruction: 0 of 9 (0.0 %)",
        "rated: 6 of 9 (66.7 %); not rated: 3",
    ]
    assert not [line for line in expected if line not in lines]
    starts = [
        "tasks dropped: too_short 3 tasks 25.0 %",
        "0.6 to below 0.7 8 100.0 %",
        "write 9 poem 9",
    ]
    assert not [start for start in starts if not any(line.startswith(start) for line in lines)]


def test_bars_are_as_long_as_what_they_stand_for(tmp_path: Path) -> None:
    text = shown(a_card(tmp_path))
    proposed = next(line for line in text.splitlines() if "proposed  " in line and "12" in line)
    dropped = next(line for line in text.splitlines() if "dropped: too_short" in line)
    assert (proposed.count("█"), dropped.count("█")) == (BAR_WIDTH, BAR_WIDTH // 4)


def test_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    text = shown(a_card(tmp_path, rule="[red]bad[/red] \x1b[2J"))
    assert "[red]bad[/red] \ufffd[2J" in text
    assert "\x1b" not in text


def test_simulated_replies_are_marked(tmp_path: Path) -> None:
    real = a_card(tmp_path)
    assert "simulated" not in shown(real)
    assert shown({**real, "simulated": True}).startswith("simulated")


def test_a_card_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="has format 2"):
        shown({**a_card(tmp_path), "format": 2})


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "nulls": lambda leaf: None,
    "texts": lambda leaf: "\x1b[31m[bold]",
    "lists": lambda leaf: [1],
    "not a number": lambda leaf: math.nan,
    "infinite": lambda leaf: math.inf,
    "huge": lambda leaf: 10**400,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_card_whose_values_were_replaced_is_called_damaged(tmp_path: Path, damage: str) -> None:
    card = a_card(tmp_path)
    for name in card.keys() - {"format"}:
        broken = {**card, name: replaced(card[name], DAMAGES[damage])}
        with contextlib.suppress(HarnessError):  # what can be shown all the same steers nothing
            assert "\x1b" not in shown(broken)
    changed = {**replaced(card, DAMAGES[damage]), "format": card["format"]}
    with pytest.raises(HarnessError, match="the data card is damaged") as caught:
        shown(changed)
    assert "harness gc --yes" in caught.value.hint


def test_a_card_that_lacks_a_part_or_is_none_is_called_damaged(tmp_path: Path) -> None:
    card = a_card(tmp_path)
    for name in card.keys() - {"format", "kind", "recipe"}:
        with pytest.raises(HarnessError, match="the data card is damaged"):
            shown({key: part for key, part in card.items() if key != name})
    for other in (None, [], "text", 5):
        with pytest.raises(HarnessError, match="the data card is damaged"):
            shown(other)  # type: ignore[arg-type]


def test_nothing_of_a_damaged_card_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(HarnessError):
        show_card(Console(file=stream), {**a_card(tmp_path), "ratings": {"rated": "x"}})
    assert stream.getvalue() == ""


def replaced(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(item, leaf) for key, item in value.items()}
    return [replaced(item, leaf) for item in value] if isinstance(value, list) else leaf(value)


def test_what_the_step_counted_stands_apart_from_what_the_data_set_holds(tmp_path: Path) -> None:
    card = a_card(tmp_path)
    text = shown({**card, "counts": {"classification_tasks": 17}})
    overview, counts = text.split("\nCounts of the step\n")
    assert "classification tasks: not known" in overview
    assert counts.split("\n\n")[0].strip() == "classification tasks: 17"
    assert "Counts of the step" not in shown({**card, "counts": {}})


def test_it_needs_none_of_the_stages_libraries() -> None:
    code = (
        "import sys, harness.cli.views.card\n"
        "print([m for m in ('numpy', 'matplotlib', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
