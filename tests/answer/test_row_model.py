"""A QLoRA row's numbers are those of the model that was trained, or say that they are not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from harness.answer import run as answer
from harness.answer.engine import vllm_cannot
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.judge import run as judge
from harness.row.load import load_rows
from harness.run.plan import Planner, RowPlan, quantization_of
from harness.spec.train import Quantization
from harness.train import run as train
from tests.helpers import ROOT
from tests.modeling.calls import train_call, write_jsonl

NF4 = {"type": "nf4", "double": True}
TEXTS = [
    ("What is the capital of France?", "Paris, on the Seine."),
    ("Name a colour of the rainbow.", "Indigo: it lies between blue and violet."),
    ("Say something about the sea.", "The sea is salt and wide, and it is never quite at rest."),
]
RECORDS = [{"instruction": asked, "output": said} for asked, said in TEXTS]
CHAT = {"name": "tokenizer", "from_tokenizer": True}


class Trained(NamedTuple):
    folder: Path
    model: dict[str, Any]
    held_out_loss: float


@pytest.fixture(scope="module")
def trained(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("qlora")
    model = {"path": {"path": str(real_model)}}
    held_out = write_jsonl(folder / "held_out.jsonl", RECORDS)
    call = train_call(
        folder, RECORDS, model=model, prompt=CHAT, method="qlora", quantization=NF4,
        lora={"rank": 4, "target_modules": ["q_proj", "v_proj"]}, steps=2, batch_size=3,
        validation={"file": {"path": str(held_out)}},
    )  # fmt: skip
    result = train.run(call)
    manifest = {"document": {"params": {"train": call.params["train"]}}}
    (call.folder / "manifest.json").write_text(json.dumps(manifest))
    return Trained(call.folder, model, result.metrics["held_out_loss"].value)


def call_of(
    trained: Trained, folder: Path, stage: str, quantized: bool, **params: Any
) -> StageCall:
    (folder / "work").mkdir(parents=True)
    more = {"quantization": NF4} if quantized else {}
    return StageCall(
        stage=stage,
        key="0" * 64,
        params={**params, "model": trained.model, **more},
        inputs={"model": str(trained.folder)},
        work=str(folder / "work"),
    )


def test_the_held_out_loss_is_the_trainings_own_on_the_base_as_trained_and_another_without(
    trained: Trained, tmp_path: Path
) -> None:
    told = {}
    examples = {"file": {"path": str(write_jsonl(tmp_path / "examples.jsonl", RECORDS))}}
    judged = {"kind": "held_out_loss", "examples": examples, "template": CHAT, "threads": 1}
    for quantized in (True, False):
        call = call_of(trained, tmp_path / str(quantized), "judge", quantized, judge=judged)
        told[quantized] = judge.run(call)
    loss = {which: result.metrics["held_out_loss"].value for which, result in told.items()}
    assert loss[True] == pytest.approx(trained.held_out_loss, rel=1e-5)
    assert abs(loss[False] - trained.held_out_loss) > 1e-2
    assert told[True].used["quantization"] == NF4
    assert told[True].deviations == []
    assert "as trained, quantised to nf4 with double quantisation" in " ".join(told[True].notes)
    assert told[False].used["quantization"] == "none"
    (deviation,) = told[False].deviations
    assert "unquantised base, another model than the one that was trained" in deviation


def test_answers_are_those_of_the_adapter_on_its_quantised_base_by_the_libraries_themselves(
    trained: Trained, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    prompts = [{"instruction": asked} for asked, _ in TEXTS[:2]]
    path = str(write_jsonl(tmp_path / "prompts.jsonl", prompts))
    asked = {
        "prompts": {"file": {"path": path}},
        "template": CHAT,
        "engine": {"kind": "transformers", "threads": 1},
        "decoding": {"max_new_tokens": 12},
    }
    call = call_of(trained, tmp_path / "answers", "answer", True, answer=asked)
    result = answer.run(call)
    assert result.used["quantization"] == NF4
    outputs = json.loads((call.folder / "model_outputs.json").read_text())

    base = trained.model["path"]["path"]
    in_4_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(
            base, quantization_config=in_4_bits, device_map={"": "cpu"}, dtype=torch.float32
        ),
        str(trained.folder / "model"),
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    for prompt, output in zip(prompts, outputs, strict=True):
        messages = [{"role": "user", "content": prompt["instruction"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        made = model.generate(**ids, max_new_tokens=12, do_sample=False)[
            0, ids.input_ids.shape[1] :
        ]
        assert tokenizer.decode(made, skip_special_tokens=True) == output["output"]


def test_what_cannot_quantise_says_so_beside_the_number(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.answer import row_model

    call = call_of(trained, tmp_path, "answer", True)
    monkeypatch.setattr(row_model, "find_spec", lambda name: None)
    monkeypatch.setattr(row_model, "load_model", lambda *given: given[-1])
    loaded, base = row_model.load_row_model(call, None, None, "float32", "cpu")  # type: ignore[arg-type]
    assert loaded is None
    assert base.used == {"quantization": "none"}
    assert "bitsandbytes is not installed here" in base.deviations[0]
    assert "another model than the one that was trained" in base.deviations[0]
    (elsewhere,) = row_model.base_of(call, is_known=False).deviations
    assert "started elsewhere" in elsewhere
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    (recorded / "manifest.json").write_text(json.dumps({"deviations": base.deviations}))
    again = replace(call, replay=True, inputs={"recorded": str(recorded)})
    assert row_model.base_of(again).deviations == base.deviations


def test_vllm_quantises_as_bitsandbytes_does_by_default_and_in_no_other_way() -> None:
    assert vllm_cannot(Quantization()) == ""
    for other in ({"double": False}, {"type": "fp4"}):
        assert "nf4 with double quantisation alone" in vllm_cannot(Quantization(**other))


def plan_of(tmp_path: Path, **overrides: Any) -> RowPlan:
    """The smoke row of a method, with other settings of what reads its model."""
    tree = {"extends": str(ROOT / "specs/smoke/train_qlora.yaml"), "row": "r", **overrides}
    spec = tmp_path / "row.yaml"
    spec.write_text(yaml.safe_dump(tree))
    planner = Planner(Store(tmp_path / "runs"), Files(None, tmp_path / "digests.json"), "local")
    return planner.plan(load_rows([spec])[0])


def key(plan: RowPlan, stage: str) -> str:
    return next(s.key for s in plan.stages if s.stage == stage)


@pytest.mark.parametrize("part", ["answer", "judge"])
def test_the_choice_is_in_the_key_of_a_qlora_row_and_of_no_other(tmp_path: Path, part: str) -> None:
    def keyed(choice: str, train: dict[str, Any]) -> str:
        more: dict[str, Any] = {"quantization": choice}
        if part == "judge":
            file = str(write_jsonl(tmp_path / "examples.jsonl", RECORDS))
            more = {"kind": "held_out_loss", "examples": {"file": file}, **more}
        else:
            more["prompts"] = {"file": str(write_jsonl(tmp_path / "prompts.jsonl", RECORDS))}
        parts = {"answer": None, "judge": None} | {part: more}
        return key(plan_of(tmp_path, train=train, eval=parts), part)

    lora = {"method": "lora", "quantization": None}
    merged = {"lora": {"merge": True}}
    assert keyed("as_trained", {}) != keyed("none", {})
    assert keyed("as_trained", lora) == keyed("none", lora)
    assert keyed("as_trained", merged) == keyed("none", merged)


def test_as_trained_is_the_default_of_everything_that_reads_a_rows_model(tmp_path: Path) -> None:
    prompts = {"file": str(write_jsonl(tmp_path / "prompts.jsonl", RECORDS))}
    plan = plan_of(tmp_path, eval={"answer": {"prompts": prompts}, "judge": None})
    (asked,) = [s for s in plan.stages if s.stage == "answer"]
    assert asked.params["quantization"] == plan.row.train.quantization  # type: ignore[union-attr]
    assert quantization_of(plan.row, "none") == {}
