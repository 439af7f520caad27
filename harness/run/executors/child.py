"""A stage as a child process of the harness: its events are read, its log is kept, it ends in order."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from harness.common.progress import Event
from harness.run.executors import (
    STOP_SECONDS,
    EventReader,
    Job,
    ended_when_asked,
    stopped,
    tell_stopping,
    wait_for_end,
)


def follow(
    job: Job,
    command: Sequence[str],
    variables: Mapping[str, str],
    on_event: Callable[[Event], None],
) -> None:
    """Run the command to its end, in an environment of these variables alone.

    Raises:
        StageFailed: it ended with a fault; Interrupted: it was stopped.
    """
    reader = EventReader(job, on_event)
    with job.log.open("ab") as log, contextlib.ExitStack() as begun:
        try:
            # Begun within: the stage may be at work before this process is told so.
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=variables,
                pass_fds=(job.lock,),
                # Ctrl-C reaches the harness alone, which then stops the stage in its own way.
                start_new_session=True,
            )
            assert process.stdout is not None
            begun.callback(_kill_group, process)
            begun.callback(process.stdout.close)
            begun.callback(_stop, process, job)
            with ended_when_asked(job, lambda: _stop(process, job)):
                for line in process.stdout:
                    reader.feed(line)
                code = process.wait()
        except KeyboardInterrupt:
            tell_stopping(on_event)
            begun.close()
            raise stopped(job) from None
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
