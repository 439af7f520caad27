"""AlpaGasus's review files: FIRST-SECOND-SET.json, in both orders of two models, and SET_result.json
with the counts that were published.

A prompt's verdict is the sign of the sum of its two orders' verdicts (harness/judge/grades.py). The
published code cuts scores to whole numbers before it compares them, and keeps a reply that it could not
read as [-1, -1], which counts as a tie.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.artefact.keys import file_digest
from harness.audit.checks.judged import (
    FEWEST,
    FINDINGS,
    POSITION_POINTS,
    check_dropped,
    check_length,
    scores,
)
from harness.audit.checks.texts import StoredOutput, check_texts
from harness.audit.model import (
    EXAMPLES,
    SURE,
    Material,
    Reader,
    Result,
    compare,
    guarded_result,
    short,
)
from harness.audit.parse.alpaca_rows import key_of
from harness.audit.parse.files import AuditSource, Unreadable, read_json
from harness.audit.parse.judged_pairs import JudgedPair
from harness.audit.parse.reference import Reference, read_reference
from harness.judge.grades import position_bias, preference, read_scores
from harness.judge.scores import DRAW, position_note

KIND = "alpagasus"
LOWEST, HIGHEST = 0.0, 100.0
"""Of a score; the prompt asks for 1 to 10."""
LARGEST = 1e9
"""A number beyond this, or NaN, is none."""
NO_PROMPT = frozenset({"question_id", "id", "review", "review_id", "score", "category", "metadata"})
"""Columns that hold no part of the prompt, beside the two answers."""
TEXTS = ("text", "question", "prompt", "instruction")
"""What the column with the prompt is mostly called; it is another one in each of the study's sets."""
PUBLISHED = {"win": "n_wins", "wins": "n_wins", "draw": "n_draws", "tie": "n_draws",
             "ties": "n_draws", "lose": "n_wins_base", "loss": "n_wins_base",
             "losses": "n_wins_base"}  # fmt: skip

Two = tuple[float, float]


@dataclass
class _Reviews:
    """One file: the models in the order in which they were shown, the prompt set, rows by prompt."""

    path: Path
    first: str
    second: str
    set: str
    model: str
    rows: dict[str, dict[str, Any]]


@dataclass
class _Graded:
    """One prompt. exact: both orders' scores by the replies (or, without one, the file), None where an
    order was not read; stored: as the file has them. The model's answer stands first in the first."""

    key: str
    row: dict[str, Any]
    exact: tuple[Two, Two] | None
    stored: tuple[Two, Two] | None
    unread: bool
    cut: bool
    other: bool
    example: dict[str, Any] = field(default_factory=dict)


def find(source: AuditSource) -> list[Result]:
    reference = read_reference(source.reference)
    files: dict[tuple[Path, str, frozenset[str]], list[_Reviews]] = {}
    for path in source.files:
        if path.suffix.lower() != ".json" or path.stem.count("-") < 2:
            continue
        try:
            reviews = _read(path)
        except Unreadable as e:
            source.skip(path, str(e))
            continue
        if reviews is not None:
            source.claim(path)
            names = frozenset((reviews.first, reviews.second))
            files.setdefault((path.parent, reviews.set, names), []).append(reviews)
    sets = Counter((folder, name) for folder, name, _ in files)
    return [
        guarded_result(
            review_files[0].path.parent,
            KIND,
            partial(_result, source, review_files, reference, sets),
        )
        for review_files in files.values()
    ]


def _read(path: Path) -> _Reviews | None:
    values = read_json(path)
    if not isinstance(values, list) or not values or not all(isinstance(v, dict) for v in values):
        return None
    if not all("review" in v and "score" in v for v in values):
        return None
    columns = list(values[0])
    for first in columns:
        for second in columns:
            beginning = f"{first}-{second}-"
            if first != second and path.stem.startswith(beginning):
                rows = {}
                for n, value in enumerate(values):
                    key = value.get("question_id", _text(value, (first, second)) or n)
                    rows[str(key) if str(key) not in rows else f"{key} ({n})"] = value
                model = min(first, second, key=columns.index)
                return _Reviews(path, first, second, path.stem[len(beginning) :], model, rows)
    return None


