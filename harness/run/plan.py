"""Spec -> stage calls with keys, and for each: run, reuse or stale, and why."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from harness.answer.answer import Answer, Decoding
from harness.answer.engine import QUANTIZATION, BaseEngine
from harness.answer.engines.transformers import DONE
from harness.answer.engines.vllm import VllmEngine
from harness.answer.outputs import OUTPUTS, digest_of_texts
from harness.artefact import environment
from harness.artefact.call import CHECKPOINT, TRANSCRIPT, PriceRecord
from harness.artefact.keys import (
    KEY_FORMAT,
    Files,
    differences,
    digest_of,
    iter_data,
    key_view,
    open_hubs,
)
from harness.artefact.needs import Needs
from harness.artefact.store import FAILED, Artefact, MadeOfAnother, Store
from harness.common.commands import harness
from harness.common.executor_names import IN_IMAGES
from harness.common.progress import counted
from harness.errors import DataAbsent, HarnessError, InputError, NotFetched
from harness.gen.recipe import Recipe
from harness.judge.judge import BaseJudge
from harness.llm.estimate import Estimate
from harness.llm.prices import Prices
from harness.row.load import LoadedRow, load_rows
from harness.row.rejudged import (
    AGAINST_ITSELF,
    OWN_BRIDGE,
    RetiredVerdicts,
    bridge_rows,
    judges_published,
    published_row,
)
from harness.row.row import Row
from harness.row.twin import scaled
from harness.run.bridging import Texts, against_itself, given_texts
from harness.spec.base import DataPath, Endpoint
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel, ModelSource
from harness.spec.prompts import OutputFiles, PromptSet
from harness.spec.train import Quantization, Train
from harness.stats.bridge import FEWEST_PROMPTS
from harness.train import checkpoints

if TYPE_CHECKING:
    from harness.gen.reading import Reading
    from harness.llm.totals import Totals
    from harness.llm.transcript import Asked
    from harness.modeling.memory.need import Need


StageId = tuple[str, str]
"""A stage's kind and key."""
RUNNING_NOW = "running now"
"""How the reason begins of a stage that another process is at."""
LOG = "trainer_log.jsonl"
"""In what a training made: its losses."""
CLOCKS_DIFFER = timedelta(hours=1)
"""At most, of machines that share a volume."""
NOT_THERE = "a given file is not on the volume yet"


