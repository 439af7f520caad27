"""Archives of images, as engines write them, unpacked by a user."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.run.executors.image_archive import CONFIG, ImageConfig, images_in, unpack

CONFIG_TEXT = json.dumps(
    {"config": {"Env": ["PATH=/opt/venv/bin:/bin", "EMPTY="], "Labels": {"harness.lock": "abc"}}}
).encode()
LOWER = {
    "usr/bin/tool": b"tool",
    "bin": "usr/bin",
    "etc/old": b"old",
    "etc/kept": b"kept",
    "cache/a": b"a",
    "cache/b": b"b",
    "way-out": "/etc",
}
UPPER = {
    "bin/other": b"through the link",
    "etc/.wh.old": b"",
    "cache/.wh..wh..opq": b"",
    "cache/c": b"c",
    "way-out/planted": b"inside",
}


def layer(files: dict[str, Any]) -> bytes:
    """Text values are links, the others files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o555
                tar.addfile(member, io.BytesIO(content))
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, next(iter(files))
        if not next(iter(files)).startswith("bin"):
            tar.addfile(hard)
    return file.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(path: Path, kind: str, *layers: bytes) -> Path:
    files = {f"blobs/sha256/{digest(b)}": b for b in (*layers, CONFIG_TEXT)}
    names = [f"blobs/sha256/{digest(b)}" for b in layers]
    if kind == "docker":
        config = f"blobs/sha256/{digest(CONFIG_TEXT)}"
        tags = ["registry.example/team/harness-gen:latest"]
        entry = {"Config": config, "RepoTags": tags, "Layers": names}
        files["manifest.json"] = json.dumps([entry]).encode()
    else:
        manifest = json.dumps(
            {
                "config": {"digest": f"sha256:{digest(CONFIG_TEXT)}"},
                "layers": [{"digest": f"sha256:{digest(b)}"} for b in layers],
            }
        ).encode()
        files[f"blobs/sha256/{digest(manifest)}"] = manifest
        name = {"io.containerd.image.name": "docker.io/library/harness-gen:latest"}
        entry = {"digest": f"sha256:{digest(manifest)}", "annotations": name}
        files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_archive_says_its_images_by_tag_with_the_engines_id_labels_and_variables(
    tmp_path: Path, kind: str
) -> None:
    (image,) = images_in(archive(tmp_path / "a.tar", kind, layer(LOWER)))
    assert image.tag == "harness-gen:latest"
    assert image.config.id == f"sha256:{digest(CONFIG_TEXT)}"
    assert image.config.labels == {"harness.lock": "abc"}
    assert image.config.variables == {"PATH": "/opt/venv/bin:/bin", "EMPTY": ""}
    assert image.size == len(layer(LOWER))


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_upper_layer_replaces_removes_and_empties_what_lower_ones_have(
    tmp_path: Path, kind: str
) -> None:
    path = archive(tmp_path / "a.tar", kind, layer(LOWER), layer(UPPER))
    (image,) = images_in(path)
    folder, counts = tmp_path / "image", list[int]()
    unpack(path, image, folder, counts.append)
    assert sorted(p.name for p in (folder / "cache").iterdir()) == ["c"]
    assert sorted(p.name for p in (folder / "etc").iterdir()) == ["kept", "planted"]
    assert (folder / "usr/bin/other").read_bytes() == b"through the link"
    assert (folder / "hard").read_bytes() == b"tool"
    assert (folder / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (folder / "run/secrets").is_dir()
    assert ImageConfig.read((folder / CONFIG).read_bytes()) == image.config
    assert counts == sorted(counts)
    assert counts[-1] == image.size == len(layer(LOWER)) + len(layer(UPPER))
    assert len(set(counts)) > 3


def test_no_link_and_no_name_in_an_image_leads_out_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {
        "absolute": str(outside),
        "climbing": "../../outside",
        "absolute/one": b"1",
        "climbing/two": b"2",
        "../outside/three": b"3",
    }
    path = archive(tmp_path / "a.tar", "docker", layer({"first": b"", **files}))
    unpack(path, images_in(path)[0], tmp_path / "image", lambda done: None)
    assert list(outside.iterdir()) == []
    assert {p.name for p in (tmp_path / "image").rglob("*")} >= {"one", "two", "three"}


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_file_that_is_no_archive_is_the_users_fault_with_the_command_that_makes_one(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as an image archive") as e:
        images_in(path)
    assert "docker save -o images.tar" in e.value.hint


@pytest.mark.parametrize(
    "listed", ["[" * 100_000, '[{"Config": 5, "RepoTags": null, "Layers": null}]', "[5]", "{}x"]
)
def test_a_list_of_images_that_is_none_is_told_in_words(tmp_path: Path, listed: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(listed)
        tar.addfile(member, io.BytesIO(listed.encode()))
    with pytest.raises(InputError, match="its list of images or what that names is faulty"):
        images_in(tmp_path / "a.tar")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no plain file"):
        images_in(tmp_path / "pipe")


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("readme"))
    with pytest.raises(InputError, match="it lists no image"):
        images_in(tmp_path / "a.tar")
