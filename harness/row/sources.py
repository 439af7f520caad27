"""The settings of a row, one by one, and where each value comes from (`sources` in its spec)."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.artefact.keys import canonical
from harness.judge.judge import RowOutputs
from harness.judge.kinds.flow_judge import Rubric
from harness.row.settings import STUDIED, is_compared
from harness.spec.base import DATA_SCHEME, NOT_KEY, DataPath, FileText
from harness.spec.prompts import OutputFiles
from harness.spec.provenance import Provenance
from harness.spec.template import Template


@dataclass(frozen=True)
class Valued:
    """A setting with its value."""

    path: str
    """Dotted, as `sources` names it. Items of a list of several parts have their number, from 1."""
    value: Any
    """A text, number, truth value or None; of a file its name; of a list or mapping its JSON."""
    is_default: bool
    """Whether the spec leaves it open, so that the harness's default stands for it."""
    is_technical: bool = False
    """Whether it says how, and not what, or makes a replicate; see harness.row.settings."""
    source: Provenance | None = None
    key: str = ""
    """Of `sources`, that the source stands at."""

    @property
    def keys(self) -> Iterator[str]:
        """What `sources` may name it by: its path, and each beginning of it."""
        for name in self.names:
            yield from itertools.accumulate(name.split("."), "{}.{}".format)

    @property
    def names(self) -> tuple[str, ...]:
        """Its path, also without the numbers of lists' items, which `sources` may leave out."""
        parts = self.path.split(".")
        bare = ".".join(part for part in parts if not part.isdigit())
        return (self.path,) if bare == self.path else (self.path, bare)


def settings_of(row: BaseModel, sources: Mapping[str, Provenance]) -> list[Valued]:
    """Every setting of the row's that decides what its stages make, in the spec's order, with its
    source where it has one. A part that the row does not have is no setting, and neither is a field
    that is open by default and was left so."""
    settings: list[Valued] = []
    for name in STUDIED:
        part = getattr(row, name)
        if part is not None:
            settings += _leaves(name, part, name not in row.model_fields_set)
    return [_sourced(setting, sources) for setting in settings]


def _sourced(setting: Valued, sources: Mapping[str, Provenance]) -> Valued:
    """By the longest key."""
    key = max((key for key in setting.keys if key in sources), key=len, default="")
    return replace(setting, key=key, source=sources[key]) if key else setting


def in_use(sources: Mapping[str, Provenance], settings: Sequence[Valued]) -> dict[str, Provenance]:
    """The sources of some setting. Others are inherited, of parts that the row does not have, or give
    way to longer keys everywhere."""
    used = {setting.key for setting in settings}
    return {key: source for key, source in sources.items() if key in used}


def noted(sources: Mapping[str, Provenance], kind: str, notes: Iterable[str]) -> list[str]:
    """The row's own notes (its `assumptions`, or `deviations`) and those of its sources, which are
    named by their settings; what both say, once."""
    keys: dict[str, list[str]] = {}
    for key, source in sources.items():
        text = getattr(source, kind)
        if text is not None:
            keys.setdefault(text, []).append(key)
    of_sources = [f"{', '.join(names)}: {text}" for text, names in keys.items()]
    said = {*keys, *of_sources}
    return [*(note for note in notes if note not in said), *of_sources]


def _leaves(path: str, value: Any, is_default: bool) -> Iterator[Valued]:
    if isinstance(value, Template) and value.name is not None:
        yield Valued(path, value.name, is_default)
        named = Template.model_validate(value.name)
        for name in Template.model_fields:
            inner = getattr(value, name)
            if inner != getattr(named, name):
                yield from _leaves(f"{path}.{name}", inner, False)
    elif isinstance(value, DataPath | FileText | RowOutputs | Rubric | OutputFiles):
        yield Valued(path, shown_name(value), is_default)
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner, extra = getattr(value, name), field.json_schema_extra
            is_keyed = extra != NOT_KEY
            if is_keyed and not (inner is None and field.default is None):
                is_open = is_default or name not in value.model_fields_set
                leaves = _leaves(f"{path}.{name}", inner, is_open)
                is_technical = not is_compared(type(value), name, path)
                yield from (
                    (replace(s, is_technical=True) for s in leaves) if is_technical else leaves
                )
    elif isinstance(value, list | tuple) and any(isinstance(v, BaseModel) for v in value):
        for number, item in enumerate(value, start=1):
            yield from _leaves(path if len(value) == 1 else f"{path}.{number}", item, is_default)
    elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}", item, is_default)
    else:
        is_plain = value is None or isinstance(value, str | int | float)
        yield Valued(path, value if is_plain else canonical(value), is_default)


def shown_name(value: DataPath | FileText | RowOutputs | Rubric | OutputFiles) -> str:
    """Without the folders of this machine."""
    if isinstance(value, Rubric):
        return value.name
    if isinstance(value, FileText):
        return Path(value.path).name
    if isinstance(value, OutputFiles):
        return f"{value.output} of {', '.join(map(shown_name, value.files.values()))}"
    if isinstance(value, RowOutputs):
        return f"the outputs of {Path(value.spec).stem}"
    is_beside = value.path and not value.path.startswith(DATA_SCHEME)
    return Path(value.path).name if is_beside else value.name
