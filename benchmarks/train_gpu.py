"""How near a training comes to what one GPU's matrix units can do, and the memory that it takes.

    python benchmarks/train_gpu.py --data FOLDER [--batch-size 128]

FOLDER holds alpagasus/claude_t45.json and qwen1.5-0.5b (configuration and tokenizer). The card's rate
is measured first, with large square bfloat16 matrices. Then a model of Qwen1.5-0.5B's shape with
random weights is trained on these texts by the train stage, in bfloat16, by each method, each in a
process of its own: full, LoRA of rank 8 on all linear layers, QLoRA, and ORPO with the next example's
answer as the rejected one. Prints one table. --cpu-trial runs the same code on a CPU, with a very
small shape: its figures mean nothing.

Tokens are real ones, prompts included. The time goes from the end of the fifth optimizer step to the
end of the last one, by a hook on the optimizer that waits for the device at these two steps alone.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.modeling.load import available_device, device_name, load_tokenizer
from harness.modeling.memory import need as memory
from harness.modeling.memory import shapes
from harness.modeling.memory.shapes import Shape
from harness.spec.base import Data
from harness.spec.model_source import ModelSource
from harness.spec.template import load_template
from harness.spec.train import Train

if TYPE_CHECKING:
    from harness.train.data import EncodedExamples

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "lora": {"rank": 8, "target_modules": "all-linear"}},
    "qlora": {"method": "qlora", "lora": {"rank": 8, "target_modules": "all-linear"}},
    "orpo": {"method": "full", "objective": "orpo"},
}
SHAPE = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings",
    "rms_norm_eps", "rope_theta", "initializer_range",
)  # fmt: skip
"""What is taken from config.json: the rest is of an older transformers, or decides nothing."""
TARGET = 0.4
"""Of the measured rate: what is to be reached."""
LEFT_OUT = 5
"""Optimizer steps before the clock starts."""
SIDE, ROUNDS, WARM = 8192, 20, 5
"""Of the matrices whose product gives the card's rate, and how often it is made."""


@dataclass(frozen=True)
class Size:
    """What is trained, and for how long. A trial is a run of the script, not a measurement."""

    steps: int
    batch_size: int
    left_out: int = LEFT_OUT
    side: int = SIDE
    threads: int | None = None
    switches: dict[str, bool] = field(default_factory=dict)
    """Fields of the train stage that the command line turns on or off."""


TRIAL = Size(steps=3, batch_size=4, left_out=1, side=256, threads=1)
TRIAL_LAYERS, TRIAL_HIDDEN = 2, 64


@dataclass(frozen=True)
class Work:
    """Of the timed steps: how many, seconds, all tokens, and those that logits are made for."""

    steps: int
    seconds: float
    tokens: int
    labels: int


class Clock:
    """Notes the time at the end of two optimizer steps. The device is waited for there alone, so that
    the steps between are queued as in any other run."""

    def __init__(self, first: int, last: int) -> None:
        self.wanted, self.steps = (first, last), 0
        self.times: list[float] = []

    def __call__(self, *_: Any) -> None:
        self.steps += 1
        if self.steps in self.wanted:
            _wait()
            self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        if len(self.times) != 2:
            raise RuntimeError(f"the optimizer took {self.steps} steps, not {self.wanted[1]}")
        return self.times[1] - self.times[0]


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate(side: int) -> tuple[str, float]:
    """The device's name, and its FLOP/s: median of 20 products of bfloat16 matrices."""
    import torch

    device = available_device()
    # Normal draws, since a card runs faster on zeros, which cost it less power.
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(WARM + ROUNDS):
        _wait()
        begun = time.perf_counter()
        torch.mm(a, b, out=out)
        _wait()
        seconds.append(time.perf_counter() - begun)
    return device_name(device), 2 * side**3 / statistics.median(seconds[WARM:])


def model_flops(train: Train, shape: Shape, work: Work) -> float:
    """Of the matrices that the weights are, for the timed steps.

    A parameter costs a token 2 FLOPs forward and 2 for the gradient of its input; one that is trained
    2 more, for its own. The layers' N parameters meet every token, the head's H those with a label:
    full: 6 N tokens + 6 H labels; with adapters of A parameters: (4 N + 6 A) tokens + 4 H labels, which
    is 4 (N + A) and the adapters' own 2 A. (Under adapters nothing needs the gradient of the first
    layer's input: with 24 layers that is 0.4 % too much.) Attention's products of activations, norms,
    the optimizer, and whatever is computed twice or unpacked from 4 bits are left out.
    """
    layers = shape.layers * shape.linear_parameters
    head = shape.vocabulary * shape.hidden
    each = 6 if train.lora is None else 4
    adapters = 0 if train.lora is None else 6 * memory.trained_parameters(train, shape)
    return (each * layers + adapters) * work.tokens + each * head * work.labels


