"""Image archives as `docker save`, `podman save` and buildx write them: what is in one, and its files
unpacked into a folder, as any user."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from harness.common.paths import remove
from harness.errors import InputError

CONFIG = "harness-image.json"
"""In an unpacked image: its configuration, as the archive has it."""
MOUNT_POINTS = ("work", "inputs", "data", "cache", "run/secrets", "model", "adapter")
"""Made in an unpacked image, in which nothing can be made later."""
DOCKER_LIST, OCI_LIST = "manifest.json", "index.json"
REMOVED, OPAQUE = ".wh.", ".wh..wh..opq"
"""How a layer says that a file, or all of a folder, of the layers below is gone."""
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class ImageConfig:
    id: str
    """Digest of the configuration: an engine's id of the image."""
    labels: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    text: bytes = b""

    @classmethod
    def read(cls, text: bytes) -> "ImageConfig":
        """Raises ValueError for what is no configuration."""
        config = json.loads(text).get("config") or {}
        pairs = (pair.partition("=") for pair in config.get("Env") or [])
        return cls(
            f"sha256:{hashlib.sha256(text).hexdigest()}",
            dict(config.get("Labels") or {}),
            {name: value for name, _, value in pairs},
            text,
        )


@dataclass(frozen=True)
class ArchivedImage:
    tag: str
    """As `harness-gen:latest`: without a registry's name."""
    config: ImageConfig
    layers: tuple[str, ...]
    """Their names in the archive, lowest first."""
    size: int
    """Bytes of the layers, as the archive has them."""


def images_in(archive: Path) -> list[ArchivedImage]:
    """Raises InputError for a file that is no such archive."""
    if not archive.is_file():
        raise InputError(f"{archive} is no plain file", _HOW)
    try:
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
            if DOCKER_LIST in names:
                return _of_docker(tar)
            if OCI_LIST in names:
                return _of_oci(tar)
    except (OSError, tarfile.TarError) as e:
        raise InputError(f"{archive} cannot be read as an image archive: {e}", _HOW) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        wrong = "its list of images or what that names is faulty"
        raise InputError(f"{archive} cannot be read as an image archive: {wrong}", _HOW) from None
    raise InputError(f"{archive} is no image archive: it lists no image", _HOW)


_HOW = "Make one: docker save -o images.tar harness-gen:latest harness-train:cpu harness-eval:cpu"


def unpack(archive: Path, image: ArchivedImage, folder: Path, told: Callable[[int], None]) -> None:
    """Unpack an image into a folder that is not there yet; `told`: of its size so far, now and then.

    Owners are not kept, devices are left out: a user's container has neither.
    """
    folder.mkdir(parents=True)
    done = 0
    with tarfile.open(archive) as tar:
        for name in image.layers:
            file = _file(tar, name)
            with tarfile.open(fileobj=file) as layer:
                for member in layer:
                    _unpack(layer, member, folder)
                    told(done + file.tell())
            done += file.seek(0, os.SEEK_END)
            told(done)
    for mount_point in MOUNT_POINTS:
        (folder / mount_point).mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(image.config.text)


def _of_docker(tar: tarfile.TarFile) -> list[ArchivedImage]:
    images = []
    for entry in json.load(_file(tar, DOCKER_LIST)):
        config = ImageConfig.read(_file(tar, entry["Config"]).read())
        for tag in entry.get("RepoTags") or []:
            images.append(_image(tar, tag, config, entry["Layers"]))
    return images


def _of_oci(tar: tarfile.TarFile) -> list[ArchivedImage]:
    images = []
    for entry in json.load(_file(tar, OCI_LIST))["manifests"]:
        annotations: Mapping[str, str] = entry.get("annotations") or {}
        name = next((annotations[n] for n in NAME_ANNOTATIONS if n in annotations), "")
        manifest = json.load(_file(tar, _blob(entry["digest"])))
        if "manifests" in manifest:  # one image for several machines: the first that is an image
            manifest = json.load(_file(tar, _blob(manifest["manifests"][0]["digest"])))
        config = ImageConfig.read(_file(tar, _blob(manifest["config"]["digest"])).read())
        layers = [_blob(layer["digest"]) for layer in manifest["layers"]]
        images.append(_image(tar, name, config, layers))
    return images


def _image(
    tar: tarfile.TarFile, name: str, config: ImageConfig, layers: Sequence[str]
) -> ArchivedImage:
    size = sum(_file(tar, layer).seek(0, os.SEEK_END) for layer in layers)
    # Without a registry's name.
    return ArchivedImage(name.rpartition("/")[2], config, tuple(layers), size)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _file(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file in it")
    return file


def _unpack(layer: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    path = _inside(root, member.name)
    if path == root:
        return
    if path.name == OPAQUE:
        for child in path.parent.iterdir() if path.parent.is_dir() else ():
            remove(child)
        return
    if path.name.startswith(REMOVED):
        remove(path.with_name(path.name.removeprefix(REMOVED)))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (member.isdir() and path.is_dir() and not path.is_symlink()):
        remove(path)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
        return
    elif member.islnk():
        path.hardlink_to(_inside(root, member.linkname))
        return
    elif member.isfile():
        with path.open("wb") as file:
            source = layer.extractfile(member)
            assert source is not None
            shutil.copyfileobj(source, file, 1 << 20)
    else:
        return
    # Its owner must be able to read it, and to remove it.
    path.chmod(member.mode & 0o777 | (0o700 if member.isdir() else 0o600))


def _inside(root: Path, name: str) -> Path:
    """The path of a name in the image, whose folders may be links: they are followed as inside the
    image, never out of it."""
    path, left = root, [part for part in name.split("/") if part not in ("", ".")][::-1]
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            path = path if path == root else path.parent
            continue
        path = path / part
        if left and path.is_symlink():
            links += 1
            if links > 40:
                raise InputError(f"the image's links at {name} lead in a circle")
            target = str(path.readlink())
            path = root if target.startswith("/") else path.parent
            left += [p for p in target.split("/") if p not in ("", ".")][::-1]
    return path
