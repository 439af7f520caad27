"""Replies that are no answer to what was asked: refusals, and text in another script."""

from harness.llm.reply import Reply

REFUSALS = (
    "i'm sorry, but",
    "i am sorry, but",
    "i'm sorry, i can't",
    "i'm sorry, i cannot",
    "sorry, but i can",
    "sorry, i can't",
    "sorry, i cannot",
    "i apologize, but",
    "i apologise, but",
    "i can't assist with",
    "i cannot assist with",
    "i can't help with",
    "i cannot help with",
    "i'm unable to",
    "i am unable to",
    "as an ai language model, i",
    "as a language model, i",
    "as an ai assistant, i cannot",
    "as an ai assistant, i can't",
    "as an ai, i cannot",
    "as an ai, i can't",
)
"""How a refusal begins, in lower case."""

_LATIN_ENDS = "\u024f"
_LATIN_MORE = ("\u1e00", "\u1eff")


def is_refusal(reply: Reply, original: str = "") -> bool:
    """Whether the server declined the prompt, or the reply begins as refusals do.

    `original`: a text that the reply rewrites. Where that begins so too, the words are its own.
    """
    if reply.is_declined:
        return True
    return _opens_so(reply.text) and not _opens_so(original)


def is_other_script(text: str) -> bool:
    """Whether most letters of a text are not Latin ones."""
    letters = [c for c in text if c.isalpha()]
    latin = sum(c <= _LATIN_ENDS or _LATIN_MORE[0] <= c <= _LATIN_MORE[1] for c in letters)
    return 2 * latin < len(letters)


def _opens_so(text: str) -> bool:
    start = " ".join(text[:200].split()).lower().replace("’", "'").lstrip("\"'“*")
    return start.startswith(REFUSALS)
