"""How long the answer stage's decoder takes for AlpacaEval's 805 prompts on one GPU, beside vLLM.

    python benchmarks/answer_gpu.py --data FOLDER

FOLDER is that of answer_speed.py. The model has Qwen1.5-0.5B's true shape and random weights, in
bfloat16; each answer is as long as the published baseline's (--share of it), for both, so that both
make the same number of tokens. Each contender has a process of its own, and the card alone. vLLM is
one where its package is installed. A server of it is measured in three steps, as it takes the card:

    python benchmarks/answer_gpu.py --data FOLDER --keep KEPT    (ours; writes the model KEPT/model)
    vllm serve KEPT/model --served-model-name model --dtype bfloat16
    python benchmarks/answer_gpu.py --data FOLDER --keep KEPT --only server --vllm http://HOST:8000/v1

--cpu-trial runs the same code on a CPU with a very small model: its figures mean nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from answer_speed import Work, device, prepare

GOAL = 1.5
"""Times vLLM's time: what is to be reached."""
CONCURRENCY = 256
"""Requests to a server at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=805)
    parser.add_argument("--share", type=float, default=1.0, help="of the baseline's lengths")
    parser.add_argument("--batch-size", type=int, help="of ours; left open: what fits")
    parser.add_argument("--vllm", default="", help="address of a server that serves the model")
    parser.add_argument("--keep", type=Path, help="folder for the model and the figures of each")
    parser.add_argument("--only", nargs="*", choices=RUNS, help="what is run now")
    parser.add_argument("--cpu-trial", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, folder = arguments.run
        work = Work(**json.loads((Path(folder) / "work.json").read_text()))
        result = RUNS[name](work, arguments) | {"limits": sum(work.limits)}
        (Path(folder) / f"{name}.json").write_text(json.dumps(result))
        return
    if arguments.data is None:
        parser.error("--data is needed")
    arguments.hidden, arguments.layers = (64, 2) if arguments.cpu_trial else (1024, 24)
    if arguments.cpu_trial:
        arguments.prompts, arguments.share = min(arguments.prompts, 6), 0.05
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(folder, prepare(folder, arguments), arguments)


def compare(folder: Path, work: Work, arguments: argparse.Namespace) -> None:
    total = sum(work.limits)
    there = {"package": find_spec("vllm"), "server": arguments.vllm}
    names = [name for name in arguments.only or RUNS if there.get(name, True)]
    for name in names:
        command = [sys.executable, __file__, *sys.argv[1:], "--run", name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
    paths = [(name, folder / f"{name}.json") for name in RUNS]
    results = {name: json.loads(path.read_text()) for name, path in paths if path.is_file()}
    results = {name: result for name, result in results.items() if result["limits"] == total}
    hardware = dict.fromkeys(r["device"] for r in results.values() if "device" in r)
    print(f"{len(work.texts)} prompts, {total} tokens of answers, on {', '.join(hardware)}\n")
    print(f"| contender | at a time | seconds | tokens/s | times vLLM's time (goal {GOAL}) |")
    print("|---|---|---|---|---|")
    peer = min((results[name]["seconds"] for name in there if name in results), default=None)
    for name, result in results.items():
        times = "" if peer is None else f"{result['seconds'] / peer:.2f}"
        made = result["tokens"]
        print(
            f"| {NAMES[name]} | {result['at_a_time']} | {result['seconds']:.1f} "
            f"| {made / result['seconds']:.0f} | {times} |"
            + ("" if made == total else f" only {made} tokens")
        )
    if peer is None:
        print("\nno vLLM here: neither the package nor --vllm", file=sys.stderr)


def run_ours(work: Work, arguments: argparse.Namespace, batching: str) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.answer.answer import Decoding
    from harness.answer.decoding.batch import DecodingRequest
    from harness.answer.decoding.decode import Decoder

    where = "cpu" if arguments.cpu_trial else "cuda"
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.bfloat16)
    model, tokenizer = model.to(where).eval(), AutoTokenizer.from_pretrained(work.model)
    prompts = [tokenizer(text)["input_ids"] for text in work.texts]
    asked = [DecodingRequest(i, ids, work.limits[i]) for i, ids in enumerate(prompts)]
    # No token ends an answer: vLLM is told so too.
    decoder = Decoder(model, tokenizer, Decoding(), [], [], arguments.batch_size, batching)
    list(decoder.answers([DecodingRequest(0, prompts[0], 16)]))
    started = time.monotonic()
    tokens = sum(len(made.tokens) for made in decoder.answers(asked))
    seconds = time.monotonic() - started
    told = {"at_a_time": decoder.batch_size, "device": device()}
    return {"seconds": seconds, "tokens": tokens, **told}


def run_package(work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    tokenizer = AutoTokenizer.from_pretrained(work.model)
    prompts = [{"prompt_token_ids": tokenizer(text)["input_ids"]} for text in work.texts]
    settings = [
        SamplingParams(temperature=0, max_tokens=limit, ignore_eos=True) for limit in work.limits
    ]
    server = LLM(model=work.model, dtype="bfloat16")
    server.generate(prompts[:1], settings[:1], use_tqdm=False)
    started = time.monotonic()
    made = server.generate(prompts, settings, use_tqdm=False)
    seconds = time.monotonic() - started
    tokens = sum(len(one.outputs[0].token_ids) for one in made)
    return {"seconds": seconds, "tokens": tokens, "at_a_time": "its own", "device": device()}


def run_server(work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    from openai import OpenAI
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.model)
    prompts = [tokenizer(text)["input_ids"] for text in work.texts]
    client = OpenAI(base_url=arguments.vllm, api_key="none", timeout=3600)

    def ask(ids: list[int], limit: int) -> int:
        made = client.completions.create(
            model="model",
            prompt=ids,
            max_tokens=limit,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
        return made.usage.completion_tokens if made.usage else 0

    ask(prompts[0], 16)
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        started = time.monotonic()
        tokens = sum(threads.map(ask, prompts, work.limits))
        seconds = time.monotonic() - started
    return {"seconds": seconds, "tokens": tokens, "at_a_time": CONCURRENCY}


RUNS: dict[str, Any] = {
    "package": run_package,
    "server": run_server,
    "sorted": lambda work, arguments: run_ours(work, arguments, "sorted"),
    "continuous": lambda work, arguments: run_ours(work, arguments, "continuous"),
}
NAMES = {
    "package": "vLLM", "server": "vLLM's server", "sorted": "ours, sorted",
    "continuous": "ours, continuous",
}  # fmt: skip

if __name__ == "__main__":
    main()
