"""A recipe: a way of making a data set, or of working on one. Its class owns what is known of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.gen.seeds import SeedTask, read_seeds
from harness.llm.estimate import Estimate
from harness.spec.base import Data, Endpoint, Spec
from harness.spec.twin import simulated, smoke_data

if TYPE_CHECKING:
    from harness.gen.reading import Reading
    from harness.llm.client import Client


@dataclass
class RecipeResult:
    """A data set and how it came about. Of this harness.gen.run makes the artefact."""

    examples: list[DatasetExample]
    filters: list[Tally] = field(default_factory=list)
    """What each step proposed, dropped and kept, in order."""
    files: list[str] = field(default_factory=list)
    """Other files, in the work folder, that belong to the artefact."""
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    client: "Client | None" = None
    """The closed client of a recipe that called a model."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """Step -> the model that it asked, where they are several."""
    before: list[DatasetExample] | None = None
    """The examples as they were, for a recipe that rewrites: the card compares their lengths."""

    @property
    def dropped(self) -> list[Mapping[str, object]]:
        """The rows of dropped.jsonl."""
        return [row for step in self.filters for row in step.rows]


class ReplySource(NamedTuple):
    """Where a recipe's replies come from. `role`: also the field that holds the endpoint. `others`: the
    endpoints of steps that have one of their own, in the same role."""

    role: Literal["teacher", "judge"]
    endpoint: Endpoint
    transcript: Data | None
    """The recorded calls that stand for them."""
    others: tuple[Endpoint, ...] = ()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Each once."""
        endpoints = [self.endpoint, *self.others]
        return [e for i, e in enumerate(endpoints) if e not in endpoints[:i]]


class Recipe(Spec):
    """The base of all recipes. Each has `recipe`, its name in specs, and stands in the union `Gen`."""

    code_version: ClassVar[int]
    """Raised whenever the recipe comes to make other content from the same call."""
    makes_examples: ClassVar[bool] = False
    """Whether it begins a chain; else it works on the examples of the step before."""
    estimates_limit: ClassVar[bool] = False
    """Whether the examples of its estimate are the most it leaves, whatever the step before leaves."""

    @property
    def makes_preferences(self) -> bool:
        """Whether its examples are pairs of a chosen and a rejected answer."""
        return False

    @property
    def reply_source(self) -> ReplySource | None:
        """None for a recipe that calls no model."""
        return None

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """Carry it out. Heavy imports stand in here, as the class is part of every spec."""
        raise NotImplementedError

    def estimate(self, files: Files, examples: int) -> Estimate:
        """Of its calls, and of what it leaves of the `examples` of the step before."""
        return Estimate(examples=examples)

    def readings(self, files: Files) -> "Sequence[Reading]":
        """What the files hold that it reads as examples.

        Raises:
            InputError: it would refuse one, or drop all of it.
            DataAbsent: one is not there.
        """
        return ()

    def check(self, snapshots: dict[str, str]) -> None:
        """Look at what else it reads, of a spec whose paths can be opened. `snapshots`: name in
        `needs().hub` -> folder, as far as they are here. Raises InputError where it could only fail."""

    def check_size(self, examples: int) -> None:
        """Raises InputError where so many examples of the step before, or fewer, are too few."""

    def needs(self) -> Needs:
        source = self.reply_source
        return Needs() if source is None else Needs.asking(source.endpoints, source.transcript)

    def twin(self, smoke: Path) -> Self:
        """Its scaled-down form, with the files of `smoke`, which is specs/smoke."""
        source = self.reply_source
        if source is None:
            return self
        changes = {source.role: simulated(source.endpoint), "transcript": None}
        return self.model_copy(update=changes)

    def replaced(self) -> Iterator[str]:
        """What of it the twin replaces, and by what, in words."""
        source = self.reply_source
        for endpoint in source.endpoints if source is not None else ():
            if source is not None and endpoint.simulated is None:
                stand_in = "rater" if source.role == "judge" else source.role
                yield f"a simulated {stand_in} for {endpoint.model}"
        if source is not None and source.transcript is not None:
            yield "calls for the recorded ones"


class Taught(Recipe):
    """A recipe that calls a teacher."""

    teacher: Endpoint
    """The model that is asked for data."""
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the teacher, which is not called."""

    @property
    def reply_source(self) -> ReplySource:
        return ReplySource("teacher", self.teacher, self.transcript)


class Seeded(Recipe):
    """A recipe that begins with seed tasks."""

    makes_examples: ClassVar[bool] = True
    if TYPE_CHECKING:  # each recipe's own field, at its place among the others
        seeds: Data

    def seed_tasks(self) -> list[SeedTask]:
        """The file's tasks. Raises InputError where it is faulty, or its tasks are not enough."""
        return read_seeds(Path(self.seeds.path))

    def check(self, snapshots: dict[str, str]) -> None:
        self.seed_tasks()

    def twin(self, smoke: Path) -> Self:
        return super().twin(smoke).model_copy(update={"seeds": smoke_data(smoke / "seeds.jsonl")})

    def replaced(self) -> Iterator[str]:
        yield "specs/smoke's seed tasks"
        yield from super().replaced()
