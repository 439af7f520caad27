"""Choosing a base model: every model is measured on the same held-out text."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.modeling.load import bytes_tokenizer, load_tokenizer
from harness.row.load import load_rows
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from harness.spec.train import Train
from harness.train.data import ANSWER, EncodedExamples, encode
from tests.helpers import ROOT

SMOKE = ROOT / "specs" / "smoke"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty records; some answers are empty, some long, some not ASCII."""
    answers = ["", "été à Orléans", "a long answer " * 20, *(f"answer {n}" for n in range(17))]
    records = [
        {"instruction": f"Question {n}?", "output": answers[n % 20] and f"{answers[n % 20]} {n}"}
        for n in range(60)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def answers_of(encoded: EncodedExamples, tokenizer: Any) -> list[str]:
    """The answers' text, read back from the tokens that count as answer."""
    return [
        tokenizer.decode(ids[(marks & ANSWER) > 0], skip_special_tokens=True)
        for example in range(len(encoded))
        for ids, marks in encoded.sequences(example)
    ]


def held_out(data: Path, tokenizer: Any, template: str, **validation: Any) -> EncodedExamples:
    train = Train.model_validate(
        {"validation": {"share": 0.25, **validation}, "cutoff_length": 256}
    )
    made = encode(data, train, Template.model_validate(template), tokenizer)
    assert made.held_out is not None
    return made.held_out


def smoke_tokenizer() -> Any:
    given = {"random": {"config": {"model_type": "qwen2"}, "tokenizer": str(SMOKE / "tokenizer")}}
    return load_tokenizer(ModelSource.model_validate(given), {})


def test_models_with_different_tokenizers_and_templates_hold_out_the_same_answers(
    data: Path,
) -> None:
    coarse, fine = smoke_tokenizer(), bytes_tokenizer()
    one, two = held_out(data, coarse, "vicuna"), held_out(data, fine, "default")
    texts = answers_of(one, coarse)
    assert texts == answers_of(two, fine)
    assert len(texts) == 14  # a quarter of the 57 that have an answer
    assert one.answer_bytes.tolist() == two.answer_bytes.tolist()
    assert one.answer_bytes.tolist() == [len(text.encode()) for text in texts]
    assert ((one.marks & ANSWER) > 0).sum() < ((two.marks & ANSWER) > 0).sum()


def test_another_seed_of_the_validation_holds_out_other_answers(data: Path) -> None:
    tokenizer = bytes_tokenizer()
    drawn = [
        answers_of(held_out(data, tokenizer, "default", seed=seed), tokenizer) for seed in (42, 43)
    ]
    assert drawn[0] != drawn[1]


def test_the_smoke_familys_rows_differ_in_model_and_template_alone() -> None:
    rows = [loaded.row for loaded in load_rows([SMOKE / "selection"])]
    first = rows[0]
    assert all((r.train, r.gen, r.eval, r.table) == (first.train, first.gen, None, first.table)
               for r in rows)  # fmt: skip
    sources = [row.model.random for row in rows if row.model and row.model.random]
    assert sorted(s.config["model_type"] for s in sources) == ["llama", "mistral", "phi3", "qwen2"]
    assert {str(s.tokenizer) == "bytes" for s in sources} == {True, False}
    assert len({row.template.model_dump_json() for row in rows if row.template}) == 4
