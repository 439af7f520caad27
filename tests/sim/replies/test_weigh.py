"""The simulated judge's log-probs."""

import math

from harness.sim.replies.weigh import log_probs


def test_the_verdict_has_more_than_half_of_what_the_two_share() -> None:
    shares = []
    for seed in range(50):
        found = log_probs("M", 5, seed, "digest")
        assert found is not None
        [token] = found["content"]
        top = {one["token"]: math.exp(one["logprob"]) for one in token["top_logprobs"]}
        assert set(top) == {"m", "M", "The"}
        assert sum(top.values()) <= 1 + 1e-9
        assert token["token"] == "M"
        shares.append(top["M"] / (top["m"] + top["M"]))
    assert min(shares) > 0.5
    assert max(shares) - min(shares) > 0.3
    assert log_probs("M", 5, 3, "digest") == log_probs("M", 5, 3, "digest")


def test_there_are_none_where_none_are_asked_for_or_the_reply_is_no_such_verdict() -> None:
    assert log_probs("M", None, 0, "digest") is None
    assert log_probs("Output (a)", 5, 0, "digest") is None
