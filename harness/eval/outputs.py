"""Model outputs as they stand in model_outputs.json, in alpaca_eval's format and a little more."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.eval import hygiene
from harness.eval.prompts import Prompt
from harness.llm.reply import REFUSED
from harness.modeling.records import read_records

OUTPUTS = "model_outputs.json"
GENERATOR = "model"
"""The name in the outputs; the same everywhere, so that the file depends on the outputs alone."""


@dataclass(frozen=True)
class Output:
    """The answer to one prompt. `index` is the prompt's place in the set."""

    index: int
    output: str
    finish_reason: str | None
    """`stop` (the end token or a stop text), `length` (cut at the limit), `refused` (a server declined
    the prompt), another word of the server, or None where nobody says."""
    tokens: int | None
    """Those made, without the end token; of an endpoint, those that it says it made."""
    prompt_tokens: int | None


def write_outputs(path: Path, prompts: Sequence[Prompt], outputs: Sequence[Output]) -> None:
    """A list of objects in the prompts' order: instruction, input (where there is one), output,
    generator, dataset (where there is one), finish_reason, tokens, prompt_tokens, flags."""
    rows = []
    for prompt, output in zip(prompts, outputs, strict=True):
        row: dict[str, Any] = {"instruction": prompt.instruction}
        if prompt.input:
            row["input"] = prompt.input
        row |= {"output": output.output, "generator": GENERATOR}
        if prompt.dataset is not None:
            row["dataset"] = prompt.dataset
        rows.append(
            row
            | {
                "finish_reason": output.finish_reason,
                "tokens": output.tokens,
                "prompt_tokens": output.prompt_tokens,
                "flags": hygiene.flags(output.output, output.finish_reason),
            }
        )
    # Escaped only where it must be: half a surrogate pair, which servers can send, is no UTF-8.
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    path.write_text(text.encode("utf-8", "replace").decode("utf-8") + "\n", encoding="utf-8")


def read_recorded(folder: Path, prompts: Sequence[Prompt]) -> list[Output]:
    """The outputs in an artefact's folder, one for each prompt.

    Raises HarnessError where they are of other prompts.
    """
    records = read_records(folder / OUTPUTS)
    if len(records) != len(prompts):
        raise HarnessError(
            f"{folder / OUTPUTS} has {len(records)} outputs, and the prompt set {len(prompts)} prompts"
        )
    found = []
    for index, (record, prompt) in enumerate(zip(records, prompts, strict=True)):
        row = record.fields
        if (row["instruction"], row.get("input", "")) != prompt.key:
            raise HarnessError(
                f"{folder / OUTPUTS}:{record.line}: output {index} is of another prompt than the set's"
            )
        found.append(
            Output(index, row["output"], row["finish_reason"], row["tokens"], row["prompt_tokens"])
        )
    return found


def count(outputs: Sequence[Output]) -> dict[str, int]:
    """prompts = answered + empty. `tokens`: of the outputs whose number is known."""
    empty = sum(hygiene.is_empty(output.output) for output in outputs)
    found = [hygiene.flags(output.output, output.finish_reason) for output in outputs]
    return {
        "prompts": len(outputs),
        "answered": len(outputs) - empty,
        "empty": empty,
        "refused": sum(output.finish_reason == REFUSED for output in outputs),
        "cut_at_limit": sum(output.finish_reason == "length" for output in outputs),
        "tokens": sum(output.tokens or 0 for output in outputs),
        **hygiene.count_flags(found),
    }
