"""The results matrix: one line for each row and metric, read from specs and manifests alone."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import TypeVar

from harness.artefact import environment
from harness.artefact.keys import iter_data, open_hubs
from harness.artefact.manifest import Finding, MetricValue
from harness.artefact.metrics import metric_of
from harness.artefact.store import Artefact, Damaged, Unusable
from harness.common.progress import counted
from harness.errors import DataAbsent, InputError
from harness.results import agreement, comparability, course, losses
from harness.results.families import adjusted, sentences
from harness.results.line import Cells, MatrixLine, loss_over, marks
from harness.results.verdict.evidence import bounds_of
from harness.results.verdict.verdict import Weighed, assess, pool
from harness.row.load import LoadedRow
from harness.row.row import Row
from harness.run.plan import RUNNING_NOW, Planner, RowPlan, StagePlan

Entry = TypeVar("Entry")

CONFOUNDED = "confounded"
DAMAGED = "damaged"
"""In place of a verdict, where something that was made of the row cannot be used."""
COLUMNS = tuple(column.name for column in fields(Cells))
LAST = 10**9
"""After every line of a study."""
MOST_NAMES = 3


def lines_of(loaded: LoadedRow, planners: Sequence[Planner]) -> list[MatrixLine]:
    """The matrix lines of a row, from the first planner's environment that has results.

    A judged row has its scores, a row that trains its losses. A row that makes a data set and no more
    has none. Every file that a number comes from is checked; a model's weights are not, for the losses
    stand in its manifest, which has a seal.

    Raises:
        Damaged: an artefact that belongs to the row was changed.
        CourseChanged: what `harness settle` wrote of the row was changed.
    """
    return _lines(loaded, *choose_plan(loaded, planners))


def lines_of_rows(
    rows: Sequence[LoadedRow], planners: Sequence[Planner], damaged: dict[str, Unusable]
) -> list[MatrixLine]:
    """The lines of several rows, as tables show them. Those of a row that stands in `damaged`, or of
    which something turns out to be, have no number. `damaged`: row -> what is wrong, which is added."""
    lines = []
    for loaded in rows:
        name = loaded.row.row
        if name not in damaged:
            try:
                lines += lines_of(loaded, planners)
                continue
            except Unusable as e:
                damaged[name] = e
        reason = damaged[name].message
        lines += [_damaged(line, reason) for line in _lines(loaded, None, reason)]
    return together(lines)


def _damaged(line: MatrixLine, reason: str) -> MatrixLine:
    verdict = replace(line.weighed.verdict, name=DAMAGED, reason=reason)
    cells = replace(line.cells, verdict=DAMAGED, verdict_reason=reason)
    return replace(line, cells=cells, weighed=replace(line.weighed, verdict=verdict))


def _lines(loaded: LoadedRow, plan: RowPlan | None, problem: str) -> list[MatrixLine]:
    row = loaded.row
    if not _is_measured(row):
        return []
    if plan is not None:
        plan.check_results()
    judged = [s for s in plan.final() if s.artefact] if plan else []
    measured = sorted({name for s in judged if s.artefact for name in s.artefact.manifest.metrics})
    names = list(dict.fromkeys([*row.reported, *measured]))
    of_losses = losses.metrics_of(row)
    if not names and (losses.is_judged_by_other(row) or not of_losses):
        names = [""]
    names += [name for name in of_losses if name not in names]
    held_out = losses.held_out_set(losses.stages_of(plan))
    settled = course.of_row(loaded, plan)
    return [_line(loaded, name, plan, problem, held_out, settled.get(name)) for name in names]


def together(lines: Sequence[MatrixLine]) -> list[MatrixLine]:
    """The lines of several rows as tables show them: by table, then as the study has its lines; and
    marked where a row differs from the table's others in more than what is studied."""
    rows = {line.row.row: line for line in lines}
    plans = [line.plan or RowPlan(line.row, line.loaded.path, []) for line in rows.values()]
    messages = {row: comparability.message(d) for row, d in comparability.confounded(plans).items()}
    return adjusted(
        [_confounded(line, messages.get(line.row.row)) for line in sorted(lines, key=_place)]
    )


def with_results(lines: Sequence[MatrixLine]) -> tuple[list[MatrixLine], str]:
    """The lines of rows that were judged or trained, damaged ones among them, and what is to be said of
    the others. A training that a row shares with another is no result of a row that is judged and was
    never run."""
    with_artefacts = {
        line.cells.row
        for line in lines
        if line.cells.verdict == DAMAGED
        or (line.cells.env_artefacts and line.plan is not None and line.plan.is_begun)
    }
    absent = {line.cells.row: line for line in lines if line.cells.row not in with_artefacts}
    included = [line for line in lines if line.cells.row in with_artefacts]
    if not absent:
        return included, ""
    verb = "is" if len(absent) == 1 else "are"
    sentence = f"{counted(len(absent), 'row')} without a result {verb} left out"
    return included, sentence + not_looked_up(
        [row for row, line in absent.items() if line.plan is None]
    )


