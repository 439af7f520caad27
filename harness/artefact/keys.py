"""Content keys: sha256 over everything that decides what a stage makes."""

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from harness.artefact import environment, links
from harness.common.commands import harness
from harness.common.json_files import read_object
from harness.common.paths import files_of
from harness.errors import DataAbsent, InputError, NotFetched
from harness.spec.base import DATA_SCHEME, KEY_IF_SET, NOT_KEY, DataPath, Endpoint, Hub

KEY_FORMAT = 1
Part = TypeVar("Part", bound=BaseModel)
SCALARS = (str, int, float, type(None))
"""Most values of a spec. Whether something is a pydantic model takes pydantic long to say."""
SETTLED_NS = 1_000_000_000
"""A file changed more recently may change once more under the same stamp, clocks being coarse."""


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def where_given(inputs: Path | None) -> str:
    """What to do where given data is absent from the folder `inputs`, or that folder was not named."""
    if environment.current_image() is not None:
        return "Say on the machine itself where it is: HARNESS_INPUTS=DIR docker compose run ..."
    if inputs is None:
        return "Name the folder with --inputs DIR, or in HARNESS_INPUTS."
    return f"Put it into {inputs}, or name another folder with --inputs DIR or HARNESS_INPUTS."


class Files:
    """Finds the given files and folders that specs name, and knows their digests.

    Digests are remembered in `cache` by size, time of change and inode, so that planning a hundred
    rows reads no large file twice; and by digest what was found out of files. `fetched`: the volume's
    folder of what addresses brought, SHA256/NAME. `inputs`: the folder of given data, or several with a
    colon between them.
    """

    def __init__(
        self, inputs: Path | None, cache: Path | None, fetched: Path | None = None
    ) -> None:
        self.inputs = inputs
        self.fetched = fetched
        self._cache_path = cache
        self._cache: dict[str, str] = {}
        self._digests: dict[Path, str] = {}
        self._by_digest: dict[str, Path | None] = {}
        self._dirty = False
        if cache is not None:
            self._cache = read_object(cache) or {}

    def locate(self, data: DataPath) -> Path:
        """The file or folder itself: on disk, else where an address has brought it.

        Raises:
            NotFetched: it is not there, and an address will bring it.
            DataAbsent: it is not there, or the folder of given data was not named.
            InputError: it is a pipe or another thing that need not end, or a link leads to it out of
                the folder of given data.
        """
        try:
            return self._on_disk(data)
        except DataAbsent:
            if not data.url:
                raise
        path = self.fetched_path(data)
        if path is None or not path.exists():
            raise NotFetched(
                f"{data.name} (sha256 {data.sha256}) is not on the volume yet",
                f"Bring it with: {harness('fetch', 'SPEC')}",
            )
        return path

    def fetched_path(self, data: DataPath) -> Path | None:
        """Where what the data's address brings stands, or will stand."""
        if self.fetched is None or data.sha256 is None:
            return None
        return self.fetched / data.sha256 / data.file_name

    def _on_disk(self, data: DataPath) -> Path:
        if data.url and not data.path:
            raise DataAbsent(f"{data.name} has an address alone")
        if not (data.by_digest or data.path.startswith(DATA_SCHEME)):
            path = Path(data.path)
            if not path.exists():
                raise DataAbsent(f"the given data {path} is not there")
            return _readable(links.snapshot_of(path.resolve(), data.path))
        if self.inputs is None:
            raise DataAbsent(
                f"{data.name} is below the folder of given data, and that folder was not named",
                where_given(None),
            )
        if data.by_digest:
            return self._with_digest(data)
        name = data.path.removeprefix(DATA_SCHEME)
        path = links.find(self.inputs, name, data.path)
        if not path.exists():
            expected = f" (sha256 {data.sha256})" if data.sha256 else ""
            raise DataAbsent(
                f"{data.path} is not there: {self.inputs} holds no {name}{expected}",
                where_given(self.inputs),
            )
        snapshot = links.snapshot_of(path, data.path)
        if snapshot != path:
            path = links.find(self.inputs, f"{name}/{snapshot.relative_to(path)}", data.path)
        return _readable(path)

    def _with_digest(self, data: DataPath) -> Path:
        """The first file below the folder of given data that has the data's sha256."""
        digest = str(data.sha256)
        if digest not in self._by_digest:
            candidates = links.files_below(self.inputs) if self.inputs is not None else []
            sized = (p for p in candidates if data.bytes in (None, p.stat().st_size))
            self._by_digest[digest] = next((p for p in sized if self._has(p, digest)), None)
        path = self._by_digest[digest]
        if path is None:
            raise DataAbsent(
                f"{self.inputs} holds no file with sha256 {digest}", where_given(self.inputs)
            )
        return path

    def _has(self, path: Path, digest: str) -> bool:
        try:
            return self._digest_file(path) == digest
        except OSError:
            return False

    def digest(self, data: DataPath) -> str:
        """sha256 of a file's bytes; of a folder, over its files' relative names and digests. Of what an
        address is still to bring, that which its spec pins.

        Raises:
            InputError: the bytes are not those that the spec pins.
        """
        try:
            path = self.locate(data)
        except NotFetched:
            return str(data.sha256)
        if path not in self._digests:
            self._digests[path] = self.digest_path(path)
        digest = self._digests[path]
        if data.sha256 is not None and digest != data.sha256:
            hint = (
                "Get the right file, or, if the new one is meant, write its sha256 into the spec."
            )
            if data.url and path == self.fetched_path(data):
                hint = f"It was changed after it was fetched. Remove {path.parent}, and fetch it again."
            elif data.url:
                hint += " Without the file, the address that the spec names brings the right one."
            raise InputError(
                f"{path} is not the file that the spec means: its sha256 is {digest}, the spec "
                f"says {data.sha256}",
                hint,
            )
        return digest

    def pinned(self, data: DataPath) -> Path:
        """As `locate`, once its bytes are known to be those that the spec pins, where it pins any.

        Raises:
            NotFetched, DataAbsent: as `locate`.
            InputError: as `locate`, or they are others.
        """
        path = self.locate(data)
        if data.sha256 is not None:
            self.digest(data)
        return path

    def digest_path(self, path: Path) -> str:
        """As `digest`, of a file or folder on disk."""
        if path.is_dir():
            files = sorted(files_of(path))
            return digest_of({str(p.relative_to(path)): self._digest_file(p) for p in files})
        return self._digest_file(path)

    def _digest_file(self, path: Path) -> str:
        stat = path.stat()
        stamp = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
        if stamp in self._cache:
            return self._cache[stamp]
        digest = file_digest(path)
        if time.time_ns() - stat.st_ctime_ns > SETTLED_NS:
            self._cache[stamp] = digest
            self._dirty = True
        return digest

    def cached(self, name: str, make: Callable[[], str]) -> str:
        """What `make` finds out of given files; `name` is a digest of everything that decides it."""
        if name not in self._cache:
            self._cache[name] = make()
            self._dirty = True
        return self._cache[name]

    def stamps(self, data: DataPath) -> dict[str, tuple[int, ...]]:
        """What changes about each file of `data` whenever it is written, put back or replaced."""
        path = self.locate(data)
        stats = {str(p): p.stat() for p in sorted(files_of(path))}
        return {n: (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in stats.items()}

    def save(self) -> None:
        """Keep what was learnt; a volume that cannot be written only costs the next plan time."""
        if not self._dirty or self._cache_path is None:
            return
        try:
            self._cache_path.parent.mkdir(parents=True, exist_ok=True)
            part = self._cache_path.with_name(f"{self._cache_path.name}.{os.getpid()}")
            part.write_text(json.dumps(dict(self._cache)), encoding="utf-8")
            part.replace(self._cache_path)
        except OSError:
            return
        self._dirty = False


def _readable(path: Path) -> Path:
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"the given data {path} is neither a regular file nor a folder")
    return path


