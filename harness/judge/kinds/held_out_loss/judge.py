"""The judge `held_out_loss`: a model's loss on given answers, in nats a token and bits a byte.

The numbers are those that the train stage gives of held-out examples (with train.tokenize: apart and
append_end: true): the loss is over the answer's tokens with its end, what is asked comes from the same
template, and bits a byte count the answer's own text. Losses of each example are kept in losses.jsonl,
and every number is computed from them.
"""

import json
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

from harness.answer.prompts import Prompt, read_prompts
from harness.answer.row_model import account_of, base_of, load_row_model
from harness.artefact.call import StageCall, StageResult
from harness.artefact.events import Progress
from harness.artefact.manifest import Finding, MetricValue
from harness.artefact.resume import whole_lines
from harness.common.device_faults import memory_for, smaller_batch
from harness.common.text_files import read_lines
from harness.data.dataset import write_rows
from harness.errors import HarnessError, InputError
from harness.judge.kinds.held_out_loss import LossJudge
from harness.modeling.load import available_device, load_tokenizer, most_positions
from harness.modeling.logits import last_logits
from harness.modeling.text import Encoder, Example, Tokens
from harness.spec.model_source import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOSS, BITS = "held_out_loss", "bits_per_byte"
LOSSES = "losses.jsonl"
MEASURED = "measured.jsonl"
"""In the work folder: a line for each batch that is done, a list of its examples."""
MOST_LOGITS = 2**28
"""Logits that are there at a time: 1 GiB in float32."""
FEW = 30
"""Under so many examples the standard error itself says little."""


class LossRow(TypedDict):
    """A line of losses.jsonl. `tokens` and `bytes` are of the answer."""

    index: int
    nats: float
    tokens: int
    bytes: int
    cut: bool
    dataset: NotRequired[str | None]
    """Where there are several."""


class LossExample(NamedTuple):
    """An example as the model reads it; the loss is over ids[start:], start > 0."""

    number: int
    ids: list[int]
    start: int
    bytes: int
    cut: bool


def run(call: StageCall, judge: LossJudge) -> StageResult:
    """Measure the model of the call on every example. Raises InputError for examples without answers,
    and where the template or the model cannot be used on them; HarnessError for a loss that is no
    number, and where nothing could be measured."""
    if call.replay:
        recorded = Path(call.inputs["recorded"]) / LOSSES
        rows = [json.loads(line) for line in read_lines(recorded)]
        result = _result(call, judge, rows)
        result.deviations += base_of(call).deviations
        return result
    prompts = read_prompts(judge.examples, call.inputs.get("prompts"))
    _check_answers(prompts)
    if judge.template is None:
        raise InputError(
            "the judge held_out_loss needs a template", "Give the row one, or the judge its own."
        )
    import torch

    if judge.threads is not None:
        torch.set_num_threads(judge.threads)
    source = ModelSource.model_validate(call.params["model"])
    device = available_device()
    tokenizer = load_tokenizer(source, call.inputs)
    encoder = Encoder(tokenizer, judge.template)
    examples = [Example(p.asked, p.input, p.output or "", p.system, p.history) for p in prompts]
    sequences = [
        _sequence(tokenizer, number, tokens, example, judge)
        for number, (tokens, example) in enumerate(
            zip(encoder.examples(examples), examples, strict=True)
        )
    ]
    progress = Progress("judge", sum(s.start < len(s.ids) for s in sequences), "examples")
    progress.show(0)  # before the model is loaded
    model, base = load_row_model(call, source, tokenizer, judge.precision, device)
    _check_lengths(sequences, most_positions(model))

    started = time.monotonic()
    nats = _measure(call.folder / MEASURED, model, sequences, judge, progress)
    seconds = time.monotonic() - started
    rows = []
    for sequence, prompt in zip(sequences, prompts, strict=True):
        tokens = len(sequence.ids) - sequence.start
        row: LossRow = {
            "index": sequence.number,
            "nats": nats.get(sequence.number, 0.0),
            "tokens": tokens,
            "bytes": sequence.bytes if tokens else 0,
            "cut": sequence.cut,
        }
        if judge.examples.files is not None:
            row["dataset"] = prompt.dataset
        rows.append(row)
    result = _result(call, judge, rows)
    result.add(base)
    result.add(account_of(call, source, model, device, seconds))
    result.notes += encoder.notes
    if any(prompt.fields.get("simulated") is True for prompt in prompts):
        result.simulated.append("teacher")
    return result


