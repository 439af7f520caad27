"""The looks that `harness settle` has taken at a row, and their terms, as they stand on the volume."""

import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.artefact.keys import digest_of
from harness.artefact.store import Unusable, write_atomically
from harness.common import numbers
from harness.common.progress import counted
from harness.errors import InputError
from harness.results.purchase import Counts
from harness.results.verdict.forecast import DECIDED
from harness.results.verdict.sides import KINDS
from harness.results.verdict.verdict import Weighed
from harness.row.load import LoadedRow
from harness.row.rejudged import WIN_RATE, bridge_rows
from harness.row.reported import Reported
from harness.row.row import Replicates
from harness.run.plan import RowPlan
from harness.stats import spending

FOLDER = "settle"
SEEDS = 2**32
"""So many there are, see `harness.spec.base.Seed`."""


ANEW = "To begin anew, with all chances to err counted anew, move the file away."


class CourseChanged(InputError, Unusable):
    """A file of `harness settle` is not what it wrote."""


@dataclass(frozen=True)
class Terms:
    """What is fixed before the first purchase, whatever is then paid."""

    row: str
    metric: str
    document: str
    """See `document_of`."""
    margin: float
    levels: tuple[float, ...]
    rule: str
    reported: dict[str, Any] | None = None
    """See `numbers_of`; None: written before it stood here."""
    annotations: list[str | None] | None = None
    """See `annotations_of`; None: written before they stood here."""

    @property
    def digest(self) -> str:
        """Of what it is about, whatever the row is called."""
        return digest_of([self.metric, self.document])[:16]

    def completed(self, now: "Terms") -> "Terms":
        """With what was not written down yet when it began, as it stands now, from now on."""
        annotations = now.annotations if self.annotations is None else self.annotations
        reported = self.reported or now.reported
        return replace(self, reported=reported, annotations=annotations)


@dataclass
class Look:
    """The verdict on what was there at a look, and what was bought after it."""

    counts: Counts
    level: float
    low: float | None
    high: float | None
    verdict: str
    usd: float
    """Spent by then."""
    next: Counts | None = None
    """The replicates that there are to be at the next look, where something was bought."""


@dataclass(frozen=True)
class Begun:
    """Of the spec what a course itself adds to, as it was before its first look."""

    replicates: dict[str, Any] = field(default_factory=dict)
    prompts: list[int | None] | None = None
    """Of each bridging model; None: all."""

    @classmethod
    def by(cls, loaded: LoadedRow) -> "Begun":
        row = loaded.row
        prompts = [model.prompts for model in row.reported.bridge]
        return cls(row.replicates.model_dump(mode="json"), prompts)

    def of(self, loaded: LoadedRow) -> LoadedRow:
        """The row as it was then, whatever was written into its spec since."""
        row = loaded.row
        bridge = row.reported.bridge
        prompts = self.prompts or [None] * len(bridge)
        if len(prompts) == len(bridge):  # else none of them stands in the keys: there is no bridge
            bridge = tuple(
                model.model_copy(update={"prompts": count})
                for model, count in zip(bridge, prompts, strict=True)
            )
        reported = row.reported.model_copy(update={"bridge": bridge})
        update = {"replicates": Replicates(**self.replicates), "reported": reported}
        return replace(loaded, row=row.model_copy(update=update))


def extended(loaded: LoadedRow, counts: Counts) -> LoadedRow:
    """The row with so many replicates of each kind: its own seeds, and those that follow them."""
    row = loaded.row
    own = row.replicates
    replicates = Replicates(
        train_seeds=_seeds(own.train_seeds, row.train.seed if row.train else None, counts[0]),
        sampling_seeds=_seeds(
            own.sampling_seeds, row.answer.decoding.seed if row.answer else None, counts[1]
        ),
        judge=counts[2],
    )
    # A model of which all prompts are judged stays so.
    bridge = tuple(
        model.model_copy(update={"prompts": max(model.prompts, counts[3])})
        if model.prompts is not None else model
        for model in row.reported.bridge
    )  # fmt: skip
    reported = row.reported.model_copy(update={"bridge": bridge})
    update = {"replicates": replicates, "reported": reported}
    return replace(loaded, row=row.model_copy(update=update))


def _seeds(named: list[int] | None, single: int | None, count: int) -> list[int] | None:
    """A single one stays as it is: where nothing is sampled a list of seeds is a fault of the spec."""
    if named is None and (single is None or count == 1):
        return None
    seeds = named or [single or 0]
    following = itertools.chain(range(max(seeds) + 1, SEEDS), range(SEEDS))
    free = (seed for seed in following if seed not in seeds)
    return [*seeds, *itertools.islice(free, max(0, count - len(seeds)))]


