"""The prompt set or baseline outputs that say how many prompts are expected."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.audit.parse.files import JsonObject, Unreadable, read_json, read_lines
from harness.errors import InputError

COLUMNS = ("instruction", "prompt", "question", "text")
OVERLAP = 0.5


@dataclass(frozen=True)
class Reference:
    path: Path
    prompts: int
    instructions: frozenset[str]
    """Empty where no column of the file is a prompt's."""

    def fits(self, instructions: Iterable[str]) -> bool:
        """Whether it is of these prompts: at least half of them are in it."""
        judged_prompts = set(instructions)
        if not self.instructions:
            return len(judged_prompts) <= self.prompts
        shared = len(judged_prompts & self.instructions)
        return bool(judged_prompts) and shared >= OVERLAP * len(judged_prompts)


def read_reference(path: Path | None) -> Reference | None:
    """Raises InputError: it cannot be read, or holds no list of prompts."""
    if path is None:
        return None
    try:
        values = read_lines(path) if path.suffix.lower() == ".jsonl" else read_json(path)
    except Unreadable as e:
        raise InputError(f"--reference {path} cannot be used: {e}") from None
    if not isinstance(values, list) or not values:
        raise InputError(
            f"--reference {path} holds no list of prompts",
            "Give JSON or JSONL with one object, or one text, a prompt.",
        )
    instructions = frozenset(prompt for value in values if (prompt := _prompt(value)))
    is_column = len(instructions) >= OVERLAP * len(values)
    return Reference(path, len(values), instructions if is_column else frozenset())


def _prompt(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    prompt, extra_input = JsonObject(value).text(*COLUMNS), JsonObject(value).text("input")
    return f"{prompt}\n{extra_input}" if prompt and extra_input else prompt or ""