def not_looked_up(rows: Sequence[str]) -> str:
    """Of those left out, what is to be said of these rows, which cannot be planned."""
    if not rows:
        return ""
    others = " and others" * (len(rows) > MOST_NAMES)
    return (
        f"; {len(rows)} of them could not be looked up, as what the spec names is not there, or is "
        f"another file: {', '.join(rows[:MOST_NAMES])}{others}"
    )


def data_alone(rows: Sequence[LoadedRow], what: str = "") -> str:
    """What is to be said of the rows that no table has; empty where there is none. `what`: in place of
    the word for rows."""
    count = sum(not _is_measured(loaded.row) for loaded in rows)
    if not count:
        return ""
    verb = "makes a data set alone and is" if count == 1 else "make a data set alone and are"
    return f"{f'{count}{what}' if what else counted(count, 'row')} {verb} in no table"


def _is_measured(row: Row) -> bool:
    return row.train is not None or row.eval is not None or bool(row.reported)


def _confounded(line: MatrixLine, message: str | None) -> MatrixLine:
    if message is None or (line.cells.measure.is_loss and losses.is_judged_by_other(line.row)):
        return line
    findings = (*line.findings, Finding(CONFOUNDED, "warning", message))
    texts = "; ".join(map(str, findings))
    cells = replace(line.cells, confounded=message, findings=texts)
    return replace(line, cells=cells, findings=findings)


def _place(line: MatrixLine) -> tuple[str, int, str]:
    """Rows that stand in no line of the study come last, by their specs' names."""
    source = line.row.source
    return line.row.table, (source and source.line) or LAST, line.loaded.path.name


def agreements_of(loaded: LoadedRow, planners: Sequence[Planner]) -> list[agreement.Agreement]:
    """How the row's judge agrees with itself, in the plan that `lines_of` reads."""
    if loaded.row.replicates.judge < 2:
        return []
    plan, _ = choose_plan(loaded, planners)
    return agreement.agreement_of(plan) if plan is not None else []


def choose_plan(loaded: LoadedRow, planners: Sequence[Planner]) -> tuple[RowPlan | None, str]:
    """The first plan with a judged artefact, else with a trained model, else with any artefact of the
    row's own, else the first there is."""
    plan, trained, begun, problem = None, None, None, ""
    for planner in planners:
        try:
            candidate = planner.replan(plan) if plan else planner.plan(loaded)
        except Damaged:
            raise
        except InputError as e:
            # Without the folder it was looked for in, which is the machine's own.
            problem = "its given data is not there" if isinstance(e, DataAbsent) else e.message
            continue
        if any(s.artefact for s in candidate.final()):
            return candidate, ""
        if trained is None and any(s.artefact for s in losses.trainings(candidate)):
            trained = candidate
        if begun is None and any(s.artefact for s in candidate.own):
            begun = candidate
        plan = plan or candidate
    return trained or begun or plan, problem


