"""Spec -> stage calls with keys, and for each: run, reuse or stale, and why."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness import environment
from harness.errors import HarnessError
from harness.keys import KEY_FORMAT, Files, differences, digest_of, iter_data, key_view
from harness.spec.load import LoadedRow
from harness.spec.models import (
    AlpacaEvalJudge,
    Endpoint,
    PreferenceJudge,
    PromptSet,
    Row,
    _Data,
)
from harness.store import Artefact, Store

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English, for estimates only."""
TOKENS_PER_TASK = 60
"""A task of Self-Instruct's kind in a teacher's reply, for estimates only."""
TOKENS_PER_VERDICT = 10


@dataclass(frozen=True)
class Estimate:
    """Expected calls to a teacher or judge and their tokens; rough, and said to be so."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class StagePlan:
    """One stage of one replicate of a row."""

    owner: Row
    """The row it was planned for; other rows may share the artefact."""
    spec: Path
    stage: str
    label: str
    """Which replicate: `train seed 2, judging 1`; empty where there is one only."""
    params: dict[str, Any]
    """Name -> spec model (or plain value); see harness.call.StageCall."""
    inputs: "dict[str, StagePlan]"
    document: dict[str, Any]
    """Everything that decides the artefact's content; `key` is its sha256."""
    key: str
    status: str = "run"
    """`reuse`, `run`, or `stale`: it was there, and what decides its content has changed."""
    reasons: list[str] = field(default_factory=list)
    estimate: Estimate = Estimate()
    artefact: Artefact | None = None

    @property
    def row(self) -> str:
        return self.owner.row

    @property
    def memory_name(self) -> str:
        """Where the row remembers this stage's last key, apart for each kind of environment."""
        kind = environment.kind_of(self.document["environment"])
        return f"{kind}: {self.stage}" + (f" ({self.label})" if self.label else "")

    @property
    def endpoint(self) -> Endpoint | None:
        """The teacher or judge that this stage calls."""
        for value in self.params.values():
            for name in ("teacher", "judge"):
                found = getattr(value, name, None)
                if isinstance(found, Endpoint):
                    return found
        return None

    def data(self) -> Iterator[_Data]:
        """Every given file or folder that the stage reads."""
        return iter_data(self.params)


@dataclass
class RowPlan:
    row: Row
    spec: Path
    stages: list[StagePlan]
    """In the order in which they must run."""

    def final(self) -> list[StagePlan]:
        """The judge stage of each replicate; empty for a row without one."""
        return [s for s in self.stages if s.stage == "judge"]


class Planner:
    """Plans rows against one volume, for one executor."""

    def __init__(self, store: Store, files: Files, executor: str) -> None:
        self.store = store
        self.files = files
        self.executor = executor

    def plan(self, loaded: LoadedRow) -> RowPlan:
        """Every stage of a row, with its key and what is to be done.

        Raises:
            InputError: given data is absent or not what the spec pins.
            Damaged: an artefact on the volume is not what its manifest says.
        """
        row = loaded.row
        stages: list[StagePlan] = []

        def add(
            stage: str, params: dict[str, Any], inputs: dict[str, StagePlan], label: str
        ) -> StagePlan:
            planned = self._stage(loaded, stage, params, inputs, label)
            stages.append(planned)
            return planned

        gen = add("gen", {"gen": row.gen}, {}, "") if row.gen else None
        replicates = row.replicates
        train_seeds: Sequence[int | None] = replicates.train_seeds or [None]
        sampling_seeds: Sequence[int | None] = replicates.sampling_seeds or [None]
        for train_seed in train_seeds:
            model = None
            label = f"train seed {train_seed}" if train_seed is not None else ""
            if row.train:
                train = _with(row.train, "seed", train_seed)
                params = {"train": train, "model": row.model, "template": row.template}
                params["data"] = None if gen else row.data
                model = add("train", params, {"data": gen} if gen else {}, label)
            if not row.eval:
                continue
            template = row.eval.answer.template or row.template
            answer = row.eval.answer.model_copy(update={"template": template})
            for seed in sampling_seeds:
                decoding = _with(answer.decoding, "seed", seed)
                seeded = answer.model_copy(update={"decoding": decoding})
                named = _join(label, f"sampling seed {seed}" if seed is not None else "")
                outputs = add(
                    "answer",
                    {"answer": seeded, "model": row.model},
                    {"model": model} if model else {},
                    named,
                )
                for replicate in range(replicates.judge if row.eval.judge else 0):
                    add(
                        "judge",
                        {
                            "judge": row.eval.judge,
                            "prompts": answer.prompts,
                            "replicate": replicate,
                        },
                        {"outputs": outputs},
                        _join(named, f"judging {replicate + 1}" if replicates.judge > 1 else ""),
                    )
        return RowPlan(row, loaded.path, stages)

    def _stage(
        self,
        loaded: LoadedRow,
        stage: str,
        params: dict[str, Any],
        inputs: dict[str, StagePlan],
        label: str,
    ) -> StagePlan:
        document = {
            "format": KEY_FORMAT,
            "stage": stage,
            "code_version": environment.CODE_VERSIONS[stage],
            "params": key_view(params, self.files),
            "inputs": {name: plan.key for name, plan in inputs.items()},
            "environment": environment.environment_of(stage, self.executor),
        }
        planned = StagePlan(
            loaded.row, loaded.path, stage, label, params, inputs, document, digest_of(document)
        )
        planned.artefact = self.store.find(stage, planned.key)
        if planned.artefact is not None:
            planned.status = "reuse"
        else:
            self._say_why(planned)
            planned.estimate = estimate(planned, self.files)
        return planned

    def _say_why(self, planned: StagePlan) -> None:
        if self.store.work_folder(planned.stage, planned.key).is_dir():
            planned.reasons = ["an interrupted run is there and goes on"]
            return
        last = self.store.remembered(planned.row).get(planned.memory_name)
        if last is None or last == planned.key:
            planned.reasons = ["not made yet" if last is None else "its artefact is gone"]
            return
        planned.status = "stale"
        try:
            old = self.store.find(planned.stage, last)
        except HarnessError:
            old = None
        planned.reasons = (
            differences(old.manifest["document"], planned.document)
            if old
            else ["its last artefact is gone, so what changed is not known"]
        )


