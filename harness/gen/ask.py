"""How recipes ask a model, and what they say of what they cannot show it."""

import asyncio
import itertools
from collections.abc import Sequence

from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample
from harness.errors import InputError
from harness.llm.client import Client, OnDone, open_client
from harness.llm.reply import Body, Reply
from harness.spec.base import Data, Endpoint

SHOWN = 200
"""Characters of a useless reply that a row about it repeats; the transcript has all of it."""


def require_outputs(recipe: str, examples: Sequence[DatasetExample]) -> None:
    """Raises InputError where there is no example, or none with an output of its own."""
    if not examples:
        raise InputError(
            f"gen.{recipe} is given an empty data set", "correct the step of gen before it"
        )
    if any(example.is_preference for example in examples):
        raise InputError(
            f"gen.{recipe} works on instruction data; this data set holds preferences (chosen and "
            "rejected)",
            "import it with kind: instruction and columns.output: chosen, for example",
        )


def ask(
    call: StageCall, endpoint: Endpoint, transcript: Data | None, bodies: Sequence[Body], task: str
) -> tuple[Client, list[Reply]]:
    """The replies to `bodies`, one for each example, in their order, and the closed client that asked
    for them.

    `transcript`: as for `open_client`. Raises what harness.llm.client raises.
    """

    async def answered() -> tuple[Client, list[Reply]]:
        async with open_client(call, endpoint, transcript) as client:
            progress = Progress(task, len(bodies), "examples")
            return client, await client.gather(bodies, counting(progress))

    return asyncio.run(answered())


def counting(progress: Progress) -> OnDone:
    """Shows how many replies are there, each time that one comes."""
    numbers = itertools.count(1)
    return lambda index, reply: progress.show(next(numbers))


def unseen(examples: Sequence[DatasetExample]) -> list[str]:
    """A note on what the prompts of these recipes have no place for."""
    count = sum(bool(example.system or example.history) for example in examples)
    if not count:
        return []
    return [f"{count} of {len(examples)} examples have a system text or earlier turns: not shown"]
