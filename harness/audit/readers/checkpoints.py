"""Which checkpoint made the outputs: configurations that name several, in use or commented out, and
folders of checkpoints of which nothing says which was used."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.audit.model import EXAMPLES, Reader, Result
from harness.audit.parse.files import PASSED_BY, AuditSource, Unreadable, read_text
from harness.audit.parse.readme import readmes
from harness.audit.parse.settings import (
    CHECKPOINTS,
    DECODING,
    OF_TRAINING,
    ConfigSettings,
    settings_in,
)

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


def find(source: AuditSource) -> list[Result]:
    """A result for each configuration or folder that leaves the checkpoint open; no others."""
    everything = sorted({file for path in source.paths for file in _below(path)})
    results = [p for p in everything if RESULTS.match(p.name)]
    if not results:
        return []
    configs = list(_configs(everything))
    of_configs = [_open_config(config, results, source.root) for config in configs]
    named_paths = {str(v) for c in configs for name in CHECKPOINTS for v in c.values.get(name, ())}
    of_folders = [
        _open_folder(folder, checkpoints, named_paths, results, source.root)
        for folder, checkpoints in sorted(_folders(everything).items())
    ]
    return [result for result in of_configs + of_folders if result is not None]


def _below(root: Path) -> Iterator[Path]:
    """What stands below the path, that other readers have claimed too; no links to folders."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in PASSED_BY]
        yield from (Path(folder, name) for name in names if Path(folder, name).is_file())


def _configs(files: Sequence[Path]) -> Iterator[ConfigSettings]:
    """Those of an evaluation: a training's say what it began with."""
    for settings in settings_in(path for path in files if path.suffix.lower() in CONFIGS):
        names = settings.values.keys()
        if not names & OF_TRAINING and names & {*DECODING, *CHECKPOINTS}:
            yield settings


def _open_config(config: ConfigSettings, results: Sequence[Path], root: Path) -> Result | None:
    folder = config.path.parent
    used, commented_out = [], []
    for name in CHECKPOINTS:
        active = [str(v) for v in config.values.get(name, ())]
        commented = [v for v in config.commented.get(name, ()) if _PATH.search(v)]
        if commented or len(active) > 1:
            used += active
            commented_out += commented
    checkpoints = list(dict.fromkeys([*used, *commented_out]))
    concerned = [
        p for p in results if folder == root or folder in p.parents or folder.parent in p.parents
    ]
    if not commented_out or len(checkpoints) < 2 or not concerned:
        return None
    if _settled(checkpoints, _texts(concerned, folder, root)):
        return None
    in_use = f"{used[0]} is in use" if len(used) == 1 else f"{len(used)} are in use"
    message = (
        f"{config.path.name} names {len(checkpoints)} checkpoints ({in_use}, {len(commented_out)} "
        "commented out)"
    )
    evidence = {"checkpoints": checkpoints, "in_use": used, "commented_out": commented_out}
    return _unknown(config.path, message, evidence, concerned)


def _unknown(
    path: Path, message: str, evidence: Mapping[str, Sequence[str]], results: Sequence[Path]
) -> Result:
    result = Result(str(path), KIND)
    result.metrics["checkpoints"] = len(evidence["checkpoints"])
    result.add(
        "unknown_checkpoint",
        "warning",
        f"{message}, and nothing beside the results says which one made them",
        {**evidence, "results": [str(p) for p in results[:EXAMPLES]]},
    )
    return result


def _open_folder(
    folder: Path,
    checkpoints: Sequence[str],
    named_paths: set[str],
    results: Sequence[Path],
    root: Path,
) -> Result | None:
    if len(checkpoints) < 2 or any((folder / name).is_file() for name in MODEL_FILES):
        return None
    # A training by itself makes checkpoints, and claims nothing of them.
    concerned = [p for p in results if folder.parent in p.parents or root == folder.parent]
    if not concerned or any(name in path for path in named_paths for name in checkpoints):
        return None
    if _settled(checkpoints, _texts(concerned, folder, root)):
        return None
    message = f"{folder.name} holds {len(checkpoints)} checkpoints and no finished model"
    return _unknown(folder, message, {"checkpoints": checkpoints}, concerned)


def _folders(files: Sequence[Path]) -> dict[Path, list[str]]:
    checkpoints: dict[Path, set[str]] = {}
    for path in files:
        for place in path.parents:
            if _CHECKPOINT.match(place.name):
                checkpoints.setdefault(place.parent, set()).add(place.name)
    return {
        folder: sorted(names, key=lambda n: int(n.rpartition("-")[2]))
        for folder, names in checkpoints.items()
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


def _settled(checkpoints: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether the texts name one of the checkpoints, and one alone."""
    tails = {name: _tail(name, checkpoints) for name in checkpoints}
    matches = {
        name
        for name, tail in tails.items()
        if any(re.search(rf"(?<![\w.-]){re.escape(tail)}(?![\w-])", text) for text in texts)
    }
    return len(matches) == 1


def _tail(name: str, checkpoints: Sequence[str]) -> str:
    """As much of a path's end as tells it from the others."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    for count in range(1, len(parts) + 1):
        tail = "/".join(parts[-count:])
        if sum(o.replace("\\", "/").rstrip("/").endswith(tail) for o in checkpoints) == 1:
            return tail
    return name


READER = Reader(
    "checkpoints",
    looks_for="configurations that name the checkpoint beside results (configs.yaml, scripts)",
    findings=frozenset({"unknown_checkpoint"}),
    find=find,
)
