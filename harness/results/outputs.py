"""A row's outputs with what was said of them: instruction, answer, baseline and the judge's words."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.answer.outputs import OUTPUTS, OutputRow
from harness.common.commands import harness
from harness.common.text_files import read_lines
from harness.errors import InputError
from harness.judge.judge import BaseJudge
from harness.judge.scores import DRAW, is_judgement
from harness.results.agreement import StoredAnnotation, prompt_of, read_annotations, verdict_of
from harness.row.load import load_rows
from harness.run.plan import RowPlan, StagePlan, made_otherwise

UNJUDGED = "unjudged.jsonl"
WORDS = {"win": "won", "draw": "draw", "lose": "lost"}


@dataclass(frozen=True)
class OutputOptions:
    """What is to be shown; the command's options."""

    worst: bool = False
    best: bool = False
    flagged: bool = False
    grep: str = ""
    count: int = 10
    """0: all."""
    full: bool = False
    label: str = ""


@dataclass(frozen=True)
class Judgement:
    """What one judging says of one output. Neither preference nor score: unjudged."""

    label: str
    preference: float | None
    score: float | None
    shown_first: bool | None
    """None: not known, or in both orders."""
    words: tuple[str, ...]
    """The judge's replies; of log-probs what they say, in words."""

    @property
    def grade(self) -> float | None:
        if self.preference is not None:
            return self.preference or DRAW
        return self.score

    @property
    def verdict(self) -> str:
        if self.preference is None:
            return "unjudged" if self.score is None else f"score {self.score:g}"
        word = WORDS[verdict_of(self.preference)]
        exact = self.preference in (0, 1, DRAW, 2)
        return word if exact else f"{word} {_share(self.preference - 1)}"


@dataclass(frozen=True)
class JudgedOutput:
    """One prompt; `index` is its place in the prompt set, from 0."""

    index: int
    fields: OutputRow
    baseline: str | None = None
    baseline_generator: str = ""
    rubric_inputs: dict[str, str] = field(default_factory=dict)
    """What a judge with a rubric was shown beside the output: input's name -> text."""
    judgements: list[Judgement] = field(default_factory=list)

    @property
    def is_flagged(self) -> bool:
        return bool(self.fields.get("flags")) or any(j.grade is None for j in self.judgements)

    @property
    def grade(self) -> float | None:
        """The mean over the judgings that judged it."""
        grades = [j.grade for j in self.judgements if j.grade is not None]
        return math.fsum(grades) / len(grades) if grades else None

    def texts(self) -> list[str]:
        texts = [str(self.fields.get(name) or "") for name in ("instruction", "input", "output")]
        texts += [self.baseline or "", *map(str, self.rubric_inputs.values())]
        return [*texts, *(w for j in self.judgements for w in j.words)]


@dataclass(frozen=True)
class Chosen:
    """The outputs that are read, and what was chosen among."""

    planned: StagePlan
    judgings: list[StagePlan]
    other_labels: list[str]
    """Labels of the other outputs that are there."""
    prompts: list[JudgedOutput]


def read_outputs(plan: RowPlan, label: str) -> Chosen:
    """The row's outputs (of several those with the label, else the first) with their judgings.

    Raises:
        InputError: there are none yet, or none with this label.
        Damaged: an artefact was changed.
    """
    row = plan.row.row
    planned = [s for s in plan.own if s.stage == "answer"]
    if not planned:
        raise InputError(f"row {row} answers no prompts", "Its spec has no eval.answer.")
    matching = [s for s in planned if label in ("", s.label)]
    if not matching:
        labels = ", ".join(repr(s.label) for s in planned if s.label)
        raise InputError(
            f"row {row} has no outputs of {label!r}",
            f"--label: one of {labels}." if labels else "It has one set of outputs: leave --label.",
        )
    chosen = next((s for s in matching if s.artefact is not None), None)
    if chosen is None:
        raise InputError(
            f"row {row} has no outputs yet on this volume, by this executor",
            f"Make them: {harness('run', plan.target)}{made_otherwise(matching)}",
        )
    judgings = [
        s
        for s in plan.final()
        if s.artefact is not None
        and "outputs" in s.inputs
        and s.inputs["outputs"].key == chosen.key
    ]
    other_labels = [s.label for s in planned if s.artefact is not None and s is not chosen]
    return Chosen(chosen, judgings, other_labels, _read(chosen, judgings))


def _read(chosen: StagePlan, judgings: list[StagePlan]) -> list[JudgedOutput]:
    chosen.made.check()
    rows = json.loads((chosen.made.folder / OUTPUTS).read_text(encoding="utf-8"))
    prompts = [JudgedOutput(index, row) for index, row in enumerate(rows)]
    for planned in judgings:
        judge, replicate = planned.params["judge"], planned.params["replicate"]
        label = planned.label.split(", ")[-1] if len(judgings) > 1 else ""
        baseline_row = _baseline_row(planned)
        annotations = read_annotations(planned.made)
        by_prompt = {prompt_of(row): row for row in annotations}
        by_instruction = {row["instruction"]: row for row in annotations}
        unread = _unread(planned.made.folder / UNJUDGED)
        for place, prompt in enumerate(prompts):
            instruction = prompt.fields["instruction"]
            row = by_prompt.get(prompt_of(prompt.fields)) or by_instruction.get(instruction)
            row = row or {"instruction": instruction}
            shown_first = judge.shows_model_first(instruction, replicate)
            judgement = _judgement(row, label, unread.get(instruction), shown_first)
            baseline = prompt.baseline if prompt.baseline is not None else row.get("output_1")
            generator = (
                prompt.baseline_generator or baseline_row or str(row.get("generator_1") or "")
            )
            prompts[place] = replace(
                prompt,
                baseline=baseline,
                baseline_generator=generator,
                rubric_inputs=prompt.rubric_inputs or row.get("inputs") or {},
                judgements=[*prompt.judgements, judgement],
            )
    return prompts


