"""The self_instruct recipe against scripted teachers and the simulated one."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.call import CALL_FILE, StageCall
from harness.errors import HarnessError, InputError
from harness.gen import run as gen
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.seeds import read_seeds
from harness.row.load import load_rows
from harness.row.row import Row
from tests.llm.fake_server import Answer, FakeServer, completion

SPECS = Path(__file__).parents[4] / "specs"
WORDS = [a + b for a in "bcdfghjklm" for b in ["an", "el", "in", "os", "up"]]
FILES = ("instructions.jsonl", "classification.jsonl", "instances.jsonl")

Saying = Callable[[str], Any]


pytestmark = pytest.mark.usefixtures("short_waits")


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


def new_instructions(prompt: str) -> str:
    """Four instructions that depend on the prompt alone."""
    first = int(prompt.splitlines()[-1].rstrip("."))
    rng = random.Random(prompt)
    texts = (" ".join(rng.choices(WORDS, k=8)) for _ in range(4))
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, first))


def is_classification(prompt: str) -> str:
    return "Yes" if random.Random(prompt).random() < 0.3 else "No"


def inputs_first(prompt: str) -> str:
    rng = random.Random(prompt)
    return "\n".join(f"Example {i}\n{rng.random()}\nOutput: {rng.random()}" for i in (1, 2, 3))


def labels_first(prompt: str) -> str:
    rng = random.Random(prompt)
    return "\n".join(f"Class label: {label}\n{rng.random()}" for label in ("good", "bad"))


def teacher(
    list_: Saying = new_instructions,
    kind: Saying = is_classification,
    inputs: Saying = inputs_first,
    labels: Saying = labels_first,
) -> Callable[[dict[str, Any], int], Answer]:
    """A script that says to each of the four templates what the function for it says."""
    sayings = {"LIST": list_, "KIND": kind, "INPUTS": inputs, "LABELS": labels}

    def script(body: dict[str, Any], seen: int) -> Answer:
        prompt = prompt_of(body)
        answer: Answer = sayings[prompt.split()[0]](prompt)
        return answer

    return script


def once(first: Any, then: Saying = new_instructions) -> Saying:
    """What is said to the first prompt, and to all later ones."""
    lock, asked = threading.Lock(), []

    def say(prompt: str) -> Any:
        with lock:
            asked.append(prompt)
            is_first = len(asked) == 1
        if not is_first:
            return then(prompt)
        return web.json_response(first) if isinstance(first, dict) else first

    return say


def seed_line(i: int, **changes: Any) -> str:
    row = {
        "id": f"seed_{i}",
        "instruction": f"Seed number {i}\nof them all:",
        "instances": [{"input": "", "output": f"answer {i}"}],
        "is_classification": i % 2 == 0,
    }
    return json.dumps(row | changes)


def text(content: str) -> dict[str, str]:
    return {"path": "t.txt", "text": content}


def make_call(
    folder: Path, endpoint: Any, seeds: list[str] | None = None, **changes: Any
) -> StageCall:
    """`changes`: `instructions__count=5` is the option `count` of the step `instructions`."""
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / "seeds.jsonl"
    file.write_text("\n".join(seeds or [seed_line(i) for i in range(6)]) + "\n")
    params: dict[str, Any] = {
        "teacher": endpoint.model_dump(mode="json"),
        "seeds": {"path": str(file)},
        "instructions": {
            "count": 10,
            "prompt": text("LIST of {these}\n{examples}\n{next}.\n"),
            "shown": 4,
            "requests_per_round": 3,
        },
        "classification": {"prompt": text("KIND {instruction}")},
        "instances": {
            "output_first": text("LABELS {instruction}\n"),
            "input_first": text("INPUTS {instruction}\n"),
        },
        "prepare": {},
    }
    for name, value in changes.items():
        step, _, option = name.partition("__")
        if option:
            params[step][option] = value
        else:
            params[step] = value
    spec = SelfInstructGen.model_validate(params).model_dump(mode="json")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return StageCall("gen", "k", {"gen": spec}, {}, str(work))


def make(call: StageCall) -> RecipeResult:
    made = SelfInstructGen.model_validate(call.params["gen"]).make(call, [])
    listed = Counter((row["step"], row["rule"]) for row in made.dropped)
    counted = Counter({(f.step, rule): n for f in made.filters for rule, n in f.dropped.items()})
    assert listed == counted
    return made


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def run(folder: Path, script: Any = None, **changes: Any) -> tuple[RecipeResult, FakeServer, Path]:
    with FakeServer(script or teacher()) as server:
        call = make_call(folder, server.endpoint(), **changes)
        return make(call), server, call.folder


def asked(server: FakeServer, start: str) -> list[dict[str, Any]]:
    return [body for body in server.requests if prompt_of(body).startswith(start)]


def step(made: RecipeResult, name: str) -> Any:
    return next(f for f in made.filters if f.step == name)


def outcome(made: RecipeResult, folder: Path) -> list[Any]:
    """All that must not depend on chance."""
    return [
        [example.row() for example in made.examples],
        made.dropped,
        [(f.step, f.proposed, f.kept, sorted(f.dropped.items())) for f in made.filters],
        made.counts,
        [(folder / name).read_bytes() for name in FILES],
    ]


def lcs(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        last = 0
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], last + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def rouge_l(a: str, b: str) -> float:
    x, y = (re.findall("[a-z0-9]+", t.lower()) for t in (a, b))
    common = lcs(x, y)
    if not common:
        return 0.0
    precision, recall = common / len(x), common / len(y)
    return 2 * precision * recall / (precision + recall)


def test_four_steps_leave_their_files_and_examples_that_can_be_traced(tmp_path: Path) -> None:
    made, _, folder = run(tmp_path)
    new = rows(folder, FILES[0])
    assert [row["id"] for row in new] == [f"generated_{i}" for i in range(12)]
    kinds = {row["id"]: row for row in rows(folder, FILES[1])}
    replies = {row["id"]: row for row in rows(folder, FILES[2])}
    assert kinds.keys() == replies.keys() == {row["id"] for row in new}
    assert made.files == list(FILES)
    calls = rows(folder, "transcript.jsonl")
    prompts = [prompt_of(call["request"]["body"]) for call in calls]
    generated = [e for e in made.examples if e.origin == "generated"]
    assert [e.id for e in made.examples[:6]] == [f"seed_{i}" for i in range(6)]
    assert len({e.id for e in generated}) == len(generated) > 12
    for example in generated:
        task = new[int(example.id.split("_")[1])]
        assert example.instruction == task["instruction"]
        assert example.is_classification == kinds[task["id"]]["is_classification"]
        first, second, third = example.lineage
        assert [s.step for s in example.lineage] == ["instructions", "classification", "instances"]
        assert list(first.requests) == [task["request"]]
        assert list(first.seeds) == task["shown"]
        assert prompts[task["request"]].count("\n") == 5
        assert prompts[second.requests[0]] == f"KIND {example.instruction}"
        assert example.instruction in prompts[third.requests[0]]
        assert example.output in replies[task["id"]]["reply"]
        assert calls[third.requests[0]]["request"]["body"]["max_tokens"] in (300, 350)
    assert made.counts["instruction_requests"] == 3
    assert made.counts["seeds"] == 6
    assert made.notes == []


def test_seeds_can_be_left_out_of_the_data(tmp_path: Path) -> None:
    made, _, _ = run(tmp_path, include_seeds=False)
    assert {e.origin for e in made.examples} == {"generated"}


def test_every_instance_of_a_seed_stands_in_the_data(tmp_path: Path) -> None:
    two = [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}]
    seeds = [seed_line(0, instances=two), *(seed_line(i) for i in range(1, 6))]
    made, _, _ = run(tmp_path, seeds=seeds)
    first = [(e.id, e.input, e.output) for e in made.examples[:2]]
    assert first == [("seed_0", "a", "b"), ("seed_0_1", "c", "d")]


def test_a_prompt_shows_a_numbered_list_with_white_space_and_last_colons_gone(
    tmp_path: Path,
) -> None:
    _, server, _ = run(tmp_path)
    for body in asked(server, "LIST"):
        head, *shown, last = prompt_of(body).splitlines()
        assert (head, last) == ("LIST of {these}", "5.")
        assert [line.partition(". ")[0] for line in shown] == ["1", "2", "3", "4"]
    lines = prompt_of(asked(server, "LIST")[0]).splitlines()[1:-1]
    assert {re.sub(r"\d", "N", line) for line in lines} == {"N. Seed number N of them all"}


@pytest.mark.parametrize("most", [0, 2])
def test_later_rounds_show_some_machine_made_instructions(tmp_path: Path, most: int) -> None:
    _, server, folder = run(tmp_path, instructions__count=30, instructions__machine_shown=most)
    rounds = Counter(row["request"] // 3 for row in rows(folder, FILES[0]))
    assert len(rounds) == 3
    for body in asked(server, "LIST"):
        shown = prompt_of(body).splitlines()[1:-1]
        assert len(set(shown)) == 4
        seeds = sum(line.partition(". ")[2].startswith("Seed") for line in shown)
        assert seeds == 4 if body in asked(server, "LIST")[:3] else 4 - most
    machine = [[i for i in row["shown"] if i.startswith("gen")] for row in rows(folder, FILES[0])]
    assert {len(shown) for shown in machine} == {0, most}
    # They come from the rounds before, wherever in these.
    known = {row["id"]: row["request"] // 3 for row in rows(folder, FILES[0])}
    for row, shown in zip(rows(folder, FILES[0]), machine, strict=True):
        assert all(known[name] < row["request"] // 3 for name in shown)


def test_machine_made_instructions_stand_anywhere_in_the_list(tmp_path: Path) -> None:
    _, _, folder = run(tmp_path, instructions__count=60)
    shown = [row["shown"] for row in rows(folder, FILES[0])]
    places = {i for names in shown for i, name in enumerate(names) if name.startswith("gen")}
    assert places == {0, 1, 2, 3}


def test_the_published_sampling_is_sent_and_a_seed_grows(tmp_path: Path) -> None:
    _, server, _ = run(tmp_path / "a")
    for start, expected in {
        "LIST": {
            "temperature": 0.7,
            "top_p": 0.5,
            "max_tokens": 1024,
            "frequency_penalty": 0.0,
            "presence_penalty": 2.0,
            "stop": ["\n\n", "\n16", "16.", "16 ."],
        },
        "KIND": {"temperature": 0.0, "top_p": 0.0, "max_tokens": 3, "stop": ["\n", "Task"]},
        "INPUTS": {
            "temperature": 0.0,
            "top_p": 0.0,
            "presence_penalty": 1.5,
            "stop": ["Example 6", "Task:"],
        },
    }.items():
        for body in asked(server, start):
            sent = {name: body[name] for name in body if name not in ("messages", "model")}
            assert {name: sent[name] for name in expected} == expected
            assert sent.keys() - expected.keys() <= {"max_tokens"}
    _, server, _ = run(tmp_path / "b", instructions__sampling={"seed": 7})
    assert sorted(body["seed"] for body in asked(server, "LIST")) == [7, 8, 9]


def test_it_ends_with_the_round_that_reaches_the_count_and_keeps_all_of_it(tmp_path: Path) -> None:
    made, server, folder = run(tmp_path, instructions__count=13)
    assert len(rows(folder, FILES[0])) == 24
    assert len(asked(server, "LIST")) == 6
    assert made.counts["wanted"] == 13


@pytest.mark.parametrize("include_seeds", [True, False])
def test_it_ends_with_just_so_many_examples_the_seeds_counted_where_they_are_among_them(
    tmp_path: Path, include_seeds: bool
) -> None:
    made, server, folder = run(
        tmp_path, instructions__count=None, examples=80, include_seeds=include_seeds
    )
    assert len(made.examples) == 80
    from_seeds = [e for e in made.examples if e.id.startswith("seed_")]
    assert len(from_seeds) == 6 * include_seeds
    assert made.counts["wanted_examples"] == 80
    # Each instruction was classified and given instances once, in the order in which it came.
    ids = [row["id"] for row in rows(folder, FILES[0])]
    assert len(set(ids)) == len(ids) > 12
    for name in FILES[1:]:
        assert [row["id"] for row in rows(folder, name)] == ids
    assert len(asked(server, "KIND")) == len(ids)
    dropped = step(made, "prepare").dropped["over_the_number"]
    assert step(made, "prepare").kept == 80 - len(from_seeds)
    assert dropped == step(made, "instances").kept - step(made, "prepare").kept


def test_too_few_examples_end_it_with_a_note_and_no_more_than_the_seeds_is_refused(
    tmp_path: Path,
) -> None:
    def same(prompt: str) -> str:
        return "5. Always the same old instruction."

    changes = {"instructions__count": None, "instructions__max_requests": 7}
    made, server, _ = run(tmp_path, teacher(same), **changes, examples=20)
    assert len(asked(server, "LIST")) == 7
    assert "of 20 examples after 7 requests" in made.notes[0]
    with pytest.raises(InputError, match="no more than the seeds have by themselves"):
        run(tmp_path / "b", **changes, examples=6)
    for wrong in ({"examples": 20}, {"instructions__count": None}):
        with pytest.raises(ValueError, match=r"either instructions\.count or examples"):
            run(tmp_path / "c", **wrong)


def test_too_few_new_instructions_end_it_with_a_note(tmp_path: Path) -> None:
    def same(prompt: str) -> str:
        return "5. Always the same old instruction."

    made, server, folder = run(tmp_path, teacher(same), instructions__max_requests=7)
    assert len(asked(server, "LIST")) == 7
    assert len(rows(folder, FILES[0])) == 1
    assert step(made, "instructions").dropped == {"repeated": 6}
    assert "1 of 10 instructions after 7 requests" in made.notes[0]
    assert "max_requests" in made.notes[0]
    _, server, _ = run(tmp_path / "open", teacher(same))
    assert len(asked(server, "LIST")) == 20 + 4 * 2


LONG = "One two three four five six seven eight nine ten."


@pytest.mark.parametrize(
    ("said", "options", "rule"),
    [
        ("Three words only.", {}, "too_short"),
        ("Three words only.", {"fewest_words": 3}, None),
        ("word " * 150, {}, None),
        ("word " * 151, {}, "too_long"),
        (LONG, {"most_words": 9}, "too_long"),
        ("Describe the picture in words.", {}, "blacklisted"),
        ("Describe the picture in words.", {"blacklist": []}, None),
        ("Now GO TO the shop please.", {}, "blacklisted"),
        ("Write a program that sings.", {}, "asks_for_program"),
        ("(Here is one more task.)", {}, "starts_oddly"),
        ("Été comme hiver, que faire?", {}, "not_english"),
        ("请 写 一 首 诗", {}, "not_english"),
        ("Half \ud800 of a pair.", {}, "unparsable"),
        ("seed NUMBER 3 of them all", {}, "similar"),
        ("seed NUMBER 3 of them all", {"max_similarity": 1}, None),
        ("Name the seeds of them all", {"max_similarity": 0.45}, "similar"),
        ("Name the seeds of them all", {}, None),
    ],
)
def test_each_filter_drops_and_is_counted(
    tmp_path: Path, said: str, options: dict[str, Any], rule: str | None
) -> None:
    made, _, folder = run(tmp_path, teacher(once(f"5. {said}")), instructions__filter=options)
    dropped = step(made, "instructions").dropped
    assert dropped == ({rule: 1} if rule else {})
    kept = [row["instruction"] for row in rows(folder, FILES[0])]
    assert (" ".join(said.split()).capitalize() in kept) == (rule is None)


def test_an_instruction_exactly_as_similar_as_allowed_stays(tmp_path: Path) -> None:
    # Seven of ten words in common with the first: F = 0.7.
    near = "One two three four five six seven old new blue."
    reply = f"5. {LONG}\n6. {near}"
    made, _, folder = run(tmp_path / "at", teacher(once(reply)))
    assert step(made, "instructions").dropped == {}
    assert rows(folder, FILES[0])[1]["most_similar"][LONG] == pytest.approx(0.7)
    made, _, _ = run(
        tmp_path / "below", teacher(once(reply)), instructions__filter={"max_similarity": 0.69}
    )
    assert step(made, "instructions").dropped == {"similar": 1}
    [row] = made.dropped
    assert (row["similar_to"], row["instruction"]) == ("generated_0", near)
    assert row["similarity"] == pytest.approx(0.7)


def test_the_ten_most_similar_and_the_mean_are_those_of_rouge_l(tmp_path: Path) -> None:
    _, _, folder = run(tmp_path, instructions__count=20)
    known = [json.loads(seed_line(i))["instruction"] for i in range(6)]
    for row in rows(folder, FILES[0]):
        scores = [rouge_l(row["instruction"], other) for other in known]
        assert row["avg_similarity_score"] == pytest.approx(sum(scores) / len(scores))
        assert list(row["most_similar"].values()) == sorted(scores, reverse=True)[:10]
        for other, score in row["most_similar"].items():
            assert score == rouge_l(row["instruction"], other)
        known.append(row["instruction"])


def test_a_reply_that_ended_for_length_is_dropped_whole(tmp_path: Path) -> None:
    said = completion("5. A good instruction here.\n6. A bad instr", finish_reason="length")
    made, _, folder = run(tmp_path, teacher(once(said)))
    assert step(made, "instructions").dropped == {"cut": 2}
    assert "A good instruction here." not in (folder / FILES[0]).read_text()


def test_a_completion_teacher_is_asked_and_read_as_upstream_does(tmp_path: Path) -> None:
    first = " write a short STORY about rain.\n6. Name   some\tgood songs."

    def numbered(prompt: str) -> str:
        return new_instructions(prompt).partition(". ")[2]

    script = teacher(once(first, numbered), kind=lambda prompt: " Yes.")
    made, server, folder = run(tmp_path, script, api="completion")
    assert all("messages" not in body for body in server.requests)
    kept = [row["instruction"] for row in rows(folder, FILES[0])]
    assert kept[:2] == ["Write a short story about rain.", "Name some good songs."]
    # Upstream knows no "Yes." with a full stop.
    assert made.counts["unclear_classifications"] == len(kept)
    assert not asked(server, "LABELS")


def test_unclear_kinds_are_counted_and_taken_as_no(tmp_path: Path) -> None:
    made, server, folder = run(tmp_path, teacher(kind=once("It is one", lambda p: "Yes.")))
    kinds = rows(folder, FILES[1])
    assert (
        [row["unclear"] for row in kinds].count(True) == made.counts["unclear_classifications"] == 1
    )
    assert made.counts["classification_tasks"] == len(kinds) - 1 == len(asked(server, "LABELS"))
    [no] = [row for row in kinds if row["unclear"]]
    assert (no["is_classification"], no["reply"]) == (False, "It is one")
    assert [prompt_of(b).strip() for b in asked(server, "INPUTS")] == [
        f"INPUTS {no['instruction']}"
    ]


def test_a_batch_with_a_classification_task_has_the_lower_limit(tmp_path: Path) -> None:
    _, server, folder = run(
        tmp_path,
        instructions__count=30,
        instances__batch=2,
        instances__max_tokens=70,
        instances__max_tokens_classification=60,
    )
    kinds = [row["is_classification"] for row in rows(folder, FILES[1])]
    limits = {
        prompt_of(body).split(" ", 1)[1].strip(): body["max_tokens"]
        for body in server.requests
        if prompt_of(body).startswith(("INPUTS", "LABELS"))
    }
    expected = [60 if any(kinds[i - i % 2 : i - i % 2 + 2]) else 70 for i in range(len(kinds))]
    assert {60, 70} == set(expected)
    assert [limits[row["instruction"]] for row in rows(folder, FILES[0])] == expected


@pytest.mark.parametrize(("tasks", "other"), [("classification", "generation"), ("generation", "")])
def test_instances_can_be_asked_for_one_kind_of_task_alone(
    tmp_path: Path, tasks: str, other: str
) -> None:
    made, server, folder = run(tmp_path, instructions__count=30, instances__tasks=tasks)
    wanted = [r["id"] for r in rows(folder, FILES[1]) if r["is_classification"] == bool(other)]
    assert [row["id"] for row in rows(folder, FILES[2])] == wanted
    assert not asked(server, "INPUTS" if other else "LABELS")
    kinds = step(made, "classification")
    assert kinds.dropped == {f"{other or 'classification'}_task": kinds.proposed - len(wanted)}


def test_faulty_instances_are_counted_and_listed(tmp_path: Path) -> None:
    replies = iter(
        [
            "Example 1\na\nOutput: a\nExample 2\na\nOutput:\nExample 3\nb\nOutput: c",
            "no examples",
            "",
            completion("Example 1\na\nOutput: b\nExample 2\na\nOutput: c", finish_reason="length"),
            "I'm sorry, but I cannot do that.",
        ]
    )
    lock = threading.Lock()

    def say(prompt: str) -> Any:
        with lock:
            said = next(replies, inputs_first(prompt))
        return web.json_response(said) if isinstance(said, dict) else said

    made, _, _ = run(tmp_path, teacher(kind=lambda p: "No", inputs=say))
    assert step(made, "instances").dropped == {
        "same_as_input": 1,
        "empty_output": 1,
        "unparsable": 1,
        "empty_reply": 1,
        "cut": 1,
        "refused": 1,
    }
    assert made.counts["tasks_without_instance"] == 3
    assert step(made, "prepare").proposed == step(made, "instances").kept


def test_max_instances_limits_what_stays_of_a_task(tmp_path: Path) -> None:
    made, _, _ = run(tmp_path, prepare__max_instances=1)
    tasks = Counter(e.id.rsplit("_", 1)[0] for e in made.examples if e.origin == "generated")
    assert set(tasks.values()) == {1}
    assert len(tasks) == 12
    assert step(made, "prepare").dropped["surplus"] > 0


def test_prompts_are_written_where_encodings_are_given_and_change_no_data(tmp_path: Path) -> None:
    encodings = {
        "with_input": [text("{instruction} > {input}")],
        "without_input": [text("{instruction} >")],
    }
    plain, _, _ = run(tmp_path / "plain")
    made, _, folder = run(tmp_path / "with", prepare__encodings=encodings)
    assert plain.examples == made.examples
    assert made.files == [*FILES, "prompts.jsonl"]
    prompts = rows(folder, "prompts.jsonl")
    assert made.counts["prompts"] == len(prompts)
    assert {row["id"] for row in prompts} == {e.id for e in made.examples}


def test_only_classification_seeds_are_shown_and_compared_with(tmp_path: Path) -> None:
    reply = "5. Seed number 1 of them all"
    seeds = [seed_line(i) for i in range(8)]
    made, server, folder = run(
        tmp_path,
        teacher(once(reply)),
        seeds=seeds,
        classification_seeds_only=True,
        instructions__filter={"max_similarity": 0.9},
        instructions__machine_shown=0,
    )
    for body in asked(server, "LIST"):
        numbers = set(re.findall(r"Seed number (\d)", prompt_of(body)))
        assert numbers == {"0", "2", "4", "6"}
    compared = rows(folder, FILES[0])[0]["most_similar"]
    assert all(int(name.split()[2]) % 2 == 0 for name in compared)
    # As in upstream, all seeds stand in the data.
    assert made.counts["seeds"] == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instructions__shown": 7}, "7 instructions a request, and there are 6 seeds"),
        ({"classification_seeds_only": True}, "there are 3 classification seeds"),
        ({"seeds": ["{broken"]}, "seeds.jsonl:1: not JSON"),
    ],
)
def test_input_that_cannot_work_is_found_before_any_call(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with FakeServer(teacher()) as server:
        with pytest.raises(InputError, match=said):
            make(make_call(tmp_path, server.endpoint(), **changes))
        assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "rule"),
    [
        ("", "empty_reply"),
        ("I am sorry, but I cannot help with that.", "refused"),
        ("5. 请写一首关于春天的诗", "too_short"),
        ("5. Écrivez un poème sur le printemps", "not_english"),
        ("5. " + "bla " * 500, "too_long"),
        (completion("5. " + "word " * 900, finish_reason="length"), "cut"),
        ("Of course! What would you like?", "unparsable"),
        ({"choices": [], "error": {"code": "content_filter"}}, "refused"),
    ],
)
def test_a_useless_teacher_ends_in_a_clear_error_with_counts(
    tmp_path: Path, reply: Any, rule: str
) -> None:
    def say(prompt: str) -> Any:
        if not isinstance(reply, dict):
            return reply
        status = 200 if reply["choices"] else 400
        return web.json_response(reply, status=status)

    with FakeServer(teacher(say)) as server:
        call = make_call(tmp_path, server.endpoint(), instructions__max_requests=4)
        with pytest.raises(HarnessError, match="nothing to keep") as caught:
            gen.run(call)
    assert f"4 {rule.replace('_', ' ')}" in caught.value.message
    assert "remove the work folder" in caught.value.hint
    assert {row["rule"] for row in rows(call.folder, "dropped.jsonl")} >= {rule}
    assert len(rows(call.folder, "transcript.jsonl")) == 4


def test_a_teacher_without_instances_ends_in_a_clear_error(tmp_path: Path) -> None:
    script = teacher(inputs=lambda p: "?", labels=lambda p: "?")
    with FakeServer(script) as server, pytest.raises(HarnessError, match="12 unparsable"):
        gen.run(make_call(tmp_path, server.endpoint()))


def late(reply: str, seconds: float) -> web.Response:
    class Late(web.Response):
        async def prepare(self, request: web.BaseRequest) -> Any:
            import asyncio

            await asyncio.sleep(seconds)
            return await super().prepare(request)

    return Late(text=json.dumps(completion(reply)), content_type="application/json")


def test_the_data_do_not_depend_on_which_reply_comes_first(tmp_path: Path) -> None:
    def backwards(body: dict[str, Any], seen: int) -> Answer:
        """The first of a round answers last."""
        places.append(1)
        reply = str(teacher()(body, seen))
        return late(reply, 0.06 - 0.02 * (len(places) % 3))

    def broken(body: dict[str, Any], seen: int) -> Answer:
        if seen == 0 and rng.random() < 0.5:
            return web.json_response({"error": {"message": "x"}}, status=500)
        return teacher()(body, seen)

    made = []
    for name, script, concurrency in [
        ("one by one", teacher(), 1),
        ("backwards", backwards, 3),
        ("broken", broken, 16),
    ]:
        places: list[int] = []
        rng = random.Random(name)
        with FakeServer(script) as server:
            endpoint = server.endpoint(concurrency=concurrency)
            call = make_call(tmp_path / name, endpoint, instructions__count=30)
            made.append(outcome(make(call), call.folder))
    assert made[0] == made[1] == made[2]


def test_requests_of_a_round_are_out_together(tmp_path: Path) -> None:
    with FakeServer(teacher(), delay_s=0.05) as server:
        make(make_call(tmp_path, server.endpoint(concurrency=8)))
        assert server.most_in_flight == 8


@pytest.mark.parametrize("calls", [2, 4, 16, 26])
def test_a_stopped_run_goes_on_without_paying_twice(tmp_path: Path, calls: int) -> None:
    with FakeServer(teacher()) as server:
        whole = make_call(tmp_path / "whole", server.endpoint())
        expected = outcome(make(whole), whole.folder)
        needed = len(server.requests)
        server.requests.clear()
        call = make_call(tmp_path / "stopped", server.endpoint())
        call.budget["calls"] = calls
        with pytest.raises(HarnessError, match="budget"):
            make(call)
        assert len(server.requests) == calls
        # A finished step's file is there, an unfinished one's is not.
        done = [name for name in FILES if (call.folder / name).exists()]
        assert done == list(FILES[: (calls > 3) + (calls > 15)])
        del call.budget["calls"]
        assert outcome(make(call), call.folder) == expected
        assert len(server.requests) == needed


def test_a_killed_stage_goes_on_with_the_replies_that_it_had(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def deadly(body: dict[str, Any], seen: int) -> Answer:
        if len(server.requests) == 18 and processes[0].poll() is None:
            processes[0].send_signal(signal.SIGKILL)
            return None
        return teacher()(body, seen)

    with FakeServer(deadly) as server:
        call = make_call(tmp_path / "killed", server.endpoint(concurrency=1))
        call = replace(call, code_version=SelfInstructGen.code_version)
        call.write(call.folder / CALL_FILE)
        stage = [sys.executable, "-m", "harness.stage", str(call.folder / CALL_FILE)]
        processes.append(subprocess.Popen(stage, stdout=subprocess.DEVNULL))
        assert processes[0].wait(timeout=60) == -signal.SIGKILL
        made = make(call)
        counts = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
        assert counts.most_common(2)[1][1] == 1  # only the call that was cut off came again
        assert sum(counts.values()) == len(rows(call.folder, "transcript.jsonl")) + 1
        whole = make_call(tmp_path / "whole", server.endpoint())
        assert outcome(make(whole), whole.folder) == outcome(made, call.folder)


def smoke_row() -> Row:
    [loaded] = load_rows([SPECS / "smoke/data_self_instruct.yaml"])
    return loaded.row


def simulated_call(folder: Path, **changes: Any) -> StageCall:
    row = smoke_row()
    assert row.gen is not None
    spec = row.gen[0].model_dump(mode="json")
    seeds = spec["seeds"]["path"]
    spec |= {"seeds": {"path": str(Path(seeds).absolute())}} | changes
    folder.mkdir(exist_ok=True)
    return StageCall("gen", "k", {"gen": spec}, {}, str(folder))


@pytest.mark.parametrize("api", ["chat", "completion"])
def test_the_smoke_row_makes_right_answers_and_labels_of_both_kinds(
    tmp_path: Path, api: str
) -> None:
    from harness.sim import grammar

    made = make(simulated_call(tmp_path, api=api))
    generated = [e for e in made.examples if e.origin == "generated"]
    assert len({e.instruction for e in generated}) >= 40
    right = [grammar.solve(e.instruction, e.input) == e.output for e in generated]
    labelled = [bool(e.is_classification) for e in generated]
    assert all(a != b for a, b in zip(right, labelled, strict=True))
    assert 0.1 < sum(labelled) / len(labelled) < 0.6
    assert made.client is not None
    assert made.client.simulated
    assert made.counts["unclear_classifications"] == 0
    again = make(simulated_call(tmp_path / "again", api=api))
    assert again.examples == made.examples


def test_a_clumsy_simulated_teachers_faults_are_counted(tmp_path: Path) -> None:
    simulated = {"seed": 1, "faults": {"429": 0.1, "format": 0.2, "refuse": 0.2}}
    made = make(simulated_call(tmp_path, teacher={"model": "sim", "simulated": simulated}))
    assert step(made, "instructions").dropped["unparsable"] > 0
    assert step(made, "instructions").dropped["refused"] > 0
    assert made.counts["unclear_classifications"] > 0
    assert step(made, "instances").dropped["unparsable"] > 0
    assert made.examples


def test_the_real_seeds_are_all_read_and_26_are_classification_tasks(
    tmp_path: Path, shared_data: Path
) -> None:
    file = shared_data / "self_instruct/seed_tasks.jsonl"
    seeds = {seed.id: seed for seed in read_seeds(file)}
    made = make(simulated_call(tmp_path / "all", seeds={"path": str(file)}))
    assert made.counts["seeds"] == len(seeds) == 175
    few = smoke_row().model_dump(mode="json")["gen"][0]["instructions"]
    prompt = SPECS / "self_instruct/prompts/instructions_classification.txt"
    few |= {"prompt": text(prompt.read_text()), "machine_shown": 0, "count": 150}
    call = simulated_call(
        tmp_path / "classification",
        seeds={"path": str(file)},
        classification_seeds_only=True,
        instructions=few,
    )
    made = make(call)
    shown = {i for row in rows(call.folder, FILES[0]) for i in row["shown"]}
    assert shown == {seed.id for seed in seeds.values() if seed.is_classification}
    assert len(shown) == 26
    # The other prompt brings other tasks.
    assert made.counts["classification_tasks"] == step(made, "classification").proposed
