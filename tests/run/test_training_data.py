"""What plan and validate say of training data, and that they say what the stages do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.errors import InputError
from harness.gen.recipes.importing import ImportGen
from harness.run import ready, training_data
from harness.train.examples import file_of, read_examples
from tests.helpers import planned, write_row

GOOD = {"instruction": "q", "input": "", "output": "a"}
EMPTY = {"instruction": "q", "output": " "}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
CSV = "instruction,output\nq,a\n"


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row_of(folder: Path, text: str, name: str = "data.jsonl", **changes: Any) -> Path:
    """A row that trains on the text of a file."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return write_row(folder, **{"gen": None, "data": name, **changes})


def importing_row(folder: Path, text: str, name: str = "rows.jsonl", **gen: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return write_row(folder, gen={"recipe": "import", "file": name, **gen}, train=None)


def fault(spec: Path) -> InputError:
    (plan,) = planned(spec.parent / "runs", spec)
    assert not any(stage.readings for stage in plan.stages)
    with pytest.raises(InputError) as caught:
        ready.check(plan, Files(None, None))
    return caught.value


def told(spec: Path) -> list[str]:
    (plan,) = planned(spec.parent / "runs", spec)
    ready.check(plan, Files(None, None))
    return [str(reading) for stage in plan.stages for reading in stage.readings]


def test_a_plan_counts_records_names_their_layout_and_what_will_be_dropped(tmp_path: Path) -> None:
    text = lines(GOOD, EMPTY, {**GOOD, "label": False}, {**GOOD, "output": 5})
    assert told(row_of(tmp_path, text)) == [
        "data.jsonl: 4 records (instruction, input, output), 2 will be dropped: 1 empty answer, "
        "1 marked untrained"
    ]
    text = lines(CHAT, {"messages": [*CHAT["messages"], {"role": "user", "content": "q2"}]}, {})
    [line] = told(importing_row(tmp_path / "b", text))
    assert line.startswith(
        "rows.jsonl: 3 records (conversation: messages), 1 will be dropped: 1 no user turn; "
    )
    marks: list[dict[str, Any]]
    marks = [{"loss": False}, {"train": 0.0}, {"train": "No"}, {"weight": "0"}, {"label": "toxic"}]
    text = lines(*({**GOOD, **mark} for mark in marks), {**GOOD, "loss": "1"})
    [line] = told(row_of(tmp_path / "d", text))
    assert line.endswith("4 will be dropped: 4 marked untrained")
    text = lines(*[GOOD] * 5, EMPTY)
    assert told(importing_row(tmp_path / "c", text, sample={"k": 2})) == [
        "rows.jsonl: 6 records (pair: instruction, output, input), 1 will be dropped: 1 empty output"
    ]


def test_answers_with_the_templates_own_tokens_are_counted(tmp_path: Path) -> None:
    text = lines(GOOD, {**GOOD, "output": "a<|im_end|>b"}, {**GOOD, "instruction": "<|im_end|>"})
    [line] = told(row_of(tmp_path, text, template="qwen"))
    assert line.endswith("; 1 have one of the template's tokens in the text of an answer")


@pytest.mark.parametrize(
    ("name", "text", "said", "hint"),
    [
        ("data.jsonl", "", "data.jsonl holds no records", ""),
        ("data.json", "[]", "data.json holds no records", ""),
        ("data.csv", CSV, "data.csv:1: not valid JSON", "csv of the layout pair"),
        ("data.json", CSV, "data.json:1: not valid JSON", "one object a line"),
        ("data.jsonl", lines(GOOD) + '{"instruction": ', "data.jsonl:2: not valid JSON", ""),
        ("data.jsonl", lines(CHAT), "data.jsonl:1: no `instruction`", "layout conversation (messages)"),
        ("data.jsonl", lines({"prompt": "q", "completion": "a"}), "data.jsonl:1: no `instruction`",
         "gen: {recipe: import, file: data.jsonl} reads"),
        ("data.jsonl", lines(GOOD, PAIR), "data.jsonl:2: the record holds chosen and rejected", ""),
        ("data.jsonl", lines(EMPTY, EMPTY), "none of the 2 records can be trained on (2 empty answer)",
         ""),
        ("data.jsonl", lines(GOOD, {**GOOD, "output": ["a"]}), "data.jsonl:2: `output` must be", ""),
        ("data.jsonl", lines(GOOD, {**GOOD, "weight": 0.5}), "data.jsonl:2: `weight` is 0.5", ""),
        ("data.csv", "instruction;output\na;b\n", "data.csv:1: not valid JSON", "parted by semicolons"),
        ("data.csv", "instruction,output\na\n", "not valid JSON", "data.csv:2: not a CSV table"),
        ("data.csv", "", "data.csv holds no records", "a CSV table, which gen: {recipe: import"),
        ("data.jsonl", lines(GOOD, {**GOOD, "label": 0}), "`label` is 0, which does not say", "train"),
        ("data.jsonl", lines(GOOD, {**GOOD, "mask": [1]}), "`mask` is [1], which does not say", ""),
        ("data.jsonl", lines(GOOD, {**GOOD, "system": "Be brief."}),
         "data.jsonl:2: the template has no place for an example's system text", ""),
        ("data.jsonl", lines({**GOOD, "history": [["a", "b"]]}), "data.jsonl:1: the template", ""),
    ],
)  # fmt: skip
def test_training_data_that_the_stage_would_refuse_is_told_in_the_plan(
    tmp_path: Path, name: str, text: str, said: str, hint: str
) -> None:
    spec = row_of(tmp_path, text, name)
    found = fault(spec)
    assert said in found.message
    (line,) = [n for n, text in enumerate(spec.read_text().splitlines(), 1) if text[:5] == "data:"]
    assert found.message.startswith(f"{spec}:{line}:1: row one: ")
    assert hint in found.hint


def test_preference_data_of_another_layout_is_imported_as_such(tmp_path: Path) -> None:
    found = fault(row_of(tmp_path, lines(PAIR), train={"objective": "orpo", "steps": 1}))
    assert "data.jsonl:1: no `instruction`" in found.message
    assert "gen: {recipe: import, kind: preference, file: data.jsonl}" in found.hint


def test_a_validation_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text(lines(GOOD, EMPTY))
    train = {"steps": 1, "validation": {"file": "held.jsonl"}}
    spec = row_of(tmp_path, lines(GOOD), train=train)
    assert told(spec)[1].startswith("held.jsonl: 2 records")
    (tmp_path / "held.jsonl").write_text(lines(CHAT))
    assert "held.jsonl:1: no `instruction`" in fault(spec).message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.jsonl", "", "rows.jsonl holds no records"),
        ("rows.jsonl", lines(GOOD) + "{", "rows.jsonl:2: not valid JSON"),
        ("rows.csv", CSV + "q\n", "rows.csv:3: not a CSV table"),
        ("rows.jsonl", lines({"text": "x"}), "no columns of the usual names"),
        ("rows.jsonl", lines(PAIR), "holds preference data"),
        ("rows.jsonl", lines(EMPTY), "none of its 1 rows can be used (1 empty output)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_in_the_plan(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    assert said in fault(importing_row(tmp_path, text, name)).message


def test_the_plan_counts_as_the_import_does(tmp_path: Path) -> None:
    rows = [GOOD, EMPTY, {**GOOD, "input": float("nan")}, {**GOOD, "output": True}]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*rows, {**GOOD, "label": 0}))
    gen = ImportGen.model_validate({"file": str(path)})
    [reading] = gen.readings(Files(None, None))
    made = gen.make(StageCall("gen", "k", {}, {}, str(tmp_path)), [])
    assert (reading.examples, reading.dropped) == (len(made.examples), len(made.dropped)) == (3, 2)
    assert any("'label' was left aside in 1 of 5 rows: it holds 0" in n for n in reading.notes)


