"""Reading JSON lists and JSON lines, with the place of every fault."""

import json
from pathlib import Path

import pytest

from harness.data.records import read_records, text_field
from harness.errors import InputError


def test_a_list_and_lines_give_the_same_records_and_each_its_line(tmp_path: Path) -> None:
    rows = [{"instruction": "a [1, {2}] \\" + '"'}, {"instruction": "b\n\nc"}, {"instruction": "d"}]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    listed = tmp_path / "rows.json"
    listed.write_text(json.dumps(rows, indent=1))
    assert [r.fields for r in read_records(lines)] == [r.fields for r in read_records(listed)]
    assert [r.line for r in read_records(lines)] == [1, 3, 5]
    assert [r.line for r in read_records(listed)] == [2, 5, 8]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1}\n{"a": \n', "rows:2: not valid JSON"),
        ('[{"a": 1},\n {"a" 2}]', "rows:2: not valid JSON"),
        ('[{"a": 1}\n {"a": 2}]', "rows:2: not valid JSON: a comma"),
        ('[{"a": 1}', "not valid JSON: a comma or the list's end"),
        ('[{"a": 1},]', "not valid JSON"),
        ('[{"a": 1}] x', "text after the list's end"),
        ('{"a": 1}\n[2]\n', r"rows:2: an object is wanted, not \[2\]"),
        ("\n", "holds no records"),
        ("[]", "holds no records"),
    ],
)
def test_a_faulty_file_is_refused_with_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "rows"
    path.write_text(text)
    with pytest.raises(InputError, match=fault):
        read_records(path)


def test_an_absent_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_records(tmp_path / "none.json")
    (tmp_path / "bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_records(tmp_path / "bin")


def test_a_field_that_is_missing_or_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "n": 3, "none": null, "b": true, "nan": NaN}\n')
    (record,) = read_records(path)
    with pytest.raises(InputError, match=r"rows\.jsonl:1: no `output`; .*question, n, none"):
        text_field(path, record, "output")
    with pytest.raises(InputError, match=r"rows\.jsonl:1: `b` must be a text, not true"):
        text_field(path, record, "b")
    with pytest.raises(InputError, match="`none` must be a text, not null"):
        text_field(path, record, "none")
    assert text_field(path, record, "n") == "3"
    for absent in ("input", "none", "nan"):
        assert text_field(path, record, absent, default="") == ""


def test_of_a_list_on_one_line_the_record_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"output": "a"}, {"out": "b"}]')
    _, record = read_records(path)
    with pytest.raises(InputError, match=r"rows\.json:1 \(record 2\): no `output`") as error:
        text_field(path, record, "output")
    assert "leave it out" in error.value.hint
    path.write_text('[{"output": "a"}, 5]')
    with pytest.raises(InputError, match=r"rows\.json:1 \(record 2\): an object is wanted, not 5"):
        read_records(path)


def test_a_byte_order_mark_is_no_text_and_only_a_newline_ends_a_record(tmp_path: Path) -> None:
    rows = [{"a": "one\u2028two\u2029three\x85four"}, {"a": "b"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    for text in (lines, json.dumps(rows, ensure_ascii=False)):
        path = tmp_path / "rows"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert [record.fields for record in read_records(path)] == rows


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("9" * 5000, "too many digits"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        (r'{"deep": ["\ud800"]}', "half of a surrogate pair"),
        (r'"\uDC00\uD800"', "half of a surrogate pair"),
    ],
)
def test_what_python_cannot_read_or_write_is_refused_with_file_and_line(
    tmp_path: Path, value: str, fault: str
) -> None:
    path = tmp_path / "rows"
    for text in ('{"a": 1}\n{"a": X}\n', '[{"a": 1},\n {"a": X}]', '[{"a": "\\ud83d\\ude00"},\nX]'):
        wrong = "an object is wanted" if text.endswith("\nX]") and value[0] == '"' else fault
        path.write_text(text.replace("X", value))
        with pytest.raises(InputError, match=f"rows:2: .*{wrong}"):
            read_records(path)
    path.write_text('[{"a": "\\ud83d\\ude00"}]')
    assert read_records(path)[0].fields == {"a": "\U0001f600"}
