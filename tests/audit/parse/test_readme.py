"""What a README claims: its tables as GitHub reads them, and counts outside its code."""

import json
import time
from pathlib import Path

import pytest

from harness.audit.parse import readme
from harness.audit.parse.readme import ReadmeLine, counts_in_text, lines_about, table_lines
from tests.audit.folders import audit

HEAD = "| Run | Rows |\n|---|--:|\n"


def lines_of(text: str) -> list[ReadmeLine]:
    return table_lines(Path("README.md"), text)


def test_a_tables_line_has_its_number_its_cells_by_heading_and_where_they_point() -> None:
    [line] = lines_of(f"# Runs\n\n{HEAD}| **[a](runs/a/)** ![x](x.png) | 1,735 |\n")
    assert (line.number, line.text) == (5, "| **[a](runs/a/)** ![x](x.png) | 1,735 |")
    assert line.cells == {"Run": "**a** x", "Rows": "1,735"}
    assert line.links == ("runs/a/", "x.png")


def test_tables_in_code_are_none_whatever_stands_within_the_fence() -> None:
    fenced = f"````\n```\n{HEAD}| a | 1 |\n```\n{HEAD}| b | 2 |\n````\n"
    indented = "\n".join(f"    {line}" for line in f"{HEAD}| c | 3 |".split("\n"))
    lines = lines_of(f"{fenced}\n{indented}\n\n{HEAD}| d | 4 |\n")
    assert [line.cells["Run"] for line in lines] == ["d"]


def test_a_pipe_that_is_escaped_divides_no_cells_and_a_cell_that_is_missing_is_empty() -> None:
    first, second = lines_of(f"{HEAD}| a \\| b | 1 |\n| c |\n")
    assert first.cells == {"Run": "a | b", "Rows": "1"}
    assert second.cells == {"Run": "c", "Rows": ""}


def test_a_text_right_below_a_table_is_no_line_of_it() -> None:
    assert len(lines_of(f"{HEAD}| a | 1 |\nAll were trained once.\n")) == 1


def test_links_lead_to_folders_by_reference_and_with_spaces_and_letters_of_any_script(
    tmp_path: Path,
) -> None:
    text = (
        f"{HEAD}| [a][1] | 1 |\n| [b](<run b/>) | 2 |\n| [c](运行/) | 3 |\n| [d](run%20b) | 4 |\n"
    )
    lines = table_lines(tmp_path / "README.md", f"{text}\n[1]: run-a\n")
    for folder, rows in (("run-a", ["1"]), ("run b", ["2", "4"]), ("运行", ["3"])):
        about = lines_about(lines, tmp_path / folder)
        assert [line.cells["Rows"] for line in about] == rows


def test_counts_in_code_are_no_claims() -> None:
    said = "We trained on 1,735 examples."
    [count] = counts_in_text(Path("README.md"), f"````\n```\n{said}\n````\n\n{said}\n")
    assert (count.low, count.where) == (1735, "README.md, line 6")


@pytest.mark.parametrize(
    "claim",
    [
        "\n    We trained on 20 examples.\n",
        "<!-- We trained on 20 examples. -->\n",
        "Text <!-- that\nWe trained on 20 examples. --> ends.\n",
        "<div>\n<!--\n\nWe trained on 20 examples.\n-->\n</div>\n",
        "<!--\n\nWe trained on 20 examples.\n",
    ],
)
def test_counts_in_indented_code_and_in_comments_are_no_claims(claim: str) -> None:
    told = "We trained on 1,735 examples."
    counts = counts_in_text(Path("README.md"), f"{told}\n\n{claim}")
    assert [(count.low, count.where) for count in counts] == [(1735, "README.md, line 1")]


def test_a_comment_hides_no_line_behind_it_and_none_that_only_shows_its_marks() -> None:
    text = "<!-- a -->\n\n    <!--\n\nWe trained on 30 examples.\n\n<!-- b -->\n"
    [count] = counts_in_text(Path("README.md"), text)
    assert (count.low, count.where) == (30, "README.md, line 5")


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x0c", "\x85", "\x1c"])
def test_only_line_ends_of_markdown_end_a_line(mark: str) -> None:
    for end in ("\n", "\r\n", "\r"):
        table = f"{HEAD}| a{mark}b | 1 |\n| c | 2 |\n".replace("\n", end)
        lines = lines_of(f"One{mark}line.{end}{end}{table}")
        assert [(line.number, line.cells["Rows"]) for line in lines] == [(5, "1"), (6, "2")]
        text = f"One{mark}line.{end}{end}We trained on 1,735 examples."
        assert [c.where for c in counts_in_text(Path("README.md"), text)] == ["README.md, line 3"]


