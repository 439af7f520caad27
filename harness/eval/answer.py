"""The `answer` stage: a model's outputs for a set of prompts, in alpaca_eval's format.

Prompts are answered in batches of like length, padded on the left. Greedy outputs do not depend on
the batches but for the last bits of float sums. Sampling is seeded for each batch, so that an
interrupted run goes on to the same outputs.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import events
from harness.call import StageCall, StageResult
from harness.errors import InputError
from harness.modeling import text
from harness.modeling.load import (
    available_device,
    device_name,
    load_model,
    load_tokenizer,
    most_positions,
    trained_folder,
)
from harness.modeling.records import read_records, text_field
from harness.spec.models import Answer, Decoding, ModelSource, PromptSet
from harness.spec.template import Template

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

OUTPUTS = "model_outputs.json"
DONE = "outputs.jsonl"
GENERATOR = "model"
"""The name in the outputs; the same everywhere, so that the file depends on the outputs alone."""


@dataclass(frozen=True)
class Prompt:
    instruction: str
    input: str
    dataset: str | None


@dataclass(frozen=True)
class Output:
    """`index` is the prompt's place in the set; `tokens` those made, without the end token."""

    index: int
    output: str
    finish_reason: str
    """`stop` (the end token or a stop text) or `length` (cut at the limit)."""
    tokens: int


def run(call: StageCall) -> StageResult:
    """Answer every prompt, or those that an interrupted run of the same call left.

    Raises InputError for a prompt set, a template or a model that cannot be used as it stands.
    """
    params = Answer.model_validate(call.params["answer"])
    source = ModelSource.model_validate(call.params["model"])
    prompts = read_prompts(params.prompts)

    import torch

    if params.threads is not None:
        torch.set_num_threads(params.threads)
    device = available_device()
    tokenizer = load_tokenizer(source, call.inputs)
    encoded = _encode(prompts, params.template, tokenizer)
    model = load_model(source, call.inputs, tokenizer, params.precision, device)
    _check_lengths(prompts, encoded, most_positions(model))

    started = time.monotonic()
    outputs, made = _answer_all(call.folder / DONE, model, tokenizer, encoded, params)
    seconds = time.monotonic() - started
    _write(call.folder / OUTPUTS, prompts, outputs)

    used = {
        "parameters": model.num_parameters(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "tokens_per_second": round(made / max(seconds, 1e-9), 1),
    }
    notes, seeds = [], {}
    if params.decoding.temperature > 0:
        seeds["sampling"] = params.decoding.seed
    if source.random is not None and trained_folder(call.inputs) is None:
        used["base_model"] = "random"
        seeds["model"] = source.random.seed
        notes.append("the model had random weights and no training")
    return StageResult(
        keep=[OUTPUTS],
        counts=_counts(outputs),
        used=used,
        seeds=seeds,
        cost={"gpu_seconds": round(seconds, 3) if device == "cuda" else 0.0},
        notes=notes,
    )


def read_prompts(prompt_set: PromptSet) -> list[Prompt]:
    """Raises InputError for an instruction that is missing, empty, or there twice."""
    path = Path(prompt_set.file.path)
    seen: dict[tuple[str, str], int] = {}
    prompts = []
    for index, record in enumerate(read_records(path)[: prompt_set.first]):
        instruction = text_field(path, record, "instruction")
        given = text_field(path, record, "input", default="")
        where = f"{path}:{record.line}: prompt {index}"
        if not instruction.strip():
            raise InputError(f"{where} has an empty instruction")
        first = seen.setdefault((instruction, given), index)
        if first != index:
            raise InputError(
                f"{where} is the same as prompt {first}",
                "Outputs are matched with judgements by their instruction: give each only once.",
            )
        dataset = record.fields.get("dataset")
        prompts.append(Prompt(instruction, given, None if dataset is None else str(dataset)))
    return prompts


def _encode(
    prompts: list[Prompt], template: Template | None, tokenizer: "PreTrainedTokenizerBase"
) -> "Encoded":
    if template is None:
        raise InputError("the answer stage was given no template")
    encoder = text.Encoder(tokenizer, template)
    ids = [encoder.prompt(prompt.instruction, prompt.input) for prompt in prompts]
    return Encoded(ids, encoder.end_ids, encoder.stop)


@dataclass(frozen=True)
class Encoded:
    ids: list[list[int]]
    """One list of tokens a prompt."""
    ends: list[int]
    """The tokens that end an answer in the template."""
    stop: list[str]


def _check_lengths(prompts: list[Prompt], encoded: Encoded, limit: int | None) -> None:
    for index, ids in enumerate(encoded.ids):
        if not ids:
            raise InputError(f"prompt {index} has no tokens")
        if limit is not None and len(ids) >= limit:
            raise InputError(
                f"prompt {index} has {len(ids)} tokens, the model takes {limit} with the answer: "
                f"{prompts[index].instruction[:60]!r}",
                "Leave the prompt out, or take a model for longer texts.",
            )


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of like length, the longest first: what does not fit shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[at : at + size] for at in range(0, len(order), size)]


