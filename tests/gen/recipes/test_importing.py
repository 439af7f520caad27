"""What an import takes from files in other people's layouts, and what it says of the rest."""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from harness.answer.prompts import read_prompts
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data import dataset, layouts
from harness.data.dataset import DatasetExample, Lineage
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.importing import ImportGen
from harness.spec.prompts import PromptSet

Rows = list[dict[str, Any]]

ALPACA = [
    {"instruction": "Name a river.", "input": "", "output": "The Oder."},
    {"instruction": "Add them.", "input": "2, 3", "output": "5"},
    {"instruction": "Name a hill.", "input": "", "output": "The Brocken."},
]
SHAREGPT = ("from", "value", "human", "gpt")
MESSAGES = ("role", "content", "user", "assistant")


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def take(source: Path | Rows, tmp_path: Path, **gen: Any) -> RecipeResult:
    """Import a file or folder, or rows, which are then written as JSON lines."""
    path = write(tmp_path / "given.jsonl", source) if isinstance(source, list) else source
    call = StageCall("gen", "k", {}, {}, str(tmp_path))
    spec = ImportGen.model_validate({"file": {"path": str(path)}, **gen})
    made = spec.make(call, [])
    check(made)
    return made


def check(made: RecipeResult) -> None:
    """Every row is either an example or a listed drop."""
    assert made.filters[0].proposed == made.used["rows"]
    assert made.filters[-1].kept == len(made.examples)
    listed = Counter((row["step"], row["rule"]) for row in made.dropped)
    counted = {(s.step, rule): n for s in made.filters for rule, n in s.dropped.items() if n}
    assert listed == counted
    ids = [example.id for example in made.examples]
    assert len(set(ids)) == len(ids)


def refusal(source: Path | Rows, tmp_path: Path, **gen: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        take(source, tmp_path, **gen)
    return caught.value


def talk(*texts: Any, style: tuple[str, ...] = MESSAGES, system: str = "") -> Rows:
    """Messages of user and assistant in turn, after a system text where one is given."""
    who, what, *roles = style
    said = [{who: roles[i % 2], what: text} for i, text in enumerate(texts)]
    return [{who: "system", what: system}, *said] if system else said


def texts(made: RecipeResult) -> list[tuple[str, str, str]]:
    return [(e.instruction, e.input, e.output) for e in made.examples]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "named_oddly"])
def test_each_file_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    made = take(write(tmp_path / name, ALPACA), tmp_path)
    assert texts(made) == [("Name a river.", "", "The Oder."), ("Add them.", "2, 3", "5"),
                           ("Name a hill.", "", "The Brocken.")]  # fmt: skip
    assert [e.id for e in made.examples] == ["import_0", "import_1", "import_2"]
    assert {e.origin for e in made.examples} == {"imported"}
    assert made.examples[0].lineage == (Lineage("import", "import"),)
    assert made.used == {
        "file": name,
        "format": "parquet" if name == "a.parquet" else "json",
        "files": 1,
        "rows": 3,
        "layout": "pair",
        "columns": {"instruction": "instruction", "input": "input", "output": "output"},
        "columns_unused": [],
    }


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
        ("instruction", "response"),
    ],
)
def test_pairs_are_known_by_their_usual_names(tmp_path: Path, asks: str, answers: str) -> None:
    made = take([{asks: "Name a river.", answers: "The Oder.", "source": "x"}], tmp_path)
    assert texts(made) == [("Name a river.", "", "The Oder.")]
    assert made.used["columns"] == {"instruction": asks, "output": answers}
    assert made.used["columns_unused"] == ["source"]


def test_a_context_column_is_the_input(tmp_path: Path) -> None:
    made = take([{"instruction": "Where?", "context": "In Ulm.", "response": "Ulm"}], tmp_path)
    assert texts(made) == [("Where?", "In Ulm.", "Ulm")]


