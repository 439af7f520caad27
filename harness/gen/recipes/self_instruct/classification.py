"""Self-Instruct's second step: is a task a classification task?"""

from collections.abc import Sequence

from harness.artefact.events import Progress
from harness.data.dataset import Lineage
from harness.data.dropped import Tally
from harness.gen.ask import counting
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.gen.recipes.self_instruct.parse import read_classification
from harness.gen.recipes.self_instruct.steps import RECIPE, GeneratedTask, StepResult
from harness.llm.calls import fill, prompt_body
from harness.llm.client import Client
from harness.llm.reply import Body, Kind, Reply

NAME = "classification"


async def classify(
    client: Client, gen: SelfInstructGen, tasks: Sequence[GeneratedTask]
) -> tuple[StepResult, list[GeneratedTask]]:
    """The tasks that `instances.tasks` asks for, with their kinds.

    A reply that is neither yes nor no is counted as unclear and, as upstream, taken as no.
    """
    step = StepResult(f"{NAME}.jsonl", Tally(NAME, "tasks"))
    step.counts = {"classification_tasks": 0, "unclear_classifications": 0}
    show = counting(Progress(NAME, len(tasks), "tasks"))
    replies = await client.gather([_body(gen, task) for task in tasks], show, _api(gen))
    sorted_ = [_sort(gen, step, *pair) for pair in zip(tasks, replies, strict=True)]
    chosen = [task for task in sorted_ if gen.instances.tasks in ("all", _kind(task))]
    step.tally.kept = len(chosen)
    return step, chosen


def _api(gen: SelfInstructGen) -> Kind:
    return gen.classification.api or gen.api


def _body(gen: SelfInstructGen, task: GeneratedTask) -> Body:
    prompt = fill(gen.classification.prompt.text, {"instruction": task.instruction})
    return prompt_body(prompt, gen.classification.sampling, kind=_api(gen))


def _sort(
    gen: SelfInstructGen, step: StepResult, task: GeneratedTask, reply: Reply
) -> GeneratedTask:
    answer = read_classification(reply.text, _api(gen) == "chat")
    lineage = (*task.lineage, Lineage(RECIPE, NAME, (reply.request,)))
    task = task._replace(lineage=lineage, is_classification=answer is True)
    step.counts["classification_tasks"] += answer is True
    step.counts["unclear_classifications"] += answer is None
    step.rows.append(
        {
            "id": task.id,
            "instruction": task.instruction,
            "is_classification": task.is_classification,
            "unclear": answer is None,
            "reply": reply.text,
            "request": reply.request,
        }
    )
    if gen.instances.tasks not in ("all", _kind(task)):
        about = {"request": reply.request, "id": task.id, "instruction": task.instruction}
        step.tally.drop(f"{_kind(task)}_task", **about)
    return task


def _kind(task: GeneratedTask) -> str:
    return "classification" if task.is_classification else "generation"
