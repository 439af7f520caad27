"""Answers of a model behind any OpenAI-compatible endpoint."""

import re

from harness.answer.answer import Decoding
from harness.answer.decoding.stops import special_looks_in, special_pattern
from harness.answer.engine import Answered, AnswerTask
from harness.answer.engines.endpoint import EndpointEngine
from harness.answer.prompts import Prompt
from harness.answer.served import ask_server, sampling_of
from harness.errors import InputError
from harness.llm.body import Body, ChatBody, CompletionBody, Message
from harness.llm.client import open_client
from harness.llm.reply import Kind
from harness.modeling.load import load_tokenizer
from harness.modeling.tokenizer_template import special_tokens


def answer_by_endpoint(task: AnswerTask, engine: EndpointEngine) -> Answered:
    """Raises what harness.llm.client raises, and InputError for a template that is no plain text."""
    call, params, source, prompts = task.call, task.params, task.source, task.prompts
    kind: Kind = engine.api
    if kind == "chat":
        looks = special_looks_in(params.decoding.stop)
        if looks and source is not None:
            looks += special_tokens(load_tokenizer(source, call.inputs))
        special = special_pattern(looks)
        bodies: list[Body] = [chat_body(prompt, engine, params.decoding) for prompt in prompts]
        stop = params.decoding.stop
    else:
        texts, stop, special, has_opening = _texts(task)
        bodies = []
        for text, prompt in zip(texts, prompts, strict=True):
            body: CompletionBody = {"prompt": text, **sampling_of(params.decoding, prompt)}
            if stop:
                body["stop"] = stop
            if has_opening:
                body["add_special_tokens"] = False
            bodies.append(body)
    # Servers of open models look for stop texts in what they send back, which is without special
    # tokens unless this is said. OpenAI's own, whose texts hold none, takes no such word.
    shows = engine.endpoint.base_url is not None and any(map(special.search, stop))
    if shows:
        for request in bodies:
            request["skip_special_tokens"] = False
    client = open_client(call, engine.endpoint, engine.transcript)
    answered = ask_server(client, bodies, kind, stop, special if shows else None)
    answered.used["model"] = engine.endpoint.model
    return answered


def chat_body(prompt: Prompt, engine: EndpointEngine, decoding: Decoding) -> ChatBody:
    """The request: the set's system text, or else the engine's, earlier turns, and what is asked."""
    system = prompt.system or engine.system
    content = f"{prompt.asked}\n{prompt.input}" if prompt.input else prompt.asked
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for user, answer in prompt.history:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": content})
    body: ChatBody = {"messages": messages, **sampling_of(decoding, prompt)}
    if decoding.stop:
        body["stop"] = decoding.stop
    return body


def _texts(task: AnswerTask) -> tuple[list[str], list[str], "re.Pattern[str]", bool]:
    """The prompts as the template writes them, the texts that end an answer, the special tokens, and
    whether the prompts have the opening that the server's tokenizer would put there.

    Raises InputError where it needs a tokenizer's tokens, and the row has no model.
    """
    from harness.modeling.chat_template import opening_of
    from harness.modeling.template_pieces import ending, pieces, text_before_token
    from harness.modeling.text import Encoder

    params, source, prompts = task.params, task.source, task.prompts
    template = params.template
    if template is None:
        raise InputError("the answer stage was given no template")
    tokens: dict[str, str] = {}
    opening, has_opening = "", False
    special: re.Pattern[str] | None = None
    if source is not None:
        tokenizer = load_tokenizer(source, task.call.inputs)
        tokens = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
        encoder = Encoder(tokenizer, template)
        special = special_pattern([*special_tokens(tokenizer), *template.special])
        written = [encoder.pieces(p.asked, p.input, None, p.system, p.history) for p in prompts]
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
        written = [pieces(template, p.asked, p.input, None, p.system, p.history) for p in prompts]
        ends = list(template.stop)
    end = [] if template.from_tokenizer else ending(template)
    if end and not any(piece.token for piece in end):
        ends.append("".join(piece.text for piece in end))
    elif source is None:
        looks = special_pattern([*special_looks_in([p.text for p in end]), *template.special])
        ends += [before] if (before := text_before_token(end, looks)) else []
    if any(piece.token and piece.token not in tokens for parts in written for piece in parts):
        raise InputError(
            f"the template {template.name or 'of the spec'} has tokens of the tokenizer's own in its "
            "prompt, and the row has no model with one",
            "Name the model in the spec, a template of text alone, or api: chat.",
        )
    texts = ["".join(tokens.get(piece.token, piece.text) for piece in parts) for parts in written]
    if opening and not any(piece.opens for parts in written for piece in parts):
        if all(text.startswith(opening) for text in texts):
            # The server puts it there.
            texts = [text.removeprefix(opening) for text in texts]
        else:
            has_opening = True
    stop = list(dict.fromkeys([*ends, *params.decoding.stop]))
    if special is None:
        # What else looks like a special token can be the answer's own text.
        special = special_pattern([*special_looks_in(stop), *template.special])
    return texts, stop, special, has_opening
