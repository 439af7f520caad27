"""Stanford Alpaca's recipe: a teacher sees a few example tasks and replies with many new ones.

What it does, and the option of AlpacaGen that governs it:
- each request shows `shown` seed tasks, drawn for its number from `seed`, in the template `prompt`,
  and asks for `tasks_per_reply` new ones;
- `requests_per_round` requests are out at a time; their replies are taken in the order of the
  requests, so that the data set does not depend on which came first;
- a task is dropped when its reply was cut within it, it cannot be read, its output is empty, its
  instruction has 3 words or fewer or more than 150, it repeats a task, or ROUGE-L finds it closer
  than `max_similarity` to a seed or a kept task;
- it ends with exactly `examples` kept tasks, or short of that after `max_requests`.

`sampling.seed`, where given, grows by one with each request: a teacher that honours it would
otherwise reply the same to the same examples.

Raises InputError for faulty or too few seeds, HarnessError when nothing could be kept, and what
harness.llm.client raises.
"""

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.gen.blocks import Block, render, split
from harness.gen.seeds import Seed, Task, is_unicode, read_seeds
from harness.gen.similarity import Pool
from harness.llm.client import Client
from harness.llm.progress import Progress
from harness.llm.prompt import fill
from harness.llm.reply import Reply
from harness.spec.models import AlpacaGen

FEWEST_WORDS, MOST_WORDS = 4, 150
"""Of an instruction; from self-instruct 0b26ccaa, kept by stanford_alpaca 761dc5bf."""

RULES = (
    "cut",
    "unparsable",
    "empty_output",
    "too_short",
    "too_long",
    "repeated",
    "similar",
    "surplus",
)
"""Why a task is dropped, in the order in which the rules are tried."""

DATA, DROPPED, TRANSCRIPT = "data.jsonl", "dropped.jsonl", "transcript.jsonl"


def run(call: StageCall, gen: AlpacaGen) -> StageResult:
    """Make the data set in the call's work folder."""
    seeds = read_seeds(Path(gen.seeds.path))
    _check(gen, seeds)
    harvest = Harvest(gen, seeds)
    client = asyncio.run(_fill(harvest, call))
    if not harvest.kept:
        raise HarnessError(
            f"the teacher's {harvest.requests} replies held no task to keep: "
            + _tally(harvest.dropped),
            hint=f"see {call.folder / TRANSCRIPT} and {call.folder / DROPPED}. The same command "
            "finds the same replies there: change the teacher, its prompt or its sampling in the "
            f"spec, or remove the work folder {call.folder} to ask again",
        )
    seed_rows = [_seed_row(seed) for seed in seeds] if gen.include_seeds else []
    _write(call.folder / DATA, seed_rows + harvest.kept)
    counts = {
        "wanted": gen.examples,
        "requests": harvest.requests,
        "proposed": harvest.proposed,
        **{f"dropped_{rule}": harvest.dropped[rule] for rule in RULES},
        "kept": len(harvest.kept),
        "seeds": len(seed_rows),
        "examples": len(seed_rows) + len(harvest.kept),
    }
    assert counts["proposed"] == counts["kept"] + harvest.dropped.total()
    return StageResult(
        keep=[DATA, DROPPED, TRANSCRIPT],
        counts=counts,
        used={"served_models": client.served_models},
        seeds={"gen": gen.seed},
        cost=client.cost(),
        simulated=["teacher"] if client.simulated else [],
        notes=_notes(gen, harvest, client),
    )


