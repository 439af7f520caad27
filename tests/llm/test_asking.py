"""Asking again where a reply cannot be read, and knowing who answered."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.client import open_client
from harness.llm.replay import ReplayMiss
from harness.llm.reply import Reply
from harness.spec.base import Data
from tests.llm.batch_server import BatchServer
from tests.llm.fake_server import Answer, FakeServer, ask, completion, failure, last_message


def stage(folder: Path, **more: Any) -> StageCall:
    folder.mkdir(exist_ok=True)
    return StageCall("judge", "k", {}, {}, str(folder), **more)


def number(reply: Reply) -> int | None:
    return int(reply.text) if reply.text.isdigit() else None


def asked(
    call: StageCall,
    server: FakeServer,
    texts: list[str],
    asks: int,
    given: Data | None = None,
    served: ServedModels | None = None,
    **settings: Any,
) -> tuple[list[str], list[tuple[int, str]]]:
    """The replies' texts, and what on_done was told."""
    told: list[tuple[int, str]] = []

    async def run() -> list[Reply]:
        async with open_client(call, server.endpoint(**settings), given) as client:
            return await ask_until_read(
                client,
                [ask(text) for text in texts],
                number,
                asks,
                lambda index, reply: told.append((index, reply.text)),
                served=served,
            )

    return [reply.text for reply in asyncio.run(run())], told


def third_time(body: dict[str, Any], seen: int) -> Answer:
    """Even texts get a number at once, odd ones the third time."""
    text = last_message(body)
    return text if int(text) % 2 == 0 or seen >= 2 else f"not yet {seen}"


def test_each_body_is_asked_until_its_reply_can_be_read(tmp_path: Path) -> None:
    texts = [str(i) for i in range(8)]
    with FakeServer(third_time) as server:
        replies, told = asked(stage(tmp_path / "a"), server, texts, asks=3)
        assert len(server.requests) == 4 + 4 * 3
        assert replies == texts
        assert sorted(told) == list(enumerate(texts))
        server._seen.clear()
        replies, told = asked(stage(tmp_path / "b"), server, texts, asks=2)
    assert replies == ["0", "not yet 1", "2", "not yet 1", "4", "not yet 1", "6", "not yet 1"]
    assert sorted(told) == list(enumerate(replies))


def test_bodies_that_are_the_same_are_told_apart_and_replayed_so(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        return ["no", "1", "2", "3"][seen]

    texts = ["x", "x", "x"]
    with FakeServer(script) as server:
        call = stage(tmp_path / "a")
        replies, _ = asked(call, server, texts, asks=2, concurrency=1)
        assert replies == ["3", "1", "2"]
        # Again: from the transcript alone.
        assert asked(call, server, texts, asks=2)[0] == replies
        assert len(server.requests) == 4
        replayed = stage(tmp_path / "a", replay=True)
        assert asked(replayed, server, texts, asks=2)[0] == replies
        with pytest.raises(ReplayMiss):
            asked(replayed, server, [*texts, "y"], asks=2)
        # The spec's own recorded calls: copied, and never added to.
        given = Data(path=str(call.folder / "transcript.jsonl"))
        other = stage(tmp_path / "b")
        assert asked(other, server, texts, asks=2, given=given)[0] == replies
        assert len(server.requests) == 4
    copied = (other.folder / "transcript.jsonl").read_bytes()
    assert copied == (call.folder / "transcript.jsonl").read_bytes()


def test_recorded_calls_that_are_not_there_are_bad_input(tmp_path: Path) -> None:
    with FakeServer(third_time) as server:
        given = Data(path=str(tmp_path / "absent.jsonl"))
        with pytest.raises(InputError, match=r"absent\.jsonl cannot be read"):
            asked(stage(tmp_path / "a"), server, ["0"], asks=1, given=given)


def test_a_declined_prompt_is_not_asked_again(tmp_path: Path) -> None:
    with FakeServer(lambda body, seen: failure(400, "no", code="content_filter")) as server:
        replies, told = asked(stage(tmp_path / "a"), server, ["1"], asks=5)
        assert len(server.requests) == 1
    assert (replies, told) == ([""], [(0, "")])


def changing(body: dict[str, Any], seen: int) -> Answer:
    text = last_message(body)
    return web.json_response(completion(text, model="late" if int(text) >= 5 else "early"))


@pytest.mark.parametrize("mode", ["live", "replay"])
def test_a_change_of_model_is_counted_or_stops_the_calls(tmp_path: Path, mode: str) -> None:
    texts = [str(i) for i in range(40)]
    with FakeServer(changing) as server:
        served = ServedModels("flag")
        asked(stage(tmp_path / "a"), server, texts, 1, served=served, concurrency=1)
        assert served.counts == {"early": 5, "late": 35}
        assert served.notes() == ["the replies came from early, late"]
        [finding] = served.findings()
        assert (finding.kind, finding.severity) == ("model_changed", "warning")
        assert "late (35 replies)" in finding.message
        server.requests.clear()
        call = stage(tmp_path / ("a" if mode == "replay" else "b"), replay=mode == "replay")
        served = ServedModels("stop", call.folder)
        with pytest.raises(HarnessError, match="answered as early and as late, and the") as stop:
            asked(call, server, texts, 1, served=served, concurrency=1)
        assert "dated version" in stop.value.hint
        assert f"remove the work folder {call.folder} to ask" in stop.value.hint
        if mode == "live":
            lines = (call.folder / "transcript.jsonl").read_text().splitlines()
            assert len(server.requests) == 6
            assert all(json.loads(line)["ok"] for line in lines)
            assert len(lines) == 6


def test_a_batch_is_recorded_whole_before_a_change_of_model_stops_the_calls(tmp_path: Path) -> None:
    texts = [str(i) for i in range(10)]
    with BatchServer(changing) as server:
        call = stage(tmp_path / "a")
        with pytest.raises(HarnessError, match="on_model_change: stop"):
            asked(call, server, texts, 1, served=ServedModels("stop"))
        assert len((call.folder / "transcript.jsonl").read_text().splitlines()) == 10


def test_a_change_of_model_is_told_the_same_whichever_reply_comes_first() -> None:
    def message(*models: str) -> str:
        served = ServedModels("stop")
        for model in models[:-1]:
            served.note(Reply("x", "stop", model, {}, {}, False, False))
        with pytest.raises(HarnessError) as stop:
            served.note(Reply("x", "stop", models[-1], {}, {}, False, False))
        return stop.value.message

    assert message("a", "b") == message("b", "b", "b", "a")


def test_one_model_throughout_is_not_noted_and_a_declined_prompt_is() -> None:
    served = ServedModels("stop")
    reply = Reply("x", "stop", "one", {}, {}, False, False)
    for _ in range(3):
        served.note(reply)
    # Where the server declined a prompt it names no model.
    served.note(Reply("", "refused", "", {}, {}, False, False))
    told = "the server declined 1 of 4 requests for what is in them: refused (1)"
    assert (served.notes(), served.findings()) == ([told], [])
    assert served.counts == {"one": 3}
