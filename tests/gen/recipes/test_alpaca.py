"""The alpaca recipe against scripted teachers and the simulated one."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.gen import run as gen
from harness.gen.filters import RULES as WRITING
from harness.gen.recipes.alpaca import AlpacaGen
from tests.helpers import read_jsonl
from tests.llm.fake_server import Answer, FakeServer, completion, last_message

RULES = (
    "refused", "empty_reply", "cut", "unparsable", "empty_output", *WRITING, "repeated", "similar",
    "surplus",
)  # fmt: skip
TEMPLATE = "{shown} shown, {count} wanted from {next}. Braces {stay}.\n{examples}\n"

WORDS = [a + b for a in "bcdfghjklm" for b in ["an", "el", "in", "os", "up"]]


pytestmark = pytest.mark.usefixtures("short_waits")


def seed_line(i: int, **changes: Any) -> str:
    row = {
        "id": f"seed_{i}",
        "instruction": f"Seed instruction {i} of all.",
        "instances": [{"input": "", "output": f"{{count}} {i}"}],
    }
    return json.dumps(row | changes)


def make_call(
    tmp_path: Path, endpoint: Any, seed_lines: list[str] | None = None, **changes: Any
) -> StageCall:
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "seeds.jsonl"
    file.write_text("\n".join(seed_lines or [seed_line(i) for i in range(6)]) + "\n")
    params = {
        "teacher": endpoint.model_dump(mode="json"),
        "seeds": {"path": str(file)},
        "prompt": {"path": "tasks.txt", "text": TEMPLATE},
        "examples": 8,
        "tasks_per_reply": 4,
        "requests_per_round": 3,
    }
    spec = AlpacaGen.model_validate(params | changes).model_dump(mode="json")
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return StageCall("gen", "k", {"gen": spec}, {}, str(work))


def block(number: int, instruction: str, given: str = "<none>", output: str = "out") -> str:
    return f"### {number}. Instruction: {instruction}\nInput: {given}\nOutput: {output}"


def varied_tasks(body: dict[str, Any], seen: int) -> Answer:
    """Four tasks that depend on the request alone."""
    rng = random.Random(last_message(body))
    texts = (" ".join(rng.choices(WORDS, k=8)) for _ in range(4))
    return "\n\n".join(block(i, text) for i, text in enumerate(texts, 4))


def reply_once(text: str, **extra: Any) -> Callable[[dict[str, Any], int], Answer]:
    """The first request gets `text`, later ones fresh tasks."""
    lock, asked = threading.Lock(), []

    def script(body: dict[str, Any], seen: int) -> Answer:
        with lock:
            asked.append(1)
            first = len(asked) == 1
        return web.json_response(completion(text, **extra)) if first else varied_tasks(body, seen)

    return script


def check_counts(result: StageResult, folder: Path) -> None:
    counts = result.counts
    dropped = Counter(row["rule"] for row in read_jsonl(folder / "dropped.jsonl"))
    assert set(dropped) <= set(RULES)
    assert {rule: counts.get(f"dropped_{rule}", 0) for rule in RULES} == {
        rule: dropped[rule] for rule in RULES
    }
    assert counts["proposed"] == counts["kept"] + dropped.total()
    data = read_jsonl(folder / "data.jsonl")
    assert counts["examples"] == len(data) == counts["kept"] + counts["seeds"]
    assert Counter(row["origin"] for row in data) == Counter(
        seed=counts["seeds"], generated=counts["kept"]
    )
    assert counts["requests"] == len(read_jsonl(folder / "transcript.jsonl"))


def test_exactly_the_wanted_examples_are_kept_after_the_seeds(tmp_path: Path) -> None:
    with FakeServer(varied_tasks) as server:
        call = make_call(tmp_path, server.endpoint())
        result = gen.run(call)
        assert len(server.requests) == 3
    check_counts(result, call.folder)
    assert result.counts["kept"] == 8
    assert result.counts["dropped_surplus"] == 4
    data = read_jsonl(call.folder / "data.jsonl")
    assert data[0] == {
        "id": "seed_0",
        "name": "",
        "instruction": "Seed instruction 0 of all.",
        "input": "",
        "output": "{count} 0",
        "system": "",
        "history": [],
        "is_classification": None,
        "rating": None,
        "origin": "seed",
        "simulated": False,
        "lineage": [{"recipe": "alpaca", "step": "seeds", "requests": [], "seeds": ["seed_0"]}],
    }
    assert [row["lineage"][0]["requests"] for row in data[6:]] == [[i // 4] for i in range(8)]
    for row in data[6:]:
        [step] = row["lineage"]
        request = read_jsonl(call.folder / "transcript.jsonl")[step["requests"][0]]["request"]
        shown = [f"Output: {{count}} {name[-1]}" for name in step["seeds"]]
        assert all(text in last_message(request["body"]) for text in shown)
        assert len(shown) == 3
    assert len({row["id"] for row in data}) == 14
    assert result.used == {"served_models": ["served-1"]}
    assert result.cost["calls"] == 3
    assert result.simulated == []
    assert result.notes == []


def test_seeds_can_be_left_out_of_the_data(tmp_path: Path) -> None:
    with FakeServer(varied_tasks) as server:
        call = make_call(tmp_path, server.endpoint(), include_seeds=False)
        result = gen.run(call)
    check_counts(result, call.folder)
    assert (result.counts["seeds"], result.counts["examples"]) == (0, 8)


def test_a_request_shows_drawn_seeds_in_the_template_and_sends_the_sampling(tmp_path: Path) -> None:
    with FakeServer(varied_tasks) as server:
        gen.run(
            make_call(
                tmp_path, server.endpoint(), sampling={"temperature": 0.5, "top_p": None, "seed": 7}
            )
        )
        bodies = sorted(server.requests, key=lambda body: body["seed"])
    prompts = [last_message(body) for body in bodies]
    assert prompts[0].startswith(
        "3 shown, 4 wanted from 4. Braces {stay}.\n### 1. Instruction: Seed"
    )
    # A seed's own braces are not filled in.
    assert prompts[0].count("Output: {count} ") == 3
    assert not prompts[0].endswith("\n")
    assert len(set(prompts)) == 3
    assert [body["seed"] for body in bodies] == [7, 8, 9]
    assert all(body["temperature"] == 0.5 and "top_p" not in body for body in bodies)


def test_the_data_do_not_depend_on_which_reply_comes_first(tmp_path: Path) -> None:
    made = []
    for number, concurrency in enumerate([1, 3, 3]):
        rng = random.Random(number)

        def script(body: dict[str, Any], seen: int, rng: random.Random = rng) -> Answer:
            if seen == 0 and rng.random() < 0.5:
                return web.json_response({"error": {"message": "x"}}, status=500)
            return varied_tasks(body, seen)

        with FakeServer(script) as server:
            folder = tmp_path / str(number)
            call = make_call(folder, server.endpoint(concurrency=concurrency), examples=20)
            gen.run(call)
        made.append((call.folder / "data.jsonl").read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("text", "extra", "rule", "count"),
    [
        (
            block(4, "A fine new task here.") + "\n\n" + block(5, "Cut right he"),
            {"finish_reason": "length"},
            "cut",
            1,
        ),
        ("I am sorry, but I cannot help with that.", {}, "unparsable", 1),
        (" ", {}, "empty_reply", 1),
        (block(4, "Draw me a picture of it."), {}, "blacklisted", 1),
        (block(4, "Describe the flowchart in short."), {}, "blacklisted", 1),
        (block(4, "Write a program that adds."), {}, "asks_for_program", 1),
        (block(4, "¿Qué hora es en Madrid?"), {}, "not_english", 1),
        (block(4, "写一首关于春天的诗 给 我 看"), {}, "not_english", 1),
        (block(4, "- a list item it seems"), {}, "starts_oddly", 1),
        (block(4, "A fine new task here.") + "\n\n### 5. Task: x", {}, "unparsable", 1),
        (block(4, "A task without answer.", output=""), {}, "empty_output", 1),
        (block(4, "Three words only."), {}, "too_short", 1),
        (block(4, "word " * 151), {}, "too_long", 1),
        (block(4, "Seed instruction 0 of all."), {}, "repeated", 1),
        (
            block(4, "A fine new task here.") + "\n\n" + block(5, "A fine new task here."),
            {},
            "repeated",
            1,
        ),
        (block(4, "A task with half \ud800 of a pair."), {}, "unparsable", 1),
        (block(4, "A fine new task here.", output="\udc00"), {}, "unparsable", 1),
        (block(4, "Seed instruction 9 of all."), {}, "similar", 1),
        (
            block(4, "One two three four five six.")
            + "\n\n"
            + block(5, "One two three four five."),
            {},
            "similar",
            1,
        ),
    ],
)
def test_each_rule_drops_and_is_counted(
    tmp_path: Path, text: str, extra: dict[str, Any], rule: str, count: int
) -> None:
    with FakeServer(reply_once(text, **extra)) as server:
        call = make_call(tmp_path, server.endpoint())
        result = gen.run(call)
    check_counts(result, call.folder)
    assert {r for r in RULES if result.counts.get(f"dropped_{r}")} <= {rule, "surplus"}
    assert result.counts[f"dropped_{rule}"] == count
    assert result.counts["kept"] == 8


def test_a_similar_task_says_to_what_and_how_much(tmp_path: Path) -> None:
    with FakeServer(reply_once(block(4, "Seed instruction 9 of all."))) as server:
        call = make_call(tmp_path, server.endpoint())
        gen.run(call)
    [dropped] = [r for r in read_jsonl(call.folder / "dropped.jsonl") if r["rule"] == "similar"]
    assert (dropped["similarity"], dropped["similar_to"]) == (0.8000000000000002, "seed_0")


def test_the_same_instruction_with_another_input_is_another_task(tmp_path: Path) -> None:
    texts = ["amber birch cedar delta eagle", "fern grape heron iris jade"]
    reply = "\n\n".join(block(i, "Count the words in it.", text) for i, text in enumerate(texts, 4))
    with FakeServer(reply_once(reply)) as server:
        call = make_call(tmp_path, server.endpoint(), filter={"max_similarity": 1})
        gen.run(call)
    assert [
        row["input"] for row in read_jsonl(call.folder / "data.jsonl")[6:] if row["input"]
    ] == texts


def test_as_upstream_similarity_is_that_of_the_instructions_alone(tmp_path: Path) -> None:
    texts = ["amber birch cedar delta eagle", "fern grape heron iris jade"]
    reply = "\n\n".join(block(i, "Count the words in it.", text) for i, text in enumerate(texts, 4))
    with FakeServer(reply_once(reply)) as server:
        call = make_call(tmp_path, server.endpoint())
        assert gen.run(call).counts["dropped_similar"] == 1


def test_with_similarity_one_only_exact_repeats_go(tmp_path: Path) -> None:
    reply = block(4, "seed instruction 0 of ALL!") + "\n\n" + block(5, "Seed instruction 0 of all.")
    with FakeServer(reply_once(reply)) as server:
        call = make_call(tmp_path, server.endpoint(), filter={"max_similarity": 1})
        result = gen.run(call)
    assert "dropped_similar" not in result.counts
    assert result.counts["dropped_repeated"] == 1
    assert read_jsonl(call.folder / "data.jsonl")[6]["instruction"] == "seed instruction 0 of ALL!"


def test_a_teacher_that_runs_dry_leaves_a_note_and_true_counts(tmp_path: Path) -> None:
    with FakeServer(lambda body, seen: block(4, "Always the same old task.")) as server:
        call = make_call(tmp_path, server.endpoint(), max_requests=7)
        result = gen.run(call)
        assert len(server.requests) == 7
    check_counts(result, call.folder)
    assert (result.counts["wanted"], result.counts["kept"]) == (8, 1)
    assert "1 of 8 examples after 7 requests" in result.notes[0]
    assert "6 repeated" in result.notes[0]


def test_nothing_kept_at_all_is_a_failure_that_says_why(tmp_path: Path) -> None:
    with FakeServer(lambda body, seen: "I would rather not.") as server:
        call = make_call(tmp_path, server.endpoint(), max_requests=3)
        with pytest.raises(
            HarnessError, match=r"nothing to keep .*3 tasks, dropped 3 unparsable"
        ) as e:
            gen.run(call)
    assert f"remove the work folder {call.folder} to ask again" in e.value.hint
    assert read_jsonl(call.folder / "dropped.jsonl")[0]["text"] == "I would rather not."


def test_left_open_the_limit_is_20_and_4_times_the_ideal(tmp_path: Path) -> None:
    with FakeServer(lambda body, seen: "no") as server:
        with pytest.raises(HarnessError):
            gen.run(make_call(tmp_path, server.endpoint()))
        assert len(server.requests) == 20 + 4 * 2


def test_a_stopped_run_goes_on_without_paying_twice(tmp_path: Path) -> None:
    with FakeServer(varied_tasks) as server:
        whole = make_call(tmp_path / "whole", server.endpoint(), examples=20)
        gen.run(whole)
        needed = len(server.requests)
        server.requests.clear()
        call = make_call(tmp_path / "stopped", server.endpoint(), examples=20)
        call.budget["calls"] = 4
        with pytest.raises(HarnessError, match="budget of 4 calls"):
            gen.run(call)
        call.budget["calls"] = None
        gen.run(call)
        assert len(server.requests) == needed
    assert read_jsonl(call.folder / "data.jsonl") == read_jsonl(whole.folder / "data.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "seeds.jsonl:2: not JSON"),
        ("[]", "seeds.jsonl:2: not a JSON object"),
        (seed_line(1, instruction=" "), "seeds.jsonl:2: `instruction` is empty"),
        (seed_line(1, instruction=3), "`instruction` must be a text, not 3"),
        (seed_line(1, instances=[]), "`instances` must be"),
        (seed_line(1, instances=[{"input": "", "output": ""}]), "`output` is empty"),
        (seed_line(0), "seeds.jsonl:2: the id 'seed_0' is line 1's too"),
    ],
)
def test_a_broken_seed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with FakeServer(varied_tasks) as server:
        call = make_call(tmp_path, server.endpoint(), [seed_line(0), line, seed_line(2), "{also"])
        with pytest.raises(InputError) as caught:
            gen.run(call)
        assert server.requests == []
    assert said in caught.value.message
    assert "seeds.jsonl:4: not JSON" in caught.value.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": {"path": "/nowhere/seeds.jsonl"}}, "/nowhere/seeds.jsonl cannot be read"),
        ({"shown": 7}, "7 examples a request, and there are 6 seeds"),
    ],
)
def test_input_that_cannot_work_is_found_before_any_call(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with FakeServer(varied_tasks) as server:
        with pytest.raises(InputError, match=said):
            gen.run(make_call(tmp_path, server.endpoint(), **changes))
        assert server.requests == []


def test_the_simulated_teacher_works_from_the_real_seeds(tmp_path: Path, shared_data: Path) -> None:
    template = Path(__file__).parents[3] / "specs/smoke/prompts/tasks.txt"
    spec = AlpacaGen.model_validate(
        {
            "teacher": {
                "model": "sim",
                "simulated": {"seed": 1, "faults": {"429": 0.2, "format": 0.2, "refuse": 0.2}},
            },
            "seeds": {"path": str(shared_data / "self_instruct/seed_tasks.jsonl")},
            "prompt": {"path": "tasks.txt", "text": template.read_text()},
            "examples": 60,
            "filter": {"max_similarity": 1},
        }
    )
    work = tmp_path / "work"
    work.mkdir()
    call = StageCall("gen", "k", {"gen": spec.model_dump(mode="json")}, {}, str(work))
    result = gen.run(call)
    check_counts(result, work)
    assert (result.counts["seeds"], result.counts["kept"]) == (175, 60)
    assert result.counts["dropped_unparsable"] > 0
    assert result.simulated == ["teacher"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (seed_line(6, instruction="half \ud800 of it"), ":7: `instruction` holds half"),
        ('{"id": ' + "9" * 5000 + "}", ":7: not JSON"),
        ("[" * 3000 + "]" * 3000, ":7: .*nested too deeply"),
    ],
)
def test_a_seed_that_python_cannot_read_or_write_is_named(
    tmp_path: Path, line: str, said: str
) -> None:
    with FakeServer(varied_tasks) as server:
        call = make_call(tmp_path, server.endpoint(), [*(seed_line(i) for i in range(6)), line])
        with pytest.raises(InputError, match=said):
            gen.run(call)
