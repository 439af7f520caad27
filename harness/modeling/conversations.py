"""Conversations as other people's data sets hold them: lists of messages, each with who said it."""

from typing import Any

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    "user": USER, "human": USER, "prompter": USER,
    "assistant": ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
}  # fmt: skip
WRONG_TYPE, UNKNOWN_ROLE = "wrong_type", "unknown_role"


def read_message(message: Any) -> tuple[str, str]:
    """(role, text) of a message: from and value (ShareGPT), or role and content.

    Raises ValueError, whose text is WRONG_TYPE or UNKNOWN_ROLE.
    """
    if not isinstance(message, dict):
        raise ValueError(WRONG_TYPE)
    role = message.get("from") or message.get("role")
    text = message.get("content") if message.get("value") is None else message["value"]
    if not isinstance(role, str) or not isinstance(text, str):
        raise ValueError(WRONG_TYPE)
    if role.lower() not in ROLES:
        raise ValueError(UNKNOWN_ROLE)
    return ROLES[role.lower()], text
