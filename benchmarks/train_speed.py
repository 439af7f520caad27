"""How fast a model is trained: real tokens per second beside TRL, LLaMA-Factory and the dense limit.

    python benchmarks/train_speed.py --data FOLDER --llamafactory PYTHON

FOLDER holds alpagasus/claude_t45.json and qwen1.5-0.5b (the tokenizer); PYTHON is the interpreter
of an environment with LLaMA-Factory (README.md beside this file says how to make one; without it,
it is left out). Every contender runs in a process of its own, in turns, on the same texts, from the
same weights, in float32. Prints the tables of README.md.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

PEERS = Path(__file__).resolve().parent / "peers"

# The two prompts of Stanford Alpaca.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:"
)

CUTOFF = 1024
EXAMPLES = 32
MICRO = 8
"""Examples of a forward pass, TRL's default; four of them make its step here."""
LEARNING_RATE = 1e-4


class Shape(NamedTuple):
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int | None
    """Token ids are hashed down to so many; None: the tokenizer's own number."""
    steps: int
    """Timed, after a first one."""


SHAPES = {
    "layers": Shape(512, 8, 8, 1408, 8192, 6),
    "vocabulary": Shape(256, 4, 4, 704, None, 2),
}


class Contender(NamedTuple):
    name: str
    script: str
    settings: dict[str, Any]


OURS = "ours"
CONTENDERS = [
    Contender(OURS, "ours.py", {}),
    Contender("dense limit, rows of 128", "dense.py", {"row": 128, "batch": 24, "micro": 8}),
    Contender(
        "dense limit, rows of 128, loss at 45 % of the places",
        "dense.py",
        {"row": 128, "batch": 24, "micro": 8, "labels": 0.45},
    ),
    Contender("dense limit, rows of 1024", "dense.py", {"row": 1024, "batch": 3, "micro": 1}),
    Contender("TRL padded, its defaults", "trl_trainer.py", {}),
    Contender(
        "TRL padded, no gradient checkpointing",
        "trl_trainer.py",
        {"settings": {"gradient_checkpointing": False}},
    ),
    Contender(
        "LLaMA-Factory neat_packing, its defaults",
        "llamafactory_trainer.py",
        {"settings": {"packing": True, "neat_packing": True}, "batch": 3, "micro": 1},
    ),
    Contender(
        "LLaMA-Factory neat_packing, no gradient checkpointing",
        "llamafactory_trainer.py",
        {
            "settings": {
                "packing": True,
                "neat_packing": True,
                "disable_gradient_checkpointing": True,
            },
            "batch": 3,
            "micro": 1,
        },
    ),
    Contender(
        "LLaMA-Factory packing, no gradient checkpointing (examples attend to each other)",
        "llamafactory_trainer.py",
        {
            "settings": {"packing": True, "disable_gradient_checkpointing": True},
            "batch": 3,
            "micro": 1,
        },
    ),
]


