"""Answers of a served model: any OpenAI-compatible endpoint, or vLLM with the row's own model.

Every call is in the artefact's transcript.jsonl, from which an interrupted run and a replay go on.
"""

import asyncio
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from harness.answer.answer import Answer, Decoding
from harness.answer.decoding.stops import special_looks_in, special_pattern
from harness.answer.engine import QUANTIZATION, EndpointEngine, VllmEngine, vllm_cannot
from harness.answer.outputs import Output
from harness.answer.prompts import Prompt, prompt_seed
from harness.answer.row_model import base_of
from harness.answer.run import NO_ANSWER, Answered
from harness.artefact.call import TRANSCRIPT, StageCall
from harness.artefact.events import Progress
from harness.errors import InputError
from harness.llm.asking import ServedModels
from harness.llm.client import Client, open_client
from harness.llm.reply import REFUSED, Kind, Reply, tokens_used, usage_is_known
from harness.modeling.generation import end_tokens_in
from harness.modeling.load import is_adapter, load_tokenizer, model_folder, trained_folder
from harness.modeling.tokenizer_template import special_tokens
from harness.spec.base import Endpoint
from harness.spec.model_source import ModelSource
from harness.spec.train import Quantization

VLLM_URL = "HARNESS_VLLM_URL"
"""The environment variable that names a running vLLM server."""
VLLM_KNOWN_AS = Endpoint(model="vllm", base_url="http://vllm/v1")
"""How a transcript knows it: neither its address nor the name it gives the model are the same in the
next run, which must find the calls again."""
VLLM_TIMEOUT_S = 3600.0
"""Of one answer: with many at a time, the longest take minutes."""
LOOK_TIMEOUT_S = 10.0
SIGN_OF_LIFE_S = 2.0
"""Between two looks at how far the answers are, where none has come."""


def answer_by_endpoint(
    call: StageCall,
    params: Answer,
    engine: EndpointEngine,
    source: ModelSource | None,
    prompts: Sequence[Prompt],
) -> Answered:
    """Raises what harness.llm.client raises, and InputError for a template that is no plain text."""
    kind: Kind = engine.api
    if kind == "chat":
        looks = special_looks_in(params.decoding.stop)
        if looks and source is not None:
            looks += special_tokens(load_tokenizer(source, call.inputs))
        special = special_pattern(looks)
        bodies = [chat_body(prompt, engine, params.decoding) for prompt in prompts]
        stop = params.decoding.stop
    else:
        texts, stop, special, opening = _texts(call, params, source, prompts)
        bodies = [
            {"prompt": text, **sampling_of(params.decoding, prompt)}
            | ({"stop": stop} if stop else {})
            | opening
            for text, prompt in zip(texts, prompts, strict=True)
        ]
    # Servers of open models look for stop texts in what they send back, which is without special
    # tokens unless this is said. OpenAI's own, whose texts hold none, takes no such word.
    shows = engine.endpoint.base_url is not None and any(map(special.search, stop))
    if shows:
        bodies = [body | {"skip_special_tokens": False} for body in bodies]
    client = open_client(call, engine.endpoint, engine.transcript)
    answered = _asked(client, bodies, kind, stop, special if shows else None)
    answered.used["model"] = engine.endpoint.model
    return answered


