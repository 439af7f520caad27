"""The simulated server's Batch API, through the real OpenAI SDK."""

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.sim.server import Server, start
from harness.spec.base import Simulated

openai = pytest.importorskip("openai")


def request(name: str, text: str, **body: Any) -> dict[str, Any]:
    return {
        "custom_id": name,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": text}], **body},
    }


class Sdk:
    """The SDK at a server, and the steps of a batch."""

    def __init__(self, server: Server, key: str = "k") -> None:
        self.client = openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)

    def upload(self, requests: list[dict[str, Any]] | bytes) -> str:
        data = requests
        if not isinstance(data, bytes):
            data = "\n".join(json.dumps(r) for r in requests).encode()
        file = self.client.files.create(file=("b.jsonl", io.BytesIO(data)), purpose="batch")
        return str(file.id)

    def create(self, file: str, endpoint: str = "/v1/chat/completions") -> Any:
        return self.client.batches.create(
            input_file_id=file, endpoint=endpoint, completion_window="24h"
        )

    def ended(self, batch: Any) -> Any:
        until = time.monotonic() + 5
        seen = [batch.status]
        while seen[-1] not in ("completed", "failed", "expired", "cancelled"):
            assert time.monotonic() < until
            time.sleep(0.005)
            batch = self.client.batches.retrieve(batch.id)
            seen.append(batch.status)
        self.seen = list(dict.fromkeys(seen))
        return batch

    def results(self, file: str | None) -> dict[str, Any]:
        if file is None:
            return {}
        lines = self.client.files.content(file).text.splitlines()
        return {r["custom_id"]: r for r in map(json.loads, lines)}


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    with start(Simulated()) as server:
        yield Sdk(server)


def with_fault(fault: str) -> Server:
    return start(Simulated.model_validate({"faults": {fault: 1.0}}))


def test_a_batch_goes_from_validating_to_completed_and_answers_as_live_calls_do() -> None:
    texts = {"a": "What is the opposite of hot?", "b": "Capital of Peru?", "c": "Write a poem."}
    with start(Simulated(), batch_delay_s=0.2) as server:
        sdk = Sdk(server)
        batch = sdk.ended(sdk.create(sdk.upload([request(n, t) for n, t in texts.items()])))
        assert sdk.seen == ["validating", "in_progress", "completed"]
        assert batch.request_counts.model_dump() == {"total": 3, "completed": 3, "failed": 0}
        assert batch.error_file_id is None
        results = sdk.results(batch.output_file_id)
        assert list(results) == list(texts)
        for name, text in texts.items():
            live = sdk.client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}]
            )
            body = results[name]["response"]["body"]
            assert results[name]["response"]["status_code"] == 200
            assert body == live.model_dump(exclude_unset=True)
        assert server.requests == 6


def test_text_completions_have_batches_too(sdk: Sdk) -> None:
    asked = {"custom_id": "a", "url": "/v1/completions", "body": {"model": "m", "prompt": "Hi"}}
    batch = sdk.ended(sdk.create(sdk.upload([asked]), "/v1/completions"))
    body = sdk.results(batch.output_file_id)["a"]["response"]["body"]
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"]


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500)])
def test_a_fault_is_in_the_error_file(fault: str, status: int) -> None:
    with with_fault(fault) as server:
        sdk = Sdk(server)
        batch = sdk.ended(sdk.create(sdk.upload([request("a", "Hi")])))
        assert (batch.status, batch.output_file_id) == ("completed", None)
        assert batch.request_counts.failed == 1
        result = sdk.results(batch.error_file_id)["a"]
    assert result["response"]["status_code"] == status
    assert "simulated" in result["response"]["body"]["error"]["message"]


def test_a_cut_reply_comes_with_status_200_and_a_body_that_is_no_object() -> None:
    with with_fault("cut") as server:
        sdk = Sdk(server)
        batch = sdk.ended(sdk.create(sdk.upload([request("a", "Hi")])))
        result = sdk.results(batch.output_file_id)["a"]
    assert result["response"]["status_code"] == 200
    assert isinstance(result["response"]["body"], str)


