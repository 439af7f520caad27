"""Pairwise grading: the published counts out of stored reviews, and runs against scripted judges."""

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.answer.prompts import read_prompts
from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.grades import (
    Orders,
    position_bias,
    preference,
    read_scores,
    verdicts,
    winning_score,
)
from harness.judge.kinds.grading import GradingJudge
from harness.judge.scores import describe, position_findings, win_rate_metric
from harness.row.load import load_rows
from harness.sim.grammar import find
from harness.spec.prompts import PromptSet
from tests.helpers import ROOT
from tests.llm.fake_server import Answer, FakeServer, completion, last_message
from tests.sim.smoke import evaluation_prompts

PROMPTS = Path(__file__).parents[3] / "specs" / "alpagasus" / "prompts"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def oracle(shared_data: Path) -> Path:
    return shared_data.parent / "oracles" / "alpagasus2"


def stored(oracle: Path) -> tuple[list[Row], list[Row], dict[str, int]]:
    """Reviews with the model (alpagasus2) first, with the baseline first, and the published counts."""
    model_first = json.loads((oracle / "alpagasus2-alpaca2-vicuna.json").read_text())
    baseline_first = json.loads((oracle / "alpaca2-alpagasus2-vicuna.json").read_text())
    published = json.loads((oracle / "vicuna_result.json").read_text())
    return model_first, baseline_first, published


def orders_of(model_first: list[Row], baseline_first: list[Row]) -> list[Orders]:
    return [
        (tuple(a["score"]), tuple(b["score"]))
        for a, b in zip(model_first, baseline_first, strict=True)
    ]


def counts(preferences: list[float]) -> dict[str, int]:
    return {
        "win": preferences.count(2),
        "draw": preferences.count(1.5),
        "lose": preferences.count(1),
    }


def test_every_stored_score_is_read_from_its_review(oracle: Path) -> None:
    rows = [row for reviews in stored(oracle)[:2] for row in reviews]
    assert len(rows) == 160
    for row in rows:
        assert read_scores(row["review"], 1, 10) == tuple(row["score"])


def test_the_studys_rows_take_two_zeros_for_a_tie_as_its_own_code_does() -> None:
    rows = load_rows(sorted((ROOT / "specs" / "alpagasus2").glob("[!_]*.yaml")))
    judges = [loaded.row.eval.judge for loaded in rows if loaded.row.eval]
    grading = [one for one in judges if isinstance(one, GradingJudge)]
    assert len(grading) > 5
    for one in grading:
        scores = read_scores("0 0\nNeither says anything.", one.lowest, one.highest)
        assert scores == (0, 0)
        assert preference((scores, scores)) == 1.5


def test_the_published_counts_come_out_of_the_stored_reviews(oracle: Path) -> None:
    model_first, baseline_first, published = stored(oracle)
    orders = orders_of(model_first, baseline_first)
    found = counts([preference(both) for both in orders])
    assert found == {name: published[name] for name in ("win", "draw", "lose")}
    metric = winning_score(win_rate_metric(describe([preference(o) for o in orders]), 80))
    assert metric.value == pytest.approx(1 + (40 - 2) / 80)
    assert (metric.wins, metric.judged, metric.expected) == (40, 80, 80)


def test_summed_scores_and_two_wins_needed_give_other_counts(oracle: Path) -> None:
    model_first, baseline_first, published = stored(oracle)
    right = {name: published[name] for name in ("win", "draw", "lose")}
    sums = [(a[0] + b[1]) - (a[1] + b[0]) for a, b in orders_of(model_first, baseline_first)]
    summed = counts([1.5 if s == 0 else 2 if s > 0 else 1 for s in sums])
    signs = [verdicts(orders) for orders in orders_of(model_first, baseline_first)]
    both = counts([1.0 if s != (1, 1) else 2.0 for s in signs])
    assert summed != right
    assert both != right


