"""What can be known of a row before anything runs: a model without weights, training data, seeds or a
prompt set that cannot be read, a baseline that lacks prompts, an annotator that does not exist. No paid
call and no training is to end in these.

The stages check the same, and more, with the same functions.
"""

import contextlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.answer.answer import Answer
from harness.answer.prompts import Prompt, read_prompts
from harness.artefact import environment
from harness.artefact.environment import STAGES
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.common.commands import harness
from harness.common.executor_names import BY_SERVICE
from harness.errors import DataAbsent, InputError, NotFetched, blamed, kept, raise_all
from harness.judge.judge import BaseJudge
from harness.llm import prices
from harness.llm.secrets import read_key
from harness.modeling import load
from harness.modeling.memory import shapes
from harness.modeling.template_pieces import pieces
from harness.row.load import LoadedRow
from harness.row.rejudged import (
    AGAINST_ITSELF,
    RetiredVerdicts,
    bridge_rows,
    digests,
    published_row,
)
from harness.row.row import Row
from harness.run import training_data
from harness.run.bridging import (
    NO_BRIDGE,
    Texts,
    against_itself,
    check_distinct,
    check_pairs,
    check_published,
    given_texts,
    verdicts_of,
)
from harness.run.executors import HOST, on_loopback
from harness.run.plan import RowPlan, StagePlan, command_for, dump, endpoints_of, evaluated
from harness.spec.base import Endpoint
from harness.spec.model_source import ModelSource
from harness.spec.prompts import PromptSet
from harness.spec.template import Template

ANSWERING = "eval.answer.engine: "
GIVE_OWN = (
    "Give the row answers of its own (eval.answer.engine); or leave out reported.outputs: our judge's "
    "number for the study's answers then stands beside the published one."
)


def check(
    plan: RowPlan, files: Files, only: Sequence[str] = (), store: Store | None = None
) -> None:
    """Look at the stages of a row that are to run (of those in `only`, if any), as far as their data
    is here. With the `store`: at those alone that read from the hub, whose snapshots are in it by now.

    Files that only a package reads which is not installed here are not looked at.

    Raises:
        InputError: a stage could only fail.
    """
    faults: list[InputError] = []
    if store is None:
        with kept(faults):
            check_reported(plan, files)
    to_run = [s for s in plan.stages if s.status != "reuse"]
    with kept(faults):
        asked = [s for s in to_run if s.stage in (only or STAGES)]
        _check_prices(plan.row, [(s.stage, s.unpriced) for s in asked])
    for stage, place in _places(plan):
        # Of a bridging model that is judged already the rest of the row would be paid in vain.
        is_asked = stage.status != "reuse" or (stage.retired is not None and to_run)
        if not is_asked or stage.stage not in (only or STAGES):
            continue
        hubs = stage.hubs()
        if store is not None and not hubs:
            continue
        snapshots = {n: store.hub_folder(*hub) for n, hub in hubs.items()} if store else {}
        with kept(faults), contextlib.suppress(NotFetched, ImportError):
            _check(stage, place, files, {n: str(p) for n, p in snapshots.items() if p.is_dir()})
    with placed(plan):
        raise_all(faults)


@contextlib.contextmanager
def placed(plan: RowPlan) -> Iterator[None]:
    """What is refused within is told with the row, and the place of the setting to blame."""
    try:
        yield
    except InputError as e:
        loaded = plan.loaded or LoadedRow(plan.row, plan.spec, False)
        of = f"row {plan.row.row}"
        raise_all(
            [InputError(f"{loaded.place(p.setting)}: {of}: {p.message}", p.hint) for p in e.parts]
        )


def _places(plan: RowPlan) -> Iterator[tuple[StagePlan, tuple[str | int, ...]]]:
    """The row's stages, and those of what is judged beside it, each with the setting that it is of."""
    for stage in plan.own:
        if stage.stage == "gen":
            yield stage, ("gen", (plan.row.gen or []).index(stage.params["gen"]))
        else:
            yield stage, ("train",) if stage.stage == "train" else ("eval", stage.stage)
    for stage in plan.published.own if plan.published is not None else ():
        yield stage, ("reported", "outputs")
    for number, other in enumerate(plan.bridge):
        for stage in other.own:
            yield stage, ("reported", "bridge", number)


def check_reported(plan: RowPlan, files: Files) -> None:
    """Look at what the study published of a row, as far as its files are here, also where every stage
    is made: it is in no key.

    Raises:
        InputError: as check_beside; or the row's own answers are what it would be held against, or
            bridged by.
    """
    check_beside(plan.loaded or LoadedRow(plan.row, plan.spec, False), files)
    if plan.beside() and plan.against_itself:
        hint = GIVE_OWN if plan.published is not None else NO_BRIDGE
        with blamed("eval", "answer", "engine"):
            raise InputError(plan.against_itself, hint)


