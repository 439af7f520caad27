"""Conversations as other people's data sets hold them: lists of messages, each with who said it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    "user": USER, "human": USER, "prompter": USER,
    "assistant": ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
}  # fmt: skip
WRONG_TYPE, UNKNOWN_ROLE, UNREADABLE_MARK = "wrong_type", "unknown_role", "unreadable_mark"
LABEL = "label"
MARKS = {
    **dict.fromkeys((LABEL, "train", "training", "trainable", "train_detail"), True),
    **dict.fromkeys(("weight", "loss", "loss_weight", "loss_mask"), True),
    **dict.fromkeys(("masked", "ignore"), False),
    "mask": None,
}
"""Fields of a message, or of a record with its answer, that can say whether it is trained on -> what
they hold where it is. A `mask` of 1 hides in some formats and counts in others, so it is never read.

`label` is that of unpaired preferences (TRL's KTO), or a class.
"""
_SAID = {
    **dict.fromkeys(("true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("false", "0", "0.0", "no"), False),
}


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


def both_sides(messages: Sequence[Any]) -> Iterator[Any]:
    """The messages; in place of a turn that has both sides, as Capybara's {input, output}, the user's
    and the assistant's."""
    for message in messages:
        if (
            isinstance(message, dict)
            and not {"from", "role"} & message.keys()
            and ({"input", "output"} <= message.keys())
        ):
            yield {"role": USER, "content": message["input"]}
            yield {"role": ASSISTANT, "content": message["output"]}
        else:
            yield message


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
    marks = [read_mark(name, message[name]) for name in MARKS if not is_absent(message.get(name))]
    if None in marks:
        raise ValueError(UNREADABLE_MARK)
    return all(marks) if marks else None


def read_mark(name: str, value: Any, may_be_class: bool = False) -> bool | None:
    """Whether one of MARKS says that what it stands at is trained on; None where it holds something
    else. `may_be_class`: 0 and 1, yes and no say nothing, as they may be classes."""
    if not isinstance(value, str | int | float):
        return None
    text = str(value).strip().lower()
    meaning = _SAID.get(text)
    if meaning is None or MARKS[name] is None or (may_be_class and text not in ("true", "false")):
        return None
    return meaning is MARKS[name]