def _line(
    loaded: LoadedRow,
    metric: str,
    plan: RowPlan | None,
    problem: str,
    held_out: str,
    settled: course.Course | None,
) -> MatrixLine:
    row, is_loss = loaded.row, metric_of(metric).is_loss
    planned = losses.stages_that_give(plan, metric)
    artefacts = [s.artefact for s in planned if s.artefact]
    recorded = [a.manifest.metrics.get(metric) for a in artefacts]
    # Of a prompt set of which nothing was judged there is no number.
    scores = [score for score in recorded if score is not None and score.value is not None]
    simulated = sorted({s for a in artefacts for s in a.manifest.simulated})
    simulated += [losses.SCALED_DOWN] * (row.scale == "tiny")
    reported = row.reported.get(metric)
    pooled = pool(scores) if scores else None
    ours = pooled or MetricValue()
    weighed, last_look, looks = assess(row, metric, planned, plan), "", ""
    with_bought = None
    if settled is not None:
        with_bought = _with_bought(loaded, metric, plan, settled)
        weighed, last_look, looks = settled.beside(weighed, loaded, with_bought)
    verdict = weighed.verdict
    # A column that the published judge or the study's answers are named in holds nothing simulated.
    against, bridged = weighed.against, weighed.in_their_terms
    if weighed.is_simulated:
        against = bridged = None
    terms = bridged.percent if bridged else (None, None, None)
    if artefacts and not scores:
        problem = f"the {artefacts[0].stage} stage gives no {metric}"
    elif not artefacts and plan:
        problem = problem or _at_work(plan)
    stages = _behind(plan, artefacts)
    paid = stages
    if plan is not None and any(s.stage == "judge" for s in stages):
        paid = list({s.id: s for s in [*stages, *plan.made_beside()]}.values())
    # Of what was held out: the same for every training seed, so it is not summed.
    counts = scores[0] if is_loss and scores else MetricValue()
    scale = bounds_of(row, metric) if metric_of(metric).unit == "points" else None
    manifests = [s.artefact.manifest for s in stages if s.artefact]
    findings = tuple(each_once(m.findings for m in manifests))
    noted = (*deviations(row), *each_once(m.deviations for m in manifests))
    cells = Cells(
        row=row.row,
        table=row.table,
        title=row.title,
        varied="; ".join(f"{k}={v}" for k, v in row.varied.items()),
        metric=metric,
        reported=reported.value if reported else None,
        unreported="yes" if reported and reported.value is None else "",
        reported_se=reported.standard_error if reported else None,
        reported_judged=reported.judged if reported else None,
        reported_expected=reported.expected if reported else None,
        ours=ours.value,
        standard_error=ours.standard_error,
        judged=ours.judged,
        expected=ours.expected,
        lower_bound=ours.lower_bound,
        upper_bound=ours.upper_bound,
        lowest=scale[0] if scale else None,
        highest=scale[1] if scale else None,
        examples=counts.examples,
        tokens=counts.tokens,
        bytes=counts.bytes,
        steps=losses.steps_of(losses.trainings(plan)) if is_loss else None,
        replicates=len(scores),
        replicates_planned=len(planned) if plan else None,
        replicate_sd=pooled.replicate_sd if pooled else None,
        interval_low=verdict.reproduced_low,
        interval_high=verdict.reproduced_high,
        difference_low=verdict.low,
        difference_high=verdict.high,
        margin=verdict.margin,
        published_rejudged=against.theirs if against else None,
        in_their_terms=terms[0],
        in_their_terms_low=terms[1],
        in_their_terms_high=terms[2],
        verdict=verdict.name,
        verdict_reason=verdict.reason or problem,
        verdict_among=None,
        verdict_p=None,
        verdict_holm="",
        simulated="; ".join(simulated),
        random_weights="yes" if any(a.manifest.random_weights for a in artefacts) else "",
        deviations="; ".join(noted),
        assumptions="; ".join(row.stated("assumption")),
        findings="; ".join(map(str, findings)),
        confounded="",
        calls=_sum(paid, "calls"),
        prompt_tokens=_sum(paid, "prompt_tokens"),
        completion_tokens=_sum(paid, "completion_tokens"),
        usd=_usd(paid),
        source=str(reported.source) if reported and reported.source else _source(row),
        env_environment=_environment(stages),
        env_wall_seconds=_sum(paid, "wall_seconds"),
        env_artefacts=" ".join(f"{s.stage}/{s.key[:12]}" for s in stages),
    )
    return MatrixLine(
        loaded, cells, weighed, plan, held_out, findings, noted, last_look, looks,
        settled is not None and bool(looks) and settled.has_ended, with_bought,
    )  # fmt: skip


def _with_bought(
    loaded: LoadedRow, metric: str, plan: RowPlan | None, settled: course.Course
) -> Weighed | None:
    """The verdict with all that `harness settle` bought, where the spec does not name it."""
    planner = plan.stages[0].planner if plan is not None and plan.stages else None
    if planner is None or not settled.looks:
        return None
    pairs = zip(settled.looks[-1].counts, course.counts_of(loaded), strict=True)
    if all(count <= own or not own for count, own in pairs):
        return None
    whole = planner.plan(settled.as_bought(loaded))
    whole.check_results()
    weighed = assess(whole.row, metric, losses.stages_that_give(whole, metric), whole)
    return weighed if weighed.interval is not None else None


def _behind(plan: RowPlan | None, artefacts: list[Artefact]) -> list[StagePlan]:
    """The row's stages that have artefacts and that a result comes of, once each."""
    if plan is None or not artefacts:
        return []
    finished = [s for s in plan.own if s.artefact is not None]
    is_model = artefacts[0].stage == "train"
    return [s for s in finished if s.stage in ("gen", "train")] if is_model else finished


def _at_work(plan: RowPlan) -> str:
    """Which of its stages another process is at; empty where none is seen to be."""
    working = (
        f"{stage.name} {reason}"
        for stage in plan.stages
        for reason in stage.reasons
        if stage.artefact is None and reason.startswith(RUNNING_NOW)
    )
    return "; ".join(working)


def each_once(lists: Iterable[Sequence[Entry]]) -> list[Entry]:
    listed = list(itertools.chain.from_iterable(lists))
    return [entry for number, entry in enumerate(listed) if entry not in listed[:number]]


