"""The questions of a task, from a folder that is laid out as the data set's repository on the hub.

A split's file is `SPLIT.parquet`, `.jsonl` or `.json`, or the shards `SPLIT-00000-of-00002.parquet`
and so on, or whatever stands in a folder `SPLIT`. It is looked for in the configuration's folder
(`ARC-Challenge`, `multiple_choice`), in `data`, and in the folder itself, in this order; a subject of
MMLU in the folder of its name alone (`anatomy`). The splits are

    arc_challenge     test, and train for the shots
    hellaswag         validation, and train
    mmlu              test, and dev, of each subject
    truthfulqa_mc2    validation

with the columns of allenai/ai2_arc, Rowan/hellaswag, cais/mmlu and truthfulqa/truthful_qa. Of any
other task they are those that the package's definition names, and its configuration is `dataset_name`
there; the tasks of a group may have a folder each, of their own names.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.common.commands import harness
from harness.data.tables import Every, TableRow, read_files
from harness.errors import InputError
from harness.judge.kinds.lm_eval import PackageTask, TaskData
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS, MMLU, PREFIX, Benchmark, benchmark_of
from harness.judge.kinds.lm_eval.catalogue import Entry, tasks_of

ENDINGS = "parquet|jsonl|json"
PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""IFEval's instructions that nltk's punkt_tab is needed for."""
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True)
class Questions:
    """One of lm-eval's tasks with its data: split's name -> its records."""

    unit: str
    splits: dict[str, list[dict[str, Any]]]

    @property
    def benchmark(self) -> Benchmark:
        """Of a task that is one of BENCHMARKS."""
        return BENCHMARKS[benchmark_of(self.unit)]

    def asked(self, first: int | None) -> int:
        """How many questions are put."""
        count = len(self.splits[self.benchmark.split])
        return count if first is None else min(first, count)


def read_package_task(
    entry: Entry, task: PackageTask, inputs: Mapping[str, str]
) -> list[Questions]:
    """The questions of one of the package's tasks, in every split that it names; of a group those of
    each of its tasks.

    Raises:
        InputError: a split is not there, lacks a column that the task's templates name, or has too few
            records for the shots.
    """
    units = tasks_of(entry)
    if not units:
        raise InputError(f"lm-eval's group {entry.name} has no tasks")
    place = None
    if task.files is None:
        data = task.place
        place = Path(data.path if data is not None else _snapshot(entry.name, task, inputs))
    if len({unit.config.get("dataset_path") for unit in units}) > 1 and task.hub is not None:
        raise InputError(
            f"the tasks of {entry.name} are of several data sets, and {task.hub.id} is one",
            f"Name each of them with its own: {', '.join(unit.name for unit in units[:5])} ...",
        )
    return [_package_questions(unit, task, place, len(units) > 1) for unit in units]


def _package_questions(
    unit: Entry, task: PackageTask, place: Path | None, several: bool
) -> Questions:
    shots, split = unit.shots(task.shots), unit.split
    if split is None:
        raise InputError(f"lm-eval's task {unit.name} names no split with questions")
    shots_split = unit.shots_split if shots else None
    splits = {}
    for name in filter(None, dict.fromkeys((split, shots_split))):
        files = _package_files(unit, task, place, name, several)
        rows = [row for file in files for row in read_files(file, Every(), "tasks").rows]
        splits[name] = _same_columns(rows)
        _check_columns(unit, files[0], splits[name])
        if name == split:
            _check_targets(unit, rows[: task.limit], splits[name])
            _check_punkt(unit.name, splits[name][: task.limit])
    if shots_split is not None and len(splits[shots_split]) < shots + (shots_split == split):
        raise InputError(
            f"task {unit.name}: the split {shots_split} has {len(splits[shots_split])} records, and "
            f"{shots} are shown before each question"
        )
    # The package reads every split that a task names, and uses no other.
    return Questions(unit.name, {n: splits.get(n, splits[split]) for n in unit.splits})


def _package_files(
    unit: Entry, task: PackageTask, place: Path | None, split: str, several: bool
) -> list[Path]:
    if task.files is not None:
        if split not in task.files:
            raise InputError(
                f"task {unit.name}: no file of the split {split!r} is given",
                f"Name it in tasks.NAME.data: {{{split}: FILE}}.",
            )
        return [Path(task.files[split].path)]
    assert place is not None
    if not place.exists():
        raise InputError(f"task {unit.name}: {place} is not there")
    if place.is_file():
        if several:
            raise InputError(
                f"task {unit.name}: {place} is one file, and a group or tag has several tasks",
                "Name a folder that holds a folder of each task's files, called as the task.",
            )
        if split != unit.split:
            raise InputError(
                f"task {unit.name}: {place} is one file, and the split {split!r} is needed too",
                f"Name a file for each: data: {{{unit.split}: FILE, {split}: FILE}}, or their folder.",
            )
        return [place]
    config = (task.hub.config if task.hub else None) or unit.config.get("dataset_name") or "default"
    places = [place / config, place / "data", place]
    places = [place / unit.name, *places[: 1 if several else None]]
    files = next(filter(None, (_files(p, split) for p in places)), [])
    if not files and split == "train":  # as the hub has it of a repository with one file
        files = [p for p in sorted(place.iterdir()) if p.suffix[1:] in ENDINGS.split("|")]
        files = files if len(files) == 1 else []
    if not files:
        raise _no_split(unit.name, split, place, places)
    _check_files(unit.name, split, files)
    return files