def test_a_request_that_hangs_makes_the_batch_expire_with_the_other_answers() -> None:
    settings = Simulated.model_validate({"seed": 4, "faults": {"hang": 0.3}})
    with start(settings) as server:
        sdk = Sdk(server)
        batch = sdk.ended(sdk.create(sdk.upload([request(str(i), f"Say {i}.") for i in range(20)])))
        assert batch.status == "expired"
        answered, failed = sdk.results(batch.output_file_id), sdk.results(batch.error_file_id)
    assert len(answered) + len(failed) == 20
    assert 1 <= len(failed) <= 12
    assert {r["error"]["code"] for r in failed.values()} == {"batch_expired"}
    assert {r["response"] for r in failed.values()} == {None}


def test_a_request_that_cannot_be_served_fails_alone(sdk: Sdk) -> None:
    batch = sdk.ended(sdk.create(sdk.upload([request("a", "Hi", n=2), request("b", "Hi")])))
    assert list(sdk.results(batch.output_file_id)) == ["b"]
    refused = sdk.results(batch.error_file_id)["a"]["response"]
    assert refused["status_code"] == 400
    assert "leave n at 1" in refused["body"]["error"]["message"]


def test_a_cancelled_batch_keeps_what_it_answered() -> None:
    with start(Simulated(faults={"slow": 0.0}), batch_delay_s=0.4) as server:
        sdk = Sdk(server)
        batch = sdk.create(sdk.upload([request("a", "Hi")]))
        assert sdk.client.batches.cancel(batch.id).status == "cancelling"
        batch = sdk.ended(batch)
        assert batch.status == "cancelled"
        assert sdk.results(batch.error_file_id)["a"]["error"]["code"] == "batch_cancelled"
        with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
            sdk.client.batches.cancel(batch.id)
        assert server.requests == 0


@pytest.mark.parametrize(
    ("requests", "code", "line"),
    [
        (b"{\n", "invalid_json_line", 1),
        (b"", "empty_file", None),
        ([request("a", "x"), request("a", "y")], "duplicate_custom_id", 2),
        ([request("a", "x") | {"url": "/v1/completions"}], "mismatched_url", 1),
        ([request("a", "x"), request("b", "y", model="n")], "model_mismatch", None),
    ],
)
def test_a_file_that_is_no_batch_fails_with_the_line(
    sdk: Sdk, requests: Any, code: str, line: int | None
) -> None:
    batch = sdk.ended(sdk.create(sdk.upload(requests)))
    assert batch.status == "failed"
    assert [(e.code, e.line) for e in batch.errors.data] == [(code, line)]


def test_batches_are_listed_the_newest_first_page_by_page(sdk: Sdk) -> None:
    file = sdk.upload([request("a", "x")])
    made = [sdk.create(file).id for _ in range(5)]
    assert [b.id for b in sdk.client.batches.list(limit=2)] == made[::-1]


def test_what_is_not_there_or_not_allowed_is_told(sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError, match="no such batch"):
        sdk.client.batches.retrieve("batch_x")
    with pytest.raises(openai.NotFoundError, match="no such file"):
        sdk.client.files.content("file-x")
    with pytest.raises(openai.BadRequestError, match="no such input file"):
        sdk.create("file-x")
    with pytest.raises(openai.BadRequestError, match="endpoint must be"):
        sdk.create(sdk.upload([request("a", "x")]), "/v1/embeddings")
    with pytest.raises(openai.BadRequestError, match="purpose batch"):
        sdk.client.files.create(file=b"x", purpose="fine-tune")
    with start(Simulated(), require_key="right") as guarded:
        with pytest.raises(openai.AuthenticationError):
            Sdk(guarded, "wrong").upload([request("a", "x")])
        assert Sdk(guarded, "right").upload([request("a", "x")]).startswith("file-")
