"""What a model card says, as the hub shows it: from a train artefact's manifest, or from the same
facts while that is not written yet; and the picture of its losses."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.artefact import environment, gpus
from harness.artefact.call import MANIFEST, StageCall, StageResult
from harness.artefact.keys import flatten
from harness.common.plot_style import plot
from harness.common.progress import plain
from harness.modeling.chat_format import END, START
from harness.spec.model_source import ModelSource
from harness.spec.train import Train

CARD, CURVE = "README.md", "loss_curve.png"
# A palette that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, GREEN, ORANGE, RED = "#0072B2", "#009E73", "#E69F00", "#D55E00"
TITLE_WIDTH = 100
"""Characters of a line above the picture."""
HELD_OUT = "held_out_loss"
SIMULATED = "simulated: data from the harness's own simulated teacher, not from a model"
RANDOM = "random weights: training began with weights drawn at random, not with a trained model"
PACKAGES = (
    "torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes",
    "liger-kernel", "datasets", "safetensors",
)  # fmt: skip
FIGURES = {
    "train_loss": "loss at the end (nats per token)",
    "held_out_loss": "held-out loss (nats per token)",
    "bits_per_byte": "held-out loss (bits per byte)",
}

LogLine = Mapping[str, float | None]
Facts = Mapping[str, Any]
"""A train artefact's manifest, and where they are known:

title, table: of the row; data: the manifest of the data set's artefact; place: what from_pretrained
is given (`model`, the folder beside the card, if absent); revision: of that place on the hub.
"""


def text_of(facts: Facts) -> str:
    """The card. Text that came from data, models or specs is escaped."""
    sections: Sequence[tuple[str, Iterator[str]]] = (
        ("The row", _row(facts)),
        ("Base model", _base(facts)),
        ("Data", _data(facts)),
        ("Results", _results(facts)),
        ("Training", _training(facts)),
        ("Template", _template(facts)),
        ("Made with", _environment(facts)),
        ("Use", _use(facts)),
    )
    lines = ["---", _header(facts), "---", "", f"# {_title(facts)}"]
    for mark in marks(facts):
        lines += ["", f"> **{mark}**"]
    for title, section in sections:
        lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def marks(facts: Facts) -> list[str]:
    """In words, what of this model is not what a reader would take it for; empty where nothing is."""
    warnings = [SIMULATED] if facts["simulated"] else []
    return [*warnings, RANDOM] if facts["random_weights"] else warnings


def escaped(text: Any) -> str:
    """Text as markdown shows it literally, on one line."""
    flat = plain(" ".join(str(text).split()))
    flat = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _params(facts: Facts) -> Mapping[str, Any]:
    params: Mapping[str, Any] = facts["document"]["params"]
    return params


def _is_adapter(facts: Facts) -> bool:
    train = _params(facts)["train"]
    return train.get("method") in ("lora", "qlora") and not (train.get("lora") or {}).get("merge")


def _title(facts: Facts) -> str:
    if facts.get("title"):
        return escaped(facts["title"])
    train = _params(facts)["train"]
    return f"A model trained by {_how(train)}"


def _how(train: Mapping[str, Any]) -> str:
    method = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}.get(train["method"], "")
    return f"{method} {'ORPO' if train.get('objective') == 'orpo' else 'SFT'}"


def _header(facts: Facts) -> str:
    """The YAML that the hub reads. The keys under `harness` say whose upload it is."""
    train, hub = _params(facts)["train"], _params(facts)["model"].get("hub")
    tags = ["instruction-tuning", train.get("objective", "sft"), train["method"]]
    tags += ["simulated"] * bool(facts["simulated"])
    tags += ["random-weights"] * bool(facts["random_weights"])
    row = {"row": facts["row"]} if facts.get("row") else {}
    header = {
        "library_name": "peft" if _is_adapter(facts) else "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
        "harness": {"key": facts["key"], **row},
    }
    if hub:
        relation = "adapter" if _is_adapter(facts) else "finetune"
        header |= {"base_model": hub["id"], "base_model_relation": relation}
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=False).rstrip("\n")


def _row(facts: Facts) -> Iterator[str]:
    if facts.get("row"):
        label = f" ({escaped(facts['label'])})" if facts.get("label") else ""
        table = f", of the table {escaped(facts['table'])}" if facts.get("table") else ""
        yield f"- row: {escaped(facts['row'])}{label}{table}"
    yield f"- key of this artefact: `train/{facts['key']}`"
    for name, source in sorted(facts["inputs"].items()):
        yield f"- key of its {escaped(name)}: `{source['stage']}/{source['key']}`"
    yield "- a key is a sha256 over everything that decided an artefact's content"


def _base(facts: Facts) -> Iterator[str]:
    model = _params(facts)["model"]
    if model.get("hub"):
        yield f"- {escaped(model['hub']['id'])}, revision `{model['hub']['revision']}`"
    elif model.get("random"):
        config = model["random"]["config"]
        yield f"- random weights, seed {model['random']['seed']}, of the configuration:"
        yield from ("", *_block(config))
    else:
        yield f"- a given folder{_digest(model['path'])}"
    if model.get("trust_remote_code"):
        yield "- the code that comes with it was run (trust_remote_code)"
    if model.get("chat_format"):
        yield (
            f"- ChatML's marks {escaped(START)} and {escaped(END)} are tokens of the vocabulary, and "
            "begin, end and pad texts (as by TRL's setup\\_chat\\_format)"
        )
    if "parameters" in facts["used"]:
        yield f"- {facts['used']['parameters']:,} parameters"


def _digest(source: Mapping[str, Any]) -> str:
    """Of a given file: its name, without the folders of the machine it was on, and its sha256."""
    name = str(source.get("path") or "").rstrip("/").rpartition("/")[2]
    digest = f", sha256 `{source['sha256']}`" if source.get("sha256") else ""
    return (f" {escaped(name)}" if name else "") + digest


def _data(facts: Facts) -> Iterator[str]:
    manifest, source = facts.get("data"), _params(facts).get("data")
    if manifest is not None:
        gen = manifest["document"]["params"]["gen"]
        teacher = gen.get("teacher") or gen.get("judge") or {}
        model = f" with {escaped(teacher['model'])}" if teacher.get("model") else ""
        yield f"- made by the recipe {escaped(gen['recipe'])}{model}"
        if manifest["simulated"]:
            yield f"- **{SIMULATED}**"
    elif source:
        yield f"- a given file{_digest(source)}"
    for name, count in facts["counts"].items():
        if name not in ("steps", "tokens", "prompt_tokens"):
            yield f"- {escaped(name.replace('_', ' '))}: {count:,}"


def _results(facts: Facts) -> Iterator[str]:
    figures = dict(FIGURES)
    if _params(facts)["train"].get("objective") == "orpo":
        figures["train_loss"] = "ORPO's objective at the end (nats)"
    rows = [(figures.get(n, escaped(n.replace("_", " "))), f"{m['value']:.4f}")
            for n, m in facts["metrics"].items() if "value" in m]  # fmt: skip
    counts = {"steps": "optimizer steps", "tokens": "tokens in the loss", "prompt_tokens":
              "tokens beside them (prompts)"}  # fmt: skip
    rows += [(words, f"{facts['counts'][n]:,}") for n, words in counts.items()
             if n in facts["counts"]]  # fmt: skip
    yield from _table(rows)
    yield from ("", "![loss against steps](loss_curve.png)")
    for note in facts["notes"]:
        yield f"\n{escaped(note)}"


def _training(facts: Facts) -> Iterator[str]:
    train = flatten(_params(facts)["train"])
    yield f"{_how(_params(facts)['train'])}, with:"
    yield ""
    yield from _table(
        [(f"`{n}`", escaped(json.dumps(v))) for n, v in train.items() if v is not None]
    )


def _template(facts: Facts) -> Iterator[str]:
    """Its fields as a spec gives them; of text files the text, not where they stood."""
    fields = {name: value["text"] if isinstance(value, Mapping) and "text" in value else value
              for name, value in _params(facts)["template"].items()}  # fmt: skip
    prompt = fields.pop("prompt", None)
    if isinstance(prompt, str):
        prompt = prompt.removesuffix("\n")
    rest = {name: value for name, value in fields.items() if value not in (None, [], {}, "")}
    yield "What the model is asked with, and what ends its answer, as a row's spec says it:"
    yield ""
    yield from _block(prompt) if prompt is not None else ()
    yield from _block(rest) if rest else ()


def _environment(facts: Facts) -> Iterator[str]:
    used = facts["used"]
    here = used.get("environment") or {}
    packages = here.get("packages", {})
    rows = [("Python", here.get("python")), ("device", used.get("device"))]
    rows += [("processor", here.get("processor")), ("CPUs", here.get("cpus"))]
    rows += [("GPU", gpus.words(gpu)) for gpu in here.get("gpus", [])]
    rows += [("image", (here.get("image") or {}).get("image"))]
    rows += [(name, packages.get(name)) for name in PACKAGES]
    seeds = ", ".join(f"{name} {seed}" for name, seed in facts["seeds"].items())
    yield from _table([(n, escaped(v)) for n, v in [*rows, ("seeds", seeds)] if v])


def _use(facts: Facts) -> Iterator[str]:
    """With the template as chat_template.jinja, and the end tokens of generation_config.json."""
    model = _params(facts)["model"]
    place, revision = facts.get("place", "model"), facts.get("revision")
    at = repr(place) + (f", revision={revision!r}" if revision else "")
    own_bytes = (model.get("random") or {}).get("tokenizer") == "bytes"
    tokenizer = "PreTrainedTokenizerFast" if own_bytes else "AutoTokenizer"
    stop = facts["used"].get("stop_texts")
    names = ["AutoModelForCausalLM", tokenizer]
    names += ["GenerationConfig"] if _is_adapter(facts) else []
    code = [f"from transformers import {', '.join(sorted(names))}", ""]
    code += [f"tokenizer = {tokenizer}.from_pretrained({at})"]
    if _is_adapter(facts):
        hub = model.get("hub")
        base = f"{hub['id']!r}, revision={hub['revision']!r}" if hub else "'PATH OF THE BASE MODEL'"
        code[0:1] = ["from peft import PeftModel", code[0]]
        quantization = _params(facts)["train"].get("quantization")
        if quantization:
            code[1] = code[1].replace(f", {tokenizer}", f", {tokenizer}, BitsAndBytesConfig")
            code += [
                "# The base as the adapter was trained on it; unquantised it is another model."
            ]
            code += ["in_4_bits = BitsAndBytesConfig("]
            code += [f"    load_in_4bit=True, bnb_4bit_quant_type={quantization['type']!r},"]
            code += [f"    bnb_4bit_use_double_quant={quantization['double']!r},", ")"]
            base += ", quantization_config=in_4_bits"
        code += [f"base = AutoModelForCausalLM.from_pretrained({base})"]
        if model.get("chat_format"):
            code += ["# The adapter brings the embeddings of the tokens that were added."]
            code += ["base.resize_token_embeddings(len(tokenizer))"]
        code += [f"base.generation_config = GenerationConfig.from_pretrained({at})"]
        code += [f"model = PeftModel.from_pretrained(base, {at})"]
    else:
        code += [f"model = AutoModelForCausalLM.from_pretrained({at})"]
    code += ["messages = [{'role': 'user', 'content': '...'}]"]
    code += ["given = tokenizer.apply_chat_template("]
    code += ["    messages, add_generation_prompt=True, return_tensors='pt', return_dict=True"]
    code += [")"]
    ends = f", stop_strings={stop!r}, tokenizer=tokenizer" if stop else ""
    code += [f"made = model.generate(**given, max_new_tokens=256{ends})"]
    code += ["made = made[0, given['input_ids'].shape[1]:]"]
    code += ["text = tokenizer.decode(made, skip_special_tokens=True)"]
    code += [f"for stop in {stop!r}:", "    text = text.partition(stop)[0]"] if stop else []
    code += ["print(text)"]
    yield from _block("\n".join(code), "python")


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from ("| | |", "| --- | --- |")
    yield from (f"| {name} | {value} |" for name, value in rows)


def _block(value: Any, language: str = "") -> Iterator[str]:
    """A fenced block that its own text cannot end."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (fence + language, plain(text), fence)