def _check_columns(unit: Entry, file: Path, rows: list[dict[str, Any]]) -> None:
    columns = rows[0] if rows else {}
    if lacking := sorted(unit.columns() - columns.keys()):
        raise InputError(
            f"task {unit.name}: {file} has no column {', '.join(lacking)}, which lm-eval's template "
            f"names; it has: {', '.join(columns) or 'no records'}",
            f"The data set that it was written for: {unit.config.get('dataset_path')}.",
        )


def _check_targets(unit: Entry, rows: list[TableRow], records: list[dict[str, Any]]) -> None:
    """Raises InputError for a record that the task's own functions cannot read, or of which its
    template can make no right answer."""
    from jinja2 import Environment, TemplateError

    if unit.config.get("process_docs"):
        return
    text = unit.config.get("doc_to_target")
    readers: dict[str, Callable[[dict[str, Any]], Any]] = {}
    for part in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if (function := unit.function_of(part)) is not None:
            readers[f"it cannot be read by lm-eval's {unit.config[part]}"] = function
    if isinstance(text, str) and "{{" in text:
        # A filter that only the package has is left to it.
        with contextlib.suppress(TemplateError):
            render = Environment().from_string(text).render
            readers[f"no right answer can be read by lm-eval's {text}"] = render
    for row, record in zip(rows, records, strict=False):
        for message, read in readers.items():
            try:
                read(record)
            except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as e:
                kind = "" if isinstance(e, TemplateError) else f"{type(e).__name__}: "
                raise InputError(
                    f"task {unit.name}: {row.place}: {message}: {kind}{e}",
                    "Mend the record, or leave it out.",
                ) from None


def _check_punkt(name: str, records: list[dict[str, Any]]) -> None:
    """Raises InputError where IFEval's instructions need what nltk has not here."""
    if not any(PUNKT.intersection(r.get("instruction_id_list") or ()) for r in records):
        return
    import nltk  # type: ignore[import-untyped]

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise InputError(
            f"task {name}: some questions need nltk's data punkt_tab, which is not here",
            "Once, with a network: python -m nltk.downloader punkt_tab (NLTK_DATA names its folder).",
        ) from None


def read_task(
    name: str, data: TaskData, inputs: Mapping[str, str], subjects: Iterable[str]
) -> list[Questions]:
    """The questions of a task; of MMLU one entry for each of the `subjects` that is there.

    inputs: the call's; `task-NAME` is the snapshot of a data set from the hub.

    Raises:
        InputError: a split is not there, has too few records for the shots, or a record is not
            what the task needs.
    """
    folder = Path(data.folder.path if data.folder is not None else _snapshot(name, data, inputs))
    if not folder.is_dir():
        raise InputError(
            f"task {name}: {folder} is no folder",
            f"Name the folder that holds the data set's files in tasks.{name}.folder.",
        )
    config = data.hub.config if data.hub is not None else None
    if name != MMLU:
        places = [folder / (config or BENCHMARKS[name].config), folder / "data", folder]
        return [_questions(name, folder, places)]
    names = sorted(subjects)
    present = [s for s in names if (folder / s).is_dir() and config in (None, s)]
    if not present:
        raise InputError(
            f"task {name}: {folder} holds no folder of {config or 'any of the subjects'}",
            f"MMLU's data has a folder for each subject: {', '.join(names[:3])} and so on.",
        )
    return [_questions(PREFIX + s, folder, [folder / s]) for s in present]


def _snapshot(name: str, data: TaskData | PackageTask, inputs: Mapping[str, str]) -> str:
    assert data.hub is not None
    if f"task-{name}" not in inputs:
        raise InputError(
            f"task {name}: the call has no folder of the data set {data.hub.id} "
            f"(inputs.task-{name})",
            f"Download it: {harness('fetch', 'SPEC')}",
        )
    return inputs[f"task-{name}"]


def _questions(unit: str, folder: Path, places: list[Path]) -> Questions:
    benchmark = BENCHMARKS[benchmark_of(unit)]
    place = next((p for p in places if _files(p, benchmark.split)), places[0])
    splits = {}
    for split in filter(None, (benchmark.split, benchmark.shots_split)):
        files = _files(place, split)
        if not files:
            raise _no_split(unit, split, folder, places)
        _check_files(unit, split, files)
        rows = [row for file in files for row in read_files(file, Every(), "tasks").rows]
        for row in rows:
            try:
                CHECKS[benchmark_of(unit)](row.fields)
            except ValueError as e:
                raise InputError(f"task {unit}: {row.place}: {e}") from None
        splits[split] = _same_columns(rows)
    if benchmark.shots_split is not None and len(splits[benchmark.shots_split]) < benchmark.shots:
        raise InputError(
            f"task {unit}: the split {benchmark.shots_split} in {place} has "
            f"{len(splits[benchmark.shots_split])} records, and {benchmark.shots} are shown before "
            "each question"
        )
    return Questions(unit, splits)


