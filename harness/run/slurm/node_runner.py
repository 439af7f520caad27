"""The runner of a job, whose manifests say on which node and by what the stage was started."""

from rich.console import Console

from harness.artefact.call import StageResult
from harness.artefact.keys import Files
from harness.artefact.manifest import Manifest
from harness.artefact.store import Artefact, Store
from harness.run.executors import Executor
from harness.run.plan import StagePlan
from harness.run.runner import Runner
from harness.run.slurm.job import facts


class NodeRunner(Runner):
    def __init__(
        self, store: Store, files: Files, executor: Executor, console: Console, node: str
    ) -> None:
        super().__init__(store, files, executor, console)
        self.node = node

    def _manifest(
        self,
        planned: StagePlan,
        result: StageResult,
        inputs: dict[str, Artefact],
        seconds: float,
        executor: Executor,
    ) -> Manifest:
        result.used.setdefault("environment", {})["started_by"] = facts(self.node)
        return super()._manifest(planned, result, inputs, seconds, executor)
