"""What a row's judge judges beside the row where the published numbers have another judge: the answers
that the study published for the row, and other models' that the published judge has judged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from harness.answer.answer import Answer
from harness.answer.engines.given import ReferenceEngine
from harness.row.load import LoadedRow
from harness.row.published_judge import another_judge
from harness.row.reported import PublishedJudge, ReportedNumbers
from harness.row.row import Eval, Replicates, Row
from harness.spec.base import DataPath
from harness.spec.hub import Sample
from harness.spec.prompts import OutputFiles, PromptSet

PUBLISHED, BRIDGE = "published", "bridge"
WIN_RATE, OUTPUT = "win_rate", "output"
AGAINST_ITSELF = (
    "the row's own answers are the study's own (reported.outputs): they would be held against "
    "themselves"
)
OWN_BRIDGE = (
    "the row's own answers are those of a bridging model (reported.bridge): it would tell of itself "
    "what the published judge says of it"
)
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


def is_rejudged(metric: str) -> bool:
    """Also of a prompt set's own score, `win_rate/SET`."""
    return metric.partition("/")[0] in REJUDGED


def has_another_judge(row: Row) -> bool:
    """Whether a published number was judged by another judge than the row's, as far as the spec says,
    and the row's can be asked about other outputs."""
    judge = row.judge
    if judge is None or not judge.judges_outputs or judge.needs().is_recorded:
        return False
    judges = [row.reported.judge_of(name) for name, cell in row.reported.items()
              if cell.value is not None and name in REJUDGED]  # fmt: skip
    return any(published is not None and another_judge(published, judge) for published in judges)


def published_outputs(row: Row) -> DataPath | OutputFiles | None:
    """The study's own answers for the row: one file in alpaca_eval's format, else files that are read
    as prompt sets are, each called as the row's prompt set that its name has in it."""
    published = row.reported
    if not published.outputs:
        return None
    if len(published.outputs) == 1 and published.output_column is None:
        return published.outputs[0]
    sets = (row.answer.prompts.files or {}) if row.answer else {}
    files: dict[str, DataPath] = {}
    for number, file in enumerate(published.outputs, start=1):
        of_set = next((name for name in sets if name in file.file_name), "")
        free = of_set and of_set not in files
        files[of_set if free else str(number)] = file
    return OutputFiles(files=files, output=published.output_column or OUTPUT)


def published_row(loaded: LoadedRow) -> LoadedRow | None:
    """The study's own answers for the row, judged as the row is; None where there are none, where
    their published number needs no other judging, or where they are what the row itself judges."""
    row = loaded.row
    outputs = published_outputs(row)
    if outputs is None or not has_another_judge(row) or judges_published(row):
        return None
    assert row.answer is not None
    return _given(loaded, outputs, PUBLISHED, row.answer.prompts)


def judges_published(row: Row) -> bool:
    """Whether the row's own answers are said to be the study's own, by the same sha256."""
    own = row.answer.engine.given_outputs if row.answer is not None else None
    theirs = published_outputs(row)
    return own is not None and theirs is not None and digests(own) == digests(theirs)


def digests(
    outputs: DataPath | OutputFiles,
    digest: Callable[[DataPath], str | None] = attrgetter("sha256"),
) -> set[str | None]:
    """Of what the answers are read from, and the column's name. `digest`: of one file."""
    if isinstance(outputs, OutputFiles):
        return {outputs.output, *map(digest, outputs.files.values())}
    return {digest(outputs)}


def bridge_rows(loaded: LoadedRow) -> Iterator[BridgeRow]:
    """The bridging models of a row, each with a sample of the row's prompts, of each of several sets.
    None where its own answers were published, which need no bridge."""
    row = loaded.row
    judge = row.reported.judge_of(WIN_RATE)
    if judge is None or not has_another_judge(row) or row.reported.outputs:
        return
    assert row.answer is not None
    prompts = row.answer.prompts
    for number, model in enumerate(row.reported.bridge, start=1):
        sampled = prompts
        if model.prompts is not None:
            sampled = prompts.model_copy(update={"first": None, "sample": Sample(k=model.prompts)})
        given = _given(loaded, model.outputs, f"{BRIDGE}-{number}", sampled)
        yield BridgeRow(given, RetiredVerdicts(model.annotations, judge))


def _given(
    loaded: LoadedRow, outputs: DataPath | OutputFiles, name: str, prompts: PromptSet
) -> LoadedRow:
    row = loaded.row
    engine = ReferenceEngine(outputs=outputs)
    own = row.answer.strip if row.answer else None
    # Given outputs stay as they are, said or not: said as the row says it, a row that judges the very
    # same outputs shares the artefact.
    strip = False if own is False else None
    update: dict[str, object] = {
        "row": f"{row.row}-{name}",
        "model": None,
        "gen": None,
        "data": None,
        "train": None,
        "eval": Eval(answer=Answer(prompts=prompts, engine=engine, strip=strip), judge=row.judge),
        "replicates": Replicates(judge=row.replicates.judge),
        "reported": ReportedNumbers(),
        "sources": {},
    }
    return LoadedRow(row.model_copy(update=update), loaded.path, loaded.is_named)