def test_the_stored_judge_prefers_the_second_place(oracle: Path) -> None:
    model_first, baseline_first, _ = stored(oracle)
    bias = position_bias(orders_of(model_first, baseline_first))
    assert (bias["first_wins"], bias["ties"], bias["second_wins"]) == (44, 0, 116)
    assert bias["shown_first"]["win_rate"] == pytest.approx(100 * 41 / 80)
    assert bias["shown_second"]["win_rate"] == pytest.approx(100 * 77 / 80)
    assert bias["difference"] == pytest.approx(-45)
    assert bias["orders_opposed"] == pytest.approx(100 * 38 / 80)
    [finding] = position_findings(bias)
    assert finding.kind == "position_bias"


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("8 7", (8, 7)),
        ("8.5 9", (8.5, 9)),
        ("8, 7\nBoth are good.", (8, 7)),
        ("\n **9 10**\n\nWell.", (9, 10)),
        ("(7; 6.25)", (7, 6.25)),
        ("1 10", (1, 10)),
        ("8.5\t8.4", (8.5, 8.4)),
    ],
)
def test_two_scores_on_the_first_line_are_read_with_their_decimals(
    reply: str, scores: tuple[float, float]
) -> None:
    assert read_scores(reply, 1, 10) == scores


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "8",
        "8 7 6",
        "8,5 7,5",
        "Assistant 1: 8, Assistant 2: 7",
        "Both are good.\n8 7",
        "0 7",
        "8 11",
        "-8 7",
        "8 -7",
        "10.5 3",
        "1e1 3",
        "9" * 400 + " 3",
        "٨ 7",
        "8/10 7/10",
    ],
)
def test_any_other_first_line_and_scores_off_the_scale_are_no_scores(reply: str) -> None:
    assert read_scores(reply, 1, 10) is None


def test_decimals_decide() -> None:
    assert verdicts(((8.5, 8.0), (8.2, 8.9))) == (1, 1)
    assert preference(((8.5, 8.0), (8.2, 8.9))) == 2
    assert preference(((8.0, 8.0), (8.9, 8.2))) == 1
    assert preference(((8.0, 8.5), (8.0, 8.5))) == 1.5


def test_a_judge_without_eyes_for_place_has_no_bias_and_one_for_the_first_place_all_of_it() -> None:
    blind = position_bias([((8, 6), (6, 8)), ((3, 4), (4, 3)), ((5, 5), (5, 5))])
    assert (blind["difference"], blind["first_minus_second"], blind["p_value"]) == (0, 0, 1)
    assert (blind["orders_differ"], position_findings(blind)) == (0, [])
    first = position_bias([((8, 6), (8, 6))] * 5)
    assert (first["difference"], first["first_minus_second"]) == (100, 2)
    assert (first["orders_opposed"], first["p_value"]) == (100, 2 / 2**5)
    assert position_findings(first) == []
    assert len(position_findings(position_bias([((8, 6), (8, 6))] * 8))) == 1
    assert position_findings(position_bias([((8, 6), (8, 6))])) == []
    assert position_findings(position_bias([])) == []


@pytest.mark.parametrize(
    ("first", "second", "blind", "p_value"),
    [
        (2, 0, 0, 0.5),
        (3, 0, 4, 0.25),
        (0, 8, 0, 2 / 256),
        (9, 1, 3, 22 / 1024),
        (4, 4, 0, 1),
        (0, 0, 3, 1),
        (700, 700, 0, 1),
        (2000, 0, 0, 0),
    ],
)
def test_the_bias_for_a_place_is_tested_on_the_prompts_that_show_one(
    first: int, second: int, blind: int, p_value: float
) -> None:
    kinds = {((8, 6), (8, 6)): first, ((6, 8), (6, 8)): second, ((8, 6), (6, 8)): blind}
    graded = [orders for orders, times in kinds.items() for _ in range(times)]
    assert position_bias(graded)["p_value"] == pytest.approx(p_value)


def test_the_bias_of_scores_is_the_mean_over_prompts_with_its_standard_error() -> None:
    bias = position_bias([((8, 6), (6, 8)), ((9, 5), (7, 7)), ((5, 5), (6, 4))])
    per_prompt = [0.0, 2.0, 1.0]
    assert bias["first_minus_second"] == pytest.approx(1)
    deviation = math.sqrt(sum((x - 1) ** 2 for x in per_prompt) / 2)
    assert bias["first_minus_second_standard_error"] == pytest.approx(deviation / math.sqrt(3))


SHOWN = re.compile(
    r".*?<question>\n(.*)\n</question>\n\n<answer_1>\n(.*)\n</answer_1>\n\n"
    r"<answer_2>\n(.*)\n</answer_2>\n",
    re.DOTALL,
)


def shown(body: Row) -> tuple[str, str, str]:
    found = SHOWN.match(last_message(body))
    assert found is not None
    return found[1], found[2], found[3]


def by_length(body: Row, seen: int = 0) -> Answer:
    """A judge that scores a tenth of a point a character, whatever the place."""
    _, first, second = shown(body)
    return f"{1 + len(first) / 10:g} {1 + len(second) / 10:g}\n\nThe longer one."


