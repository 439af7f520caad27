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
from collections.abc import Sequence

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Lineage
from harness.data.dropped import Reason, Tally
from harness.gen import filters
from harness.gen.blocks import Block, render, split
from harness.gen.harvest import Harvest, draw_seeds
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.alpaca import AlpacaGen
from harness.gen.seeds import AlpacaTask, SeedTask, is_unicode
from harness.gen.similarity import EarlierTexts
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client, open_client
from harness.llm.reply import REFUSED, Body, Reply

RECIPE = "alpaca"


def make(call: StageCall, gen: AlpacaGen) -> RecipeResult:
    """The seeds, where wanted, and the teacher's tasks."""
    seeds = gen.seed_tasks()
    harvest = TaskHarvest(gen, seeds)
    client = asyncio.run(_grow(harvest, call))
    seed_examples = (
        [seed.example(RECIPE) for seed in seeds] if gen.include_seeds and harvest.kept else []
    )
    counts = {"wanted": gen.examples, "requests": harvest.requests, "seeds": len(seed_examples)}
    return RecipeResult(
        examples=seed_examples + harvest.kept,
        filters=[harvest.tally],
        counts=counts,
        notes=harvest.shortage("gen.max_requests", "examples"),
        seeds={"gen": gen.seed},
        client=client,
    )


async def _grow(harvest: "TaskHarvest", call: StageCall) -> Client:
    gen = harvest.gen
    async with open_client(call, gen.teacher, gen.transcript) as client:
        await harvest.grow(client, gen.requests_per_round, "generate", "examples")
    return client


class TaskHarvest(Harvest[SeedTask]):
    """The kept examples, and each dropped candidate's reason."""

    def __init__(self, gen: AlpacaGen, seeds: list[SeedTask]) -> None:
        tally = Tally("tasks", "tasks")
        super().__init__(tally, gen.examples, gen.tasks_per_reply, gen.max_requests)
        self.gen, self.seeds = gen, seeds
        self.kept: list[DatasetExample] = []
        self._earlier = EarlierTexts(gen.filter.max_similarity)
        for seed in seeds:
            self._earlier.add(seed.id, seed.instruction, (seed.instruction, seed.task.input))

    def draw(self, number: int) -> list[SeedTask]:
        return draw_seeds(self.seeds, self.gen.shown, self.gen.seed, number)

    def body(self, number: int, examples: Sequence[SeedTask]) -> Body:
        parts = {
            "count": str(self.gen.tasks_per_reply),
            "shown": str(self.gen.shown),
            "next": str(self.gen.shown + 1),
            "examples": "\n\n".join(render(i, s.task) for i, s in enumerate(examples, start=1)),
        }
        return prompt_body(fill(self.gen.prompt.text, parts), self.gen.sampling, number)

    def take(self, reply: Reply, examples: Sequence[SeedTask]) -> None:
        lineage = Lineage(RECIPE, "tasks", (reply.request,), [seed.id for seed in examples])
        blocks = split(reply.text)
        for index, block in enumerate(blocks):
            reason = self._fault(block.task, reply, is_last=index == len(blocks) - 1)
            if reason is None and block.task is not None:
                self._keep(block.task, lineage)
            else:
                self._drop(reason or Reason("unparsable"), block, reply.request, index)

    def _keep(self, task: AlpacaTask, lineage: Lineage) -> None:
        name = f"generated_{len(self.kept)}"
        self.tally.kept += 1
        self._earlier.add(name, task.instruction, (task.instruction, task.input))
        self.kept.append(DatasetExample(name, *task, lineage=(lineage,)))

    def _drop(self, reason: Reason, block: Block, request: int, index: int) -> None:
        content = {"text": block.text} if block.task is None else block.task._asdict()
        about = {"request": request, "index": index, **reason.about}
        self.tally.drop(reason.rule, **about, **content)

    def _fault(self, task: AlpacaTask | None, reply: Reply, is_last: bool) -> Reason | None:
        """The first rule that drops the task."""
        if reply.finish_reason == REFUSED:
            return Reason("refused")
        if not reply.text.strip():
            return Reason("empty_reply")
        if reply.finish_reason == "length" and is_last:
            return Reason("cut")
        if task is None or not task.instruction or not all(map(is_unicode, task)):
            return Reason("unparsable")
        if not task.output:
            return Reason("empty_output")
        if rule := filters.fault(task.instruction, self.gen.filter):
            return Reason(rule)
        key = (task.instruction, task.input)
        surplus = Reason("surplus") if len(self.kept) == self.gen.examples else None
        return self._earlier.fault(task.instruction, key) or surplus
