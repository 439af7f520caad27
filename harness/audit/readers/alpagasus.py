"""AlpaGasus's review files: FIRST-SECOND-SET.json, in both orders of two models, and SET_result.json
with the counts that were published.

A prompt's verdict is the sign of the sum of its two orders' verdicts (harness/judge/grades.py). The
published code cuts scores to whole numbers before it compares them, and keeps a reply that it could not
read as [-1, -1], which counts as a tie.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    measure,
)
from harness.audit.checks.texts import check_texts
from harness.audit.model import EXAMPLES, SURE, Reader, Result, compare, guarded_result, short
from harness.audit.parse.alpaca_rows import with_input
from harness.audit.parse.files import AuditSource, JsonObject, read_json
from harness.audit.parse.judged_pairs import JudgedPair, judged_outputs, material_of
from harness.audit.parse.reference import Reference, read_reference
from harness.judge.grades import Orders, Scores, position_bias, preference, read_scores
from harness.judge.scores import BASELINE, DRAW, MODEL, position_note

KIND = "alpagasus"
LOWEST, HIGHEST = 0.0, 100.0
"""Of a score; the prompt asks for 1 to 10."""
LARGEST = 1e9
"""A number beyond this, or NaN, is none."""
NO_PROMPT = frozenset({"question_id", "id", "review", "review_id", "score", "category", "metadata"})
"""Columns that hold no part of the prompt, beside the two answers."""
TEXTS = ("text", "question", "prompt", "instruction")
"""What the column with the prompt is mostly called; it is another one in each of the study's sets."""
PREFERENCES = {"n_wins": MODEL, "n_draws": DRAW, "n_wins_base": BASELINE}
PUBLISHED = {"win": "n_wins", "wins": "n_wins", "draw": "n_draws", "tie": "n_draws",
             "ties": "n_draws", "lose": "n_wins_base", "loss": "n_wins_base",
             "losses": "n_wins_base"}  # fmt: skip


@dataclass(frozen=True)
class _Review:
    """A row, of one order. answers: by model, None where none is stored. exact: the scores by the
    reply (or, without one, the file), stored: as the file has them; None: not read."""

    prompt: str
    answers: dict[str, str | None]
    exact: Scores | None
    stored: Scores | None
    score: Any
    words: str


@dataclass
class _Reviews:
    """One file: the models in the order in which they were shown, the prompt set, rows by prompt."""

    path: Path
    first: str
    second: str
    set: str
    model: str
    rows: dict[str, _Review]


@dataclass(frozen=True)
class _Graded:
    """One prompt. exact, stored: both orders' scores, None where an order was not read; the model's
    answer stands first in the first. bad: the first order's review that is not as it is stored."""

    review: _Review
    exact: Orders | None
    stored: Orders | None
    unread: bool
    cut: bool
    other: bool
    bad: _Review | None


def find(source: AuditSource) -> list[Result]:
    reference = read_reference(source.reference)
    files: dict[tuple[Path, str, frozenset[str]], list[_Reviews]] = {}
    for path in filter(_has_reviews_name, source.files):
        reviews = source.read(_read, path)
        if reviews is not None:
            source.claim(path)
            names = frozenset((reviews.first, reviews.second))
            files.setdefault((path.parent, reviews.set, names), []).append(reviews)
    sets = Counter((folder, name) for folder, name, _ in files)
    return [
        guarded_result(pair[0].path.parent, KIND, partial(_result, source, pair, reference, sets))
        for pair in files.values()
    ]


def _has_reviews_name(path: Path) -> bool:
    """FIRST-SECOND-SET.json."""
    return path.suffix.lower() == ".json" and path.stem.count("-") >= 2


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
                    review = _review(JsonObject(value), (first, second))
                    key = value.get("question_id", review.prompt or n)
                    rows[str(key) if str(key) not in rows else f"{key} ({n})"] = review
                model = min(first, second, key=columns.index)
                return _Reviews(path, first, second, path.stem[len(beginning) :], model, rows)
    return None


