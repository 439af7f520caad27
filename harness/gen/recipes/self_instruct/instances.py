"""Self-Instruct's third step: inputs and outputs for each instruction."""

from collections.abc import Iterator, Sequence

from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample, Lineage
from harness.data.dropped import Tally
from harness.gen.ask import counting
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.recipes.self_instruct.parse import read_instances
from harness.gen.recipes.self_instruct.steps import RECIPE, GeneratedTask, StepResult
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client
from harness.llm.reply import Body, Kind, Reply

NAME = "instances"


async def instantiate(
    client: Client, gen: SelfInstructGen, tasks: Sequence[GeneratedTask]
) -> tuple[StepResult, list[list[DatasetExample]]]:
    """The good instances of each task."""
    step = StepResult(f"{NAME}.jsonl", Tally(NAME, NAME))
    show = counting(Progress(NAME, len(tasks), "tasks"))
    replies = await client.gather(list(_bodies(gen, tasks)), show, _api(gen))
    instances = [
        list(_examples(gen, step, task, reply)) for task, reply in zip(tasks, replies, strict=True)
    ]
    step.rows = [
        {
            "id": task.id,
            "instruction": task.instruction,
            "is_classification": task.is_classification,
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            "request": reply.request,
        }
        for task, reply in zip(tasks, replies, strict=True)
    ]
    step.counts["tasks_without_instance"] = sum(not examples for examples in instances)
    return step, instances


def _api(gen: SelfInstructGen) -> Kind:
    return gen.instances.api or gen.api


def _bodies(gen: SelfInstructGen, tasks: Sequence[GeneratedTask]) -> Iterator[Body]:
    settings = gen.instances
    for start in range(0, len(tasks), settings.batch):
        batch = tasks[start : start + settings.batch]
        most = settings.max_tokens
        if any(task.is_classification for task in batch):
            most = settings.max_tokens_classification
        for task in batch:
            template = settings.output_first if task.is_classification else settings.input_first
            prompt = fill(template.text, {"instruction": task.instruction})
            limit = {} if most is None else {"max_tokens": most}
            yield {**prompt_body(prompt, settings.sampling, kind=_api(gen)), **limit}


def _examples(
    gen: SelfInstructGen, step: StepResult, task: GeneratedTask, reply: Reply
) -> Iterator[DatasetExample]:
    lineage = (*task.lineage, Lineage(RECIPE, NAME, (reply.request,)))
    instances = read_instances(reply, task.is_classification, _api(gen) == "chat")
    for index, (input_text, output, rule) in enumerate(instances):
        name = f"{task.id}_{index}"
        if rule is not None:
            step.tally.drop(
                rule,
                request=reply.request,
                id=name,
                instruction=task.instruction,
                input=input_text,
                output=output,
            )
            continue
        step.tally.kept += 1
        yield DatasetExample(
            name,
            task.instruction,
            input_text,
            output,
            is_classification=task.is_classification,
            lineage=lineage,
        )