def make_call(
    folder: Path,
    endpoint: Any,
    outputs: list[Row],
    baseline: list[Row],
    prompts: dict[str, Any] | None = None,
    replicate: int = 0,
    **settings: Any,
) -> StageCall:
    for name in ("work", "outputs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "outputs/model_outputs.json").write_text(json.dumps(outputs))
    (folder / "reference.json").write_text(json.dumps(baseline))
    (folder / "prompts.json").write_text(json.dumps(outputs))
    texts = {
        name: {"path": str(PROMPTS / file), "text": (PROMPTS / file).read_text()}
        for name, file in (("system", "grade_system.txt"), ("prompt", "grade.txt"))
    }
    spec = {
        "kind": "grading",
        "judge": endpoint.model_dump(mode="json"),
        "reference": {"path": str(folder / "reference.json")},
        **texts,
        **settings,
    }
    params = {
        "judge": spec,
        "prompts": prompts or {"file": {"path": str(folder / "prompts.json")}},
        "replicate": replicate,
    }
    inputs = {"outputs": str(folder / "outputs")}
    return StageCall("judge", "k", params, inputs, str(folder / "work"))


def made_up(lengths: list[tuple[int, int]]) -> tuple[list[Row], list[Row]]:
    outputs = [
        {"instruction": f"Task {i}.", "output": "m" * model, "generator": "model"}
        for i, (model, _) in enumerate(lengths)
    ]
    baseline = [
        {"instruction": f"Task {i}.", "output": "b" * base, "generator": "base"}
        for i, (_, base) in enumerate(lengths)
    ]
    return outputs, baseline


def read(call: StageCall, name: str) -> Any:
    text = (call.folder / name).read_text()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


def test_both_orders_are_asked_and_the_longer_answer_wins_by_a_tenth(tmp_path: Path) -> None:
    outputs, baseline = made_up([(41, 40), (40, 41), (7, 7), (30, 20)])
    outputs[3]["input"] = "Its input."
    with FakeServer(by_length) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline)
        result = judge.run(call)
        assert len(server.requests) == 8
        body = server.requests[0]
    system = (PROMPTS / "grade_system.txt").read_text().removesuffix("\n")
    assert body["messages"][0] == {"role": "system", "content": system}
    assert body["messages"][1]["content"].endswith("stands first means nothing.")
    assert (body["temperature"], body["max_tokens"]) == (0, 256)
    metric = result.metrics["win_rate"]
    assert (metric.wins, metric.draws, metric.losses) == (2, 1, 1)
    assert metric.value == pytest.approx(62.5)
    assert metric.standard_error == pytest.approx(describe([2, 1, 1.5, 2])["standard_error"])
    assert result.metrics["winning_score"].value == pytest.approx(1 + 1 / 4)
    assert result.metrics["winning_score"].standard_error == pytest.approx(
        metric.standard_error / 50
    )
    rows = read(call, "annotations.json")
    assert rows[0]["scores"] == [[5.1, 5.0], [5.0, 5.1]]
    assert [row["verdicts"] for row in rows] == [[1, 1], [-1, -1], [0, 0], [1, 1]]
    assert [row["preference"] for row in rows] == [2, 1, 1.5, 2]
    assert rows[0]["raw_completion"] == ["5.1 5\n\nThe longer one.", "5 5.1\n\nThe longer one."]
    assert (rows[0]["generator_1"], rows[0]["output_1"]) == ("base", "b" * 40)
    assert result.used["position_bias"]["difference"] == 0
    assert result.findings == []
    assert any("shown first the model wins" in note for note in result.notes)


def test_an_input_follows_the_question_as_published(tmp_path: Path) -> None:
    outputs, baseline = made_up([(5, 6)])
    outputs[0]["input"] = "Its input."
    with FakeServer(by_length) as server:
        judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline))
        assert shown(server.requests[0])[0] == "Task 0. Input: Its input."


def test_the_reviews_can_be_read_as_the_published_ones(tmp_path: Path, oracle: Path) -> None:
    outputs, baseline = made_up([(41, 40), (40, 41), (30, 20)])
    with FakeServer(by_length) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline)
        result = judge.run(call)
    reviews = [read(call, f"reviews_{place}_first.json") for place in ("model", "baseline")]
    assert {f"reviews_{place}_first.json" for place in ("model", "baseline")} <= set(result.keep)
    theirs = stored(oracle)[0][0]
    assert {"question_id", "text", "review", "score"} <= theirs.keys() & reviews[0][0].keys()
    assert reviews[0][0]["model"] == "m" * 41
    # As the published tally goes: row by row, over both files.
    assert [preference(both) for both in orders_of(*reviews)] == [2, 1, 2]
    for rows in reviews:
        for row in rows:
            assert list(read_scores(row["review"], 1, 10) or ()) == row["score"]


