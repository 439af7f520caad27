"""A line of the transcript."""

from typing import NotRequired, TypedDict

from harness.llm.reply import Body, Kind, Response, Usage


class Request(TypedDict):
    """What a call's digest is of. Whoever changes this makes every older transcript useless."""

    kind: Kind
    model: str
    body: Body
    endpoint: str


class Attempt(TypedDict):
    """One try at a call: how it ended (a status, `timeout`, or what was wrong), and in how long."""

    outcome: str
    batch: NotRequired[str]
    seconds: NotRequired[float]
    waited: NotRequired[float]
    """Seconds between it and the next one."""


class CallRecord(TypedDict):
    """One call, answered or failed for good."""

    digest: str
    occurrence: int
    request: Request
    response: Response
    served_model: str
    usage: Usage
    attempts: list[Attempt]
    started: str
    """ISO, UTC."""
    seconds: float
    ok: bool
    batch: NotRequired[str]
    """The Batch API's id of the batch that it was in."""
    error: NotRequired[str]
    """Why it failed for good."""