def answer_by_vllm(
    call: StageCall,
    params: Answer,
    engine: VllmEngine,
    source: ModelSource,
    prompts: Sequence[Prompt],
) -> Answered:
    """With the template's tokens, so that no server's template has a say.

    Raises InputError where no server is named, or it does not serve the model.
    """
    from harness.answer.encode import check_lengths, encode, limit_of, positions_in

    trained = trained_folder(call.inputs)
    if source.random is not None and (trained is None or is_adapter(trained)):
        raise InputError(
            "vLLM serves a model from its files, and one with random weights has none",
            "Take eval.answer.engine.kind: transformers for it.",
        )
    tokenizer = load_tokenizer(source, call.inputs)
    encoded = encode(prompts, params.template, tokenizer, params.decoding.stop)
    limits = [positions_in(source, call.inputs), engine.max_model_length]
    room = min((limit for limit in limits if limit is not None), default=None)
    check_lengths(prompts, encoded.ids, room)
    stop = encoded.stop
    special = special_pattern(special_tokens(tokenizer))
    served = trained or model_folder(source, call.inputs)
    ends = sorted({tokenizer.eos_token_id, *encoded.ends, *end_tokens_in(served)})
    # The server looks for stop texts in the text that it sends back.
    hides = not any(map(special.search, stop))
    bodies = []
    for ids, prompt in zip(encoded.ids, prompts, strict=True):
        limit = limit_of(len(ids), params.decoding.max_new_tokens, room)
        bodies.append(
            {
                "prompt": ids,
                **sampling_of(params.decoding, prompt),
                "max_tokens": limit,
                # What is left open, the server takes from the model folder's generation_config.json.
                "top_p": params.decoding.top_p,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "stop": stop,
                "stop_token_ids": ends,
                "skip_special_tokens": hides,
                **({} if hides else {"spaces_between_special_tokens": False}),
            }
        )
    asked_for = call.params.get(QUANTIZATION)
    cannot = vllm_cannot(Quantization.model_validate(asked_for)) if asked_for else ""
    base = base_of(call, cannot, is_known=call.server is not None)
    settings = {"concurrency": engine.concurrency, "timeout_s": VLLM_TIMEOUT_S}
    known_as = VLLM_KNOWN_AS.model_copy(update=settings)
    at = None if call.replay else find_vllm(call.server, engine)
    # Its calls cost no money, and no budget holds for them.
    client = Client(known_as, call.folder / TRANSCRIPT, replay=call.replay, at=at)
    started = time.monotonic()
    answered = _asked(client, bodies, "completion", stop, None if hides else special)
    answered.used |= base.used
    answered.notes += [*encoded.notes, *base.notes]
    answered.deviations += base.deviations
    answered.cost["gpu_seconds"] = 0.0 if call.replay else round(time.monotonic() - started, 3)
    return answered


def find_vllm(server: dict[str, str] | None, engine: VllmEngine) -> tuple[str, str]:
    """(base URL, the model's name there) of the server beside the stage, or of a running one.

    Raises InputError where none is named or reached, or it serves another model.
    """
    if server is not None:
        url, wanted = server["base_url"], server.get("model")
    else:
        url, wanted = engine.base_url or os.environ.get(VLLM_URL, ""), None
    if not url:
        raise InputError(
            "no vLLM server is named that could answer",
            "Run the row with the docker executor, which starts one; or start one with the row's model "
            f"and name it: {VLLM_URL}=http://127.0.0.1:8000/v1 (or eval.answer.engine.base_url).",
        )
    url = url.rstrip("/")
    served = _served_by(url)
    if wanted is None and len(served) > 1:
        raise InputError(
            f"the vLLM server at {url} serves several models: {', '.join(served)}",
            "Start one that serves the row's model alone.",
        )
    if not served or (wanted is not None and wanted not in served):
        raise InputError(
            f"the vLLM server at {url} does not serve {wanted or 'a model'}, but "
            f"{', '.join(served) or 'none'}",
            "Stop it, and start one with the row's model.",
        )
    return url, wanted or served[0]


