"""The settings that decide a row's result, each with what is compared and how it is shown."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.answer.answer import Answer
from harness.answer.engine import QUANTIZATION
from harness.artefact.keys import canonical
from harness.common.progress import counted
from harness.errors import InputError
from harness.judge.judge import BaseJudge, RowOutputs
from harness.row.row import Row
from harness.row.settings import STUDIED, WHOLE, is_compared
from harness.row.sources import shown_name
from harness.run.plan import Planner, RowPlan
from harness.spec.base import DATA_SCHEME, NOT_KEY, DataPath, Endpoint, FileText
from harness.spec.hub import HubData
from harness.spec.model_source import ModelSource
from harness.spec.prompts import OutputFiles, PromptSet
from harness.spec.template import Template
from harness.spec.train import Validation

ROW_TEMPLATE = "the row's own"
LONGEST_OUTPUT = 40
"""Characters of a control's constant answer."""


@dataclass(frozen=True)
class Setting:
    label: str
    value: Any
    """What is compared."""
    text: str
    """How it is shown."""
    paths: tuple[str, ...]
    """Where it stands in the spec; whoever studies one of these studies the setting."""
    effective: Any = field(default=None, compare=False)
    """Where it is known: two settings with the same are the same."""


RowSettings = dict[str, Setting]
"""Key -> setting. A key of which another is the beginning goes unlooked-at where that one differs."""


def settings_of(plan: RowPlan, every_setting: bool, planner: Planner | None = None) -> RowSettings:
    """The row's settings; without `every_setting` only those of its evaluation. `planner` reads files
    where a plan has no stages."""
    planner = plan.stages[0].planner if plan.stages else planner
    row: Row = _mapped(plan.row, _of_twin if plan.row.scale == "tiny" else _with_digest(planner))
    settings: RowSettings = {}
    if every_setting and not is_control(row):
        for name in STUDIED:
            if name != "eval":
                settings.update(_walk(name, getattr(row, name)))
        if row.gen:
            settings["data"] = replace(settings["data"], text=_made_data(plan))
    answer, judge = row.answer, row.judge
    if row.eval is not None:
        if answer is not None:
            settings.update(_of_answer(row, answer))
        if judge is not None:
            settings.update(_of_judge(row, judge))
        if row.train is not None and row.train.quantization is not None:
            if answer is not None and answer.engine.uses_model:
                settings.update(_walk(f"eval.answer.{QUANTIZATION}", answer.quantization))
            if judge is not None and not judge.judges_outputs:
                settings.update(_walk(f"eval.judge.{QUANTIZATION}", judge.base_weights))
        settings.update(_walk("eval.checkpoint", row.checkpoint))
    settings.update(_of_manifests(plan))
    return settings


def _made_data(plan: RowPlan) -> str:
    """The data set of a row whose recipes make it: `made by recipe naive, 130 examples`."""
    recipes = [step.recipe for step in plan.row.gen or []]
    text = f"made by {'recipe' if len(recipes) == 1 else 'recipes'} {', '.join(recipes)}"
    made = [stage.artefact for stage in plan.own if stage.stage == "gen"]
    last = made[-1] if made else None
    if last is None or "examples" not in last.manifest.counts:
        return text
    return f"{text}, {counted(last.manifest.counts['examples'], 'example')}"


GIVEN = DataPath(path=f"{DATA_SCHEME}given data")


def _of_twin(value: Any) -> Any:
    """A scaled-down twin's part without what stands for the row's own: small files, which are others
    than those that the row names, and the seed of its random weights."""
    if isinstance(value, DataPath):
        return GIVEN
    if isinstance(value, ModelSource) and value.random is not None:
        kind = value.random.config.get("model_type")
        random = value.random.model_copy(update={"config": {"model_type": kind}, "seed": 0})
        return value.model_copy(update={"random": random})
    return value