def configuration(folder: Path, layers: int | None, hidden: int | None) -> dict[str, Any]:
    """Qwen1.5-0.5B's. Another width keeps the heads' size and the ratio of the layers' widths."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = {name: said[name] for name in SHAPE}
    if hidden is not None:
        wide, heads = config["hidden_size"], config["num_attention_heads"]
        if hidden < 1 or hidden % (wide // heads):
            raise SystemExit(f"--hidden: a multiple of {wide // heads}, the size of a head")
        config["num_attention_heads"] = config["num_key_value_heads"] = hidden * heads // wide
        config["intermediate_size"] = config["intermediate_size"] * hidden // wide
        config["hidden_size"] = hidden
    if layers is not None:
        config["num_hidden_layers"] = layers
    return config


def write_data(records: Path, folder: Path) -> dict[str, Path]:
    """The examples with an answer, for SFT; and ORPO's pairs, the next one's answer as the rejected."""
    found = json.loads(records.read_text(encoding="utf-8"))
    rows = [{n: r[n] for n in ("instruction", "input", "output")} for r in found]
    rows = [row for row in rows if row["output"].strip()]
    pairs = [
        {"instruction": row["instruction"], "input": row["input"]}
        | {"chosen": row["output"], "rejected": rows[(at + 1) % len(rows)]["output"]}
        for at, row in enumerate(rows)
    ]
    files = {"sft": folder / "sft.jsonl", "orpo": folder / "orpo.jsonl"}
    for path, lines in zip(files.values(), (rows, pairs), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return files


def stage_call(
    name: str, size: Size, config: dict[str, Any], data: Path, files: dict[str, Path], folder: Path
) -> StageCall:
    train = {
        **METHODS[name],
        "precision": "bfloat16",
        "steps": size.steps,
        "batch_size": size.batch_size,
        "threads": size.threads,
        "checkpoint_steps": 10**6,
        **size.switches,
    }
    (folder / name).mkdir()
    tokenizer = {"path": str(data / "qwen1.5-0.5b"), "sha256": None}
    texts = files[train.get("objective", "sft")]
    return StageCall(
        stage="train",
        key="0" * 64,
        params={
            "train": train,
            "model": {"random": {"config": config, "tokenizer": tokenizer}},
            "template": load_template("alpaca").model_dump(mode="json"),
            "data": {"path": str(texts), "sha256": None},
        },
        inputs={},
        work=str(folder / name),
        cache=str(folder / "tokens"),
    )


def measure(call: StageCall, left_out: int) -> dict[str, Any]:
    """Train, and what came of it: the stage's own `used`, and the timed steps' work."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from harness.train.run import run

    train = Train.model_validate(call.params["train"])
    assert train.steps is not None
    clock = Clock(left_out, train.steps)
    hook = register_optimizer_step_post_hook(clock)
    used = run(call).used
    hook.remove()
    tokens, labels = _timed_tokens(call, train, left_out, used["packed"])
    return {"used": used, "work": Work(train.steps - left_out, clock.seconds, tokens, labels)}


def _timed_tokens(call: StageCall, train: Train, left_out: int, packed: bool) -> tuple[int, int]:
    """All tokens of the timed steps, and their labels, by the plan that the stage made; its log, which
    says nothing of rejected answers' labels, must agree about the tokens."""
    from harness.spec.template import Template
    from harness.train.data import load_data
    from harness.train.run import LOG
    from harness.train.schedule import plan_steps

    source = ModelSource.model_validate(call.params["model"])
    template = Template.model_validate(call.params["template"])
    data = load_data(call, train, template, load_tokenizer(source, {})).train
    deal = train.model_copy(update={"packing": packed})
    steps = plan_steps(deal, data.sizes().tolist(), data.counted().tolist(), processes=1)
    examples = [i for s in steps[left_out:] for part in s.micro_batches for i in part]
    tokens = int(data.sizes()[examples].sum())
    log = [json.loads(line) for line in (call.folder / LOG).read_text("utf-8").splitlines()]
    seen = [line["tokens"] + line["prompt_tokens"] for line in log]
    if seen[-1] - seen[left_out - 1] != tokens:
        raise RuntimeError(
            f"the log says {seen[-1] - seen[left_out - 1]} tokens, the plan {tokens}"
        )
    return tokens, _labels(data, examples)


def _labels(data: "EncodedExamples", examples: Sequence[int]) -> int:
    """The answers' tokens, of chosen and rejected ones: logits are made for these alone."""
    from harness.train.data import ANSWER

    marks = [mark for i in examples for _, mark in data.sequences(i)]
    return sum(int(((mark[1:] & ANSWER) > 0).sum()) for mark in marks)


