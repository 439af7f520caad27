"""What is wrong with an answer whatever a judge makes of it: flags, recomputed from the text alone.

Each flag is defined by one function below, on the output as it stands in model_outputs.json (those of
reasoning on what was generated). A flag is a sign and no verdict: an instruction may ask for a
dialogue, or for one word a hundred times.
"""

import operator
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.artefact.manifest import Finding, Severity
from harness.common.progress import counted

EMPTY, ROLE_WORD, EXTRA_TURNS, CUT, LOOP, REASONING, OPEN_REASONING = FLAGS = (
    "empty",
    "role_word",
    "extra_turns",
    "cut",
    "loop",
    "reasoning",
    "open_reasoning",
)

ROLE = r"(?:assistant|user|human|system|chatgpt|gpt|bot|ai)"
_MARK = r"(?:<\|[\w ]+\|>|\[/?INST\]|<</?SYS>>|</?s>)"
"""Special tokens of chat layouts, written out."""
_DRESS = r"[#*_>\[\(\s]*"
"""What a role word may be dressed in: `### Assistant:`, `**User**:`."""
_COLON = rf"{ROLE}[\]\)*_]*[ \t]*[:\uff1a]"
_ALONE = r"(?-i:assistant|user|human|system)[ \t]*(?:\n|$)"
"""Chat layouts write it in small letters; `User` alone on a line is a heading."""
# Possessive (*+), so that a long run of white space is read once and not once for each of its places.
_FIRST = re.compile(rf"\s*+(?:{_MARK}\s*+)*+(?:{_DRESS}+{_COLON}|{_ALONE})", re.IGNORECASE)
_FURTHER = re.compile(
    rf"\n[ \t]*+(?:{_MARK}\s*+)*+(?:[#*_>]*+[ \t]*+{_COLON}|{_ALONE})"
    rf"|\n[ \t]*+#++[ \t]*+(?:instruction|response|input|human|user|assistant)[ \t]*+:"
    rf"|{_MARK}",
    re.IGNORECASE,
)

LOOP_REPEATS = 4
"""So often must a block of words stand in a row."""
LOOP_WORDS = 20
"""So many words must all of its repeats have together."""
LONGEST_BLOCK = 50
"""Words of the longest block that is looked for."""
_LETTER = re.compile(r"[^\W\d_]")
_DIGITS = re.compile(r"\d+")
_CHARACTERS = re.compile(r"(?P<block>\S{1,20}?)(?P=block){9,}")
"""The same for what has no spaces between its words: a block of up to 20 characters ten times."""
LOOP_CHARACTERS = 40

_THINKS = re.compile(
    r"(?P<fence>^ {0,3}```)|`|\n|<(?P<closes>/?)think(?:ing)?\s*>", re.IGNORECASE | re.MULTILINE
)

_IS_EMPTY = ("is empty", "are empty")
_IS_CUT = ("is cut at the token limit", "are cut at the token limit")
_BEGINS = ("begins with the name of a role", "begin with the name of a role")
_GOES_ON = ("goes on into invented turns", "go on into invented turns")
_HOLDS = ("holds reasoning (<think>)", "hold reasoning (<think>)")
_ENDS = ("ends within it", "end within it")
NOTICEABLE = 0.05
"""A share of empty or cut answers from which a reader of the scores must know of them."""


def flags(output: str, finish_reason: str | None, generated: str | None = None) -> list[str]:
    """Those of FLAGS that hold, in their order. `generated`: where more was than the output."""
    reasons = split_reasoning(output if generated is None else generated)[1]
    holds = {
        EMPTY: is_empty(output),
        ROLE_WORD: begins_with_role(output),
        EXTRA_TURNS: has_extra_turns(output),
        CUT: finish_reason == "length",
        LOOP: has_loop(output),
        **{name: name in reasons for name in (REASONING, OPEN_REASONING)},
    }
    return [flag for flag in FLAGS if holds[flag]]


def is_empty(output: str) -> bool:
    """Nothing but white space."""
    return not output.strip()


def begins_with_role(output: str) -> bool:
    """The answer begins with the name of a role as a header: in small letters alone on its line, or
    before a colon.

    So `assistant\\nSure`, `### Human: hi` and `<|im_start|>user`, and not `Human rights are`. It
    is what a model says first when its prompt lacks the assistant's header.
    """
    return _FIRST.match(output) is not None


def has_extra_turns(output: str) -> bool:
    """After its first line the answer opens another turn: a role's name as a header (see above) at the
    beginning of a line, `### Instruction:`, or anywhere a chat layout's special token written out.
    """
    return _FURTHER.search(output.lstrip()) is not None


