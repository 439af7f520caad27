"""Text from specs and models, made literal in markdown, CSV, LaTeX and HTML."""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable

from harness.common.progress import plain

# After _, / and = a line may end.
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_\hspace{0pt}", "/": r"/\hspace{0pt}", "=": r"=\hspace{0pt}",
     "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$",
    '"': "''", "`": r"\`{}", "±": r"$\pm$", "→": r"$\rightarrow$", "×": r"$\times$",
    "≤": r"$\leq$", "≥": r"$\geq$", "·": r"$\cdot$", "°": r"$^\circ$", "µ": r"$\mu$",
    "–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "§": r"\S{}", "\xa0": "~",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Combining character -> the command of plain LaTeX's own fonts that sets it."""


def markdown(text: str) -> str:
    """Text as markdown shows it literally, in one table cell."""
    flat = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", _flat(text))
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv_text(text: str) -> str:
    """Text that a spreadsheet would take for a formula begins with `'`, also behind white space and in
    full width (\uff1d)."""
    plain_text = plain(text)
    starts = unicodedata.normalize("NFKC", plain_text.lstrip()[:1])
    if plain_text[:1] in ("\n", "\ufffd") or starts in ("=", "+", "-", "@", "\ufffd"):
        return "'" + plain_text
    return plain_text


def csv_table(headings: Iterable[str], rows: Iterable[Iterable[float | str | None]]) -> str:
    """Numbers in full precision, nothing for None; texts as they are: see `csv_text`."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([headings, *rows])
    return out.getvalue()


def as_html(text: str) -> str:
    return html.escape(_flat(text))


def latex(text: str) -> str:
    """Text as pdflatex sets it with its own fonts; a character that these lack stands as `[U+4E2D]`."""
    # Hyphens side by side would be set as a dash.
    separated = re.sub("-(?=-)", "-\uffff", re.sub(r'(^|[\s(])"', r"\1“", _flat(text)))
    return "".join("{}" if character == "\uffff" else _latex(character) for character in separated)


def _latex(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    if character.isascii():
        return character
    base, *marks = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        letter = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"\\{ACCENTS[marks[0]]}{{{letter}}}"
    return f"[U+{ord(character):04X}]"


def _flat(text: str) -> str:
    return plain(" ".join(str(text).split()))


def visible(text: str) -> str:
    """Text in which nothing steers a terminal or turns its order round: control characters stand as
    their pictures, other characters without a picture of their own by number."""
    return "".join(map(_visible, text.replace("\r\n", "\n")))


def _visible(sign: str) -> str:
    if sign.isprintable() or sign == "\n":
        return sign
    if sign == "\t":
        return "    "
    if unicodedata.category(sign) == "Zs":
        return " "
    number = ord(sign)
    if number < 0x20:
        return chr(0x2400 + number)
    return "\u2421" if number == 0x7F else f"⟨U+{number:04X}⟩"
