"""Any task or group of the package, by its own `evaluate`: prompts, filters and scores are its.

Of each question the document, as the task made it, and the model's responses are kept
(responses_TASK.jsonl); a replay has `evaluate` score those again, without data or model.
"""

import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jinja2 import TemplateError

from harness.artefact.metrics import metric_of
from harness.common import env_variables
from harness.errors import HarnessError, InputError
from harness.judge.kinds.lm_eval import PackageTask, catalogue
from harness.judge.kinds.lm_eval.data import Questions
from harness.judge.kinds.lm_eval.package import data_sets, task_manager
from harness.judge.kinds.lm_eval.scores import over_all

with env_variables.restored():  # lm-eval sets some of the hub's client's when it is imported
    from lm_eval.api.model import LM
    from lm_eval.defaults import DEFAULT_OTHER_SEED as OTHER_SEED
    from lm_eval.defaults import DEFAULT_RANDOM_SEED as RANDOM_SEED
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks._factory import TaskFactory
    from lm_eval.utils import handle_non_serializable

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What a task may call the most tokens of an answer."""
KEPT_SPLIT = "kept"
FAULTS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    SyntaxError,
    TemplateError,
)
"""What a task's functions and templates raise on data that they were not written for."""

Loaded = dict[str, Any]
"""The package's tasks and groups, as its manager loads them."""
Row = dict[str, Any]
"""Of a responses file: doc_id, doc, prompt_hash, responses of each request, scores by metric."""


def load(entry: catalogue.Entry, task: PackageTask, questions: Sequence[Questions]) -> Loaded:
    """The tasks with their data in place, ready for `evaluate`, each document tried.

    Raises:
        InputError: the data are not what a task needs.
    """
    loaded = _load(entry, {each.unit: each.splits for each in questions}, {})
    for name, made in loaded["tasks"].items():
        if task.shots is not None:
            made.set_config(key="num_fewshot", value=task.shots)
        elif made.get_config("num_fewshot") is None:
            made.set_config(key="num_fewshot", value=0)
        made.set_fewshot_seed(seed=OTHER_SEED)
        arguments = made.get_config("generation_kwargs")
        defined = _config_of(entry, name).get("generation_kwargs") or {}
        if arguments is not None and task.max_new_tokens and not any(n in defined for n in LIMITS):
            made.set_config("generation_kwargs", {"max_gen_toks": task.max_new_tokens}, update=True)
        _try_documents(name, made, task.limit)
    return loaded


def evaluated(lm: LM, loaded: Loaded, limit: int | None, chat: bool = False) -> dict[str, Any]:
    """As the package's `simple_evaluate` does it, with its seeds."""
    random.seed(RANDOM_SEED)
    np.random.seed(OTHER_SEED)
    torch.manual_seed(OTHER_SEED)
    with np.errstate(invalid="ignore"), contextlib.redirect_stdout(sys.stderr):
        results = evaluate(
            lm,
            loaded,
            limit=limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=True,
            log_samples=True,
        )
    assert results is not None
    return dict(results)


def rows_of(samples: Iterable[Mapping[str, Any]]) -> list[Row]:
    """`samples`: a task's, as `evaluate` logs them, one for each document and filter."""
    rows: dict[int, Row] = {}
    for sample in samples:
        row = rows.setdefault(
            sample["doc_id"],
            {
                "doc_id": sample["doc_id"],
                "doc": sample["doc"],
                "prompt_hash": sample["prompt_hash"],
                "responses": sample["resps"],
                "scores": {},
            },
        )
        for metric in sample["metrics"]:
            row["scores"][catalogue.metric_name(metric, sample["filter"])] = sample[metric]
    return [rows[number] for number in sorted(rows)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    lines = (json.dumps(row, default=handle_non_serializable) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="ascii")


def replayed(
    entry: catalogue.Entry, recorded: Mapping[str, list[Row]]
) -> tuple[dict[str, Any], dict[str, list[Row]]]:
    """The results of recorded responses, and the rows with their scores made anew."""
    data = {unit: {KEPT_SPLIT: [row["doc"] for row in rows]} for unit, rows in recorded.items()}
    alone = {
        "test_split": KEPT_SPLIT,
        **dict.fromkeys(("training_split", "validation_split", "fewshot_split", "fewshot_config")),
        "process_docs": None,
        "num_fewshot": 0,
    }
    loaded = _load(entry, data, alone)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=OTHER_SEED)
    results = evaluated(_Player(recorded), loaded, None)
    rows = {unit: rows_of(samples) for unit, samples in results["samples"].items()}
    for unit, of_unit in rows.items():
        for row, before in zip(of_unit, recorded[unit], strict=True):
            row["prompt_hash"] = before["prompt_hash"]
    return results, rows


