"""Sources that a row inherits and whose value it replaces: they are of the former value."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.row.sources import Valued
from harness.spec.source import Node, load_tree


def stale_in(spec: Path, settings: Sequence[Valued]) -> dict[str, Path]:
    """`stale_sources` of a spec that has no fault."""
    tree = load_tree(spec, [], {})
    return stale_sources(tree, settings) if tree is not None else {}


def stale_sources(tree: Node, settings: Sequence[Valued]) -> dict[str, Path]:
    """Setting -> the file that its source stands in, where the setting's value replaces, in a file that
    comes later, another one that the source was written for. `tree`: of the whole spec.

    A value that was open before is none that is replaced: the source of `train` is of all its settings.
    """
    order = {path: number for number, path in enumerate(tree.files)}
    paths = {setting.path for setting in settings}
    stale: dict[str, Path] = {}
    for setting in settings:
        if setting.source is None:
            continue
        _, mark = tree.at(("sources", setting.key))
        source = order.get(mark.file, -1)
        if any(order.get(file, -1) > source for file in _replacing(tree, setting.path, paths)):
            stale[setting.path] = mark.file
    return stale


def _replacing(tree: Node, path: str, paths: Collection[str]) -> Iterator[Path]:
    """The files in which the setting at this path came to have another value than before. `paths`: of
    all settings."""
    nodes = [tree]
    formers: list[tuple[list[Node], Path]] = []
    for name in path.split("."):
        if not name.isdigit():
            nodes = _children(nodes, name)
            formers = [(_children(former, name), file) for former, file in formers]
        else:
            nodes = [n for node in nodes for n in _children([node], name)]
        formers += [([n.replaced], n.mark.file) for n in nodes if n.replaced is not None]
    values = [node.plain() for node in nodes] or [None]
    for former, file in formers:
        before = [value for node in former if (value := node.plain()) is not None]
        if before and not any(value in before for value in values):
            yield file
    for node in nodes:
        yield from _replaced_below(node, path, paths)


def _children(nodes: Sequence[Node], name: str) -> list[Node]:
    """Those of this name; of a list, a step's by its number, or those of each of its steps."""
    children: list[Node] = []
    for node in nodes:
        if isinstance(node.value, list):
            if name.isdigit():
                children += (
                    [node.children[int(name) - 1]] if int(name) <= len(node.children) else []
                )
            else:
                children += _children(list(node.children.values()), name)
        elif name in node.children:
            children.append(node.children[name])
    return children


def _replaced_below(node: Node, path: str, paths: Collection[str]) -> Iterator[Path]:
    """Of what is no setting of its own: an address, a digest."""
    for name, child in node.children.items():
        if f"{path}.{name}" in paths:
            continue
        if child.replaced is not None and child.replaced.plain() not in (None, child.plain()):
            yield child.mark.file
        yield from _replaced_below(child, f"{path}.{name}", paths)
