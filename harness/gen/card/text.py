"""What a data card says, as sentences and tables: the same in card.md and at the terminal.

All of it is made from card.json (harness.gen.card.record).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.common.numbers import percent, share
from harness.errors import HarnessError
from harness.gen.card.record import Bin, Card, LengthSummary

FORMAT = 1
"""Of card.json; it grows when a field changes its meaning or goes."""

PERCENTILES = ("0", "5", "25", "50", "75", "95", "100")
SIMULATED = "simulated: the harness's own simulated teacher or judge had a hand in it, not a model"


@dataclass(frozen=True)
class Section:
    """One part of the card. Its text is not escaped: some of it may be a model's."""

    title: str
    lines: Sequence[str] = ()
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    bars: Sequence[float] = ()
    """For each row, where a bar says more: its length, from 0 to 1."""
    plot: str = ""
    """Name of the plot, without its ending, that shows the same."""


def sections(card: Card, row: str = "") -> list[Section]:
    """The card's parts, in reading order; those that its data set has.

    `row`: the one that made it, and whose tokenizer counted; a row of another may have the same data.

    Raises:
        HarnessError: the card has another format than this version of the harness reads.
    """
    if card.get("format") != FORMAT:
        raise HarnessError(
            f"the data card has format {card.get('format')!r}; this version reads {FORMAT}",
            "Read it with the version of the harness that made it, or make the data set again",
        )
    parts = [
        _overview(card),
        _teachers(card),
        _counts(card),
        _filters(card),
        _words(card),
        _tokens(card, row),
        _rewritten(card),
        _novelty(card),
        _verbs(card),
        _duplicates(card),
        _ratings(card),
    ]
    return [section for section in parts if section is not None]


def number(value: float | None) -> str:
    """At most one decimal; a dash for what there is none of."""
    return "–" if value is None else f"{value:,.1f}".removesuffix(".0")


def _overview(card: Card) -> Section:
    examples = card["examples"]
    lines = [f"{examples:,} examples of {card['kind']} data, from the recipe {card['recipe']}"]
    lines += [f"origin {name}: {share(n, examples)}" for name, n in sorted(card["origins"].items())]
    lines.append(f"with an input: {share(card['with_input'], examples)}")
    kinds = card["classification"]
    lines.append(
        f"classification tasks: {share(kinds['yes'], kinds['known'])} of which it is known"
        if kinds["known"]
        else "classification tasks: not known of any example"
    )
    if card["history"]:
        history = card["history"]
        lines.append(
            f"with earlier turns: {share(history['examples'], examples)}, "
            f"at most {history['most_turns']} of them"
        )
    if card["system"]:
        system = card["system"]
        lines.append(
            f"with a system prompt: {share(system['examples'], examples)}; "
            f"{system['distinct']:,} different ones"
        )
    return Section("Overview", lines)


def _teachers(card: Card) -> Section | None:
    rows = [
        (t["model"], ", ".join(t["steps"]), *(f"{n:,}" for n in (
            t["calls"], t["prompt_tokens"], t["completion_tokens"]
        )))
        for t in card.get("teachers", [])
    ]  # fmt: skip
    headings = ("model", "steps", "calls", "prompt tokens", "completion tokens")
    return Section("Teachers", (), headings, rows) if rows else None


def _counts(card: Card) -> Section | None:
    """What the recipe counted on the way; its names may be those of parts of the data set."""
    lines = [f"{name.replace('_', ' ')}: {n:,}" for name, n in sorted(card["counts"].items())]
    return Section("Counts of the step", lines) if lines else None


def _filters(card: Card) -> Section | None:
    rows: list[tuple[str, ...]] = []
    bars: list[float] = []
    for step in card["filters"]:
        proposed, dropped = step["proposed"], step["dropped"]
        by_rule = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
        counted = [("proposed", proposed), *((f"dropped: {rule}", n) for rule, n in by_rule)]
        for what, n in [*counted, ("kept", step["kept"])]:
            rows.append((step["step"], what, f"{n:,}", step["unit"], percent(n, proposed)))
            bars.append(n / proposed if proposed else 0.0)
    if not rows:
        return None
    lines = ["a candidate falls to the first rule that it breaks; dropped.jsonl has each of them"]
    headings = ("step", "what", "number", "unit", "of proposed")
    return Section("Filters", lines, headings, rows, bars)


def _lengths(fields: Mapping[str, LengthSummary]) -> tuple[Sequence[str], list[list[str]]]:
    headings = ("text", "n", "mean", "shortest", *(f"{p} %" for p in PERCENTILES[1:-1]), "longest")
    rows = [
        [
            name,
            f"{s['n']:,}",
            number(s["mean"]),
            *(number(s["percentiles"].get(p)) for p in PERCENTILES),
        ]
        for name, s in fields.items()
    ]
    return headings, rows


def _in_order(fields: Mapping[str, LengthSummary]) -> Mapping[str, LengthSummary]:
    order = ("instruction", "input", "output", "chosen", "rejected")
    return {name: fields[name] for name in order if name in fields}


_OF_INPUTS = "inputs: those of the examples that have one"


def _words(card: Card) -> Section:
    lines = ["words: what stands between white space", _OF_INPUTS]
    fields = _in_order(card["lengths"]["words"])
    return Section("Lengths in words", lines, *_lengths(fields), plot="lengths")


