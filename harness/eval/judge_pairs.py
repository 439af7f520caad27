"""What a judge compares: for each prompt the model's output and the baseline's."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.eval.answer import OUTPUTS, read_prompts
from harness.modeling.records import Record, read_records, text_field
from harness.spec.models import PromptSet

ANNOTATIONS, LEADERBOARD = "annotations.json", "leaderboard.csv"
TRANSCRIPT, UNJUDGED = "transcript.jsonl", "unjudged.jsonl"
KEPT_FILES = [ANNOTATIONS, LEADERBOARD, TRANSCRIPT, UNJUDGED]
"""What a judge artefact holds, whatever the kind of judge."""


@dataclass(frozen=True)
class Pair:
    """One prompt with both outputs; `cut` is whether the model's ended at the token limit."""

    instruction: str
    input: str
    dataset: str | None
    baseline: str
    baseline_generator: str
    output: str
    generator: str
    cut: bool


def read_pairs(outputs_folder: str, prompts: PromptSet, reference: str) -> list[Pair]:
    """One pair for each prompt, in the prompts' order, matched by instruction.

    Raises:
        InputError: a file cannot be read, an instruction is there twice, an output is missing or
            is for another prompt, or a prompt has no baseline.
    """
    outputs_file, reference_file = Path(outputs_folder) / OUTPUTS, Path(reference)
    wanted = [prompt.instruction for prompt in read_prompts(prompts)]
    _check_once(wanted, f"the prompts {prompts.file.path}")
    outputs = _by_instruction(outputs_file, None)
    baseline = _by_instruction(reference_file, set(wanted))
    faults = [
        _missing(wanted, outputs, "prompts have no output", f"in {outputs_file}"),
        _missing(outputs, wanted, f"outputs in {outputs_file} are for prompts that are not", ""),
        _missing(wanted, baseline, "prompts have no baseline output", f"in {reference_file}"),
    ]
    if any(faults):
        raise InputError(
            "\n".join(filter(None, faults)),
            hint="prompts, outputs and reference must be of one set; they are matched by "
            "instruction, letter by letter",
        )
    return [_pair(outputs_file, outputs[one], reference_file, baseline[one]) for one in wanted]


def output_counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """Counts of what was judged that a win rate does not show."""
    return {
        "prompts": len(pairs),
        "identical": sum(pair.output == pair.baseline for pair in pairs),
        "empty_outputs": sum(not pair.output.strip() for pair in pairs),
        "cut_outputs": sum(pair.cut for pair in pairs),
    }


def served_notes(models: Sequence[str]) -> list[str]:
    """A note where the judge was not one and the same model throughout."""
    return [f"the judge's replies came from {', '.join(models)}"] if len(models) > 1 else []


def ask_again(work: Path) -> str:
    """The way out where no reply is of use: the transcript would give the same ones again."""
    return (
        "The same command finds the same replies in the transcript: change the judge in the spec, "
        f"or remove the work folder {work} to ask again"
    )


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines, in ASCII: any text a model makes can be written and read back."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def _by_instruction(path: Path, wanted: set[str] | None) -> dict[str, Record]:
    """Records by instruction; of a larger file only the wanted ones."""
    records = [(text_field(path, record, "instruction"), record) for record in read_records(path)]
    if wanted is not None:
        records = [(text, record) for text, record in records if text in wanted]
    _check_once([text for text, _ in records], str(path))
    return dict(records)


def _check_once(instructions: Iterable[str], where: str) -> None:
    repeated = [text for text, count in Counter(instructions).items() if count > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} instructions are in {where} more than once, for example "
            f"{_short(repeated[0])}",
            hint="outputs are matched by instruction: give each only once",
        )


def _missing(some: Iterable[str], others: Iterable[str], what: str, where: str) -> str:
    some, known = list(some), set(others)
    missing = [text for text in some if text not in known]
    if not missing:
        return ""
    counts = f"{len(missing)} of {len(some)} {what}"
    return f"{counts} {where}".rstrip() + f", for example {_short(missing[0])}"


def _pair(outputs_file: Path, output: Record, reference_file: Path, baseline: Record) -> Pair:
    dataset = baseline.fields.get("dataset", output.fields.get("dataset"))
    return Pair(
        instruction=output.fields["instruction"],
        input=text_field(outputs_file, output, "input", default=""),
        dataset=None if dataset is None else str(dataset),
        baseline=text_field(reference_file, baseline, "output"),
        baseline_generator=str(baseline.fields.get("generator") or "baseline"),
        output=text_field(outputs_file, output, "output"),
        generator=str(output.fields.get("generator") or "model"),
        cut=output.fields.get("finish_reason") == "length",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
