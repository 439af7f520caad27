"""Which stages go into one submission: an array of those that take the same and wait for the same, or
each for the task of the same index of one array before it (Slurm's aftercorr). A row thus waits for no
other, and sixty rows of four stages are four submissions."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class HasKey(Protocol):
    @property
    def stage(self) -> str: ...
    @property
    def key(self) -> str: ...


Stage = TypeVar("Stage", bound=HasKey)
Id = tuple[str, str]
"""A stage's name and key."""


@dataclass(frozen=True, order=True)
class Place:
    """A job that a stage has to wait for: already queued (`job` is Slurm's number), or to be submitted
    (`job` is the number of its Group, below zero once counted)."""

    job: int
    task: int | None


@dataclass
class Group(Generic[Stage]):
    """One submission. `tasks`: index in the array -> stage; a job alone has the index 0."""

    tasks: dict[int, Stage]
    after: frozenset[Place] = frozenset()
    """Jobs that all of it waits for."""
    each_after: int | None = None
    """The array of whose tasks each task waits for the one of its own index."""
    number: int = 0

    @property
    def is_array(self) -> bool:
        return len(self.tasks) > 1

    def place(self, index: int) -> Place:
        return Place(-self.number, index if self.is_array else None)


def groups(
    stages: Sequence[Stage],
    needed: Mapping[Id, Sequence[Id]],
    kinds: Mapping[Id, Hashable],
    queued: Mapping[Id, Place],
) -> list[Group[Stage]]:
    """Submissions in the order in which they must be made.

    stages: those to submit, inputs before what needs them. needed: of each the stages that must end
    first, which are among `stages` or `queued`. kinds: what each takes; only equals share an array.
    """
    places = dict(queued)
    made: list[Group[Stage]] = []
    level = _levels(stages, needed)
    for depth in sorted(set(level.values())):
        alike: dict[Hashable, list[Stage]] = defaultdict(list)
        for stage in stages:
            if level[stage.stage, stage.key] == depth:
                alike[kinds[stage.stage, stage.key]].append(stage)
        for members in alike.values():
            waits = {(s.stage, s.key): [places[n] for n in needed[s.stage, s.key]] for s in members}
            for group in _arrays(members, waits):
                group.number = len(made) + 1
                made.append(group)
                for index, stage in group.tasks.items():
                    places[stage.stage, stage.key] = group.place(index)
    return made


def _levels(stages: Sequence[Stage], needed: Mapping[Id, Sequence[Id]]) -> dict[Id, int]:
    """How many of `stages` must end one after the other before each."""
    levels: dict[Id, int] = {}
    for stage in stages:
        before = [levels[n] + 1 for n in needed[stage.stage, stage.key] if n in levels]
        levels[stage.stage, stage.key] = max(before, default=0)
    return levels


def _arrays(members: Sequence[Stage], waits: Mapping[Id, Sequence[Place]]) -> list[Group[Stage]]:
    """Stages of one kind, whose inputs all have places, in as few submissions as their waiting lets."""
    children: dict[Place, int] = defaultdict(int)
    for places in waits.values():
        for place in set(places):
            children[place] += 1
    by_waiting: dict[tuple[frozenset[Place], int | None], list[tuple[Stage, Place | None]]]
    by_waiting = defaultdict(list)
    for stage in members:
        waited = set(waits[stage.stage, stage.key])
        # What fewest wait for is the stage's own input, such as its row's answers; the others, such as
        # a baseline's answers, are common to many.
        own = min(
            waited, key=lambda p: (children[p], p.task is None, p.job, p.task or 0), default=None
        )
        common = frozenset(waited - {own}) if own is not None else frozenset()
        by_waiting[common, own.job if own else None].append((stage, own))
    found: list[Group[Stage]] = []
    for (common, job), waiting in by_waiting.items():
        found += _parted(common, job, waiting)
    return found


def _parted(
    common: frozenset[Place], job: int | None, waiting: Sequence[tuple[Stage, Place | None]]
) -> list[Group[Stage]]:
    by_own: dict[Place | None, list[Stage]] = defaultdict(list)
    for stage, own in waiting:
        by_own[own].append(stage)
    most = max(map(len, by_own.values()))
    if len(by_own) <= most:
        # Few inputs with many that need each: all of one input's wait for it.
        return [
            Group(dict(enumerate(stages)), common | ({own} if own is not None else set()))
            for own, stages in by_own.items()
        ]
    layers: list[Group[Stage]] = []
    for number in range(most):
        layer = {own: stages[number] for own, stages in by_own.items() if len(stages) > number}
        if len(layer) == 1:
            ((own, stage),) = layer.items()
            assert own is not None
            layers.append(Group({0: stage}, common | {own}))
            continue
        tasks = {own.task: stage for own, stage in layer.items() if own and own.task is not None}
        layers.append(Group(dict(sorted(tasks.items())), common, job))
    return layers
