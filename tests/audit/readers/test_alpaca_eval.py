"""alpaca_eval folders: the numbers recomputed, each kind of fault put into a clean folder and found
there, and what only looks like one left alone."""

import dataclasses
import io
import json
import math
import random
import shutil
from pathlib import Path

import pytest
from rich.console import Console

import harness.audit
from harness.audit import Result, audit_paths
from harness.cli.views.audit import show_audits
from harness.errors import InputError
from tests.audit.folders import (
    CHATGPT,
    WEIGHTED,
    audit,
    finding_of,
    kinds,
    only_result,
    rows_of,
    text,
    write,
    write_board,
)


@pytest.mark.parametrize("seed", range(40))
def test_a_clean_folder_gives_no_finding(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = rows_of(
        seed,
        n=draw.choice([20, 60, 100, 252]),
        win=draw.choice([0.02, 0.1, 0.3, 0.5, 0.8, 0.97]),
        annotator=draw.choice([CHATGPT, WEIGHTED]),
        words=draw.choice([8, 30, 60]),
        slope=draw.choice([0, 0, 0.2]),
        place=draw.choice([0, 0, 0.05]),
    )
    result = only_result(write(tmp_path, rows, outputs=draw.random() < 0.8))
    assert [(f.kind, f.message) for f in result.findings] == []
    assert result.matches is True


@pytest.mark.parametrize("annotator", [CHATGPT, WEIGHTED])
def test_every_figure_of_a_leaderboard_is_recomputed(tmp_path: Path, annotator: str) -> None:
    result = only_result(write(tmp_path, rows_of(annotator=annotator)))
    assert set(result.digits) == {
        "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_judged",
        "discrete_win_rate", "avg_length",
    }  # fmt: skip
    assert min(result.digits.values()) >= 9
    assert result.metrics["n_expected"] == 200


@pytest.mark.parametrize(
    ("figure", "wrong"),
    [
        ("win_rate", 31.7),
        ("standard_error", 9.0),
        ("n_total", 204),
        ("n_wins", 3),
        ("avg_length", 1),
    ],
)
def test_a_leaderboard_that_does_not_follow_is_told(
    tmp_path: Path, figure: str, wrong: float
) -> None:
    result = only_result(write(tmp_path, rows_of(), board={figure: wrong}))
    assert result.matches is False
    assert kinds(result) == ["count_mismatch"]
    name = {"n_total": "n_judged"}.get(figure, figure)
    figures = [f.evidence["figures"].get(name) for f in result.findings if "figures" in f.evidence]
    assert {"published": wrong, "recomputed": result.metrics[name]} in figures


def test_a_figure_that_is_rounded_matches_to_its_decimals(tmp_path: Path) -> None:
    rows = rows_of(seed=3, n=213)
    exact = only_result(write(tmp_path / "a", rows)).metrics["win_rate"]
    rounded = only_result(write(tmp_path / "b", rows, board={"win_rate": round(exact, 2)}))
    assert (rounded.matches, rounded.findings) == (True, [])
    assert 2 <= rounded.digits["win_rate"] < 8
    off = only_result(write(tmp_path / "c", rows, board={"win_rate": round(exact, 2) + 0.01}))
    assert off.matches is False


def drop(rows: list[dict[str, object]], longest: int, draw: random.Random | None = None) -> None:
    order = sorted(range(len(rows)), key=lambda n: -len(str(rows[n]["output_2"])))
    if draw is not None:
        draw.shuffle(order)
    for n in order[:longest]:
        rows[n] |= {"preference": None, "raw_completion": None}


def test_dropped_rows_are_counted_bounded_and_compared_in_length(tmp_path: Path) -> None:
    result = only_result(write(tmp_path, rows_of(n=400), lambda rows: drop(rows, 40)))
    finding = finding_of(result, "dropped_rows")
    assert all(len(e["instruction"]) <= 100 for e in finding.evidence["examples"])
    assert (
        min(e["characters"] for e in finding.evidence["examples"])
        > finding.evidence["median_length_judged"]
    )
    m = result.metrics
    assert (m["n_judged"], m["n_expected"], finding.severity) == (360, 400, "error")
    assert m["lower_bound"] == pytest.approx(100 * m["n_wins"] / 400)
    assert m["upper_bound"] == pytest.approx(100 * (m["n_wins"] + 40) / 400)
    assert finding.evidence["longer_p_value"] < 1e-6
    assert "longer" in finding.message
    assert kinds(result) == ["dropped_rows"]
    assert result.matches is True


def test_rows_dropped_by_chance_are_not_called_longer(tmp_path: Path) -> None:
    rows = rows_of(n=400)
    result = only_result(write(tmp_path, rows, lambda r: drop(r, 40, random.Random(1))))
    finding = finding_of(result, "dropped_rows")
    assert finding.evidence["longer_p_value"] > 0.001
    assert "longer" not in finding.message
    assert "shorter" not in finding.message


def test_rows_that_annotations_lack_are_missed_by_the_outputs(tmp_path: Path) -> None:
    rows = rows_of(n=300)
    result = only_result(write(tmp_path, rows, lambda r: r[:250], stored=rows))
    finding = finding_of(result, "dropped_rows")
    assert (finding.evidence["judged"], finding.evidence["expected"]) == (250, 300)


def test_a_reference_says_how_many_prompts_there_are(tmp_path: Path) -> None:
    rows = rows_of(n=120)
    folder = write(tmp_path / "run", rows, lambda r: r[:100], outputs=False)
    assert only_result(folder).findings == []
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"instruction": r["instruction"]}) + "\n" for r in rows))
    assert finding_of(only_result(folder, prompts), "dropped_rows").evidence["expected"] == 120
    prompts.write_text(
        "".join(json.dumps({"instruction": f"other {k}"}) + "\n" for k in range(150))
    )
    assert only_result(folder, prompts).findings == []