def _several(replicates: Replicates) -> dict[str, Any]:
    parts = replicates.model_dump()
    return {kind: of for kind, of in parts.items() if of and (isinstance(of, int) or len(of) > 1)}


def counts_of(loaded: LoadedRow) -> Counts:
    """As they stand in the spec."""
    of = loaded.row.replicates
    sampled = [model.prompts for model in loaded.row.reported.bridge if model.prompts is not None]
    prompts = min(sampled, default=0) if any(bridge_rows(loaded)) else 0
    return len(of.train_seeds or [0]), len(of.sampling_seeds or [0]), of.judge, prompts


def numbers_of(cell: Reported) -> dict[str, Any]:
    """Of a published number all that a verdict is made of."""
    return cell.model_dump(include={"value", "standard_error", "judged", "expected"})


def annotations_of(loaded: LoadedRow, metric: str) -> list[str | None]:
    """sha256 of the published judge's verdicts on each bridging model, which no stage reads."""
    bridging = bridge_rows(loaded) if metric == WIN_RATE else ()
    return [model.retired.annotations.sha256 for model in bridging]


def _fixed(terms: Terms) -> str:
    return f"margin {terms.margin:g}, {counted(len(terms.levels), 'look')}{of_reported(terms)}"


def of_reported(terms: Terms) -> str:
    """The published number that looks are at, where they say it, to stand behind their margin."""
    return f" and a reported {terms.reported['value']:g}" if terms.reported else ""


def bare(loaded: LoadedRow) -> LoadedRow:
    """The row without its replicates and with all prompts of bridging models: what stays of it,
    whatever is bought."""
    return Begun().of(loaded)


def document_of(plan: RowPlan) -> str:
    """sha256 of the keys of the stages of a bare row."""
    return digest_of([[stage.stage, stage.key] for stage in plan.stages])


