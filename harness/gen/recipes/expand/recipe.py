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

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Lineage, write_rows
from harness.data.dropped import Tally
from harness.gen.ask import SHOWN, ask, require_outputs, unseen
from harness.gen.objects import without_quotes
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.expand import ExpandGen
from harness.gen.refusals import is_other_script, is_refusal
from harness.gen.seeds import is_unicode
from harness.llm.calls import fill, prompt_body
from harness.llm.reply import Body, Reply

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
    failed = Tally(RECIPE, "examples")
    shorter = 0
    for example, reply in zip(input_examples, replies, strict=True):
        rule, output = read(reply, example.output)
        if rule is None:
            failed.kept += 1
            shorter += len(output) < len(example.output)
            examples.append(example.after(_step("expand", reply), output=output))
            continue
        failed.drop(rule, id=example.id, request=reply.request, reply=reply.text[:SHOWN])
        if gen.on_failure == "keep":
            examples.append(example.after(_step("unchanged", reply)))
    write_rows(call.folder / FAILED, failed.rows)
    # A data set of which nothing was rewritten is not what was asked for.
    is_dropped = gen.on_failure == "drop" or not failed.kept
    outcomes = {"rewritten": failed.kept, "shorter": shorter, "failed": failed.dropped.total()}
    return RecipeResult(
        examples=examples if failed.kept else [],
        filters=[failed if is_dropped else Tally(RECIPE, "examples", len(examples))],
        files=[FAILED],
        counts=outcomes | failed.counts("failed"),
        notes=_notes(gen, failed) + unseen(input_examples),
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


def _body(gen: ExpandGen, example: DatasetExample) -> Body:
    worked_example = gen.example
    parts = {
        "name": example.name or example.id,
        "instr": example.instruction,
        "input": example.input,
        "output": example.output,
        "ex_name": worked_example.name,
        "ex_instr": worked_example.instruction,
        "ex_input": worked_example.input,
        "ex_output": worked_example.output,
        "ex_expanded": worked_example.expanded,
    }
    return prompt_body(fill(gen.prompt.text, parts), gen.sampling)


def _step(step: str, reply: Reply) -> Lineage:
    return Lineage(RECIPE, step, (reply.request,))


def _notes(gen: ExpandGen, failed: Tally) -> list[str]:
    if not failed.dropped:
        return []
    fate = "stay as they were" if gen.on_failure == "keep" else "are dropped"
    rules = failed.in_words(by_name=True)
    return [f"{failed.share('outputs')} were not rewritten ({rules}) and {fate}"]
