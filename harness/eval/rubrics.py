"""Flow Judge's rubrics: which there are, the prompt that one makes, and what a reply scores.

The prompt's wording and the reply's tags are the flow-judge package's own. What it does not do is done
here: it writes -1 for a reply that it cannot read, takes any whole number for a score and the
first of several, also one that the feedback quotes, and shows a judge empty inputs.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, InputError
from harness.eval.prompts import Prompt
from harness.spec.judges import Rubric, RubricLine

QUERY = "query"
OUTPUT = "response"
"""What the package's own rubrics call the output that is scored."""
_PARTS = ("metrics.presets", "utils.prompt_formatter", "eval_data_types")
_FEEDBACK = re.compile(r"<feedback>.*?</feedback>", re.DOTALL)
_SCORE = re.compile(r"<score>\s*(.*?)\s*</score>", re.DOTALL)
_OWN_FIELDS = ("instruction", "input", "system", "output")
"""Of a prompt, whatever the columns of its record are called."""


@dataclass(frozen=True)
class Scored:
    """A reply that could be read."""

    score: int
    feedback: str


@cache
def _package() -> dict[str, Any]:
    """The modules of flow-judge that need no engine, by name.

    The package itself imports every engine that it finds, torch among them, and sets up logging for
    the whole process: its modules are taken from an empty package of its name instead.
    """
    found = importlib.util.find_spec("flow_judge")
    if found is None or found.submodule_search_locations is None:
        raise HarnessError(
            "the package flow-judge is not installed here",
            hint="judges run in the eval image, or install requirements/eval.in",
        )
    bare = ModuleType("flow_judge")
    bare.__path__ = list(found.submodule_search_locations)
    kept = {name: sys.modules.pop(name) for name in _loaded()}
    sys.modules["flow_judge"] = bare
    try:
        return {part: importlib.import_module(f"flow_judge.{part}") for part in _PARTS}
    finally:
        for name in _loaded():
            del sys.modules[name]
        sys.modules |= kept


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "flow_judge"]


def load_rubric(rubric: str | Rubric) -> Rubric:
    """The package's rubric of this name, in any case of letters; a rubric of one's own as it is.

    Raises InputError for a name that the package does not have.
    """
    if isinstance(rubric, Rubric):
        return rubric
    presets = _package()["metrics.presets"]
    names = {name.lower(): name for name in presets.list_all_metrics()}
    if rubric.lower() not in names:
        raise InputError(
            f"flow-judge has no rubric {rubric!r}",
            f"It has {', '.join(sorted(names))}; or write one of your own (name, criteria, scores, "
            "inputs).",
        )
    metric = getattr(presets, names[rubric.lower()])
    return Rubric(
        name=rubric.lower(),
        criteria=metric.criteria,
        scores=[RubricLine(score=one.score, description=one.description) for one in metric.rubric],
        inputs=metric.required_inputs or [],
    )


def prompt_of(rubric: Rubric, inputs: Mapping[str, str], output: str) -> str:
    """What the judge is asked, in the package's words."""
    formatter = _package()["utils.prompt_formatter"]
    parts = {
        "INPUTS": formatter.format_vars([{name: inputs[name]} for name in rubric.inputs]),
        "OUTPUT": formatter.format_vars([{OUTPUT: output}]),
        "EVALUATION_CRITERIA": rubric.criteria,
        "RUBRIC": formatter.format_rubric(rubric.scores),
    }
    return str(formatter.format_user_prompt(parts))


def read_reply(rubric: Rubric, reply: str) -> Scored | None:
    """The score and the feedback of a reply; None where it lacks one of their tags, or where the score
    is none of the rubric's, or there are several different ones.

    What a model thinks before (`<think>`) is not read, nor a score that stands in the feedback.
    """
    said = reply.rpartition("</think>")[2].partition("<think>")[0]
    scores = set(_SCORE.findall(_FEEDBACK.sub("", said)))
    parse = _package()["eval_data_types"].EvalOutput.parse
    try:
        feedback = parse(said, fail_on_parse_error=True).feedback
        [score] = map(int, scores)
    except ValueError:
        return None
    return Scored(score, feedback) if score in {line.score for line in rubric.scores} else None


def inputs_for(
    rubric: Rubric, prompts: Sequence[Prompt], fields: Mapping[str, str]
) -> list[dict[str, str]]:
    """For each prompt the rubric's inputs by name; "" for one that this prompt has no text for.

    `fields`: input -> the field of the prompts' records that holds it. Left out, `query` is the
    instruction with its input, and any other input the field of its own name.

    Raises:
        InputError: `fields` names what is no input of the rubric's, or an input has no text in any
            prompt, or a value that is no text.
    """
    unknown = sorted(set(fields) - set(rubric.inputs))
    if unknown:
        raise InputError(
            f"judge.fields names {', '.join(unknown)}, and the rubric {rubric.name} is shown "
            f"{', '.join(rubric.inputs) or 'no inputs'}"
        )
    shown: list[dict[str, str]] = [{} for _ in prompts]
    for name in rubric.inputs:
        texts = [_value(prompt, name, fields, number) for number, prompt in enumerate(prompts)]
        if not any(text is not None and text.strip() for text in texts):
            raise _no_text(rubric, name, fields, prompts, all(text is None for text in texts))
        for one, text in zip(shown, texts, strict=True):
            one[name] = text or ""
    return shown


def missing(inputs: Mapping[str, str]) -> list[str]:
    """The inputs that hold no text."""
    return [name for name, text in inputs.items() if not text.strip()]


def _value(prompt: Prompt, name: str, fields: Mapping[str, str], number: int) -> str | None:
    if name == QUERY and name not in fields:
        return f"{prompt.instruction}\n{prompt.input}" if prompt.input else prompt.instruction
    field = fields.get(name, name)
    if field in prompt.fields:
        value = prompt.fields[field]
    elif field in _OWN_FIELDS:
        value = getattr(prompt, field)
    else:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        # Passages, as data sets for question answering hold them.
        return "\n\n".join(value)
    if value is not None and not isinstance(value, str):
        raise InputError(
            f"prompt {number}: the field {field!r}, which the judge is to be shown as {name}, must be "
            f"a text or a list of texts, not {str(value)[:60]}"
        )
    return value


def _no_text(
    rubric: Rubric,
    name: str,
    fields: Mapping[str, str],
    prompts: Sequence[Prompt],
    is_absent: bool,
) -> InputError:
    field = fields.get(name, name)
    has = sorted({key for prompt in prompts for key in prompt.fields})
    what = "no prompt has it" if is_absent else f"it is empty in all {len(prompts)} prompts"
    return InputError(
        f"the rubric {rubric.name} shows the judge the {name}, which would be the field {field!r} of "
        f"the prompt set: {what}",
        f"Name the field that holds it: judge.fields: {{{name}: FIELD}}; the prompts have "
        f"{', '.join(has) or 'none'}. A judge that is shown nothing to judge by scores all the same.",
    )