def _served_by(url: str) -> list[str]:
    # A proxy of the environment has no business between a stage and a server that runs beside it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/models", timeout=LOOK_TIMEOUT_S) as response:
            return [str(model["id"]) for model in json.load(response)["data"]]
    except (OSError, urllib.error.URLError) as e:
        raise InputError(
            f"the vLLM server at {url} cannot be reached: {getattr(e, 'reason', e)}",
            "Start it, and wait until it has loaded the model: GET /health then answers.",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{url}/models is no answer of an OpenAI-compatible server") from None


def chat_body(prompt: Prompt, engine: EndpointEngine, decoding: Decoding) -> dict[str, Any]:
    """The request: the set's system text, or else the engine's, earlier turns, and what is asked."""
    system = prompt.system or engine.system
    said = f"{prompt.asked}\n{prompt.input}" if prompt.input else prompt.asked
    messages = [{"role": "system", "content": system}] if system else []
    for user, answer in prompt.history:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    body = {
        "messages": [*messages, {"role": "user", "content": said}],
        **sampling_of(decoding, prompt),
    }
    return body | ({"stop": decoding.stop} if decoding.stop else {})


def sampling_of(decoding: Decoding, prompt: Prompt) -> dict[str, Any]:
    """The decoding in a request's words; a sampled one with the prompt's own seed."""
    wanted = {"max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature}
    body: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if decoding.temperature:
        body["top_p"] = decoding.top_p
    if decoding.temperature != 0:
        # Servers take 32 bits at least.
        body["seed"] = prompt_seed(decoding.seed, prompt.instruction, prompt.input) % 2**31
    return body


def _texts(
    call: StageCall, params: Answer, source: ModelSource | None, prompts: Sequence[Prompt]
) -> tuple[list[str], list[str], "re.Pattern[str]", dict[str, Any]]:
    """The prompts as the template writes them, the texts that end an answer, the special tokens, and
    what a request says of a prompt's beginning: the server's tokenizer has its own.

    Raises InputError where it needs a tokenizer's tokens, and the row has no model.
    """
    from harness.modeling.chat_template import opening_of
    from harness.modeling.template_pieces import ending, pieces, text_before_token
    from harness.modeling.text import Encoder

    template = params.template
    if template is None:
        raise InputError("the answer stage was given no template")
    tokens: dict[str, str] = {}
    opening, added = "", {}
    special: re.Pattern[str] | None = None
    if source is not None:
        tokenizer = load_tokenizer(source, call.inputs)
        tokens = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
        encoder = Encoder(tokenizer, template)
        special = special_pattern([*special_tokens(tokenizer), *template.special])
        made = [encoder.pieces(p.asked, p.input, None, p.system, p.history) for p in prompts]
        ends = list(encoder.stop)
        if template.from_tokenizer and encoder.end_ids != [tokenizer.eos_token_id]:
            ends += tokenizer.convert_ids_to_tokens(encoder.end_ids)
        opening = opening_of(tokenizer)
    elif template.from_tokenizer:
        raise InputError(
            "the tokenizer's own template is wanted, and the row has no model with a tokenizer",
            "Name the model in the spec, another template, or api: chat.",
        )
    else:
        made = [pieces(template, p.asked, p.input, None, p.system, p.history) for p in prompts]
        ends = list(template.stop)
    end = [] if template.from_tokenizer else ending(template)
    if end and not any(piece.token for piece in end):
        ends.append("".join(piece.text for piece in end))
    elif source is None:
        looks = special_pattern([*special_looks_in([p.text for p in end]), *template.special])
        ends += [before] if (before := text_before_token(end, looks)) else []
    if any(piece.token and piece.token not in tokens for parts in made for piece in parts):
        raise InputError(
            f"the template {template.name or 'of the spec'} has tokens of the tokenizer's own in its "
            "prompt, and the row has no model with one",
            "Name the model in the spec, a template of text alone, or api: chat.",
        )
    texts = ["".join(tokens.get(piece.token, piece.text) for piece in parts) for parts in made]
    if opening and not any(piece.opens for parts in made for piece in parts):
        if all(text.startswith(opening) for text in texts):
            # The server puts it there.
            texts = [text.removeprefix(opening) for text in texts]
        else:
            added = {"add_special_tokens": False}
    stop = list(dict.fromkeys([*ends, *params.decoding.stop]))
    if special is None:
        # What else looks like a special token can be the answer's own text.
        special = special_pattern([*special_looks_in(stop), *template.special])
    return texts, stop, special, added


def _asked(
    client: Client,
    bodies: Sequence[dict[str, Any]],
    kind: Kind,
    stop: Sequence[str],
    special: "re.Pattern[str] | None",
) -> Answered:
    """`special`: the special tokens of texts that are sent back with them."""
    progress, done = Progress("answer", len(bodies), "prompts"), 0
    started, new, tokens = time.monotonic(), 0, 0
    served = ServedModels()
    without_text: set[int] = set()
    apart = 0
    # A batch's answers come all at once; of the others the first ones are the shortest.
    enough = client.endpoint.concurrency if client.endpoint.mode == "live" else len(bodies)

    def show() -> None:
        seconds = max(time.monotonic() - started, 1e-9)
        left = round(seconds / new * (len(bodies) - done)) if new and new >= enough else None
        progress.show(
            done, tokens=tokens, tokens_per_second=round(tokens / seconds), seconds_left=left
        )

    def take(index: int, reply: Reply) -> None:
        nonlocal apart, done, new, tokens
        served.note(reply)
        apart += _reasons_apart(reply)
        if _has_no_text(reply):
            without_text.add(index)
        done += 1
        if not reply.reused:
            new += 1
            tokens += tokens_used(reply.usage)[1]
        show()

    async def keep_showing() -> None:
        while True:
            show()
            await asyncio.sleep(SIGN_OF_LIFE_S)

    async def ask() -> list[Reply]:
        async with client:
            showing = asyncio.create_task(keep_showing())
            try:
                return await client.gather(bodies, take, kind)
            finally:
                showing.cancel()

    replies = asyncio.run(ask())
    notes, unknown = served.notes(), sum(not usage_is_known(reply.usage) for reply in replies)
    if unknown:
        notes.append(f"of {unknown} of {len(replies)} answers the server did not count the tokens")
    if apart:
        notes.append(
            f"{apart} of {len(replies)} replies came with reasoning apart from the answer: it is in "
            f"{TRANSCRIPT}, and no judge sees it"
        )
    return Answered(
        [_output(index, reply, stop, special) for index, reply in enumerate(replies)],
        used={"served_models": client.served_models},
        cost=client.cost(),
        notes=notes,
        findings=served.findings() + _no_answer_findings(len(replies), len(without_text)),
        simulated=["answers"] if client.simulated else [],
        keep=[TRANSCRIPT],
        without_text=without_text,
    )


def _has_no_text(reply: Reply) -> bool:
    """Whether a chat's message has no content, or an empty one beside calls of tools."""
    if reply.is_declined:
        return False
    message = reply.raw["choices"][0].get("message")
    if reply.text or message is None:
        return False
    calls = message.get("tool_calls") or message.get("function_call")
    return bool(calls) or not isinstance(message.get("content"), str)


def _reasons_apart(reply: Reply) -> bool:
    """Whether a chat's message has reasoning in a field of its own (vLLM's name, OpenRouter's)."""
    choices = reply.raw.get("choices") or [{}]
    message = choices[0].get("message") or {}
    return any(message.get(name) for name in ("reasoning_content", "reasoning"))


def _no_answer_findings(asked: int, without_text: int) -> list[dict[str, Any]]:
    if not without_text:
        return []
    return [
        {
            "kind": NO_ANSWER,
            "severity": "warning",
            "message": f"{without_text} of {asked} replies hold no text (no content, or calls of tools "
            "alone): they stand as empty outputs, which a judge takes for answers",
            "evidence": {"replies": asked, NO_ANSWER: without_text},
        }
    ]


def _output(
    index: int, reply: Reply, stop: Sequence[str], special: "re.Pattern[str] | None"
) -> Output:
    known = usage_is_known(reply.usage)
    prompt, made = tokens_used(reply.usage) if known else (None, None)
    # Some servers leave the stop text in.
    cut = min((reply.text.find(s) for s in stop if s in reply.text), default=len(reply.text))
    reason = reply.finish_reason
    if reason == REFUSED:
        return Output(index, "", REFUSED, made, prompt)
    text = reply.text[:cut] if special is None else special.sub("", reply.text[:cut])
    return Output(index, text, reason, made, prompt)
