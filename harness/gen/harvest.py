"""What the recipes share whose teacher grows a list from seeds, round by round."""

import abc
import random
from collections.abc import Sequence
from math import ceil
from typing import Generic, TypeVar

from harness.artefact.events import Progress
from harness.data.dropped import Tally
from harness.gen.seeds import SeedTask
from harness.llm.client import Client
from harness.llm.reply import Body, Kind, Reply

T = TypeVar("T")


class Harvest(abc.ABC, Generic[T]):
    """What the replies gave.

    It ends with the round that brings what is wanted, or after `limit` requests. The replies of a
    round are taken in the order of its requests, so that nothing depends on which came first.
    """

    def __init__(self, tally: Tally, target: int, per_reply: int, max_requests: int | None) -> None:
        self.tally, self.target = tally, target
        self.requests = 0
        self.limit = max_requests or 20 + 4 * ceil(target / per_reply)

    @abc.abstractmethod
    def draw(self, number: int) -> Sequence[T]:
        """What request `number` shows, whatever the requests of its round bring."""

    @abc.abstractmethod
    def body(self, number: int, examples: Sequence[T]) -> Body:
        """The request that shows them."""

    @abc.abstractmethod
    def take(self, reply: Reply, examples: Sequence[T]) -> None:
        """Sort the reply to it."""

    async def grow(
        self, client: Client, per_round: int, task: str, unit: str, api: Kind = "chat"
    ) -> None:
        progress = Progress(task, self.target, unit)
        while self.tally.kept < self.target and self.requests < self.limit:
            numbers = range(self.requests, min(self.requests + per_round, self.limit))
            examples = [self.draw(number) for number in numbers]
            bodies = [self.body(*pair) for pair in zip(numbers, examples, strict=True)]
            for pair in zip(await client.gather(bodies, kind=api), examples, strict=True):
                self.requests += 1
                self.take(*pair)
            dropped = self.tally.dropped.total()
            progress.show(self.tally.kept, requests=self.requests, dropped=dropped)

    def shortage(self, setting: str, unit: str) -> list[str]:
        """A note where it ended with less than is wanted. `setting`: what ended it."""
        if self.tally.kept >= self.target:
            return []
        return [
            f"{self.tally.kept} of {self.target} {unit} after {self.requests} requests, {setting}' "
            f"limit; dropped: {self.tally.in_words()}"
        ]


def draw_seeds(seeds: Sequence[SeedTask], count: int, seed: int, number: int) -> list[SeedTask]:
    """The seeds that request `number` shows."""
    return random.Random(f"{seed}/{number}").sample(seeds, count)