@pytest.mark.parametrize(
    ("column", "style"),
    [("conversations", SHAREGPT), ("messages", MESSAGES), ("conversation", MESSAGES)],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_conversations_become_examples_with_their_system_text(
    tmp_path: Path, column: str, style: tuple[str, ...], suffix: str
) -> None:
    rows = [
        {column: talk("Name a river.", "The Oder.", style=style, system="Be brief.")},
        {column: talk("Add 2 and 3.", "5", style=style)},
    ]
    made = take(write(tmp_path / f"a.{suffix}", rows), tmp_path)
    assert texts(made) == [("Name a river.", "", "The Oder."), ("Add 2 and 3.", "", "5")]
    assert [e.system for e in made.examples] == ["Be brief.", ""]
    assert made.used["columns"] == {"messages": column}


LONG = talk("q1", "a1", "q2", "a2", "q3", "a3")


@pytest.mark.parametrize(
    ("turns", "instruction", "output", "history"),
    [
        ("first", "q1", "a1", ()),
        ("last", "q3", "a3", ()),
        ("history", "q3", "a3", (("q1", "a1"), ("q2", "a2"))),
    ],
)
def test_turns_says_what_becomes_of_a_long_conversation(
    tmp_path: Path, turns: str, instruction: str, output: str, history: Any
) -> None:
    made = take([{"messages": LONG}, {"messages": talk("q", "a")}], tmp_path, turns=turns)
    long, short = made.examples
    assert (long.instruction, long.output, long.history) == (instruction, output, history)
    assert (short.instruction, short.output, short.history) == ("q", "a", ())
    assert made.counts["of_several_turns"] == 1
    said = [note for note in made.notes if "1 of 2 conversations have several turns" in note]
    assert len(said) == (turns != "history")


def test_turns_can_drop_long_conversations(tmp_path: Path) -> None:
    made = take([{"messages": LONG}, {"messages": talk("q", "a")}], tmp_path, turns="drop")
    assert texts(made) == [("q", "", "a")]
    assert [row["rule"] for row in made.dropped] == ["several_turns"]


def test_a_last_question_without_an_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    made = take([{"messages": talk("q1", "a1", "q2")}], tmp_path, turns="last")
    assert texts(made) == [("q1", "", "a1")]
    assert made.counts["unanswered_last_turns"] == 1


def test_earlier_turns_beside_a_pair_are_part_of_the_conversation(tmp_path: Path) -> None:
    row = {**ALPACA[1], "history": [["Hello.", "Good day."]]}
    made = take([row], tmp_path, turns="history")
    assert texts(made) == [("Add them.", "2, 3", "5")]
    assert made.examples[0].history == (("Hello.", "Good day."),)
    assert texts(take([row], tmp_path)) == [("Hello.", "", "Good day.")]


PREFERENCES = [
    {"prompt": "q", "chosen": "good", "rejected": "bad"},
    {"chosen": talk("q", "good"), "rejected": talk("q", "bad")},
    {"prompt": "something else", "chosen": talk("q", "good"), "rejected": talk("q", "bad")},
    {"prompt": "q", "chosen": talk("q", "good")[1:], "rejected": talk("q", "bad")[1:]},
    {"prompt": talk("q"), "chosen": talk("q", "good")[1:], "rejected": talk("q", "bad")[1:]},
    {"prompt": talk("q"), "chosen": "good", "rejected": "bad"},
]


@pytest.mark.parametrize("row", PREFERENCES)
def test_preference_data_is_texts_or_conversations_that_share_their_start(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    made = take([row], tmp_path, kind="preference")
    [example] = made.examples
    assert (example.instruction, example.chosen, example.rejected) == ("q", "good", "bad")
    assert example.output == ""
    assert made.used["layout"] == "preference"


def test_of_long_preference_conversations_the_compared_turn_is_kept_with_last_or_history(
    tmp_path: Path,
) -> None:
    start = talk("q1", "a1", "q2", system="Be brief.")
    row = {
        "chosen": [*start, {"role": "assistant", "content": "good"}],
        "rejected": [*start, {"role": "assistant", "content": "bad"}],
    }
    for turns, history in (("last", ()), ("history", (("q1", "a1"),))):
        [example] = take([row], tmp_path, kind="preference", turns=turns).examples
        assert (example.instruction, example.chosen, example.rejected) == ("q2", "good", "bad")
        assert (example.system, example.history) == ("Be brief.", history)
    made = take([row], tmp_path, kind="preference", turns="first")
    assert [r["rule"] for r in made.dropped] == ["same_first_answer"]
    assert "turns: last" in made.notes[-1]


@pytest.mark.parametrize("turns", ["first", "last", "history"])
def test_answers_to_different_conversations_are_no_preference(tmp_path: Path, turns: str) -> None:
    others = [
        (talk("q", "good"), talk("other", "bad")),
        (talk("q", "good"), talk("q", "bad", system="Be rude.")),
    ]
    if turns != "first":
        others.append((talk("q1", "a1", "q", "good"), talk("q1", "else", "q", "bad")))
    rows = [{"chosen": one, "rejected": two} for one, two in others]
    made = take(rows, tmp_path, kind="preference", turns=turns)
    assert {row["rule"] for row in made.dropped} == {"different_prompts"}
    assert made.examples == []


def test_a_column_map_names_any_columns(tmp_path: Path) -> None:
    rows = [
        {"key": 7, "task": "rivers", "ask": "Name a river.", "given": "Poland", "say": "The Oder.",
         "rules": "Be brief.", "score": 4, "clf": False},
    ]  # fmt: skip
    columns = {"id": "key", "name": "task", "instruction": "ask", "input": "given",
               "output": "say", "system": "rules", "rating": "score",
               "is_classification": "clf"}  # fmt: skip
    [example] = take(rows, tmp_path, columns=columns).examples
    assert example == DatasetExample(
        id="7",
        name="rivers",
        instruction="Name a river.",
        input="Poland",
        output="The Oder.",
        system="Be brief.",
        rating=4.0,
        is_classification=False,
        origin="imported",
        lineage=(Lineage("import", "import"),),
    )


def test_part_of_a_column_map_settles_which_of_two_layouts_is_meant(tmp_path: Path) -> None:
    rows = [{**ALPACA[0], "messages": talk("Name a lake.", "Ammersee.")}]
    error = refusal(rows, tmp_path)
    assert "instruction: instruction; output: output; messages: messages" in error.message
    assert "gen.columns" in error.hint
    made = take(rows, tmp_path, columns={"messages": "messages"})
    assert texts(made) == [("Name a lake.", "", "Ammersee.")]
    made = take(rows, tmp_path, columns={"output": "output"})
    assert texts(made) == [("Name a river.", "", "The Oder.")]


def test_two_columns_for_one_field_are_not_chosen_between(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response": "a", "answer": "b"}]
    assert "output: response, answer" in refusal(rows, tmp_path).message
    assert texts(take(rows, tmp_path, columns={"output": "answer"})) == [("q", "", "b")]


def test_a_column_that_is_not_there_is_named_with_the_nearest_ones(tmp_path: Path) -> None:
    columns = {"instruction": "instructions", "output": "zzz"}
    error = refusal(ALPACA, tmp_path, columns=columns)
    assert "columns.instruction: there is no column 'instructions'" in error.message
    assert "columns.output: there is no column 'zzz'" in error.message
    assert "the columns are: instruction, input, output" in error.message
    assert "Did you mean 'instruction'?" in error.hint


def test_a_file_of_no_known_layout_shows_its_columns(tmp_path: Path) -> None:
    error = refusal([{"text": "x", "label": 1}], tmp_path)
    assert "the columns are: text, label" in error.message
    assert "gen.columns" in error.hint


@pytest.mark.parametrize(
    ("rows", "kind", "fits"),
    [
        (ALPACA, "preference", "instruction"),
        ([{"messages": LONG}], "preference", "instruction"),
        (PREFERENCES[:1], "instruction", "preference"),
        (PREFERENCES[1:2], "instruction", "preference"),
        ([DatasetExample("a", "q", output="a").row()], "preference", "instruction"),
        ([DatasetExample("a", "q", chosen="a", rejected="b").row()], "instruction", "preference"),
    ],
)
def test_the_other_kind_of_data_is_named(tmp_path: Path, rows: Rows, kind: str, fits: str) -> None:
    error = refusal(rows, tmp_path, kind=kind)
    assert f"holds {fits} data" in error.message
    assert error.hint == f"Say kind: {fits}."


@pytest.mark.parametrize(
    ("column", "rows", "kind"),
    [
        ("chosen", [{**ALPACA[0], "chosen": "x"}], "instruction"),
        ("output", [{**PREFERENCES[0], "output": "x"}], "preference"),
        ("input", [{"messages": LONG, "input": "x"}], "instruction"),
    ],
)
def test_a_mapped_column_that_the_layout_has_no_use_for_is_refused(
    tmp_path: Path, column: str, rows: Rows, kind: str
) -> None:
    error = refusal(rows, tmp_path, kind=kind, columns={column: column})
    assert f"columns.{column} is of no use" in error.message


def said(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": role} for role in roles]}


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"instruction": " ", "output": "a"}, "empty_instruction"),
        ({"instruction": None, "output": "a"}, "empty_instruction"),
        ({"instruction": "q", "output": "\n"}, "empty_output"),
        ({"instruction": "q"}, "empty_output"),
        ({"instruction": "q", "output": True}, "wrong_type"),
        ({"instruction": "q", "output": float("inf")}, "wrong_type"),
        ({"instruction": "q", "output": float("nan")}, "empty_output"),
        ({"instruction": "q", "output": "a", "input": ["x"]}, "wrong_type"),
        ({"instruction": "q", "output": "a", "history": "x"}, "wrong_type"),
        ({"instruction": "q", "output": "a", "history": [["x"]]}, "wrong_type"),
        ({"messages": None}, "no_user_turn"),
        (said(), "no_user_turn"),
        (said("system"), "no_user_turn"),
        (said("assistant"), "no_user_turn"),
        (said("user"), "no_answer"),
        (said("system", "user"), "no_answer"),
        (said("assistant", "user", "assistant"), "not_alternating"),
        (said("user", "user", "assistant"), "not_alternating"),
        (said("system", "system", "user", "assistant"), "not_alternating"),
        (said("user", "tool"), "unknown_role"),
        ({"messages": "user: hello"}, "wrong_type"),
        ({"messages": ["hello"]}, "wrong_type"),
        ({"messages": [{"role": "user"}]}, "wrong_type"),
        ({"messages": talk("q", "a", system="x"), "system": "y"}, "two_systems"),
        ({"messages": talk("q", " ")}, "empty_output"),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, "empty_chosen"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "empty_rejected"),
        ({"prompt": "q", "chosen": "a", "rejected": "a\n"}, "identical_answers"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "empty_instruction"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed_with_its_rule_line_and_content(
    tmp_path: Path, row: dict[str, Any], rule: str
) -> None:
    kind = "preference" if "chosen" in row else "instruction"
    good = {
        "preference": PREFERENCES[0],
        "instruction": {"messages": talk("q", "a")} if "messages" in row else ALPACA[0],
    }[kind]
    made = take([good, row, good], tmp_path, kind=kind)
    assert [e.id for e in made.examples] == ["import_0", "import_2"]
    assert f"1 of 3 rows were dropped (1 {rule.replace('_', ' ')}); dropped.jsonl" in made.notes[0]
    [dropped] = made.dropped
    where = {"step": "import", "rule": rule, "id": "import_1", "line": 2}
    content = {"instruction" if name == "prompt" else name: row[name] for name in row}
    assert json.dumps(dropped, sort_keys=True) == json.dumps({**where, **content}, sort_keys=True)


def test_an_empty_earlier_turn_spoils_the_history_alone(tmp_path: Path) -> None:
    rows = [{"messages": talk("q1", "", "q2", "a2")}]
    made = take(rows, tmp_path, turns="history")
    assert [row["rule"] for row in made.dropped] == ["empty_turn"]
    assert texts(take(rows, tmp_path, turns="last")) == [("q2", "", "a2")]


def test_what_follows_the_first_exchange_does_not_spoil_it(tmp_path: Path) -> None:
    rows = [said("user", "assistant", "assistant", "assistant")]
    assert texts(take(rows, tmp_path)) == [("user", "", "assistant")]
    made = take(rows, tmp_path, turns="last")
    assert [row["rule"] for row in made.dropped] == ["not_alternating"]


def test_a_row_of_a_parquet_file_that_json_cannot_hold_is_listed_all_the_same(
    tmp_path: Path,
) -> None:
    rows = [{"instruction": b"\xff", "output": "a"}]
    made = take(write(tmp_path / "a.parquet", rows), tmp_path)
    assert made.dropped[0]["rule"] == "wrong_type"
    assert made.dropped[0]["row"] == 0
    dataset.write_rows(tmp_path / "dropped.jsonl", made.dropped)


@pytest.mark.parametrize(
    ("value", "rating"),
    [(4, 4.0), (4.5, 4.5), (None, None), (float("nan"), None)],
)
def test_ratings_are_numbers_or_absent(tmp_path: Path, value: Any, rating: Any) -> None:
    [example] = take([{**ALPACA[0], "rating": value}], tmp_path).examples
    assert example.rating == rating


@pytest.mark.parametrize("value", ["4.5", True, float("inf"), 10**400])
def test_what_is_no_rating_drops_the_row_if_mapped_and_else_the_column(
    tmp_path: Path, value: Any
) -> None:
    rows = [{**ALPACA[0], "rating": value}, {**ALPACA[1], "rating": 1}]
    made = take(rows, tmp_path, columns={"rating": "rating"})
    assert [row["rule"] for row in made.dropped] == ["wrong_type"]
    made = take(rows, tmp_path)
    assert [e.rating for e in made.examples] == [None, None]
    assert "the column 'rating' was left aside" in made.notes[0]
    assert "rating" in made.used["columns_unused"]


def test_a_duplicate_id_in_a_mapped_column_names_both_lines(tmp_path: Path) -> None:
    rows = [{**row, "key": key} for row, key in zip(ALPACA, ["a", "b", "a"], strict=True)]
    error = refusal(rows, tmp_path, columns={"id": "key"})
    assert "given.jsonl:3: the id 'a' is also that of" in error.message
    assert error.message.endswith("given.jsonl:1")


def test_an_id_column_that_repeats_itself_is_left_aside_with_a_note(tmp_path: Path) -> None:
    rows = [{**row, "id": i} for row, i in zip(ALPACA, ["x", "y", "x"], strict=True)]
    made = take(rows, tmp_path)
    assert [e.id for e in made.examples] == ["import_0", "import_1", "import_2"]
    assert "the column 'id' was left aside: it holds 'x' twice" in made.notes[0]
    made = take([{**row, "id": i} for i, row in enumerate(ALPACA)], tmp_path)
    assert [e.id for e in made.examples] == ["0", "1", "2"]


def test_a_sample_is_seeded_and_keeps_the_files_order(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}.", "output": str(i) if i % 5 else ""} for i in range(100)]
    made = take(rows, tmp_path, sample={"k": 10, "seed": 3})
    usable = [i for i in range(100) if i % 5]
    drawn = sorted(random.Random(3).sample(range(80), 10))
    assert [e.id for e in made.examples] == [f"import_{usable[i]}" for i in drawn]
    assert made.seeds == {"gen": 3}
    assert [(s.step, s.proposed, s.kept) for s in made.filters] == [
        ("import", 100, 80),
        ("sample", 80, 10),
    ]
    again = take(rows, tmp_path, sample={"k": 10, "seed": 3})
    other = take(rows, tmp_path, sample={"k": 10, "seed": 4})
    assert again == made
    assert [e.id for e in other.examples] != [e.id for e in made.examples]


def test_a_sample_by_datasets_is_that_of_the_package_rows_that_cannot_be_used_included(
    tmp_path: Path,
) -> None:
    rows = [{"instruction": f"Say {i}.", "output": str(i) if i % 5 else ""} for i in range(100)]
    made = take(rows, tmp_path, sample={"k": 30, "seed": 42, "by": "datasets"})
    shuffled = datasets.Dataset.from_list(rows).shuffle(seed=42).select(range(30))
    assert [e.instruction for e in made.examples] == [
        r["instruction"] for r in shuffled if r["output"]
    ]
    assert [(s.step, s.proposed, s.kept) for s in made.filters] == [
        ("sample", 100, 30),
        ("import", 30, len(made.examples)),
    ]
    assert made.seeds == {"gen": 42}
    error = refusal(rows, tmp_path, sample={"k": 101, "by": "datasets"})
    assert "asks for 101 rows, and" in error.message


def test_a_prompt_sets_sample_by_datasets_is_that_of_the_package_too(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}."} for i in range(100)]
    path = write(tmp_path / "prompts.json", rows)
    sample = {"k": 30, "seed": 42, "by": "datasets"}
    prompts = read_prompts(PromptSet.model_validate({"file": str(path), "sample": sample}), None)
    shuffled = datasets.Dataset.from_list(rows).shuffle(seed=42).select(range(30))
    assert [p.instruction for p in prompts] == shuffled["instruction"][:]


def test_a_sample_larger_than_the_usable_rows_is_refused_with_both_numbers(tmp_path: Path) -> None:
    rows = [*ALPACA, {"instruction": "q", "output": ""}]
    error = refusal(rows, tmp_path, sample={"k": 4})
    assert "asks for 4 examples, and 3 of the 4 rows can be used" in error.message
    assert "1 empty output" in error.message
    assert len(take(rows, tmp_path, sample={"k": 3}).examples) == 3


def test_a_folder_is_read_in_the_order_of_names_and_numbered_throughout(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "b.jsonl", ALPACA[1:2])
    write(folder / "a.parquet", ALPACA[:1])
    write(folder / "c" / "more.json", [{"instruction": "q", "output": ""}, ALPACA[2]])
    write(folder / ".cache" / "x.json", ALPACA)
    (folder / "README.md").write_text("# A set")
    (folder / "LICENSE").write_text("terms")
    made = take(folder, tmp_path)
    assert [e.id for e in made.examples] == ["import_0", "import_1", "import_3"]
    assert texts(made)[0][0] == "Name a river."
    [dropped] = made.dropped
    assert (dropped["id"], dropped["file"], dropped["line"]) == ("import_2", "c/more.json", 2)
    assert made.used["format"] == "json and parquet"
    assert made.used["files"] == 3


def test_a_folder_without_data_and_one_with_something_else_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("x")
    assert "holds no data files" in refusal(empty, tmp_path).message
    write(tmp_path / "set" / "a.json", ALPACA)
    (tmp_path / "set" / "b.txt").write_text("instruction,output\nq,a\n")
    assert "b.txt:1: not valid JSON" in refusal(tmp_path / "set", tmp_path).message


@pytest.mark.parametrize(("name", "part"), [("a.csv", ","), ("a.TSV", "\t")])
def test_a_csv_table_is_read_with_its_lines_its_mark_and_its_line_ends(
    tmp_path: Path, name: str, part: str
) -> None:
    lines = ["instruction,output,input", 'q1,"a\n1",', "", 'q2,"a, ""2""",in', "q3,,"]
    text = "\ufeff" + "\r\n".join(lines).replace(",", part) + "\r\n"
    path = tmp_path / name
    path.write_bytes(text.encode())
    made = take(path, tmp_path)
    assert texts(made) == [("q1", "", "a\n1"), ("q2", "in", f'a{part} "2"')]
    assert made.used["format"] == "csv"
    assert [(row["rule"], row["line"]) for row in made.dropped] == [("empty_output", 6)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("instruction,output\nq,a\nq,a,b\n", "a.csv:3: not a CSV table: 3 cells below 2 columns"),
        ('instruction,output\nq,"a\n', "a.csv:2: not a CSV table"),
        ("instruction,instruction\nq,a\n", "a.csv:1: two columns have the same name"),
        ("instruction,output\n", "holds no records"),
        ("", "holds no records"),
    ],
)
def test_a_faulty_csv_table_is_refused_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert fault in refusal(path, tmp_path).message


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_nothing_in_an_optional_field_is_read_as_absent(tmp_path: Path, suffix: str) -> None:
    rows = [{**ALPACA[0], "input": None}, ALPACA[1], {**ALPACA[2], "system": None}]
    path = write(tmp_path / f"a.{suffix}", rows)
    if suffix == "jsonl":
        path.write_text(path.read_text().replace("null", "NaN"))
    made = take(path, tmp_path)
    assert [e.input for e in made.examples] == ["", "2, 3", ""]
    assert not made.notes


def test_a_number_in_place_of_a_text_is_read_as_its_digits(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add them.", "input": 23, "output": 5},
        {"instruction": "Halve it.", "input": "1", "output": 0.5},
        {"instruction": 7, "input": "", "output": "a"},
    ]
    assert texts(take(rows, tmp_path)) == [
        ("Add them.", "23", "5"), ("Halve it.", "1", "0.5"), ("7", "", "a")
    ]  # fmt: skip
    assert texts(take([{"messages": talk("q", 5)}], tmp_path)) == [("q", "", "5")]


def marked(*said: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text, **marks} for role, text, marks in said]}


