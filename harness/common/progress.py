"""A stage's progress at the terminal: live bars, or plain lines where there is no terminal."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never, Required, Self, TypedDict

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

from harness.common.hanging import print_hanging
from harness.errors import Interrupted

PLAIN_SECONDS = 5.0
"""Without a terminal, a task says how far it is at most this often."""
RATE_SECONDS = 3600.0
"""How long back a bar's guess of the time left looks, so that slow steps have one too."""
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


def note_event(message: str) -> Event:
    return {"event": "note", "message": message}


def progress_event(
    task: str, done: int, total: int | None, unit: str, **info: float | str | None
) -> Event:
    """As harness.artefact.events.progress tells it."""
    return {
        "event": "progress",
        "task": task,
        "done": done,
        "total": total,
        "unit": unit,
        "info": info,
    }


class OutputClosed(BrokenPipeError):
    """What read the command's output has ended, such as `head`."""


class Output(Console):
    """Standard output. Once its reader is gone it raises OutputClosed, and is silent from then on."""

    def on_broken_pipe(self) -> Never:
        self.quiet = True
        # What is still buffered is written when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputClosed


def plain(text: str) -> str:
    """Text from models or files without what could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def counted(count: int, unit: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {_plural(unit, count)}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print each line of the text as `print_hanging` does; no number is coloured."""
    for line in text.split("\n"):
        print_hanging(console, Text(line, style or ""))


class _TimeRemaining(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.fields["guesses"] else super().render(task)


class StageView(ABC):
    """Shows what a stage says while it runs and afterwards, on the way to the terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._plain = PlainLines(self.say)

    def __enter__(self) -> Self:
        say(self._console, self._title, "bold")
        self._plain.begin()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._plain.end()

    @abstractmethod
    def say(self, text: str, style: str | None = None) -> None:
        """Print a line about the stage, as it is."""

    def show(self, event: Event) -> None:
        """Show an event of its process."""
        if event.get("event") == "note":
            self.say(plain(str(event["message"])))
        elif event.get("event") == "progress":
            self._progress(Figures.of(event))

    @abstractmethod
    def _progress(self, at: "Figures") -> None:
        """Show how far it is."""


class ProgressView(StageView):
    """Shows the events of a stage that runs alone."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._live = console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._current = ""
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
            speed_estimate_period=RATE_SECONDS,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self._bars.start()
        if self._live:
            self._tasks[""] = self._bars.add_task(
                "starting", total=None, unit="", info="", guesses=False
            )
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        super().__exit__(kind, error, trace)
        for task in self._bars.tasks if error is not None else ():
            if task.id == self._tasks.get(self._current) and not task.finished:
                was_stopped = isinstance(error, Interrupted | KeyboardInterrupt)
                outcome = f"{task.description}: {'stopped' if was_stopped else 'failed'}"
                self._bars.update(task.id, description=outcome, guesses=True)
        self._bars.stop()

    def say(self, text: str, style: str | None = None) -> None:
        say(self._console, f"  {text}", style)

    def _progress(self, at: "Figures") -> None:
        if self._live:
            starting = self._tasks.pop("", None)
            if starting is not None:
                self._bars.remove_task(starting)
            if at.task not in self._tasks:
                self._tasks[at.task] = self._bars.add_task(
                    escape(at.task), total=at.total, unit=at.unit, info="", guesses=at.guesses
                )
            self._current = at.task
            self._bars.update(
                self._tasks[at.task],
                completed=at.done,
                total=at.bar_total,
                unit=at.unit,
                info=escape(at.info),
            )
        else:
            self._plain.show(at)


@dataclass(frozen=True)
class Figures:
    """How far a task of a stage is."""

    task: str
    done: int
    total: int | None
    """None: not known, or passed already."""
    unit: str
    info: str
    guesses: bool
    """Whether the stage itself says how long it will take."""
    is_passed: bool
    """Whether more came than was asked for."""

    @classmethod
    def of(cls, event: Event) -> "Figures":
        done, total = event["done"], event["total"]
        # More than was asked for came: a total that was passed says nothing.
        is_passed = total is not None and done > total
        total = None if is_passed else total
        figures = event.get("info", {})
        info = ", ".join(f"{k} {_figure(v)}" for k, v in figures.items() if v is not None)
        unit = _plural(str(event["unit"]), done if total is None else total)
        return cls(str(event["task"]), done, total, unit, info, OWN_GUESS in figures, is_passed)

    @property
    def bar_total(self) -> int | None:
        """None would leave the bar its old total."""
        return self.done if self.is_passed else self.total

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total is not None else ""
        return f"{self.task}: {self.done}{of} {self.unit}"

    @property
    def tail(self) -> str:
        return f" ({self.info})" if self.info else ""


class PlainLines:
    """How far a stage is where there is no terminal: a line now and then, and the last figures."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: dict[str, tuple[float, int]] = {}
        """Task -> when it was last told, and how far it was."""
        self._untold: Figures | None = None
        self.begin()

    def begin(self) -> None:
        self._started = time.monotonic()

    def show(self, at: Figures) -> None:
        when, done = self._said.get(at.task, (-PLAIN_SECONDS, -1))
        if time.monotonic() - when >= PLAIN_SECONDS or done != at.done == at.total:
            self._tell(at)
        elif at.done != done:
            self._untold = at

    def end(self) -> None:
        """Tell the last figures where they were not told."""
        if self._untold is not None:
            self._tell(self._untold)

    def _tell(self, at: Figures) -> None:
        now, self._untold = time.monotonic(), None
        self._said[at.task] = now, at.done
        self._say(f"{at}, {now - self._started:.0f} s{at.tail}")


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plural(unit: str, count: int | None) -> str:
    return unit if count == 1 or unit.endswith(("s", "B")) or not unit else unit + "s"
