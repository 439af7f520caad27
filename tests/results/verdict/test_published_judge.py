"""A number that another judge gave: no verdict on it, and in words who judged what."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.row.load import load_rows
from harness.row.published_judge import another_judge, is_snapshot
from tests.helpers import command, evaluation
from tests.results.scored_rows import Scored, scored_row, wins

SAME = {"model": "judge", "annotator": "preference", "baseline": "prompts"}
SHA = "0" * 64


def verified(folder: Path, spec: Path, *more: str) -> Any:
    return command("verify", spec, "--volume", folder / "runs", "--executor", "local", *more)


def row(folder: Path, judge: dict[str, str] | None, value: float | str = 40.0) -> Path:
    cell = {"value": value, "standard_error": 0.3} | ({"judge": judge} if judge else {})
    return scored_row(folder, wins(1600, 4000), reported={"win_rate": cell})


def table(folder: Path, spec: Path, form: str, *more: str) -> str:
    result = command(
        "table", spec, "--volume", folder / "runs", "--executor", "local", "--format", form, *more
    )
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "gpt-3.5-turbo-0301"}, "gpt-3.5-turbo-0301 judged the published number, judge ours"),
        ({"annotator": "chatgpt"}, "it was judged by chatgpt, ours by preference"),
        ({"baseline": "text_davinci_003"},
         "it was judged against text_davinci_003, ours against prompts.jsonl"),
        ({"baseline": SHA}, f"it was judged against {SHA}, ours against prompts.jsonl"),
    ],
)  # fmt: skip
def test_a_number_of_another_judge_has_no_verdict_and_exits_4(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    spec = row(tmp_path, SAME | change)
    result = verified(tmp_path, spec)
    assert result.exit_code == 4
    text = " ".join(result.output.split())
    assert "one win_rate: not comparable: another judge" in text
    assert f"not comparable: another judge: {words}" in text
    assert "whole interval" not in text
    (metric,) = json.loads(verified(tmp_path, spec, "--json").output)["metrics"]
    assert (metric["verdict"], metric["reason"]) == ("not comparable: another judge", words)
    assert metric["difference"] == {"value": 0.0, "low": None, "high": None}
    assert metric["more"] == []


@pytest.mark.parametrize(
    "judge",
    [SAME, {"model": "judge"}, {"baseline": "Prompts.JSONL"}, {"annotator": "preference"}],
)
def test_a_number_of_the_same_judge_is_judged_as_ever(
    tmp_path: Path, judge: dict[str, str]
) -> None:
    result = verified(tmp_path, row(tmp_path, judge))
    assert result.exit_code == 0, result.output
    assert "reproduced: the whole interval lies within ±3" in result.output


def test_a_far_number_of_another_judge_is_not_called_not_reproduced(tmp_path: Path) -> None:
    result = verified(tmp_path, row(tmp_path, SAME | {"model": "claude"}, 90.0))
    assert result.exit_code == 4
    assert "not reproduced" not in result.output


def test_where_nobody_says_who_judged_the_verdict_stands_and_says_so(tmp_path: Path) -> None:
    result = verified(tmp_path, row(tmp_path, None))
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert (
        "who judged the published number is not named, and is taken to be as ours simulated "
        "judge (preference) against prompts.jsonl"
    ) in text


def test_the_judge_that_the_server_named_counts_as_much_as_the_one_asked_for(
    tmp_path: Path,
) -> None:
    """An alias is asked for; the server says which model it was."""
    spec = row(tmp_path, SAME | {"model": "judge-0613"})
    (loaded,) = load_rows([spec])
    assert loaded.row.eval is not None
    judge, published = loaded.row.eval.judge, loaded.row.reported.judge_of("win_rate")
    assert judge is not None
    assert published is not None
    assert another_judge(published, judge)
    assert not another_judge(published, judge, {"judge-0613"})
    assert another_judge(published, judge, {"judge-0613", "judge-1106"})


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("openai/gpt-4o", "GPT-4o", True),
        ("gemini-1.5-pro-latest", "gemini-1.5-pro-002", True),
        ("claude-3-opus", "claude-3-opus@20240229", True),
        ("gpt-4", "gpt-4-turbo", False),
        ("gpt-4", "gpt-4-1106-preview", False),
        ("llama", "llama:405", False),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4", "gpt-4o-2024-08-06", False),
        ("gpt-4-0613", "gpt-4-0314", False),
        ("a/judge", "b/judge", False),
    ],
)
def test_a_dated_snapshot_of_what_is_asked_for_is_the_same_judge(
    asked: str, served: str, same: bool
) -> None:
    assert is_snapshot(served, asked) == same


@pytest.mark.parametrize("served", ["something-else-2026", "judge-x2", "judge"])
@pytest.mark.parametrize("value", [40.0, 90.0])
def test_a_model_that_answers_in_place_of_the_judge_is_another_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str, value: float
) -> None:
    monkeypatch.setattr(Scored, "served", [served])
    spec = row_of(tmp_path, "judge-x", value)
    why = f"judge-x judged the published number, {served} (asked for as judge-x) ours"
    (metric,) = json.loads(verified(tmp_path, spec, "--json").output)["metrics"]
    assert (metric["verdict"], metric["reason"]) == ("not comparable: another judge", why)
    assert metric["ours"]["served_models"] == [served]
    result = verified(tmp_path, spec)
    assert result.exit_code == 4
    text = " ".join(result.output.split())
    assert f"whose server says that {served} answered" in text
    assert "to decide it in the row's judge the name of the model that answered, and the" in text
    assert why in table(tmp_path, spec, "csv")


def test_an_alias_is_its_dated_snapshot_and_verify_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scored, "served", ["judge-x-0613"])
    result = verified(tmp_path, row_of(tmp_path, "judge-x"))
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "against prompts.jsonl, whose server says that judge-x-0613 answered" in text


def test_another_snapshot_than_the_published_one_is_another_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scored, "served", ["judge-0314"])
    result = verified(tmp_path, row_of(tmp_path, "judge-0613"))
    assert result.exit_code == 4
    assert "judge-0314 (asked for as judge-0613) ours" in " ".join(result.output.split())


def row_of(folder: Path, model: str, value: float = 40.0) -> Path:
    """A row whose judge and published judge are asked for by the same name."""
    parts = evaluation(folder / "specs")
    parts["judge"]["judge"]["model"] = model
    cell = {"value": value, "standard_error": 0.3, "judge": SAME | {"model": model}}
    return scored_row(folder, wins(1600, 4000), reported={"win_rate": cell}, eval=parts)


def test_tables_and_the_report_say_another_judge_and_why(tmp_path: Path) -> None:
    spec = row(tmp_path, SAME | {"model": "gpt-3.5-turbo-0301"})
    why = "gpt-3.5-turbo-0301 judged the published number, judge ours"
    for form in ("md", "csv", "latex", "html"):
        text = table(tmp_path, spec, form)
        assert "not comparable: another judge" in text, form
        assert why in text, form
    assert "not comparable: another judge" in table(tmp_path, spec, "latex", "--layout", "study")
    to = tmp_path / "report.html"
    result = command(
        "report", "--all", spec, "--volume", tmp_path / "runs", "--executor", "local", "--out", to
    )
    assert result.exit_code == 0, result.output
    html = to.read_text()
    assert "another model judged the published number" in html
    assert 'class="pill v-not-comparable"' in html


def test_a_number_that_stands_elsewhere_than_its_table_says_so_wherever_it_stands(
    tmp_path: Path,
) -> None:
    source = {"repository": "a/b", "commit": "c" * 40, "file": "x/leaderboard.csv"}
    cell = {"value": 40.0, "standard_error": 0.3, "source": source}
    spec = scored_row(
        tmp_path, wins(1600, 4000), reported={"win_rate": cell}, source={"document": "D", "line": 3}
    )
    where = "a/b@cccccccc x/leaderboard.csv"
    assert where in " ".join(verified(tmp_path, spec).output.split())
    for form in ("md", "latex"):
        assert "he reported number is from a/" in table(tmp_path, spec, form)
