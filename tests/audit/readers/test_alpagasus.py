"""AlpaGasus's review files: the published counts, and the faults that such files have."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit.readers.alpagasus import _words_of
from tests.audit.folders import Row, audit, count, finding_of, kinds, only_result, reviews

Orders = tuple[list[Row], list[Row]]


@pytest.mark.parametrize("seed", range(40))
def test_clean_reviews_give_no_finding(tmp_path: Path, seed: int) -> None:
    better, step = (-1, 0, 0.5, 1)[seed % 4], (1, 0.5)[seed % 2]
    result = only_result(
        reviews(tmp_path, seed, n=(20, 80, 180)[seed % 3], better=better, step=step)
    )
    assert [(f.kind, f.message) for f in result.findings] == []
    assert result.matches is True


def renamed(row: Row, column: str) -> Row:
    """The same with its prompt as another test set of the study has it."""
    rest = {name: value for name, value in row.items() if name not in ("question_id", "text")}
    prompt: Row = {column: row["text"]}
    if column == "instruction":
        prompt["instances"] = [{"input": "Some input.", "output": "Some output."}]
    return {"question_id": row["question_id"], **prompt, **rest}


@pytest.mark.parametrize("column", ["prompt", "instruction", "question", "task", "aaa"])
@pytest.mark.parametrize("turned", [False, True])
def test_both_orders_are_read_whatever_the_prompts_column_is_called(
    tmp_path: Path, column: str, turned: bool
) -> None:
    published = {"test_name": "koala", "win": 0}

    def change(*orders: list[Row]) -> None:
        published.update(count(orders))  # type: ignore[arg-type]
        for number, rows in enumerate(orders):
            for place, row in enumerate(rows):
                answers = {name: row.pop(name) for name in ("ours", "theirs")}
                if turned and number == 1:
                    answers = dict(reversed(answers.items()))
                rows[place] = renamed({**row, **answers}, column)

    result = only_result(reviews(tmp_path, better=0.5, change=change))
    assert (result.findings, result.matches) == ([], True)
    assert result.published == {
        "n_wins": published["win"], "n_draws": published["draw"],
        "n_wins_base": published["lose"], "n_judged": 80,
    }  # fmt: skip
    assert not any("one order" in note for note in result.notes)
    assert "wins are those of ours over theirs, prompt set koala" in result.notes
    prompts = [prompt for prompt, _ in result.material.judgements]
    assert len(set(prompts)) == 80
    assert all(prompt.endswith("Some input.") for prompt in prompts) == (column == "instruction")


def test_counts_of_the_other_model_are_read_as_such(tmp_path: Path) -> None:
    folder = reviews(tmp_path, better=1.5)
    published = json.loads((folder / "koala_result.json").read_text())
    published["win"], published["lose"] = published["lose"], published["win"]
    (folder / "koala_result.json").write_text(json.dumps(published))
    result = only_result(folder)
    assert (result.matches, result.findings) == (True, [])
    assert result.metrics["n_wins"] == published["win"] < published["lose"]


def test_a_judge_that_favours_a_place_is_found(tmp_path: Path) -> None:
    finding = finding_of(only_result(reviews(tmp_path, place=-1.5)), "position_bias")
    assert (
        finding.evidence["shown_second"]["win_rate"] > finding.evidence["shown_first"]["win_rate"]
    )


def test_wrong_counts_are_told(tmp_path: Path) -> None:
    result = only_result(reviews(tmp_path, counts={"win": 50, "draw": 20, "lose": 10}))
    assert (kinds(result), result.matches) == (["count_mismatch"], False)
    assert finding_of(result, "count_mismatch").evidence["published"]["n_wins"] == 50


def unread(orders: Orders) -> None:
    for row in orders[0][:8]:
        row |= {"review": "Both are fine answers.", "score": [-1, -1]}


def test_unread_reviews_that_count_as_ties_are_found(tmp_path: Path) -> None:
    counts: dict[str, Any] = {}

    def change(*orders: list[Row]) -> None:
        unread(orders)  # type: ignore[arg-type]
        counts.update(count(orders))  # type: ignore[arg-type]

    result = only_result(reviews(tmp_path, better=1.5, change=change))
    finding = finding_of(result, "unparsed_scored")
    assert finding.evidence["rows"] == 8
    assert finding.evidence["with"]["n_wins"] == counts["win"]
    assert (result.metrics["n_judged"], result.matches) == (72, False)
    assert "count_mismatch" not in kinds(result)


def test_counts_of_scores_cut_to_whole_numbers_are_found(tmp_path: Path) -> None:
    orders: list[Any] = []
    reviews(tmp_path, step=0.5, change=lambda *pair: orders.extend(pair))
    cut, exact = (count((orders[0], orders[1]), way) for way in (int, float))
    assert cut != exact
    result = only_result(reviews(tmp_path, step=0.5, counts=cut))
    finding = finding_of(result, "truncated_scores")
    assert finding.evidence["cut"]["n_wins"] == cut["win"]
    assert finding.evidence["exact"]["n_wins"] == exact["win"] == result.metrics["n_wins"]
    assert (kinds(result), result.matches) == (["truncated_scores"], False)


def test_scores_that_are_stored_cut_are_found_by_the_reviews_words(tmp_path: Path) -> None:
    def cut(*orders: list[Row]) -> None:
        for row in [*orders[0], *orders[1]]:
            row["score"] = [float(int(score)) for score in row["score"]]

    result = only_result(reviews(tmp_path, step=0.5, change=cut))
    assert kinds(result) == ["truncated_scores"]
    halves = {r["prompt"] for r in finding_of(result, "truncated_scores").evidence["examples"]}
    assert halves
    assert finding_of(result, "truncated_scores").evidence["rows"] > 20


def test_scores_that_are_not_the_reviews_are_told(tmp_path: Path) -> None:
    def other(*orders: list[Row]) -> None:
        for row in orders[1][:5]:
            row["score"] = [score + 1 for score in row["score"]]

    finding = finding_of(only_result(reviews(tmp_path, change=other)), "count_mismatch")
    assert finding.evidence["rows"] == 5


def test_a_prompt_without_one_of_its_orders_is_unjudged(tmp_path: Path) -> None:
    def lose(*orders: list[Row]) -> None:
        del orders[1][70:]

    folder = reviews(tmp_path)
    folder.joinpath("koala_result.json").unlink()
    rows = json.loads((folder / "theirs-ours-koala.json").read_text())[:70]
    (folder / "theirs-ours-koala.json").write_text(json.dumps(rows))
    result = only_result(folder)
    assert finding_of(result, "dropped_rows").evidence["dropped"] == 10
    assert result.matches is None


def test_one_order_alone_is_read_and_said(tmp_path: Path) -> None:
    folder = reviews(tmp_path)
    (folder / "theirs-ours-koala.json").unlink()
    (folder / "koala_result.json").unlink()
    result = only_result(folder)
    assert result.metrics["n_judged"] == 80
    assert any("one order" in n for n in result.notes)


@pytest.mark.parametrize("place", [0, 1], ids=["shown first", "shown second"])
@pytest.mark.parametrize("path_kind", ["file", "folder", "folder with counts"])
def test_wins_in_one_order_are_the_models_wherever_it_stands(
    tmp_path: Path, place: int, path_kind: str
) -> None:
    """The model answers better, but for the prompts to which it answers nothing."""

    def change(*orders: list[Row]) -> None:
        for k, row in enumerate(orders[place]):
            score = [2.0, 9.0] if k < 12 else [9.0, 3.0 if k % 2 else 9.0]
            row["score"] = score if place == 0 else score[::-1]
            row["review"] = "{:g} {:g}\n".format(*row["score"])
            row["ours"] = "" if k < 12 else row["ours"]

    folder = reviews(tmp_path, change=change)
    names = ("ours-theirs-koala.json", "theirs-ours-koala.json")
    (folder / names[1 - place]).unlink()
    counts = folder / "koala_result.json"
    counts.write_text(json.dumps({"test_name": "koala", "win": 34, "draw": 34, "lose": 12}))
    if path_kind != "folder with counts":
        counts.unlink()
    result = only_result(folder / names[place] if path_kind == "file" else folder)
    assert "wins are those of ours over theirs, prompt set koala" in result.notes
    assert [result.metrics[n] for n in ("n_wins", "n_draws", "n_wins_base")] == [34, 34, 12]
    assert result.metrics["win_rate"] == pytest.approx(63.75)
    assert result.matches is (True if path_kind == "folder with counts" else None)
    empty = finding_of(result, "empty_or_truncated").evidence
    assert empty["win_rate_of_these"] == 0
    assert empty["win_rate_of_others"] == pytest.approx(75)


def test_sets_in_one_folder_are_results_of_their_own(tmp_path: Path) -> None:
    folder = reviews(tmp_path)
    for name in ("ours-theirs", "theirs-ours"):
        (folder / f"{name}-vicuna.json").write_bytes((folder / f"{name}-koala.json").read_bytes())
    assert [r.path for r in audit(folder)] == [f"{folder}#koala", f"{folder}#vicuna"]


@pytest.mark.parametrize(
    "odd",
    [
        {"score": None}, {"score": [None, None]}, {"score": ["8", "7"]}, {"score": [float("nan"), 1]},
        {"score": [10**400, 1]}, {"review": None}, {"review": 7}, {"ours": None}, {"text": None},
        {"question_id": [1]}, {"review": "1e999 8"},
    ],
)  # fmt: skip
def test_values_of_any_type_end_in_a_result(tmp_path: Path, odd: Row) -> None:
    counts = {"win": 1, "draw": 2, "lose": 3}
    result = only_result(
        reviews(tmp_path, counts=counts, change=lambda *orders: orders[0][3].update(odd))
    )
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"3", b'{"win": "many"}', b"\xff"])
def test_damaged_counts_are_no_counts(tmp_path: Path, damage: bytes) -> None:
    folder = reviews(tmp_path)
    (folder / "koala_result.json").write_bytes(damage)
    assert only_result(folder).published == {}


@pytest.mark.parametrize(("swayed", "expected"), [(16, []), (60, ["position_bias"])])
def test_a_place_that_sways_few_prompts_is_no_finding_however_sure(
    tmp_path: Path, swayed: int, expected: list[str]
) -> None:
    def change(*orders: list[Row]) -> None:
        for number, rows in enumerate(orders):
            for k, row in enumerate(rows):
                ours_first, sways, good = number == 0, k < swayed, k % 2 == 0
                first_wins = sways or good == ours_first
                row["score"] = [8.0, 7.0] if first_wins else [7.0, 8.0]
                row["review"] = "{:g} {:g}\n".format(*row["score"])

    assert kinds(only_result(reviews(tmp_path, n=400, change=change))) == expected


def test_a_count_that_is_not_stored_is_unknown() -> None:
    words = _words_of({"n_wins": 3, "n_draws": None, "n_wins_base": 0})
    assert words == "3 wins, unknown ties, 0 losses"