def test_an_unread_order_is_asked_again_and_else_leaves_its_prompt_unjudged(tmp_path: Path) -> None:
    def script(body: Row, seen: int) -> Answer:
        question, first, _ = shown(body)
        if question == "Task 1." and first.startswith("m"):
            return "Assistant 1 deserves an 8."
        if question == "Task 2." and seen == 0:
            return "12 3"
        return by_length(body)

    outputs, baseline = made_up([(30, 20), (40, 41), (30, 20), (20, 30)])
    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, asks=2)
        result = judge.run(call)
        assert len(server.requests) == 8 + 1 + 2
    metric = result.metrics["win_rate"]
    assert (metric.judged, metric.expected) == (3, 4)
    assert metric.value == pytest.approx(100 * 2 / 3)
    assert (metric.lower_bound, metric.upper_bound) == pytest.approx((50, 75))
    score = result.metrics["winning_score"]
    assert score.value == pytest.approx(1 + 1 / 3)
    assert (score.lower_bound, score.upper_bound) == pytest.approx((1, 1.5))
    assert (result.counts["unjudged"], result.counts["unread_replies"]) == (1, 1)
    [row] = read(call, "unjudged.jsonl")
    assert row["instruction"] == "Task 1."
    assert row["replies"][0] == "Assistant 1 deserves an 8."
    annotated = read(call, "annotations.json")[1]
    assert annotated["preference"] is None
    assert annotated["scores"] == [None, [5.1, 5.0]]
    assert read(call, "reviews_model_first.json")[1]["score"] is None
    assert result.used["position_bias"]["shown_first"]["judged"] == 3


def test_a_prompt_too_long_for_the_judge_is_unjudged_with_its_reason(tmp_path: Path) -> None:
    message = (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 "
        "`inputs` tokens and 256 `max_new_tokens`"
    )

    def script(body: Row, seen: int) -> Answer:
        if shown(body)[0] == "Task 1.":
            return web.json_response({"error": message, "error_type": "validation"}, status=422)
        return by_length(body)

    outputs, baseline = made_up([(30, 20), (40, 41), (30, 20)])
    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, asks=2)
        result = judge.run(call)
        assert len(server.requests) == 6
    assert (result.counts["judged"], result.counts["unjudged"]) == (2, 1)
    [row] = read(call, "unjudged.jsonl")
    assert row["why"] == [f"too_long: {message}"] * 2


def test_a_judge_that_never_scores_is_an_error_that_shows_its_reply(tmp_path: Path) -> None:
    outputs, baseline = made_up([(30, 20), (40, 41)])
    with (
        FakeServer(lambda body, seen: "I cannot say.") as server,
        pytest.raises(HarnessError, match=r"none of the 2 prompts.*I cannot say") as error,
    ):
        judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline))
    assert "from 1 to 10 on the first line" in str(error.value.hint)


def test_identical_answers_are_a_tie_and_not_asked(tmp_path: Path) -> None:
    outputs, baseline = made_up([(30, 20), (40, 41)])
    baseline[0]["output"] = outputs[0]["output"]
    with FakeServer(lambda body, seen: "9 2") as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline)
        result = judge.run(call)
        assert len(server.requests) == 2
    assert [row["preference"] for row in read(call, "annotations.json")] == [1.5, 1.5]
    assert result.counts["identical"] == 1
    assert "1 of 2 outputs is the baseline's own: draws, not asked" in result.notes
    assert len(read(call, "reviews_model_first.json")) == 1


def test_the_baseline_against_itself_wins_half(tmp_path: Path) -> None:
    _, baseline = made_up([(30, 20), (40, 41), (1, 2)])
    with FakeServer(lambda body, seen: "9 2") as server:
        call = make_call(tmp_path, server.endpoint(), baseline, baseline)
        metric = judge.run(call).metrics["win_rate"]
        assert server.requests == []
    assert (metric.value, metric.draws, metric.judged) == (50, 3, 3)


