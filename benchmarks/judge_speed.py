"""The judge stage beside alpaca_eval's own speed: 805 prompts, a slow endpoint, 64 workers.

    python benchmarks/judge_speed.py --data FOLDER [--runs 3] [--first N] [--delay 0.05] [--workers 64]

FOLDER is the data folder (../shared/data), with the oracles beside it: AlpacaEval's instructions and
baseline, and the outputs of a published model. The endpoint answers after 50 ms, from a process of
its own, with a verdict that depends on the request alone. Ours is the whole judge stage, files and
transcript included; alpaca_eval's is its `evaluate` with the same annotator and its own client. Each
has a process of its own, in turns, and is timed after its imports; processor time is that process's
alone. The preferences are compared row by row.
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BASELINE = "alpaca_eval/gpt4_1106_preview_outputs.json"
OUTPUTS = "../oracles/mini_lima/338-qwen-prompt1-results/model_outputs.json"
ANNOTATOR = "chatgpt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--first", type=int, default=805)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--side", choices=["serve", "ours", "alpaca_eval"])
    parser.add_argument("--url", default="")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.side == "serve":
        asyncio.run(serve(options.delay))
    elif options.side == "ours":
        ours(options)
    elif options.side == "alpaca_eval":
        theirs(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    def start(side: str, *more: str) -> list[str]:
        given = ["--data", str(options.data), "--first", str(options.first)]
        given += ["--delay", str(options.delay), "--workers", str(options.workers)]
        return [sys.executable, __file__, "--side", side, *given, *more]

    server = subprocess.Popen(start("serve"), stdout=subprocess.PIPE, text=True)
    told: dict[str, list[dict[str, Any]]] = {"ours": [], "alpaca_eval": []}
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for _ in range(options.runs):
            for side, runs in told.items():
                with tempfile.TemporaryDirectory() as work:
                    command = start(side, "--url", url, "--work", work)
                    with (Path(work) / "log").open("w") as log:
                        subprocess.run(command, stdout=log, stderr=log, check=True)
                    runs.append(json.loads((Path(work) / "told.json").read_text()))
    finally:
        server.terminate()
        server.wait()
    n = len(told["ours"][0]["preferences"])
    for side, runs in told.items():
        took = statistics.median(run["seconds"] for run in runs)
        low, high = (f(run["seconds"] for run in runs) for f in (min, max))
        cpu = statistics.median(run["cpu_seconds"] for run in runs)
        print(
            f"{side:12} {took:6.2f} s ({low:.2f} to {high:.2f}), {n / took:6.1f} prompts/s, "
            f"{cpu:.2f} s of processor time"
        )
    ideal = -(-n // options.workers) * options.delay
    print(f"{'the delays':12} {ideal:6.2f} s")
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(*told.values(), strict=True)]
    cpu_ratios = [b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(*told.values(), strict=True)]
    print(
        f"ratio of each pair: {', '.join(f'{r:.1f}' for r in ratios)}; of processor time: "
        f"{', '.join(f'{r:.1f}' for r in cpu_ratios)}"
    )
    first, *others = [run["preferences"] for runs in told.values() for run in runs]
    same = sum(len({first[i], *(other[i] for other in others)}) == 1 for i in range(n))
    print(f"{same} of {n} preferences the same in all {2 * options.runs} runs")


async def serve(delay: float) -> None:
    """Prints its URL, and answers until it is stopped."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(delay)
        said = json.dumps(json.loads(body)["messages"], sort_keys=True)
        place = hashlib.sha256(said.encode()).digest()[0] % 2
        message = {"role": "assistant", "content": f"Output ({'ab'[place]})"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 700, "completion_tokens": 4, "total_tokens": 704}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge"}
        return web.json_response({**head, "choices": [choice], "usage": usage})

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


def files(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(outputs, baseline) of the first so many instructions."""
    baseline = json.loads((options.data / BASELINE).read_text())[: options.first]
    by_text = {row["instruction"]: row for row in json.loads((options.data / OUTPUTS).read_text())}
    rows = [by_text[row["instruction"]]["output"] for row in baseline]
    outputs = [
        {"instruction": row["instruction"], "output": text, "generator": "model"}
        for row, text in zip(baseline, rows, strict=True)
    ]
    kept = ("instruction", "output", "generator", "dataset")
    return outputs, [{name: row[name] for name in kept} for row in baseline]


def tell(
    options: argparse.Namespace, started: tuple[float, float], rows: list[dict[str, Any]]
) -> None:
    told = {
        "seconds": time.perf_counter() - started[0],
        "cpu_seconds": time.process_time() - started[1],
        "preferences": [row["preference"] for row in rows],
    }
    (options.work / "told.json").write_text(json.dumps(told))


def ours(options: argparse.Namespace) -> None:
    import alpaca_eval.main  # noqa: F401

    from harness.artefact.call import StageCall
    from harness.judge import run as judge
    from harness.judge.kinds.alpaca_eval import judge as judge_alpaca_eval  # noqa: F401

    outputs, baseline = files(options)
    for name in ("outputs", "work"):
        (options.work / name).mkdir()
    (options.work / "outputs/model_outputs.json").write_text(json.dumps(outputs))
    (options.work / "baseline.json").write_text(json.dumps(baseline))
    at = {"path": str(options.work / "baseline.json")}
    endpoint = {"model": "judge", "base_url": options.url, "concurrency": options.workers}
    spec = {"kind": "alpaca_eval", "annotator": ANNOTATOR, "judge": endpoint, "reference": at}
    call = StageCall(
        "judge",
        "k",
        {"judge": spec, "prompts": {"file": at}, "replicate": 0},
        {"outputs": str(options.work / "outputs")},
        str(options.work / "work"),
    )
    started = time.perf_counter(), time.process_time()
    judge.run(call)
    tell(options, started, json.loads((options.work / "work/annotations.json").read_text()))


def theirs(options: argparse.Namespace) -> None:
    import yaml
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR
    from alpaca_eval.main import evaluate

    outputs, baseline = files(options)
    clients = options.work / "clients.yaml"
    clients.write_text(yaml.safe_dump({"default": [{"api_key": "none", "base_url": options.url}]}))
    folder = options.work / ANNOTATOR
    folder.mkdir()
    given = yaml.safe_load((EVALUATORS_CONFIG_DIR / ANNOTATOR / "configs.yaml").read_text())
    config = given[ANNOTATOR]
    config["prompt_template"] = str(EVALUATORS_CONFIG_DIR / config["prompt_template"])
    config["completions_kwargs"] |= {
        "model_name": "judge",
        "num_procs": options.workers,
        "client_config_path": str(clients),
        "requires_chatml": True,
        "price_per_token": 1e-6,
    }
    (folder / "configs.yaml").write_text(yaml.safe_dump(given))
    started = time.perf_counter(), time.process_time()
    _, rows = evaluate(
        model_outputs=outputs,
        reference_outputs=baseline,
        annotators_config=str(folder / "configs.yaml"),
        output_path=str(options.work),
        precomputed_leaderboard=None,
        is_cache_leaderboard=False,
        is_return_instead_of_print=True,
        fn_metric="get_winrate",
        sort_by="win_rate",
        caching_path=None,
    )
    tell(options, started, rows)


if __name__ == "__main__":
    main()
