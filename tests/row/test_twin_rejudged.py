"""Twins of rows whose judge is gone: judged beside by today's version of the simulated judge, read with
what an older version left; how far apart the two are is known."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from harness.answer.prompts import read_prompts
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.results.line import Cells
from harness.results.matrix import lines_of
from harness.results.verdict.verdict import Weighed
from harness.row.load import load_rows
from harness.row.twin import BRIDGING_PROMPTS, scaled
from harness.run.plan import Planner, RowPlan
from harness.spec.prompts import PromptSet
from harness.spec.twin import PROMPTS
from harness.stats.bridge import log_odds, of_log_odds
from tests.helpers import ROOT, command, evaluation, write_row
from tests.sim import retired

DIGEST = "0" * 64
OTHER = {"model": "gone", "annotator": "chatgpt", "baseline": "another"}
GIVEN: dict[str, Any] = {"path": "data:published.json", "sha256": DIGEST}


def row(folder: Path, sets: str = "", asked: dict[str, Any] | None = None, **reported: Any) -> Path:
    """`sets`: the names of its prompt sets, a letter each; `asked`: the judge's model."""
    parts = evaluation(folder, asked)
    parts["answer"]["engine"] = {"kind": "null", "output": "I do not know."}
    parts["judge"]["prompt"] = str(ROOT / "specs" / "smoke" / "prompts" / "judge.txt")
    if sets:
        parts["answer"]["prompts"] = {"files": dict.fromkeys(sets, "prompts.jsonl")}
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}} | reported
    nothing = {"model": None, "template": None, "gen": None, "train": None}
    return write_row(folder, eval=parts, reported=numbers, **nothing)


def bridging(count: int) -> list[dict[str, Any]]:
    outputs = [{"path": f"data:{n}.json", "sha256": f"{n}" * 64} for n in range(count)]
    return [{"outputs": each, "annotations": GIVEN, "prompts": 200} for each in outputs]


def made(folder: Path, spec: Path, metric: str = "win_rate") -> tuple[RowPlan, Weighed]:
    volume = folder / "runs"
    done = command("run", spec, "--scale", "tiny", "--volume", volume, "--executor", "local")
    assert done.exit_code == 0, done.output
    planner = Planner(Store(volume), Files(None, None), "local")
    (line,) = (
        line
        for line in lines_of(scaled(load_rows([spec])[0]), [planner])
        if line.cells.metric == metric
    )
    assert line.cells.verdict == "simulated"
    assert line.plan is not None
    return line.plan, line.weighed


def chances(outputs: dict[str, str], prompts: PromptSet, shift: float = 0.0) -> float:
    """Of a prompt set's answers, by prompt: their mean chance to win."""
    asked = [prompt.instruction for prompt in read_prompts(prompts, None)]
    rows = retired.evaluation_prompts(retired.PROMPTS)
    every = retired.chances([outputs.get(row["instruction"], "") for row in rows], shift)
    by_prompt = {row["instruction"]: chance for row, chance in zip(rows, every, strict=True)}
    return fmean(by_prompt[instruction] for instruction in asked)


def answered(model: str) -> dict[str, str]:
    return {row["instruction"]: row["output"] for row in retired.answers(model)}


@pytest.mark.parametrize("sets", ["", "ab"], ids=["one set", "several sets"])
def test_by_a_bridge_ours_comes_out_within_the_known_shift(tmp_path: Path, sets: str) -> None:
    # A real judge's twin errs as often as the older version; one that is simulated already, as it says.
    plan, weighed = made(tmp_path, row(tmp_path, sets, {"model": "judge"}, bridge=bridging(5)))
    terms = weighed.in_their_terms
    assert terms is not None
    assert terms.models == len(retired.BRIDGING)
    for model, other, shift in zip(retired.BRIDGING, plan.bridge, terms.shifts, strict=True):
        assert other.row.eval is not None
        assert other.row.eval.answer is not None
        prompts = other.row.eval.answer.prompts
        known = log_odds(chances(answered(model), prompts, retired.SHIFT)) - log_odds(
            chances(answered(model), prompts)
        )
        assert shift.prompts == (len(sets) or 1) * BRIDGING_PROMPTS
        assert abs(shift.value - known) < 2.6 * shift.error, model
    assert plan.row.eval is not None
    assert plan.row.eval.answer is not None
    ours = dict.fromkeys(answered(retired.OWN), "I do not know.")
    truth = chances(ours, plan.row.eval.answer.prompts, retired.SHIFT)
    assert terms.ours.low < truth < terms.ours.high
    # It is the shift that brings it there: today's version is at least half a unit lower.
    assert log_odds(truth) - log_odds(chances(ours, plan.row.eval.answer.prompts)) > 0.5
    assert terms.predicted.low < retired.SHIFT < terms.predicted.high
    assert terms.ours.value > of_log_odds(log_odds(weighed.reproduced.value / 100))  # type: ignore[union-attr]


