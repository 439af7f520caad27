"""How fast prompts are answered: tokens per second beside alpaca_eval's own Hugging Face decoder.

    python benchmarks/answer_speed.py --data FOLDER [--prompts 48] [--share 0.25] [--batch-size 16]

FOLDER holds alpaca_eval/gpt4_1106_preview_outputs.json and qwen1.5-0.5b (the tokenizer). Every
contender runs in a process of its own, one after the other, on the same AlpacaEval instructions in
Qwen's template, with the same random weights, greedily and in float32; on a GPU where there is one.

A model with random weights hardly ever ends an answer. So each prompt has a limit: the number of
tokens of the published baseline's answer to it, times --share. alpaca_eval's decoder takes one limit
for all prompts, which would have it make tokens that nobody wants; it is therefore given a stopping
criterion, through the arguments that it hands on to the library, that ends each answer at its own.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

SEED = 0
TEMPLATE = "qwen@2024-04"
PEER = "alpaca_eval's huggingface_local_completions, its defaults"
CONTENDERS = {
    "peer": PEER,
    "peer_batched": "alpaca_eval's huggingface_local_completions, in batches",
    "alone": "generate(), one prompt at a time",
    "plain": "generate() on padded batches of like length",
    "sorted": "ours, sorted",
    "continuous": "ours, continuous",
}


class Work(NamedTuple):
    """What every contender is given."""

    model: str
    batch_size: int
    texts: list[str]
    limits: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--share", type=float, default=0.25, help="of the baseline's lengths")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument(
        "--only", nargs="*", default=["peer", "plain", "sorted", "continuous"], choices=CONTENDERS
    )
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        contender, folder = arguments.run
        work = Work(**json.loads((Path(folder) / "work.json").read_text()))
        result = RUNS[contender](work)
        (Path(folder) / f"{contender}.json").write_text(json.dumps(result))
        return
    if arguments.data is None:
        parser.error("--data is needed")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    work = prepare(folder, arguments)
    total = sum(work.limits)
    print(
        f"{len(work.texts)} prompts, {total} tokens of answers (median "
        f"{statistics.median(work.limits):g}, longest {max(work.limits)}), batches of "
        f"{work.batch_size}, load {os.getloadavg()[0]:.1f}"
    )
    results = {}
    for name in arguments.only:
        results[name] = measure(name, folder)
        results[name]["load"] = os.getloadavg()[0]
    print(f"on {results[arguments.only[0]]['device']}\n")
    print(
        "| contender | tokens/s | times the peer | CPU s | times the peer | same answers | load |"
    )
    print("|---|---|---|---|---|---|---|")
    peer = results.get("peer")
    for name, result in results.items():
        speed = total / result["seconds"]
        other = peer or result
        times, cpu_times = (other[what] / result[what] for what in ("seconds", "cpu"))
        same = sum(a == b for a, b in zip(result["answers"], other["answers"], strict=True))
        print(
            f"| {CONTENDERS[name]} | {speed:.1f} | {times:.2f} | {result['cpu']:.1f} "
            f"| {cpu_times:.2f} | {same} of {len(work.texts)} | {result['load']:.1f} |"
        )
    for name, result in results.items():
        for line in ties(work, peer, result) if peer and name != "peer" else ():
            print(f"{CONTENDERS[name]}: {line}")


def measure(contender: str, folder: Path) -> dict[str, Any]:
    """One run in a process of its own, on the work.json in the folder."""
    command = [sys.executable, __file__, "--run", contender, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads((folder / f"{contender}.json").read_text())
    return result


def prepare(folder: Path, arguments: argparse.Namespace) -> Work:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from harness.modeling.text import Encoder
    from harness.spec.template import load_template

    tokenizer = AutoTokenizer.from_pretrained(arguments.data / "qwen1.5-0.5b")
    path = arguments.data / "alpaca_eval" / "gpt4_1106_preview_outputs.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows = random.Random(SEED).sample(rows, arguments.prompts)
    encoder = Encoder(tokenizer, load_template(TEMPLATE))
    texts = [tokenizer.decode(encoder.prompt(row["instruction"])) for row in rows]
    lengths = [len(tokenizer(row["output"])["input_ids"]) for row in rows]
    limits = [max(1, round(length * arguments.share)) for length in lengths]
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=len(tokenizer),
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 11 // 4,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 64,
        max_position_embeddings=8192,
        # Larger than is usual, so that the likeliest token does not hang on the last bits.
        initializer_range=0.1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    work = Work(str(folder / "model"), arguments.batch_size, texts, limits)
    (folder / "work.json").write_text(json.dumps(work._asdict()))
    return work


def run_peer(work: Work, batch_size: int = 1) -> dict[str, Any]:
    """alpaca_eval's function as it is; its own timer says how long the decoding took."""
    import transformers
    from alpaca_eval.decoders import huggingface_local as decoder

    cpu = {}

    class Timer(decoder.utils.Timer):  # type: ignore[misc]
        def __enter__(self) -> Any:
            cpu["start"] = time.process_time()
            return super().__enter__()

        def __exit__(self, *args: Any) -> Any:
            cpu["end"] = time.process_time()
            return super().__exit__(*args)

    decoder.utils.Timer = Timer
    # Newer transformers take a quantisation in another way; on a CPU the decoder says False.
    real = transformers.AutoModelForCausalLM.from_pretrained

    def load(*args: Any, **settings: Any) -> Any:
        settings.pop("load_in_8bit", None)
        return real(*args, **settings)

    decoder.AutoModelForCausalLM.from_pretrained = load
    # generate() ends at the limits; where they differ the length that it is given is never reached.
    limits = transformers.StoppingCriteriaList([Limits(work)]) if len({*work.limits}) > 1 else None
    made = decoder.huggingface_local_completions(
        work.texts,
        work.model,
        model_kwargs={"torch_dtype": "float32"},
        max_new_tokens=max(work.limits),
        batch_size=batch_size,
        **({} if limits is None else {"stopping_criteria": limits}),
    )
    seconds = made["time_per_example"][0] * len(work.texts)
    return {
        "answers": made["completions"],
        "seconds": seconds,
        "cpu": cpu["end"] - cpu["start"],
        "device": device(),
    }


