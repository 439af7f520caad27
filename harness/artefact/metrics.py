"""Every metric that a stage can give: its unit, its range, and how it is written."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["percent", "points", "nats per token", "bits per byte", ""]


@dataclass(frozen=True)
class Metric:
    name: str
    unit: Unit = ""
    lowest: int | None = None
    highest: int | None = None
    """None, as `lowest`: not bounded, or by the judge's rubric."""
    digits: int = 2
    """Decimals that a person is shown."""
    higher_is_better: bool = True
    stage: Literal["train", "judge"] = "judge"
    """That gives it; a held-out loss may be a judge's too."""

    @property
    def is_loss(self) -> bool:
        return not self.higher_is_better

    @property
    def is_percentage(self) -> bool:
        return self.unit == "percent"


def _percentage(name: str) -> Metric:
    return Metric(name, "percent", 0, 100)


def _loss(name: str, unit: Unit) -> Metric:
    return Metric(name, unit, digits=4, higher_is_better=False, stage="train")


METRICS = {
    metric.name: metric
    for metric in (
        _percentage("win_rate"),
        _percentage("length_controlled_win_rate"),
        Metric("winning_score", "points", 0, 2),
        Metric("rubric_score", "points"),
        _percentage("arc_challenge"),
        _percentage("hellaswag"),
        _percentage("mmlu"),
        _percentage("truthfulqa_mc2"),
        _percentage("average"),
        _loss("held_out_loss", "nats per token"),
        _loss("bits_per_byte", "bits per byte"),
        _loss("train_loss", "nats per token"),
    )
}


def metric_of(name: str) -> Metric:
    """Also of `win_rate/koala`, the win rate on one of several prompt sets; a name that no stage gives
    (a spec may report any) has neither unit nor range."""
    kind = name.partition("/")[0]
    return METRICS.get(kind) or Metric(kind)
