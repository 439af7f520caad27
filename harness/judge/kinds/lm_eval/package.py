"""lm-eval's own part: its task definitions with our data in the place of the hub's, and its scoring
of a model, in steps that are kept."""

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch

from harness.artefact.resume import whole_lines
from harness.common import env_variables
from harness.errors import HarnessError, InputError
from harness.judge.kinds.lm_eval.benchmarks import PREFIX
from harness.judge.kinds.lm_eval.data import Questions
from harness.judge.kinds.lm_eval.scores import (
    TOLERANCE,
    Sample,
    rescored,
    underflows,
)
from harness.judge.scores import mean_and_error
from harness.modeling.logits import last_logits

with env_variables.restored():  # lm-eval sets some of the hub's client's when it is imported
    import lm_eval.tasks
    from lm_eval.defaults import DEFAULT_OTHER_SEED as SHOTS_SEED
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "SHOTS_SEED", "Scorer", "data_sets", "evaluate_task", "load_tasks", "mmlu_subjects",
    "task_manager",
]  # fmt: skip

FOLDERS = ("arc", "hellaswag", "truthfulqa", "mmlu/default")
"""Of the package's task definitions: the whole index would take twenty seconds."""
BATCHES_AT_ONCE = 4
"""Questions between two records of what is done, in batches."""


def task_manager(folders: Sequence[Path]) -> TaskManager:
    """The package's, which then has nothing to say, of the task definitions in these folders alone."""
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=folders, include_defaults=False)


def _manager() -> TaskManager:
    root = Path(lm_eval.tasks.__file__).parent
    return task_manager([root / name for name in FOLDERS])


def mmlu_subjects() -> list[str]:
    """The subjects that lm-eval has tasks for."""
    tasks = _manager().all_subtasks
    return [name.removeprefix(PREFIX) for name in tasks if name.startswith(PREFIX)]


def load_tasks(questions: Iterable[Questions]) -> dict[str, Any]:
    """lm-eval's tasks by name, each as the package defines it but for where its data is from; the
    shots drawn with the seed that its command line has."""
    members = []
    for each in questions:
        splits = data_sets(each.unit, each.splits)
        member: dict[str, Any] = {
            "task": each.unit,
            "custom_dataset": lambda splits=splits, /, **_: splits,
            "num_fewshot": each.benchmark.shots,
        }
        if each.benchmark.shots_split is not None:
            member["fewshot_split"] = each.benchmark.shots_split
        members.append(member)
    tasks: dict[str, Any] = _manager().load([{"group": "given", "task": members}])["tasks"]
    for task in tasks.values():
        task.set_fewshot_seed(seed=SHOTS_SEED)
    return tasks


def data_sets(unit: str, splits: Mapping[str, list[Sample]]) -> dict[str, datasets.Dataset]:
    """The splits of a task as the package reads them.

    Raises InputError for records that are not of one kind."""
    made = {}
    for name, rows in splits.items():
        try:
            made[name] = datasets.Dataset.from_list(rows)
        except (ValueError, TypeError, OverflowError) as e:
            raise InputError(
                f"task {unit}: the records of the split {name} are not of one kind: {e}"
            ) from None
    return made