@dataclass
class StagePlan:
    """One stage of one replicate of a row."""

    owner: Row
    """The row it was planned for; other rows may share the artefact."""
    spec: Path
    stage: str
    label: str
    """Which replicate, or which step of a chain: `train seed 2, judging 1`, `step 2 rate`; empty
    where there is one only."""
    params: dict[str, Any]
    """Name -> spec model (or plain value); see harness.artefact.call.StageCall."""
    inputs: "dict[str, StagePlan]"
    document: dict[str, Any]
    """Everything that decides the artefact's content; `key` is its sha256."""
    key: str
    status: str = "run"
    """`reuse`, `run`, or `stale`: it was there, and what decides its content has changed."""
    reasons: list[str] = field(default_factory=list)
    prices: Prices = field(default_factory=lambda: Prices("", {}))
    """Of the called models, as far as they are known."""
    tokenizer: ModelSource | None = None
    """The row's, for the lengths in a data card; it decides nothing else."""
    artefact: Artefact | None = None
    retired: RetiredVerdicts | None = None
    """Of a bridging model's judge stage: the published judge's verdicts, with which its result is
    read."""
    planner: "Planner | None" = field(default=None, repr=False, compare=False)
    """Where it was planned; None for a stage out of a crate."""

    # Worked out when first asked for: they open the given files, and no table shows them.

    @cached_property
    def estimate(self) -> Estimate:
        """As the same calls took before on the volume, where there were any; of an interrupted run
        what is left of it. Of a stage that is there: no calls, and the examples that it holds."""
        from harness.run import estimate
        from harness.run.foretold import foretold

        if self.artefact is not None:
            return Estimate(examples=self.artefact.manifest.counts.get("examples", 0))
        if self.planner is None:
            return Estimate()
        before = self.inputs["data"].estimate if "data" in self.inputs else None
        try:
            expected = estimate.of_stage(
                self.stage, self.params, self.planner.files, before, self._answers()
            )
        except NotFetched:
            return Estimate(examples=None, unknown=NOT_THERE)
        known = foretold(self.planner.store) if expected.calls else None
        expected = known.calls(self, expected) if known is not None else expected
        kept = list(self.kept.values())
        answered = sum(totals.answered for totals in kept)
        if not answered or any(totals.without_usage for totals in kept):
            return expected
        left = max(0, expected.calls - answered)
        prompt, completion = (sum(n) for n in zip(*(t.tokens for t in kept), strict=True))
        tokens = (round(n * left / answered) for n in (prompt, completion))
        return expected.as_measured(left, *tokens)

    @cached_property
    def kept(self) -> "Mapping[Asked, Totals]":
        """Of the calls that an interrupted run of it has made, by the model."""
        from harness.llm.transcript import Transcript

        if self.artefact is not None or self.planner is None or not self.endpoints:
            return {}
        path = self.planner.store.work_folder(*self.id) / TRANSCRIPT
        try:
            with contextlib.closing(Transcript(path, read_only=True)) as transcript:
                return transcript.totals_by
        except HarnessError:
            return {}

    @property
    def kept_usd(self) -> float:
        """What these have cost, where a price is known; where replies do not say their tokens, at
        most."""
        priced = [(self.kept[a], e) for a in self.kept for e in self.endpoints if a[0] == e.model]
        return math.fsum(
            totals.most_usd(price) if totals.without_usage else totals.usd(price)
            for totals, endpoint in priced
            if (price := self.prices.of(endpoint)) is not None
        )

    def _answers(self) -> list[Path]:
        """Files of the answers that it judges, as far as they are there; without a constant's."""
        outputs = self.inputs.get("outputs")
        if outputs is None or self.planner is None:
            return []
        if outputs.artefact is not None:
            return [outputs.artefact.folder / OUTPUTS]
        engine = engine_of(outputs.params)
        given = engine.given_outputs if engine is not None else None
        data = given.files.values() if isinstance(given, OutputFiles) else [given] if given else []
        try:
            return [self.planner.files.locate(of) for of in data]
        except NotFetched:
            return []

    @cached_property
    def readings(self) -> "Sequence[Reading]":
        """What the given files hold that it trains on or imports, as far as they can be read here."""
        from harness.run import training_data

        if self.artefact is None and self.planner is not None:
            with contextlib.suppress(InputError):
                return training_data.read(self.stage, self.params, self.planner.files)
        return ()

    @cached_property
    def need(self) -> "Need | str | None":
        """The memory that a train stage will need, or why that is not known."""
        from harness.modeling.memory import need as memory

        if self.stage != "train" or self.artefact is not None or self.planner is None:
            return None
        store, files, source = self.planner.store, self.planner.files, self.params["model"]
        data = self.inputs["data"].artefact if "data" in self.inputs else None
        snapshot = store.hub_folder(source.hub, source.trust_remote_code) if source.hub else None
        return memory.of_stage(self.params, files, snapshot, data.folder if data else None)

    @property
    def row(self) -> str:
        return self.owner.row

    @property
    def id(self) -> StageId:
        return self.stage, self.key

    @property
    def name(self) -> str:
        """`train (train seed 2)`."""
        return self.stage + self.in_brackets

    @property
    def in_brackets(self) -> str:
        """The label, to stand behind a name."""
        return f" ({self.label})" if self.label else ""

    @property
    def made(self) -> Artefact:
        """Its artefact, which is there."""
        assert self.artefact is not None
        return self.artefact

    @property
    def title(self) -> str:
        label = self.label.removeprefix(f"of {self.row}").lstrip(", ")
        return f"{self.stage}: {self.row}{f' ({label})' if label else ''} [{self.key[:12]}]"

    @property
    def target(self) -> str:
        """What a command is told to mean this row."""
        return target(self.owner, self.spec)

    @property
    def memory_name(self) -> str:
        """Where the row remembers this stage's last key, apart for each kind of environment."""
        kind = environment.kind_of(self.document["environment"])
        return f"{kind}: {self.name}"

    @property
    def endpoints(self) -> list[Endpoint]:
        """The teachers or the judge that this stage calls; none where recorded calls stand for them."""
        return endpoints_of(self.params)

    @property
    def pays(self) -> bool:
        """Whether it calls an endpoint that may cost money."""
        return any(endpoint.simulated is None for endpoint in self.endpoints)

    @property
    def unpriced(self) -> list[str]:
        """The called models whose price is not known."""
        return [e.model for e in self.endpoints if self.prices.of(e) is None]

    @property
    def base(self) -> ModelSource | None:
        """The row's base model, where the stage reads it or what was trained of it."""
        return self.params.get("model")

    def hub_sets(self) -> dict[str, HubData]:
        """Input's name -> the hub data set that the stage reads under it."""
        if self.stage == "gen":
            return dict(self.params["gen"].needs().hub)
        sources: dict[str, HubData | None] = {"prompts": prompts_of(self.params).hub}
        sources |= needs_of(self.params).hub
        return {
            # Without what only the reader of a prompt set has to know.
            name: HubData(id=hub.id, revision=hub.revision, config=hub.config, split=hub.split)
            for name, hub in sources.items()
            if hub is not None
        }

    def hubs(self, base: bool = True) -> dict[str, tuple[HubModel | HubData, bool]]:
        """Input's name -> the hub model or data set that the stage reads under it, and whether with
        the model's own code. `base`: whether the row's base model is among them."""
        sources = {"hub": self.base if base else None, "judge_hub": self.judge_model}
        models = {
            name: (source.hub, source.trust_remote_code)
            for name, source in sources.items()
            if source is not None and source.hub is not None
        }
        return {**models, **{name: (hub, False) for name, hub in self.hub_sets().items()}}

    def open_hubs(self) -> list[str]:
        """The ids of what it reads from the hub whose revision is open."""
        return open_hubs([self.params, self.tokenizer])

    @property
    def judge_model(self) -> ModelSource | None:
        """The model that a local judge is."""
        return needs_of(self.params).model

    @property
    def served(self) -> VllmEngine | None:
        """How a model is served beside the stage."""
        server = needs_of(self.params).server
        return server if isinstance(server, VllmEngine) else None

    def check_engine(self, engine: BaseEngine, where: str) -> None:
        """Raises InputError where an engine cannot take the model that answers. `where`: the beginning
        of the message."""
        if self.judge_model is not None:
            engine.check_model(self.judge_model, None, where)
            return
        trained = self.inputs.get("model")
        engine.check_model(self.base, trained.params.get("train") if trained else None, where)

    def data(self) -> Iterator[DataPath]:
        """Every given file or folder that the stage, or its result, is read with."""
        yield from iter_data(self.params)
        if self.retired is not None:
            yield self.retired.annotations
        yield from iter_data(self.tokenizer)

    def usd(self) -> float | None:
        """What its calls are expected to cost; None where a model's price is not known."""
        return None if self.unpriced else self.usd_of_priced()

    def usd_of_priced(self) -> float:
        """What those of its calls are expected to cost whose model's price is known."""
        if not self.endpoints:
            return 0.0
        expected = self.estimate
        shares = expected.shares or expected.of(self.endpoints[0]).shares
        priced = [(share, self.prices.of(share.endpoint)) for share in shares]
        return math.fsum(
            price.usd(share.prompt_tokens, share.completion_tokens, share.endpoint.mode == "batch")
            for share, price in priced
            if price is not None
        )

    def call_prices(self) -> dict[str, PriceRecord]:
        """The prices as the stage is told them."""
        paid = [e.model for e in self.endpoints if e.simulated is None]
        known = {model: self.prices.models.get(model) for model in paid}
        return {
            model: {
                "prompt": price.prompt,
                "completion": price.completion,
                "batch_share": price.batch_share,
                "dated": self.prices.dated,
            }
            for model, price in known.items()
            if price is not None
        }


