"""Seconds from `harness run` to the first optimizer step, and the share of it that checkpoints take.

    python benchmarks/train_start_up.py --data FOLDER [--minutes 4]

FOLDER holds alpagasus/claude_t45.json and qwen1.5-0.5b (the tokenizer). A row trains a local Qwen2
model with random weights (104 million, Qwen1.5's vocabulary) on the 5,305 examples; the model's and
the libraries' files are in the page cache, since a run of the same row goes before. "tokenised": that
run left the tokens in its volume. Then one training of about so many minutes, checkpoints as often
as the stage itself decides. Prints the table of README.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
HOOKS = Path(__file__).resolve().parent / "peers" / "start_up"
BATCH = 8


def write_model(folder: Path, tokenizer: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1408,
        vocab_size=151936,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, folder / file.name)
    print(f"{model.num_parameters():,} parameters")


def write_row(folder: Path, data: Path, name: str, **train: Any) -> Path:
    (folder / "prompt.txt").write_text("Instruction: {instruction}\nAnswer: ", encoding="utf-8")
    row = {
        "row": name,
        "table": "start-up",
        "title": "Start-up of a training",
        "model": {"path": str(folder / "model")},
        "template": {"prompt": "prompt.txt"},
        "data": str(data.resolve() / "alpagasus" / "claude_t45.json"),
        "train": {"batch_size": BATCH, "cutoff_length": 1024, **train},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(row), encoding="utf-8")
    return path


def run(spec: Path, volume: Path, said: Path | None = None) -> float:
    """The time (of day) at which the command was given."""
    settings = {"PYTHONPATH": str(HOOKS), "TRAIN_START_UP": str(said)} if said else {}
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", str(spec), "--volume", str(volume)],
        cwd=ROOT, env=os.environ | settings, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return begun


def start_up(spec: Path, volume: Path, folder: Path) -> dict[str, float]:
    """Seconds by phase, from the command to the first optimizer step's end."""
    said = folder / "said.json"
    begun = run(spec, volume, said)
    found = json.loads(said.read_text(encoding="utf-8"))
    before = {"harness: interpreter, plan, digests": found["begun"] - begun}
    spent: dict[str, float] = found["spent"]
    return before | spent | {"all": found["ended"] - begun}


def show(times: dict[str, list[dict[str, float]]]) -> None:
    names = list(dict.fromkeys(name for found in times.values() for one in found for name in one))
    print("\n| seconds | " + " | ".join(times) + " |\n| --- |" + " --- |" * len(times))
    for name in [*(n for n in names if n != "all"), "all"]:
        cells = []
        for found in times.values():
            values = [one.get(name, 0.0) for one in found]
            cells.append(
                f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            )
        print(f"| {name} | {' | '.join(cells)} |")


def checkpoints(folder: Path, data: Path, minutes: float, threads: int) -> None:
    volume = folder / "short"
    run(write_row(folder, data, "short", steps=6, threads=threads), volume)
    used = manifest(volume)["used"]
    steps = int(minutes * 60 / (used["train_seconds"] / 6))
    volume = folder / "long"
    run(write_row(folder, data, "long", steps=steps, threads=threads), volume)
    used = manifest(volume)["used"]
    share = 100 * used["checkpoint_seconds"] / used["train_seconds"]
    print(
        f"\n{used['checkpoints']} checkpoints in {used['train_seconds']:.0f} s of training "
        f"({steps} steps of {BATCH} examples): {used['checkpoint_seconds']:.1f} s, {share:.2f} %"
    )


def manifest(volume: Path) -> dict[str, Any]:
    paths = [json.loads(p.read_text(encoding="utf-8")) for p in volume.rglob("manifest.json")]
    (found,) = (m for m in paths if m["stage"] == "train")
    return found  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4, help="of the training; 0: none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    print(f"{options.threads} threads of {len(os.sched_getaffinity(0))} processors, load before: "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    times: dict[str, list[dict[str, float]]] = {"from the texts": [], "tokenised": []}
    with tempfile.TemporaryDirectory(prefix="train_start_up_") as temporary:
        folder = Path(temporary)
        write_model(folder / "model", options.data / "qwen1.5-0.5b")
        first = write_row(folder, options.data, "first", steps=1, threads=options.threads)
        other = write_row(folder, options.data, "other", steps=1, seed=7, threads=options.threads)
        if options.repeats:
            run(first, folder / "warm")
        for number in range(options.repeats):
            volume = folder / f"volume-{number}"
            times["from the texts"].append(start_up(first, volume, folder))
            times["tokenised"].append(start_up(other, volume, folder))
            shutil.rmtree(volume)
        if options.repeats:
            show(times)
        if options.minutes:
            checkpoints(folder, options.data, options.minutes, options.threads)


if __name__ == "__main__":
    main()