def facts_of(call: StageCall, result: StageResult) -> Facts:
    """What the card is written from: the manifest's fields, as far as the stage knows them."""
    inputs: dict[str, Facts] = {}
    for name, folder in call.inputs.items():
        path = Path(folder) / MANIFEST
        if path.is_file():
            inputs[name] = json.loads(path.read_text(encoding="utf-8"))
    data = inputs.get("data")
    source = ModelSource.model_validate(call.params["model"])
    train = Train.model_validate(call.params["train"])
    filled = {"train": train.model_dump(mode="json"), "model": source.model_dump(mode="json")}
    return {
        "key": call.key,
        "document": {"params": {**call.params, **filled}},
        "inputs": {n: {"stage": m["stage"], "key": m["key"]} for n, m in inputs.items()},
        "data": data,
        "used": {**result.used, "environment": environment.describe_here(call.gpus)},
        "seeds": result.seeds,
        "metrics": {name: metric.to_json() for name, metric in result.metrics.items()},
        "counts": result.counts,
        "simulated": sorted({*result.simulated, *(data["simulated"] if data else [])}),
        "random_weights": source.random is not None,
        "notes": result.notes,
    }


def write_card(folder: Path, facts: Facts) -> None:
    """Write README.md, the model card (Facts says which facts there can be)."""
    (folder / CARD).write_text(text_of(facts), encoding="utf-8")


