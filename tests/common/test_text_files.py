"""Texts that people give: with or without a byte-order mark, their lines ended by newlines alone."""

import codecs
import json
from pathlib import Path

import pytest
import yaml

from harness.answer.prompts import read_prompts
from harness.common.text_files import read_lines
from harness.gen.seeds import read_seeds
from harness.llm.secrets import read_key
from harness.row.load import load_rows
from harness.run.pin import _written
from harness.spec.prompts import PromptSet
from tests.helpers import planned, write_row


def mark(path: Path) -> None:
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())


def test_prompts_specs_and_seeds_are_the_same_with_a_mark_and_without(tmp_path: Path) -> None:
    spec = write_row(tmp_path)
    seed = {"id": "a", "instruction": "q", "instances": [{"input": "", "output": "b\u2028c"}]}
    seeds = tmp_path / "tasks.jsonl"
    seeds.write_text(json.dumps(seed, ensure_ascii=False) + "\n")
    before = load_rows([spec])[0].row, read_seeds(seeds)
    for name in ("prompt.txt", "tasks.txt", "one.yaml"):
        mark(tmp_path / name)
    mark(seeds)
    after = load_rows([spec])[0].row, read_seeds(seeds)
    assert after == before
    assert after[0].template is not None
    assert after[0].template.prompt is not None
    assert after[0].template.prompt.text == "Q: {instruction}\nA:"
    assert after[1][0].instances == [("", "b\u2028c")]


def test_a_mark_in_a_prompt_changes_no_key(tmp_path: Path) -> None:
    spec = write_row(tmp_path)
    keys = [[s.key for s in planned(tmp_path / "runs", spec)[0].stages]]
    mark(tmp_path / "prompt.txt")
    mark(tmp_path / "tasks.txt")
    keys.append([s.key for s in planned(tmp_path / "runs", spec)[0].stages])
    assert keys[0] == keys[1]


def test_a_faulty_spec_with_a_mark_is_blamed_at_the_right_place(tmp_path: Path) -> None:
    from harness.row.load import SpecFaults

    spec = write_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    spec.write_text("wrong: 1\n" + yaml.safe_dump(tree))
    mark(spec)
    with pytest.raises(SpecFaults, match=r"one.yaml:1:1: wrong: unknown key"):
        load_rows([spec])
    spec.write_bytes(codecs.BOM_UTF8 + b"row: \xff\n")
    with pytest.raises(SpecFaults, match=r"one.yaml:1:6: not UTF-8 text"):
        load_rows([spec])
    mark_kept = tmp_path / "pinned.yaml"
    mark_kept.write_bytes(codecs.BOM_UTF8 + b"row: one\n")
    assert _written(mark_kept, []) == "\ufeffrow: one\n"


def test_a_key_file_may_begin_with_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(codecs.BOM_UTF8 + b"secret-value-of-a-key\n")
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.setenv("MY_KEY_FILE", str(tmp_path / "key"))
    assert read_key("MY_KEY", "the test") == "secret-value-of-a-key"


@pytest.mark.parametrize("name", ["prompts.jsonl", "prompts.csv"])
def test_a_prompt_set_with_a_mark_and_absent_or_numeric_cells_is_read(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text(
        "instruction,input\na\u2028b,\n7,8\n" if name.endswith("csv") else
        '{"instruction": "a\u2028b", "input": NaN}\n{"instruction": 7, "input": 8}\n',
        encoding="utf-8",
    )  # fmt: skip
    mark(path)
    prompts = read_prompts(PromptSet.model_validate({"file": {"path": str(path)}}), None)
    assert [prompt.key for prompt in prompts] == [("a\u2028b", ""), ("7", "8")]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\u2028two\x85three\u2029\n\n four\n", encoding="utf-8")
    assert read_lines(path) == ["one\u2028two\x85three\u2029", " four"]


def test_a_judges_unread_replies_are_found_whatever_their_prompts_hold(tmp_path: Path) -> None:
    from harness.results.outputs import _unread

    path = tmp_path / "unjudged.jsonl"
    row = {"instruction": "a\u2028b", "reply": "c\x85d"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert _unread(path) == {"a\u2028b": "c\x85d"}
