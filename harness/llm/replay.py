"""Replay: every reply from a transcript, and no way to a network."""

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.errors import HarnessError
from harness.llm.calls import PlacedCall
from harness.llm.record import CallRecord, Request
from harness.llm.transcript import CallPlace, Transcript

COMPARED_CHARACTERS = 20_000
"""Of a request, when the nearest one is looked for."""
FINALISTS = 8
"""Requests compared word by word, after one look at which words all of them hold."""
COMPARED_WORDS = 2_000
COMPARED_LINES = 2_000
GOOD = 0.5
"""Similarity from which a request that nothing has asked for yet is taken for the one meant."""
LONGEST_LINE = 160
LONGEST_DIFF = 60
LONGEST_CHANGE = 12
"""Lines, of either side."""
AROUND = 2
"""Unchanged lines shown on either side of a change."""

_WORD = re.compile(r"\w+")
_LINE_END = re.compile(r"(?<!\\)((?:\\\\)*\\n)")
_EVENTS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}


class ReplayMiss(HarnessError):
    """A replayed stage asks for what its transcript does not hold."""


class NetworkRefused(HarnessError):
    """Something tried to reach a network during a replay."""


def miss(transcript: Transcript, call: PlacedCall, request: Request) -> ReplayMiss:
    """The error for a request that the transcript lacks, with the nearest one that it holds."""
    number = transcript.order(call.place)
    lacking = (
        f"the transcript {transcript.path} lacks the answer to request {number} (line {number + 1} "
        "in the order of asking)"
    )
    if transcript.cut is not None:
        lacking += f"; its last line, {_line(transcript.cut - 1)}, is cut"
    digest, occurrence = call.place
    if transcript.is_answered((digest, occurrence - 1)):
        return ReplayMiss(
            f"{lacking}: it is asked {occurrence + 1} times, and was answered {occurrence} times",
            hint="the transcript is of another run, or was cut: it belongs to other parameters or "
            "another version of this stage",
        )
    nearest = _nearest(transcript, call.place, request)
    if nearest is None:
        return ReplayMiss(lacking, hint="it holds no request at all")
    line, record = nearest
    if record["digest"] == digest and not transcript.is_answered((digest, record["occurrence"])):
        return ReplayMiss(
            f"{lacking}: the call failed when it was made",
            hint=f"{_line(line)} says: {_printable(str(record.get('error', '')))[:500]}",
        )
    diff = "\n".join(_diff(record["request"], request, line))
    return ReplayMiss(
        lacking,
        hint="a request is its prompt, its sampling parameters with their seed, its model and its "
        "base_url: the spec has to give all of them as they were. The nearest request that the "
        f"transcript holds, against this one:\n{diff}",
    )


def _line(line: int) -> str:
    """A line, from 0, as an editor counts it and as Reply.request and a Lineage do."""
    return f"line {line + 1} (request {line})"


def refuse_network() -> None:
    """From now on every attempt of this process to reach a network raises NetworkRefused.

    Sockets of the machine's own (AF_UNIX) stay. There is no way back. Programs that this process
    starts are not held to it.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS:
        return
    target: Any = arguments
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        socket, target = arguments[0], arguments[-1]
        if socket.family.name == "AF_UNIX" or target is None:
            return
    parts = target[:2] if isinstance(target, tuple) else (target,)
    where = ":".join(str(part) for part in parts if part is not None)
    raise NetworkRefused(
        f"{_who()} tried to reach {_printable(where)[:200]} during a replay",
        hint="a replay takes everything from the transcript and the stage's inputs; what needs a "
        "network has to be recorded or fetched before",
    )


def _who() -> str:
    """The innermost module that is not of the standard library."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "?"))
        if name.partition(".")[0] not in sys.stdlib_module_names and name != __name__:
            return f"{name}, line {frame.f_lineno},"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "the program"


