"""How long stages will take, and what they will ask of a teacher or judge, as the same work took before
on this volume."""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from typing import Any

from harness.artefact import environment
from harness.artefact.keys import flatten
from harness.artefact.manifest import Manifest
from harness.artefact.store import Store
from harness.llm.estimate import Estimate, prompt_lengths
from harness.run.plan import StagePlan, prompts_of

ANY = {"seed", "replicate"}
"""Parameters that change what a stage makes, and not how long it takes."""
SAMPLE = "prompts.sample"
"""The parameter whose size calls and tokens are proportional to, where there is one."""
PARTS = ("calls", "prompt_tokens", "completion_tokens")


class Foretold:
    """What the manifests on one volume, as they are at the first question, say of time and calls."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def seconds(self, stage: StagePlan) -> float | None:
        """As long as the same stage took with other seeds; else as the row's last one with other
        settings; None: nothing alike has run."""
        alike = self._manifests.get(_work(stage.document))
        if alike is None:
            last = self.store.remembered(stage.row).get(stage.memory_name)
            alike = self._manifests.get((stage.stage, last), [])
        seconds = [m.cost["wall_seconds"] for m in alike if "wall_seconds" in m.cost]
        return statistics.median(seconds) if seconds else None

    def calls(self, stage: StagePlan, expected: Estimate) -> Estimate:
        """`expected` with the mean calls and tokens that the same input took before: the same answers,
        else those of other seeds, or of as many other prompts. Where it never was the input, no less
        than the row's stages with the same settings took, else other rows'."""
        exact, same, *others = _names(stage.row, stage.document, _of_inputs(stage))
        for name in (exact, same, *others):
            took = [
                [times * m.cost.get(part, 0) for part in PARTS]
                for m in self._manifests.get(name, [])
                # Where replies do not say their tokens, the sums are too small.
                if m.cost.get("calls") and not m.cost.get("calls_without_usage")
                if (times := _times(stage, m.document))
            ]
            if not took:
                continue
            means = [round(statistics.fmean(values)) for values in zip(*took, strict=True)]
            if name in (exact, same):
                return expected.as_measured(*means)
            most = [max(n, getattr(expected, part)) for n, part in zip(means, PARTS, strict=True)]
            return replace(expected.as_measured(*most), is_measured=False)
        return expected

    @cached_property
    def _manifests(self) -> dict[tuple[Any, ...], list[Manifest]]:
        """Those on the volume, by the work they were, by stage and key, and by `_names`."""
        manifests: dict[tuple[Any, ...], list[Manifest]] = {}
        every = {artefact.key: artefact.manifest for artefact in self.store.whole()}

        @cache
        def like(key: str) -> Any:
            """Of an artefact that is not there any more, its key."""
            if key not in every:
                return key
            document = every[key].document
            return _like(
                _settings(document), {n: like(k) for n, k in document.get("inputs", {}).items()}
            )

        for manifest in every.values():
            by_key = manifest.stage, manifest.key
            inputs = {n: like(key) for n, key in manifest.document.get("inputs", {}).items()}
            names = _names(manifest.row, manifest.document, inputs)
            for name in dict.fromkeys([_work(manifest.document), by_key, *names]):
                manifests.setdefault(name, []).append(manifest)
        return manifests


@lru_cache(maxsize=1)
def foretold(store: Store) -> Foretold:
    """Of a volume, whose manifests are read once for all stages that are planned on it."""
    return Foretold(store)


def _work(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides how long a stage takes, as far as its key has it."""
    params = flatten(document.get("params", {}))
    deciding = {n: str(v) for n, v in params.items() if n.rpartition(".")[2] not in ANY}
    kind = environment.kind_of(document.get("environment", {}))
    return document.get("stage"), kind, tuple(sorted(deciding.items()))


def _names(
    row: str, document: Mapping[str, Any], inputs: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Under which a stage's likes are found: of the same input, of one that differs by seeds or by a
    sample, of the row, of any. `inputs`: by name, each as `_like`."""
    settings = _settings(document)
    exact = document.get("inputs", {})
    return [*(_like(settings, of) for of in (exact, inputs)), (row, *settings), ("", *settings)]


def _settings(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides how much a stage asks, but for its input, seeds and the size of a sample."""
    stage, kind, params = _work(document)
    return stage, kind, tuple((name, value) for name, value in params if SAMPLE not in name)


def _like(settings: tuple[Any, ...], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    return *settings, tuple(sorted(inputs.items()))


def _of_inputs(stage: StagePlan) -> dict[str, Any]:
    return {n: _like(_settings(of.document), _of_inputs(of)) for n, of in stage.inputs.items()}


def _times(stage: StagePlan, before: Mapping[str, Any]) -> float:
    """As many times the prompts that a stage of this document had; 0: not known."""
    ours, theirs = _sampled(stage.document), _sampled(before)
    if ours == theirs:
        return 1
    counts = [_prompts(stage, of_each) for of_each in (ours, theirs)]
    return counts[0] / counts[1] if all(counts) else 0


def _sampled(document: Mapping[str, Any]) -> int | None:
    """The prompts of its sample, of each set; None where there is none."""
    params = flatten(document.get("params", {}))
    return next((int(str(k)) for n, k in params.items() if n.endswith(f"{SAMPLE}.k")), None)


def _prompts(stage: StagePlan, of_each: int | None) -> int:
    """How many of a stage's prompts so many of each set are; None: all. 0: not known."""
    assert stage.planner is not None
    prompts, first = prompts_of(stage.params), {} if of_each is None else {"first": of_each}
    cut = prompts.model_copy(update={"sample": None, **first})
    return len(prompt_lengths(cut, stage.planner.files) or ())
