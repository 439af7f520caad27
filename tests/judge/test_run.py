"""Both kinds of judge end to end against a scripted judge, and what they refuse to judge."""

import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.preference.judge import is_switched, read_verdict
from harness.llm import faults
from tests.llm.fake_server import Answer, FakeServer, completion, failure, last_message

TEMPLATE = "Which is better?\nI: {instruction}\nA: {output_a}\nB: {output_b}\n"

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_BACKOFF_S", 0.01)


def made_up(n: int) -> tuple[list[Row], list[Row]]:
    """Outputs and baselines: the model's output says GOOD for every third prompt."""
    texts = [f"Task {i} {{output_a}} of all." for i in range(n)]
    outputs = [
        {
            "instruction": text,
            "output": f"model {i} {'GOOD' if i % 3 == 0 else 'bad'}",
            "generator": "model",
            "finish_reason": "length" if i == 1 else "stop",
        }
        for i, text in enumerate(texts)
    ]
    baseline = [
        {"instruction": t, "output": f"base {i}", "generator": "base", "dataset": "d"}
        for i, t in enumerate(texts)
    ]
    return outputs, baseline


def make_call(
    folder: Path,
    endpoint: Any,
    outputs: list[Row],
    baseline: list[Row],
    kind: str = "preference",
    replicate: int = 0,
    prompts: list[Row] | None = None,
    **settings: Any,
) -> StageCall:
    for name in ("work", "outputs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "outputs/model_outputs.json").write_text(json.dumps(outputs))
    (folder / "reference.json").write_text(json.dumps(baseline))
    (folder / "prompts.json").write_text(json.dumps(prompts or outputs))
    spec = {
        "kind": kind,
        "judge": endpoint.model_dump(mode="json"),
        "reference": {"path": str(folder / "reference.json")},
        **({"prompt": {"path": "p.txt", "text": TEMPLATE}} if kind == "preference" else {}),
        **settings,
    }
    params = {
        "judge": spec,
        "prompts": {"file": {"path": str(folder / "prompts.json")}},
        "replicate": replicate,
    }
    return StageCall(
        "judge", "k", params, {"outputs": str(folder / "outputs")}, str(folder / "work")
    )


def read(call: StageCall, name: str) -> Any:
    text = (call.folder / name).read_text()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


def likes_good(body: Row, seen: int) -> Answer:
    """A judge for both prompts: the output with GOOD in it, wherever it is shown."""
    prompt = last_message(body)
    if "## Output (a):" in prompt:
        shown_a, _, shown_b = prompt.rpartition("# Task:")[2].partition("## Output (b):")
        return (
            "Output (a)"
            if "GOOD" in shown_a and "GOOD" not in shown_b
            else "Output (b)"
            if "GOOD" in shown_b
            else "Output (a)"
            if "base" in shown_a
            else "Output (b)"
        )
    shown_a, _, shown_b = prompt.partition("\nB: ")
    if "GOOD" in prompt:
        return "a" if "GOOD" in shown_a else "b"
    return "A." if "base" in shown_a else "**B**"


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_the_better_output_wins_wherever_it_is_shown(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(12)
    outputs[5]["output"] = baseline[5]["output"]
    outputs[7]["output"] = ""
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind)
        result = judge.run(call)
        assert len(server.requests) == 11
    metric = result.metrics["win_rate"]
    assert metric.value == pytest.approx(100 * (4 + 0.5) / 12)
    assert (metric.wins, metric.draws, metric.losses) == (4, 1, 7)
    assert (metric.judged, metric.expected) == (12, 12)
    assert metric.lower_bound == pytest.approx(metric.value)
    expected = {
        "prompts": 12,
        "judged": 12,
        "unjudged": 0,
        "identical": 1,
        "empty_outputs": 1,
        "cut_outputs": 1,
    }
    assert expected.items() <= result.counts.items()
    assert "1 of 12 outputs is the baseline's own: draws, not asked" in result.notes
    assert result.used["served_models"] == ["served-1"]
    assert result.cost["calls"] == 11
    rows = read(call, "annotations.json")
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in outputs]
    assert list(rows[0])[:8] == [
        "instruction", "output_1", "generator_1", "dataset", "output_2", "generator_2", "annotator",
        "preference",
    ]  # fmt: skip
    assert [row["preference"] for row in rows] == [
        1.5 if i == 5 else 2 if i % 3 == 0 else 1 for i in range(12)
    ]
    wanted = {
        "output_1": "base 0",
        "generator_1": "base",
        "dataset": "d",
        "output_2": "model 0 GOOD",
        "generator_2": "model",
    }
    assert wanted.items() <= rows[0].items()
    with (call.folder / "leaderboard.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row["win_rate"]) == metric.value
    assert float(row["standard_error"]) == metric.standard_error
    assert row[""] == "model"
    assert read(call, "unjudged.jsonl") == []
    assert set(result.keep) == {
        "annotations.json",
        "leaderboard.csv",
        "transcript.jsonl",
        "unjudged.jsonl",
    }
    assert all((call.folder / name).exists() for name in result.keep)


def test_the_order_is_drawn_for_each_instruction_and_seen_by_the_judge(tmp_path: Path) -> None:
    outputs, baseline = made_up(30)
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline)
        result = judge.run(call)
        prompts = [last_message(body) for body in server.requests]
    switched = [is_switched(row["instruction"], 0) for row in outputs]
    assert 5 < sum(switched) < 25
    assert result.counts["shown_first"] == sum(switched)
    for i, (row, is_first) in enumerate(zip(outputs, switched, strict=True)):
        first, second = row["output"], f"base {i}"
        if not is_first:
            first, second = second, first
        # Braces in an instruction are left alone.
        assert (
            f"Which is better?\nI: Task {i} {{output_a}} of all.\nA: {first}\nB: {second}"
            in prompts
        )


