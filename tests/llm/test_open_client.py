"""The client of a recipe's calls, where a spec gives recorded ones."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import TRANSCRIPT, StageCall
from harness.errors import InputError
from harness.llm.client import open_client
from harness.llm.replay import ReplayMiss
from harness.llm.reply import Reply
from harness.llm.transcript import digest_of
from harness.spec.base import Data, Endpoint
from tests.llm.fake_server import ask, completion

ENDPOINT = Endpoint(model="m", base_url="http://127.0.0.1:9/v1", api_key_env="NOT_SET")


def record(body: dict[str, Any]) -> bytes:
    request = {"kind": "chat", "model": "m", "body": body, "endpoint": ENDPOINT.base_url}
    fields = {
        "digest": digest_of(request),
        "occurrence": 0,
        "request": request,
        "response": completion("fine"),
        "served_model": "served-1",
        "usage": {},
        "attempts": [{"outcome": "200"}],
        "ok": True,
    }
    return json.dumps(fields).encode() + b"\n"


def calls(work: Path, given: Path, bodies: list[Any], replay: bool = False) -> list[Reply]:
    work.mkdir(exist_ok=True)
    call = StageCall("gen", "k", {}, {}, str(work), replay=replay)

    async def run() -> list[Reply]:
        async with open_client(call, ENDPOINT, Data(path=str(given))) as client:
            return await client.gather(bodies)

    return asyncio.run(run())


def test_a_given_transcript_is_copied_whole_and_answers_every_try(tmp_path: Path) -> None:
    given, work = tmp_path / "given.jsonl", tmp_path / "work"
    given.write_bytes(record(ask("b")) + record(ask("a"))[:-1])
    for _ in range(2):
        [reply] = calls(work, given, [ask("a")])
        assert (reply.text, reply.request) == ("fine", 1)
        assert (work / TRANSCRIPT).read_bytes() == given.read_bytes()
        assert [path.name for path in work.iterdir()] == [TRANSCRIPT]


def test_what_a_given_transcript_lacks_is_told_of_the_file_in_the_spec(tmp_path: Path) -> None:
    given, work = tmp_path / "given.jsonl", tmp_path / "work"
    given.write_bytes(record(ask("a")))
    for _ in range(2):
        with pytest.raises(ReplayMiss) as caught:
            calls(work, given, [ask("b")])
        assert f"the transcript {given} lacks" in caught.value.message
        assert str(work) not in str(caught.value)
    given.write_bytes(b"{}\n" + record(ask("a")))
    with pytest.raises(InputError, match=r"given\.jsonl:1: this line"):
        calls(work, given, [ask("a")])


def test_a_replay_of_the_stage_needs_only_the_artefacts_own_copy(tmp_path: Path) -> None:
    given, work = tmp_path / "given.jsonl", tmp_path / "work"
    given.write_bytes(record(ask("a")))
    calls(work, given, [ask("a")])
    given.unlink()
    assert calls(work, given, [ask("a")], replay=True)[0].text == "fine"


def test_a_folder_or_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder cannot be read: Is a directory"):
        calls(tmp_path / "work", tmp_path / "folder", [ask("a")])
    with pytest.raises(InputError, match=r"absent cannot be read: No such file"):
        calls(tmp_path / "work", tmp_path / "absent", [ask("a")])
    assert list((tmp_path / "work").iterdir()) == []
