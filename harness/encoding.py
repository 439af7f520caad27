"""What stands in the place of a character that a terminal cannot show: one like it, else `?`."""

import codecs
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


def _like(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(LIKE.get(c, "?") for c in text), error.end
