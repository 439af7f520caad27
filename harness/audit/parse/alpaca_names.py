"""Whose judgements an alpaca_eval folder holds: the folder's own names, its rows', its outputs' and its
leaderboard line's held against each other."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.audit.model import Result, short
from harness.audit.parse.alpaca_rows import Annotations
from harness.judge.kinds.alpaca_eval.readings import READERS

ROWS, FOLDER = "the rows", "the folder"


@dataclass(frozen=True)
class AnnotationsFolder:
    """Where annotations lie. run: MODEL of MODEL/ANNOTATOR, else their own folder. judge: the name of
    ANNOTATOR's folder, "" where there is none."""

    run: Path
    judge: str = ""


@dataclass
class ModelNames:
    """What is named below one path, by `letters`. models: those of rows, outputs and leaderboards.
    boards: the lines of each leaderboard. runs: folders with judgements, by their own names."""

    models: set[str] = field(default_factory=set)
    boards: list[set[str]] = field(default_factory=list)
    runs: dict[str, set[Path]] = field(default_factory=dict)

    def are_two(self, first: str, second: str, run: Path) -> bool:
        """Whether two names are surely of two models: lines of one leaderboard, or another run's."""
        pair = {letters(first), letters(second)}
        other_runs = set().union(*(self.runs.get(name, set()) for name in pair)) - {run}
        return bool(other_runs) or any(pair <= board for board in self.boards)


def place_of(folder: Path, annotators: Collection[str]) -> AnnotationsFolder:
    """annotators: the judges that rows name, besides those that alpaca_eval has."""
    judges = {letters(base_name(name)) for name in [*annotators, *READERS]}
    is_judge = letters(folder.name) in judges
    return AnnotationsFolder(folder.parent, folder.name) if is_judge else AnnotationsFolder(folder)


def letters(name: str) -> str:
    """A name without case and marks."""
    return re.sub(r"[\W_]", "", name.lower())


def base_name(annotator: str) -> str:
    """An annotator may be named by the path of its configuration."""
    parts = [part for part in re.split(r"[/\\]", annotator) if part]
    if len(parts) > 1 and parts[-1].lower().endswith((".yaml", ".yml")):
        parts.pop()
    return parts[-1] if parts else ""


def check_judge(result: Result, annotations: Annotations, place: AnnotationsFolder) -> None:
    """count_mismatch: the rows are another judge's than the one that their folder is named for."""
    is_same = letters(base_name(annotations.annotator)) == letters(place.judge)
    if not annotations.annotator or not place.judge or is_same:
        return
    result.mismatch(
        f"the folder is named for the judge {place.judge}, and {len(annotations.rows)} rows in it are "
        f"of {short(annotations.annotator)}: the rows disagree with their folder",
        {"folder": place.judge, "annotator": annotations.annotator, "rows": len(annotations.rows)},
    )


def check_model(
    result: Result,
    annotations: Annotations,
    place: AnnotationsFolder,
    line: str,
    outputs: str,
    names: ModelNames,
) -> None:
    """count_mismatch: rows of one model under the name of another one, where both are known as models.
    A note where nothing says that the two names are two models.

    line: the name of the leaderboard's line, outputs: the generator of the judged outputs; "" for none.
    """
    if not annotations.model:
        return
    folder = place.run.name if letters(place.run.name) in names.models else ""
    names_by_source = {
        ROWS: annotations.model, "the outputs": outputs, "the leaderboard's line": line, FOLDER: folder,
    }  # fmt: skip
    model = letters(annotations.model)
    other_names = {name for name in (line, folder) if name and letters(name) != model}
    if not other_names:
        return
    if outputs and letters(outputs) == model:
        # The judged outputs lie in the folder: another name of it is no other model's.
        other_names -= {folder}
    if any(names.are_two(annotations.model, name, place.run) for name in other_names):
        result.mismatch(disagreement(names_by_source), {"names": names_by_source})
    else:
        result.notes.append(
            f"{disagreement(names_by_source)}; nothing here says that these are two models"
        )


def disagreement(names_by_source: Mapping[str, str]) -> str:
    """In words: which name each has, and which disagrees with the most, or else with the folder's."""
    groups: dict[str, list[str]] = {}
    for who, name in names_by_source.items():
        if name:
            groups.setdefault(letters(name), []).append(who)
    most = max(groups.values(), key=lambda group: (len(group), FOLDER in group))
    odd = [who for group in groups.values() if group is not most for who in group]
    details = "; ".join(
        f"{' and '.join(group)} {_verb(group)} of {short(names_by_source[group[0]], 80)}"
        for group in groups.values()
    )
    return f"{details}: {' and '.join(odd)} {'disagrees' if _verb(odd) == 'is' else 'disagree'}"


def _verb(group: list[str]) -> str:
    return "are" if len(group) > 1 or group == [ROWS] else "is"
