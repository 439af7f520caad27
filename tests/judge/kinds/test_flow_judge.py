"""Flow Judge: rubrics, what the judge is shown, replies that score, and runs with every engine."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.answer.engines.transformers import engine as local
from harness.answer.prompts import Prompt
from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.flow_judge import Rubric, RubricJudge
from harness.judge.kinds.flow_judge.judge import rubric_metric
from harness.judge.kinds.flow_judge.rubrics import inputs_for, load_rubric, prompt_of, read_reply
from harness.modeling.load import bytes_tokenizer
from harness.sim.grammar import draw, teachable_tasks
from tests.llm.fake_server import Answer, FakeServer, last_message
from tests.modeling.calls import MODEL, random_model, write_jsonl

Row = dict[str, Any]

OWN = {
    "name": "tone",
    "criteria": "Is the answer friendly?",
    "scores": [
        {"score": 3, "description": "Friendly."},
        {"score": 1, "description": "Rude."},
        {"score": 2, "description": "Neither."},
    ],
    "inputs": ["query"],
}


def reply(score: object, feedback: str = "So so.") -> str:
    return f"<feedback>\n{feedback}\n</feedback>\n<score>\n{score}\n</score>"


def test_a_preset_is_found_whatever_its_case_and_needs_no_engine() -> None:
    rubric = load_rubric("Response_Faithfulness_5POINT")
    assert rubric.name == "response_faithfulness_5point"
    assert [line.score for line in rubric.scores] == [1, 2, 3, 4, 5]
    assert rubric.inputs == ["query", "context"]
    assert not any(name.startswith("flow_judge") for name in sys.modules)


@pytest.mark.parametrize(
    ("name", "scores"), [("binary", [0, 1]), ("3point", [1, 2, 3]), ("5point", [1, 2, 3, 4, 5])]
)
def test_the_three_scales_are_there(name: str, scores: list[int]) -> None:
    found = load_rubric(f"response_correctness_{name}")
    assert [line.score for line in found.scores] == scores
    assert found.inputs == ["query", "reference_answer"]


def test_an_unknown_preset_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="no rubric 'faithful'") as error:
        load_rubric("faithful")
    assert "response_relevance_binary" in str(error.value.hint)


def test_the_prompt_shows_every_input_the_output_and_the_scores_in_order() -> None:
    rubric = Rubric.model_validate(OWN)
    text = prompt_of(rubric, {"query": "Say {hello}."}, "Hello {you}!")
    assert "<inputs>\n<query>\nSay {hello}.\n</query>\n</inputs>" in text
    assert "<output>\n<response>\nHello {you}!\n</response>\n</output>" in text
    assert "- Score 1: Rude.\n- Score 2: Neither.\n- Score 3: Friendly." in text
    assert "<evaluation_criteria>\nIs the answer friendly?\n</evaluation_criteria>" in text


def test_a_rubric_without_inputs_shows_none() -> None:
    text = prompt_of(Rubric.model_validate({**OWN, "inputs": []}), {}, "Hello!")
    assert "<inputs>" not in text
    assert "<response>\nHello!\n</response>" in text


def test_the_prompt_is_the_packages_own() -> None:
    """Against the package's own class, in a process of its own: it brings torch along."""
    program = """
import json
from flow_judge import EvalInput, FlowJudge
from flow_judge.metrics import RESPONSE_FAITHFULNESS_3POINT
from harness.judge.kinds.flow_judge.rubrics import load_rubric, prompt_of
shown = {"query": "Say it.", "context": "It is {so}."}
given = EvalInput(inputs=[{k: v} for k, v in shown.items()], output={"response": "It is."})
theirs = FlowJudge.__new__(FlowJudge)
theirs.metric = RESPONSE_FAITHFULNESS_3POINT
rubric = load_rubric("response_faithfulness_3point")
assert theirs._format_prompt(given) == prompt_of(rubric, shown, "It is.")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (reply(2), 2),
        ("Sure.\n<feedback>Good.</feedback>\n<score>3</score> That is all.", 3),
        (reply(4), None),
        (reply(-1), None),
        (reply("2.5"), None),
        (reply("two"), None),
        ("<feedback>quote <score>1</score></feedback><score>3</score>", 3),
        ("<think>or <score>1</score></think><feedback>f</feedback><score>3</score>", 3),
        ("or <score>1</score></think><feedback>f</feedback><score>3</score>", 3),
        ("<feedback>f</feedback><score>3</score><score>3</score>", 3),
        ("<feedback>f</feedback><score>3</score><score>2</score>", None),
        ("<feedback>f</feedback><score>3</score><score>two</score>", None),
        ("<feedback>f, so <score>3</score></feedback>", None),
        ("<think><feedback>f</feedback><score>3</score>", None),
        ("<score>2</score>", None),
        ("<feedback>Good.</feedback>", None),
        ("<feedback>Good.</feedback><score>2", None),
        ("", None),
    ],
)
def test_a_reply_scores_only_with_both_tags_and_a_score_of_the_rubric(
    text: str, score: int | None
) -> None:
    read = read_reply(Rubric.model_validate(OWN), text)
    assert (None if read is None else read.score) == score


def test_an_unread_reply_is_no_score_even_where_minus_one_is_one() -> None:
    """The package writes -1 for what it cannot read."""
    scores = [{"score": -1, "description": "Bad."}, {"score": 1, "description": "Good."}]
    rubric = Rubric.model_validate({**OWN, "scores": scores})
    assert read_reply(rubric, "I like it.") is None


def prompts_with(*fields: Row) -> list[Prompt]:
    return [Prompt("Say it.", f.get("input", ""), fields=f) for f in fields]


def test_the_query_is_the_instruction_with_its_input_unless_it_is_mapped() -> None:
    rubric = Rubric.model_validate(OWN)
    prompts = prompts_with({"input": "Loud.", "asked": "Will you say it?"})
    assert inputs_for(rubric, prompts, {}) == [{"query": "Say it.\nLoud."}]
    assert inputs_for(rubric, prompts, {"query": "asked"}) == [{"query": "Will you say it?"}]
    assert inputs_for(rubric, prompts, {"query": "instruction"}) == [{"query": "Say it."}]


def test_an_input_is_the_field_of_its_name_or_the_mapped_one() -> None:
    rubric = load_rubric("response_faithfulness_binary")
    prompts = prompts_with({"context": "One.", "passages": ["Two.", "Three."]})
    assert inputs_for(rubric, prompts, {})[0]["context"] == "One."
    mapped = inputs_for(rubric, prompts, {"context": "passages"})
    assert mapped[0]["context"] == "Two.\n\nThree."


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        (({"passage": "One."}, {"passage": "Two."}), "no prompt has it"),
        (({"context": ""}, {"context": " \n"}), "it is empty in all 2 prompts"),
        (({"context": ""}, {"passage": "Two."}), "it is empty in all 2 prompts"),
    ],
)
def test_an_input_that_no_prompt_has_is_an_error_that_names_the_field(
    fields: tuple[Row, ...], wrong: str
) -> None:
    rubric = load_rubric("response_faithfulness_binary")
    with pytest.raises(InputError, match=f"'context' of the prompt set: {wrong}") as error:
        inputs_for(rubric, prompts_with(*fields), {})
    assert "judge.fields: {context: FIELD}" in str(error.value.hint)


def test_a_field_that_is_no_text_and_a_mapping_to_no_input_are_refused() -> None:
    rubric = load_rubric("response_faithfulness_binary")
    with pytest.raises(InputError, match="must be a text or a list of texts, not 5"):
        inputs_for(rubric, prompts_with({"context": 5}), {})
    with pytest.raises(InputError, match=r"names contxt, and the rubric .* query, context"):
        inputs_for(rubric, prompts_with({"context": "One."}), {"contxt": "context"})


def test_the_mean_its_error_and_its_bounds_count_only_what_was_scored() -> None:
    rubric = Rubric.model_validate(OWN)
    metric = rubric_metric(rubric, [1, 3, 3, None])
    assert metric is not None
    assert metric.value == pytest.approx(7 / 3)
    deviation = math.sqrt((2 * (2 / 3) ** 2 + (4 / 3) ** 2) / 2)
    assert metric.standard_error == pytest.approx(deviation / math.sqrt(3))
    assert (metric.judged, metric.expected) == (3, 4)
    assert (metric.lower_bound, metric.upper_bound) == (2.0, 2.5)
    assert [metric.further[f"score_{n}"] for n in (1, 2, 3)] == [1, 0, 2]
    one = rubric_metric(rubric, [2])
    assert one is not None
    assert (one.value, one.standard_error) == (2, None)
    assert rubric_metric(rubric, [None, None]) is None


def make_call(
    folder: Path,
    engine: Row,
    prompts: list[Row],
    outputs: list[str] | None = None,
    rubric: Any = OWN,
    replicate: int = 0,
    files: Row | None = None,
    **settings: Any,
) -> StageCall:
    for name in ("work", "outputs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    texts = outputs or [f"answer {number}" for number in range(len(prompts))]
    rows = [
        {
            "instruction": prompt["instruction"],
            **({"input": prompt["input"]} if "input" in prompt else {}),
            "output": text,
            "generator": "model",
        }
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    (folder / "outputs/model_outputs.json").write_text(json.dumps(rows))
    (folder / "prompts.json").write_text(json.dumps(prompts))
    params = {
        "judge": {"kind": "flow_judge", "engine": engine, "rubric": rubric, **settings},
        "prompts": files or {"file": {"path": str(folder / "prompts.json")}},
        "replicate": replicate,
    }
    inputs = {"outputs": str(folder / "outputs")}
    return StageCall("judge", "k", params, inputs, str(folder / "work"))


def served(endpoint: Any, **settings: Any) -> Row:
    return {"kind": "endpoint", "endpoint": endpoint.model_dump(mode="json"), **settings}


def read(call: StageCall, name: str) -> Any:
    text = (call.folder / name).read_text()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


TASKS = [{"instruction": f"Task {number}."} for number in range(4)]


def by_number(body: Row, seen: int) -> Answer:
    """1 for task 0, 2 for task 1, 3 for the others."""
    number = int(last_message(body).partition("Task ")[2][0])
    return reply(min(number + 1, 3), f"For {number}.")


def test_each_output_is_scored_on_the_rubric(tmp_path: Path) -> None:
    with FakeServer(by_number) as server:
        call = make_call(tmp_path, served(server.endpoint()), TASKS)
        result = judge.run(call)
        bodies = server.requests
    assert len(bodies) == 4
    assert (bodies[0]["temperature"], bodies[0]["top_p"], bodies[0]["max_tokens"]) == (
        0.1,
        0.95,
        1000,
    )
    assert any("<response>\nanswer 2\n</response>" in last_message(body) for body in bodies)
    metric = result.metrics["rubric_score"]
    assert metric.value == pytest.approx(9 / 4)
    assert [metric.further[f"score_{n}"] for n in (1, 2, 3)] == [1, 1, 2]
    rows = read(call, "annotations.json")
    assert [row["score"] for row in rows] == [1, 2, 3, 3]
    wanted = {
        "instruction": "Task 1.",
        "output_2": "answer 1",
        "generator_2": "model",
        "inputs": {"query": "Task 1."},
        "feedback": "For 1.",
        "raw_completion": reply(2, "For 1."),
    }
    assert wanted.items() <= rows[1].items()
    assert read(call, "unjudged.jsonl") == []
    assert result.used["served_models"] == ["served-1"]
    assert result.keep == ["annotations.json", "unjudged.jsonl", "transcript.jsonl"]


def test_what_cannot_be_read_is_asked_again_and_never_averaged_in(tmp_path: Path) -> None:
    def script(body: Row, seen: int) -> Answer:
        text = last_message(body)
        if "Task 1." in text:
            return reply(7)
        if "Task 2." in text:
            return "<score>3</score>" if seen == 0 else reply(3)
        return by_number(body, seen)

    with FakeServer(script) as server:
        call = make_call(tmp_path, served(server.endpoint()), TASKS, asks=2)
        result = judge.run(call)
        assert len(server.requests) == 4 + 2
    metric = result.metrics["rubric_score"]
    assert metric.value == pytest.approx((1 + 3 + 3) / 3)
    assert (metric.judged, metric.expected) == (3, 4)
    assert (metric.lower_bound, metric.upper_bound) == (2.0, 2.5)
    assert (result.counts["unparsed"], result.counts["judged"]) == (1, 3)
    [row] = read(call, "unjudged.jsonl")
    assert (row["instruction"], row["why"], row["reply"]) == ("Task 1.", "unparsed", reply(7))
    assert read(call, "annotations.json")[1]["score"] is None


def test_a_prompt_that_the_server_has_no_room_for_is_unjudged_with_its_reason(
    tmp_path: Path,
) -> None:
    message = "request (5000 tokens) exceeds the available context size (4096 tokens)"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error"}

    def script(body: Row, seen: int) -> Answer:
        if "Task 1." in last_message(body):
            return web.json_response({"error": error}, status=400)
        return by_number(body, seen)

    with FakeServer(script) as server:
        call = make_call(tmp_path, served(server.endpoint()), TASKS, asks=2)
        result = judge.run(call)
        assert len(server.requests) == 4
    assert (result.counts["judged"], result.counts["unparsed"]) == (3, 1)
    [row] = read(call, "unjudged.jsonl")
    assert row["why"] == f"too_long: {message}"


def test_a_prompt_without_context_is_counted_and_not_judged(tmp_path: Path) -> None:
    prompts = [{**task, "passage": "It is so."} for task in TASKS]
    prompts[2]["passage"] = "  "
    with FakeServer(lambda body, seen: reply(4)) as server:
        call = make_call(
            tmp_path,
            served(server.endpoint()),
            prompts,
            rubric="response_faithfulness_5point",
            fields={"context": "passage"},
        )
        result = judge.run(call)
        assert len(server.requests) == 3
        assert all(
            "<context>\nIt is so.\n</context>" in last_message(body) for body in server.requests
        )
    metric = result.metrics["rubric_score"]
    assert (metric.value, metric.judged, metric.expected) == (4, 3, 4)
    assert (metric.lower_bound, metric.upper_bound) == (13 / 4, 17 / 4)
    assert result.counts["missing_context"] == 1
    [finding] = result.findings
    assert finding.kind == "missing_context"
    assert finding.evidence["inputs"] == {"context": 1}
    [row] = read(call, "unjudged.jsonl")
    assert (row["why"], row["missing"]) == ("missing_context", ["context"])


def test_a_judge_is_shown_an_empty_context_where_the_spec_asks_for_it_and_the_row_says_so(
    tmp_path: Path,
) -> None:
    with FakeServer(lambda body, seen: reply(4)) as server:
        call = make_call(
            tmp_path,
            served(server.endpoint()),
            TASKS,
            rubric="response_faithfulness_5point",
            empty=["context"],
        )
        result = judge.run(call)
        assert all("<context>\n\n</context>" in last_message(body) for body in server.requests)
    metric = result.metrics["rubric_score"]
    assert (metric.judged, metric.expected) == (4, 4)
    assert result.counts["missing_context"] == 0
    [finding] = result.findings
    assert (finding.kind, finding.evidence["inputs"]) == ("missing_context", ["context"])
    with pytest.raises(InputError, match=r"judge\.empty names contxt"):
        inputs_for(load_rubric("response_faithfulness_5point"), prompts_with({}), {}, ["contxt"])


def test_of_a_conversation_the_judge_can_be_shown_the_last_question_alone() -> None:
    prompt = Prompt("User: a?\n\nAssistant: A.\n\nUser: b?", "", question="b?")
    rubric = Rubric.model_validate(OWN)
    assert inputs_for(rubric, [prompt], {}) == [{"query": prompt.instruction}]
    assert inputs_for(rubric, [prompt], {"query": "asked"}) == [{"query": "b?"}]


def test_a_set_without_the_context_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with (
        FakeServer(lambda body, seen: reply(1)) as server,
        pytest.raises(InputError, match="context"),
    ):
        judge.run(
            make_call(
                tmp_path, served(server.endpoint()), TASKS, rubric="response_relevance_binary"
            )
        )
    assert server.requests == []


def test_a_judge_that_talks_nonsense_is_an_error_that_shows_it(tmp_path: Path) -> None:
    with (
        FakeServer(lambda body, seen: "As a language model I like it.") as server,
        pytest.raises(HarnessError, match=r"none of the judge's 4 replies.*As a language model"),
    ):
        judge.run(make_call(tmp_path, served(server.endpoint()), TASKS))


def test_each_of_several_sets_has_its_own_mean(tmp_path: Path) -> None:
    files = {}
    for name, tasks in (("one", TASKS[:1]), ("rest", TASKS[1:])):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(tasks))
        files[name] = {"path": str(path)}
    with FakeServer(by_number) as server:
        engine = served(server.endpoint())
        result = judge.run(make_call(tmp_path, engine, TASKS, files={"files": files}))
    assert result.metrics["rubric_score/one"].value == 1
    assert result.metrics["rubric_score/rest"].value == pytest.approx(8 / 3)
    assert result.metrics["rubric_score"].expected == 4


def test_a_replicate_has_the_next_seed_and_a_system_message_is_sent(tmp_path: Path) -> None:
    with FakeServer(by_number) as server:
        engine = served(server.endpoint(), system="Be fair.")
        judge.run(make_call(tmp_path, engine, TASKS[:1], replicate=3))
        [body] = server.requests
    assert body["seed"] == 3
    assert body["messages"][0] == {"role": "system", "content": "Be fair."}


def test_a_replay_makes_every_file_again_without_the_endpoint(tmp_path: Path) -> None:
    def script(body: Row, seen: int) -> Answer:
        return by_number(body, seen) if seen or "Task 3" not in last_message(body) else "?"

    with FakeServer(script) as server:
        engine = served(server.endpoint())
        call = make_call(tmp_path, engine, TASKS)
        result = judge.run(call)
    other = make_call(tmp_path / "again", engine, TASKS)
    (other.folder / "transcript.jsonl").write_bytes((call.folder / "transcript.jsonl").read_bytes())
    inputs = {**other.inputs, "recorded": str(call.folder)}
    again = StageCall("judge", "k", call.params, inputs, other.work, replay=True)
    replayed = judge.run(again)
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    for name in result.keep:
        assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes()


def test_the_simulated_judge_prefers_right_answers(tmp_path: Path) -> None:
    tasks = draw(teachable_tasks(), 20, "rubric")
    prompts = [{"instruction": task.text, "reference_answer": task.output} for task in tasks]
    engine = {"kind": "endpoint", "endpoint": {"model": "judge", "simulated": {}}}
    values = []
    for name, outputs in (
        ("right", [task.output for task in tasks]),
        ("wrong", ["I do not know."] * 20),
    ):
        call = make_call(
            tmp_path / name, engine, prompts, outputs, rubric="Response_Correctness_5point"
        )
        result = judge.run(call)
        assert result.simulated == ["judge"]
        assert result.metrics["rubric_score"].judged == 20
        values.append(result.metrics["rubric_score"].value)
    assert values[0] > 4.5
    assert values[1] < 3


LOCAL = {"kind": "transformers", "threads": 1, "batch_size": 3}
SHORT = {"temperature": 0.1, "top_p": 0.95, "max_tokens": 6}


def local_call(folder: Path, count: int = 4, **settings: Any) -> StageCall:
    plain = {"prompt": {"path": "p", "text": "{instruction}\n"}}
    return make_call(
        folder,
        LOCAL,
        TASKS[:count],
        model=random_model(max_position_embeddings=8192),
        template=plain,
        **{"sampling": SHORT, **settings},
    )


def test_a_model_that_knows_nothing_gives_no_number(tmp_path: Path) -> None:
    call = local_call(tmp_path)
    with pytest.raises(HarnessError, match="none of the judge's 4 replies") as error:
        judge.run(call)
    assert "replies-" in str(error.value.hint)
    assert len(read(call, "unjudged.jsonl")) == 4
    first, second = read(call, "replies-1.jsonl"), read(call, "replies-2.jsonl")
    assert sorted(row["index"] for row in first) == sorted(row["index"] for row in second)
    assert [row["output"] for row in first] != [row["output"] for row in second]
    assert all(row["finish_reason"] == "length" and row["tokens"] == 6 for row in first)


def test_a_greedy_local_judge_is_asked_once(tmp_path: Path) -> None:
    call = local_call(tmp_path, count=1, sampling={"temperature": 0, "max_tokens": 4})
    with pytest.raises(HarnessError, match="none of the judge's 1 replies"):
        judge.run(call)
    assert not (call.folder / "replies-2.jsonl").exists()


def row(index: int, text: str) -> Row:
    return {
        "index": index,
        "output": text,
        "finish_reason": "stop",
        "tokens": 9,
        "prompt_tokens": 5,
        "generated": None,
    }


def recorded(folder: Path) -> StageCall:
    """A local judge's work folder in which task 1 was readable at the second asking only."""
    call = local_call(folder)
    said = [reply(1), "?", reply(3), reply(3)]
    write_jsonl(call.folder / "replies-1.jsonl", [row(i, text) for i, text in enumerate(said)])
    write_jsonl(call.folder / "replies-2.jsonl", [row(1, reply(2))])
    return call