def _with_digest(planner: Planner | None) -> Callable[[Any], Any]:
    """Of a file by its path alone the sha256 that is in the row's keys: the same bytes are the same
    setting wherever they are."""

    def with_digest(value: Any) -> Any:
        if planner is None or not isinstance(value, DataPath) or value.sha256 or not value.path:
            return value
        with contextlib.suppress(InputError):
            return value.model_copy(update={"sha256": planner.files.digest(value)})
        return value

    return with_digest


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A part, and all parts of it, changed."""
    value = change(value)
    if isinstance(value, BaseModel):
        parts = {name: getattr(value, name) for name in type(value).model_fields}
        changed = {name: _mapped(part, change) for name, part in parts.items()}
        update = {name: part for name, part in changed.items() if part is not parts[name]}
        return value.model_copy(update=update) if update else value
    if isinstance(value, list | tuple):
        items = [_mapped(part, change) for part in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        mapped = {name: _mapped(part, change) for name, part in value.items()}
        return value if all(mapped[name] is value[name] for name in value) else mapped
    return value


def _of_answer(row: Row, answer: Answer) -> RowSettings:
    at = "eval.answer"
    settings = _prompts(f"{at}.prompts", answer.prompts, "prompt set")
    engine = answer.engine
    if is_control(row):
        return settings
    kind = f"{at}.engine.kind"
    # A closed model is another model before it is another engine.
    paths = (kind, "model") if engine.model_field else (kind,)
    if engine.given_outputs is not None:
        text = f"given outputs ({_name(engine.given_outputs)})"
        value = [engine.kind, _plain(engine.given_outputs)]
        settings[kind] = Setting("answers", value, text, (kind, f"{at}.engine.outputs"))
        return settings
    settings[kind] = Setting("answers", engine.kind, engine.kind, paths)
    for name in type(engine).model_fields:
        if name == "kind" or not is_compared(type(engine), name, f"{at}.engine"):
            continue
        value = getattr(engine, name)
        if name == "precision":
            settings.update(_walk(f"{at}.engine.{name}", value))
            continue
        for key, setting in _of_kind(f"{at}.engine", engine.kind, name, value).items():
            also = ("model",) if name == engine.model_field else ()
            settings[key] = replace(setting, paths=(*setting.paths, *also))
    if answer.engine.uses_template:
        settings[f"{at}.template"] = _answer_prompt(f"{at}.template", answer.template, row.template)
    settings.update(_walk(f"{at}.strip", answer.is_stripped))
    settings.update(_walk(f"{at}.reasoning", answer.reasoning))
    decoding = answer.decoding
    settings.update(_walk(f"{at}.decoding", decoding))
    if decoding.temperature == 0:
        del settings[f"{at}.decoding.top_p"]
    return settings


ANSWERS = ("eval.answer.engine.kind", "eval.answer.engine.output", "eval.answer.engine.outputs")
"""Who studies one of these studies what answers, be it a model or a control."""


def answers_of(row: Row) -> str:
    """What answers, in words: all that is compared of the answers where one is a control's."""
    engine = row.answer.engine if row.answer else None
    constant = engine.constant if engine is not None else None
    if constant is not None:
        if len(constant) > LONGEST_OUTPUT:
            constant = constant[: LONGEST_OUTPUT - 3] + "..."
        return f"a control's, no model's: the constant {constant!r}"
    if is_control(row):
        return "a control's, no model's: the baseline's own outputs"
    is_given = engine is not None and engine.given_outputs is not None
    return "a given model's" if is_given else "the row's model's"


def is_control(row: Row) -> bool:
    """Whether no model answers: a constant does, or the baseline's own outputs."""
    engine = row.answer.engine if row.answer else None
    if engine is None or engine.constant is not None:
        return engine is not None
    outputs = _plain(engine.given_outputs)
    return outputs is not None and row.judge is not None and outputs == _plain(row.judge.baseline)


def _answer_prompt(path: str, template: Template | None, row_template: Template | None) -> Setting:
    """A row whose answers are asked for as it was trained has the same setting as any other such row:
    what differs is then the row's template."""
    used = template or row_template
    value = (
        ROW_TEMPLATE
        if template is None or _plain(template) == _plain(row_template)
        else _plain(template)
    )
    return Setting("prompt of the answers", value, _name(used), (path,), _plain(used))


