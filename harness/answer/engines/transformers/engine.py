"""Answers of the row's own model in this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.answer.decoding.batch import DecodingRequest
from harness.answer.decoding.decode import Decoder, Made, end_tokens
from harness.answer.decoding.pace import Pace
from harness.answer.decoding.stops import Stops
from harness.answer.encode import check_lengths, encode, limit_of
from harness.answer.engine import Answered, AnswerTask
from harness.answer.engines.transformers import DONE, VLLM_FOR_MANY, TransformersEngine
from harness.answer.outputs import Output, outputs_by_index
from harness.answer.prompts import prompt_seed
from harness.answer.row_model import account_of, load_row_model
from harness.artefact import events
from harness.artefact.events import Progress
from harness.artefact.resume import whole_lines
from harness.common.device_faults import memory_for, smaller_batch, smaller_model
from harness.modeling.load import (
    available_device,
    load_tokenizer,
    most_positions,
)

MANY = 100
"""Prompts from which on it is said what would answer them sooner."""


def answer_here(task: AnswerTask, engine: TransformersEngine) -> Answered:
    """Answer those prompts that an earlier try left. Raises as harness.answer.run.run."""
    import torch

    call, params, source, prompts = task.call, task.params, task.model, task.prompts
    if engine.threads is not None:
        torch.set_num_threads(engine.threads)
    device = available_device()
    tokenizer = load_tokenizer(source, call.inputs)
    encoded = encode(prompts, params.template, tokenizer, params.decoding.stop)
    model, base = load_row_model(call, source, tokenizer, engine.precision, device)
    room = most_positions(model)
    check_lengths(prompts, encoded.ids, room)

    decoding = params.decoding
    ends = end_tokens(model, tokenizer, encoded.ends)
    with memory_for("trying the model with two prompts", smaller_model(engine.precision)):
        decoder = Decoder(
            model, tokenizer, decoding, ends, encoded.stop, engine.batch_size, engine.batching
        )
    turn = prompts[0].turn
    done_file = call.folder / (DONE if turn == 1 else f"turn_{turn}_{DONE}")
    done = outputs_by_index(whole_lines(done_file))
    requests = [
        DecodingRequest(
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
        seconds, tokens = _make(done_file, decoder, requests, done)

    answered = Answered([done[index] for index in range(len(prompts))], notes=[*encoded.notes])
    answered.used["batch_size"] = 1 if decoder.note else decoder.batch_size
    answered.used["tokens_per_second"] = round(tokens / max(seconds, 1e-9), 1)
    answered.add(base)
    answered.notes += filter(None, [decoder.note, decoder.size_note])
    answered.add(account_of(call, source, model, device, seconds))
    return answered


def _make(
    path: Path, decoder: Decoder, requests: Sequence[DecodingRequest], done: dict[int, Output]
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