def _sum(stages: list[StagePlan], name: str) -> float | int | None:
    costs = [s.artefact.manifest.cost.get(name) for s in stages if s.artefact]
    numbers = [n for n in costs if n is not None]
    if not numbers:
        return None
    total = sum(numbers)
    return round(total, 1) if isinstance(total, float) else total


def _usd(stages: list[StagePlan]) -> float | None:
    """What the calls cost, at the prices in the manifests; None where one of them is not known."""
    costs = [s.artefact.manifest.cost for s in stages if s.artefact]
    called = [cost for cost in costs if cost.get("calls")]
    if not called or any("usd" not in cost for cost in called):
        return None
    return round(float(sum(cost["usd"] for cost in called)), 6)


def _environment(stages: list[StagePlan]) -> str:
    kinds = {environment.kind_of(s.document["environment"]) for s in stages}
    return "; ".join(sorted(kinds))


def deviations(row: Row) -> list[str]:
    """The spec's own deviations, what it leaves unpinned outside its own folder, code that it runs."""
    unpinned = [d.path for d in iter_data(row) if d.path.startswith("data:") and d.sha256 is None]
    trusted = row.model is not None and row.model.trust_remote_code
    return [
        *row.stated("deviation"),
        *(f"{path} is not pinned" for path in dict.fromkeys(unpinned)),
        *(f"{name} (hub) is not pinned" for name in open_hubs(row)),
        *["the code that comes with the model is run (trust_remote_code)"] * trusted,
        *(row.judge.deviations() if row.judge else []),
    ]


def _source(row: Row) -> str:
    source = row.source
    if source is None:
        return ""
    line = f"line {source.line}" if source.line else None
    return ", ".join(p for p in (source.document, source.table, line, source.url) if p)


EXPLANATION = (
    "Win rates in percent, ± one standard error over prompts. Task scores are in percent too, over "
    "questions; rubric scores in the rubric's points. 95 % interval: of our number, over "
    "prompts and replicates, what went unjudged apart. Over: prompts judged of those "
    "expected, summed over replicates. Cost: calls to teacher and judge, prompt + completion tokens, "
    "dollars where prices are known, seconds of wall time."
)
LOSSES = (
    "Losses: lower is better. Nats per token depend on the tokenizer; bits per byte compare across "
    "tokenizers. Over: held-out examples, and their answers' tokens or bytes. With several training "
    "seeds their mean, and sd, the standard deviation between them; with one, the spread between "
    "trainings is not known. ±, where it stands: one standard error over the held-out examples."
)


def conclusions(lines: Sequence[MatrixLine]) -> list[str]:
    """What is to be said below tables of these lines."""
    return [*lowest(lines), *sentences(lines)]


def lowest(lines: Sequence[MatrixLine]) -> list[str]:
    """For each table in which several models were measured on the same held-out answers: which row has
    the fewest bits per byte. Of rows that share what was measured the first stands for all."""
    groups: dict[tuple[object, ...], dict[tuple[str, ...], Cells]] = {}
    for line in lines:
        c = line.cells
        if line.held_out and c.metric == losses.BITS and c.ours is not None:
            measured = [s for s in losses.stages_that_give(line.plan, c.metric) if s.artefact]
            group = groups.setdefault((c.table, line.held_out, c.examples, c.bytes), {})
            group.setdefault(tuple(s.key for s in measured), c)
    return [_lowest(list(same.values())) for same in groups.values() if len(same) > 1]


def _lowest(same: list[Cells]) -> str:
    ranked = sorted(same, key=lambda c: (c.ours or 0.0, c.row))
    best = ranked[0]
    # As they are shown: what no reader sees to differ is not ranked.
    equal = [c for c in ranked if f"{c.ours:.4f}" == f"{best.ours:.4f}"]
    if len(equal) == 1:
        first = f"{best.row} has the fewest bits per byte, {best.ours:.4f}{marks(best)}"
    else:
        names = [f"{c.row}{marks(c)}" for c in equal]
        first = (
            f"{', '.join(names[:-1])} and {names[-1]} have the fewest bits per byte, the same "
            f"{best.ours:.4f}"
        )
    following = [f"; next is {c.row} with {c.ours:.4f}{marks(c)}" for c in ranked[len(equal) :][:1]]
    steps = sorted({c.steps for c in same if c.steps is not None})
    after = ""
    if steps:
        count = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        after = f"after {count} steps and "
    alone = any(c.replicates == 1 for c in same)
    return (
        f"Table {best.table}: of {len(same)} rows, {after}over the same held-out "
        f"answers ({loss_over(best)}), {first}{''.join(following)}"
        + ("; of a row with one training seed the spread is not known" if alone else "")
        + "."
    )
