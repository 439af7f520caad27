"""Outputs rewritten to be longer: study 003, section 2.2, prompt 4.

Each example's name (its id where it has none), instruction, input and output go into `prompt`, beside
a worked `example`; the reply becomes the output. Of the reply only white space, an `Output:` before it
and a pair of quotes around it are taken off. A reply that is shorter than the output it replaces is
taken too, and counted.

A rewriting fails when the reply is empty, a refusal, cut for its length, or written in another script
than the output; `on_failure` says whether the example then stays as it was or goes. failed.jsonl
lists them. Where nothing at all was rewritten, no data set is made.

Raises InputError for preference data and for an empty data set, and what harness.llm.client raises.
"""

import re
from collections import Counter
from typing import Any

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Filter, Lineage, write_rows
from harness.gen.ask import SHOWN, ask, require_outputs, unseen
from harness.gen.objects import without_quotes
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.expand import ExpandGen
from harness.gen.refusals import is_other_script, is_refusal
from harness.gen.seeds import is_unicode
from harness.llm.calls import fill
from harness.llm.reply import Reply

RECIPE = "expand"
FAILED = "failed.jsonl"

_LABEL = re.compile(r"output(?: should be)?:\s*", re.IGNORECASE)
"""The words before an output in prompt 4."""


def make(call: StageCall, gen: ExpandGen, input_examples: list[DatasetExample]) -> RecipeResult:
    """The examples with their outputs rewritten, in their order."""
    require_outputs(RECIPE, input_examples)
    bodies = [_body(gen, example) for example in input_examples]
    client, replies = ask(call, gen.teacher, gen.transcript, bodies, RECIPE)
    examples: list[DatasetExample] = []
    failed: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for example, reply in zip(input_examples, replies, strict=True):
        rule, output = read(reply, example.output)
        if rule is None:
            counts["rewritten"] += 1
            counts["shorter"] += len(output) < len(example.output)
            examples.append(example.after(_step("expand", reply), output=output))
            continue
        failed.append(_failure(rule, example, reply))
        if gen.on_failure == "keep":
            examples.append(example.after(_step("unchanged", reply)))
    write_rows(call.folder / FAILED, failed)
    rules = Counter(row["rule"] for row in failed)
    # A data set of which nothing was rewritten is not what was asked for.
    is_dropped = gen.on_failure == "drop" or not counts["rewritten"]
    step = Filter(RECIPE, "examples", len(input_examples))
    step.dropped = rules if is_dropped else Counter()
    step.kept = len(input_examples) - step.dropped.total()
    outcomes = {
        "rewritten": counts["rewritten"],
        "shorter": counts["shorter"],
        "failed": len(failed),
    }
    return RecipeResult(
        examples=examples if counts["rewritten"] else [],
        filters=[step],
        dropped=failed if is_dropped else [],
        files=[FAILED],
        counts=outcomes | {f"failed_{rule}": n for rule, n in sorted(rules.items())},
        notes=_notes(gen, len(input_examples), rules) + unseen(input_examples),
        client=client,
        before=input_examples,
    )


def read(reply: Reply, original: str) -> tuple[str | None, str]:
    """(None, the new output), or (the rule by which the reply is none, "")."""
    text = reply.text.strip()
    if not _LABEL.match(original):
        text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    if without_quotes(original.strip()) == original.strip():
        text = without_quotes(text)
    if is_refusal(reply, original):
        return "refused", ""
    if reply.finish_reason == "length":
        return "cut", ""
    if not text:
        return "empty_reply", ""
    if not is_unicode(text):
        return "unparsable", ""
    if is_other_script(text) and not is_other_script(original):
        return "other_script", ""
    return None, text


def _body(gen: ExpandGen, example: DatasetExample) -> dict[str, Any]:
    worked_example = gen.example
    prompt = fill(
        gen.prompt.text,
        {
            "name": example.name or example.id,
            "instr": example.instruction,
            "input": example.input,
            "output": example.output,
            "ex_name": worked_example.name,
            "ex_instr": worked_example.instruction,
            "ex_input": worked_example.input,
            "ex_output": worked_example.output,
            "ex_expanded": worked_example.expanded,
        },
    )
    sampling = gen.sampling.model_dump(exclude_none=True)
    return {"messages": [{"role": "user", "content": prompt}], **sampling}


def _step(step: str, reply: Reply) -> Lineage:
    return Lineage(RECIPE, step, (reply.request,))


def _failure(rule: str, example: DatasetExample, reply: Reply) -> dict[str, Any]:
    return {
        "step": RECIPE,
        "rule": rule,
        "id": example.id,
        "request": reply.request,
        "reply": reply.text[:SHOWN],
    }


def _notes(gen: ExpandGen, total: int, rules: Counter[str]) -> list[str]:
    if not rules:
        return []
    tally = ", ".join(f"{n} {rule.replace('_', ' ')}" for rule, n in sorted(rules.items()))
    fate = "stay as they were" if gen.on_failure == "keep" else "are dropped"
    return [f"{rules.total()} of {total} outputs were not rewritten ({tally}) and {fate}"]
