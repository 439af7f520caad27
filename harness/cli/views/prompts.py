"""A row's templates at the terminal: filled with an example, what is masked and what is trained on.

Texts are escaped: they may be a model's or a stranger's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.common.commands import harness
from harness.common.hanging import print_hanging
from harness.common.progress import plain, say
from harness.data.records import read_records
from harness.errors import HarnessError, InputError
from harness.modeling.template_pieces import MASKED, Piece, ending, pieces
from harness.modeling.text import Encoder
from harness.row.load import LoadedRow
from harness.row.row import Row
from harness.run.plan import Planner, dump
from harness.spec.model_source import ModelSource
from harness.spec.template import Template, variant

DATA_FILE = "data.jsonl"
EXTRA = ("input", "system")
BORDER = 3
"""Tokens shown on each side of the border between prompt and answer."""
LONGEST = 4000
"""Characters of an example's texts that are shown."""
WORDS = {
    "prompt": "the prompt",
    "prompt_with_input": "the prompt with an input",
    "start": "what a text begins with",
    "system": "the system text",
    "system_layout": "how a system text stands",
    "answer": "how an answer stands",
    "end": "what ends an answer",
    "separator": "what stands between turns",
    "special": "the special tokens",
    "stop": "the stop texts",
    "from_tokenizer": "whether it is the tokenizer's own",
    "date": "the date that it is given",
}


@dataclass(frozen=True)
class TemplateExample:
    """An example, and in words where it is from."""

    origin: str
    fields: dict[str, Any]


BELOW = 13
"""The column below which what is said of a name hangs."""
MADE_UP = {"instruction": "Name two rivers.", "input": "", "output": "The Nile and the Rhine."}


def show_prompts(console: Console, loaded: LoadedRow, planner: Planner) -> None:
    """Raises InputError for a row without a template."""
    row = loaded.row
    used = _templates(row)
    if not used:
        raise InputError(f"row {row.row} has no template", _why_none(row))
    example = _example(loaded, planner)
    tokenizer, why = _tokenizer(row, planner)
    say(console, plain(f"row {row.row}"), "bold")
    for stages, template in used:
        for line in _template_lines(stages, template):
            print_hanging(console, line, BELOW)
        trains = row.train is not None and "train" in stages
        _show_example(console, row if trains else None, template, example, tokenizer, why)
    if len(used) > 1:
        differ = [WORDS[n] for n in WORDS if _content(used[0][1])[n] != _content(used[1][1])[n]]
        console.print()
        say(
            console,
            "The answers are asked for with another template than the model was trained with. "
            f"What differs: {', '.join(differ)}.",
            "yellow",
        )


def _why_none(row: Row) -> str:
    if row.answer is None:
        return "It neither trains nor answers."
    if row.answer.engine.constant is not None or row.answer.engine.given_outputs is not None:
        return "Its answers are given, so no model is asked."
    return "Its answers come from an endpoint, which puts the prompts into a template of its own."


def _templates(row: Row) -> list[tuple[str, Template]]:
    """The stages and the template that they use; one entry where it is the same for both."""
    trained = row.template if row.train is not None else None
    evaluated = _evaluation_template(row)
    if trained and evaluated and _content(trained) == _content(evaluated):
        return [("train and answer", trained)]
    candidates = [("train", trained), ("answer", evaluated)]
    used = [(stage, template) for stage, template in candidates if template is not None]
    return used or ([("no stage", row.template)] if row.template is not None else [])


def _evaluation_template(row: Row) -> Template | None:
    """The template that the model is evaluated with; None where it is given no prompts."""
    if row.answer is not None and row.answer.engine.uses_template:
        return row.answer.template or row.template
    return row.judge.template_of(row.template) if row.judge is not None else None


def _content(template: Template) -> dict[str, object]:
    content = template.model_dump(exclude={"name"})
    for name in ("prompt", "prompt_with_input"):
        content[name] = content[name] and content[name]["text"]
    return content


