"""What a row's judge judges beside the row where the published numbers have another judge: the answers
that the study published for the row, and other models' that the published judge has judged."""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.answer.answer import Answer
from harness.answer.engines.given import ReferenceEngine
from harness.row.load import LoadedRow
from harness.row.published_judge import another_judge
from harness.row.reported import PublishedJudge, ReportedNumbers
from harness.row.row import Eval, Replicates, Row
from harness.spec.base import DataPath
from harness.spec.hub import Sample
from harness.spec.prompts import PromptSet

PUBLISHED, BRIDGE = "published", "bridge"
WIN_RATE = "win_rate"
REJUDGED = (WIN_RATE, "rubric_score", "rating")
"""Metrics of which a grade is kept for each prompt."""


@dataclass(frozen=True)
class RetiredVerdicts:
    """What the published judge said of a bridging model's answers."""

    annotations: DataPath
    """In alpaca_eval's format."""
    judge: PublishedJudge


@dataclass(frozen=True)
class BridgeRow:
    """A bridging model's answers under the row's judge."""

    loaded: LoadedRow
    retired: RetiredVerdicts


def has_another_judge(row: Row) -> bool:
    """Whether a published number was judged by another judge than the row's, as far as the spec says,
    and the row's can be asked about other outputs."""
    judge = row.eval.judge if row.eval else None
    if judge is None or not judge.judges_outputs or judge.needs().is_recorded:
        return False
    judges = [row.reported.judge_of(name) for name, cell in row.reported.items()
              if cell.value is not None and name in REJUDGED]  # fmt: skip
    return any(published is not None and another_judge(published, judge) for published in judges)


def has_outputs(row: Row) -> bool:
    """Whether the study's own answers for the row are one file, in alpaca_eval's format."""
    return len(row.reported.outputs) == 1


def published_row(loaded: LoadedRow) -> LoadedRow | None:
    """The study's own answers for the row, judged as the row is; None where there are none, or where
    their published number needs no other judging."""
    row = loaded.row
    if not has_outputs(row) or not has_another_judge(row):
        return None
    assert row.eval is not None
    assert row.eval.answer is not None
    return _given(loaded, row.reported.outputs[0], PUBLISHED, row.eval.answer.prompts)


def bridge_rows(loaded: LoadedRow) -> Iterator[BridgeRow]:
    """The bridging models of a row, each with a sample of the row's prompts. None where its own answers
    were published, which need no bridge."""
    row = loaded.row
    judge = row.reported.judge_of(WIN_RATE)
    if judge is None or not has_another_judge(row) or has_outputs(row):
        return
    assert row.eval is not None
    assert row.eval.answer is not None
    prompts = row.eval.answer.prompts
    for number, model in enumerate(row.reported.bridge, start=1):
        sampled = prompts
        if model.prompts is not None:
            sampled = prompts.model_copy(update={"first": None, "sample": Sample(k=model.prompts)})
        given = _given(loaded, model.outputs, f"{BRIDGE}-{number}", sampled)
        yield BridgeRow(given, RetiredVerdicts(model.annotations, judge))


def _given(loaded: LoadedRow, outputs: DataPath, name: str, prompts: PromptSet) -> LoadedRow:
    row = loaded.row
    assert row.eval is not None
    engine = ReferenceEngine(outputs=outputs)
    update: dict[str, object] = {
        "row": f"{row.row}-{name}",
        "model": None,
        "gen": None,
        "data": None,
        "train": None,
        "eval": Eval(answer=Answer(prompts=prompts, engine=engine), judge=row.eval.judge),
        "replicates": Replicates(judge=row.replicates.judge),
        "reported": ReportedNumbers(),
        "sources": {},
    }
    return LoadedRow(row.model_copy(update=update), loaded.path, loaded.is_named)
