"""Self-Instruct's first step: new instructions from examples of old ones."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.artefact.events import Progress
from harness.data.dataset import Lineage
from harness.data.dropped import Reason, Tally
from harness.gen import filters
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.recipes.self_instruct.parse import collapse, read_instructions
from harness.gen.recipes.self_instruct.steps import RECIPE, GeneratedTask, StepResult
from harness.gen.seeds import SeedTask, is_unicode
from harness.gen.similarity import EarlierTexts
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client
from harness.llm.reply import Body, Reply

NAME = "instructions"
PER_REPLY = 7
"""Instructions in an ideal reply: eight are shown, and the published stops end it at number 16."""


async def instruct(
    client: Client, gen: SelfInstructGen, seeds: Sequence[SeedTask]
) -> tuple[StepResult, list[GeneratedTask]]:
    """New instructions, `count` of them unless `max_requests` end it before.

    `seeds`: those that are shown and compared with, at least `shown`.
    """
    harvest = InstructionHarvest(gen, seeds)
    progress = Progress(NAME, gen.instructions.count, NAME)
    while not harvest.is_done:
        harvest.take(await client.gather(harvest.next_round(), kind=gen.api))
        dropped = harvest.step.tally.dropped.total()
        progress.show(len(harvest.tasks), requests=harvest.requests, dropped=dropped)
    harvest.step.counts |= {
        "wanted": gen.instructions.count,
        "instruction_requests": harvest.requests,
    }
    return harvest.step, harvest.tasks


class _ListedInstruction(NamedTuple):
    """An instruction that can be shown and is compared with: a seed's or a new one."""

    id: str
    instruction: str


class InstructionHarvest:
    """The instructions that the replies gave, and what became of each candidate."""

    def __init__(self, gen: SelfInstructGen, seeds: Sequence[SeedTask]) -> None:
        self.gen, self.settings = gen, gen.instructions
        self.tasks: list[GeneratedTask] = []
        self.requests = 0
        self.step = StepResult(f"{NAME}.jsonl", Tally(NAME, NAME))
        self._round: list[list[_ListedInstruction]] = []
        self._seeds = [_ListedInstruction(seed.id, seed.instruction) for seed in seeds]
        self._instructions = list(self._seeds)
        self._earlier = EarlierTexts(self.settings.filter.max_similarity)
        for seed in seeds:
            self._earlier.add(seed.id, seed.instruction, seed.instruction)

    @property
    def limit(self) -> int:
        """Requests after which it ends, however few instructions there are."""
        ideal = math.ceil(self.settings.count / PER_REPLY)
        return self.settings.max_requests or 20 + 4 * ideal

    @property
    def is_done(self) -> bool:
        return len(self.tasks) >= self.settings.count or self.requests >= self.limit

    def next_round(self) -> list[Body]:
        """The next requests. Each depends on its number and on the rounds before, not on its own."""
        end = min(self.requests + self.settings.requests_per_round, self.limit)
        numbers = range(self.requests, end)
        self._round = [self._draw(number) for number in numbers]
        return [self._body(n, examples) for n, examples in zip(numbers, self._round, strict=True)]

    def take(self, replies: Sequence[Reply]) -> None:
        """Sort the replies to the last round's requests, in the order of the requests."""
        for reply, examples in zip(replies, self._round, strict=True):
            self.requests += 1
            lineage = Lineage(
                RECIPE, NAME, (reply.request,), tuple(example.id for example in examples)
            )
            rule, pieces = read_instructions(reply, len(examples) + 1, self.gen.api == "chat")
            for index, piece in enumerate(pieces):
                self._sort(rule, piece, index, lineage)

    def _draw(self, number: int) -> list[_ListedInstruction]:
        rng = random.Random(f"{self.settings.seed}/{number}")
        new = self._instructions[len(self._seeds) :]
        most = min(self.settings.machine_shown, self.settings.shown, len(new))
        examples = rng.sample(new, most) + rng.sample(self._seeds, self.settings.shown - most)
        rng.shuffle(examples)
        return examples

    def _body(self, number: int, examples: Sequence[_ListedInstruction]) -> Body:
        numbered_list = _numbered(example.instruction for example in examples)
        parts = {"examples": numbered_list, "next": str(len(examples) + 1)}
        prompt = fill(self.settings.prompt.text, parts)
        return prompt_body(prompt, self.settings.sampling, number, self.gen.api)

    def _sort(self, rule: str | None, piece: str, index: int, lineage: Lineage) -> None:
        # As upstream: `capitalize` also lowers everything after the first letter.
        instruction = piece if rule else collapse(piece).capitalize()
        reason = Reason(rule) if rule else self._fault(instruction)
        if reason is None:
            self._keep(instruction, lineage)
        else:
            about = {"request": lineage.requests[0], "index": index, **reason.about}
            self.step.tally.drop(reason.rule, **about, instruction=instruction)

    def _fault(self, instruction: str) -> Reason | None:
        """The first rule that drops the instruction."""
        if not is_unicode(instruction):
            return Reason("unparsable")
        if rule := filters.fault(instruction, self.settings.filter):
            return Reason(rule)
        return self._earlier.fault(instruction, instruction)

    def _keep(self, instruction: str, lineage: Lineage) -> None:
        nearest, mean = self._earlier.pool.nearest(instruction)
        task = GeneratedTask(f"generated_{len(self.tasks)}", instruction, (lineage,))
        self.step.rows.append(
            {
                "id": task.id,
                "instruction": instruction,
                "most_similar": {self._instructions[i].instruction: score for i, score in nearest},
                "avg_similarity_score": mean,
                "request": lineage.requests[0],
                "shown": list(lineage.seeds),
            }
        )
        self.step.tally.kept += 1
        self.tasks.append(task)
        self._instructions.append(_ListedInstruction(task.id, instruction))
        self._earlier.add(task.id, instruction, instruction)


def _numbered(instructions: Iterable[str]) -> str:
    """The list in a prompt: each on a line, white space collapsed and colons at its end removed."""
    lines = (collapse(text).rstrip(":") for text in instructions)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))
