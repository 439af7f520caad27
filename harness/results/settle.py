"""`harness settle`: buys replicates of a row until its verdict is decided or the budget is spent.

How often and at which levels it looks is written down before anything is bought, and so are the margin
and what a purchase is chosen by: the interval that it is expected to leave, per dollar or second.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.artefact.store import SHORT
from harness.common import numbers
from harness.common.commands import harness
from harness.common.numbers import dollars
from harness.common.progress import counted, say
from harness.errors import InputError
from harness.llm import prices
from harness.results import losses
from harness.results.course import (
    FOLDER,
    Begun,
    Course,
    Look,
    Terms,
    annotations_of,
    bare,
    counts_of,
    courses,
    document_of,
    extended,
    numbers_of,
)
from harness.results.matrix import lines_of
from harness.results.purchase import (
    BRIDGE,
    WORDS,
    Counts,
    Purchase,
    best,
    enough,
    first_asked,
    half_of,
    more_of,
    price_of,
    steps,
)
from harness.results.verdict.deciding import at_best
from harness.results.verdict.evidence import gather, served_models
from harness.results.verdict.forecast import DECIDED
from harness.results.verdict.sides import KIND_WORDS, KINDS
from harness.results.verdict.verdict import Weighed, assess, margin_of
from harness.row.load import LoadedRow
from harness.row.published_judge import another_judge
from harness.row.rejudged import WIN_RATE, bridge_rows, is_rejudged
from harness.row.row import Row
from harness.row.twin import SUFFIX
from harness.run import ready
from harness.run.executors import Executor, waiting
from harness.run.foretold import foretold
from harness.run.plan import Planner, RowPlan, StagePlan, target, unique
from harness.run.runner import Runner
from harness.stats.intervals import t_quantile
from harness.stats.spending import levels

RULE = "the smallest expected interval per unit of cost; a second training before all else"
FIRST_RULE = ", then what the verdict asks for first"
"""Not of what was begun by earlier versions, which keeps its rule."""
BRIDGE_RULE = "; of bridging models a larger sample of prompts, up to all that were judged"


class Settler:
    """Settles one metric of a row."""

    def __init__(
        self, loaded: LoadedRow, metric: str, usd: float, looks: int, planner: Planner
    ) -> None:
        self.spec, self.metric, self.planner = loaded, metric, planner
        self.usd = usd
        self._plans: dict[Counts, RowPlan] = {}
        cell = loaded.row.reported.get(metric)
        if cell is None or cell.value is None:
            raise InputError(
                f"row {loaded.row.row} reports no number{f' for {metric}' if metric else ''}",
                "There is nothing to settle: name a row with a reported number.",
            )
        margin = margin_of(loaded.row, metric)
        if margin is None:
            raise InputError(
                f"row {loaded.row.row}: {metric} has no margin, so that nothing can decide it",
                "Give it one: margins: in the spec.",
            )
        if loaded.row.scale == "tiny":
            of = loaded.row.row.removesuffix(SUFFIX)
            raise InputError(
                f"{loaded.row.row} is a scaled-down twin, which settles nothing",
                f"What its row would buy first: {harness('settle', f'{of} --dry-run')}",
            )
        plan = planner.plan(bare(loaded))
        with ready.placed(plan):
            ready.check_reported(plan, planner.files)
        for model in bridge_rows(loaded):
            planner.files.pinned(model.retired.annotations)  # else a look would be spent on it
        rule = RULE + FIRST_RULE + BRIDGE_RULE * bool(plan.bridge)
        fixed = tuple(levels(looks))
        number = numbers_of(cell)
        self.terms = Terms(
            loaded.row.row, metric, document_of(plan), margin, fixed, rule, number,
            annotations_of(loaded, metric),
        )  # fmt: skip
        self._find()
        self._check_judge()

    def _check_judge(self) -> None:
        """Raises InputError where another judge gave the reported number, and nothing sets the two
        beside each other."""
        row, metric = self.loaded.row, self.metric
        published, own = row.reported.judge_of(metric), row.judge
        if published is None or own is None or not own.judges_outputs:
            return
        plan = self._plan(counts_of(self.loaded))
        by_answers, by_bridge = is_rejudged(metric), metric == WIN_RATE
        if (by_answers and plan.published) or (by_bridge and plan.bridge):
            return
        evidence = gather(row, metric, losses.stages_that_give(plan, metric))
        another = another_judge(published, own, served_models(evidence) if evidence else set())
        if not another:
            return
        ways = ["the study's own answers (reported.outputs)"] * by_answers
        ways += ["models that the published judge has judged (reported.bridge)"] * by_bridge
        hints = [f"Name {' or '.join(ways)}."] * bool(ways)
        if evidence is None and not another_judge(published, own, {published.model or ""}):
            hints.append(
                f"If the server says that {published.model} answers, run the row first: "
                + harness("run", target(self.spec.row, self.spec.path))
            )
        raise InputError(
            f"row {row.row}: nothing that is bought can decide its {metric}: {another}",
            " ".join(hints),
        )

    def _find(self) -> None:
        """The course, and the row as it was when it began: replicates in the spec since then are
        its own."""
        self.course = Course.of(self.terms, self.planner.store.root, self.spec)
        assert self.course.begun is not None
        self.loaded = self.course.begun.of(self.spec)

    def settle(self, executor: Executor, console: Console) -> str:
        """Buy and look until it is decided, the budget is spent, or the planned looks are over; the
        last look's verdict.

        Raises:
            InputError: a price is not known, or what is to be made first costs more than the budget.
            HarnessError: as `Runner.run`; the same command goes on.
        """
        message = waiting(console, f"settle: {self.loaded.row.row}")
        with self.planner.store.lock(FOLDER, self.terms.digest, message):
            self._find()
            return self._settle(executor, console)

    def _settle(self, executor: Executor, console: Console) -> str:
        course, looks = self.course, self.course.looks
        counts, what = self._standing()
        for line in self._uncounted():
            say(console, line)
        if looks:
            last = looks[-1]
        elif not course.path.is_file():
            plan = self._plan(counts)
            course.owned = [stage.key for stage in plan.stages if stage.artefact is not None]
            if limit := self._limit(plan):
                say(console, limit)
        if course.has_ended:
            weighed = self._weigh(self._plan(counts), last.level)
            _tell(console, weighed, last, len(looks), len(course.terms.levels))
            say(console, f"it has ended: {self._end()}")
            return last.verdict
        if looks and last.next is None:
            # It ended for want of money: perhaps there is more now.
            plan = self._made(counts, what, executor, console)
            purchase = self._next(plan, self._weigh(plan, last.level), counts, console)
            if purchase is None:
                return last.verdict
            counts = last.next = purchase.counts
            what = self._standing()[1]
        while True:
            plan = self._made(counts, what, executor, console)
            level = course.terms.levels[len(looks)]
            weighed = self._weigh(plan, level)
            verdict = weighed.verdict
            spent = self._spent(plan)
            looks.append(Look(counts, level, verdict.low, verdict.high, verdict.name, spent))
            course.save()  # what was seen stays seen, whatever comes now
            _tell(console, weighed, looks[-1], len(looks), len(course.terms.levels))
            purchase = None
            if verdict.name not in DECIDED and len(looks) < len(course.terms.levels):
                purchase = self._next(plan, weighed, counts, console)
            if purchase is None:
                return verdict.name
            counts, what = purchase.counts, f"what look {len(looks)} chose"
            looks[-1].next = counts

    def _uncounted(self) -> Iterator[str]:
        """What is to be said of looks and dollars that were, or may have been, spent on the same stages
        or the same row and are not the course's."""
        course, counts = self.course, counts_of(self.loaded)
        plan = self._plan(counts)
        others = list(course.apart([stage.key for stage in plan.final()]))
        for other in others:
            row, looks = other.terms.row, counted(len(other.looks), "look")
            if other.terms.document == course.terms.document:
                value = other.terms.reported["value"] if other.terms.reported else "another number"
                own = self.terms.reported and self.terms.reported["value"]
                of, why = "the same stages", f"row {row} reports {value}, this row {own}"
            else:
                is_named = row == course.terms.row
                of = "the row" if is_named else f"the same judgings (row {row})"
                why = "it was of other settings, or other models beside the row"
            yield (
                f"another course of {of} has taken {looks} and paid {dollars(other.usd)}: "
                f"{other.path}; it counts apart: {why}. Who begins anew until it is decided errs more "
                "often than one course does"
            )
        if course.path.is_file():
            return
        ids = {stage.id for stage in plan.stages}
        kinds = [kind for kind in self._kinds(plan, counts) if kind != BRIDGE]
        more = [self.planner.plan(extended(self.loaded, more_of(counts, k, 1))) for k in kinds]
        known = {key for other in others for key in (*other.owned, *other.paid)}
        there = [
            s.artefact
            for s in unique(more)
            if s.artefact is not None and s.id not in ids and s.key not in known
        ]
        if there:
            names = ", ".join(f"{a.stage}/{a.key[:SHORT]} (of {a.manifest.row})" for a in there)
            yield (
                f"replicates that the spec does not name are there already: {names}; if an earlier "
                f"course bought them whose file is no more in {course.path.parent}, its looks and "
                "dollars are not counted"
            )

    def _standing(self) -> tuple[Counts, str]:
        """The replicates that there are to be at the next look, and what they are called."""
        looks = self.course.looks
        if not looks:
            return counts_of(self.loaded), "the row as it stands"
        last, number = looks[-1], len(looks)
        what = f"what look {number} chose" if last.next else f"what is gone of look {number}"
        return last.next or last.counts, what

    def _made(self, counts: Counts, what: str, executor: Executor, console: Console) -> RowPlan:
        """The row with so many replicates, once what is not there of it is paid for and made."""
        plan = self._plan(counts)
        to_run = [stage for stage in unique([plan]) if stage.artefact is None]
        before = {*self.course.owned, *self.course.paid}
        for look in self.course.looks[-1:]:
            before |= {stage.key for stage in self._plan(look.counts).stages}
        if again := [stage for stage in to_run if stage.key in before]:
            price = f"{counted(len(again), 'stage')}, about {dollars(_price(again, what))}"
            say(console, f"making again what is gone: {price}")
        self._check_budget(plan, what)
        if to_run:
            if self.course.looks:
                self.course.save()
            runner = Runner(self.planner.store, self.planner.files, executor, console)
            stages = runner.begin([plan])  # a start that is refused leaves no course behind
            self.course.save()
            there = [stage for stage in stages if stage.artefact is not None]
            if there:
                verb = "is" if len(there) == 1 else "are"
                say(console, f"{counted(len(there), 'stage')} {verb} there already")
            for stage in there:
                runner.remember(stage, [plan])
            missing = [stage for stage in stages if stage.artefact is None]
            runner.go_through(missing, [plan], lambda stage: self._paying(stage, plan, what))
            self.planner.files.save()
            self._plans.clear()
            foretold.cache_clear()  # what it took is what more of it is expected to take
        return self._plan(counts)

    @contextlib.contextmanager
    def _paying(self, stage: StagePlan, plan: RowPlan, what: str) -> Iterator[None]:
        """About the making of a stage: what it may cost is written down before it, and what it cost
        after it. Its calls end where they may pass what is left.

        Raises:
            InputError: what is left of the plan is now known to cost more than the budget leaves.
        """
        if stage.artefact is not None:
            yield
            return
        course = self.course
        self._check_budget(plan, what)
        fresh = replace(stage)  # a stage keeps what it once was
        stage.owner = _limited(stage.owner, self.usd - self._spent(plan) + fresh.kept_usd)
        course.pending[stage.key] = (fresh.usd() or 0.0) + fresh.kept_usd
        course.save()
        try:
            yield
        finally:
            if stage.artefact is not None:
                course.pay(stage.key, _cost(stage))
                foretold.cache_clear()  # what it took is what others of its kind are expected to take
            elif kept := replace(stage).kept_usd:
                course.pending[stage.key] = kept
            else:
                del course.pending[stage.key]
            with contextlib.suppress(OSError):  # on a full disk it stands as it was before
                course.save()

    def _next(
        self, plan: RowPlan, weighed: Weighed, counts: Counts, console: Console
    ) -> Purchase | None:
        purchase = self.purchase(plan, weighed, counts, self.usd - self._spent(plan))
        why = "" if purchase else self._why(plan, weighed, counts)
        reach = at_best(weighed)
        if reach is not None and len(self.course.looks) == 1:
            say(console, reach.words)
        verb = "buying" if purchase and purchase.stages else "counting"
        say(console, f"{verb} {purchase}" if purchase else f"it ends here: {why}")
        if purchase is not None:
            known = {stage.id for stage in plan.stages}
            more = self._plan(purchase.counts).stages
            self.course.owned += [s.key for s in more if s.artefact and s.id not in known]
        return purchase

    def _end(self) -> str:
        """Why a course has ended, whatever money there is."""
        verdict = self.course.looks[-1].verdict
        return (
            f"it is {verdict}" if verdict in DECIDED else f"its looks are over, and it is {verdict}"
        )

    def _why(self, plan: RowPlan, weighed: Weighed, counts: Counts) -> str:
        """Why nothing is bought."""
        if weighed.evidence is None or weighed.reported_span is None:
            verdict = weighed.verdict
            return verdict.reason or f"the row is {verdict.name}"
        if not self._kinds(plan, counts):
            return (
                "nothing of the row can be repeated with another outcome: it trains nothing, samples "
                "nothing, and asks no judge"
            )
        reach = at_best(weighed)
        if reach is not None and not reach.verdicts:
            return "nothing that can be bought would decide it"
        spent = self._spent(plan) * self.course.path.is_file()
        if spent > self.usd:
            return f"{dollars(spent)} are spent, more than --usd {self.usd:g}"
        assert weighed.outlook is not None
        kinds = self._kinds(plan, counts)
        options = [self._option(plan, weighed, counts, kind, 0.0, math.inf) for kind in kinds]
        named, first = [o for o in options if o is not None], self._first_asked(weighed)
        dearer = best(weighed.outlook, counts, named, first)
        if dearer is None:
            return "no replicate is expected to narrow the interval"
        return f"{dearer}, would be next: --usd {self.usd:g} leaves {dollars(self.usd - spent)}"

    def _limit(self, plan: RowPlan) -> str:
        """That the reported number's own error alone leaves more than the margin; else empty."""
        error = (self.terms.reported or {}).get("standard_error")
        half, margin = t_quantile(math.inf) * (error or 0.0), self.terms.margin
        if half <= margin or (plan.published and is_rejudged(self.metric)):
            return ""
        return (
            f"`reproduced` is out of reach: the reported number's own error alone leaves ±{half:.2f}, "
            f"margin {margin:g}"
        )

    def _check_budget(self, plan: RowPlan, what: str) -> None:
        """Also of what was chosen, or begun, when there was more money. `what`: what the plan is."""
        # As it is expected now: a stage keeps what it once was.
        new = [replace(stage) for stage in unique([plan]) if stage.artefact is None]
        usd, spent = _price(new, what), self._spent(plan)
        if usd > max(0.0, self.usd - spent):
            left = f" leaves after the {dollars(spent)} that are spent" * (spent > 0)
            raise InputError(
                f"row {self.loaded.row.row}: {what} costs about {dollars(usd)}, more than --usd "
                f"{self.usd:g}{left}",
                "No more of it is bought. Give more with --usd, or lower what the spec asks for.",
            )

    def _spent(self, plan: RowPlan) -> float:
        """Dollars that all stages of the course cost, each time that they were made and whatever was
        removed since, but for those that were there before it; with what interrupted ones have paid."""
        course, store = self.course, self.planner.store
        plans = [plan]
        if course.lost is None and plan.bridge:  # what a larger sample took the place of
            plans += map(self._plan, {look.counts for look in course.looks})
        stages = [stage for of in plans for stage in unique([of])]
        made = {stage.key: stage for stage in stages if stage.artefact is not None}
        for key, stage in made.items():
            if key in course.pending or key not in {*course.owned, *course.paid}:
                course.pay(key, _cost(stage))
        if course.lost is None:
            course.lost = max(0.0, course.usd - math.fsum(course.paid.values()))
        unfinished = {stage.key: stage for stage in stages if stage.key not in made}
        kept = {}
        for key, stage in unfinished.items():
            if store.work_folder(*stage.id).is_dir():
                kept[key] = replace(stage).kept_usd
            elif key in course.pending:
                course.pay(key, course.pending[key])  # it was removed
        return replace(course, pending={**course.pending, **kept}).usd

    def foretold(self) -> Iterator[str]:
        """The verdict as `harness verify` has it now, the terms, and what would be bought first.

        Raises:
            InputError: as `settle`.
        """
        lines = lines_of(self.spec, [self.planner])
        now = next(line.cells for line in lines if line.cells.metric == self.metric)
        yield ": ".join(filter(None, ["as it stands", now.verdict, now.verdict_reason]))
        terms, looks = self.terms, self.course.looks
        counts, what = self._standing()
        is_begun = self.course.path.is_file()
        levels_in_words = ", ".join(f"{100 * level:.6g} %" for level in terms.levels)
        yield (
            f"margin {terms.margin:g}; {len(terms.levels)} looks at most, each with an interval of its "
            f"own level: {levels_in_words} (wider for the early looks, so that all together "
            f"err no more often than one at 95 %); bought by: {terms.rule}"
        )
        yield from self._uncounted()
        if is_begun:
            yield f"begun: {counted(len(looks), 'look')} taken, {dollars(self.course.usd)} spent"
        if self.course.has_ended:
            yield f"nothing: it has ended: {self._end()}"
            return
        plan = self._plan(counts)
        to_run = [stage for stage in plan.stages if stage.artefact is None]
        if to_run:
            ready.check(plan, self.planner.files)
            usd = _price(to_run, what)
            if limit := self._limit(plan):
                yield limit
            yield f"first {what}: {counted(len(to_run), 'stage')}, about {dollars(usd)}"
            self._check_budget(plan, what)
            return
        weighed = self._weigh(plan, terms.levels[len(looks)])
        verdict = weighed.verdict
        if verdict.name in DECIDED:
            yield f"nothing: it is {verdict.name}"
            return
        reach = at_best(weighed)
        if reach is not None:
            yield reach.words
        purchase = self.purchase(plan, weighed, counts, self.usd - self._spent(plan) * is_begun)
        yield f"first {purchase}" if purchase else f"nothing: {self._why(plan, weighed, counts)}"

    def kept(self) -> Iterator[str]:
        """Where the course stands, and what gives later commands the same replicates."""
        yield f"terms and looks: {self.course.path}"
        for part in self.course.unnamed(self.spec):
            yield f"for verify and table, in the spec: {part}"

    def purchase(
        self, plan: RowPlan, weighed: Weighed, counts: Counts, left: float
    ) -> Purchase | None:
        """What to buy next; None where nothing is left for it, or nothing would move the interval or
        decide it."""
        if weighed.outlook is None:
            return None  # no number of ours, or none that it is compared with
        reach = at_best(weighed)
        if reach is not None and not reach.verdicts:
            return None
        remaining = len(self.course.terms.levels) - len(self.course.looks)
        share = left / max(remaining, 1)
        options = [
            option
            for kind in self._kinds(plan, counts)
            if (option := self._option(plan, weighed, counts, kind, share, left)) is not None
        ]
        return best(weighed.outlook, counts, options, self._first_asked(weighed))

    def _first_asked(self, weighed: Weighed) -> dict[str, int]:
        return first_asked(weighed) if FIRST_RULE in self.course.terms.rule else {}

    def _kinds(self, plan: RowPlan, counts: Counts) -> list[str]:
        row = self.loaded.row
        answer, judge = row.answer, row.judge
        possible = {
            "train": row.train is not None,
            "sampling": answer is not None and answer.is_sampled,
            "judge": judge is not None and judge.judges_outputs and not judge.needs().is_recorded,
        }
        kinds = [kind for kind in KINDS if possible[kind]]
        if plan.bridge and self.metric == WIN_RATE:
            kinds.append(BRIDGE)
        return ["train"] if possible["train"] and counts[0] == 1 else kinds

    def _option(
        self, plan: RowPlan, weighed: Weighed, counts: Counts, kind: str, share: float, left: float
    ) -> Purchase | None:
        """As many of a kind as would decide it, as a look's share of the rest pays, or the fewest; of
        one of which the verdict asks for the first, these."""
        outlook = weighed.outlook
        assert outlook is not None
        first = next(iter(steps(outlook, counts, kind)), None)
        if first is None:
            return None
        usd_of_first = self._priced(plan, counts, kind, first)[1]
        if usd_of_first > left:
            return None
        price = price_of(kind, counts, first, usd_of_first)
        difference = weighed.verdict.difference or 0.0
        count = self._first_asked(weighed).get(kind)
        if count is not None and self._priced(plan, counts, kind, count)[1] > left:
            return None  # fewer would show nothing
        count = count or enough(outlook, counts, kind, difference, lambda n: price(n) <= share)
        assert count is not None
        if self._priced(plan, counts, kind, count)[1] > left:
            count = first  # what many cost was only known from what the fewest do
        stages, usd = self._priced(plan, counts, kind, count)
        more = more_of(counts, kind, count)
        there = (stage.artefact.manifest.row for stage in stages if stage.artefact)
        made_for = tuple(sorted(set(there) - {""}))
        to_run = sum(stage.artefact is None for stage in stages)
        return Purchase(kind, count, usd, half_of(outlook, more), more, to_run, made_for)

    def _priced(
        self, plan: RowPlan, counts: Counts, kind: str, count: int
    ) -> tuple[list[StagePlan], float]:
        """The stages that so many more take, each once, and the dollars of those that are not there."""
        more = self._plan(more_of(counts, kind, count))
        known = {stage.id for stage in plan.stages}
        stages = [stage for stage in unique([more]) if stage.id not in known]
        to_run = [stage for stage in stages if stage.artefact is None]
        return stages, _price(to_run, f"another {WORDS[kind][0]}")

    def _plan(self, counts: Counts) -> RowPlan:
        """Once for all that is asked of it, until a run makes more of it.

        Raises:
            Damaged: what its numbers come from was changed, see `RowPlan.check_results`.
        """
        if counts not in self._plans:
            plan = self.planner.plan(extended(self.loaded, counts))
            plan.check_results()
            self._plans[counts] = plan
        return self._plans[counts]

    def _weigh(self, plan: RowPlan, level: float) -> Weighed:
        planned: Sequence[StagePlan] = losses.stages_that_give(plan, self.metric)
        return assess(plan.row, self.metric, planned, plan, level)