@dataclass
class RowPlan:
    row: Row
    spec: Path
    stages: list[StagePlan]
    """In the order in which they must run; another row's, where its outputs are the baseline, too."""
    published: "RowPlan | None" = None
    """The study's own answers under the row's judge, where the published numbers have another."""
    bridge: "list[RowPlan]" = field(default_factory=list)
    """Bridging models' answers under the row's judge."""
    loaded: LoadedRow | None = field(default=None, repr=False, compare=False)
    """What its spec says, each value with its place; None of a row out of a crate."""

    @property
    def target(self) -> str:
        """What a command is told to mean this row."""
        return target(self.row, self.spec)

    @property
    def own(self) -> list[StagePlan]:
        """The stages of the row itself."""
        return [s for s in self.stages if s.row == self.row.row]

    @property
    def is_begun(self) -> bool:
        """Whether its last stage is made, or one before it that was not made for another row."""
        return any(
            s.stage == self.own[-1].stage or s.artefact.manifest.row == s.row
            for s in self.own
            if s.artefact
        )

    @cached_property
    def against_itself(self) -> str:
        """That the row's own answers, which are given, are the study's own, or a bridging model's, in
        words; empty where they are not. What a model answered for the row may be the same: it was
        reproduced."""
        if self.published is None and judges_published(self.row):
            return AGAINST_ITSELF
        own = [s for s in self.own if _has_given(s)]
        texts, ids = [_given_texts(s) for s in own], {s.id for s in own}
        for other in self.beside() if own else ():
            of = (OWN_BRIDGE, FEWEST_PROMPTS) if other is not self.published else (AGAINST_ITSELF,)
            for stage in filter(_has_given, other.own):
                theirs = _given_texts(stage)
                found = (against_itself(mine, theirs, *of) for mine in texts)
                if text := of[0] if stage.id in ids else next(filter(None, found), ""):
                    return text
        return ""

    def beside(self) -> "list[RowPlan]":
        """What the row's judge judges beside the row."""
        return [*([self.published] if self.published else []), *self.bridge]

    def made_beside(self) -> list[StagePlan]:
        """The finished stages of those, which are paid for the row's result too."""
        return [s for s in unique(self.beside()) if s.artefact is not None]

    def remembered(self) -> Iterator[tuple[str, StagePlan]]:
        """Each stage with the row that remembers its last key."""
        beside = {other.row.row for other in self.beside()}
        for stage in self.stages:
            yield (stage.row if stage.row in beside else self.row.row), stage

    def final(self) -> list[StagePlan]:
        """The judge stage of each replicate; empty for a row without one."""
        return [s for s in self.own if s.stage == "judge"]

    def check_inputs(self) -> None:
        """Compare what each stage was made of, by its manifest, with what is there.

        Raises:
            MadeOfAnother: the first that was made of something else, with all that were made of it.
        """
        _check_inputs(unique([self]))

    def check_results(self) -> None:
        """Compare with its digest every file that its numbers come from: of judgings, of the answers
        and baselines that were judged, of what is judged beside it; of trainings the log. Models and
        data sets, which may be large, are not read; that each is the one that was used is told by what
        the manifests say.

        Raises:
            Damaged: a file is missing, changed, or was added; or what a stage used is no more, and
                was made anew with another outcome.
        """
        self.check_inputs()
        for stage in unique([self]):
            if stage.artefact is None:
                continue
            if stage.stage == "train":
                stage.artefact.check_file(LOG)
            elif stage.stage != "gen":
                stage.artefact.check()


