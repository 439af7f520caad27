"""Conversations as other people's data sets hold them: lists of messages, each with who said it."""

import json
import math
from collections.abc import Mapping
from typing import Any

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    "user": USER, "human": USER, "prompter": USER,
    "assistant": ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
}  # fmt: skip
WRONG_TYPE, UNKNOWN_ROLE, UNREADABLE_MARK = "wrong_type", "unknown_role", "unreadable_mark"
MESSAGE_MARKS = ("weight", "train", "loss")
"""Of a message: whether it is trained on (OpenAI's 0 or 1, Axolotl's and ms-swift's true or false)."""
RECORD_MARKS = ("label", "train", "weight")
"""Of a record with its answer: the same; `label` is that of unpaired preferences (TRL's KTO)."""


def read_message(message: Any) -> tuple[str, str]:
    """(role, text) of a message: from and value (ShareGPT), or role and content.

    Raises ValueError, whose text is WRONG_TYPE or UNKNOWN_ROLE.
    """
    if not isinstance(message, dict):
        raise ValueError(WRONG_TYPE)
    role = message.get("from") or message.get("role")
    text = message.get("content") if message.get("value") is None else message["value"]
    if not isinstance(role, str) or is_absent(text):
        raise ValueError(WRONG_TYPE)
    if role.lower() not in ROLES:
        raise ValueError(UNKNOWN_ROLE)
    return ROLES[role.lower()], as_text(text)


def is_absent(value: Any) -> bool:
    """Nothing, or the NaN that stands for nothing in tables that passed through pandas."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str:
    """The text in a cell: of a number its digits, of what is absent "".

    Raises ValueError, whose text is WRONG_TYPE, for anything else.
    """
    if is_absent(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
        raise ValueError(WRONG_TYPE)
    return json.dumps(value)


def is_trained(message: Mapping[str, Any]) -> bool | None:
    """What a message's marks say of training on it; None where it has none.

    Raises ValueError, whose text is UNREADABLE_MARK, for a mark that is neither true (1) nor false (0).
    """
    marks = [message[name] for name in MESSAGE_MARKS if not is_absent(message.get(name))]
    if any(mark not in (0, 1) for mark in marks):
        raise ValueError(UNREADABLE_MARK)
    return all(marks) if marks else None


def record_mark(name: str, value: Any) -> bool | None:
    """What one of RECORD_MARKS says; None where the column holds something else, such as a class."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    if isinstance(value, bool) or (name == "weight" and value in (0, 1)):
        return bool(value)
    return None