def refuse(*arguments: Any) -> None:
    raise AssertionError("no model is needed")


def test_replies_that_an_earlier_try_left_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = recorded(tmp_path)
    monkeypatch.setattr(local, "answer_here", refuse)
    result = judge.run(call)
    metric = result.metrics["rubric_score"]
    assert (metric.value, metric.judged) == (9 / 4, 4)
    assert result.keep[-2:] == ["replies-1.jsonl", "replies-2.jsonl"]
    assert result.simulated == ["judge with random weights"]


def test_within_an_asking_only_the_missing_reply_is_made(tmp_path: Path) -> None:
    call = local_call(tmp_path)
    said = [row(0, reply(1)), row(2, reply(3)), row(3, reply(3))]
    write_jsonl(call.folder / "asking-1" / "outputs.jsonl", said)
    with (call.folder / "asking-1" / "outputs.jsonl").open("a") as file:
        file.write('{"index": 1, "out')
    result = judge.run(call)
    assert (result.counts["judged"], result.counts["unparsed"]) == (3, 1)
    rows = read(call, "replies-1.jsonl")
    assert [rows[i] for i in (0, 2, 3)] == said
    assert (rows[1]["tokens"], rows[1]["finish_reason"]) == (6, "length")
    assert [row["index"] for row in read(call, "replies-2.jsonl")] == [1]
    assert result.seeds == {"replicate": 0, "judge_model": 0, "sampling": 42}


