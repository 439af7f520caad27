"""The stages of a run that failed: each keeps only what depends on it from being run."""

import contextlib
from collections.abc import Iterator, Sequence

from harness.artefact.store import Damaged
from harness.common.progress import OutputClosed
from harness.errors import HarnessError, Interrupted
from harness.run.executors import StageFailed, StagesFailed, listed
from harness.run.plan import StagePlan


class Failures:
    """Failed stages, and those that are not run because of them."""

    def __init__(self) -> None:
        self._errors: list[HarnessError] = []
        self._names: set[tuple[str, str]] = set()
        self._not_run: list[StagePlan] = []
        self._damaged: dict[tuple[str, str], Damaged] = {}

    def note(self, stage: StagePlan, error: HarnessError) -> str:
        """Count the error as the stage's; why it failed, in words."""
        self._names.add(stage.id)
        if isinstance(error, Damaged):
            self._damaged[stage.id] = error
        if isinstance(error, StageFailed):
            self._errors.append(error)
            return error.reason
        self._errors.append(_named(stage, error))
        return error.message

    def keep_out(self, stage: StagePlan) -> bool:
        """Whether the stage needs what a failed one was to make; it is then not to be run."""
        if not any(s.id in self._names for s in stage.inputs.values()):
            return False
        self._names.add(stage.id)
        self._not_run.append(stage)
        return True

    def tell(self) -> None:
        """Raises StagesFailed where any stage failed."""
        if self._errors:
            raise StagesFailed(self._errors, self._not_run, self._damaged)

    @contextlib.contextmanager
    def told_when_stopped(self) -> Iterator[None]:
        """Meanwhile an interrupt is told with the failures that came before it."""
        try:
            yield
        except Interrupted as e:
            raise self._beside(e) from None
        except OutputClosed:
            raise self._beside(unread()) from None
        except KeyboardInterrupt:
            if not self._errors:
                raise
            raise self._beside(
                Interrupted(
                    "stopped; what is finished stays.", "Run the same command again to go on."
                )
            ) from None

    def _beside(self, stop: Interrupted) -> Interrupted:
        if not self._errors:
            return stop
        count = len(self._errors)
        before = f"Before that {count} stage{'s' if count > 1 else ''} failed:"
        told = Interrupted("\n".join([stop.message, before, *map(listed, self._errors)]), stop.hint)
        told.exit_code = stop.exit_code
        return told


def tell_damaged(faults: Sequence[Damaged]) -> None:
    """Raises the only one, or an error that lists them."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise HarnessError(
            "\n".join([f"{len(faults)} artefacts are damaged", *map(listed, faults)])
        )


def unread() -> Interrupted:
    """What a run ends with whose output nothing reads any more."""
    return Interrupted(
        "nothing reads this command's output any more, so it stopped; what its stages have made so far "
        "is kept.",
        "Run the same command again to go on.",
    )


def _named(stage: StagePlan, error: HarnessError) -> HarnessError:
    """The error with the stage that it ended, which not every message names."""
    if stage.title in error.message:
        return error
    named = HarnessError(f"{stage.title} failed: {error.message}", error.hint)
    named.exit_code = error.exit_code
    return named
