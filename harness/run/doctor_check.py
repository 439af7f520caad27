"""One line of what `harness doctor` says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    is_present: bool
    what: str
    state: str
    prevents: str = ""
    """What its absence prevents; empty where it is there."""