def _with(model: Any, name: str, value: Any) -> Any:
    return model if value is None else model.model_copy(update={name: value})


def _join(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def dump(value: Any, place: Callable[[_Data], str]) -> Any:
    """A spec model as a stage receives it; `place` says where the stage finds a given file."""
    if isinstance(value, _Data):
        return {"path": place(value), "sha256": value.sha256}
    if isinstance(value, BaseModel):
        return {name: dump(getattr(value, name), place) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: dump(item, place) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item, place) for item in value]
    return value


def estimate(planned: StagePlan, files: Files) -> Estimate:
    """Calls and tokens that a stage will need, from its parameters and its prompts' lengths."""
    if planned.stage == "gen":
        gen = planned.params["gen"]
        calls = -(-gen.examples // gen.tasks_per_reply)
        shown = len(gen.prompt.text) // CHARACTERS_PER_TOKEN + gen.shown * TOKENS_PER_TASK
        per_reply = gen.tasks_per_reply * TOKENS_PER_TASK
        most = gen.sampling.max_tokens or per_reply
        return Estimate(calls, calls * shown, calls * min(per_reply, most))
    if planned.stage == "judge":
        judge: PreferenceJudge | AlpacaEvalJudge = planned.params["judge"]
        prompts: PromptSet = planned.params["prompts"]
        lengths = _text_lengths(files.locate(prompts.file))[: prompts.first]
        baseline = _text_lengths(files.locate(judge.reference))[: prompts.first]
        fixed = len(judge.prompt.text) if isinstance(judge, PreferenceJudge) else 1200
        characters = fixed * len(lengths) + 2 * sum(baseline)
        calls = len(lengths)
        return Estimate(calls, characters // CHARACTERS_PER_TOKEN, calls * TOKENS_PER_VERDICT)
    return Estimate()


def _text_lengths(path: Path) -> list[int]:
    stat = path.stat()
    return _lengths_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _lengths_of(path: Path, changed: int, size: int) -> list[int]:
    """Characters of each record; an empty list for a file that a stage will refuse."""
    try:
        text = path.read_text(encoding="utf-8")
        records = (
            json.loads(text)
            if text.lstrip()[:1] == "["
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
        return [sum(len(str(v)) for v in record.values()) for record in records]
    except (OSError, ValueError, AttributeError):
        return []


def unique(plans: Sequence[RowPlan]) -> list[StagePlan]:
    """Every stage once, in an order in which inputs come before what needs them."""
    seen: dict[tuple[str, str], StagePlan] = {}
    for stage in itertools.chain.from_iterable(p.stages for p in plans):
        seen.setdefault((stage.stage, stage.key), stage)
    return list(seen.values())
