"""Whether a row's judge is the one that judged the published number."""

import re
from collections.abc import Set
from dataclasses import dataclass

from harness.answer.engines.endpoint import EndpointEngine
from harness.judge.judge import BaseJudge, Reference, RowOutputs
from harness.row.reported import PublishedJudge
from harness.row.sources import shown_name
from harness.spec.base import Endpoint
from harness.spec.model_source import ModelSource
from harness.spec.prompts import OutputFiles
from harness.spec.twin import name_of

ANNOTATOR = "annotator"
LATEST = "-latest"
DATED = re.compile(r"[-@]\d{3,4}|[-@:_](\d{6}|\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4})")
"""What stands behind a model's name in a snapshot's: `gpt-4-0613`, `gpt-4o-2024-08-06`. That of a
preview is another model's: `gpt-4-1106-preview` is no `gpt-4`."""


@dataclass(frozen=True)
class OwnJudge:
    """Who judges a row's outputs, in the words of `PublishedJudge`."""

    model: str
    annotator: str
    reference: Reference | None
    is_simulated: bool
    """Whether the simulated judge answers for the model."""
    is_asked: bool
    """Whether a server is asked for the model by its name, and says which model answers."""

    @property
    def baseline(self) -> str:
        if isinstance(self.reference, OutputFiles):
            return self.reference.output
        return shown_name(self.reference) if self.reference is not None else ""


def own_judge(judge: BaseJudge) -> OwnJudge:
    """By the fields that the kind of judge names as who judges."""
    parts = [getattr(judge, name) for name in judge.identity]
    if isinstance(judge.asked_engine, EndpointEngine):
        parts.append(judge.asked_engine.endpoint)
    endpoints = [part for part in parts if isinstance(part, Endpoint)]
    models = [endpoint.model for endpoint in endpoints]
    models += [name_of(part) for part in parts if isinstance(part, ModelSource)]
    annotator = getattr(judge, ANNOTATOR) if ANNOTATOR in judge.identity else judge.kind
    is_simulated = any(endpoint.simulated is not None for endpoint in endpoints)
    name = models[0] if models else ""
    return OwnJudge(name, annotator, judge.baseline, is_simulated, bool(endpoints))


def another_judge(
    published: PublishedJudge, judge: BaseJudge, served: Set[str] = frozenset()
) -> str:
    """In words what is another: the model (as it is asked for, and as servers named it: `served`), how
    it was asked, or the baseline; empty where all that is published of it is the same."""
    own = own_judge(judge)
    different = []
    if published.model is not None and not _is_judge(published.model, own, served):
        ours = own.model
        if own.is_asked and served - {own.model}:
            ours = f"{' and '.join(sorted(served))} (asked for as {own.model})"
        different.append(f"{published.model} judged the published number, {ours} ours")
    if published.annotator not in (None, own.annotator):
        different.append(f"it was judged by {published.annotator}, ours by {own.annotator}")
    if published.baseline is not None and not is_baseline(published.baseline, own.reference):
        against = own.baseline or "nothing"
        different.append(f"it was judged against {published.baseline}, ours against {against}")
    return "; ".join(different)


def _is_judge(model: str, own: OwnJudge, served: Set[str]) -> bool:
    if served == {model}:
        return True
    return model == own.model and (
        not own.is_asked or all(is_snapshot(name, own.model) for name in served)
    )


def is_snapshot(served: str, asked: str) -> bool:
    """Whether a server's name for a model is the one asked for, or that of a dated snapshot of it:
    `gpt-4-0613` of `gpt-4`, which `gpt-4-turbo` is not. Its owner's name may stand before either."""
    if "/" not in served or "/" not in asked:
        served, asked = served.rpartition("/")[2], asked.rpartition("/")[2]
    served, asked = served.lower(), asked.lower()
    model = asked.removesuffix(LATEST)
    dated = DATED.fullmatch(served.removeprefix(model)) if served.startswith(model) else None
    return served == asked or dated is not None


def in_words(model: str | None, annotator: str | None, baseline: str | None) -> str:
    """`gpt-4.1-mini (chatgpt) against gpt4_1106_preview`."""
    how = f"({annotator})" if annotator else ""
    against = f"against {baseline}" if baseline else ""
    return " ".join(filter(None, (model or "a model that is not named", how, against)))


def is_baseline(name: str, reference: Reference | None) -> bool:
    """Whether the outputs that ours are compared with go by this name, or have this sha256."""
    if reference is None:
        return False
    if isinstance(reference, RowOutputs):
        return is_named(name, reference.spec)
    if isinstance(reference, OutputFiles):
        files = reference.files.values()
        return is_named(name, reference.output) or any(is_baseline(name, file) for file in files)
    return name == reference.sha256 or any(
        is_named(name, place) for place in (reference.path, *reference.url)
    )


def is_named(name: str, place: str) -> bool:
    """Whether a file or one of its folders is called so, letters and digits alone: `gpt4-1106-preview`
    is gpt4_1106_preview_outputs.json, and not gpt4_outputs.json."""
    wanted, parts = _plain(name), place.split("/")
    names = [_plain(part) for part in (*parts, parts[-1].rpartition(".")[0])]
    return bool(wanted) and wanted in {
        n for each in names for n in (each, each.removesuffix("outputs"))
    }


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
