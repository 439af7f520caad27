"""`harness compare`: two rows prompt by prompt, and what is said where they cannot be compared."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.results.compare import compare as compare_rows
from harness.results.compare import sentences
from tests.helpers import InstantExecutor, command, evaluation, make, planned
from tests.results.scored_rows import scored_row, wins


def compare(folder: Path, *specs: Path, more: tuple[str, ...] = ()) -> Any:
    return command("compare", *specs, "--volume", folder / "runs", "--executor", "local", *more)


def told(folder: Path, *specs: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(compare(folder, *specs, more=("--json",)).output)
    return found


def test_the_difference_is_over_the_prompts_of_both_with_flips_and_sign_test(
    tmp_path: Path,
) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    second = scored_row(tmp_path, wins(50, first=5), row="two")
    result = compare(tmp_path, first, second)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "one: 60.00, judged 100 of 100, 1 run" in text
    assert "difference (first - second) +10.00 points, 95 % interval" in text
    assert "over 100 prompts judged in both" in text
    # Won by the first alone: 0 to 4 and 55 to 59; by the second alone: none.
    assert "10 of 100 differ (first to second: win to lose 10)" in text
    assert "10 prompts are better in the first, 0 in the second, 90 alike" in text
    (metric,) = told(tmp_path, first, second)["metrics"]
    assert metric["sign_test_p"] == pytest.approx(2 / 2**10)
    assert metric["flips"]["win"] == {"win": 50, "draw": 0, "lose": 10}
    low, high = metric["paired"]["low"], metric["paired"]["high"]
    # Much narrower than that of two samples, ± 13.7; it leaves 0 out.
    assert 0 < low < 10 < high < 18


def test_of_a_task_metric_of_which_less_is_better_more_is_called_worse(tmp_path: Path) -> None:
    rows = scored_row(tmp_path, wins(60), row="one"), scored_row(tmp_path, wins(50), row="two")
    (of_wins,) = compare_rows(*planned(tmp_path / "runs", *rows))
    text = "; ".join(sentences(replace(of_wins, metric="bbq/brier_score")))
    assert "10 prompts are higher, and so worse, in the first, 0 in the second" in text


def test_a_row_against_itself_is_the_same_artefacts_and_has_no_interval(tmp_path: Path) -> None:
    only = scored_row(tmp_path, wins(60), row="one")
    text = compare(tmp_path, only, only).output
    assert "both are read from the same artefacts: there is no difference to test" in text
    for word in ("95 % interval", "would have been seen", "sign test", "what is studied"):
        assert word not in text
    (metric,) = told(tmp_path, only, only)["metrics"]
    assert metric["same_artefacts"] is True
    assert metric["paired"]["difference"] == 0
    assert metric["paired"]["low"] is metric["paired"]["high"] is metric["sign_test_p"] is None
    other = scored_row(tmp_path, wins(60), row="two")
    (metric,) = told(tmp_path, only, other)["metrics"]
    assert metric["same_artefacts"] is False
    assert metric["paired"]["low"] < 0 < metric["paired"]["high"]


def test_one_prompt_is_told_in_the_singular_and_verdicts_over_runs_say_what_they_are_of(
    tmp_path: Path,
) -> None:
    first = scored_row(tmp_path, wins(51), wins(51), row="one")
    text = compare(tmp_path, first, scored_row(tmp_path, wins(50), row="two")).output
    assert "1 prompt is better in the first, 0 in the second, 99 alike" in text
    assert "verdicts, each row's by its mean over its runs: 1 of 100 differ" in text


def test_prompts_that_one_of_them_lacks_are_counted_and_bounded(tmp_path: Path) -> None:
    first = scored_row(tmp_path, [*wins(60, 90), *[None] * 10], row="one")
    second = scored_row(tmp_path, wins(50), row="two")
    (metric,) = told(tmp_path, first, second)["metrics"]
    assert metric["prompts"]["both"] == 90
    assert metric["prompts"]["only_second"] == 10
    assert metric["paired"]["difference"] == pytest.approx(100 * 10 / 90)
    # The ten are lost by the second: all lost by the first too, or all won.
    assert (metric["lower_bound"], metric["upper_bound"]) == (10, 20)
    text = compare(tmp_path, first, second).output
    assert "left out: 0 prompts judged in one alone, 10 in two alone" in text


def test_rows_with_other_settings_are_marked_with_the_settings_named(tmp_path: Path) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    other = evaluation(tmp_path / "specs")
    other["judge"]["judge"] = {"model": "another-judge", "simulated": {}}
    second = scored_row(tmp_path, wins(50), row="two", eval=other)
    result = compare(tmp_path, first, second)
    assert "confounded" in result.output
    assert "judge" in result.output
    found = told(tmp_path, first, second)
    assert found["confounded"]
    assert found["settings"]
    same = scored_row(tmp_path, wins(55), row="three", eval=other)
    assert not told(tmp_path, second, same)["confounded"]


def test_replicates_are_averaged_and_trainings_that_differ_widen_the_interval(
    tmp_path: Path,
) -> None:
    base = scored_row(tmp_path, wins(50), row="base")
    alike = scored_row(tmp_path, *[wins(60)] * 3, row="alike", trained=True)
    apart = scored_row(tmp_path, *[wins(n) for n in (50, 60, 70)], row="apart", trained=True)
    narrow, wide = (told(tmp_path, spec, base)["metrics"][0]["paired"] for spec in (alike, apart))
    assert narrow["difference"] == pytest.approx(10)
    assert wide["difference"] == pytest.approx(10)
    assert wide["high"] > narrow["high"] + 5


def test_one_training_is_said_to_say_nothing_about_another(tmp_path: Path) -> None:
    base = scored_row(tmp_path, wins(50), row="base")
    trained = scored_row(tmp_path, wins(60), row="sft", trained=True)
    assert "sft: one training" in compare(tmp_path, trained, base).output
    assert "one training" not in compare(tmp_path, base, base).output


def test_a_simulated_side_marks_the_comparison(tmp_path: Path) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    second = scored_row(tmp_path, wins(50), row="two", simulated=True)
    assert "(simulated: judge)" in compare(tmp_path, first, second).output


def test_a_scaled_down_twin_and_random_weights_mark_the_comparison(tmp_path: Path) -> None:
    twin = scored_row(tmp_path, wins(60), row="twin", scale="tiny")
    row = scored_row(tmp_path, wins(50), row="one")
    text = compare(tmp_path, twin, row).output
    assert "win_rate (simulated: scaled down)" in text
    assert "judged 100 of 100, 1 run (simulated, scaled down, random weights)" in text
    # The tests' base model has random weights.
    assert "one: 50.00, judged 100 of 100, 1 run (random weights)" in text
    sides = told(tmp_path, twin, row)["metrics"][0]["rows"]
    assert [sides[name]["simulated"] for name in ("first", "second")] == [["scaled down"], []]
    assert [sides[name]["random_weights"] for name in ("first", "second")] == [True, True]


def test_a_row_that_did_not_run_says_which_command_runs_it(tmp_path: Path) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    result = compare(tmp_path, first, scored_row(tmp_path, row="two"))
    assert result.exit_code == 2
    assert "row two has no score yet" in result.output
    assert "harness run" in result.output


def test_outputs_that_share_no_judged_prompt_get_no_test(tmp_path: Path) -> None:
    first = scored_row(tmp_path, [2.0, 1.0, None, None], row="one")
    second = scored_row(tmp_path, [None, None, 2.0, 1.0], row="two")
    (metric,) = told(tmp_path, first, second)["metrics"]
    assert metric["paired"] is None
    assert metric["difference"] == 0
    assert "no prompt was judged in both" in compare(tmp_path, first, second).output


def test_the_other_way_round_the_difference_has_the_other_sign(tmp_path: Path) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    second = scored_row(tmp_path, wins(50, first=5), row="two")
    ours = told(tmp_path, first, second)["metrics"][0]["paired"]
    theirs = told(tmp_path, second, first)["metrics"][0]["paired"]
    assert ours["low"] == pytest.approx(-theirs["high"])
    assert ours["smallest_seen"] == pytest.approx(theirs["smallest_seen"])


def test_trained_rows_whose_judge_gives_the_loss_are_compared_by_it(
    row: Callable[..., Path], volume: Path
) -> None:
    def outcome(job: Any) -> dict[str, Any]:
        loss = {"value": 2.0, "standard_error": 0.1, "judged": 4, "expected": 4}
        metrics = {"train": {"train_loss": {"value": 3.0}}, "judge": {"held_out_loss": loss}}
        return {"metrics": metrics.get(job.stage, {})}

    judge = {"judge": {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}}
    specs = [row(name, eval=judge, train={"steps": n}) for name, n in (("one", 1), ("two", 2))]
    make(volume, *specs, executor=InstantExecutor(outcome))
    result = command("compare", *specs, "--volume", volume, "--executor", "local")
    assert result.exit_code == 0, result.output
    assert "held_out_loss" in result.output
    assert "train_loss" not in result.output
    # A judging that keeps no grades is refused once it is changed, too.
    (plan,) = planned(volume, specs[1])
    (plan.final()[0].made.folder / "made.txt").write_text("better")
    changed = command("compare", *specs, "--volume", volume, "--executor", "local")
    assert changed.exit_code == 1
    assert "held_out_loss" not in changed.output


def test_a_row_whose_annotations_were_removed_is_refused_with_the_way_out(tmp_path: Path) -> None:
    first = scored_row(tmp_path, wins(60), row="one")
    second = scored_row(tmp_path, wins(50), row="two")
    (plan,) = planned(tmp_path / "runs", second)
    folder = plan.final()[0].made.folder
    (folder / "annotations.json").unlink()
    for specs in ((first, second), (second, first)):
        result = compare(tmp_path, *specs)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "annotations.json is missing" in result.stderr
        assert f"gc --yes judge/{folder.name}" in result.stderr
