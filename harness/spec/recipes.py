"""The recipes of the gen stage: every way in which the studies made or chose their data.

Defaults are the published values; each recipe names their source.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.spec.base import (
    Data,
    Endpoint,
    Hub,
    Sampling,
    Seed,
    Spec,
    TextFile,
    with_fields,
)

Count = Annotated[int, Field(ge=1)]
Similarity = Annotated[float, Field(ge=0, le=1)]

SELF_INSTRUCT_BLACKLIST = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
]  # fmt: skip
"""Words in instructions that a language model cannot follow; self-instruct 0b26ccaa."""
ALPACA_BLACKLIST = [*SELF_INSTRUCT_BLACKLIST, "video", "audio", "music", "flowchart", "diagram"]
"""stanford_alpaca 761dc5bf."""


class InstructionFilter(Spec):
    """Which new instructions are dropped before their similarity is looked at.

    Beside these: those that start with "Write a program", with punctuation or with a character
    outside ASCII. Defaults: self-instruct 0b26ccaa.
    """

    fewest_words: Annotated[int, Field(ge=0)] = 4
    most_words: Count = 150
    blacklist: list[Annotated[str, Field(min_length=1)]] = SELF_INSTRUCT_BLACKLIST
    max_similarity: Similarity = 0.7
    """Highest ROUGE-L F-measure against seeds and kept instructions; 1: only exact repeats go."""


class Taught(Spec):
    """A recipe that calls a teacher."""

    teacher: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the teacher, which is not called."""


class AlpacaGen(Taught):
    """Data generation as Stanford Alpaca did it: each reply holds several whole tasks.

    Defaults from stanford_alpaca 761dc5bf, but the teacher and the wording of the prompt.
    """

    recipe: Literal["alpaca"] = "alpaca"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    prompt: Annotated[TextFile, with_fields("examples", "next")]
    """Template with {count}, {shown}, {examples} and {next}; see specs/smoke/prompts/tasks.txt."""
    examples: Count
    """Machine-made examples to keep."""
    shown: Count = 3
    tasks_per_reply: Count = 20
    requests_per_round: Count = 5
    max_requests: Count | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    filter: InstructionFilter = InstructionFilter(blacklist=ALPACA_BLACKLIST)
    sampling: Sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=3072)
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""
    seed: Seed = 42


class Instructions(Spec):
    """Self-Instruct's first step: new instructions from examples of old ones."""

    count: Count
    """Machine-made instructions to reach; the last round's are all kept."""
    prompt: Annotated[TextFile, with_fields("examples", "next")]
    """Template with {examples} (a numbered list) and {next} (the number that comes next)."""
    shown: Count = 8
    """Instructions in a prompt."""
    machine_shown: Annotated[int, Field(ge=0)] = 2
    """At most so many of them machine-made; the rest are seeds."""
    requests_per_round: Count = 5
    max_requests: Count | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    filter: InstructionFilter = InstructionFilter()
    sampling: Sampling = Sampling(
        temperature=0.7,
        top_p=0.5,
        max_tokens=1024,
        frequency_penalty=0.0,
        presence_penalty=2.0,
        stop=["\n\n", "\n16", "16.", "16 ."],
    )
    seed: Seed = 42


class Classification(Spec):
    """Self-Instruct's second step: is a task a classification task?"""

    prompt: Annotated[TextFile, with_fields("instruction")]
    sampling: Sampling = Sampling(temperature=0.0, top_p=0.0, max_tokens=3, stop=["\n", "Task"])


class Instances(Spec):
    """Self-Instruct's third step: inputs and outputs for each instruction.

    Classification tasks are asked for their labels first, so that these are not all the same.
    """

    output_first: Annotated[TextFile, with_fields("instruction")]
    """For classification tasks."""
    input_first: Annotated[TextFile, with_fields("instruction")]
    """For all others."""
    batch: Count = 5
    """Tasks in file order that share a limit: upstream's requests held several prompts."""
    max_tokens: Count | None = 350
    """null: no limit is sent."""
    max_tokens_classification: Count | None = 300
    """For each task of a batch that holds a classification task."""
    sampling: Sampling = Sampling(
        temperature=0.0, top_p=0.0, presence_penalty=1.5, stop=["Example 6", "Task:"]
    )
    tasks: Literal["all", "classification", "generation"] = "all"
    """Which of the instructions are given instances."""


class Encodings(Spec):
    """Prompt forms, one of which is drawn for each example; they are written to prompts.jsonl."""

    with_input: Annotated[
        list[Annotated[TextFile, with_fields("instruction", "input")]], Field(min_length=1)
    ]
    without_input: Annotated[
        list[Annotated[TextFile, with_fields("instruction")]], Field(min_length=1)
    ]


class Prepare(Spec):
    """Self-Instruct's fourth step: replies taken apart, filtered, sampled, shuffled."""

    max_instances: Count = 5
    """Instances kept of one task, drawn from those that passed the filters."""
    encodings: Encodings | None = None
    seed: Seed = 123


class SelfInstructGen(Taught):
    """Self-Instruct's four steps (arXiv 2212.10560); defaults from self-instruct 0b26ccaa, but the
    teacher and the wording of the prompts."""

    recipe: Literal["self_instruct"] = "self_instruct"
    api: Literal["chat", "completion"] = "chat"
    """How the teacher is asked: chat completions, or text completions as upstream."""
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    classification_seeds_only: bool = False
    """Only classification tasks among the seeds are shown, and compared with."""
    instructions: Instructions
    classification: Classification
    instances: Instances
    prepare: Prepare = Prepare()
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""