def _check_answers(prompts: list[Prompt]) -> None:
    lacking = [n for n, prompt in enumerate(prompts) if prompt.output is None]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(prompts)} examples have no answer to measure the loss on, the "
            f"first is example {lacking[0]}: {prompts[lacking[0]].instruction[:60]!r}",
            "Give a set whose records have an `output`, or name its column in "
            "examples.columns.output.",
        )


def _sequence(
    tokenizer: "PreTrainedTokenizerBase",
    index: int,
    tokens: Tokens,
    example: Example,
    judge: LossJudge,
) -> LossExample:
    """The example, cut on the right to `judge.cutoff_length` tokens. Of a cut answer the bytes are
    those of what its tokens left say; with no token of it left, or no text in it, nothing is
    measured."""
    cutoff, answer = judge.cutoff_length, example.output
    start, stop = tokens.answers[-1]
    # The first token of a text has nothing before it to predict it.
    start = 1 if judge.over == "text" else max(start, 1)
    cut = len(tokens.ids) > cutoff
    ids = tokens.ids[:cutoff]
    size = example.text_bytes if judge.over == "text" else len(answer.encode())
    if stop > cutoff:
        left = tokenizer.decode(ids[start:], skip_special_tokens=True)
        size = min(size, len(str(left).encode()))
    if not answer.strip() or start >= len(ids):
        return LossExample(index, ids, len(ids), 0, cut)
    # A template may write something behind the last answer's end.
    return LossExample(index, ids[:stop], start, size, cut)


def _check_lengths(sequences: list[LossExample], limit: int | None) -> None:
    longest = max(sequences, key=lambda s: len(s.ids))
    if limit is not None and len(longest.ids) > limit:
        raise InputError(
            f"example {longest.number} has {len(longest.ids)} tokens, the model takes {limit}",
            f"Set cutoff_length to {limit} or less: what is longer is cut, counted and shown.",
        )


def _measure(
    path: Path,
    model: "PreTrainedModel",
    sequences: list[LossExample],
    judge: LossJudge,
    progress: Progress,
) -> dict[int, float]:
    """index -> nats of the answer; what an interrupted run measured is read."""
    import torch

    rows = model.get_input_embeddings().num_embeddings
    todo = _batches([s for s in sequences if s.start < len(s.ids)], judge.batch_size, rows)
    done = {index: nats for line in whole_lines(path) for index, nats in json.loads(line)}
    measured = tokens = 0
    began = time.monotonic()
    with path.open("a", encoding="ascii") as file, torch.inference_mode():
        for batch in todo:
            if not all(sequence.number in done for sequence in batch):
                way_out = smaller_batch("eval.judge.batch_size", len(batch), judge.precision)
                at_a_time = "one example" if len(batch) == 1 else f"{len(batch)} examples"
                with memory_for(f"measuring {at_a_time} at a time", way_out):
                    batch_nats = _batch_nats(model, batch)
                for sequence, nats in zip(batch, batch_nats, strict=True):
                    if not math.isfinite(nats):
                        raise HarnessError(
                            f"the model's loss on example {sequence.number} is {nats}",
                            "Its weights or its arithmetic are broken; with bfloat16, try "
                            "precision: float32.",
                        )
                    done[sequence.number] = nats
                file.write(json.dumps([[s.number, done[s.number]] for s in batch]) + "\n")
                file.flush()
                tokens += sum(len(s.ids) for s in batch)
            measured += len(batch)
            speed = tokens / max(time.monotonic() - began, 1e-9)
            progress.show(measured, tokens_per_s=round(speed))
    return done


def _batches(
    sequences: list[LossExample], batch_size: int, vocabulary: int
) -> list[list[LossExample]]:
    """Of like length together, the longest first; fewer at a time where logits take much memory."""
    batches: list[list[LossExample]] = []
    for sequence in sorted(sequences, key=lambda s: (-len(s.ids), s.number)):
        last = [*batches[-1], sequence] if batches else []
        logits = _width(last) * len(last) * vocabulary if last else 0
        if not last or len(last) > batch_size or logits > MOST_LOGITS:
            batches.append([sequence])
        else:
            batches[-1].append(sequence)
    return batches


def _width(batch: Sequence[LossExample]) -> int:
    """Places whose logits are made: from the first answer's begin to the last one's end."""
    return max(len(s.ids) for s in batch) - min(s.start for s in batch)


