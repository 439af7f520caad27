"""The seed tasks alone, a control: what a method of making more data has to beat."""

from typing import ClassVar, Literal

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.errors import InputError
from harness.gen.recipe import RecipeResult, Seeded
from harness.llm.estimate import Estimate, count_records
from harness.spec.base import Data


class SeedsGen(Seeded):
    """A control: the seed tasks alone, each with its first instance (or with all)."""

    code_version: ClassVar[int] = 1
    recipe: Literal["seeds_only"] = "seeds_only"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    all_instances: bool = False
    """Whether every instance of a task is an example, and not the first alone."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """Each seed task with its first instance, or with every one of them.

        Raises:
            InputError: the file cannot be read or has faulty lines, or a further instance would be
                called as another seed is.
        """
        seeds = self.seed_tasks()
        result = RecipeResult([], [Tally("seeds", "instances")], counts={"seeds": len(seeds)})
        [step] = result.filters
        for seed in seeds:
            for number, example in enumerate(seed.examples(self.recipe)):
                if number == 0 or self.all_instances:
                    result.examples.append(example)
                    continue
                step.drop(
                    "further_instance",
                    id=example.id,
                    instruction=example.instruction,
                    input=example.input,
                    output=example.output,
                )
        step.kept = len(result.examples)
        _check_ids(result.examples)
        return result

    def estimate(self, files: Files, examples: int) -> Estimate:
        return Estimate(examples=count_records(self.seeds, files))


def _check_ids(examples: list[DatasetExample]) -> None:
    ids: set[str] = set()
    for example in examples:
        if example.id in ids:
            raise InputError(
                f"the id {example.id!r} of a seed task is also that of another one's instance",
                "Rename the seed task, or leave out all_instances.",
            )
        ids.add(example.id)