def check_stage(planned: StagePlan, only: Sequence[str], store: Store, executor: str) -> None:
    """Look at what a stage that is to run needs beside its data.

    Raises:
        InputError: an input is missing and its stage is not among `only`, a key is not set, a price is
            not known, a server cannot be reached from where the stage runs.
    """
    for name, source in planned.inputs.items():
        if only and source.stage not in only and source.artefact is None:
            raise InputError(
                f"row {planned.row}: its {name} ({source.stage} {source.key[:12]}) is not on "
                f"the volume {store.root}",
                f"Make it with: {command_for(source, planned)}",
            )
    for called in (*planned.endpoints, planned.served):
        if called is not None and called.base_url is not None:
            _check_reachable(planned, called.base_url, executor)
    try:
        _check_prices(planned.owner, [(planned.stage, planned.unpriced)])
    except InputError as e:
        raise InputError(f"row {planned.row}: {e.message}", e.hint) from None
    for endpoint in planned.endpoints:
        if endpoint.simulated is None and endpoint.api_key_env is not None:
            read_key(
                endpoint.api_key_env,
                f"{endpoint.model}, which the {planned.stage} stage of row {planned.row} calls",
            )


def _check_reachable(planned: StagePlan, url: str, executor: str) -> None:
    """Refuse a server on this machine's loopback address for a stage in a container, where that
    is the container itself."""
    inside = environment.current_image() is not None
    if not (inside or executor in BY_SERVICE) or not on_loopback(url):
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if inside and _answers(parts.hostname or "", port):
        return  # it shares the network of the machine, or of the server
    other = parts._replace(netloc=f"{HOST}:{port}").geturl()
    if inside:
        add_host = " (compose.yaml names it under extra_hosts; add it where another file does not)"
        outside = f"outside of the images: {harness('run', str(planned.spec))}"
    else:
        add_host, outside = "", "with --executor local"
    raise InputError(
        f"row {planned.row}: the server {url}, which its {planned.stage} stage calls, is on a "
        "loopback address; inside a container that is the container itself, not this machine",
        f"Have the server listen on this machine's address on Docker's bridge (`ip -4 addr show "
        f"docker0`, often 172.17.0.1) and write base_url: {other}{add_host}. Or run the stage "
        f"{outside}",
    )


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _check(
    stage: StagePlan, place: tuple[str | int, ...], files: Files, snapshots: dict[str, str]
) -> None:
    """`place`: the setting that the stage is of; `snapshots`: input's name -> the folder of what it
    reads from the hub, where that is here."""
    trained = stage.inputs.get("model")
    if trained is None or trained.stage != "train":
        for source, name in ((stage.base, "hub"), (stage.judge_model, "judge_hub")):
            with blamed(*(("model",) if name == "hub" else place)):
                if source is not None and source.path is not None:
                    load.check_model(files.locate(source.path))
                elif source is not None and source.hub is not None and name in snapshots:
                    load.check_model(Path(snapshots[name]))
            if source is not None and source.path is not None and name == "hub":
                with blamed("template"):
                    _check_chat_template(_template_of(stage), source, files)
    if stage.stage == "answer":
        with blamed(*place, "engine"):
            stage.check_engine(stage.params["answer"].engine, ANSWERING)
    if stage.stage == "train":
        training_data.read(stage.stage, stage.params, files)
        _check_layers(stage)
    elif stage.stage == "gen":
        with blamed(*place):
            training_data.read(stage.stage, stage.params, files)
            _check_size(stage)
    if stage.retired is not None and snapshots:  # else as check_beside has looked
        with blamed(*place, "annotations"):
            _check_bridge(stage.retired, stage.inputs["outputs"].params["answer"], files, snapshots)
    with _blamed_for_outputs() if place[0] == "reported" else blamed(), blamed(*place):
        _check_reads(stage.stage, stage.params, files, snapshots)


def _template_of(stage: StagePlan) -> Template | None:
    answer: Answer | None = stage.params.get("answer")
    if answer is not None:
        return answer.template if answer.engine.uses_template else None
    template: Template | None = stage.params.get("template")
    return template


def _check_chat_template(template: Template | None, model: ModelSource, files: Files) -> None:
    if template is None or not template.from_tokenizer or model.chat_format is not None:
        return
    if model.path is not None:
        load.check_chat_template(files.locate(model.path))