def _of_judge(row: Row, judge: BaseJudge) -> RowSettings:
    at = "eval.judge"
    settings: RowSettings = {}
    parts: list[Any] = [judge.kind]
    names: list[str] = [judge.kind] if judge.shows_kind else []
    fields = ["kind"]
    for name in judge.identity:
        part = getattr(judge, name)
        if part is not None:
            parts.append(_plain(part))
            names.append(_name(part))
            fields.append(name)
    paths = tuple(f"{at}.{name}" for name in fields)
    settings[f"{at}.judge"] = Setting("judge", parts, " / ".join(names), paths)
    for name in type(judge).model_fields:
        value = getattr(judge, name)
        if name in fields or not is_compared(type(judge), name, at):
            continue
        if name == "reference":
            setting = Setting("baseline", _plain(value), _name(value), (f"{at}.{name}",))
            settings[f"{at}.reference"] = setting
        elif name == "template" and judge.uses_template:
            setting = _answer_prompt(f"{at}.{name}", value, row.template)
            settings[f"{at}.{judge.kind}.{name}"] = replace(setting, label="prompt of the judge")
        elif name == "examples":
            settings.update(_prompts(f"{at}.{name}", value, "held-out set"))
        else:
            settings.update(_of_kind(at, judge.kind, name, value))
    return settings


def _prompts(path: str, prompts: PromptSet, label: str) -> RowSettings:
    where = prompts.file or prompts.files or prompts.hub
    which = [_plain(prompts.first), _plain(prompts.sample)]
    which += [prompts.turns] if prompts.turns != "last" else []
    sample = prompts.sample
    count = f"first {prompts.first} prompts" if prompts.first else "all prompts"
    if sample is not None:
        count = "a sample: " + ", ".join(f"{k} {v}" for k, v in sample.model_dump().items())
    if prompts.turns != "last":
        count += f", {prompts.turns} turns"
    sources = tuple(f"{path}.{name}" for name in ("file", "files", "hub", "columns"))
    return {
        f"{path}.set": Setting(label, [_plain(where), _plain(prompts.columns)], _name(where), sources),
        f"{path}.which": Setting(
            "prompts", which, count, (f"{path}.first", f"{path}.sample", f"{path}.turns")
        ),
    }  # fmt: skip


def _of_manifests(plan: RowPlan) -> RowSettings:
    """The models that judged, and the versions of the packages that answered and judged."""
    engine, judge = plan.row.answer and plan.row.answer.engine, plan.row.judge
    kinds = {"answer": engine.kind if engine else "", "judge": judge.kind if judge else ""}
    packages = {
        "answer": engine.packages if engine else (),
        "judge": judge.packages if judge else (),
    }
    settings: RowSettings = {}
    served: set[str] = set()
    versions: dict[tuple[str, str], set[str]] = {}
    for stage in plan.own:
        if stage.artefact is None or stage.stage not in kinds:
            continue
        used = stage.artefact.manifest.used
        if stage.stage == "judge":
            served |= set(used.get("served_models", ()))
        installed = (used.get("environment") or {}).get("packages", {})
        for package in packages[stage.stage]:
            if installed.get(package):
                versions.setdefault((stage.stage, package), set()).add(str(installed[package]))
    if served:
        # Within the judge's own setting: another model that was asked for says it already.
        names = sorted(served)
        paths = ("eval.judge.judge",)
        key = "eval.judge.judge.served"
        settings[key] = Setting("judge as served", names, ", ".join(names), paths)
    for (name, package), package_versions in versions.items():
        label = f"{package} package of the {'answers' if name == 'answer' else 'judge'}"
        key = f"environment.{name}.{kinds[name]}.{package}"
        settings[key] = Setting(
            label, sorted(package_versions), ", ".join(sorted(package_versions)), ("environment",)
        )
    return settings


def _walk(path: str, value: Any) -> RowSettings:
    """Every setting of a part of a spec. Of a mapping, its kind comes before what it holds."""
    return dict(_leaves(path, path, value))


def _of_kind(at: str, kind: str, name: str, value: Any) -> RowSettings:
    """Settings that are compared with those of an engine, or a judge, of the same kind alone."""
    walked = _walk(f"{at}.{name}", value)
    return {f"{at}.{kind}{key.removeprefix(at)}": setting for key, setting in walked.items()}


