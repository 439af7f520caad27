"""The matrix, manifests and findings at the terminal. All text is escaped: it may be a model's."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.artefact.manifest import MetricValue
from harness.artefact.store import Artefact
from harness.common import numbers
from harness.common.commands import harness
from harness.common.hanging import in_columns, print_hanging
from harness.common.progress import counted, plain, say
from harness.errors import InputError
from harness.results.line import HEADINGS, MatrixLine, display
from harness.results.matrix import CONFOUNDED, conclusions
from harness.results.verdict.verdict import pool
from harness.run.plan import RowPlan, StagePlan
from harness.stats.bridge import Shift

if TYPE_CHECKING:
    from harness.run.doctor_check import Check
    from harness.run.replay import Replayed

CARD = "card.json"
TABLE_HEADINGS = (
    "row", "varied", "metric", "reported", "ours", "95 % interval", "over", "replicates",
    "verdict",
)  # fmt: skip
WIDE = 130
"""Columns of a terminal from which on a line of the matrix is a line of a table."""


def show_matrix(console: Console, lines: Sequence[MatrixLine]) -> None:
    """A table; on a narrow terminal a block for each line, as no column would be readable."""
    rows = [dict(zip(HEADINGS, display(line), strict=True)) for line in lines]
    if console.width < WIDE:
        _show_blocks(console, rows)
    else:
        _show_table(console, [[plain(cells[h]) for h in TABLE_HEADINGS] for cells in rows])
    confounded = [
        f"{line.cells.row}: {finding}"
        for line in lines
        for finding in line.findings
        if finding.kind == CONFOUNDED
    ]
    for sentence in [*conclusions(lines), *dict.fromkeys(confounded)]:
        say(console, plain(sentence))


def _show_table(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Written line by line where no cell has to be folded: rich's tables take longer."""
    lines = in_columns([TABLE_HEADINGS, *rows])
    is_wide_enough = console.soft_wrap or max(map(cell_len, lines)) <= console.width
    if is_wide_enough and not any("\n" in c for r in rows for c in r):
        text = Text("\n".join(lines))
        text.stylize("bold", 0, len(lines[0]))
        console.print(text, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in TABLE_HEADINGS:
        table.add_column(heading, overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console.print(table)


def _show_blocks(console: Console, rows: Sequence[dict[str, str]]) -> None:
    for cells in rows:
        name = Text(plain(cells["row"]), "bold")
        print_hanging(console, Text.assemble(name, f" {plain(cells['metric'])}".rstrip()))
        for heading in TABLE_HEADINGS:
            if heading not in ("row", "metric") and cells[heading]:
                print_hanging(console, f"  {heading:<13} {plain(cells[heading])}", 16)


def show_artefact(
    console: Console, artefact: Artefact, checked: bool, parameters: bool = False
) -> None:
    """A manifest's main parts (`harness show --json` has all), or of one that was `checked` a line."""
    m = artefact.manifest
    print_hanging(console, Text.assemble((m.stage, "bold"), f" {m.key}"))
    if checked:
        told = f"{counted(len(m.files), 'file')}, each with the digest it was made with"
        print_hanging(console, f"  {told}: {artefact.folder}")
        return
    fields = {
        "row": m.row + (f" ({m.label})" if m.label else ""),
        "folder": str(artefact.folder),
        "made": f"{m.finished} by the {m.executor['executor']} executor",
        "simulated": ", ".join(m.simulated) or "nothing",
        "weights": "began random" if m.random_weights else "",
        "inputs": ", ".join(f"{n}: {i['stage']}/{i['key'][:12]}" for n, i in m.inputs.items()),
        "parameters": json.dumps(m.document["params"], indent=2, ensure_ascii=False)
        if parameters
        else "",
        "metrics": "\n".join(f"{name}  {_score(value)}" for name, value in m.metrics.items()),
        "findings": "\n".join(map(str, m.findings)),
        "notes": "\n".join(m.notes),
        "counts": _pairs(m.counts),
        "cost": _pairs(m.cost),
        "seeds": _pairs(m.seeds),
        "used": json.dumps({k: v for k, v in m.used.items() if k != "environment"})
        if parameters
        else "",
        "files": "\n".join(f"{n}  {f['size']:,} bytes" for n, f in m.files.items()),
    }
    for name, text in fields.items():
        if text:
            lines = "\n".join(plain(line) for line in text.splitlines())
            print_hanging(console, f"  {name:<11}{lines}", 13)


def _score(value: MetricValue) -> str:
    """`29.31 ± 1.71, 713 of 805 judged`."""
    text = "none" if value.value is None else f"{value.value:.6g}"
    text += "" if value.standard_error is None else f" ± {value.standard_error:.3g}"
    counts = {
        n: getattr(value, n) for n in ("wins", "losses", "draws", "examples", "tokens", "bytes")
    }
    if value.expected is not None:
        text += f", {numbers.out_of(value.judged, value.expected)} judged"
    return text + "".join(f", {n:,} {name}" for name, n in counts.items() if n is not None)


def _pairs(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.10g}" for name, value in values.items())


def show_data(console: Console, artefacts: Sequence[Artefact], as_json: bool) -> None:
    """The data card of the last data set among the artefacts; the others are named.

    With `as_json` all cards, in the order of the steps.

    Raises:
        InputError: there is none.
        Damaged: a file of the data set is not what its manifest says.
    """
    data_sets = [a for a in artefacts if CARD in a.manifest.files]
    if not data_sets:
        raise InputError(
            "none of these artefacts has a data card",
            "What a gen stage makes has one. Of data that is given, too, where `gen: {recipe: import, "
            "file: FILE}` stands in place of `data: FILE`; what is trained on it has another key then.",
        )
    selected = data_sets if as_json else data_sets[-1:]
    for artefact in selected:
        artefact.check()
    cards = [json.loads((a.folder / CARD).read_text(encoding="utf-8")) for a in selected]
    if as_json:
        print(json.dumps(cards, indent=2, sort_keys=True))
        return
    last = data_sets[-1]
    print_hanging(console, Text.assemble(("gen", "bold"), f" {last.key}  {_whose(last)}"))
    say(console, f"card.md and plots/ in {last.folder}")
    if last.manifest.simulated:
        say(console, f"simulated: {', '.join(last.manifest.simulated)}", "yellow")
    from harness.cli.views.card import show_card

    show_card(console, cards[0], last.manifest.row)
    for earlier in data_sets[:-1]:
        command = harness("show", f"gen/{earlier.key[:12]} --data")
        say(console, f"{_whose(earlier)}: {command}")


def _whose(artefact: Artefact) -> str:
    """The row that an artefact was made for, and which of its stages it is."""
    m = artefact.manifest
    return plain(m.row + (f" ({m.label})" if m.label else ""))


def show_replayed(console: Console, replayed: "Replayed") -> None:
    """Whether a replay is exact, and which files and numbers are not."""
    planned = replayed.planned
    word = ("exact", "green") if replayed.exact else ("different", "red")
    here, rest = "", ""
    if replayed.left_out:
        here, names = "that are here ", plain(", ".join(replayed.left_out))
        rest = f"; {len(replayed.left_out)} left out of the crate ({names}), not checked"
    text = (
        f", {len(replayed.same)} of {counted(replayed.files, 'file')} {here}"
        f"{'has the digest it was' if replayed.files == 1 else 'have the digest they were'} "
        f"made with{rest}"
    )
    if replayed.numbers:
        verb = "is" if replayed.numbers == 1 else "are"
        text += f"; {counted(replayed.numbers, 'number')} {verb} the manifest's"
    if replayed.calls:
        replies = "reply" if replayed.calls == 1 else "replies"
        text += f"; {replayed.calls} {replies} from the transcript"
    print_hanging(console, Text.assemble(f"{plain(planned.name)} {planned.key[:12]}: ", word, text))
    for line in [*replayed.different, *replayed.notes]:
        say(console, f"  {plain(line)}")
    if replayed.folder is not None:
        say(console, f"  what the replay made: {replayed.folder}")


def show_row_replayed(
    console: Console, plan: RowPlan, stages: Sequence[StagePlan], done: Sequence["Replayed"]
) -> None:
    """The row's outcome in one line: how many artefacts are exact, and the numbers recomputed."""
    exact = sum(r.exact for r in done)
    text = f"{plan.row.row}: {exact} of {len(stages)} artefacts exact"
    absent = [s.name for s in stages if s.artefact is None]
    if absent:
        text += f"; not on the volume: {', '.join(absent)}"
    if exact == len(done):
        figures = _recomputed([r for r in done if r.planned.row == plan.row.row])
        text += f"; {', '.join(figures)} recomputed" if figures else ""
    say(console, plain(text))
    for other in plan.beside():
        made = [r for r in done if r.planned.row == other.row.row]
        if figures := _recomputed(made) if exact == len(done) else []:
            text = f"beside it, {other.row.row}: {', '.join(figures)} recomputed"
            say(console, plain(text))


def show_shifts(console: Console, shifts: Mapping[str, Shift]) -> None:
    for row, shift in shifts.items():
        text = (
            f"{row}: the published judge's log-odds less ours {shift.value!r} ± {shift.error!r} over "
            f"{shift.prompts} prompts recomputed"
        )
        say(console, plain(text))


def _recomputed(done: Sequence["Replayed"]) -> list[str]:
    """Each metric with its value; of replicates the mean, as the matrix has it."""
    names = dict.fromkeys(name for r in done for name in r.metrics)
    figures = []
    for name in names:
        metrics = [r.metrics[name] for r in done if name in r.metrics]
        replicates = [metric for metric in metrics if metric.value is not None]
        if replicates:
            mean = f" (mean of {len(replicates)})" if len(replicates) > 1 else ""
            figures.append(f"{name} {pool(replicates).value!r}{mean}")
    return figures


def show_checks(console: Console, checks: "Sequence[Check]") -> None:
    for check in checks:
        mark = ("yes", "green") if check.is_present else ("no ", "yellow")
        print_hanging(console, Text.assemble(mark, f" {check.what:<24} {plain(check.state)}"), 29)
        if check.prevents:
            print_hanging(console, Text(f"    without it: {plain(check.prevents)}", "dim"), 16)
