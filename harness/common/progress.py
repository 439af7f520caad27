"""A stage's progress at the terminal: live bars, or plain lines where there is no terminal."""

import time
from types import TracebackType
from typing import Any, Protocol, Required, TypedDict

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_SECONDS = 5.0
"""Without a terminal, a task says how far it is at most this often."""
OWN_GUESS = "seconds_left"
"""A stage that has this among its figures, None while it cannot be said, guesses better than a bar."""


class Event(TypedDict, total=False):
    """A line of a stage's standard output (harness.artefact.events)."""

    event: Required[str]
    """progress, note or error."""
    message: str
    hint: str
    exit_code: int
    task: str
    done: int
    total: int | None
    unit: str
    info: dict[str, float | str | None]


def plain(text: str) -> str:
    """Text from models or files without what could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def counted(count: int, unit: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {_plural(unit, count)}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: nothing in it is markup, no number is coloured."""
    console.print(text, style=style, highlight=False, markup=False)


class _TimeRemaining(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.fields["guesses"] else super().render(task)


class StageView(Protocol):
    """What a stage says while it runs and afterwards, on the way to the terminal."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show an event of its process."""

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line about the stage, as it is."""


class ProgressView:
    """Shows the events of a stage that runs alone."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._started = time.monotonic()
        self._live = console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            _TimeRemaining(),
            TextColumn("[dim]{task.fields[info]}"),
            console=console,
            disable=not self._live,
        )

    def __enter__(self) -> "ProgressView":
        self._console.print(f"[bold]{escape(self._title)}[/]", highlight=False)
        self._bars.start()
        if self._live:
            self._tasks[""] = self._bars.add_task(
                "starting", total=None, unit="", info="", guesses=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, text: str, style: str | None = None) -> None:
        say(self._console, f"  {text}", style)

    def show(self, event: Event) -> None:
        if event.get("event") == "note":
            self.say(plain(str(event["message"])))
        elif event.get("event") == "progress":
            self._progress(event)

    def _progress(self, event: Event) -> None:
        task, done, total = str(event["task"]), event["done"], event["total"]
        # More than was asked for came: a total that was passed says nothing.
        total = None if total is not None and done > total else total
        figures = event.get("info", {})
        info = ", ".join(f"{k} {_figure(v)}" for k, v in figures.items() if v is not None)
        unit = _plural(str(event["unit"]), done if total is None else total)
        if self._live:
            starting = self._tasks.pop("", None)
            if starting is not None:
                self._bars.remove_task(starting)
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(
                    escape(task), total=total, unit=unit, info="", guesses=OWN_GUESS in figures
                )
            self._bars.update(
                self._tasks[task],
                completed=done,
                # None would leave the bar its old total.
                total=done if event["total"] is not None and total is None else total,
                unit=unit,
                info=escape(info),
            )
            return
        now = time.monotonic()
        last = self._said.get(task)
        if last is None or done == total or now - last >= PLAIN_SECONDS:
            self._said[task] = now
            of = f" of {total}" if total is not None else ""
            tail = f" ({info})" if info else ""
            elapsed = now - self._started
            self._console.print(
                f"  {task}: {done}{of} {unit}, {elapsed:.0f} s{tail}", markup=False, highlight=False
            )


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plural(unit: str, count: int | None) -> str:
    return unit if count == 1 or unit.endswith(("s", "B")) or not unit else unit + "s"
