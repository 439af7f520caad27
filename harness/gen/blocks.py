"""Task blocks: how a request shows its examples, and how a teacher's reply gives new ones.

    ### 4. Instruction: Give the plural of the word.
    Input: mouse
    Output: mice

Each label starts a line, an empty input is `<none>`, and a part may run over several lines.
"""

import re
from typing import NamedTuple

from harness.gen.seeds import AlpacaTask

NO_INPUT = "<none>"

_HEADER = re.compile(r"^### *(\d{1,9}) *\.", re.MULTILINE)
_FIRST_LABEL = re.compile(r" *Instruction:")
_LABEL = re.compile(r"^(Instruction|Input|Output):", re.MULTILINE)


class Block(NamedTuple):
    """A piece of a reply that should be a task. `task` is None where it cannot be read as one."""

    text: str
    task: AlpacaTask | None


def render(number: int, task: AlpacaTask) -> str:
    """The task as block `number`, without a newline at its end."""
    return (
        f"### {number}. Instruction: {task.instruction.strip()}\n"
        f"Input: {task.input.strip() or NO_INPUT}\n"
        f"Output: {task.output.strip()}"
    )


def split(reply: str) -> list[Block]:
    """The blocks of a reply, in order; what stands before the first one does not count.

    A reply without any block is one unreadable piece.
    """
    text = reply.replace("\r\n", "\n")
    starts = _starts(text)
    if not starts:
        return [Block(text, None)]
    ends = [*starts[1:], len(text)]
    pieces = (text[start:end].strip() for start, end in zip(starts, ends, strict=True))
    return [Block(piece, _parse(piece)) for piece in pieces]


def _starts(text: str) -> list[int]:
    """Where blocks begin: at `### N. Instruction:`, and at a `### N.` that goes on the numbering.

    A numbered heading inside an output does neither, and stays a part of the output.
    """
    starts: list[int] = []
    expected: int | None = None
    for header in _HEADER.finditer(text):
        number = int(header[1])
        labelled = _FIRST_LABEL.match(text, header.end())
        if labelled or expected in (None, number):
            starts.append(header.start())
            expected = number + 1
    return starts


def _parse(piece: str) -> AlpacaTask | None:
    header = _HEADER.match(piece)
    first = header and _FIRST_LABEL.match(piece, header.end())
    labels = list(_LABEL.finditer(piece))
    # A label that comes twice leaves open which part is which.
    if not first or [label[1] for label in labels] != ["Input", "Output"]:
        return None
    second, third = labels
    input_text = piece[second.end() : third.start()].strip()
    return AlpacaTask(
        instruction=piece[first.end() : second.start()].strip(),
        input="" if input_text.lower() == NO_INPUT else input_text,
        output=piece[third.end() :].strip(),
    )
