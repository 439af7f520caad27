"""Model outputs as they stand in model_outputs.json, in alpaca_eval's format and a little more."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Required, TypedDict

from harness.answer import hygiene
from harness.answer.answer import Reasoning
from harness.answer.prompts import Prompt, read_prompts
from harness.answer.turns import every_turn
from harness.artefact.keys import digest_of
from harness.data.records import NEED_TEXT, Record, read_records, text_field
from harness.errors import HarnessError, InputError
from harness.llm.reply import DECLINED
from harness.spec.base import DataPath
from harness.spec.prompts import OutputFiles, PromptColumns, PromptSet

OUTPUTS = "model_outputs.json"
MOST_NAMED = 3
TOKENS = ("tokens", "prompt_tokens")
GENERATOR = "model"
"""The name in the outputs; the same everywhere, so that the file depends on the outputs alone."""


@dataclass(frozen=True)
class Output:
    """The answer to one prompt. `index` is the prompt's place in the set."""

    index: int
    output: str
    finish_reason: str | None
    """`stop` (the end token or a stop text), `length` (cut at the limit), `refused` (a server declined
    the prompt), `content_filter` (its filter cut the answer), another word of the server, or None
    where nobody says."""
    tokens: int | None
    """Those made, without the end token; of an endpoint, those that it says it made."""
    prompt_tokens: int | None
    generated: str | None = None
    """All that was generated, where `output` is not all of it."""


class OutputRow(TypedDict, total=False):
    """An object of the file."""

    instruction: Required[str]
    input: str
    """Where there is one, as `dataset`."""
    output: str
    generated: str
    """Where that is not the output."""
    generator: str
    dataset: str
    turn: int
    """Of a question of several."""
    finish_reason: str | None
    tokens: int | None
    prompt_tokens: int | None
    flags: list[str]


def outputs_by_index(lines: Iterable[str]) -> dict[int, Output]:
    """From the JSON lines that an engine leaves of its answers."""
    outputs = (Output(**json.loads(line)) for line in lines)
    return {output.index: output for output in outputs}


def as_judged(output: Output, strip: bool, reasoning: Reasoning) -> Output:
    """The output as judges see it: without reasoning and white space at its ends, where these go."""
    text = hygiene.split_reasoning(output.output)[0] if reasoning == "strip" else output.output
    text = text.strip() if strip else text
    if text == output.output:
        return output
    return replace(output, output=text, generated=output.output)


def write_outputs(
    path: Path,
    prompts: Sequence[Prompt],
    outputs: Sequence[Output],
    flagged: Sequence[list[str]],
) -> None:
    """A list of `OutputRow` in the prompts' order; `flagged`: each one's flags."""
    rows = []
    for prompt, output, flags in zip(prompts, outputs, flagged, strict=True):
        row: OutputRow = {"instruction": prompt.instruction}
        if prompt.input:
            row["input"] = prompt.input
        row["output"] = output.output
        if output.generated is not None:
            row["generated"] = output.generated
        row["generator"] = GENERATOR
        if prompt.dataset is not None:
            row["dataset"] = prompt.dataset
        if prompt.later or prompt.turn > 1:
            row["turn"] = prompt.turn
        row["finish_reason"] = output.finish_reason
        row["tokens"], row["prompt_tokens"] = output.tokens, output.prompt_tokens
        row["flags"] = flags
        rows.append(row)
    # Escaped only where it must be: half a surrogate pair, which servers can send, is no UTF-8.
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    path.write_text(text.encode("utf-8", "replace").decode("utf-8") + "\n", encoding="utf-8")


