"""The specs' JSON schema, for editors."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any

from harness.spec.base import Spec
from harness.spec.models import Row


def json_schema() -> dict[str, Any]:
    """The schema of a spec. Nothing is required: `extends` may bring any key."""
    schema = Row.model_json_schema()
    schema["title"] = "Row spec"
    schema["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "A spec, or several, that this one is merged over; paths relative to this file.",
    }
    for definition in [schema, *schema.get("$defs", {}).values()]:
        definition.pop("required", None)
    models = {model.__name__: model for model in _models_below(Spec)}
    for name, definition in {Row.__name__: schema, **schema["$defs"]}.items():
        if name in models:
            _describe(definition, models[name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _models_below(model: type[Spec]) -> Iterator[type[Spec]]:
    for derived in model.__subclasses__():
        yield derived
        yield from _models_below(derived)


def _describe(definition: dict[str, Any], model: type[Spec]) -> None:
    """Put the sentence below each field of a model into its definition. Pydantic can do so too, by
    reading its source at every start."""
    for ancestor in reversed(model.__mro__):
        if not issubclass(ancestor, Spec):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ) if name in definition.get("properties", {}):
                    described = definition["properties"][name] | {
                        "description": inspect.cleandoc(text)
                    }
                    definition["properties"][name] = dict(sorted(described.items()))
