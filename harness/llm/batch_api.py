"""The requests that OpenAI's Batch API consists of: files up, batches, files down; with retries."""

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import IO, Any, TypedDict, TypeVar, cast

import httpx2
import openai

from harness.errors import HarnessError, InputError
from harness.llm.calls import PATHS, Connection
from harness.llm.faults import (
    CONNECTION_FAULTS,
    PromptRefused,
    Transient,
    fault_of_connection,
    fault_of_status,
    gave_up,
    with_retries,
)
from harness.llm.reply import Kind
from harness.llm.secrets import redact

COMPLETION_WINDOW = "24h"
"""The one that the API knows."""
TRANSFER_TIMEOUT_S = 600.0
"""For a file of up to 200 MB, where the endpoint's timeout_s is shorter."""
PAGE, MOST_PAGES = 100, 10
"""Of the server's list of batches, the newest first."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_ABSENT = (404, 405, 501)

T = TypeVar("T")


class BatchState(TypedDict, total=False):
    """The API's batch object, as far as it is read; nothing in it is sure."""

    id: Any
    status: Any
    input_file_id: Any
    output_file_id: Any
    error_file_id: Any
    errors: Any
    request_counts: Any


class Absent(Exception):
    """The server does not have what was asked for."""


class Unlisted(Exception):
    """The server does not say which batches there are; of the file `file` there may be one."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file


class BatchApi:
    """The Batch API at an open endpoint.

    Every method raises HarnessError when there is no answer in the endpoint's `max_attempts`, and
    InputError when the request or the key is not accepted.
    """

    def __init__(self, connection: Connection) -> None:
        self._line = connection
        timeout_s = connection.endpoint.timeout_s
        self._timeout_s = timeout_s
        self._transfer_timeout_s = max(timeout_s, TRANSFER_TIMEOUT_S)

    async def upload(self, data: bytes) -> str:
        """The id of a file of requests, uploaded.

        Raises:
            InputError: the server has no Batch API.
        """

        async def once() -> str:
            async with asyncio.timeout(self._transfer_timeout_s):
                http = await self._line.sdk.files.with_raw_response.create(
                    file=("batch.jsonl", data), purpose="batch", timeout=self._transfer_timeout_s
                )
            return _id_in(_object(http.text))

        return await self._needed(once)

    async def create(self, file: str, kind: Kind) -> str:
        """The id of a batch made of an uploaded file; of one request for it, never two.

        Raises:
            InputError: the server has no Batch API.
            Unlisted: the request had no answer, and there may or may not be a batch.
        """
        sent = False

        async def once() -> str:
            nonlocal sent
            # An attempt without an answer may have made the batch, which then costs money.
            if sent and (batch := await self._search(file)):
                return batch
            sent = True
            body = {
                "input_file_id": file,
                "endpoint": f"/v1{PATHS[kind]}",
                "completion_window": COMPLETION_WINDOW,
            }
            async with asyncio.timeout(self._timeout_s):
                http = await self._line.sdk.post("/batches", cast_to=httpx2.Response, body=body)
            return _id_in(_object(http.text))

        return await self._needed(once)

    async def find(self, file: str) -> str | None:
        """The id of the batch that was made of an uploaded file, if one was.

        Raises:
            Unlisted: nobody can know.
        """
        return await self._tried(lambda: self._search(file))

    async def retrieve(self, batch: str) -> BatchState:
        """How a batch stands: the API's batch object.

        Raises:
            Absent: the server knows no such batch.
        """
        batch_object = await self._tried(lambda: self._get(f"/batches/{batch}"))
        redacted: BatchState = json.loads(redact(json.dumps(batch_object), self._line.key))
        return redacted

    async def download(self, file: str) -> IO[bytes]:
        """A file's bytes, in an unnamed file beside the transcript.

        Raises:
            Absent: the server has no such file, or no longer.
        """
        return await self._tried(lambda: self._download(file))

    async def _download(self, file: str) -> IO[bytes]:
        if not _ID.fullmatch(file):
            raise Absent
        folder = self._line.transcript.path.parent
        target = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            async with (
                asyncio.timeout(self._transfer_timeout_s),
                self._line.sdk.files.with_streaming_response.content(
                    file, timeout=self._transfer_timeout_s
                ) as http,
            ):
                async for part in http.iter_bytes():
                    target.write(part)
        except BaseException:
            target.close()
            raise
        target.seek(0)
        return target

    async def _search(self, file: str) -> str | None:
        try:
            async for batch in self._listed():
                if batch.get("input_file_id") == file:
                    return _id_in(batch)
        except openai.APIStatusError as e:
            if e.status_code in _ABSENT:
                raise Unlisted(file) from None
            raise
        return None

    async def _listed(self) -> AsyncIterator[BatchState]:
        params: dict[str, object] = {"limit": PAGE}
        for _ in range(MOST_PAGES):
            page = await self._get("/batches", params)
            batches: list[BatchState] = [
                cast(BatchState, b) for b in page.get("data") or [] if isinstance(b, dict)
            ]
            for batch in batches:
                yield batch
            if not page.get("has_more") or not batches:
                return
            params["after"] = batches[-1].get("id")

    async def _get(self, path: str, params: Mapping[str, object] | None = None) -> dict[str, Any]:
        async with asyncio.timeout(self._timeout_s):
            http = await self._line.sdk.get(
                path, cast_to=httpx2.Response, options={"params": params or {}}
            )
        return _object(http.text)

    async def _needed(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._tried(call)
        except Absent:
            raise InputError(
                f"{self._line.url} has no Batch API",
                hint="set mode: live for this endpoint in the spec",
            ) from None

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        line = self._line
        attempts = 0

        async def once() -> T:
            nonlocal attempts
            attempts += 1
            try:
                return await call()
            except openai.APIStatusError as e:
                if e.status_code in _ABSENT:
                    raise Absent from None
                body = redact(e.response.text, line.key)
                fault = fault_of_status(e.status_code, e.response.headers, body, line)
                if isinstance(fault, PromptRefused):
                    fault = HarnessError(f"{line.url} does not accept the batch ({e.status_code})")
                raise fault from None
            except CONNECTION_FAULTS as e:
                raise fault_of_connection(e) from None

        try:
            return await with_retries(once, line.endpoint.max_attempts)
        except Transient as e:
            raise gave_up(e, attempts, line) from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Transient("an answer that is not JSON")
    return value


def _id_in(value: Mapping[str, object]) -> str:
    name = value.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise Transient("an answer without an id")
    return name