def test_a_judge_that_always_prefers_a_place_ties_all_and_is_found_out(tmp_path: Path) -> None:
    outputs, baseline = made_up([(10 + i, 20) for i in range(8)])
    with FakeServer(lambda body, seen: "9 6\nThe first.") as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline))
    assert result.metrics["win_rate"].value == 50
    bias = result.used["position_bias"]
    assert (bias["difference"], bias["first_minus_second"]) == (100, 3)
    [finding] = result.findings
    assert (finding.kind, finding.severity) == ("position_bias", "warning")
    assert finding.evidence == bias
    [note] = result.notes
    assert "shown first the model" not in note
    assert note.startswith("the answer shown first scored +3.00")


def test_model_and_baseline_exchanged_turn_the_win_rate_round(tmp_path: Path) -> None:
    numbers = random.Random(1)
    lengths = [(numbers.randint(1, 60), numbers.randint(1, 60)) for _ in range(15)]

    def biased(body: Row, seen: int) -> Answer:
        _, first, second = shown(body)
        return f"{min(10.0, 2 + len(first) / 10):g} {1 + len(second) / 10:g}"

    results = []
    with FakeServer(biased) as server:
        for name, (a, b) in (("one", (0, 1)), ("other", (1, 0))):
            rows = made_up(lengths)
            call = make_call(tmp_path / name, server.endpoint(), rows[a], rows[b])
            results.append(judge.run(call))
    one, other = (result.metrics["win_rate"] for result in results)
    assert one.value == pytest.approx(100 - other.value)
    assert one.standard_error == pytest.approx(other.standard_error)
    biases = [result.used["position_bias"] for result in results]
    assert biases[0]["first_wins"] == biases[1]["first_wins"]
    assert biases[0]["first_minus_second"] == pytest.approx(biases[1]["first_minus_second"])


def test_each_of_several_sets_has_its_own_score(tmp_path: Path) -> None:
    lengths = [(30, 20), (20, 30), (30, 20)]
    outputs, baseline = made_up(lengths)
    files = {}
    for name, rows in (("koala", outputs[:2]), ("vicuna", outputs[2:])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": row["instruction"]}) + "\n" for row in rows))
        files[name] = {"path": str(path)}
    with FakeServer(by_length) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, {"files": files})
        metrics = judge.run(call).metrics
    assert metrics["win_rate/koala"].value == 50
    assert metrics["win_rate/koala"].expected == 2
    assert metrics["win_rate/vicuna"].value == 100
    assert [name for name in metrics if name.startswith("winning_score")] == ["winning_score"]
    assert metrics["win_rate"].value == pytest.approx(100 * 2 / 3)
    ids = [row["question_id"] for row in read(call, "reviews_model_first.json")]
    assert ids == ["koala_0", "koala_1", "vicuna_2"]


def test_the_four_published_test_sets_are_graded_whole(tmp_path: Path, shared_data: Path) -> None:
    files = {
        name: {"path": str(shared_data / "alpagasus" / f"{name}_test_set.jsonl")}
        for name in ("koala", "sinstruct", "vicuna", "wizardlm")
    }
    prompts = read_prompts(PromptSet.model_validate({"files": files}), None)
    rows = [{"instruction": p.instruction, "input": p.input} for p in prompts]
    outputs = [{**row, "output": "I do not know.", "generator": "m"} for row in rows]
    baseline = [{**row, "output": "This is what you can do.", "generator": "b"} for row in rows]
    simulated = GradingJudge.model_validate(judge_spec(tmp_path)).judge
    result = judge.run(make_call(tmp_path, simulated, outputs, baseline, {"files": files}))
    expected = {name: result.metrics[f"win_rate/{name}"].expected for name in files}
    assert expected == {"koala": 180, "sinstruct": 252, "vicuna": 80, "wizardlm": 218}
    assert result.metrics["win_rate"].judged == 730
    assert result.simulated == ["judge"]


def judge_spec(folder: Path, **simulated: Any) -> Row:
    return {
        "kind": "grading",
        "judge": {"model": "judge", "simulated": simulated},
        "system": {"path": "s", "text": "s"},
        "prompt": {"path": "p", "text": "{question}{answer_1}{answer_2}"},
        "reference": {"path": str(folder)},
    }


def simulated_run(folder: Path, outputs: list[str], **simulated: Any) -> StageResult:
    """The simulated judge on 40 tasks of its grammar; nine in ten baselines are wrong and readable."""
    baseline = evaluation_prompts(40)
    rows = [
        {"instruction": row["instruction"], "output": text, "generator": "model"}
        for row, text in zip(baseline, outputs, strict=True)
    ]
    endpoint = GradingJudge.model_validate(judge_spec(folder, **simulated)).judge
    return judge.run(make_call(folder, endpoint, rows, baseline))


