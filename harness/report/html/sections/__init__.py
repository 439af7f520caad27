"""The parts of a row's story."""

from harness.report.html.section import StorySection
from harness.report.html.sections import (
    about,
    answers,
    data,
    findings,
    reader,
    spec,
    stages,
    stated,
    training,
    verdicts,
)

SECTIONS: list[StorySection] = [
    about.SECTION,
    verdicts.SECTION,
    stated.SECTION,
    findings.SECTION,
    data.SECTION,
    training.SECTION,
    answers.SECTION,
    reader.SECTION,
    stages.SECTION,
    spec.SECTION,
]
"""In the order in which a row's story has them."""