NOT_TRAINED: list[dict[str, Any]] = [
    {"weight": 0}, {"train": False}, {"loss": False}, {"weight": "0"}, {"label": False},
    {"trainable": False}, {"loss_weight": 0.0}, {"masked": True}, {"ignore": "yes"},
]  # fmt: skip


@pytest.mark.parametrize("mark", NOT_TRAINED)
def test_an_answer_marked_as_not_to_be_trained_on_is_no_output(
    tmp_path: Path, mark: dict[str, Any]
) -> None:
    positive = {name: "no" if name in ("masked", "ignore") else 1 for name in mark}
    good = marked(("user", "q", {}), ("assistant", "a", positive))
    bad = marked(("user", "q1", {}), ("assistant", "a1", mark))
    made = take([good, bad], tmp_path)
    assert texts(made) == [("q", "", "a")]
    assert [row["rule"] for row in made.dropped] == ["marked_untrained"]
    assert "1 of 2 rows were dropped (1 marked untrained)" in made.notes[0]


@pytest.mark.parametrize("mark", NOT_TRAINED)
def test_earlier_answers_keep_their_marks_through_the_data_set(
    tmp_path: Path, mark: dict[str, Any]
) -> None:
    row = marked(
        ("user", "q1", {}), ("assistant", "a1", {}),
        ("user", "q2", {}), ("assistant", "a2", mark),
        ("user", "q3", {}), ("assistant", "a3", {}),
    )  # fmt: skip
    [example] = take([row], tmp_path, turns="history").examples
    assert (example.untrained_turns, example.output) == ((1,), "a3")
    assert not take([row], tmp_path, turns="last").examples[0].untrained_turns
    [again] = take([example.row(), DatasetExample("b", "q", output="a").row()], tmp_path).examples[
        :1
    ]
    assert list(again.untrained_turns) == [1]


