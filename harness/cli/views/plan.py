"""A plan at the terminal."""

import contextlib
import os
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from harness.answer.engine import QUANTIZATION
from harness.answer.engines.vllm import VllmEngine
from harness.artefact import environment
from harness.artefact.gpus import Gpu, emulates_bfloat16, emulation, numbered, visible
from harness.common.progress import plain
from harness.errors import InputError
from harness.llm import prices
from harness.llm.estimate import Estimate
from harness.modeling.memory.fit import (
    USABLE,
    gib,
    in_unit_of,
    machine_memory,
    what_fits,
    would_fit,
)
from harness.modeling.memory.need import Need
from harness.run.executors import gpus_of
from harness.run.executors.placing import place
from harness.run.executors.serving import URL_VARIABLE
from harness.run.plan import RowPlan, StagePlan, dtype_of, engine_of, needs_of, unique

COLOURS = {"reuse": "green", "run": "cyan", "stale": "yellow"}


def show_plans(console: Console, plans: Sequence[RowPlan]) -> None:
    """Each row's stages with status, key, reason, and expected calls, tokens and dollars."""
    with contextlib.closing(_Lines(console)) as lines:
        _list_plans(lines, plans)
    _show_total(console, [s for s in unique(plans) if s.status != "reuse"])


class _Lines:
    """Lines of markup that are printed many at a time: each print by rich takes its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: list[str] = []
        self._soft_wrap = False

    def add(self, line: str, soft_wrap: bool = False) -> None:
        """`soft_wrap`: however long, it is one line."""
        if soft_wrap != self._soft_wrap:
            self.close()
            self._soft_wrap = soft_wrap
        self._lines.append(line)

    def close(self) -> None:
        if self._lines:
            text = "\n".join(self._lines)
            self._console.print(text, highlight=False, soft_wrap=self._soft_wrap)
        self._lines = []


def _list_plans(lines: _Lines, plans: Sequence[RowPlan]) -> None:
    counted: set[tuple[str, str]] = set()
    for plan in plans:
        lines.add(f"[bold]{plan.row.row}[/]  {escape(plain(plan.row.title))}")
        for stage in plan.stages:
            label = f" ({stage.label})" if stage.label else ""
            words, over = "; ".join(stage.reasons), ""
            shared = (stage.stage, stage.key) in counted and stage.status != "reuse"
            counted.add((stage.stage, stage.key))
            if shared:
                words = "shared with a row above"
            elif _is_open(stage):
                words += f"; calls not known: {stage.estimate.unknown}"
            elif stage.estimate.calls:
                words += f"; about {_calls(stage.estimate)}, {_dollars(stage)}"
                over = _over_budget(stage)
            elif stage.status != "reuse" and _is_recorded(stage):
                words += "; replies from a given transcript"
            colour = COLOURS[stage.status]
            lines.add(
                f"  {stage.stage + label:<26} [{colour}]{stage.status:<5}[/] {stage.key[:12]}"
                + (f"  [dim]{escape(plain(words))}[/]" if words else "")
                + (f"[dim];[/] [yellow]{over}[/]" if over else ""),
            )
            for reading in stage.readings if not shared else ():
                words = escape(plain(f"data: {reading}"))
                lines.add(f"    [dim]{words}[/]", soft_wrap=True)
            for line, style in _on_this_machine(stage) if not shared else ():
                words = escape(plain(line))
                lines.add(f"    [{style}]{words}[/]", soft_wrap=True)
        for name in dict.fromkeys(n for stage in plan.stages for n in stage.open_hubs()):
            words = f"{name}: revision open: `harness pin {plan.spec}` resolves and writes it"
            lines.add(f"  [yellow]{escape(plain(words))}[/]", soft_wrap=True)


def _show_total(console: Console, todo: Sequence[StagePlan]) -> None:
    total = sum((s.estimate for s in todo), Estimate())
    text = f"{len(todo)} stages to run"
    unknown = [s for s in todo if _is_open(s)]
    if total.calls or unknown:
        costs = [s.usd_of_priced() for s in todo]
        unpriced = sorted({model for s in todo for model in s.unpriced})
        if total.calls:
            text += f", {'at least' if unknown else 'about'} {_calls(total)}, {_usd(sum(costs))}"
        if unpriced:
            join = " and" if total.calls else ";"
            text += f"{join} what {', '.join(map(plain, unpriced))} costs, whose price is not known"
        dated = next((s.prices.dated for s in todo if s.prices.dated and s.usd_of_priced()), "")
        if dated:
            text += f" (prices dated {dated})"
    if unknown:
        each = [f"{s.stage}{f' ({s.label})' if s.label else ''} of {s.owner.row}" for s in unknown]
        calls = ", ".join(each)
        if total.calls:
            text += f", without the calls of {calls}, which are not known"
        else:
            text += f"; the calls of {calls} are not known yet, nor what they cost"
    console.print(text, highlight=False, markup=False)


def _is_open(stage: StagePlan) -> bool:
    """Whether it will call a model, and how often is not known."""
    return bool(stage.estimate.unknown and stage.endpoints) and not _is_recorded(stage)


def _on_this_machine(stage: StagePlan) -> Iterator[tuple[str, str]]:
    """Of a stage to run: what it will work on, whether that suffices, or the sentence with which `run`
    will refuse it; each line with its style."""
    if stage.status == "reuse":
        return
    kind = environment.kind_of(stage.document["environment"])
    is_local = kind == "local" or environment.current_image() is not None
    chosen, refusal = None, None
    try:
        chosen = place(stage, "local" if is_local else "docker")
    except InputError as e:
        refusal = e
    if stage.need is not None:
        yield _memory(stage.need, kind, chosen), "dim"
    if chosen is not None and visible():
        yield f"device: {_device(stage, chosen)}", "dim"
    if refusal is not None:
        yield f"run refuses: {refusal.message}", "yellow"
        yield f"  {refusal.hint}", "dim"
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


def _memory(need: Need | str, kind: str, chosen: Sequence[Gpu] | None) -> str:
    """`memory: about 7.9 GiB (weights 1.9, ...); fits NVIDIA X (24.0 GiB)`. `kind`: `local`, or the
    image's name. `chosen`: the training's GPUs; None where it cannot run."""
    if isinstance(need, str):
        return f"memory: not known: {need}"
    text = f"memory: {_parts(need)}"
    devices = [gpu for gpu in chosen or () if gpu.size]
    if not devices:
        return f"{text}; {_on_cpu(need)}" if kind == "local" and chosen == () else text
    smallest = min(devices, key=lambda gpu: gpu.size)
    where = f"{smallest.name} ({gib(smallest.size)})"
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
    text = f"about {gib(total)} ({each}"
    if need.lengths is None:
        text += ", as if every example were as long as the cutoff"
    elif need.most.activations > 1.05 * memory.activations:
        most = in_unit_of(total, need.most.activations)[0]
        text += f", or {most} were every example as long as the cutoff"
    text += ")"
    if need.train.launch.processes * need.train.launch.machines > 1:
        text += " for each process"
    return text + (f" and {gib(memory.cpu)} of the CPU's" if memory.cpu else "")


def _on_cpu(need: Need) -> str:
    """Without a GPU every process of a machine trains in its memory."""
    needed = need.memory.needed * need.train.launch.processes + need.memory.cpu
    machine = machine_memory()
    fits = "fits" if needed <= USABLE * machine else "does not fit"
    why = "no GPU is used" if visible() else "there is no GPU"
    return f"{why}; {fits} this machine's memory ({gib(machine)})"


def _over_budget(stage: StagePlan) -> str:
    """`exceeds the budget of $0.05 for a stage`; empty where the estimate stays within it."""
    limits, expected = stage.owner.budget, stage.estimate
    usd, tokens = stage.usd(), expected.prompt_tokens + expected.completion_tokens
    passed = []
    if limits.calls is not None and expected.calls > limits.calls:
        passed.append(f"{limits.calls:,} calls")
    if limits.tokens is not None and tokens > limits.tokens:
        passed.append(f"{limits.tokens:,} tokens")
    if limits.usd is not None and usd is not None and usd > limits.usd:
        passed.append(f"${limits.usd:g}")
    if limits.usd is not None and usd is None:
        table = prices.table_file()
        return f"has a budget in dollars and no known price: add it to {table} to run this"
    return f"exceeds the budget of {' and '.join(passed)} for a stage" if passed else ""


def _is_recorded(stage: StagePlan) -> bool:
    if stage.stage == "gen":
        return bool(stage.params["gen"].needs().is_recorded)
    return needs_of(stage.params).is_recorded


def _dollars(stage: StagePlan) -> str:
    usd, unpriced = stage.usd_of_priced(), " and of ".join(stage.unpriced)
    if unpriced:
        known = f"{_usd(usd)} and more: " if usd else ""
        return f"{known}the price of {unpriced} is not known"
    if stage.endpoints and not stage.pays:
        return f"{_usd(usd)} (simulated)"
    return _usd(usd)


def _usd(usd: float) -> str:
    """To the cent, and smaller sums to a tenth of one."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def _calls(estimate: Estimate) -> str:
    return (
        f"{estimate.calls:,} calls, {estimate.prompt_tokens:,} prompt + "
        f"{estimate.completion_tokens:,} completion tokens"
    )