def _template_lines(stages: str, template: Template) -> Iterator[Text]:
    file = template.prompt.path if template.prompt else ""
    layout, date = variant(template.name) if template.name else (file, "")
    dated = (
        f", as it was in {date}" if date else ", today's" if template.name else " (a prompt file)"
    )
    if template.from_tokenizer:
        layout, dated = "the tokenizer's own", ""
    from_tokenizer = template.from_tokenizer
    end = "".join(p.text for p in ending(template))
    system = repr(template.system) if template.system else "none of its own"
    if template.system_layout is None and not from_tokenizer:
        system = "no place for one"
    yield Text("")
    yield _line("template", f"{layout}{dated} (used by: {stages})")
    yield _line(
        "system",
        "the tokenizer's template decides" if from_tokenizer and not template.system else system,
    )
    ends = repr(end) if end else "the tokenizer's end-of-sequence token"
    yield _line("end token", "the tokenizer's template decides" if from_tokenizer else ends)
    yield _line("stop texts", ", ".join(map(repr, template.stop)) or "none but the end token")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"  {name:<11}", "bold"), plain(text))


def _show_example(
    console: Console,
    trained: Row | None,
    template: Template,
    example: TemplateExample,
    tokenizer: Any,
    why: str,
) -> None:
    print_hanging(console, _line("example", example.origin), BELOW)
    arguments = _arguments(example)
    encoder: Encoder | None = None
    train = trained.train if trained is not None else None
    append_end = train is None or train.append_end
    try:
        if tokenizer is not None:
            together = train is not None and train.tokenize == "together"
            encoder = Encoder(tokenizer, template, together, append_end)
            parts = encoder.pieces(**arguments)
        elif template.from_tokenizer:
            print_hanging(console, _line("", f"its text is in the tokenizer, and {why}"), BELOW)
            return
        else:
            parts = pieces(template, **arguments, append_end=append_end)
    except InputError as e:
        print_hanging(console, _line("fault", f"{e.message}\n{e.hint}"), BELOW)
        return
    last = max(part.answer for part in parts)
    counted = [_is_trained(part, trained, last) for part in parts]
    _show_text(console, parts, counted, tokenizer)
    sign = "⟦ ⟧" if _brackets(console) else "bright"
    print_hanging(console, _line(sign, _legend(trained)), BELOW)
    if encoder is None:
        print_hanging(console, _line("tokens", f"not counted: {why}"), BELOW)
    else:
        for note in encoder.notes:
            print_hanging(console, _line("note", note), BELOW)
        for line in _token_lines(encoder, tokenizer, example, parts, counted):
            print_hanging(console, line, BELOW)


def _is_trained(part: Piece, row: Row | None, last: int) -> bool:
    """As the row's training counts it; of a row without, the answer."""
    if row is None or row.train is None:
        return part.answer == last
    if part.answer == MASKED:
        return row.train.train_on_prompt
    return part.answer == last or row.train.train_on_history


def _legend(row: Row | None) -> str:
    if row is None or row.train is None:
        return "what the model writes; the rest is what it is asked with"
    counted = ["the answer"]
    counted += ["the answers of earlier turns"] if row.train.train_on_history else []
    counted += ["the prompt"] if row.train.train_on_prompt else []
    return f"what is trained on ({', '.join(counted)}); the rest is masked from the loss"


def _show_text(
    console: Console, parts: Sequence[Piece], counted: Sequence[bool], tokenizer: Any
) -> None:
    """Where nothing can be dimmed, the bright part stands in double brackets."""
    brackets = _brackets(console)
    text = Text()
    for number, (part, bright) in enumerate(zip(parts, counted, strict=True)):
        before = counted[number - 1] if number else False
        if brackets and bright != before:
            text.append("⟦" if bright else "⟧")
        piece = _shortened(plain(part.text)) if not part.token else _mark(part.token, tokenizer)
        text.append(piece, style="bold" if bright else "dim")
    if brackets and counted[-1]:
        text.append("⟧")
    console.print()
    console.print(text, highlight=False, soft_wrap=True)
    console.print()


def _brackets(console: Console) -> bool:
    return not console.is_terminal or console.no_color


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    left_out = len(text) - LONGEST
    half = LONGEST // 2
    return f"{text[:half]} [... {left_out:,} characters left out ...] {text[-half:]}"


