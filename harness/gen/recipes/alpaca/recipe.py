"""Stanford Alpaca's recipe: a teacher sees a few example tasks and replies with many new ones.

What it does, and the option of AlpacaGen that governs it:
- each request shows `shown` seed tasks, drawn for its number from `seed`, in the template `prompt`,
  and asks for `tasks_per_reply` new ones;
- `requests_per_round` requests are out at a time; their replies are taken in the order of the
  requests, so that the data set does not depend on which came first;
- a task is dropped when its reply was cut within it, it cannot be read, its output is empty, its
  instruction breaks one of harness.gen.filters' rules, it repeats a task, or ROUGE-L finds its
  instruction closer than `filter.max_similarity` to that of a seed or a kept task;
- it ends with exactly `examples` kept tasks, or short of that after `max_requests`.

`sampling.seed`, where given, grows by one with each request: a teacher that honours it would
otherwise reply the same to the same examples.

Raises InputError for faulty or too few seeds and what harness.llm.client raises.
"""

import asyncio
import math
import random
from typing import Any

from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample, Filter, Lineage
from harness.gen import filters
from harness.gen.blocks import Block, render, split
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.alpaca import AlpacaGen
from harness.gen.seeds import AlpacaTask, SeedTask, is_unicode
from harness.gen.similarity import Pool
from harness.llm.calls import fill
from harness.llm.client import Client, open_client
from harness.llm.reply import REFUSED, Reply

RECIPE = "alpaca"


def make(call: StageCall, gen: AlpacaGen) -> RecipeResult:
    """The seeds, where wanted, and the teacher's tasks."""
    seeds = gen.seed_tasks()
    harvest = TaskHarvest(gen, seeds)
    client = asyncio.run(_fill(harvest, call))
    seed_examples = (
        [seed.example(RECIPE) for seed in seeds] if gen.include_seeds and harvest.kept else []
    )
    counts = {"wanted": gen.examples, "requests": harvest.requests, "seeds": len(seed_examples)}
    return RecipeResult(
        examples=seed_examples + harvest.kept,
        filters=[harvest.filter],
        dropped=harvest.dropped,
        counts=counts,
        notes=_notes(gen, harvest),
        seeds={"gen": gen.seed},
        client=client,
    )


class TaskHarvest:
    """What the replies gave: the kept examples, and each dropped candidate's reason."""

    def __init__(self, gen: AlpacaGen, seeds: list[SeedTask]) -> None:
        self.gen, self.seeds = gen, seeds
        self.requests = 0
        self.kept: list[DatasetExample] = []
        self.filter = Filter("tasks", "tasks")
        self.dropped: list[dict[str, Any]] = []
        self._names = [seed.id for seed in seeds]
        self._task_keys = {(seed.instruction, seed.task.input) for seed in seeds}
        self._pool = Pool()
        self._pool.extend([seed.instruction for seed in seeds])

    def take(self, reply: Reply) -> None:
        """Sort the reply to the next request."""
        seed_ids = [seed.id for seed in _draw_seeds(self.gen, self.seeds, self.requests)]
        lineage = Lineage(RECIPE, "tasks", (reply.request,), seed_ids)
        self.requests += 1
        blocks = split(reply.text)
        for index, block in enumerate(blocks):
            self.filter.proposed += 1
            is_last = index == len(blocks) - 1
            rule, why = self._fault(block.task, reply, is_last)
            if rule is None and block.task is not None:
                self._keep(block.task, lineage)
            else:
                self._drop(rule or "unparsable", why, block, index, lineage)

    def _keep(self, task: AlpacaTask, lineage: Lineage) -> None:
        name = f"generated_{len(self.kept)}"
        self.filter.kept += 1
        self._names.append(name)
        self._task_keys.add((task.instruction, task.input))
        self._pool.add(task.instruction)
        self.kept.append(DatasetExample(name, *task, lineage=(lineage,)))

    def _drop(
        self, rule: str, why: dict[str, Any], block: Block, index: int, lineage: Lineage
    ) -> None:
        self.filter.dropped[rule] += 1
        content = {"text": block.text} if block.task is None else block.task._asdict()
        at = {"step": "tasks", "rule": rule, "request": lineage.requests[0], "index": index}
        self.dropped.append({**at, **why, **content})

    def _fault(
        self, task: AlpacaTask | None, reply: Reply, is_last: bool
    ) -> tuple[str | None, dict[str, Any]]:
        """The first rule that drops the task, and what there is to say about it."""
        if reply.finish_reason == REFUSED:
            return "refused", {}
        if not reply.text.strip():
            return "empty_reply", {}
        if reply.finish_reason == "length" and is_last:
            return "cut", {}
        if task is None or not task.instruction or not all(map(is_unicode, task)):
            return "unparsable", {}
        if not task.output:
            return "empty_output", {}
        rule = filters.fault(task.instruction, self.gen.filter)
        if rule is not None:
            return rule, {}
        if (task.instruction, task.input) in self._task_keys:
            return "repeated", {}
        most = self.gen.filter.max_similarity
        if most < 1:
            nearest = self._pool.nearest_above(task.instruction, most)
            if nearest is not None:
                return "similar", {"similarity": nearest[0], "similar_to": self._names[nearest[1]]}
        if len(self.kept) == self.gen.examples:
            return "surplus", {}
        return None, {}


async def _fill(harvest: TaskHarvest, call: StageCall) -> Client:
    gen = harvest.gen
    limit = gen.max_requests or 20 + 4 * math.ceil(gen.examples / gen.tasks_per_reply)
    progress = Progress("generate", gen.examples, "examples")
    async with open_client(call, gen.teacher, gen.transcript) as client:
        while len(harvest.kept) < gen.examples and harvest.requests < limit:
            first = harvest.requests
            numbers = range(first, min(first + gen.requests_per_round, limit))
            for reply in await client.gather([_body(gen, harvest.seeds, n) for n in numbers]):
                harvest.take(reply)
            progress.show(
                len(harvest.kept),
                requests=harvest.requests,
                dropped=harvest.filter.dropped.total(),
            )
    return client


def _draw_seeds(gen: AlpacaGen, seeds: list[SeedTask], number: int) -> list[SeedTask]:
    """The seeds that request `number` shows, whatever the requests before it brought."""
    return random.Random(f"{gen.seed}/{number}").sample(seeds, gen.shown)


def _body(gen: AlpacaGen, seeds: list[SeedTask], number: int) -> dict[str, Any]:
    shown_seeds = _draw_seeds(gen, seeds, number)
    prompt = fill(
        gen.prompt.text,
        {
            "count": str(gen.tasks_per_reply),
            "shown": str(gen.shown),
            "next": str(gen.shown + 1),
            "examples": "\n\n".join(render(i, s.task) for i, s in enumerate(shown_seeds, start=1)),
        },
    )
    sampling = gen.sampling.model_dump(exclude_none=True)
    if "seed" in sampling:
        sampling["seed"] += number
    return {"messages": [{"role": "user", "content": prompt}], **sampling}


def _notes(gen: AlpacaGen, harvest: TaskHarvest) -> list[str]:
    if len(harvest.kept) == gen.examples:
        return []
    return [
        f"{len(harvest.kept)} of {gen.examples} examples after {harvest.requests} requests, "
        f"gen.max_requests' limit; dropped: {harvest.filter.tally()}"
    ]