def _batch_nats(model: "PreTrainedModel", batch: list[LossExample]) -> list[float]:
    """The negative log-likelihood of each answer, in nats; the sums in float64."""
    import torch

    width = max(len(s.ids) for s in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        mask[row, : len(sequence.ids)] = 1
    first = min(s.start for s in batch) - 1
    logits = last_logits(
        model,
        width - first,
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
    )
    sums = []
    for row, sequence in enumerate(batch):
        at = slice(sequence.start - 1 - first, len(sequence.ids) - 1 - first)
        targets = torch.tensor(sequence.ids[sequence.start :], device=logits.device)
        losses = torch.nn.functional.cross_entropy(
            logits[row, at].float(), targets, reduction="none"
        )
        sums.append(losses.double().sum())
    # Read once: each look at a GPU waits for it.
    nats: list[float] = torch.stack(sums).tolist()
    return nats


def _result(call: StageCall, judge: LossJudge, rows: list[LossRow]) -> StageResult:
    write_rows(call.folder / LOSSES, rows)
    measured = [row for row in rows if row["tokens"]]
    if not measured:
        raise HarnessError(
            f"of none of the {len(rows)} examples is a token of the answer left to measure",
            "Give a larger cutoff_length, or examples with answers.",
        )
    cut = sum(row["cut"] for row in measured)
    metrics = losses_of(rows)
    for name in judge.examples.files or {}:
        part = losses_of([row for row in rows if row.get("dataset") == name])
        metrics |= {f"{metric}/{name}": value for metric, value in part.items()}
    notes = []
    if len(measured) < FEW:
        notes.append(f"only {len(measured)} examples: their loss says little")
    return StageResult(
        keep=[LOSSES],
        metrics=metrics,
        counts={
            "records": len(rows),
            "examples": len(measured),
            "dropped": len(rows) - len(measured),
            "truncated": cut,
            "tokens": sum(row["tokens"] for row in rows),
            "bytes": sum(row["bytes"] for row in rows),
        },
        notes=notes,
        findings=_findings(judge, len(rows), len(measured), cut),
    )


def losses_of(rows: Sequence[LossRow]) -> dict[str, MetricValue]:
    """Both metrics of a set of examples; empty where none was measured. Lower is better.

    Nats a token: sum of nats / sum of tokens, an end token counted in both. Bits a byte: sum of
    nats / ln 2 / sum of the answers' UTF-8 bytes.
    """
    measured = [row for row in rows if row["tokens"]]
    if not measured:
        return {}
    nats = [row["nats"] for row in measured]
    tokens = [row["tokens"] for row in measured]
    sizes = [row["bytes"] for row in measured]
    metric = partial(
        MetricValue,
        judged=len(measured),
        expected=len(rows),
        examples=len(measured),
        tokens=sum(tokens),
    )
    loss, error = ratio(nats, tokens)
    metrics = {LOSS: metric(value=loss, standard_error=error)}
    if sum(sizes):
        bits, error = ratio([n / math.log(2) for n in nats], sizes)
        metrics[BITS] = metric(value=bits, standard_error=error, bytes=sum(sizes))
    return metrics


def ratio(amounts: Sequence[float], sizes: Sequence[float]) -> tuple[float, float | None]:
    """R = sum(y) / sum(x) over n examples, and its standard error over the choice of examples,

        sqrt(n / (n - 1) * sum((y - R x)^2)) / sum(x),

    the ratio estimator's by the delta method (Cochran, Sampling Techniques, 3rd ed., equation 6.13,
    of an infinite population). None for a single example.
    """
    n, total = len(amounts), math.fsum(sizes)
    value = math.fsum(amounts) / total
    if n < 2:
        return value, None
    squares = math.fsum((y - value * x) ** 2 for y, x in zip(amounts, sizes, strict=True))
    return value, math.sqrt(n / (n - 1) * squares) / total


def _findings(judge: LossJudge, records: int, measured: int, cut: int) -> list[Finding]:
    findings = []
    if measured < records:
        message = (
            f"{records - measured} of {records} examples have an empty answer, or no token of it "
            f"within {judge.cutoff_length} tokens, and are not in the loss"
        )
        evidence = {"dropped": records - measured, "examples": records}
        findings.append(Finding("dropped_rows", "warning", message, evidence))
    if cut:
        message = f"{cut} of {measured} examples were cut to {judge.cutoff_length} tokens"
        evidence = {"cut": cut, "examples": measured, "cutoff": judge.cutoff_length}
        findings.append(Finding("empty_or_truncated", "warning", message, evidence))
    return findings