def key_view(value: Any, files: Files) -> Any:
    """A spec model as it enters a key: defaults filled in, a prompt file's text, a file's digest."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, DataPath):
        return {"sha256": files.digest(value)}
    if isinstance(value, BaseModel):
        model = type(value)
        view = {}
        for name, if_set in _in_key(model).items():
            part = getattr(value, name)
            if not if_set or part != model.model_fields[name].default:
                view[name] = part if isinstance(part, SCALARS) else key_view(part, files)
        return view
    if isinstance(value, list | tuple):
        return [key_view(v, files) for v in value]
    if isinstance(value, dict):
        return {k: key_view(v, files) for k, v in value.items()}
    return value


@functools.cache
def _in_key(model: type[BaseModel]) -> dict[str, bool]:
    """The fields that are not marked as outside of keys; whether only where they are set."""
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {name: extra == KEY_IF_SET for name, extra in extras.items() if extra != NOT_KEY}


def iter_data(value: Any) -> Iterator[DataPath]:
    """Every given file or folder that a model names."""
    yield from _parts(value, DataPath)


def open_hubs(value: Any) -> list[str]:
    """The ids of the models and data sets on the hub that a model names without a revision."""
    return list(dict.fromkeys(hub.id for hub in _parts(value, Hub) if hub.revision is None))


def key_names(value: Any) -> frozenset[str]:
    """The variables that a model's endpoints name for their keys."""
    return frozenset(e.api_key_env for e in _parts(value, Endpoint) if e.api_key_env)