def test_a_subset_of_alpaca_evals_prompts_is_no_fault_but_most_of_them_is(tmp_path: Path) -> None:
    subset = write(tmp_path / "a", rows_of(n=400), outputs=False)
    assert only_result(subset).metrics["n_expected"] == 400
    most = write(tmp_path / "b", rows_of(n=713), outputs=False)
    assert finding_of(only_result(most), "dropped_rows").evidence["expected"] == 805


@pytest.mark.parametrize("annotator", [CHATGPT, WEIGHTED])
def test_a_judge_that_favours_a_place_is_found(tmp_path: Path, annotator: str) -> None:
    result = only_result(write(tmp_path, rows_of(n=400, annotator=annotator, place=1.0)))
    finding = finding_of(result, "position_bias")
    assert finding.evidence["difference"] > 20
    assert finding.evidence["p_value"] < 0.001
    assert kinds(result) == ["position_bias"]


def test_the_order_is_read_from_the_replies_where_it_was_drawn_in_another_way(
    tmp_path: Path,
) -> None:
    def redraw(rows: list[dict[str, object]]) -> None:
        draw = random.Random(5)
        for row in rows:
            first = draw.random() < 0.5
            won = draw.random() < (0.6 if first else 0.1)
            row["preference"] = 2.0 if won else 1.0
            row["raw_completion"] = "Output (a)" if won == first else "Output (b)"

    result = only_result(write(tmp_path, rows_of(n=400), redraw))
    assert kinds(result) == ["position_bias"]
    evidence = finding_of(result, "position_bias").evidence
    assert evidence["order_from"] == "the replies"
    assert evidence["shown_first"]["win_rate"] == pytest.approx(60, abs=8)
    assert evidence["shown_second"]["win_rate"] == pytest.approx(10, abs=8)


