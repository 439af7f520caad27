"""The client's rate of calls beside the bare OpenAI SDK, and the memory that they take.

    python benchmarks/calls.py [CALLS, above 1000] [LATENCY_MS] [REPEATS]

A server in a process of its own answers each request after LATENCY_MS with a reply of a realistic
size. Both sides keep CONCURRENCY calls going and run in turns, each in a fresh process; the SDK has
its aiohttp client. The ideal is CALLS x LATENCY_MS / CONCURRENCY. Ours also retries, counts, digests
and writes the transcript. Growth is what the process holds at its end beyond what it held after
WARM_UP calls, and includes the replies' texts, which both sides keep.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONCURRENCY = 64
WARM_UP = 1000
REPLY = "A reply of the length that an instruction's answer often has, with some words in it. " * 16
PROMPT = "Come up with a series of diverse tasks, each with an instruction and its output. " * 30
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def held_mb() -> float:
    """Memory of this process that is in use (resident) now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def body(number: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": f"{PROMPT}\nTask {number}:"}],
        "max_tokens": 512,
        "temperature": 0.7,
    }


def serve(latency_s: float) -> None:
    """Answer chat completions until the process is ended; prints the base URL first."""
    from aiohttp import web

    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": REPLY},
            }
        ],
        "usage": {"prompt_tokens": 500, "completion_tokens": 280, "total_tokens": 780},
    }
    data = json.dumps(reply).encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency_s)
        return web.Response(body=data, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


class Meter:
    """Counts calls, and notes the memory in use after the first WARM_UP of them."""

    def __init__(self) -> None:
        self.done, self.warm_mb = 0, held_mb()

    def count(self) -> None:
        self.done += 1
        if self.done == WARM_UP:
            self.warm_mb = held_mb()


async def ours(url: str, calls: int, meter: Meter) -> float:
    from harness.llm.client import Client
    from harness.spec.base import Endpoint

    endpoint = Endpoint(model="bench", base_url=url, concurrency=CONCURRENCY)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        async with Client(endpoint, Path(folder) / "transcript.jsonl") as client:
            replies = await client.gather(
                [body(number) for number in range(calls)], lambda index, reply: meter.count()
            )
        seconds = time.perf_counter() - began
    assert [reply.text for reply in replies] == [REPLY] * calls
    return seconds


async def sdk(url: str, calls: int, meter: Meter) -> float:
    import openai

    numbers = iter(range(calls))
    texts: list[str | None] = [None] * calls
    began = time.perf_counter()
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", http_client=openai.DefaultAioHttpClient()
    ) as client:

        async def work() -> None:
            for number in numbers:
                reply = await client.chat.completions.create(model="bench", **body(number))
                texts[number] = reply.choices[0].message.content
                meter.count()

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - began
    assert texts == [REPLY] * calls
    return seconds


def one(side: str, url: str, calls: int) -> None:
    """One run in this process; prints its seconds and megabytes as JSON."""
    meter = Meter()
    seconds = asyncio.run({"ours": ours, "sdk": sdk}[side](url, calls, meter))
    print(json.dumps({"seconds": seconds, "held": held_mb(), "growth": held_mb() - meter.warm_mb}))


def main(calls: int = 5000, latency_ms: int = 500, repeats: int = 3) -> None:
    this = [sys.executable, __file__]
    server = subprocess.Popen([*this, "serve", str(latency_ms)], stdout=subprocess.PIPE, text=True)
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "sdk": []}
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for _ in range(repeats):
            for side, results in runs.items():
                done = subprocess.run(
                    [*this, "one", side, url, str(calls)],
                    stdout=subprocess.PIPE,
                    check=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
                results.append(json.loads(done.stdout))
    finally:
        server.terminate()
        server.wait()
    ideal = calls * latency_ms / 1000 / CONCURRENCY
    print(f"{calls} calls, {latency_ms} ms, {CONCURRENCY} at once, median of {repeats}")
    print(f"ideal  {ideal:7.2f} s  {calls / ideal:7.1f} calls/s")
    texts = (calls - WARM_UP) * len(REPLY) / 1e6
    for side, results in runs.items():
        seconds = [r["seconds"] for r in results]
        middle = statistics.median(seconds)
        growth, held = (statistics.median(r[k] for r in results) for k in ("growth", "held"))
        print(
            f"{side:5}  {middle:7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  "
            f"{calls / middle:7.1f} calls/s  {ideal / middle:6.1%} of the ideal  "
            f"held {held:.0f} MB, growth {growth:.1f} MB (texts {texts:.1f})"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]) / 1000)
    elif sys.argv[1:2] == ["one"]:
        one(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*map(int, sys.argv[1:4]))
