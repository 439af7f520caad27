"""Models and their tokenizers, from where the row says: random weights, a folder, the hub's folder.

What the train stage left takes their place: a whole model, or an adapter that is put on the row's own.
"""

import contextlib
import difflib
import json
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artefact import environment, events, gpus
from harness.common.device_faults import memory_for, pass_on
from harness.common.json_files import read_object
from harness.errors import HarnessError, InputError
from harness.modeling import chat_format
from harness.modeling.generation import (
    BASE_CHAT_TEMPLATE,
    CONFIG,
    end_tokens_in,
    read_settings,
    token_set,
)
from harness.modeling.memory import shapes
from harness.modeling.memory.shapes import MOST_HEADER_BYTES
from harness.spec.model_source import ModelSource, RandomModel
from harness.spec.train import Quantization

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

QUANTISED = "Linear4bit"
"""The class of bitsandbytes' layers in 4 bits."""
TRAINED = "model"
"""Of the call's inputs, the train artefact; and in that, the folder of its model."""
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LFS_BEGIN = b"version "
"""How a pointer of Git LFS begins, which stands in place of a large file that was not fetched."""
NAME_A_TEMPLATE = (
    "Name a template in the spec, or write one (template.prompt, with end and special)."
)
CHAT_TEMPLATES = (
    "chat_template.jinja",
    "additional_chat_templates",
    "chat_template.json",
)
"""Where a folder may have one beside tokenizer_config.json."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")

GENERAL_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")

PAD, END = "<pad>", "<eos>"

_ARCHITECTURE = re.compile(r"sm_(\d+)")

_ADAPTER_HINT = "An adapter goes with the base model that it was trained on: the row's own."
_OLDER_NAMES = {"torch_dtype", "rope_theta", "rope_scaling"}
"""Keys of older config.json files that transformers still understands under another name."""


def load_tokenizer(source: ModelSource, inputs: dict[str, str]) -> "PreTrainedTokenizerBase":
    """The tokenizer of the trained model where there is one (`inputs["model"]`), else the source's.

    Raises InputError where it is absent, unreadable or without an end.
    """
    tokenizer = _stored_tokenizer(source, inputs)
    if source.chat_format is not None:
        chat_format.add_marks(tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer in {tokenizer.name_or_path} names no end-of-sequence token",
            "Set eos_token in its tokenizer_config.json.",
        )
    return tokenizer


def _stored_tokenizer(source: ModelSource, inputs: dict[str, str]) -> "PreTrainedTokenizerBase":
    trained = trained_folder(inputs)
    if trained is not None:
        folder = trained
    elif source.random is not None:
        if source.random.tokenizer == "bytes":
            return bytes_tokenizer()
        folder = Path(source.random.tokenizer.path)
    else:
        folder = model_folder(source, inputs)
    _check_files(folder, weights=False)
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # AutoTokenizer prefers the model type's own class, even to a tokenizer.json of the general
    # one: a byte tokenizer beside a Qwen2 model would gain a token and another way of splitting.
    loader = PreTrainedTokenizerFast if is_general(folder) else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(
            folder, local_files_only=True, trust_remote_code=source.trust_remote_code
        )
    except Exception as e:
        raise _unloadable("tokenizer", folder, source, e) from e
    if trained is not None and (trained / BASE_CHAT_TEMPLATE).is_file():
        text = (trained / BASE_CHAT_TEMPLATE).read_text(encoding="utf-8")
        tokenizer.chat_template = text or None
    return tokenizer


def load_model(
    source: ModelSource,
    inputs: dict[str, str],
    tokenizer: "PreTrainedTokenizerBase",
    precision: str,
    device: str,
    quantization: Quantization | None = None,
) -> "PreTrainedModel":
    """The model in evaluation mode, its weights in `precision` (`float32` or `bfloat16`).

    Where `inputs["model"]` names a train artefact, its whole model takes the source's place, and its
    adapter is added to the weights of the source's model; with `quantization` it stands beside the
    weights, which are quantised as QLoRA's training had them.

    Random weights are drawn in float32 on the CPU, so that they are the same whatever runs them.
    Those of a folder go to the device one by one: the CPU never holds them all.
    Folders are read as safetensors only, and no code in them is run unless the source trusts it.
    Raises InputError for files that are missing or do not fit and for a configuration that makes no
    causal language model.
    """
    import torch

    dtype = getattr(torch, precision)
    trained = trained_folder(inputs)
    placed = {} if device == "cpu" else {"device_map": _placed(device)}
    if quantization is not None and trained is not None and is_adapter(trained):
        base = quantised_model(source, inputs, tokenizer, quantization, precision, device)
        set_evaluating(model := _with_adapter(base, trained, merge=False))
        return _with_ends(model, trained)
    if trained is not None and not is_adapter(trained):
        model = model_in(trained, source, dtype, **placed)
    elif source.random is not None:
        model = _cast(_random_model(source.random, tokenizer), dtype)
    else:
        model = model_in(model_folder(source, inputs), source, dtype, **placed)
    _fit_vocabulary(model, source, tokenizer)
    model.to(device)
    if trained is not None and is_adapter(trained):
        model = _with_ends(_with_adapter(model, trained), trained)
    return model.eval()


def _cast(model: "PreTrainedModel", dtype: Any) -> "PreTrainedModel":
    """In a precision as a folder's weights are read in it: what is computed and not stored, such as the
    frequencies of rotary positions, stays as exact as it was."""
    computed = [
        (module, name, module._buffers[name])
        for module in model.modules()
        for name in module._non_persistent_buffers_set
    ]
    model.to(dtype)
    for module, name, table in computed:
        module._buffers[name] = table
    return model


def _with_ends(model: "PreTrainedModel", trained: Path) -> "PreTrainedModel":
    """The base with the ends that its adapter's folder names, beside its own."""
    ends = token_set(model.generation_config.eos_token_id) | end_tokens_in(trained)
    model.generation_config.eos_token_id = sorted(ends)
    return model


