"""What the older version of the simulated judge left: its files, and how far it is from today's."""

from statistics import fmean

import pytest

from harness.answer.outputs import given_outputs
from harness.judge.judge import ERROR_RATE
from harness.row.reported import PublishedJudge
from harness.run.bridging import read_verdicts
from harness.stats.bridge import log_odds
from tests.helpers import ROOT
from tests.sim import retired

FOLDER = ROOT / "specs" / "smoke" / "twin" / "retired"


def test_the_files_of_the_checkout_are_what_it_writes() -> None:
    written = retired.files()
    assert {path.name for path in FOLDER.iterdir()} == written.keys()
    for name, text in written.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def test_todays_version_is_the_one_that_twins_ask() -> None:
    assert retired.ERROR_RATE == ERROR_RATE


@pytest.mark.parametrize("model", retired.RIGHT)
def test_it_finds_every_model_better_by_what_is_known(model: str) -> None:
    outputs = [row["output"] for row in retired.answers(model)]
    today, before = retired.chances(outputs), retired.chances(outputs, retired.SHIFT)
    for now, then in zip(today, before, strict=True):
        assert log_odds(then) - log_odds(now) == pytest.approx(retired.SHIFT)
    # Of a share of won and lost prompts together it is less, and never none.
    assert 0.5 < log_odds(fmean(before)) - log_odds(fmean(today)) < retired.SHIFT


@pytest.mark.parametrize("model", retired.BRIDGING)
def test_its_verdicts_are_of_those_chances_and_on_these_outputs(model: str) -> None:
    judge = PublishedJudge(model=retired.NAME, annotator=retired.NAME, baseline=retired.BASELINE)
    outputs = FOLDER / retired.ANSWERS.format(model)
    verdicts = read_verdicts(FOLDER / retired.VERDICTS.format(model), judge, outputs)
    chances = retired.chances([row["output"] for row in retired.answers(model)], retired.SHIFT)
    assert len(verdicts) == len(chances) == retired.PROMPTS
    error = (sum(chance * (1 - chance) for chance in chances)) ** 0.5 / len(chances)
    assert abs(fmean(verdicts.values()) - fmean(chances)) < 2.6 * error


def test_there_is_an_answer_to_every_prompt_of_a_twin() -> None:
    from harness.answer.prompts import read_prompts
    from harness.spec.prompts import PromptSet
    from harness.spec.twin import smoke_data

    smoke = ROOT / "specs" / "smoke"
    sets = [smoke / "prompts.jsonl", *sorted((smoke / "twin" / "sets").iterdir())]
    sets += [FOLDER / name for name in retired.PROMPT_SETS]
    for path in sets:
        prompts = read_prompts(PromptSet(file=smoke_data(path)), None)
        for model in retired.RIGHT:
            given = given_outputs(smoke_data(FOLDER / retired.ANSWERS.format(model)), prompts)
            assert len(given) == len(prompts)
