"""Several paths of one call: files of a folder are read together, and none of them is lost."""

import json
import os
import shutil
from itertools import permutations
from pathlib import Path

import pytest

from harness.audit import audit_paths
from harness.errors import InputError
from tests.audit.folders import audit, only_result, reviews, rows_of, write
from tests.audit.readers.test_lm_eval import write_run
from tests.audit.trainers import write_training


def as_json(*paths: Path) -> list[object]:
    return [result.to_dict() for result in audit(*paths)]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["alpagasus", "alpaca_eval", "training", "lm_eval"])
def test_files_of_a_folder_in_any_order_are_read_as_the_folder(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "results"
    if kind == "alpagasus":
        reviews(folder)
    elif kind == "alpaca_eval":
        write(folder, rows_of())
    elif kind == "training":
        write_training(folder, 400)
    else:
        write_run(folder, {"arc_challenge": 1172})
    expected = as_json(folder)
    assert [r.kind for r in audit(folder)] == [kind]
    files = files_of(folder)
    for paths in ([*files], files[::-1], [files[0], folder], [folder, *files]):
        (result,) = audit(*paths)
        result.notes = [n for n in result.notes if "no results were found in it" not in n]
        assert [result.to_dict()] == expected


def test_sets_and_pairs_of_one_folder_given_as_files_are_all_read(tmp_path: Path) -> None:
    folder = reviews(tmp_path)
    for name in ("ours-theirs", "theirs-ours"):
        (folder / f"{name}-vicuna.json").write_bytes((folder / f"{name}-koala.json").read_bytes())
        rows = json.loads((folder / f"{name}-koala.json").read_text())
        other = [{("others" if k == "theirs" else k): v for k, v in r.items()} for r in rows]
        path = folder / f"{name.replace('theirs', 'others')}-koala.json"
        path.write_text(json.dumps(other))
    expected = [f"{folder}#ours-others-koala", f"{folder}#ours-theirs-koala", f"{folder}#vicuna"]
    assert [r.path for r in audit(folder)] == expected
    assert as_json(*files_of(folder)) == as_json(folder)
    assert [r.path for r in audit(*folder.glob("*-vicuna.json"))] == [str(folder)]


def test_only_the_files_that_are_given_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    (result,) = audit(folder / "annotations.json", folder / "leaderboard.csv")
    assert (result.kind, result.path, result.matches) == ("alpaca_eval", str(folder), True)
    (folder / "model_outputs.json").write_text("[")
    assert only_result(folder).notes
    (result,) = audit(folder / "leaderboard.csv", folder / "annotations.json")
    assert (result.notes, result.matches) == ([], True)


def test_a_file_with_a_folder_beside_it_is_read_as_the_folder_of_both(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write(run / "judge", rows_of())
    shutil.move(run / "judge" / "model_outputs.json", run / "model_outputs.json")
    write(tmp_path / "other", rows_of(1))
    expected = as_json(run)
    assert len(expected) == 1
    for paths in permutations([run / "model_outputs.json", run / "judge"]):
        assert as_json(*paths) == expected
    assert as_json(run, run / "judge") == as_json(run / "judge", run) == expected


def test_files_of_several_folders_are_results_of_their_own(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"run{seed}", rows_of(seed)) for seed in range(3)]
    paths = [f / name for name in ("leaderboard.csv", "annotations.json") for f in folders]
    assert [r.path for r in audit(*paths)] == list(map(str, folders))
    assert all(r.matches for r in audit(*paths))


def test_a_given_file_of_which_nothing_could_be_read_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    (folder / "todo.json").write_text('{"a": 1}')
    assert only_result(folder).notes == []
    (result,) = audit(*files_of(folder))
    (note,) = [n for n in result.notes if "no results were found in it" in n]
    assert note.startswith(str(folder / "todo.json"))


def test_leaderboards_of_any_name_that_are_given_are_read_with_others(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    for name in ("first", "second"):
        shutil.copy(folder / "leaderboard.csv", folder / f"{name}.csv")
    results = audit(folder / "annotations.json", folder / "first.csv", folder / "second.csv")
    assert sorted(Path(r.path).name for r in results) == sorted(
        [folder.name, "first.csv", "second.csv"]
    )


def test_a_path_spelled_twice_or_reached_by_a_link_is_one_result(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows_of())
    (tmp_path / "link").symlink_to(folder)
    names = ("annotations.json", "leaderboard.csv", "model_outputs.json")
    (only,) = audit(folder, tmp_path / "run" / ".." / "run", tmp_path / "link")
    assert only.to_dict() == only_result(folder).to_dict()
    (only,) = audit(folder / names[0], *(tmp_path / "link" / name for name in names))
    assert only.to_dict() == only_result(folder).to_dict()


@pytest.mark.parametrize("name", ["results.zip", "RUN.TAR.GZ", "annotations.json.gz", "runs.tgz"])
def test_an_archive_is_said_to_be_one_that_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04" + b"\0" * 40)
    with pytest.raises(InputError) as caught:
        audit(path)
    assert f"{path}: no results were found in it; it is an archive: unpack it first" in str(
        caught.value.message
    )
    assert "text file" not in caught.value.message
    folder = tmp_path / name.partition(".")[0]
    unpack = {".zip": "python3 -m zipfile -e", ".GZ": "mkdir", ".tgz": "mkdir"}.get(path.suffix)
    if unpack is not None:
        assert caught.value.hint.startswith(unpack)
        assert caught.value.hint.endswith(f" && harness audit {folder}")
    else:
        assert caught.value.hint == f"Unpack {path} into a folder, and audit that."
    with pytest.raises(InputError) as caught:
        audit(tmp_path)
    assert f"an archive in it ({name}) was not looked into: unpack it first" in caught.value.message
    folder = write(tmp_path / "run", rows_of())
    (result,) = audit(folder, path)
    assert [note for note in result.notes if "archive" in note] == [
        f"{path}: no results were found in it; it is an archive: unpack it first, and give the folder"
    ]


def test_archives_in_a_folder_of_results_are_counted_in_a_note(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    expected = only_result(folder).to_dict()
    for number in range(5):
        (folder / f"run{number}").mkdir()
        (folder / f"run{number}" / f"seed{number}.tar.gz").write_bytes(b"\x1f\x8b\x08")
    result = only_result(folder).to_dict()
    assert result["notes"] == [
        f"{folder}: 5 archives in it (seed0.tar.gz, seed1.tar.gz, seed2.tar.gz, ...) were not looked "
        "into: unpack them first"
    ]
    assert result | {"notes": []} == expected


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "results", rows_of())
    for path, data in (("pipe", None), ("results", tmp_path / "pipe")):
        with pytest.raises(InputError, match="is no plain file"):
            audit_paths([tmp_path / path], training_data=data)