def _parts(value: Any, kind: type[Part]) -> Iterator[Part]:
    """Every model of a kind within a value."""
    if isinstance(value, SCALARS):
        return
    if isinstance(value, kind):
        yield value
    elif isinstance(value, BaseModel):
        for name in _field_names(type(value)):
            part = getattr(value, name)
            if not isinstance(part, SCALARS):
                yield from _parts(part, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _parts(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, kind)


@functools.cache
def _field_names(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(model.model_fields)


def flatten(value: object, at: str = "") -> dict[str, object]:
    """Nested mappings as one: {"train.seed": 1}."""
    if not isinstance(value, dict):
        return {at: value}
    flat: dict[str, object] = {}
    for name, item in value.items():
        flat.update(flatten(item, f"{at}.{name}" if at else str(name)))
    return flat


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What changed between two key documents, a line each, in words."""
    before, after = flatten(old), flatten(new)
    lines = []
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a != b:
            lines.append(_change(name, a, b, name in before, name in after))
    return lines


def _change(name: str, a: Any, b: Any, had: bool, has: bool) -> str:
    parts = name.split(".")
    if parts[0] == "inputs":
        return f"its input ({parts[-1]}) changed"
    if parts[0] == "environment":
        what = f"package {name.split('packages.', 1)[1]}" if "packages." in name else name
        if parts[-1] == "lock":
            what = "image lock"
            a, b = str(a)[:12], str(b)[:12]
        return f"{what}: {a} -> {b}"
    name = name.removeprefix("params.")
    if parts[-1] == "sha256":
        return f"{name.removesuffix('.sha256')}: its bytes changed"
    if isinstance(a, str) and isinstance(b, str) and ("\n" in a or "\n" in b):
        return f"{name}: {_first_difference(a, b)}"
    if not had:
        return f"{name}: {b!r} is new"
    if not has:
        return f"{name}: {a!r} is gone"
    return f"{name}: {a!r} -> {b!r}"


def _first_difference(a: str, b: str) -> str:
    old_lines, new_lines = a.splitlines(), b.splitlines()
    for number, (x, y) in enumerate(zip(old_lines, new_lines, strict=False), 1):
        if x != y:
            return f"text changed in line {number}"
    return f"text changed after line {min(len(old_lines), len(new_lines))}"
