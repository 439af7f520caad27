"""`harness pin`: asks the hub which commit an open revision is now, and writes its hash into the spec.

Only the revision's place in the file changes; comments and layout stay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.artefact.store import write_atomically
from harness.errors import HarnessError, InputError
from harness.llm.secrets import key_variable, read_key, redact
from harness.row.load import SpecFaults, spec_files
from harness.spec.source import Fault, Mark, Node, load_tree

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
TIMEOUT_S = 30.0
OPEN = ("null", "Null", "NULL", "~")
"""How YAML writes no value, beside nothing at all."""


@dataclass(frozen=True)
class RevisionPlace:
    """Where an open revision is to be written."""

    kind: str
    """`model` or `data set`."""
    id: str
    mark: Mark
    """Of the key `revision`; where the spec has none, of the key `id`."""
    is_there: bool
    """Whether the spec has the key `revision`."""


@dataclass(frozen=True)
class Pinned:
    place: RevisionPlace
    revision: str


def pin(specs: Sequence[Path]) -> list[Pinned]:
    """Resolve every open revision of these specs, in the files that they extend too, and write it.

    Each repository is asked for once, so that all its places get the same commit; and nothing is
    written before all are known.

    Raises:
        InputError: a repository is not there, or not for this token; a file cannot be written.
        HarnessError: the hub cannot be reached.
        SpecFaults: a spec cannot be read.
    """
    places = list(open_places(specs))
    if not places:
        return []
    api, token = _hub()
    commits: dict[tuple[str, str], str] = {}
    for place in places:
        key = (place.kind, place.id)
        if key not in commits:
            commits[key] = _resolve(api, token, place)
    done = [Pinned(place, commits[place.kind, place.id]) for place in places]
    texts: dict[Path, str] = {}
    for file in dict.fromkeys(p.place.mark.file for p in done):
        texts[file] = _written(file, [p for p in done if p.place.mark.file == file])
    for file, text in texts.items():
        _write(file, text)
    return done


def open_places(specs: Sequence[Path]) -> Iterator[RevisionPlace]:
    """Every open revision, once each however many rows share it."""
    faults: list[Fault] = []
    trees: dict[Path, Node] = {}
    places: dict[tuple[Path, int, int], RevisionPlace] = {}
    for path in spec_files(specs):
        tree = load_tree(path, faults, trees)
        if tree is None:
            continue
        for place in _in_tree(tree, ""):
            mark = place.mark
            places.setdefault((mark.file.resolve(), mark.line, mark.column), place)
    if faults:
        raise SpecFaults(faults)
    yield from places.values()


def _in_tree(node: Node, name: str) -> Iterator[RevisionPlace]:
    """`name`: the key that the node stands under. A model is what stands under `model: {hub: ...}`."""
    for key, child in node.children.items():
        identity = child.children.get("id") if key == "hub" else None
        if identity is None or not isinstance(identity.value, str):
            yield from _in_tree(child, str(key))
            continue
        revision = child.children.get("revision")
        if revision is None or revision.value is None:
            kind = "model" if name == "model" else "data set"
            mark = child.key_marks["id" if revision is None else "revision"]
            yield RevisionPlace(kind, identity.value, mark, revision is not None)


# Files


def _written(file: Path, pinned: Sequence[Pinned]) -> str:
    """The file's text with the revisions in it, from the last place to the first."""
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            text = opened.read()
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror}") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        edits = [_edit(text, root, p) for p in pinned]
        before = yaml.safe_load(text)
        for begin, end, new in sorted(edits, reverse=True):
            text = text[:begin] + new + text[end:]
        after = yaml.safe_load(text)
        revisions = set(_revisions(after))
        if _without_revisions(after) == _without_revisions(before) and all(
            p.revision in revisions for p in pinned
        ):
            return text
    except (yaml.YAMLError, RecursionError, ValueError):
        pass
    instructions = "; ".join(f"{p.place.mark}: revision: {p.revision}" for p in pinned)
    raise InputError(
        f"{file} is written in a way that is not changed here; nothing was written",
        f"Write it yourself: {instructions}",
    )


def _revisions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("revision"), str):
            yield value["revision"]
        for item in value.values():
            yield from _revisions(item)
    for item in value if isinstance(value, list) else []:
        yield from _revisions(item)


def _as_text(revision: str) -> str:
    """In quotes where YAML would read a number: all digits, or digits around one e."""
    return f'"{revision}"' if not isinstance(yaml.safe_load(revision), str) else revision


