"""Carries out a plan: each stage that is not there yet is run, sealed and remembered."""

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from harness.answer.engine import QUANTIZATION, vllm_cannot
from harness.answer.engines.vllm import serving_needs_a_folder
from harness.artefact import environment
from harness.artefact.call import RESULT_FILE
from harness.artefact.keys import Files, file_digest, key_names
from harness.artefact.manifest import Manifest
from harness.artefact.store import FAILED, Artefact, Store
from harness.common.progress import ProgressView, plain
from harness.errors import HarnessError, InputError
from harness.llm.secrets import read_key
from harness.run.executors import HOST, Executor, Job, Serve, StageFailed, on_loopback
from harness.run.plan import RowPlan, StagePlan, unique
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel

TRAINED = "model"
"""In a train artefact, the folder of its model or adapter."""
ADAPTER = f"{TRAINED}/adapter_config.json"
"""In a train artefact whose model is an adapter to the row's base model."""
MADE = (".jsonl", ".safetensors", "model_outputs.json")
"""Endings of files whose content a stage made; a model's tokenizer and configuration were given."""


class StagesFailed(HarnessError):
    """Stages or downloads ended with a fault; `not_run` needed what they make."""

    def __init__(self, failures: Sequence[StageFailed], not_run: Sequence[StagePlan]) -> None:
        first = failures[0]
        message, hint = first.message, first.hint
        if len(failures) > 1:
            told = [_indented(e.message, e.advice, f"The whole log: {e.log}") for e in failures]
            message, hint = "\n".join([f"{len(failures)} stages failed", *told]), ""
        if not_run:
            titles = ", ".join(title_of(s) for s in not_run)
            hint = "\n".join(filter(None, [hint, f"Not run because of it: {titles}"]))
        super().__init__(message, hint)
        self.exit_code = first.exit_code


