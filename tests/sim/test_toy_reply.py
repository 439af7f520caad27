"""A new sort of reply is a module with `matches` and `reply`, and a name in the server's list."""

import pytest

from harness.sim import server
from harness.sim.reply import Query
from harness.spec.base import Simulated
from tests.sim.test_server import chat, post, text_of


class Shouted:
    """Says again what is to be shouted."""

    def matches(self, prompt: str) -> bool:
        return prompt.startswith("Shout: ")

    def reply(self, query: Query) -> str:
        text = query.prompt.removeprefix("Shout: ")
        return text if query.wrong else f"{text.upper()} {query.seed}{'!' if query.turned else ''}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Simulated(seed=3), "HOT 3"),
        (Simulated(seed=3, error_rate=1.0), "HOT 3!"),
        (Simulated(seed=3, faults={"format": 1.0}), "hot"),
    ],
)
def test_a_toy_reply_is_given_to_its_prompts_and_to_no_others(
    settings: Simulated, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REPLIES", (Shouted(), *server.REPLIES))
    with server.start(settings) as running:
        assert text_of(post(running, chat("Shout: hot"))) == said
        assert "cold" in text_of(post(running, chat("What is the opposite of hot?")))