def test_a_replay_takes_the_replies_of_a_local_judge_from_the_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "answer_here", refuse)
    call = recorded(tmp_path)
    result = judge.run(call)
    other = local_call(tmp_path / "again")
    inputs = {**other.inputs, "recorded": str(call.folder)}
    again = StageCall("judge", "k", call.params, inputs, other.work, replay=True)
    replayed = judge.run(again)
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    for name in result.keep:
        assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes()
    write_jsonl(call.folder / "replies-2.jsonl", [row(2, reply(2))])
    with pytest.raises(HarnessError, match="replies to other prompts"):
        judge.run(again)
    (call.folder / "replies-2.jsonl").unlink()
    with pytest.raises(HarnessError, match=r"no replies-2\.jsonl"):
        judge.run(again)


def test_a_prompt_too_long_for_the_judge_is_counted_as_unparsed(tmp_path: Path) -> None:
    call = local_call(tmp_path, asks=1)
    call.params["judge"]["model"] = random_model(max_position_embeddings=64)
    with pytest.raises(HarnessError, match="none of the judge's 4 replies"):
        judge.run(call)
    unjudged = read(call, "unjudged.jsonl")
    assert [row["finish_reason"] for row in unjudged] == ["too_long"] * 4
    assert not (call.folder / "asking-1" / "outputs.jsonl").exists()
    assert all(row["prompt_tokens"] > 64 for row in read(call, "replies-1.jsonl"))


