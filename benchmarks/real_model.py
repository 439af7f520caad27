"""A real model, side by side and in one run: our training, answers and tasks beside the peers'.

    python benchmarks/real_model.py MODEL --tasks FOLDER [--records FILE] [--llamafactory PYTHON]
    python benchmarks/real_model.py MODEL --tasks FOLDER --quick

MODEL is a folder as the hub has it, with a chat template (`../shared/tools/real-model MODEL` makes
SmolLM2-135M-Instruct); FOLDER holds arc_easy_test.jsonl, piqa_validation.jsonl and gsm8k_test.jsonl
(../shared/data/eval); FILE is claude_t45.json of gpt4life/alpagasus, which its address brings where it
is left out; PYTHON is the interpreter of an environment with LLaMA-Factory (README.md says how to make
one). Each contender has a process of its own, in turns, forwards and backwards, each round.

Ends with 1 where a loss, an answer or a score that must be the same is not. README.md has the tables.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import answer_speed  # noqa: E402
import train_speed  # noqa: E402
from train_speed import Contender  # noqa: E402

RECORDS = ROOT / "specs" / "alpagasus2" / "control_other_rater.yaml"
"""The spec that says where the records are, and their sha256."""
SEED = 0
SAME_LOSS = 1e-3
"""Nats a token: far more than the last bits of float32 sums make in a few steps, far less than another
token, weight or mean."""
SAME_LIKELIHOOD = 1e-3
"""Nats, of a choice's log-likelihood."""
OURS, OURS_PROMPT = "ours", "ours, the prompt's tokens counted (train_on_prompt)"
TRL, FACTORY = "trl_trainer.py", "llamafactory_trainer.py"


class Size(NamedTuple):
    """How much is done."""

    rounds: int
    steps: int
    """Timed, after a first one."""
    examples: int
    """Of an SFT step."""
    pairs: int
    """Of an ORPO step."""
    prompts: int
    max_new_tokens: int
    questions: dict[str, int]


FULL = Size(2, 2, 4, 2, 16, 48, {"arc_easy": 32, "piqa": 32, "gsm8k": 4})
QUICK = Size(1, 1, 2, 2, 4, 16, {"arc_easy": 4, "piqa": 4, "gsm8k": 1})
TASKS = {
    "arc_easy": ("arc_easy_test", "test", "arc/arc_easy.yaml"),
    "piqa": ("piqa_validation", "validation", "piqa/piqa.yaml"),
    "gsm8k": ("gsm8k_test", "test", "gsm8k/gsm8k.yaml"),
}
"""File, split, and the package's definition, which the peer's includes."""
BATCH = 8
"""Prompts, or questions, at a time where a contender takes several."""
TASK_BATCH = 16


class Line(NamedTuple):
    """A contender, and whether its losses must be ours."""

    contender: Contender
    beside: str = OURS
    """The one of ours that it is held against; "": it is ours."""
    same: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tasks", type=Path, required=True, help="folder of the questions")
    parser.add_argument("--records", type=Path, help="claude_t45.json; left out: by its address")
    parser.add_argument("--llamafactory", help="the Python of an environment that holds it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="under three minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(arguments)
    if not (options.model / "config.json").is_file():
        parser.error(f"{options.model} holds no model (no config.json)")
    for path in [options.tasks / f"{file}.jsonl" for file, _, _ in TASKS.values()]:
        if not path.is_file():
            parser.error(f"{path} is not there")
    if options.llamafactory and shutil.which(options.llamafactory) is None:
        parser.error(f"there is no program {options.llamafactory}")
    options.model = options.model.resolve()
    # The harness of this checkout in every child, wherever it is installed; and no network.
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    size = QUICK if options.quick else FULL
    if options.rounds:
        size = size._replace(rounds=options.rounds)
    begun, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="real_model_") as folder:
        options.records = options.records or by_address(Path(folder))
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path(folder) / "hub")}
        print(
            f"{options.threads} threads of {len(os.sched_getaffinity(0))} processors, rounds: "
            f"{size.rounds}, load {os.getloadavg()[0]:.1f}"
        )
        for part in options.parts:
            work = Path(folder) / part
            work.mkdir()
            wrong += PARTS[part](work, options, size)
    print(f"\n{time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.1f}")
    for text in wrong:
        print(f"NOT THE SAME: {text}")
    return 1 if wrong else 0


