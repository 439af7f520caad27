"""A template in a spec: a name, fields of its own, or both; and the error where it is neither."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from harness.artefact.keys import Files, digest_of, key_view
from harness.row.load import SpecFaults, load_rows
from harness.row.schema import json_schema
from harness.run.plan import dump
from harness.spec.template import FOLDER, Template, load_template, template_names, variant

NAMES = [
    "alpaca", "alpaca-lora", "default", "default@2024-04", "llama2", "llama2@2024-04", "llama3",
    "mistral", "qwen", "qwen@2024-04", "vicuna", "tokenizer",
]  # fmt: skip


def fault(value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Template.model_validate(value)
    return "; ".join(e["msg"] for e in caught.value.errors())


def key(template: Template) -> str:
    return digest_of(key_view(template, Files(None, None)))


def test_there_are_templates_of_these_names_and_each_file_says_its_source() -> None:
    assert sorted(template_names()) == sorted(NAMES)
    for path in FOLDER.glob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ")
        assert "LLaMA-Factory" in first or "Stanford Alpaca" in first
    assert variant("qwen@2024-04") == ("qwen", "2024-04")
    assert variant("qwen") == ("qwen", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_receives_the_content_of_a_name_and_reads_it_as_the_same_template(
    name: str,
) -> None:
    template = load_template(name)
    sent = json.loads(json.dumps(dump(template, lambda data: data.path)))
    assert Template.model_validate(sent) == template
    sent["name"] = "a name that this version no longer knows"
    assert Template.model_validate(sent).prompt == template.prompt


def test_the_content_is_in_the_key_and_the_name_is_not() -> None:
    by_name = load_template("qwen@2024-04")
    fields = by_name.model_dump()
    assert key(Template.model_validate(fields | {"name": None})) == key(by_name)
    assert key(Template.model_validate(fields | {"end": "<|endoftext|>"})) != key(by_name)
    assert len({key(load_template(name)) for name in NAMES}) == len(NAMES)


def test_a_field_beside_a_name_replaces_the_names_own() -> None:
    template = Template.model_validate({"name": "qwen", "system": "", "stop": ["###"]})
    whole = load_template("qwen")
    assert (template.system, template.stop) == ("", ["###"])
    assert template.prompt == whole.prompt
    assert template.end == whole.end == "<|im_end|>"
    assert key(template) != key(whole)


def test_an_unknown_name_is_refused_with_near_ones_and_the_list() -> None:
    said = fault("qwen@2024-4")
    assert "did you mean qwen@2024-04" in said
    assert all(name in said for name in NAMES)
    assert "{prompt: prompts/qa.txt}" in fault("prompts/qa.txt")
    assert "did you mean vicuna" in fault({"name": "vicunna"})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"stop": ["x"]}, "needs a prompt or a name"),
        ({"name": "qwen", "prompt": "p.txt"}, "either the name of a template or the prompt"),
        ({"name": "alpaca", "system": "Be brief."}, "give system_layout"),
        ({"name": "qwen", "system_layout": "no place"}, "exactly one place for {system}"),
        ({"name": "qwen", "answer": "{output}{output}"}, "exactly one place for {output}"),
        ({"name": 3}, "name of a template is wanted"),
    ],
)
def test_what_does_not_fit_together_is_refused(value: dict[str, Any], said: str) -> None:
    assert said in fault(value)


def test_a_spec_gives_a_name_and_a_mistyped_one_is_shown_with_its_place(tmp_path: Path) -> None:
    spec = {
        "row": "one",
        "table": "tests",
        "title": "A row",
        "model": {"random": {"config": {"model_type": "qwen2"}}},
        "template": "llama2@2024-04",
    }
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    assert load_rows([path])[0].row.template == load_template("llama2@2024-04")
    path.write_text(yaml.safe_dump(spec | {"template": "lama2"}, sort_keys=False))
    with pytest.raises(SpecFaults, match=r"one\.yaml:8:1: template: there is no such template"):
        load_rows([path])


def test_the_schema_lets_editors_complete_the_names() -> None:
    shapes = json_schema()["$defs"]["Template"]["anyOf"]
    assert shapes[0]["enum"] == template_names()
    assert "system_layout" in shapes[1]["properties"]


def test_a_system_text_that_only_one_of_two_prompts_has_a_place_for_is_refused() -> None:
    with_system = {"path": "a.txt", "text": "{system} {instruction}"}
    without = {"path": "b.txt", "text": "{instruction} {input}"}
    layout = {"start": "", "system_layout": "[{system}]"}
    with pytest.raises(ValidationError, match="or neither"):
        Template.model_validate({"prompt": with_system, "prompt_with_input": without, **layout})