class Limits:
    """Ends each prompt's answer at its own limit; the prompts come one after the other."""

    def __init__(self, work: Work) -> None:
        self.limits = iter(work.limits)
        self.left = next(self.limits)

    def __call__(self, ids: Any, scores: Any, **given: Any) -> Any:
        import torch

        self.left -= 1
        ended = self.left == 0
        if ended:
            self.left = next(self.limits, 0)
        return torch.tensor([ended], device=ids.device)


def loaded(work: Work) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # As the peer sets it.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(where).eval(), AutoTokenizer.from_pretrained(work.model)


def run_plain(work: Work) -> dict[str, Any]:
    import torch

    model, tokenizer = loaded(work)
    ids = [tokenizer(text)["input_ids"] for text in work.texts]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    answers = [""] * len(ids)
    started, cpu = time.monotonic(), time.process_time()
    for at in range(0, len(order), work.batch_size):
        batch = order[at : at + work.batch_size]
        padded = tokenizer.pad(
            {"input_ids": [ids[i] for i in batch]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            made = model.generate(
                **padded, do_sample=False, max_new_tokens=max(work.limits[i] for i in batch)
            )
        for row, i in enumerate(batch):
            new = made[row, padded["input_ids"].shape[1] :][: work.limits[i]]
            answers[i] = tokenizer.decode(new, skip_special_tokens=True)
    return timed(answers, started, cpu)


def run_ours(batching: str) -> Any:
    def run(work: Work) -> dict[str, Any]:
        from harness.answer.answer import Decoding
        from harness.answer.decoding.batch import DecodingRequest
        from harness.answer.decoding.decode import Decoder
        from harness.answer.decoding.stops import text_of

        model, tokenizer = loaded(work)
        asked = [
            DecodingRequest(i, tokenizer(text)["input_ids"], limit)
            for i, (text, limit) in enumerate(zip(work.texts, work.limits, strict=True))
        ]
        answers = [""] * len(asked)
        started, cpu = time.monotonic(), time.process_time()
        ends = [tokenizer.eos_token_id]
        decoder = Decoder(model, tokenizer, Decoding(), ends, [], work.batch_size, batching)
        for made in decoder.answers(asked):
            answers[made.index] = text_of(tokenizer, made.tokens)
        return timed(answers, started, cpu)

    return run


def timed(answers: list[str], started: float, cpu: float) -> dict[str, Any]:
    return {
        "answers": answers,
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "device": device(),
    }


def device() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return f"a CPU, {torch.get_num_threads()} threads"


def ties(work: Work, peer: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Where answers differ: by how little the two tokens differed, in logits, when they parted."""
    differing = [
        i for i, (a, b) in enumerate(zip(peer["answers"], result["answers"], strict=True)) if a != b
    ]
    if not differing:
        return []
    import torch

    model, tokenizer = loaded(work)
    told = []
    for i in differing:
        prompt = tokenizer(work.texts[i])["input_ids"]
        one, other = (
            tokenizer(r["answers"][i], add_special_tokens=False)["input_ids"]
            for r in (peer, result)
        )
        at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if at is None:
            told.append(f"prompt {i}: one answer is the other's beginning")
            continue
        with torch.inference_mode():
            ids = torch.tensor([prompt + one[:at]], device=model.device)
            best = model(ids).logits[0, -1].topk(2).values
        told.append(
            f"prompt {i} parts at token {at}; the two likeliest were {best[0] - best[1]:.2e} apart"
        )
    return told


RUNS = {
    "peer": run_peer,
    "peer_batched": lambda work: run_peer(work, work.batch_size),
    "alone": lambda work: run_plain(work._replace(batch_size=1)),
    "plain": run_plain,
    "sorted": run_ours("sorted"),
    "continuous": run_ours("continuous"),
}

if __name__ == "__main__":
    main()