def by_address(folder: Path) -> Path:
    """The records, brought from where a spec of the repository says they are."""
    import yaml
    from rich.console import Console

    from harness.artefact.keys import Files
    from harness.artefact.store import Store
    from harness.errors import HarnessError
    from harness.run.given.bring import bring
    from harness.spec.base import DataPath

    entry = yaml.safe_load(RECORDS.read_text(encoding="utf-8"))["data"]
    data = DataPath(url=entry["url"], sha256=entry["sha256"])
    store = Store(folder / "volume")
    store.prepare()
    try:
        (path,) = bring([data], store, Files(None, None, store.files_folder), Console(stderr=True))
    except HarnessError as e:
        sys.exit(f"{e.message}\n{e.hint}\nGive the file: --records FILE")
    return path


def in_turns(
    measured: Mapping[str, Callable[[], dict[str, Any]]], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Every contender once a round, forwards and backwards by turns."""
    names = list(measured)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            load, begun = os.getloadavg()[0], time.monotonic()
            results[name].append(measured[name]())
            took = time.monotonic() - begun
            print(
                f"round {turn + 1}, {name}: {took:.0f} s in all (load before: {load:.1f})",
                file=sys.stderr,
                flush=True,
            )
    return results


def spread(values: Sequence[float], digits: int = 0) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


# Training


def train(folder: Path, options: argparse.Namespace, size: Size) -> list[str]:
    pythons = {"ours.py": sys.executable, TRL: sys.executable, FACTORY: options.llamafactory}
    wrong = []
    rows = examples(options.records, max(size.examples, size.pairs + 1) * (size.steps + 1))
    for title, lines, objective, per_step, rounds in (
        (f"SFT, {size.examples} examples a step", sft_lines(size), "sft", size.examples, size.rounds),
        (f"ORPO, {size.pairs} pairs a step", orpo_lines(), "orpo", size.pairs, size.rounds),
        ("ORPO, one pair a step", one_pair_lines(), "orpo", 1, 1),
    ):  # fmt: skip
        here = folder / title.replace(" ", "_")
        here.mkdir()
        common = files_of(here, options, rows, objective, per_step, size.steps + 1)
        present = [line for line in lines if line.beside and pythons[line.contender.script]]
        if options.quick:
            # One of each peer, where the losses must be the same.
            firsts = {line.contender.script: line for line in reversed(present) if line.same}
            present = [*firsts.values()][::-1]
        if not present:
            print(f"\n{title}: LLaMA-Factory is not installed")
            continue
        besides = {line.beside for line in present}
        present = [line for line in lines if line.contender.name in besides] + present
        measured = {
            line.contender.name: partial(
                train_speed.measure,
                line.contender,
                common | {"data": common[line.contender.settings.get("rows", "texts")]},
                str(pythons[line.contender.script]),
            )
            for line in present
        }
        results = in_turns(measured, rounds)
        print(f"\n### {title}\n")
        wrong += print_training(present, results, size.steps + 1)
        if not options.llamafactory:
            print("\nLLaMA-Factory: not installed (--llamafactory PYTHON)")
    return wrong


IN_ORDER = {"train_sampling_strategy": "sequential"}
FACTORY_IN_ORDER = {"disable_shuffling": True}
"""Every contender is given the examples in the order in which ours takes them."""
TRL_AS_OURS = {"settings": {**IN_ORDER, "gradient_checkpointing": False}}
FACTORY_AS_OURS = {
    "settings": {
        **FACTORY_IN_ORDER, "template": "empty", "disable_gradient_checkpointing": True,
    }
}  # fmt: skip
"""Of texts rendered by our template, the same tokens; learning rate and schedule are ours too."""
TRL_DEFAULTS = {"rows": "chats", "chat": True, "learning_rate": None, "settings": IN_ORDER}
FACTORY_DEFAULTS = {
    "rows": "chats", "end": "", "learning_rate": None,
    "settings": {**FACTORY_IN_ORDER, "template": "smollm2"},
}  # fmt: skip
"""Records as they are, by the peer's own template, learning rate and schedule; float32 all the same."""


def with_settings(contender: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**contender, "settings": {**contender["settings"], **settings}}


def sft_lines(size: Size) -> list[Line]:
    half = {"micro": size.examples // 2}
    padding_free = with_settings(TRL_AS_OURS, padding_free=True, max_length=None)
    packed = with_settings(FACTORY_AS_OURS, packing=True, neat_packing=True)
    return [
        Line(Contender(OURS, "ours.py", {"rows": "ours", **half}), ""),
        Line(Contender("TRL, set as ours", TRL, TRL_AS_OURS | half), same=True),
        Line(Contender("TRL, set as ours, padding_free", TRL, padding_free | half), same=True),
        Line(Contender("TRL, its defaults", TRL, TRL_DEFAULTS | half)),
        Line(Contender("LLaMA-Factory, set as ours", FACTORY, FACTORY_AS_OURS | half), same=True),
        Line(
            Contender(
                "LLaMA-Factory, neat_packing (rows of 1,024)",
                FACTORY,
                {**packed, "batch": 1, "micro": 1},
            )
        ),
        Line(Contender("LLaMA-Factory, its defaults", FACTORY, FACTORY_DEFAULTS | half)),
    ]


OUR_ORPO: dict[str, Any] = {"rows": "ours", "settings": {"objective": "orpo"}}


def orpo_lines() -> list[Line]:
    counted = with_settings(OUR_ORPO, train_on_prompt=True)
    return [
        Line(Contender(OURS, "ours.py", OUR_ORPO), ""),
        Line(Contender(OURS_PROMPT, "ours.py", counted), ""),
        Line(Contender("TRL, set as ours", TRL, TRL_AS_OURS), OURS_PROMPT, same=True),
        Line(Contender("TRL, its defaults", TRL, TRL_DEFAULTS), OURS_PROMPT),
        Line(Contender("LLaMA-Factory, set as ours", FACTORY, FACTORY_AS_OURS)),
        Line(Contender("LLaMA-Factory, its defaults", FACTORY, FACTORY_DEFAULTS)),
    ]


def one_pair_lines() -> list[Line]:
    """The mean over pairs of means over tokens, and the mean over all tokens, are one here."""
    factory = Contender("LLaMA-Factory, set as ours", FACTORY, FACTORY_AS_OURS)
    return [Line(Contender(OURS, "ours.py", OUR_ORPO), ""), Line(factory, same=True)]


def examples(records: Path, count: int) -> list[dict[str, str]]:
    """Drawn from those that have an answer; an input follows its instruction on a line of its own."""
    rows = [r for r in json.loads(records.read_text(encoding="utf-8")) if r["output"].strip()]
    return [
        {
            "instruction": "\n".join(filter(None, (row["instruction"], row["input"]))),
            "output": row["output"],
        }
        for row in random.Random(SEED).sample(rows, count)
    ]


def files_of(
    folder: Path,
    options: argparse.Namespace,
    rows: list[dict[str, str]],
    objective: str,
    per_step: int,
    steps: int,
) -> dict[str, Any]:
    """What every training is given. `ours`: the file of the records; `chats`: the same in the order in
    which ours takes them; `texts`: these rendered by our template, so that the tokens are ours."""
    from transformers import AutoTokenizer

    from harness.modeling.text import Encoder
    from harness.spec.template import load_template
    from harness.spec.train import Train
    from harness.train.schedule import plan_steps

    count = per_step * steps
    if objective == "orpo":
        # As the rejected answer, that of the next example.
        rows = [
            {"instruction": r["instruction"], "chosen": r["output"], "rejected": after["output"]}
            for r, after in pairwise(rows[: count + 1])
        ]
    rows = rows[:count]
    planned = Train(objective=objective, steps=steps, batch_size=per_step)
    ones = [1] * count
    order = [
        number
        for step in plan_steps(planned, ones, ones, 1)
        for micro in step.micro_batches
        for number in micro
    ]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    encoder = Encoder(tokenizer, load_template("tokenizer"))
    chats = [rows[number] for number in order]
    texts = [
        {**row, "instruction": tokenizer.decode(encoder.prompt(row["instruction"]))}
        for row in chats
    ]
    common = {
        "model": str(options.model), "pad": None, "cutoff": 1024, "threads": options.threads,
        "steps": steps, "objective": objective, "batch": per_step, "micro": per_step,
        "learning_rate": planned.learning_rate, "scheduler": planned.scheduler,
        "template": load_template("tokenizer").model_dump(mode="json"),
        "end": tokenizer.decode(encoder.end_ids),
    }  # fmt: skip
    for name, content in (("ours", rows), ("chats", chats), ("texts", texts)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        common[name] = str(path)
    return common


def print_training(
    lines: list[Line], results: dict[str, list[dict[str, Any]]], steps: int
) -> list[str]:
    """Returns which losses differ that must not."""
    print(
        "| | tokens/s | ours / it | tokens per processor second | ours / it | real, of the tokens "
        f"computed | tokens a step | peak MiB | loss, steps 1 to {steps} | largest difference from "
        "ours |\n|" + " --- |" * 10
    )
    wrong = []
    for line in lines:
        name, runs = line.contender.name, results[line.contender.name]
        ours = results[line.beside or name]
        losses = runs[0]["losses"][:steps]
        expected = ours[0]["losses"][:steps]
        apart = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
        if line.same and not apart <= SAME_LOSS:
            wrong.append(f"{name}: a step's loss is {apart:.1e} from that of {line.beside}")
        beside = ours if line.beside else []
        print(
            f"| {name} | {train_speed.rates(runs, 'rate', beside)} | "
            f"{train_speed.rates(runs, 'cpu_rate', beside)} | {100 * runs[0]['real']:.0f} % | "
            f"{runs[0]['step_tokens']:,.0f} | {max(run['peak_mib'] for run in runs):,.0f} | "
            f"{', '.join(f'{loss:.4f}' for loss in losses)} | "
            f"{f'{apart:.0e}' if beside else ''}{', must be the same' if line.same else ''} |"
        )
    return wrong


# Answers


def answer(folder: Path, options: argparse.Namespace, size: Size) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.modeling.text import Encoder
    from harness.spec.template import load_template

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    encoder = Encoder(tokenizer, load_template("tokenizer"))
    rows = examples(options.records, size.prompts)
    texts = [tokenizer.decode(encoder.prompt(row["instruction"])) for row in rows]
    limits = [size.max_new_tokens] * len(texts)
    # alpaca_eval's decoder takes the type of the file on a CPU, whatever it is told.
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.save_pretrained(folder / "float32" / "model")
    tokenizer.save_pretrained(folder / "float32" / "model")
    (folder / "as_it_is").mkdir()
    for name, path in (("float32", folder / "float32" / "model"), ("as_it_is", options.model)):
        work = answer_speed.Work(str(path), BATCH, texts, limits)
        (folder / name / "work.json").write_text(json.dumps(work._asdict()))

    measured = {
        name: partial(answer_speed.measure, contender, folder / place)
        for name, (contender, place) in list(ANSWERING.items())[: 4 if options.quick else None]
    }
    results = in_turns(measured, size.rounds)
    tokens = {
        name: sum(len(ids) for ids in tokenizer(runs[0]["answers"])["input_ids"])
        for name, runs in results.items()
    }
    ours = results[OURS_ANSWERS]
    print(
        f"\n### Answers: {len(texts)} prompts, at most {size.max_new_tokens} new tokens, "
        f"{tokens[OURS_ANSWERS]} in all\n\n"
        "| | tokens/s | ours / it | tokens per processor second | ours / it | answers other than "
        "ours |\n|" + " --- |" * 6
    )
    wrong, told = [], []
    work = answer_speed.Work(str(folder / "float32" / "model"), BATCH, texts, limits)
    for name, runs in results.items():
        rates = [{n: tokens[name] / run[n] for n in ("seconds", "cpu")} for run in runs]
        our_rates = [{n: tokens[OURS_ANSWERS] / run[n] for n in ("seconds", "cpu")} for run in ours]
        beside = [] if name == OURS_ANSWERS else our_rates
        pairs = zip(ours[0]["answers"], runs[0]["answers"], strict=True)
        differing = [number for number, (a, b) in enumerate(pairs) if a != b]
        print(
            f"| {name} | {train_speed.rates(rates, 'seconds', beside)} | "
            f"{train_speed.rates(rates, 'cpu', beside)} | {len(differing)} of {len(texts)} |"
        )
        if differing and ANSWERING[name][1] == "float32":
            wrong.append(f"{name}: {len(differing)} of {len(texts)} answers are not ours")
        if differing:
            told += [f"{name}: {text}" for text in answer_speed.ties(work, ours[0], runs[0])[:3]]
    print("\n" + "\n".join(told) if told else "")
    return wrong


OURS_ANSWERS = "ours, `sorted`"
ANSWERING = {
    OURS_ANSWERS: ("sorted", "float32"),
    "ours, `continuous`": ("continuous", "float32"),
    f"generate(), {BATCH} prompts of like length at a time": ("plain", "float32"),
    f"alpaca_eval's decoder, {BATCH} prompts at a time": ("peer_batched", "float32"),
    "generate(), one prompt at a time": ("alone", "float32"),
    "alpaca_eval's decoder, one prompt at a time": ("peer", "float32"),
    "alpaca_eval's decoder, its defaults (one at a time, bfloat16)": ("peer", "as_it_is"),
}
# Tasks


def tasks(folder: Path, options: argparse.Namespace, size: Size) -> list[str]:
    import lm_eval.tasks

    package = Path(lm_eval.tasks.__file__).parent
    (folder / "peer").mkdir()
    for name, (file, _, definition) in TASKS.items():
        lines = (options.tasks / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [AS_ON_THE_HUB[name](json.loads(line)) for line in lines[: size.questions[name]]]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data_files = dict.fromkeys(("train", "validation", "test"), str(path))
        config = {
            "include": str(package / definition),
            "task": f"local_{name}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": data_files},
            "num_fewshot": 0,
        }
        (folder / "peer" / f"{name}.yaml").write_text(json.dumps(config))
    print()

    measured = {
        name: partial(side, folder, options)
        for name, side in TASK_SIDES.items()
        if name != LM_EVAL_DEFAULTS or not options.quick
    }
    results = in_turns(measured, size.rounds)
    ours = results[OURS]
    names = sorted(ours[0]["scores"])
    print(
        f"### Tasks: {', '.join(f'{n} {count}' for n, count in size.questions.items())} questions\n\n"
        "| | seconds, the whole command | it / ours | processor seconds | it / ours | "
        f"{' | '.join(names)} | largest difference of a log-likelihood, in nats |\n|"
        + " --- |"
        * (6 + len(names))
    )
    wrong = []
    for name, runs in results.items():
        scores = runs[0]["scores"]
        apart = max(
            abs(a - b)
            for key, values in ours[0]["likelihoods"].items()
            for a, b in zip(values, runs[0]["likelihoods"][key], strict=True)
        )
        cells = []
        for what in ("seconds", "cpu"):
            values = [run[what] for run in runs]
            of_ours = statistics.median([run[what] for run in ours])
            ratio = f"{statistics.median(values) / of_ours:.2f}" if name != OURS else ""
            cells += [spread(values, 1), ratio]
        print(
            f"| {name} | {' | '.join(cells)} | "
            f"{' | '.join(f'{scores[key]:.4f}' for key in names)} | "
            f"{f'{apart:.0e}' if name != OURS else ''} |"
        )
        if name != LM_EVAL_DEFAULTS:
            other = [key for key in names if scores[key] != ours[0]["scores"][key]]
            wrong += [f"{name}: {key} is {scores[key]!r}, ours {ours[0]['scores'][key]!r}"
                      for key in other]  # fmt: skip
            if apart > SAME_LIKELIHOOD:
                wrong.append(f"{name}: a log-likelihood is {apart:.1e} from ours")
    return wrong


def arc(question: dict[str, Any]) -> dict[str, Any]:
    labels = list(string.ascii_uppercase[: len(question["choices"])])
    return {
        "question": question["question"],
        "choices": {"text": question["choices"], "label": labels},
        "answerKey": labels[question["answer"]],
    }


def piqa(question: dict[str, Any]) -> dict[str, Any]:
    first, second = question["choices"]
    return {
        "goal": question["question"],
        "sol1": first,
        "sol2": second,
        "label": question["answer"],
    }


AS_ON_THE_HUB: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "arc_easy": arc,
    "piqa": piqa,
    "gsm8k": lambda question: question,
}
"""The columns that lm-eval's definitions name."""


def command(line: list[str], log: Path) -> dict[str, float]:
    """Runs it; the seconds it took, and those of processors."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(line, stdout=file, stderr=file)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line[:4])} failed:\n{log.read_text()[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def our_tasks(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`harness run` of a row, on a volume of its own."""
    judge = {
        "kind": "lm_eval",
        "batch_size": TASK_BATCH,
        "threads": options.threads,
        "tasks": {
            name: {"data": {split: str(folder / f"{name}.jsonl")}, "shots": 0}
            for name, (_, split, _) in TASKS.items()
        },
    }
    spec = {
        "row": "tasks",
        "table": "real-model",
        "title": "tasks",
        "model": {"path": str(options.model)},
    }
    spec |= {"eval": {"answer": None, "judge": judge}}
    (folder / "row.yaml").write_text(json.dumps(spec))
    with tempfile.TemporaryDirectory(dir=folder) as volume:
        line = [sys.executable, "-m", "harness", "run", str(folder / "row.yaml")]
        took = command([*line, "--volume", volume], folder / "ours.log")
        (path,) = Path(volume).rglob("results.json")
        results = json.loads(path.read_text())["package_tasks"]
        rows = {name: read_lines(path.with_name(f"responses_{name}.jsonl")) for name in TASKS}
    scores = {
        f"{name}/{key.removesuffix(',none').replace(',', '/')}": value
        for name in TASKS
        for key, value in results[name]["results"][name].items()
        if is_score(key)
    }
    return {**took, "scores": scores, "likelihoods": likelihoods(rows, "responses")}


def lm_eval_command(folder: Path, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = f"pretrained={options.model}" + "".join(m for m in more if m.startswith(","))
        line = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments]
        line += ["--tasks", ",".join(f"local_{name}" for name in TASKS), "--device", "cpu"]
        line += ["--include_path", str(folder / "peer"), "--output_path", out, "--log_samples"]
        line += [m for m in more if not m.startswith(",")]
        took = command(line, folder / "peer.log")
        (path,) = Path(out).rglob("results_*.json")
        results = json.loads(path.read_text())["results"]
        rows = {
            name: sorted(
                read_lines(next(Path(out).rglob(f"samples_local_{name}_*.jsonl"))),
                key=lambda row: row["doc_id"],
            )
            for name in TASKS
        }
    scores = {
        f"{name}/{key.removesuffix(',none').replace(',', '/')}": value
        for name in TASKS
        for key, value in results[f"local_{name}"].items()
        if is_score(key)
    }
    return {**took, "scores": scores, "likelihoods": likelihoods(rows, "resps")}


LM_EVAL_DEFAULTS = "lm-eval's command line, its defaults (one request at a time, bfloat16)"
TASK_SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    OURS: our_tasks,
    f"lm-eval's command line, float32, --batch_size {TASK_BATCH}": lambda folder, options: (
        lm_eval_command(folder, options, ",dtype=float32", "--batch_size", str(TASK_BATCH))
    ),
    LM_EVAL_DEFAULTS: lm_eval_command,
}


def is_score(key: str) -> bool:
    name, comma, _ = key.partition(",")
    return bool(comma) and not name.endswith("_stderr")


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def likelihoods(rows: dict[str, list[dict[str, Any]]], name: str) -> dict[str, list[float]]:
    """Of each task with choices, those of all choices, in order."""
    return {
        task: [float(response[0][0]) for row in rows[task] for response in row[name]]
        for task in ("arc_easy", "piqa")
    }


PARTS = {"train": train, "answer": answer, "tasks": tasks}

if __name__ == "__main__":
    sys.exit(main())
