"""How the replies in Self-Instruct's steps are taken apart.

Facts from self-instruct 0b26ccaa. From a completion model everything is taken as upstream takes
it. A chat teacher may frame its reply, number it its own way and dress its labels up, and must
number every instruction and label every output: what it says beside them is no data.
"""

import re
from bisect import bisect
from collections.abc import Iterator
from typing import NamedTuple

from harness.gen.refusals import is_refusal
from harness.gen.seeds import is_unicode
from harness.llm.reply import REFUSED, Reply

YES, NO = ("Yes", "yes", "YES"), ("No", "no", "NO")

_NEXT = re.compile(r"\n\d+\s?\. ")
_NEXT_OF_CHAT = re.compile(
    r"^(?P<indent>[ \t]*)\*{0,2}(?P<number>\d{1,4})\s?[.)]\*{0,2}[ \t]+", re.MULTILINE
)
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")

_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_OUTPUT = re.compile(r"Output\s*(?:\d+\s*)?:")
_INPUT = re.compile(r"Input\s*(?:\d+\s*)?:")
_LABEL = "Class label:"

_OUTPUT_LINE = re.compile(r"^Output:", re.MULTILINE)
_INPUT_LINE = re.compile(r"^Input:", re.MULTILINE)
_FENCED = re.compile(r"```[ \t]*\n((?:(?!```).)*?)\n?[ \t]*```", re.DOTALL)

_DRESS = (
    r"^(?:[ \t]|>)*(?:#{1,6}[ \t]+|[-*\u2022][ \t]+)?(?P<item>\d{1,3}[.)][ \t]{1,4})?"
    r"(?P<bold>\*{1,3}|_{1,2}|`|<[a-z]{1,6}>)?"
)
_UNDRESS = r"(?:\*{1,3}|_{1,2}|`|</[a-z]{1,6}>)"
_NUMBER = r"(?:\#?\d{1,4}|One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten)"
_REMARK = r"(?:[ \t]*\([^()\n]{1,60}\))?"
_EXAMPLE_OF_CHAT = re.compile(
    _DRESS + r"Example[ \t]?(?:"
    rf"\#?\d{{1,4}}{_REMARK}[.:)]?(?(bold){_UNDRESS})[.:]?"
    rf"|(?:{_NUMBER}{_REMARK})?[.:]?(?(bold){_UNDRESS})[.:]?[ \t]*$)",
    re.MULTILINE,
)
_LABEL_OF_CHAT = re.compile(
    _DRESS + r"(?:(?P<of>(?:Example|Sample|Expected|Test case|Task)[ \t]?(?:\d{1,4}[ \t]?)?"
    r"(?:[-:.)][ \t]?)?)|(?P<words>(?:[A-Z][a-z]{1,12}[ \t]){1,3}))?"
    r"(?P<label>Input|INPUT|Output|OUTPUT|[Cc]lass [Ll]abel|CLASS LABEL)"
    r"[ \t]*(?P<number>\#?\d{1,6}\)?[ \t]*)?(?:\([^()\n]{1,60}\)[ \t]*)?"
    rf"(?(bold)(?:{_UNDRESS}[:\uff1a]|[:\uff1a]{_UNDRESS})|[:\uff1a])",
    re.MULTILINE,
)
_EXAMPLE_ABOVE_LABEL = re.compile(_EXAMPLE_OF_CHAT.pattern + r"\s*(?=Class label:)", re.MULTILINE)
_RULE_BELOW = re.compile(r"\n[ \t]*(?:-{3,}|\*{2,3}|#{1,6})[ \t]*\Z")
"""A line between examples, or what a stop within `### Example 6` leaves."""


class ParsedInstance(NamedTuple):
    """A piece of a reply. `rule`: what drops it; its text is then in `output`, if nowhere else."""

    input: str
    output: str
    rule: str | None = None


