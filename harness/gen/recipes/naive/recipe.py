"""The naive method of study 003 (section 2.1): more tasks, then instances for old and new ones.

Three steps, whose prompts are specs/mini_lima_paper/prompts/prompt1.txt to prompt3.txt:
- `tasks`: prompts show `shown` seeds' names and instructions, drawn for each request from `seed`;
  `requests_per_round` requests are out at a time, until there are `growth` new tasks for each seed
  or `max_requests` were made. What was kept stands in tasks.jsonl;
- `given_instances`: each seed's own line; at most `given_instances` new instances are taken from
  the line that comes back;
- `new_instances`: a seed's line, drawn for each new task, as the example, and the task's name and
  instruction; at most `new_instances` instances are taken.

Replies are taken in the order of the requests, so that nothing depends on which came first. A
candidate is dropped when its reply is empty, a refusal, or cut within it; when it cannot be read; when
a new task's instruction is not in Latin letters, repeats one, or is closer than `max_similarity` to
one by ROUGE-L; when an instance belongs to another task, has no output, is one of those the prompt
gave, or repeats one; and when there are enough. The study tells of no filter at all.

`sampling.seed`, where given, grows by one with each request of the first step: a teacher that honours
it would otherwise reply the same to the same pairs.

Raises InputError for seeds that are faulty, too few or without names, and what harness.llm.client
raises.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample, Lineage, write_rows
from harness.data.dropped import Reason, Tally
from harness.errors import InputError
from harness.gen.ask import SHOWN, counting
from harness.gen.harvest import Harvest, draw_seeds
from harness.gen.objects import ReplyPiece, fields_of, find_objects, find_pairs, text_of
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.naive import NaiveGen
from harness.gen.refusals import is_other_script, is_refusal
from harness.gen.seeds import SeedTask, is_unicode
from harness.gen.similarity import EarlierTexts
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client, open_client
from harness.llm.reply import Body, Reply

RECIPE = "naive"
TASKS = "tasks.jsonl"
NAMED = 5
"""Seeds that a message about faulty ones names."""

_NEW_ID = re.compile(r"new_\d+_\d+")


class NewTask(NamedTuple):
    """A task that step `tasks` kept. `shown`: ids of the seeds in the prompt that it answers."""

    id: str
    name: str
    instruction: str
    request: int
    shown: Sequence[str]

    def row(self) -> Mapping[str, object]:
        """The task as it stands in tasks.jsonl."""
        return {**self._asdict(), "shown": list(self.shown)}


Instance = tuple[str, str]
"""Input and output."""


def make(call: StageCall, gen: NaiveGen) -> RecipeResult:
    """The seeds, where wanted, the new instances of their tasks, and those of the new tasks."""
    seeds = gen.seed_tasks()
    _check_ids(gen, seeds)
    tasks = NewTaskHarvest(gen, seeds)
    old, new = InstanceSieve("given_instances"), InstanceSieve("new_instances")
    client = asyncio.run(_ask(call, gen, seeds, tasks, old, new))
    generated = old.examples + new.examples
    seed_examples = [example for seed in seeds for example in seed.examples(RECIPE)]
    without = old.without + new.without
    return RecipeResult(
        examples=(seed_examples if gen.include_seeds else []) + generated if generated else [],
        filters=[step.tally for step in (tasks, old, new)],
        files=[TASKS],
        counts={
            "wanted_tasks": tasks.target,
            "new_tasks": len(tasks.kept),
            "tasks_without_new_instances": without,
            "task_requests": tasks.requests,
            "seeds": len(seed_examples) if gen.include_seeds else 0,
        },
        notes=_notes(tasks, without),
        seeds={"gen": gen.seed},
        client=client,
    )


def _drop_reply(tally: Tally, reply: Reply) -> None:
    """Of a reply in which nothing can be read."""
    if is_refusal(reply):
        rule = "refused"
    elif not reply.text.strip():
        rule = "empty_reply"
    else:
        rule = "cut" if reply.finish_reason == "length" else "unparsable"
    tally.drop(rule, request=reply.request, text=reply.text[:SHOWN])


def _drop_piece(tally: Tally, piece: ReplyPiece, reply: Reply) -> None:
    rule = "cut" if _is_cut(piece, reply) else "unparsable"
    tally.drop(rule, request=reply.request, text=piece.text[:SHOWN])


class NewTaskHarvest(Harvest[SeedTask]):
    """The first step: what its replies gave."""

    def __init__(self, gen: NaiveGen, seeds: Sequence[SeedTask]) -> None:
        target = round(gen.growth * len(seeds))
        super().__init__(Tally("tasks", "tasks"), target, gen.shown, gen.max_requests)
        self.gen, self.seeds = gen, seeds
        self.kept: list[NewTask] = []
        self._earlier = EarlierTexts(gen.max_similarity)
        for seed in seeds:
            self._earlier.add(seed.id, seed.instruction, _plain(seed.instruction))

    def draw(self, number: int) -> list[SeedTask]:
        return draw_seeds(self.seeds, self.gen.shown, self.gen.seed, number)

    def body(self, number: int, examples: Sequence[SeedTask]) -> Body:
        lines = "\n".join(_pair_line(seed.name, seed.instruction) for seed in examples)
        prompt = _place(self.gen.tasks_prompt.text, {"examples": lines})
        return prompt_body(prompt, self.gen.sampling, number)

    def take(self, reply: Reply, examples: Sequence[SeedTask]) -> None:
        seed_ids = [seed.id for seed in examples]
        pieces = find_objects(reply.text) or find_pairs(reply.text)
        if not pieces:
            _drop_reply(self.tally, reply)
        for piece in pieces:
            pair = _pair_of(piece, reply)
            if pair is None:
                _drop_piece(self.tally, piece, reply)
                continue
            name, instruction = pair
            reason = self._fault(instruction)
            if reason is None:
                self._keep(name, instruction, reply.request, seed_ids)
            else:
                about = {"request": reply.request, **reason.about, "name": name}
                self.tally.drop(reason.rule, **about, instruction=instruction)

    def _keep(self, name: str, instruction: str, request: int, seed_ids: Sequence[str]) -> None:
        task = NewTask(f"new_{len(self.kept)}", name, instruction, request, seed_ids)
        self.kept.append(task)
        self._earlier.add(task.id, instruction, _plain(instruction))
        self.tally.kept += 1

    def _fault(self, instruction: str) -> Reason | None:
        """The first rule that drops a pair."""
        if is_other_script(instruction):
            return Reason("other_script")
        surplus = Reason("surplus") if len(self.kept) == self.target else None
        return self._earlier.fault(instruction, _plain(instruction)) or surplus


class InstanceQuery(NamedTuple):
    """One request of the second or third step: instances of a task.

    ids: of the instances; so many are taken at most. seed_ids: of the seeds in the prompt.
    prompt_instances: the task's own instances in the prompt. before: the lineage of the task.
    """

    prompt: str
    ids: Sequence[str]
    name: str
    instruction: str
    seed_ids: Sequence[str]
    prompt_instances: Sequence[Instance] = ()
    is_classification: bool | None = None
    before: Sequence[Lineage] = ()


class InstanceSieve:
    """The second or third step: what its replies gave. `without`: how many tasks got nothing."""

    def __init__(self, step: str) -> None:
        self.tally = Tally(step, "instances")
        self.examples: list[DatasetExample] = []
        self.without = 0

    def take(self, reply: Reply, query: InstanceQuery) -> None:
        """Sort the reply to one task's request."""
        instances: list[Instance] = []
        pieces = find_objects(reply.text)
        if not pieces:
            _drop_reply(self.tally, reply)
        for piece in pieces:
            candidates = _instances_of(piece)
            if not candidates:
                _drop_piece(self.tally, piece, reply)
            for instance in candidates:
                rule = _fault(piece, instance, query, instances)
                if rule is None:
                    instances.append(instance)
                    continue
                self.tally.drop(
                    rule,
                    request=reply.request,
                    instruction=str((piece.fields or {}).get("instruction", query.instruction)),
                    input=instance[0],
                    output=instance[1],
                )
        self.without += not instances
        self.examples += _examples(query, instances, reply.request, self.tally.step)
        self.tally.kept = len(self.examples)