@pytest.mark.parametrize("several", [False, True], ids=["one file", "several with a column"])
def test_against_the_published_answers_both_are_judged_by_todays_version(
    tmp_path: Path, several: bool
) -> None:
    files = [{**GIVEN, "path": f"data:{name}.json"} for name in ("a", "b")]
    published: dict[str, Any] = {"outputs": GIVEN}
    if several:
        published = {"outputs": files, "output_column": "theirs", "win_rate/a": {"value": 30.0}}
    plan, weighed = made(tmp_path, row(tmp_path, "ab" if several else "", **published))
    against = weighed.against
    assert against is not None
    assert plan.published is not None
    assert plan.row.eval is not None
    assert plan.row.eval.answer is not None
    prompts = plan.row.eval.answer.prompts
    ours = dict.fromkeys(answered(retired.OWN), "I do not know.")
    truth = 100 * (chances(ours, prompts) - chances(answered(retired.OWN), prompts))
    assert against.low < truth < against.high
    assert against.difference < 0
    if several:
        _, weighed = made(tmp_path, plan.spec, "win_rate/a")
        assert weighed.against is not None
        assert weighed.against.prompts == 4


def test_what_stands_for_the_studys_answers_is_called_simulated_and_held_against_no_real_number(
    tmp_path: Path,
) -> None:
    spec = row(tmp_path, asked={"model": "judge"}, outputs=GIVEN)
    _, weighed = made(tmp_path, spec)
    assert weighed.against is not None
    text, (metric,), (cells,) = verified(tmp_path, spec)
    assert "the simulated judge gives the simulated answers in place of the study's" in text
    assert "of the answers in place of the study's a simulated retired one" in text
    assert "ours simulated judge" in text
    for words in ("the study's own answers", "the published number", "of the published run"):
        assert words not in text
    assert metric["published_answers"] is None
    assert metric["reported"]["judge"] is None
    assert cells.published_rejudged is None


def test_simulated_verdicts_give_no_published_judges_terms(tmp_path: Path) -> None:
    spec = row(tmp_path, asked={"model": "judge"}, bridge=bridging(5))
    made(tmp_path, spec)
    text, (metric,), (cells,) = verified(tmp_path, spec)
    assert "in a simulated retired judge's terms ours is" in text
    assert "the published judge's terms" not in text
    assert metric["bridge"] is None
    assert (cells.in_their_terms, cells.in_their_terms_low) == (None, None)


def verified(folder: Path, spec: Path) -> tuple[str, list[dict[str, Any]], list[Cells]]:
    """A twin's verdict in words and as data, and its cells of the matrix."""
    volume = folder / "runs"
    asked = ("verify", spec, "--scale", "tiny", "--volume", volume, "--executor", "local")
    text = " ".join(command(*asked).output.split())
    metrics = json.loads(command(*asked, "--json").output)["metrics"]
    planner = Planner(Store(volume), Files(None, None), "local")
    lines = lines_of(scaled(load_rows([spec])[0]), [planner])
    return text, metrics, [line.cells for line in lines if line.cells.metric == "win_rate"]


def test_sets_beyond_those_large_enough_for_a_bridge_repeat_and_it_says_so(tmp_path: Path) -> None:
    spec = row(tmp_path, "abc", bridge=bridging(1))
    assert "prompt sets that repeat after 2" in scaled(load_rows([spec])[0]).row.deviations[-1]
    plan, weighed = made(tmp_path, spec)
    assert weighed.in_their_terms is not None
    assert plan.row.eval is not None
    assert plan.row.eval.answer is not None
    asked = read_prompts(plan.row.eval.answer.prompts, None)
    assert len(asked) == 3 * PROMPTS // len(retired.PROMPT_SETS)


def test_everything_that_is_judged_beside_is_marked_simulated(tmp_path: Path) -> None:
    plan, _ = made(tmp_path, row(tmp_path, bridge=bridging(1)))
    judged = [stage for other in plan.beside() for stage in other.final()]
    assert judged
    for stage in judged:
        assert stage.artefact is not None
        assert stage.artefact.manifest.simulated == ["judge"]


def test_a_row_whose_judge_is_the_published_one_has_a_twin_with_nothing_beside(
    tmp_path: Path,
) -> None:
    same = {"model": "judge", "annotator": "preference"}
    for published in ({"outputs": GIVEN}, {"bridge": bridging(2)}):
        spec = row(tmp_path, judge=same, **published)
        twin = scaled(load_rows([spec])[0]).row
        assert (twin.reported.outputs, twin.reported.bridge) == ((), ())
        assert twin.reported.judge == load_rows([spec])[0].row.reported.judge


def test_the_twin_says_that_an_older_version_stands_for_the_published_judge(tmp_path: Path) -> None:
    spec = row(tmp_path, bridge=bridging(2))
    twin = scaled(load_rows([spec])[0]).row
    assert "an older version of the simulated judge" in twin.deviations[-1]
    assert json.loads(twin.reported.model_dump_json())["judge"]["model"] == retired.NAME
    assert len(twin.reported.bridge) == 2
