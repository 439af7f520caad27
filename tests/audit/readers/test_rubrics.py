"""Rubric scores: unread replies, missing context, scores that are not the reply's."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit_paths
from harness.audit.model import Result
from harness.errors import InputError


def row(
    number: int, score: float | None = 4, context: str = "The sky is blue.", **more: Any
) -> dict[str, Any]:
    """As Flow Judge writes them."""
    inputs = [{"query": f"What is number {number}?"}, {"context": context}]
    return {
        "sample": {"inputs": inputs, "output": {"response": f"It is {number}."}},
        "feedback": f"The answer {number} is as the context says.",
        "score": score,
        **more,
    }


def write(folder: Path, rows: list[dict[str, Any]], name: str = "results_x.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def audited(folder: Path) -> Result:
    (result,) = audit_paths([folder])
    return result


def kinds(result: Result) -> list[str]:
    return [finding.kind for finding in result.findings]


def scored_rows(count: int = 50) -> list[dict[str, Any]]:
    return [row(n, 1 + n % 5) for n in range(count)]


@pytest.mark.parametrize("count", [1, 5, 50, 500])
def test_clean_scores_have_no_finding(tmp_path: Path, count: int) -> None:
    result = audited(write(tmp_path / "RESPONSE_FAITHFULNESS_5POINT", scored_rows(count)))
    assert result.findings == []
    assert result.metrics["n_judged"] == result.metrics["n_expected"] == count
    assert result.metrics["mean_score"] == result.metrics["lower_bound"]


def test_scores_and_feedback_alone_are_clean(tmp_path: Path) -> None:
    rows = [{"feedback": f"Fine {n}.", "score": n % 2} for n in range(40)]
    assert audited(write(tmp_path, rows)).findings == []


def test_unread_replies_in_the_published_mean_are_an_error(tmp_path: Path) -> None:
    rows = scored_rows(45) + [row(n, -1, feedback="Error") for n in range(5)]
    write(tmp_path, rows)
    with_them = (sum(1 + n % 5 for n in range(45)) - 5) / 50
    (tmp_path / "summary.json").write_text(json.dumps({"mean_score": with_them}))
    result = audited(tmp_path)
    (finding,) = result.findings
    assert (finding.kind, finding.severity) == ("unparsed_scored", "error")
    assert finding.evidence["unparsed"] == 5
    assert finding.evidence["effect"] == pytest.approx(with_them - 3.0)
    assert (result.matches, result.metrics["mean_score"]) == (False, 3.0)


def test_unread_replies_left_out_of_the_mean_are_missing_rows(tmp_path: Path) -> None:
    rows = scored_rows(45) + [row(n, -1, feedback="Error") for n in range(5)]
    write(tmp_path / "RESPONSE_FAITHFULNESS_5POINT", rows)
    (tmp_path / "RESPONSE_FAITHFULNESS_5POINT" / "summary.json").write_text('{"mean_score": 3.0}')
    result = audited(tmp_path)
    assert (kinds(result), result.matches) == (["dropped_rows"], True)
    assert result.metrics["lower_bound"] == pytest.approx((135 + 5) / 50)
    assert result.metrics["upper_bound"] == pytest.approx((135 + 25) / 50)


def test_unread_replies_beside_no_mean_are_a_warning(tmp_path: Path) -> None:
    (finding,) = audited(write(tmp_path, [*scored_rows(45), row(99, -1)])).findings
    assert (finding.kind, finding.severity) == ("unparsed_scored", "warning")


def test_a_score_that_the_rubric_does_not_have_is_unread(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "RESPONSE_CORRECTNESS_3POINT", [row(n, 2) for n in range(40)] + [row(9, 7)]
    )
    (finding,) = audited(folder).findings
    assert (finding.kind, finding.evidence["values"]) == ("unparsed_scored", {"7": 1})
    assert "outside 1 to 3" in finding.message


def test_scores_below_zero_on_a_scale_that_has_them_are_scores(tmp_path: Path) -> None:
    rows = [row(n, n % 7 - 3) for n in range(70)]
    assert audited(write(tmp_path, rows)).findings == []


@pytest.mark.parametrize(("empty", "severity"), [(40, "error"), (10, "warning")])
def test_judging_without_the_context_is_found(tmp_path: Path, empty: int, severity: str) -> None:
    rows = [
        row(n, 5 if n < empty else 3, context=" " if n < empty else "It says so.")
        for n in range(40)
    ]
    (finding,) = audited(write(tmp_path, rows)).findings
    assert (finding.kind, finding.severity) == ("missing_context", severity)
    assert (finding.evidence["without"], finding.evidence["scored"]) == (empty, 40)
    if empty < 40:
        assert finding.evidence["effect"] == pytest.approx(0.5)


def test_an_empty_context_in_the_judges_prompt_is_found(tmp_path: Path) -> None:
    prompt = "# INPUTS\n<context>\n\n</context>\n# OUTPUT\n<response>\nyes\n</response>"
    rows = [{"prompt": prompt, "feedback": "Good.", "score": 5} for _ in range(10)]
    assert kinds(audited(write(tmp_path, rows))) == ["missing_context"]
    rows = [r | {"prompt": prompt.replace("\n\n", "\nIt is.\n")} for r in rows]
    assert audited(write(tmp_path, rows)).findings == []


def test_a_prompt_without_context_that_was_not_judged_is_no_fault_of_the_mean(
    tmp_path: Path,
) -> None:
    rows = [*scored_rows(400), row(500, None, context="", feedback=None)]
    assert audited(write(tmp_path, rows)).findings == []


def test_scores_cut_to_whole_numbers_are_found(tmp_path: Path) -> None:
    rows = [
        {
            "score": 7,
            "raw_completion": f"<feedback>Good {n}.</feedback>\n<score>{7.5 if n < 20 else 7}</score>",
        }
        for n in range(40)
    ]
    (finding,) = audited(write(tmp_path, rows)).findings
    assert (finding.kind, finding.evidence["truncated"]) == ("truncated_scores", 20)
    assert finding.evidence["effect"] == pytest.approx(-0.25)
    assert finding.evidence["examples"][0] == {"said": 7.5, "stored": 7}
    for r in rows:
        r["score"] = float(r["raw_completion"].partition("<score>")[2].partition("<")[0])
    assert audited(write(tmp_path, rows)).findings == []


def test_a_score_that_is_not_the_replys_is_found(tmp_path: Path) -> None:
    rows = [{"score": 3, "raw_completion": f"<feedback>{n} <score>1</score></feedback><score>3</score>"}
            for n in range(40)]  # fmt: skip
    assert audited(write(tmp_path, rows)).findings == []
    rows[0]["score"] = 5
    result = audited(write(tmp_path, rows))
    assert (kinds(result), result.matches) == (["count_mismatch"], False)


def reply(number: int, score: float, reply_score: object = None, **more: Any) -> dict[str, Any]:
    """A row with all that the judge wrote as its feedback."""
    words = f"<feedback>Answer {number} is fine.</feedback>\n<score>{reply_score or score}</score>"
    return row(number, score, feedback=words, **more)


def test_a_score_in_the_feedback_is_read(tmp_path: Path) -> None:
    rows = [reply(n, 1 + n % 5) for n in range(50)]
    assert audited(write(tmp_path, rows)).findings == []
    cut = [reply(n, 4, 4.5 if n < 20 else 4) for n in range(50)]
    (finding,) = audited(write(tmp_path, cut)).findings
    assert (finding.kind, finding.evidence["truncated"]) == ("truncated_scores", 20)
    result = audited(write(tmp_path, [*rows[1:], reply(0, 5, 1)]))
    assert (kinds(result), result.matches) == (["count_mismatch"], False)


@pytest.mark.parametrize("stored", [0, 3])
@pytest.mark.parametrize("words", ["Error: could not parse", "I like this answer.", "garbage 17"])
def test_replies_without_a_score_that_have_one_stored_are_found(
    tmp_path: Path, stored: int, words: str
) -> None:
    rows = [reply(n, 1 + n % 5) for n in range(8, 58)]
    failed = [row(n, stored, feedback=words) for n in range(8)]
    (finding,) = audited(write(tmp_path, rows + failed)).findings
    assert (finding.kind, finding.evidence["unparsed"]) == ("unparsed_scored", 8)
    mean = sum(r["score"] for r in rows) / 50
    assert finding.evidence["mean_without"] == pytest.approx(mean)
    (tmp_path / "summary.json").write_text(
        json.dumps({"mean_score": (mean * 50 + 8 * stored) / 58})
    )
    (finding,) = audited(tmp_path).findings
    assert finding.severity == "error"


def test_an_error_is_told_from_feedback_that_speaks_of_one(tmp_path: Path) -> None:
    """Where no feedback holds its score."""
    rows = scored_rows(50)
    rows[0]["feedback"] = "Error: the year is wrong."
    rows[1]["feedback"] = "Cannot be said to be wrong, and the parsing example is right."
    assert audited(write(tmp_path, rows)).findings == []
    for n, words in enumerate(
        ["Error", "JSONDecodeError: Expecting value", "Failed to parse reply"]
    ):
        rows[n]["feedback"] = words
    (finding,) = audited(write(tmp_path, rows)).findings
    assert (finding.kind, finding.evidence["unparsed"]) == ("unparsed_scored", 3)


def test_feedback_that_names_its_score_in_another_way_is_read(tmp_path: Path) -> None:
    rows = [reply(n, 1 + n % 5) for n in range(50)]
    rows[0]["feedback"] = f"Rated {rows[0]['score']}/5."
    rows[1]["feedback"] = "Final score: 4"
    rows[1]["score"] = 4
    assert audited(write(tmp_path, rows)).findings == []


def test_outputs_that_were_scored_twice_are_told(tmp_path: Path) -> None:
    rows = scored_rows(50)
    (finding,) = audited(write(tmp_path, rows + rows[:10])).findings
    assert (finding.kind, finding.evidence["judged_twice"]) == ("count_mismatch", 10)
    other = [r | {"score": 6 - r["score"]} for r in rows[:10]]
    (finding,) = audited(write(tmp_path, rows + other)).findings
    assert finding.evidence["disagree"] == sum(r["score"] != 3 for r in rows[:10])
    for column in ("metric", "model", "judge", "seed"):
        two_columns = [r | {column: "a"} for r in rows] + [r | {column: "b"} for r in other]
        assert audited(write(tmp_path, two_columns)).findings == []


@pytest.mark.parametrize("name", ["response_faithfulness_5point.jsonl", "results.jsonl"])
def test_a_rubric_by_the_context_without_any_context_is_told(tmp_path: Path, name: str) -> None:
    rows = [
        {"question": f"What is {n}?", "answer": f"It is {n}.", "feedback": f"Fine {n}.",
         "score": 1 + n % 5}
        for n in range(40)
    ]  # fmt: skip
    if name == "results.jsonl":
        assert audited(write(tmp_path / "x" / "y" / "z", rows, name)).findings == []
        rows = [r | {"metric": "response_faithfulness_5point"} for r in rows]
    (finding,) = audited(write(tmp_path / "x" / "y" / "z", rows, name)).findings
    assert (finding.kind, finding.severity) == ("missing_context", "warning")
    assert "nothing shows what the judge saw" in finding.message


def test_the_same_replies_in_another_order_are_a_copy(tmp_path: Path) -> None:
    write(tmp_path / "base", scored_rows(50))
    write(tmp_path / "tuned", scored_rows(50)[::-1])
    assert [kinds(r) for r in audit_paths([tmp_path])] == [["copied_results"]] * 2


def test_numbers_in_the_feedback_are_not_the_score(tmp_path: Path) -> None:
    rows = [
        row(n, 3, feedback="The film has a rating of 7.5, and a score of 8.1 elsewhere.")
        for n in range(20)
    ]
    assert audited(write(tmp_path, rows)).findings == []


def test_empty_feedback_broken_replies_and_empty_outputs_are_found(tmp_path: Path) -> None:
    rows = scored_rows(50)
    rows[0]["feedback"] = ""
    assert kinds(audited(write(tmp_path, rows))) == ["empty_or_truncated"]
    rows = scored_rows(50)
    rows[3]["sample"]["output"]["response"] = ""
    assert kinds(audited(write(tmp_path, rows))) == ["empty_or_truncated"]
    rows = [{"score": 3, "raw_completion": "<feedback>It is"}] * 3
    assert kinds(audited(write(tmp_path, rows))) == ["empty_or_truncated"]


def test_a_mean_in_a_readmes_table_is_compared_to_its_decimals(tmp_path: Path) -> None:
    write(tmp_path / "base", scored_rows(50))
    readme = tmp_path / "README.md"
    readme.write_text("| model | Flow Judge score |\n|--|--|\n| base | 3.00 |\n| tuned | 3.4 |\n")
    result = audited(tmp_path)
    assert (result.matches, result.published["mean_score"], result.findings) == (True, 3.0, [])
    readme.write_text("| model | Flow Judge score |\n|--|--|\n| base | 3.20 |\n| tuned | 3.4 |\n")
    result = audited(tmp_path)
    assert (result.matches, kinds(result)) == (False, ["count_mismatch"])


def test_two_files_with_the_same_bytes_are_a_copy(tmp_path: Path) -> None:
    write(tmp_path / "base", scored_rows(50))
    write(tmp_path / "tuned", scored_rows(50))
    assert [kinds(r) for r in audit_paths([tmp_path])] == [["copied_results"]] * 2
    write(tmp_path / "tuned", [row(n, 1 + (n * n) % 5) for n in range(50)])
    assert [kinds(r) for r in audit_paths([tmp_path])] == [[], []]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "5", '{"score": 4}', '[{"score": "x", "feedback": "a"}]', '[{"score": 4}, 5]',
     '[{"score": 4, "score1": 5, "feedback": "a"}]'],
)  # fmt: skip
def test_other_files_are_no_scores(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError):
        audit_paths([tmp_path])


@pytest.mark.parametrize(
    "more",
    [{"sample": 5}, {"sample": {"inputs": 7, "output": [1]}}, {"inputs": [None, {"context": [1]}]},
     {"feedback": 3}, {"score": 1e12}, {"raw_completion": 7}],
)  # fmt: skip
def test_odd_columns_make_no_traceback(tmp_path: Path, more: dict[str, Any]) -> None:
    assert audited(write(tmp_path, [*scored_rows(5), row(9) | more])).kind == "rubric"


def test_our_own_scores_of_a_prompt_that_the_set_has_twice_are_no_fault(tmp_path: Path) -> None:
    """Its one answer stands in each of its places; the manifest says how many there are."""
    rows = scored_rows(50)
    path = write(tmp_path, rows + rows[:10])
    mean = sum(row["score"] for row in rows + rows[:10]) / 60
    for expected, expected_kinds in ((60, []), (50, ["count_mismatch"])):
        metrics = {"rubric_score": {"value": mean, "expected": expected}}
        (path / "manifest.json").write_text(json.dumps({"metrics": metrics}))
        assert [f.kind for f in audited(path).findings] == expected_kinds
