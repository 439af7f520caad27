"""The naive recipe against scripted teachers and the simulated one."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.naive import NaiveGen
from harness.gen.recipes.naive import recipe as naive
from harness.sim.grammar import held_out_tasks
from tests.helpers import read_jsonl
from tests.llm.fake_server import Answer, FakeServer, Script, completion, last_message

PROMPTS = Path(__file__).parents[3] / "specs/mini_lima_paper/prompts"
SEEDS = 6
WORDS = [a + b for a in "bcdfghjklm" for b in ["an", "el", "in", "os", "up"]]


pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize("growth", [-1, 1001, 1e300])
def test_a_growth_that_no_run_could_reach_is_refused(growth: float) -> None:
    with pytest.raises(ValidationError, match="growth"):
        NaiveGen.model_validate({"growth": growth})


def seed_row(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"seed_{i}",
        "name": f"name {i}",
        "instruction": f"Seed instruction {i} of «all».",
        "instances": [{"input": f"in {i}", "output": f"{{task}} {i}"}],
        "is_classification": i == 0,
    } | changes


def make_call(
    tmp_path: Path, endpoint: Any, given: list[dict[str, Any]] | None = None, **changes: Any
) -> tuple[StageCall, NaiveGen]:
    tmp_path.mkdir(exist_ok=True, parents=True)
    file = tmp_path / "seeds.jsonl"
    rows = given or [seed_row(i) for i in range(SEEDS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = {
        "teacher": endpoint.model_dump(mode="json"),
        "seeds": {"path": str(file)},
        "tasks_prompt": {"path": "1", "text": "More {name, instruction} pairs.\n"},
        "given_prompt": {"path": "2", "text": "More instances.\n"},
        "new_prompt": {"path": "3", "text": "New instances.\n"},
        "shown": 3,
        "requests_per_round": 2,
    }
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    gen = NaiveGen.model_validate(params | changes)
    return StageCall("gen", "k", {"gen": gen.model_dump(mode="json")}, {}, str(work)), gen


def make(tmp_path: Path, endpoint: Any, *rest: Any, **changes: Any) -> RecipeResult:
    call, gen = make_call(tmp_path, endpoint, *rest, **changes)
    made = gen.make(call, [])
    for step in made.filters:
        rules = Counter(r["rule"] for r in made.dropped if r["step"] == step.step)
        assert rules == step.dropped
    assert len({example.id for example in made.examples}) == len(made.examples)
    return made


def lines(prompt: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prompt.splitlines() if line.startswith("{")]


def teach(body: dict[str, Any], seen: int = 0) -> str:
    """Two new pairs; two more instances; five instances. Depends on the request alone."""
    prompt = last_message(body)
    rng = random.Random(prompt)
    rows = lines(prompt)
    if prompt.startswith("More {name"):
        texts = [" ".join(rng.choices(WORDS, k=8)) for _ in range(2)]
        return "\n".join(json.dumps({"name": t[:4], "instruction": t}) for t in texts)
    if prompt.startswith("More instances"):
        more = [{"input": "", "output": f"more {rng.random()}"} for _ in range(2)]
        return json.dumps(rows[0] | {"instances": rows[0]["instances"] + more})
    new = [{"input": f"{i}", "output": f"new {rng.random()}"} for i in range(5)]
    return json.dumps(rows[-1] | {"instances": new})


def answering(start: str, reply: str, **extra: Any) -> Script:
    """`teach`, but prompts that begin so get this reply."""

    def script(body: dict[str, Any], seen: int) -> Answer:
        if last_message(body).startswith(start):
            return web.json_response(completion(reply, **extra))
        return teach(body)

    return script


def step_of(made: RecipeResult, name: str) -> Any:
    return next(step for step in made.filters if step.step == name)


def test_each_task_gets_its_instances_with_their_lineage(tmp_path: Path) -> None:
    with FakeServer(teach) as server:
        made = make(tmp_path, server.endpoint())
    by_id = {example.id: example for example in made.examples}
    given = [f"seed_{i}_g{n}" for i in range(SEEDS) for n in (1, 2)]
    new = [f"new_{i}_{n}" for i in range(SEEDS) for n in range(5)]
    assert list(by_id) == [f"seed_{i}" for i in range(SEEDS)] + given + new
    assert by_id["seed_0"].origin == "seed"
    old = by_id["seed_0_g2"]
    assert (old.name, old.instruction) == ("name 0", "Seed instruction 0 of «all».")
    assert old.output.startswith("more ")
    assert old.is_classification is True
    # Six new tasks from three requests of two; the instances' requests come after.
    assert old.lineage == (naive.Lineage("naive", "given_instances", (4,), ("seed_0",)),)
    one = by_id["new_3_4"]
    assert (one.input, one.origin, one.is_classification) == ("4", "generated", None)
    tasks, instances = one.lineage
    assert (tasks.step, tasks.requests, len(tasks.seeds)) == ("tasks", (1,), 3)
    assert (instances.step, instances.requests) == ("new_instances", (4 + SEEDS + 3,))
    assert len(instances.seeds) == 1
    assert made.counts == {
        "wanted_tasks": 6,
        "new_tasks": 6,
        "tasks_without_new_instances": 0,
        "task_requests": 4,
        "seeds": 6,
    }
    assert [(s.step, s.kept) for s in made.filters] == [
        ("tasks", 6),
        ("given_instances", 12),
        ("new_instances", 30),
    ]
    assert step_of(made, "tasks").dropped == {"surplus": 2}
    assert step_of(made, "given_instances").dropped == {"given": 6}
    assert (made.notes, made.seeds) == ([], {"gen": 42})


def test_the_requests_named_in_the_lineage_are_lines_of_the_transcript(tmp_path: Path) -> None:
    with FakeServer(teach) as server:
        made = make(tmp_path, server.endpoint())
    file = tmp_path / "work/transcript.jsonl"
    calls = read_jsonl(file)
    assert len(calls) == 4 + SEEDS + SEEDS
    for example in made.examples[SEEDS:]:
        call = calls[example.lineage[-1].requests[0]]
        assert json.dumps(example.output) in call["response"]["choices"][0]["message"]["content"]
        prompt = last_message(call["request"]["body"])
        assert all(f'"name": "name {seed[5:]}"' in prompt for seed in example.lineage[-1].seeds)


def test_new_tasks_have_a_file_of_their_own(tmp_path: Path) -> None:
    with FakeServer(teach) as server:
        made = make(tmp_path, server.endpoint())
    assert made.files == ["tasks.jsonl"]
    rows = read_jsonl(tmp_path / "work/tasks.jsonl")
    instructions = {e.id.rsplit("_", 1)[0]: e.instruction for e in made.examples}
    assert [(row["id"], row["request"]) for row in rows] == [(f"new_{i}", i // 2) for i in range(6)]
    assert all(instructions[row["id"]] == row["instruction"] for row in rows)
    assert list(made.examples[-1].lineage[0].seeds) == rows[-1]["shown"]


def test_the_data_follow_the_prompts_as_json_lines(tmp_path: Path) -> None:
    with FakeServer(teach) as server:
        make(tmp_path, server.endpoint())
        prompts = [last_message(body) for body in server.requests]
    first = next(p for p in prompts if p.startswith("More {name"))
    assert first.startswith('More {name, instruction} pairs.\n\n{"name": "name ')
    assert [row.keys() for row in lines(first)] == [{"name", "instruction"}] * 3
    assert "«all»" in first
    assert not first.endswith("\n")
    second = [p for p in prompts if p.startswith("More instances.")]
    row = seed_row(2)
    shown = {key: row[key] for key in ("name", "instruction", "instances")}
    assert f"More instances.\n\n{json.dumps(shown, ensure_ascii=False)}" in second
    third = next(p for p in prompts if p.startswith("New instances."))
    example, task = lines(third)
    assert example["instances"][0]["output"].startswith("{task} ")
    assert task.keys() == {"name", "instruction"}
    assert third.splitlines()[1] == ""


def test_a_template_may_place_the_data_itself(tmp_path: Path) -> None:
    templates = {
        "tasks_prompt": {"path": "1", "text": "More {name}:\n{examples}\nNow you."},
        "given_prompt": {"path": "2", "text": "More instances.\n{task}\nNow you."},
        "new_prompt": {"path": "3", "text": "New {task}\nlike"},
    }
    with FakeServer(teach) as server:
        make(tmp_path, server.endpoint(), **templates)
        prompts = [last_message(body) for body in server.requests]
    assert all(p.endswith("\nNow you.") for p in prompts if p.startswith("More"))
    assert all("\n\n" not in p for p in prompts if p.startswith("More"))
    new = [p for p in prompts if p.startswith("New")]
    # What has no place of its own still follows.
    assert all(p.startswith('New {"name": ') and p.count('like\n\n{"name": ') == 1 for p in new)


def test_each_parameter_has_its_effect(tmp_path: Path) -> None:
    def run(**changes: Any) -> tuple[RecipeResult, FakeServer]:
        folder = tmp_path / f"{sorted(changes)}"
        with FakeServer(teach, delay_s=0.01) as server:
            made = make(folder, server.endpoint(), **changes)
        return made, server

    base, server = run()
    assert server.requests[0].keys() == {"model", "messages"}
    made, _ = run(growth=0.5)
    assert made.counts["new_tasks"] == 3
    made, server = run(growth=0, shown=1000)
    assert made.counts["new_tasks"] == 0
    assert len(server.requests) == SEEDS
    _, server = run(shown=5)
    assert {len(lines(last_message(b))) for b in server.requests} == {5, 1, 2}
    made, server = run(requests_per_round=5)
    assert made.counts["task_requests"] == 5
    made, _ = run(max_requests=1)
    assert made.counts["new_tasks"] == 2
    assert made.notes[0].startswith("2 of 6 new tasks after 1 requests, gen.max_requests' limit")
    made, _ = run(given_instances=1)
    assert step_of(made, "given_instances").dropped == {"given": SEEDS, "surplus": SEEDS}
    made, _ = run(new_instances=3)
    assert step_of(made, "new_instances").kept == 3 * SEEDS
    made, _ = run(include_seeds=False)
    assert made.examples == base.examples[SEEDS:]
    assert made.counts["seeds"] == 0
    made, _ = run(seed=1)
    assert {e.instruction for e in made.examples} != {e.instruction for e in base.examples}
    _, server = run(sampling={"temperature": 0.3, "seed": 7})
    assert {body["temperature"] for body in server.requests} == {0.3}
    sent = [b["seed"] for b in server.requests if last_message(b).startswith("More {name")]
    assert sorted(sent) == [7, 8, 9, 10]


def test_a_task_that_is_too_similar_goes_only_when_asked(tmp_path: Path) -> None:
    near = json.dumps({"name": "n", "instruction": "Seed instruction 1 of all, please"})
    script = answering("More {name", near)
    with FakeServer(script) as server:
        free = make(tmp_path / "free", server.endpoint(), growth=0.2)
        strict = make(tmp_path / "strict", server.endpoint(), growth=0.2, max_similarity=0.7)
    assert free.counts["new_tasks"] == 1
    assert strict.counts["new_tasks"] == 0
    row = strict.dropped[0]
    assert (row["rule"], row["similar_to"]) == ("similar", "seed_1")
    # 5 common tokens of 5 and 6.
    assert row["similarity"] == pytest.approx(2 * 5 / 11)


def test_a_task_that_repeats_a_seed_or_a_new_task_goes(tmp_path: Path) -> None:
    rows = [
        {"name": "n", "instruction": "Seed  instruction 1 of «all»."},
        {"name": "n", "instruction": "Something new."},
        {"name": "m", "instruction": "Something\nnew."},
    ]
    script = answering("More {name", "\n".join(map(json.dumps, rows)))
    with FakeServer(script) as server:
        made = make(tmp_path, server.endpoint(), max_requests=1)
    assert made.counts["new_tasks"] == 1
    assert step_of(made, "tasks").dropped == {"repeated": 2}


TASK = {"name": "n", "instruction": "A new task."}


CUT = {"finish_reason": "length"}


@pytest.mark.parametrize(
    ("reply", "extra", "kept", "dropped"),
    [
        ("", {}, 0, ["empty_reply"]),
        (" \n", CUT, 0, ["empty_reply"]),
        ("I'm sorry, but I cannot do that.", {}, 0, ["refused"]),
        ("As an AI language model, I cannot do that.", {}, 0, ["refused"]),
        ("", {"finish_reason": "content_filter"}, 0, ["refused"]),
        ("Here are some ideas: jokes, riddles.", {}, 0, ["unparsable"]),
        ("Here are some ideas: jokes, rid", CUT, 0, ["cut"]),
        (json.dumps(TASK) + '\n{"name": "x", "in', CUT, 1, ["cut"]),
        (json.dumps(TASK) + '\n{"name": "x", "in', {}, 1, ["unparsable"]),
        (json.dumps(TASK), CUT, 1, []),
        ("Name: n\nInstruction: A new task.", {}, 1, []),
        ("Name: n\nInstruction: A new task.", CUT, 0, ["cut"]),
        (json.dumps(TASK | {"name": ""}), {}, 0, ["unparsable"]),
        (json.dumps(TASK | {"instruction": " "}), {}, 0, ["unparsable"]),
        (json.dumps({"instruction": "A new task."}), {}, 0, ["unparsable"]),
        (json.dumps(TASK | {"instruction": ["a"]}), {}, 0, ["unparsable"]),
        (json.dumps(TASK | {"instruction": "half \ud800"}), {}, 0, ["unparsable"]),
        (json.dumps(TASK | {"instruction": "给出三个保持健康的建议。"}), {}, 0, ["other_script"]),
        (json.dumps(TASK | {"instances": [{"input": "", "output": "x"}]}), {}, 1, []),
    ],
)
def test_every_candidate_for_a_task_is_kept_or_counted(
    tmp_path: Path, reply: str, extra: dict[str, Any], kept: int, dropped: list[str]
) -> None:
    with FakeServer(answering("More {name", reply, **extra)) as server:
        made = make(tmp_path, server.endpoint(), max_requests=1)
    assert made.counts["new_tasks"] == kept
    assert list(step_of(made, "tasks").dropped.elements()) == dropped


def instances(*found: tuple[str, str]) -> list[dict[str, str]]:
    return [{"input": i, "output": o} for i, o in found]


GIVEN = {"name": "name 0", "instruction": "Seed instruction 0 of «all»."}
OLD = ("in 0", "{task} 0")


@pytest.mark.parametrize(
    ("reply", "kept", "dropped"),
    [
        (json.dumps(GIVEN | {"instances": instances(OLD, ("a", "b"), ("c", "d"))}), 2, ["given"]),
        (json.dumps(GIVEN | {"instances": instances(("a", "b"))}), 1, []),
        (json.dumps({"instances": instances(("a", "b"), ("c", "d"))}), 2, []),
        ("\n".join(map(json.dumps, instances(("a", "b"), ("c", "d")))), 2, []),
        (json.dumps(instances(("a", "b"), ("a", "b"), ("a", "c"))), 2, ["repeated"]),
        (json.dumps(instances(("a", "b"), ("a", "c"), ("a", "d"))), 2, ["surplus"]),
        (json.dumps(GIVEN | {"input": "a", "output": 42}), 1, []),
        (json.dumps(GIVEN | {"instances": {"input": None, "output": "b"}}), 1, []),
        (json.dumps(GIVEN | {"instances": [{"output": "b"}]}), 1, []),
        (json.dumps(GIVEN | {"instances": instances(("a", " "))}), 0, ["empty_output"]),
        (json.dumps(GIVEN | {"instances": []}), 0, ["unparsable"]),
        (json.dumps(GIVEN | {"instances": "a, b"}), 0, ["unparsable"]),
        (json.dumps(GIVEN | {"instances": [{"output": ["b"]}]}), 0, ["unparsable"]),
        (json.dumps(GIVEN), 0, ["unparsable"]),
        (
            json.dumps(GIVEN | {"instruction": "Another.", "instances": instances(("a", "b"))}),
            0,
            ["other_task"],
        ),
        (json.dumps(GIVEN | {"instances": [("a", "b")]})[:-3], 0, ["unparsable"]),
        ("Input: a\nOutput: b", 0, ["unparsable"]),
        ("", 0, ["empty_reply"]),
        ("I am sorry, but I cannot help with that.", 0, ["refused"]),
    ],
)
def test_every_instance_is_kept_or_counted(
    tmp_path: Path, reply: str, kept: int, dropped: list[str]
) -> None:
    with FakeServer(answering("More instances", reply)) as server:
        made = make(tmp_path, server.endpoint(), [seed_row(0)], growth=0)
    step = step_of(made, "given_instances")
    assert (step.kept, sorted(step.dropped.elements())) == (kept, dropped)
    # Seeds alone are not what was asked for.
    assert len(made.examples) == (1 + kept if kept else 0)
    assert made.counts["tasks_without_new_instances"] == (kept == 0)
    assert made.notes == ([] if kept else ["1 of 1 tasks got no new instance"])


@pytest.mark.parametrize(
    ("script", "rules"),
    [
        (lambda body, seen: "", {"empty_reply"}),
        (lambda body, seen: "I'm sorry, but I can't help with that.", {"refused"}),
        (lambda body, seen: "当然！以下是更多的例子：讲个笑话。", {"unparsable"}),
        (
            lambda body, seen: web.json_response(
                completion('{"name": "on and ' + "on and " * 2000, finish_reason="length")
            ),
            {"cut"},
        ),
    ],
)
def test_a_teacher_that_gives_nothing_of_use_leaves_counts_and_no_example(
    tmp_path: Path, script: Callable[[dict[str, Any], int], Answer], rules: set[str]
) -> None:
    with FakeServer(script) as server:
        made = make(tmp_path, server.endpoint(), max_requests=4)
        assert len(server.requests) == 4 + SEEDS
    assert made.examples == []
    assert {row["rule"] for row in made.dropped} == rules
    assert all(len(row["text"]) <= 200 for row in made.dropped)
    assert (tmp_path / "work/tasks.jsonl").read_text() == ""


class Late(web.Response):
    """A response that takes its time."""

    def __init__(self, seconds: float, text: str) -> None:
        super().__init__(text=json.dumps(completion(text)), content_type="application/json")
        self.seconds = seconds

    async def prepare(self, request: web.BaseRequest) -> Any:
        await asyncio.sleep(self.seconds)
        return await super().prepare(request)


def test_the_data_do_not_depend_on_which_reply_comes_first(tmp_path: Path) -> None:
    def run(folder: Path, salt: str) -> RecipeResult:
        def script(body: dict[str, Any], seen: int) -> Answer:
            return Late(random.Random(salt + last_message(body)).random() / 20, teach(body))

        with FakeServer(script) as server:
            return make(folder, server.endpoint(), requests_per_round=4)

    first, second = run(tmp_path / "1", "a"), run(tmp_path / "2", "b")
    assert [e.row() for e in first.examples] == [e.row() for e in second.examples]
    assert first.dropped == second.dropped
    both = [(tmp_path / f"{i}/work/tasks.jsonl").read_bytes() for i in (1, 2)]
    assert both[0] == both[1]


def test_an_interrupted_stage_goes_on_without_asking_again(tmp_path: Path) -> None:
    with FakeServer(teach) as server:
        whole = make(tmp_path / "whole", server.endpoint())
    answered: list[str] = []
    broken_at = 9

    def script(body: dict[str, Any], seen: int) -> Answer:
        if len(answered) == broken_at:
            return web.json_response({"error": {"message": "down"}}, status=500)
        answered.append(last_message(body))
        return teach(body)

    with FakeServer(script) as server:
        endpoint = server.endpoint(max_attempts=1, concurrency=1)
        with pytest.raises(HarnessError):
            make(tmp_path / "broken", endpoint)
        assert len(answered) == broken_at
        broken_at = -1
        made = make(tmp_path / "broken", endpoint)
    assert len(answered) == len(set(answered)) == 4 + 2 * SEEDS
    assert [e.row() for e in made.examples] == [e.row() for e in whole.examples]
    assert made.client is not None
    assert made.client.cost()["calls"] == 4 + 2 * SEEDS


@pytest.mark.parametrize(
    ("seeds", "changes", "said"),
    [
        ([seed_row(0), seed_row(1, name=" ")], {"shown": 1}, "1 of 2 seeds have no name.*seed_1"),
        (None, {"shown": 7}, "asks for 7 pairs a request, and there are 6 seeds"),
        ([seed_row(0), seed_row(1, id="seed_0_g2")], {"shown": 1}, "seed_0_g2 are ones that"),
        ([seed_row(0), seed_row(1, id="new_0_1")], {"shown": 1}, "new_0_1 are ones that"),
        (None, {"seeds": {"path": "/nowhere.jsonl"}}, "cannot be read"),
    ],
)
def test_input_that_cannot_work_is_found_before_any_call(
    tmp_path: Path, seeds: Any, changes: dict[str, Any], said: str
) -> None:
    with FakeServer(teach) as server:
        with pytest.raises(InputError, match=said):
            make(tmp_path, server.endpoint(), seeds, **changes)
        assert server.requests == []


def test_a_seed_with_several_instances_gives_them_all(tmp_path: Path) -> None:
    seed = seed_row(0, instances=instances(("a", "b"), ("c", "d")))
    with FakeServer(teach) as server:
        made = make(tmp_path, server.endpoint(), [seed], growth=0)
    assert [e.id for e in made.examples] == ["seed_0", "seed_0_1", "seed_0_g1", "seed_0_g2"]
    assert step_of(made, "given_instances").dropped == {"given": 2}


def published(name: str) -> dict[str, str]:
    return {"path": name, "text": (PROMPTS / name).read_text()}


PUBLISHED = {
    "tasks_prompt": published("prompt1.txt"),
    "given_prompt": published("prompt2.txt"),
    "new_prompt": published("prompt3.txt"),
}


def test_the_simulated_teacher_doubles_the_real_seeds(tmp_path: Path, shared_data: Path) -> None:
    gen = NaiveGen.model_validate(
        {
            "teacher": {"model": "sim", "simulated": {"faults": {"429": 0.1, "format": 0.1}}},
            "seeds": {"path": str(shared_data / "self_instruct/seed_tasks.jsonl")},
            **PUBLISHED,
        }
    )
    made = gen.make(StageCall("gen", "k", {}, {}, str(tmp_path)), [])
    assert made.counts["seeds"] == made.counts["new_tasks"] == 175
    assert step_of(made, "given_instances").kept > 250
    assert step_of(made, "new_instances").kept > 400
    assert step_of(made, "given_instances").dropped["unparsable"] > 0
    assert made.client is not None
    assert made.client.simulated
    # The smoke rows are judged on these.
    held_out = {(task.instruction, task.input) for task in held_out_tasks()}
    assert not held_out & {(e.instruction, e.input) for e in made.examples}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_prompts_are_the_studys_word_for_word(shared_data: Path, number: int) -> None:
    documents = sorted((shared_data.parent / "seeds").glob("003*.txt"))
    if not documents:
        pytest.skip("the study's text, ../shared/seeds/003*.txt, is not beside the checkout")
    paragraphs = documents[0].read_text().split("\n\n")
    quoted = paragraphs[paragraphs.index(f"Prompt {number}") - 1]
    assert (PROMPTS / f"prompt{number}.txt").read_text() == quoted + "\n"
