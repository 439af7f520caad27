"""The data card: what a data set holds, in figures (card.json), in words (card.md) and as plots.

harness.gen.card.record says what card.json holds.
"""

import json
import math
import re
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from random import Random

from harness.artefact.call import StageCall
from harness.artefact.events import Progress
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.errors import InputError
from harness.gen.card import plots, record, verbs
from harness.gen.card.text import FORMAT, PERCENTILES, SIMULATED, Section, sections
from harness.gen.recipe import RecipeResult
from harness.gen.similarity import Pool
from harness.modeling.load import END, PAD, is_general, load_tokenizer
from harness.spec.model_source import ModelSource

CARD_JSON, CARD_MD, PLOTS = "card.json", "card.md", "plots"

SINGLE_RATINGS = 20
"""Up to so many different ratings are counted one by one."""
NOVELTY_STEPS = 10_000_000_000
"""Where the novelty of all examples would take more steps than this (see _comparisons), that of a
random sample is measured: it is a matter of a minute."""
NOVELTY_SEED = 0
SHOWN_AFTER_S = 2.0
TOKENIZED_AT_ONCE = 1000

_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")

Count = Callable[[Sequence[str]], list[int]]


def write(call: StageCall, recipe: str, result: RecipeResult, simulated: bool = False) -> list[str]:
    """Write the card into the work folder; the names of what belongs to the artefact.

    simulated: whether the step's replies, or the data set that it worked on, were.
    """
    card = measure(call, recipe, result, simulated)
    text = json.dumps(card, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (call.folder / CARD_JSON).write_text(text, encoding="utf-8")
    drawn = plots.draw(card, call.folder / PLOTS)
    (call.folder / CARD_MD).write_text(in_markdown(card, drawn), encoding="utf-8")
    return [CARD_JSON, CARD_MD, PLOTS]


def measure(
    call: StageCall, recipe: str, result: RecipeResult, simulated: bool = False
) -> record.Card:
    """What card.json holds."""
    examples = result.examples
    instructions = [e.instruction for e in examples]
    tokenizer, tokens = _tokens(call, examples)
    classifications = [e.is_classification for e in examples if e.is_classification is not None]
    card: record.Card = {
        "format": FORMAT,
        "recipe": recipe,
        "simulated": simulated,
        "kind": "preference" if examples[0].is_preference else "instruction",
        "examples": len(examples),
        "counts": result.counts,
        "filters": [_step(tally) for tally in result.filters],
        "origins": dict(Counter(e.origin for e in examples)),
        "with_input": sum(bool(e.input) for e in examples),
        "classification": {"yes": sum(classifications), "known": len(classifications)},
        "history": _history(examples),
        "system": _system(examples),
        "tokenizer": tokenizer,
        "lengths": {"words": _lengths(examples, words), "tokens": tokens},
        "novelty": novelty(instructions),
        "verbs": verbs.diversity(instructions),
        "duplicates": _duplicates(examples),
        "ratings": _ratings([e.rating for e in examples]),
        "rewritten": None if result.before is None else _rewritten(result.before, examples),
    }
    if result.teachers and result.client is not None:
        card["teachers"] = [
            {
                "model": model,
                "steps": [step for step, name in result.teachers.items() if name == model],
                "calls": int(cost["calls"]),
                "prompt_tokens": int(cost["prompt_tokens"]),
                "completion_tokens": int(cost["completion_tokens"]),
            }
            for model, cost in result.client.cost_of_each()
        ]
    return card


def _step(tally: Tally) -> record.FilterCounts:
    return {
        "step": tally.step,
        "unit": tally.unit,
        "proposed": tally.proposed,
        "dropped": dict(tally.dropped),
        "kept": tally.kept,
    }


def in_markdown(card: record.Card, drawn: Sequence[str]) -> str:
    """card.md. `drawn`: the names of the plots that there are."""
    parts = ["# Data card"]
    if card["simulated"]:
        parts.append(f"**{_escaped(SIMULATED)}**")
    for section in sections(card):
        parts += _section(section, drawn)
    return "\n\n".join(parts) + "\n"


def _section(section: Section, drawn: Sequence[str]) -> Iterable[str]:
    yield f"## {section.title}"
    yield "\n".join(f"- {_escaped(line)}" for line in section.lines)
    if section.rows:
        table = [section.headings, ["---"] * len(section.headings), *section.rows]
        yield "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in table)
    if section.plot in drawn:
        yield f"![{section.title}]({PLOTS}/{section.plot}.png)"


def _escaped(text: str) -> str:
    """The text on one line, with nothing that markdown or a terminal takes for more than text."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    return _MARKUP.sub(r"\\\1", flat)


def words(texts: Sequence[str]) -> list[int]:
    """How many words, parted by white space, each text has."""
    return [len(text.split()) for text in texts]


def _lengths(examples: Sequence[DatasetExample], count: Count) -> dict[str, record.LengthSummary]:
    texts = {
        "instruction": [e.instruction for e in examples],
        "input": [e.input for e in examples if e.input],
    }
    if examples[0].is_preference:
        texts["chosen"] = [e.chosen or "" for e in examples]
        texts["rejected"] = [e.rejected or "" for e in examples]
    else:
        texts["output"] = [e.output for e in examples]
    return {name: _distribution(count(field_texts)) for name, field_texts in texts.items()}


def _distribution(lengths: Sequence[int]) -> record.LengthSummary:
    """In bins that each grow by a half or a third."""
    edges = [0, 1, 2, 3]
    while edges[-1] <= max(lengths, default=0):
        edges.append(2 * edges[-2])
    places = Counter(bisect_right(edges, length) - 1 for length in lengths)
    bins: list[record.Bin] = [
        {"from": edges[i], "to": edges[i + 1] - 1, "count": places[i]}
        for i in range(max(places, default=-1) + 1)
    ]
    return {"n": len(lengths), **_summary(lengths), "bins": bins}


def _summary(values: Sequence[float]) -> record.Summary:
    if not values:
        return {"mean": None, "percentiles": {}}
    ranked = sorted(values)

    def percentile(p: int) -> float:
        rank, part = divmod(p * (len(ranked) - 1), 100)
        low, high = ranked[rank], ranked[min(rank + 1, len(ranked) - 1)]
        return round(low + (high - low) * part / 100, 6)

    return {
        "mean": round(sum(ranked) / len(ranked), 6),
        "percentiles": {p: percentile(int(p)) for p in PERCENTILES},
    }


def _tokens(
    call: StageCall, examples: Sequence[DatasetExample]
) -> tuple[record.TokenizerUsed | None, dict[str, record.LengthSummary] | None]:
    """What the tokens were counted with, and their number; or the first with a reason."""
    if call.tokenizer is None:
        return None, None
    source = ModelSource.model_validate(call.tokenizer)
    name, folder = _name_and_folder(source, call.inputs)
    if source.hub is not None and folder is None:
        return {"name": name, "not_counted": "it is not on this machine's volume"}, None
    try:
        count = _token_counter(source, folder, _progress("tokens", _texts_in(examples), "texts"))
        return {"name": name, "not_counted": None}, _lengths(examples, count)
    except ImportError as e:
        reason = f"the package {e.name} is not installed" if e.name else str(e)
    except InputError as e:
        reason = e.message
    # Whatever a stranger's tokenizer does, the data set is made and paid for.
    except Exception as e:
        reason = f"{type(e).__name__}: {e}"
    # A card holds no path of the machine that made it.
    reason = reason.replace(folder, Path(folder).name) if folder else reason
    return {"name": name, "not_counted": " ".join(reason.split())[:300]}, None


def _texts_in(examples: Sequence[DatasetExample]) -> int:
    answers = 2 if examples[0].is_preference else 1
    return (1 + answers) * len(examples) + sum(bool(e.input) for e in examples)


def _name_and_folder(source: ModelSource, inputs: dict[str, str]) -> tuple[str, str | None]:
    """The tokenizer's name, the same on every machine, and its folder here."""
    if source.hub is not None:
        return f"{source.hub.id} at revision {source.hub.commit}", inputs.get("tokenizer")
    location = source.path
    if source.random is not None:
        if source.random.tokenizer == "bytes":
            return "bytes", None
        location = source.random.tokenizer
    assert location is not None
    pinned = f" (sha256 {location.sha256[:12]})" if location.sha256 else ""
    return f"{Path(location.path).name}{pinned}", location.path


def _token_counter(source: ModelSource, folder: str | None, show: Callable[[int], None]) -> Count:
    """A function for the number of each text's tokens; `show` is told how many texts it counted."""
    if source.random is not None and source.random.tokenizer == "bytes":
        return _count_bytes
    encode = _plain_encoder(folder) if folder and source.chat_format is None else None
    if encode is None:
        tokenizer = load_tokenizer(source, {"hub": folder} if folder else {})

        def encode(texts: list[str]) -> Iterable[int]:
            return map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])

    done = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal done
        counts: list[int] = []
        for start in range(0, len(texts), TOKENIZED_AT_ONCE):
            batch = list(texts[start : start + TOKENIZED_AT_ONCE])
            counts += encode(batch)
            done += len(batch)
            show(done)
        return counts

    return count


