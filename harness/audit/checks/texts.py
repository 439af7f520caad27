"""Checks on what a model wrote, whatever a judge makes of it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from harness.answer.hygiene import LOOP_CHARACTERS, has_loop, is_empty
from harness.audit.checks.turns import begins_turn, goes_on
from harness.audit.model import EXAMPLES, SURE, Result, short
from harness.audit.parse.judged_pairs import StoredOutput
from harness.common import numbers
from harness.judge.scores import fisher

ROLE_SHARE, ROLE_FEWEST = 0.02, 3
"""Outputs that begin with a role's name or invent turns: beside a prompt that asks for a dialogue, a
single one means nothing."""
EMPTY_SHARE, CUT_SHARE = 0.01, 0.05
FEWEST = 2
PLACEHOLDERS = frozenset(
    {"", "n/a", "none", "null", "nan", "undefined", "no output", "no response", "no answer", "empty",
     "noinput", "nooutput"}
)  # fmt: skip
"""What stands for an answer that there is not, in small letters and without marks around it."""
NOTHING_BUT = "hold nothing but what stands for no answer"
PLACEHOLDER_SHARE, PLACEHOLDER_FEWEST = 0.02, 3
CONSTANT_SHARE, CONSTANT_FEWEST = 0.95, 10
"""From so large a share of the outputs on, one text is not an answer to each of the prompts."""
PILED = 0.01
"""A share of outputs of exactly the greatest length that a limit would make."""
PILE_RATIO = 5.0
"""They must be so many times as many as lengths just below have."""
SHORTEST_LIMIT = {"characters": 80, "words": 15}
TOP = 10
"""A token limit shows among the longest tenth."""
BROKEN_OFF = 0.5
LOOP_RUNS, LOOP_REPEATED, LOOP_TIMES = 18, 13, 3
_DIGITS = re.compile(r"\d+")
_NUMBERS = re.compile(r"(?<!\S)\d+(?!\S)")
_ENDED = re.compile(r"[^\w\s,;\-\u2013\u2014(\[{<&+=/]$")
"""The last character of a text that came to its end."""


def check_texts(result: Result, outputs: Sequence[StoredOutput]) -> None:
    """prompt_mismatch and empty_or_truncated."""
    if outputs:
        _check_roles(result, outputs)
        _check_ends(result, outputs)


def _check_roles(result: Result, outputs: Sequence[StoredOutput]) -> None:
    starts = [o for o in outputs if begins_turn(o.text)]
    turns = [o for o in outputs if goes_on(o.text, o.instruction)]
    touched = list({id(o): o for o in [*starts, *turns]}.values())
    # Where the baseline does the same, the instruction asks for it.
    in_baseline = sum(
        o.baseline is not None and (begins_turn(o.baseline) or goes_on(o.baseline, o.instruction))
        for o in touched
    )
    share = (len(touched) - in_baseline) / len(outputs)
    if len(touched) - in_baseline < ROLE_FEWEST or share < ROLE_SHARE:
        return
    words = Counter(short(next(iter(o.text.split(maxsplit=1)), ""), 40) for o in starts)
    words_of_effect, effect = _effect(touched, outputs)
    what = []
    if starts:
        word = words.most_common(1)[0][0]
        what.append(f"{len(starts)} begin with the name of a role (mostly {word!r})")
    if turns:
        what.append(f"{len(turns)} run on into invented turns or template tokens")
    # A right prompt without a stop text makes invented turns too, but no role's name at the beginning.
    cause = "" if starts else ", or it was not stopped"
    result.add(
        "prompt_mismatch",
        "error" if share >= 0.5 else "warning",
        f"of {len(outputs)} outputs {' and '.join(what)}: the prompt was not the one that the model "
        f"was trained with{cause}{words_of_effect}",
        {
            "outputs": len(outputs),
            "role_word": len(starts),
            "extra_turns": len(turns),
            "share": share,
            "baseline_does_so_too": in_baseline,
            "first_words": dict(words.most_common(5)),
            **effect,
            "examples": [short(o.text) for o in touched[:EXAMPLES]],
        },
    )


def _check_ends(result: Result, outputs: Sequence[StoredOutput]) -> None:
    total = len(outputs)
    empty = [o for o in outputs if is_empty(o.text)]
    absent = [o for o in outputs if _stands_for_nothing(o)]
    constant = _constant(outputs)
    cut, how = _cut(outputs)
    loops = [o for o in outputs if may_loop(o.text) and has_loop(o.text)]
    # What the baseline does too, the instruction may ask for.
    own_empty = len(empty) - sum(o.baseline is not None and is_empty(o.baseline) for o in empty)
    own_loops = len(loops) - sum(o.baseline is not None and has_loop(o.baseline) for o in loops)
    placeholders = Counter(short(o.text, 20) for o in absent).most_common(3)
    texts = ", ".join(_visible(text) for text, _ in placeholders)
    enough_absent = max(PLACEHOLDER_FEWEST, PLACEHOLDER_SHARE * total)
    faults = [
        (own_empty >= max(FEWEST, EMPTY_SHARE * total), empty, "are empty"),
        (len(absent) >= enough_absent, absent, f"{NOTHING_BUT} ({texts})"),
        (bool(constant), constant, "are one and the same text, whatever was asked"),
        (bool(how), cut, how),
        (own_loops >= max(FEWEST, CUT_SHARE * total), loops, "repeat themselves in a loop"),
    ]
    what = [f"{len(faulty)} {words}" for is_fault, faulty, words in faults if is_fault]
    if not what:
        return
    touched = list({id(o): o for is_fault, of, _ in faults if is_fault for o in of}.values())
    words, effect = _effect(touched, outputs)
    ends = [(short(o.instruction), short(o.text[-160:])) for o in touched[:EXAMPLES]]
    examples = [{"instruction": instruction, "end": end} for instruction, end in ends]
    result.add(
        "empty_or_truncated",
        "warning",
        f"of {total} outputs {', '.join(what)}; they were counted like any other{words}",
        {
            "outputs": total,
            "empty": len(empty),
            "placeholders": len(absent),
            "same_text": len(constant),
            "truncated": len(cut) if how else 0,
            "loops": len(loops),
            "share": len(touched) / total,
            **effect,
            "examples": examples,
        },
    )


def _stands_for_nothing(output: StoredOutput) -> bool:
    """`N/A`, `...` or characters of no width, where it is neither empty, nor asked for, nor what the
    baseline answers too."""
    if is_empty(output.text) or len(output.text) > 200:
        return False
    bare = _bare(output.text)
    if bare not in PLACEHOLDERS:
        return False
    if bare and bare in output.instruction.lower():
        return False
    return output.baseline is None or _bare(output.baseline) not in PLACEHOLDERS


def _bare(text: str) -> str:
    """In small letters, without marks, white space and what has no width around it; `5` and `!?` keep
    what they say."""
    visible = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    return visible.strip(" \t\n\r.\u2026-_\"'`<>[]()*").lower()


def _visible(text: str) -> str:
    return repr(text) if text.isprintable() else ascii(text)


def _constant(outputs: Sequence[StoredOutput]) -> list[StoredOutput]:
    """The outputs that are one text, if nearly all are, to different prompts."""
    if len({o.instruction for o in outputs}) < max(CONSTANT_FEWEST, len(outputs) / 2):
        return []
    text, times = Counter(" ".join(o.text.split()) for o in outputs).most_common(1)[0]
    if times < CONSTANT_SHARE * len(outputs) or not _bare(text):
        return []
    return [o for o in outputs if " ".join(o.text.split()) == text]


def _cut(outputs: Sequence[StoredOutput]) -> tuple[list[StoredOutput], str]:
    """Those that a limit cut off, and how one knows; none and "" where nothing says so."""
    total = len(outputs)
    flagged = [o for o in outputs if o.cut]
    if len(flagged) >= max(FEWEST, PILED * total):
        return flagged, "ended at the token limit, as the files say"
    characters = {id(o): len(o.text) for o in outputs}
    words = {id(o): len(o.text.split()) for o in outputs}
    for unit, lengths in (("characters", characters), ("words", words)):
        piled = _piled(outputs, lengths, SHORTEST_LIMIT[unit])
        if piled:
            return piled, f"break off at exactly {lengths[id(piled[0])]:,} {unit}"
    by_length = sorted(outputs, key=lambda o: (-len(o.text), o.text))
    top, rest = by_length[: total // TOP], by_length[total // TOP :]
    if len(top) < TOP or len({o.text for o in outputs}) < total / 2:
        return [], ""
    broken, broken_rest = ([o for o in group if breaks_off(o.text)] for group in (top, rest))
    share, other = len(broken) / len(top), len(broken_rest) / len(rest)
    p = fisher(len(broken), len(top) - len(broken), len(broken_rest), len(rest) - len(broken_rest))
    if p < SURE and share >= BROKEN_OFF and share >= other + 0.2:
        return broken, (
            f"of the longest {len(top)} break off in the middle (elsewhere "
            f"{100 * other:.0f} %, p = {p:.1g}), as at a token limit"
        )
    return [], ""


def _piled(
    outputs: Sequence[StoredOutput], lengths: Mapping[int, int], shortest: int
) -> list[StoredOutput]:
    """Outputs of exactly the greatest length, where they are too many for chance, break off, and are
    different texts."""
    longest = max(lengths.values())
    if longest < shortest:
        return []
    at = list({o.text: o for o in outputs if lengths[id(o)] == longest}.values())
    below = sum(0.8 * longest <= n < longest for n in lengths.values())
    expected = below / max(1, longest - int(0.8 * longest))
    beginnings = {o.text.strip()[:20] for o in at}
    if (
        len(at) < max(3, PILED * len(outputs))
        or len(at) < PILE_RATIO * max(expected, 0.2)
        or len(beginnings) < len(at) / 2
        or sum(breaks_off(o.text) for o in at) < BROKEN_OFF * len(at)
    ):
        return []
    return [o for o in outputs if lengths[id(o)] == longest]


def may_loop(text: str) -> bool:
    """False only where `has_loop` is: at a fraction of its cost.

    A block of s words, r times in a row, makes r s - 2 runs of three words of which s are different,
    each at least r - 1 times. With four repeats and twenty words thirteen of eighteen are repeats.
    """
    if _DIGITS.search(text):
        text = _DIGITS.sub("", _NUMBERS.sub("\0", text))
    words = text.split()
    if not words:
        return False
    if max(map(len, words)) >= LOOP_CHARACTERS:
        return True
    runs = list(zip(words, words[1:], words[2:], strict=False))
    if len(runs) - len(set(runs)) < LOOP_REPEATED:
        return False
    return sum(n for n in Counter(runs).values() if n >= LOOP_TIMES) >= LOOP_RUNS


def breaks_off(text: str) -> bool:
    """Whether a text ends in the middle: after a letter, a digit, a comma or an open bracket."""
    end = text.rstrip()
    return bool(end) and _ENDED.search(end) is None


def _effect(
    touched: Sequence[StoredOutput], outputs: Sequence[StoredOutput]
) -> tuple[str, dict[str, float | None]]:
    """The win rate of some outputs and that of the others, in words and as evidence."""
    touched_ids = {id(o) for o in touched}
    shares = [o.share for o in outputs if id(o) in touched_ids and o.share is not None]
    other_shares = [o.share for o in outputs if id(o) not in touched_ids and o.share is not None]
    rate, other_rate = (100 * fmean(s) if s else None for s in (shares, other_shares))
    words = ""
    if rate is not None and other_rate is not None:
        words = (
            f" (win rate {numbers.percent(rate, 100)} over {len(shares)} of them, "
            f"{numbers.percent(other_rate, 100)} over {len(other_shares)} others)"
        )
    return words, {
        "win_rate_of_these": rate,
        "win_rate_of_others": other_rate,
        "judged_of_these": len(shares),
        "judged_of_others": len(other_shares),
    }
