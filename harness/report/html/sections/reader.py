"""The reader: a row's outputs beside the baseline's and the judge's words.

Every output is an article of the page itself, so that they can be read without a script; the script
shows one at a time, and never puts a text into the page.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.answer.outputs import GENERATOR, OutputRow
from harness.common import numbers
from harness.common.progress import counted
from harness.report.html.collect import Story
from harness.report.html.markup import Html, join, tag
from harness.report.html.section import StorySection
from harness.results.outputs import JudgedOutput, Judgement

SEED = 0
"""Of the draw, where a row has more outputs than are shown."""
LONGEST = 6000
"""Characters of one text; what is cut is counted."""
CHANGED, FLAGGED, UNJUDGED = "changed", "flagged", "unjudged"
WORDS = {
    "won": "won", "lost": "lost", "draw": "draw", UNJUDGED: "unjudged",
    CHANGED: "verdict changed between judgings", FLAGGED: "flagged",
}  # fmt: skip


@dataclass(frozen=True)
class OutputSample:
    """The outputs that are shown, in the prompts' order, and in words how they were chosen."""

    prompts: Sequence[JudgedOutput]
    of: int
    words: str


def sample(prompts: Sequence[JudgedOutput], most: int, name: str) -> OutputSample:
    """All, or the worst and the best judged, flagged and unjudged ones (a fifth of `most` each) and a
    seeded draw of the rest. `name` has each row draw others."""
    total = len(prompts)
    if total <= most:
        return OutputSample(prompts, total, f"all {counted(total, 'output')}")
    fifth = most // 5
    graded = sorted((p for p in prompts if p.grade is not None), key=lambda p: (p.grade, p.index))
    chosen: dict[int, JudgedOutput] = {}
    kinds = {
        "worst": graded,
        "best": graded[::-1],
        "flagged or unjudged": [p for p in prompts if p.is_flagged],
    }
    parts = []
    for word, candidates in kinds.items():
        new = [p for p in candidates if p.index not in chosen][:fifth]
        chosen |= {p.index: p for p in new}
        parts += [f"{len(new)} {word}"] * bool(new)
    rest = [p for p in prompts if p.index not in chosen]
    drawn = random.Random(f"{SEED} {name}").sample(rest, most - len(chosen))
    chosen |= {p.index: p for p in drawn}
    words = (
        f"{most} of {total} outputs: {', '.join(parts)}{' and ' * bool(parts)}{len(drawn)} drawn"
    )
    selected = [chosen[index] for index in sorted(chosen)]
    return OutputSample(selected, total, f"{words} at random (seed {SEED})")


def outcomes(prompt: JudgedOutput) -> list[str]:
    """What a filter finds the prompt by: its verdicts or scores, `changed`, `flagged`."""
    verdicts = [_outcome(judgement) for judgement in prompt.judgements]
    marks = list(dict.fromkeys(verdicts))
    if len(marks) > 1:
        marks.append(CHANGED)
    if prompt.fields.get("flags"):
        marks.append(FLAGGED)
    return marks


def _outcome(judgement: Judgement) -> str:
    if judgement.preference is None and judgement.score is not None:
        return f"score-{judgement.score:g}"
    return judgement.verdict.split()[0]


def reader(row: str, outputs: OutputSample, other_labels: Sequence[str]) -> Html:
    """The row's reader, with a toolbar that shows once there is a script."""
    articles = [_article(row, prompt) for prompt in outputs.prompts]
    note = f"Shown are {outputs.words}."
    if other_labels:
        note += f" Other sets of outputs, not shown here: {'; '.join(other_labels)}."
    return tag(
        "div",
        tag("p", note, class_="soft"),
        _toolbar(outputs.prompts),
        tag("div", articles, class_="items"),
        class_="reader",
        data_reader=True,
        role="group",
        aria_label=f"Outputs of {row}",
    )


def _toolbar(prompts: Sequence[JudgedOutput]) -> Html:
    counted = Counter(mark for prompt in prompts for mark in outcomes(prompt))
    order = [*WORDS, *sorted((m for m in counted if m not in WORDS), key=_score)]
    options = [tag("option", f"all ({len(prompts)})", value="")]
    options += [
        tag("option", f"{WORDS.get(mark, mark.replace('-', ' '))} ({counted[mark]})", value=mark)
        for mark in order
        if counted[mark]
    ]
    return tag(
        "div",
        tag("label", tag("span", "Show"), tag("select", options, data_show=True)),
        tag("label", tag("span", "Search"),
            tag("input", type="search", data_search=True, autocomplete="off", spellcheck="false")),
        tag("span",
            tag("button", "← Previous", type="button", data_step="-1", aria_keyshortcuts="k ArrowLeft"),
            tag("output", "", data_place=True, aria_live="polite"),
            tag("button", "Next →", type="button", data_step="1", aria_keyshortcuts="j ArrowRight"),
            class_="steps"),
        class_="toolbar js-only",
        hidden=True,
    )  # fmt: skip


