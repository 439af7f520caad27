"""A plan at the terminal."""

import itertools
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.answer.engine import QUANTIZATION
from harness.answer.engines.vllm import VllmEngine
from harness.artefact import environment
from harness.artefact.gpus import Gpu, emulates_bfloat16, emulation, numbered, visible
from harness.common.hanging import hanging
from harness.common.numbers import byte_size, dollars, in_unit_of
from harness.common.progress import counted, plain
from harness.errors import InputError
from harness.llm import prices
from harness.llm.estimate import ON_HUB, Estimate
from harness.modeling.memory.fit import (
    USABLE,
    machine_memory,
    what_fits,
    would_fit,
)
from harness.modeling.memory.need import MODEL_ABSENT, Need
from harness.run.executors import gpus_of
from harness.run.executors.placing import place
from harness.run.executors.serving import URL_VARIABLE
from harness.run.plan import NOT_THERE, RowPlan, StagePlan, dtype_of, engine_of, needs_of, unique
from harness.run.ready import slash_notes

COLOURS = {"reuse": "green", "run": "cyan", "stale": "yellow"}


NAME = 26
"""Columns of a stage's name; a longer one has a line of its own."""
WORDS = 49
"""The column of what is said of a stage, after its name, status and key."""
MOST_SHARED = 2
"""More stages in succession that a row shares with those above take one line."""
FETCHABLE = (NOT_THERE, ON_HUB)
"""Why calls are not known that are once what is absent is fetched."""
NO_PRICE = "has a budget in dollars and no known price"


def show_plans(
    console: Console, plans: Sequence[RowPlan], fetch: str = "", specs: Sequence[Path] = ()
) -> None:
    """Each row's stages with status, key, reason, and expected calls, tokens and dollars; at the end
    their sum, and why the memory of trainings is not known. `fetch`: the command that brings what is
    absent; `specs`: how a command names the rows."""
    # Many at a time: each print by rich takes its time.
    console.print(Text("\n").join(_list_plans(console, plans)), soft_wrap=True)
    _show_open(console, plans, specs)
    todo = [s for s in unique(plans) if s.status != "reuse"]
    _show_total(console, todo, fetch)
    for why, count in Counter(s.need for s in todo if isinstance(s.need, str)).items():
        text = f"memory not known for {counted(count, 'train stage')}"
        text += f" until `{fetch}`" if fetch and why == MODEL_ABSENT else f": {why}"
        console.print(hanging(console, Text(plain(text)), 2, cut_words=False), soft_wrap=True)


def _list_plans(console: Console, plans: Sequence[RowPlan]) -> Iterator[Text]:
    seen: set[tuple[str, str]] = set()
    told: set[str] = set()
    refused: dict[tuple[str, str], str] = {}

    def is_shared(stage: StagePlan) -> bool:
        return stage.id in seen and stage.status != "reuse"

    def below(words: str, style: str, indent: int = 4) -> Iterator[Text]:
        for part in plain(words).splitlines():
            yield hanging(console, Text(" " * indent + part, style), indent + 2)

    for plan in plans:
        line = Text.assemble((plan.row.row, "bold"), f"  {plain(plan.row.title)}")
        yield hanging(console, line, 2)
        for shared, group in itertools.groupby(plan.stages, is_shared):
            stages = list(group)
            if shared and len(stages) > MOST_SHARED:
                names = ", ".join(s.name for s in stages)
                yield from below(f"{len(stages)} stages shared with rows above: {names}", "dim", 2)
                continue
            for stage in stages:
                seen.add(stage.id)
                for part in _line(stage, shared, told).split("\n"):
                    yield hanging(console, part, WORDS)
                if shared:
                    continue
                for reading in stage.readings:
                    yield from below(f"data: {reading}", "dim")
                for text, style in _on_this_machine(stage, refused):
                    yield from below(text, style)
        called = (e for stage in plan.stages if stage.status != "reuse" for e in stage.endpoints)
        for note in slash_notes(called):
            if note not in told:
                told.add(note)
                yield from below(f"note: {note}", "yellow", 2)


def _show_open(console: Console, plans: Sequence[RowPlan], specs: Sequence[Path]) -> None:
    """Each model and data set whose revision is open, once."""
    rows: dict[str, list[RowPlan]] = {}
    for plan in plans:
        for name in dict.fromkeys(n for stage in plan.stages for n in stage.open_hubs()):
            rows.setdefault(name, []).append(plan)
    for name, of in rows.items():
        where = f" in {len(of)} rows" if len(of) > 1 else ""
        files = specs if specs and len(of) > 1 else [plan.spec for plan in of]
        command = f"harness pin {shlex.join(map(str, files))}"
        text = f"{name}: revision open{where}: `{command}` resolves and writes it"
        console.print(hanging(console, Text(plain(text), "yellow"), 4), soft_wrap=True)