def _result(
    source: AuditSource,
    review_files: Sequence[_Reviews],
    reference: Reference | None,
    sets: Counter[tuple[Path, str]],
) -> Result:
    """sets: how many pairs of models each folder has on a prompt set."""
    model = review_files[0].model
    orders = {reviews.first == model: reviews for reviews in review_files}
    model_first, model_second = orders.get(True), orders.get(False)
    reviews = model_first or model_second
    assert reviews is not None
    baseline = reviews.second if reviews.first == model else reviews.first
    result = Result(str(reviews.path.parent), KIND)
    if _several(source, reviews.path.parent, review_files):
        is_only = sets[reviews.path.parent, reviews.set] == 1
        result.path += f"#{reviews.set if is_only else reviews.path.stem}"
    graded = _grade(model_first, model_second)
    published, counted_in = _published(source, reviews)
    rows = [_judged(g, model, baseline) for g in graded]
    expected, why = len(graded), f"the reviews have {len(graded)}"
    if reference is not None and reference.fits(_text(g.row, (model, baseline)) for g in graded):
        expected, why = reference.prompts, f"{reference.path.name} has {reference.prompts}"
    result.metrics = scores(rows, expected)
    result.published = published
    if _other_way(result):
        model, baseline = baseline, model
        graded = [_turned(g) for g in graded]
        rows = [_judged(g, model, baseline) for g in graded]
        result.metrics = scores(rows, expected)
    rate = result.metrics["win_rate"]
    result.metrics["winning_score"] = None if rate is None else rate / 50
    compare(result)
    result.notes.append(f"wins are those of {model} over {baseline}, prompt set {reviews.set}")
    if len(orders) < 2:
        result.notes.append(
            "only one order of the answers is stored: position cannot be told apart"
        )
    _check_counts(result, graded, counted_in)
    _check_scores(result, graded)
    check_dropped(result, rows, [], why)
    if len(orders) == 2:
        _check_position(result, graded)
    if len(rows) >= FEWEST:
        check_length(result, rows)
    check_texts(result, _outputs(rows))
    result.material = Material(
        outputs={row.instruction: row.output for row in rows if row.output is not None},
        judgements=[(row.instruction, row.preference) for row in rows],
        judge="grading",
        baseline=baseline,
        model=model,
        run=str(reviews.path.parent.resolve()),
        files={o.path.name: file_digest(o.path) for o in review_files},
    )
    return result


def _several(source: AuditSource, folder: Path, review_files: Sequence[_Reviews]) -> bool:
    """Whether a folder holds the counts or reviews of other sets too."""
    pair_paths = {reviews.path for reviews in review_files}
    return any(
        p.parent == folder
        and p not in pair_paths
        and p.suffix.lower() == ".json"
        and p.stem.count("-") >= 2
        for p in source.all_files
    )


def _grade(model_first: _Reviews | None, model_second: _Reviews | None) -> list[_Graded]:
    """model_first: the file with the model shown first. With one order alone, it stands for both."""
    shown_first = model_first is not None
    keys = dict.fromkeys(
        [*(model_first.rows if model_first else ()), *(model_second.rows if model_second else ())]
    )
    pair = [
        name
        for reviews in (model_first, model_second)
        if reviews
        for name in (reviews.first, reviews.second)
    ]
    graded = []
    for key in keys:
        sides = [reviews.rows.get(key) for reviews in (model_first, model_second) if reviews]
        rows = [row for row in sides if row is not None]
        exact = [_exact(row) if row is not None else None for row in sides]
        stored = [_stored(row) if row is not None else None for row in sides]
        unread = any(s is not None and e is None for s, e in zip(stored, exact, strict=True))
        pairs = [
            (s, e) for s, e in zip(stored, exact, strict=True) if s is not None and e is not None
        ]
        cut = any(s != e and s == (float(int(e[0])), float(int(e[1]))) for s, e in pairs)
        other = any(s != e and s != (float(int(e[0])), float(int(e[1]))) for s, e in pairs)
        bad = next((r for r, s, e in zip(sides, stored, exact, strict=True) if s != e), None)
        example = {} if bad is None else {
            "prompt": short(_text(bad, pair)), "stored": bad.get("score"),
            "review": short(bad["review"]),
        }  # fmt: skip
        orders = (_both_orders(exact, shown_first), _both_orders(stored, shown_first))
        graded.append(_Graded(key, rows[0], *orders, unread, cut, other, example))
    return graded


