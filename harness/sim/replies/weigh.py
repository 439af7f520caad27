"""Log-probs of a simulated judge whose verdict is one token, as alpaca_eval's weighted annotators ask
for them."""

import math
from typing import Any

from harness.sim.grammar import fraction

RIVALS = {"m": "M", "M": "m"}
"""Verdict -> the other one."""


def log_probs(text: str, body: dict[str, Any], seed: int, digest: str) -> dict[str, Any] | None:
    """A chat choice's `logprobs` for such a verdict, where they are asked for; None else.

    The verdict gets a share from 0.5 to 0.99, drawn from the request.
    """
    if not body.get("logprobs") or text not in RIVALS:
        return None
    share = 0.5 + 0.49 * fraction("weigh", seed, digest)
    top = [_token(text, share), _token(RIVALS[text], 0.995 - share), _token("The", 0.005)]
    most = body.get("top_logprobs", 0)
    return {"content": [{**top[0], "top_logprobs": top[:most]}], "refusal": None}


def _token(text: str, share: float) -> dict[str, Any]:
    return {"token": text, "logprob": math.log(max(share, 1e-9)), "bytes": list(text.encode())}
