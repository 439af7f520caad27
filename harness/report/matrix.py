"""The results matrix: one line for each row and metric, read from specs and manifests alone."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import environment
from harness.errors import DataAbsent, InputError
from harness.keys import iter_data
from harness.plan import Planner, RowPlan, StagePlan
from harness.progress import plain
from harness.report import agreement, losses
from harness.report.verdict import MARGIN, Verdict, judge, pool
from harness.spec.judges import RubricJudge, TasksJudge
from harness.spec.load import LoadedRow
from harness.spec.models import Row
from harness.store import Artefact, Damaged, write_atomically

NUMBERS = frozenset(
    """
    reported reported_se reported_judged reported_expected reproduced standard_error judged
    expected lower_bound upper_bound lowest highest examples tokens bytes steps replicates
    replicates_planned replicate_sd calls prompt_tokens completion_tokens usd env_wall_seconds
    """.split()  # noqa: SIM905
)
"""Columns that hold numbers; all others are text and are escaped."""
POINTS = ("rubric_score", "winning_score")
"""Metrics that are no percentages."""


@dataclass(frozen=True)
class Line:
    """One line of the matrix: column -> value; None where there is none."""

    table: str
    cells: dict[str, Any]
    held_out: str = ""
    """Of a loss: see harness.report.losses.held_out_set."""
    findings: tuple[str, ...] = ()
    """`kind: message` of each finding of the stages behind the line."""


def lines_of(loaded: LoadedRow, planners: Sequence[Planner]) -> list[Line]:
    """The matrix lines of a row, from the first planner's environment that has results.

    A judged row has its scores, a row that trains its losses. A row that makes a data set and no more
    has none. Of a judged artefact every file is checked; a model's weights are not, for the losses
    stand in its manifest, which has a seal.

    Raises:
        Damaged: an artefact that belongs to the row was changed.
    """
    row = loaded.row
    plan, problem = _choose(loaded, planners)
    if row.train is None and row.eval is None and not row.reported:
        return []
    judged = [s for s in plan.final() if s.artefact] if plan else []
    for stage in judged:
        if stage.artefact:
            stage.artefact.check()
    made = sorted({name for s in judged for name in _metrics(s)})
    names = list(dict.fromkeys([*row.reported, *made]))
    if not names and (losses.is_judged(row) or row.train is None):
        names = [""]
    names += [name for name in losses.metrics_of(row) if name not in names]
    held_out = losses.held_out_set(losses.stages_of(plan))
    return [_line(row, name, plan, problem, held_out) for name in names]


def agreements_of(loaded: LoadedRow, planners: Sequence[Planner]) -> list[agreement.Agreement]:
    """How the row's judge agrees with itself, in the plan that `lines_of` reads."""
    if loaded.row.replicates.judge < 2:
        return []
    plan, _ = _choose(loaded, planners)
    return agreement.agreement_of(plan) if plan is not None else []


def _choose(loaded: LoadedRow, planners: Sequence[Planner]) -> tuple[RowPlan | None, str]:
    """The first plan with a judged artefact, else with a trained model, else the first there is."""
    plan, trained, problem = None, None, ""
    for planner in planners:
        try:
            candidate = planner.plan(loaded)
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
        plan = plan or candidate
    return trained or plan, problem


def _metrics(stage: StagePlan) -> dict[str, Any]:
    metrics: dict[str, Any] = stage.artefact.manifest["metrics"] if stage.artefact else {}
    return metrics


