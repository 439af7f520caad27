"""The progress of several stages at a time: a line each at the terminal, or plain lines that begin with
the stage's name where there is no terminal."""

import time
from collections import Counter
from typing import Literal, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from harness.common.progress import RATE_SECONDS, Figures, StageView, say

WIDE = 120
"""Columns of a terminal that has a place for a stage's figures, such as its loss."""

Outcome = Literal["done", "failed", "not run"]


class _Time(ProgressColumn):
    """How long the stage has run, and after a dash how long it is likely to run on."""

    def render(self, task: Task) -> Text:
        left = None if task.fields["guesses"] else task.time_remaining
        spent = _clock(time.monotonic() - task.fields["began"])
        return Text(spent if left is None else f"{spent} -{_clock(left)}", style="progress.elapsed")


class Board:
    """Shows stages that run at the same time."""

    def __init__(self, console: Console, stages: int) -> None:
        self._console = console
        self._count = stages
        self._outcomes = Counter[Outcome]()
        self.is_live = console.is_terminal
        columns: list[ProgressColumn] = [
            TextColumn(
                "  {task.description}",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
            _Time(table_column=Column(no_wrap=True)),
        ]
        if console.width >= WIDE:
            columns.append(
                TextColumn("[dim]{task.fields[info]}", table_column=Column(no_wrap=True))
            )
        self.bars = Progress(
            *columns,
            console=console,
            disable=not self.is_live,
            expand=True,
            speed_estimate_period=RATE_SECONDS,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        if self.is_live:
            self._all = self.bars.add_task(
                "all stages",
                total=self._count,
                figures="",
                info="",
                guesses=True,
                began=time.monotonic(),
            )
            self._tell_count()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.bars.stop()

    def view(self, title: str) -> "BoardView":
        return BoardView(self, self._console, title)

    def count(self, outcome: Outcome) -> None:
        """Note that one more stage needs no more work."""
        self._outcomes[outcome] += 1
        if self.is_live:
            self._tell_count()

    def _tell_count(self) -> None:
        figures = f"{self._outcomes['done']}/{self._count} done"
        for outcome in ("failed", "not run"):
            if count := self._outcomes[outcome]:
                figures += f", {count} {outcome}"
        self.bars.update(self._all, completed=self._outcomes.total(), figures=figures)


class BoardView(StageView):
    """Shows one of the stages."""

    def __init__(self, board: Board, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._board = board
        self._line: TaskID | None = None
        self._task = ""

    def __enter__(self) -> Self:
        super().__enter__()
        if self._board.is_live:
            # Without the key, which stands in the line above.
            name = escape(self._title.rpartition(" [")[0] or self._title)
            self._line = self._board.bars.add_task(
                name,
                total=None,
                figures="starting",
                info="",
                guesses=False,
                began=time.monotonic(),
            )
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        super().__exit__(kind, error, trace)
        if self._line is not None:
            self._board.bars.remove_task(self._line)
            self._line = None

    def say(self, text: str, style: str | None = None) -> None:
        say(self._console, f"{self._title}: {text}", style)

    def _progress(self, at: Figures) -> None:
        if self._line is not None:
            if at.task != self._task:
                # What a bar guesses of the time left is of one task.
                self._board.bars.reset(self._line, start=True, total=at.bar_total)
                self._task = at.task
            of = f"/{at.total}" if at.total is not None else ""
            self._board.bars.update(
                self._line,
                completed=at.done,
                total=at.bar_total,
                figures=escape(f"{at.done}{of} {at.unit}"),
                info=escape(at.info),
                guesses=at.guesses,
            )
        else:
            self._plain.show(at)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
