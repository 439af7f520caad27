"""Single answers graded from 1 to 10, in the form of MT-Bench (FastChat's llm_judge).

- A grade is the number in the reply's first [[...]], or where there is none in its first [...]. A
  reply without one, or with one outside of 1 to 10, is asked again, up to `asks` times in all; then the
  answer is listed as unjudged, and the bounds give it the lowest and the highest grade.
- `rating` is the mean of all grades, of first and second turns alike; `rating/turn_1`, `rating/turn_2`
  and `rating/CATEGORY` those of parts. The turns of a question are not independent: the standard error
  is that of a mean over clusters, a question each.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.answer.prompts import Prompt, read_prompts
from harness.answer.turns import every_turn
from harness.artefact.call import StageCall, StageResult
from harness.artefact.manifest import MetricValue
from harness.errors import InputError
from harness.judge.judge import prompts_of, replicate_of
from harness.judge.kinds.single_grading import (
    CATEGORY,
    HIGHEST,
    LOWEST,
    METRIC,
    SingleGradingJudge,
    references_of,
)
from harness.judge.kinds.single_grading.scores import rating
from harness.judge.pairs import MatchedOutput, read_outputs
from harness.judge.pairwise import (
    ANNOTATIONS,
    UNJUDGED,
    PromptFields,
    account_of,
    ask_all,
    nothing_judged,
    prompt_fields,
    sampling_of,
    unread_reply,
    write_annotations,
    write_rows,
)
from harness.llm.asking import ServedModels
from harness.llm.body import ChatBody, Message
from harness.llm.calls import fill
from harness.llm.client import open_client
from harness.llm.reply import Reply

_GRADES = re.compile(r"\[\[\s*(\d+\.?\d*)\s*\]\]"), re.compile(r"\[\s*(\d+\.?\d*)\s*\]")

_OTHER_FORM = re.compile(r"\[\[?\s*\d[^\[\]]*\]")


class Grade(PromptFields):
    """A row of annotations.json."""

    question_id: object
    turn: int
    category: object
    dataset: str | None
    output_2: str
    generator_2: str
    reference: str | None
    annotator: str
    score: float | None
    raw_completion: str


@dataclass(frozen=True)
class Graded:
    """One answer, its place among the questions, and the request that has it graded."""

    question: int
    prompt: Prompt
    output: MatchedOutput
    body: ChatBody


def run(call: StageCall, judge: SingleGradingJudge) -> StageResult:
    """Grade the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: the outputs do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no reply could be read.
    """
    prompts, replicate = prompts_of(call), replicate_of(call)
    answers = _answers(call, judge, read_prompts(prompts, call.inputs.get("prompts")), replicate)
    served = ServedModels(judge.on_model_change, call.folder)
    client = open_client(call, judge.judge, judge.transcript)
    replies = ask_all(
        client,
        served,
        [answer.body for answer in answers],
        lambda reply: read_grade(reply.text) is not None,
        judge.asks,
        "answers",
        "unjudged",
    )
    rows = [_annotate(*pair, judge.judge.model) for pair in zip(answers, replies, strict=True)]
    unjudged = [
        unread_reply(answer.prompt.key, reply, reply.text)
        for answer, row, reply in zip(answers, rows, replies, strict=True)
        if row["score"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    if len(unjudged) == len(rows):
        raise nothing_judged(
            call,
            f"none of the judge's {len(rows)} replies holds a grade from {LOWEST} to {HIGHEST} as "
            "[[8]]; the first",
            f"does {judge.prompt.name} (eval.judge.prompt) ask for one?",
            replies[0].why or replies[0].text,
        )
    write_annotations(call, rows)
    other_forms = sum(bool(_OTHER_FORM.search(row["raw_completion"])) for row in rows
                      if row["score"] is None)  # fmt: skip
    metrics, notes = _metrics(answers, rows, list(prompts.files or {}))
    result = StageResult(
        keep=[ANNOTATIONS, UNJUDGED],
        metrics=metrics,
        counts={
            "prompts": len({answer.question for answer in answers}),
            "answers": len(rows),
            "empty_outputs": sum(not answer.output.output.strip() for answer in answers),
            "cut_outputs": sum(answer.output.cut for answer in answers),
            "judged": len(rows) - len(unjudged),
            "unjudged": len(unjudged),
            "with_reference": sum(row["reference"] is not None for row in rows),
        },
        seeds={"replicate": replicate},
    )
    result.add(account_of(client, served))
    result.notes += notes
    if other_forms:
        result.notes.append(
            f"{other_forms} of the {len(unjudged)} unjudged replies hold in brackets more than a "
            "number, such as [[8/10]], which FastChat does not read as a grade either"
        )
    return result


def read_grade(reply: str) -> float | None:
    """The grade in a reply; None where there is none from 1 to 10."""
    for pattern in _GRADES:
        match = pattern.search(reply)
        if match is not None:
            grade = float(match[1])
            return grade if LOWEST <= grade <= HIGHEST else None
    return None


def _answers(
    call: StageCall, judge: SingleGradingJudge, questions: Sequence[Prompt], replicate: int
) -> list[Graded]:
    """Every answer, those to first turns first, with the request that has it graded."""
    judge.check(questions, {})
    prompts, _ = every_turn(
        questions, lambda turn: read_outputs(call, turn, of_all=False), lambda output: output.output
    )
    outputs = read_outputs(call, prompts)
    firsts = list(range(len(questions)))
    places = [*firsts, *(number for number in firsts if questions[number].later)]
    return [
        Graded(place, prompt, output, _body(judge, questions[place], prompt, output, replicate))
        for place, prompt, output in zip(places, prompts, outputs, strict=True)
    ]


def _body(
    judge: SingleGradingJudge,
    question: Prompt,
    prompt: Prompt,
    output: MatchedOutput,
    replicate: int,
) -> ChatBody:
    references = references_of(question)
    template = judge.prompt_for(prompt.turn, bool(references))
    if template is None:
        raise InputError(
            "no prompt says how a second turn is graded", "Give eval.judge.prompt_turns."
        )
    parts = {f"ref_answer_{number}": text for number, text in enumerate(references, 1)}
    if prompt.turn == 1:
        asked = f"{prompt.instruction}\n{prompt.input}" if prompt.input else prompt.instruction
        parts |= {"question": asked, "answer": output.output}
    else:
        first, first_answer = prompt.history[-1]
        parts |= {"question_1": first, "answer_1": first_answer}
        parts |= {"question_2": prompt.question, "answer_2": output.output}
    system = judge.system.text.removesuffix("\n") if judge.system else ""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": fill(template.text, parts)})
    return {"messages": messages, **sampling_of(judge.sampling, replicate)}


def _annotate(answer: Graded, reply: Reply, annotator: str) -> Grade:
    prompt = answer.prompt
    references = references_of(prompt)
    return {
        **prompt_fields(prompt.key),
        "question_id": prompt.fields.get("question_id"),
        "turn": prompt.turn,
        "category": prompt.fields.get(CATEGORY),
        "dataset": prompt.dataset,
        "output_2": answer.output.output,
        "generator_2": answer.output.generator,
        "reference": references[prompt.turn - 1] if len(references) >= prompt.turn else None,
        "annotator": annotator,
        "score": read_grade(reply.text),
        "raw_completion": reply.text,
    }


def _metrics(
    answers: Sequence[Graded], rows: Sequence[Grade], sets: Sequence[str]
) -> tuple[dict[str, MetricValue], list[str]]:
    """Of all, of each turn where there are several, of each category and of each of several sets; a
    note on a part without a grade."""
    parts: dict[str, list[bool]] = {METRIC: [True] * len(rows)}
    turns = sorted({row["turn"] for row in rows})
    for turn in turns if len(turns) > 1 else ():
        parts[f"{METRIC}/turn_{turn}"] = [row["turn"] == turn for row in rows]
    for category in dict.fromkeys(
        str(row["category"]) for row in rows if row["category"] is not None
    ):
        parts[f"{METRIC}/{category}"] = [str(row["category"]) == category for row in rows]
    for name in sets:
        parts[f"{METRIC}/{name}"] = [row["dataset"] == name for row in rows]
    metrics: dict[str, MetricValue] = {}
    notes: list[str] = []
    for name, chosen in parts.items():
        of_part = [
            (r["score"], a.question) for r, a, c in zip(rows, answers, chosen, strict=True) if c
        ]
        metric = rating([score for score, _ in of_part], [question for _, question in of_part])
        if metric.value is None:
            notes.append(f"none of the {metric.expected} answers of {name} could be graded")
        else:
            metrics[name] = metric
    return metrics, notes