def test_the_simulated_judge_grades_right_answers_above_wrong_ones_and_noise_below(
    tmp_path: Path,
) -> None:
    tasks = [find(row["instruction"]) for row in evaluation_prompts(40)]
    outputs = [task.output if i % 2 else "xq zzrt qqq" for i, task in enumerate(tasks) if task]
    result = simulated_run(tmp_path, outputs)
    assert result.used["position_bias"]["orders_differ"] == 0
    assert result.findings == []
    preferences = [
        row["preference"] for row in json.loads((tmp_path / "work/annotations.json").read_text())
    ]
    assert set(preferences[::2]) == {1}
    assert preferences[1::2].count(2) >= 15


@pytest.mark.parametrize(("bias", "sign"), [(0.9, 1), (-0.9, -1)])
def test_a_simulated_judge_with_a_favoured_place_is_found_out(
    tmp_path: Path, bias: float, sign: int
) -> None:
    result = simulated_run(tmp_path, ["That is not known."] * 40, position_bias=bias)
    assert result.used["position_bias"]["first_minus_second"] * sign > 1
    assert result.used["position_bias"]["difference"] * sign > 50
    assert [finding.kind for finding in result.findings] == ["position_bias"]


def test_a_replay_makes_every_file_again_without_the_judge(tmp_path: Path) -> None:
    outputs, baseline = made_up([(41, 40), (40, 41), (7, 7), (30, 20)])

    def script(body: Row, seen: int) -> Answer:
        return "?" if shown(body)[0] == "Task 0." and seen == 0 else by_length(body)

    with FakeServer(script) as server:
        endpoint = server.endpoint()
        call = make_call(tmp_path, endpoint, outputs, baseline)
        result = judge.run(call)
    other = make_call(tmp_path / "again", endpoint, outputs, baseline)
    (other.folder / "transcript.jsonl").write_bytes((call.folder / "transcript.jsonl").read_bytes())
    again = StageCall(other.stage, "k", call.params, other.inputs, other.work, replay=True)
    replayed = judge.run(again)
    assert replayed.metrics == result.metrics
    assert replayed.counts == result.counts
    assert replayed.used == result.used
    for name in result.keep:
        assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes()


def test_an_interrupted_run_asks_for_what_is_missing_alone(tmp_path: Path) -> None:
    outputs, baseline = made_up([(41, 40), (40, 41), (30, 20)])
    with FakeServer(by_length) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline)
        judge.run(call)
        lines = (call.folder / "transcript.jsonl").read_text().splitlines(keepends=True)
        (call.folder / "transcript.jsonl").write_text("".join(lines[:4]))
        server.requests.clear()
        judge.run(call)
        assert len(server.requests) == 2


def test_a_replicate_has_a_seed_of_its_own(tmp_path: Path) -> None:
    outputs, baseline = made_up([(41, 40)])
    with FakeServer(by_length) as server:
        for number in (0, 2):
            folder = tmp_path / str(number)
            result = judge.run(
                make_call(folder, server.endpoint(), outputs, baseline, replicate=number)
            )
            assert result.seeds == {"replicate": number}
        assert [body.get("seed") for body in server.requests] == [None, None, 2, 2]


def test_another_served_model_stops_or_is_flagged(tmp_path: Path) -> None:
    def changing(body: Row, seen: int) -> Answer:
        text = str(by_length(body))
        model = "new" if shown(body)[0] == "Task 1." else "old"
        return web.json_response(completion(text, model=model))

    outputs, baseline = made_up([(41, 40), (40, 41)])
    with FakeServer(changing) as server:
        endpoint = server.endpoint(concurrency=1)
        result = judge.run(make_call(tmp_path / "a", endpoint, outputs, baseline))
        assert [finding.kind for finding in result.findings] == ["model_changed"]
        with pytest.raises(HarnessError, match="answered as new and as old"):
            judge.run(
                make_call(tmp_path / "b", endpoint, outputs, baseline, on_model_change="stop")
            )


def test_outputs_for_other_prompts_are_refused(tmp_path: Path) -> None:
    outputs, baseline = made_up([(41, 40), (40, 41)])
    with FakeServer(by_length) as server, pytest.raises(InputError, match="no baseline output"):
        judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline[:1]))