def _nearest(
    transcript: Transcript, place: CallPlace, request: Request
) -> tuple[int, CallRecord] | None:
    """(line, record) of the recorded request most like this one: of those that nothing has asked
    for yet, unless none of them is much like it."""
    request_words = _words(request)
    held = Counter(request_words)
    free: list[tuple[float, int]] = []
    used: list[tuple[float, int]] = []
    for line, record in transcript.records():
        if isinstance(record.get("request"), dict):
            words = _words(record["request"])
            common = sum((held & Counter(words)).values())
            score = 2 * common / ((len(request_words) + len(words)) or 1)
            recorded_place = (record["digest"], record["occurrence"])
            is_free = recorded_place == place or not transcript.was_asked(recorded_place)
            (free if is_free else used).append((-score, line))
    meant, other = (
        max(
            (
                (_similarity(request_words, transcript.record(line)), -line)
                for _, line in sorted(group)[:FINALISTS]
            ),
            default=(-1.0, 0),
        )
        for group in (free, used)
    )
    best = other if meant[0] < min(GOOD, other[0]) else meant
    return (-best[1], transcript.record(-best[1])) if free or used else None


def _words(request: Request) -> list[str]:
    text = json.dumps(request.get("body"), sort_keys=True, ensure_ascii=False)
    return _WORD.findall(text[:COMPARED_CHARACTERS])


def _similarity(request_words: list[str], record: CallRecord) -> float:
    words = _words(record["request"])
    matcher = difflib.SequenceMatcher(
        None, request_words[:COMPARED_WORDS], words[:COMPARED_WORDS], autojunk=False
    )
    return matcher.ratio()


def _diff(recorded: Request, request: Request, line: int) -> Iterator[str]:
    """A unified diff of the two requests' JSON, in which texts stand line by line."""
    old, new = _pretty(recorded), _pretty(request)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    yield f"--- recorded, {_line(line)}"
    yield "+++ asked"
    line_count = 2
    for group in matcher.get_grouped_opcodes(AROUND):
        first, last = group[0], group[-1]
        yield (f"@@ -{first[1] + 1},{last[2] - first[1]} +{first[3] + 1},{last[4] - first[3]} @@")
        line_count += 1
        for change in _changes(old, new, group):
            if line_count >= LONGEST_DIFF:
                yield "..."
                return
            yield change
            line_count += 1


def _changes(
    old: list[str], new: list[str], group: list[tuple[str, int, int, int, int]]
) -> Iterator[str]:
    for what, a, b, c, d in group:
        if what == "equal":
            yield from (f" {_shortened(text)}" for text in old[a:b])
            continue
        same = [_common_start(*pair) for pair in zip(old[a:b], new[c:d], strict=False)]
        for sign, lines in (("-", old[a:b]), ("+", new[c:d])):
            for number, text in enumerate(lines[:LONGEST_CHANGE]):
                yield sign + _shortened(text, same[number] if number < len(same) else 0)
            if len(lines) > LONGEST_CHANGE:
                yield f"{sign}[{len(lines) - LONGEST_CHANGE} more lines]"


def _pretty(request: Request) -> list[str]:
    text = json.dumps(request, indent=2, sort_keys=True, ensure_ascii=False)
    lines = _LINE_END.sub(r"\1" + "\n", text).split("\n")
    return [_printable(line) for line in lines[:COMPARED_LINES]]


def _printable(text: str) -> str:
    """Without what a terminal would obey, or cannot show."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _common_start(first: str, second: str) -> int:
    """How many characters two lines share at their beginnings."""
    most = min(len(first), len(second))
    return next((i for i in range(most) if first[i] != second[i]), most)


def _shortened(line: str, same: int = 0) -> str:
    """At most LONGEST_LINE characters of a line, with those that follow its first `same` ones."""
    begin = max(0, min(same - LONGEST_LINE // 4, len(line) - LONGEST_LINE))
    end = begin + LONGEST_LINE
    head = f"[{begin} characters]" if begin else ""
    tail = f"[{len(line) - end} characters]" if end < len(line) else ""
    return head + line[begin:end] + tail
