"""Runs a stage as a subprocess of the present Python environment (also inside an image)."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from harness.artefact import environment, gpus
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.progress import Event
from harness.run.executors import (
    STOP_SECONDS,
    EventReader,
    ExecutorRecord,
    Job,
    ended_when_asked,
    placing,
    start_log,
    stopped,
    tell_stopping,
    wait_for_end,
)
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
            **gpus.restricted_to(chosen),
            **env_variables.threads(job.share.threads),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(environment.root()), os.environ.get("PYTHONPATH")])
            ),
        }
        reader = EventReader(job, on_event)
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.stage", str(job.call_path)],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env,
                pass_fds=(job.lock,),
                # Ctrl-C reaches the harness alone, which then stops the stage in its own way.
                start_new_session=True,
            )
            assert process.stdout is not None
            try:
                with ended_when_asked(job, lambda: _stop(process, job)):
                    for line in process.stdout:
                        reader.feed(line)
                    code = process.wait()
            except KeyboardInterrupt:
                tell_stopping(on_event)
                _stop(process, job)
                raise stopped(job) from None
            except BaseException:
                _stop(process, job)
                raise
            finally:
                process.stdout.close()
                _kill_group(process)
        if job.stop.is_set():
            raise stopped(job)
        killed = f"it was killed by signal {signal.Signals(-code).name}" if code < 0 else ""
        if code == -signal.SIGKILL:
            killed += " (most often: the machine ran out of memory)"
        reader.finish(code, killed)


def _stop(process: "subprocess.Popen[bytes]", job: Job) -> None:
    def has_ended(seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode is not None

    process.send_signal(signal.SIGINT)
    if not wait_for_end(job, has_ended, STOP_SECONDS):
        _kill_group(process)
        process.wait()


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of the stage and of what it started; it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
