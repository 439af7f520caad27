"""What rows read from the hub and by address: downloaded before anything runs, read from the volume."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.artefact import caches, environment, network_files
from harness.artefact.keys import Files, key_names
from harness.artefact.store import Artefact, Store
from harness.common.commands import harness
from harness.common.progress import ProgressView, say
from harness.errors import InputError
from harness.run.executors import Executor, Job, StageFailed, StagesFailed, carry_out, waiting
from harness.run.executors.serving import ADAPTER_FILE
from harness.run.plan import RowPlan, StagePlan
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel


class Downloads:
    """Downloads with one executor onto one volume."""

    def __init__(self, store: Store, files: Files, executor: Executor, console: Console) -> None:
        self.store = store
        self.files = files
        self.executor = executor
        self.console = console
        self.keys: frozenset[str] = frozenset()
        """What the run's rows name for keys."""

    def fetch(self, plans: Sequence[RowPlan]) -> None:
        """Download the files, hub models and data sets that the rows name and the volume lacks.

        Raises:
            InputError: a revision is open.
        """
        from harness.run.given import bring

        data = [data for plan in plans for stage in plan.stages for data in stage.data()]
        bring.bring(data, self.store, self.files, self.console)
        for path in dict.fromkeys(map(self.files.fetched_path, data)):
            if path is not None and path.exists():
                say(self.console, f"{path.name}: {path}")
        check_pinned(plans)
        self.keys = key_names([plan.row for plan in plans])
        hubs = [hub for plan in plans for stage in plan.stages for hub in stage.hubs()]
        if not (hubs or any(d.url for d in data)):
            say(self.console, "nothing to fetch: no address and nothing on the hub is named")
        for plan in plans:
            # Which image downloads: any that holds the hub's client.
            snapshots = [
                (hub, "train" if isinstance(hub, HubModel) else stage.stage, code)
                for stage in plan.stages
                for hub, code in stage.hubs().values()
            ]
            for number, (hub, stage_name, code) in enumerate(snapshots):
                if (hub, code) in [(h, c) for h, _, c in snapshots[:number]]:
                    continue
                folder = self._download(hub, stage_name, code)
                say(self.console, f"{hub.id}: {folder}")

    def bring_files(self, stages: Sequence[StagePlan]) -> None:
        """Bring the given files that the stages read and that have an address.

        Raises:
            InputError: something is not on the volume, and the service has no network.
            NotBrought: some cannot be had.
        """
        from harness.run.given import bring

        absent = bring.lacking([data for stage in stages for data in stage.data()], self.files)
        if absent and environment.current_image() is not None and stages[0].stage == "train":
            raise InputError(
                f"row {stages[0].row}: {absent[0].name} is not on the volume, and the train service "
                "has no network",
                f"Bring it with: docker compose run --rm fetch {stages[0].spec}",
            )
        bring.bring(absent, self.store, self.files, self.console)

    def fetch_all(self, stages: Sequence[StagePlan]) -> None:
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
                    self.snapshot(hub, stage, code)
                except StageFailed as e:
                    failures.append(e)
        if failures:
            raise StagesFailed(failures, stages)

    def note_not_fetched(self, plan: RowPlan, only: Sequence[str]) -> None:
        """Of the stages that are not run now, what nobody has yet asked the hub for."""
        later = [s for s in plan.own if only and s.stage not in only and s.status != "reuse"]
        hubs = [hub for stage in later for hub in stage.hubs().values()]
        lacking = [hub.id for hub, code in hubs if not self.store.hub_folder(hub, code).is_dir()]
        absent = list(dict.fromkeys(lacking))
        if absent:
            say(
                self.console,
                f"row {plan.row.row}: its other stages read {', '.join(absent)} from the hub, which is "
                f"not on the volume. Whether it can be had: {harness('fetch', str(plan.own[0].spec))}",
            )

    def snapshot(self, hub: HubModel | HubData, planned: StagePlan, code: bool) -> Path:
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
        return self._download(hub, planned.stage, code)

    def _download(self, hub: HubModel | HubData, stage: str, code: bool = False) -> Path:
        """The snapshot of a hub model or data set on the volume, downloaded when it is not there.

        Raises:
            InputError: its revision is open.
        """
        if hub.revision is None:
            raise InputError(f"the revision of {hub.id} is open", "Write it: harness pin SPEC")
        final = self.store.hub_folder(hub, code)
        if final.is_dir():
            return final
        name = f"{final.parent.name}-{final.name}"
        title = f"fetch: {hub.id} at {hub.commit}"
        with self.store.lock("fetch", name, waiting(self.console, title)) as lock:
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
                work=str(work),
                log=self.store.root / "logs" / f"fetch-{name}.log",
                lock=lock,
                image_stage=stage,
                network=True,
                secrets=("HF_TOKEN",),
                others_keys=self.keys,
                caches=caches.for_libraries(caches.prepare(self.store.root)),
            )
            carry_out(job, self.executor, self.files, ProgressView(self.console, title))
            final.parent.mkdir(exist_ok=True)
            snapshot = work / "snapshot"
            network_files.rename(snapshot, final, lambda: final.is_dir() and not snapshot.exists())
            shutil.rmtree(work)
            return final


def check_pinned(plans: Sequence[RowPlan]) -> None:
    """What the hub holds changes: only a commit can be asked for again."""
    stages = [s for plan in plans for s in plan.stages]
    open_ids = {s.spec: s.open_hubs() for s in stages if s.open_hubs()}
    if not open_ids:
        return
    names = dict.fromkeys(name for ids in open_ids.values() for name in ids)
    raise InputError(
        f"the revision of {', '.join(names)} is open",
        f"Ask the hub for it and write it into the spec: harness pin {' '.join(map(str, open_ids))}",
    )


def needs_base(trained: Artefact | None) -> bool:
    """Whether the base model is needed: nothing was trained, or only an adapter to it."""
    return trained is None or ADAPTER_FILE in trained.manifest.files
