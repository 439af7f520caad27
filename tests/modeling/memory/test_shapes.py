"""Shapes counted from a configuration are those of the models that transformers builds."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.modeling.memory import shapes
from tests.helpers import ROOT

SMALL = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def built(config: dict[str, Any]) -> Any:
    """The model itself, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def linears_of(model: Any) -> dict[str, tuple[int, int]]:
    from torch import nn

    return {
        name.rsplit(".", 1)[1]: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".layers.0." in name
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", sorted(shapes.DEFAULTS))
def test_parameters_and_matrices_of_each_known_kind_are_those_of_the_model(
    kind: str, tied: bool
) -> None:
    config = {"model_type": kind, **SMALL, "tie_word_embeddings": tied}
    model, shape = built(config), shapes.from_config(config)
    assert shape is not None
    assert shape.parameters == model.num_parameters()
    assert shape.linears == linears_of(model)


@pytest.mark.parametrize("kind", sorted(set(shapes.DEFAULTS) - {"gemma", "gemma2"}))
def test_a_configuration_that_says_little_means_what_transformers_takes_it_to_mean(
    kind: str,
) -> None:
    shape = shapes.from_config({"model_type": kind})
    assert shape is not None
    assert shape.parameters == built({"model_type": kind}).num_parameters()


@pytest.mark.parametrize(
    "more",
    [
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {"model_type": "qwen3", "attention_bias": True},
        {"model_type": "gemma", "attention_bias": True, "head_dim": 20},
        {"model_type": "mistral", "head_dim": 20},
        {"model_type": "llama", "num_key_value_heads": None},
    ],
)
def test_biases_and_head_sizes_are_counted_where_a_configuration_asks_for_them(
    more: dict[str, Any],
) -> None:
    config = {**SMALL, **more}
    shape = shapes.from_config(config)
    assert shape is not None
    assert shape.parameters == built(config).num_parameters()


def test_the_models_of_the_studies_have_their_published_sizes() -> None:
    llama = {"model_type": "llama"}
    large = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40}
    sizes = {
        6_738_415_616: llama,
        13_015_864_320: {**llama, **large, "num_attention_heads": 40},
    }
    for size, config in sizes.items():
        shape = shapes.from_config(config)
        assert shape is not None
        assert shape.parameters == size


def test_a_real_configuration_file_is_read() -> None:
    folder = ROOT.parent / "shared" / "data" / "qwen1.5-0.5b"
    if not folder.is_dir():
        pytest.skip("the configuration of Qwen1.5-0.5B is not there")
    shape = shapes.from_folder(folder)
    assert shape is not None
    assert shape.parameters == 463_987_712
    assert shapes.vocabulary_of(folder) == 151_646


def test_a_kind_that_is_not_known_is_counted_from_the_headers_of_its_weights(
    tmp_path: Path,
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {"model_type": "phi", **SMALL}
    assert shapes.from_config(config) is None
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    shape = shapes.from_folder(tmp_path)
    assert shape is not None
    assert shape.parameters == model.num_parameters()
    assert shape.linears == linears_of(model)
    deep = b'{"a": ' + b"[" * 100_000
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert shapes.from_folder(tmp_path) is None
    assert (shape.layers, shape.hidden, shape.key_value) == (3, 48, 24)


@pytest.mark.parametrize(
    "config",
    [
        {}, {"model_type": ["llama"]}, {"model_type": "unheard_of", **SMALL},
        {"model_type": "llama", "hidden_size": "wide"}, {"model_type": "llama", "hidden_size": 0},
        {"model_type": "llama", "num_attention_heads": 10**9},
    ],
)  # fmt: skip
def test_what_makes_no_sense_has_no_shape(config: dict[str, Any]) -> None:
    assert shapes.from_config(config) is None


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"hidden_size": 4}'])
def test_a_folder_with_broken_files_has_no_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    assert shapes.from_folder(tmp_path) is None
    assert shapes.from_folder(tmp_path / "absent") is None


def test_a_tokenizer_is_counted_with_the_tokens_that_were_added(tmp_path: Path) -> None:
    added = [{"content": "a"}, {"content": "<end>"}]
    whole = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    assert shapes.vocabulary_of(tmp_path) == 3
    (tmp_path / "tokenizer.json").write_text('{"model": null}')
    assert shapes.vocabulary_of(tmp_path) is None
