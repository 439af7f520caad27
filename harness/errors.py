"""The two faults a person can meet: bad input (exit code 2) and a run that failed (exit code 1)."""

from harness.common.masking import masked


class HarnessError(Exception):
    """A run that failed: says what is wrong and, in `hint`, the way out. Exit code 1.

    Both may repeat what a person wrote: what looks like a key is masked.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = masked(message), masked(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(HarnessError):
    """The user's input cannot be used as it stands. Exit code 2."""

    exit_code = 2


class DataAbsent(InputError):
    """A given file that a row reads is not there. Of a folder of specs, the other rows still run."""


class Interrupted(HarnessError):
    """The user or the engine asked the stage to stop; what was made so far is kept. Exit code 130."""

    exit_code = 130