@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize("place", [0.0, 1.2])
def test_an_annotator_that_nobody_knows_is_read_like_those_that_it_resembles(
    tmp_path: Path, replies: bool, place: float
) -> None:
    def rename(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row["annotator"] = "our_own_judge"
            if not replies:
                del row["raw_completion"]

    result = only_result(write(tmp_path, rows_of(n=400, place=place), rename))
    assert kinds(result) == (["position_bias"] if place else [])


def test_replies_that_follow_no_known_form_are_not_called_unread(tmp_path: Path) -> None:
    def free(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row |= {"annotator": "our_own_judge", "raw_completion": f"I choose {row['preference']}"}

    assert only_result(write(tmp_path, rows_of(), free)).findings == []


def begin(words: str, share: float):  # type: ignore[no-untyped-def]
    def change(rows: list[dict[str, object]]) -> None:
        for row in rows[: int(share * len(rows))]:
            row["output_2"] = f"{words}{row['output_2']}"

    return change


@pytest.mark.parametrize(
    ("words", "share", "severity"),
    [
        ("assistant\n", 1.0, "error"),
        ("### Assistant: ", 0.1, "warning"),
        ("<|im_start|>user\n", 0.05, "warning"),
        ("### Response:\n", 1.0, "error"),
        ("model\n", 0.1, "warning"),
        ("GPT4 Correct Assistant: ", 0.1, "warning"),
        ("助手：", 0.1, "warning"),
        ("回答：", 0.1, "warning"),
        ("<start_of_turn>model\n", 0.1, "warning"),
    ],
)
def test_outputs_that_begin_with_a_role_are_found(
    tmp_path: Path, words: str, share: float, severity: str
) -> None:
    result = only_result(write(tmp_path, rows_of(), begin(words, share)))
    assert kinds(result) == ["prompt_mismatch"]
    finding = finding_of(result, "prompt_mismatch")
    assert (finding.evidence["role_word"], finding.severity) == (200 * share, severity)


def test_invented_turns_are_found(tmp_path: Path) -> None:
    def turns(rows: list[dict[str, object]]) -> None:
        for row in rows[:30]:
            row["output_2"] = f"{row['output_2']}\nHuman: And then?\n\nAssistant: No."

    finding = finding_of(only_result(write(tmp_path, rows_of(), turns)), "prompt_mismatch")
    assert finding.evidence["extra_turns"] == 30


@pytest.mark.parametrize(
    "end",
    ["<end_of_turn>\n<start_of_turn>user", "\nQ: And then?\nA: No.", "\n用户：好吗？\n助手：好。",
     "\nGPT4 Correct User: And then?"],
)  # fmt: skip
def test_turns_of_other_layouts_and_languages_are_found(tmp_path: Path, end: str) -> None:
    def turns(rows: list[dict[str, object]]) -> None:
        for row in rows[:30]:
            row["output_2"] = f"{row['output_2']}{end}"

    finding = finding_of(only_result(write(tmp_path, rows_of(), turns)), "prompt_mismatch")
    assert finding.evidence["extra_turns"] == 30
    assert finding.evidence["win_rate_of_others"] is not None


def test_questions_and_answers_that_were_asked_for_are_left_alone(tmp_path: Path) -> None:
    def ask_for_questions(rows: list[dict[str, object]]) -> None:
        for row in rows[:30]:
            row |= {"instruction": f"{row['instruction']} Write an FAQ.", "raw_completion": None}
            row["output_2"] = f"{row['output_2']}\nQ: And then?\nA: No."

    assert only_result(write(tmp_path, rows_of(), ask_for_questions, outputs=False)).findings == []


@pytest.mark.parametrize(
    "words",
    ["Human rights matter. ", "The assistant said no. ", "System design: ", "Model\n", "### Answer: ",
     "Response: ", "用户很多。", "Model: T-34. "],
)  # fmt: skip
def test_words_that_only_look_like_roles_are_left_alone(tmp_path: Path, words: str) -> None:
    assert only_result(write(tmp_path, rows_of(), begin(words, 1.0))).findings == []


def test_dialogues_that_were_asked_for_are_left_alone(tmp_path: Path) -> None:
    def put_dialogue(rows: list[dict[str, object]]) -> None:
        for row in rows[:40]:
            row["output_1"] = f"User: hello\nAssistant: {row['output_1']}"
            row["output_2"] = f"User: hello\nAssistant: {row['output_2']}"

    assert only_result(write(tmp_path, rows_of(), put_dialogue)).findings == []


def test_empty_outputs_are_found_with_what_they_scored(tmp_path: Path) -> None:
    def empty(rows: list[dict[str, object]]) -> None:
        for row in rows[:12]:
            row["output_2"] = " \n"

    result = only_result(write(tmp_path, rows_of(), empty))
    finding = finding_of(result, "empty_or_truncated")
    assert finding.evidence["empty"] == 12
    assert finding.evidence["judged_of_these"] == 12
    assert kinds(result) == ["empty_or_truncated"]


def test_one_empty_output_is_no_fault(tmp_path: Path) -> None:
    def empty(rows: list[dict[str, object]]) -> None:
        rows[7]["output_2"] = ""

    assert only_result(write(tmp_path, rows_of(), empty)).findings == []


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_outputs_cut_at_a_length_are_found(tmp_path: Path, unit: str) -> None:
    def cut(rows: list[dict[str, object]]) -> None:
        for row in rows:
            output = str(row["output_2"])
            row["output_2"] = (
                output[:500] if unit == "characters" else " ".join(output.split()[:80])
            )

    rows = rows_of()
    finding = finding_of(only_result(write(tmp_path, rows, cut)), "empty_or_truncated")
    longer = sum(
        len(r["output_2"]) >= 500 if unit == "characters" else len(r["output_2"].split()) >= 80
        for r in rows
    )
    assert finding.evidence["truncated"] == longer > 20
    assert f"exactly {'500 characters' if unit == 'characters' else '80 words'}" in finding.message


def test_outputs_cut_at_a_number_of_tokens_are_found_by_how_the_longest_end(tmp_path: Path) -> None:
    def cut(rows: list[dict[str, object]]) -> None:
        for number, row in enumerate(rows):
            output = str(row["output_2"])
            if len(output) > 700:
                # A token is more or fewer characters.
                row["output_2"] = output[: 640 + number * 7 % 60].rstrip(". ")

    result = only_result(write(tmp_path, rows_of(n=400), cut))
    assert "in the middle" in finding_of(result, "empty_or_truncated").message


def test_loops_are_found(tmp_path: Path) -> None:
    def loop(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row["output_2"] = "So it goes on and on and never ends. " * 9

    finding = finding_of(only_result(write(tmp_path, rows_of(), loop)), "empty_or_truncated")
    assert finding.evidence["loops"] == 20


def test_answers_of_one_form_and_length_are_not_cut(tmp_path: Path) -> None:
    form = "The answer to the question that was asked, after all is said and done, is number {}"
    outputs = [form.format(1000 + k * 7919 % 9000) for k in range(200)]
    assert only_result(write(tmp_path, rows_of(outputs=outputs))).findings == []


@pytest.mark.parametrize("other", [0, 5])
def test_one_constant_output_is_told_and_is_no_limit(tmp_path: Path, other: int) -> None:
    outputs = [text(random.Random(0), 140)] * (200 - other)
    outputs += [f"Something else, {n}." for n in range(other)]
    finding = finding_of(
        only_result(write(tmp_path, rows_of(outputs=outputs))), "empty_or_truncated"
    )
    assert (finding.severity, finding.evidence["same_text"]) == ("warning", 200 - other)
    assert finding.evidence["truncated"] == 0


def test_an_output_that_many_prompts_share_is_no_constant(tmp_path: Path) -> None:
    shared_output = text(random.Random(0), 40)
    outputs = [shared_output if n % 2 else text(random.Random(n), 40) for n in range(200)]
    assert only_result(write(tmp_path, rows_of(outputs=outputs))).findings == []


@pytest.mark.parametrize("words", ["N/A", "None", "...", "\u200b", "<no output>", " [null] "])
def test_outputs_that_stand_for_no_answer_are_empty_in_substance(
    tmp_path: Path, words: str
) -> None:
    def put(rows: list[dict[str, object]]) -> None:
        for row in rows[:10]:
            row["output_2"] = words

    finding = finding_of(only_result(write(tmp_path, rows_of(), put)), "empty_or_truncated")
    assert (finding.evidence["placeholders"], finding.evidence["empty"]) == (10, 0)


@pytest.mark.parametrize("words", ["5", "Yes.", "No", "!?", "\u5b8c", "Nothing"])
def test_short_answers_are_answers(tmp_path: Path, words: str) -> None:
    def put(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row["output_2"] = words

    assert only_result(write(tmp_path, rows_of(), put)).findings == []


def test_a_placeholder_that_was_asked_for_is_an_answer(tmp_path: Path) -> None:
    def ask_for_none(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row |= {"instruction": f"{row['instruction']} Say None if there is none.",
                    "output_2": "None", "raw_completion": None}  # fmt: skip

    assert only_result(write(tmp_path, rows_of(), ask_for_none, outputs=False)).findings == []


FAR = 99.9


@pytest.mark.parametrize("cell", ["99.9%", "99.9 %", "99,9", "99,9 %", "9.99e1"])
def test_a_published_number_is_read_however_it_is_written(tmp_path: Path, cell: str) -> None:
    result = only_result(write(tmp_path, rows_of(), board={"win_rate": cell}))
    assert (result.published["win_rate"], result.matches) == (pytest.approx(FAR), False)
    assert "count_mismatch" in kinds(result)


def test_decimal_commas_and_thousands_that_are_right_match(tmp_path: Path) -> None:
    rows = rows_of(seed=3, n=213, words=1200)
    m = only_result(write(tmp_path / "a", rows)).metrics
    board = {
        "win_rate": f"{m['win_rate']:.2f}".replace(".", ",") + "%",
        "avg_length": f"{m['avg_length']:,}",
    }
    assert "," in board["avg_length"]
    result = only_result(write(tmp_path / "b", rows, board=board))
    assert result.matches is True
    assert result.published["avg_length"] == m["avg_length"]
    assert "count_mismatch" not in kinds(result)


@pytest.mark.parametrize(
    ("cell", "accused"),
    [("NaN", True), ("inf", True), ("about 30", True), ("1,234", True), ("30.5.1", True),
     ("n/a", False), ("-", False)],
)  # fmt: skip
def test_a_published_number_that_cannot_be_read_never_matches(
    tmp_path: Path, cell: str, accused: bool
) -> None:
    result = only_result(write(tmp_path, rows_of(), board={"win_rate": cell}))
    assert result.matches is None
    assert kinds(result) == (["count_mismatch"] if accused else [])
    assert any("win_rate" in note and cell in note for note in result.notes)
    terminal = io.StringIO()
    show_audits(Console(file=terminal, width=200), [result])
    assert ": matches" not in terminal.getvalue()
    write_board(tmp_path / "leaderboard.csv", {"model": {"win_rate": cell, "n_total": 3}})
    (tmp_path / "annotations.json").unlink()
    assert only_result(tmp_path).matches is None


def test_a_number_that_cannot_be_read_leaves_another_that_is_wrong_told(tmp_path: Path) -> None:
    result = only_result(write(tmp_path, rows_of(), board={"win_rate": "high", "n_total": 7}))
    assert result.matches is False


def test_an_empty_cell_is_no_published_number(tmp_path: Path) -> None:
    result = only_result(write(tmp_path, rows_of(), board={"win_rate": ""}))
    assert (result.matches, result.findings, result.notes) == (True, [], [])


@pytest.mark.parametrize("outputs", [True, False])
def test_prompts_judged_twice_with_opposite_verdicts_are_told(
    tmp_path: Path, outputs: bool
) -> None:
    def again(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        for row in rows:
            row["raw_completion"] = None
        return rows + [r | {"preference": 3 - float(str(r["preference"]))} for r in rows[:40]]

    result = only_result(write(tmp_path, rows_of(), again, outputs=outputs))
    finding = finding_of(result, "count_mismatch")
    assert (finding.severity, finding.evidence["judged_twice"], finding.evidence["disagree"]) == (
        "error", 40, 40,
    )  # fmt: skip
    rows = rows_of()
    shares = [0.5] * 40 + [r["preference"] - 1 for r in rows[40:]]
    assert finding.evidence["win_rate_each_once"] == pytest.approx(100 * sum(shares) / 200)
    assert (finding.evidence["judgements"], finding.evidence["prompts"]) == (240, 200)


def test_a_prompt_that_a_set_has_twice_with_two_outputs_is_judged_twice_rightly(
    tmp_path: Path,
) -> None:
    more = rows_of(1)[:40]
    assert only_result(write(tmp_path, rows_of() + more)).findings == []
    assert only_result(write(tmp_path, rows_of() + more, outputs=False)).findings == []


def test_a_prompt_whose_judgement_failed_and_was_made_again_is_judged_once(
    tmp_path: Path,
) -> None:
    def again(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return rows + [r | {"preference": None, "raw_completion": None} for r in rows[:2]]

    result = only_result(write(tmp_path, rows_of(), again, outputs=False))
    assert "count_mismatch" not in kinds(result)


def stored_as(value: float, replies: int):  # type: ignore[no-untyped-def]
    def change(rows: list[dict[str, object]]) -> None:
        for row in rows[:replies]:
            row |= {"preference": value, "raw_completion": "I cannot tell."}

    return change


@pytest.mark.parametrize("value", [-1.0, 1.0, 1.5, 3.0])
def test_replies_that_do_not_parse_and_are_scored_are_found(tmp_path: Path, value: float) -> None:
    result = only_result(write(tmp_path, rows_of(), stored_as(value, 20)))
    finding = finding_of(result, "unparsed_scored")
    assert finding.evidence["rows"] == 20
    rest = [r["preference"] - 1 for r in rows_of()[20:]]
    assert finding.evidence["win_rate_without"] == pytest.approx(100 * sum(rest) / 180)
    with_them = (sum(rest) + 20 * (value - 1)) / 200
    assert finding.evidence["win_rate_with"] == pytest.approx(100 * with_them)
    assert "count_mismatch" not in kinds(result)


@pytest.mark.parametrize(
    ("value", "told"),
    [(1e308, "1e+308"), (math.inf, "inf"), (-math.inf, "-inf"), (10**400, "inf"), (1e7, "1e+07")],
)
def test_a_stored_number_with_which_no_mean_can_be_made_is_told_in_one_sentence(
    tmp_path: Path, value: float, told: str
) -> None:
    def change(rows: list[dict[str, object]], count: int) -> None:
        for row in rows[:count]:
            row["preference"] = value

    for count, said in (
        (1, "1 reply that holds no judgement is stored as a number"),
        (2, "2 replies that hold no judgement are stored as numbers"),
    ):
        folder = write(tmp_path / str(count), rows_of(), lambda rows, n=count: change(rows, n))
        result = only_result(folder)
        rest = [r["preference"] - 1 for r in rows_of()[count:]]
        rate = 100 * sum(rest) / len(rest)
        finding = finding_of(result, "unparsed_scored")
        assert finding.message == (
            f"{said} ({told}): no mean can be made of that; over the others the win rate is {rate:.2f}"
        )
        assert result.metrics["win_rate"] == pytest.approx(rate)
        json.dumps(result.to_dict(), allow_nan=False)


def test_a_published_mean_over_unread_replies_is_told(tmp_path: Path) -> None:
    rows = rows_of()
    wrong = 100 * (sum(r["preference"] - 1 for r in rows[20:]) - 2 * 20) / 200
    result = only_result(write(tmp_path, rows, stored_as(-1.0, 20), board={"win_rate": wrong}))
    assert "the published" in finding_of(result, "unparsed_scored").message
    assert result.matches is False


def test_draws_that_old_files_write_as_zero_are_no_fault(tmp_path: Path) -> None:
    def same(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row |= {"output_2": row["output_1"], "preference": 0, "raw_completion": None}

    result = only_result(write(tmp_path, rows_of(), same))
    assert (result.findings, result.metrics["n_draws"]) == ([], 20)


def test_zeros_that_nothing_was_said_for_are_a_fault(tmp_path: Path) -> None:
    def zero(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row |= {"preference": 0, "raw_completion": None}

    finding = finding_of(only_result(write(tmp_path, rows_of(), zero)), "unparsed_scored")
    assert finding.evidence["rows"] == 20


def test_preferences_that_are_not_what_the_judge_said_are_found(tmp_path: Path) -> None:
    def swap(rows: list[dict[str, object]]) -> None:
        for row in rows[:30]:
            row["preference"] = 3 - float(str(row["preference"]))

    finding = finding_of(only_result(write(tmp_path, rows_of(), swap)), "count_mismatch")
    assert finding.evidence["rows"] == 30
    right = rows_of()
    assert finding.evidence["win_rate_from_replies"] == pytest.approx(
        100 * sum(r["preference"] - 1 for r in right) / 200
    )


def test_probabilities_cut_to_whole_numbers_are_found(tmp_path: Path) -> None:
    def cut(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row["preference"] = float(int(float(str(row["preference"]))))

    result = only_result(write(tmp_path, rows_of(annotator=WEIGHTED), cut))
    finding = finding_of(result, "truncated_scores")
    assert finding.evidence["rows"] == 200
    assert finding.evidence["win_rate_stored"] == pytest.approx(0)
    assert "count_mismatch" not in kinds(result)


@pytest.mark.parametrize("slope", [-4.0, 4.0])
def test_a_judge_that_goes_by_length_is_found(tmp_path: Path, slope: float) -> None:
    result = only_result(write(tmp_path, rows_of(n=400, win=0.5, slope=slope)))
    finding = finding_of(result, "length_bias")
    assert math.copysign(1, finding.evidence["slope"]) == math.copysign(1, slope)
    assert kinds(result) == ["length_bias"]


def test_a_length_controlled_rate_far_from_the_raw_one_is_found(tmp_path: Path) -> None:
    rows = rows_of(n=400)
    raw = only_result(write(tmp_path / "a", rows)).metrics["win_rate"]
    near = only_result(write(tmp_path / "b", rows, board={"length_controlled_winrate": raw + 4.9}))
    far = only_result(write(tmp_path / "c", rows, board={"length_controlled_winrate": raw + 5.1}))
    assert (near.findings, kinds(far)) == ([], ["length_bias"])


def test_outputs_that_are_not_those_that_were_judged_are_told(tmp_path: Path) -> None:
    rows = rows_of()
    other = [r | {"output_2": "Something else."} for r in rows[:5]] + rows[5:]
    finding = finding_of(only_result(write(tmp_path, rows, stored=other)), "count_mismatch")
    assert finding.evidence["other_outputs"] == 5


def test_prompts_judged_twice_are_told(tmp_path: Path) -> None:
    rows = rows_of()
    result = only_result(
        write(tmp_path, rows, lambda r: r + [dict(row) for row in r[:3]], stored=rows)
    )
    assert finding_of(result, "count_mismatch").evidence["judged_twice"] == 3


def test_the_layout_of_alpaca_evals_results_is_read(tmp_path: Path) -> None:
    """results/MODEL/ANNOTATOR/annotations.json, outputs above, a leaderboard for each annotator."""
    lines = {}
    for name in ("one", "two"):
        rows = rows_of(model=name, annotator=WEIGHTED)
        folder = write(tmp_path / "results" / name / WEIGHTED, rows)
        shutil.move(folder / "model_outputs.json", folder.parent)
        (folder / "leaderboard.csv").unlink()
        lines[name] = only_result(folder).metrics
    boards = tmp_path / "leaderboards"
    boards.mkdir()
    figures = {n: {"win_rate": m["win_rate"], "n_total": m["n_judged"]} for n, m in lines.items()}
    write_board(boards / f"{WEIGHTED}_leaderboard.csv", figures)
    results = audit(tmp_path)
    assert [r.path for r in results] == [str(tmp_path / "results" / n / WEIGHTED) for n in lines]
    assert [(r.matches, r.findings) for r in results] == [(True, []), (True, [])]
    assert results[0].published["win_rate"] == lines["one"]["win_rate"]


def test_a_run_folder_with_its_leaderboard_below_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "run" / "model" / "chatgpt", rows_of())
    shutil.move(folder / "model_outputs.json", tmp_path / "run")
    result = only_result(tmp_path)
    assert (result.matches, result.findings) == (True, [])
    assert result.path == str(folder)


def test_a_leaderboard_of_several_models_gives_each_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    mine = only_result(folder).published
    figures = {"n_total" if n == "n_judged" else n: v for n, v in mine.items()}
    other = {"win_rate": 50.0, "n_wins": 50, "n_wins_base": 50, "n_draws": 0, "n_total": 100}
    write_board(folder / "leaderboard.csv", {"other": other, "model": figures})
    results = {r.path: r for r in audit(folder)}
    assert results[str(folder)].matches is True
    assert results[f"{folder}#other"].metrics["win_rate"] == 50.0


def test_a_leaderboard_alone_is_held_against_its_own_counts(tmp_path: Path) -> None:
    right = {
        "win_rate": 25.0, "standard_error": 4.351941398892446, "n_wins": 25, "n_wins_base": 75,
        "n_draws": 0, "n_total": 100, "discrete_win_rate": 25.0,
    }  # fmt: skip
    write_board(tmp_path / "leaderboard.csv", {"model": right})
    result = only_result(tmp_path)
    assert (result.matches, result.findings, result.metrics["n_expected"]) == (True, [], 100)
    for name, wrong in (("n_total", 120), ("win_rate", 63.0), ("discrete_win_rate", 27.0)):
        write_board(tmp_path / "leaderboard.csv", {"model": right | {name: wrong}})
        assert kinds(only_result(tmp_path)) == ["count_mismatch"], name


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("| model | win rate |\n|---|---|\n| model | {rate:.1f} |", False),
        ("| model | win rate |\n|---|---|\n| model | 41.2 |", True),
        (
            "| run | Win Rate (%) | n_total |\n|---|---|---|\n| [it](run) | {rate:.2f}% | 805 |",
            True,
        ),
        ("| model | LC win rate |\n|---|---|\n| model | 41.2 |", False),
        ("| model | win rate |\n|---|---|\n| another | 41.2 |", False),
    ],
)
def test_a_readmes_table_is_held_against_the_judgements(
    tmp_path: Path, table: str, wrong: bool
) -> None:
    folder = write(tmp_path / "run", rows_of())
    rate = only_result(folder).metrics["win_rate"]
    (tmp_path / "README.md").write_text(table.format(rate=rate))
    assert kinds(only_result(tmp_path)) == (["count_mismatch"] if wrong else [])


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b"[1, 2]", b"\xff\xfe\x00", b'{"a": 1}', b"[" * 100_000],
)
def test_a_damaged_file_beside_a_readable_one_is_told_and_passed_by(
    tmp_path: Path, damage: bytes
) -> None:
    folder = write(tmp_path, rows_of(n=30))
    for name in ("annotations.json", "model_outputs.json"):
        intact = (folder / name).read_bytes()
        (folder / name).write_bytes(damage)
        assert audit(folder)
        (folder / name).write_bytes(intact)
    (folder / "leaderboard.csv").write_bytes(damage)
    assert audit(folder)[0].published == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"preference": "2"}, {"preference": math.nan}, {"preference": 10**400}, {"preference": True},
        {"output_2": None}, {"output_2": 7}, {"instruction": None}, {"annotator": ["x"]},
        {"instruction": "\ud800"}, {"output_2": "\ud800" * 99},
        {"raw_completion": 12}, {"raw_completion": [[]]}, {"raw_completion": {"logprobs": None}},
        {"generator_2": {}}, {"time_per_example": "long"}, {"dataset": []},
    ],
)  # fmt: skip
@pytest.mark.parametrize("annotator", [CHATGPT, WEIGHTED])
def test_values_of_any_type_end_in_a_result(
    tmp_path: Path, odd: dict[str, object], annotator: str
) -> None:
    folder = write(tmp_path, rows_of(n=30, annotator=annotator))
    rows = json.loads((folder / "annotations.json").read_text())
    rows[3] |= odd
    (folder / "annotations.json").write_text(json.dumps(rows))
    for result in audit(folder):
        json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff"])
def test_a_published_number_whose_annotations_cannot_be_read_cannot_be_known(
    tmp_path: Path, damage: bytes
) -> None:
    folder = write(tmp_path, rows_of(n=30))
    (folder / "annotations.json").write_bytes(damage)
    finding = finding_of(only_result(folder), "count_mismatch")
    assert finding.severity == "error"
    assert "cannot be known" in finding.message


def test_nothing_readable_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="nothing that could be audited") as caught:
        audit_paths([tmp_path])
    assert "annotations.json" in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        audit_paths([tmp_path / "none"])


@pytest.mark.parametrize("name", ["\0", "a\0b", "\ud800", "x" * 5000, ".."])
def test_a_models_name_that_is_no_name_of_a_file_ends_in_a_result(
    tmp_path: Path, name: str
) -> None:
    folder = write(tmp_path, rows_of(n=20), outputs=False)
    (folder / "leaderboard.csv").unlink()
    rows = [r | ({"generator_2": name} if n < 10 else {}) for n, r in enumerate(rows_of(n=20))]
    (folder / "annotations.json").write_text(json.dumps(rows))
    results = audit(folder)
    assert sum(r.metrics["n_judged"] for r in results) == 20
    assert not any("n_total" in r.metrics for r in results)  # n_judged, under another name


def test_a_result_that_fails_unforeseen_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(result: Result, rows: object, order: str) -> None:
        if result.path.endswith("b"):
            raise KeyError("unforeseen")

    for name in "abc":
        write(tmp_path / name, rows_of(ord(name)))
    monkeypatch.setattr("harness.audit.readers.alpaca_eval.check_position", fail)
    results = audit(tmp_path)
    assert [(r.kind, r.matches) for r in results] == [
        ("alpaca_eval", True), ("alpaca_eval", None), ("alpaca_eval", True),
    ]  # fmt: skip
    assert results[1].path == str(tmp_path / "b")
    assert "could not be read: KeyError" in results[1].notes[0]
    assert not results[1].metrics


def test_a_reader_that_fails_unforeseen_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object) -> list[Result]:
        raise TypeError("unforeseen")

    write(tmp_path, rows_of())
    readers = tuple(
        dataclasses.replace(reader, find=fail) if reader.name == "rubrics" else reader
        for reader in harness.audit.READERS
    )
    monkeypatch.setattr(harness.audit, "READERS", readers)
    monkeypatch.setattr(harness.audit, "ACROSS", (fail,))
    result = only_result(tmp_path)
    assert result.matches is True
    assert any("could not be read as rubrics: TypeError" in note for note in result.notes)
    assert any("could not be held against each other" in note for note in result.notes)


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write(outside, rows_of(n=30))
    write(inside / "run", rows_of(n=30, model="other"))
    (inside / "linked").symlink_to(outside)
    (inside / "annotations.json").symlink_to(outside / "annotations.json")
    (inside / "loop").symlink_to(inside)
    (result,) = audit(inside)
    assert result.path == str(inside / "run")
    assert sum("link" in note for note in result.notes) == 3


