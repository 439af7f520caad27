"""What `harness doctor` says of the given data."""

from pathlib import Path

from harness.doctor import given_data


def test_a_folder_with_nothing_but_its_own_description_holds_no_given_data(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("What goes here.")
    (tmp_path / ".gitignore").write_text("*")
    found = given_data(tmp_path)
    assert not found.there
    assert found.state.endswith(": 0 files")
    assert "`data:`" in found.prevents


def test_given_files_are_counted_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.json").write_text("[]")
    found = given_data(tmp_path)
    assert (found.there, found.prevents) == (True, "")
    assert found.state.endswith(": 1 file")


def test_where_no_folder_is_named_the_option_that_names_it_is_told() -> None:
    found = given_data(None)
    assert not found.there
    assert "--inputs" in found.prevents
