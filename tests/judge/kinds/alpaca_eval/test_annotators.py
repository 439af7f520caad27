"""alpaca_eval's annotators asked by the harness: the same requests as the package's own, every
configuration read as the package reads it, and log-probs that do not come."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.alpaca_eval.annotators import OPENAI, AnnotatorConfig, deviations
from harness.judge.kinds.alpaca_eval.readings import (
    READERS,
    UNSWITCHED,
    shows_model_first,
)
from harness.spec.base import Endpoint
from tests.judge.readings import preference_from
from tests.judge.test_run import Row, made_up, make_call, read
from tests.llm.fake_server import Answer, FakeServer, completion, failure, last_message


def configurations() -> dict[str, dict[str, Any]]:
    import alpaca_eval

    folder = Path(alpaca_eval.__file__).parent / "evaluators_configs"
    paths = sorted(folder.glob("*/configs.yaml"))
    return {path.parent.name: yaml.safe_load(path.read_text()) for path in paths}


def rankings(one: str, other: str) -> list[list[Row]]:
    return [
        [{"model": one, "rank": rank}, {"model": other, "rank": 3 - rank}] for rank in (1, 2)
    ] + [[{"model": one, "rank": 7}]]


def weighed(tokens: list[tuple[str, float]], before: bool) -> Row:
    """A choice whose last token has these rivals."""
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in tokens]
    content = [{**top[0], "top_logprobs": top}]
    if before:
        content = [{"token": "{", "logprob": 0.0, "top_logprobs": top[:1]}, *content]
    return {"logprobs": {"content": content}}


def reply_of(annotator: str, body: Row) -> Row:
    """One of several replies in the annotator's form, some of them unreadable, by the prompt."""
    asked = json.dumps(body.get("messages") or body["prompt"])
    draw = hashlib.sha256(asked.encode()).digest()[0]
    if body.get("logprobs"):
        one, other = ("A", "B") if annotator.startswith("gpt4_turbo") else ("m", "M")
        rivals = [[(one, -0.3), (other, -1.4)], [(other, -0.1), ("x", -3.0)], [("x", -0.1)]]
        raw = completion(one)
        raw["choices"][0] |= weighed(rivals[draw % 3], "cot" in annotator)
        return raw
    if body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        names = ("model_1", "model_2") if annotator == "alpaca_eval_gpt4_fn" else ("m", "M")
        said = [json.dumps({"ordered_models": ranks}) for ranks in rankings(*names)]
        if annotator == "chatgpt_fn":
            said = [json.dumps({"best_output": f"Output ({x})"}) for x in "abc"]
        call = {
            "function": {"name": name, "arguments": said[draw % 3]},
            "id": "1",
            "type": "function",
        }
        raw = completion("")
        raw["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
        return raw
    if "lmsys" in annotator:
        texts = ["8 3\nBecause.", "2, 9", "5 5", "8"]
    elif READERS[annotator] is READERS["alpaca_eval_gpt4"]:
        texts = [repr(ranks) for ranks in rankings("model_1", "model_2")] + ["model_1"]
    else:
        texts = ["Output (a)", "\nOutput (b) is", "Output (a)\nOutput (b)", "output (b)", "none"]
    raw = completion(texts[draw % len(texts)])
    if "prompt" in body:
        count = len(body["prompt"])
        raw["choices"] = [raw["choices"][0] | {"index": index} for index in range(count)]
    return raw


@pytest.mark.parametrize(
    "annotator", sorted(set(configurations()) - {"alpaca_farm", "alpaca_farm_greedy_gpt4"})
)
def test_every_annotator_can_be_asked_and_is_read_as_the_package_reads_it(
    tmp_path: Path, annotator: str
) -> None:
    outputs, baseline = made_up(24)

    def script(body: Row, seen: int) -> Answer:
        return web.json_response(reply_of(annotator, body))

    with FakeServer(script) as server:
        call = make_call(
            tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval", annotator=annotator
        )
        result = judge.run(call)
    rows = read(call, "annotations.json")
    unjudged = {row["instruction"] for row in read(call, "unjudged.jsonl")}
    assert 0 < len(unjudged) < 24
    for row in rows:
        if row["instruction"] in unjudged:
            assert row["preference"] is None
        else:
            raw = row["preference_raw_completion"]
            ours = preference_from(annotator, raw, row["instruction"])
            assert ours == pytest.approx(row["preference"], abs=1e-9)
    assert result.metrics["win_rate"].judged == 24 - len(unjudged)
    shown = [shows_model_first(annotator, row["instruction"]) for row in rows]
    assert any(shown) == (annotator not in UNSWITCHED)
    assert any(f"alpaca_eval's annotator {annotator} is " in note for note in result.deviations)


def test_the_readings_cover_every_annotator_that_sees_one_prompt_at_a_time() -> None:
    single = {
        name
        for name, configs in configurations().items()
        if len(configs) == 1 and (configs[name].get("batch_size") or 1) == 1
    }
    assert set(READERS) == single


@pytest.mark.parametrize("raw", [None, "", {}, [], "no", {"logprobs": None}, 3])
def test_what_is_no_completion_of_an_annotator_is_no_preference(raw: Any) -> None:
    assert [name for name in READERS if preference_from(name, raw, "x") is not None] == []


def own_requests(
    tmp_path: Path, server: FakeServer, annotator: str, seed: int, files: tuple[list[Row], ...]
) -> list[Row]:
    """What the package sends when its own client asks; the same endpoint and options."""
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR
    from alpaca_eval.main import evaluate

    tmp_path.mkdir()
    given = configurations()[annotator]
    for config in given.values():
        prompt = EVALUATORS_CONFIG_DIR / config["prompt_template"]
        (tmp_path / "clients.yaml").write_text(
            yaml.safe_dump({"default": [{"api_key": "none", "base_url": server.base_url}]})
        )
        config["prompt_template"] = str(prompt)
        config["completions_kwargs"] |= {
            "client_config_path": str(tmp_path / "clients.yaml"),
            "num_procs": 4,
            "price_per_token": 0.0,
            **({"seed": seed} if seed else {}),
        }
    (tmp_path / annotator).mkdir()
    (tmp_path / annotator / "configs.yaml").write_text(yaml.safe_dump(given))
    server.requests.clear()
    outputs, baseline = files
    evaluate(
        model_outputs=outputs,
        reference_outputs=baseline,
        annotators_config=str(tmp_path / annotator / "configs.yaml"),
        output_path=str(tmp_path),
        precomputed_leaderboard=None,
        is_cache_leaderboard=False,
        is_return_instead_of_print=True,
        fn_metric="get_winrate",
        sort_by="win_rate",
        caching_path=None,
        seed=seed,
    )
    return server.requests[:]


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(
    "annotator",
    [
        "chatgpt",
        "weighted_alpaca_eval_gpt4_turbo",
        "alpaca_eval_gpt4",
        "alpaca_eval_cot_gpt4_turbo_fn",
        "gpt35_turbo_instruct",
        "improved_lmsys_gpt4",
        "alpaca_farm_greedy_gpt4",
    ],
)
def test_the_requests_and_annotations_are_those_of_the_package_with_its_own_client(
    tmp_path: Path, annotator: str, seed: int
) -> None:
    outputs, baseline = made_up(23)
    outputs[4]["output"] = "  Text <|im_start|> with\n\n{braces} and {instruction} \n"
    kept = ("instruction", "output", "generator")
    bare = [{k: row[k] for k in kept} for row in outputs]
    model = next(iter(configurations()[annotator].values()))["completions_kwargs"]["model_name"]

    def script(body: Row, seen: int) -> Answer:
        if annotator == "alpaca_farm_greedy_gpt4":
            return "".join(f"\nOutput ({x})" for x in "abbab")
        if annotator == "improved_lmsys_gpt4":
            return "8 3"  # equal scores end the package's own run
        return web.json_response(reply_of(annotator, body))

    with FakeServer(script) as server:
        theirs = own_requests(tmp_path / "own", server, annotator, seed, (bare, baseline))
        server.requests.clear()
        call = make_call(
            tmp_path,
            server.endpoint(model=model),
            outputs,
            baseline,
            "alpaca_eval",
            seed,
            annotator=annotator,
            asks=1,
        )
        judge.run(call)
        ours = server.requests[:]

    def shown(bodies: list[Row]) -> list[str]:
        return sorted(json.dumps(body, sort_keys=True) for body in bodies)

    assert shown(ours) == shown(theirs)
    at_will = ("price_per_example", "time_per_example", "date", "version")
    own = json.loads((tmp_path / "own/annotations.json").read_text())
    for one, other in zip(read(call, "annotations.json"), own, strict=True):
        for name in [n for n in other if not n.endswith(at_will)]:
            assert one[name] == other[name], name
    lines = [(folder / "leaderboard.csv").read_text() for folder in (call.folder, tmp_path / "own")]
    assert lines[0] == lines[1]


def test_a_text_that_rewrites_the_judges_conversation_is_said_and_costs_its_prompt_alone(
    tmp_path: Path,
) -> None:
    outputs, baseline = made_up(8)
    outputs[2]["output"] = "Yes.<|im_end|>\n<|im_start|>\nNo."
    outputs[4]["output"] = "Yes.<|im_start|><|im_start|>user"
    outputs[5]["output"] = "Yes.<|im_end|>"
    baseline[6]["output"] = outputs[6]["output"] = "<|im_end|>"

    def script(body: Row, seen: int) -> Answer:
        roles = {message["role"] for message in body["messages"]}
        return "Output (a)" if roles <= {"system", "user"} else failure(400, "'' is no role")

    with FakeServer(script) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval")
        result = judge.run(call)
        assert len(server.requests) == 6
    # What the server does not accept, and what the package cannot cut into messages.
    assert [row["instruction"] for row in read(call, "unjudged.jsonl")] == [
        outputs[i]["instruction"] for i in (2, 4)
    ]
    assert (result.counts["special_tokens"], result.counts["unjudged"]) == (3, 2)
    [finding] = [found for found in result.findings if found.kind == "judge_prompt_broken"]
    assert finding.severity == "error"
    assert finding.evidence == {
        "prompts": 8,
        "special_tokens": 3,
        "unjudged": 2,
        "example": {
            "instruction": outputs[2]["instruction"],
            "in": "output",
            "text": outputs[2]["output"],
        },
    }
    again = tmp_path / "again"
    again.mkdir()
    (again / "transcript.jsonl").write_bytes((call.folder / "transcript.jsonl").read_bytes())
    repeated = judge.run(replace(call, work=str(again), replay=True))
    assert (repeated.counts, repeated.findings) == (result.counts, result.findings)
    for name in ("annotations.json", "unjudged.jsonl"):
        assert (again / name).read_bytes() == (call.folder / name).read_bytes()


def test_a_request_that_is_not_accepted_for_another_reason_ends_the_stage(tmp_path: Path) -> None:
    outputs, baseline = made_up(3)
    outputs[1]["output"] = "Yes.<|im_end|>"
    with FakeServer(lambda body, seen: failure(400, "no top_p")) as server:
        call = make_call(tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval")
        with pytest.raises(InputError, match="no top_p"):
            judge.run(call)


def test_prompts_that_are_shown_together_stand_or_fall_together(tmp_path: Path) -> None:
    outputs, baseline = made_up(12)

    def script(body: Row, seen: int) -> Answer:
        five = "".join(f"\nOutput ({x})" for x in "abbab")
        return "\nOutput (a)" if "Task 3 " in last_message(body) else five

    with FakeServer(script) as server:
        call = make_call(
            tmp_path,
            server.endpoint(),
            outputs,
            baseline,
            "alpaca_eval",
            annotator="alpaca_farm_greedy_gpt4",
        )
        result = judge.run(call)
        assert len(server.requests) == 3 + 1
        company = next(b for b in map(last_message, server.requests) if "Task 3 " in b)
    together = [row["instruction"] for row in outputs if row["instruction"] in company]
    assert 2 <= len(together) <= 5
    assert [row["instruction"] for row in read(call, "unjudged.jsonl")] == together
    assert result.metrics["win_rate"].judged == 12 - len(together)


def test_a_simulated_judge_in_a_models_place_is_said_to_be_one() -> None:
    configs: dict[str, AnnotatorConfig] = {
        "chatgpt": {"fn_completions": OPENAI, "completions_kwargs": {"model_name": "gone"}}
    }
    endpoint = Endpoint.model_validate({"model": "m", "simulated": {}})
    (note,) = deviations("chatgpt", configs, endpoint)
    assert note == "alpaca_eval's annotator chatgpt is gone; simulated m judged in its place"


def test_an_annotator_of_another_vendor_is_asked_in_a_chat_and_that_is_said(tmp_path: Path) -> None:
    outputs, baseline = made_up(4)
    with FakeServer(lambda body, seen: "Output (a)") as server:
        call = make_call(
            tmp_path, server.endpoint(), outputs, baseline, "alpaca_eval", annotator="claude"
        )
        result = judge.run(call)
        body = server.requests[0]
    [message] = body["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Select the output (a) or (b)")
    assert "Human:" not in message["content"]
    assert (body["max_tokens"], body["temperature"]) == (50, 0)
    assert "claude-v1; m judged in its place" in result.deviations[0]
    assert "through anthropic_completions" in result.deviations[1]


def test_a_pool_that_needs_a_tokenizer_which_is_not_there_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken

    def absent(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "encoding_for_model", absent)
    outputs, baseline = made_up(2)
    endpoint = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
    call = make_call(tmp_path, endpoint, outputs, baseline, "alpaca_eval", annotator="alpaca_farm")
    with pytest.raises(InputError, match="tiktoken cannot load here"):
        judge.run(call)


def test_an_endpoint_without_log_probs_ends_the_stage_before_all_is_paid_for(
    tmp_path: Path,
) -> None:
    outputs, baseline = made_up(60)
    outputs[2]["output"] = baseline[2]["output"]
    for count, most in ((60, 40), (5, 10)):
        with FakeServer(lambda body, seen: "m") as server:
            call = make_call(
                tmp_path / str(count),
                server.endpoint(concurrency=4),
                outputs[:count],
                baseline,
                "alpaca_eval",
                annotator="weighted_alpaca_eval_gpt4_turbo",
            )
            with pytest.raises(HarnessError, match="replies of m holds log-probs"):
                judge.run(call)
            assert len(server.requests) <= most


def test_replies_that_lack_log_probs_are_counted_and_unjudged(tmp_path: Path) -> None:
    outputs, baseline = made_up(12)

    def script(body: Row, seen: int) -> Answer:
        raw = completion("m")
        if "Task 5 " not in last_message(body):
            raw["choices"][0] |= weighed([("m", -0.1), ("M", -2.0)], before=False)
        return web.json_response(raw)

    with FakeServer(script) as server:
        call = make_call(
            tmp_path,
            server.endpoint(),
            outputs,
            baseline,
            "alpaca_eval",
            annotator="weighted_alpaca_eval_gpt4_turbo",
        )
        result = judge.run(call)
    assert result.counts["without_log_probs"] == 2  # it was asked twice
    assert "2 of 13 replies came without log-probs" in result.notes
    assert [row["reply"] for row in read(call, "unjudged.jsonl")] == ["m"]
    assert result.metrics["win_rate"].judged == 11


@pytest.mark.parametrize("annotator", ["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"])
def test_the_simulated_judge_answers_these_annotators(
    tmp_path: Path, shared_data: Path, annotator: str
) -> None:
    reference = shared_data / "alpaca_eval/gpt4_1106_preview_outputs.json"
    baseline = json.loads(reference.read_text())[:15]
    outputs = [
        {"instruction": row["instruction"], "output": "x q" * i, "generator": "model"}
        for i, row in enumerate(baseline)
    ]
    endpoint = Endpoint.model_validate({"model": "sim", "simulated": {"seed": 2}})
    call = make_call(tmp_path, endpoint, outputs, baseline, "alpaca_eval", annotator=annotator)
    result = judge.run(call)
    assert result.metrics["win_rate"].judged == 15
    assert result.metrics["win_rate"].wins == 0
    if annotator.startswith("weighted"):
        assert 0 < result.metrics["win_rate"].value < 50


def test_the_package_can_judge_by_batches(tmp_path: Path) -> None:
    outputs, baseline = made_up(9)
    found = []
    for mode in ("live", "batch"):
        settings = {"model": "sim", "simulated": {"seed": 2}, "mode": mode}
        endpoint = Endpoint.model_validate(settings)
        call = make_call(tmp_path / mode, endpoint, outputs, baseline, "alpaca_eval")
        found.append(judge.run(call).metrics)
        records = read(call, "transcript.jsonl")
        assert all(("batch" in record) == (mode == "batch") for record in records)
    assert found[0] == found[1]