def _line(stage: StagePlan, shared: bool, told: set[str]) -> Text:
    """`told`: why calls are not known, and the models whose price is not, as far as it was said."""
    words, over = "; ".join(stage.reasons), ""
    if shared:
        words = "shared with a row above"
    elif _is_open(stage):
        why = stage.estimate.unknown
        words += "; calls not known" + (f": {why}" if why not in told else "")
        told.add(why)
    elif stage.estimate.calls:
        untold = [model for model in stage.unpriced if model not in told]
        words += f"; about {_calls(stage.estimate)}, {_dollars(stage, untold)}"
        over = _over_budget(stage)
        told.update(untold)
        if over.startswith(NO_PRICE):
            sentence, over = over, "" if over in told else over
            told.add(sentence)
    elif stage.status != "reuse" and _is_recorded(stage):
        words += "; replies from a given transcript"
    line = Text(f"  {stage.name:<{NAME}} ")
    if len(stage.name) > NAME:
        line = Text(f"  {stage.name}\n{'':{NAME + 3}}")
    line.append(f"{stage.status:<5}", COLOURS[stage.status]).append(f" {stage.key[:12]}")
    line.append(f"  {plain(words)}" if words else "", "dim")
    if over:
        line.append(";", "dim").append(f" {over}", "yellow")
    return line


def _show_total(console: Console, todo: Sequence[StagePlan], fetch: str) -> None:
    total = sum((s.estimate for s in todo), Estimate())
    text = f"{counted(len(todo), 'stage')} to run"
    unknown = [s for s in todo if _is_open(s)]
    if total.calls or unknown:
        costs = [s.usd_of_priced() for s in todo]
        unpriced = sorted({model for s in todo for model in s.unpriced})
        if total.calls:
            text += f", {'at least' if unknown else 'about'} {_calls(total)}, {dollars(sum(costs))}"
        if unpriced:
            join = " and" if total.calls else ";"
            text += f"{join} what {', '.join(map(plain, unpriced))} costs, whose price is not known"
        dated = next((s.prices.dated for s in todo if s.prices.dated and s.usd_of_priced()), "")
        if dated:
            text += f" (prices dated {dated})"
    if unknown:
        counts = Counter(s.stage for s in unknown)
        of = " and ".join(counted(count, f"{stage} stage") for stage, count in counts.items())
        text += f"; calls not known for {of}"
        if fetch and all(s.estimate.unknown in FETCHABLE for s in unknown):
            text += f" until `{fetch}`"
    console.print(hanging(console, Text(text), 2, cut_words=False), soft_wrap=True)


def _is_open(stage: StagePlan) -> bool:
    """Whether it will call a model, and how often is not known."""
    return bool(stage.estimate.unknown and stage.endpoints) and not _is_recorded(stage)


def _on_this_machine(
    stage: StagePlan, refused: dict[tuple[str, str], str]
) -> Iterator[tuple[str, str]]:
    """Of a stage to run: what it will work on, whether that suffices, or the sentence with which `run`
    will refuse it; each line with its style. `refused`: the sentences told so far, with
    their row."""
    if stage.status == "reuse":
        return
    kind = environment.kind_of(stage.document["environment"])
    is_local = kind == "local" or environment.current_image() is not None
    chosen, refusal = None, None
    try:
        chosen = place(stage, "local" if is_local else "docker")
    except InputError as e:
        refusal = e
    if isinstance(stage.need, Need):
        yield _memory(stage.need, kind, chosen), "dim"
    if chosen is not None and visible():
        yield f"device: {_device(stage, chosen)}", "dim"
    if refusal is not None:
        own = f"row {stage.owner.row}: "
        alike = refusal.message.removeprefix(own), refusal.hint.replace(str(stage.spec), "")
        told = refused.setdefault(alike, stage.owner.row)
        if told == stage.owner.row:
            yield f"run refuses: {refusal.message}", "yellow"
            yield from ((f"  {part}", "dim") for part in refusal.hint.splitlines())
        else:
            yield f"run refuses this too, as of row {told}", "yellow"
    if chosen and (note := _emulated(stage, chosen)):
        yield f"note: {note}", "yellow"
    if chosen and (advice := _advice(stage, kind, chosen)):
        yield f"speed: {advice}", "dim"


def _device(stage: StagePlan, chosen: Sequence[Gpu]) -> str:
    if chosen:
        return numbered(chosen)
    meant = os.environ.get("HARNESS_ACCELERATOR") and gpus_of(stage.stage, stage.params)
    return "the CPU, as HARNESS_ACCELERATOR says" if meant else "the CPU"


def _emulated(stage: StagePlan, chosen: Sequence[Gpu]) -> str:
    """Of a stage in bfloat16 on a card that has no arithmetic in it."""
    slow = [gpu for gpu in chosen if emulates_bfloat16(gpu)]
    if dtype_of(stage.params) != "bfloat16" or not slow:
        return ""
    assert slow[0].capability is not None
    return emulation(slow[0].name, slow[0].capability)