def texts(data: Path, vocabulary: int | None) -> tuple[list[dict[str, str]], list[int], int]:
    """The examples as words, one for each of their tokens, so that every contender gets the very
    same tokens by splitting at spaces; their lengths with the end token; the words there are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(data / "qwen1.5-0.5b")
    words = vocabulary - 2 if vocabulary else len(tokenizer)
    records = json.loads((data / "alpagasus" / "claude_t45.json").read_text(encoding="utf-8"))

    def worded(text: str) -> list[str]:
        # Knuth's multiplicative hash, so that frequent ids (which are low) do not fall together.
        ids = tokenizer(text)["input_ids"]
        return [f"t{i * 2654435761 % 2**32 % words if vocabulary else i}" for i in ids]

    rows, lengths = [], []
    for record in records:
        if not record["output"].strip():
            continue
        prompt = worded((ALPACA_INPUT if record["input"] else ALPACA).format(**record))
        answer = worded(record["output"])
        lengths.append(len(prompt) + len(answer) + 1)
        rows.append({"instruction": " ".join(prompt), "input": "", "output": " ".join(answer)})
    return rows, lengths, words


def write_model(folder: Path, shape: Shape, words: int) -> int:
    """A Qwen2 model with random weights, and a tokenizer of words. Returns the pad token's id."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    made = Tokenizer(models.WordLevel({f"t{i}": i for i in range(words)}, unk_token="t0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<pad>", "<eos>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate,
        vocab_size=-(-len(tokenizer) // 64) * 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    print(f"{model.num_parameters():,} parameters, vocabulary {config.vocab_size:,}")
    return int(tokenizer.pad_token_id)


def measure(contender: Contender, common: dict[str, Any], python: str) -> dict[str, Any]:
    """One run in a process of its own; raises RuntimeError with the end of what it said."""
    with tempfile.TemporaryDirectory(dir=Path(common["data"]).parent) as folder:
        out, job = Path(folder) / "out.json", Path(folder) / "job.json"
        job.write_text(
            json.dumps(
                {"batch": EXAMPLES, "micro": MICRO, **common, **contender.settings}
                | {"work": str(Path(folder) / "work"), "out": str(out)}
            )
        )
        settings = os.environ | {
            "OMP_NUM_THREADS": str(common["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HOME": str(Path(folder) / "hub"),
        }
        done = subprocess.run(
            [python, str(PEERS / contender.script), str(job)],
            capture_output=True, text=True, env=settings,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{contender.name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        said: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    first, last = said["ends"][0], said["ends"][-1]
    seconds = last["at"] - first["at"]
    said["rate"] = (last["tokens"] - first["tokens"]) / seconds
    said["cpu_rate"] = (last["tokens"] - first["tokens"]) / (last["cpu"] - first["cpu"])
    said["real"] = last["tokens"] / last["slots"]
    said["step_tokens"] = (last["tokens"] - first["tokens"]) / (len(said["ends"]) - 1)
    return said


def rates(found: list[dict[str, Any]], which: str, ours: list[dict[str, Any]]) -> str:
    """Two cells: the median (minimum to maximum), and how many times as fast ours is."""
    values = [said[which] for said in found]
    middle = statistics.median(values)
    ratio = f"{statistics.median([said[which] for said in ours]) / middle:.2f}" if ours else ""
    return f"{middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {ratio}"


def print_rates(runs: dict[str, list[dict[str, Any]]], all_tokens: int) -> None:
    """The second rate leaves out the time in which other work had the processors; with more than
    one thread it counts their waiting for each other too."""
    print(
        "\n| | tokens/s | ours / it | tokens per processor second | ours / it | real, of the tokens "
        "computed | tokens a step | of all tokens, prepared | peak MiB |\n|" + " --- |" * 9
    )
    for name, found in runs.items():
        ours, said = runs.get(OURS, []), found[0]
        kept = f"{100 * said['there'] / all_tokens:.2f} %" if "there" in said else ""
        peak = statistics.median([said["peak_mib"] for said in found])
        print(
            f"| {name} | {rates(found, 'rate', ours)} | {rates(found, 'cpu_rate', ours)} | "
            f"{100 * said['real']:.0f} % | {said['step_tokens']:,.0f} | {kept} | {peak:,.0f} |"
        )


def print_losses(
    contenders: list[Contender],
    common: dict[str, Any],
    pythons: dict[str, str],
    rows: list[dict[str, str]],
    lengths: list[int],
) -> None:
    """The same 32 examples in each of five steps: all tokens must be seen, and the curves agree but
    for float sums."""
    data = Path(common["data"]).with_name("few.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:EXAMPLES]))
    there = sum(lengths[:EXAMPLES])
    print(
        f"\n| the same {EXAMPLES} examples in each step | tokens a step, of {there:,} | loss per "
        "token, steps 1 to 5 | largest difference from the first line |\n|" + " --- |" * 4
    )
    first: list[float] = []
    for contender in contenders:
        if contender.script == "dense.py":
            continue
        said = measure(
            contender, common | {"data": str(data), "steps": 5}, pythons[contender.script]
        )
        losses = said["losses"][:5]
        first = first or losses
        apart = max(abs(a - b) for a, b in zip(first, losses, strict=True))
        curve = ", ".join(f"{loss:.4f}" for loss in losses)
        print(
            f"| {contender.name} | {said['step_tokens']:,.0f} | {curve} | {apart:.0e} |", flush=True
        )


def compare(
    name: str, options: argparse.Namespace, pythons: dict[str, str], only: list[str]
) -> None:
    shape = SHAPES[name]
    contenders = [c for c in CONTENDERS if c.script in pythons and (not only or c.name in only)]
    with tempfile.TemporaryDirectory(prefix="train_speed_") as folder:
        rows, lengths, words = texts(options.data, shape.vocabulary)
        both = list(zip(rows, lengths, strict=True))
        random.Random(0).shuffle(both)
        rows, lengths = [row for row, _ in both], [length for _, length in both]
        print(f"\n### {name}: {shape}\n")
        pad = write_model(Path(folder) / "model", shape, words)
        print(
            f"{len(rows):,} examples, {sum(lengths):,} tokens, mean {statistics.mean(lengths):.1f}, "
            f"longest {max(lengths)}; over the cutoff of {CUTOFF}: "
            f"{sum(n > CUTOFF for n in lengths)}"
        )
        data = Path(folder) / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        common = {
            "model": str(Path(folder) / "model"), "data": str(data), "pad": pad,
            "cutoff": CUTOFF, "threads": options.threads, "steps": (options.steps or shape.steps) + 1,
            "learning_rate": LEARNING_RATE, "scheduler": "constant", "between": " ",
        }  # fmt: skip
        runs: dict[str, list[dict[str, Any]]] = {c.name: [] for c in contenders}
        for turn in range(options.rounds):
            for contender in contenders if turn % 2 == 0 else contenders[::-1]:
                load = os.getloadavg()[0]
                said = measure(contender, common, pythons[contender.script])
                runs[contender.name].append(said)
                about = (
                    f"round {turn + 1}, {contender.name}: {said['rate']:.0f} tokens/s, "
                    f"{said['cpu_rate']:.0f} a processor second (load before: {load:.1f})"
                )
                print(about, file=sys.stderr, flush=True)
        if options.rounds:
            print_rates(runs, sum(lengths))
        if not options.no_losses:
            print_losses(contenders, common, pythons, rows, lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--llamafactory", help="the Python of an environment that holds it")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed, after the first one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", default=[], help="names of contenders")
    parser.add_argument("--no-losses", action="store_true")
    options = parser.parse_args()
    pythons = dict.fromkeys(("ours.py", "dense.py", "trl_trainer.py"), sys.executable)
    if options.llamafactory:
        pythons["llamafactory_trainer.py"] = options.llamafactory
    print(f"{options.threads} threads of {len(os.sched_getaffinity(0))} processors, "
          f"{options.rounds} rounds")  # fmt: skip
    for name in options.shapes:
        compare(name, options, pythons, options.only)


if __name__ == "__main__":
    main()