def _leaves(key: str, path: str, value: Any) -> Iterator[tuple[str, Setting]]:
    """`key` has the numbers of a list's items, `path`, as a spec's `studied` names it, has not."""
    if path == "train.validation":
        yield from _held_out(path, value).items()
    elif isinstance(value, ModelSource):
        # The same base under another layout is the same base.
        base = value.model_copy(update={"chat_format": None})
        yield key, _setting(path, _plain(base), _name(base))
        chat = value.chat_format
        yield f"{key}.chat_format", Setting("chat format of the model", chat, _name(chat), (path,))
    elif isinstance(value, BaseModel) and not isinstance(value, WHOLE):
        kind = getattr(value, "kind", None) or getattr(value, "recipe", None) or "given"
        yield key, _setting(path, kind, str(getattr(value, "method", kind)))
        for name in type(value).model_fields:
            if is_compared(type(value), name, path) and name not in ("kind", "recipe"):
                yield from _leaves(f"{key}.{name}", f"{path}.{name}", getattr(value, name))
    elif isinstance(value, list) and any(isinstance(part, BaseModel) for part in value):
        recipes = [str(getattr(part, "recipe", "given")) for part in value]
        yield key, _setting(path, recipes, ", ".join(recipes))
        for number, part in enumerate(value, start=1):
            yield from _leaves(f"{key}.{number}", path, part)
    elif isinstance(value, dict) and any(isinstance(part, BaseModel) for part in value.values()):
        yield key, _setting(path, sorted(value), ", ".join(sorted(value)))
        for name, part in value.items():
            yield from _leaves(f"{key}.{name}", path, part)
    else:
        yield key, _setting(path, _plain(value), _name(value))


def _held_out(path: str, validation: Validation | None) -> RowSettings:
    """The examples that a share of the data leaves for training; a file of its own takes none."""
    share = validation.share if validation else None
    settings = {f"{path}.share": _setting(f"{path}.share", share, _name(share))}
    if validation is not None and share is not None:
        settings[f"{path}.seed"] = _setting(f"{path}.seed", validation.seed, str(validation.seed))
    return settings


def _setting(path: str, value: Any, text: str) -> Setting:
    label = path.removeprefix("eval.answer.").removeprefix("eval.")
    return Setting(LABELS.get(path, label), value, text, (path,))


LABELS = {
    "model": "base model",
    "data": "data set",
    "eval.answer.engine.precision": "engine precision",
    "eval.answer.engine.endpoint": "answers",
}


def _plain(value: Any) -> Any:
    """What of a part decides: the bytes of files (of what is not there the place), the text of
    prompts."""
    if isinstance(value, DataPath):
        return value.sha256 or _place(value.path)
    if isinstance(value, FileText):
        return value.text.removesuffix("\n")
    if isinstance(value, RowOutputs):
        return _place(value.spec)
    if isinstance(value, Endpoint):
        value = value.model_copy(update={"base_url": value.server})
    if isinstance(value, BaseModel):
        return {
            name: _plain(getattr(value, name))
            for name, field_info in type(value).model_fields.items()
            if field_info.json_schema_extra != NOT_KEY
        }
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return value


def _place(path: str) -> str:
    return path if path.startswith(DATA_SCHEME) else os.path.abspath(path)


def _name(value: Any) -> str:
    """A part as a person knows it, without the folders of this machine."""
    if value is None:
        return "none"
    if isinstance(value, Template):
        return value.name or (Path(value.prompt.path).name if value.prompt else "tokenizer")
    if isinstance(value, DataPath | FileText | RowOutputs):
        return "given data" if value == GIVEN else shown_name(value)
    if isinstance(value, OutputFiles):
        return f"the given outputs {value.output}"
    if isinstance(value, Endpoint):
        if value.simulated is not None:
            wrong = value.simulated.error_rate
            return f"simulated {value.model}" + (f" (error rate {wrong:g})" if wrong else "")
        return value.model + (f" at {value.server}" if value.server else "")
    if isinstance(value, HubData):
        parts = [value.id, value.config, getattr(value, "file", None)]
        return " ".join(str(part) for part in parts if part)
    if isinstance(value, ModelSource):
        if value.hub is not None:
            return value.hub.id
        if value.path is not None:
            return _name(value.path)
        assert value.random is not None
        return f"random {value.random.config.get('model_type', 'weights')}"
    if isinstance(value, BaseModel):
        return str(getattr(value, "name", None) or getattr(value, "kind", "given"))
    if isinstance(value, dict):
        if all(isinstance(part, DataPath) for part in value.values()):
            return ", ".join(value)
        return canonical(_plain(value))
    if isinstance(value, list | tuple):
        return canonical(_plain(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
