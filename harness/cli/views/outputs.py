"""A row's outputs at the terminal, answer and baseline side by side where there is room.

All texts are a model's or a stranger's: what could steer a terminal is shown as a sign.
"""

import re
from collections.abc import Sequence

import click
from rich.console import Console, ConsoleRenderable, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.answer.outputs import GENERATOR
from harness.common.escape import visible
from harness.common.progress import counted
from harness.results.agreement import agreement_of, show_agreement
from harness.results.outputs import (
    Chosen,
    JudgedOutput,
    Judgement,
    OutputOptions,
    read_outputs,
    select,
    to_json,
)
from harness.run.plan import RowPlan

SIDE_BY_SIDE = 100
"""Columns of a terminal from which answer and baseline stand side by side."""
LINES = 15
"""Of a text, unless --full."""
COLOURS = {"won": "green", "lost": "red", "draw": "yellow", "unjudged": "magenta"}


def show_outputs(console: Console, plan: RowPlan, options: OutputOptions, as_json: bool) -> None:
    """Print them; at a terminal through its pager where they are longer than the screen.

    Raises:
        InputError, Damaged: see `read_outputs` and `select`.
    """
    chosen = read_outputs(plan, options.label)
    selected = select(chosen.prompts, options)
    listed = selected[: options.count] if options.count else selected
    counted = _counted(len(listed), selected, chosen.prompts, options)
    if as_json:
        click.echo(to_json(listed))
        click.echo(counted, err=True)
        return
    heading = [*_heading(plan, chosen), counted]
    parts: list[ConsoleRenderable] = [Text("\n".join(map(visible, heading)))]
    parts += [_prompt(console, prompt, options, plan.row.row) for prompt in listed]
    if not console.is_terminal:
        _print(console, parts, plan)
        return
    with console.capture() as captured:
        _print(console, parts, plan)
    text = captured.get()
    if text.count("\n") < console.height:
        console.file.write(text)
        return
    # Without a word on colours click has `less` keep them.
    click.echo_via_pager(text)


def _print(console: Console, parts: Sequence[ConsoleRenderable], plan: RowPlan) -> None:
    for part in parts:
        console.print(part, highlight=False, soft_wrap=not console.is_terminal)
    show_agreement(console, agreement_of(plan))


def _heading(plan: RowPlan, chosen: Chosen) -> list[str]:
    planned = chosen.planned
    lines = [f"row {plan.row.row}{planned.in_brackets}: answer/{planned.key[:12]}"]
    for judging in chosen.judgings:
        word = judging.label.split(", ")[-1] if len(chosen.judgings) > 1 else "judged"
        lines.append(f"  {word}: judge/{judging.key[:12]}")
    if not chosen.judgings:
        lines.append("  not judged")
    artefacts = [s.artefact for s in (planned, *chosen.judgings) if s.artefact is not None]
    simulated = sorted({s for a in artefacts for s in a.manifest.simulated})
    lines += [f"  simulated: {', '.join(simulated)}"] * bool(simulated)
    if chosen.other_labels:
        lines.append(f"  other outputs are there; --label: {'; '.join(chosen.other_labels)}")
    return lines


def _counted(
    count: int,
    selected: Sequence[JudgedOutput],
    all_: Sequence[JudgedOutput],
    options: OutputOptions,
) -> str:
    of = f"{count} of {len(selected)} shown"
    if options.flagged or options.grep:
        of += f", of {len(all_)} prompts"
    of += "; -n 0 for all" if count < len(selected) else ""
    if (options.worst or options.best) and 0 < count < len(selected):
        last = selected[count - 1].grade
        equal = [at for at, prompt in enumerate(selected) if prompt.grade == last]
        if equal[-1] >= count:
            included = sum(at < count for at in equal)
            of += f"; of the {len(equal)} that are equal to the last one, the first {included}"
    return of


