"""Links in the folders of given data: what a person names can be read, and nothing beyond it."""

import os
from pathlib import Path

import pytest

from harness.artefact.keys import Files
from harness.errors import InputError
from harness.spec.base import DataPath


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub's cache with one model, laid out as its client does."""
    repository = tmp_path / "hub" / "models--me--mine"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, blob in (("config.json", "11"), ("model.safetensors", "22")):
        (repository / "blobs" / blob).write_text(name)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob))
    return tmp_path / "hub"


def data(path: str) -> DataPath:
    return DataPath(path=f"data:{path}")


def test_a_folder_that_is_a_link_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Files(tmp_path / "link", None).locate(data("a.json")).read_text() == "a"


@pytest.mark.parametrize("inputs", ["", "models--me--mine", "models--me--mine/snapshots/abc"])
def test_the_hubs_cache_can_be_named_at_any_depth_and_files_keep_their_names(
    cache: Path, inputs: str
) -> None:
    inside = "models--me--mine/snapshots/abc"
    name = os.path.relpath(Path("/", inside, "config.json"), Path("/", inputs))
    path = Files(cache / inputs, None).locate(data(name))
    assert (path.name, path.read_text()) == ("config.json", "config.json")


def test_a_model_in_the_hubs_cache_has_the_digest_of_its_files_by_name(
    cache: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copied / name).write_text(name)
    files = Files(cache, None)
    assert files.digest(data("models--me--mine/snapshots/abc")) == files.digest_path(copied)


def test_a_repositorys_folder_stands_for_its_one_snapshot(cache: Path) -> None:
    files, inside = Files(cache, None), "models--me--mine/snapshots/abc"
    assert files.locate(data("models--me--mine")) == cache / inside
    assert files.digest(data("models--me--mine")) == files.digest(data(inside))
    by_path = DataPath(path=str(cache / "models--me--mine"))
    assert files.digest(by_path) == files.digest(data(inside))


def test_of_a_repository_with_several_snapshots_each_is_named(cache: Path) -> None:
    repository = cache / "models--me--mine"
    (repository / "snapshots" / "def").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("def\n")
    with pytest.raises(InputError, match="repository in the hub's cache with 2 snapshots") as error:
        Files(cache, None).locate(data("models--me--mine"))
    assert "snapshots/abc, snapshots/def (main)" in error.value.hint


def test_a_snapshot_that_leads_elsewhere_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (cache / "models--me--mine/snapshots/abc").rename(tmp_path / "moved")
    (cache / "models--me--mine/snapshots/abc").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out of the folder of given data"):
        Files(cache, None).locate(data("models--me--mine"))


def test_a_link_that_leads_elsewhere_is_refused_until_that_is_named_too(
    cache: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    snapshot = cache / "models--me--mine" / "snapshots" / "abc"
    (inputs / "model").symlink_to(snapshot)
    with pytest.raises(InputError, match="leads out of the folder of given data") as error:
        Files(inputs, None).locate(data("model"))
    assert f"name both: --inputs {inputs}:{snapshot}" in error.value.hint
    both = Path(f"{inputs}:{snapshot}")
    assert Files(both, None).locate(data("model")) == inputs / "model"
    assert Files(both, None).locate(data("model/config.json")).read_text() == "config.json"


@pytest.mark.parametrize("target", ["/", "/no-such-file-here.json", "nowhere/a.json"])
def test_a_link_to_nothing_or_to_the_root_has_no_advice_to_name_a_folder(
    tmp_path: Path, target: str
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "model").symlink_to(Path("..", target))
    with pytest.raises(InputError, match="leads out of the folder of given data") as error:
        Files(inputs, None).locate(data("model"))
    assert "--inputs" not in error.value.hint
    assert "A link in it leads to /" in error.value.hint


def test_what_two_named_folders_do_not_hold_stays_out_of_reach(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    snapshot = cache / "models--me--mine" / "snapshots" / "abc"
    (snapshot / "evil").symlink_to(tmp_path / "secret")
    (tmp_path / "other").mkdir()
    both = Files(Path(f"{snapshot}:{tmp_path / 'other'}"), None)
    for name in ("evil", "../../../../secret", "../../blobs/../../../secret"):
        with pytest.raises(InputError, match="leads out of the folder of given data"):
            both.locate(data(name))


@pytest.mark.parametrize("name", ["loop", "loop/a.json"])
def test_a_link_that_leads_round_in_a_circle_is_refused_in_a_sentence(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=f"data:{name} cannot be read: links lead round"):
        Files(tmp_path, None).locate(data(name))


def test_a_folder_of_given_data_that_is_a_link_to_itself_is_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for wanted in (data("a.json"), DataPath(sha256="0" * 64)):
        with pytest.raises(InputError, match="loop cannot be read: links lead round"):
            Files(tmp_path / "loop", None).locate(wanted)


def test_a_file_is_looked_for_in_each_of_the_named_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(name)
    files = Files(Path(f"{tmp_path / 'one'}:{tmp_path / 'two'}"), None)
    assert files.locate(data("two.json")).read_text() == "two"
    with pytest.raises(InputError, match=r"holds no three\.json"):
        files.locate(data("three.json"))


def test_a_search_by_digest_passes_links_that_lead_elsewhere_by(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "link").symlink_to(tmp_path / "secret")
    files = Files(tmp_path / "inputs", None)
    digest = files.digest_path(tmp_path / "secret")
    with pytest.raises(InputError, match="holds no file with sha256"):
        files.locate(DataPath(sha256=digest))


def test_a_container_is_given_what_links_lead_to_under_their_own_names(cache: Path) -> None:
    from harness.run.executors.mounts import read_only

    snapshot = cache / "models--me--mine" / "snapshots" / "abc"
    mounts = {m.inside: str(m.source) for m in read_only(snapshot, "/data/0/abc")}
    blobs = cache / "models--me--mine" / "blobs"
    assert mounts == {
        "/data/0/abc/config.json": str(blobs / "11"),
        "/data/0/abc/model.safetensors": str(blobs / "22"),
    }
    [mount] = read_only(blobs, "/data/0/blobs")
    assert (mount.inside, mount.source, mount.is_read_only) == ("/data/0/blobs", blobs, True)
