"""card.json, format 1: what a data set holds, in figures. Numbers stand beside the number of which they
are a part."""

from typing import Literal, NotRequired, TypedDict

Bin = TypedDict("Bin", {"from": float, "to": float, "count": int})
"""How many are from `from` to `to`; whole numbers include `to`, others only in the last bin."""


class Summary(TypedDict):
    """Of no values: None and nothing."""

    mean: float | None
    percentiles: dict[str, float]
    """`0` to `100`, linear between ranks."""


class LengthSummary(Summary):
    n: int
    bins: list[Bin]


class FieldLengths(TypedDict):
    """Text -> its lengths. The texts: instruction, input (where there is one), and output, or chosen
    and rejected."""

    words: dict[str, LengthSummary]
    tokens: dict[str, LengthSummary] | None


class TokenizerUsed(TypedDict):
    name: str
    not_counted: str | None
    """The reason, where tokens could not be counted with it."""


class TeacherCalls(TypedDict):
    """What one of several teachers was asked for, and what its calls took."""

    model: str
    steps: list[str]
    calls: int
    prompt_tokens: int
    completion_tokens: int


class FilterCounts(TypedDict):
    """proposed = kept + all dropped."""

    step: str
    unit: str
    proposed: int
    dropped: dict[str, int]
    kept: int


class ClassifiedCounts(TypedDict):
    yes: int
    known: int


class History(TypedDict):
    """Examples with earlier turns; most_turns: exchanges."""

    examples: int
    most_turns: int


class System(TypedDict):
    """Examples with a system prompt, and distinct ones."""

    examples: int
    distinct: int


class Novelty(Summary):
    """Each example's highest ROUGE-L F-measure with an earlier example's instruction."""

    examples: int
    comparable: int
    """Examples with an earlier one and a token to compare."""
    measured: int
    """Of these."""
    sample_seed: int | None
    """None where that is all of them."""
    bins: list[Bin]


class NounCount(TypedDict):
    noun: str
    count: int


class VerbCount(TypedDict):
    verb: str
    count: int
    nouns: list[NounCount]


class Verbs(TypedDict):
    """Of the distinct instructions. entropy_bits: Shannon's, of the pairs' distribution over the
    instructions that have one."""

    method: str
    instructions: int
    with_verb: int
    with_pair: int
    distinct_verbs: int
    distinct_pairs: int
    entropy_bits: float
    top: list[VerbCount]


class Duplicates(TypedDict):
    """Examples that repeat an earlier one."""

    example: int
    """Instruction, input and output, or chosen and rejected."""
    instruction_input: int
    instruction: int


class Ratings(TypedDict):
    rated: int
    unrated: int
    mean: float | None
    bins: list[Bin]
    """Single values where there are few."""


class Rewritten(TypedDict):
    """Of a step that rewrote outputs, in words."""

    given: int
    compared: int
    """Given examples that are still there."""
    longer: int
    as_long: int
    shorter: int
    before: LengthSummary
    after: LengthSummary


class Card(TypedDict):
    format: int
    recipe: str
    simulated: bool
    """Whether a simulated teacher or judge had a hand in it."""
    kind: Literal["instruction", "preference"]
    examples: int
    counts: dict[str, int]
    """From the recipe: requests, seeds, ..."""
    teachers: NotRequired[list[TeacherCalls]]
    """Of a recipe whose steps have several."""
    filters: list[FilterCounts]
    origins: dict[str, int]
    with_input: int
    classification: ClassifiedCounts
    history: History | None
    system: System | None
    tokenizer: TokenizerUsed | None
    """None where the row has none."""
    lengths: FieldLengths
    novelty: Novelty
    verbs: Verbs
    duplicates: Duplicates
    ratings: Ratings | None
    rewritten: Rewritten | None