class Planner:
    """Plans rows against one volume, for one executor."""

    def __init__(
        self, store: Store, files: Files, executor: str, prices: Prices | None = None
    ) -> None:
        self.store = store
        self.files = files
        self.executor = executor
        self.prices = prices or Prices("", {})

    def plan(self, loaded: LoadedRow) -> RowPlan:
        """Every stage of a row, with its key and what is to be done.

        Raises:
            InputError: given data is absent or not what the spec pins.
            Damaged: an artefact on the volume is not what its manifest says.
        """
        row = loaded.row
        stages: list[StagePlan] = []
        for model, answer, label in self._outputs(loaded, stages):
            judge = row.judge
            if judge is None:
                continue
            inputs = {"outputs": answer} if answer else {"model": model} if model else {}
            if not judge.judges_outputs:
                judge = judge.filled(row.template)
                params: dict[str, Any] = {"judge": judge, "model": row.model}
                params |= quantization_of(row, judge.base_weights) | checkpoint_of(row)
                stages.append(self._stage(loaded, "judge", params, inputs, label))
                continue
            baseline = self._baseline(loaded, judge, stages)
            if baseline is not None:
                inputs["baseline"] = baseline
            assert row.answer is not None
            count = row.replicates.judge
            for replicate in range(count):
                params = {
                    "judge": judge,
                    "prompts": row.answer.prompts,
                    "replicate": replicate,
                }
                replicate_label = _join(label, f"judging {replicate + 1}" if count > 1 else "")
                stages.append(self._stage(loaded, "judge", params, inputs, replicate_label))
        return self._with_rejudged(loaded, RowPlan(row, loaded.path, stages, loaded=loaded))

    def _with_rejudged(self, loaded: LoadedRow, plan: RowPlan) -> RowPlan:
        """Plan what the row's judge judges beside the row, into the plan."""
        published = published_row(loaded)
        if published is not None:
            plan.published = self.plan(published)
        for bridging in bridge_rows(loaded):
            other = self.plan(bridging.loaded)
            with contextlib.suppress(DataAbsent):  # it is in no key
                self.files.digest(bridging.retired.annotations)
            for stage in other.final():
                stage.retired = bridging.retired
            plan.bridge.append(other)
        for other in plan.beside():
            of = other.row.row.removeprefix(f"{plan.row.row}-")
            for stage in other.own:
                stage.label = _join(of, stage.label)
                self._look_up(stage)  # what is remembered of it goes by its label
            plan.stages += other.own
        return plan

    def replan(self, plan: RowPlan) -> RowPlan:
        """Another executor's plan for this one, with which only environments, and so keys, differ.

        Raises:
            Damaged: as `plan`.
        """
        stages: list[StagePlan] = []
        replanned: dict[StageId, StagePlan] = {}
        for old in plan.stages:
            inputs = {
                name: replanned[source.stage, source.key] for name, source in old.inputs.items()
            }
            document = {
                **old.document,
                "inputs": {name: source.key for name, source in inputs.items()},
                "environment": environment.environment_of(old.stage, self.executor),
            }
            fresh = replace(
                old,
                inputs=inputs,
                document=document,
                key=digest_of(document),
                status="run",
                reasons=[],
                planner=self,
            )
            self._look_up(fresh)
            stages.append(fresh)
            replanned[old.id] = fresh

        def renewed(old: RowPlan) -> RowPlan:
            return replace(old, stages=[replanned[s.stage, s.key] for s in old.stages])

        published = renewed(plan.published) if plan.published else None
        bridge = [renewed(other) for other in plan.bridge]
        return replace(plan, stages=stages, published=published, bridge=bridge)

    def plan_model(self, loaded: LoadedRow) -> RowPlan:
        """What makes the row's model, and no more: of what its evaluation reads nothing is needed.

        Raises:
            InputError, Damaged: as `plan`.
        """
        row = loaded.row.model_copy(update={"eval": None})
        return replace(self.plan(replace(loaded, row=row)), row=loaded.row)

    def _outputs(
        self, loaded: LoadedRow, stages: list[StagePlan]
    ) -> Iterator[tuple[StagePlan | None, StagePlan | None, str]]:
        """Plan all that comes before a judge, into `stages`; of each replicate the stage that trains
        the model and the one that answers (None where there is none), and its label."""
        row = loaded.row

        def add(
            stage: str, params: dict[str, Any], inputs: dict[str, StagePlan], label: str
        ) -> StagePlan:
            planned = self._stage(loaded, stage, params, inputs, label)
            stages.append(planned)
            return planned

        gen: StagePlan | None = None
        for number, step in enumerate(row.gen or [], start=1):
            chained = f"step {number} {step.recipe}" if len(row.gen or []) > 1 else ""
            gen = add("gen", {"gen": step}, {"data": gen} if gen else {}, chained)
        train_seeds: Sequence[int | None] = row.replicates.train_seeds or [None]
        sampling_seeds: Sequence[int | None] = row.replicates.sampling_seeds or [None]
        for train_seed in train_seeds:
            model = None
            label = f"train seed {train_seed}" if train_seed is not None else ""
            if row.train:
                train = _with(row.train, "seed", train_seed)
                params = {"train": train, "model": row.model, "template": row.template}
                params["data"] = None if gen else row.data
                model = add("train", params, {"data": gen} if gen else {}, label)
            answer = row.answer
            if answer is None:
                yield model, None, label
                continue
            answer = _filled(answer, row)
            if not answer.engine.decodes:
                answer = answer.model_copy(update={"decoding": Decoding()})
            for seed in sampling_seeds:
                decoding = _with(answer.decoding, "seed", seed)
                seeded = answer.model_copy(update={"decoding": decoding})
                answer_label = _join(label, f"sampling seed {seed}" if seed is not None else "")
                params = {
                    "answer": seeded,
                    "model": row.model if answer.engine.uses_template else None,
                }
                if answer.engine.uses_model:
                    params |= quantization_of(row, answer.quantization) | checkpoint_of(row)
                inputs = {"model": model} if model and answer.engine.uses_model else {}
                yield model, add("answer", params, inputs, answer_label), answer_label

    def _baseline(
        self, loaded: LoadedRow, judge: BaseJudge, stages: list[StagePlan]
    ) -> StagePlan | None:
        """The stage that answers for the row that the judge's reference names, planned into `stages`
        once; None where the reference is a file.

        Raises:
            InputError: that row has no answers of its own.
        """
        if judge.baseline_row is None:
            return None
        other = load_rows([Path(judge.baseline_row)])[0]
        if loaded.row.scale == "tiny":
            other = scaled(other)
        if other.row.row == loaded.row.row:
            raise InputError(
                f"row {loaded.row.row}: its judge's reference is the row itself",
                "Name another row's spec. A control whose answers are the baseline's own has the "
                "engine reference.",
            )
        baseline_stages: list[StagePlan] = []
        _, answer, _ = next(self._outputs(other, baseline_stages))
        if answer is None:
            raise InputError(
                f"row {loaded.row.row}: its judge's reference is row {other.row.row}, which has no "
                "eval.answer",
                f"Name a row that answers prompts, or give {other.path} an eval.answer.",
            )
        stages_by_key = {s.id: s for s in stages}
        for stage in baseline_stages:
            if stage.id not in stages_by_key:
                stage.label = _join(f"of {other.row.row}", stage.label)
                stages.append(stage)
        return stages_by_key.get(("answer", answer.key), answer)

    def _stage(
        self,
        loaded: LoadedRow,
        stage: str,
        params: dict[str, Any],
        inputs: dict[str, StagePlan],
        label: str,
    ) -> StagePlan:
        document: dict[str, Any] = {
            "format": KEY_FORMAT,
            "stage": stage,
            "code_version": environment.code_version(stage, params),
            "params": key_view(params, self.files),
            "inputs": {name: plan.key for name, plan in inputs.items()},
            "environment": environment.environment_of(stage, self.executor),
        }
        if any(endpoint.simulated for endpoint in endpoints_of(params)):
            document["simulated_version"] = environment.CODE_VERSIONS["sim"]
        key = digest_of(document)
        planned = StagePlan(
            loaded.row, loaded.path, stage, label, params, inputs, document, key, planner=self
        )
        if stage == "gen":
            planned.tokenizer = loaded.row.model
        planned.prices = self.prices
        self._look_up(planned)
        return planned

    def _look_up(self, planned: StagePlan) -> None:
        planned.artefact = self.store.find(planned.stage, planned.key)
        if planned.artefact is not None:
            planned.status = "reuse"
        else:
            self._say_why(planned)

    def _say_why(self, planned: StagePlan) -> None:
        if at_work := self.store.seen_at_work(planned.stage, planned.key):
            planned.reasons = [f"{RUNNING_NOW}, by {at_work}"]
            return
        work = self.store.work_folder(planned.stage, planned.key)
        if work.is_dir():
            planned.reasons = [_left_behind(work)]
            return
        last = self.store.remembered(planned.row).get(planned.memory_name)
        if last is None or last == planned.key:
            planned.reasons = ["not made yet" if last is None else "its artefact is gone"]
            return
        planned.status = "stale"
        try:
            old = self.store.find(planned.stage, last)
        except HarnessError:
            old = None
        planned.reasons = (
            differences(old.manifest.document, planned.document)
            if old
            else ["its last artefact is gone, so what changed is not known"]
        )