def test_marks_that_cannot_be_followed_drop_the_row(tmp_path: Path) -> None:
    rows = [
        marked(("user", "q", {}), ("assistant", "a", {"weight": 0.5})),
        marked(("user", "q", {}), ("assistant", "a", {"mask": True})),
        marked(("user", "q", {"train": True}), ("assistant", "a", {"train": True})),
        marked(("user", "q", {"train": False}), ("assistant", "a", {"train": True})),
        marked(("user", "q", {"weight": 1}), ("assistant", "a", {"weight": 1})),
    ]
    made = take(rows, tmp_path)
    assert [row["rule"] for row in made.dropped] == [
        *["unreadable_mark"] * 2, "marked_question"
    ]  # fmt: skip
    assert len(made.examples) == 2


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_a_completion_labelled_as_a_bad_one_is_not_trained_on(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "q", "completion": f"a{i}", "label": i != 1} for i in range(3)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        lines = [f"{r['prompt']},{r['completion']},{r['label']}\n" for r in rows]
        path.write_text("prompt,completion,label\n" + "".join(lines))
    else:
        write(path, rows)
    made = take(path, tmp_path)
    assert [e.output for e in made.examples] == ["a0", "a2"]
    assert [row["rule"] for row in made.dropped] == ["marked_untrained"]


