"""What a study published of a row: numbers, who judged them, and the files behind them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from harness.artefact.metrics import metric_of
from harness.spec.base import NO_KEY, Data, DataPath, Spec
from harness.spec.provenance import Provenance
from harness.stats.bridge import FEWEST_PROMPTS

UNREPORTED = "unreported"
LARGEST = 10**9
"""Of a number without a range of its own: far above any score, and its square can be computed with."""


class PublishedJudge(Spec):
    """Who judged a published number."""

    model: Annotated[str, NO_KEY] | None = None
    """As its server, or the hub, calls it: `gpt-3.5-turbo-0301`."""
    annotator: Annotated[str, NO_KEY] | None = None
    """alpaca_eval's name of how the model was asked; of other judges the harness's kind of judge."""
    baseline: Annotated[str, NO_KEY] | None = None
    """Whose outputs it compared the model's with, as its stored verdicts name them (`generator_1`):
    `gpt4_1106_preview`. The row's judge has the same baseline where its `reference` is called so (a
    file, `gpt4_1106_preview_outputs.json`, a folder of it, a column, a row), and else counts as
    another. Or the sha256 of the reference's file, whatever the verdicts call it."""

    @model_validator(mode="after")
    def _says_something(self) -> "PublishedJudge":
        if not any((self.model, self.annotator, self.baseline)):
            raise ValueError("say the judge's model, and its annotator and baseline where known")
        return self


def _cell(value: Any) -> Any:
    if value == UNREPORTED:
        return {"value": None}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    if not isinstance(value, dict | Reported):
        raise ValueError(
            "a number is wanted, or a mapping such as {value: 39.5, standard_error: 1.7}, or the word "
            f"{UNREPORTED}"
        )
    return value


class Reported(Spec):
    """A published metric. Counts are of prompts."""

    value: float | None
    """None, written `unreported`: the study's table has the cell and leaves it empty."""
    standard_error: Annotated[float, Field(ge=0)] | None = None
    """As published, in the metric's own units."""
    judged: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    """How many prompts were judged."""
    expected: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    """How many there were to be judged."""
    judge: PublishedJudge | None = None
    """Who judged. Left open: reported.judge."""
    source: Provenance | None = None
    """Where the number stands, where that is not the row's own `source`."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Reported":
        if self.judged is not None and self.expected is not None and self.judged > self.expected:
            raise ValueError(f"judged is {self.judged}, more than the {self.expected} expected")
        if self.judged == 0 and self.value is not None:
            raise ValueError("judged is 0: no prompt was judged, so there is no value")
        return self


ReportedCell = Annotated[
    Reported,
    BeforeValidator(_cell, json_schema_input_type=Literal["unreported"] | float | Reported),
]
"""A published metric; its value alone; or the word `unreported`, where the study leaves the cell
empty."""


def _with_digest(data: DataPath) -> DataPath:
    if data.sha256 is None:
        where = data.path or "FILE"
        raise ValueError(
            "the sha256 of what was published is wanted: "
            f"{{path: {where}, sha256: ...}}, which `sha256sum {where}` prints"
        )
    return data


def _several(value: Any) -> Any:
    """null: none, in place of those of a spec that is extended."""
    if value is None:
        return ()
    return list(value) if isinstance(value, list | tuple) else [value]


PublishedFile = Annotated[Data, AfterValidator(_with_digest)]
PublishedFiles = Annotated[
    tuple[PublishedFile, ...],
    BeforeValidator(_several, json_schema_input_type=PublishedFile | list[PublishedFile] | None),
]


class BridgingModel(Spec):
    """A model whose answers the published judge has judged, as it has the row's."""

    outputs: PublishedFile
    """Its answers, to be judged by the row's judge; with their sha256."""
    annotations: PublishedFile
    """The published judge's verdicts on them, against its baseline (`reported.judge.baseline`), in
    AlpacaEval's form (docs/results.md, annotations.json); with their sha256."""
    prompts: Annotated[int, Field(ge=FEWEST_PROMPTS)] | None = None
    """A seeded sample of so many of the row's prompts, 30 at least, of each of several sets; left open,
    all of them."""


class ReportedNumbers(Spec, Mapping[str, Reported]):
    """Metric -> what was published of it; beside these, what they rest on."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ReportedCell] = Field(init=False)
    judge: PublishedJudge | None = None
    """Who judged, for all metrics that say no judge of their own; losses have none."""
    outputs: PublishedFiles = ()
    """The model's answers that the study itself published for this row; or a list of several files.
    Each with its sha256."""
    output_column: Annotated[str, NO_KEY] | None = None
    """The column of `outputs` with the model's answers, where files such as AlpaGasus's have several
    models'; left open: they are in alpaca_eval's format."""
    annotations: PublishedFiles = ()
    """The judge's verdicts that it published for this row, in AlpacaEval's form (docs/results.md,
    annotations.json); or a list of several files. Each with its sha256."""
    bridge: tuple[BridgingModel, ...] = ()
    """Where the row's judge is another: what tells how the two judges differ."""

    def __getitem__(self, metric: str) -> Reported:
        return self.__pydantic_extra__[metric]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.__pydantic_extra__)

    def __len__(self) -> int:
        return len(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _within_range(self) -> "ReportedNumbers":
        for metric, cell in self.items():
            of = metric_of(metric)
            low = -LARGEST if of.lowest is None else of.lowest
            high = LARGEST if of.highest is None else of.highest
            if cell.value is not None and not low <= cell.value <= high:
                raise ValueError(
                    f"{metric}{' is a percentage' * of.is_percentage}: {cell.value:g} does not lie "
                    f"between {low} and {high}"
                )
            if (cell.standard_error or 0) > high - low:
                raise ValueError(
                    f"{metric}: a standard error of {cell.standard_error:g} is more than the "
                    f"{high - low} that lie between its lowest and highest value"
                )
            if cell.judge is not None and metric_of(metric).is_loss:
                raise ValueError(f"{metric} is a loss, which nobody judges: leave its judge out")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> "ReportedNumbers":
        digests = [model.outputs.sha256 for model in self.bridge]
        if len(set(digests)) < len(digests):
            raise ValueError("bridge names the same outputs twice: it is one model all the same")
        return self

    @model_validator(mode="after")
    def _column_of_something(self) -> "ReportedNumbers":
        if self.output_column is not None and not self.outputs:
            raise ValueError("output_column names a column of outputs, and there are none")
        return self

    def judges(self) -> list[PublishedJudge | None]:
        """Who judged each published number that somebody judged; None where that is not said."""
        return [self.judge_of(name) for name in self if not metric_of(name).is_loss]

    def judge_of(self, metric: str) -> PublishedJudge | None:
        """Who judged a published number; None where that is not said, or nobody did."""
        if metric not in self or metric_of(metric).is_loss:
            return None
        return self[metric].judge or self.judge