def evaluated(row: Row) -> dict[str, dict[str, Any]]:
    """Stage -> the parameters of a row's evaluation that name what it reads, of no replicate."""
    stages: dict[str, dict[str, Any]] = {}
    if row.answer is not None:
        stages["answer"] = {"answer": _filled(row.answer, row)}
    if row.judge is not None:
        prompts = row.answer.prompts if row.answer else None
        stages["judge"] = {"judge": row.judge.filled(row.template), "prompts": prompts}
    return stages


def _filled(answer: Answer, row: Row) -> Answer:
    """With the training's template where it leaves its own open and reads one."""
    template = answer.template or row.template if answer.engine.uses_template else None
    return answer.model_copy(update={"template": template})


def quantization_of(row: Row, base: str) -> dict[str, Quantization]:
    """The parameter of a stage that reads the row's model and quantises the base of its adapter."""
    train = row.train
    if train is None or train.quantization is None or base != "as_trained":
        return {}
    merged = train.lora is not None and train.lora.merge
    return {} if merged else {QUANTIZATION: train.quantization}


def checkpoint_of(row: Row) -> dict[str, int]:
    """The parameter of a stage that reads other weights of the row's training than its last."""
    return {CHECKPOINT: row.checkpoint} if row.checkpoint is not None else {}