@dataclass
class Course:
    """All looks so far; on the volume after each."""

    terms: Terms
    path: Path
    begun: Begun | None
    """None: written before replicates could be told from the row, which nobody wrote down then."""
    owned: list[str] = field(default_factory=list)
    """Keys of the artefacts that were there before it began, which it has not paid for."""
    looks: list[Look] = field(default_factory=list)
    paid: dict[str, float] = field(default_factory=dict)
    """Key of a stage -> dollars that it cost, each time that it was made."""
    pending: dict[str, float] = field(default_factory=dict)
    """Key of a stage that is not made whole -> dollars: what it has paid where it ended in order, else
    what it was to cost."""
    lost: float | None = 0.0
    """Dollars for what was removed before `paid` was written; None: not worked out yet."""

    @classmethod
    def of(cls, terms: Terms, root: Path, loaded: LoadedRow) -> "Course":
        """The one that was begun for the row and metric, with whatever replicates and under whatever
        name, or a new one.

        Raises:
            InputError: a file of the row was changed, or it was begun on other terms, or it cannot be
                told whether it is of the row as it stands.
        """
        for course in _of(loaded, list(_stored(root)), terms.document):
            before = course.terms
            if before.metric != terms.metric:
                continue
            if before.document == terms.document:
                completed = before.completed(terms)
                now = replace(terms, row=before.row, rule=before.rule)
                if replace(completed, annotations=now.annotations) != now:
                    looks = f" (--looks {len(before.levels)})" * (before.levels != now.levels)
                    raise InputError(
                        f"{course.path}: row {before.row} was begun with {_fixed(before)}, which are "
                        f"fixed from then on; now it has {_fixed(now)}",
                        f"Give the same{looks}; more --usd may be given. {ANEW}",
                    )
                if completed != now:
                    raise InputError(
                        f"{course.path}: row {before.row} was begun with other verdicts of the "
                        "published judge (reported.bridge, annotations), which are fixed from then on",
                        f"Give the same. {ANEW}",
                    )
                # Without it the keys say that it began with one run of each.
                return replace(course, terms=completed, begun=course.begun or Begun())
            if course.begun is None:
                raise InputError(
                    f"{course.path} was written before courses were told apart by the row without its "
                    "replicates, so that it is not known whether it is of the row as it stands",
                    "To begin anew, with looks and money counted anew, move the file away; what it "
                    "bought stays and is used again.",
                )
        return cls(terms, root / FOLDER / f"{terms.row}-{terms.digest}.json", Begun.by(loaded))

    def apart(self, judgings: Collection[str]) -> Iterator["Course"]:
        """Those on the volume that were begun for the same metric, and the same stages, judgings of the
        row (keys) or row's name: with another published number, other settings or bridging models."""
        terms = self.terms
        for path, _, other in _stored(self.path.parent.parent):
            if path == self.path or isinstance(other, CourseChanged):
                continue
            is_near = other.terms.document == terms.document or other.terms.row == terms.row
            shared = {*judgings} & {*other.owned, *other.paid, *other.pending}
            if (is_near or shared) and other.terms.metric == terms.metric:
                yield other

    @property
    def usd(self) -> float:
        """Dollars spent, as far as they are written down."""
        spent = math.fsum([*self.paid.values(), *self.pending.values(), self.lost or 0.0])
        return max([spent, *(look.usd for look in self.looks)])

    def pay(self, key: str, usd: float) -> None:
        """Count what a stage cost, once more where it was made before."""
        self.paid[key] = self.paid.get(key, 0.0) + usd
        self.pending.pop(key, None)

    @property
    def has_ended(self) -> bool:
        """Whether no money can make it go on."""
        if not self.looks or self.looks[-1].next is not None:
            return False
        return self.looks[-1].verdict in DECIDED or len(self.looks) == len(self.terms.levels)

    def unnamed(self, loaded: LoadedRow) -> list[str]:
        """What the spec has to say to have the replicates and prompts of the last look."""
        counts, before, parts = self.looks[-1].counts, counts_of(loaded), []
        if counts[3] != before[3]:
            parts.append(f"prompts: {counts[3]} of each reported.bridge")
        replicates = self.as_bought(loaded).row.replicates
        if _several(replicates) != _several(loaded.row.replicates):
            named = [f"{k}: {v}" for k, v in replicates.model_dump().items() if v is not None]
            parts.append(f"replicates: {{{', '.join(named)}}}")
        return parts

    def as_bought(self, loaded: LoadedRow) -> LoadedRow:
        """The row as the last look had it."""
        return extended((self.begun or Begun()).of(loaded), self.looks[-1].counts)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: _plain(value) for name, value in asdict(self).items() if name != "path"}
        sealed = {"course": content, "sha256": digest_of(content)}
        write_atomically(self.path, json.dumps(sealed, indent=2) + "\n")

    def beside(
        self, weighed: Weighed, loaded: LoadedRow, with_bought: Weighed | None
    ) -> tuple[Weighed, str, str]:
        """A verdict at its own level, after the looks, and what is to be said of these, in short and
        in full; as it was, and nothing, where nothing was compared. It stands only where the last look
        gave it too: it was looked at more than once. Its interval at a level is then the last look's
        of looks that have this level together, which p-values are made of. `with_bought`: the verdict
        with the last look's replicates, at 95 %, where the spec has fewer."""
        if weighed.interval is None or not self.looks:
            return weighed, "", ""
        last, terms, verdict = self.looks[-1], self.terms, weighed.verdict
        ends = numbers.interval(last.low, last.high, weighed.digits, signed=True)
        level = f"{100 * last.level:.6g} %"
        within = f"{ends}, " if ends else ""
        said = (
            f"settle looked {counted(len(self.looks), 'time')}, of {len(terms.levels)} at most, for "
            f"{numbers.dollars(self.usd)}; its own verdict: {last.verdict} at look {len(self.looks)} "
            f"({level}, {within}margin {terms.margin:g}{of_reported(terms)})"
        )
        cell = loaded.row.reported.get(terms.metric)
        value = cell.value if cell is not None and terms.reported else None
        other = [f"margin {verdict.margin:g}"] * (verdict.margin != terms.margin)
        if terms.reported and value != terms.reported["value"]:
            other.append(f"a reported {value:g}" if value is not None else "no reported number")
        said += f"; the spec has {' and '.join(other)} by now" * bool(other)
        if terms.row != loaded.row.row:
            said += f", as row {terms.row}"
        if terms.annotations not in (None, annotations_of(loaded, terms.metric)):
            said += "; with other verdicts of the published judge than reported.bridge names now"
        short = f"settle: {last.verdict} at look {len(self.looks)} of {len(terms.levels)}"
        short += f" ({level} interval of the difference {ends}, margin {terms.margin:g})" * bool(
            ends
        )
        name = verdict.name
        if name != last.verdict:
            alone = "with the replicates that the spec names alone it is not"
            short += f", {alone if last.verdict in DECIDED else 'to which the verdict keeps'}"
            said += f"; at 95 % and with the spec's replicates it alone were {name}"
            name = "inconclusive"
        reason, more = verdict.reason, verdict.more
        if with_bought is not None:
            parts = " and ".join(self.unnamed(loaded))
            said += f"; to count what it bought, write into the spec: {parts}"
            reason, more = with_bought.verdict.reason, with_bought.verdict.more
            reason = f"with what it bought, which the spec does not name, {reason}"
        if self.has_ended:
            # Of no further look anything is to be told, such as what would decide it.
            reason, more = "", ()
        reason = "; ".join(filter(None, [short, reason]))
        verdict = replace(verdict, name=name, reason=reason, more=more)
        at_once, looks, planned = weighed.interval, len(self.looks), len(terms.levels)

        def interval(level: float) -> tuple[float, float]:
            return at_once(spending.levels(planned, level)[looks - 1])

        return replace(weighed, verdict=verdict, interval=interval), short, said