def _answer_all(
    done_file: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    encoded: Encoded,
    params: Answer,
) -> tuple[list[Output], int]:
    """The outputs in the prompts' order, and the number of tokens that this run made."""
    done = _read_done(done_file)
    made = 0
    started = time.monotonic()
    with done_file.open("a", encoding="utf-8") as file:
        for number, batch in enumerate(batches([len(i) for i in encoded.ids], params.batch_size)):
            if all(index in done for index in batch):
                continue
            for output in _answer_batch(model, tokenizer, encoded, batch, number, params.decoding):
                done[output.index] = output
                made += output.tokens
                file.write(json.dumps(asdict(output)) + "\n")
            file.flush()
            rate = made / max(time.monotonic() - started, 1e-9)
            events.progress(
                "answer", len(done), len(encoded.ids), "prompts", tokens_per_second=round(rate)
            )
    return [done[index] for index in range(len(encoded.ids))], made


def _read_done(path: Path) -> dict[int, Output]:
    """What an interrupted run left. Its last line may be half a line: it is cut off."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    outputs = (Output(**json.loads(line)) for line in whole.decode("utf-8").splitlines())
    return {output.index: output for output in outputs}


def _answer_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    encoded: Encoded,
    batch: list[int],
    number: int,
    decoding: Decoding,
) -> Iterator[Output]:
    import torch

    prompts = [encoded.ids[index] for index in batch]
    width = max(len(ids) for ids in prompts)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    settings = generation_settings(model, tokenizer, decoding, width, encoded.ends)
    stops = StopTexts(tokenizer, encoded.stop, width)
    torch.manual_seed(_batch_seed(decoding.seed, number))
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=mask,
            generation_config=settings,
            stopping_criteria=[stops] if encoded.stop else None,
        )
    ends = set(settings.eos_token_id)
    for row, index in enumerate(batch):
        tokens = made[row, width:].tolist()
        yield finish(index, tokens, ends, tokenizer, encoded.stop, stops.stopped.get(row))


def generation_settings(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    decoding: Decoding,
    width: int,
    template_ends: Sequence[int] = (),
) -> "GenerationConfig":
    """The decoding that the row asks for and nothing else. An answer ends with the tokenizer's end
    token, with one that the model's own configuration names, or with the template's.

    generate() fills what is left open from the model folder's generation_config.json (repetition
    penalties, top_k) and then from its own defaults (top_k 50): both would go unseen.
    """
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    ends |= {tokenizer.eos_token_id, *template_ends}
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    limit = most_positions(model)
    room = decoding.max_new_tokens if limit is None else limit - width
    sampled = decoding.temperature > 0
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends), pad_token_id=pad)
    return GenerationConfig(
        max_new_tokens=min(decoding.max_new_tokens, room),
        do_sample=sampled,
        eos_token_id=sorted(ends),
        pad_token_id=pad,
        **({"temperature": decoding.temperature, "top_p": decoding.top_p} if sampled else {}),
        **({"top_k": 0} if sampled else {}),
    )


class StopTexts:
    """A stopping criterion for generate(): ends a row once its answer holds one of the stop texts."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], prompt_width: int
    ):
        self.tokenizer, self.texts, self.width = tokenizer, texts, prompt_width
        # A token holds at least a byte, so this many last tokens hold any stop text they complete.
        self.window = max((len(t.encode()) for t in texts), default=0) + 4
        self.stopped: dict[int, int] = {}
        """Row -> tokens made when the stop text was complete."""

    def __call__(self, ids: "torch.Tensor", scores: Any, **kwargs: Any) -> "torch.Tensor":
        import torch

        length = ids.shape[1]
        tails = ids[:, max(self.width, length - self.window) :].tolist()
        for row, tail in enumerate(tails):
            if row not in self.stopped:
                said = self.tokenizer.decode(
                    tail, skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
                if any(text in said for text in self.texts):
                    self.stopped[row] = length - self.width
        done = [row in self.stopped for row in range(len(tails))]
        return torch.tensor(done, dtype=torch.bool, device=ids.device)


def finish(
    index: int,
    tokens: list[int],
    ends: set[int],
    tokenizer: "PreTrainedTokenizerBase",
    stop: Sequence[str],
    stopped_at: int | None,
) -> Output:
    """One row of a batch, without what follows its end: the end token, stop text and padding."""
    if stopped_at is not None:
        tokens = tokens[:stopped_at]
    end = next((i for i, token in enumerate(tokens) if token in ends), None)
    kept = tokens[:end]
    answer = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    cuts = [answer.find(text) for text in stop if text in answer]
    reason = "stop" if cuts or end is not None or stopped_at is not None else "length"
    return Output(index, answer[: min(cuts, default=len(answer))], reason, len(kept))


def _batch_seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _write(path: Path, prompts: list[Prompt], outputs: list[Output]) -> None:
    rows = []
    for prompt, output in zip(prompts, outputs, strict=True):
        row: dict[str, Any] = {"instruction": prompt.instruction}
        if prompt.input:
            row["input"] = prompt.input
        row |= {"output": output.output, "generator": GENERATOR}
        if prompt.dataset is not None:
            row["dataset"] = prompt.dataset
        rows.append(row | {"finish_reason": output.finish_reason, "tokens": output.tokens})
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _counts(outputs: list[Output]) -> dict[str, int]:
    empty = sum(not output.output.strip() for output in outputs)
    return {
        "prompts": len(outputs),
        "answered": len(outputs) - empty,
        "empty": empty,
        "cut_at_limit": sum(output.finish_reason == "length" for output in outputs),
        "tokens": sum(output.tokens for output in outputs),
    }
