"""What rows need before they run, each there or missing: files, models, keys, memory, disk, time."""

import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from harness.answer.engine import QUANTIZATION
from harness.artefact import caches, environment
from harness.artefact.gpus import counted
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.common.numbers import byte_size
from harness.common.paths import nearest_folder, size_of
from harness.errors import DataAbsent, HarnessError, InputError, NotFetched
from harness.llm import prices
from harness.llm.secrets import key_variable, read_key
from harness.modeling.memory.fit import USABLE, machine_memory
from harness.modeling.memory.need import Need
from harness.run.executors import gpus_of
from harness.run.executors.placing import place
from harness.run.executors.serving import NoServer
from harness.run.foretold import foretold
from harness.run.plan import Planner, RowPlan, StagePlan, dtype_of, unique
from harness.run.weights import BY_NAME, is_by_name, size_by_name, weights_of
from harness.spec.address import shown
from harness.spec.base import DATA_SCHEME, DataPath
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel
from harness.train.compilers import check_for_deepspeed, to_be_compiled

State = Literal["there", "missing", "not known", "expected"]
"""`expected`: of a time that is foretold."""
FETCHED = ("file", "model", "data set")
"""Kinds of which `harness fetch` brings those that have an address."""
GATED = ("meta-llama/", "google/gemma", "mistralai/Mistral-Small", "mistralai/Mistral-7B")
"""How the ids of models begin that are known to be given to those alone who accepted their terms."""
TOKEN = "HF_TOKEN"
FOLDERS = 3
"""Of an address that tell files of one name apart."""


@dataclass(frozen=True)
class NeededItem:
    """One thing that a row needs."""

    kind: Literal[
        "file", "model", "data set", "key", "price", "compiler", "server", "memory", "disk", "time"
    ]
    name: str
    state: State
    bytes: int | None = None
    """None: not known, or of no size."""
    address: str = ""
    """Where it is, or where it comes from."""
    note: str = ""
    advice: str = ""
    """What to do where it is missing and no fetch brings it."""

    @property
    def is_fetched(self) -> bool:
        """Whether it is missing and `harness fetch` brings it."""
        return self.state == "missing" and self.kind in FETCHED and bool(self.address)


@dataclass(frozen=True)
class RowNeeds:
    rows: list[str]
    items: list[NeededItem]
    command: str
    """What brings that of the missing which can be fetched; empty where there is none."""

    @property
    def missing(self) -> list[NeededItem]:
        return [item for item in self.items if item.state == "missing"]

    def to_json(self) -> dict[str, Any]:
        items = [asdict(item) for item in self.items]
        return {**asdict(self), "items": items, "complete": not self.missing}


class Hopeful(Files):
    """Takes given data for what it should be where it is absent, so that its row can be planned."""

    def digest(self, data: DataPath) -> str:
        try:
            return super().digest(data)
        except DataAbsent:
            return data.sha256 or f"the bytes of {data.name}"


class Forgiving(Hopeful):
    """Takes also what is another file than its spec pins for the right one, so that it can be told
    among all else."""

    def digest(self, data: DataPath) -> str:
        try:
            return super().digest(data)
        except InputError:
            return data.sha256 or f"the bytes of {data.name}"


def needs_of(
    plans: Sequence[RowPlan], planner: Planner, specs: Sequence[Path], options: Sequence[str] = ()
) -> RowNeeds:
    """What the stages need that are to run. `specs`: how a command names the rows; `options`: what else
    the one that fetches is to be called with."""
    return _Looking(plans, planner, specs, options).needs()