def _prompt(
    console: Console, prompt: JudgedOutput, options: OutputOptions, row: str
) -> ConsoleRenderable:
    """One prompt: a line on it, what was asked, both answers, and what each judging says."""
    fields, is_live = prompt.fields, console.is_terminal
    wide = is_live and console.width >= SIDE_BY_SIDE

    def block(title: str, text: str, width: int) -> ConsoleRenderable:
        body = Text(visible(text) if text else "(empty)", style="" if text else "dim")
        if options.grep:
            body.highlight_regex(f"(?i){re.escape(visible(options.grep))}", "black on yellow")
        if not options.full:
            body = _cut(console, body, width - 2, LINES)
        if not is_live:  # where lines are not wrapped, padding would cut them off
            return Group(Text(visible(title)), Text("  ") + Text("\n  ").join(body.split("\n")))
        return Group(Text(visible(title), style="cyan"), Padding(body, (0, 0, 0, 2)))

    generator = str(fields.get("generator") or GENERATOR)
    generator = row if generator == GENERATOR else generator
    parts: list[ConsoleRenderable] = [Text(), _line(prompt)]
    parts.append(block("instruction", str(fields["instruction"]), console.width))
    if fields.get("input"):
        parts.append(block("input", str(fields["input"]), console.width))
    baseline_title = "baseline"
    if prompt.baseline_generator not in ("", "baseline"):
        baseline_title += f" {prompt.baseline_generator}"
    sides = [(f"answer of {generator}", str(fields["output"]))]
    sides += [(baseline_title, prompt.baseline)] if prompt.baseline is not None else []
    if wide and len(sides) > 1:
        half = (console.width - 3) // 2
        table = Table.grid(padding=(0, 3, 0, 0), expand=True)
        for _ in sides:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(block(title, text, half) for title, text in sides))
        parts.append(table)
    else:
        parts += [block(title, text, console.width) for title, text in sides]
    for name, text in prompt.rubric_inputs.items():
        if str(text).strip() != str(fields["instruction"]).strip():
            parts.append(block(f"shown to the judge: {name}", str(text), console.width))
    for judgement in prompt.judgements:
        title = f"{judgement.label or 'judge'}: {judgement.verdict}{_first(judgement)}"
        several = len(judgement.words) > 1
        words = [f"[{n}] {w}" if several else w for n, w in enumerate(judgement.words, start=1)]
        parts.append(block(title, "\n".join(words) or "(no words)", console.width))
    return Group(*parts)


def _line(prompt: JudgedOutput) -> Text:
    """The line that a prompt begins with."""
    fields = prompt.fields
    line = Text(f"prompt {prompt.index}", style="bold reverse")
    facts = [str(fields["dataset"])] if fields.get("dataset") else []
    for judgement in prompt.judgements:
        facts.append(judgement.verdict + _first(judgement))
    facts += [str(fields["finish_reason"])] if fields.get("finish_reason") else []
    if (tokens := fields.get("tokens")) is not None:
        prompt_tokens = fields.get("prompt_tokens")
        facts.append(
            counted(tokens, "token")
            + (f" after {prompt_tokens}" if prompt_tokens is not None else "")
        )
    for fact in facts:
        line.append("  ")
        line.append(visible(fact), style=COLOURS.get(fact.split()[0], "") if fact else "")
    if fields.get("flags"):
        line.append("  ")
        line.append(visible(f"flags: {', '.join(map(str, fields['flags']))}"), style="bold yellow")
    return line


def _first(judgement: Judgement) -> str:
    if judgement.shown_first is None:
        return ""
    return " (shown first)" if judgement.shown_first else " (shown second)"


def _cut(console: Console, text: Text, width: int, limit: int) -> Text:
    lines = text.wrap(console, max(width, 10))
    if len(lines) <= limit:
        return text
    beginning = Text("\n").join(lines[:limit])
    return beginning.append(f"\n[{len(lines) - limit} more lines; --full]", style="dim italic")