def _both_orders(sides: Sequence[Two | None], shown_first: bool) -> tuple[Two, Two] | None:
    """Both orders in the form of grades.Orders; a single one, in which the model is shown first or
    second, is turned round to stand for the other."""
    read_sides = [side for side in sides if side is not None]
    if len(read_sides) < len(sides):
        return None
    if len(read_sides) == 2:
        return read_sides[0], read_sides[1]
    turned = (read_sides[0][1], read_sides[0][0])
    return (read_sides[0], turned) if shown_first else (turned, read_sides[0])


def _turned(g: _Graded) -> _Graded:
    """The same with the other model as the model."""

    def turn(orders: tuple[Two, Two] | None) -> tuple[Two, Two] | None:
        return None if orders is None else (orders[1], orders[0])

    return _Graded(g.key, g.row, turn(g.exact), turn(g.stored), g.unread, g.cut, g.other, g.example)


def _stored(row: dict[str, Any]) -> Two | None:
    value = row.get("score")
    if not isinstance(value, list) or len(value) != 2:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return None
    if not all(abs(v) < LARGEST for v in value):
        return None
    return float(value[0]), float(value[1])


def _exact(row: dict[str, Any]) -> Two | None:
    """The scores of a review's words; of a file without words those that are stored, in range."""
    review = row.get("review")
    if isinstance(review, str) and review.strip():
        return read_scores(review, LOWEST, HIGHEST)
    stored = _stored(row)
    return stored if stored is not None and min(stored) >= LOWEST else None


def _published(source: AuditSource, reviews: _Reviews) -> tuple[dict[str, Any], str]:
    """The counts of SET_result.json beside the reviews, and the file's name."""
    for path in source.all_files:
        if path.parent != reviews.path.parent or not path.stem.lower().endswith("_result"):
            continue
        try:
            value = read_json(path)
        except Unreadable as e:
            source.skip(path, str(e))
            continue
        if not isinstance(value, dict):
            continue
        if reviews.set not in (value.get("test_name"), path.stem[: -len("_result")]):
            continue
        source.claim(path)
        counts = {
            PUBLISHED[name.lower()]: n
            for name, n in value.items()
            if name.lower() in PUBLISHED and isinstance(n, int) and 0 <= n < LARGEST
        }
        if counts:
            if len(set(PUBLISHED.values()) - set(counts)) == 0:
                counts["n_judged"] = sum(counts.values())
            return counts, path.name
    return {}, ""


def _other_way(result: Result) -> bool:
    """Whether the published counts are those of the other model."""
    p, m = result.published, result.metrics
    return bool(p) and (p.get("n_wins"), p.get("n_wins_base")) != (m["n_wins"], m["n_wins_base"]) and (
        p.get("n_wins"), p.get("n_wins_base")
    ) == (m["n_wins_base"], m["n_wins"])  # fmt: skip


def _judged(g: _Graded, model: str, baseline: str) -> JudgedPair:
    judgement = None if g.exact is None else preference(g.exact)
    text = _text(g.row, (model, baseline))
    return JudgedPair(text, _words(g.row, model), _words(g.row, baseline), judgement)


def _text(row: dict[str, Any], models: Collection[str]) -> str:
    """The prompt: of a column that is called so, else the first text that is no answer; an instance's
    input follows it."""
    name = next((name for name in TEXTS if name in row and name not in models), None) or next(
        (n for n, v in row.items() if isinstance(v, str) and n not in (*models, *NO_PROMPT)), ""
    )
    instances = row.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    source = first if isinstance(first, dict) else row
    return key_of({"instruction": str(row.get(name, "")), "input": source.get("input")})


