"""Answers of the row's own model in this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.answer.answer import Answer
from harness.answer.decoding.decode import Asked, Decoder, Made, end_tokens
from harness.answer.decoding.pace import Pace
from harness.answer.decoding.stops import Stops
from harness.answer.encode import check_lengths, encode, limit_of
from harness.answer.engine import Answered
from harness.answer.engines.transformers import VLLM_FOR_MANY, TransformersEngine
from harness.answer.outputs import Output
from harness.answer.prompts import Prompt, prompt_seed
from harness.answer.row_model import load_row_model
from harness.artefact import events
from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.artefact.resume import whole_lines
from harness.common.device_faults import memory_for, smaller_batch, smaller_model
from harness.modeling.load import (
    available_device,
    device_name,
    load_tokenizer,
    most_positions,
    trained_folder,
)
from harness.spec.model_source import ModelSource

MANY = 100
"""Prompts from which on it is said what would answer them sooner."""
DONE = "outputs.jsonl"
"""The answers as they ended, from which an interrupted run goes on."""


def answer_here(
    call: StageCall,
    params: Answer,
    engine: TransformersEngine,
    source: ModelSource,
    prompts: Sequence[Prompt],
) -> Answered:
    """Answer those prompts that an earlier try left. Raises as harness.answer.run.run."""
    import torch

    if engine.threads is not None:
        torch.set_num_threads(engine.threads)
    device = available_device()
    tokenizer = load_tokenizer(source, call.inputs)
    encoded = encode(prompts, params.template, tokenizer, params.decoding.stop)
    model, base = load_row_model(call, source, tokenizer, engine.precision, device)
    room = most_positions(model)
    check_lengths(prompts, encoded.ids, room)

    decoding = params.decoding
    stop = encoded.stop
    ends = end_tokens(model, tokenizer, encoded.ends)
    with memory_for("trying the model with two prompts", smaller_model(engine.precision)):
        decoder = Decoder(
            model, tokenizer, decoding, ends, stop, engine.batch_size, engine.batching
        )
    turn = prompts[0].turn
    done_file = call.folder / (DONE if turn == 1 else f"turn_{turn}_{DONE}")
    done = _read_done(done_file)
    requests = [
        Asked(
            index,
            ids,
            limit_of(len(ids), decoding.max_new_tokens, room),
            prompt_seed(decoding.seed, prompts[index].instruction, prompts[index].input),
        )
        for index, ids in enumerate(encoded.ids)
        if index not in done
    ]
    if device == "cuda" and len(requests) >= MANY:
        events.note(VLLM_FOR_MANY)
    # Where the size was left open it was halved down to one.
    size = 1 if decoder.note else engine.batch_size or 1
    # A judge's own model is asked here too.
    way_out = smaller_batch(f"eval.{call.stage}.engine.batch_size", size, engine.precision)
    at_a_time = "one answer" if size == 1 else f"{size} answers"
    with memory_for(f"making {at_a_time} at a time", way_out):
        seconds, tokens = _make(done_file, decoder, requests, done, stop)

    used = {
        "parameters": model.num_parameters(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "batch_size": 1 if decoder.note else decoder.batch_size,
        "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
    }
    used |= base.used
    decoder_notes = filter(None, [decoder.note, decoder.size_note])
    notes = [*encoded.notes, *base.notes, *decoder_notes]
    seeds = {}
    if source.random is not None and trained_folder(call.inputs) is None:
        used["base_model"] = "random"
        seeds["model"] = source.random.seed
        notes.append("the model had random weights and no training")
    return Answered(
        [done[index] for index in range(len(prompts))],
        used=used,
        seeds=seeds,
        notes=notes,
        deviations=base.deviations,
        cost={"gpu_seconds": round(seconds, 3) if device == "cuda" else 0.0},
    )


def _make(
    path: Path,
    decoder: Decoder,
    requests: Sequence[Asked],
    done: dict[int, Output],
    stop: list[str],
) -> tuple[float, int]:
    """Add the answers to `done` and to the file as each ends; returns the seconds and tokens taken."""
    lengths = {request.index: len(request.ids) for request in requests}
    progress = Progress("answer", len(done) + len(requests), "prompts")
    pace = Pace({request.index: request.limit for request in requests})

    def show(making: Mapping[int, int]) -> None:
        if progress.is_due(len(done)):
            progress.show(len(done), **pace.info(making))

    show({})
    with path.open("a", encoding="ascii") as file:
        for decoded in decoder.answers(requests, show):
            output = finish(decoded, decoder.stops, lengths[decoded.index])
            done[decoded.index] = output
            file.write(json.dumps(asdict(output)) + "\n")
            file.flush()
            pace.end(decoded.index, len(decoded.tokens))
    return pace.seconds, pace.tokens


def finish(decoded: Made, stops: Stops, prompt_tokens: int) -> Output:
    """The answer as a text, up to the first stop text in it."""
    answer = stops.text(decoded.tokens)
    cut = min((answer.find(text) for text in stops.texts if text in answer), default=len(answer))
    return Output(
        decoded.index, answer[:cut], decoded.finish_reason, len(decoded.tokens), prompt_tokens
    )


def _read_done(path: Path) -> dict[int, Output]:
    """What an interrupted run left."""
    outputs = (Output(**json.loads(line)) for line in whole_lines(path))
    return {output.index: output for output in outputs}
