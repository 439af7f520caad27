"""What stands in the place of a character that a terminal cannot show: one like it, else `?`."""

import codecs
import os
import sys

LIKE = {
    "±": "+/-", "–": "-", "—": "-", "−": "-", "‑": "-", "→": "->", "…": "...", "·": ".", "•": "*",
    "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "≈": "~", "≤": "<=", "≥": ">=", "\xa0": " ",
    "⟦": "[[", "⟧": "]]", "⟨": "<", "⟩": ">", "✓": "+", "✕": "x", "█": "#",
    "━": "=", "╸": "=", "╺": "=", "─": "-", "│": "|", "\u2028": " ", "\u2029": " ",
}  # fmt: skip
HANDLER = "harness.like"


def tolerate_any_terminal() -> None:
    """Standard output and error then never end a command because of a character."""
    codecs.register_error(HANDLER, _like)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def typed(text: str) -> str:
    """An argument as text: what the locale could not read is UTF-8, and no surrogate is left that a
    tokenizer would end on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode("utf-8", "replace")
    return text


def _like(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(LIKE.get(c, "?") for c in text), error.end
