"""Prices of calls: the checkout's specs/prices.yaml, which is the user's to keep up to date."""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from harness.artefact.environment import root
from harness.errors import InputError
from harness.spec.base import Endpoint, Spec
from harness.spec.source import Fault, parse

FILE = Path("specs/prices.yaml")
PER = 1_000_000
"""Tokens that a price is for."""
BATCH_SHARE = 0.5
"""What the Batch API charges of the usual price."""

MOST_USD = 10_000
"""For a million tokens; what is above it was meant as something else."""

Usd = Annotated[float, Field(ge=0, le=MOST_USD, strict=True)]


class Price(Spec):
    """US dollars for a million tokens."""

    prompt: Usd
    completion: Usd
    batch_share: Annotated[float, Field(ge=0, le=1, strict=True)] = BATCH_SHARE

    def usd(self, prompt_tokens: float, completion_tokens: float, batch: bool = False) -> float:
        """What so many tokens cost."""
        full = (prompt_tokens * self.prompt + completion_tokens * self.completion) / PER
        return full * (self.batch_share if batch else 1)


FREE = Price(prompt=0, completion=0)
WANTED = (
    "A table of prices has `dated`, `source` and, under `models`, for each model "
    "{prompt: USD, completion: USD} for a million tokens."
)


class _Table(Spec):
    dated: date
    source: str
    models: dict[str, Price]


@dataclass(frozen=True)
class Prices:
    """Every known price; `dated` says when they were looked up."""

    dated: str
    models: dict[str, Price]

    def of(self, endpoint: Endpoint) -> Price | None:
        """What the endpoint's model costs; None when that is not known. A simulated one is free,
        whatever the model costs whose name it bears."""
        return FREE if endpoint.simulated is not None else self.models.get(endpoint.model)


def table_file() -> Path:
    """Where prices stand: the file that HARNESS_PRICES names, else specs/prices.yaml of this folder, or
    else of the checkout."""
    named = os.environ.get("HARNESS_PRICES")
    if named or os.path.lexists(FILE):
        return Path(named or FILE)
    return root() / FILE


def place() -> str:
    """Where a price is to be added, in words, to stand behind `add it to`."""
    which = "which" if os.environ.get("HARNESS_PRICES") else "or to the file that"
    return f"{table_file()}, {which} HARNESS_PRICES names"


def load(path: Path | None = None) -> Prices:
    """The table at `path`, else of `table_file`; empty where neither is named and there is none.

    Raises:
        InputError: a file that was named is not there, a link leads nowhere, or what is there is no
            table of prices.
    """
    is_named = bool(path or os.environ.get("HARNESS_PRICES"))
    path = path or table_file()
    if not os.path.exists(path):
        if os.path.islink(path):
            raise InputError(f"the table of prices {path} is a link that leads nowhere")
        if not is_named:
            return Prices("", {})
        raise InputError(f"the table of prices {path} is not there")
    if not os.path.isfile(path):
        # A pipe would be waited for.
        raise InputError(f"the table of prices {path} is no regular file", WANTED)
    faults: list[Fault] = []
    tree = parse(path, faults, "a table of prices")
    if tree is None or faults:
        reasons = "; ".join(map(str, faults))
        raise InputError(f"the table of prices {path} cannot be read: {reasons}", WANTED)
    try:
        table = _Table.model_validate(tree.plain())
    except ValidationError as e:
        first = e.errors()[0]
        _, mark = tree.at(first["loc"])
        raise InputError(
            f"{mark}: {'.'.join(map(str, first['loc']))}: {first['msg']}", WANTED
        ) from None
    return Prices(table.dated.isoformat(), table.models)