@pytest.mark.parametrize("name", ["train", "loss", "weight", "label"])
@pytest.mark.parametrize("good", [1, 1.0, "1", "true", "Yes", True])
def test_rows_with_a_zero_or_a_no_are_not_trained_on(tmp_path: Path, name: str, good: Any) -> None:
    bad = {1: 0, "1": "0", "true": "false", "Yes": "no"}[good]
    rows = [{"prompt": "q", "completion": "a", name: mark} for mark in (good, bad, None)]
    made = take(rows, tmp_path)
    assert [e.id for e in made.examples] == ["import_0", "import_2"]
    assert [row["rule"] for row in made.dropped] == ["marked_untrained"]


def test_a_zero_of_a_table_in_csv_is_one_of_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,output,weight\nq,a,0\nq,b,1\n")
    assert [e.output for e in take(tmp_path / "a.csv", tmp_path).examples] == ["b"]


def test_a_label_of_a_number_is_a_class_where_not_all_labels_or_columns_say_otherwise(
    tmp_path: Path,
) -> None:
    classes = [{"prompt": "q", "completion": "a", "label": n} for n in range(3)]
    made = take(classes, tmp_path)
    assert (len(made.examples), "holds 0" in made.notes[0]) == (3, True)
    made = take([{**row, "label": 0} for row in ALPACA], tmp_path)
    assert (len(made.examples), "holds 0" in made.notes[0]) == (3, True)