def target(row: Row, spec: Path) -> str:
    """`SPEC`, or `SPEC --scale tiny`."""
    return f"{spec} --scale {row.scale}" if row.scale != "full" else str(spec)


def command_for(source: StagePlan, needed_by: StagePlan, only: str = "") -> str:
    """What makes an input of a stage. `only`: the stages, where not the source's alone."""
    if environment.current_image() is not None:
        service = environment.FAMILY[source.stage]
        return environment.command_line("run", needed_by.target, service)
    return harness("run", f"--only {only or source.stage} {needed_by.target}")


def _left_behind(work: Path) -> str:
    try:
        reason = (work / FAILED).read_text(encoding="utf-8")
    except OSError:
        kept = _kept(work)
        return "an interrupted run is there and goes on" + (f" ({kept})" if kept else "")
    return f"failed last time: {reason.splitlines()[0][:200] if reason else 'see its log'}"


def _kept(work: Path) -> str:
    """What an interrupted run has made, as far as its files tell at once: `192 answers kept`."""
    for name, unit in ((DONE, "answer"), (TRANSCRIPT, "call")):
        with contextlib.suppress(OSError):
            if count := (work / name).read_bytes().count(b"\n"):
                return f"{counted(count, unit)} kept"
    checkpoint = checkpoints.newest(work / "checkpoints")
    return f"a checkpoint after step {checkpoint.step} kept" if checkpoint else ""


