"""YAML files as trees in which every value knows where it was written, and `extends` between them."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import Reader

from harness.spec.base import SourceText

EXTENDS = "extends"
KINDS = ("kind", "recipe")
"""Keys that say which of several things a mapping is."""
ADDED_TO = ("assumptions", "deviations")
"""Lists that a spec adds to: what is said of the file that it extends holds for it too."""
PLACE_OF_A_NUMBER = ("reported", "source")
OLD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""What YAML 1.1 takes for octal or base-60 integers."""
DEEPEST = 50
"""Levels of nesting that a spec may have."""
LARGEST = 100_000
"""Values that a spec may hold, what its aliases repeat included."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong with a spec, and where."""

    mark: Mark
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


@dataclass
class Node:
    """A YAML value with its place. Mappings also keep the place of each key."""

    mark: Mark
    value: Any
    children: "dict[Any, Node]" = field(default_factory=dict)
    key_marks: dict[Any, Mark] = field(default_factory=dict)
    is_complete: bool = True
    """Whether everything that it extends could be read."""
    replaced: "Node | None" = None
    """What it stands in place of, in a file that is extended."""
    files: tuple[Path, ...] = ()
    """Of a whole spec: the files that it is of, in the order in which they are merged."""

    def plain(self) -> Any:
        """The value without its places, strings knowing their folder."""
        if isinstance(self.value, dict):
            return {k: c.plain() for k, c in self.children.items()}
        if isinstance(self.value, list):
            return [c.plain() for c in self.children.values()]
        if isinstance(self.value, str):
            return SourceText.at(self.value, self.mark.file.parent)
        return self.value

    def at(self, path: tuple[Any, ...]) -> "tuple[Node, Mark]":
        """The deepest node along `path` and the place to blame for it.

        Parts of the path that the tree lacks (pydantic's names for union members, a key that is
        missing) are skipped.
        """
        node, mark = self, self.mark
        for part in path:
            if part in node.children:
                mark = node.key_marks.get(part, node.children[part].mark)
                node = node.children[part]
        return node, mark


def _is_indented_by_tab(text: str, number: int) -> bool:
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    return "\t" in line[: len(line) - len(line.lstrip())]


def parse(path: Path, faults: list[Fault], what: str = "a spec") -> Node | None:
    """Read one YAML file, which is `what`; what is wrong with it is added to `faults`."""
    text = _read(path, faults)
    if text is None:
        return None
    loader = _Loader(text)
    try:
        _check_size(text)
        root = loader.get_single_node()
        node = _convert(root, path, loader, faults) if root is not None else None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = Mark(path, mark.line + 1, mark.column + 1) if mark else Mark(path)
        fault = e.problem or e.context
        if mark and _is_indented_by_tab(text, mark.line):
            fault = "a tab begins the line, and YAML is indented with spaces"
        faults.append(Fault(place, f"not valid YAML: {fault}"))
        return None
    except yaml.YAMLError as e:
        match = Reader.NON_PRINTABLE.search(text)
        if match is None:
            faults.append(Fault(Mark(path), f"not valid YAML: {e}"))
        else:
            place = _place(path, text[: match.start()])
            faults.append(Fault(place, f"not valid YAML: it holds the character {match[0]!r}"))
        return None
    finally:
        loader.dispose()
    if node is None or not isinstance(node.value, dict):
        place = node.mark if node else Mark(path)
        faults.append(Fault(place, f"{what} is a mapping of keys to values; this file holds none"))
        return None
    return node


def _read(path: Path, faults: list[Fault]) -> str | None:
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        faults.append(Fault(Mark(path), "there is no such file"))
        return None
    except OSError as e:
        faults.append(Fault(Mark(path), f"cannot be read: {e.strerror}"))
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        place = _place(path, data[: e.start].decode("utf-8"))
        faults.append(Fault(place, f"not UTF-8 text: {e.reason} {data[e.start]:#04x}"))
        return None


def _place(path: Path, before: str) -> Mark:
    """The place of what follows the text `before`."""
    return Mark(path, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _check_size(text: str) -> None:
    """Refuse, before any tree is built, what would take the machine's stack or memory.

    Raises:
        yaml.MarkedYAMLError: with the place where it goes too far.
    """
    total = 0
    sizes: dict[str | None, int] = {}
    begun: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = total - before
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in begun):
                raise _fault(f"the alias *{event.anchor} holds itself", event.start_mark)
            total += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(begun) > DEEPEST:
            raise _fault(f"nested more than {DEEPEST} levels deep", event.start_mark)
        if total > LARGEST:
            raise _fault(f"more than {LARGEST:,} values, aliases included", event.start_mark)


def _fault(message: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=mark)


