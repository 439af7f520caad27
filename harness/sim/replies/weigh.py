"""Log-probs of a simulated judge whose verdict is one token, as alpaca_eval's weighted annotators ask
for them."""

import math
from typing import NotRequired, TypedDict

from harness.sim.grammar import fraction

RIVALS = {"m": "M", "M": "m"}
"""Verdict -> the other one."""


class _Token(TypedDict):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: NotRequired[list["_Token"]]


class LogProbs(TypedDict):
    content: list[_Token]
    refusal: None


def log_probs(text: str, most: int | None, seed: int, digest: str) -> LogProbs | None:
    """A chat choice's `logprobs` for such a verdict, of at most so many tokens, where they are asked
    for; None else.

    The verdict gets a share from 0.5 to 0.99, drawn from the request.
    """
    if most is None or text not in RIVALS:
        return None
    share = 0.5 + 0.49 * fraction("weigh", seed, digest)
    top = [_token(text, share), _token(RIVALS[text], 0.995 - share), _token("The", 0.005)]
    return {"content": [{**top[0], "top_logprobs": top[:most]}], "refusal": None}


def _token(text: str, share: float) -> _Token:
    return {"token": text, "logprob": math.log(max(share, 1e-9)), "bytes": list(text.encode())}
