"""What stands beside a trained model's weights: nothing a base brings stops a save, and it stops."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import StageCall
from harness.modeling.generation import read_settings
from harness.modeling.load import load_model, load_tokenizer
from harness.spec.model_source import ModelSource
from harness.train.run import run
from tests.helpers import copy_of_model
from tests.modeling.calls import train_call

ROWS = [{"instruction": "Say yes.", "input": "", "output": "yes"}]
CHATML = {
    "prompt": {
        "path": "p.txt",
        "text": "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    },
    "start": "",
    "end": "<|im_end|>",
    "special": ["<|im_start|>", "<|im_end|>"],
}
VICUNA = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "max_length": 4096}


def copied(real_model: Path, folder: Path, **files: Any) -> Path:
    """The real model with other files beside its weights, which are linked; None drops a file."""
    copy_of_model(real_model, folder)
    for name, value in files.items():
        path = folder / name.replace("__", ".")
        path.unlink(missing_ok=True)
        if value is not None:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def tuned(tmp_path: Path, base: Path, prompt: Any = CHATML, **train: Any) -> tuple[StageCall, Any]:
    settings = {"steps": 1, "batch_size": 1, "learning_rate": 1e-6} | train
    call = train_call(tmp_path, ROWS, {"path": {"path": str(base)}}, prompt, **settings)
    return call, run(call)


def card_code(folder: Path, **places: str) -> str:
    """The card's own code, with what it leaves to its reader filled in."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.S | re.M)
    for place, value in {"'...'": "'Say yes.'", "'model'": repr(str(folder / "model"))}.items():
        code = code.replace(place, value)
    for place, value in places.items():
        code = code.replace(f"'{place.replace('_', ' ')}'", repr(value))
    return code


def settings_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "generation_config.json").read_text())
    return read


def test_a_base_that_proposes_a_temperature_for_greedy_decoding_is_trained_and_written(
    tmp_path: Path, real_model: Path
) -> None:
    # Without the end token the trainer alters the settings, and transformers then refuses them.
    base = copied(real_model, tmp_path / "base", generation_config__json=VICUNA)
    call, result = tuned(tmp_path, base, steps=2, checkpoint_steps=1)
    assert result.used["checkpoints"] == 1
    assert settings_of(call.folder / "model") == VICUNA | {"eos_token_id": 2}
    again = ModelSource.model_validate({"path": {"path": str(call.folder / "model")}})
    tokenizer = load_tokenizer(again, {})
    assert load_model(again, {}, tokenizer, "bfloat16", "cpu").generation_config.temperature == 0.9


def test_what_transformers_cannot_read_of_a_base_is_dropped_and_noted_and_the_rest_carried_over(
    tmp_path: Path, real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = {"num_return_sequences": 3, "cache_implementation": "bogus", "max_new_tokens": 0}
    ends = {"eos_token_id": "</s>"}
    config = json.loads((real_model / "config.json").read_text())
    base = copied(
        real_model,
        tmp_path / "base",
        generation_config__json=VICUNA | unreadable | ends,
        config__json=config | {"length_penalty": 2.0},
        LICENSE="Terms of use.",
        tokenizer__model="the base's own pieces",
    )

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("this class writes no vocabulary")

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", refuse)
    call, result = tuned(tmp_path, base, steps=2, checkpoint_steps=1)
    model = call.folder / "model"
    assert settings_of(model) == VICUNA | {"eos_token_id": 2}
    dropped, copied_files = sorted(result.notes)
    assert all(name in dropped for name in [*unreadable, *ends])
    assert "writes no vocabulary" in copied_files
    assert (model / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert (model / "LICENSE").read_text() == "Terms of use."
    assert (model / "tokenizer.model").read_text() == "the base's own pieces"
    again = ModelSource.model_validate({"path": {"path": str(model)}})
    load_model(again, {}, load_tokenizer(again, {}), "bfloat16", "cpu")


NO_CHATML = {
    "prompt": {"path": "p.txt", "text": "Human: {instruction}{eos}\nAssistant:"},
    "start": "",
    "answer": " {output}",
    "end": "<|endoftext|>",
    "special": ["<|endoftext|>"],
}
TEXT_END = NO_CHATML | {"end": " ###", "special": []}


@pytest.mark.parametrize(
    ("prompt", "train"),
    [
        (NO_CHATML, {}),
        (TEXT_END, {}),
        (NO_CHATML, {"method": "lora", "lora": {"rank": 16, "alpha": 32}, "learning_rate": 3e-3}),
    ],
    ids=["token", "text", "adapter"],
)
def test_the_cards_own_code_stops_where_the_template_ends_an_answer(
    tmp_path: Path, real_model: Path, prompt: Any, train: dict[str, Any]
) -> None:
    call, _ = tuned(
        tmp_path,
        real_model,
        prompt,
        **{"steps": 8, "learning_rate": 1e-4, "scheduler": "constant"} | train,
    )
    code = card_code(call.folder, PATH_OF_THE_BASE_MODEL=str(real_model))
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    assert printed.getvalue().strip() == "yes"
    assert len(names["made"]) < 6
    source = ModelSource.model_validate({"path": {"path": str(real_model)}})
    of_base, of_trained = (load_tokenizer(source, i) for i in ({}, {"model": str(call.folder)}))
    assert of_trained.chat_template == of_base.chat_template, "`template: tokenizer` is the base's"
    ends = settings_of(call.folder / "model")["eos_token_id"]
    assert ends == (2 if prompt is TEXT_END else [0, 2])


def test_a_broken_proposal_of_decoding_does_not_hide_the_ends_that_the_configuration_names(
    tmp_path: Path, real_model: Path
) -> None:
    config = json.loads((real_model / "config.json").read_text()) | {"eos_token_id": [2, 7]}
    base = copied(real_model, tmp_path / "base", config__json=config, generation_config__json="{")
    fields, dropped = read_settings(base)
    assert (fields["eos_token_id"], dropped) == ([2, 7], ["all of it"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"temperature": "0.7"},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"do_sample": "yes"},
        {"temperature": float("inf")},
    ],
)
def test_what_generate_would_stop_at_is_not_carried_over(
    tmp_path: Path, real_model: Path, wrong: dict[str, Any]
) -> None:
    right = {"do_sample": True, "eos_token_id": 2, "min_p": 0.1}
    base = copied(real_model, tmp_path / "base", generation_config__json=wrong | right | wrong)
    fields, dropped = read_settings(base)
    assert dropped == list(wrong)
    assert fields == {n: v for n, v in right.items() if n not in wrong}
