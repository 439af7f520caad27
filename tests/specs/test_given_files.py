"""The studies' given files, by their public addresses out of a mirror of this machine."""

import io
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from harness.artefact.keys import Files, iter_data
from harness.artefact.store import Store
from harness.row.load import load_rows
from harness.run.given import bring
from tests.helpers import ROOT, planner

STUDIES = ("mini_lima", "mini_lima_assignment", "orpo_lab", "mini_lima_paper", "alpagasus2")


def test_every_row_of_the_five_studies_has_its_files_from_their_addresses_and_the_same_keys(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_rows([ROOT / "specs" / study for study in STUDIES])
    given = {data.sha256: data for loaded in rows for data in iter_data(loaded.row)}
    given = {
        digest: data
        for digest, data in given.items()
        if data.path and (shared_data / data.path.removeprefix("data:")).is_file()
    }
    assert len(given) >= 6, "the others are known by their addresses alone"
    mirror = tmp_path / "mirror"
    for data in given.values():
        address = urlsplit(data.url[0])
        place = mirror / str(address.hostname) / address.path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shared_data / data.path.removeprefix("data:"), place)
    monkeypatch.setenv(bring.MIRROR, str(mirror))
    store = Store(tmp_path / "volume")
    store.prepare()
    files = Files(None, None, store.files_folder)
    assert len(bring.bring(given.values(), store, files, Console(file=io.StringIO()))) == len(given)
    by_address, by_path = planner(store.root), planner(store.root, shared_data)
    for loaded in rows:
        for one, other in zip(
            by_address.plan(loaded).stages, by_path.plan(loaded).stages, strict=True
        ):
            assert one.key == other.key
    assert {d.bytes for d in given.values()} == {
        files.locate(d).stat().st_size for d in given.values()
    }