Stored = tuple[Path, str, Course | CourseChanged]


def files(root: Path) -> dict[Path, str]:
    """Those on a volume, each with its row's name."""
    return {path: row for path, row, _ in _stored(root)}


def courses(root: Path, row: str) -> Iterator[Course]:
    """Those on a volume that have the row's name, whatever else it was when they began.

    Raises:
        CourseChanged: a file was changed.
    """
    yield from _named(_stored(root), row)


def _named(stored: Iterable[Stored], row: str) -> Iterator[Course]:
    for _, name, course in stored:
        if name != row:
            continue
        if isinstance(course, CourseChanged):
            raise course
        yield course


def _of(loaded: LoadedRow, stored: Sequence[Stored], document: str) -> Iterator[Course]:
    """Those that have the row's name, then those that were begun under another at the same stages and
    the same published number: with another number they are about something else.

    Raises:
        CourseChanged: a file of the row's name was changed.
    """
    yield from _named(stored, loaded.row.row)
    for _, name, course in stored:
        if name == loaded.row.row or isinstance(course, CourseChanged):
            continue
        terms, cell = course.terms, loaded.row.reported.get(course.terms.metric)
        value = (terms.reported or {}).get("value", cell and cell.value)
        if terms.document == document and cell and cell.value == value:
            yield course


def _stored(root: Path) -> Iterator[Stored]:
    """Every file, its row's name (of one that cannot be read that of the file), and what it holds."""
    ending = "-0123456789abcdef.json"
    for path in sorted((root / FOLDER).glob("*.json")):
        course = _at(path)
        name = path.name[: -len(ending)]
        yield path, name if isinstance(course, CourseChanged) else course.terms.row, course


def _at(path: Path) -> Course | CourseChanged:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        course = _read(path, stored["course"])
        if stored["sha256"] == digest_of(stored["course"]):
            return course
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return CourseChanged(
        f"{path} is not what harness settle wrote, or another version of it did",
        "Its terms are fixed before anything is bought. Put it back, or move it away to begin anew.",
    )


def _read(path: Path, content: dict[str, Any]) -> Course:
    terms = Terms(**{**content["terms"], "levels": tuple(content["terms"]["levels"])})
    begun = Begun(**content["begun"]) if "begun" in content else None
    paid, pending, lost = (content.get(name) for name in ("paid", "pending", "lost"))
    looks = [_look(of) for of in content["looks"]]
    return Course(terms, path, begun, content["owned"], looks, paid or {}, pending or {}, lost)


def of_row(loaded: LoadedRow, plan: RowPlan | None) -> dict[str, Course]:
    """Metric -> the course that was begun for it and the row, where its plan stands; also one of the
    row's name of which it is not known whether it is of the row as it stands.

    Raises:
        CourseChanged: a file was changed.
    """
    planner = plan.stages[0].planner if plan is not None and plan.stages else None
    stored = list(_stored(planner.store.root)) if planner is not None else []
    if planner is None or not stored:
        return {}
    stripped = bare(loaded)
    is_bare = stripped.row == loaded.row
    document = document_of(plan if plan and is_bare else planner.plan(stripped))
    found: dict[str, Course] = {}
    for course in _of(loaded, stored, document):
        if course.begun is None or course.terms.document == document:
            found.setdefault(course.terms.metric, course)
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _look(stored: dict[str, Any]) -> Look:
    def whole(counts: list[int]) -> tuple[int, ...]:
        # Written before there were bridging prompts among them.
        return (*counts, *[0] * (len(KINDS) + 1 - len(counts)))

    after = stored["next"]
    return Look(
        **{**stored, "counts": whole(stored["counts"]), "next": whole(after) if after else None}
    )
