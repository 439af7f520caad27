"""What judges have in common."""

from typing import Annotated, Literal

from pydantic import Field

from harness.spec.base import NOT_KEY, Count, Data, Endpoint, Spec, SpecFile


class RowOutputs(Spec):
    """Another row's outputs: those of its first replicate."""

    spec: Annotated[SpecFile, Field(json_schema_extra=NOT_KEY)]
    """The other row's file. Its outputs' key, not its name, is in the key."""


Reference = Data | RowOutputs
"""A baseline's outputs in alpaca_eval's format, one for each instruction; or another row's."""


class AskingJudge(Spec):
    """What judges that ask a model have in common."""

    judge: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    asks: Count = 2
    """How often a prompt is asked at most while no reply to it can be read."""
    on_model_change: Literal["flag", "stop"] = "flag"
    """What to do when the server answers with another model than before."""
