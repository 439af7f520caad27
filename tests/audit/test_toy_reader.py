"""A new reader is a `Reader` and its name in the audit's list; nothing else has to know of it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import harness.audit
from harness.audit.model import Material, Reader, Result, compare, guarded_result
from harness.audit.parse.files import AuditSource, read_json
from tests.audit.folders import audit, kinds


def find(source: AuditSource) -> list[Result]:
    """Votes by hand: [instruction, output, preference], of which a clerk wrote down the rate."""
    results = []
    for path in source.files_named("votes.json"):
        results.append(guarded_result(path, "votes", lambda path=path: votes(path)))  # type: ignore[misc]
        source.claim(path)
    return results


def votes(path: Path) -> Result:
    document = read_json(path)
    rows = document["votes"]
    result = Result(str(path), "votes", published={"win_rate": document["win_rate"]})
    result.metrics = {"win_rate": 100 * sum(vote - 1 for *_, vote in rows) / len(rows)}
    compare(result)
    if not result.matches:
        result.add("count_mismatch", "error", "the clerk's rate is another")
    result.material = Material(
        outputs={instruction: output for instruction, output, _ in rows},
        judgements=[(instruction, vote) for instruction, _, vote in rows],
        judge=document["judge"],
        run=str(path.parent),
    )
    return result


TOY = Reader("toy", "votes by hand", frozenset({"count_mismatch"}), find)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Reader[AuditSource]], None]:
    def put(reader: Reader[AuditSource]) -> None:
        monkeypatch.setattr(harness.audit, "READERS", (*harness.audit.READERS, reader))

    return put


def write(folder: Path, judge: str, output: str, rate: float = 50.0) -> Path:
    """Votes with one output, or with several judges' own ones of it."""
    folder.mkdir()
    rows = [[f"Question {n}?", f"{output} of some length, {n}", 1 + n % 2] for n in range(40)]
    document = {"judge": judge, "win_rate": rate, "votes": rows}
    (folder / "votes.json").write_text(json.dumps(document))
    return folder


def test_a_toy_readers_result_is_recomputed_and_held_against_what_is_published(
    tmp_path: Path, install: Callable[[Reader[AuditSource]], None]
) -> None:
    install(TOY)
    right, wrong = (
        audit(write(tmp_path / "a", "ann", "One")),
        audit(write(tmp_path / "b", "ann", "Two", 60.0)),
    )
    assert [(r.kind, r.matches, kinds(r)) for r in right] == [("votes", True, [])]
    assert [(r.kind, r.matches, kinds(r)) for r in wrong] == [("votes", False, ["count_mismatch"])]


@pytest.mark.parametrize(
    ("declared", "judges", "outputs", "found"),
    [
        ({}, ("ann", "bob"), ("One", "One"), ["copied_results", "shared_outputs"]),
        ({"states_copies": True}, ("ann", "bob"), ("One", "One"), []),
        ({}, ("ann", "ann"), ("One", "Two"), ["copied_results"]),
        ({"judgements_tell": False}, ("ann", "ann"), ("One", "Two"), []),
        (
            {"judgements_tell": False, "comparable": True},
            ("ann", "bob"),
            ("One", "Two"),
            ["confounded"],
        ),
    ],
)
def test_what_may_be_compared_across_folders_is_what_the_reader_declares(
    declared: dict[str, bool],
    judges: tuple[str, str],
    outputs: tuple[str, str],
    found: list[str],
    tmp_path: Path,
    install: Callable[[Reader[AuditSource]], None],
) -> None:
    install(dataclasses.replace(TOY, **declared))  # type: ignore[arg-type]
    for name, judge, output in zip("ab", judges, outputs, strict=True):
        write(tmp_path / name, judge, output)
    results = audit(tmp_path)
    assert len(results) == 2
    assert sorted({kind for result in results for kind in kinds(result)}) == found


def test_a_readers_fault_is_noted_and_loses_no_other_readers_result(
    tmp_path: Path, install: Callable[[Reader[AuditSource]], None]
) -> None:
    def fail(source: AuditSource) -> list[Result]:
        raise KeyError("nobody thought of it")

    install(dataclasses.replace(TOY, name="broken", find=fail))
    install(TOY)
    [result] = audit(write(tmp_path / "a", "ann", "One"))
    assert result.kind == "votes"
    assert any("could not be read as broken: KeyError" in note for note in result.notes)
