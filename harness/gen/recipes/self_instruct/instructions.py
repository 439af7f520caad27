"""Self-Instruct's first step: new instructions from examples of old ones."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from harness.data.dataset import Lineage
from harness.data.dropped import Reason, Tally
from harness.gen import filters
from harness.gen.harvest import Harvest
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.recipes.self_instruct.parse import collapse, read_instructions
from harness.gen.recipes.self_instruct.steps import RECIPE, GeneratedTask, StepResult
from harness.gen.seeds import SeedTask, is_unicode
from harness.gen.similarity import EarlierTexts
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client
from harness.llm.reply import Body, Reply

NAME, LIMIT = "instructions", "gen.instructions.max_requests"
INSTRUCTIONS = f"{NAME}.jsonl"
PER_REPLY = 7
"""Instructions in an ideal reply: eight are shown, and the published stops end it at number 16."""


async def instruct(
    client: Client, gen: SelfInstructGen, harvest: "InstructionHarvest"
) -> list[GeneratedTask]:
    """New instructions, up to the harvest's target unless `max_requests` end it before."""
    before = len(harvest.tasks)
    await harvest.grow(client, gen.instructions.requests_per_round, NAME, NAME, gen.api)
    return harvest.tasks[before:]


class _ListedInstruction(NamedTuple):
    """An instruction that can be shown and is compared with: a seed's or a new one."""

    id: str
    instruction: str


class InstructionHarvest(Harvest[_ListedInstruction]):
    """The instructions that the replies gave, and what became of each candidate."""

    def __init__(self, gen: SelfInstructGen, seeds: Sequence[SeedTask], target: int) -> None:
        """`seeds`: those that are shown and compared with, at least `shown`."""
        self.gen, self.settings = gen, gen.instructions
        super().__init__(Tally(NAME, NAME), target, PER_REPLY, gen.instructions.max_requests)
        self.tasks: list[GeneratedTask] = []
        self.rows: list[Mapping[str, object]] = []
        self._seeds = [_ListedInstruction(seed.id, seed.instruction) for seed in seeds]
        self._instructions = list(self._seeds)
        self._earlier = EarlierTexts(self.settings.filter.max_similarity)
        for seed in seeds:
            self._earlier.add(seed.id, seed.instruction, seed.instruction)

    def result(self, examples: int) -> StepResult:
        """Its part of the artefact. `examples`: made of it so far."""
        if self.gen.examples is None:
            counts, notes = {"wanted": self.target}, self.shortage(LIMIT, NAME)
        else:
            counts, notes = {"wanted_examples": self.gen.examples}, []
            if examples < self.gen.examples:
                notes = [
                    f"{examples} of {self.gen.examples} examples after {self.requests} requests, "
                    f"{LIMIT}' limit"
                ]
        counts["instruction_requests"] = self.requests
        return StepResult(INSTRUCTIONS, self.tally, self.rows, counts, notes)

    def draw(self, number: int) -> list[_ListedInstruction]:
        rng = random.Random(f"{self.settings.seed}/{number}")
        new = self._instructions[len(self._seeds) :]
        most = min(self.settings.machine_shown, self.settings.shown, len(new))
        examples = rng.sample(new, most) + rng.sample(self._seeds, self.settings.shown - most)
        rng.shuffle(examples)
        return examples

    def body(self, number: int, examples: Sequence[_ListedInstruction]) -> Body:
        numbered_list = _numbered(example.instruction for example in examples)
        parts = {"examples": numbered_list, "next": str(len(examples) + 1)}
        prompt = fill(self.settings.prompt.text, parts)
        return prompt_body(prompt, self.settings.sampling, number, self.gen.api)

    def take(self, reply: Reply, examples: Sequence[_ListedInstruction]) -> None:
        lineage = Lineage(RECIPE, NAME, (reply.request,), tuple(e.id for e in examples))
        rule, pieces = read_instructions(reply, len(examples) + 1, self.gen.api == "chat")
        for index, piece in enumerate(pieces):
            self._sort(rule, piece, index, lineage)

    def _sort(self, rule: str | None, piece: str, index: int, lineage: Lineage) -> None:
        # As upstream: `capitalize` also lowers everything after the first letter.
        instruction = piece if rule else collapse(piece).capitalize()
        reason = Reason(rule) if rule else self._fault(instruction)
        if reason is None:
            self._keep(instruction, lineage)
        else:
            about = {"request": lineage.requests[0], "index": index, **reason.about}
            self.tally.drop(reason.rule, **about, instruction=instruction)

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
        self.rows.append(
            {
                "id": task.id,
                "instruction": instruction,
                "most_similar": {self._instructions[i].instruction: score for i, score in nearest},
                "avg_similarity_score": mean,
                "request": lineage.requests[0],
                "shown": list(lineage.seeds),
            }
        )
        self.tally.kept += 1
        self.tasks.append(task)
        self._instructions.append(_ListedInstruction(task.id, instruction))
        self._earlier.add(task.id, instruction, instruction)


def _numbered(instructions: Iterable[str]) -> str:
    """The list in a prompt: each on a line, white space collapsed and colons at its end removed."""
    lines = (collapse(text).rstrip(":") for text in instructions)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))
