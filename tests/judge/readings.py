"""Stored judgements of alpaca_eval's annotators, read again."""

from typing import Any

from harness.judge.kinds.alpaca_eval.readings import READERS, shows_model_first
from harness.judge.scores import BASELINE, MODEL


def preference_from(annotator: str, raw_completion: Any, instruction: str) -> float | None:
    """The preference (1: the baseline, 2: the model) that a raw completion comes to; None where it
    cannot be read."""
    reading = READERS[annotator](raw_completion)
    if reading is None or not shows_model_first(annotator, instruction):
        return reading
    return BASELINE + MODEL - reading