@pytest.mark.parametrize(
    ("cell", "shown", "links"),
    [
        ('[a](b "a (title)")', "a", ["b"]),
        ("[a](b(c)/)", "a", ["b(c)/"]),
        ("**[a][1]** and [1]", "**a** and 1", ["run-a", "run-a"]),
        ("[a][2]", "[a][2]", []),
        ("`[a](b)`", "[a](b)", []),
        ("\\[a](b)", "[a](b)", []),
        ("[[a]](b)", "[a]", ["b"]),
        ("[![x](x.png)](b)", "x", ["b", "x.png"]),
        ("<https://a.b/c>", "https://a.b/c", ["https://a.b/c"]),
        ("1,735<br>rows", "1,735<br>rows", []),
    ],
)
def test_of_links_and_code_a_cell_is_what_markdown_shows(
    cell: str, shown: str, links: list[str]
) -> None:
    [line] = lines_of(f"{HEAD}| {cell} | 1 |\n\n[1]: run-a\n")
    assert (line.cells["Run"], list(line.links)) == (shown, links)


def test_tables_stand_within_lists_and_quotations_up_to_the_next_block() -> None:
    table = f"{HEAD}| a | 1 |\n"
    nested = "".join(
        f"{prefix}{row}\n" for prefix, row in zip("->>", table.splitlines(), strict=True)
    )
    quoted = "".join(f"> {row}\n" for row in table.splitlines())
    listed = "- " + table.replace("\n", "\n  ")
    for text in (quoted, listed, f"{table}# Next | one\n", f"{table}- b | 2\n"):
        assert [line.cells for line in lines_of(text)] == [{"Run": "a", "Rows": "1"}]
    assert lines_of(nested) == []


DEEP = [
    "*" * 500 + "Results" + "*" * 500,
    "_a " * 250 + "b_ " * 250,
    "[" * 1500,
    "![" * 600 + "](x)" * 300,
]


def folder_of(path: Path, readme_text: str) -> Path:
    """A training's log beside a README."""
    state = {
        "global_step": 100,
        "max_steps": 100,
        "num_train_epochs": 1,
        "log_history": [{"step": 100, "loss": 1.0}],
    }
    (path / "trainer_state.json").write_text(json.dumps(state))
    (path / "README.md").write_text(readme_text)
    return path


@pytest.mark.parametrize("text", DEEP)
def test_no_nesting_in_a_readme_hides_its_tables_or_the_results_beside_it(
    tmp_path: Path, text: str
) -> None:
    lines = lines_of(f"{text}\n\n{HEAD}| {text} | 1 |\n| b | 2 |\n")
    assert [line.cells["Rows"] for line in lines] == ["1", "2"]
    folder = folder_of(tmp_path, f"{text} trained\n\n{HEAD}| {text} | 1 |\n")
    [result] = audit(folder)
    assert result.kind == "training"
    assert not any("passed by" in note for note in result.notes)


def test_a_readme_that_no_parser_masters_is_noted_and_loses_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise RecursionError

    monkeypatch.setattr(readme, "_parsed", fail)
    [result] = audit(folder_of(tmp_path, f"{HEAD}| a | 99 |\n"))
    assert result.kind == "training"
    note = (
        f"{tmp_path / 'README.md'} was passed by: its markdown could not be read (RecursionError)"
    )
    assert result.notes.count(note) == 1


def test_of_a_long_readme_the_beginning_counts_and_the_rest_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = f"{HEAD}| [a](data.json) | 9,999 |\n"
    monkeypatch.setattr(readme, "LARGEST_README", len(first) + 3)
    text = f"{first}\n| [b](data.json) | 2 |\n"
    row = {"instruction": "Say.", "output": "a"}
    (tmp_path / "data.json").write_text(json.dumps([row] * 2))
    (tmp_path / "README.md").write_text(text)
    [result] = audit(tmp_path)
    note = f"README.md was passed by: from line 5 on, for it has {len(text)} characters"
    assert result.notes == [f"{tmp_path}/{note}"]
    assert (result.kind, result.published) == ("data_set", {"rows": 9999})


def test_a_table_of_many_rows_is_read_in_time_linear_in_them() -> None:
    rows = "".join(f"| [a{i}](runs/a{i}/) | {i} |\n" for i in range(20_000))
    begin = time.process_time()
    assert len(lines_of(HEAD + rows)) == 20_000
    assert time.process_time() - begin < 4