def quantised_model(
    source: ModelSource,
    inputs: dict[str, str],
    tokenizer: "PreTrainedTokenizerBase",
    quantization: Quantization,
    precision: str,
    device: str,
) -> "PreTrainedModel":
    """The source's own model, its linear layers in 4 bits by bitsandbytes; `precision` is that of the
    arithmetic and of all other weights. Raises InputError as load_model, and where no layer is."""
    import tempfile

    import torch
    from transformers import BitsAndBytesConfig

    dtype = getattr(torch, precision)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=dtype,
    )
    with tempfile.TemporaryDirectory() as scratch:
        if source.random is not None:
            _random_model(source.random, tokenizer).save_pretrained(scratch)
            folder = Path(scratch)
        else:
            folder = model_folder(source, inputs)
        placed = _placed(device)
        model = model_in(folder, source, dtype, quantization_config=settings, device_map=placed)
    _fit_vocabulary(model, source, tokenizer)
    if not any(type(m).__name__ == QUANTISED for m in model.modules()):
        raise InputError(
            "no layer of this model can be quantised by bitsandbytes", "Take method: lora."
        )
    return model


def _placed(device: str) -> dict[str, int | str]:
    """For transformers: where each weight goes as it is read.

    A GPU by its number: transformers' Trainer takes another name of the same for another device.
    """
    import torch

    return {"": torch.cuda.current_device() if device == "cuda" else device}


def shape_of(source: ModelSource, inputs: dict[str, str], tokens: int) -> shapes.Shape | None:
    """Of the source's own model, without loading it; `tokens`: of its tokenizer."""
    if source.random is not None:
        return shapes.from_config({"vocab_size": tokens, **source.random.config})
    return shapes.from_folder(model_folder(source, inputs))


@contextlib.contextmanager
def memory_for_loading(
    source: ModelSource,
    inputs: dict[str, str],
    tokenizer: "PreTrainedTokenizerBase",
    precision: str,
) -> Iterator[None]:
    """Raises OutOfMemory, with what the weights need, where memory runs out in the block."""
    from harness.common.numbers import byte_size

    def hint(on_cpu: bool) -> str:
        shape = shape_of(source, inputs, len(tokenizer))
        size = 2 if precision == "bfloat16" else 4
        needed = (
            f"Its weights take {byte_size(size * shape.parameters)} in {precision}. "
            if shape
            else ""
        )
        less = "precision: bfloat16 takes half, for another result; or " if size == 4 else ""
        if on_cpu:
            return f"{needed}Take {less}more memory for the stage (limits.memory)."
        return f"{needed}Take {less}a GPU with more memory free, or a smaller model."

    with memory_for("loading the model", hint):
        yield