async def _ask(
    call: StageCall,
    gen: NaiveGen,
    seeds: Sequence[SeedTask],
    tasks: NewTaskHarvest,
    old: InstanceSieve,
    new: InstanceSieve,
) -> Client:
    async with open_client(call, gen.teacher, gen.transcript) as client:
        await tasks.grow(client, gen.requests_per_round, "tasks", "tasks")
        write_rows(call.folder / TASKS, (task.row() for task in tasks.kept))
        await _find_instances(client, gen, old, [_of_seed(gen, seed) for seed in seeds])
        examples = (_example_for(gen, seeds, number) for number in range(len(tasks.kept)))
        queries = [_of_new(gen, *pair) for pair in zip(tasks.kept, examples, strict=True)]
        await _find_instances(client, gen, new, queries)
    return client


async def _find_instances(
    client: Client, gen: NaiveGen, step: InstanceSieve, queries: Sequence[InstanceQuery]
) -> None:
    show = counting(Progress(step.tally.step, len(queries), "tasks"))
    bodies = [prompt_body(query.prompt, gen.sampling) for query in queries]
    for reply, query in zip(await client.gather(bodies, show), queries, strict=True):
        step.take(reply, query)


def _example_for(gen: NaiveGen, seeds: Sequence[SeedTask], number: int) -> SeedTask:
    """The seed that is the example for new task `number`."""
    return random.Random(f"{gen.seed}/example/{number}").choice(seeds)