def _memory(need: Need, kind: str, chosen: Sequence[Gpu] | None) -> str:
    """`memory: about 7.9 GiB (weights 1.9, ...); fits NVIDIA X (24.0 GiB)`. `kind`: `local`, or the
    image's name. `chosen`: the training's GPUs; None where it cannot run."""
    text = f"memory: {_parts(need)}"
    devices = [gpu for gpu in chosen or () if gpu.size]
    if not devices:
        return f"{text}; {_on_cpu(need)}" if kind == "local" and chosen == () else text
    smallest = min(devices, key=lambda gpu: gpu.size)
    where = f"{smallest.name} ({byte_size(smallest.size)})"
    if need.memory.needed <= USABLE * smallest.size:
        return f"{text}; fits {where}"
    fitting = what_fits(
        need.train, need.shape, smallest.size, need.lengths, cpu_bytes=machine_memory()
    )
    return f"{text}; does not fit {where}: {would_fit(fitting)}"


def _advice(stage: StagePlan, kind: str, chosen: Sequence[Gpu]) -> str:
    """That vLLM is there, where a stage to run would make answers on a GPU without it, and it could."""
    engine = engine_of(stage.params)
    advice = engine.advice(stage.params.get(QUANTIZATION)) if engine is not None else ""
    if not chosen or not advice:
        return ""
    try:
        stage.check_engine(VllmEngine(), "")
    except InputError:
        return ""
    if kind != "local":
        where = "the executor starts it beside the stage"
    elif os.environ.get(URL_VARIABLE):
        where = f"{URL_VARIABLE} names a running one"
    else:
        where = f"it needs --executor docker, or {URL_VARIABLE} and a server of your own"
    return f"{advice} ({where}; its answers have a key of their own)"


def _parts(need: Need) -> str:
    memory = need.memory
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
    }
    total = memory.total
    each = ", ".join(f"{name} {in_unit_of(total, size)[0]}" for name, size in parts.items())
    text = f"about {byte_size(total)} ({each}"
    if need.lengths is None:
        text += ", as if every example were as long as the cutoff"
    elif need.most.activations > 1.05 * memory.activations:
        most = in_unit_of(total, need.most.activations)[0]
        text += f", or {most} were every example as long as the cutoff"
    text += ")"
    if need.train.launch.processes * need.train.launch.machines > 1:
        text += " for each process"
    return text + (f" and {byte_size(memory.cpu)} of the CPU's" if memory.cpu else "")


def _on_cpu(need: Need) -> str:
    """Without a GPU every process of a machine trains in its memory."""
    needed = need.memory.needed * need.train.launch.processes + need.memory.cpu
    machine = machine_memory()
    fits = "fits" if needed <= USABLE * machine else "does not fit"
    why = "no GPU is used" if visible() else "there is no GPU"
    return f"{why}; {fits} this machine's memory ({byte_size(machine)})"


def _over_budget(stage: StagePlan) -> str:
    """`exceeds the budget of $0.05 for a stage`; empty where the estimate stays within it."""
    limits, expected = stage.owner.budget, stage.estimate
    usd, tokens = stage.usd(), expected.prompt_tokens + expected.completion_tokens
    passed = []
    if limits.calls is not None and expected.calls > limits.calls:
        passed.append(f"{limits.calls:,} call{'s' * (limits.calls != 1)}")
    if limits.tokens is not None and tokens > limits.tokens:
        passed.append(f"{limits.tokens:,} tokens")
    if limits.usd is not None and usd is not None and usd > limits.usd:
        passed.append(f"${limits.usd:g}")
    if limits.usd is not None and usd is None:
        return f"{NO_PRICE}: add it to {prices.place()}, to run this"
    return f"exceeds the budget of {' and '.join(passed)} for a stage" if passed else ""


def _is_recorded(stage: StagePlan) -> bool:
    if stage.stage == "gen":
        return bool(stage.params["gen"].needs().is_recorded)
    return needs_of(stage.params).is_recorded


def _dollars(stage: StagePlan, untold: Sequence[str]) -> str:
    """`untold`: those of its models whose price is not known of which this was not said yet."""
    usd = stage.usd_of_priced()
    if stage.unpriced:
        known = f"{dollars(usd)} and more: " if usd else ""
        if not untold:
            return f"{known}price not known"
        return f"{known}the price of {' and of '.join(untold)} is not known"
    if stage.endpoints and not stage.pays:
        return f"{dollars(usd)} (simulated)"
    return dollars(usd)


def _calls(estimate: Estimate) -> str:
    calls = f"{estimate.calls:,} call{'' if estimate.calls == 1 else 's'}"
    measured = " as the same took before" * estimate.is_measured
    return (
        f"{calls}, {estimate.prompt_tokens:,} prompt + "
        f"{estimate.completion_tokens:,} completion tokens{measured}"
    )
