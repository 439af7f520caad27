"""Making and loading models and tokenizers, and what is said of those that cannot be loaded."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.errors import InputError
from harness.modeling.load import bytes_tokenizer, load_model, load_tokenizer, model_in
from harness.spec.model_source import ModelSource
from tests.helpers import ROOT
from tests.modeling.calls import MODEL, random_model

TEXT = "Ä b{}\n\t漢 <3 🙂"


def source(**fields: Any) -> ModelSource:
    return ModelSource.model_validate(fields)


def loaded(src: ModelSource, inputs: dict[str, str] | None = None) -> Any:
    tokenizer = load_tokenizer(src, inputs or {})
    return load_model(src, inputs or {}, tokenizer, "float32", "cpu")


def weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model, as the train stage leaves it."""
    src = source(**random_model())
    loaded(src).save_pretrained(tmp_path / "saved")
    load_tokenizer(src, {}).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_random_weights_depend_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(123)
    one, same = loaded(source(**random_model(1))), loaded(source(**random_model(1)))
    other = loaded(source(**random_model(2)))
    assert all(torch.equal(a, weights(same)[name]) for name, a in weights(one).items())
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert one.dtype == torch.float32
    assert one.config.vocab_size == len(bytes_tokenizer()) == 258
    assert one.config.eos_token_id == bytes_tokenizer().eos_token_id


def test_the_byte_tokenizer_gives_one_token_a_byte_and_the_text_back() -> None:
    tokenizer = bytes_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    assert len(ids) == len(TEXT.encode())
    assert tokenizer.decode(ids) == TEXT


def test_a_saved_model_and_its_byte_tokenizer_come_back_the_same(folder: Path) -> None:
    for src, inputs in (
        (source(path=str(folder)), {}),
        (source(hub={"id": "a/b", "revision": "0" * 40}), {"hub": str(folder)}),
    ):
        again = loaded(src, inputs)
        first = weights(loaded(source(**random_model())))
        assert all(torch.equal(a, first[name]) for name, a in weights(again).items())
        tokenizer = load_tokenizer(src, inputs)
        assert len(tokenizer) == 258
        assert tokenizer(TEXT)["input_ids"] == bytes_tokenizer()(TEXT)["input_ids"]


def test_bfloat16_is_what_the_model_then_computes_in(folder: Path) -> None:
    src = source(path=str(folder))
    model = load_model(src, {}, load_tokenizer(src, {}), "bfloat16", "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["folder", "random"])
def test_in_bfloat16_positions_are_as_exact_as_the_library_has_them(
    folder: Path, real_model: Path, kind: str
) -> None:
    """The frequencies of rotary positions are no weights: rounded, they turn distant tokens away."""
    src = source(path=str(real_model)) if kind == "folder" else source(**random_model())
    model = load_model(src, {}, load_tokenizer(src, {}), "bfloat16", "cpu")
    librarys = AutoModelForCausalLM.from_pretrained(
        real_model if kind == "folder" else folder, dtype=torch.bfloat16
    ).eval()
    ids = torch.arange(300)[None] % model.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, librarys(input_ids=ids).logits)


def test_a_random_model_can_have_a_real_tokenizer(shared_data: Path) -> None:
    tokenizer = {"path": str(shared_data / "qwen1.5-0.5b")}
    model = loaded(source(**random_model(tokenizer=tokenizer, vocab_size=151936)))
    assert model.config.vocab_size == 151936
    with pytest.raises(InputError, match="the tokenizer has 151646 tokens, the model only 1000"):
        loaded(source(**random_model(tokenizer=tokenizer, vocab_size=1000)))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"model_type": "qwen22"}, "'qwen22', which transformers does not know.*Did you mean qwen"),
        ({"hidden_sizes": 8}, "qwen2 has no setting 'hidden_sizes'.*Did you mean hidden_size"),
        ({"hidden_size": "big"}, "is not a qwen2 configuration.*hidden_size"),
    ],
)
def test_a_faulty_configuration_is_refused_by_name(config: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(source(**random_model(**config)))
    assert re.search(fault, str(caught.value), re.DOTALL)


def test_a_model_that_is_not_causal_is_refused() -> None:
    config = {"model_type": "t5", "d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1}
    with pytest.raises(InputError, match="no causal language model"):
        loaded(source(random={"config": config}))


def test_a_folder_is_told_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        loaded(source(path=str(tmp_path / "none")))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"lacks model\.safetensors or.*\n.*pickles"):
        loaded(source(path=str(folder)))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"lacks config\.json, model\.safetensors"):
        loaded(source(path=str(folder)))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"lacks tokenizer\.json or tokenizer\.model"):
        loaded(source(path=str(folder)))