def _same_columns(rows: list[TableRow]) -> list[dict[str, Any]]:
    """The records, each with every column that one has."""
    columns = dict.fromkeys(name for row in rows for name in row.fields)
    return [{name: row.fields.get(name) for name in columns} for row in rows]


def _files(place: Path, split: str) -> list[Path]:
    file_name = re.compile(rf"{re.escape(split)}(-\d{{5}}-of-\d{{5}})?\.({ENDINGS})")
    if not place.is_dir():
        return []
    files = [p for p in place.iterdir() if p.is_file() and file_name.fullmatch(p.name)]
    inside = place / split
    if not files and inside.is_dir():
        files = [p for p in inside.iterdir() if p.suffix[1:] in ENDINGS.split("|")]
    return sorted(files)


def _check_files(unit: str, split: str, files: list[Path]) -> None:
    """All shards of one set, or one file."""
    shards = [SHARD.search(file.stem) for file in files]
    if len(files) > 1 and not all(shards) and files[0].parent.name != split:
        raise InputError(
            f"task {unit}: the split {split} is there several times: "
            f"{', '.join(file.name for file in files)} in {files[0].parent}",
            "Leave one of them.",
        )
    totals = {int(shard[2]) for shard in shards if shard}
    if totals and totals != {len(files)}:
        raise InputError(
            f"task {unit}: of the split {split} {len(files)} of {max(totals)} files are in "
            f"{files[0].parent}"
        )


def _no_split(unit: str, split: str, folder: Path, places: list[Path]) -> InputError:
    looked = [p.relative_to(folder).as_posix() for p in places]
    present = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return InputError(
        f"task {unit}: no split {split!r} in {folder}",
        f"Looked for {split}.jsonl, {split}.json, {split}.parquet and "
        f"{split}-00000-of-00001.parquet in {', '.join(looked)} (.: the folder itself). "
        f"It holds: {', '.join(present[:8]) or 'nothing'}{' and more' if len(present) > 8 else ''}.",
    )


def _text(fields: Mapping[str, Any], name: str) -> None:
    if not isinstance(fields.get(name), str):
        raise ValueError(_wrong(fields, name, "a text"))


def _list(fields: Mapping[str, Any], name: str, kind: type, where: str = "") -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(x, kind) for x in value):
        what = "a list of texts" if kind is str else "a list of numbers"
        raise ValueError(_wrong(fields, name, what, where))
    return value


def _object(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(_wrong(fields, name, "an object"))
    return value


def _wrong(fields: Mapping[str, Any], name: str, what: str, where: str = "") -> str:
    if name in fields:
        return f"`{where}{name}` must be {what}, not {str(fields[name])[:60]!r}"
    return f"no `{where}{name}` ({what}); the columns here are: {', '.join(fields) or 'none'}"


def _check_arc(fields: Mapping[str, Any]) -> None:
    _text(fields, "question")
    choices = _object(fields, "choices")
    texts = _list(choices, "text", str, "choices.")
    labels = _list(choices, "label", str, "choices.")
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} choices with {len(labels)} labels")
    if fields.get("answerKey") not in labels:
        key = str(fields.get("answerKey"))[:60]
        raise ValueError(f"`answerKey` is {key!r}; the choices are {', '.join(labels)}")


def _check_hellaswag(fields: Mapping[str, Any]) -> None:
    for name in ("activity_label", "ctx_a", "ctx_b"):
        _text(fields, name)
    endings = _list(fields, "endings", str)
    label = str(fields.get("label"))
    if not label.isascii() or not label.isdigit() or int(label) >= len(endings):
        raise ValueError(
            f"`label` is {label[:60]!r}; a number from 0 to {len(endings) - 1} is wanted"
        )


def _check_mmlu(fields: Mapping[str, Any]) -> None:
    _text(fields, "question")
    if len(_list(fields, "choices", str)) != 4:
        raise ValueError("`choices` must be four texts")
    answer = fields.get("answer")
    if not isinstance(answer, int) or not 0 <= answer < 4:
        raise ValueError(f"`answer` is {str(answer)[:60]!r}; a number from 0 to 3 is wanted")


def _check_truthfulqa(fields: Mapping[str, Any]) -> None:
    _text(fields, "question")
    targets = _object(fields, "mc2_targets")
    choices = _list(targets, "choices", str, "mc2_targets.")
    labels = _list(targets, "labels", int, "mc2_targets.")
    if len(choices) != len(labels) or 1 not in labels or not {0, 1} >= set(labels):
        raise ValueError(
            f"`mc2_targets.labels` must say 1 (true) or 0 of each of the {len(choices)} choices, and "
            f"1 of one at least; it is {str(labels)[:60]}"
        )


CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "arc_challenge": _check_arc,
    "hellaswag": _check_hellaswag,
    MMLU: _check_mmlu,
    "truthfulqa_mc2": _check_truthfulqa,
}
