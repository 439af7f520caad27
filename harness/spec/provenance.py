"""Where a setting's value or a published number comes from, so that a reader can check it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.spec.base import HUB_ID, NO_KEY, REVISION, Spec

Status = Literal["same", "deviation", "assumption"]
Text = Annotated[str, Field(min_length=1), NO_KEY]


class Provenance(Spec):
    """A document; or a repository with commit and file; or an assumption, or a deviation, in words.

    An assumption or a deviation may have a document or a repository beside it: what it goes by, or
    departs from.
    """

    document: Text | None = None
    """The place in the study's document, in words: `README, Training, table 2`."""
    repository: Annotated[str, Field(pattern=HUB_ID)] | None = None
    """OWNER/NAME, with commit and file."""
    commit: Annotated[str, Field(pattern=REVISION)] | None = None
    """The full commit hash."""
    file: Text | None = None
    """A path in the repository."""
    line: Annotated[int, Field(ge=1)] | None = None
    """Of the file."""
    assumption: Text | None = None
    """What is not stated, what stands for it here, and what it could move."""
    deviation: Text | None = None
    """What the study has, what stands for it here, and why."""
    also: Text | None = None
    """A second source that says something else, in words."""

    @model_validator(mode="after")
    def _is_one_source(self) -> "Provenance":
        if self.document is not None and self.repository is not None:
            raise ValueError("give document or repository, and name the other in `also`")
        if self.assumption is not None and self.deviation is not None:
            raise ValueError("give assumption or deviation, not both")
        if self.repository is not None and (self.commit is None or self.file is None):
            raise ValueError("a repository is given with commit (40 hex digits) and file")
        if self.repository is None and (self.commit or self.file or self.line):
            raise ValueError("commit, file and line go with repository: OWNER/NAME")
        if self.repository is None and not (self.document or self.assumption or self.deviation):
            raise ValueError(
                "give document, or repository with commit and file, or assumption, or deviation"
            )
        return self

    @property
    def status(self) -> Status:
        """How the setting stands to its source."""
        if self.deviation is not None:
            return "deviation"
        return "same" if self.assumption is None else "assumption"

    def __str__(self) -> str:
        """In words, the place before what is said of it."""
        place = self.document or ""
        if self.repository is not None:
            line = f":{self.line}" if self.line else ""
            place = f"{self.repository}@{str(self.commit)[:8]} {self.file}{line}"
        also = f"also: {self.also}" if self.also else None
        return "; ".join(filter(None, (place, self.assumption or self.deviation, also)))
