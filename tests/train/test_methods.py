"""What is trained with each method, and that what comes out loads and says so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.modeling.load import bytes_tokenizer, load_model
from harness.spec.model_source import ModelSource
from harness.spec.train import Train
from harness.train.deepspeed import config, warmup_lr
from harness.train.run import run
from tests.modeling.calls import EXAMPLES, log_of, random_model, train_call

WIDE = {"hidden_size": 64, "intermediate_size": 128, "attention_dropout": 0.0}
"""Wide enough for bitsandbytes to quantise."""
PAIRS = [
    {"instruction": r["instruction"], "chosen": r["output"], "rejected": "no" + r["output"][::-1]}
    for r in EXAMPLES
]


def files_of(call: StageCall) -> set[str]:
    return {path.name for path in (call.folder / "model").iterdir()}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_are_trained_and_the_base_stays(tmp_path: Path, method: str) -> None:
    base = random_model(**WIDE)
    lora = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    call = train_call(tmp_path, model=base, method=method, lora=lora, epochs=10, learning_rate=2e-2)
    result = run(call)
    log = log_of(call)
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    # rank * (in + out) for q (64 x 64) and v (64 x 32) in each of two layers
    heads = result.used["trained_parameters"] / 2
    assert heads == 4 * (64 + 64) + 4 * (64 + 32) or heads == 4 * (64 + 64) * 2
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files_of(call)
    assert "model.safetensors" not in files_of(call)
    settings = json.loads((call.folder / "model" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 8)
    assert sorted(settings["target_modules"]) == ["q_proj", "v_proj"]
    assert str(tmp_path) not in json.dumps(settings)


def test_an_adapters_layers_are_written_in_one_order_in_whatever_process(tmp_path: Path) -> None:
    """As a set has them, 14 names are in order by chance alone, once in 87 billion processes."""
    call = train_call(tmp_path, model=random_model(**WIDE), method="lora", steps=1)
    run(call)
    settings = json.loads((call.folder / "model" / "adapter_config.json").read_text())
    assert len(settings["target_modules"]) == 14
    assert settings["target_modules"] == sorted(settings["target_modules"])


def test_a_merged_adapter_is_a_whole_model_with_the_same_answers(tmp_path: Path) -> None:
    base = random_model(**WIDE)
    losses = []
    for merge in (False, True):
        (tmp_path / str(merge)).mkdir()
        call = train_call(
            tmp_path / str(merge), model=base, method="lora", lora={"merge": merge}, epochs=4
        )
        run(call)
        losses.append(log_of(call)[-1]["loss"])
        if merge:
            assert "model.safetensors" in files_of(call)
            assert "adapter_config.json" not in files_of(call)
            whole = ModelSource.model_validate({"path": str(call.folder / "model")})
            after = load_model(whole, {}, bytes_tokenizer(), "float32", "cpu").state_dict()
    assert losses[0] == losses[1]
    source = ModelSource.model_validate(base)
    before = load_model(source, {}, bytes_tokenizer(), "float32", "cpu").state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("proj" in name for name in moved), "norms and embeddings have no adapter"


def test_an_adapter_for_layers_that_are_not_there_is_refused(tmp_path: Path) -> None:
    call = train_call(tmp_path, method="lora", lora={"target_modules": ["q_proj", "qkv"]})
    with pytest.raises(InputError, match="no linear layer qkv") as caught:
        run(call)
    assert "q_proj" in caught.value.hint


def test_orpo_is_logged_with_its_parts_that_add_up(tmp_path: Path) -> None:
    call = train_call(
        tmp_path, PAIRS, objective="orpo", orpo={"weight": 0.5}, epochs=15,
        model=random_model(attention_dropout=0.0),
    )  # fmt: skip
    run(call)
    log = log_of(call)
    for line in log:
        assert line["loss"] == pytest.approx(
            line["nll_loss"] - 0.5 * line["log_odds_ratio"], rel=1e-4
        )
        margin = line["rewards/chosen"] - line["rewards/rejected"]
        assert line["rewards/margins"] == pytest.approx(margin, abs=1e-5)
    assert log[-1]["rewards/margins"] > log[0]["rewards/margins"]
    assert log[-1]["rewards/accuracies"] == 1.0


def test_training_on_preference_pairs_wants_orpo_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chosen and rejected") as caught:
        run(train_call(tmp_path, PAIRS))
    assert "orpo" in caught.value.hint


@pytest.mark.parametrize(
    "optimizer", ["adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"]
)
def test_every_optimizer_moves_the_weights_its_own_way(tmp_path: Path, optimizer: str) -> None:
    losses = []
    for name in ("adamw", optimizer):
        (tmp_path / name).mkdir()
        model = random_model(**WIDE | {"hidden_size": 128})
        call = train_call(tmp_path / name, optimizer=name, model=model, steps=4)
        run(call)
        losses.append([line["loss"] for line in log_of(call)])
    assert losses[0][0] == losses[1][0]
    if optimizer != "paged_adamw":  # the same arithmetic, elsewhere
        assert losses[0][2:] != losses[1][2:]


def test_the_held_out_loss_is_the_models_own_on_examples_it_never_saw(tmp_path: Path) -> None:
    call = train_call(
        tmp_path, validation={"share": 0.25, "every_steps": 2}, batch_size=3, epochs=2
    )
    result = run(call)
    assert result.counts["held_out"] == 3
    assert result.counts["examples"] == 9
    lines = [line for line in log_of(call) if "held_out_loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    final = result.metrics["held_out_loss"]
    assert final.value == lines[-1]["held_out_loss"]
    assert final.examples == 3
    bits = result.metrics["bits_per_byte"]
    # One byte a token here, but the end tokens, which have nats and no byte.
    assert bits.bytes == final.tokens - 3
    assert bits.value * bits.bytes == pytest.approx(final.value * final.tokens / 0.6931471805599453)


def test_measuring_held_out_examples_changes_no_weight(tmp_path: Path) -> None:
    digests = []
    for every in (None, 1):
        (tmp_path / str(every)).mkdir()
        call = train_call(
            tmp_path / str(every), validation={"share": 0.25, "every_steps": every}, method="qlora",
            model=random_model(**WIDE),
        )  # fmt: skip
        run(call)
        digests.append((call.folder / "model" / "adapter_model.safetensors").read_bytes())
    assert digests[0] == digests[1]


def test_a_warm_up_share_is_rounded_up_to_whole_steps(tmp_path: Path) -> None:
    call = train_call(tmp_path, warmup_ratio=0.3, scheduler="constant_with_warmup", steps=5)
    run(call)
    rates = [round(line["learning_rate"] / 5e-3, 3) for line in log_of(call)]
    assert rates == [0, 0.5, 1, 1, 1]


@pytest.mark.parametrize("warmup_steps", [1, 2, 10, 100])
def test_warmup_lr_gives_the_rates_of_deepspeeds_class(warmup_steps: int) -> None:
    from deepspeed.runtime.lr_schedules import WarmupLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = WarmupLR(optimizer, warmup_max_lr=1.0, warmup_num_steps=warmup_steps)
    for step in range(warmup_steps + 5):
        assert warmup_lr(step, warmup_steps) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_warmup_lr_is_what_the_log_shows(tmp_path: Path) -> None:
    call = train_call(tmp_path, scheduler="warmup_lr", warmup_steps=4, steps=6)
    run(call)
    rates = [line["learning_rate"] / 5e-3 for line in log_of(call)]
    assert rates == pytest.approx([warmup_lr(step, 4) for step in range(6)])


def test_study_003s_deepspeed_set_up_is_told_as_it_stands() -> None:
    params = Train.model_validate(
        {
            "learning_rate": 1e-5, "weight_decay": 3e-7, "betas": [0.8, 0.999],
            "scheduler": "warmup_lr", "warmup_steps": 100, "batch_size": 8, "accumulation": 2,
            "deepspeed": {"stage": 2, "offload_optimizer": True},
        }
    )  # fmt: skip
    told = config(params)
    assert told is not None
    assert told["zero_optimization"] == {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    assert told["optimizer"] == {
        "type": "AdamW",
        "params": {
            "lr": 1e-5, "betas": [0.8, 0.999], "eps": 1e-8, "weight_decay": 3e-7,
            "torch_adam": False,
        },
    }  # fmt: skip
    assert told["gradient_accumulation_steps"] == 2


def test_a_diverged_training_keeps_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The second step's update breaks the weights, which the third step's loss shows."""
    call = train_call(
        tmp_path, learning_rate=1e30, max_grad_norm=None, scheduler="constant_with_warmup",
        warmup_steps=1, checkpoint_steps=1, steps=9,
    )  # fmt: skip
    with pytest.raises(HarnessError, match=r"diverged: .* at step 3 of 9") as caught:
        run(call)
    assert "The checkpoint at step 1 is kept" in caught.value.message
    (kept,) = (call.folder / "checkpoints").iterdir()
    assert kept.name == "checkpoint-1"
    weights = load_file(kept / "model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())


def a_folder(tmp_path: Path) -> Path:
    """A local model that bitsandbytes can quantise."""
    source = ModelSource.model_validate(random_model(**WIDE))
    tokenizer = bytes_tokenizer()
    model = load_model(source, {}, tokenizer, "float32", "cpu")
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("lacking", ["layernorm", "q_proj.bias", "down_proj.weight"])
def test_a_base_that_lacks_tensors_is_not_quantised(tmp_path: Path, lacking: str) -> None:
    base = a_folder(tmp_path)
    weights = load_file(base / "model.safetensors")
    left = {name: weight for name, weight in weights.items() if lacking not in name}
    assert len(left) < len(weights)
    save_file(left, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack|cannot be loaded"):
        run(train_call(tmp_path, model={"path": str(base)}, method="qlora"))


def test_a_broken_base_is_told_in_a_sentence_under_qlora_too(tmp_path: Path) -> None:
    base = a_folder(tmp_path)
    (base / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(InputError, match="cannot be loaded"):
        run(train_call(tmp_path, model={"path": str(base)}, method="qlora"))


def test_a_last_update_that_breaks_the_weights_leaves_no_model(tmp_path: Path) -> None:
    call = train_call(tmp_path, steps=1, learning_rate=3e38, validation={"share": 0.2})
    with pytest.raises(HarnessError, match="diverged: the trained weights' value is nan"):
        run(call)
    assert not (call.folder / "model").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_loss_in_bfloat16_is_summed_in_float32(tmp_path: Path, method: str) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        (tmp_path / precision).mkdir()
        rows = [{"instruction": f"{n}", "output": f"answer {n} " * 9} for n in range(64)]
        call = train_call(
            tmp_path / precision, rows, model=random_model(**WIDE), method=method,
            precision=precision, steps=1, batch_size=64,
        )  # fmt: skip
        run(call)
        found.append(log_of(call)[0]["loss"])
    assert found[1] == pytest.approx(found[0], rel=5e-4)
    assert found[1] != found[0]


def test_the_output_head_gets_no_adapter(tmp_path: Path) -> None:
    model = random_model(tie_word_embeddings=False)
    call = train_call(tmp_path, model=model, method="lora", lora={"target_modules": ["lm_head"]})
    with pytest.raises(InputError, match="no linear layer lm_head") as caught:
        run(call)
    assert "lm_head" not in caught.value.hint


def test_a_signal_leaves_a_checkpoint_at_the_present_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from harness.train import checkpoints
    from harness.train.loop import Trainer

    whole = train_call(tmp_path, batch_size=2, epochs=3)
    run(whole)
    expected = (whole.folder / "model" / "model.safetensors").read_bytes()
    (tmp_path / "cut").mkdir()
    call = train_call(tmp_path / "cut", batch_size=2, epochs=3)
    steps = []
    real = Trainer.compute_loss

    def interrupted(self: Any, *given: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "compute_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(call)
    kept = checkpoints.newest(call.folder / "checkpoints")
    assert kept is not None
    assert kept.step == 7
    run(call)
    assert (call.folder / "model" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("damaged", ["optimizer.pt", "trainer_state.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(
    tmp_path: Path, damaged: str, how: str
) -> None:
    from harness.train import checkpoints

    call = train_call(tmp_path, batch_size=2, checkpoint_steps=2)
    run(call)
    expected = (call.folder / "model" / "model.safetensors").read_bytes()
    file = call.folder / "checkpoints" / "checkpoint-10" / damaged
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    kept = checkpoints.newest(call.folder / "checkpoints")
    assert kept is not None
    assert kept.step == 8
    run(call)
    assert (call.folder / "model" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_inputs_stay_in_half_precision_and_the_weights_are_the_same_bits(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would cast each to float32, and autocast back again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from harness.train import loop

    plain = BaseTunerLayer._cast_input_dtype
    dtypes: list[torch.dtype] = []

    def watched(self: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        out = plain(self, x, dtype)
        dtypes.append(out.dtype)
        return out

    monkeypatch.setattr(BaseTunerLayer, "_cast_input_dtype", watched)
    adapters = []
    for name, lora in (("off", {}), ("dropout", {"dropout": 0.1}), ("on", {})):
        (tmp_path / name).mkdir()
        dtypes.clear()
        if name == "on":
            monkeypatch.setattr(loop, "_is_cast_by_autocast", lambda _: False)
        call = train_call(
            tmp_path / name, model=random_model(**WIDE), method=method, precision="bfloat16",
            lora=lora, steps=2, validation={"share": 0.2},
        )  # fmt: skip
        run(call)
        assert set(dtypes) == {torch.bfloat16 if name == "off" else torch.float32}
        adapters.append((call.folder / "model" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[2] != adapters[1]
