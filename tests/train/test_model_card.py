"""The model card's provenance, marks and escaping, and a loss curve with the same bytes every time."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.call import MANIFEST, StageCall, StageResult
from harness.artefact.manifest import MetricValue
from harness.train.model_card import RANDOM, SIMULATED, facts_of, plot_losses, text_of, write_card
from tests.modeling.calls import train_call

HUB = {"hub": {"id": "owner/base", "revision": "a" * 40}}
HOSTILE = (
    "a|b\n# no <script>x</script> [l](http://x) `c` *b* $x$ \x1b[31mred\x1b]0;t\x07 \u202e ```"
)


def result(**fields: Any) -> StageResult:
    made: dict[str, Any] = {
        "keep": ["model"],
        "metrics": {"train_loss": MetricValue(value=1.25), "held_out_loss": MetricValue(value=1.5)},
        "counts": {"records": 12, "examples": 11, "dropped_empty": 1, "steps": 6, "tokens": 1234},
        "used": {"parameters": 49152, "device": "cpu"},
        "seeds": {"train": 3},
        "notes": ["a note"],
    }
    return StageResult(**{**made, **fields})


def header_of(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(header)
    return found


def card(tmp_path: Path, model: Any = None, **train: Any) -> str:
    call = train_call(tmp_path, model=model, **train)
    write_card(call.folder, facts_of(call, result()))
    return (call.folder / "README.md").read_text(encoding="utf-8")


def test_the_card_names_base_model_data_method_and_what_came_out(tmp_path: Path) -> None:
    call = train_call(tmp_path, model=HUB, learning_rate=3e-4)
    manifest = {
        "stage": "gen",
        "key": "d" * 64,
        "document": {"params": {"gen": {"recipe": "alpaca", "teacher": {"model": "gpt-x"}}}},
        "simulated": [],
    }
    (Path(call.inputs["data"]) / MANIFEST).write_text(json.dumps(manifest))
    text = text_of(facts_of(call, result()))
    assert header_of(text)["base_model"] == "owner/base"
    assert header_of(text)["base_model_relation"] == "finetune"
    assert header_of(text)["library_name"] == "transformers"
    for words in (
        f"`train/{call.key}`",
        f"`gen/{'d' * 64}`",
        f"owner/base, revision `{'a' * 40}`",
        "made by the recipe alpaca with gpt\\-x",
        "examples: 11",
        "dropped empty: 1",
        "| `learning_rate` | 0.0003 |",
        "| `weight_decay` | 0.0 |",
        "| loss at the end (nats per token) | 1.2500 |",
        "| held-out loss (nats per token) | 1.5000 |",
        "| tokens in the loss | 1,234 |",
        "49,152 parameters",
        "| transformers | 5",
        "| seeds | train 3 |",
        "a note",
        "Q: {instruction}\nA:",
        "AutoModelForCausalLM.from_pretrained('model')",
    ):
        assert words in text, words
    assert "simulated" not in text
    assert "random weights" not in text


def test_an_adapters_card_says_so_and_loads_it_on_its_base(tmp_path: Path) -> None:
    text = card(tmp_path / "a", model=HUB, method="qlora")
    assert header_of(text)["library_name"] == "peft"
    assert header_of(text)["base_model_relation"] == "adapter"
    place = f"from_pretrained('owner/base', revision='{'a' * 40}'"
    assert f"{place}, quantization_config=in_4_bits)" in text
    assert "AutoTokenizer, BitsAndBytesConfig" in text
    assert "bnb_4bit_quant_type='nf4'" in text
    assert "PeftModel.from_pretrained(base, 'model')" in text
    lora = card(tmp_path / "lora", model=HUB, method="lora")
    assert f"{place})" in lora
    assert "BitsAndBytesConfig" not in lora
    assert "| `lora.rank` | 8 |" in text
    assert "QLoRA SFT" in text
    merged = card(tmp_path / "b", model=HUB, method="lora", lora={"merge": True})
    assert header_of(merged)["library_name"] == "transformers"
    assert "PeftModel" not in merged


@pytest.mark.parametrize("inherited", [False, True])
def test_simulated_data_and_random_weights_are_marked_above_all_else(
    tmp_path: Path, inherited: bool
) -> None:
    call = train_call(tmp_path)
    if inherited:
        gen = {"recipe": "import"}
        manifest = {"stage": "gen", "key": "d", "document": {"params": {"gen": gen}}}
        path = Path(call.inputs["data"]) / MANIFEST
        path.write_text(json.dumps({**manifest, "simulated": ["teacher"]}))
    facts = facts_of(call, result(simulated=[] if inherited else ["teacher"]))
    text = text_of(facts)
    assert {"simulated", "random-weights"} <= set(header_of(text)["tags"])
    before, _, _ = text.partition("\n## ")
    assert f"**{SIMULATED}**" in before
    assert f"**{RANDOM}**" in before
    assert "PreTrainedTokenizerFast.from_pretrained" in text


def test_the_folders_of_the_machine_do_not_stand_in_the_card(tmp_path: Path) -> None:
    call = train_call(tmp_path, model={"path": {"path": "/some/where/qwen", "sha256": "e" * 64}})
    call.params["data"] = {"path": "/some/where/else/set.json", "sha256": None}
    text = text_of(facts_of(StageCall("train", "k", call.params, {}, call.work), result()))
    assert f"a given folder qwen, sha256 `{'e' * 64}`" in text
    assert "a given file set.json" in text
    assert "/some" not in text
    assert str(tmp_path) not in text


def test_text_from_rows_and_data_cannot_be_markdown_nor_steer_a_terminal(tmp_path: Path) -> None:
    call = train_call(tmp_path, prompt={"prompt": {"text": f"{HOSTILE} {{instruction}}"}})
    facts = facts_of(call, result(notes=[HOSTILE], counts={HOSTILE: 1, "examples": 1}))
    text = text_of({**facts, "title": HOSTILE, "row": HOSTILE, "label": HOSTILE, "table": HOSTILE})
    assert "\x1b" not in text
    assert "\u202e" not in text
    fenced = re.findall(r"^(`{3,})[a-z]*\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    assert any("# no <script>" in body for _, body in fenced)
    outside = re.sub(r"^(`{3,})[a-z]*\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    _, header, rest = outside.split("---\n", 2)
    assert yaml.safe_load(header)["harness"]["row"] == HOSTILE
    for raw in ("<script>", "[l](", "`c`", "*b*", "\n# no"):
        assert raw not in rest, raw


def log_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def steps(count: int, **more: float) -> list[dict[str, Any]]:
    return [{"step": n, "loss": 3 / n, "learning_rate": 1e-3, **more} for n in range(1, count + 1)]


def size(picture: Path) -> tuple[int, int]:
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_the_same_log_gives_the_same_picture_and_another_log_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    log = log_of(tmp_path / "log", steps(20))
    plot_losses(log, tmp_path / "a.png")
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    plot_losses(log, tmp_path / "b.png")
    first = (tmp_path / "a.png").read_bytes()
    assert (tmp_path / "b.png").read_bytes() == first
    assert b"tEXt" not in first
    assert b"tIME" not in first
    held_out = {"step": 20, "held_out_loss": 1.0, "bits_per_byte": 0.4}
    plot_losses(log_of(tmp_path / "log", [*steps(20), held_out]), tmp_path / "c.png")
    plot_losses(log, tmp_path / "d.png", "simulated")
    assert len({p.read_bytes() for p in tmp_path.glob("*.png")}) == 3


def test_the_parts_of_orpos_loss_have_panels_of_their_own(tmp_path: Path) -> None:
    plot_losses(log_of(tmp_path / "log", steps(5)), tmp_path / "sft.png")
    parts = {
        "nll_loss": 1.0,
        "log_odds_ratio": -0.5,
        "rewards/chosen": -0.1,
        "rewards/rejected": -0.2,
    }
    plot_losses(log_of(tmp_path / "log", steps(5, **parts)), tmp_path / "orpo.png")
    assert size(tmp_path / "orpo.png")[1] > 2 * size(tmp_path / "sft.png")[1]


def test_a_single_step_can_be_drawn(tmp_path: Path) -> None:
    plot_losses(log_of(tmp_path / "log", steps(1)), tmp_path / "one.png")
    assert size(tmp_path / "one.png")[0] == 900