def _line(row: Row, metric: str, plan: RowPlan | None, problem: str, held_out: str) -> Line:
    # `win_rate/koala` is the win rate on one of several prompt sets.
    kind = metric.partition("/")[0]
    is_loss = kind in losses.LOSSES
    planned = losses.stages_of(plan) if is_loss else plan.final() if plan else []
    made = [s.artefact for s in planned if s.artefact]
    told = [a.manifest["metrics"].get(metric) for a in made]
    # Of a prompt set of which nothing was judged there is no number.
    found = [one for one in told if one is not None and one["value"] is not None]
    simulated = sorted({s for a in made for s in a.manifest["simulated"]})
    reported = row.reported.get(metric)
    pooled = pool(found) if found else None
    verdict = judge(reported, pooled, simulated)
    if is_loss and pooled:
        verdict = losses.verdict_of(reported, pooled, verdict)
    elif kind in POINTS and pooled and reported and not simulated:
        verdict = Verdict("not comparable", f"the margin of {MARGIN:g} points is of percentages")
    if made and not found:
        problem = f"the {made[0].stage} stage gives no {metric}"
        problem += " without train.validation" if is_loss else ""
    stages = _behind(plan, made)
    ours = pooled or {}
    counts = losses.counts_of(found) if is_loss else {}
    scale = _scale(row, kind)
    findings = tuple(f"{one['kind']}: {one['message']}" for one in _told(stages, "findings"))
    cells = {
        "row": row.row,
        "table": row.table,
        "title": row.title,
        "varied": "; ".join(f"{k}={v}" for k, v in row.varied.items()),
        "metric": metric,
        "reported": reported.value if reported else None,
        "reported_se": reported.standard_error if reported else None,
        "reported_judged": reported.judged if reported else None,
        "reported_expected": reported.expected if reported else None,
        "reproduced": ours.get("value"),
        "standard_error": ours.get("standard_error"),
        "judged": ours.get("judged"),
        "expected": ours.get("expected"),
        "lower_bound": ours.get("lower_bound"),
        "upper_bound": ours.get("upper_bound"),
        "lowest": scale[0],
        "highest": scale[1],
        **{name: counts.get(name) for name in losses.COUNTS},
        "steps": losses.steps_of(losses.trainings(plan)) if is_loss else None,
        "replicates": len(found),
        "replicates_planned": len(planned) if plan else None,
        "replicate_sd": ours.get("replicate_sd"),
        "verdict": verdict.name,
        "verdict_reason": verdict.reason or problem,
        "simulated": "; ".join(simulated),
        "random_weights": "yes" if any(a.manifest["random_weights"] for a in made) else "",
        "deviations": "; ".join([*deviations(row), *_told(stages, "deviations")]),
        "findings": "; ".join(findings),
        "calls": _sum(stages, "calls"),
        "prompt_tokens": _sum(stages, "prompt_tokens"),
        "completion_tokens": _sum(stages, "completion_tokens"),
        "usd": _usd(stages),
        "source": _source(row),
        "env_environment": _environment(stages),
        "env_wall_seconds": _sum(stages, "wall_seconds"),
        "env_artefacts": " ".join(f"{s.stage}/{s.key[:12]}" for s in stages),
    }
    return Line(row.table, cells, held_out, findings)


def _behind(plan: RowPlan | None, made: list[Artefact]) -> list[StagePlan]:
    """The row's stages that have artefacts and that a result comes of, once each."""
    if plan is None or not made:
        return []
    there = [s for s in plan.own if s.artefact is not None]
    is_model = made[0].stage == "train"
    return [s for s in there if s.stage in ("gen", "train")] if is_model else there


def _scale(row: Row, metric: str) -> tuple[int | None, int | None]:
    """The lowest and the highest that a score of points can be."""
    judge = row.eval.judge if row.eval else None
    if metric == "winning_score":
        return 0, 2
    if metric == "rubric_score" and isinstance(judge, RubricJudge):
        return judge.scale
    return None, None


def _told(stages: list[StagePlan], name: str) -> list[Any]:
    """What the manifests of these stages list under a name, each once."""
    listed = [one for s in stages if s.artefact for one in s.artefact.manifest.get(name, [])]
    return [one for number, one in enumerate(listed) if one not in listed[:number]]


def _sum(stages: list[StagePlan], name: str) -> float | int | None:
    found = [s.artefact.manifest["cost"].get(name) for s in stages if s.artefact]
    numbers = [n for n in found if n is not None]
    if not numbers:
        return None
    total = sum(numbers)
    return round(total, 1) if isinstance(total, float) else total


