"""A data set made elsewhere."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.data.dataset import DatasetExample
from harness.errors import InputError
from harness.gen.recipe import Recipe, RecipeResult
from harness.llm.estimate import ON_HUB, Estimate
from harness.spec.base import Data
from harness.spec.hub import Columns, HubData, Sample
from harness.spec.twin import EXAMPLES, few_of, smoke_examples

if TYPE_CHECKING:
    from harness.gen.reading import Reading

NOT_COUNTED = "how many examples the data set has is known once it is read"


class ImportGen(Recipe):
    """Examples that others made: a local file, or a data set on the hub."""

    code_version: ClassVar[int] = 2
    makes_examples: ClassVar[bool] = True
    estimates_limit: ClassVar[bool] = True
    recipe: Literal["import"] = "import"
    file: Data | None = None
    """JSON (a list), JSONL, Parquet or, by its name, CSV; or a folder of such files, read in the order
    of names."""
    hub: HubData | None = None
    """A data set on the hub, in place of a file."""
    kind: Literal["instruction", "preference"] = "instruction"
    """Instruction data has outputs; preference data has chosen and rejected ones."""
    columns: Columns = Columns()
    """Which column holds what, where the names are not the usual ones."""
    turns: Literal["first", "last", "history", "drop"] = "first"
    """Of conversations with several turns: the first exchange alone; the last one, or each whole
    conversation, with the turns before it in `history`; or none of them.

    `last` and `history` differ in that `last` forgets the earlier turns. Preference data whose
    answers differ in a later turn alone need one of these two."""
    sample: Sample | None = None
    """Only some of the examples, drawn by a seed."""

    @model_validator(mode="after")
    def _one_place(self) -> "ImportGen":
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of file, hub")
        return self

    @property
    def makes_preferences(self) -> bool:
        return self.kind == "preference"

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.importing.recipe import make

        return make(call, self)

    def estimate(self, files: Files, examples: int) -> Estimate:
        with contextlib.suppress(InputError):
            for reading in self.readings(files):
                if not reading.unread:
                    return Estimate(examples=reading.examples)
        if self.sample is not None:
            return Estimate(examples=self.sample.k)
        return Estimate(examples=None, unknown=ON_HUB if self.hub else NOT_COUNTED)

    def readings(self, files: Files) -> "Sequence[Reading]":
        from harness.gen.recipes.importing.reading import read_import

        return [read_import(self, self.file, files)] if self.file is not None else []

    def check(self, snapshots: dict[str, str]) -> None:
        from harness.data.tables import read_hub
        from harness.gen.recipes.importing import reading, recipe

        if self.hub is None or "hub" not in snapshots:
            return
        with tempfile.TemporaryDirectory() as work:
            folder = Path(snapshots["hub"])
            table = read_hub(folder, self.hub, Path(work), recipe.wanted(self))
            reading.of_table(self, table, table.name)

    def needs(self) -> Needs:
        return Needs(hub={"hub": self.hub} if self.hub is not None else {})

    def twin(self, smoke: Path) -> Self:
        talks = self.turns != "first" or self.columns.messages is not None
        kind = "conversations" if talks and self.kind == "instruction" else self.kind
        changes = {
            "file": smoke_examples(smoke, kind),
            "hub": None,
            "columns": Columns(),
            "sample": few_of(self.sample, EXAMPLES),
        }
        return self.model_copy(update=changes)

    def replaced(self) -> Iterator[str]:
        yield f"specs/smoke's examples for {'the hub' if self.hub else 'the given'} data set"
