"""A data set made elsewhere."""

import contextlib
from typing import Literal

from pydantic import model_validator

from harness.artefact.keys import Files
from harness.errors import InputError
from harness.llm.estimate import ON_HUB, Estimate
from harness.spec.base import Data, Spec
from harness.spec.hub import Columns, HubData, Sample


class ImportGen(Spec):
    """Examples that others made: a local file, or a data set on the hub."""

    recipe: Literal["import"] = "import"
    file: Data | None = None
    """JSON (a list), JSONL, Parquet or, by its name, CSV; or a folder of such files, read in the order
    of names."""
    hub: HubData | None = None
    kind: Literal["instruction", "preference"] = "instruction"
    """Instruction data has outputs; preference data has chosen and rejected ones."""
    columns: Columns = Columns()
    turns: Literal["first", "last", "history", "drop"] = "first"
    """Of conversations with several turns: the first exchange alone; the last one, or each whole
    conversation, with the turns before it in `history`; or none of them.

    `last` and `history` differ in that `last` forgets the earlier turns. Preference data whose
    answers differ in a later turn alone need one of these two."""
    sample: Sample | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "ImportGen":
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of file, hub")
        return self


NOT_COUNTED = "how many examples the data set has is known once it is read"


def estimate_import(gen: ImportGen, files: Files, examples: int) -> Estimate:
    from harness.gen.recipes.importing.reading import read_import

    if gen.file is not None:
        with contextlib.suppress(InputError):
            reading = read_import(gen, files)
            if not reading.unread:
                return Estimate(examples=reading.examples)
    if gen.sample is not None:
        return Estimate(examples=gen.sample.k)
    return Estimate(examples=None, unknown=ON_HUB if gen.hub else NOT_COUNTED)
