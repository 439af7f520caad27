"""A row's outputs at the terminal: what is shown, in which order, and what no text can do."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.cli.views import outputs as outputs_view
from harness.cli.views.outputs import show_outputs
from harness.common.escape import visible
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.results.outputs import OutputOptions, read_outputs, select
from tests.helpers import command, make, planned
from tests.results.judged_rows import Written, annotations, answers, judged_row

LOST, DRAW, WON = 1.0, 1.5, 2.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(folder: Path, spec: Path) -> Any:
    (plan,) = planned(folder / "runs", spec)
    return plan


def at_terminal(plan: Any, width: int, height: int = 10_000, **wishes: Any) -> str:
    """What a terminal without colours shows."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None,
        emoji=False,
    )  # fmt: skip
    show_outputs(console, plan, OutputOptions(**wishes), False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def order(plan: Any, **wishes: Any) -> list[int]:
    return [p.index for p in select(read_outputs(plan, "").prompts, OutputOptions(**wishes))]


def test_everything_about_a_prompt_is_shown(place: Path) -> None:
    output = {
        "instruction": "Name a river.", "input": "In France.", "output": "The Loire.",
        "generator": "tiny", "dataset": "koala", "finish_reason": "stop", "tokens": 1,
        "prompt_tokens": 9, "flags": ["role_word"],
    }  # fmt: skip
    judged = {
        "instruction": "Name a river.", "input": "In France.", "output_1": "The Rhine.",
        "generator_1": "gpt", "preference": 2.0, "raw_completion": "Output (a) is right.",
        "is_switched": True,
    }  # fmt: skip
    judged_row(place, [output], [judged])
    shown = command("show", "one", "--outputs").output
    for part in (
        "prompt 0  koala  won (shown first)  stop  1 token after 9  flags: role_word",
        "Name a river.", "In France.", "answer of tiny", "The Loire.", "baseline gpt", "The Rhine.",
        "Output (a) is right.", "1 of 1 shown",
    ):  # fmt: skip
        assert part in shown


def test_outputs_stand_side_by_side_where_there_is_room(place: Path) -> None:
    judged = [{"instruction": "prompt 0", "preference": 1, "output_1": "the baseline's"}]
    plan = plan_of(place, judged_row(place, answers(1), judged))
    (line,) = [li for li in at_terminal(plan, 100).splitlines() if "answer 0" in li]
    assert line.index("the baseline's") > 50
    lines = [li.strip() for li in at_terminal(plan, 99).splitlines()]
    assert lines.index("the baseline's") > lines.index("answer 0")


def test_what_is_piped_has_no_colours_and_with_full_each_text_whole(place: Path) -> None:
    words = " ".join(f"word{n}" for n in range(3000))
    lines = "\n".join(f"line {n}" for n in range(300))
    judged_row(place, [{"instruction": words, "output": lines}])
    shown = command("show", "one", "--outputs", "--full").output
    assert words in shown
    assert "  line 299\n" in shown
    assert "\x1b" not in shown
    assert "more lines" not in shown
    cut = command("show", "one", "--outputs").output
    assert "\x1b" not in cut
    assert "  line 14\n  [285 more lines; --full]\n" in cut
    assert "line 15" not in cut
    # One long line counts as what it would be at a terminal.
    assert len(cut.splitlines()) < 50
    assert cut.count("more lines; --full]") == 2


def test_a_long_text_is_cut_at_the_terminal_and_says_by_how_much(place: Path) -> None:
    lines = "\n".join(f"line {n}" for n in range(100))
    plan = plan_of(place, judged_row(place, [{"instruction": "Count.", "output": lines}]))
    shown = at_terminal(plan, 80)
    assert f"[{100 - outputs_view.LINES} more lines; --full]" in shown
    assert "line 99" not in shown
    assert "line 99" in at_terminal(plan, 80, full=True)


def test_more_than_a_screen_goes_to_the_pager(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paged: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", paged.append)
    plan = plan_of(place, judged_row(place, answers(9)))
    assert "answer 8" in at_terminal(plan, 80)
    assert paged == []
    assert at_terminal(plan, 80, height=20) == ""
    assert "answer 8" in paged[0]


def test_nothing_in_a_text_can_steer_the_terminal(place: Path) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07 \u202edesrever\u2066 \x9b2J bell\x07 \udc80 a\tb\r\n[bold]b"
    output = {"instruction": evil, "output": evil, "generator": evil, "dataset": evil}
    output |= {"flags": [evil], "finish_reason": evil}
    judged = {"instruction": evil, "preference": 1, "output_1": evil, "generator_1": evil}
    plan = plan_of(place, judged_row(place, [output], [judged | {"raw_completion": evil}]))
    shown = at_terminal(plan, 120)
    for sign in "\x1b\x07\u202e\u2066\x9b\r\t\udc80":
        assert sign not in shown
    assert "␛[31mred" in shown
    assert "⟨U+202E⟩desrever" in shown
    assert "[bold]b" in shown
    shown.encode()
    assert all(c.isprintable() or c == "\n" for c in command("show", "one", "--outputs").output)
    assert visible("naïve 東京 👍 a\u00a0b") == "naïve 東京 👍 a b"


def test_worst_and_best_sort_by_the_judgement_and_leave_the_unjudged_for_last(place: Path) -> None:
    judged = annotations(DRAW, WON, None, LOST, 1.25, WON)
    plan = plan_of(place, judged_row(place, answers(6), judged))
    assert order(plan) == [0, 1, 2, 3, 4, 5]
    assert order(plan, worst=True) == [3, 4, 0, 1, 5, 2]
    assert order(plan, best=True) == [1, 5, 0, 4, 3, 2]


def test_where_equal_ones_are_left_out_it_is_said(place: Path) -> None:
    judged_row(place, answers(7), annotations(WON, LOST, WON, LOST, DRAW, WON, LOST))
    worst = command("show", "one", "--worst", "-n", "2").output
    assert (
        "2 of 7 shown; -n 0 for all; of the 3 that are equal to the last one, the first 2" in worst
    )
    assert "equal" not in command("show", "one", "--worst", "-n", "3").output
    five = command("show", "one", "--worst", "-n", "5").output
    assert "of the 3 that are equal to the last one, the first 1" in five
    assert "equal" not in command("show", "one", "--outputs", "-n", "2").output
    assert "equal" not in command("show", "one", "--best", "-n", "0").output


def test_answers_of_another_row_as_the_baseline_stand_under_its_name(place: Path) -> None:
    import yaml

    outputs = [row | {"generator": "model"} for row in answers(1)]
    judged = [{"instruction": "prompt 0", "output_1": "theirs", "generator_1": "model",
               "preference": 1}]  # fmt: skip
    other = judged_row(place, outputs)
    one = yaml.safe_load(other.read_text())
    (place / "specs" / "two.yaml").write_text(yaml.safe_dump(one | {"row": "two"}))
    spec = judged_row(place, outputs, judged)
    tree = yaml.safe_load(spec.read_text())
    tree["eval"]["judge"]["reference"] = {"spec": "two.yaml"}
    spec.write_text(yaml.safe_dump(tree))
    make(place / "runs", spec, executor=Written(outputs, judged))
    shown = command("show", "one", "--outputs").output
    assert "answer of one\n  answer 0\nbaseline two\n  theirs" in shown


def test_flagged_are_those_with_a_flag_and_the_unjudged(place: Path) -> None:
    outputs = answers(5)
    outputs[1]["flags"], outputs[2]["flags"] = ["empty"], []
    judged = annotations(WON, WON, WON, -1)  # of prompt 4 there is not even a row
    plan = plan_of(place, judged_row(place, outputs, judged))
    assert order(plan, flagged=True) == [1, 3, 4]
    # Outputs that nobody judged are not unjudged.
    unjudged = plan_of(place / "b", judged_row(place / "b", outputs))
    assert order(unjudged, flagged=True) == [1]


def test_grep_finds_words_in_every_text_in_any_case(place: Path) -> None:
    outputs = answers(5)
    outputs[0]["instruction"] = "prompt 0 about Rivers"
    outputs[1]["output"] = "a RIVER"
    outputs[2]["input"] = "river"
    judged = annotations(WON, WON, WON, WON, WON)
    judged[3]["output_1"] = "the river"
    judged[4]["raw_completion"] = "no River here, a (plain) answer"
    plan = plan_of(place, judged_row(place, outputs, judged))
    assert order(plan, grep="river") == [0, 1, 2, 3, 4]
    assert order(plan, grep="the river") == [3]
    assert order(plan, grep="(plain)") == [4]
    assert order(plan, grep="sea") == []
    assert "0 of 0 shown, of 5 prompts" in command("show", "one", "--grep", "sea").output


def test_what_grep_finds_is_marked(place: Path) -> None:
    plan = plan_of(place, judged_row(place, [{"instruction": "a", "output": "x (river) y"}]))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=999, emoji=False)
    show_outputs(console, plan, OutputOptions(grep="(RIVER)"), False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "x \x1b[30;43m(river)\x1b[0m y" in text


def test_only_the_first_are_shown_and_how_many_there_are_is_said(place: Path) -> None:
    judged_row(place, answers(12))
    shown = command("show", "one", "--outputs").output
    assert "10 of 12 shown; -n 0 for all" in shown
    assert "answer 9" in shown
    assert "answer 10" not in shown
    assert "answer 11" in command("show", "one", "--outputs", "-n", "0").output
    assert "3 of 12 shown" in command("show", "one", "--outputs", "-n", "3").output


def test_each_judging_of_the_same_outputs_has_its_verdict(place: Path) -> None:
    judgings = [annotations(WON, words="a"), annotations(None, words="?"), annotations(DRAW)]
    judged_row(place, answers(1), *judgings)
    shown = command("show", "one", "--outputs").output
    for part in (
        "judging 1: won",
        "judging 2: unjudged",
        "judging 3: draw",
        "3 judgings of the same",
    ):
        assert part in shown


def test_log_probs_and_probable_verdicts_are_put_in_words(place: Path) -> None:
    tops = [{"token": "m", "logprob": -0.105360516}, {"token": "M", "logprob": -2.302585093}]
    choice = {"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": tops}]}}
    judged = [
        {"instruction": "prompt 0", "preference": 1.9, "raw_completion": choice},
        {"instruction": "prompt 1", "preference": 1.02, "raw_completion": json.dumps(choice)},
        {"instruction": "prompt 2", "preference": 1.9999, "raw_completion": {"odd": 1}},
    ]
    judged_row(place, answers(3), judged)
    shown = command("show", "one", "--outputs").output
    assert "judge: won 0.90\n  m  (first token: 'm' 90.00 %, 'M' 10.00 %)" in shown
    assert shown.count("first token") == 2
    assert "judge: lost 0.02" in shown
    assert 'judge: won >0.99\n  {"odd": 1}' in shown


