"""What Self-Instruct's steps share: how they ask their teacher, and what each leaves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.artefact.events import Progress
from harness.data.dataset import Filter, Lineage
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.llm.client import Client
from harness.llm.reply import Reply

RECIPE = "self_instruct"


class Request(NamedTuple):
    """What to ask: a prompt and the fields beside it."""

    prompt: str
    sampling: dict[str, Any]


class GeneratedTask(NamedTuple):
    """A new instruction, and whether it is a classification task, once that is known."""

    id: str
    instruction: str
    lineage: Sequence[Lineage]
    is_classification: bool = False


@dataclass
class StepResult:
    """What a step leaves for the artefact: the rows of its own file, and what became of what."""

    file: str
    filter: Filter
    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, rule: str, request: int, **content: Any) -> None:
        """Count and list a candidate that goes. `request`: the transcript's line."""
        self.filter.dropped[rule] += 1
        at = {"step": self.filter.step, "rule": rule, "request": request}
        self.dropped.append({**at, **content})


async def gather(
    client: Client,
    gen: SelfInstructGen,
    requests: Iterable[Request],
    progress: Progress | None = None,
) -> list[Reply]:
    """The replies in the order of the requests; `progress` is shown each one that comes."""
    done = 0

    def show(index: int, reply: Reply) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress.show(done)

    return await client.gather([_body(gen, request) for request in requests], show, gen.api)


def _body(gen: SelfInstructGen, request: Request) -> dict[str, Any]:
    if gen.api == "completion":
        return {"prompt": request.prompt, **request.sampling}
    return {"messages": [{"role": "user", "content": request.prompt}], **request.sampling}