def check_row(row: Row, files: Files) -> None:
    """Look at what the stages of a row read that is no training data (harness.run.training_data),
    without a plan: as far as its files are here, and nothing of the hub's.

    Raises:
        InputError: a stage could only fail.
    """
    faults: list[InputError] = []
    for setting, stage, params in _reading(row):
        with kept(faults), contextlib.suppress(DataAbsent, ImportError), blamed(*setting):
            _check_reads(stage, params, files, {})
    with kept(faults):
        check_beside(LoadedRow(row, Path(), False), files)
    if row.answer is not None:
        with kept(faults), blamed("eval", "answer", "engine"):
            row.answer.engine.check_model(row.model, row.train, ANSWERING)
    if row.model is not None and row.model.path is not None:
        with kept(faults), contextlib.suppress(DataAbsent), blamed("model", "path"):
            load.check_model(files.locate(row.model.path))
        answer = row.answer
        is_asked = answer is not None and answer.template is None and answer.engine.uses_template
        if row.train is not None or is_asked:
            with kept(faults), contextlib.suppress(DataAbsent), blamed("template"):
                _check_chat_template(row.template, row.model, files)
    raise_all(faults)


def check_beside(loaded: LoadedRow, files: Files) -> None:
    """Look at what the row's judge judges beside the row, as far as its files are here.

    Raises:
        InputError: it could not be used; every fault of every file is told.
    """
    faults: list[InputError] = []

    @contextlib.contextmanager
    def looking(*setting: str | int) -> Iterator[None]:
        with kept(faults), contextlib.suppress(DataAbsent, ImportError), blamed(*setting):
            yield

    published = published_row(loaded)
    if published is not None:
        with looking("eval", "answer", "engine"):
            _check_not_published(loaded.row, published.row, files)
        with looking("reported", "outputs"), _blamed_for_outputs():
            _check_reads("answer", {"answer": published.row.answer}, files, {})
            theirs = published.row.answer and published.row.answer.engine.given_outputs
            if theirs:
                digests(theirs, files.digest)
    models: dict[Path, Texts] = {}
    mine: Texts = {}
    own = loaded.row.answer.engine.given_outputs if loaded.row.answer is not None else None
    with contextlib.suppress(InputError):  # which the answer stage tells
        mine = given_texts(own, files) if own is not None else {}
    for number, bridging in enumerate(bridge_rows(loaded)):
        answer = bridging.loaded.row.answer
        assert answer is not None
        place = "reported", "bridge", number
        with looking(*place), _blamed_for_outputs():
            _check_reads("answer", {"answer": answer}, files, {})
        with looking(*place, "outputs"):
            check_distinct(answer, files, models, mine)
        with looking(*place, "annotations"):
            _check_bridge(bridging.retired, answer, files, {})
    row, judge = loaded.row, loaded.row.judge
    reference = judge.baseline if judge is not None else None
    for number, verdicts in enumerate(row.reported.annotations):
        with looking("reported", "annotations", number):
            check_published(files.pinned(verdicts), row.reported.judges(), reference)
    raise_all(faults)


@contextlib.contextmanager
def _blamed_for_outputs() -> Iterator[None]:
    """What is refused of an engine within is the fault of the outputs that were given to it."""
    try:
        yield
    except InputError as e:
        for part in e.parts:
            part.setting = tuple("outputs" if n == "engine" else n for n in part.setting)
        raise


def _check_not_published(row: Row, published: Row, files: Files) -> None:
    assert row.answer is not None
    assert published.answer is not None
    own = row.answer.engine.given_outputs
    theirs = published.answer.engine.given_outputs
    if own is None or theirs is None:
        return
    text = AGAINST_ITSELF
    if digests(own, files.digest) != digests(theirs):
        text = against_itself(given_texts(own, files), given_texts(theirs, files))
    if text:
        raise InputError(text, GIVE_OWN)


def check_prices(row: Row) -> None:
    """Raises InputError for a budget in dollars where a model is called whose price is not known, or
    the table of prices cannot be read."""
    if row.budget.usd is None:
        return
    known = prices.load()
    _check_prices(
        row,
        [
            (stage, [e.model for e in endpoints_of(params) if known.of(e) is None])
            for _, stage, params in _reading(row)
        ],
    )


def _check_prices(row: Row, unpriced: Iterable[tuple[str, Sequence[str]]]) -> None:
    """unpriced: stages, each with the models that it calls whose price is not known."""
    callers: dict[str, str] = {}
    for stage, models in unpriced:
        for model in models:
            callers.setdefault(model, f"{model}, which the {stage} stage calls,")
    if row.budget.usd is not None and callers:
        with blamed("budget", "usd"):
            raise InputError(
                "there is a budget in dollars, and the price of "
                f"{' and of '.join(callers.values())} is not known",
                f"Add {'it' if len(callers) == 1 else 'them'} to {prices.place()}.",
            )


def endpoints(row: Row) -> Iterator[Endpoint]:
    """Those that a row's stages call."""
    for _, _, params in _reading(row):
        yield from endpoints_of(params)


