"""The bodies of requests as OpenAI's API has them, as far as this code makes them."""

from typing import Required, TypedDict, final


class Message(TypedDict):
    role: str
    content: str


class RequestOptions(TypedDict, total=False):
    """What is left open is not sent; the server's own word then holds."""

    temperature: float
    top_p: float
    max_tokens: int
    presence_penalty: float
    frequency_penalty: float
    stop: list[str]
    seed: int
    top_k: int
    """From here on: what servers of open models take beside OpenAI's."""
    min_p: float
    repetition_penalty: float
    stop_token_ids: list[int]
    add_special_tokens: bool
    skip_special_tokens: bool
    spaces_between_special_tokens: bool


@final
class ChatBody(RequestOptions):
    messages: Required[list[Message]]


@final
class CompletionBody(RequestOptions):
    prompt: Required[str | list[str] | list[int]]


Body = ChatBody | CompletionBody