def test_two_reviews_and_scores_with_feedback_are_shown(place: Path) -> None:
    judged = [
        {
            "instruction": "prompt 0",
            "preference": 1.5,
            "verdicts": [1, -1],
            "raw_completion": ["8 6\nfirst", "6 8\nsecond"],
        },
        {"instruction": "prompt 1", "score": 3, "feedback": "Mostly faithful."},
        {"instruction": "prompt 2", "score": None, "raw_completion": "<score>many</score>"},
    ]
    judged_row(place, answers(3), judged)
    shown = command("show", "one", "--outputs").output
    assert (
        "judge: draw\n  [1] shown first:\n  8 6\n  first\n  [2] shown second:\n  6 8\n  second"
        in shown
    )
    assert "judge: score 3\n  Mostly faithful." in shown
    assert "judge: unjudged\n  <score>many</score>" in shown


def test_what_a_judge_with_a_rubric_was_shown_is_shown(place: Path) -> None:
    given = {"query": "prompt 0", "context": "Rain fell."}
    judged = [{"instruction": "prompt 0", "score": 1, "inputs": given}]
    unread = [{"instruction": "prompt 1", "why": "missing_context", "missing": ["context"]}]
    judged_row(place, answers(2), judged, unread=unread)
    shown = command("show", "one", "--outputs").output
    assert "shown to the judge: context\n  Rain fell." in shown
    assert "shown to the judge: query" not in shown
    assert "judge: unjudged\n  not asked: the prompt has no context" in shown
    assert "1 of 1 shown" in command("show", "one", "--grep", "rain fell").output