def _review(row: JsonObject, models: tuple[str, str]) -> _Review:
    """The prompt is of a column that is called so, else the first text that is no answer; an
    instance's input follows it."""
    name = next((name for name in TEXTS if name in row and name not in models), None) or next(
        (n for n, v in row.items() if isinstance(v, str) and n not in (*models, *NO_PROMPT)), ""
    )
    instance = next(iter(row.entries("instances")), None)
    source = JsonObject(instance) if isinstance(instance, dict) else row
    stored, review = _stored(row.get("score")), row["review"]
    if isinstance(review, str) and review.strip():
        exact = read_scores(review, LOWEST, HIGHEST)
    else:
        exact = stored if stored is not None and min(stored) >= LOWEST else None
    return _Review(
        with_input(str(row.get(name, "")), source),
        {model: row.text(model) for model in models},
        exact,
        stored,
        row["score"],
        short(review),
    )


def _stored(score: Any) -> Scores | None:
    if not isinstance(score, list) or len(score) != 2:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in score):
        return None
    if not all(abs(v) < LARGEST for v in score):
        return None
    return float(score[0]), float(score[1])


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
    rows = _judged(graded, model, baseline)
    expected, why = len(graded), f"the reviews have {len(graded)}"
    if reference is not None and reference.fits(g.review.prompt for g in graded):
        expected, why = reference.prompts, f"{reference.path.name} has {reference.prompts}"
    measure(result, rows, expected)
    result.published = published
    if _other_way(result):
        model, baseline = baseline, model
        graded = [_turned(g) for g in graded]
        rows = _judged(graded, model, baseline)
        measure(result, rows, expected)
    rate = result.metrics["win_rate"]
    result.metrics["winning_score"] = None if rate is None else rate / 50
    compare(result)
    result.notes.append(f"wins are those of {model} over {baseline}, prompt set {reviews.set}")
    if len(orders) < 2:
        note = "only one order of the answers is stored: position cannot be told apart"
        result.notes.append(note)
    _check_counts(result, graded, counted_in)
    _check_scores(result, graded)
    check_dropped(result, rows, [], why)
    if len(orders) == 2:
        _check_position(result, graded)
    if len(rows) >= FEWEST:
        check_length(result, rows)
    check_texts(result, judged_outputs(rows))
    result.material = material_of(
        rows,
        judge="grading",
        baseline=baseline,
        model=model,
        run=str(reviews.path.parent.resolve()),
        files={o.path.name: file_digest(o.path) for o in review_files},
    )
    return result


def _several(source: AuditSource, folder: Path, review_files: Sequence[_Reviews]) -> bool:
    """Whether a folder holds the counts or reviews of other sets too."""
    paths = {path for path in source.all_files if path.parent == folder}
    return any(map(_has_reviews_name, paths - {reviews.path for reviews in review_files}))


def _grade(model_first: _Reviews | None, model_second: _Reviews | None) -> list[_Graded]:
    """model_first: the file with the model shown first. With one order alone, it stands for both."""
    shown_first = model_first is not None
    files = [reviews for reviews in (model_first, model_second) if reviews]
    graded = []
    for key in dict.fromkeys(key for reviews in files for key in reviews.rows):
        sides = [reviews.rows.get(key) for reviews in files]
        rows = [row for row in sides if row is not None]
        differing = [row for row in rows if row.stored != row.exact]
        cut = [row.exact is not None and row.stored == _whole(row.exact) for row in differing]
        pairs = [row.exact is not None and row.stored is not None for row in differing]
        graded.append(
            _Graded(
                rows[0],
                _both_orders([None if row is None else row.exact for row in sides], shown_first),
                _both_orders([None if row is None else row.stored for row in sides], shown_first),
                unread=any(row.exact is None for row in differing),
                cut=any(cut),
                other=any(p and not c for p, c in zip(pairs, cut, strict=True)),
                bad=differing[0] if differing else None,
            )
        )
    return graded


def _whole(scores: Scores) -> Scores:
    return float(int(scores[0])), float(int(scores[1]))


def _both_orders(sides: Sequence[Scores | None], shown_first: bool) -> Orders | None:
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

    def turn(orders: Orders | None) -> Orders | None:
        return None if orders is None else (orders[1], orders[0])

    return replace(g, exact=turn(g.exact), stored=turn(g.stored))


def _published(source: AuditSource, reviews: _Reviews) -> tuple[dict[str, int], str]:
    """The counts of SET_result.json beside the reviews, and the file's name."""
    for path in source.all_files:
        if path.parent != reviews.path.parent or not path.stem.lower().endswith("_result"):
            continue
        value = source.read(read_json, path)
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
            if counts.keys() == set(PUBLISHED.values()):
                counts["n_judged"] = sum(counts.values())
            return counts, path.name
    return {}, ""


