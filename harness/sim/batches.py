"""The simulated server's Batch API: files, batches, and a life of validating to completed."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

from aiohttp import web

from harness.sim.refusal import Refused

DELAY_S = 0.05
"""From a batch's creation to its end, beyond the time that its answers take."""
KINDS = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
MOST_REQUESTS = 50_000
ENDED = ("completed", "failed", "expired", "cancelled")

Held = TypeVar("Held")
Answer = Callable[[str, Any], Awaitable[web.Response | None]]
"""(kind, body) -> what a live request would get; None where it would hang."""


class _Batch(TypedDict):
    id: str
    object: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    metadata: object
    request_counts: dict[str, int]
    output_file_id: str | None
    error_file_id: str | None
    errors: dict[str, object] | None
    simulated: bool


class Batches:
    """Files and batches, held in memory until the server ends."""

    def __init__(self, answer: Answer, delay_s: float = DELAY_S) -> None:
        self._answer, self._delay_s = answer, delay_s
        self._files: dict[str, object] = {}
        self._contents: dict[str, bytes] = {}
        self._batches: dict[str, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, web.FileField):
            raise Refused(400, "the form has no file")
        if purpose != "batch":
            raise Refused(400, "the simulated server takes files of the purpose batch alone")
        return web.json_response(self._files[self._keep(file.file.read(), file.filename, "batch")])

    async def describe_file(self, request: web.Request) -> web.Response:
        return web.json_response(_look_up(self._files, request, "file"))

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=_look_up(self._contents, request, "file"))

    async def create(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            file, endpoint = body["input_file_id"], body["endpoint"]
            window = body["completion_window"]
        except (ValueError, KeyError, TypeError):
            raise Refused(
                400, "a batch has an input_file_id, an endpoint and a completion_window"
            ) from None
        if endpoint not in KINDS:
            raise Refused(400, f"endpoint must be one of {', '.join(KINDS)}")
        if file not in self._contents:
            raise Refused(400, "there is no such input file")
        batch: _Batch = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "batch",
            "endpoint": endpoint,
            "input_file_id": file,
            "completion_window": window,
            "status": "validating",
            "created_at": 0,
            "metadata": body.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "simulated": True,
        }
        self._batches[batch["id"]] = batch
        task = asyncio.create_task(self._work(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.json_response(batch)

    async def retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(_look_up(self._batches, request, "batch"))

    async def list_all(self, request: web.Request) -> web.Response:
        """The newest first; `after` and `limit` as in OpenAI's API."""
        ids = list(reversed(self._batches))
        after = request.query.get("after")
        if after in self._batches:
            ids = ids[ids.index(after) + 1 :]
        try:
            limit = int(request.query.get("limit", 20))
        except ValueError:
            raise Refused(400, "limit must be a whole number") from None
        data = [self._batches[name] for name in ids[:limit]]
        more = len(ids) > limit
        return web.json_response({"object": "list", "data": data, "has_more": more})

    async def cancel(self, request: web.Request) -> web.Response:
        batch = _look_up(self._batches, request, "batch")
        if batch["status"] in ENDED:
            raise Refused(400, f"the batch is {batch['status']} and cannot be cancelled")
        batch["status"] = "cancelling"
        return web.json_response(batch)

    async def _work(self, batch: _Batch) -> None:
        await asyncio.sleep(self._delay_s / 2)
        data = self._contents[batch["input_file_id"]]
        requests, errors = _read_requests(data, batch["endpoint"])
        if errors:
            batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": errors}
            return
        counts = batch["request_counts"]
        counts["total"] = len(requests)
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        answered: list[str] = []
        failed: list[str] = []
        is_expired = False
        unanswered = "batch_expired"
        for name, body in requests:
            response = None
            if batch["status"] == "cancelling":
                unanswered = "batch_cancelled"
            else:
                response = await self._answer(KINDS[batch["endpoint"]], body)
            good = response is not None and response.status == 200
            is_expired |= response is None
            (answered if good else failed).append(_result(name, response, unanswered))
            counts["completed" if good else "failed"] += 1
        await asyncio.sleep(self._delay_s / 2)
        if answered:
            batch["output_file_id"] = self._keep_results(answered)
        if failed:
            batch["error_file_id"] = self._keep_results(failed)
        if batch["status"] == "cancelling":
            batch["status"] = "cancelled"
        elif is_expired:
            batch["status"] = "expired"
        else:
            batch["status"] = "completed"

    def _keep_results(self, results: Iterable[str]) -> str:
        data = "".join(f"{result}\n" for result in results)
        return self._keep(data.encode(), "results.jsonl", "batch_output")

    def _keep(self, data: bytes, filename: str, purpose: str) -> str:
        """The file's id."""
        name = f"file-{secrets.token_hex(12)}"
        self._files[name] = {
            "id": name,
            "object": "file",
            "bytes": len(data),
            "created_at": 0,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        self._contents[name] = data
        return name


def _look_up(held: Mapping[str, Held], request: web.Request, what: str) -> Held:
    try:
        return held[request.match_info["id"]]
    except KeyError:
        raise Refused(404, f"there is no such {what}") from None


def _read_requests(data: bytes, endpoint: str) -> tuple[list[tuple[str, Any]], list[object]]:
    """(each request's own name and body, errors as a failed batch tells them)."""
    requests: list[tuple[str, Any]] = []
    errors: list[object] = []
    custom_ids: set[str] = set()
    models: set[Any] = set()

    def refuse(line: int | None, code: str, message: str) -> None:
        errors.append({"code": code, "line": line, "message": message, "param": None})

    for number, line in enumerate(data.splitlines(), start=1):
        try:
            request = json.loads(line)
            name, url, body = str(request["custom_id"]), request["url"], request["body"]
            models.add(body["model"])
        except (ValueError, KeyError, TypeError):
            refuse(number, "invalid_json_line", "this line is not a request")
            continue
        if name in custom_ids:
            refuse(number, "duplicate_custom_id", f"the custom_id {name} is there twice")
        if url != endpoint:
            refuse(number, "mismatched_url", f"the url is not the batch's, {endpoint}")
        custom_ids.add(name)
        requests.append((name, body))
    if not requests and not errors:
        refuse(None, "empty_file", "the file holds no request")
    if len(models) > 1:
        refuse(None, "model_mismatch", "the requests of a batch must all be for one model")
    if len(requests) > MOST_REQUESTS:
        refuse(None, "too_many_requests", f"a batch takes {MOST_REQUESTS} requests")
    return requests, errors


def _result(name: str, response: web.Response | None, unanswered: str) -> str:
    """A line of a batch's results."""
    request_id, error, http = f"batch_req_{secrets.token_hex(8)}", None, None
    if response is None:
        message = "simulated: the batch ended before this request was answered"
        error = {"code": unanswered, "message": message}
    else:
        assert isinstance(response.body, bytes)
        text = response.body.decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = text
        http = {"status_code": response.status, "request_id": request_id, "body": body}
    result = {"id": request_id, "custom_id": name, "response": http, "error": error}
    return json.dumps(result, ensure_ascii=False)