def engine_of(params: Mapping[str, Any]) -> BaseEngine | None:
    """What answers, of a stage that asks an engine: for the row, or as its judge."""
    answer: Answer | None = params.get("answer")
    judge: BaseJudge | None = params.get("judge")
    if answer is not None:
        return answer.engine
    return judge.asked_engine if judge is not None else None


def _has_given(stage: StagePlan) -> bool:
    return stage.stage == "answer" and stage.params["answer"].engine.given_outputs is not None


def _given_texts(stage: StagePlan) -> Texts:
    """The given answers of an answer stage, as they were given or as it left them; none of a model, and
    none that cannot be read here, which the stage tells."""
    given = stage.params["answer"].engine.given_outputs
    places = [given] if given is not None and stage.planner is not None else []
    if given is not None and stage.artefact is not None:
        places.append(DataPath(path=str(stage.artefact.folder / OUTPUTS)))
    for place in places:
        with contextlib.suppress(InputError):
            return given_texts(place, stage.planner.files if stage.planner else Files(None, None))
    return {}


def dtype_of(params: Mapping[str, Any]) -> str:
    """What a stage's model calculates in; empty where it has none of its own."""
    train: Train | None = params.get("train")
    judge: BaseJudge | None = params.get("judge")
    engine = engine_of(params)
    if engine is not None:
        return engine.dtype
    if judge is not None:
        return judge.dtype
    return train.precision if train is not None else ""


def needs_of(params: Mapping[str, Any]) -> Needs:
    """What has to be there for a stage that answers or judges."""
    answer: Answer | None = params.get("answer")
    judge: BaseJudge | None = params.get("judge")
    if answer is not None:
        return answer.engine.needs()
    return judge.needs() if judge is not None else Needs()


def endpoints_of(params: dict[str, Any]) -> list[Endpoint]:
    """The endpoints that a stage with these parameters calls."""
    gen: Recipe | None = params.get("gen")
    return list((gen.needs() if gen is not None else needs_of(params)).endpoints)


def prompts_of(params: dict[str, Any]) -> PromptSet:
    """The prompt set that a stage reads; an empty stand-in where it reads none."""
    answer: Answer | None = params.get("answer")
    judge: BaseJudge | None = params.get("judge")
    prompts: PromptSet | None = answer.prompts if answer is not None else params.get("prompts")
    if judge is not None:
        prompts = judge.prompts(prompts)
    return PromptSet.model_construct(hub=None) if prompts is None else prompts


def _with(model: Any, name: str, value: Any) -> Any:
    return model if value is None else model.model_copy(update={name: value})


def _join(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def dump(value: Any, place: Callable[[DataPath], str]) -> Any:
    """A spec model as a stage receives it; `place` says where the stage finds a given file."""
    if isinstance(value, DataPath):
        return {"path": place(value), "sha256": value.sha256}
    if isinstance(value, BaseModel):
        return {name: dump(getattr(value, name), place) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: dump(item, place) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item, place) for item in value]
    return value


def unique(plans: Sequence[RowPlan]) -> list[StagePlan]:
    """Every stage once, in an order in which inputs come before what needs them."""
    stages_by_key: dict[tuple[str, str], StagePlan] = {}
    for stage in itertools.chain.from_iterable(p.stages for p in plans):
        stages_by_key.setdefault(stage.id, stage)
    return list(stages_by_key.values())


def check_lineage(stage: StagePlan) -> None:
    """Compare what all was made of that a stage is about to be made of.

    Raises:
        MadeOfAnother: as `RowPlan.check_inputs`.
    """
    _check_inputs(_lineage(stage))


