"""Every metric that a stage can give: its unit, its range, and how it is written."""

import re
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
        return self.stage == "train"

    @property
    def is_percentage(self) -> bool:
        return self.unit == "percent"


def _percentage(name: str) -> Metric:
    return Metric(name, "percent", 0, 100)


def _loss(name: str, unit: Unit) -> Metric:
    return Metric(name, unit, digits=4, higher_is_better=False, stage="train")


TASKS = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2")
"""Open LLM Leaderboard's."""

METRICS = {
    metric.name: metric
    for metric in (
        _percentage("win_rate"),
        _percentage("length_controlled_win_rate"),
        Metric("winning_score", "points", 0, 2),
        Metric("rubric_score", "points"),
        Metric("rating", "points", 1, 10),
        *map(_percentage, TASKS),
        _percentage("average"),
        _loss("held_out_loss", "nats per token"),
        _loss("bits_per_byte", "bits per byte"),
        _loss("train_loss", "nats per token"),
    )
}


_SHARE = re.compile(
    r"(^|_)(acc|accuracy|exact_match|exact|em|f1|contains|mrr|precision|recall)(_|$)|^(pass|r)@\d+$"
    r"|^math_verify$|^acc_|_acc$|_accuracy$"
)
"""lm-eval's metrics that it gives from 0 to 1; here they are percentages, as tables have them."""
_LOWER = re.compile(r"perplexity|^bits_per_byte$|^(ter|wer|cer|brier_score|pct_stereotype|pct_invalid)$"
                    r"|^likelihood_diff$|toxicity|^amb_bias_score|^disamb_bias_score")  # fmt: skip
"""lm-eval's metrics of which less is better, by its tasks' `higher_is_better`."""


def _of_task(name: str, metric: str) -> Metric:
    """lm-eval's, `arc_easy/acc_norm` or `gsm8k/exact_match/flexible-extract`."""
    if _SHARE.search(metric):
        return _percentage(name)
    return Metric(name, higher_is_better=not _LOWER.search(metric))


def metric_of(name: str) -> Metric:
    """Also of `win_rate/koala`, the win rate on one of several prompt sets, and of `gsm8k/exact_match`,
    that of one of lm-eval's tasks; a name that no stage gives (a spec may report any) has neither unit
    nor range."""
    kind, _, rest = name.partition("/")
    if kind in METRICS and not (kind in TASKS and rest):
        return METRICS[kind]
    return _of_task(kind, rest.partition("/")[0]) if rest else Metric(kind)