def bought(loaded: LoadedRow, root: Path) -> Iterator[LoadedRow]:
    """The row as each look at it had it, or is to: with replicates that its spec may not name."""
    for course in courses(root, loaded.row.row):
        begun = (course.begun or Begun()).of(loaded)
        for look in course.looks:
            yield extended(begun, look.counts)
            if look.next is not None:
                yield extended(begun, look.next)


def _limited(row: Row, usd: float) -> Row:
    """With so many dollars, at most, for a stage, what its earlier tries have paid included."""
    budget = row.budget
    usd = max(0.0, min(usd, math.inf if budget.usd is None else budget.usd))
    return row.model_copy(update={"budget": budget.model_copy(update={"usd": usd})})


def _price(stages: Sequence[StagePlan], what: str) -> float:
    """Raises InputError where a price, or how many calls there will be, is not known."""
    for stage in stages:
        if stage.pays and stage.estimate.unknown:
            raise InputError(
                f"what {what} costs is not known: {stage.estimate.unknown}",
                f"Fetch it first: {harness('fetch', stage.target)}",
            )
    if unpriced := list(dict.fromkeys(model for s in stages for model in s.unpriced)):
        raise InputError(
            f"what {what} costs is not known: the price of {' and of '.join(unpriced)} is not",
            f"Add {'it' if len(unpriced) == 1 else 'them'} to {prices.place()}.",
        )
    return math.fsum(stage.usd() or 0.0 for stage in stages)


def _cost(made: StagePlan) -> float:
    """Dollars that a stage cost, which its manifest does not say where replies do not say their tokens:
    then what it was expected to cost."""
    usd = made.made.manifest.cost.get("usd")
    if usd is None and made.pays:
        usd = replace(made, artefact=None).usd()
    return usd or 0.0


def _tell(console: Console, weighed: Weighed, look: Look, number: int, looks: int) -> None:
    verdict = weighed.verdict
    interval = numbers.interval(look.low, look.high, weighed.digits, signed=True)
    runs = " x ".join(
        counted(n, KIND_WORDS[kind][0])
        for n, kind in zip(look.counts, KINDS, strict=False)
        if n > 1
    )
    if look.counts[3]:
        runs = f"{runs or 'one run'}, {counted(look.counts[3], 'prompt')} of each bridging model"
    difference = weighed.number(verdict.difference, signed=True)
    compared = [
        f"difference {difference}" * bool(difference),
        f"{100 * look.level:.6g} % interval {interval}" * bool(interval),
    ]
    texts = [", ".join(filter(None, compared)), runs or "one run", f"{dollars(look.usd)} spent"]
    say(console, "; ".join(filter(None, [f"look {number} of {looks}: {look.verdict}", *texts])))
