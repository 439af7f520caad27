"""Prompts asked of an OpenAI-compatible server, and its replies as outputs.

Every call is in the artefact's transcript.jsonl, from which an interrupted run and a replay go on.
"""

import asyncio
import re
import time
from collections.abc import Sequence

from harness.answer.answer import Decoding
from harness.answer.engine import NO_ANSWER, Answered
from harness.answer.outputs import Output
from harness.answer.prompts import Prompt, prompt_seed
from harness.artefact.call import TRANSCRIPT
from harness.artefact.events import Progress
from harness.artefact.manifest import Finding
from harness.llm.asking import ServedModels
from harness.llm.body import Body, RequestOptions
from harness.llm.client import Client
from harness.llm.reply import REFUSED, Kind, Reply, tokens_used, usage_is_known

SIGN_OF_LIFE_S = 2.0
"""Between two looks at how far the answers are, where none has come."""


def sampling_of(decoding: Decoding, prompt: Prompt) -> RequestOptions:
    """The decoding in a request's words; a sampled one with the prompt's own seed."""
    body: RequestOptions = {}
    if decoding.max_new_tokens is not None:
        body["max_tokens"] = decoding.max_new_tokens
    if decoding.temperature is not None:
        body["temperature"] = decoding.temperature
    if decoding.temperature:
        body["top_p"] = decoding.top_p
    if decoding.min_p:
        body["min_p"] = decoding.min_p
    if decoding.temperature != 0:
        # Servers take 32 bits at least.
        body["seed"] = prompt_seed(decoding.seed, prompt.instruction, prompt.input) % 2**31
    return body


def ask_server(
    client: Client,
    bodies: Sequence[Body],
    kind: Kind,
    stop: Sequence[str],
    special: "re.Pattern[str] | None",
) -> Answered:
    """`special`: the special tokens of texts that are sent back with them."""
    progress, done = Progress("answer", len(bodies), "prompts"), 0
    started, new, tokens = time.monotonic(), 0, 0
    served = ServedModels()
    without_text: set[int] = set()
    with_reasoning = 0
    # A batch's answers come all at once; of the others the first ones are the shortest.
    enough = client.endpoint.concurrency if client.endpoint.mode == "live" else len(bodies)

    def show() -> None:
        seconds = max(time.monotonic() - started, 1e-9)
        left = round(seconds / new * (len(bodies) - done)) if new and new >= enough else None
        progress.show(
            done, tokens=tokens, tokens_per_second=round(tokens / seconds), seconds_left=left
        )

    def take(index: int, reply: Reply) -> None:
        nonlocal with_reasoning, done, new, tokens
        served.note(reply)
        with_reasoning += _reasons_apart(reply)
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
    if with_reasoning:
        notes.append(
            f"{with_reasoning} of {len(replies)} replies came with reasoning apart from the answer: "
            f"it is in {TRANSCRIPT}, and no judge sees it"
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


def _no_answer_findings(replies: int, without_text: int) -> list[Finding]:
    if not without_text:
        return []
    message = (
        f"{without_text} of {replies} replies hold no text (no content, or calls of tools alone): "
        "they stand as empty outputs, which a judge takes for answers"
    )
    evidence = {"replies": replies, NO_ANSWER: without_text}
    return [Finding(NO_ANSWER, "warning", message, evidence)]


def _output(
    index: int, reply: Reply, stop: Sequence[str], special: "re.Pattern[str] | None"
) -> Output:
    is_counted = usage_is_known(reply.usage)
    prompt, completion = tokens_used(reply.usage) if is_counted else (None, None)
    # Some servers leave the stop text in.
    cut = min((reply.text.find(s) for s in stop if s in reply.text), default=len(reply.text))
    reason = reply.finish_reason
    if reason == REFUSED:
        return Output(index, "", REFUSED, completion, prompt)
    text = reply.text[:cut] if special is None else special.sub("", reply.text[:cut])
    return Output(index, text, reason, completion, prompt)