def metrics_of(
    name: str, entry: catalogue.Entry, only: str | None, results: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """`TASK/METRIC` -> what the package says of it, shares of one in percent; and notes on what is left
    out. `results`: those of `evaluate`."""
    units = [name]
    if not entry.is_task and not entry.metrics():
        units = [task.name for task in catalogue.tasks_of(entry)]
    metrics, notes = {}, []
    for unit in units:
        of_unit = results["results"][unit]
        for key, value in of_unit.items():
            metric, comma, of_filter = key.partition(",")
            chosen = catalogue.metric_name(metric, of_filter)
            if (
                not comma
                or metric.endswith("_stderr")
                or (only and not f"{chosen}/".startswith(f"{only}/"))
            ):
                continue
            full_name = f"{unit}/{chosen}"
            error = of_unit.get(f"{metric}_stderr,{of_filter}")
            try:
                metrics[full_name] = _metric(full_name, value, error, of_unit["sample_len"])
            except ValueError as e:
                notes.append(f"{full_name} is left out: {e}")
    return metrics, notes


def _metric(name: str, value: Any, error: Any, questions: int) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"lm-eval gives no number for it: {str(value)[:60]}")
    scale = 1
    if metric_of(name).is_percentage:
        if not 0 <= value <= 1:
            raise ValueError(f"lm-eval gives {value}, which is no share of one")
        scale = 100
    value = float(scale * value)
    is_number = isinstance(error, int | float | np.number)
    return over_all(value, float(scale * error) if is_number else None, questions)


class _Player(LM):  # type: ignore[misc]
    """Gives the recorded responses."""

    def __init__(self, recorded: Mapping[str, list[Row]]) -> None:
        super().__init__()
        self.responses = {
            (unit, row["doc_id"], number): responses
            for unit, rows in recorded.items()
            for row in rows
            for number, responses in enumerate(row["responses"])
        }

    def _play(self, requests: Sequence[Any]) -> Iterator[Any]:
        times: Counter[tuple[str, int, int]] = Counter()
        for request in requests:
            place = request.task_name, request.doc_id, request.idx
            yield self.responses[place][times[place]]
            times[place] += 1

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        return [(ll, greedy) for ll, greedy in self._play(requests)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        return list(self._play(requests))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return list(self._play(requests))


def _load(
    entry: catalogue.Entry,
    data: Mapping[str, dict[str, list[dict[str, Any]]]],
    changes: dict[str, Any],
) -> Loaded:
    units = catalogue.tasks_of(entry)
    by_file = {str(unit.path): unit.name for unit in units}

    def custom_dataset(config_source: str = "", **_: Any) -> dict[str, datasets.Dataset]:
        unit = by_file[config_source]
        return data_sets(unit, data[unit])

    root = catalogue.package_folder()
    assert root is not None
    paths = [each.path for each in [entry, *units] if each.path is not None]
    folders = sorted({root / path.relative_to(root).parts[0] for path in paths})
    manager = task_manager(folders)
    own = {"custom_dataset": custom_dataset, **changes}
    with _faults_of(entry.name):
        # A group that load() itself is given with changes hands its members their own list too.
        built = TaskFactory().build(
            manager.task_index[entry.name], overrides=own, registry=manager.task_index
        )
        return dict(manager.load(built if isinstance(built, list) else [built]))


@contextlib.contextmanager
def _faults_of(name: str, where: str = "") -> Iterator[None]:
    try:
        yield
    except HarnessError:
        raise
    except FAULTS as e:
        raise InputError(
            f"task {name}: lm-eval's definition cannot read the data{where}: {type(e).__name__}: {e}",
            "The columns must be those of the data set that the task was written for.",
        ) from None


def _config_of(entry: catalogue.Entry, unit: str) -> dict[str, Any]:
    return next((t.config for t in catalogue.tasks_of(entry) if t.name == unit), {})


def _try_documents(name: str, task: Any, limit: int | None) -> None:
    for number, doc in task.doc_iterator(limit=limit):
        with _faults_of(name, f", question {number + 1}"):
            task.doc_to_text(doc)
            task.doc_to_target(doc)
            if task.config.doc_to_choice is not None:
                task.doc_to_choice(doc)
