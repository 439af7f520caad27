"""Prompt sets."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.spec.base import Count, Data, Name, Spec, if_set
from harness.spec.hub import HubData, Sample


class HubPrompts(HubData):
    """A prompt set on the hub: a data set's split, or one of its files."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$")] | None = None
    """A JSON, JSONL or Parquet file of the data set, in place of `config` and `split`."""


class PromptColumns(Spec):
    """Which column holds what. Left open: the usual names are looked for."""

    instruction: str | None = None
    """The instruction."""
    input: str | None = None
    """The instruction's input."""
    system: str | None = None
    """A system text, which the model is given and judges are not shown."""
    dataset: str | None = None
    """Which of several sets a prompt is of; scores are told for each."""
    output: str | None = None
    """A given answer; only the judge held_out_loss needs one."""
    messages: str | None = None
    """Of conversations: a user's turn is answered (`turns` of the set says which); the turn after it is
    the answer."""


class PromptSet(Spec):
    """Instructions to answer: exactly one of file, files, hub.

    JSON (a list), JSONL or Parquet. Understood as they are: AlpacaEval's files, the test sets of
    AlpaGasus (Koala, Self-Instruct, Vicuna, WizardLM), conversations such as FineTome's.
    """

    file: Data | None = None
    """A file of prompts."""
    files: Annotated[dict[Name, Data], Field(min_length=1)] | None = None
    """Several sets by name; scores are told for each of them too."""
    hub: HubPrompts | None = None
    """A prompt set on the hub, at a fixed revision."""
    columns: PromptColumns = PromptColumns()
    """Which column holds what, where the names are not the usual ones."""
    turns: Literal["last", "first"] = if_set("last")
    """Of conversations: the last user turn, after the turns before it; or the first by itself, without
    a system text."""
    first: Count | None = None
    """Only the first so many; of each of `files`."""
    sample: Sample | None = None
    """A seeded subset, in the set's order; of each of `files`."""

    @model_validator(mode="after")
    def _one_place(self) -> "PromptSet":
        if sum(s is not None for s in (self.file, self.files, self.hub)) != 1:
            raise ValueError(
                "give exactly one of file, files, hub (one that an extended file gives goes with null)"
            )
        if self.first is not None and self.sample is not None:
            raise ValueError("give either first or sample, not both")
        return self


class OutputFiles(Spec):
    """Given outputs that stand beside their prompts, in a column that may be one of several models':
    files such as AlpaGasus's, which are read as prompt sets are."""

    files: Annotated[dict[Name, Data], Field(min_length=1)]
    """The files, each of a prompt set by name."""
    output: str
    """The column of the outputs."""


GivenOutputs = Data | OutputFiles
"""A file in alpaca_eval's format, or several with a column of outputs."""
