"""Whether the preferences of an alpaca_eval annotations.json are what the judge said."""

from collections.abc import Sequence
from statistics import fmean

from harness.audit.checks.judged import check_stored
from harness.audit.model import EXAMPLES, Result, short
from harness.audit.parse.alpaca_rows import STORED_DECIMALS, Annotations, in_order, text
from harness.judge.kinds.alpaca_eval.readings import READERS
from harness.judge.scores import BASELINE, DRAW, MODEL


def check_replies(result: Result, annotations: Annotations) -> None:
    """Whether each stored preference is what the reply says: unparsed_scored, truncated_scores, and
    count_mismatch for others."""
    unread: list[int] = []
    wrong: list[tuple[int, float]] = []
    right: list[tuple[int, float]] = []
    is_reader_known = bool(annotations.reader)
    for n, (row, stored, reading) in enumerate(
        zip(annotations.rows, annotations.stored, annotations.readings, strict=True)
    ):
        if row.preference is None:
            continue
        has_reply = stored.raw is not None
        if is_reader_known and has_reply and reading is None:
            unread.append(n)
        elif not has_reply and row.number == 0 and row.output != row.baseline:
            # Older annotations write the draw of identical outputs as 0; here nothing was said.
            unread.append(n)
        elif reading is not None:
            reply_preference = _preference_of_reply(annotations, n, reading)
            is_right = abs(reply_preference - row.preference) <= STORED_DECIMALS
            (right if is_right else wrong).append((n, reply_preference))
    is_other = annotations.reader != annotations.annotator
    if is_reader_known and is_other and annotations.annotator in READERS:
        result.mismatch(
            f"the rows name {annotations.annotator} as their judge, and the replies are none of it: "
            f"nearly all are in the form of {annotations.reader}",
            {"annotator": annotations.annotator, "replies_like": annotations.reader},
        )
    check_stored(result, annotations.rows, unread, lambda n: text(annotations.stored[n].raw))
    _check_wrong(result, annotations, wrong, right)
    if is_reader_known and not annotations.order_is_known:
        result.notes.append(
            f"{annotations.odd_for_model} stored preferences, all for the model, do not follow from "
            "the replies in the order that alpaca_eval draws with seed 0: either the outputs were "
            "shown in another order, or the preferences are not the judge's"
            if annotations.odd_for_model
            else "the outputs were not shown in the order that alpaca_eval draws with seed 0; the "
            "order was read from the replies"
        )


def _check_wrong(
    result: Result,
    annotations: Annotations,
    wrong: Sequence[tuple[int, float]],
    right: Sequence[tuple[int, float]],
) -> None:
    if not wrong:
        return
    with_reply = [*wrong, *right]
    stored_win_rate = 100 * fmean(annotations.rows[n].share for n, _ in with_reply)
    reply_win_rate = 100 * fmean(preference - 1 for _, preference in with_reply)
    is_whole = (
        annotations.rows[n].number in (int(preference), round(preference))
        for n, preference in wrong
    )
    has_parts = any(preference not in (BASELINE, DRAW, MODEL) for _, preference in wrong)
    cut = has_parts and all(is_whole)
    examples = [(annotations.rows[n], preference) for n, preference in wrong[:EXAMPLES]]
    evidence = {
        "rows": len(wrong),
        "of": len(with_reply),
        "win_rate_stored": stored_win_rate,
        "win_rate_from_replies": reply_win_rate,
        "effect": stored_win_rate - reply_win_rate,
        "examples": [
            {"instruction": short(r.instruction), "stored": r.number, "from_reply": preference}
            for r, preference in examples
        ],
    }
    tail = (
        f"over the {len(with_reply)} that have a reply the win rate is {stored_win_rate:.2f} as "
        f"stored, {reply_win_rate:.2f} by the replies"
    )
    if cut:
        message = f"{len(wrong)} preferences between 1 and 2 are stored as whole numbers: {tail}"
        result.add("truncated_scores", "error", message, evidence)
    else:
        message = f"{len(wrong)} stored preferences are not what the judge's reply says: {tail}"
        result.mismatch(message, evidence)


def _preference_of_reply(annotations: Annotations, n: int, reading: float) -> float:
    """The preference that row n's reply comes to; where the order is not known, the fitting one."""
    switched = annotations.stored[n].switched
    if switched is not None:
        return in_order(reading, switched)
    if annotations.order_is_known:
        return in_order(reading, annotations.drawn[n])
    stored = annotations.rows[n].preference or DRAW
    return min((reading, BASELINE + MODEL - reading), key=lambda candidate: abs(candidate - stored))