def test_a_judge_that_only_looks_at_the_place_gives_every_model_the_same(tmp_path: Path) -> None:
    outputs, baseline = made_up(30)
    with FakeServer(lambda body, seen: "a") as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline))
    shown_first = sum(is_switched(row["instruction"], 0) for row in outputs)
    assert result.metrics["win_rate"].wins == shown_first


def test_prompts_that_share_an_instruction_have_orders_of_their_own(tmp_path: Path) -> None:
    def rows(words: str) -> list[Row]:
        return [
            {
                "instruction": "Sum up.",
                "input": f"{i}",
                "output": f"{words} {i}",
                "generator": words,
            }
            for i in range(16)
        ]

    with FakeServer(lambda body, seen: "a") as server:
        call = make_call(tmp_path, server.endpoint(), rows("model"), rows("base"))
        result = judge.run(call)
    switched = [is_switched("Sum up.", 0, f"{i}") for i in range(16)]
    assert 3 < sum(switched) < 13
    assert result.metrics["win_rate"].wins == result.counts["shown_first"] == sum(switched)
    assert [row["is_switched"] for row in read(call, "annotations.json")] == switched
    # Orders of artefacts that were made before, whose prompts have no input.
    drawn = [random.Random(f"orderTask {i}1").choice([False, True]) for i in range(16)]
    assert [is_switched(f"Task {i}", 1) for i in range(16)] == drawn


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_replicate_asks_other_questions_and_a_repeat_asks_none(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(10)
    asked: list[set[str]] = []
    with FakeServer(likes_good) as server:
        for replicate in (0, 1, 2, 1):
            server.requests.clear()
            call = make_call(
                tmp_path / str(replicate), server.endpoint(), outputs, baseline, kind, replicate
            )
            result = judge.run(call)
            assert result.metrics["win_rate"].wins == 4
            asked.append({json.dumps(body, sort_keys=True) for body in server.requests})
    assert [len(some) for some in asked] == [10, 10, 10, 0]
    assert not asked[0] & asked[1]
    assert not asked[1] & asked[2]
    # Not the seed alone: the order is drawn again.
    prompts = [{json.loads(text)["messages"][-1]["content"] for text in some} for some in asked]
    assert prompts[0] != prompts[1] != prompts[2]


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_an_unreadable_reply_is_unjudged_and_never_a_number(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(12)

    def script(body: Row, seen: int) -> Answer:
        prompt = last_message(body)
        if "Task 3 " in prompt:
            return "Both have their merits."
        if "Task 4 " in prompt:
            return ""
        if "Task 6 " in prompt:
            return failure(400, "filtered", code="content_filter")
        return likes_good(body, seen)

    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind)
        result = judge.run(call)
    metric = result.metrics["win_rate"]
    assert (metric.wins, metric.losses, metric.judged, metric.expected) == (2, 7, 9, 12)
    assert metric.value == pytest.approx(100 * 2 / 9)
    assert metric.lower_bound == pytest.approx(100 * 2 / 12)
    assert metric.upper_bound == pytest.approx(100 * 5 / 12)
    assert (result.counts["judged"], result.counts["unjudged"]) == (9, 3)
    unjudged = read(call, "unjudged.jsonl")
    assert [row["instruction"] for row in unjudged] == [
        outputs[i]["instruction"] for i in (3, 4, 6)
    ]
    assert [row["reply"] for row in unjudged] == ["Both have their merits.", "", ""]
    assert [row["finish_reason"] for row in unjudged] == ["stop", "stop", "refused"]
    preferences = [row["preference"] for row in read(call, "annotations.json")]
    assert [i for i, p in enumerate(preferences) if p is None] == [3, 4, 6]


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_that_never_gives_a_verdict_is_a_failure(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(4)
    with FakeServer(lambda body, seen: "I cannot say.") as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind)
        with pytest.raises(HarnessError, match=r"4 replies.*'I cannot say\.'") as caught:
            judge.run(call)
    assert f"remove the work folder {call.folder} to ask again" in caught.value.hint
    assert len(read(call, "unjudged.jsonl")) == 4


VLLM_TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in the "
    "messages, Please reduce the length of the messages."
)


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_prompt_too_long_for_the_judge_is_unjudged_with_its_reason_and_the_rest_is_judged(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(6)

    def script(body: Row, seen: int) -> Answer:
        if "model 4" in last_message(body):
            error = {"message": VLLM_TOO_LONG, "type": "BadRequestError", "code": 400}
            return web.json_response({"error": error}, status=400)
        return likes_good(body, seen)

    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind)
        result = judge.run(call)
        assert len(server.requests) == 6
    metric = result.metrics["win_rate"]
    assert (metric.judged, metric.expected) == (5, 6)
    [unjudged] = read(call, "unjudged.jsonl")
    assert unjudged["instruction"] == outputs[4]["instruction"]
    assert unjudged["why"] == f"too_long: {VLLM_TOO_LONG}"
    assert "the server declined 1 of 6 requests for what is in them: too_long (1)" in result.notes


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_providers_error_inside_a_200_is_asked_again_and_no_verdict(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(4)
    failed = completion("", finish_reason="error")
    failed["choices"][0]["error"] = {"code": 502, "message": "provider gone"}

    def script(body: Row, seen: int) -> Answer:
        return likes_good(body, seen) if seen else web.json_response(failed)

    with FakeServer(script) as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline, kind))
        assert len(server.requests) == 8
    assert (result.counts["judged"], result.counts["unjudged"]) == (4, 0)


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_that_knows_another_limit_is_sent_it_under_that_name(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(4)

    def script(body: Row, seen: int) -> Answer:
        if "max_tokens" in body:
            return failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
        return likes_good(body, seen) if "max_completion_tokens" in body else "no"

    with FakeServer(script) as server:
        with pytest.raises(InputError) as caught:
            judge.run(make_call(tmp_path / "1", server.endpoint(), outputs, baseline, kind))
        assert "token_limit: max_completion_tokens" in caught.value.hint
        endpoint = server.endpoint(token_limit="max_completion_tokens")
        result = judge.run(make_call(tmp_path / "2", endpoint, outputs, baseline, kind))
    assert result.counts["judged"] == 4


def changing_models(body: Row, seen: int) -> Answer:
    model = "judge-B" if "Task 1 " in last_message(body) else "judge-A"
    return web.json_response(completion(str(likes_good(body, seen)), model=model))


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_that_becomes_another_model_is_flagged(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(4)
    with FakeServer(changing_models) as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline, kind))
    assert "the replies came from judge-A, judge-B" in result.notes
    assert result.used["served_models"] == ["judge-A", "judge-B"]
    [finding] = [one for one in result.findings if one.kind == "model_changed"]
    assert finding.evidence == {"judge-A": 3, "judge-B": 1}


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_that_becomes_another_model_stops_the_stage_where_the_spec_says_so(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(30)
    with FakeServer(changing_models) as server:
        endpoint = server.endpoint(concurrency=1)
        call = make_call(
            tmp_path, endpoint, outputs, baseline, kind, on_model_change="stop", asks=1
        )
        with pytest.raises(HarnessError, match=r"judge-A and as judge-B.*on_model_change: stop"):
            judge.run(call)
        # What was answered is kept, and nothing was asked after it.
        assert len(read(call, "transcript.jsonl")) == len(server.requests) < 30


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_an_unreadable_reply_is_asked_for_again_as_often_as_the_spec_says(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(6)

    def script(body: Row, seen: int) -> Answer:
        prompt = last_message(body)
        if "Task 2 " in prompt and seen < 2:
            return "Let me think."
        if "Task 4 " in prompt:
            return f"No. {seen}"
        if "Task 5 " in prompt:
            return failure(400, "filtered", code="content_filter")
        return likes_good(body, seen)

    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind, asks=3)
        result = judge.run(call)
        asked = [last_message(body) for body in server.requests]
        times = [sum(f"Task {i} " in prompt for prompt in asked) for i in range(6)]
        # A prompt that the server declines it declines again.
        assert times == [1, 1, 3, 1, 3, 1]
        # The next run finds them all in the transcript.
        again = judge.run(call)
        assert len(server.requests) == len(asked)
    assert again.metrics == result.metrics
    assert result.metrics["win_rate"].judged == 4
    assert [row["reply"] for row in read(call, "unjudged.jsonl")] == ["No. 2", ""]
    assert read(call, "annotations.json")[2]["preference"] == 1


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_replay_makes_every_kept_file_again_without_a_server(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(12)

    def script(body: Row, seen: int) -> Answer:
        return "Hm." if "Task 3 " in last_message(body) else likes_good(body, seen)

    with FakeServer(script) as server:
        endpoint = server.endpoint()
        call = make_call(tmp_path, endpoint, outputs, baseline, kind)
        result = judge.run(call)
    again = make_call(tmp_path / "again", endpoint, outputs, baseline, kind)
    transcript = (call.folder / "transcript.jsonl").read_bytes()
    (again.folder / "transcript.jsonl").write_bytes(transcript)
    replayed = judge.run(replace(again, replay=True))
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    assert (replayed.used, replayed.findings) == (result.used, result.findings)
    for name in result.keep:
        assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes(), name
    # In the same order in each process, whatever its sets' order is.
    columns = [name for name in read(call, "annotations.json")[0] if name.startswith("preference_")]
    assert columns == sorted(columns)
    # So does a transcript that the spec names in place of the judge, which is an artefact's own then.
    given = make_call(
        tmp_path / "given",
        endpoint,
        outputs,
        baseline,
        kind,
        transcript={"path": str(call.folder / "transcript.jsonl")},
    )
    assert judge.run(given).metrics == result.metrics
    assert (given.folder / "transcript.jsonl").read_bytes() == transcript


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_that_favours_a_place_is_found_out(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(60)
    word = {"preference": "a", "alpaca_eval": "Output (a)"}[kind]
    with FakeServer(lambda body, seen: word) as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline, kind))
        fair = make_call(tmp_path / "fair", server.endpoint(), outputs, baseline, kind)
        server._script = likes_good
        fair_result = judge.run(fair)
    bias = result.used["position_bias"]
    assert bias["shown_first"]["win_rate"] == 100
    assert bias["shown_second"]["win_rate"] == 0
    assert bias["shown_first"]["judged"] + bias["shown_second"]["judged"] == 60
    assert bias["p_value"] < 1e-9
    [finding] = result.findings
    assert (finding.kind, finding.evidence) == ("position_bias", bias)
    assert not any("shown first" in note for note in result.notes)
    # By the order as it is drawn such a judge lets every model win about half.
    assert 25 < result.metrics["win_rate"].value < 75
    assert fair_result.findings == []
    assert fair_result.used["position_bias"]["p_value"] > 0.01
    assert any("shown first the model wins" in note for note in fair_result.notes)


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_model_and_baseline_in_each_others_place_give_the_rest_of_100(
    tmp_path: Path, kind: str
) -> None:
    outputs, baseline = made_up(20)
    with FakeServer(likes_good) as server:
        one = judge.run(make_call(tmp_path / "1", server.endpoint(), outputs, baseline, kind))
        other = judge.run(make_call(tmp_path / "2", server.endpoint(), baseline, outputs, kind))
    value = one.metrics["win_rate"].value
    assert other.metrics["win_rate"].value == pytest.approx(100 - value)
    assert 0 < value < 50


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_the_reference_against_itself_wins_half_without_a_call(tmp_path: Path, kind: str) -> None:
    _, baseline = made_up(7)
    with FakeServer(likes_good) as server:
        result = judge.run(make_call(tmp_path, server.endpoint(), baseline, baseline, kind))
        assert server.requests == []
    metric = result.metrics["win_rate"]
    assert (metric.value, metric.draws, metric.judged) == (50.0, 7, 7)
    assert result.counts["identical"] == 7
    assert result.notes == ["7 of 7 outputs are the baseline's own: draws, not asked"]
    assert result.used["position_bias"]["p_value"] is None


def test_another_rows_outputs_can_be_the_reference(tmp_path: Path) -> None:
    outputs, baseline = made_up(6)
    with FakeServer(likes_good) as server:
        call = make_call(
            tmp_path, server.endpoint(), outputs, baseline, reference={"spec": "other.yaml"}
        )
        with pytest.raises(InputError, match="not given the outputs of the row"):
            judge.run(call)
        (tmp_path / "other").mkdir()
        (tmp_path / "other/model_outputs.json").write_text(json.dumps(baseline))
        call.inputs["baseline"] = str(tmp_path / "other")
        assert judge.run(call).metrics["win_rate"].wins == 2


def test_each_of_several_prompt_sets_has_its_own_win_rate(tmp_path: Path) -> None:
    outputs, baseline = made_up(9)
    # Task 0, which the model wins, is in both sets, and is judged once.
    sets = {"koala": outputs[:4], "vicuna": [outputs[0], *outputs[4:]]}
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), [*outputs[:4], *sets["vicuna"]], baseline)
        for name, rows in sets.items():
            prompts = [{"instruction": row["instruction"]} for row in rows]
            (tmp_path / f"{name}.json").write_text(json.dumps(prompts))
        files = {name: {"path": str(tmp_path / f"{name}.json")} for name in sets}
        call.params["prompts"] = {"files": files}
        result = judge.run(call)
        assert len(server.requests) == 9
    figures = {name: (m.wins, m.judged) for name, m in result.metrics.items()}
    assert figures == {"win_rate": (4, 10), "win_rate/koala": (2, 4), "win_rate/vicuna": (2, 6)}
    assert [row["dataset"] for row in read(call, "annotations.json")] == ["koala"] * 4 + [
        "vicuna"
    ] * 6


