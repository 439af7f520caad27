"""What a trainer of transformers printed when it began, from a console log beside its own."""

import re
from collections.abc import Iterator
from pathlib import Path

from harness.audit.parse.files import Unreadable, files_in, read_text
from harness.audit.parse.training_log import Log

SUFFIXES = (".log", ".txt", ".out", ".err")
LARGEST = 2**26
"""Bytes of a console log."""
ABOVE = 2
"""Folders above a training's log in which one is looked for."""
LONGEST = 5000
"""Characters that the list of figures may take."""
_BEGIN = re.compile(r"\*+ Running (\w+) \*+")
_FIGURE = re.compile(
    r"(Num examples|Num Epochs|Instantaneous batch size|Total train batch size|Gradient Accumulation"
    r"|Total optimization)[^=\r\n]*=\s*(\d[\d,]*)"
)


def read_console(log: Log, root: Path) -> None:
    """Set the log's examples, batches and accumulation from what was printed of this very training: by
    its number of steps, and its epochs and batch where the log has them. Nothing, where prints
    disagree."""
    place = log.folder
    for _ in range(ABOVE + 1):
        of_log = [(path, figures) for path, figures in _printed_in(place) if _is_of(log, figures)]
        printed = {tuple(sorted(figures.items())): path for path, figures in of_log}
        if len(printed) == 1:
            _take(log, of_log[0][1], of_log[-1][0])
        if printed or place in (root, root.parent):
            return
        place = place.parent


def _printed_in(folder: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    for path in files_in(folder, SUFFIXES):
        try:
            text = read_text(path) if path.stat().st_size <= LARGEST else ""
        except (Unreadable, OSError):
            continue
        for begin in _BEGIN.finditer(text):
            if begin[1] != "training":
                continue
            part = _BEGIN.split(text[begin.end() : begin.end() + LONGEST], maxsplit=1)[0]
            figures: dict[str, int] = {}
            for name, value in _FIGURE.findall(part):
                figures.setdefault(name, int(value.replace(",", "")))
            yield path, figures


def _is_of(log: Log, figures: dict[str, int]) -> bool:
    # Of a stream the trainer prints numbers without end.
    return (
        0 < figures.get("Num examples", 0) < 10**12
        and 0 < figures.get("Num Epochs", 1) < 10**6
        and log.planned is not None
        and log.planned == figures.get("Total optimization")
        and log.epochs in (None, figures.get("Num Epochs"))
        and (not log.batch or log.batch % max(figures.get("Instantaneous batch size", 1), 1) == 0)
    )


def _take(log: Log, figures: dict[str, int], path: Path) -> None:
    log.counted_by = path.name
    log.examples = figures["Num examples"]
    log.epochs = log.epochs or figures.get("Num Epochs")
    log.batch = log.batch or figures.get("Instantaneous batch size")
    log.accumulation = figures.get("Gradient Accumulation")
    log.total_batch = figures.get("Total train batch size")
