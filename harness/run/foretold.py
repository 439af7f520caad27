"""How long stages will take, and what they will ask of a teacher or judge, as the same work took before
on this volume."""

import statistics
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any

from harness.artefact import environment
from harness.artefact.keys import flatten
from harness.artefact.manifest import Manifest
from harness.artefact.store import Store
from harness.llm.estimate import Estimate
from harness.run.plan import StagePlan

ANY = {"seed", "replicate"}
"""Parameters that change what a stage makes, and not how long it takes."""
SAMPLE = "prompts.sample.k"
"""The parameter that calls and tokens are proportional to, where there is one."""


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
        """`expected` with the mean calls and tokens of the row's same stages with other seeds or as
        many other prompts of a sample, else of other rows'; as it is where there are none."""
        for name in _alike(stage.row, stage.document):
            costs = [
                {key: value / _sampled(m.document) for key, value in m.cost.items()}
                for m in self._manifests.get(name, [])
                # Where replies do not say their tokens, the sums are too small.
                if m.cost.get("calls") and not m.cost.get("calls_without_usage")
            ]
            if costs:
                size = _sampled(stage.document)
                return expected.as_measured(
                    *(
                        round(size * statistics.fmean(cost.get(part, 0) for cost in costs))
                        for part in ("calls", "prompt_tokens", "completion_tokens")
                    )
                )
        return expected

    @cached_property
    def _manifests(self) -> dict[tuple[Any, ...], list[Manifest]]:
        """Those on the volume, by the work they were, by stage and key, and as `_alike`."""
        manifests: dict[tuple[Any, ...], list[Manifest]] = {}
        for artefact in self.store.whole():
            manifest = artefact.manifest
            by_key = manifest.stage, manifest.key
            alike = _alike(manifest.row, manifest.document)
            for name in (_work(manifest.document), by_key, *alike):
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


def _alike(row: str, document: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What decides how much a stage asks, but for the size of a sample: of the row, and of any."""
    stage, kind, params = _work(document)
    deciding = tuple((name, value) for name, value in params if not name.endswith(SAMPLE))
    for whose in (row, ""):
        yield whose, stage, kind, deciding


def _sampled(document: Mapping[str, Any]) -> int:
    """The prompts of its sample, of each set; 1 where there is none."""
    params = flatten(document.get("params", {}))
    return next((int(str(k)) for name, k in params.items() if name.endswith(SAMPLE)), 1)