def test_prompts_are_told_apart_by_their_input_where_the_reference_has_inputs(
    tmp_path: Path,
) -> None:
    def rows(words: str, outputs: list[str]) -> list[Row]:
        return [
            {"instruction": "Sum up.", "input": given, "output": output, "generator": words}
            for given, output in zip("xy", outputs, strict=True)
        ]

    outputs, baseline = rows("model", ["GOOD", "bad"]), rows("base", ["base 0", "base 1"])
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline[::-1])
        judge.run(call)
        found = [
            (r["input"], r["output_1"], r["preference"]) for r in read(call, "annotations.json")
        ]
        assert found == [("x", "base 0", 2), ("y", "base 1", 1)]
        bare = [{k: v for k, v in row.items() if k != "input"} for row in baseline]
        call = make_call(tmp_path / "bare", server.endpoint(), outputs, bare[:1])
        with pytest.raises(InputError, match="no inputs, and 1 of the prompts' instructions come"):
            judge.run(call)


def test_a_whole_chunk_of_unreadable_replies_does_not_stop_the_package(tmp_path: Path) -> None:
    # alpaca_eval works in chunks of 128.
    outputs, baseline = made_up(130)

    def script(body: Row, seen: int) -> Answer:
        late = any(f"Task {i} " in last_message(body) for i in (128, 129))
        return "Output (a)" if late else "I cannot say."

    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval")
        result = judge.run(call)
    assert (result.counts["judged"], result.counts["unjudged"]) == (2, 128)


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (lambda: failure(401, "bad key"), InputError, "bad key"),
        (lambda: failure(404, "no model"), InputError, "does not know the model 'm'"),
        (lambda: failure(503), HarnessError, "no answer in 2 attempts"),
    ],
)
def test_a_failing_endpoint_ends_the_stage_with_its_own_message_and_nothing_is_lost(
    tmp_path: Path,
    kind: str,
    fault: Callable[[], Answer],
    error: type[HarnessError],
    said: str,
) -> None:
    outputs, baseline = made_up(10)
    broken = True

    def script(body: Row, seen: int) -> Answer:
        return fault() if broken and "Task 7 " in last_message(body) else likes_good(body, seen)

    with FakeServer(script) as server:
        endpoint = server.endpoint(max_attempts=2, concurrency=2)
        call = make_call(tmp_path, endpoint, outputs, baseline, kind)
        with pytest.raises(error, match=said):
            judge.run(call)
        answered = sum(record["ok"] for record in read(call, "transcript.jsonl"))
        assert answered > 0
        broken = False
        server.requests.clear()
        result = judge.run(call)
        assert len(server.requests) == 10 - answered
    assert result.metrics["win_rate"].judged == 10


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_the_budget_ends_the_stage_cleanly(tmp_path: Path, kind: str) -> None:
    outputs, baseline = made_up(10)
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, kind)
        call.budget["calls"] = 6
        with pytest.raises(HarnessError, match="budget of 6 calls is used up"):
            judge.run(call)
        call.budget["calls"] = 10
        judge.run(call)
        assert len(server.requests) == 10