def set_evaluating(model: Any) -> None:
    """Like model.eval(), but for layers in 4 bits: on a CPU bitsandbytes then lays their weights out
    for inference, and does not take them back for training."""
    for module in model.modules():
        module.training = type(module).__name__ == QUANTISED


def trained_folder(inputs: dict[str, str]) -> Path | None:
    """The folder of the model, or adapter, that the row's train stage made."""
    return Path(inputs[TRAINED]) / TRAINED if TRAINED in inputs else None


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, and not a whole model."""
    return (folder / ADAPTER).is_file()


def available_device() -> str:
    """`cuda` or `cpu`. On a GPU float32 is whole then, until a training asks for TF32.

    Raises:
        HarnessError: it is to be a GPU (harness.artefact.environment.accelerator), and torch cannot
            use one: nothing runs on the CPU in its place unless that is asked for.
    """
    import torch

    if os.environ.get("HARNESS_ACCELERATOR") == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        _check_card()
        set_tf32(False)
        return "cuda"
    if environment.accelerator() == "cuda":
        raise _unusable()
    return "cpu"


def set_tf32(on: bool) -> None:
    """For products and for convolutions. PyTorch's own choice is TF32 for convolutions alone."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def _unusable() -> HarnessError:
    """Why torch cannot use the GPU that is to be used, as far as that can be known."""
    import torch

    cuda = torch.version.cuda
    if cuda is None:
        return HarnessError(
            f"this is to run on a GPU, and torch {torch.__version__} is a build for the CPU",
            f"{gpus.INSTALL_CUDA}. Or: {gpus.CPU_INSTEAD}.",
        )
    here = gpus.visible()
    reasons = [why for gpu in here if (why := gpus.cannot(gpu))] if cuda.startswith("13.") else []
    if not here:
        setting = os.environ.get(gpus.VISIBLE)
        reasons = ["none was passed in" if setting is None else f"{gpus.VISIBLE} is {setting!r}"]
    try:
        torch.cuda.init()
        fault = "it does not say why"
    except (RuntimeError, AssertionError) as e:
        fault = _brief(e)
    return HarnessError(
        f"this is to run on a GPU, and torch {torch.__version__} with CUDA {cuda} cannot use one: "
        f"{reasons[0] if reasons else fault}",
        f"torch says: {fault}\nCUDA 13 needs driver {gpus.DRIVER} or newer (nvidia-smi shows what is "
        "there); a container has the GPUs that are passed in (compose.cuda.yaml, docker run --gpus). "
        f"`harness doctor` shows what is there. {environment.cpu_instead()}.",
    )


def _check_card() -> None:
    """Raises HarnessError for a card that is older than every one that torch was built for."""
    import torch

    built = [int(n[1]) for n in map(_ARCHITECTURE.match, torch.cuda.get_arch_list()) if n]
    capability = torch.cuda.get_device_capability()
    if built and 10 * capability[0] + capability[1] < min(built):
        raise HarnessError(
            f"{device_name('cuda')} is {gpus.sm(capability)}, and torch {torch.__version__} with CUDA "
            f"{torch.version.cuda} is built for sm_{min(built)} and newer",
            f"Take a newer card ({gpus.VISIBLE} chooses among several). {environment.cpu_instead()}.",
        )


def precision_notes(device: str, precision: str) -> list[str]:
    """What the manifest says of a card that has no arithmetic of its own in this precision."""
    import torch

    if device != "cuda" or precision != "bfloat16":
        return []
    capability = torch.cuda.get_device_capability()
    if capability >= gpus.BFLOAT16:
        return []
    note = gpus.emulation(device_name(device), capability)
    events.note(note)
    return [note]


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(0) if device == "cuda" else "cpu"


def most_positions(model: "PreTrainedModel") -> int | None:
    """The longest text, in tokens, that the model was made for; None where it names no limit."""
    return most_positions_of(model.config)


