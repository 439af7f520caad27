"""The two faults a person can meet: bad input (exit code 2) and a run that failed (exit code 1)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

REDACTED = "[key]"
KEY_ADVICE = (
    "api_key_env is the name of the environment variable that holds the key, such as OPENAI_API_KEY; "
    "the key itself belongs into the environment. If one stands in a file that others have seen, "
    "revoke it"
)
_URL_SECRET = re.compile(r"(?<=://)[^\s'\"]*@|(?<=\?)(?<![\s'\"]\?)[\w.~%-]+=[^\s'\"]+")
_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        (?:sk|pk|rk|xai|pplx|nvapi|glpat|xox[abprs])-[\w-]{6,}
      | (?:[spr]k_live|[spr]k_test|sk|hf|gsk|r8|gh[oprsu])_[A-Za-z0-9]{12,} | github_pat_\w{12,}
      | (?:AKIA|ASIA)[A-Z0-9]{12,}
      | AIza[\w-]{16,}
      | eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?
      | [0-9a-fA-F]{32}(?![A-Za-z0-9])
      | (?=[A-Z0-9+]*[a-z])(?=[a-z0-9+]*[A-Z])(?=(?:[A-Za-z+]*[0-9]){3})
        [A-Za-z0-9+]{24,60}(?![A-Za-z0-9+])=*
    )""",
    re.VERBOSE,
)
"""The forms of well-known providers, JSON web tokens, and long texts without a word's shape (of over 60
letters in a row none is taken for a key: an alphabet is not one). The hex of a commit (40 digits) or a
sha256 (64) is none."""


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
    setting: tuple[str | int, ...] = ()
    """The path in a spec of what is to blame, as far as it is known."""

    @property
    def parts(self) -> "Sequence[InputError]":
        """The faults that it tells."""
        return [self]


class Faults(InputError):
    """Several faults at once. `of`: what they are counted as, at their end: `in the specs`; without it
    they are not counted."""

    def __init__(self, parts: Sequence[InputError], of: str = "", hint: str | None = None) -> None:
        self._parts = list(parts)
        self.count = f"{len(parts)} fault{'s' if len(parts) > 1 else ''} {of}" if of else ""
        hints = dict.fromkeys(part.hint for part in parts) if hint is None else [hint]
        messages = [*(part.message for part in parts), self.count]
        super().__init__("\n".join(filter(None, messages)), "\n".join(filter(None, hints)))

    @property
    def parts(self) -> Sequence[InputError]:
        return self._parts


class DataAbsent(InputError):
    """A given file that a row reads is not there. Of a folder of specs, the other rows still run."""


class NotFetched(DataAbsent):
    """A given file that an address will bring is not on the volume yet."""


class Interrupted(HarnessError):
    """The user or the engine asked the stage to stop; what was made so far is kept. Exit code 130."""

    exit_code = 130


@contextmanager
def blamed(*path: str | int) -> Iterator[None]:
    """What is refused within is the fault of the setting at this path; that of an inner one goes on
    from there."""
    try:
        yield
    except InputError as e:
        for part in e.parts:
            part.setting = (*path, *part.setting)
        raise


@contextmanager
def kept(faults: list[InputError]) -> Iterator[None]:
    """What is refused within is added to the faults that are to be told together, each once."""
    try:
        yield
    except InputError as e:
        known = {fault.message for fault in faults}
        faults += [part for part in e.parts if part.message not in known]


def raise_all(faults: Sequence[InputError]) -> None:
    """Raises the fault, or all of them as Faults; nothing where there is none."""
    if len(faults) > 1:
        raise Faults(faults)
    for fault in faults:
        raise fault


def holds_key(text: str) -> bool:
    """Whether something in the text has the form of a key."""
    return _KEY.search(text) is not None


def masked(text: str) -> str:
    """The text without what looks like a key, a password in a URL, or a URL's query."""
    text = _URL_SECRET.sub(lambda m: REDACTED + "@" * m[0].endswith("@"), text)
    return _KEY.sub(REDACTED, text)