def test_the_order_that_alpaca_eval_drew_is_shown(place: Path) -> None:
    from harness.judge.kinds.alpaca_eval.readings import shows_model_first

    spec = judged_row(place, answers(8), annotations(*[WON] * 8))
    plan = plan_of(place, spec)
    judge = plan.final()[0].params["judge"]
    plan.final()[0].params["judge"] = AlpacaEvalJudge(judge=judge.judge, reference=judge.reference)
    drawn = [shows_model_first("chatgpt", f"prompt {n}") for n in range(8)]
    assert len(set(drawn)) == 2
    shown = [p.judgements[0].shown_first for p in read_outputs(plan, "").prompts]
    assert shown == drawn


def test_a_reply_that_gave_no_judgement_is_shown(place: Path) -> None:
    unread = [{"instruction": "prompt 0", "reply": "I cannot say.", "finish_reason": "stop"}]
    judged_row(place, answers(1), annotations(None), unread=unread)
    assert "judge: unjudged\n  I cannot say." in command("show", "one", "--outputs").output


def test_json_holds_what_is_shown(place: Path) -> None:
    judged_row(place, answers(2), annotations(LOST, 1.75, words="b"))
    (first,) = json.loads(command("show", "one", "--best", "-n", "1", "--json").stdout)
    assert (first["index"], first["output"]) == (1, "answer 1")
    assert first["baseline"] is None
    assert first["judgings"] == [
        {
            "label": "", "verdict": "won 0.75", "preference": 1.75, "score": None,
            "shown_first": None, "words": ["b"],
        }
    ]  # fmt: skip