class Harvest:
    """What the replies gave: `kept` rows of the data set, and each dropped candidate's reason."""

    def __init__(self, gen: AlpacaGen, seeds: list[Seed]) -> None:
        self.gen, self.seeds = gen, seeds
        self.requests = self.proposed = 0
        self.kept: list[dict[str, Any]] = []
        self.dropped: Counter[str] = Counter()
        self.dropped_rows: list[dict[str, Any]] = []
        self._names = [seed.id for seed in seeds]
        self._known = {(seed.task.instruction, seed.task.input) for seed in seeds}
        self._pool = Pool()
        for seed in seeds:
            self._pool.add(_compared(seed.task))

    def take(self, reply: Reply) -> None:
        """Sort the reply to the next request."""
        request = self.requests
        self.requests += 1
        blocks = split(reply.text)
        for index, block in enumerate(blocks):
            self.proposed += 1
            is_cut = reply.finish_reason == "length" and index == len(blocks) - 1
            lineage = {"request": request, "index": index}
            self._sort(block, is_cut, lineage)

    def _sort(self, block: Block, is_cut: bool, lineage: dict[str, int]) -> None:
        rule, why = ("cut", {}) if is_cut else self._fault(block.task)
        if rule is not None or block.task is None:
            self.dropped[rule or "unparsable"] += 1
            content = {"text": block.text} if block.task is None else block.task._asdict()
            self.dropped_rows.append({**lineage, "rule": rule, **why, **content})
            return
        name = f"generated_{len(self.kept)}"
        self._names.append(name)
        self._known.add((block.task.instruction, block.task.input))
        self._pool.add(_compared(block.task))
        self.kept.append(_row(name, block.task, "generated", lineage))

    def _fault(self, task: Task | None) -> tuple[str | None, dict[str, Any]]:
        """The first rule that drops the task, and what there is to say about it."""
        if task is None or not all(map(is_unicode, task)):
            return "unparsable", {}
        if not task.output:
            return "empty_output", {}
        words = len(task.instruction.split())
        if words < FEWEST_WORDS:
            return "too_short", {}
        if words > MOST_WORDS:
            return "too_long", {}
        if (task.instruction, task.input) in self._known:
            return "repeated", {}
        if self.gen.max_similarity < 1:
            found = self._pool.nearest_above(_compared(task), self.gen.max_similarity)
            if found is not None:
                return "similar", {"similarity": found[0], "similar_to": self._names[found[1]]}
        if len(self.kept) == self.gen.examples:
            return "surplus", {}
        return None, {}


async def _fill(harvest: Harvest, call: StageCall) -> Client:
    gen = harvest.gen
    limit = gen.max_requests or 20 + 4 * math.ceil(gen.examples / gen.tasks_per_reply)
    progress = Progress("generate", gen.examples, "examples")
    async with Client(gen.teacher, call.folder / TRANSCRIPT, call.budget) as client:
        while len(harvest.kept) < gen.examples and harvest.requests < limit:
            first = harvest.requests
            numbers = range(first, min(first + gen.requests_per_round, limit))
            for reply in await client.gather([_body(gen, harvest.seeds, n) for n in numbers]):
                harvest.take(reply)
            progress.show(
                len(harvest.kept), requests=harvest.requests, dropped=harvest.dropped.total()
            )
        # Written in here so that it is there to look at when nothing was kept.
        _write(call.folder / DROPPED, harvest.dropped_rows)
    return client


def _body(gen: AlpacaGen, seeds: list[Seed], number: int) -> dict[str, Any]:
    """Request `number`, whatever the requests before it brought."""
    shown = random.Random(f"{gen.seed}/{number}").sample(seeds, gen.shown)
    prompt = fill(
        gen.prompt.text,
        {
            "count": str(gen.tasks_per_reply),
            "shown": str(gen.shown),
            "next": str(gen.shown + 1),
            "examples": "\n\n".join(render(i, s.task) for i, s in enumerate(shown, start=1)),
        },
    )
    sampling = gen.sampling.model_dump(exclude_none=True)
    if "seed" in sampling:
        sampling["seed"] += number
    return {"messages": [{"role": "user", "content": prompt}], **sampling}


def _check(gen: AlpacaGen, seeds: list[Seed]) -> None:
    if gen.shown > len(seeds):
        raise InputError(
            f"gen.shown asks for {gen.shown} examples a request, and there are {len(seeds)} seeds",
            hint="lower gen.shown or give more seed tasks",
        )


def _compared(task: Task) -> str:
    return f"{task.instruction}\n{task.input}"


def _seed_row(seed: Seed) -> dict[str, Any]:
    return _row(seed.id, seed.task, "seed", None)


def _row(name: str, task: Task, origin: str, lineage: dict[str, int] | None) -> dict[str, Any]:
    return {"id": name, **task._asdict(), "origin": origin, "lineage": lineage}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _tally(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {rule.replace('_', ' ')}" for rule, count in dropped.most_common())


def _notes(gen: AlpacaGen, harvest: Harvest, client: Client) -> list[str]:
    notes = []
    if len(harvest.kept) < gen.examples:
        notes.append(
            f"{len(harvest.kept)} of {gen.examples} examples after {harvest.requests} requests, "
            f"gen.max_requests' limit; dropped: {_tally(harvest.dropped)}"
        )
    if len(client.served_models) > 1:
        notes.append(f"the teacher's replies came from {', '.join(client.served_models)}")
    return notes
