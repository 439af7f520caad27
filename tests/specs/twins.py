"""Scaled-down twins of the studies' rows: which few cover all, and whether all that ran are filled.

- `harness run --scale tiny --volume DIR $(python -m tests.specs.twins all)`
- `python -m tests.specs.twins check --volume DIR`

`few` in place of `all` names COVERING's, which continuous integration runs; `check few` looks at these.
`cover` prints what COVERING should be.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.cli.workspace import FROM_SCRATCH
from harness.gen.recipes.importing import ImportGen
from harness.judge.judge import RowOutputs
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.judge.kinds.flow_judge import RubricJudge
from harness.results.line import MatrixLine
from harness.results.matrix import lines_of
from harness.row.load import LoadedRow, load_rows
from harness.row.rejudged import (
    BRIDGE,
    PUBLISHED,
    WIN_RATE,
    bridge_rows,
    is_rejudged,
    published_outputs,
    published_row,
)
from harness.row.row import Row
from harness.row.twin import scaled
from harness.run.plan import Planner
from harness.spec.prompts import OutputFiles
from harness.spec.template import Template

STUDIES = tuple(
    Path("specs") / name
    for name in ("mini_lima", "mini_lima_assignment", "mini_lima_paper", "orpo_lab", "alpagasus2")
)
COVERING: tuple[str, ...] = (
    "specs/alpagasus2/13b.yaml",
    "specs/alpagasus2/13b_benchmarks.yaml",
    "specs/alpagasus2/13b_published_answers.yaml",
    "specs/alpagasus2/from_scratch/control_random_k.yaml",
    "specs/mini_lima/control_null.yaml",
    "specs/mini_lima/from_scratch/line_04_338_default_prompt1.yaml",
    "specs/mini_lima/from_scratch/line_10_1735_qwen_prompt2.yaml",
    "specs/mini_lima/from_scratch/unlisted_683_filtered_qwen_prompt.yaml",
    "specs/mini_lima/line_02_338_default_prompt.yaml",
    "specs/mini_lima_paper/table2_0.5b_improved.yaml",
    "specs/orpo_lab/base_correctness.yaml",
    "specs/orpo_lab/control_longest_k.yaml",
    "specs/orpo_lab/orpo_code.yaml",
    "specs/orpo_lab/selection/mistral_small.yaml",
    "specs/orpo_lab/selection/phi_3.5_mini.yaml",
)
"""Specs whose twins take every way that any of the studies' rows takes: see `ways`. What `cover`
prints; continuous integration runs them."""

Way = tuple[str, str]


def ways(loaded: LoadedRow) -> set[Way]:
    """What of the harness a row's twin goes through: recipes, training, templates, judges, engines, and
    what is judged beside it."""
    return {*_ways(loaded.row), *_beside(loaded)}


def _ways(row: Row) -> Iterator[Way]:
    for step in row.gen or []:
        yield "recipe", step.recipe
        if isinstance(step, ImportGen):
            yield "import", f"{step.kind}, {step.turns} turns"
    if row.data:
        yield "recipe", "given data"
    if row.train:
        train = row.train
        yield "method", train.method
        yield "objective", train.objective
        yield "optimizer", train.optimizer
        yield "scheduler", train.scheduler
        if train.deepspeed:
            yield "deepspeed", f"{train.deepspeed.stage}, {train.deepspeed.offload_optimizer}"
        if train.validation:
            yield "validation", "file" if train.validation.file else "share"
    twin = row.model.random if row.model else None
    if twin:
        yield "architecture", str(twin.config["model_type"])
    if row.template:
        yield "template", _called(row.template)
    for name, seeds in (
        ("train", row.replicates.train_seeds),
        ("sampling", row.replicates.sampling_seeds),
        ("judge", row.replicates.judge > 1),
    ):
        if seeds:
            yield "replicates", name
    if row.eval and row.eval.answer:
        answer = row.eval.answer
        yield "engine", answer.engine.kind
        yield "decoding", "sampled" if answer.is_sampled else "greedy"
        yield "prompts", "several sets" if answer.prompts.files else "one set"
        if answer.template:
            yield "template", _called(answer.template)
    judge = row.eval.judge if row.eval else None
    if judge:
        yield "judge", judge.kind
        if isinstance(judge, AlpacaEvalJudge):
            yield "annotator", judge.annotator
        if isinstance(judge, RubricJudge):
            yield "rubric", judge.rubric if isinstance(judge.rubric, str) else judge.rubric.name
        reference = getattr(judge, "reference", None)
        if reference:
            yield "reference", "a row's" if isinstance(reference, RowOutputs) else "a file"


def _beside(loaded: LoadedRow) -> Iterator[Way]:
    """What its judge judges beside it, where a published number has another judge."""
    if published_row(loaded) is not None:
        several = isinstance(published_outputs(loaded.row), OutputFiles)
        yield "published answers", "with a column" if several else "a file"
    for other in bridge_rows(loaded):
        answer = other.loaded.row.eval.answer if other.loaded.row.eval else None
        several = answer is not None and answer.prompts.files is not None
        yield "another judge", "a bridge over several sets" if several else "a bridge"


def _called(template: Template) -> str:
    return template.name or (Path(template.prompt.path).name if template.prompt else "")


def covering(rows: Sequence[LoadedRow]) -> list[LoadedRow]:
    """Few rows that together take every way: each time the row with the most that are not taken yet."""
    open_ways = set().union(*(ways(loaded) for loaded in rows))
    chosen: list[LoadedRow] = []
    while open_ways:
        best = max(rows, key=lambda loaded: len(ways(loaded) & open_ways))
        chosen.append(best)
        open_ways -= ways(best)
    return sorted(chosen, key=lambda loaded: loaded.path)


def unfilled(rows: Sequence[LoadedRow], planner: Planner) -> list[str]:
    """What is wrong with the twins on a volume, a line each: a row with no number or denominator, or
    one that is not marked simulated."""
    wrong = []
    for loaded in rows:
        lines = lines_of(loaded, [planner])
        if not lines:  # it makes a data set and no more
            made = planner.plan(loaded).stages[-1].artefact
            if made is None or not made.manifest.simulated:
                wrong.append(f"{loaded.row.row}: no data set that is marked simulated")
        for line in lines:
            cells = line.cells
            name = f"{loaded.row.row} {cells.metric or 'without a metric'}"
            if cells.ours is None or not (cells.expected or cells.examples):
                wrong.append(f"{name}: not filled")
            elif cells.verdict != "simulated":
                wrong.append(f"{name}: {cells.verdict}")
            elif line.plan is not None and cells.reported is not None:
                wrong += [f"{name}: {way} was judged, and says nothing" for way in _silent(line)]
    return wrong


def _silent(line: MatrixLine) -> Iterator[str]:
    """What was judged beside a row and is not in its line."""
    plan, metric = line.plan, line.cells.metric
    assert plan is not None
    if plan.published is not None and is_rejudged(metric) and line.weighed.against is None:
        yield PUBLISHED
    if plan.bridge and metric == WIN_RATE and line.weighed.in_their_terms is None:
        yield BRIDGE


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.specs.twins")
    parser.add_argument("what", choices=["all", "few", "cover", "check"])
    parser.add_argument("which", nargs="?", choices=["all", "few"], default="all")
    parser.add_argument("--volume", type=Path, default=Path("runs/twins"))
    parser.add_argument("--executor", choices=["local", "docker"], default="local")
    said = parser.parse_args(arguments)
    made_anew = sorted(Path("specs").glob(f"*/{FROM_SCRATCH}"))
    named = {"all": (*STUDIES, *made_anew), "few": tuple(map(Path, COVERING))}
    if said.what in named:
        print(*named[said.what])
        return 0
    rows = [scaled(loaded) for loaded in load_rows(named[said.which])]
    if said.what == "cover":
        print(*(loaded.path for loaded in covering(rows)), sep="\n")
        return 0
    wrong = unfilled(rows, Planner(Store(said.volume.resolve()), Files(None, None), said.executor))
    print(*wrong, f"{len(rows)} twins, {len(wrong)} lines not filled or not simulated", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