def _baseline_row(planned: StagePlan) -> str:
    """The row whose outputs are the judge's reference; "" where that is a file, or nothing."""
    judge: BaseJudge = planned.params["judge"]
    if judge.baseline_row is None:
        return ""
    # Not the planned stage's: rows may share it.
    return load_rows([Path(judge.baseline_row)])[0].row.row


def _unread(path: Path) -> dict[str, str]:
    """The replies that gave no judgement, or why nothing was asked, by instruction."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in read_lines(path)]
    replies = {}
    for row in rows:
        missing = row.get("missing")
        if row.get("reply"):
            replies[row["instruction"]] = row["reply"]
        elif missing:
            replies[row["instruction"]] = f"not asked: the prompt has no {', '.join(missing)}"
    return replies


def _judgement(
    row: StoredAnnotation, label: str, unread: str | None, shown_first: bool | None
) -> Judgement:
    preference, score = row.get("preference"), row.get("score")
    if preference is not None and not is_judgement(preference):
        preference = None
    # alpaca_eval calls it so from 0.6 on, and without the first word before.
    words = _words(row.get("preference_raw_completion", row.get("raw_completion")))
    if "verdicts" in row and len(words) == 2:
        words = ("shown first:\n" + words[0], "shown second:\n" + words[1])
    if row.get("feedback") and not words:
        words = (row["feedback"],)
    return Judgement(
        label=label,
        preference=None if preference is None else float(preference),
        score=None if score is None else float(score),
        shown_first=row.get("is_switched", shown_first),
        words=words or ((unread,) if unread else ()),
    )


def _words(raw: Any) -> tuple[str, ...]:
    """What a judge said: a text, several, or a choice of a chat completion with its log-probs."""
    if isinstance(raw, list):
        return tuple(word for part in raw for word in _words(part))
    if isinstance(raw, str) and raw.lstrip().startswith("{") and '"logprobs"' in raw:
        try:
            raw = json.loads(raw)
        except ValueError:
            return (raw,)
    if not isinstance(raw, dict):
        return (str(raw),) if raw not in (None, "") else ()
    message = raw.get("message")
    content = message.get("content") if isinstance(message, dict) else raw.get("text")
    first = _first_token(raw.get("logprobs"))
    if content is None and not first:
        return (json.dumps(raw, ensure_ascii=False),)
    return ((str(content or "") + (f"  ({first})" if first else "")).strip(),)


def _first_token(logprobs: Any) -> str:
    """How likely the tokens were that the reply could have begun with."""
    try:
        tops = logprobs["content"][0]["top_logprobs"]
        likely = sorted(tops, key=lambda top: -top["logprob"])[:4]
        shares = [f"{top['token']!r} {100 * math.exp(top['logprob']):.2f} %" for top in likely]
    except (TypeError, LookupError, ValueError, OverflowError):
        return ""
    return "first token: " + ", ".join(shares)


def select(prompts: Sequence[JudgedOutput], options: OutputOptions) -> list[JudgedOutput]:
    """Those that are asked for, in the order that is asked for, before they are counted out.

    Raises:
        InputError: they are to be sorted by a judgement that there is not.
    """
    if options.worst and options.best:
        raise InputError("--worst and --best exclude each other")
    selected = [p for p in prompts if p.is_flagged] if options.flagged else list(prompts)
    if options.grep:
        sought = options.grep.casefold()
        selected = [p for p in selected if any(sought in text.casefold() for text in p.texts())]
    if options.worst or options.best:
        if not any(p.judgements for p in prompts):
            raise InputError(
                "these outputs are not judged: nothing says which is worst or best",
                f"Judge them with {harness('run')}, or leave --worst and --best.",
            )
        sign = -1 if options.best else 1
        selected.sort(key=lambda p: (p.grade is None, sign * (p.grade or 0)))
    return selected


def _share(share: float) -> str:
    """Two digits, but never 0 or 1 for what is neither."""
    return f"{share:.2f}" if 0.005 <= share < 0.995 else f"{share:.2g}" if share < 0.5 else ">0.99"


def to_json(prompts: Sequence[JudgedOutput]) -> str:
    """For `--json`: each with the fields of its output."""
    return json.dumps(
        [
            {
                "index": prompt.index,
                **prompt.fields,
                **({"given": prompt.rubric_inputs} if prompt.rubric_inputs else {}),
                "baseline": None
                if prompt.baseline is None
                else {"output": prompt.baseline, "generator": prompt.baseline_generator},
                "judgings": [
                    {
                        "label": j.label,
                        "verdict": j.verdict,
                        "preference": j.preference,
                        "score": j.score,
                        "shown_first": j.shown_first,
                        "words": list(j.words),
                    }
                    for j in prompt.judgements
                ],
            }
            for prompt in prompts
        ],
        indent=2,
    )