def plot_losses(log: Path, picture: Path, mark: str = "") -> None:
    """Draw the loss, its parts and the held-out loss against optimizer steps, from trainer_log.jsonl.

    The same log gives the same bytes. `mark` stands above, where the data or the weights are not
    what a reader would take them for.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    panels = _panels(lines)
    with plot(picture) as figure:
        figure.set_size_inches(7.5, 1.2 + 2.4 * len(panels))
        drawn = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (axis, names) in zip(drawn, panels.items(), strict=True):
            for name, colour in zip(names, (BLUE, ORANGE, GREEN, RED), strict=False):
                _draw(axes, lines, name, colour)
            axes.set_ylabel(axis)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False)
        drawn[-1].set_xlabel("optimizer steps")
        if mark:
            figure.suptitle(textwrap.fill(plain(mark), TITLE_WIDTH), color=RED, fontsize=9)


def _panels(lines: Sequence[LogLine]) -> dict[str, list[str]]:
    """Each panel's axis, and the log's fields that it shows: the loss, and the parts of ORPO's."""
    fields = dict.fromkeys(name for line in lines for name in line if line[name] is not None)
    rewards = [n for n in fields if n.startswith("rewards") and "accurac" not in n]
    panels: dict[str, list[str]] = {
        "loss (nats)" if "nll_loss" in fields else "loss (nats per token)": [
            n for n in ("loss", "nll_loss", HELD_OUT) if n in fields
        ],
        "log odds": [n for n in ("log_odds_chosen", "log_odds_ratio") if n in fields],
        "rewards": rewards,
    }
    return {axis: names for axis, names in panels.items() if names}


def _draw(axes: Any, lines: Sequence[LogLine], name: str, colour: str) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = zip(*points, strict=True)
    label = f"{name.replace('_', ' ').replace('/', ' ')}: {values[-1]:.4g} at the end"
    # Single points, and those that stand apart, would not show as a line.
    marker = "o" if name == HELD_OUT else "." if len(points) == 1 else ""
    axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker, markersize=4, label=label)