def test_a_path_given_twice_is_one_result(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows_of(n=60))
    assert [r.findings for r in audit(folder, tmp_path, folder / ".." / "run")] == [[]]


@pytest.mark.parametrize("empty", [1, 2, 30])
def test_an_average_length_without_the_empty_outputs_is_a_remark(
    tmp_path: Path, empty: int
) -> None:
    rows = rows_of()
    for row in rows[:empty]:
        row["output_2"] = ""
    lengths = [len(row["output_2"]) for row in rows]
    without = int(sum(lengths) / (len(rows) - empty))
    result = only_result(write(tmp_path, rows, board={"avg_length": without}))
    assert result.matches is True
    assert not any("avg_length" in f.message for f in result.findings)
    assert any(f"{empty} of them empty" in note for note in result.notes)
    assert result.metrics["avg_length"] == int(sum(lengths) / len(rows))


def test_an_average_length_that_an_output_or_two_explain_is_a_remark(tmp_path: Path) -> None:
    rows = rows_of(n=400)
    lengths = sorted(len(row["output_2"]) for row in rows)
    for left_out in (1, 2):
        mean_length = int(sum(lengths[:-left_out]) / (len(rows) - left_out))
        result = only_result(write(tmp_path, rows, board={"avg_length": mean_length}))
        assert (result.matches, result.findings) == (True, [])
    far = int(sum(lengths[:-9]) / (len(rows) - 9))
    result = only_result(write(tmp_path, rows, board={"avg_length": far}))
    assert (result.matches, kinds(result)) == (False, ["count_mismatch"])