def most_positions_of(config: "PretrainedConfig") -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def bytes_tokenizer() -> "PreTrainedTokenizerBase":
    """256 tokens of one byte each, then `<pad>` and `<eos>`: any text, no file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


def _random_model(source: RandomModel, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(source.config, tokenizer)
    torch.manual_seed(source.seed)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as e:
        pass_on(e)
        raise InputError(f"model.random.config makes no causal language model: {_brief(e)}") from e


def _config(
    settings: Mapping[str, object], tokenizer: "PreTrainedTokenizerBase"
) -> "PretrainedConfig":
    """The configuration, with the vocabulary's size and the special tokens of this tokenizer."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = settings.get("model_type")
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING.keys()), n=1)
        raise InputError(
            f"model.random.config: model_type is {kind!r}, which transformers does not know",
            f"Did you mean {near[0]}?" if near else "For example model_type: qwen2.",
        )
    defaults = AutoConfig.for_model(kind)
    # transformers takes any key in silence: with one misspelt, a tiny model would be a huge one.
    for key in settings:
        if not hasattr(defaults, key) and key not in _OLDER_NAMES:
            near = difflib.get_close_matches(key, list(defaults.to_dict()), n=1)
            raise InputError(
                f"model.random.config: {kind} has no setting {key!r}",
                f"Did you mean {near[0]}?" if near else "",
            )
    fitted = {
        "vocab_size": len(tokenizer),
        **settings,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if isinstance(fitted["vocab_size"], int):
        check_vocabulary(len(tokenizer), fitted["vocab_size"])
    try:
        return AutoConfig.for_model(**fitted)
    except Exception as e:
        raise InputError(f"model.random.config is not a {kind} configuration: {_brief(e)}") from e


def _fit_vocabulary(
    model: "PreTrainedModel", source: ModelSource, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """The embeddings of a chat format's tokens; else raises InputError where there are too few rows."""
    if source.chat_format is not None:
        chat_format.fit_embeddings(model, tokenizer)
    check_vocabulary(len(tokenizer), model.get_input_embeddings().num_embeddings)


def check_vocabulary(tokens: int, rows: int) -> None:
    if tokens > rows:
        raise InputError(
            f"the tokenizer has {tokens} tokens, the model only {rows}",
            "Give the model's own tokenizer, or a larger vocab_size.",
        )


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Putting an adapter on a model: peft asks transformers for an attribute by its older name, which
    warns of it at every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def _with_adapter(model: "PreTrainedModel", folder: Path, merge: bool = True) -> "PreTrainedModel":
    """The model with the folder's LoRA adapter added to its weights, or beside them.

    The base model is the one given: whatever the adapter's configuration says of it is not read.
    """
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder} lacks {ADAPTER_WEIGHTS}", "Only safetensors are read.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.base_model_name_or_path = None
        config.inference_mode = True
        weights = load_file(folder / ADAPTER_WEIGHTS, device=str(model.device))
        with quiet_peft():
            adapted = PeftModel(model, config)
        loaded: Any = set_peft_model_state_dict(adapted, weights)
    except Exception as e:
        pass_on(e)
        raise InputError(
            f"the adapter in {folder} does not fit the base model: {_brief(e)}", _ADAPTER_HINT
        ) from e
    prefix = adapted.base_model.prefix
    wrong = [f"it lacks {name}" for name in sorted(loaded.missing_keys) if prefix in name]
    wrong += [f"it holds {name}" for name in sorted(loaded.unexpected_keys)]
    if wrong:
        raise InputError(
            f"the adapter in {folder} does not fit the base model: {wrong[0]}", _ADAPTER_HINT
        )
    if not merge:
        beside: PreTrainedModel = adapted.get_base_model()
        return beside
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as e:
        raise InputError(f"the adapter in {folder} cannot be added: {_brief(e)}") from e


def model_in(folder: Path, source: ModelSource, dtype: Any, **settings: Any) -> "PreTrainedModel":
    """The whole model in a folder; settings go to transformers (quantization_config, device_map).

    Raises InputError for a folder whose files are missing, broken, or lack tensors.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_files(folder, weights=True)
    proposed = read_settings(folder)
    if proposed.dropped:
        settings["generation_config"] = GenerationConfig.from_dict(dict(proposed.fields))
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            **settings,
        )
    except Exception as e:
        for text in _conversion_faults(e):
            pass_on(RuntimeError(text))
        raise _unloadable("model", folder, source, e) from e
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise InputError(
            f"the weights in {folder} lack {len(missing)} of the tensors that its {CONFIG} asks "
            f"for, {missing[0]} among them"
        )
    return model


def _conversion_faults(error: Exception) -> list[str]:
    """What was raised while weights were converted, or quantised: transformers goes on, and says at
    the end only that there were faults, which stand in its log."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    infos = [frame.f_locals.get("loading_info") for frame in frames]
    return [text for info in infos for text in getattr(info, "conversion_errors", {}).values()]


def model_folder(source: ModelSource, inputs: dict[str, str]) -> Path:
    if source.path is not None:
        return Path(source.path.path)
    if "hub" not in inputs:
        raise InputError("the call names a hub model but no folder that holds it (inputs.hub)")
    return Path(inputs["hub"])


def check_model(folder: Path) -> None:
    """Raises InputError where a folder lacks the files of a model or of its tokenizer, and where its
    weights are not whole, as far as their beginnings say."""
    _check_files(folder, weights=True)
    _check_files(folder, weights=False)
    weights, index = (folder / name for name in WEIGHTS)
    for path in [weights] if weights.is_file() else _shards(index):
        try:
            fault = _weights_fault(path)
        except OSError as e:
            fault = e.strerror or str(e)
        if fault:
            raise InputError(f"{path} cannot be read: {fault}", "Download the file again.")


def check_chat_template(folder: Path) -> None:
    """Raises InputError where a folder has no chat template in any of the places that transformers
    reads one from."""
    if any((folder / name).exists() for name in CHAT_TEMPLATES):
        return
    settings = read_object(folder / "tokenizer_config.json")
    if settings is not None and not settings.get("chat_template"):
        raise InputError(f"the tokenizer in {folder} brings no chat template", NAME_A_TEMPLATE)


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(
            f"{index} cannot be read: {_brief(e)}", "Download the file again."
        ) from None


def _weights_fault(path: Path) -> str:
    """What is wrong with the header of a safetensors file, or with its length; empty if nothing is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        if begin == LFS_BEGIN:
            return "it is a pointer of Git LFS, in place of the weights (git lfs pull fetches them)"
        length = int.from_bytes(begin, "little")
        if len(begin) < 8 or not 0 < length <= min(MOST_HEADER_BYTES, size - 8):
            return "it is no safetensors file, or was cut"
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "its header is no safetensors header"
    expected = 8 + length + max(ends, default=0)
    return f"it has {size:,} bytes of {expected:,}" if size < expected else ""


def _check_files(folder: Path, weights: bool) -> None:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    required = [(CONFIG,), WEIGHTS] if weights else [TOKENIZERS]
    lacking = [names for names in required if not any((folder / name).is_file() for name in names)]
    if not lacking:
        return
    hint = "It must hold config.json, weights as safetensors, and a tokenizer."
    if is_adapter(folder):
        hint = f"It holds an adapter ({ADAPTER}), and a base model is wanted. " + hint
    if list(folder.glob("pytorch_model*.bin")):
        hint += " Weights in pytorch_model.bin are pickles, which can run code: convert them."
    raise InputError(f"{folder} lacks {', '.join(' or '.join(names) for names in lacking)}", hint)


def is_general(folder: Path) -> bool:
    """Whether tokenizer.json says all there is to say about a folder's tokenizer."""
    return _tokenizer_class(folder) in GENERAL_TOKENIZERS


def _tokenizer_class(folder: Path) -> str | None:
    """The class that a folder with a whole tokenizer.json names."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file() or not (folder / "tokenizer.json").is_file():
        return None
    try:
        name: str | None = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
    except (ValueError, OSError, AttributeError, RecursionError) as e:
        raise InputError(f"{settings} cannot be read: {e}") from e
    return name


def _unloadable(what: str, folder: Path, source: ModelSource, error: Exception) -> InputError:
    """The fault, and where the folder brings code that was not run, how to have it run. Raises `error`
    again where it says nothing of the folder (see pass_on)."""
    pass_on(error)
    if source.trust_remote_code or not _brings_code(folder):
        return InputError(f"the {what} in {folder} cannot be loaded: {_brief(error)}")
    return InputError(
        f"the {what} in {folder} needs code of its own (auto_map), which is not run",
        "Read that code; if you trust it, set model.trust_remote_code: true. It shows as a deviation.",
    )


def _brings_code(folder: Path) -> bool:
    settings = (read_object(folder / name) for name in (CONFIG, "tokenizer_config.json"))
    return any("auto_map" in of for of in settings if of is not None)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