class VllmServer(FakeServer):
    """Names the model that it serves, as vLLM does."""

    def _add_routes(self, app: web.Application) -> None:
        async def models(request: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": "the-judge"}]})

        app.router.add_get("/v1/models", models)
        super()._add_routes(app)


def test_vllm_is_given_the_templates_tokens_and_another_seed_the_second_time(
    tmp_path: Path,
) -> None:
    model = tmp_path / "hub"
    tokenizer = bytes_tokenizer()
    tokenizer.save_pretrained(model)
    (model / "config.json").write_text(json.dumps({**MODEL, "max_position_embeddings": 8192}))

    def script(body: Row, seen: int) -> Answer:
        shown = tokenizer.decode(body["prompt"])
        number = int(shown.partition("Task ")[2][0])
        seeds.setdefault(number, []).append(body["seed"])
        return "?" if number == 1 and len(seeds[number]) == 1 else reply(2)

    seeds: dict[int, list[int]] = {}
    with VllmServer(script) as server:
        call = make_call(
            tmp_path,
            {"kind": "vllm"},
            TASKS[:3],
            model={"hub": {"id": "some/judge", "revision": "0" * 40}},
            template={"prompt": {"path": "p", "text": "<{instruction}>"}},
            sampling={"temperature": 0.1, "top_p": 0.95, "max_tokens": 100},
        )
        inputs = {**call.inputs, "judge_hub": str(model)}
        beside = {"base_url": server.base_url, "model": "the-judge"}
        call = replace(call, inputs=inputs, server=beside)
        result = judge.run(call)
        bodies = server.requests
    assert len(bodies) == 4
    assert {body["model"] for body in bodies} == {"the-judge"}
    assert all(tokenizer.decode(body["prompt"]).startswith("<# GOAL\n") for body in bodies)
    assert (bodies[0]["max_tokens"], bodies[0]["top_p"]) == (100, 0.95)
    assert len(set(seeds[1])) == 2
    assert result.metrics["rubric_score"].judged == 3
    assert result.keep[-2:] == ["replies-1.jsonl", "replies-2.jsonl"]
    assert [row["index"] for row in read(call, "replies-2.jsonl")] == [1]
    again = tmp_path / "again"
    again.mkdir()
    recorded = {**inputs, "recorded": str(call.folder)}
    replayed = judge.run(replace(call, work=str(again), inputs=recorded, server=None, replay=True))
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    for name in result.keep:
        assert (again / name).read_bytes() == (call.folder / name).read_bytes()


def test_what_only_endpoints_understand_is_refused_for_a_local_judge(tmp_path: Path) -> None:
    call = local_call(tmp_path, sampling={**SHORT, "presence_penalty": 1.0})
    with pytest.raises(InputError, match="presence_penalty is for endpoints alone"):
        judge.run(call)


def test_a_served_judge_is_asked_by_chat() -> None:
    engine = {"kind": "endpoint", "api": "completion", "endpoint": {"model": "m"}}
    with pytest.raises(ValueError, match="asked by chat"):
        RubricJudge.model_validate({"engine": engine, "rubric": OWN})
