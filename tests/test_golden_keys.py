"""No key of a row under specs/ moves unless a spec or a code version does."""

import pytest

from harness.artefact import environment
from harness.artefact.keys import digest_of
from tests.golden_keys import Golden, moved, present, record, stages


@pytest.fixture(scope="module")
def now() -> Golden:
    return present()


def test_every_key_of_every_row_and_twin_under_specs_is_as_recorded(now: Golden) -> None:
    lines = moved(record(), now)
    assert not lines, (
        "\n".join(lines)
        + "\nThese keys moved, so that finished artefacts are found no more. Where a "
        "spec or a code version changed on purpose: python -m tests.golden_keys --write. Elsewhere see "
        "which value it is: python -m tests.golden_keys --print, here and in a checkout of before."
    )


def test_a_stages_own_key_is_that_of_its_document_with_its_images_lock() -> None:
    for _, _, stage in stages():
        assert stage.key == digest_of(stage.document)
        assert {n: source.key for n, source in stage.inputs.items()} == stage.document["inputs"]
        assert set(stage.document["environment"]) == {"image", "lock"}


def test_a_raised_code_version_moves_its_stage_and_what_comes_after_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch, now: Golden
) -> None:
    monkeypatch.setitem(environment.CODE_VERSIONS, "train", 99)
    lines = moved(now, present())
    row = "specs/smoke/sft.yaml"
    version = now[row]["train"].split("code_version=")[1].split()[0]
    assert f"{row}: train: code_version {version} -> 99" in lines
    [answer] = [line for line in lines if line.startswith(f"{row}: answer")]
    assert "inputs.model" in answer
    assert "params" not in answer
    assert not any(": gen" in line or "specs/smoke/base.yaml" in line for line in lines)


def test_what_moved_is_said_by_row_and_stage() -> None:
    before = {"a": {"gen": "1 params.gen=2"}, "b": {"gen": "1"}, "c": {"judge": "1 format=1"}}
    now = {"a": {"gen": "3 params.gen=4", "train": "5"}, "c": {"judge": "2 format=1"}, "d": {}}
    assert moved(before, now) == [
        "b: the row is gone",
        "d: the row is new",
        "a: gen: params.gen 2 -> 4",
        "a: train: the stage is new",
        "c: judge: how the key is made of its parts",
    ]
