"""`harness audit ROW`: what the study published of a row, fetched, and its numbers computed anew."""

import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from harness.run.given import bring, download
from harness.run.given.bring import MIRROR
from tests.audit.folders import reviews, rows_of, write
from tests.helpers import command, evaluation, write_row
from tests.run.given.file_server import FileServer, serving

HOST = "published.example.org"
WINS = [2.0] * 30 + [1.0] * 70


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Stands for the network: addresses of HOST are looked for below its own."""
    with serving() as server:
        monkeypatch.setenv(MIRROR, server.url)
        yield server


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """100 judged prompts, 30 won, with outputs of their own."""
    rows = rows_of(n=100)
    for row, preference in zip(rows, WINS, strict=True):
        row["preference"] = preference
    return write(tmp_path / "study", rows)


def published(server: FileServer, *paths: Path) -> Any:
    """The files as a spec gives them, put where the mirror has them."""
    given = []
    for path in paths:
        server.files[f"/{HOST}/{path.name}"] = path.read_bytes()
        digest = sha256(path.read_bytes()).hexdigest()
        given.append({"url": f"https://{HOST}/{path.name}", "sha256": digest})
    return given if len(given) != 1 else given[0]


def spec_of(folder: Path, **reported: Any) -> Path:
    return write_row(folder / "specs", eval=evaluation(folder / "specs"), reported=reported)


def audited(folder: Path, spec: Path, *more: str) -> Any:
    return command("audit", spec, "--volume", folder / "runs", *more)


def figures_of(folder: Path, spec: Path) -> dict[tuple[str, str], Any]:
    document = json.loads(audited(folder, spec, "--json").stdout)
    return {(f["metric"], f["figure"]): (f["reported"], f["recomputed"], f["equal"])
            for f in document["reported"]}  # fmt: skip


def sentence(result: Any) -> str:
    return " ".join(result.output.split())


def test_the_reported_number_is_computed_anew_from_the_published_verdicts(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    cell = {"value": 30.0, "standard_error": 4.61, "judged": 100, "expected": 100}
    spec = spec_of(
        tmp_path,
        win_rate=cell,
        outputs=published(mirror, study / "model_outputs.json"),
        annotations=published(mirror, study / "annotations.json"),
    )
    figures = figures_of(tmp_path, spec)
    assert figures["win_rate", "value"] == (30.0, pytest.approx(30.0), True)
    # 100 * sqrt(0.3 * 0.7 / 99)
    assert figures["win_rate", "standard_error"] == (4.61, pytest.approx(4.6057, abs=1e-4), True)
    assert figures["win_rate", "judged"] == (100, 100, True)
    assert figures["win_rate", "expected"] == (100, 100, True)
    result = audited(tmp_path, spec)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["win_rate", "30", "30", "equal"] in lines
    assert str(tmp_path) not in result.stdout
    assert {path for path, _ in mirror.requests} >= {f"/{HOST}/annotations.json"}


def test_published_files_that_are_there_are_audited_on_a_volume_that_cannot_be_written(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    files = study / "annotations.json"
    spec = spec_of(tmp_path, win_rate=30.0, annotations=published(mirror, files))
    before = audited(tmp_path, spec)
    shutil.rmtree(tmp_path / "runs" / "locks")
    (tmp_path / "runs" / "locks").write_text("so that no folder can be made here")
    assert audited(tmp_path, spec).stdout == before.stdout
    shutil.rmtree(tmp_path / "runs" / "files")
    refused = audited(tmp_path, spec)
    assert refused.exit_code == 2
    assert "cannot be written by user" in refused.stderr


@pytest.mark.parametrize("name", ["annotations.json", "model_outputs.json"])
def test_a_published_file_that_was_edited_is_not_audited(
    tmp_path: Path, study: Path, mirror: FileServer, name: str
) -> None:
    annotations = published(mirror, study / "annotations.json")
    outputs = published(mirror, study / "model_outputs.json")
    spec = spec_of(tmp_path, win_rate=30.0, annotations=annotations, outputs=outputs)
    assert audited(tmp_path, spec).exit_code == 0
    (path,) = (tmp_path / "runs" / "files").rglob(name)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"2.0", b"1.0") + b" ")
    result = audited(tmp_path, spec)
    assert result.exit_code == 2
    assert f"{path} is not the file that the spec means" in sentence(result)
    assert "It was changed after it was fetched." in sentence(result)


def test_another_number_than_the_published_verdicts_give_is_told_and_exits_1(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    spec = spec_of(
        tmp_path,
        win_rate={"value": 31.5, "judged": 90},
        annotations=published(mirror, study / "annotations.json"),
    )
    result = audited(tmp_path, spec)
    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["win_rate", "31.5", "30", "differs", "by", "-1.5"] in lines
    assert ["judged", "90", "100", "differs", "by", "+10"] in lines


def test_an_empty_cell_of_the_table_is_filled_from_the_verdicts(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    annotations = published(mirror, study / "annotations.json")
    spec = spec_of(tmp_path, win_rate="unreported", annotations=annotations)
    assert figures_of(tmp_path, spec)["win_rate", "value"] == (None, pytest.approx(30.0), None)


def test_the_sets_of_a_prompt_set_are_told_apart_and_together(
    tmp_path: Path, mirror: FileServer
) -> None:
    folder = reviews(tmp_path / "study", n=40)
    other = reviews(tmp_path / "other", seed=1, n=60)
    files = [folder / "ours-theirs-koala.json", folder / "theirs-ours-koala.json"]
    for name in ("ours-theirs", "theirs-ours"):
        to = tmp_path / f"{name}-vicuna.json"
        to.write_bytes((other / f"{name}-koala.json").read_bytes())
        files.append(to)
    counts = [json.loads((f / "koala_result.json").read_text()) for f in (folder, other)]
    wins = [next(v for k, v in c.items() if k.startswith("win") or k == "n_wins") for c in counts]
    draws = [next(v for k, v in c.items() if "draw" in k or "tie" in k) for c in counts]
    parts = [100 * (w + d / 2) / n for w, d, n in zip(wins, draws, (40, 60), strict=True)]
    together = 100 * (sum(wins) + sum(draws) / 2) / 100
    sets = evaluation(tmp_path / "specs")
    sets["answer"]["prompts"] = {"files": {"koala": "prompts.jsonl", "vicuna": "prompts.jsonl"}}
    spec = write_row(
        tmp_path / "specs",
        eval=sets,
        reported={
            "win_rate": together,
            "win_rate/koala": parts[0],
            "win_rate/vicuna": parts[1],
            "annotations": published(mirror, *files),
        },
    )
    figures = figures_of(tmp_path, spec)
    assert figures["win_rate", "value"] == (together, pytest.approx(together), True)
    assert figures["win_rate", "judged"][1] == 100
    assert figures["win_rate/koala", "value"] == (parts[0], pytest.approx(parts[0]), True)
    assert figures["win_rate/vicuna", "value"] == (parts[1], pytest.approx(parts[1]), True)
    assert figures["win_rate/vicuna", "judged"][1] == 60
    document = json.loads(audited(tmp_path, spec, "--json").stdout)
    [pooled] = document["pooled"]
    assert pooled.startswith("win_rate: pooled over 2 results: ")
    assert f"{parts[0]:.6g} (40 judged)" in pooled
    assert f"{parts[1]:.6g} (60 judged)" in pooled
    assert "pooled over 2 results" in sentence(audited(tmp_path, spec))


def test_a_file_that_cannot_be_had_now_is_told_apart_from_findings_by_the_exit_code(
    tmp_path: Path, study: Path, mirror: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIRROR)
    monkeypatch.setattr(bring, "PACE", download.Patience(silence=1, attempts=1, pause=0.01))
    annotations = published(mirror, study / "annotations.json")
    annotations["url"] = "https://127.0.0.1:9/annotations.json"
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0, annotations=annotations))
    assert "cannot be had" in sentence(result)
    assert result.exit_code == 2


def test_null_drops_the_outputs_that_a_row_would_inherit(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    annotations = published(mirror, study / "annotations.json")
    gone = {"url": f"https://{HOST}/gone.json", "sha256": "0" * 64}
    base = spec_of(tmp_path, win_rate=30.0, annotations=annotations, outputs=gone)
    above = base.parent / "above.yaml"
    above.write_text(f"extends: {base.name}\nrow: above\nreported: {{outputs: null}}\n")
    assert audited(tmp_path, base).exit_code == 2
    assert figures_of(tmp_path, above)["win_rate", "value"][2] is True


def test_a_file_that_has_moved_on_is_named_with_both_digests(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    annotations = published(mirror, study / "annotations.json")
    annotations["url"] = f"{mirror.url}/{HOST}/annotations.json"
    mirror.files[f"/{HOST}/annotations.json"] = b"[]"
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0, annotations=annotations))
    assert result.exit_code == 2
    text = sentence(result)
    assert "answers with another file: its sha256 is 4f53cda1" in text
    assert f"the spec says {annotations['sha256']}" in text


def test_annotations_that_are_none_are_named_and_why(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    outputs = published(mirror, study / "model_outputs.json")
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0, annotations=outputs))
    assert result.exit_code == 2
    assert (
        f"reported.annotations: https://{HOST}/model_outputs.json cannot be read as annotations"
    ) in sentence(result)
    both = published(mirror, study / "annotations.json", study / "model_outputs.json")
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0, annotations=both))
    assert result.exit_code == 1
    assert "model_outputs.json cannot be read as annotations" in sentence(result)
    assert "equal" in result.stdout


def test_outputs_that_are_none_are_named(tmp_path: Path, study: Path, mirror: FileServer) -> None:
    text = tmp_path / "notes.json"
    text.write_text("no JSON")
    board = tmp_path / "numbers.json"
    board.write_text('[{"win_rate": 30.0}]')
    annotations = published(mirror, study / "annotations.json")
    for path, why in (
        (text, f"reported.outputs: https://{HOST}/notes.json cannot be read: line 1"),
        (board, f"reported.outputs: https://{HOST}/numbers.json is no file of answers"),
        (
            study / "annotations.json",
            "is no file of answers: each entry has a prompt and an answer",
        ),
    ):
        spec = spec_of(
            tmp_path, win_rate=30.0, annotations=annotations, outputs=published(mirror, path)
        )
        result = audited(tmp_path, spec)
        assert result.exit_code == 1
        assert why in sentence(result)


def test_outputs_to_other_prompts_are_not_those_that_were_judged(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    other = write(tmp_path / "other", rows_of(n=100, instructions="Write about"))
    spec = spec_of(
        tmp_path,
        win_rate=30.0,
        outputs=published(mirror, other / "model_outputs.json"),
        annotations=published(mirror, study / "annotations.json"),
    )
    result = audited(tmp_path, spec)
    assert result.exit_code == 1
    assert (
        f"reported.outputs: 100 of 100 judged prompts have no answer in https://{HOST}/"
        "model_outputs.json: these are not the outputs that were judged"
    ) in sentence(result)


def test_other_answers_to_the_same_prompts_are_not_those_that_were_judged(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    rows = json.loads((study / "model_outputs.json").read_text())
    rows[3]["output"] = "Another answer."
    other = tmp_path / "other.json"
    other.write_text(json.dumps(rows))
    annotations = published(mirror, study / "annotations.json")
    spec = spec_of(
        tmp_path, win_rate=30.0, outputs=published(mirror, other), annotations=annotations
    )
    result = audited(tmp_path, spec)
    assert result.exit_code == 1
    assert "reported.outputs: 1 of 100 judged answers do not stand in" in sentence(result)


@pytest.mark.parametrize("field", ["baseline", "annotator"])
def test_verdicts_that_are_not_the_published_judges_are_named(
    tmp_path: Path, study: Path, mirror: FileServer, field: str
) -> None:
    annotations = published(mirror, study / "annotations.json")
    judge = {"model": "gone", field: "another"}
    spec = spec_of(tmp_path, judge=judge, win_rate=30.0, annotations=annotations)
    result = audited(tmp_path, spec)
    assert result.exit_code == 1
    told = f"reported.annotations: annotations.json:1 (record 1): the {field} of this"
    assert told in sentence(result)
    assert str(tmp_path / "runs") not in result.stdout


def test_a_row_of_which_nothing_or_only_outputs_were_published_says_so(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0))
    assert result.exit_code == 2
    assert "row one names nothing that the study published of it" in result.output
    volume = (tmp_path / "runs").resolve()
    assert f"To audit what was run here: harness audit {volume}\n" in result.output
    outputs = published(mirror, study / "model_outputs.json")
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0, outputs=outputs))
    assert result.exit_code == 2
    assert "row one names only outputs that the study published of it" in result.output


def test_rows_are_audited_apart_from_folders(tmp_path: Path, study: Path) -> None:
    result = audited(tmp_path, spec_of(tmp_path, win_rate=30.0), str(study))
    assert result.exit_code == 2
    assert "rows are audited by themselves" in result.output


def test_verify_says_that_the_published_number_can_be_computed_anew(
    tmp_path: Path, study: Path, mirror: FileServer
) -> None:
    annotations = published(mirror, study / "annotations.json")
    spec = spec_of(tmp_path, win_rate=30.0, annotations=annotations)
    result = command("verify", spec, "--volume", tmp_path / "runs")
    at = f"--volume {tmp_path / 'runs'}"
    assert f"harness audit {spec} {at} computes its number anew" in result.output
    assert not mirror.requests
    plain = command("verify", spec_of(tmp_path, win_rate=30.0), "--volume", tmp_path / "runs")
    assert "harness audit" not in plain.output
