"""How an instruction becomes the text that a model sees.

A template is data: its own fields, or a name that stands for the fields in a file of
harness/spec/templates.
"""

import difflib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from harness.spec.base import NOT_KEY, Spec, TextFile, with_fields

FOLDER = Path(__file__).parent / "templates"
TOKENIZER = "tokenizer"
"""The name of the template that the tokenizer itself brings."""
PROMPTS = ("prompt", "prompt_with_input")
DATE = "2024-07-26"
"""A fixed one: with today's, the same key would have another content every day."""


def _day(value: Any) -> Any:
    """YAML reads 2024-07-26 as a date of its own."""
    text = value.isoformat() if isinstance(value, date) else value
    try:
        return date.fromisoformat(text).isoformat()
    except (TypeError, ValueError):
        raise ValueError(f"a day is wanted, such as {DATE}") from None


Day = Annotated[str, BeforeValidator(_day, json_schema_input_type=str)]


@cache
def template_names() -> list[str]:
    """Every name a spec may give; `@` and a month mark a layout that was changed since."""
    return [*sorted(path.stem for path in FOLDER.glob("*.yaml")), TOKENIZER]


class Template(Spec):
    """How an instruction becomes the text the model sees. The answer follows it directly.

    In a spec: a name (`qwen`, `default@2024-04`; `tokenizer`: the tokenizer's own chat template), these
    fields, or a `name` and the fields that replace its own. In the texts, {bos} and {eos} stand for the
    tokenizer's own tokens; in a prompt only where `start` is given.
    """

    name: str | None = Field(default=None, json_schema_extra=NOT_KEY)
    """What a spec called it. Its content, not its name, is in the key."""
    prompt: Annotated[TextFile, with_fields("instruction")] | None = None
    """Text with {instruction} and, where wanted, {input}; without {input}, a non-empty input
    follows the instruction on a line of its own. A newline at the file's very end does not count.
    Where `start` is given it may also have {system}: the system text's place in the first turn."""
    prompt_with_input: Annotated[TextFile, with_fields("instruction", "input")] | None = None
    """In place of `prompt` where there is an input."""
    start: str | None = None
    """What a text begins with, once. Left open: what this tokenizer puts there by itself."""
    system: str = ""
    """The system text where an example brings none."""
    system_layout: str | None = None
    """How a system text stands: text with {system}, before the first turn. Left open: there is no
    place for one."""
    answer: str = "{output}"
    """How an answer stands: text with {output}, all of it trained on."""
    end: Annotated[str, Field(min_length=1)] | None = None
    """What ends an answer, and is trained on. Left open: the tokenizer's end-of-sequence token."""
    separator: str | None = None
    """What stands between an answer and the next turn. Left open: there are no earlier turns."""
    special: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that the tokenizer must know as one token each."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an answer when a model writes it, beside the end itself."""
    from_tokenizer: bool = False
    """The tokenizer's own chat template in place of all of these but `system` and `stop`."""
    date: Day | None = None
    """The day that the tokenizer's chat template is given where it asks for today's. Left open there:
    2024-07-26, which is what Llama 3's templates write where nobody says. Others ask for none."""

    @model_validator(mode="before")
    @classmethod
    def _content_of_a_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _named(value)
        if not isinstance(value, dict):
            return value
        if value.get("name") is not None:
            if isinstance(value.get("prompt"), str):
                raise ValueError(
                    "give either the name of a template or the prompt of one, not both"
                )
            # What a stage receives has every field already.
            value = value if "prompt" in value else _named(value["name"]) | value
        dated = value.get("from_tokenizer") and value.get("date") is None
        return value | {"date": DATE} if dated else value

    @model_validator(mode="after")
    def _fits_together(self) -> "Template":
        if self.prompt is None and not self.from_tokenizer:
            raise ValueError(
                f"a template needs a prompt or a name: give prompt: FILE, or one of {_known()}"
            )
        if self.date is not None and not self.from_tokenizer:
            raise ValueError("date: only the tokenizer's own chat template can ask for a day")
        if self.system and self.system_layout is None and not self.from_tokenizer:
            raise ValueError("a system text needs a place: give system_layout, text with {system}")
        prompts = [p.text for p in (self.prompt, self.prompt_with_input) if p is not None]
        if self.start is not None and len({"{system}" in text for text in prompts}) > 1:
            raise ValueError(
                "give both prompt and prompt_with_input a place for {system}, or neither"
            )
        for name, place in (("system_layout", "{system}"), ("answer", "{output}")):
            layout = getattr(self, name)
            if layout is not None and layout.count(place) != 1:
                raise ValueError(f"{name} must have exactly one place for {place}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """For editors: a name alone will do."""
        fields = handler.resolve_ref_schema(handler(schema))
        about = fields.pop("description", "")
        name = {"type": "string", "enum": template_names()}
        return {"anyOf": [name, fields], "description": about, "title": "Template"}


def load_template(name: str) -> Template:
    """The template of this name. Raises pydantic.ValidationError where there is none."""
    return Template.model_validate(name)


def variant(name: str) -> tuple[str, str]:
    """A name's layout and its date: ("qwen", "2024-04"); the date is empty for today's."""
    layout, _, date = name.partition("@")
    return layout, date


@cache
def _read(name: str) -> dict[str, Any]:
    import yaml

    fields: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    # The rule that a file's last newline does not count must not cost these texts theirs.
    texts = {p: {"path": name, "text": fields[p] + "\n"} for p in PROMPTS if p in fields}
    return {"name": name} | fields | texts


def _named(name: Any) -> dict[str, Any]:
    if name == TOKENIZER:
        return {"name": TOKENIZER, "from_tokenizer": True, "date": DATE}
    if name in template_names():
        return dict(_read(str(name)))
    if not isinstance(name, str):
        raise ValueError(f"the name of a template is wanted: one of {_known()}")
    near = difflib.get_close_matches(name, template_names(), n=3)
    if not near and ("/" in name or "." in name):
        raise ValueError(f"there is no such template; a prompt file is given as {{prompt: {name}}}")
    among = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"there is no such template; {among}known here: {_known()}")


def _known() -> str:
    return ", ".join(template_names())