class Runner:
    """Runs planned stages with one executor on one volume."""

    def __init__(self, store: Store, files: Files, executor: Executor, console: Console) -> None:
        self.store = store
        self.files = files
        self.executor = executor
        self.console = console
        self._keys: frozenset[str] = frozenset()
        """What the run's rows name for keys."""

    def run(self, plans: Sequence[RowPlan], only: Sequence[str] = ()) -> None:
        """Run every stage (or the stages named in `only`) that is not there yet.

        Before the first of them, all that can be known of any of them is checked, and all that they
        read from the hub is downloaded: none is to pay for calls when another could only fail.

        Raises:
            InputError: an input is missing and its stage is not among `only`, a key is not set, a
                server cannot be reached from where its stage runs, a revision on the hub is open.
            StagesFailed: stages failed; all that does not depend on them was run.
            HarnessError: no stage can run, an artefact is damaged, it was interrupted.
        """
        from harness.run import ready

        self._keys = key_names([plan.row for plan in plans])
        stages = [s for s in unique(plans) if not only or s.stage in only]
        _check_pinned(plans)
        self._bring([s for plan in plans for s in plan.own if s in stages or _pays(plan, only)])
        for plan in plans:
            # What a stage pays for is lost where one that is to follow can only fail.
            pays = _pays(plan, only)
            ready.check(plan, self.files, () if pays else only)
            if pays:
                self._note_not_fetched(plan, only)
        for stage in stages:
            self._check_ready(stage, only)
        waiting = [s for s in stages if s.status != "reuse"]
        self.executor.check(waiting)
        self._fetch_all(waiting)
        for plan in plans:
            ready.check(plan, self.files, only, self.store)
        failures: list[StageFailed] = []
        failed: set[tuple[str, str]] = set()
        not_run: list[StagePlan] = []
        for stage in stages:
            needed = {(s.stage, s.key) for s in stage.inputs.values()}
            if stage.artefact is None and needed & failed:
                failed.add((stage.stage, stage.key))
                not_run.append(stage)
                continue
            try:
                self._run_stage(stage)
            except StageFailed as e:
                failures.append(e)
                failed.add((stage.stage, stage.key))
                self.console.print(f"  failed: {plain(e.reason)}", highlight=False, markup=False)
                continue
            for plan in plans:
                keys = {s.memory_name: s.key for s in plan.stages if s.key == stage.key}
                if keys:
                    self.store.remember(plan.row.row, keys)
        if failures:
            raise StagesFailed(failures, not_run)

    def _bring(self, stages: Sequence[StagePlan]) -> None:
        """Bring the given files that the stages read and that have an address.

        Raises:
            InputError: something is not on the volume, and the service has no network.
            NotBrought: some cannot be had.
        """
        from harness.run.given import bring

        waiting = [s for s in stages if s.status != "reuse"]
        wanted = [data for stage in waiting for data in stage.data()]
        absent = bring.lacking(wanted, self.files)
        if absent and environment.current_image() is not None and waiting[0].stage == "train":
            raise InputError(
                f"row {waiting[0].row}: {absent[0].name} is not on the volume, and the train service "
                "has no network",
                f"Bring it with: docker compose run --rm fetch {waiting[0].spec}",
            )
        bring.bring(absent, self.store, self.files, self.console)

    def _note_not_fetched(self, plan: RowPlan, only: Sequence[str]) -> None:
        """Of the stages that are not run now, what nobody has yet asked the hub for."""
        others = [s for s in plan.own if only and s.stage not in only and s.status != "reuse"]
        hubs = [hub for stage in others for hub in stage.hubs().values()]
        lacking = [hub.id for hub, code in hubs if not self.store.hub_folder(hub, code).is_dir()]
        absent = list(dict.fromkeys(lacking))
        if absent:
            self.console.print(
                f"row {plan.row.row}: its other stages read {', '.join(absent)} from the hub, which is "
                f"not on the volume. Whether it can be had: harness fetch {plan.own[0].spec}",
                highlight=False,
                markup=False,
            )

    def _check_ready(self, planned: StagePlan, only: Sequence[str]) -> None:
        """What can be known before anything runs is said before anything runs."""
        if planned.status == "reuse":
            return
        for name, source in planned.inputs.items():
            if only and source.stage not in only and source.artefact is None:
                raise InputError(
                    f"row {planned.row}: its {name} ({source.stage} {source.key[:12]}) is not on "
                    f"the volume {self.store.root}",
                    f"Make it with: {command_for(source, planned)}",
                )
        endpoint = planned.endpoint
        for called in (endpoint, planned.served):
            if called is not None and called.base_url is not None:
                self._check_reachable(planned, called.base_url)
        if endpoint is None:
            return
        if planned.owner.budget.usd is not None and planned.price is None:
            raise InputError(
                f"row {planned.row} has a budget in dollars, and the price of {endpoint.model}, "
                f"which its {planned.stage} stage calls, is not known",
                "Add it to specs/prices.yaml, or to the file that HARNESS_PRICES names.",
            )
        if endpoint.simulated is not None or endpoint.api_key_env is None:
            return
        read_key(
            endpoint.api_key_env,
            f"{endpoint.model}, which the {planned.stage} stage of row {planned.row} calls",
        )

    def _check_reachable(self, planned: StagePlan, url: str) -> None:
        """Refuse a server on this machine's loopback address for a stage in a container, where that
        is the container itself."""
        inside = environment.current_image() is not None
        if not (inside or self.executor.name == "docker") or not on_loopback(url):
            return
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if inside and _answers(parts.hostname or "", port):
            return  # it shares the network of the machine, or of the server
        other = parts._replace(netloc=f"{HOST}:{port}").geturl()
        if inside:
            named = " (compose.yaml names it under extra_hosts; add it where another file does not)"
            outside = f"outside of the images: harness run {planned.spec}"
        else:
            named, outside = "", "with --executor local"
        raise InputError(
            f"row {planned.row}: the server {url}, which its {planned.stage} stage calls, is on a "
            "loopback address; inside a container that is the container itself, not this machine",
            f"Have the server listen on this machine's address on Docker's bridge (`ip -4 addr show "
            f"docker0`, often 172.17.0.1) and write base_url: {other}{named}. Or run the stage "
            f"{outside}",
        )

    def _run_stage(self, planned: StagePlan) -> None:
        stage, key, title = planned.stage, planned.key, title_of(planned)
        with self.store.lock(stage, key, lambda owner: self._waiting(title, owner)) as lock:
            artefact = self.store.find(stage, key)
            if artefact is not None:
                planned.artefact = artefact
                self.console.print(f"{title}: there already", highlight=False, markup=False)
                return
            inputs = {name: self.input(plan) for name, plan in planned.inputs.items()}
            folders = {name: a.folder for name, a in inputs.items()}
            for name, (hub, code) in planned.hubs(needs_base(inputs.get("model"))).items():
                folders[name] = self._snapshot(hub, planned, code)
            work = self.store.work_folder(stage, key)
            work.mkdir(exist_ok=True)
            job = self.job(planned, title, folders, work, lock)
            started = time.monotonic()
            given = self._given(planned)
            planned.artefact = self._execute(job, planned, inputs, started, given)

    def job(
        self,
        planned: StagePlan,
        title: str,
        folders: dict[str, Path],
        work: Path,
        lock: int,
        replay: bool = False,
    ) -> Job:
        """The stage as an executor is given it."""
        endpoint = None if replay else planned.endpoint
        tokenizer = planned.tokenizer
        if tokenizer is not None and tokenizer.hub is not None:
            snapshot = self.store.hub_folder(tokenizer.hub, tokenizer.trust_remote_code)
            if snapshot.is_dir():
                folders["tokenizer"] = snapshot
        return Job(
            stage=planned.stage,
            key=planned.key,
            title=title,
            params=planned.params,
            inputs=folders,
            work=work,
            log=self.store.log_path(planned.stage, planned.key),
            lock=lock,
            image_stage=planned.stage,
            environment=planned.document["environment"],
            network=planned.pays and not replay,
            secrets=(endpoint.api_key_env,) if endpoint and endpoint.api_key_env else (),
            others_keys=self._keys | key_names(planned.owner),
            budget=planned.owner.budget,
            price=planned.call_price(),
            tokenizer=tokenizer,
            replay=replay,
            limits=planned.owner.limits,
            cache=self._cache() if planned.stage == "train" else None,
            serve=None if replay else served(planned, folders, self.files),
        )

    def _cache(self) -> Path:
        folder = self.store.root / "cache" / "tokens"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _execute(
        self,
        job: Job,
        planned: StagePlan,
        inputs: dict[str, Artefact],
        started: float,
        given: dict[str, tuple[int, ...]],
    ) -> Artefact:
        result = result_of(job)
        if result is None:
            self._follow(job)
            result = result_of(job)
            if result is None:
                raise nothing_said(job)
        else:
            self.console.print(
                f"{job.title}: an interrupted run had ended it", highlight=False, markup=False
            )
        seconds = max(time.monotonic() - started, result["cost"].get("stage_seconds", 0))
        self._check_untouched(job, planned, given)
        manifest = self._manifest(planned, result, inputs, seconds)
        artefact = self.store.seal(manifest, result["keep"])
        seconds = manifest.cost["wall_seconds"]
        self.console.print(f"  done in {seconds:.1f} s", highlight=False)
        for note in result["notes"]:
            self.console.print(f"  note: {plain(note)}", highlight=False, markup=False)
        for deviation in result["deviations"]:
            told = f"  deviation: {plain(deviation)}"
            self.console.print(told, highlight=False, markup=False)
        for found in result["findings"]:
            told = f"  finding: {found['kind']}: {plain(found['message'])}"
            self.console.print(told, highlight=False, markup=False, style="yellow")
        return artefact

    def _follow(self, job: Job) -> None:
        """Run the stage; why it failed is noted, so that a plan can say it."""
        failed = job.work / FAILED
        failed.unlink(missing_ok=True)
        try:
            with ProgressView(self.console, job.title) as view:
                self.executor.run(job, self.files, view.show)
        except StageFailed as e:
            failed.write_text(e.reason, encoding="utf-8")
            raise

    def _manifest(
        self,
        planned: StagePlan,
        result: dict[str, Any],
        inputs: dict[str, Artefact],
        seconds: float,
    ) -> Manifest:
        """What was asked, what was used, what came out, what it cost. Simulation is inherited."""
        sources = [*inputs.values(), *self._made_here(planned)]
        inherited = {s for a in sources for s in a.manifest.simulated}
        source = planned.params.get("model")
        document = {
            "stage": planned.stage,
            "key": planned.key,
            "document": planned.document,
            "row": planned.row,
            "label": planned.label,
            "inputs": {name: {"stage": a.stage, "key": a.key} for name, a in inputs.items()},
            "executor": self.executor.describe(),
            "used": result["used"],
            "seeds": result["seeds"],
            "metrics": result["metrics"],
            "counts": result["counts"],
            "cost": {**result["cost"], "wall_seconds": round(seconds, 3)},
            "simulated": sorted(inherited | set(result["simulated"])),
            "random_weights": any(a.manifest.random_weights for a in sources)
            or bool(source is not None and source.random is not None),
            "notes": result["notes"],
            "findings": result["findings"],
            "deviations": result["deviations"],
            "ran": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return Manifest.from_json(document)

    def _given(self, planned: StagePlan) -> dict[str, tuple[int, ...]]:
        """The stamps of the given files a stage reads, which are the files that were planned.

        Raises:
            InputError: one has changed since.
        """
        fresh = Files(self.files.inputs, None, self.files.fetched)
        stamps: dict[str, tuple[int, ...]] = {}
        for data in planned.data():
            stamps |= fresh.stamps(data)
            if fresh.digest(data) != self.files.digest(data):
                raise InputError(f"{data.path} has changed since this run began", "Run it again.")
        return stamps

    def _check_untouched(
        self, job: Job, planned: StagePlan, given: dict[str, tuple[int, ...]]
    ) -> None:
        """Set aside what a stage made while a given file that it read was changed."""
        now: dict[str, tuple[int, ...]] = {}
        try:
            for data in planned.data():
                now |= self.files.stamps(data)
        except InputError:
            now = {}
        changed = sorted(n for n in {*given, *now} if _differs(given.get(n), now.get(n)))
        # A file that was only given other rights, another name or a link has its bytes.
        if not changed and given != now:
            fresh = Files(self.files.inputs, None, self.files.fetched)
            changed = [d.path for d in planned.data() if fresh.digest(d) != self.files.digest(d)]
        if changed:
            aside = job.work.with_name(f"{job.work.name}-aside-{time.time_ns()}")
            job.work.rename(aside)
            job.work.mkdir()
            for calls in aside.glob("*transcript*.jsonl"):
                shutil.copyfile(calls, job.work / calls.name)
            raise HarnessError(
                f"{job.title}: {changed[0]} was changed while the stage ran, so what it made may "
                "not be what its key says",
                f"It stands in {aside}. Run the same command again: no answered call is made twice.",
            )

    def _made_here(self, planned: StagePlan) -> list[Artefact]:
        """Artefacts on this volume that given files are copies of: their marks are inherited."""
        digests = set()
        for data in planned.data():
            path = self.files.locate(data)
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            digests |= {file_digest(p) for p in files}
        return [
            artefact
            for artefact in (self.store.whole() if digests else [])
            if digests
            & {
                file["sha256"]
                for name, file in artefact.manifest.files.items()
                if name.endswith(MADE) and file["size"]
            }
        ]

    def input(self, planned: StagePlan) -> Artefact:
        """An input artefact whose files are what its manifest says."""
        artefact = self.store.find(planned.stage, planned.key)
        if artefact is None:
            raise HarnessError(
                f"the {planned.stage} artefact {planned.key[:12]} disappeared from the volume",
                "Run the same command again to make it anew.",
            )
        artefact.check()
        return artefact

    def fetch(self, plans: Sequence[RowPlan]) -> None:
        """Download the files, hub models and data sets that the rows name and the volume lacks.

        Raises:
            InputError: a revision is open.
        """
        from harness.run.given import bring

        wanted_files = [data for plan in plans for stage in plan.stages for data in stage.data()]
        bring.bring(wanted_files, self.store, self.files, self.console)
        for path in dict.fromkeys(map(self.files.fetched_path, wanted_files)):
            if path is not None and path.exists():
                self.console.print(f"{path.name}: {path}", highlight=False, markup=False)
        _check_pinned(plans)
        self._keys = key_names([plan.row for plan in plans])
        for plan in plans:
            # Which image downloads: any that holds the hub's client.
            wanted = [
                (hub, "train" if isinstance(hub, HubModel) else stage.stage, code)
                for stage in plan.stages
                for hub, code in stage.hubs().values()
            ]
            if not wanted:
                self.console.print(f"row {plan.row.row} names nothing on the hub", highlight=False)
            for number, (hub, stage_name, code) in enumerate(wanted):
                if (hub, code) in [(h, c) for h, _, c in wanted[:number]]:
                    continue
                folder = self._fetch(hub, stage_name, code)
                self.console.print(f"{hub.id}: {folder}", highlight=False, markup=False)

    def _fetch_all(self, stages: Sequence[StagePlan]) -> None:
        """Download what the stages read from the hub.

        Raises:
            InputError: something is not on the volume, and the service has no network.
            StagesFailed: downloads failed; every one was tried.
        """
        failures: list[StageFailed] = []
        tried: list[tuple[HubModel | HubData, bool]] = []
        for stage in stages:
            model = stage.inputs.get("model")
            # Of a model that is still to be trained, the base is read by its training.
            for hub, code in stage.hubs(needs_base(model.artefact if model else None)).values():
                if (hub, code) in tried:
                    continue
                tried.append((hub, code))
                try:
                    self._snapshot(hub, stage, code)
                except StageFailed as e:
                    failures.append(e)
        if failures:
            raise StagesFailed(failures, stages)

    def _snapshot(self, hub: HubModel | HubData, planned: StagePlan, code: bool) -> Path:
        """Its folder. Compose's train service has no network to download it."""
        if environment.current_image() is not None and planned.stage == "train":
            folder = self.store.hub_folder(hub, code)
            if not folder.is_dir():
                raise InputError(
                    f"row {planned.row}: the model {hub.id} is not on the volume, and the train "
                    "service has no network",
                    f"Download it with: docker compose run --rm fetch {planned.spec}",
                )
            return folder
        return self._fetch(hub, planned.stage, code)

    def _fetch(self, hub: HubModel | HubData, stage: str, code: bool = False) -> Path:
        """The snapshot of a hub model or data set on the volume, downloaded when it is not there.

        Raises:
            InputError: its revision is open.
        """
        if hub.revision is None:
            raise InputError(f"the revision of {hub.id} is open", "Write it: harness pin SPEC")
        final = self.store.hub_folder(hub, code)
        name = f"{final.parent.name}-{final.name}"
        title = f"fetch: {hub.id} at {hub.commit}"
        with self.store.lock("fetch", name, lambda owner: self._waiting(title, owner)) as lock:
            if final.is_dir():
                return final
            work = self.store.root / "work" / f"fetch-{name}"
            work.mkdir(exist_ok=True)
            job = Job(
                stage="fetch",
                key=name,
                title=title,
                params={
                    "hub" if isinstance(hub, HubModel) else "hub_data": hub,
                    **({"code": True} if code else {}),
                },
                inputs={},
                work=work,
                log=self.store.root / "logs" / f"fetch-{name}.log",
                lock=lock,
                image_stage=stage,
                network=True,
                secrets=("HF_TOKEN",),
                others_keys=self._keys,
            )
            with ProgressView(self.console, title) as view:
                self.executor.run(job, self.files, view.show)
            if result_of(job) is None:
                raise nothing_said(job)
            final.parent.mkdir(exist_ok=True)
            (work / "snapshot").rename(final)
            shutil.rmtree(work)
            return final

    def _waiting(self, title: str, owner: str) -> None:
        self.console.print(f"{title}: waiting for {owner}", highlight=False, markup=False)


def _pays(plan: RowPlan, only: Sequence[str]) -> bool:
    """Whether one of the row's stages that are to run calls what costs money."""
    return any(s.pays for s in plan.own if s.status != "reuse" and (not only or s.stage in only))


def _check_pinned(plans: Sequence[RowPlan]) -> None:
    """What the hub holds changes: only a commit can be asked for again."""
    stages = [s for plan in plans for s in plan.stages]
    found = {s.spec: s.open_hubs() for s in stages if s.open_hubs()}
    if not found:
        return
    names = dict.fromkeys(name for ids in found.values() for name in ids)
    raise InputError(
        f"the revision of {', '.join(names)} is open",
        f"Ask the hub for it and write it into the spec: harness pin {' '.join(map(str, found))}",
    )


def needs_base(trained: Artefact | None) -> bool:
    """Whether the base model is needed: nothing was trained, or only an adapter to it."""
    return trained is None or ADAPTER in trained.manifest.files


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _indented(*parts: str) -> str:
    lines = [line for part in parts for line in part.splitlines()]
    return "\n".join(["- " + lines[0], *("  " + line for line in lines[1:])])


def served(planned: StagePlan, folders: dict[str, Path], files: Files) -> Serve | None:
    """What a server beside the stage has to serve: the row's model, or the judge's."""
    engine = planned.served
    if engine is None:
        return None
    source, hub, trained = planned.base, folders.get("hub"), folders.get("model")
    if planned.judge_model is not None:
        source, hub, trained = planned.judge_model, folders.get("judge_hub"), None
    assert source is not None
    whole = hub or (files.locate(source.path) if source.path is not None else None)
    adapter = None
    if trained is not None and is_adapter(trained):
        adapter = trained / TRAINED
    elif trained is not None:
        whole = trained / TRAINED
    if whole is None:
        raise serving_needs_a_folder(f"row {planned.row}: ")
    name = f"harness-{planned.key[:12]}"
    asked = planned.params.get(QUANTIZATION)
    quantised = adapter is not None and asked is not None and not vllm_cannot(asked)
    return Serve(engine, name, whole, adapter, source.trust_remote_code, quantised)


def is_adapter(trained: Path) -> bool:
    return (trained / ADAPTER).is_file()


def _differs(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> bool:
    """Whether two stamps differ in more than the time of a file's last change of any kind."""
    return before is None or now is None or before[:3] != now[:3]


def title_of(planned: StagePlan) -> str:
    label = f" ({planned.label})" if planned.label else ""
    return f"{planned.stage}: {planned.row}{label} [{planned.key[:12]}]"


def command_for(source: StagePlan, needed_by: StagePlan, only: str = "") -> str:
    """What makes an input of a stage. `only`: the stages, where not the source's alone."""
    if environment.current_image() is not None:
        return f"docker compose run --rm {environment.FAMILY[source.stage]} {needed_by.target}"
    return f"harness run --only {only or source.stage} {needed_by.target}"


def result_of(job: Job) -> dict[str, Any] | None:
    """What the stage says it made, also where it said so before the harness was killed."""
    try:
        result: dict[str, Any] = json.loads((job.work / RESULT_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return result


def nothing_said(job: Job) -> HarnessError:
    return HarnessError(
        f"{job.title} ended without saying what it made ({job.work / RESULT_FILE} is missing)",
        f"Its log: {job.log}",
    )