def without(rows: list[Row], index: int) -> list[Row]:
    return rows[:index] + rows[index + 1 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o, b: (without(o, 2), b, o), "1 of 5 prompts have no output in .*'Task 2 "),
        (
            lambda o, b: (o, b, without(o, 2)),
            "1 of 5 outputs in .* are for prompts that are not.*'Task 2 ",
        ),
        (lambda o, b: (o, b[:3], o), "2 of 5 prompts have no baseline output in .*'Task 3 "),
        (lambda o, b: ([*o, o[1]], b, o), "1 instructions are in .* more than once.*'Task 1 "),
        (lambda o, b: (o, [*b, b[1]], o), "1 instructions are in .*reference.json more than once"),
        (
            lambda o, b: ([{**o[0], "output": None}, *o[1:]], b, o),
            "`output` must be a text, not null",
        ),
        (lambda o, b: (o, [{"instruction": o[0]["instruction"]}, *b[1:]], o), "no `output`"),
    ],
)
def test_outputs_prompts_and_reference_must_fit_before_any_call(
    tmp_path: Path, change: Callable[..., Any], said: str
) -> None:
    outputs, baseline, prompts = change(*made_up(5))
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, prompts=prompts)
        with pytest.raises(InputError, match=said):
            judge.run(call)
        assert server.requests == []


