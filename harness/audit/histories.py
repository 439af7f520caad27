"""Which checkpoint made the outputs: configurations that name several, in use or commented out, and
folders of checkpoints of which nothing says which was used."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.audit.claims import readmes
from harness.audit.files import PASSED_BY, Given, Unreadable, read_text
from harness.audit.model import EXAMPLES, Result
from harness.audit.settings import CHECKPOINTS, DECODING, Settings, read_settings
from harness.audit.training_examples import LARGEST_CONFIG

LOOKS_FOR = "configurations that name the checkpoint beside results (configs.yaml, scripts)"
KIND = "configuration"
CONFIGS = (".yaml", ".yml", ".sh")
RESULTS = re.compile(
    r"^(?:model_outputs\.json|annotations\.json|leaderboard\.csv|results(?:_.*)?\.jsonl?)$",
    re.IGNORECASE,
)
MODEL_FILES = ("config.json", "adapter_config.json")
"""One of these beside checkpoints: the finished model was written there, and is what a path without
a number names."""
HEAD = 20_000
"""Characters of a result file in which the checkpoint's name is looked for."""
_CHECKPOINT = re.compile(r"^checkpoint-\d+$")
_PATH = re.compile(r"[/\\]|checkpoint|ckpt", re.IGNORECASE)


def find(given: Given) -> list[Result]:
    """A result for each configuration or folder that leaves the checkpoint open; no others."""
    everything = sorted({file for path in given.paths for file in _below(path)})
    results = [p for p in everything if RESULTS.match(p.name)]
    if not results:
        return []
    found = []
    configs = list(_configs(everything))
    for config in configs:
        result = _open_config(config, results, given.root)
        if result is not None:
            found.append(result)
    named = {str(v) for c in configs for name in CHECKPOINTS for v in c.values.get(name, ())}
    for folder, checkpoints in sorted(_folders(everything).items()):
        result = _open_folder(folder, checkpoints, named, results, given.root)
        if result is not None:
            found.append(result)
    return found


def _below(root: Path) -> Iterator[Path]:
    """What stands below the path, that other readers have claimed too; no links to folders."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in PASSED_BY]
        yield from (Path(folder, name) for name in names if Path(folder, name).is_file())


def _configs(files: Sequence[Path]) -> Iterator[Settings]:
    """Those of an evaluation: a training's say what it began with."""
    for path in files:
        try:
            if path.suffix.lower() not in CONFIGS or path.stat().st_size > LARGEST_CONFIG:
                continue
            settings = read_settings(path)
        except (Unreadable, OSError):
            continue
        if settings.values.keys() & {"batch", "accumulation", "epochs", "total_batch"}:
            continue
        if settings.values.keys() & {*DECODING, *CHECKPOINTS}:
            yield settings


def _open_config(config: Settings, results: Sequence[Path], root: Path) -> Result | None:
    folder = config.path.parent
    used, others = [], []
    for name in CHECKPOINTS:
        active = [str(v) for v in config.values.get(name, ())]
        commented = [v for v in config.commented.get(name, ()) if _PATH.search(v)]
        if commented or len(active) > 1:
            used += active
            others += commented
    named = list(dict.fromkeys([*used, *others]))
    concerned = [
        p for p in results if folder == root or folder in p.parents or folder.parent in p.parents
    ]
    if not others or len(named) < 2 or not concerned:
        return None
    if _settled(named, _texts(concerned, folder, root)):
        return None
    result = Result(str(config.path), KIND)
    result.metrics["checkpoints"] = len(named)
    in_use = f"{used[0]} is in use" if len(used) == 1 else f"{len(used)} are in use"
    result.add(
        "unknown_checkpoint",
        "warning",
        f"{config.path.name} names {len(named)} checkpoints ({in_use}, {len(others)} commented out), "
        "and nothing beside the results says which one made them",
        {
            "checkpoints": named,
            "in_use": used,
            "commented_out": others,
            "results": [str(p) for p in concerned[:EXAMPLES]],
        },
    )
    return result


def _open_folder(
    folder: Path, checkpoints: Sequence[str], named: set[str], results: Sequence[Path], root: Path
) -> Result | None:
    if len(checkpoints) < 2 or any((folder / name).is_file() for name in MODEL_FILES):
        return None
    # A training by itself makes checkpoints, and claims nothing of them.
    concerned = [p for p in results if folder.parent in p.parents or root == folder.parent]
    if not concerned or any(name in path for path in named for name in checkpoints):
        return None
    if _settled(checkpoints, _texts(concerned, folder, root)):
        return None
    result = Result(str(folder), KIND)
    result.metrics["checkpoints"] = len(checkpoints)
    result.add(
        "unknown_checkpoint",
        "warning",
        f"{folder.name} holds {len(checkpoints)} checkpoints and no finished model, and nothing beside "
        "the results says which one made them",
        {"checkpoints": list(checkpoints), "results": [str(p) for p in concerned[:EXAMPLES]]},
    )
    return result


def _folders(files: Sequence[Path]) -> dict[Path, list[str]]:
    found: dict[Path, set[str]] = {}
    for path in files:
        for place in path.parents:
            if _CHECKPOINT.match(place.name):
                found.setdefault(place.parent, set()).add(place.name)
    return {
        folder: sorted(names, key=lambda n: int(n.rpartition("-")[2]))
        for folder, names in found.items()
    }


def _texts(results: Sequence[Path], folder: Path, root: Path) -> list[str]:
    """Where a result would say what made it: the outputs' `generator`, a manifest, the READMEs."""
    texts = []
    beside = {p for r in results for p in r.parent.glob("*.json")}
    for path in sorted({*results, *beside, *readmes(folder, root)}):
        if path.suffix.lower() not in (".json", ".jsonl", ".csv", ".md"):
            continue
        try:
            texts.append(read_text(path)[:HEAD])
        except Unreadable:
            continue
    return texts


def _settled(named: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether the texts name one of the checkpoints, and one alone."""
    tails = {name: _tail(name, named) for name in named}
    found = {
        name
        for name, tail in tails.items()
        if any(re.search(rf"(?<![\w.-]){re.escape(tail)}(?![\w-])", text) for text in texts)
    }
    return len(found) == 1


def _tail(name: str, others: Sequence[str]) -> str:
    """As much of a path's end as tells it from the others."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    for count in range(1, len(parts) + 1):
        tail = "/".join(parts[-count:])
        if sum(o.replace("\\", "/").rstrip("/").endswith(tail) for o in others) == 1:
            return tail
    return name
