"""How many variables say that something happened and not what it is; class names that two things bear.

python -m tests.names [FOLDER]      harness by default
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT / "harness"
VAGUE = {
    "found", "told", "said", "made", "asked", "given", "whole", "own", "one", "some", "there", "seen",
    "wanted", "known", "shown", "kept", "taken", "read", "named", "others", "apart", "both", "ours",
    "theirs",
}  # fmt: skip
"""As a whole name; `is_given` and `kept_share` say what they are."""


def names_bound(tree: ast.AST) -> Iterator[str]:
    """Every variable and argument that a module binds, once each time: targets of assignments, loops,
    comprehensions and `with`, arguments, exceptions, and what a pattern captures."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.arg():
                yield node.arg
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield name


def trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every module below a folder."""
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder), ast.parse(path.read_text(encoding="utf-8"))


def classes_named_twice(folder: Path) -> dict[str, list[str]]:
    """A class's name -> the places of its definitions, of names that have several."""
    places: dict[str, list[str]] = {}
    for path, tree in trees(folder):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    return {name: at for name, at in sorted(places.items()) if len(at) > 1}


def counts(folder: Path) -> dict[str, tuple[Counter[str], int]]:
    """A folder's own folder, or `.` -> its vague names, and how many names it binds at all."""
    vague: dict[str, Counter[str]] = {}
    bound: Counter[str] = Counter()
    for path, tree in trees(folder):
        room = path.parts[0] if len(path.parts) > 1 else "."
        names = list(names_bound(tree))
        vague.setdefault(room, Counter()).update(name for name in names if name in VAGUE)
        bound[room] += len(names)
    return {room: (vague[room], bound[room]) for room in sorted(vague)}


def report(folder: Path) -> Iterator[str]:
    """A line for each folder, for all together, and for each class name of several definitions."""
    rooms = counts(folder)
    total = sum((vague for vague, _ in rooms.values()), Counter[str]())
    rooms["together"] = (total, sum(bound for _, bound in rooms.values()))
    for room, (vague, bound) in rooms.items():
        most = ", ".join(f"{name} {count}" for name, count in vague.most_common(5))
        share = 100 * vague.total() / max(bound, 1)
        yield f"{room:<10} {vague.total():>5} of {bound:>6} names {share:5.1f} %  {most}"
    for name, at in classes_named_twice(folder).items():
        yield f"class {name}: {', '.join(at)}"


if __name__ == "__main__":
    print(*report(Path(sys.argv[1]) if sys.argv[1:] else HARNESS), sep="\n")