class NaiveGen(Taught):
    """The naive method of seeds/003, section 2.1: more tasks from names and instructions (prompt 1),
    more instances for the given tasks (prompt 2), instances for the new tasks (prompt 3).

    The study states the prompts, that prompt 1 doubled the tasks, that prompt 2 asks for two
    instances and prompt 3 for five. How many pairs a prompt shows, and all sampling, it leaves open.
    """

    recipe: Literal["naive"] = "naive"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format, with names."""
    tasks_prompt: TextFile
    """Prompt 1; {examples} stands for the shown pairs, which else follow it."""
    given_prompt: TextFile
    """Prompt 2; {task} stands for the task's line, which else follows it."""
    new_prompt: TextFile
    """Prompt 3; {example} and {task} stand for the lines, which else follow it."""
    growth: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """New tasks for each given one; 1 doubles them, as the study did. 0: none."""
    shown: Count = 10
    """Pairs that prompt 1 shows."""
    requests_per_round: Count = 5
    max_requests: Count | None = None
    """Of prompt 1; left open: 20 + 4 times one for each `shown` wanted tasks."""
    given_instances: Count = 2
    """New instances at most taken for a given task."""
    new_instances: Count = 5
    """Instances at most taken for a new task."""
    max_similarity: Similarity = 1.0
    """As in other recipes; the study says nothing of a filter, so only exact repeats go."""
    sampling: Sampling = Sampling()
    include_seeds: bool = True
    seed: Seed = 42


class ExpandExample(Spec):
    """The worked example in prompt 4."""

    name: str
    instruction: str
    input: str = ""
    output: str
    expanded: str


class ExpandGen(Taught):
    """Outputs rewritten to be longer: seeds/003, section 2.2, prompt 4.

    The study prints the prompt, not its worked example nor the sampling.
    """

    recipe: Literal["expand"] = "expand"
    prompt: Annotated[TextFile, with_fields("instr", "output")]
    """Template with {name}, {instr}, {input}, {output} and, of the worked example, {ex_name},
    {ex_instr}, {ex_input}, {ex_output}, {ex_expanded}."""
    example: ExpandExample
    sampling: Sampling = Sampling()
    on_failure: Literal["keep", "drop"] = "keep"
    """What becomes of an example whose rewriting failed: it stays as it was, or goes. Counted."""


class RateGen(Spec):
    """Ratings by a judge, as AlpaGasus (arXiv 2307.08701; gpt4life/alpagasus 95ad3e52): a score
    from 0 to 5 on the reply's first line. Every example stays; `select` chooses by the rating.

    Upstream's judge was gpt-3.5-turbo-0301.
    """

    recipe: Literal["rate"] = "rate"
    judge: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    dimension: Literal["accuracy", "helpfulness"] = "accuracy"
    prompt: Annotated[TextFile, with_fields("instruction", "output")]
    """Template with {instruction}, {input}, {output} and {dimension}."""
    lowest: float = 0.0
    highest: float = 5.0
    """A score outside of these is no rating."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=256)

    @model_validator(mode="after")
    def _in_order(self) -> "RateGen":
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self


class SelectGen(Spec):
    """The examples whose rating reaches a threshold; AlpaGasus's is 4.5. Unrated ones go."""

    recipe: Literal["select"] = "select"
    threshold: float = 4.5


class RandomGen(Spec):
    """A control: so many examples drawn at random."""

    recipe: Literal["random_k"] = "random_k"
    k: Count
    seed: Seed = 42


class LongestGen(Spec):
    """A control: so many examples with the longest texts; of equals, the earlier one."""

    recipe: Literal["longest_k"] = "longest_k"
    k: Count
    of: Literal["output", "instruction", "example"] = "output"
    """Which text; `instruction` counts the input too, `example` everything."""
    unit: Literal["characters", "words"] = "characters"


class SeedsGen(Spec):
    """A control: the seed tasks alone, each with its first instance (or with all)."""

    recipe: Literal["seeds_only"] = "seeds_only"
    seeds: Data
    all_instances: bool = False


class HubData(Hub):
    """A data set on the hub."""

    config: str | None = None
    split: Annotated[str, Field(pattern="^[\\w.-]+$")] = "train"


class Columns(Spec):
    """Which column holds what. Left open: the usual names are looked for."""

    id: str | None = None
    name: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    messages: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    rating: str | None = None
    is_classification: str | None = None


class Sample(Spec):
    """A seeded subset, in the file's order."""

    k: Count
    seed: Seed = 42


class ImportGen(Spec):
    """Examples that others made: a local file, or a data set on the hub."""

    recipe: Literal["import"] = "import"
    file: Data | None = None
    """JSON (a list), JSONL, Parquet or, by its name, CSV; or a folder of such files, read in the order
    of names."""
    hub: HubData | None = None
    kind: Literal["instruction", "preference"] = "instruction"
    """Instruction data has outputs; preference data has chosen and rejected ones."""
    columns: Columns = Columns()
    turns: Literal["first", "last", "history", "drop"] = "first"
    """Of conversations with several turns: the first exchange alone; the last one, or each whole
    conversation, with the turns before it in `history`; or none of them.

    `last` and `history` differ in that `last` forgets the earlier turns. Preference data whose
    answers differ in a later turn alone need one of these two."""
    sample: Sample | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "ImportGen":
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of file, hub")
        return self


MAKERS = (AlpacaGen, SelfInstructGen, NaiveGen, SeedsGen, ImportGen)
"""Recipes that make examples; all others work on those of the step before."""

Gen = Annotated[
    AlpacaGen
    | SelfInstructGen
    | NaiveGen
    | ExpandGen
    | RateGen
    | SelectGen
    | RandomGen
    | LongestGen
    | SeedsGen
    | ImportGen,
    Field(discriminator="recipe"),
]