def _plain_encoder(folder: str) -> Callable[[list[str]], Iterable[int]] | None:
    """Counts with tokenizer.json alone, where that is all there is to the tokenizer: transformers
    takes seconds to import. None for a tokenizer with a class of its own."""
    if not is_general(Path(folder)):
        return None
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    settings = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
    special_tokens = [v for k, v in settings.items() if k.endswith("_token") and isinstance(v, str)]
    if settings.get("added_tokens_decoder") or None in map(plain.token_to_id, special_tokens):
        return None
    plain.no_truncation()
    plain.no_padding()

    def encode(texts: list[str]) -> Iterable[int]:
        return (len(e.ids) for e in plain.encode_batch_fast(texts, add_special_tokens=False))

    return encode


def _count_bytes(texts: Sequence[str]) -> list[int]:
    """What harness.modeling.load.bytes_tokenizer counts, without the library, which is slow to
    import."""
    return [len(t.replace(PAD, "p").replace(END, "e").encode(errors="replace")) for t in texts]


def novelty(instructions: Sequence[str]) -> record.Novelty:
    """ROUGE-L as Self-Instruct's filter uses it (harness.gen.similarity)."""
    comparable, steps = _comparisons(instructions)
    chosen, seed = comparable, None
    if steps > NOVELTY_STEPS:
        seed = NOVELTY_SEED
        k = max(1, len(comparable) * NOVELTY_STEPS // steps)
        chosen = sorted(Random(seed).sample(comparable, k))
    highest = _highest(instructions, chosen)
    places = Counter(min(int(f * 10 + 1e-9), 9) for f in highest)
    bins: list[record.Bin] = [
        {"from": i / 10, "to": (i + 1) / 10, "count": places[i]} for i in range(10)
    ]
    return {
        "examples": len(instructions),
        "comparable": len(comparable),
        "measured": len(highest),
        "sample_seed": seed,
        **_summary(highest),
        "bins": bins,
    }


def _comparisons(instructions: Sequence[str]) -> tuple[list[int], int]:
    """Which instructions can be compared with an earlier one, and about how much work that is.

    harness.gen.similarity looks at each place where an earlier text has one of the new one's words
    (a word's places among 64 are one), and then at each text.
    """
    comparable: list[int] = []
    entries: Counter[str] = Counter()
    earlier: set[str] = set()
    steps = 0
    for place, text in enumerate(instructions):
        tokens = _ROUGE_TOKEN.findall(text.lower())
        if place and tokens:
            comparable.append(place)
        if text not in earlier:
            steps += len(earlier) + sum(map(entries.__getitem__, tokens))
            entries.update(token for token, _ in {(t, i // 64) for i, t in enumerate(tokens)})
            earlier.add(text)
    return comparable, steps


def _highest(instructions: Sequence[str], chosen: Sequence[int]) -> list[float]:
    """The highest F-measure of each chosen instruction with any before it."""
    pool, earlier, chosen_places = Pool(), set[str](), set(chosen)
    highest: list[float] = []
    show = _progress("novelty", len(chosen), "examples")
    for place, text in enumerate(instructions):
        if place in chosen_places:
            nearest = (1.0, 0) if text in earlier else pool.nearest_above(text, 0.0)
            highest.append(float(nearest[0]) if nearest else 0.0)
            show(len(highest))
        if text not in earlier:
            earlier.add(text)
            pool.add(text)
    return highest


def _progress(task: str, total: int, unit: str) -> Callable[[int], None]:
    """Tells how far a task is once it takes longer than a moment."""
    progress, started = Progress(task, total, unit), time.monotonic()

    def show(done: int) -> None:
        if time.monotonic() - started >= SHOWN_AFTER_S:
            progress.show(done)

    return show


def _history(examples: Sequence[DatasetExample]) -> record.History | None:
    turns = [len(e.history) for e in examples if e.history]
    return {"examples": len(turns), "most_turns": max(turns)} if turns else None


def _system(examples: Sequence[DatasetExample]) -> record.System | None:
    prompts = [e.system for e in examples if e.system]
    return {"examples": len(prompts), "distinct": len(set(prompts))} if prompts else None


def _duplicates(examples: Sequence[DatasetExample]) -> record.Duplicates:
    def repeats(keys: Iterable[Hashable]) -> int:
        return len(examples) - len(set(keys))

    return {
        "example": repeats(
            (e.instruction, e.input, e.output, e.chosen, e.rejected) for e in examples
        ),
        "instruction_input": repeats((e.instruction, e.input) for e in examples),
        "instruction": repeats(e.instruction for e in examples),
    }


def _ratings(ratings: Sequence[float | None]) -> record.Ratings | None:
    rated = sorted(float(r) for r in ratings if r is not None and math.isfinite(r))
    if not rated:
        return None
    return {
        "rated": len(rated),
        "unrated": len(ratings) - len(rated),
        "mean": _summary(rated)["mean"],
        "bins": _rating_bins(rated),
    }


def _rating_bins(rated: list[float]) -> list[record.Bin]:
    """Of ratings in ascending order."""
    single = Counter(rated)
    if len(single) <= SINGLE_RATINGS:
        return [{"from": value, "to": value, "count": n} for value, n in single.items()]
    low, width = rated[0], (rated[-1] - rated[0]) / 10
    edges = [round(low + i * width, 6) for i in range(11)]
    places = Counter(min(max(bisect_right(edges, r) - 1, 0), 9) for r in rated)
    return [{"from": edges[i], "to": edges[i + 1], "count": places[i]} for i in range(10)]


def _rewritten(
    before: Sequence[DatasetExample], after: Sequence[DatasetExample]
) -> record.Rewritten:
    now = {e.id: e.output for e in after}
    pairs = [(e.output, now[e.id]) for e in before if e.id in now]
    was, is_now = words([a for a, _ in pairs]), words([b for _, b in pairs])
    gains = [b - a for a, b in zip(was, is_now, strict=True)]
    return {
        "given": len(before),
        "compared": len(pairs),
        "longer": sum(g > 0 for g in gains),
        "as_long": sum(g == 0 for g in gains),
        "shorter": sum(g < 0 for g in gains),
        "before": _distribution(was),
        "after": _distribution(is_now),
    }