def test_outputs_that_are_not_there_are_said_with_the_way_to_them(place: Path) -> None:
    judged_row(place, answers(1))
    shutil.rmtree("runs")
    done = command("show", "one", "--outputs")
    assert done.exit_code == 2
    assert "no outputs yet" in done.output
    assert "harness run" in done.output
    done = command("show", "one", "--outputs", "--label", "train seed 9")
    assert "no outputs of 'train seed 9'" in done.output


def test_outputs_without_a_judge_cannot_be_sorted(place: Path) -> None:
    judged_row(place, answers(1))
    assert "not judged" in command("show", "one", "--outputs").output
    done = command("show", "one", "--worst")
    assert done.exit_code == 2
    assert "nothing says which is worst" in done.output
    assert command("show", "one", "--worst", "--best").exit_code == 2


def test_of_several_outputs_the_first_is_shown_and_the_others_are_named(place: Path) -> None:
    spec = place / "specs" / "one.yaml"
    judged_row(place, answers(1))
    import yaml

    tree = yaml.safe_load(spec.read_text())
    tree["eval"]["answer"]["decoding"] = {"temperature": 0.7}
    tree["replicates"] = {"sampling_seeds": [3, 4]}
    spec.write_text(yaml.safe_dump(tree))
    make(place / "runs", spec, executor=Written(answers(1)))
    shown = command("show", "one", "--outputs").output
    assert "row one (sampling seed 3)" in shown
    assert "--label: sampling seed 4" in shown
    other = command("show", "one", "--outputs", "--label", "sampling seed 4").output
    assert "row one (sampling seed 4)" in other
    wrong = command("show", "one", "--outputs", "--label", "seed 5")
    assert "'sampling seed 3', 'sampling seed 4'" in wrong.output


def test_outputs_that_were_changed_are_not_shown(place: Path) -> None:
    judged_row(place, answers(1))
    (path,) = Path("runs/artefacts/answer").glob("*/model_outputs.json")
    path.write_text("[]")
    done = command("show", "one", "--outputs")
    assert done.exit_code == 1
    assert "model_outputs.json" in done.output