def test_a_reference_may_hold_more_than_the_prompts_and_prompts_more_than_the_first(
    tmp_path: Path,
) -> None:
    outputs, baseline = made_up(20)
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs[:6], baseline[::-1], prompts=outputs)
        call.params["prompts"]["first"] = 6
        result = judge.run(call)
    assert result.metrics["win_rate"].expected == 6
    assert result.metrics["win_rate"].wins == 2


def test_the_judge_sees_a_prompts_input(tmp_path: Path) -> None:
    outputs, baseline = made_up(3)
    outputs[0]["input"] = "the input"
    with FakeServer(likes_good) as server:
        judge.run(make_call(tmp_path, server.endpoint(), outputs, baseline))
        assert "I: Task 0 {output_a} of all.\nthe input\nA: " in last_message(server.requests[0])


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("a", "a"),
        ("B", "b"),
        ("tie", "tie"),
        ("Tie.", "tie"),
        (" **b**\n\nIt is shorter.", "b"),
        ("Output (a)", "a"),
        ("`b`", "b"),
        ("A is better than B.", "a"),
        ("B is the better one.", "b"),
        ("b, because a is wrong", "b"),
        ("B — a clear answer", "b"),
        ("Tie. Both are equally good.", "tie"),
        ('"b", because', "b"),
        ("a: it is right", "a"),
        ("B - it is right", "b"),
        ("A is better", "a"),
        ("output_b", "b"),
        ("a\nbecause b is wrong", "a"),
        ("A is worse than B.", None),
        ("B is wrong", None),
        ("B is better only in tone", None),
        ("Output (a) is not as good as output (b)", None),
        ("Output (b) best matches it.", None),
        ("A - fails. B - good.", None),
        ("a - weak; b - strong", None),
        ("a: worse", None),
        ("b: the answer is not complete", None),
        ("a: correct but terse\nb: correct and detailed\nSo b wins", None),
        ("a: short, correct\nb: correct and detailed", None),
        ("a\nSo b wins", None),
        ("b\n\nOutput (a) is better written", None),
        ("A. On reflection, output b is better", None),
        ("A, B: both are equally bad", None),
        ("a, whereas b is good", None),
        ("tie, but b", None),
        ("a/b", None),
        ("a?", None),
        ("", None),
        ("Both", None),
        ("neither", None),
        ("A better answer would be b", None),
        ("B better answers it", None),
        ("A's answer has errors", None),
        ("An answer", None),
        ("The better one is b", None),
        ("tied", None),
        ("c", None),
        ("I cannot help with that.", None),
    ],
)
def test_only_a_clear_verdict_at_the_start_is_one(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


def test_a_long_run_of_white_space_is_read_at_once() -> None:
    started = time.perf_counter()
    assert read_verdict("a\n" + "\n" * 100_000 + "x" + ". " * 50_000) == "a"
    assert time.perf_counter() - started < 1


def test_what_alpaca_eval_says_of_its_own_imports_is_in_no_log() -> None:
    code = "import harness.judge.kinds.alpaca_eval.package"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pkg_resources" not in done.stderr


def test_alpaca_evals_own_prompt_model_and_order_reach_the_judge(tmp_path: Path) -> None:
    import alpaca_eval

    package = Path(alpaca_eval.__file__).parent / "evaluators_configs/chatgpt"
    template = (package / "basic_prompt.txt").read_text()
    user = template.partition("<|im_start|>user\n")[2].partition("\n<|im_end|>")[0]
    outputs, baseline = made_up(8)
    with FakeServer(likes_good) as server:
        for replicate in (0, 1):
            server.requests.clear()
            folder = tmp_path / str(replicate)
            endpoint = server.endpoint(model="some-instruct-model")
            judge.run(make_call(folder, endpoint, outputs, baseline, "alpaca_eval", replicate))
            asked = {last_message(body): body for body in server.requests}
            for output, base in zip(outputs, baseline, strict=True):
                text = output["instruction"]
                switched = random.Random(f"is_switched_outputs{text}{replicate}").choices(
                    [False, True], k=1
                )[0]
                shown = (base["output"], output["output"])[:: -1 if switched else 1]
                prompt = user.replace("{output_1}", shown[0]).replace("{output_2}", shown[1])
                body = asked[prompt.replace("{instruction}", text).strip()]
                assert body["model"] == "some-instruct-model"
                assert (body["max_tokens"], body["temperature"]) == (50, 0)
                assert body.get("seed", 0) == replicate


def test_a_probability_judge_keeps_the_packages_fractions(tmp_path: Path) -> None:
    def weighs(body: Row, seen: int) -> Answer:
        assert body["logprobs"] is True
        raw = completion("m")
        top = [{"token": "m", "logprob": -0.5}, {"token": "M", "logprob": -1.5}]
        raw["choices"][0]["logprobs"] = {
            "content": [{"token": "m", "logprob": -0.5, "top_logprobs": top}]
        }
        return web.json_response(raw)

    outputs, baseline = made_up(6)
    with FakeServer(weighs) as server:
        call = make_call(
            tmp_path,
            server.endpoint(),
            outputs,
            baseline,
            "alpaca_eval",
            annotator="weighted_alpaca_eval_gpt4_turbo",
        )
        result = judge.run(call)
    preferences = {round(row["preference"], 6) for row in read(call, "annotations.json")}
    share = 0.6065306597126334 / (0.6065306597126334 + 0.22313016014842982)
    assert preferences == {round(2 - share, 6), round(1 + share, 6)}
    assert result.metrics["win_rate"].judged == 6


@pytest.mark.parametrize(
    ("annotator", "said"),
    [
        ("chatgtp", "no annotator 'chatgtp'\nNear: chatgpt, chatgpt_fn; there are"),
    ],
)
def test_an_annotator_that_cannot_be_used_is_bad_input(
    tmp_path: Path, annotator: str, said: str
) -> None:
    outputs, baseline = made_up(2)
    with FakeServer(likes_good) as server:
        call = make_call(
            tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval", annotator=annotator
        )
        with pytest.raises(InputError, match=said):
            judge.run(call)


def test_alpaca_eval_is_not_given_prompts_whose_input_it_would_hide(tmp_path: Path) -> None:
    outputs, baseline = made_up(2)
    outputs[0]["input"] = "the input"
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval")
        with pytest.raises(InputError, match="1 of 2 prompts have an input"):
            judge.run(call)


def test_outputs_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    outputs, baseline = made_up(3)
    for i, row in enumerate(outputs):
        row["output"] = f"00{i}"
    with FakeServer(likes_good) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval")
        judge.run(call)
        assert any("\n00" in last_message(body) for body in server.requests)
    assert [row["output_2"] for row in read(call, "annotations.json")] == ["000", "001", "002"]


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_real_prompts_and_baselines_with_the_simulated_judge(
    tmp_path: Path, shared_data: Path, kind: str
) -> None:
    reference = shared_data / "alpaca_eval/gpt4_1106_preview_outputs.json"
    baseline = json.loads(reference.read_text())[:12]
    outputs = [
        {"instruction": row["instruction"], "output": "x q" * i, "generator": "model"}
        for i, row in enumerate(baseline)
    ]
    from harness.spec.base import Endpoint

    faulty = {"429": 0.2, "cut": 0.1, "html": 0.1, "format": 0.2}
    endpoint = Endpoint.model_validate({"model": "sim", "simulated": {"seed": 2, "faults": faulty}})
    template = Path(__file__).parents[2] / "specs/smoke/prompts/judge.txt"
    prompt = {"prompt": {"path": "judge.txt", "text": template.read_text()}}
    call = make_call(
        tmp_path,
        endpoint,
        outputs,
        baseline,
        kind,
        reference={"path": str(reference)},
        **(prompt if kind == "preference" else {}),
    )
    result = judge.run(call)
    metric = result.metrics["win_rate"]
    assert 0 < metric.judged < metric.expected == 12
    assert metric.judged + len(read(call, "unjudged.jsonl")) == 12
    assert (metric.value, metric.wins) == (0.0, 0)
    assert result.simulated == ["judge"]
    attempts = [a["outcome"] for r in read(call, "transcript.jsonl") for a in r["attempts"]]
    unusable = sum(outcome.startswith("200, but") for outcome in attempts)
    assert unusable > 0
    twice = sum(record["occurrence"] == 1 for record in read(call, "transcript.jsonl"))
    assert twice > 0
    assert result.cost["attempts"] > result.cost["calls"] == 12 + twice + unusable