def _convert(node: Any, path: Path, loader: Any, faults: list[Fault]) -> Node:
    mark = Mark(path, node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        result = Node(mark, {})
        for key_node, value_node in node.value:
            key_mark = Mark(path, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if key_node.tag == "tag:yaml.org,2002:merge":
                faults.append(Fault(key_mark, "'<<' is not used here: share settings with extends"))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                faults.append(Fault(key_mark, "a key must be a plain word"))
                continue
            key = str(key_node.value)
            if key in result.children:
                faults.append(Fault(key_mark, f"{key!r} is given twice in this mapping"))
            result.children[key] = _convert(value_node, path, loader, faults)
            result.key_marks[key] = key_mark
        return result
    if isinstance(node, yaml.SequenceNode):
        items = [_convert(n, path, loader, faults) for n in node.value]
        return Node(mark, [], dict(enumerate(items)))
    if node.tag.endswith(":int") and OLD_NUMBER.fullmatch(node.value):
        raise _fault(
            f"{node.value} would be read as an octal or base-60 number: write it otherwise, or in "
            "quotes for a text",
            node.start_mark,
        )
    try:
        return Node(mark, loader.construct_object(node))
    except (ValueError, LookupError, AttributeError, OverflowError) as e:
        message = f"{node.value[:60]!r} is not what its tag says: {e}"
        raise _fault(message, node.start_mark) from None


def load_tree(
    path: Path, faults: list[Fault], parents_read: dict[Path, Node], chain: tuple[Path, ...] = ()
) -> Node | None:
    """The spec at `path` merged over what it extends; None when it cannot be used itself.

    It is not `is_complete` where a file that it extends cannot be used. `parents_read` keeps the
    parents that were read, which many rows share.
    """
    node = parse(path, faults)
    if node is None:
        return None
    parents = node.children.pop(EXTENDS, None)
    node.key_marks.pop(EXTENDS, None)
    chain = (*chain, path.resolve())
    files: list[Path] = []
    merged: Node | None = None
    for name, mark in _parent_names(parents, faults):
        parent = path.parent / name
        tree = None
        if not _is_file(parent):
            faults.append(Fault(mark, f"extends {name!r}, but there is no file {parent}"))
        elif parent.resolve() in chain:
            circle = " -> ".join(p.name for p in (*chain, parent.resolve()))
            faults.append(Fault(mark, f"extends goes in a circle: {circle}"))
        else:
            tree = parents_read.get(parent) or load_tree(parent, faults, parents_read, chain)
        if tree is None:
            node.is_complete = False
            continue
        parents_read[parent] = tree
        merged = tree if merged is None else merge(merged, tree)
        files += tree.files
    result = node if merged is None else merge(merged, node)
    return replace(result, files=(*files, path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _parent_names(node: Node | None, faults: list[Fault]) -> Iterator[tuple[str, Mark]]:
    if node is None:
        return
    for item in node.children.values() if isinstance(node.value, list) else [node]:
        if isinstance(item.value, str):
            yield item.value, item.mark
        else:
            message = "extends takes a file name or a list of file names"
            faults.append(Fault(item.mark, message))


def _plain(node: Node, key: str) -> Any:
    return node.children[key].plain() if key in node.children else ...


def merge(below: Node, above: Node, at: tuple[Any, ...] = ()) -> Node:
    """Mappings are merged key by key, and `ADDED_TO` are added to; any other value of `above` (null
    too) replaces the one below, and so does a mapping that names another kind of thing, whose settings
    are other ones, or says where something comes from. `at`: the keys that led here."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)) or _is_place(at):
        return replace(above, replaced=below)
    if any(k in above.children and _plain(above, k) != _plain(below, k) for k in KINDS):
        return replace(above, replaced=below)
    marks = {**below.key_marks, **above.key_marks}
    result = Node(
        above.mark, {}, dict(below.children), marks, below.is_complete and above.is_complete
    )
    for key, child in above.children.items():
        if key in below.children and key in ADDED_TO:
            child = _added(below.children[key], child)
        elif key in below.children:
            child = merge(below.children[key], child, (*at, key))
        result.children[key] = child
    return result


def _is_place(at: tuple[Any, ...]) -> bool:
    """Whether the mapping there is a place, in `sources` or of a reported number: of two, the halves
    make none."""
    return (len(at) == 2 and at[0] == "sources") or (len(at) == 3 and at[::2] == PLACE_OF_A_NUMBER)


def _added(below: Node, above: Node) -> Node:
    """Both lists in one, the lower first; what both say, once."""
    if not (isinstance(below.value, list) and isinstance(above.value, list)):
        return above
    items = list(below.children.values())
    plain_items = [item.plain() for item in items]
    items += [item for item in above.children.values() if item.plain() not in plain_items]
    return Node(above.mark, [], dict(enumerate(items)))