def test_what_was_read_once_is_known_by_its_bytes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = planned(tmp_path / "runs", row_of(tmp_path, lines(GOOD)))
    cache = tmp_path / "cache.json"
    files = Files(None, cache)
    before = list(training_data.of_row(plan.row, files))
    files.save()
    monkeypatch.setattr(training_data, "read_examples", None)
    assert list(training_data.of_row(plan.row, Files(None, cache))) == before
    (tmp_path / "data.jsonl").write_text(lines(GOOD, GOOD))
    with pytest.raises(TypeError):
        list(training_data.of_row(plan.row, Files(None, cache)))


def test_an_artefacts_own_data_are_read_as_they_are(tmp_path: Path) -> None:
    text = lines(DatasetExample("a", "q", output="a", origin="imported").row())
    assert "1 record (harness: id, " in told(importing_row(tmp_path, text))[0]
    assert "1 record (instruction, input, output" in told(row_of(tmp_path / "b", text))[0]


def test_a_parquet_file_that_cannot_be_read_here_is_said_not_to_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    [line] = told(importing_row(tmp_path, "PAR1", "rows.parquet"))
    assert line == "rows.parquet: not looked at: the package pyarrow is not installed here"


def test_neither_plan_nor_validate_imports_what_stages_need(tmp_path: Path) -> None:
    spec = row_of(tmp_path, lines(GOOD))
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"for name in ('plan', 'validate'):\n    main([name, {str(spec)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "print(heavy)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "set()"
    assert ran.stdout.count("data: data.jsonl: 1 record (instruction, input, output)") == 2


def test_marks_within_a_file_put_together_of_several_are_no_text(tmp_path: Path) -> None:
    text = "".join(f"\ufeff{lines(GOOD)}" for _ in range(3))
    assert told(row_of(tmp_path, text))[0].startswith("data.jsonl: 3 records")


def test_a_folder_as_training_data_is_told_to_be_imported(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines(GOOD))
    with pytest.raises(InputError, match="there is no file") as caught:
        read_examples(file_of(folder), False)
    assert "gen: {recipe: import, file: many} reads, in place of data" in caught.value.hint


def test_a_file_in_utf_16_is_told_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(lines(GOOD), encoding="utf-16")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text") as caught:
        read_examples(path, False)
    assert "UTF-16" in caught.value.hint