def _score(mark: str) -> float:
    try:
        return float(mark.removeprefix("score-"))
    except ValueError:
        return 0.0


def _article(row: str, prompt: JudgedOutput) -> Html:
    fields = prompt.fields
    heading = f"prompt-{row}-{prompt.index}"
    sides = [_side(f"Answer of {_generator(fields, row)}", str(fields.get("output") or ""))]
    if prompt.baseline is not None:
        generator = prompt.baseline_generator
        title = f"Baseline {generator}" if generator not in ("", "baseline") else "Baseline"
        sides.append(_side(title, prompt.baseline))
    return tag(
        "article",
        tag("header",
            tag("h5", f"Prompt {prompt.index}", id=heading),
            [_pill(judgement) for judgement in prompt.judgements],
            tag("span", _facts(fields), class_="soft"),
            [tag("span", str(flag), class_="flag") for flag in fields.get("flags") or []]),
        _side("Instruction", str(fields.get("instruction") or ""), "asked"),
        _side("Input", str(fields["input"])) if fields.get("input") else None,
        tag("div", sides, class_="sides"),
        [_side(f"Shown to the judge: {name}", str(text)) for name, text in prompt.rubric_inputs.items()
         if str(text).strip() != str(fields.get("instruction") or "").strip()],
        [_words(judgement) for judgement in prompt.judgements if judgement.words],
        class_="item",
        tabindex="-1",
        aria_labelledby=heading,
        data_of=" ".join(outcomes(prompt)),
    )  # fmt: skip


def _generator(fields: OutputRow, row: str) -> str:
    generator = str(fields.get("generator") or GENERATOR)
    return row if generator == GENERATOR else generator


def _facts(fields: OutputRow) -> str:
    facts = [str(fields[name]) for name in ("dataset",) if fields.get(name)]
    if fields.get("tokens") is not None:
        facts.append(f"{fields['tokens']} tokens")
    if fields.get("finish_reason"):
        facts.append(f"ended: {fields['finish_reason']}")
    return " · ".join(facts)


def _pill(judgement: Judgement) -> Html:
    word = judgement.verdict
    place = "" if judgement.shown_first is None else (
        ", shown first" if judgement.shown_first else ", shown second"
    )  # fmt: skip
    label = f"{judgement.label}: " if judgement.label else ""
    return tag(
        "span", f"{label}{word}{place}", class_=f"pill o-{_outcome(judgement).split('-')[0]}"
    )


def _side(title: str, text: str, class_: str = "") -> Html:
    body: Any = tag("div", cut(text), class_="text", dir="auto")
    if not text:
        body = tag("div", "(empty)", class_="text soft")
    return tag("section", tag("h6", title), body, class_=class_ or None)


def _words(judgement: Judgement) -> Html:
    title = "The judge's words" + (f", {judgement.label}" if judgement.label else "")
    several = len(judgement.words) > 1
    texts = [f"[{n}] {w}" if several else w for n, w in enumerate(judgement.words, start=1)]
    return _side(title, "\n".join(texts), "judge")


def cut(text: str) -> Html:
    """A text, or its beginning and how much is missing."""
    if len(text) <= LONGEST:
        return join(text)
    rest = tag("span", f"[{len(text) - LONGEST:,} more characters]", class_="soft")
    return join(text[:LONGEST], "\n", rest)


def _outputs(story: Story) -> Html | None:
    if story.outputs is None or not story.outputs.prompts or not story.most_outputs:
        return None
    shown = sample(story.outputs.prompts, story.most_outputs, story.row)
    inner = reader(story.row, shown, story.outputs.other_labels)
    label = story.outputs.planned.label
    note = (
        tag("p", f"Those of {label}.", class_="soft")
        if label and story.outputs.other_labels
        else None
    )
    count = numbers.out_of(len(shown.prompts), shown.of)
    return tag("details", tag("summary", f"Read the outputs ({count})"), note, inner)


SECTION = StorySection("Outputs", _outputs)
