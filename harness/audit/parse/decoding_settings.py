"""How a run's outputs were made, by the configuration that lies beside or above them."""

import re
from pathlib import Path

from harness.audit.parse.files import AuditSource, Unreadable, read_text, up_to
from harness.audit.parse.settings import DECODING, LARGEST_CONFIG, read_settings

NAME = re.compile(r"^(.*config.*|args|params|settings|decoding|generation)\.(ya?ml|json)$", re.I)
"""alpaca_eval's configs.yaml, and what others call theirs."""
PROMPTS = (".txt", ".md", ".jinja")


def settings_near(folder: Path, source: AuditSource) -> dict[str, object]:
    """Setting -> value, of the nearest configuration from a folder up to the given path.

    A setting that a file gives several values is left out: no telling which was used. A prompt's file
    that lies beside the configuration stands for its text.
    """
    files = [p for p in source.files if NAME.match(p.name)]
    for place in up_to(folder, source.root):
        near = [p for p in files if p.parent == place]
        settings: dict[str, object] = {}
        for path in near:
            try:
                if path.stat().st_size > LARGEST_CONFIG:
                    continue
                config = read_settings(path)
            except (Unreadable, OSError) as e:
                source.skip(path, str(e))
                continue
            for name in DECODING:
                values = config.values.get(name, [])
                if len(values) == 1 and name not in settings:
                    settings[name] = _text_of(path, values[0]) if name == "prompt" else values[0]
        if settings:
            return settings
    return {}


def _text_of(config: Path, value: object) -> object:
    """The text of the prompt file that a configuration names, where it is there."""
    name = Path(str(value))
    for path in (config.parent / name, config.parent / name.name):
        if path.suffix.lower() in PROMPTS and ".." not in name.parts and path.is_file():
            try:
                return read_text(path)
            except Unreadable:
                return value
    return value