def _words(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None


def _counts(verdicts: Sequence[float]) -> dict[str, int]:
    counted = Counter(verdicts)
    wins, draws = counted[2.0], counted[DRAW]
    return {"n_wins": wins, "n_draws": draws, "n_wins_base": len(verdicts) - wins - draws}


def _count_with(
    graded: Sequence[_Graded], how: Callable[[_Graded], float | None]
) -> dict[str, int]:
    return _counts([v for g in graded if (v := how(g)) is not None])


def _verdict(orders: tuple[Two, Two] | None) -> float | None:
    return None if orders is None else preference(orders)


def _whole_scores(orders: tuple[Two, Two]) -> tuple[Two, Two]:
    (a, b), (c, d) = orders
    return (float(int(a)), float(int(b))), (float(int(c)), float(int(d)))


def _check_counts(result: Result, graded: Sequence[_Graded], where: str) -> None:
    """unparsed_scored, truncated_scores and count_mismatch: how the published counts come about."""
    exact = _count_with(graded, lambda g: _verdict(g.exact))
    cut = _count_with(graded, lambda g: _verdict(_whole_scores(g.exact) if g.exact else None))
    tied = _count_with(graded, lambda g: _verdict(g.stored if g.unread else g.exact))
    tied_cut = _count_with(
        graded,
        lambda g: _verdict(
            _whole_scores(orders) if (orders := g.stored if g.unread else g.exact) else None
        ),
    )
    published_counts = {n: result.published.get(n) for n in exact}
    unread = [g for g in graded if g.unread and g.stored is not None]
    if unread:
        result.add(
            "unparsed_scored",
            "error" if len(unread) >= 0.01 * len(graded) else "warning",
            f"the reviews of {len(unread)} of {len(graded)} prompts hold no two scores, yet scores are "
            f"stored for them ({_scores_of(unread)}); a score of [-1, -1] counts as a tie: "
            f"{_words_of(tied)} with them, {_words_of(exact)} without",
            {"rows": len(unread), "of": len(graded), "with": tied, "without": exact,
             "published": published_counts if where else None,
             "examples": [g.example for g in unread[:EXAMPLES]]},
        )  # fmt: skip
    stored_cut = [g for g in graded if g.cut]
    if stored_cut or (
        cut != exact and where and published_counts in (cut, tied_cut) and published_counts != exact
    ):
        n = len(stored_cut) or sum(
            g.exact is not None and preference(_whole_scores(g.exact)) != preference(g.exact)
            for g in graded
        )
        result.add(
            "truncated_scores",
            "error" if cut != exact else "warning",
            f"{'stored scores of' if stored_cut else 'verdicts on'} {n} prompts are cut to whole "
            f"numbers{'' if stored_cut else ' before they are compared'}: {_words_of(cut)} cut, "
            f"{_words_of(exact)} with the scores as the judge gave them",
            {"rows": n, "of": len(graded), "cut": cut, "exact": exact,
             "published": published_counts if where else None,
             "examples": [g.example for g in stored_cut[:EXAMPLES]]},
        )  # fmt: skip
    if where and any(v is not None and v != exact[n] for n, v in published_counts.items()):
        result.matches = False
        if published_counts not in (tied, cut, tied_cut):
            result.add(
                "count_mismatch", "error",
                f"{where} says {_words_of(published_counts)}; the stored reviews give "
                f"{_words_of(exact)}",
                {"published": published_counts, "recomputed": exact},
            )  # fmt: skip


def _check_scores(result: Result, graded: Sequence[_Graded]) -> None:
    other = [g for g in graded if g.other and not g.cut]
    if other:
        result.add(
            "count_mismatch", "error",
            f"of {len(other)} prompts the stored scores are not those of the review's words",
            {"rows": len(other), "of": len(graded),
             "examples": [g.example for g in other[:EXAMPLES]]},
        )  # fmt: skip


def _check_position(result: Result, graded: Sequence[_Graded]) -> None:
    bias = position_bias([g.exact for g in graded if g.exact is not None])
    p, gap = bias["p_value"], abs(bias["difference"] or 0.0)
    if p is None or p >= SURE or gap < POSITION_POINTS:
        return
    result.add(
        "position_bias",
        "warning",
        f"the judge favours a place: {position_note(bias)}; {bias['orders_differ']:.1f} % of the "
        "prompts got another verdict in the other order",
        {**bias},
    )


def _outputs(rows: Sequence[JudgedPair]) -> list[StoredOutput]:
    return [
        StoredOutput(r.instruction, r.output, None if r.preference is None else r.share, r.baseline)
        for r in rows
        if r.output is not None
    ]


def _scores_of(graded: Sequence[_Graded]) -> str:
    values = {str(g.example.get("stored")) for g in graded}
    return ", ".join(sorted(values)[:3])


def _words_of(counts: dict[str, Any]) -> str:
    """A count that is not stored is unknown, and no zero."""
    stored_counts = (counts[name] for name in ("n_wins", "n_draws", "n_wins_base"))
    wins, ties, losses = ("unknown" if count is None else count for count in stored_counts)
    return f"{wins} wins, {ties} ties, {losses} losses"


READER = Reader(
    "alpagasus",
    looks_for="AlpaGasus's review files (FIRST-SECOND-SET.json) with SET_result.json",
    kinds=(KIND,),
    findings=FINDINGS,
    find=find,
    comparable=True,
)