def _tokens(card: Card, row: str) -> Section:
    title, tokenizer, tokens = "Lengths in tokens", card["tokenizer"], card["lengths"]["tokens"]
    if tokenizer is None:
        return Section(title, ["not counted: the row has no model, so no tokenizer"])
    if tokens is None:
        return Section(title, [f"not counted with {tokenizer['name']}: {tokenizer['not_counted']}"])
    whose = f", that of row {row}, which made the data set" if row else ""
    counted = f"tokenizer: {tokenizer['name']}{whose}; special tokens are not counted"
    lines = [counted, _OF_INPUTS]
    return Section(title, lines, *_lengths(_in_order(tokens)))


def _rewritten(card: Card) -> Section | None:
    comparison = card["rewritten"]
    if comparison is None:
        return None
    n = comparison["compared"]
    lines = [
        f"outputs compared in words: those of {share(n, comparison['given'])} given examples",
        f"longer than before: {share(comparison['longer'], n)}; "
        f"as long: {share(comparison['as_long'], n)}; shorter: {share(comparison['shorter'], n)}",
    ]
    fields = {"output before": comparison["before"], "output after": comparison["after"]}
    return Section("Outputs before and after", lines, *_lengths(fields), plot="before_after")


def _novelty(card: Card) -> Section:
    novelty = card["novelty"]
    possible = novelty["comparable"]
    lines = [
        "for each instruction the highest ROUGE-L F-measure with an earlier example's; "
        "1: the same words, 0: none in common",
        f"comparable: {share(possible, novelty['examples'])} examples (left out: the first one, and "
        "instructions with no Latin letter or digit, which ROUGE-L cannot compare)",
    ]
    if not novelty["measured"]:
        return Section("Novelty", lines)
    if novelty["sample_seed"] is not None:
        lines.append(
            f"measured: a random sample of {share(novelty['measured'], possible)}, each against all "
            f"earlier ones (seed {novelty['sample_seed']})"
        )
    lines.append(
        f"mean {novelty['mean']:.3f}; percentiles: "
        + ", ".join(f"{p} %: {novelty['percentiles'][p]:.3f}" for p in PERCENTILES)
    )
    rows, bars = _histogram(novelty["bins"], novelty["measured"], lambda v: f"{v:.1f}")
    headings = ("highest F", "instructions", "share")
    return Section("Novelty", lines, headings, rows, bars, "novelty")


def _histogram(
    bins: Sequence[Bin], n: int, edge: Callable[[float], str]
) -> tuple[list[tuple[str, ...]], list[float]]:
    most = max(b["count"] for b in bins)
    rows: list[tuple[str, ...]] = [
        (
            _range(edge(b["from"]), edge(b["to"]), b is bins[-1]),
            f"{b['count']:,}",
            percent(b["count"], n),
        )
        for b in bins
    ]
    return rows, [b["count"] / most for b in bins]


def _range(low: str, high: str, is_last: bool) -> str:
    """Only the last bin holds its upper end."""
    return low if low == high else f"{low} to {'' if is_last else 'below '}{high}"


def _verbs(card: Card) -> Section:
    verbs = card["verbs"]
    pairs, instructions = verbs["with_pair"], verbs["instructions"]
    lines = [
        f"{verbs['method']}",
        f"distinct instructions with a verb: {share(verbs['with_verb'], instructions)}; with a "
        f"verb and its direct object: {share(pairs, instructions)}",
        f"in those {pairs:,}: {verbs['distinct_verbs']:,} verbs, {verbs['distinct_pairs']:,} pairs "
        f"of verb and noun, entropy of the pairs {verbs['entropy_bits']:.2f} bits",
    ]
    if not pairs:
        return Section("Verbs and their objects", lines[:2])
    top = verbs["top"]
    covered = sum(noun["count"] for verb in top for noun in verb["nouns"])
    lines.append(f"the pairs below stand in {share(covered, instructions)} distinct instructions")
    rows = [
        (
            verb["verb"],
            f"{verb['count']:,}",
            ", ".join(f"{noun['noun']} {noun['count']:,}" for noun in verb["nouns"]),
        )
        for verb in top
    ]
    most = max(verb["count"] for verb in top)
    headings = ("verb", "instructions", "most frequent objects")
    bars = [verb["count"] / most for verb in top]
    return Section("Verbs and their objects", lines, headings, rows, bars, "verbs")


def _duplicates(card: Card) -> Section:
    same = card["duplicates"]
    what = {
        "the whole example": same["example"],
        "instruction and input": same["instruction_input"],
        "instruction": same["instruction"],
    }
    lines = ["examples that repeat an earlier one, to the letter"]
    lines += [f"{name}: {share(n, card['examples'])}" for name, n in what.items()]
    return Section("Duplicates", lines)


def _ratings(card: Card) -> Section | None:
    ratings = card["ratings"]
    if ratings is None:
        return None
    lines = [
        f"rated: {share(ratings['rated'], card['examples'])}; not rated: {ratings['unrated']:,}",
        f"mean {ratings['mean']:.3f}",
    ]
    rows, bars = _histogram(ratings["bins"], ratings["rated"], lambda v: f"{v:g}")
    return Section("Ratings", lines, ("rating", "examples", "share"), rows, bars, "ratings")
