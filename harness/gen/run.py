"""The gen stage: one step that makes a data set or works on one.

What the recipe makes becomes the artefact here: data.jsonl, dropped.jsonl, the transcript, the step's
own files and the data card.
"""

import dataclasses
import json
from pathlib import Path

from pydantic import TypeAdapter

from harness.artefact.call import MANIFEST, TRANSCRIPT, StageCall, StageResult
from harness.data import dataset
from harness.data.dataset import DATA, DROPPED, DatasetExample
from harness.errors import HarnessError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.union import Gen


def run(call: StageCall) -> StageResult:
    """Carry out the step that `call.params["gen"]` asks for, on the data set of `call.inputs`."""
    from harness.gen.card import card

    gen: Gen = TypeAdapter(Gen).validate_python(call.params["gen"])
    input_examples = dataset.read(Path(call.inputs["data"]) / DATA) if "data" in call.inputs else []
    result = gen.make(call, input_examples)
    dataset.write_rows(call.folder / DROPPED, result.dropped)
    if not result.examples:
        raise _nothing_kept(call, result)
    client = result.client
    simulated = _simulated_before(call)
    source = gen.reply_source
    if source is not None and client is not None and client.simulated:
        simulated.add(source.role)
        result.examples = [_marked(example) for example in result.examples]
    if any(example.simulated for example in result.examples) and not simulated:
        simulated.add("teacher")  # an imported file's rows say so
    dataset.write_rows(call.folder / DATA, (e.row() for e in result.examples))
    cards = card.write(call, gen.recipe, result, bool(simulated))
    return StageResult(
        keep=[DATA, DROPPED, *([TRANSCRIPT] if client else []), *result.files, *cards],
        counts=_counts(result),
        used=result.used | _models_used(result),
        seeds=result.seeds,
        cost=client.cost() if client else {},
        simulated=sorted(simulated),
        notes=result.notes + _notes(result),
    )


def _marked(example: DatasetExample) -> DatasetExample:
    """The example, said to be simulated where this step asked for it."""
    has_request = bool(example.lineage and example.lineage[-1].requests)
    return dataclasses.replace(example, simulated=True) if has_request else example


def _simulated_before(call: StageCall) -> set[str]:
    """What was simulated in the data set that this step works on."""
    if "data" not in call.inputs:
        return set()
    manifest = Path(call.inputs["data"]) / MANIFEST
    return set(json.loads(manifest.read_text(encoding="utf-8"))["simulated"])


def _counts(result: RecipeResult) -> dict[str, int]:
    counts = dict(result.counts)
    for step in result.filters:
        at = f"{step.step}_" if len(result.filters) > 1 else ""
        counts[f"{at}proposed"] = step.proposed
        counts |= step.counts(f"{at}dropped")
        counts[f"{at}kept"] = step.kept
    return {**counts, "examples": len(result.examples)}


def _models_used(result: RecipeResult) -> dict[str, object]:
    """Who answered; where several teachers were asked, also what each one's calls took."""
    client = result.client
    if client is None:
        return {}
    costs = dict(client.cost_of_each()) if result.teachers and not client.replay else {}
    return {"served_models": client.served_models} | ({"cost_of_each": costs} if costs else {})


def _notes(result: RecipeResult) -> list[str]:
    models = result.client.served_models if result.client else []
    return [f"the replies came from {', '.join(models)}"] if len(models) > 1 else []


def _nothing_kept(call: StageCall, result: RecipeResult) -> HarnessError:
    tallies = "; ".join(
        f"{s.step}: {s.proposed} {s.unit}, dropped {s.in_words()}" for s in result.filters
    )
    where = f"see {call.folder / DROPPED}. "
    if result.client is None:
        return HarnessError(
            f"no example is left ({tallies})", where + "Correct this step in the spec"
        )
    return HarnessError(
        f"the replies held nothing to keep ({tallies})",
        where
        + f"The same command finds the same replies in {call.folder / TRANSCRIPT}: change the "
        f"model, its prompt or its sampling in the spec, or remove the work folder {call.folder} to "
        "ask again",
    )