def read_recorded(folder: Path, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Output]]:
    """The prompts of all turns, and what was generated, in an artefact's folder, for each.

    Raises HarnessError where they are of other prompts.
    """
    records = read_records(folder / OUTPUTS)
    rest = iter(records)

    def take(turn: Sequence[Prompt]) -> list[Record]:
        return [record for _, record in zip(turn, rest, strict=False)]

    several = any(prompt.later for prompt in prompts)
    every, matched = list(prompts), records
    if several and len(records) >= len(prompts):
        every, matched = every_turn(prompts, take, lambda record: str(record.fields["output"]))
    if len(records) != len(every) or len(matched) != len(every):
        raise HarnessError(
            f"{folder / OUTPUTS} has {len(records)} outputs, and the prompt set {len(every)} prompts"
        )
    outputs = []
    for index, (record, prompt) in enumerate(zip(records, every, strict=True)):
        row = record.fields
        if (row["instruction"], row.get("input", "")) != prompt.key:
            raise HarnessError(
                f"{folder / OUTPUTS}:{record.line}: output {index} is of another prompt than the set's"
            )
        generated = row.get("generated", row["output"])
        outputs.append(
            Output(index, generated, row["finish_reason"], row["tokens"], row["prompt_tokens"])
        )
    return every, outputs


def digest_of_texts(path: Path) -> str:
    """sha256 of what a judge reads of the file: all but the numbers of tokens, which a server may count
    otherwise when it says the same.

    Raises InputError where the file cannot be read.
    """
    rows = [record.fields for record in read_records(path)]
    return digest_of([{n: v for n, v in row.items() if n not in TOKENS} for row in rows])


def count(outputs: Sequence[Output], flagged: Sequence[list[str]]) -> dict[str, int]:
    """prompts = answered + empty. `tokens`: of the outputs whose number is known."""
    empty = sum(hygiene.is_empty(output.output) for output in outputs)
    return {
        "prompts": len(outputs),
        "answered": len(outputs) - empty,
        "empty": empty,
        "refused": sum(output.finish_reason in DECLINED for output in outputs),
        "stripped": sum(output.generated is not None for output in outputs),
        "cut_at_limit": sum(output.finish_reason == "length" for output in outputs),
        "tokens": sum(output.tokens or 0 for output in outputs),
        **hygiene.count_flags(flagged),
    }


def given_records(given: DataPath | OutputFiles) -> tuple[Path, list[Record]]:
    """The records of given outputs, in alpaca_eval's fields, and a file to name in faults.

    Raises InputError where a file cannot be read, or has no such column.
    """
    if isinstance(given, DataPath):
        path = Path(given.path)
        return path, read_records(path)
    columns = PromptColumns(output=given.output)
    prompts = read_prompts(PromptSet(files=given.files, columns=columns), None)
    for prompt in prompts:
        if prompt.output is None:
            raise InputError(f"{prompt.place}: no output in `{given.output}`", NEED_TEXT)
    rows = [
        {"instruction": p.instruction, "input": p.input, "output": p.output,
         "generator": given.output, "dataset": p.dataset}
        for p in prompts
    ]  # fmt: skip
    names = ", ".join(data.path for data in given.files.values())
    return Path(names), [Record(number, row) for number, row in enumerate(rows, 1)]


def given_outputs(data: DataPath | OutputFiles, prompts: Sequence[Prompt]) -> list[Output]:
    """The file's output for each prompt, by instruction and input.

    Raises InputError where one is missing, or two differ.
    """
    path, records = given_records(data)
    outputs: dict[tuple[str, str], Output] = {}
    for record in records:
        key = text_field(path, record, "instruction"), text_field(path, record, "input", default="")
        row = record.fields
        output = Output(
            0,
            text_field(path, record, "output"),
            _as(str, row.get("finish_reason")),
            _as(int, row.get("tokens")),
            _as(int, row.get("prompt_tokens")),
        )
        if outputs.setdefault(key, output) != output:
            raise InputError(
                f"{record.place(path)}: a second, other output for the same prompt: {key[0][:60]!r}",
                "Given outputs are one for each prompt.",
            )
    missing = [prompt for prompt in prompts if prompt.key not in outputs]
    if missing:
        examples = "; ".join(repr(prompt.instruction[:60]) for prompt in missing[:MOST_NAMED])
        raise InputError(
            f"{path} lacks outputs for {len(missing)} of {len(prompts)} prompts: {examples}",
            "Give outputs on this prompt set, or prompts that the file answers.",
        )
    return [replace(outputs[prompt.key], index=i) for i, prompt in enumerate(prompts)]


def _as(kind: type, value: Any) -> Any:
    return value if type(value) is kind else None
