"""The alpaca_eval package's annotators."""

from typing import Literal

from pydantic import model_validator

from harness.judge.judge import AskingJudge, Reference
from harness.spec.base import Data, Spec
from harness.spec.hub import HubData


class LengthControl(Spec):
    """What AlpacaEval's length-controlled win rate is computed with beside the annotations: each
    instruction's difficulty, and the annotations of gamed models that regularise the fit. Both stand
    in `df_gamed.csv` of the hub's data set tatsu-lab/alpaca_eval. Exactly one of folder, hub."""

    folder: Data | None = None
    """A local folder that has the file."""
    hub: HubData | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "LengthControl":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


class AlpacaEvalJudge(AskingJudge):
    """The alpaca-eval package itself, its calls made by the harness's client."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    annotator: str = "chatgpt"
    """One of the package's annotator configurations."""
    reference: Reference
    length_control: LengthControl | None = None
    """Given: the length-controlled win rate beside the raw one. Defined for AlpacaEval's own 805
    instructions alone."""


ANNOTATOR_CHARACTERS = 1200
"""Of an alpaca_eval annotator's prompt."""
