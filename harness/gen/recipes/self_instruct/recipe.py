"""Self-Instruct's recipe (arXiv 2212.10560): a teacher grows a list of instructions from seeds, says
of each whether it is a classification task, and writes instances for it.

What it does, and the option of SelfInstructGen that governs it; each step leaves its own file:
1. instructions.jsonl: each request shows `instructions.shown` instructions, at most
   `machine_shown` of them from earlier rounds, and asks for more; a candidate is dropped by
   harness.gen.filters' rules, as a repeat, or above `filter.max_similarity`. It ends with the round
   that reaches `count`, or after `max_requests`. With `examples` in place of `count`, steps 1 to 3 are
   gone through again, for about as many instructions as examples are lacking. With
   `classification_seeds_only`, only the classification tasks among the seeds are shown and compared
   with;
2. classification.jsonl: what is neither yes nor no is counted as unclear and taken as no;
3. instances.jsonl: the raw replies; `instances.tasks` restricts it to one kind of task. Steps 2 and 3
   may each have a `teacher` and an `api` of their own: one transcript and one budget hold the calls of
   all;
4. data.jsonl: replies taken apart, filtered, `prepare.max_instances` of a task drawn, shuffled;
   prompts.jsonl where `prepare.encodings` are given.

Requests of a round (of steps 2 and 3: all) go out together, and their replies are taken in the order
of the requests. A stage that was stopped asks again for what it lacks only: the transcript has the
rest. `instructions.sampling.seed`, where given, grows by one with each request.

Raises InputError for faulty or too few seeds and what harness.llm.client raises.
"""

import asyncio

from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample, write_rows
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.recipes.self_instruct.classification import classify
from harness.gen.recipes.self_instruct.instances import instantiate
from harness.gen.recipes.self_instruct.instructions import (
    INSTRUCTIONS,
    InstructionHarvest,
    instruct,
)
from harness.gen.recipes.self_instruct.prepare import PROMPTS, encode, prepare
from harness.gen.recipes.self_instruct.steps import RECIPE, StepResult
from harness.gen.seeds import SeedTask
from harness.llm.client import Client, open_client, price_in


def make(call: StageCall, gen: SelfInstructGen) -> RecipeResult:
    """The seeds, where wanted, and the instances that the teacher wrote."""
    seeds = gen.seed_tasks()
    result = RecipeResult(
        [], seeds={"instructions": gen.instructions.seed, "prepare": gen.prepare.seed}
    )
    asyncio.run(_make(call, gen, gen.prompt_seeds(seeds), gen.wanted(seeds), result))
    if gen.reply_source.others:
        result.teachers = {
            "instructions": gen.teacher.model,
            "classification": (gen.classification.teacher or gen.teacher).model,
            "instances": (gen.instances.teacher or gen.teacher).model,
        }
    if result.examples and gen.include_seeds:
        instances = [example for seed in seeds for example in seed.examples(RECIPE)]
        result.counts["seeds"] = len(instances)
        result.examples = instances + result.examples
    if gen.prepare.encodings is not None:
        rows = encode(result.examples, gen.prepare.encodings, gen.prepare.seed)
        result.counts["prompts"] = len(rows)
        write_rows(call.folder / PROMPTS, rows)
        result.files.append(PROMPTS)
    return result


def _clients(call: StageCall, gen: SelfInstructGen) -> tuple[Client, Client, Client]:
    """Of the steps that ask, each its own; the first opens and closes all."""
    client = open_client(call, gen.teacher, gen.transcript)
    own = [gen.classification.teacher or gen.teacher, gen.instances.teacher or gen.teacher]
    others = [client.beside(endpoint, price_in(call, endpoint)) for endpoint in own]
    return client, others[0], others[1]


async def _make(
    call: StageCall,
    gen: SelfInstructGen,
    seeds: list[SeedTask],
    wanted: int,
    result: RecipeResult,
) -> None:
    """The four steps, one after the other; `seeds` are those to show. Where `examples` says how many
    (`wanted` of them machine-made), the first three again until there are so many."""
    harvest = InstructionHarvest(gen, seeds, gen.instructions.count or wanted)
    most = None if gen.examples is None else wanted
    of_seeds = (gen.examples or 0) - wanted
    steps: dict[str, StepResult] = {}
    instances: list[list[DatasetExample]] = []

    def note(step: StepResult) -> None:
        """Its file is there as soon as it is done."""
        if step.file in steps:
            steps[step.file].add(step)
        write_rows(call.folder / step.file, steps.setdefault(step.file, step).rows)

    client, classifier, instance_maker = _clients(call, gen)
    async with client as result.client:
        while True:
            tasks = await instruct(client, gen, harvest)
            write_rows(call.folder / INSTRUCTIONS, harvest.rows)
            if tasks:
                step, tasks = await classify(classifier, gen, tasks)
                note(step)
                step, new = await instantiate(instance_maker, gen, tasks)
                note(step)
                instances += new
            made = len(prepare(instances, gen.prepare)[1])
            if most is None or made >= most or harvest.requests >= harvest.limit:
                break
            # About as many examples as instructions.
            harvest.target = harvest.tally.kept + most - made
    for step in (harvest.result(made + of_seeds), *steps.values()):
        result.files.append(step.file)
        result.filters.append(step.tally)
        result.counts |= step.counts
        result.notes += step.notes
    if not harvest.tasks:
        return
    tally, result.examples = prepare(instances, gen.prepare, most)
    Progress("prepare", tally.proposed, "instances").show(tally.proposed)
    result.filters.append(tally)
