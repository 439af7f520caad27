"""How the stages of the eval image ask a model: again where a reply cannot be read, and with an eye on
who answers."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from harness.artefact.manifest import Finding
from harness.errors import HarnessError
from harness.llm.client import Client, OnDone
from harness.llm.reply import Body, Kind, Reply

OnModelChange = Literal["flag", "stop"]
T = TypeVar("T")


class ServedModels:
    """Counts the models that replies say they came from, and the replies that servers declined.

    on_change: `stop` makes `note` raise a HarnessError at the first reply of another model than the
    ones before; `flag` leaves it to `notes` and `findings`. work: the folder that holds the calls.
    """

    def __init__(self, on_change: OnModelChange = "flag", work: Path | None = None) -> None:
        self.on_change, self.work = on_change, work
        self.counts: Counter[str] = Counter()
        self.replies = 0
        self.declined: Counter[str] = Counter()

    def note(self, reply: Reply) -> None:
        self.replies += 1
        if reply.why is not None:
            self.declined[reply.why.partition(":")[0]] += 1
        if not reply.served_model:
            return
        self.counts[reply.served_model] += 1
        if self.on_change == "stop" and len(self.counts) > 1:
            # Which reply comes first is another one each time.
            raise HarnessError(
                f"the server answered as {' and as '.join(sorted(self.counts))}, and the spec says "
                "on_model_change: stop",
                hint="A number over both would be of neither. The same command finds the same "
                "replies in the transcript: name a dated version of the model in the spec, set "
                "on_model_change: flag there, or remove the work folder"
                + (f" {self.work}" if self.work else "")
                + " to ask for all of them again.",
            )

    def notes(self) -> list[str]:
        models = sorted(self.counts)
        notes = [f"the replies came from {', '.join(models)}"] if len(models) > 1 else []
        if self.declined:
            reasons = ", ".join(f"{why} ({n})" for why, n in sorted(self.declined.items()))
            notes.append(
                f"the server declined {self.declined.total()} of {self.replies} requests for what is "
                f"in them: {reasons}"
            )
        return notes

    def findings(self) -> list[Finding]:
        if len(self.counts) < 2:
            return []
        counts = dict(sorted(self.counts.items()))
        models = ", ".join(f"{model} ({count} replies)" for model, count in counts.items())
        message = f"the server answered as more than one model: {models}"
        return [Finding("model_changed", "warning", message, counts)]


async def ask_until_read(
    client: Client,
    bodies: Sequence[Body],
    parse: Callable[[Reply], T | None],
    asks: int,
    on_done: OnDone | None = None,
    kind: Kind = "chat",
    served: ServedModels | None = None,
) -> list[Reply]:
    """The replies to `bodies`, in their order: each one's first that can be read, or else its last.

    A body whose reply `parse` makes None of is asked again, the same to the letter, up to `asks` times
    in all; not where the server declined the prompt, which it would do again. Replies keep their
    `raw`. `on_done(index, reply)` is told of each body once: when nothing more is asked about it.

    Raises:
        HarnessError: as Client.gather does, and what `served` raises.
    """
    replies: list[Reply | None] = [None] * len(bodies)

    async def ask(indices: list[int], is_last: bool) -> list[int]:
        unread = []

        def take(at: int, reply: Reply) -> None:
            index = indices[at]
            replies[index] = reply
            if served is not None:
                served.note(reply)
            if not is_last and not reply.is_declined and parse(reply) is None:
                unread.append(index)
            elif on_done is not None:
                on_done(index, reply)

        await client.gather([bodies[index] for index in indices], take, kind)
        # They come in any order, and the transcript counts how often the same body is asked.
        return sorted(unread)

    waiting = list(range(len(bodies)))
    for number in range(1, asks + 1):
        waiting = await ask(waiting, is_last=number == asks)
    return [reply for reply in replies if reply is not None]