@pytest.mark.parametrize("places", [1, 200])
def test_outputs_that_were_stripped_before_they_were_judged_are_the_stored_ones(
    tmp_path: Path, places: int
) -> None:
    rows = rows_of()
    stored = [{**r, "output_2": f"\n{r['output_2']} \n"} for r in rows[:places]] + rows[places:]
    assert only_result(write(tmp_path, rows, stored=stored)).findings == []
    # What differs otherwise is another output.
    stored[0] = {**rows[0], "output_2": rows[0]["output_2"] + " More."}
    assert kinds(only_result(write(tmp_path, rows, stored=stored))) == ["count_mismatch"]


def test_preferences_that_were_turned_to_the_model_are_no_other_order(tmp_path: Path) -> None:
    rows = rows_of(n=60)
    lost = [n for n, row in enumerate(rows) if row["preference"] == 1][:20]
    for n in lost:
        rows[n] = rows[n] | {"preference": 2}
    result = only_result(write(tmp_path, rows))
    assert f"{len(lost)} stored preferences are not" in finding_of(result, "count_mismatch").message
    assert not any("the order" in note for note in result.notes)
    # Where the model has won all, another order says the same.
    result = only_result(write(tmp_path, [row | {"preference": 2} for row in rows]))
    assert any("either the outputs were shown in another order" in note for note in result.notes)