def estimated_bytes(call: StageCall) -> float:
    """As `harness plan` does it, from the texts' lengths in characters."""
    row = {
        "train": Train.model_validate(call.params["train"]),
        "model": ModelSource.model_validate(call.params["model"]),
        "data": TypeAdapter(Data).validate_python(call.params["data"]),
    }
    need = memory.of_stage(row, Files(None, None), None, None)
    return need.memory.needed if isinstance(need, memory.Need) else float("nan")


def alone(task: Callable[..., Any], *given: Any) -> Any:
    """The function's result, from a process of its own; it prints to standard error."""
    pool = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=os.dup2, initargs=(2, 1)
    )
    with pool:
        return pool.submit(task, *given).result()


def line(name: str, call: StageCall, found: dict[str, Any], rate: float, shape: Shape) -> str:
    train, work, used = Train.model_validate(call.params["train"]), found["work"], found["used"]
    speed = model_flops(train, shape, work) / work.seconds
    cells = [
        name, f"{work.tokens / work.seconds:,.0f}", f"{work.tokens / work.steps:,.0f}",
        f"{100 * work.labels / work.tokens:.0f} %", f"{speed / 1e12:.3g}",
        f"{100 * speed / rate:.3g} %", f"{used['peak_memory_bytes'] / 2**30:.2f}",
        f"{estimated_bytes(call) / 2**30:.2f}", "yes" if used["packed"] else "no",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def compare(options: argparse.Namespace, size: Size, folder: Path) -> int:
    """Prints the tables; returns the number of methods that failed."""
    data = options.data.resolve()
    config = configuration(data / "qwen1.5-0.5b", options.layers, options.hidden)
    shape = shapes.from_config(config)
    assert shape is not None
    device, rate = alone(matrix_rate, size.side)
    print(f"{device}: {rate / 1e12:.3g} TFLOP/s, bfloat16, {size.side} x {size.side} matrices, median "
          f"of {ROUNDS}; the target is {TARGET:.0%} of it.")  # fmt: skip
    print(
        f"{shape.parameters:,} parameters ({shape.layers} layers, hidden {shape.hidden}), random; "
        f"{size.batch_size} examples a step, {size.steps - size.left_out} steps timed after "
        f"{size.left_out}; {', '.join(f'{n}: {v}' for n, v in size.switches.items())}\n"
    )
    head = "| | tokens/s | tokens a step | with a label | model TFLOP/s | of the measured rate | "
    print(head + "peak GiB | estimated GiB | packed |\n|" + " --- |" * 9, flush=True)
    files = write_data(data / "alpagasus" / "claude_t45.json", folder)
    failed = 0
    for name in options.methods:
        call = stage_call(name, size, config, data, files, folder)
        try:
            found = alone(measure, call, size.left_out)
            print(line(name, call, found, rate, shape), flush=True)
        except Exception:
            # The others are still worth their time on the card.
            failed += 1
            print(f"| {name} | failed |" + " |" * 7, flush=True)
            traceback.print_exc()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, help=f"with the {LEFT_OUT} before the clock; 30")
    parser.add_argument("--batch-size", type=int, help="examples (for ORPO: pairs) a step; 16")
    parser.add_argument("--layers", type=int, help="for a smaller trial")
    parser.add_argument("--hidden", type=int, help="for a smaller trial")
    parser.add_argument("--liger", action="store_true", help="with the Liger kernels")
    parser.add_argument(
        "--deterministic", action="store_true", help="as rows are, unless they say no"
    )
    parser.add_argument(
        "--cpu-trial", action="store_true", help="try the script itself, without a GPU"
    )
    options = parser.parse_args()
    # One card, as the stage wants it; a trial takes none.
    if options.cpu_trial:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    import torch

    if not options.cpu_trial and not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was measured.", file=sys.stderr)
        raise SystemExit(2)
    switches = {"deterministic": options.deterministic, "liger_kernels": options.liger}
    usual = TRIAL if options.cpu_trial else Size(30, 16)
    size = Size(
        options.steps or usual.steps, options.batch_size or usual.batch_size,
        usual.left_out, usual.side, usual.threads, switches,
    )  # fmt: skip
    if size.steps <= size.left_out:
        parser.error(f"--steps: more than {size.left_out}, which go before the clock starts")
    if options.cpu_trial:
        options.layers = options.layers or TRIAL_LAYERS
        options.hidden = options.hidden or TRIAL_HIDDEN
        os.environ["OMP_NUM_THREADS"] = "1"
        print("A trial of the script on a CPU: no figure below is a measurement.\n")
    with tempfile.TemporaryDirectory(prefix="train_gpu_") as folder:
        os.environ["HF_HOME"] = str(Path(folder) / "hub")
        if compare(options, size, Path(folder)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
