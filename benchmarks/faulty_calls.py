"""Calls to a server of which one attempt in five goes wrong: is every answer there, once?

    python benchmarks/faulty_calls.py [CALLS]

The simulated server, in a process of its own, meets 5 % each of the attempts with status 429, status
500, a reply that is cut short, and none at all. At the end the answers are compared with what the
simulated teacher says, the transcript's records with what was asked, and its attempts with the
requests that the server saw. Exits 1 if anything is missing, wrong or there twice.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.llm.client import Client  # noqa: E402
from harness.llm.reply import Reply  # noqa: E402
from harness.llm.totals import UNUSABLE  # noqa: E402
from harness.sim import server  # noqa: E402
from harness.sim.replies import teacher  # noqa: E402
from harness.spec.base import Endpoint, Simulated  # noqa: E402

CONCURRENCY = 64
TIMEOUT_S = 1.0
MAX_ATTEMPTS = 12
"""At one fault in five, the default of 6 would give up on about one call of 16,000."""
SETTINGS = Simulated(faults={"429": 0.05, "500": 0.05, "cut": 0.05, "hang": 0.05})


def serve() -> None:
    """Serve until standard input ends; prints the base URL, and at the end the requests seen."""
    with server.start(SETTINGS) as running:
        print(running.base_url, flush=True)
        sys.stdin.read()
        print(running.requests, flush=True)


def prompt(number: int) -> str:
    return f"What is the meaning of the number {number}?"


async def ask(url: str, path: Path, calls: int) -> tuple[list[Reply], dict[str, float]]:
    endpoint = Endpoint(
        model="m",
        base_url=url,
        concurrency=CONCURRENCY,
        timeout_s=TIMEOUT_S,
        max_attempts=MAX_ATTEMPTS,
    )
    bodies = [{"messages": [{"role": "user", "content": prompt(i)}]} for i in range(calls)]
    async with Client(endpoint, path) as client:
        return await client.gather(bodies), client.cost()


def outcome(attempt: dict[str, Any]) -> str:
    before, found, _ = attempt["outcome"].partition(UNUSABLE)
    return f"{before}, cut" if found else before


def main(calls: int = 10_000) -> None:
    running = subprocess.Popen(
        [sys.executable, __file__, "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert running.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transcript.jsonl"
        began = time.perf_counter()
        url = running.stdout.readline().strip()
        replies, cost = asyncio.run(ask(url, path, calls))
        seconds = time.perf_counter() - began
        seen = int(running.communicate("")[0])
        records = [json.loads(line) for line in path.read_text().splitlines()]
    outcomes = Counter(outcome(a) for record in records for a in record["attempts"])
    asked = [record["request"]["body"]["messages"][0]["content"] for record in records]
    checks = {
        "answers that are right": sum(
            reply.text == teacher.answer(prompt(i), SETTINGS.seed)
            for i, reply in enumerate(replies)
        ),
        "records in the order of asking": sum(a == prompt(i) for i, a in enumerate(asked)),
        "records": len(records),
        "records with an answer": sum(record["ok"] for record in records),
        "distinct digests": len({record["digest"] for record in records}),
    }
    print(f"{calls} calls, {CONCURRENCY} at once, in {seconds:.1f} s")
    for name, number in checks.items():
        print(f"  {number:6} {name}")
    print(f"{cost['attempts']} attempts; the server saw {seen} requests")
    for name, number in outcomes.most_common():
        print(f"  {number:6} {name}")
    if set(checks.values()) != {calls} or cost["attempts"] != seen:
        sys.exit("not every answer is there once")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(*map(int, sys.argv[1:2]))
