"""API keys: found by the name of an environment variable, never written down anywhere."""

import json
import os
import re
from pathlib import Path
from typing import Any

from harness.common.env_variables import of_key
from harness.common.text_files import read_text
from harness.errors import REDACTED, InputError

SHORTEST_REDACTED = 12
"""Characters. A shorter key is a placeholder, and may be a word that a reply needs."""

_ESCAPE = re.compile(r"(?<!\\)\\+u([0-9a-fA-F]{4})")


def read_key(name: str, purpose: str) -> str:
    """The key in environment variable `name`, or else in the file that `name`_FILE points to; the hub's
    token also under the other name that its client takes.

    `purpose` says in an error's text what the key is for.

    Raises:
        InputError: neither is set, the file cannot be read, or what is there cannot be a key.
    """
    origin = key_variable(name)
    if origin is None:
        raise InputError(
            f"the environment variable {name} is not set; it holds the key for {purpose}",
            hint=f"export {name}=..., or {name}_FILE=PATH of a file that holds the key",
        )
    value = os.environ[origin].strip()
    if origin.endswith("_FILE") and origin != name:
        value = _read_key_file(origin, value)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InputError(
            f"what {origin} holds cannot be a key: it has spaces, line breaks or other characters "
            "that an HTTP header may not carry",
            hint=f"set {origin} again",
        )
    return value


def key_variable(name: str) -> str | None:
    """The variable that is set and holds the key `name`, or names its file."""
    return next((v for v in of_key(name) if os.environ.get(v, "").strip()), None)


def redact(text: str, key: str) -> str:
    """A response's text with the key, should the server echo it, replaced.

    JSON that holds the key, however it is escaped and wherever it stands, is written anew from its
    redacted strings. A text from which the key cannot be taken out is replaced by a JSON object
    that says so.
    """
    if len(key) < SHORTEST_REDACTED or not _holds(text, key):
        return text
    try:
        safe = json.dumps(_redact_value(json.loads(text), key))
    except (ValueError, RecursionError):
        safe = text.replace(key, REDACTED)
    if _holds(safe, key):
        return json.dumps({"withheld": f"{len(text)} characters that hold the key"})
    return safe


def _holds(text: str, key: str) -> bool:
    """Whether the key is in a text, as it stands or escaped as JSON allows, even repeatedly.

    Backslashes themselves do not count, neither the key's nor the text's.
    """
    return key in text or ("\\" in text and _unescaped(key) in _unescaped(text))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\", "")


def _redact_value(value: Any, key: str) -> Any:
    if isinstance(value, str):
        value = value.replace(key, REDACTED)
        return REDACTED if _holds(value, key) else value
    if isinstance(value, list):
        return [_redact_value(item, key) for item in value]
    if isinstance(value, dict):
        return {
            name.replace(key, REDACTED): _redact_value(item, key) for name, item in value.items()
        }
    return value


def _read_key_file(variable: str, file: str) -> str:
    try:
        value = read_text(Path(file)).strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise InputError(
            f"the key file that {variable} names, {file}, cannot be read: {reason}",
            hint=f"correct {variable} or the file's permissions",
        ) from None
    if not value:
        raise InputError(
            f"the key file that {variable} names, {file}, is empty", hint="write the key into it"
        )
    return value