def test_a_label_that_is_a_class_is_left_aside_with_a_note(tmp_path: Path) -> None:
    rows = [{**row, "label": "toxic"} for row in ALPACA]
    made = take(rows, tmp_path)
    assert len(made.examples) == 3
    assert "the column 'label' was left aside in 3 of 3 rows: it holds 'toxic'" in made.notes[0]
    assert texts(take(rows, tmp_path, columns={"output": "label"}))[0][2] == "toxic"


def test_of_an_artefact_only_its_data_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    write(folder / "data.jsonl", [DatasetExample("a", "q", output="a").row()])
    write(folder / "dropped.jsonl", [{"rule": "x"}])
    (folder / "manifest.json").write_text("{}")
    assert [e.id for e in take(folder, tmp_path).examples] == ["a"]


def test_a_broken_line_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA)
    path.write_text(path.read_text() + '{"instruction": \n')
    assert "a.jsonl:4: not valid JSON" in refusal(path, tmp_path).message


def test_a_broken_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ALPACA)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet is no Parquet file that can be read" in refusal(path, tmp_path).message
    assert "cannot be read" in refusal(tmp_path / "none.json", tmp_path).message


def beyond_dates(column: str) -> pa.Table:
    """Two rows whose `column` holds a time that Python's dates do not reach."""
    times = pa.array([2**62, 0], pa.timestamp("us"))
    return pa.table({"instruction": ["q", "r"], "output": ["a", "b"], column: times})