def _usd(stages: list[StagePlan]) -> float | None:
    """What the calls cost, at the prices in the manifests; None where one of them is not known."""
    costs = [s.artefact.manifest["cost"] for s in stages if s.artefact]
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
    judge = row.eval.judge if row.eval else None
    partly = isinstance(judge, TasksJudge) and judge.first is not None
    return [
        *row.deviations,
        *(f"{path} is not pinned" for path in dict.fromkeys(unpinned)),
        *["the code that comes with the model is run (trust_remote_code)"] * trusted,
        *["only a part of each task's questions"] * partly,
    ]


def _source(row: Row) -> str:
    source = row.source
    if source is None:
        return ""
    line = f"line {source.line}" if source.line else None
    return ", ".join(p for p in (source.document, source.table, line, source.url) if p)


def to_csv(lines: Sequence[Line]) -> str:
    """Full precision; text that a spreadsheet would take for a formula is quoted with `'`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = list(lines[0].cells) if lines else []
    writer.writerow(columns)
    for line in lines:
        writer.writerow([_csv_cell(c, line.cells[c]) for c in columns])
    return out.getvalue()


def _csv_cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in NUMBERS:
        return repr(value)
    text = plain(str(value))
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\n", "\ufffd") else text


HEADINGS = (
    "row", "varied", "metric", "reported", "reproduced", "over", "replicates", "verdict",
    "deviations", "cost", "environment", "artefacts",
)  # fmt: skip


def display(line: Line) -> list[str]:
    """A line as a person reads it, in the order of HEADINGS; not escaped."""
    c = line.cells
    kind = c["metric"].partition("/")[0]
    is_loss = kind in losses.LOSSES
    digits = 4 if is_loss else 2
    reported = _with_error(c["reported"], c["reported_se"], digits)
    if c["reported_judged"] is not None:
        reported += f" of {c['reported_judged']}/{c['reported_expected'] or '?'}"
    over = losses.over(c) if is_loss else ""
    if c["expected"] is not None and (not over or c["judged"] < c["expected"]):
        over = f"{c['judged']}/{c['expected']}" + f" examples: {over}" * bool(over)
        if c["judged"] < c["expected"] and c["lower_bound"] is not None:
            over += f", bounds {c['lower_bound']:.2f} to {c['upper_bound']:.2f}"
    if over and c["lowest"] is not None:
        over += f", scores {c['lowest']} to {c['highest']}"
    planned = c["replicates_planned"]
    replicates = f"{c['replicates']}/{planned}" if planned is not None else ""
    if c["replicate_sd"] is not None:
        replicates += f"{' training seeds' * is_loss}, sd {c['replicate_sd']:.{digits}f}"
    elif is_loss and c["replicates"] == 1 and c["steps"] is not None:
        replicates += f", {losses.ONE_SEED}"
    reproduced = _with_error(c["reproduced"], c["standard_error"], digits)
    if reproduced:
        reproduced += losses.marks(c)
    verdict = str(c["verdict"])
    if c["verdict_reason"] and c["verdict"] != "simulated":
        verdict += f": {c['verdict_reason']}"
    noted = [
        c["deviations"],
        *dict.fromkeys(f"finding: {one.partition(':')[0]}" for one in line.findings),
    ]
    cost = ""
    if c["calls"] is not None:
        cost = f"{c['calls']} calls, {c['prompt_tokens']} + {c['completion_tokens']} tokens"
        cost += f", ${c['usd']:.2f}" if c["usd"] else ""
    if c["env_wall_seconds"] is not None:
        cost += f"{', ' if cost else ''}{c['env_wall_seconds']:.0f} s"
    return [
        c["row"], c["varied"], c["metric"], reported, reproduced, over, replicates, verdict,
        "; ".join(filter(None, noted)), cost, c["env_environment"], c["env_artefacts"],
    ]  # fmt: skip


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


EXPLANATION = (
    "Win rates in percent, ± one standard error over prompts. Task scores are in percent too, over "
    "questions; rubric scores in the rubric's points. Over: prompts judged of those "
    "expected, summed over replicates. Cost: calls to teacher and judge, prompt + completion tokens, "
    "dollars where prices are known, seconds of wall time."
)
LOSSES = (
    "Losses: lower is better. Nats per token depend on the tokenizer; bits per byte compare across "
    "tokenizers. Over: held-out examples, and their answers' tokens or bytes. With several training "
    "seeds their mean, and sd, the standard deviation between them; with one, the spread between "
    "trainings is not known. ±, where it stands: one standard error over the held-out examples."
)
AGREEMENT = "agreement.csv"
SIMULATED = (
    "**Rows marked simulated come from the harness's own simulated teacher or judge. They show that "
    "the pipeline works, and say nothing about any real model.**"
)


def lowest(lines: Sequence[Line]) -> list[str]:
    """For each table in which several models were measured on the same held-out answers: the best."""
    return losses.lowest([(line.held_out, line.cells) for line in lines])


def to_markdown(lines: Sequence[Line], title: str) -> str:
    parts = [f"# {_md(title)}\n\n{EXPLANATION}"]
    if any(line.cells["metric"].partition("/")[0] in losses.LOSSES for line in lines):
        parts += ["", LOSSES]
    if any(line.cells["simulated"] for line in lines):
        parts += ["", SIMULATED]
    parts += ["", "| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    parts += ["| " + " | ".join(map(_md, display(line))) + " |" for line in lines]
    for sentence in lowest(lines):
        parts += ["", _md(sentence)]
    told = dict.fromkeys(
        f"- {_md(line.cells['row'])}: {_md(one)}" for line in lines for one in line.findings
    )
    if told:
        parts += ["", "## Findings", "", *told]
    return "\n".join(parts) + "\n"


def _heading(table: str) -> str:
    """What a table's file begins with, whichever version wrote it."""
    return f"# {_md(f'Table {table}')}\n\n{EXPLANATION.partition('.')[0]}"