def read_instructions(reply: Reply, first: int, chat: bool) -> tuple[str | None, list[str]]:
    """The pieces of a reply that goes on a list at number `first`, and the rule that drops them all.

    A reply that nothing can be read from is one piece.
    """
    if _refused(reply, chat):
        return "refused", [reply.text]
    if not reply.text.strip():
        return "empty_reply", [reply.text]
    pieces = _split_chat(reply.text, first) if chat else _NEXT.split(reply.text)
    pieces = [piece for piece in pieces if piece.strip()]
    if reply.finish_reason == "length":
        return "cut", pieces or [reply.text]
    return (None, pieces) if pieces else ("unparsable", [reply.text])


def _split_chat(text: str, first: int) -> list[str]:
    """The items of a numbered list; none where no line has a number.

    The list may begin in the middle of item `first`, as a completion would. Anything else before
    it, and what follows an item after an empty line, is the teacher talking.
    """
    text = _FENCE.sub("", text.replace("\r\n", "\n"))
    heads = _heads(text)
    if not heads:
        return []
    before = text[: heads[0].start()] if int(heads[0]["number"]) == first + 1 else ""
    ends = [*(head.start() for head in heads[1:]), len(text)]
    items = [text[head.end() : end] for head, end in zip(heads, ends, strict=True)]
    return [before, *(_BLANK_LINE.split(item)[0] for item in items)]


def _heads(text: str) -> list[re.Match[str]]:
    """Where items begin: at each number, but an indented one only if it goes on the numbering."""
    heads: list[re.Match[str]] = []
    for head in _NEXT_OF_CHAT.finditer(text):
        expected = int(heads[-1]["number"]) + 1 if heads else None
        if not head["indent"] or expected in (None, int(head["number"])):
            heads.append(head)
    return heads


def read_classification(text: str, chat: bool) -> bool | None:
    """Whether a reply says yes; None where it says neither yes nor no."""
    answer = text.strip()
    if chat:
        answer = answer.removesuffix(".")
    return True if answer in YES else False if answer in NO else None


def read_instances(reply: Reply, is_classification: bool, chat: bool) -> list[ParsedInstance]:
    """The pieces of a reply, in order, each with the first rule that drops it.

    A reply that nothing can be read from is one piece.
    """
    if _refused(reply, chat):
        return [ParsedInstance("", reply.text, "refused")]
    if not reply.text.strip():
        return [ParsedInstance("", "", "empty_reply")]
    text = _plain(reply.text, is_classification) if chat else reply.text
    parsed = _labelled(text, chat) if is_classification else _exemplified(text.strip(), chat)
    pieces = list(parsed)
    if not pieces:
        return [ParsedInstance("", reply.text, "unparsable")]
    if reply.finish_reason == "length":
        pieces[-1] = pieces[-1]._replace(rule="cut")
    return [piece if piece.rule else piece._replace(rule=_fault(piece)) for piece in pieces]


def _fault(piece: ParsedInstance) -> str | None:
    if not is_unicode(piece.input + piece.output):
        return "unparsable"
    if not piece.output:
        return "empty_output"
    if piece.input == piece.output:
        return "same_as_input"
    # What ends so was most likely going to go on.
    if piece.input.endswith(":") or piece.output.endswith(":"):
        return "ends_with_colon"
    return None


def _labelled(text: str, chat: bool) -> Iterator[ParsedInstance]:
    """Output-first pieces: a class label, and on the lines after it the input."""
    for piece in (_EXAMPLE_ABOVE_LABEL.sub("", text) if chat else text).split(_LABEL)[1:]:
        label, _, input_text = _trim(piece, chat).partition("\n")
        yield ParsedInstance(_unlabelled(input_text) if chat else input_text.strip(), label.strip())


