"""What a row was made with: its stages with keys, hardware, versions and seeds, and what they cost."""

import math
from collections.abc import Callable
from typing import Any

from harness.artefact import gpus
from harness.artefact.manifest import Manifest
from harness.common.numbers import byte_size
from harness.report.html import figures
from harness.report.html.appendix import Appendix
from harness.report.html.collect import Story
from harness.report.html.markup import Html, join, table, tag
from harness.report.html.section import StorySection
from harness.run.plan import StagePlan

VERSIONS = {
    "gen": ("openai", "datasets", "rouge-score"),
    "train": ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes"),
    "answer": ("torch", "transformers", "vllm", "openai"),
    "judge": ("alpaca-eval", "lm-eval", "flow-judge", "torch", "transformers", "openai"),
}
"""Packages that are named beside a stage; the whole list stands at the end of the page."""
LEFT_OUT = frozenset(
    """
    environment position_bias rubric tasks tokens_per_second checkpoints checkpoint_seconds
    train_seconds processes threads packed deterministic tf32
    """.split()  # noqa: SIM905
)
"""Of what a manifest says was used: what has a place of its own, or stands in the spec."""


def _stages(story: Story) -> Html:
    if not story.plan:
        problem = f"It cannot be planned here: {story.problem}."
        return tag("p", problem if story.problem else "Nothing to run.")
    rows = [_stage(stage, story.appendix) for stage in story.stages]
    if not rows:
        return tag("p", "The row has no stages.")
    headings = ["stage", "key", "state", "with", "versions", "seeds"]
    return join(table("Stages", headings, rows, "wide"), _costs(story))


def _stage(stage: StagePlan, appendix: Appendix) -> list[Any]:
    key = tag("code", stage.key[:12])
    if stage.artefact is None:
        reasons = "; ".join(stage.reasons)
        return [
            stage.name,
            key,
            "to run" if stage.status == "run" else f"stale: {reasons}",
            "",
            "",
            "",
        ]
    manifest = stage.artefact.manifest
    environment = manifest.used.get("environment", {})
    packages = environment.get("packages", {})
    versions = [f"Python {environment['python']}"] if environment.get("python") else []
    versions += [f"{name} {packages[name]}" for name in VERSIONS[stage.stage] if name in packages]
    all_packages: Any = None
    if packages:
        all_packages = tag(
            "a", "all packages", href=f"#{appendix.environment(packages)}", class_="line"
        )
    executor = manifest.executor
    image = executor.get("image")
    state = f"made by the {executor['executor']} executor"
    if manifest.simulated:
        state += f"; simulated: {', '.join(manifest.simulated)}"
    return [
        stage.name,
        key,
        [state, tag("span", f"image {image}", class_="sub") if image else None],
        [tag("span", line, class_="line") for line in _used(manifest)],
        [", ".join(versions), all_packages],
        figures.brief(manifest.seeds),
    ]


def _used(manifest: Manifest) -> list[str]:
    """Hardware first, then what else the manifest says was used."""
    used = manifest.used
    environment = used.get("environment", {})
    machine = [environment["processor"]] if environment.get("processor") else []
    machine += map(gpus.words, environment.get("gpus", []))
    if environment.get("cpus"):
        machine.append(f"{environment['cpus']} CPUs")
    if environment.get("memory_bytes"):
        machine.append(byte_size(environment["memory_bytes"]))
    facts = []
    for name, value in used.items():
        if name in LEFT_OUT or value in (None, [], {}, ""):
            continue
        is_size = name.endswith("_bytes") and isinstance(value, int)
        text = byte_size(value) if is_size else figures.brief(value)
        facts.append(f"{name.removesuffix('_bytes').replace('_', ' ')}: {text}")
    # How often the model wins in which place has a figure of its own.
    notes = [str(note) for note in manifest.notes if not str(note).startswith("shown ")]
    return [line for line in (", ".join(machine), " · ".join(facts), *notes) if line]


_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("calls", "calls", figures.brief),
    ("prompt_tokens", "prompt tokens", figures.brief),
    ("completion_tokens", "completion tokens", figures.brief),
    ("usd", "dollars", figures.money),
    ("gpu_seconds", "GPU time", figures.seconds),
    ("wall_seconds", "wall time", figures.seconds),
)


def _costs(story: Story) -> Html | None:
    beside = story.plan.made_beside() if story.plan is not None else []
    finished = [s for s in story.stages if s.artefact is not None]
    finished = list({s.id: s for s in [*finished, *beside]}.values())
    costs = [s.made.manifest.cost for s in finished]
    # Without a GPU there is no time on it to tell.
    columns = [
        (n, h, say)
        for n, h, say in _COSTS
        if any(c.get(n) is not None and (c[n] or n != "gpu_seconds") for c in costs)
    ]
    if not columns:
        return None
    rows = []
    for stage, cost in zip(finished, costs, strict=True):
        rows.append(
            [stage.name, *("" if cost.get(n) is None else say(cost[n]) for n, _, say in columns)]
        )
    if len(rows) > 1:
        sums = [math.fsum(c[n] for c in costs if c.get(n) is not None) for n, _, _ in columns]
        rounded = [int(s) if s == int(s) else s for s in sums]
        rows.append(
            ["together", *(say(s) for s, (_, _, say) in zip(rounded, columns, strict=True))]
        )
    headings = ["stage", *(h for _, h, _ in columns)]
    return table("Cost", headings, rows, numeric=frozenset(range(1, len(headings))))


SECTION = StorySection("How it was made", _stages)