def _other_way(result: Result) -> bool:
    """Whether the published counts are those of the other model."""
    published = [result.published.get(name) for name in ("n_wins", "n_wins_base")]
    counts = [result.metrics[name] for name in ("n_wins", "n_wins_base")]
    return bool(result.published) and published != counts and published == counts[::-1]


def _judged(graded: Sequence[_Graded], model: str, baseline: str) -> list[JudgedPair]:
    return [
        JudgedPair(r.prompt, r.answers[model], r.answers[baseline], exact and preference(exact))
        for r, exact in ((g.review, g.exact) for g in graded)
    ]


def _count(all_orders: Iterable[Orders | None], whole: bool = False) -> dict[str, int]:
    """Wins, draws and losses; whole: of scores that are cut to whole numbers before."""
    verdicts = Counter(
        preference((_whole(orders[0]), _whole(orders[1])) if whole else orders)
        for orders in all_orders
        if orders is not None
    )
    return {name: verdicts[p] for name, p in PREFERENCES.items()}


def _check_counts(result: Result, graded: Sequence[_Graded], where: str) -> None:
    """unparsed_scored, truncated_scores and count_mismatch: how the published counts come about."""
    exact_orders = [g.exact for g in graded]
    orders_with_unread = [g.stored if g.unread else g.exact for g in graded]
    exact, cut = _count(exact_orders), _count(exact_orders, whole=True)
    tied, tied_cut = _count(orders_with_unread), _count(orders_with_unread, whole=True)
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
             "examples": _examples(unread)},
        )  # fmt: skip
    stored_cut = [g for g in graded if g.cut]
    if stored_cut or (
        cut != exact and where and published_counts in (cut, tied_cut) and published_counts != exact
    ):
        n = len(stored_cut) or sum(
            preference((_whole(orders[0]), _whole(orders[1]))) != preference(orders)
            for orders in exact_orders
            if orders is not None
        )
        result.add(
            "truncated_scores",
            "error" if cut != exact else "warning",
            f"{'stored scores of' if stored_cut else 'verdicts on'} {n} prompts are cut to whole "
            f"numbers{'' if stored_cut else ' before they are compared'}: {_words_of(cut)} cut, "
            f"{_words_of(exact)} with the scores as the judge gave them",
            {"rows": n, "of": len(graded), "cut": cut, "exact": exact,
             "published": published_counts if where else None,
             "examples": _examples(stored_cut)},
        )  # fmt: skip
    if where and any(v is not None and v != exact[n] for n, v in published_counts.items()):
        result.matches = False
        if published_counts not in (tied, cut, tied_cut):
            result.mismatch(
                f"{where} says {_words_of(published_counts)}; the stored reviews give "
                f"{_words_of(exact)}",
                {"published": published_counts, "recomputed": exact},
            )


def _check_scores(result: Result, graded: Sequence[_Graded]) -> None:
    other = [g for g in graded if g.other and not g.cut]
    if other:
        result.mismatch(
            f"of {len(other)} prompts the stored scores are not those of the review's words",
            {"rows": len(other), "of": len(graded), "examples": _examples(other)},
        )


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


def _examples(graded: Sequence[_Graded]) -> list[dict[str, object]]:
    return [
        {"prompt": short(g.bad.prompt), "stored": g.bad.score, "review": g.bad.words}
        for g in graded[:EXAMPLES]
        if g.bad is not None
    ]


def _scores_of(graded: Sequence[_Graded]) -> str:
    values = {str(g.bad.score) for g in graded if g.bad is not None}
    return ", ".join(sorted(values)[:3])


def _words_of(counts: Mapping[str, int | None]) -> str:
    """A count that is not stored is unknown, and no zero."""
    stored_counts = (counts[name] for name in ("n_wins", "n_draws", "n_wins_base"))
    wins, ties, losses = ("unknown" if count is None else count for count in stored_counts)
    return f"{wins} wins, {ties} ties, {losses} losses"


READER = Reader(
    "alpagasus",
    looks_for="AlpaGasus's review files (FIRST-SECOND-SET.json) with SET_result.json",
    findings=FINDINGS,
    find=find,
    comparable=True,
)