def _lineage(stage: StagePlan) -> list[StagePlan]:
    """What a stage is made of, the first first; last the stage itself."""
    above = [before for source in stage.inputs.values() for before in _lineage(source)]
    return [*{before.id: before for before in above}.values(), stage]


def _check_inputs(stages: Sequence[StagePlan]) -> None:
    """See `RowPlan.check_inputs`."""
    first: tuple[Artefact, Artefact, bool] | None = None
    after: dict[StageId, Path] = {}
    for stage in stages:
        artefact = stage.artefact
        if artefact is None:
            continue
        for name, source in stage.inputs.items():
            recorded = artefact.manifest.inputs.get(name, {})
            if source.artefact is not None and not _is_input(source.artefact, recorded, artefact):
                first = first or (artefact, source.artefact, "content" in recorded)
                after[stage.id] = artefact.folder
            elif source.id in after:
                after[stage.id] = artefact.folder
    if first is not None:
        made, of, is_known = first
        others = [folder for folder in after.values() if folder != made.folder]
        raise MadeOfAnother(made.folder, of.folder, others, is_known)


def _is_input(source: Artefact, recorded: Mapping[str, str], made: Artefact) -> bool:
    """Whether it is what another was made of, by what that one's manifest has of it; where it has
    neither `content` nor a time, it is taken to be."""
    if "content" not in recorded:
        return not _is_later(source.manifest.finished, made.manifest.finished)
    if recorded["content"] == source.content:
        return True
    return "texts" in recorded and texts_of(source).get("texts") == recorded["texts"]


def _is_later(finished: str, other: str) -> bool:
    """By more than two machines' clocks may differ."""
    try:
        return datetime.fromisoformat(finished) - datetime.fromisoformat(other) > CLOCKS_DIFFER
    except (ValueError, TypeError):
        return False


def texts_of(artefact: Artefact) -> dict[str, str]:
    """What a manifest says, beside their content, of answers that something is made of; nothing where
    they cannot be read as such.

    Raises:
        Damaged: they were changed.
    """
    if artefact.stage != "answer" or OUTPUTS not in artefact.manifest.files:
        return {}
    artefact.check_file(OUTPUTS)
    try:
        return {"texts": digest_of_texts(artefact.folder / OUTPUTS)}
    except InputError:
        return {}


def made_otherwise(stages: Sequence[StagePlan]) -> str:
    """Which other executor's artefacts of these stages there are, and what names it, as the end of a
    sentence; empty where there are none. Those that run stages in images share theirs."""
    planner = stages[0].planner if stages else None
    if planner is None:
        return ""
    before: dict[tuple[str, str], StagePlan] = {}

    def add(stage: StagePlan) -> None:
        for source in stage.inputs.values():
            add(source)
        before.setdefault(stage.id, stage)

    for stage in stages:
        add(stage)
    is_in_images = planner.executor in IN_IMAGES
    names = ("local",) if is_in_images else IN_IMAGES
    other = Planner(planner.store, planner.files, names[0], planner.prices)
    plan = RowPlan(stages[0].owner, stages[0].spec, list(before.values()))
    made = {k for k, new in zip(before, other.replan(plan).stages, strict=True) if new.artefact}
    if not any(s.id in made for s in stages):
        return ""
    how = "made by the local executor" if is_in_images else "made in the images"
    options = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"; what was {how} is there: name it with --executor {options}"


def trained(plan: RowPlan, label: str = "") -> StagePlan:
    """The row's train stage with this label; without one, the only one.

    Raises:
        InputError: the row trains nothing, its model is not there, there are several.
    """
    train_it = f"Train it: {harness('run', plan.target)}"
    stages = [s for s in plan.stages if s.stage == "train"]
    if not stages:
        raise InputError(f"row {plan.row.row} trains no model")
    chosen = [s for s in stages if not label or s.label == label]
    if not label and all(s.artefact is None for s in stages):
        raise InputError(f"the model of row {plan.row.row} is not trained yet", train_it)
    if len(chosen) != 1:
        names = ", ".join(f'--label "{s.label}"' for s in stages)
        wrong = f"no trained model {label!r}" if label else f"{len(stages)} trained models"
        raise InputError(f"row {plan.row.row} has {wrong}", f"Say which: {names}." if names else "")
    if chosen[0].artefact is None:
        raise InputError(
            f"the model of row {plan.row.row} is not trained yet{chosen[0].in_brackets}", train_it
        )
    return chosen[0]
