"""YAML files as trees in which every value knows where it was written, and `extends` between them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.spec.models import SourceText

EXTENDS = "extends"
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


def parse(path: Path, faults: list[Fault]) -> Node | None:
    """Read one YAML file; what is wrong with it is added to `faults`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        faults.append(Fault(Mark(path), "there is no such file"))
        return None
    except (OSError, UnicodeDecodeError) as e:
        faults.append(Fault(Mark(path), f"cannot be read as UTF-8 text: {e}"))
        return None
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        node = _convert(root, path, loader, faults) if root is not None else None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = Mark(path, mark.line + 1, mark.column + 1) if mark else Mark(path)
        faults.append(Fault(place, f"not valid YAML: {e.problem or e.context}"))
        return None
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        faults.append(Fault(Mark(path), f"not valid YAML: {e}"))
        return None
    finally:
        loader.dispose()
    if node is None or not isinstance(node.value, dict):
        place = node.mark if node else Mark(path)
        faults.append(Fault(place, "a spec is a mapping of keys to values; this file holds none"))
        return None
    return node


def _convert(node: Any, path: Path, loader: Any, faults: list[Fault], depth: int = 0) -> Node:
    mark = Mark(path, node.start_mark.line + 1, node.start_mark.column + 1)
    if depth > 50:
        raise ValueError("nested more than 50 levels deep")
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
            result.children[key] = _convert(value_node, path, loader, faults, depth + 1)
            result.key_marks[key] = key_mark
        return result
    if isinstance(node, yaml.SequenceNode):
        items = [_convert(n, path, loader, faults, depth + 1) for n in node.value]
        return Node(mark, [], dict(enumerate(items)))
    return Node(mark, loader.construct_object(node))


def load_tree(
    path: Path, faults: list[Fault], known: dict[Path, Node], chain: tuple[Path, ...] = ()
) -> Node | None:
    """The spec at `path` merged over what it extends; None when a file of it cannot be used.

    `known` keeps the parents that were read, which many rows share.
    """
    node = parse(path, faults)
    if node is None:
        return None
    parents = node.children.pop(EXTENDS, None)
    parents_mark = node.key_marks.pop(EXTENDS, node.mark)
    chain = (*chain, path.resolve())
    merged: Node | None = None
    for name, mark in _parent_names(parents, parents_mark, faults):
        parent = path.parent / name
        if parent.resolve() in chain:
            circle = " -> ".join(p.name for p in (*chain, parent.resolve()))
            faults.append(Fault(mark, f"extends goes in a circle: {circle}"))
            return None
        if not parent.is_file():
            faults.append(Fault(mark, f"extends {name!r}, but there is no file {parent}"))
            return None
        tree = known.get(parent) or load_tree(parent, faults, known, chain)
        if tree is None:
            return None
        known[parent] = tree
        merged = tree if merged is None else merge(merged, tree)
    return node if merged is None else merge(merged, node)


def _parent_names(node: Node | None, mark: Mark, faults: list[Fault]) -> Iterator[tuple[str, Mark]]:
    if node is None:
        return
    for item in node.children.values() if isinstance(node.value, list) else [node]:
        if isinstance(item.value, str):
            yield item.value, item.mark
        else:
            faults.append(Fault(mark, "extends takes a file name or a list of file names"))


def merge(below: Node, above: Node) -> Node:
    """Mappings are merged key by key; any other value of `above` (null too) replaces the one below."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    result = Node(above.mark, {}, dict(below.children), {**below.key_marks, **above.key_marks})
    for key, child in above.children.items():
        result.children[key] = merge(below.children[key], child) if key in below.children else child
    return result
