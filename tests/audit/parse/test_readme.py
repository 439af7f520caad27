"""What a README claims: its tables as GitHub reads them, and counts outside its code."""

from pathlib import Path

from harness.audit.parse.readme import ReadmeLine, counts_in_text, lines_about, table_lines

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
