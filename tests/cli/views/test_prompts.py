"""`harness show ROW --prompt`: what a model is asked with, and what is trained on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.cli import main
from harness.cli.views import prompts
from harness.llm.prices import load as load_prices
from harness.row.load import load_rows
from harness.run.plan import Planner
from tests.helpers import command, evaluation, write_row

EXAMPLE = {"instruction": "Why [red]rain[/]?\x1b[2J", "input": "", "output": "So."}


def row(folder: Path, *records: dict[str, Any], **parts: Any) -> Path:
    """A row that is trained on these records."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text(json.dumps(records))
    given = {"gen": None, "data": "data.json"} if records else {}
    return write_row(folder, **(given | parts))


def shown(folder: Path, *records: dict[str, Any], **parts: Any) -> str:
    spec = row(folder, *records, **parts)
    result = CliRunner().invoke(
        main, ["show", str(spec), "--prompt", "--volume", str(folder / "runs")]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_trained_part_of_a_real_example_is_set_off_from_the_masked_part(tmp_path: Path) -> None:
    said = shown(tmp_path, EXAMPLE, template="default@2024-04")
    assert "template   default, as it was in 2024-04 (used by: train)" in said
    assert "the first of the row's data set (data.json:1)" in said
    assert "Human: Why [red]rain[/]?\ufffd[2J\nAssistant: ⟦So.<eos>⟧" in said
    assert f"tokens     4 marked, {len(EXAMPLE['instruction']) + 19} in the rest" in said
    assert "border     83 't' 25 ':' 220 ' ' | 50 'S' 78 'o' 13 '.'" in said
    assert "ends with  257 '<eos>'" in said


def test_where_dimming_works_the_masked_part_is_dim_and_the_trained_part_bold(
    tmp_path: Path,
) -> None:
    spec = row(tmp_path, EXAMPLE, template="default")
    store = Store(tmp_path / "runs")
    planner = Planner(store, Files(None, None), "local", load_prices())
    console = Console(force_terminal=True, width=200, color_system="truecolor", no_color=False)
    with console.capture() as captured:
        prompts.show_prompts(console, load_rows([spec])[0], planner)
    said = captured.get()
    assert "\x1b[2mHuman: Why [red]rain[/]?\ufffd[2J\x1b[0m" in said
    assert "\x1b[1mSo.\x1b[0m" in said
    assert "⟦" not in said
    assert "\x1b[2J" not in said


def test_a_row_without_data_shows_a_made_up_example_and_says_so(tmp_path: Path) -> None:
    said = shown(tmp_path)
    assert "made up: the row's data set is not on the volume" in said
    assert "Q: Name two rivers.\nA:⟦The Nile and the Rhine.<eos>⟧" in said
    assert "prompt.txt (a prompt file)" in said


def test_an_answer_stage_with_another_template_is_shown_with_what_differs(tmp_path: Path) -> None:
    asked = evaluation(tmp_path)
    asked["answer"]["template"] = {"name": "default@2024-04", "stop": ["Human:"]}
    said = shown(tmp_path, EXAMPLE, template="default", eval=asked)
    assert "(used by: train)" in said
    assert "(used by: answer)" in said
    assert "stop texts 'Human:'" in said
    [difference] = [line for line in said.splitlines() if line.startswith("The answers are asked")]
    assert difference.endswith("the prompt, how a system text stands, the stop texts.")
    same = evaluation(tmp_path / "same")
    same["answer"]["template"] = "default"
    assert "(used by: train and answer)" in shown(
        tmp_path / "same", EXAMPLE, template="default", eval=same
    )


def test_earlier_turns_are_marked_only_where_they_are_trained_on(tmp_path: Path) -> None:
    example = EXAMPLE | {"instruction": "Why?", "system": "S", "history": [["Hi", "Yes"]]}
    said = shown(tmp_path, example, template="vicuna")
    assert "SUSER: Hi ASSISTANT:Yes<eos>USER: Why? ASSISTANT:⟦So.<eos>⟧" in said
    said = shown(tmp_path, example, template="vicuna", train={"steps": 1, "train_on_history": True})
    assert "SUSER: Hi ASSISTANT:⟦Yes<eos>⟧USER: Why? ASSISTANT:⟦So.<eos>⟧" in said
    said = shown(tmp_path, example, template="vicuna", train={"steps": 1, "train_on_prompt": True})
    assert "⟦SUSER: Hi ASSISTANT:⟧Yes<eos>⟦USER: Why? ASSISTANT:So.<eos>⟧" in said


def test_what_stops_the_stage_is_shown_as_a_fault_and_the_rest_still_stands(tmp_path: Path) -> None:
    said = shown(tmp_path, EXAMPLE, template="qwen")
    assert "fault      the template qwen needs what the model's tokenizer does not know" in said
    assert "end token  '<|im_end|>'" in said
    said = shown(tmp_path, EXAMPLE | {"system": "S"}, template="alpaca")
    assert "has no place for an example's system text" in said
    assert "system     no place for one" in said


@pytest.mark.parametrize("template", ["qwen", "tokenizer"])
def test_without_the_tokenizer_it_says_so_and_shows_what_it_can(
    tmp_path: Path, template: str
) -> None:
    hub = {"hub": {"id": "owner/name", "revision": "0" * 40}}
    said = shown(tmp_path, EXAMPLE, model=hub, template=template)
    assert "owner/name is not on the volume (harness fetch --volume " in said
    assert ("<|im_start|>assistant\n⟦So.<|im_end|>⟧" in said) == (template == "qwen")


def test_a_row_without_a_template_and_a_row_that_is_not_there_are_refused(tmp_path: Path) -> None:
    spec = write_row(tmp_path, template=None, train=None)
    result = CliRunner().invoke(main, ["show", str(spec), "--prompt", "--volume", str(tmp_path)])
    assert result.exit_code == 2
    assert "has no template\nIt neither trains nor answers." in result.stderr


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (
            {"kind": "endpoint", "endpoint": {"model": "m", "simulated": {}}},
            "come from an endpoint",
        ),
        ({"kind": "null"}, "are given"),
    ],
)
def test_a_row_that_answers_without_a_template_is_told_why_it_has_none(
    tmp_path: Path, engine: dict[str, Any], why: str
) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["engine"] = engine
    spec = write_row(tmp_path, template=None, train=None, gen=None, model=None, eval=parts)
    result = command("show", spec, "--prompt", "--volume", tmp_path)
    assert result.exit_code == 2
    assert f"Its answers {why}" in result.stderr