def _mark(token: str, tokenizer: Any) -> str:
    token_text = getattr(tokenizer, f"{token}_token", None)
    return plain(str(token_text)) if token_text else f"{{{token}}}"


def _token_lines(
    encoder: "Encoder",
    tokenizer: Any,
    example: TemplateExample,
    parts: Sequence[Piece],
    counted: Sequence[bool],
) -> Iterator[Text]:
    tokens = encoder.example(**_arguments(example))
    begin, _ = tokens.answers[-1]
    lengths = {number: stop - start for number, (start, stop) in enumerate(tokens.answers)}
    lengths[MASKED] = len(tokens.ids) - sum(lengths.values())
    marked = {part.answer for part, is_bright in zip(parts, counted, strict=True) if is_bright}
    bright = sum(lengths[answer] for answer in marked)
    yield _line("tokens", f"{bright} marked, {len(tokens.ids) - bright} in the rest")
    yield _line("opens with", _named_ids(tokenizer, tokens.ids[:BORDER]))
    before, after = tokens.ids[max(0, begin - BORDER) : begin], tokens.ids[begin : begin + BORDER]
    yield _line("border", f"{_named_ids(tokenizer, before)} | {_named_ids(tokenizer, after)}")
    ends = _named_ids(tokenizer, encoder.end_ids) or "no token: a stop text"
    yield _line("ends with", ends)


def _named_ids(tokenizer: Any, ids: Sequence[int]) -> str:
    return " ".join(f"{i} {tokenizer.decode([i])!r}" for i in ids)


def _arguments(example: TemplateExample) -> dict[str, Any]:
    fields = example.fields
    return {
        "instruction": fields["instruction"],
        "input": fields.get("input") or "",
        "output": fields["output"],
        "system": fields.get("system") or "",
        "history": fields.get("history") or (),
    }


def _example(loaded: LoadedRow, planner: Planner) -> TemplateExample:
    """The data set's first example, where it is there and can be read; else a made-up one."""
    row = loaded.row
    try:
        if row.data is not None:
            path = planner.files.locate(row.data)
        else:
            data_stages = [s for s in planner.plan(loaded).stages if s.stage == "gen"]
            if not data_stages:
                return TemplateExample("made up: the row has no data set", MADE_UP)
            if data_stages[-1].artefact is None:
                return TemplateExample("made up: the row's data set is not on the volume", MADE_UP)
            path = data_stages[-1].artefact.folder / DATA_FILE
        path = path / DATA_FILE if path.is_dir() else path
        for record in read_records(path):
            fields = dict(record.fields)
            fields["output"] = fields.get("output") or fields.get("chosen")
            if _is_whole(fields):
                return TemplateExample(
                    f"the first of the row's data set ({path.name}:{record.line})", fields
                )
    except HarnessError as e:
        return TemplateExample(f"made up: the row's data set cannot be read: {e.message}", MADE_UP)
    return TemplateExample("made up: the row's data set has no example with an answer", MADE_UP)


def _is_whole(fields: dict[str, Any]) -> bool:
    texts = (fields.get("instruction"), fields["output"], *(fields.get(n) or "" for n in EXTRA))
    turns = fields.get("history") or ()
    pairs = isinstance(turns, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in turns
    )
    return pairs and all(isinstance(t, str) for t in texts) and bool(texts[1])


def _tokenizer(row: Row, planner: Planner) -> tuple[Any, str]:
    """The tokenizer of the row's base model; or None, and why."""
    if row.model is None:
        return None, "the row has no model"
    try:
        source = dump(row.model, lambda data: str(planner.files.locate(data)))
        inputs = {}
        if row.model.hub is not None:
            folder = planner.store.hub_folder(row.model.hub, row.model.trust_remote_code)
            if not folder.is_dir():
                return None, f"{row.model.hub.id} is not on the volume ({harness('fetch')})"
            inputs["hub"] = str(folder)
        from harness.modeling.load import load_tokenizer

        return load_tokenizer(ModelSource.model_validate(source), inputs), ""
    except ImportError as e:
        return None, f"the package {e.name or 'transformers'} is not installed here"
    except HarnessError as e:
        return None, f"the tokenizer cannot be loaded: {e.message}"
