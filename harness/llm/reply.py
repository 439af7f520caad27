"""What a teacher or judge model answered, and whether a response is one at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

Kind = Literal["chat", "completion"]
Body = Mapping[str, Any]
"""A request's JSON without `model`: OpenAI's fields, and whatever else a server takes."""

TOKENS = ("prompt_tokens", "completion_tokens")

REFUSED = "refused"
"""`finish_reason` of a reply in place of which the server declined this one prompt."""

CONTENT_FILTER = "content_filter"
DECLINED = (REFUSED, CONTENT_FILTER)
"""`finish_reason` where the server declined a prompt, or cut its reply off, for what is in them: asking
again brings the same."""
FAILED = "error"
"""`finish_reason` of a choice that a provider behind the server failed to make."""

MOST_NESTED = 100
"""Lists and objects within each other in a response; a model's answer has fewer than ten."""
_TOO_DEEP = "nested too deeply"
MOST_TOKENS = 10**9
"""What a response reports beyond it is no count of one call's tokens."""


class Usage(TypedDict, total=False):
    """A server's own figures; some fill in anything."""

    prompt_tokens: Any
    completion_tokens: Any
    total_tokens: Any


class Response(TypedDict, total=False):
    """A server's JSON, of which only what `check_response` looks at is sure."""

    choices: list[Any]
    model: Any
    usage: Any
    error: Any
    simulated: Any


class BrokenReply(Exception):
    """A response with status 200 that is not a model's answer: cut, HTML, or another shape."""


class ProviderError(BrokenReply):
    """A response with status 200 that holds an error in place of an answer, or of a part of it.

    error: what the server says of it. of_choice: whether it is a choice's, and not the request's.
    """

    def __init__(self, error: Any, of_choice: bool) -> None:
        message = error.get("message") if isinstance(error, dict) else error
        super().__init__(f"an error: {str(message or 'no reason given')[:200]}")
        self.error, self.of_choice = error, of_choice


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered call. `text` is the first choice's; "" when the server declined the prompt.

    usage: the server's own figures ({} when it gives none). raw: the response's whole JSON.
    simulated: whether the answer says that it is. reused: taken from the transcript, not asked.
    """

    text: str
    finish_reason: str | None
    served_model: str
    usage: Usage
    raw: Response
    simulated: bool
    reused: bool
    request: int = 0
    """Its line in the finished transcript, from 0."""

    @property
    def is_declined(self) -> bool:
        return self.finish_reason in DECLINED

    @property
    def why(self) -> str | None:
        """What the server declined the prompt for; None where it answered."""
        if not self.is_declined:
            return None
        error = self.raw.get("error")
        if not isinstance(error, dict):
            return self.finish_reason
        kind = error.get("reason") or error.get("code") or REFUSED
        return f"{kind}: {error['message']}" if error.get("message") else str(kind)


def parse_response(text: str, kind: Kind) -> Response:
    """The JSON object in a response's body.

    Raises:
        BrokenReply: it is not the JSON of a model's answer of this kind.
    """
    try:
        raw = json.loads(text)
    except ValueError:
        raise BrokenReply(f"not JSON: {_start(text)}") from None
    except RecursionError:
        raise BrokenReply(_TOO_DEEP) from None
    return check_response(raw, kind, text)


def check_response(raw: Any, kind: Kind, text: str) -> Response:
    """The response `raw`, whose JSON is `text`, if it is a model's answer; raises as above."""
    if is_nested_deeper(raw, MOST_NESTED):
        raise BrokenReply(_TOO_DEEP)
    response: Response = cast(Response, raw) if isinstance(raw, dict) else {}
    if failure := provider_error(response):
        raise failure
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BrokenReply(f"no choices in it: {_start(text)}")
    choice = choices[0]
    part = "message" if kind == "chat" else "text"
    expected = dict if kind == "chat" else str
    if isinstance(choice, dict) and choice.get("finish_reason") == CONTENT_FILTER:
        return response
    if not isinstance(choice, dict) or not isinstance(choice.get(part), expected):
        raise BrokenReply(f"no {part} in its first choice: {_start(text)}")
    messages = [c.get("message") for c in choices if isinstance(c, dict)]
    for message in messages if kind == "chat" else []:
        if isinstance(message, dict):
            message["content"] = _content(message.get("content"), text)
    return response


def _content(content: Any, text: str) -> str | None:
    """A message's text, of which some servers make a list of parts; its reasoning is no part of it.

    Raises:
        BrokenReply: it is neither.
    """
    if content is None or isinstance(content, str):
        return content
    parts = [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []
    if not parts or len(parts) != len(content) or any("type" not in p for p in parts):
        raise BrokenReply(f"no text in its message: {_start(text)}")
    texts = [p.get("text") for p in parts if p["type"] in ("text", "output_text")]
    return "".join(t for t in texts if isinstance(t, str))


def provider_error(raw: Response) -> ProviderError | None:
    """The error that a response holds in place of an answer, or of one of its choices."""
    if raw.get("error"):
        return ProviderError(raw["error"], of_choice=False)
    choices = raw.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        error = choice.get("error") or (message.get("error") if isinstance(message, dict) else None)
        reason = choice.get("finish_reason") or choice.get("native_finish_reason")
        if error or reason == FAILED:
            return ProviderError(error, of_choice=True)
    return None


def is_nested_deeper(value: Any, most: int) -> bool:
    """Whether a JSON value has more than `most` lists and objects within each other."""
    level = [value]
    for _ in range(most + 1):
        inner = [v for v in level if isinstance(v, (dict, list))]
        if not inner:
            return False
        level = [item for v in inner for item in (v.values() if isinstance(v, dict) else v)]
    return True


def reply_from(raw: Response, reused: bool, request: int = 0) -> Reply:
    """A reply from a response that `parse_response` accepted, or from a refusal's error body."""
    simulated = raw.get("simulated") is True
    if not raw.get("choices"):
        return Reply("", REFUSED, "", {}, raw, simulated, reused, request)
    choice = raw["choices"][0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    finish_reason = choice.get("finish_reason")
    return Reply(
        text=text if isinstance(text, str) else "",
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        # JSON can hold half a surrogate pair, which UTF-8 cannot.
        served_model=str(raw.get("model") or "").encode("utf-8", "replace").decode("utf-8"),
        usage=raw["usage"] if isinstance(raw.get("usage"), dict) else {},
        raw=raw,
        simulated=simulated,
        reused=reused,
        request=request,
    )


def tokens_used(usage: Usage) -> tuple[int, int]:
    """(prompt tokens, completion tokens) that a response reports; 0 for what is no count."""
    prompt, completion = (_count(usage.get(name)) for name in TOKENS)
    return prompt or 0, completion or 0


def usage_is_known(usage: Usage) -> bool:
    """Whether a response reports both; some servers fill in 0 for what they do not count."""
    counts = [_count(usage.get(name)) for name in TOKENS]
    return None not in counts and any(counts)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _start(text: str) -> str:
    return repr(text[:80]) if text else "an empty body"