def _of_seed(gen: NaiveGen, seed: SeedTask) -> InstanceQuery:
    return InstanceQuery(
        prompt=_place(gen.given_prompt.text, {"task": _whole_line(seed)}),
        ids=[f"{seed.id}_g{i}" for i in range(1, gen.given_instances + 1)],
        name=seed.name,
        instruction=seed.instruction,
        seed_ids=(seed.id,),
        prompt_instances=seed.instances,
        is_classification=seed.is_classification,
    )


def _of_new(gen: NaiveGen, task: NewTask, example: SeedTask) -> InstanceQuery:
    lines = {"example": _whole_line(example), "task": _pair_line(task.name, task.instruction)}
    return InstanceQuery(
        prompt=_place(gen.new_prompt.text, lines),
        ids=[f"{task.id}_{i}" for i in range(gen.new_instances)],
        name=task.name,
        instruction=task.instruction,
        seed_ids=(example.id,),
        before=(Lineage(RECIPE, "tasks", (task.request,), task.shown),),
    )


def _place(template: str, data: dict[str, str]) -> str:
    """The template with the data in their places; those without one follow, after an empty line."""
    rest = [text for name, text in data.items() if f"{{{name}}}" not in template]
    return "\n".join([fill(template, data), *(["", *rest] if rest else [])])


def _pair_line(name: str, instruction: str) -> str:
    return json.dumps({"name": name, "instruction": instruction}, ensure_ascii=False)


def _whole_line(seed: SeedTask) -> str:
    instances = [{"input": input_text, "output": output} for input_text, output in seed.instances]
    line = {"name": seed.name, "instruction": seed.instruction, "instances": instances}
    return json.dumps(line, ensure_ascii=False)


def _pair_of(piece: ReplyPiece, reply: Reply) -> tuple[str, str] | None:
    """Name and instruction, neither of them empty."""
    if piece.fields is None or _is_cut(piece, reply):
        return None
    name, instruction = (text_of(piece.fields.get(field)) for field in ("name", "instruction"))
    if not name or not instruction or not is_unicode(name + instruction):
        return None
    return name, instruction


def _is_cut(piece: ReplyPiece, reply: Reply) -> bool:
    return piece.is_open and reply.finish_reason == "length"


def _instances_of(piece: ReplyPiece) -> list[Instance]:
    """The instances in an object: a task's with `instances`, or an instance alone. One that cannot
    be read makes the object unreadable."""
    if piece.fields is None:
        return []
    held = piece.fields.get("instances", piece.fields)
    parsed = [_instance(value) for value in (held if isinstance(held, list) else [held])]
    instances = [instance for instance in parsed if instance is not None]
    return instances if len(instances) == len(parsed) else []


def _instance(value: Any) -> Instance | None:
    fields = fields_of(value) or {}
    input_text, output = text_of(fields.get("input") or ""), text_of(fields.get("output"))
    if input_text is None or output is None or not is_unicode(input_text + output):
        return None
    return input_text, output


def _fault(
    piece: ReplyPiece, instance: Instance, query: InstanceQuery, earlier: Sequence[Instance]
) -> str | None:
    """The first rule that drops an instance."""
    instruction = (piece.fields or {}).get("instruction")
    if instruction is not None and _plain(str(instruction)) != _plain(query.instruction):
        return "other_task"
    if not instance[1]:
        return "empty_output"
    if _plain_instance(instance) in map(_plain_instance, query.prompt_instances):
        return "given"
    if _plain_instance(instance) in map(_plain_instance, earlier):
        return "repeated"
    return "surplus" if len(earlier) == len(query.ids) else None


def _examples(
    query: InstanceQuery, instances: Iterable[Instance], request: int, step: str
) -> Iterator[DatasetExample]:
    lineage = (*query.before, Lineage(RECIPE, step, (request,), query.seed_ids))
    for name, (input_text, output) in zip(query.ids, instances, strict=False):
        yield DatasetExample(
            id=name,
            name=query.name,
            instruction=query.instruction,
            input=input_text,
            output=output,
            is_classification=query.is_classification,
            lineage=lineage,
        )


def _plain(text: str) -> str:
    """The text as it is compared: without regard to white space."""
    return " ".join(text.split())


def _plain_instance(instance: Instance) -> Instance:
    return _plain(instance[0]), _plain(instance[1])


def _check_ids(gen: NaiveGen, seeds: Sequence[SeedTask]) -> None:
    recipe_ids = {name for seed in seeds for name in _of_seed(gen, seed).ids}
    clashes = [seed.id for seed in seeds if seed.id in recipe_ids or _NEW_ID.fullmatch(seed.id)]
    if clashes:
        raise InputError(
            f"the seed ids {', '.join(clashes[:NAMED])} are ones that the recipe gives",
            hint="rename these seed tasks",
        )


def _notes(tasks: NewTaskHarvest, without: int) -> list[str]:
    notes = tasks.shortage("gen.max_requests", "new tasks")
    if without:
        every = len(tasks.seeds) + len(tasks.kept)
        notes.append(f"{without} of {every} tasks got no new instance")
    return notes