def test_the_core_loads_no_transformers_for_it_before_it_is_asked() -> None:
    code = "import sys, harness.cli, harness.cli.views.prompts; "
    code += "print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False False\n"


def test_the_ids_at_a_texts_start_are_shown_and_two_beginning_tokens_are_a_fault(
    tmp_path: Path, real_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = {"model_type": "qwen2"}
    model = {"random": {"config": config, "tokenizer": str(tmp_path / "tokenizer")}}
    said = shown(tmp_path / "one", EXAMPLE, model=model)
    assert "opens with 1 '<|im_start|>' 65 'Q' 42 ':'" in said
    folder = tmp_path / "two"
    spec = row(folder, EXAMPLE, model=model)
    (folder / "prompt.txt").write_text("<|im_start|>{instruction}")
    arguments = ["show", str(spec), "--prompt", "--volume", str(folder / "runs")]
    said = CliRunner().invoke(main, arguments).stdout
    assert "fault      the template begins with <|im_start|>, and the tokenizer puts one" in said


def test_a_system_text_that_the_tokenizers_template_drops_is_a_fault_and_a_date_is_told(
    tmp_path: Path, real_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.chat_template = (
        "{{ strftime_now('%d.%m.%Y') }}{% for m in messages if m['role'] != 'system' %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = {"model_type": "qwen2"}
    model = {"random": {"config": config, "tokenizer": str(tmp_path / "tokenizer")}}
    own = {"name": "tokenizer", "date": "2023-03-04"}
    said = shown(tmp_path / "one", EXAMPLE, model=model, template=own)
    assert "04.03.2023<|im_start|>user" in said
    assert "asks for today's date: it is given 2023-03-04" in said
    said = shown(tmp_path / "two", EXAMPLE, model=model, template=own | {"system": "Be brief."})
    assert "fault      the tokenizer's chat template has no place for a system text" in said
    assert "⟦" not in said
