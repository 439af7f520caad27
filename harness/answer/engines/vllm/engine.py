"""Answers of the row's model, served by vLLM."""

import json
import os
import time
import urllib.error
import urllib.request

from harness.answer.decoding.stops import special_pattern
from harness.answer.engine import QUANTIZATION, Answered, AnswerTask, vllm_cannot
from harness.answer.engines.vllm import VllmEngine
from harness.answer.row_model import base_of
from harness.answer.served import ask_server, sampling_of
from harness.artefact.call import TRANSCRIPT
from harness.errors import InputError
from harness.llm.body import CompletionBody
from harness.llm.client import Client
from harness.modeling.generation import end_tokens_in
from harness.modeling.load import is_adapter, load_tokenizer, model_folder, trained_folder
from harness.modeling.tokenizer_template import special_tokens
from harness.spec.base import Endpoint
from harness.spec.train import Quantization

VLLM_URL = "HARNESS_VLLM_URL"
"""The environment variable that names a running vLLM server."""
VLLM_KNOWN_AS = Endpoint(model="vllm", base_url="http://vllm/v1")
"""How a transcript knows it: neither its address nor the name it gives the model are the same in the
next run, which must find the calls again."""
VLLM_TIMEOUT_S = 3600.0
"""Of one answer: with many at a time, the longest take minutes."""
LOOK_TIMEOUT_S = 10.0


def answer_by_vllm(task: AnswerTask, engine: VllmEngine) -> Answered:
    """With the template's tokens, so that no server's template has a say.

    Raises InputError where no server is named, or it does not serve the model.
    """
    from harness.answer.encode import check_lengths, encode, least, limit_of, positions_in

    call, params, source, prompts = task.call, task.params, task.model, task.prompts
    trained = trained_folder(call.inputs)
    if source.random is not None and (trained is None or is_adapter(trained)):
        raise InputError(
            "vLLM serves a model from its files, and one with random weights has none",
            "Take eval.answer.engine.kind: transformers for it.",
        )
    tokenizer = load_tokenizer(source, call.inputs)
    encoded = encode(prompts, params.template, tokenizer, params.decoding.stop)
    room = least(positions_in(source, call.inputs), engine.max_model_length)
    check_lengths(prompts, encoded.ids, room)
    stop = encoded.stop
    special = special_pattern(special_tokens(tokenizer))
    served = trained or model_folder(source, call.inputs)
    ends = sorted({tokenizer.eos_token_id, *encoded.ends, *end_tokens_in(served)})
    # The server looks for stop texts in the text that it sends back.
    hides = not any(map(special.search, stop))
    bodies: list[CompletionBody] = []
    for ids, prompt in zip(encoded.ids, prompts, strict=True):
        limit = limit_of(len(ids), params.decoding.max_new_tokens, room)
        body: CompletionBody = {
            "prompt": ids,
            **sampling_of(params.decoding, prompt),
            "max_tokens": limit,
            # What is left open, the server takes from the model folder's generation_config.json.
            "top_p": params.decoding.top_p,
            "top_k": 0,
            "min_p": params.decoding.min_p,
            "repetition_penalty": 1.0,
            "stop": stop,
            "stop_token_ids": ends,
            "skip_special_tokens": hides,
        }
        if not hides:
            body["spaces_between_special_tokens"] = False
        bodies.append(body)
    asked_for = call.params.get(QUANTIZATION)
    cannot = vllm_cannot(Quantization.model_validate(asked_for)) if asked_for else ""
    base = base_of(call, cannot, is_known=call.server is not None)
    settings = {"concurrency": engine.concurrency, "timeout_s": VLLM_TIMEOUT_S}
    known_as = VLLM_KNOWN_AS.model_copy(update=settings)
    at = None if call.replay else find_vllm(call.server, engine)
    # Its calls cost no money, and no budget holds for them.
    client = Client(known_as, call.folder / TRANSCRIPT, replay=call.replay, at=at)
    started = time.monotonic()
    answered = ask_server(client, bodies, "completion", stop, None if hides else special)
    answered.notes += encoded.notes
    answered.add(base)
    answered.cost["gpu_seconds"] = 0.0 if call.replay else round(time.monotonic() - started, 3)
    return answered


def find_vllm(server: dict[str, str] | None, engine: VllmEngine) -> tuple[str, str]:
    """(base URL, the model's name there) of the server beside the stage, or of a running one.

    Raises InputError where none is named or reached, or it serves another model.
    """
    if server is not None:
        url, model_name = server["base_url"], server.get("model")
    else:
        url, model_name = engine.base_url or os.environ.get(VLLM_URL, ""), None
    if not url:
        raise InputError(
            "no vLLM server is named that could answer",
            "Run the row with the docker executor, which starts one; or start one with the row's model "
            f"and name it: {VLLM_URL}=http://127.0.0.1:8000/v1 (or eval.answer.engine.base_url).",
        )
    url = url.rstrip("/")
    served = _served_by(url)
    if model_name is None and len(served) > 1:
        raise InputError(
            f"the vLLM server at {url} serves several models: {', '.join(served)}",
            "Start one that serves the row's model alone.",
        )
    if not served or (model_name is not None and model_name not in served):
        raise InputError(
            f"the vLLM server at {url} does not serve {model_name or 'a model'}, but "
            f"{', '.join(served) or 'none'}",
            "Stop it, and start one with the row's model.",
        )
    return url, model_name or served[0]


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