class Scorer(HFLM):  # type: ignore[misc]
    """lm-eval's model of transformers, which keeps what is done and says how far it is.

    Questions are scored the longest first, in steps of a few batches; the batches are the same
    whether or not a run was interrupted between two steps.
    """

    def __init__(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int
    ) -> None:
        # In half precision a sum of log-probabilities has two or three digits, and choices tie.
        super().__init__(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32"
        )
        self.kept: Path | None = None
        """Where a task's log-likelihoods are recorded as they are made."""
        self.on_done: Callable[[int], None] = lambda questions: None
        self.groups = 0
        """How many questions, told apart by their prompts, the last task's requests are of."""
        self._keep = 0
        self.cut: list[bool] = []
        """Of the last task's requests: whether the beginning of its prompt was cut off."""

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """requests: ((context, choice), context's tokens, choice's tokens) each."""
        assert self.kept is not None
        if requests and requests[0][0] is None:  # a window of a text that is scored whole
            self._keep = self.max_length + 1
            scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(
                requests, True, override_bs
            )
            return scores
        self.cut = [
            len(context_ids) + len(ids) > self.max_length + 1 for _, context_ids, ids in requests
        ]
        for (_, choice), _, ids in requests:
            if not 0 < len(ids) <= self.max_length:
                raise InputError(
                    f"task {self.kept.stem}: the choice {choice[:60]!r} has {len(ids)} tokens, and "
                    f"the model takes {self.max_length}"
                )
        kept = map(json.loads, whole_lines(self.kept))
        done: dict[int, tuple[float, bool]] = {number: (ll, greedy) for number, ll, greedy in kept}
        steps = _steps(requests, BATCHES_AT_ONCE * int(self.batch_size))
        self.groups = sum(map(len, steps))
        with self.kept.open("a", encoding="ascii") as file:
            for step in steps:
                numbers = [number for question in step for number in question]
                if not all(number in done for number in numbers):
                    self._keep = self._places([requests[n] for n in numbers])
                    results = super()._loglikelihood_tokens([requests[n] for n in numbers], True)
                    for number, (ll, greedy) in zip(numbers, results, strict=True):
                        _check_number(ll, self.kept.stem)
                        done[number] = (ll, greedy)
                        file.write(json.dumps([number, ll, greedy]) + "\n")
                    file.flush()
                self.on_done(len(step))
        return [done[number] for number in range(len(requests))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The package's, in its own order and batches; each batch is kept as it is made, since on a CPU
        one can take a minute."""
        assert self.kept is not None
        path = self.kept.with_name(f"{self.kept.stem}.texts.jsonl")
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        self.cut += [
            length + self._most_new(request.args[1]) > self.max_length
            for length, request in zip(lengths, requests, strict=True)
        ]
        done: dict[int, str] = dict(map(json.loads, whole_lines(path)))
        steps = _generation_steps(requests, lengths, int(self.batch_size))
        self.groups = len(requests)
        with path.open("a", encoding="ascii") as file:
            for step in steps:
                if not all(number in done for number in step):
                    texts = super().generate_until([requests[n] for n in step], True)
                    for number, text in zip(step, texts, strict=True):
                        done[number] = text
                        file.write(json.dumps([number, text]) + "\n")
                    file.flush()
                self.on_done(len(step))
        return [done[number] for number in range(len(requests))]

    def _most_new(self, arguments: dict[str, Any]) -> int:
        """Tokens of an answer at most.

        Raises InputError where the model has no room for as many."""
        most = int(normalize_gen_kwargs(arguments, self.max_gen_toks)["max_gen_toks"])
        if most >= self.max_length:
            raise InputError(
                f"an answer may have {most} tokens, and the model takes {self.max_length} with its "
                "prompt",
                "Lower the task's max_new_tokens, where the package leaves it open, or leave it out.",
            )
        return most

    def _places(self, requests: list[Any]) -> int:
        """How many places at a row's end are enough for the choices of all these requests."""
        ends: list[int] = [
            min(len(context_ids) + len(ids) - 1, self.max_length)
            for _, context_ids, ids in requests
        ]
        begins = [end - len(ids) for end, (_, _, ids) in zip(ends, requests, strict=True)]
        return max(ends) - min(begins)

    def _model_call(
        self, inps: torch.Tensor, attn_mask: None = None, labels: None = None
    ) -> torch.Tensor:
        """Of a row's logits only the last are scored; lm-eval counts them from the end."""
        with torch.no_grad():
            return last_logits(self.model, self._keep, input_ids=inps)


def _steps(requests: list[Any], questions: int) -> list[list[list[int]]]:
    """Numbers of requests by question, the longest questions first, so many `questions` a step."""
    numbered = itertools.groupby(range(len(requests)), key=lambda n: requests[n][0][0])
    groups = [list(numbers) for _, numbers in numbered]
    groups.sort(key=lambda g: -max(len(requests[n][1]) + len(requests[n][2]) for n in g))
    return [groups[at : at + questions] for at in range(0, len(groups), questions)]


def _generation_steps(requests: list[Any], lengths: list[int], size: int) -> list[list[int]]:
    """Numbers of requests, those of the same arguments together, the longest first."""
    by_arguments: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        by_arguments.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
    steps = []
    for numbers in by_arguments.values():
        numbers.sort(key=lambda n: (-lengths[n], requests[n].args[0]))
        steps += [numbers[at : at + size] for at in range(0, len(numbers), size)]
    return steps


def _check_number(ll: float, task: str) -> None:
    if not math.isfinite(ll):
        raise HarnessError(
            f"task {task}: the model gives a log-likelihood of {ll}",
            "Its weights or its arithmetic are broken; with bfloat16, try precision: float32.",
        )


def evaluate_task(lm: Any, name: str, task: Any, first: int | None) -> list[Sample]:
    """lm-eval's evaluation of one task, as samples (see harness.judge.kinds.lm_eval.scores).

    Raises:
        HarnessError: lm-eval's scores and ours differ.
    """
    # Where its formula underflows, lm-eval divides zeros.
    with np.errstate(invalid="ignore"):
        results = evaluate(lm, {"tasks": {name: task}}, limit=first, log_samples=True)
    assert results is not None
    cuts = iter(lm.cut)
    samples = []
    # Requests are in the order of the documents.
    for row in sorted(results["samples"][name], key=lambda r: r["doc_id"]):
        sample = _sample(row, task, sum(next(cuts) for _ in row["arguments"]))
        samples.append(sample)
        for metric in row["metrics"] if not underflows(sample) else ():
            _compare(name, f"question {row['doc_id']}", metric, row[metric], sample[metric])
    if not any(map(underflows, samples)):
        for metric in row["metrics"]:
            mean, error = mean_and_error([sample[metric] for sample in samples])
            for key, score in ((metric, mean), (f"{metric}_stderr", error)):
                their_score = results["results"][name][f"{key},none"]
                _compare(
                    name,
                    "all questions",
                    key,
                    None if their_score == "N/A" else their_score,
                    score,
                )
    return samples


def _sample(row: dict[str, Any], task: Any, cut: int) -> Sample:
    doc, target = row["doc"], row["target"]
    choices = task.doc_to_choice(doc)
    if "mc2_targets" in doc and "choices" in doc["mc2_targets"]:
        target = list(doc["mc2_targets"]["labels"])
    sample = {
        "doc_id": row["doc_id"],
        "doc_hash": row["doc_hash"],
        "prompt_hash": row["prompt_hash"],
        "target": target,
        "log_likelihoods": [float(ll) for ll, _ in row["filtered_resps"]],
        "characters": [len(choice) for choice in choices],
        "cut": cut,
        **dict.fromkeys(row["metrics"], 0.0),
    }
    return rescored(sample)


def _compare(
    name: str, what: str, metric: str, their_score: float | None, score: float | None
) -> None:
    same = their_score == score
    if their_score is not None and score is not None:
        same = abs(their_score - score) <= TOLERANCE
    if not same:
        raise HarnessError(
            f"task {name}, {what}: lm-eval's {metric} is {their_score} and ours {score}",
            "This is a fault of the harness, or of a version of lm-eval that it was not written for.",
        )