def _md(text: str) -> str:
    """Text as markdown shows it literally, in one table cell."""
    flat = plain(" ".join(str(text).split()))
    flat = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_agreement(path: Path) -> bool:
    """Whether this is a file that `write_all` wrote."""
    heading = ",".join(agreement.COLUMNS)
    return path.is_file() and path.read_text(encoding="utf-8").startswith(heading)


def write_all(
    lines: Sequence[Line], folder: Path, agreements: Sequence[agreement.Agreement] = ()
) -> list[Path]:
    """Write matrix.{csv,md} and tables/TABLE.{csv,md}, and, where a judge judged outputs again,
    agreement.csv and a section of matrix.md; files that would not change stay untouched.

    Files this wrote for a table that no row names any more are removed: their numbers are stale.
    """
    tables: dict[str, list[Line]] = {}
    for line in lines:
        tables.setdefault(line.table, []).append(line)
    texts = {"matrix.csv": to_csv(lines), "matrix.md": to_markdown(lines, "Results matrix")}
    texts["matrix.md"] += agreement.to_markdown(agreements)
    if agreements:
        texts[AGREEMENT] = agreement.to_csv(agreements)
    for name, own in tables.items():
        texts[f"tables/{name}.csv"] = to_csv(own)
        texts[f"tables/{name}.md"] = to_markdown(own, f"Table {name}")
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_atomically(path, text)
        if not agreements and _is_agreement(folder / AGREEMENT):
            (folder / AGREEMENT).unlink()
        for path in (folder / "tables").glob("*.md"):
            ours = path.read_text(encoding="utf-8").startswith(_heading(path.stem))
            if ours and path.stem not in tables:
                path.unlink()
                path.with_suffix(".csv").unlink(missing_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as e:
        raise InputError(
            f"{e.filename} cannot be written: {e.strerror}", "Name another folder with --out."
        ) from None
    return [folder / name for name in texts]
