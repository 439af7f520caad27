"""`harness verify`: the verdict in words and as data, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import command, evaluation
from tests.results.scored_rows import scored_row, wins


def verify(folder: Path, spec: Path, *more: str) -> Any:
    return command("verify", spec, "--volume", folder / "runs", "--executor", "local", *more)


def told(folder: Path, spec: Path) -> dict[str, Any]:
    result = verify(folder, spec, "--json")
    found: dict[str, Any] = json.loads(result.output)
    assert found["exit_code"] == result.exit_code
    return found


REPORTED = {"win_rate": {"value": 40, "standard_error": 0.3}}


def test_a_number_that_is_there_again_is_reproduced_and_exits_0(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(1600, 4000), reported=REPORTED)
    result = verify(tmp_path, spec)
    assert result.exit_code == 0
    assert "one win_rate: reproduced" in result.output
    assert "the whole interval lies within ±3" in result.output


def test_another_number_is_not_reproduced_and_exits_3(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(2000, 4000), reported=REPORTED)
    result = verify(tmp_path, spec)
    assert result.exit_code == 3
    assert "the whole interval lies outside ±3" in result.output


def test_a_number_that_could_be_either_is_inconclusive_and_exits_4(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(42), reported=REPORTED)
    result = verify(tmp_path, spec)
    assert result.exit_code == 4
    assert "partly within ±3 and partly outside" in result.output
    assert "it takes more prompts" in result.output


def test_the_reasoning_names_both_numbers_their_errors_counts_and_the_source(
    tmp_path: Path,
) -> None:
    spec = scored_row(
        tmp_path,
        [*wins(1600, 3990), *[None] * 10],
        reported={"win_rate": {"value": 39.5, "judged": 790, "expected": 805}},
        source={"document": "paper.pdf", "table": "Table 2", "line": 3},
        deviations=["another judge"],
        assumptions=["the temperature is not told"],
    )
    text = " ".join(verify(tmp_path, spec).output.split())
    assert "39.50 ± 1.74 (the largest that a score of this value can have" in text
    assert "judged 790 of 805; one run (paper.pdf, Table 2, line 3)" in text
    assert "40.10 ± 0.78 over prompts" in text
    assert "judged 3990 of 4000; 1 run" in text
    assert "10 of ours: all lost the score were 40.00, all won 40.25" in text
    assert "15 of the published run: all lost 38.76, all won 40.63" in text
    assert "- another judge" in text
    assert "- the temperature is not told" in text


def test_the_reported_numbers_own_error_can_make_reproduced_out_of_reach(tmp_path: Path) -> None:
    spec = scored_row(
        tmp_path, wins(1600, 4000), reported={"win_rate": {"value": 40, "expected": 40}}
    )
    text = " ".join(verify(tmp_path, spec).output.split())
    assert "whatever is run here, this number cannot be called reproduced" in text


def test_what_the_published_run_left_unjudged_can_put_reproduced_out_of_reach(
    tmp_path: Path,
) -> None:
    cell = {"value": 11.42, "standard_error": 1.167, "judged": 744, "expected": 805}
    spec = scored_row(tmp_path, wins(457, 4000), reported={"win_rate": cell})
    text = " ".join(verify(tmp_path, spec).output.split())
    assert "what 61 unjudged prompts of the published run leave open spans 7.58 alone" in text
    assert "more than the 6.00 between both margins: whatever is run here" in text
    assert "it takes more prompts" not in text
    (metric,) = told(tmp_path, spec)["metrics"]
    assert metric["half_width_with_endless_replicates"] > metric["half_width_of_unjudged"] > 3.78


def test_what_of_ours_is_unjudged_is_named_where_it_keeps_the_verdict_open(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, [*wins(1440, 3600), *[None] * 400], reported=REPORTED)
    text = " ".join(verify(tmp_path, spec).output.split())
    assert "our unjudged prompts leave open spans 10.00 of it: it takes verdicts on them" in text


def test_a_judge_that_was_asked_once_is_said_to_be_assumed_not_to_move_all_prompts(
    tmp_path: Path,
) -> None:
    once = scored_row(tmp_path, wins(1600, 4000), reported=REPORTED)
    assert "the judge was asked once, which cannot show it" in " ".join(
        verify(tmp_path, once).output.split()
    )
    assert told(tmp_path, once)["metrics"][0]["assumed"]
    twice = scored_row(tmp_path, *[wins(1600, 4000)] * 2, row="two", reported=REPORTED)
    assert "asked once" not in verify(tmp_path, twice).output
    assert told(tmp_path, twice)["metrics"][0]["assumed"] is None


def test_cells_without_a_reported_number_do_not_count_for_the_exit_code(tmp_path: Path) -> None:
    part = evaluation(tmp_path / "specs")
    part["answer"]["prompts"] = {"files": {"koala": "prompts.jsonl", "vicuna": "prompts.jsonl"}}
    reported = {**REPORTED, "win_rate/koala": "unreported"}
    spec = scored_row(tmp_path, wins(1600, 4000), reported=reported, eval=part)
    found = told(tmp_path, spec)
    assert [metric["verdict"] for metric in found["metrics"]] == ["reproduced", "not run"]
    assert found["exit_code"] == 0


def test_one_training_is_inconclusive_and_asks_for_more_trainings(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(4000, 10000), trained=True, reported=REPORTED)
    result = verify(tmp_path, spec)
    text = " ".join(result.output.split())
    assert result.exit_code == 4
    assert "a standard deviation of 3 between trainings allowed for" in text
    (metric,) = told(tmp_path, spec)["metrics"]
    ((more),) = metric["more"]
    assert more["kind"] == "train"
    chance = metric["chance_with_more"]
    assert 0 < chance < 1
    assert f"{more['replicates']} more trainings would, if the difference stays" in text
    assert f"the chance of a verdict is then about {100 * chance:.0f} %" in text


def test_the_spread_is_split_into_the_choice_of_prompts_training_and_judging(
    tmp_path: Path,
) -> None:
    judgings = [wins(400 + 20 * t, 1000, first=10 * j) for t in range(3) for j in range(2)]
    spec = scored_row(
        tmp_path,
        *judgings,
        trained=True,
        reported=REPORTED,
        replicates={"train_seeds": [1, 2, 3], "judge": 2},
    )
    text = " ".join(verify(tmp_path, spec).output.split())
    assert "6 runs (3 trainings, 2 judgings of each)" in text
    assert ", each run ± " in text
    (metric,) = told(tmp_path, spec)["metrics"]
    assert metric["ours"]["trainings"] == 3
    assert metric["ours"]["judgings"] == 6
    parts = metric["variance"]
    assert parts["prompts_judged_in_every_run"] == 1000
    # Scores of 40, 42 and 44 %.
    assert parts["train"]["common"] == pytest.approx(4, abs=0.2)
    assert parts["judge"]["common"] == 0
    assert parts["judge"]["single"] > 0
    assert "common to all prompts" in text
    # Of 40, 40, 42, 42, 44 and 44, as a table shows it.
    assert "the sd of the tables, 1.79, is that between the runs' scores as they came" in text


def test_an_empty_cell_of_the_study_is_told_apart_from_no_number(tmp_path: Path) -> None:
    empty = scored_row(tmp_path, wins(40), reported={"win_rate": "unreported"})
    result = verify(tmp_path, empty)
    assert result.exit_code == 4
    assert "not comparable: the study leaves this cell empty" in result.output


def test_a_row_without_reported_numbers_shows_what_it_measured(tmp_path: Path) -> None:
    result = verify(tmp_path, scored_row(tmp_path, wins(40)))
    assert result.exit_code == 4
    assert "no number was reported" in result.output
    assert "40.00 ± 4.92 over prompts" in result.output
    assert "not made yet" not in result.output


def test_a_row_that_did_not_run_exits_4(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, reported=REPORTED)
    result = verify(tmp_path, spec)
    assert result.exit_code == 4
    assert "one win_rate: not run" in result.output
    assert f"harness run {spec}" in result.output
    assert told(tmp_path, spec)["metrics"][0]["ours"] is None


def test_a_simulated_row_is_only_ever_simulated(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(1600, 4000), simulated=True, reported=REPORTED)
    result = verify(tmp_path, spec)
    assert result.exit_code == 4
    assert "one win_rate: simulated" in result.output
    assert told(tmp_path, spec)["metrics"][0]["ours"]["simulated"] == "judge"


def test_the_worst_of_several_metrics_decides_the_exit_code(tmp_path: Path) -> None:
    reported = {**REPORTED, "win_rate/koala": {"value": 50}, "win_rate/vicuna": {"value": 1}}
    part = evaluation(tmp_path / "specs")
    part["answer"]["prompts"] = {"files": dict.fromkeys(("koala", "vicuna"), "prompts.jsonl")}
    spec = scored_row(tmp_path, wins(2000, 4000), reported=reported, eval=part)
    found = told(tmp_path, spec)
    verdicts = {metric["metric"]: metric["verdict"] for metric in found["metrics"]}
    assert verdicts.pop("win_rate") == "not reproduced"
    assert verdicts == {"win_rate/koala": "not run", "win_rate/vicuna": "not run"}
    assert found["exit_code"] == 3
    again = scored_row(tmp_path, row="two", reported=reported, eval=part)
    assert told(tmp_path, again)["exit_code"] == 4


def test_the_margin_is_the_specs_where_it_names_one(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(1700, 4000), reported=REPORTED, margins={"win_rate": 8})
    (metric,) = told(tmp_path, spec)["metrics"]
    assert (metric["verdict"], metric["margin"]) == ("reproduced", 8)


def test_the_words_of_a_row_reach_the_terminal_as_text(tmp_path: Path) -> None:
    spec = scored_row(tmp_path, wins(40), deviations=["[red]\x1b]0;title\x07 odd"])
    output = verify(tmp_path, spec).output
    assert "[red]" in output
    assert "\x1b]0" not in output
