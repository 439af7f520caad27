"""Small calls of the train and answer stages, for the tests of both."""

import json
from pathlib import Path
from typing import Any

from harness.artefact.call import StageCall
from harness.artefact.environment import CODE_VERSIONS
from harness.modeling.text import encode_prompt
from tests.helpers import read_jsonl

ENGINE = ("batch_size", "batching", "precision", "threads")

IGNORED = -100
"""The label of a token that the loss leaves out."""

MODEL: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "attention_dropout": 0.1,
    "tie_word_embeddings": True,
}

EXAMPLES = [
    {"instruction": f"Say {word} {n}.", "input": "", "output": f"{word} " * n}
    for n in (1, 2, 3)
    for word in ("yes", "no", "tea", "up")
]


def template(text: str = "Q: {instruction}\nA:", stop: list[str] | None = None) -> dict[str, Any]:
    return {"prompt": {"path": "prompt.txt", "text": text}, "stop": stop or []}


def random_model(seed: int = 0, tokenizer: Any = "bytes", **config: Any) -> dict[str, Any]:
    return {"random": {"config": MODEL | config, "tokenizer": tokenizer, "seed": seed}}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def encode_example(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """`input_ids` and `labels` of a plain prompt's example: the prompt (ignored), answer and end."""
    asked = encode_prompt(tokenizer, prompt)
    answered = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return asked + answered, [IGNORED] * len(asked) + answered


def train_call(
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    model: dict[str, Any] | None = None,
    prompt: dict[str, Any] | None = None,
    **train: Any,
) -> StageCall:
    """A call whose work folder is `folder`/work and whose data set is `folder`/data/data.jsonl."""
    data = write_jsonl(folder / "data" / "data.jsonl", EXAMPLES if rows is None else rows)
    (folder / "work").mkdir(exist_ok=True)
    settings = {"learning_rate": 5e-3, "batch_size": 4, "threads": 1} | train
    if "steps" not in train:
        settings.setdefault("epochs", 2)
    return StageCall(
        stage="train",
        key="0" * 64,
        params={
            "train": settings,
            "model": model or random_model(),
            "template": prompt or template(),
        },
        inputs={"data": str(data.parent)},
        work=str(folder / "work"),
        code_version=CODE_VERSIONS["train"],
    )


def log_of(call: StageCall) -> list[dict[str, Any]]:
    """The lines of a training's log."""
    return read_jsonl(call.folder / "trainer_log.jsonl")


def answer_call(
    folder: Path,
    rows: list[dict[str, Any]],
    model: dict[str, Any] | None = None,
    trained: Path | None = None,
    prompt: dict[str, Any] | None = None,
    **answer: Any,
) -> StageCall:
    """A call for the prompts `rows`, of the base model or of a trained artefact's folder.

    Settings of the transformers engine may stand beside the others in `answer`.
    """
    prompts = write_jsonl(folder / "prompts.jsonl", rows)
    (folder / "work").mkdir(exist_ok=True)
    engine = {"kind": "transformers", "threads": 1}
    engine |= {name: answer.pop(name) for name in ENGINE if name in answer}
    settings = {"engine": engine, "decoding": {"max_new_tokens": 12}} | answer
    return StageCall(
        stage="answer",
        key="0" * 64,
        params={
            "answer": {"prompts": {"file": str(prompts)}, "template": prompt or template()}
            | settings,
            "model": model or random_model(),
        },
        inputs={"model": str(trained)} if trained else {},
        work=str(folder / "work"),
    )


def outputs(call: StageCall) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((call.folder / "model_outputs.json").read_text())
    return rows
