"""The specs' JSON schema, for editors."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any

from harness.row.row import Row
from harness.spec.base import Spec


def json_schema() -> dict[str, Any]:
    """The schema of a spec. Nothing is required: `extends` may bring any key."""
    schema = Row.model_json_schema()
    schema["title"] = "Row spec"
    schema["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "default": [],
        "description": "A spec, or several, that this one is merged over; paths relative to this file.",
    }
    for definition in [schema, *schema.get("$defs", {}).values()]:
        definition.pop("required", None)
    models = {model.__name__: model for model in _models_below(Spec)}
    for name, definition in {Row.__name__: schema, **schema["$defs"]}.items():
        sentences = _sentences(models[name]) if name in models else {}
        for shape in (definition, *definition.get("anyOf", [])):
            properties = shape.get("properties", {})
            for field in properties.keys() & sentences.keys():
                described = properties[field] | {"description": sentences[field]}
                properties[field] = dict(sorted(described.items()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _models_below(model: type[Spec]) -> Iterator[type[Spec]]:
    for derived in model.__subclasses__():
        yield derived
        yield from _models_below(derived)


def _sentences(model: type[Spec]) -> dict[str, str]:
    """What stands below each field of a model. Pydantic gathers it too, but at every start."""
    sentences = {}
    for ancestor in reversed([a for a in model.__mro__ if issubclass(a, Spec)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body
        assert isinstance(body, ast.ClassDef)
        for pair in itertools.pairwise(body.body):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=field)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    sentences[field] = inspect.cleandoc(text)
    return sentences
