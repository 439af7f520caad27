"""A row's outputs at the terminal, answer and baseline side by side where there is room.

All texts are a model's or a stranger's: what could steer a terminal is shown as a sign.
"""

import json
import re
import unicodedata
from collections.abc import Sequence

import click
from rich.console import Console, ConsoleRenderable, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.eval.outputs import GENERATOR
from harness.plan import RowPlan
from harness.report.agreement import agreement_of, show_agreement
from harness.report.outputs import Chosen, Judged, Shown, Wishes, as_dict, read_outputs, select

SIDE_BY_SIDE = 100
"""Columns of a terminal from which answer and baseline stand side by side."""
LINES = 15
"""Of a text, unless --full."""
COLOURS = {"won": "green", "lost": "red", "draw": "yellow", "unjudged": "magenta"}


def show_outputs(console: Console, plan: RowPlan, wishes: Wishes, as_json: bool) -> None:
    """Print them; at a terminal through its pager where they are longer than the screen.

    Raises:
        InputError, Damaged: see `read_outputs` and `select`.
    """
    chosen = read_outputs(plan, wishes.label)
    found = select(chosen.prompts, wishes)
    shown = found[: wishes.count] if wishes.count else found
    counted = _counted(len(shown), found, chosen.prompts, wishes)
    if as_json:
        click.echo(json.dumps([as_dict(prompt) for prompt in shown], indent=2))
        click.echo(counted, err=True)
        return
    heading = [*_heading(plan, chosen), counted]
    parts: list[ConsoleRenderable] = [Text("\n".join(map(visible, heading)))]
    parts += [_prompt(console, prompt, wishes, plan.row.row) for prompt in shown]
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
    label = f" ({planned.label})" if planned.label else ""
    lines = [f"row {plan.row.row}{label}: answer/{planned.key[:12]}"]
    for judging in chosen.judgings:
        word = judging.label.split(", ")[-1] if len(chosen.judgings) > 1 else "judged"
        lines.append(f"  {word}: judge/{judging.key[:12]}")
    if not chosen.judgings:
        lines.append("  not judged")
    artefacts = [s.artefact for s in (planned, *chosen.judgings) if s.artefact is not None]
    simulated = sorted({s for a in artefacts for s in a.manifest["simulated"]})
    lines += [f"  simulated: {', '.join(simulated)}"] * bool(simulated)
    if chosen.others:
        lines.append(f"  other outputs are there; --label: {'; '.join(chosen.others)}")
    return lines


def _counted(shown: int, found: Sequence[Shown], all_: Sequence[Shown], wishes: Wishes) -> str:
    of = f"{shown} of {len(found)} shown"
    if wishes.flagged or wishes.grep:
        of += f", of {len(all_)} prompts"
    of += "; -n 0 for all" if shown < len(found) else ""
    if (wishes.worst or wishes.best) and 0 < shown < len(found):
        last = found[shown - 1].grade
        equal = [at for at, prompt in enumerate(found) if prompt.grade == last]
        if equal[-1] >= shown:
            there = sum(at < shown for at in equal)
            of += f"; of the {len(equal)} that are equal to the last one, the first {there}"
    return of


def _prompt(console: Console, prompt: Shown, wishes: Wishes, row: str) -> ConsoleRenderable:
    """One prompt: a line on it, what was asked, both answers, and what each judging says."""
    fields, is_live = prompt.fields, console.is_terminal
    wide = is_live and console.width >= SIDE_BY_SIDE

    def block(title: str, text: str, width: int) -> ConsoleRenderable:
        body = Text(visible(text) if text else "(empty)", style="" if text else "dim")
        if wishes.grep:
            body.highlight_regex(f"(?i){re.escape(visible(wishes.grep))}", "black on yellow")
        if not wishes.full:
            body = _cut(console, body, width - 2, LINES)
        if not is_live:  # where lines are not wrapped, padding would cut them off
            return Group(Text(visible(title)), Text("  ") + Text("\n  ").join(body.split("\n")))
        return Group(Text(visible(title), style="cyan"), Padding(body, (0, 0, 0, 2)))

    own = str(fields.get("generator") or GENERATOR)
    own = row if own == GENERATOR else own
    parts: list[ConsoleRenderable] = [Text(), _line(prompt)]
    parts.append(block("instruction", str(fields["instruction"]), console.width))
    if fields.get("input"):
        parts.append(block("input", str(fields["input"]), console.width))
    theirs = "baseline"
    if prompt.baseline_generator not in ("", "baseline"):
        theirs += f" {prompt.baseline_generator}"
    sides = [(f"answer of {own}", str(fields["output"]))]
    sides += [(theirs, prompt.baseline)] if prompt.baseline is not None else []
    if wide and len(sides) > 1:
        half = (console.width - 3) // 2
        table = Table.grid(padding=(0, 3, 0, 0), expand=True)
        for _ in sides:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(block(title, text, half) for title, text in sides))
        parts.append(table)
    else:
        parts += [block(title, text, console.width) for title, text in sides]
    for name, text in prompt.given.items():
        if str(text).strip() != str(fields["instruction"]).strip():
            parts.append(block(f"shown to the judge: {name}", str(text), console.width))
    for judged in prompt.judged:
        title = f"{judged.label or 'judge'}: {judged.verdict}{_first(judged)}"
        several = len(judged.words) > 1
        words = [f"[{n}] {w}" if several else w for n, w in enumerate(judged.words, start=1)]
        parts.append(block(title, "\n".join(words) or "(no words)", console.width))
    return Group(*parts)


def _line(prompt: Shown) -> Text:
    """The line that a prompt begins with."""
    fields = prompt.fields
    line = Text(f"prompt {prompt.index}", style="bold reverse")
    facts = [str(fields["dataset"])] if fields.get("dataset") else []
    for judged in prompt.judged:
        facts.append(judged.verdict + _first(judged))
    facts += [str(fields["finish_reason"])] if fields.get("finish_reason") else []
    if fields.get("tokens") is not None:
        asked = fields.get("prompt_tokens")
        facts.append(
            f"{fields['tokens']} tokens" + (f" after {asked}" if asked is not None else "")
        )
    for fact in facts:
        line.append("  ")
        line.append(visible(fact), style=COLOURS.get(fact.split()[0], "") if fact else "")
    if fields.get("flags"):
        line.append("  ")
        line.append(visible(f"flags: {', '.join(map(str, fields['flags']))}"), style="bold yellow")
    return line


def _first(judged: Judged) -> str:
    if judged.shown_first is None:
        return ""
    return " (shown first)" if judged.shown_first else " (shown second)"


def _cut(console: Console, text: Text, width: int, limit: int) -> Text:
    lines = text.wrap(console, max(width, 10))
    if len(lines) <= limit:
        return text
    kept = Text("\n").join(lines[:limit])
    return kept.append(f"\n[{len(lines) - limit} more lines; --full]", style="dim italic")


def visible(text: str) -> str:
    """Text in which nothing steers a terminal or turns its order round: control characters stand as
    their pictures, other characters without a picture of their own by number."""
    return "".join(map(_visible, text.replace("\r\n", "\n")))


def _visible(sign: str) -> str:
    if sign.isprintable() or sign == "\n":
        return sign
    if sign == "\t":
        return "    "
    if unicodedata.category(sign) == "Zs":
        return " "
    number = ord(sign)
    if number < 0x20:
        return chr(0x2400 + number)
    return "\u2421" if number == 0x7F else f"⟨U+{number:04X}⟩"
