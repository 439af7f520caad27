"""What the train stage refuses to leave out of a record in silence."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.spec.models import Template
from harness.train.data import encode

TEMPLATE = Template.model_validate({"prompt": {"path": "p.txt", "text": "{instruction}"}})
GOOD = {"instruction": "q", "input": "", "output": "a", "system": "", "history": []}


class Words:
    """A tokenizer of one token a word."""

    eos_token, eos_token_id = "<end>", 0

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}


def read(tmp_path: Path, *records: dict[str, Any]) -> Any:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer: Any = Words()
    return encode(path, TEMPLATE, tokenizer, 100)


@pytest.mark.parametrize(
    ("record", "holds", "way"),
    [
        ({**GOOD, "history": [["q0", "a0"]]}, "earlier turns in `history`", "turns: first"),
        ({**GOOD, "system": "Be brief."}, "a `system` text", "template"),
        ({"instruction": "q", "chosen": "a", "rejected": "b"}, "preference data", "chosen"),
    ],
)
def test_a_record_of_which_a_part_would_be_lost_is_refused_with_its_line(
    tmp_path: Path, record: dict[str, Any], holds: str, way: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD, record)
    assert f"data.jsonl:2: the record holds {holds}" in caught.value.message
    assert "single-turn instruction data" in caught.value.message
    assert way in caught.value.hint


def test_empty_system_and_history_stop_nothing(tmp_path: Path) -> None:
    absent = {"instruction": "q", "output": "a"}
    null = {**absent, "system": None, "history": None}
    data = read(tmp_path, GOOD, absent, null)
    assert data.records == len(data.input_ids) == 3