def test_weights_that_do_not_fit_the_configuration_are_refused_not_made_up(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lack 12 of the tensors .*model\.layers\.2"):
        loaded(source(path=str(folder)))


def test_broken_weights_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        loaded(source(path=str(folder)))


def test_code_in_a_model_folder_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {
        "AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    trace = folder / "ran"
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(InputError):
        loaded(source(path=str(folder)))
    assert not trace.exists()


def adapted(base: dict[str, Any], folder: Path, **lora: Any) -> Any:
    """Leaves in `folder`/model an adapter with weights that matter, as the train stage does; returns
    the base model with it, not merged."""
    from peft import LoraConfig, get_peft_model

    src = source(**base)
    model = get_peft_model(loaded(src), LoraConfig(target_modules=["q_proj", "up_proj"], **lora))
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "model")
    load_tokenizer(src, {}).save_pretrained(folder / "model")
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(40)[None]).logits


def test_an_adapter_is_added_to_the_rows_own_model(folder: Path, tmp_path: Path) -> None:
    hub = {"hub": {"id": "a/b", "revision": "0" * 40}}
    expected = logits(adapted(random_model(), tmp_path / "made", r=4, lora_alpha=32))
    for base, inputs in (
        (random_model(), {}),
        ({"path": str(folder)}, {}),
        (hub, {"hub": str(folder)}),
    ):
        inputs["model"] = str(tmp_path / "made")
        model = loaded(source(**base), inputs)
        assert type(model).__name__ == "Qwen2ForCausalLM"
        assert not [name for name in weights(model) if "lora" in name]
        assert torch.allclose(logits(model), expected, atol=1e-5)
    assert not torch.allclose(logits(loaded(source(**random_model()))), expected, atol=1e-2)


def test_an_adapter_is_put_on_its_base_without_a_warning(tmp_path: Path) -> None:
    adapted(random_model(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        loaded(source(**random_model()), {"model": str(tmp_path)})


def test_an_adapter_is_merged_in_the_precision_asked_for(tmp_path: Path) -> None:
    expected = logits(adapted(random_model(), tmp_path))
    src, inputs = source(**random_model()), {"model": str(tmp_path)}
    model = load_model(src, inputs, load_tokenizer(src, inputs), "bfloat16", "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    far = (logits(model).float() - expected).abs().max()
    assert far < 0.05 * expected.abs().max()


def test_what_an_adapter_says_of_its_base_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(file_download, "hf_hub_download", refuse)
    expected = logits(adapted(random_model(), tmp_path))
    path = tmp_path / "model" / "adapter_config.json"
    for name in ("someone/else", "", None):
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name})
        )
        model = loaded(source(**random_model()), {"model": str(tmp_path)})
        assert torch.allclose(logits(model), expected, atol=1e-5)


def test_a_whole_trained_model_takes_the_place_of_the_rows(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "model")
    model = loaded(source(**random_model(seed=9)), {"model": str(tmp_path)})
    first = weights(loaded(source(**random_model(seed=0))))
    assert all(torch.equal(a, first[name]) for name, a in weights(model).items())


