"""Prompt templates: text with {names} in it."""

import re
from collections.abc import Mapping


def fill(template: str, parts: Mapping[str, str]) -> str:
    """The template with each {name} of `parts` replaced, in one pass.

    Other braces, in the template and in the parts, stay as they are. A newline at the template's
    very end does not count: editors put it there.
    """
    names = "|".join(re.escape(name) for name in parts)
    text = template.removesuffix("\n")
    return re.sub(r"\{(" + names + r")\}", lambda match: parts[match[1]], text)