def has_loop(output: str) -> bool:
    """The same block of up to 50 words stands 4 times in a row or more, in all at least 20 words.

    Digits do not count, so that a numbered list of one item is a loop and counting is not. A block
    holds at least one letter. In text without spaces: a block of up to 20 characters ten times.
    White space is no word: an answer of newlines alone is `empty`, and `cut` where they go on to the
    limit, and no loop.
    """
    words = [_DIGITS.sub("", word) for word in output.split()]
    for size in range(1, min(LONGEST_BLOCK, len(words) // LOOP_REPEATS) + 1):
        repeats = max((LOOP_REPEATS - 1) * size, LOOP_WORDS - size)
        same = bytes(map(operator.eq, words, words[size:]))
        at = same.find(b"\x01" * repeats)
        while at >= 0:
            if any(_LETTER.search(word) for word in words[at : at + size]):
                return True
            # Dots, rules and bare numbers repeat: go on behind them.
            at = same.find(b"\x00", at)
            at = same.find(b"\x01" * repeats, at) if at >= 0 else -1
    return any(
        _LETTER.search(match["block"]) and len(match[0]) >= LOOP_CHARACTERS
        for match in _CHARACTERS.finditer(output)
    )


def split_reasoning(text: str) -> tuple[str, set[str]]:
    """(An answer without its reasoning, which of REASONING and OPEN_REASONING hold).

    Reasoning stands between <think> and </think> (or <thinking>); where a prompt ends with the first of
    them, it is all up to a </think> at the end of a line. Open reasoning has only its beginning, on a
    line of its own or as the first of one: the answer ended within it, and nothing follows.
    """
    tags = list(_tags(text))
    kinds: set[str] = set()
    parts, at = [], 0
    if tags and tags[0]["closes"]:
        rest = text[tags[0].end() :]
        if not rest.partition("\n")[0].strip():
            kinds.add(REASONING)
            at = tags[0].end()
    depth, begin, last = 0, at, None
    for tag in tags:
        if tag.start() < at:
            continue
        if not tag["closes"]:
            if not depth:
                begin, last = tag.start(), None
            depth += 1
        elif depth:
            depth, last = depth - 1, tag.end()
            if not depth:
                kinds.add(REASONING)
                parts.append(text[at:begin])
                at = last
    if depth and last is not None:  # an opening was only mentioned within the reasoning
        kinds.add(REASONING)
        parts.append(text[at:begin])
        at = last
    elif depth and not text[at:begin].rpartition("\n")[2].strip():
        return "".join([*parts, text[at:begin]]), kinds | {OPEN_REASONING}
    return "".join([*parts, text[at:]]), kinds


def _tags(text: str) -> Iterator[re.Match[str]]:
    """Those that are not shown as code, between backquotes of a line or in a fenced block."""
    is_fenced = is_quoted = False
    for match in _THINKS.finditer(text):
        if match["fence"]:
            is_fenced = not is_fenced
        elif match[0] == "\n":
            is_quoted = False
        elif match[0] == "`":
            is_quoted = not is_quoted
        elif not is_fenced and not is_quoted:
            yield match


def count_flags(flagged: Sequence[Sequence[str]]) -> dict[str, int]:
    """`flag_NAME` -> in how many answers it stands; every flag is there, also with 0."""
    return {f"flag_{name}": sum(name in answer_flags for answer_flags in flagged) for name in FLAGS}


def _in_words(total: int, counts: Mapping[tuple[str, str], int]) -> str:
    """(What one answer does, what several do) -> how many; none goes unsaid."""
    parts = [f"{count} {words[count > 1]}" for words, count in counts.items() if count]
    return f"of {counted(total, 'answer')} {' and '.join(parts)}"


def findings(flagged: Sequence[Sequence[str]], is_reasoning_cut: bool = False) -> list[Finding]:
    """A finding `empty_or_truncated` where a twentieth of the answers or more is empty or cut,
    `role_words` where as many begin with a role's name or invent turns, and `reasoning` where any
    reasons: `is_reasoning_cut` says that the outputs are without it."""
    total, counts = len(flagged), count_flags(flagged)
    results = []
    kinds = {
        "empty_or_truncated": {EMPTY: _IS_EMPTY, CUT: _IS_CUT},
        "role_words": {ROLE_WORD: _BEGINS, EXTRA_TURNS: _GOES_ON},
    }
    for kind, names in kinds.items():
        touched = sum(any(name in answer_flags for name in names) for answer_flags in flagged)
        if total and touched / total >= NOTICEABLE:
            message = _in_words(total, {words: counts[f"flag_{n}"] for n, words in names.items()})
            of_flags = {name: counts[f"flag_{name}"] for name in names}
            evidence = {"answers": total, **of_flags, "share": round(touched / total, 4)}
            results.append(Finding(kind, "warning", message, evidence))
    reasons, endless = (counts[f"flag_{name}"] for name in (REASONING, OPEN_REASONING))
    if reasons or endless:
        fate = (
            "cut out of what the judge sees (eval.answer.reasoning: strip)"
            if is_reasoning_cut
            else "part of what the judge sees, and of the length (eval.answer.reasoning: keep)"
        )
        message = f"{_in_words(total, {_HOLDS: reasons, _ENDS: endless})}; it is {fate}"
        evidence = {"answers": total, REASONING: reasons, OPEN_REASONING: endless}
        severity: Severity = "info" if is_reasoning_cut and not endless else "warning"
        results.append(Finding(REASONING, severity, message, evidence))
    return results