class _Looking:
    def __init__(
        self,
        plans: Sequence[RowPlan],
        planner: Planner,
        specs: Sequence[Path],
        options: Sequence[str],
    ) -> None:
        self.rows = [plan.row.row for plan in plans]
        self.stages = [s for s in unique(plans) if s.status != "reuse"]
        self.store: Store = planner.store
        self.files = planner.files
        is_local = planner.executor == "local" or environment.current_image() is not None
        self.executor = "local" if is_local else "docker"
        self.specs = shlex.join(map(str, specs))
        self.arguments = shlex.join([*map(str, specs), *options])

    def needs(self) -> RowNeeds:
        files, hubs = list(self._files()), list(self._hubs())
        items = [
            *files,
            *hubs,
            *self._keys(hubs),
            *self._prices(),
            *self._compilers(),
            *self._memory(),
        ]
        if self.stages:
            items += [self._disk([*files, *hubs]), self._time()]
        fetched = [item for item in items if item.is_fetched]
        command = environment.command_line("fetch", self.arguments, "fetch") if fetched else ""
        if command and any(stage.open_hubs() for stage in self.stages):
            command = f"harness pin {self.specs} && {command}"
        return RowNeeds(self.rows, items, command)

    def _files(self) -> Iterator[NeededItem]:
        """Those that do not stand beside the specs."""
        given = {
            (data.name, data.sha256): data for stage in self.stages for data in stage.data()
            if data.url or data.by_digest or data.path.startswith(DATA_SCHEME)
        }  # fmt: skip
        items = [(self._file(data), data) for data in given.values()]
        counts = Counter(item.name for item, _ in items)
        for item, data in items:
            is_alone = counts[item.name] == 1 or not data.url
            yield item if is_alone else replace(item, name=_longer_name(item.name, data))

    def _file(self, data: DataPath) -> NeededItem:
        name = data.name if not data.url else data.path or data.file_name
        try:
            path = self.files.locate(data)
            Files.digest(self.files, data)
        except NotFetched:
            return NeededItem(
                "file", name, "missing", data.bytes, shown(data.url[0]), _others(data)
            )
        except InputError as e:
            advice = e.hint or "Put it there, or correct its name in the spec."
            return NeededItem(
                "file", name, "missing", data.bytes, note=e.message, advice=f"{name}: {advice}"
            )
        return NeededItem("file", name, "there", size_of(path), str(path))

    def _hubs(self) -> Iterator[NeededItem]:
        hubs = [hub for stage in self.stages for hub in stage.hubs().values()]
        for hub, code in dict.fromkeys(hubs):
            yield self._hub(hub, code)

    def _hub(self, hub: HubModel | HubData, code: bool) -> NeededItem:
        folder = self.store.hub_folder(hub, code)
        kind: Literal["model", "data set"] = "model" if isinstance(hub, HubModel) else "data set"
        name = f"{hub.id} ({hub.config})" if isinstance(hub, HubData) and hub.config else hub.id
        if folder.is_dir():
            return NeededItem(kind, name, "there", size_of(folder), str(folder))
        size = size_by_name(hub.id) if kind == "model" else None
        notes = [
            f"to download, about, {BY_NAME}" if size else "",
            "gated: accept its terms on its page" if is_gated(hub.id) else "",
            "its revision is open" if hub.revision is None else "",
        ]
        return NeededItem(kind, name, "missing", size, "the hub", ", ".join(filter(None, notes)))

    def _keys(self, hubs: Iterable[NeededItem]) -> Iterator[NeededItem]:
        uses: dict[str, list[str]] = {}
        for stage in self.stages:
            for endpoint in stage.endpoints:
                if endpoint.api_key_env and endpoint.simulated is None:
                    uses.setdefault(endpoint.api_key_env, []).append(endpoint.model)
        for hub in hubs:
            if hub.state == "missing" and is_gated(hub.name):
                uses.setdefault(TOKEN, []).append(hub.name)
        for name, models in uses.items():
            yield _key(name, f"for {', '.join(dict.fromkeys(models))}")

    def _prices(self) -> Iterator[NeededItem]:
        """Those that a budget in dollars needs and that are not known."""
        under_budget = [s for s in self.stages if s.owner.budget.usd is not None]
        advice = f"add it to {prices.place()}"
        for model in dict.fromkeys(name for s in under_budget for name in s.unpriced):
            note = "there is a budget in dollars, and it is not known"
            yield NeededItem("price", f"of {model}", "missing", note=note, advice=advice)

    def _compilers(self) -> Iterator[NeededItem]:
        """What compiles that of DeepSpeed here which no training before has compiled."""
        if self.executor != "local" or environment.current_image() is not None:
            return
        libraries = caches.cache_folder(self.store.root) / caches.LIBRARIES
        trainings = [s.params["train"].deepspeed for s in self.stages if s.stage == "train"]
        names = dict.fromkeys(
            name for each in trainings if each for name in to_be_compiled(each, libraries)
        )
        if not names:
            return
        note = f"compiles DeepSpeed's {' and '.join(names)}, once, in about two minutes each"
        try:
            for name in names:
                check_for_deepspeed(name)
            yield NeededItem("compiler", "C++", "there", note=note)
        except InputError as e:
            yield NeededItem("compiler", "C++", "missing", note=note, advice=e.hint)

    def _memory(self) -> Iterator[NeededItem]:
        """Of each kind of stage the one that needs most, or why one cannot start."""
        items: dict[str, NeededItem] = {}
        for stage in self.stages:
            if not (gpus_of(stage.stage, stage.params) or stage.served):
                continue
            item = self._memory_of(stage)
            largest = items.setdefault(stage.stage, item)
            if (item.state == "missing", item.bytes or 0) > (
                largest.state == "missing", largest.bytes or 0,
            ):  # fmt: skip
                items[stage.stage] = item
        yield from items.values()

    def _memory_of(self, stage: StagePlan) -> NeededItem:
        need, name = stage.need, f"for {stage.stage}"
        needed = (
            int(need.memory.needed)
            if isinstance(need, Need)
            else weights_of(stage, self.store, self.files)
        )
        try:
            chosen = place(stage, self.executor)
        except NoServer as e:
            return NeededItem("server", "vLLM", "missing", note=e.message, advice=e.hint)
        except HarnessError as e:
            advice = e.hint or f"memory {name}: take another machine"
            return NeededItem("memory", name, "missing", needed, note=e.message, advice=advice)
        devices = [gpu for gpu in chosen if gpu.size]
        room = min((gpu.size for gpu in devices), default=None)
        where = counted(devices) if devices else "no GPU is used"
        if not chosen:
            room = int(machine_memory())
            where += f"; this machine has {byte_size(room)}"
            if needed is not None and isinstance(need, Need):
                needed = needed * need.train.launch.processes + int(need.memory.cpu)
        if needed is None or room is None:
            reason = need if isinstance(need, str) else "how much is not known"
            return NeededItem("memory", name, "not known", note=f"{where}; {reason}")
        state: State = "there" if needed <= USABLE * room else "missing"
        loaded = "4 bits" if stage.params.get(QUANTIZATION) else dtype_of(stage.params)
        guess = f", {BY_NAME}" if is_by_name(stage, self.store) else ""
        what = f"for the model's weights in {loaded} alone{guess}; "
        what = "" if isinstance(need, Need) else what
        advice = f"memory {name}: take a machine that has it" if state == "missing" else ""
        return NeededItem("memory", name, state, needed, note=what + where, advice=advice)

    def _disk(self, items: Iterable[NeededItem]) -> NeededItem:
        """For what is to be fetched and trained, about."""
        absent = [item for item in items if item.is_fetched]
        trainings = [s.need for s in self.stages if s.stage == "train"]
        memories = [n.memory for n in trainings if isinstance(n, Need)]
        # Each training leaves its weights; one at a time has a checkpoint beside them.
        needed = sum(item.bytes or 0 for item in absent) + sum(m.weights for m in memories)
        needed += max((m.weights + m.optimizer for m in memories), default=0)
        needed += sum(n.kept for n in trainings if isinstance(n, Need))
        unknown = [item.name for item in absent if item.bytes is None]
        unknown += ["what is trained"] if len(memories) < len(trainings) else []
        free = shutil.disk_usage(nearest_folder(self.store.root)).free
        note = f"{byte_size(free)} are free"
        note += f"; without {', '.join(unknown)}, whose size is not known" if unknown else ""
        guessed = [i.name for i in absent if i.kind == "model" and i.bytes is not None]
        note += f"; {', '.join(guessed)} by name" if guessed else ""
        root = str(self.store.root)
        if needed > free:
            advice = f"make room on the volume {root}"
            return NeededItem("disk", "on the volume", "missing", int(needed), root, note, advice)
        state: State = "not known" if unknown else "there"
        return NeededItem("disk", "on the volume", state, int(needed), root, note)

    def _time(self) -> NeededItem:
        """As long as the same stages took with other seeds; else as the row's last ones with other
        settings."""
        known = foretold(self.store)
        times = [seconds for s in self.stages if (seconds := known.seconds(s)) is not None]
        count = len(self.stages)
        if not times:
            return NeededItem("time", "", "not known", note="nothing alike has run on this volume")
        stages, rest = "the stage" if count == 1 else f"all {count} stages", ""
        if len(times) < count:
            stages = f"{len(times)} of {count} stages"
            rest = f"; of {count - len(times)} nothing is known"
        note = f"as {stages} took before on this volume{rest}"
        return NeededItem("time", f"about {spoken(sum(times))}", "expected", note=note)


def _key(name: str, note: str) -> NeededItem:
    variable = key_variable(name)
    if variable is None:
        return NeededItem("key", name, "missing", note=note, advice=f"set {name} or {name}_FILE")
    try:
        read_key(name, note)
    except InputError as e:
        note += f"; what {variable} has is no key that can be read"
        return NeededItem("key", name, "missing", note=note, advice=f"{variable}: {e.hint}")
    return NeededItem("key", name, "there", note=note)


def _longer_name(name: str, data: DataPath) -> str:
    """With the folders of its address, where several files have the name."""
    folders = [p for p in urlsplit(data.url[0]).path.split("/")[:-1] if p]
    return "/".join([*folders[-FOLDERS:], name])


def _others(data: DataPath) -> str:
    count = len(data.url) - 1
    return f"or {count} other address{'es' if count > 1 else ''}" if count else ""


def is_gated(hub_id: str) -> bool:
    return hub_id.startswith(GATED)


def spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