@pytest.mark.parametrize(
    ("trained_on", "fault"),
    [
        ({"hidden_size": 16}, "size mismatch"),
        ({"num_hidden_layers": 3}, "holds .*layers.2"),
        ({"num_hidden_layers": 1}, "lacks .*layers.1"),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}, "Target modules"),
    ],
)
def test_an_adapter_to_another_model_is_refused(
    trained_on: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    gpt2 = "model_type" in trained_on
    adapted(random_model() if gpt2 else random_model(**trained_on), tmp_path)
    base = {"random": {"config": trained_on}} if gpt2 else random_model()
    with pytest.raises(InputError, match="does not fit the base model.*" + fault) as caught:
        loaded(source(**base), {"model": str(tmp_path)})
    assert "the row's own" in caught.value.hint


def test_an_adapter_as_a_pickle_is_not_read(tmp_path: Path) -> None:
    adapted(random_model(), tmp_path)
    (tmp_path / "model" / "adapter_model.safetensors").rename(
        tmp_path / "model" / "adapter_model.bin"
    )
    with pytest.raises(InputError, match=r"lacks adapter_model\.safetensors"):
        loaded(source(**random_model()), {"model": str(tmp_path)})


def test_an_adapter_that_is_no_number_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapted(random_model(), tmp_path)
    path = tmp_path / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(InputError, match="cannot be added"):
        loaded(source(**random_model()), {"model": str(tmp_path)})


def test_an_adapter_named_as_the_base_model_is_told_apart(tmp_path: Path) -> None:
    adapted(random_model(), tmp_path)
    with pytest.raises(InputError, match="holds an adapter"):
        loaded(source(path=str(tmp_path / "model")))


OWN_CODE = """
from pathlib import Path
from transformers import Qwen2Config, Qwen2ForCausalLM
class Config(Qwen2Config):
    model_type = "own"
class Model(Qwen2ForCausalLM):
    config_class = Config
    said = "own code"
"""


def test_code_beside_the_weights_runs_where_the_row_trusts_it_and_only_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.syspath_prepend(tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {
        "AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(OWN_CODE)
    with pytest.raises(InputError, match="needs code of its own") as caught:
        loaded(source(path=str(folder)))
    assert "model.trust_remote_code: true" in caught.value.hint
    assert not (tmp_path / "hf").exists()
    model = loaded(source(path=str(folder), trust_remote_code=True))
    assert model.said == "own code"
    folder.rename(tmp_path / "model")
    trained = {"model": str(tmp_path)}
    assert loaded(source(**random_model(), trust_remote_code=True), trained).said == "own code"
    with pytest.raises(InputError, match="needs code of its own"):
        loaded(source(**random_model()), trained)


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["eos_token"]
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="names no end-of-sequence token"):
        load_tokenizer(source(path=str(folder)), {})


def test_a_hub_model_without_its_folder_is_refused() -> None:
    with pytest.raises(InputError, match="no folder that holds it"):
        load_tokenizer(source(hub={"id": "a/b", "revision": "0" * 40}), {})


def test_the_smoke_tokenizer_is_what_its_script_makes(tmp_path: Path) -> None:
    smoke = Path(__file__).parents[2] / "specs" / "smoke"
    shutil.copytree(smoke / "prompts", tmp_path / "prompts")
    runpy.run_path(str(smoke / "make_tokenizer.py"))["write"](tmp_path / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        made = json.loads((tmp_path / "tokenizer" / name).read_text())
        assert made == json.loads((smoke / "tokenizer" / name).read_text())


def test_the_model_settings_of_these_tests_are_known_to_the_architecture() -> None:
    assert loaded(source(random={"config": MODEL})).num_parameters() < 50_000


PEAK = """
import sys
from harness.modeling.load import load_model, load_tokenizer
from harness.spec.model_source import ModelSource

source = ModelSource.model_validate({"path": {"path": sys.argv[1]}})
tokenizer = load_tokenizer(source, {})

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

before = peak()
model = load_model(source, {}, tokenizer, "float32", sys.argv[2])
assert next(model.parameters()).device.type == sys.argv[2]
print(peak() - before)
"""


def mebibytes_to_load(folder: Path, device: str) -> int:
    """How much more memory a process of its own had at the peak."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), device],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_cpu_never_holds_the_weights_that_go_to_another_device(real_model: Path) -> None:
    """513 MiB in float32. The device `meta` stands for a GPU: what goes there leaves the CPU."""
    assert mebibytes_to_load(real_model, "meta") < 250
    assert mebibytes_to_load(real_model, "cpu") > 500


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_go_to_their_device_one_by_one_have_the_same_bits(
    real_model: Path, precision: str
) -> None:
    """What transformers computes itself, as the rotary embeddings' frequencies, included."""
    src = source(path={"path": str(real_model)})
    dtype = getattr(torch, precision)
    whole, one_by_one = (
        model_in(real_model, src, dtype, **settings)
        for settings in ({}, {"device_map": {"": "cpu"}})
    )
    for kind in ("named_parameters", "named_buffers"):
        ours = dict(getattr(one_by_one, kind)())
        assert ours
        for name, tensor in getattr(whole, kind)():
            assert torch.equal(tensor, ours[name])
            assert tensor.dtype == ours[name].dtype
    assert not hasattr(one_by_one, "hf_device_map")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_weights_have_the_bits_of_the_cpu_which_never_holds_them(
    real_model: Path, precision: str
) -> None:
    src = source(path={"path": str(real_model)})
    tokenizer = load_tokenizer(src, {})
    here, there = (load_model(src, {}, tokenizer, precision, d) for d in ("cpu", "cuda"))
    assert {str(p.device) for p in there.parameters()} == {"cuda:0"}
    for kind in ("named_parameters", "named_buffers"):
        ours = dict(getattr(there, kind)())
        for name, tensor in getattr(here, kind)():
            assert torch.equal(tensor, ours[name].cpu())
