"""Flow Judge's rubrics: which there are, the prompt that one makes, and what a reply scores.

The prompt's wording and the reply's tags are the flow-judge package's own. What it does not do is done
here: it writes -1 for a reply that it cannot read, takes any whole number for a score and the
first of several, also one that the feedback quotes, and shows a judge empty inputs.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.answer.prompts import Prompt
from harness.errors import InputError
from harness.judge.kinds.flow_judge import Rubric, RubricLine
from harness.judge.kinds.flow_judge import package as flow_judge_package

QUERY = "query"
OUTPUT = "response"
"""What the package's own rubrics call the output that is scored."""
_FEEDBACK = re.compile(r"<feedback>.*?</feedback>", re.DOTALL)
_SCORE = re.compile(r"<score>\s*(.*?)\s*</score>", re.DOTALL)
_OWN_FIELDS = ("instruction", "input", "system", "output", "asked")
"""Of a prompt, whatever the columns of its record are called."""


@dataclass(frozen=True)
class Scored:
    """A reply that could be read."""

    score: int
    feedback: str


def load_rubric(rubric: str | Rubric) -> Rubric:
    """The package's rubric of this name, in any case of letters; a rubric of one's own as it is.

    Raises InputError for a name that the package does not have.
    """
    if isinstance(rubric, Rubric):
        return rubric
    metrics = {name.lower(): metric for name, metric in flow_judge_package.load().rubrics.items()}
    if rubric.lower() not in metrics:
        raise InputError(
            f"flow-judge has no rubric {rubric!r}",
            f"It has {', '.join(sorted(metrics))}; or write one of your own (name, criteria, scores, "
            "inputs).",
        )
    metric = metrics[rubric.lower()]
    return Rubric(
        name=rubric.lower(),
        criteria=metric.criteria,
        scores=[
            RubricLine(score=line.score, description=line.description) for line in metric.rubric
        ],
        inputs=metric.required_inputs or [],
    )


def prompt_of(rubric: Rubric, inputs: Mapping[str, str], output: str) -> str:
    """What the judge is asked, in the package's words."""
    package = flow_judge_package.load()
    parts = {
        "INPUTS": package.format_vars([{name: inputs[name]} for name in rubric.inputs]),
        "OUTPUT": package.format_vars([{OUTPUT: output}]),
        "EVALUATION_CRITERIA": rubric.criteria,
        "RUBRIC": package.format_rubric(rubric.scores),
    }
    return package.format_user_prompt(parts)


def read_reply(rubric: Rubric, reply: str) -> Scored | None:
    """The score and the feedback of a reply; None where it lacks one of their tags, or where the score
    is none of the rubric's, or there are several different ones.

    What a model thinks before (`<think>`) is not read, nor a score that stands in the feedback.
    """
    answer = reply.rpartition("</think>")[2].partition("<think>")[0]
    scores = set(_SCORE.findall(_FEEDBACK.sub("", answer)))
    try:
        feedback = flow_judge_package.load().parse(answer, fail_on_parse_error=True).feedback
        [score] = map(int, scores)
    except ValueError:
        return None
    return Scored(score, feedback) if score in {line.score for line in rubric.scores} else None


def inputs_for(
    rubric: Rubric,
    prompts: Sequence[Prompt],
    fields: Mapping[str, str],
    empty: Collection[str] = (),
) -> list[dict[str, str]]:
    """For each prompt the rubric's inputs by name; "" for one that this prompt has no text for.

    `fields`: input -> the field of the prompts' records that holds it. Left out, `query` is the
    instruction with its input, and any other input the field of its own name. `empty`: inputs that are
    "" in every prompt, as meant.

    Raises:
        InputError: `fields` or `empty` names what is no input of the rubric's, or an input has no text
            in any prompt, or a value that is no text.
    """
    for setting, names in (("fields", fields), ("empty", empty)):
        unknown = sorted(set(names) - set(rubric.inputs))
        if not unknown:
            continue
        raise InputError(
            f"judge.{setting} names {', '.join(unknown)}, and the rubric {rubric.name} is shown "
            f"{', '.join(rubric.inputs) or 'no inputs'}"
        )
    inputs: list[dict[str, str]] = [{} for _ in prompts]
    for name in rubric.inputs:
        if name in empty:
            for prompt_inputs in inputs:
                prompt_inputs[name] = ""
            continue
        texts = [_value(prompt, name, fields, number) for number, prompt in enumerate(prompts)]
        if not any(text is not None and text.strip() for text in texts):
            raise _no_text(rubric, name, fields, prompts, all(text is None for text in texts))
        for prompt_inputs, text in zip(inputs, texts, strict=True):
            prompt_inputs[name] = text or ""
    return inputs


def missing(inputs: Mapping[str, str], empty: Collection[str] = ()) -> list[str]:
    """The inputs that hold no text, but for those that are meant to hold none."""
    return [name for name, text in inputs.items() if not text.strip() and name not in empty]


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
