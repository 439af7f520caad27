"""The expand recipe against scripted teachers and the simulated one."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Lineage
from harness.errors import HarnessError, InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.expand import ExpandGen
from harness.gen.recipes.expand import recipe as expand
from harness.llm.reply import REFUSED
from tests.helpers import read_jsonl
from tests.llm.fake_server import Answer, FakeServer, completion, failure, last_message, reply

PROMPT_4 = Path(__file__).parents[3] / "specs/mini_lima_paper/prompts/prompt4.txt"
EXAMPLE = {
    "name": "calm",
    "instruction": "Opposite of calm?",
    "output": "stormy",
    "expanded": "Stormy, like the sea.",
}


pytestmark = pytest.mark.usefixtures("short_waits")


def examples(count: int = 4, **changes: Any) -> list[DatasetExample]:
    return [
        DatasetExample(
            id=f"e{i}",
            name=f"name {i}" if i else "",
            instruction=f"Do {i}.",
            input=f"in {i}" if i % 2 else "",
            output=f"out {i}",
            rating=4.0,
            lineage=(Lineage("naive", "tasks", (i,), ("s",)),),
            **changes,
        )
        for i in range(count)
    ]


def make(
    tmp_path: Path, endpoint: Any, given: list[DatasetExample], **changes: Any
) -> RecipeResult:
    tmp_path.mkdir(exist_ok=True, parents=True)
    params = {
        "teacher": endpoint.model_dump(mode="json"),
        "prompt": {"path": "4", "text": "[{name}|{instr}|{input}|{output}]"},
        "example": EXAMPLE,
    }
    gen = ExpandGen.model_validate(params | changes)
    made = gen.make(StageCall("gen", "k", {}, {}, str(tmp_path)), given)
    [step] = made.filters
    assert step.proposed == len(given)
    return made


def longer(body: dict[str, Any], seen: int) -> Answer:
    return f"A longer {last_message(body)}"


def test_every_output_is_rewritten_and_nothing_else(tmp_path: Path) -> None:
    given = examples()
    with FakeServer(longer) as server:
        made = make(tmp_path, server.endpoint(), given)
    assert [e.output for e in made.examples] == [
        "A longer [e0|Do 0.||out 0]",
        "A longer [name 1|Do 1.|in 1|out 1]",
        "A longer [name 2|Do 2.||out 2]",
        "A longer [name 3|Do 3.|in 3|out 3]",
    ]
    for i, (old, new) in enumerate(zip(given, made.examples, strict=True)):
        step = Lineage("expand", "expand", (i,))
        assert new == old.after(step, output=new.output)
    assert made.before == given
    assert (made.filters[0].proposed, made.filters[0].kept) == (4, 4)
    assert made.counts == {"rewritten": 4, "shorter": 0, "failed": 0}
    assert made.notes == []
    assert made.files == ["failed.jsonl"]
    assert read_jsonl(tmp_path / "failed.jsonl") == []


def test_prompt_4_is_sent_with_the_task_and_the_worked_example(tmp_path: Path) -> None:
    given = [DatasetExample("e", "Say {input}.", "in", "out {name}", name="n")]
    template = {"path": "4", "text": PROMPT_4.read_text()}
    with FakeServer(longer) as server:
        make(tmp_path, server.endpoint(), given, prompt=template, sampling={"temperature": 0.2})
        (body,) = server.requests
    sent = last_message(body)
    assert body["temperature"] == 0.2
    assert "max_tokens" not in body
    start, example, task = (sent[: sent.index("Here is")], *sent.split("Example part end."))
    assert start == PROMPT_4.read_text()[: len(start)]
    assert example.endswith(
        "Data give to you: Task name: 'calm', Instruction: 'Opposite of calm?', Input: ', "
        "output: 'stormy'. Output should be: Stormy, like the sea.. "
    )
    assert task == (
        " Following is content of the task: Task name: 'n', Instruction: 'Say {input}.', "
        "Input: 'in, output: 'out {name}'. Print output text directly."
    )


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("  A b.\n", "A b."),
        ('"A b."', "A b."),
        ("'A isn't b.'", "A isn't b."),
        ("Output: A b.", "A b."),
        ("output: 'A b.'", "A b."),
        ("Output should be: A b.", "A b."),
        ("Output: Output: A b.", "Output: A b."),
        ("A b. Output: c", "A b. Output: c"),
        ('"A," she said, "b."', '"A," she said, "b."'),
        ("Sure! Here it is:\n\nA b.", "Sure! Here it is:\n\nA b."),
        ("**A** b.", "**A** b."),
        ("I'm sorry to hear that.", "I'm sorry to hear that."),
    ],
)
def test_only_the_label_and_the_quotes_around_a_reply_are_taken_off(text: str, output: str) -> None:
    assert expand.read(reply(text), "old") == (None, output)


@pytest.mark.parametrize("original", ['"A b."', "Output: A b."])
def test_what_the_output_had_itself_is_left_on(original: str) -> None:
    assert expand.read(reply(original), original) == (None, original)


@pytest.mark.parametrize(
    ("text", "finish_reason", "original", "rule"),
    [
        ("", "stop", "old", "empty_reply"),
        ("Output:", "stop", "old", "empty_reply"),
        ('""', "stop", "old", "empty_reply"),
        ("", REFUSED, "old", "refused"),
        ("Half an ans", "content_filter", "old", "refused"),
        ("I’m sorry,  but I can't help with that.", "stop", "old", "refused"),
        ("As an AI language model, I cannot feel.", "stop", "old", "refused"),
        ("I am sorry, but I must decline.", "stop", "Dear Ann, I am sorry, but no.", "refused"),
        ("I am sorry, but I must decline.", "stop", "I'm sorry, but no.", None),
        ("A longer text that", "length", "old", "cut"),
        ("这是一个更长的答案。", "stop", "old", "other_script"),
        ("这是一个更长的答案。", "stop", "答案", None),
        ("Ein längerer Text.", "stop", "old", None),
        ("half \ud800", "stop", "old", "unparsable"),
        ("42", "stop", "old", None),
    ],
)
def test_a_reply_that_is_no_rewriting_fails_by_its_rule(
    text: str, finish_reason: str, original: str, rule: str | None
) -> None:
    assert expand.read(reply(text, finish_reason), original)[0] == rule


def troubled(body: dict[str, Any], seen: int) -> Answer:
    """e0: refused by the server; e1: empty; e2: cut; e3: shorter."""
    prompt = last_message(body)
    if "Do 0" in prompt:
        return failure(400, "no", code="content_policy_violation")
    if "Do 2" in prompt:
        return web.json_response(completion("on and on " * 100, finish_reason="length"))
    return "" if "Do 1" in prompt else "x"


@pytest.mark.parametrize("on_failure", ["keep", "drop"])
def test_what_could_not_be_rewritten_stays_or_goes_and_is_counted(
    tmp_path: Path, on_failure: str
) -> None:
    given = examples()
    with FakeServer(troubled) as server:
        made = make(tmp_path, server.endpoint(), given, on_failure=on_failure)
    rules = {"refused": 1, "empty_reply": 1, "cut": 1}
    assert made.counts == {
        "rewritten": 1,
        "shorter": 1,
        "failed": 3,
        **{f"failed_{rule}": 1 for rule in rules},
    }
    rows = read_jsonl(tmp_path / "failed.jsonl")
    assert [(row["id"], row["rule"]) for row in rows] == [
        ("e0", "refused"),
        ("e1", "empty_reply"),
        ("e2", "cut"),
    ]
    assert rows[2]["reply"] == ("on and on " * 100)[:200]
    assert made.examples[-1].output == "x"
    (note,) = made.notes
    assert note.startswith("3 of 4 outputs were not rewritten (1 cut, 1 empty reply, 1 refused)")
    if on_failure == "keep":
        assert [e.output for e in made.examples[:3]] == ["out 0", "out 1", "out 2"]
        assert made.examples[0].lineage[-1] == Lineage("expand", "unchanged", (0,))
        assert (made.filters[0].kept, made.dropped) == (4, [])
    else:
        assert [e.id for e in made.examples] == ["e3"]
        assert made.filters[0].dropped == rules
        assert made.dropped == rows


@pytest.mark.parametrize("on_failure", ["keep", "drop"])
def test_a_teacher_that_rewrites_nothing_leaves_no_data_set(
    tmp_path: Path, on_failure: str
) -> None:
    with FakeServer(lambda body, seen: "I'm sorry, but I can't.") as server:
        made = make(tmp_path, server.endpoint(), examples(), on_failure=on_failure)
    assert made.examples == []
    assert made.filters[0].dropped == {"refused": 4}
    assert len(made.dropped) == 4


def test_an_interrupted_stage_goes_on_without_asking_again(tmp_path: Path) -> None:
    answered: list[str] = []
    most = 5

    def script(body: dict[str, Any], seen: int) -> Answer:
        if len(answered) == most:
            return failure(500)
        answered.append(last_message(body))
        return longer(body, seen)

    with FakeServer(script) as server:
        endpoint = server.endpoint(max_attempts=1, concurrency=2)
        with pytest.raises(HarnessError):
            make(tmp_path, endpoint, examples(12))
        most = -1
        made = make(tmp_path, endpoint, examples(12))
    assert len(answered) == len(set(answered)) == 12
    assert [e.lineage[-1].requests for e in made.examples] == [(i,) for i in range(12)]
    assert made.counts["rewritten"] == 12


@pytest.mark.parametrize(
    ("given", "said"),
    [([], "an empty data set"), (examples(2, chosen="a", rejected="b"), "holds preferences")],
)
def test_data_without_outputs_is_refused_before_any_call(
    tmp_path: Path, given: list[DatasetExample], said: str
) -> None:
    with FakeServer(longer) as server:
        with pytest.raises(InputError, match=said):
            make(tmp_path, server.endpoint(), given)
        assert server.requests == []


def test_a_note_tells_of_turns_that_the_prompt_does_not_show(tmp_path: Path) -> None:
    given = [*examples(2), *examples(1, history=(("a", "b"),)), *examples(1, system="s")]
    with FakeServer(longer) as server:
        made = make(tmp_path, server.endpoint(), given)
    assert made.notes == ["2 of 4 examples have a system text or earlier turns: not shown"]


def test_the_simulated_teacher_rewrites_the_real_seeds_longer(
    tmp_path: Path, shared_data: Path
) -> None:
    from harness.gen.seeds import read_seeds
    from harness.spec.base import Endpoint

    seeds = read_seeds(shared_data / "self_instruct/seed_tasks.jsonl")
    given = [seed.example("naive") for seed in seeds]
    endpoint = Endpoint(model="t", simulated={"faults": {"refuse": 0.1, "format": 0.3}})
    template = {"path": "4", "text": PROMPT_4.read_text()}
    made = make(tmp_path, endpoint, given, prompt=template)
    assert made.counts["shorter"] == 0
    assert 0 < made.counts["failed_refused"] == made.counts["failed"] < 40
    for old, new in zip(given, made.examples, strict=True):
        assert old.output.strip().rstrip(".") in new.output
        assert not new.output.startswith("Output:")
    # Those whose outputs hold quotes that do not pair up.
    assert 0 < sum(e.output.startswith('"') for e in made.examples) < 6