def test_columns_that_say_nothing_about_an_example_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(beyond_dates("crawled"), path)
    made = take(path, tmp_path)
    assert texts(made) == [("q", "", "a"), ("r", "", "b")]
    assert made.used["columns_unused"] == ["crawled"]


def test_a_value_that_cannot_be_read_is_an_error_with_file_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(beyond_dates("input"), path)
    assert (
        "a.parquet: a value in the column 'input' cannot be read" in refusal(path, tmp_path).message
    )
    pyarrow.parquet.write_table(beyond_dates("crawled"), path)
    columns = {"name": "crawled"}
    assert "the column 'crawled'" in refusal(path, tmp_path, columns=columns).message


def test_rows_of_a_file_that_has_none_of_the_columns_are_dropped_and_not_lost(
    tmp_path: Path,
) -> None:
    write(tmp_path / "set" / "a.parquet", ALPACA)
    write(tmp_path / "set" / "b.parquet", [{"note": "x"}, {"note": "y"}])
    made = take(tmp_path / "set", tmp_path)
    assert made.filters[0].proposed == 5
    assert [row["rule"] for row in made.dropped] == ["empty_instruction"] * 2


def test_a_parquet_file_without_rows_is_read_as_its_columns_say(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    empty = pa.array([], pa.string())
    pyarrow.parquet.write_table(pa.table({"instruction": empty, "output": empty}), path)
    assert take(path, tmp_path).filters[0].proposed == 0


def test_what_is_neither_a_file_nor_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    assert "is neither a regular file nor a folder" in refusal(pipe, tmp_path).message
    given = ImportGen.model_validate({"file": {"path": str(pipe)}}).file
    assert given is not None
    with pytest.raises(InputError, match="is neither a regular file nor a folder"):
        Files(None, None).digest(given)


OWN = [
    DatasetExample(
        "t_0",
        "q",
        "x",
        "a",
        name="n",
        system="s",
        history=[["q0", "a0"]],
        is_classification=True,
        rating=4.5,
        origin="generated",
        lineage=(Lineage("alpaca", "tasks", (3,), ("seed_1",)),),
    ),
    DatasetExample("t_1", "q", chosen="a", rejected="b", origin="seed"),
]


@pytest.mark.parametrize(("example", "kind"), [(OWN[0], "instruction"), (OWN[1], "preference")])
def test_the_harnesss_own_data_are_taken_over_with_one_more_step(
    tmp_path: Path, example: DatasetExample, kind: str
) -> None:
    path = tmp_path / "data.jsonl"
    dataset.write_rows(path, [example.row()])
    made = take(path, tmp_path, kind=kind)
    assert [e.row() for e in made.examples] == [example.after(Lineage("import", "import")).row()]
    assert made.used["layout"] == layouts.OWN


def test_own_data_edited_by_hand_are_checked(tmp_path: Path) -> None:
    row = OWN[0].row()
    broken = [
        {**row, "id": "b", "lineage": [{"recipe": 1}]},
        {**row, "id": "c", "history": "x"},
        {**row, "id": "d", "origin": "moon"},
        {**row, "id": "f", "rating": "4.5"},
        {**row, "id": "e", "output": ""},
    ]
    made = take([row, *broken], tmp_path)
    assert [r["rule"] for r in made.dropped] == ["wrong_type"] * 4 + ["empty_output"]
    assert "given.jsonl:2: the id 't_0'" in refusal([row, row], tmp_path).message


def test_the_real_alpagasus_data_are_imported_but_for_those_without_output(
    tmp_path: Path, shared_data: Path
) -> None:
    path = shared_data / "alpagasus" / "claude_t45.json"
    made = take(path, tmp_path)
    given = json.loads(path.read_text())
    assert len(given) == made.filters[0].proposed == 5305
    wanted = [r for r in given if r["output"].strip()]
    assert texts(made) == [(r["instruction"], r["input"], r["output"]) for r in wanted]
    assert {row["rule"] for row in made.dropped} == {"empty_output"}
    for row in made.dropped:
        assert given[int(row["id"].removeprefix("import_"))]["instruction"] == row["instruction"]
        assert path.read_text().splitlines()[row["line"] - 1].strip() == "{"


# Hub data sets: the folder that the fetch stage left.

HUB = {"id": "some/set", "revision": "a" * 40}
CONFIGS = """---
configs:
- config_name: one
  data_files:
  - split: train
    path: one/*.parquet
  - split: test
    path: test.parquet
- config_name: two
  data_files: two.parquet
---
# A set
"""


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A data set of two configs, the first with two splits."""
    folder = tmp_path / "snapshot"
    rows = [{"conversations": talk(f"q{i}", f"a{i}", style=SHAREGPT)} for i in range(5)]
    write(folder / "one" / "0.parquet", rows[:3])
    write(folder / "one" / "1.parquet", rows[3:])
    write(folder / "test.parquet", [{"conversations": talk("q", "", style=SHAREGPT)}, *rows[:1]])
    write(folder / "two.parquet", [{"prompt": "q", "completion": "a"}])
    (folder / "README.md").write_text(CONFIGS)
    return folder


def take_hub(folder: Path, tmp_path: Path, **hub: str) -> RecipeResult:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    call = StageCall("gen", "k", {}, {"hub": str(folder)}, str(work))
    spec = ImportGen.model_validate({"hub": HUB | hub})
    made = spec.make(call, [])
    check(made)
    assert list(work.iterdir()) == []
    return made


def test_one_config_and_split_of_a_hub_data_set_is_read_and_no_cache_stays(
    snapshot: Path, tmp_path: Path
) -> None:
    made = take_hub(snapshot, tmp_path, config="one")
    assert texts(made) == [(f"q{i}", "", f"a{i}") for i in range(5)]
    assert made.used["hub"] == {**HUB, "config": "one", "split": "train"}
    assert made.used["rows"] == 5
    made = take_hub(snapshot, tmp_path, config="one", split="test")
    assert texts(made) == [("q0", "", "a0")]
    assert made.dropped[0]["row"] == 0
    made = take_hub(snapshot, tmp_path, config="two")
    assert texts(made) == [("q", "", "a")]


def test_of_a_hub_data_set_too_only_columns_of_use_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    pyarrow.parquet.write_table(beyond_dates("crawled"), folder / "train.parquet")
    made = take_hub(folder, tmp_path)
    assert texts(made) == [("q", "", "a"), ("r", "", "b")]
    assert made.used["columns_unused"] == ["crawled"]
    pyarrow.parquet.write_table(beyond_dates("input"), folder / "train.parquet")
    with pytest.raises(InputError, match=r"some/set at a+: a value in the column 'input'"):
        take_hub(folder, tmp_path)


def test_a_hub_data_set_of_csv_files_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "train.csv").write_text("prompt,completion\nq,a\nq,\n")
    made = take_hub(folder, tmp_path)
    assert (texts(made), made.dropped[0]["rule"]) == ([("q", "", "a")], "empty_output")


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        ({"config": "nine"}, "has no config 'nine'; it has: one, two"),
        ({"config": "one", "split": "dev"}, "has no split 'dev' of config one; it has: train, tes"),
        ({}, "Name one of its configs in gen.hub.config: one, two"),
    ],
)
def test_a_config_or_split_that_is_not_there_shows_those_that_are(
    snapshot: Path, tmp_path: Path, hub: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        take_hub(snapshot, tmp_path, **hub)
    assert said in str(caught.value)
    assert "some/set at aaaaaaaaaaaa" in caught.value.message
    assert list((tmp_path / "work").iterdir()) == []


def test_a_hub_data_set_with_broken_or_no_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(InputError, match=r"some/set at a+ cannot be read: .*data files"):
        take_hub(folder, tmp_path)
    (folder / "a.jsonl").write_text('{"instruction": "q", "output": "a"}\n{"instruction"\n')
    with pytest.raises(InputError, match=r"some/set at a+ cannot be read: JSON parse error"):
        take_hub(folder, tmp_path)
