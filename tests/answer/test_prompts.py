"""Prompt sets: real ones are read as they are, and what could be read in two ways is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.answer.prompts import Prompt, once, prompt_seed, read_prompts, system_notes
from harness.errors import InputError
from harness.spec.prompts import PromptSet


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(where: Any, hub: Path | None = None, **settings: Any) -> list[Prompt]:
    name = "files" if isinstance(where, dict) and "id" not in where else "file"
    name = "hub" if isinstance(where, dict) and "id" in where else name
    prompt_set = PromptSet.model_validate({name: where} | settings)
    return read_prompts(prompt_set, None if hub is None else str(hub))


def told(prompts: list[Prompt]) -> list[tuple[str, str]]:
    return [prompt.key for prompt in prompts]


def test_the_four_test_sets_of_alpagasus_are_read_as_they_are(shared_data: Path) -> None:
    sizes = {"koala": 180, "sinstruct": 252, "vicuna": 80, "wizardlm": 218}
    files = {name: str(shared_data / "alpagasus" / f"{name}_test_set.jsonl") for name in sizes}
    prompts = read(files)
    counts = {name: sum(p.dataset == name for p in prompts) for name in sizes}
    assert counts == sizes
    by_set = {name: [p for p in prompts if p.dataset == name] for name in sizes}
    assert by_set["koala"][2].instruction.startswith("List the layers of the TCP/IP model")
    assert by_set["vicuna"][0].instruction == "How can I improve my time management skills?"
    assert by_set["wizardlm"][0].instruction.startswith("If a car travels 120 miles")
    first = by_set["sinstruct"][0]
    assert first.input.startswith("If you have any questions about my rate")
    assert first.output is not None
    assert first.output.endswith("project's scope, please let me know.")
    assert sum(bool(p.input) for p in by_set["sinstruct"]) > 200
    assert len(set(once(p.key for p in prompts))) == 728, "one prompt of WizardLM, one of two sets"


def test_alpaca_evals_805_prompts_are_read_with_their_data_sets(shared_data: Path) -> None:
    prompts = read(str(shared_data / "alpaca_eval" / "gpt4_1106_preview_outputs.json"))
    assert len(prompts) == len(set(told(prompts))) == 805
    assert {p.dataset for p in prompts} == {
        "helpful_base", "koala", "oasst", "selfinstruct", "vicuna",
    }  # fmt: skip
    assert prompts[0].fields["generator"] == "gpt4_1106_preview"


@pytest.mark.parametrize("keys", [("from", "value"), ("role", "content")])
def test_of_a_conversation_the_last_question_is_asked_after_the_turns_before_it(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    def said(*turns: tuple[str, str]) -> dict[str, Any]:
        return {"conversations": [dict(zip(keys, t, strict=True)) for t in turns], "score": 5}

    path = write(
        tmp_path / "talk.jsonl",
        [
            said(("system", "Be brief."), ("human", "a?"), ("gpt", "A."), ("human", "b?")),
            said(("user", "c?")),
            said(("user", "a?"), ("gpt", "B."), ("human", "b?"), ("gpt", "C.")),
            said(("user", "d?"), ("gpt", "D.")),
        ],
    )
    first, second, third, fourth = read(path)
    assert (first.system, first.asked, first.output) == ("Be brief.", "b?", None)
    assert first.history == (("a?", "A."),)
    assert first.instruction == "System: Be brief.\n\nUser: a?\n\nAssistant: A.\n\nUser: b?"
    assert (second.system, second.instruction, second.output) == ("", "c?", None)
    assert (third.asked, third.output, third.history) == ("b?", "C.", (("a?", "B."),))
    assert third.key != first.key, "the same last question after other turns is another prompt"
    assert (fourth.instruction, fourth.output, fourth.history) == ("d?", "D.", ())
    assert first.fields["score"] == 5


def test_the_first_question_of_a_conversation_can_be_asked_by_itself(tmp_path: Path) -> None:
    talk = [
        ("system", "Be brief."),
        ("human", "a?"),
        ("gpt", "A."),
        ("human", "b?"),
        ("human", "c?"),
    ]
    row = {"conversations": [{"from": role, "value": text} for role, text in talk]}
    [prompt] = read(write(tmp_path / "talk.jsonl", [row]), turns="first")
    assert (prompt.instruction, prompt.output) == ("a?", "A.")
    assert (prompt.system, prompt.history, prompt.asked) == ("", (), "a?")


def test_a_turn_that_holds_both_sides_is_a_question_and_its_answer(tmp_path: Path) -> None:
    turns = [{"input": "a?", "output": "A."}, {"input": "b?", "output": "B."}]
    [prompt] = read(write(tmp_path / "talk.jsonl", [{"conversation": turns}]))
    assert (prompt.history, prompt.asked, prompt.output) == ((("a?", "A."),), "b?", "B.")


def test_a_system_text_of_the_conversation_is_shown_and_one_in_a_column_is_noted(
    tmp_path: Path,
) -> None:
    turns = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "Hi"}]
    same = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    talk = read(write(tmp_path / "talk.jsonl", [{"messages": turns}, {"messages": same}]))
    assert [p.instruction for p in talk] == [
        "System: Be rude.\n\nUser: Hi",
        "System: Be kind.\n\nUser: Hi",
    ]
    assert [(p.system, p.asked) for p in talk] == [("Be rude.", "Hi"), ("Be kind.", "Hi")]
    assert system_notes(talk) == []
    beside = {"messages": turns[1:], "system": "Be rude."}
    assert read(write(tmp_path / "both.jsonl", [beside]))[0].key == talk[0].key
    rows = [{"instruction": "a", "system": "Be brief."}, {"instruction": "b", "system": ""}]
    column = read(write(tmp_path / "column.jsonl", rows))
    assert [p.instruction for p in column] == ["a", "b"]
    (note,) = system_notes(column)
    assert note.startswith("1 of 2 prompts have a system text in a column of its own")


def test_parquet_and_hub_snapshots_are_read_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"conversations": [{"from": "human", "value": f"q{n}"}]} for n in range(3)]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    expected = [("q0", ""), ("q1", ""), ("q2", "")]
    assert told(read(str(path))) == expected
    hub = {"id": "a/b", "revision": "0" * 40}
    assert told(read(hub, tmp_path)) == expected
    assert told(read(hub | {"file": "data/" + path.name}, tmp_path)) == expected
    with pytest.raises(InputError, match=r"has no file eval\.json"):
        read(hub | {"file": "eval.json"}, tmp_path)
    with pytest.raises(InputError, match="has no split 'test'"):
        read(hub | {"split": "test"}, tmp_path)
    with pytest.raises(InputError, match="was not handed to the stage"):
        read(hub)


def test_named_columns_are_taken_and_others_are_not_looked_for(tmp_path: Path) -> None:
    row = {"q": "ask", "prompt": "no", "ctx": "given", "sys": "s", "set": 7, "gold": "g"}
    path = write(tmp_path / "a.jsonl", [row])
    columns = {
        "instruction": "q",
        "input": "ctx",
        "system": "sys",
        "dataset": "set",
        "output": "gold",
    }
    (prompt,) = read(path, columns=columns)
    assert prompt == Prompt("ask", "given", "s", "7", "g", row)
    with pytest.raises(InputError, match=r"no column 'x' \(prompts\.columns\.input\); it has: q"):
        read(path, columns={"input": "x"})


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"instruction": "a"}, {"instruction": "b"}, {"instruction": "a"}],
         r"a\.jsonl:3: prompt 2 is the same as prompt 0 \(.*:1\)"),
        ([{"id": 1, "instruction": "a"}, {"id": 1, "instruction": "a"}], "the same as prompt 0"),
        ([{"instruction": "a"}, {"instruction": "\n"}], r"a\.jsonl:2: an empty instruction"),
        ([{"instruction": "a"}, {"input": "b"}], r"a\.jsonl:2: no `instruction`; .* are: input"),
        ([{"instruction": ["a"]}], "`instruction` must be a text"),
        ([{"instruction": "a", "input": True}], "`input` must be a text, not true"),
        ([{"said": "a"}], "no `instruction` in its records, which have: said"),
        ([{"instruction": "a", "question": "b"}], "instruction and question could each hold"),
        ([{"prompt": "a", "messages": []}], "prompt and messages could each hold"),
        ([{"messages": "a"}], "`messages` must be a list"),
        ([{"messages": [{"role": "tool", "content": "a"}]}], "message 0 of `messages` has a role"),
        ([{"messages": [{"role": "user"}]}], "message 0 of `messages` is no object with a role"),
        ([{"messages": [{"role": "assistant", "content": "a"}]}], "does not begin with a user's"),
        (
            [{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}],
            "a turn of the user follows one of the user",
        ),
        (
            [{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}],
            "a turn of the system follows one of the user",
        ),
        ([{"instruction": "a", "instances": []}], "`instances` must be a list of objects"),
        ([{"instruction": "a"}, 3], r"a\.jsonl:2: an object is wanted"),
        ([], "holds no records"),
    ],
)  # fmt: skip
def test_a_set_that_could_be_misread_is_refused_with_its_place(
    tmp_path: Path, rows: list[Any], fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        read(write(tmp_path / "a.jsonl", rows))


def test_the_same_prompt_may_stand_twice_where_ids_or_sets_tell_the_places_apart(
    tmp_path: Path,
) -> None:
    one = write(tmp_path / "1", [{"idx": 1, "prompt": "a"}, {"idx": 2, "prompt": "a"}])
    two = write(tmp_path / "2", [{"text": "b"}, {"text": "a"}])
    assert once(p.key for p in read({"one": one, "two": two})) == [0, 0, 2, 0]
    other = write(tmp_path / "3", [{"text": "a", "system": "Be brief."}])
    with pytest.raises(InputError, match="with another system text"):
        read({"one": one, "three": other})


def test_first_and_sample_hold_for_each_set_and_keep_its_order(tmp_path: Path) -> None:
    one = write(tmp_path / "1", [{"prompt": f"a{n}"} for n in range(50)])
    two = write(tmp_path / "2", [{"prompt": f"b{n}"} for n in range(50)])
    files = {"one": one, "two": two}
    assert [p.instruction for p in read(files, first=2)] == ["a0", "a1", "b0", "b1"]
    drawn = read(files, sample={"k": 10, "seed": 1})
    names = [p.instruction for p in drawn]
    assert [len([p for p in drawn if p.dataset == name]) for name in files] == [10, 10]
    numbers = [int(name[1:]) for name in names]
    assert numbers[:10] == sorted(numbers[:10])
    assert names == [p.instruction for p in read(files, sample={"k": 10, "seed": 1})]
    assert names != [p.instruction for p in read(files, sample={"k": 10, "seed": 2})]
    with pytest.raises(InputError, match=r"a sample of 51 prompts is asked for, and .* has 50"):
        read(files, sample={"k": 51})


def test_a_prompts_own_seed_depends_on_each_of_its_parts() -> None:
    seeds = {prompt_seed(s, i, g) for s in (1, 2) for i in ("a", "ab") for g in ("", "b")}
    assert len(seeds) == 8
    assert prompt_seed(42, "a", "b") == 15693243403668120418