def _exemplified(text: str, chat: bool) -> Iterator[ParsedInstance]:
    """Input-first pieces. Without any `Example` the text is one, if it has an output.

    Of a completion, text after an `Example` is an output even where no label says so, as upstream
    has it; of a chat it is not.
    """
    if chat:
        # What stands between the places is not in the list, as it would be with `split`.
        ends = [0, *(match.end() for match in _EXAMPLE_OF_CHAT.finditer(text))]
        starts = [*(match.start() for match in _EXAMPLE_OF_CHAT.finditer(text)), len(text)]
        pieces = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    else:
        pieces = _EXAMPLE.split(text)
    pieces = [_trim(piece, chat) for piece in pieces]
    if len(pieces) == 1:
        if _OUTPUT.search(text):
            yield _pair(pieces[0], chat)
        return
    if chat and not _OUTPUT.search(pieces[0]):
        del pieces[0]
    for piece in filter(None, pieces):
        if chat and not _OUTPUT.search(piece):
            yield ParsedInstance("", piece, "unparsable")
        else:
            yield _pair(piece, chat)


def _pair(text: str, chat: bool) -> ParsedInstance:
    """The input before the first `Output:` and the output after it, up to the next label: of a chat
    one that begins a line, where there is one, as the texts may hold such words themselves."""
    at_line = chat and _OUTPUT_LINE.search(text)
    input_text, *outputs = (_OUTPUT_LINE if at_line else _OUTPUT).split(text)
    if not outputs:
        input_text, outputs = "", [text]
    input_text = _unlabelled(input_text)
    output = (_INPUT_LINE if at_line else _INPUT).split(outputs[0])[0].strip()
    return (
        ParsedInstance(_unfenced(input_text), _unfenced(output))
        if chat
        else ParsedInstance(input_text, output)
    )


def _unfenced(text: str) -> str:
    """The text without a bare fence that holds all of it; one that names a language is its own."""
    fence = _FENCED.fullmatch(text)
    return fence[1].strip() if fence else text


def _unlabelled(text: str) -> str:
    """The text without an `Input:` at its start."""
    text = text.strip()
    label = _INPUT.match(text)
    return text[label.end() :].strip() if label else text


def _plain(text: str, is_classification: bool) -> str:
    """A chat reply without a fence around it and with its labels bare: `**Output:**` is `Output:`, and
    so is `Example 1 Output:`. Where labels alone say that another example begins, a line says so."""
    text = text.replace("\r\n", "\n").strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.removesuffix("```").partition("\n")[2]
    labels = _labels(text)
    places = {label.start() for label in labels}
    heads = [h.start() for h in _EXAMPLE_OF_CHAT.finditer(text) if h.start() not in places]
    parts: list[str] = []
    end = 0
    begun = has_output = False
    for label in labels:
        if bisect(heads, label.start()) > bisect(heads, end):
            begun, has_output = True, False
        name = label["label"].capitalize()
        is_numbered = any(label[part] for part in ("item", "of", "words", "number"))
        parts.append(text[end : label.start()])
        if (
            is_numbered
            and not is_classification
            and (has_output or (name == "Input" and not begun))
        ):
            parts.append("Example\n")
            begun, has_output = True, False
        parts.append(f"{name}:")
        has_output = has_output or name == "Output"
        end = label.end()
    return "".join(parts) + text[end:]


def _labels(text: str) -> list[re.Match[str]]:
    """The labels. `Console Output:` is one only where no line has `Output:` without such words."""
    labels = list(_LABEL_OF_CHAT.finditer(text))
    plain = {label["label"].capitalize() for label in labels if not label["words"]}
    return [m for m in labels if not m["words"] or m["label"].capitalize() not in plain]


def _trim(piece: str, chat: bool) -> str:
    return _RULE_BELOW.sub("", piece.strip()).rstrip() if chat else piece.strip()


def _refused(reply: Reply, chat: bool) -> bool:
    return is_refusal(reply) if chat else reply.finish_reason == REFUSED


def collapse(text: str) -> str:
    """The text on one line, with single spaces."""
    return re.sub(r"\s+", " ", text).strip()