def slash_notes(called: Iterable[Endpoint]) -> list[str]:
    """A sentence for each address with a slash at its end. It stands in keys and requests as it is
    written, so that what was made and paid for with one stays valid."""
    return [
        f"base_url {e.base_url} is the same server as {e.server} and gives other keys: write it one "
        "way in all specs, or a stage that they share is made and paid for twice"
        for e in called
        if e.base_url != e.server
    ]


def _reading(row: Row) -> Iterator[tuple[tuple[str | int, ...], str, dict[str, Any]]]:
    """Of each stage but the training: where it stands in the spec, its name, its parameters."""
    for number, step in enumerate(row.gen or []):
        yield ("gen", number), "gen", {"gen": step}
    for stage, params in evaluated(row).items():
        yield ("eval", stage), stage, params


def _check_reads(
    stage: str, params: dict[str, Any], files: Files, snapshots: dict[str, str]
) -> None:
    judge: BaseJudge | None = params.get("judge")
    if judge is not None:
        judge.check_settings()
    values = dump(params, lambda data: str(files.locate(data)))
    if stage == "gen":
        type(params["gen"]).model_validate(values["gen"]).check(snapshots)
    if stage in ("gen", "train"):
        return
    if stage == "answer":
        answer = Answer.model_validate(values["answer"])
        with blamed("prompts"):
            prompts = _read(answer.prompts, snapshots)
            _check_turns(prompts, answer.template if answer.engine.uses_template else None)
        if prompts:
            with blamed("engine"):
                answer.engine.check(prompts)
        return
    assert judge is not None
    judge = type(judge).model_validate(values["judge"])
    answered = values.get("prompts")
    prompt_set = judge.prompts(PromptSet.model_validate(answered) if answered else None)
    prompts = _read(prompt_set, snapshots) if prompt_set is not None else []
    _check_turns(prompts, judge.template_of(None))
    if not judge.reads_turns and any(prompt.later for prompt in prompts):
        raise InputError(
            f"the prompt set has questions of several turns, and the judge {judge.kind} reads one",
            "Take the judge single_grading, or a prompt set of single instructions.",
        )
    judge.check(prompts, snapshots)


def _check_bridge(
    retired: RetiredVerdicts, answer: Answer, files: Files, snapshots: dict[str, str]
) -> None:
    verdicts = verdicts_of(retired, answer, files)
    asked = dump(answer.prompts, lambda data: str(files.locate(data)))
    prompts = _read(PromptSet.model_validate(asked), snapshots)
    # What is asked in later turns is not known yet.
    if prompts and not any(prompt.later for prompt in prompts):
        check_pairs(files.locate(retired.annotations), verdicts.keys(), prompts)


def _check_size(stage: StagePlan) -> None:
    most = _most_examples(stage.inputs["data"]) if "data" in stage.inputs else None
    if most is not None:
        stage.params["gen"].check_size(most)


def _most_examples(stage: StagePlan) -> int | None:
    """How many examples a gen stage leaves at most; None where that is not known before it runs."""
    if stage.artefact is not None or stage.params["gen"].estimates_limit:
        return stage.estimate.examples
    return _most_examples(stage.inputs["data"]) if "data" in stage.inputs else None


def _check_layers(stage: StagePlan) -> None:
    """Raises InputError for a random model whose heads do not part its width, and for names of layers
    that it has not, where its type's shape is known."""
    source, train = stage.base, stage.params["train"]
    shape = shapes.from_config(source.random.config) if source and source.random else None
    if shape is None:
        return
    assert source is not None
    assert source.random is not None
    if "head_dim" not in source.random.config and shape.hidden % shape.heads:
        with blamed("model", "random", "config"):
            raise InputError(
                f"model.random.config: hidden_size {shape.hidden} is no multiple of "
                f"num_attention_heads {shape.heads}"
            )
    targets = train.lora.target_modules if train.lora is not None else []
    lacking = [] if isinstance(targets, str) else sorted({*targets} - {*shape.linears})
    if lacking:
        with blamed("train", "lora", "target_modules"):
            raise InputError(
                f"train.lora.target_modules: the model has no linear layer {', '.join(lacking)}",
                f"It has: {', '.join(shape.linears)}.",
            )


def _check_turns(prompts: Sequence[Prompt], template: Template | None) -> None:
    """Raises InputError for earlier turns that the template has no place for."""
    if template is None or template.from_tokenizer:
        return
    for prompt in prompts:
        history = prompt.history or (((prompt.asked, ""),) if prompt.later else ())
        if history:
            pieces(template, prompt.asked, prompt.input, None, "", history)


def _read(prompts: PromptSet, snapshots: dict[str, str]) -> list[Prompt]:
    """Empty for a set on the hub that is not here."""
    folder = snapshots.get("prompts")
    return [] if prompts.hub is not None and folder is None else read_prompts(prompts, folder)
