"""The training set: records read, rendered, turned into tokens and labels, every loss counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.call import StageCall
from harness.errors import InputError
from harness.modeling import text
from harness.modeling.records import Record, read_records, text_field
from harness.spec.models import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATA_FILE = "data.jsonl"


@dataclass
class Encoded:
    """`input_ids` and `labels` hold one list an example; records = examples + both kinds dropped."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    records: int = 0
    dropped_empty: int = 0
    """Records with an empty output."""
    dropped_cut: int = 0
    """Records of which the cut left no token of the answer."""
    truncated: int = 0
    """Examples that were cut at the end and kept."""
    simulated: bool = False
    """Whether a record says that a simulated teacher or judge had a hand in it."""

    def label_tokens(self) -> int:
        """What one epoch trains on. The first token of a text has nothing before it to predict it."""
        return sum(label_count(labels) for labels in self.labels)


def label_count(labels: Sequence[int]) -> int:
    return sum(label != text.IGNORED for label in labels[1:])


def data_file(call: StageCall) -> Path:
    """The data set's file: the gen artefact's, or the one the row gives."""
    if "data" in call.inputs:
        return Path(call.inputs["data"]) / DATA_FILE
    given = call.params.get("data")
    if not given:
        raise InputError("the call names no data set (neither inputs.data nor params.data)")
    path = Path(given["path"])
    return path / DATA_FILE if path.is_dir() else path


def encode(
    path: Path, template: Template, tokenizer: "PreTrainedTokenizerBase", cutoff: int
) -> Encoded:
    """Raises InputError for a record without `instruction` or `output`, or of which the text would
    lack a part (a system text, earlier turns), with file:line."""
    data = Encoded()
    for record in read_records(path):
        _check_single_turn(path, record)
        instruction = text_field(path, record, "instruction")
        given = text_field(path, record, "input", default="")
        output = text_field(path, record, "output")
        data.records += 1
        data.simulated = data.simulated or record.fields.get("simulated") is True
        if not output.strip():
            data.dropped_empty += 1
            continue
        prompt = text.render(template, instruction, given)
        ids, labels = text.encode_example(tokenizer, prompt, output)
        if not label_count(labels[:cutoff]):
            data.dropped_cut += 1
            continue
        data.truncated += len(ids) > cutoff
        data.input_ids.append(ids[:cutoff])
        data.labels.append(labels[:cutoff])
    if not data.input_ids:
        raise InputError(
            f"{path}: none of the {data.records} records can be trained on "
            f"({data.dropped_empty} have no output, of {data.dropped_cut} the cut leaves no answer)",
            "Give a data set with outputs, or a larger cutoff_length.",
        )
    return data


def _check_single_turn(path: Path, record: Record) -> None:
    """Nothing of a record is left out in silence."""
    fields = record.fields
    if "output" not in fields and "chosen" in fields:
        what = "preference data (chosen and rejected)"
        way = "import the chosen answers alone, with columns: {messages: chosen}, or {instruction: "
        way += "prompt, output: chosen} where they are texts"
    elif fields.get("history"):
        what, way = "earlier turns in `history`", "import it with turns: first, last or drop"
    elif fields.get("system"):
        what, way = "a `system` text", "leave these records out, or put the text into the template"
    else:
        return
    raise InputError(
        f"{path}:{record.line}: the record holds {what}; the train stage takes single-turn "
        "instruction data",
        f"To train on this data set, {way}.",
    )
