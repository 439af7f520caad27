"""How long stages will take, as the same work took before on this volume."""

import statistics
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

from harness.artefact import environment
from harness.artefact.keys import flatten
from harness.artefact.manifest import Manifest
from harness.artefact.store import Store
from harness.run.plan import StagePlan

ANY = {"seed", "replicate"}
"""Parameters that change what a stage makes, and not how long it takes."""


class Foretold:
    """What the manifests on one volume, as they are at the first question, say of time."""

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

    @cached_property
    def _manifests(self) -> dict[tuple[Any, ...], list[Manifest]]:
        """Those on the volume, by the work they were and by stage and key."""
        manifests: dict[tuple[Any, ...], list[Manifest]] = {}
        for artefact in self.store.whole():
            manifest = artefact.manifest
            for name in (_work(manifest.document), (manifest.stage, manifest.key)):
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
