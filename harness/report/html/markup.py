"""Markup in which text is escaped in one place: where it becomes part of an element.

Whatever is no `Html` is text, may be a model's, and is made harmless by `escape`.
"""

import html
import re
from typing import Any

from harness.common.escape import visible

VOID = frozenset({"br", "circle", "hr", "input", "line", "path", "rect"})
"""Elements that this page leaves without content; of SVG they are closed at once."""
SVG = frozenset({"circle", "line", "path", "rect"})
_NOT_JOINERS = re.compile("[^\u200c\u200d]+")
"""All but the joiners: without a picture of their own, harmless, and needed in Persian and emoji."""


class Html(str):
    """Markup that is done: it is taken as it stands."""

    __slots__ = ()


def escape(text: str) -> str:
    """Text that is shown as it is written: no markup, nothing that turns the reading order round,
    control characters as their pictures."""
    visible_text = (
        text if text.isprintable() else _NOT_JOINERS.sub(lambda match: visible(match[0]), text)
    )
    return html.escape(visible_text)


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element with children: text, Html, numbers, lists of these.

    `class_` and `aria_label` stand for class and aria-label; attributes that are None or False are
    left out, True is one without a value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{written}{'/' if name in SVG else ''}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Any) -> Html:
    """Children one after another; text among them is escaped."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, list | tuple):
            parts.append(str(join(*child)))
        elif child is not None:
            parts.append(escape(str(child)))
    return Html("".join(parts))


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def table(
    caption: str,
    headings: list[str],
    rows: list[list[Any]],
    class_: str = "",
    numeric: frozenset[int] = frozenset(),
) -> Html:
    """A data table in a box of its own that scrolls sideways; the first column heads its rows."""
    head = [tag("th", h, scope="col", class_="n" if i in numeric else None)
            for i, h in enumerate(headings)]  # fmt: skip
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row")]
        cells += [
            tag("td", cell, class_="n" if i in numeric else None)
            for i, cell in enumerate(row[1:], start=1)
        ]
        body.append(tag("tr", cells))
    element = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        class_=class_ or None,
    )
    return tag("div", element, class_="scroll", tabindex=0, role="region", aria_label=caption)