def _without_revisions(value: Any) -> Any:
    """What must not change when revisions are written. A hash may be all digits, and be read so."""
    if isinstance(value, dict):
        return {k: _without_revisions(v) for k, v in value.items() if k != "revision"}
    return [_without_revisions(v) for v in value] if isinstance(value, list) else value


def _edit(text: str, root: Any, pinned: Pinned) -> tuple[int, int, str]:
    """(from, to, what stands there then), as positions in the text."""
    place, revision = pinned.place, _as_text(pinned.revision)
    mapping, key, value = _find(root, "revision" if place.is_there else "id", place.mark)
    begin, end = value.start_mark.index, value.end_mark.index
    if not place.is_there:
        if mapping.flow_style:
            return end, end, f", revision: {revision}"
        # A line of its own below the id's, whatever comment stands behind that.
        line = text.find("\n", end)
        indent = " " * key.start_mark.column
        if line < 0:
            return len(text), len(text), f"\n{indent}revision: {revision}"
        newline = "\r\n" if text[line - 1] == "\r" else "\n"
        return line + 1, line + 1, f"{indent}revision: {revision}{newline}"
    written = text[begin:end]
    if written in OPEN:
        return begin, end, revision
    if not written:
        after = text.index(":", key.end_mark.index) + 1
        return after, after, f" {revision}"
    raise InputError(
        f"{place.mark}: the revision is open, and written in a way that is not changed here: "
        f"{written[:40]!r}",
        f"Write it yourself: revision: {revision}",
    )


def _find(root: Any, name: str, mark: Mark) -> tuple[Any, Any, Any]:
    """The mapping that has the key `name` at the mark, with that key and its value."""
    waiting, visited = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                at = key.start_mark
                if key.value == name and (at.line + 1, at.column + 1) == (mark.line, mark.column):
                    return node, key, value
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    raise InputError(f"{mark} has changed meanwhile", "Run the same command again.")


def _write(file: Path, text: str) -> None:
    """Through a link, so that it stays one."""
    target = file.resolve()
    try:
        mode = target.stat().st_mode
        write_atomically(target, text)
        target.chmod(mode)
    except OSError as e:
        raise InputError(
            f"{file} cannot be written: {e.strerror}", "Make the file and its folder writable."
        ) from None


# The hub


def _hub() -> tuple["HfApi", str]:
    """The hub's client, and its token; an empty one where none is given."""
    try:
        from huggingface_hub import HfApi, constants
    except ImportError:
        raise HarnessError(
            "the package huggingface_hub is not installed here, which asks the hub",
            "Install it (pip install huggingface_hub), or write the commit's 40 hex digits yourself.",
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise HarnessError(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so the hub is not asked",
            "Unset it where there is a network, or write the 40 hex digits of the commit yourself.",
        )
    token = read_key(TOKEN, "the hub") if key_variable(TOKEN) else ""
    return HfApi(token=token or False), token


def _resolve(api: "HfApi", token: str, place: RevisionPlace) -> str:
    """The commit that the repository's main branch is at."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    ask: Callable[..., Any] = api.model_info if place.kind == "model" else api.dataset_info
    try:
        commit = ask(place.id, timeout=TIMEOUT_S).sha
    except HFValidationError:
        raise InputError(f"{place.mark}: {place.id} cannot be a {place.kind}'s name") from None
    except GatedRepoError:
        raise InputError(
            f"the hub does not let this token read {place.id}",
            f"Accept the {place.kind}'s terms on its page, and give a token in {TOKEN}.",
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{place.mark}: there is no {place.kind} {place.id} on the hub, or it is private",
            f"Check the id; for a private {place.kind} give a token in {TOKEN}.",
        ) from None
    except (HTTPError, HfHubHTTPError, OSError, ValueError) as e:
        reason = redact(" ".join(str(e).split()), token) if token else " ".join(str(e).split())
        raise HarnessError(
            f"the hub ({api.endpoint}) could not be asked for {place.id}: {reason[:300]}",
            "Nothing was written. Run the same command again when the network is there, or write the "
            "40 hex digits of the commit yourself.",
        ) from None
    if not isinstance(commit, str) or len(commit) != 40 or set(commit) - set("0123456789abcdef"):
        raise HarnessError(f"the hub gave no commit for {place.id}: {str(commit)[:60]!r}")
    return commit
