"""Runs a stage as a subprocess of the present Python environment (also inside an image)."""

import os
import sys
from collections.abc import Callable, Sequence

from harness.artefact import environment, gpus
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.progress import Event
from harness.run.executors import ExecutorRecord, Job, placing, start_log
from harness.run.executors.child import follow
from harness.run.executors.serving import running_url
from harness.run.plan import StagePlan
from harness.spec.base import DataPath
from harness.stage import PARENT_VARIABLE


class LocalExecutor:
    name = "local"

    def describe(self) -> ExecutorRecord:
        return {"executor": self.name, "image": environment.current_image()}

    def check(self, stages: Sequence[StagePlan]) -> None:
        """What a stage needs in this environment beside its GPUs and a compiler it says itself.

        Raises:
            InputError: see placing.place.
        """
        placing.check(stages, self.name)

    def run(self, job: Job, files: Files, on_event: Callable[[Event], None]) -> None:
        base_url = running_url(job.serve) if job.serve else None
        chosen = job.own_gpus()

        def place(data: DataPath) -> str:
            return str(files.locate(data))

        call = job.placed(job.work, job.inputs, place, job.cache, base_url, chosen)
        call.write(job.call_path)
        start_log(job, self.name)
        withheld = env_variables.withheld(job.stage, job.network, job.secrets, job.others_keys)
        env = {
            **{name: value for name, value in os.environ.items() if name not in withheld},
            **env_variables.given(job.stage),
            **(env_variables.caches(job.stage, job.caches) if job.caches else {}),
            **gpus.restricted_to(chosen),
            **env_variables.threads(job.share.threads),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(environment.root()), os.environ.get("PYTHONPATH")])
            ),
        }
        follow(job, [sys.executable, "-m", "harness.stage", str(job.call_path)], env, on_event)
