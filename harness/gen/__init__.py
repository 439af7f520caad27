"""The gen stage: one step that makes a data set or works on one.

A recipe is a module with `make(call, gen, given) -> Made`; here its result becomes the artefact:
data.jsonl, dropped.jsonl, the transcript, the step's own files and the data card.
"""

import dataclasses
import importlib
import json
from pathlib import Path

from pydantic import TypeAdapter

from harness.call import MANIFEST, TRANSCRIPT, StageCall, StageResult
from harness.errors import HarnessError
from harness.gen import dataset
from harness.gen.dataset import DATA, DROPPED, Example
from harness.gen.made import Made
from harness.spec.recipes import Gen, RateGen

MODULES = {
    "alpaca": "alpaca",
    "self_instruct": "self_instruct",
    "naive": "naive",
    "expand": "expand",
    "rate": "rate",
    "select": "choose",
    "random_k": "choose",
    "longest_k": "choose",
    "seeds_only": "seeds_only",
    "import": "importing",
}


def run(call: StageCall) -> StageResult:
    """Carry out the step that `call.params["gen"]` asks for, on the data set of `call.inputs`."""
    from harness.gen import card

    gen: Gen = TypeAdapter(Gen).validate_python(call.params["gen"])
    recipe = importlib.import_module(f"harness.gen.{MODULES[gen.recipe]}")
    given = dataset.read(Path(call.inputs["data"]) / DATA) if "data" in call.inputs else []
    made: Made = recipe.make(call, gen, given)
    for step in made.filters:
        step.check()
    dataset.write_rows(call.folder / DROPPED, made.dropped)
    if not made.examples:
        raise _nothing_kept(call, made)
    client = made.client
    simulated = _simulated_before(call)
    if client is not None and client.simulated:
        simulated.add("judge" if isinstance(gen, RateGen) else "teacher")
        made.examples = [_marked(example) for example in made.examples]
    if any(example.simulated for example in made.examples) and not simulated:
        simulated.add("teacher")  # an imported file's rows say so
    dataset.write_rows(call.folder / DATA, (e.row() for e in made.examples))
    cards = card.write(call, gen.recipe, made, bool(simulated))
    return StageResult(
        keep=[DATA, DROPPED, *([TRANSCRIPT] if client else []), *made.files, *cards],
        counts=_counts(made),
        used={**made.used, **({"served_models": client.served_models} if client else {})},
        seeds=made.seeds,
        cost=client.cost() if client else {},
        simulated=sorted(simulated),
        notes=made.notes + _notes(made),
    )


def _marked(example: Example) -> Example:
    """The example, said to be simulated where this step asked for it."""
    asked = bool(example.lineage and example.lineage[-1].requests)
    return dataclasses.replace(example, simulated=True) if asked else example


def _simulated_before(call: StageCall) -> set[str]:
    """What was simulated in the data set that this step works on."""
    if "data" not in call.inputs:
        return set()
    manifest = Path(call.inputs["data"]) / MANIFEST
    return set(json.loads(manifest.read_text(encoding="utf-8"))["simulated"])


def _counts(made: Made) -> dict[str, int]:
    counts = dict(made.counts)
    for step in made.filters:
        at = f"{step.step}_" if len(made.filters) > 1 else ""
        counts[f"{at}proposed"] = step.proposed
        counts |= {f"{at}dropped_{rule}": n for rule, n in sorted(step.dropped.items())}
        counts[f"{at}kept"] = step.kept
    return {**counts, "examples": len(made.examples)}


def _notes(made: Made) -> list[str]:
    models = made.client.served_models if made.client else []
    return [f"the replies came from {', '.join(models)}"] if len(models) > 1 else []


def _nothing_kept(call: StageCall, made: Made) -> HarnessError:
    told = "; ".join(f"{s.step}: {s.proposed} {s.unit}, dropped {s.tally()}" for s in made.filters)
    where = f"see {call.folder / DROPPED}. "
    if made.client is None:
        return HarnessError(f"no example is left ({told})", where + "Correct this step in the spec")
    return HarnessError(
        f"the replies held nothing to keep ({told})",
        where
        + f"The same command finds the same replies in {call.folder / TRANSCRIPT}: change the "
        f"model, its prompt or its sampling in the spec, or remove the work folder {call.folder} to "
        "ask again",
    )
