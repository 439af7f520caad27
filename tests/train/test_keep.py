"""A training that keeps the weights of named steps, and what reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.answer.row_model import base_of
from harness.artefact.call import StageCall, model_input
from harness.modeling.load import load_tokenizer, trained_folder
from harness.modeling.memory.need import Need
from harness.modeling.memory.shapes import from_config
from harness.row.load import SpecFaults, load_rows
from harness.row.twin import scaled
from harness.spec.train import Train
from harness.train import checkpoints
from harness.train.run import run
from tests.helpers import InstantExecutor, make, planned, write_row
from tests.modeling.calls import random_model, train_call

JUDGE = {"kind": "held_out_loss", "examples": {"file": "seeds.jsonl"}}


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model" / name))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def kept_call(folder: Path, **params: Any) -> StageCall:
    settings = {"scheduler": "constant", "batch_size": 2, "accumulation": 1, **params}
    return train_call(folder, model=random_model(), **settings)


def test_the_weights_of_a_kept_step_are_those_of_a_training_that_ends_there(
    tmp_path: Path,
) -> None:
    whole = kept_call(tmp_path / "whole", steps=6, keep=[2, 4])
    result = run(whole)
    assert result.keep[:3] == ["model", "trainer_log.jsonl", "kept"]
    assert result.used["kept_steps"] == [2, 4]
    for step in (2, 4):
        alone = kept_call(tmp_path / f"alone {step}", steps=step)
        run(alone)
        folder = model_input(whole.folder, {"checkpoint": step})
        assert same(weights(folder), weights(alone.folder))
        trained = trained_folder({"model": str(folder)})
        assert trained is not None
        names = {p.name for p in (alone.folder / "model").iterdir()}
        assert {p.name for p in trained.iterdir()} == names
        assert load_tokenizer(_source(whole), {"model": str(folder)}).eos_token_id is not None
    assert not same(weights(whole.folder), weights(whole.folder / "kept" / "4"))


def _source(call: StageCall) -> Any:
    from harness.spec.model_source import ModelSource

    return ModelSource.model_validate(call.params["model"])


@pytest.mark.parametrize("merge", [False, True])
def test_of_an_adapters_training_the_adapters_are_kept_or_the_merged_models(
    tmp_path: Path, merge: bool
) -> None:
    lora = {"rank": 2, "merge": merge}
    call = kept_call(tmp_path, steps=3, keep=[1], method="lora", lora=lora, learning_rate=0.1)
    run(call)
    name = "model.safetensors" if merge else "adapter_model.safetensors"
    kept, last = weights(call.folder / "kept" / "1", name), weights(call.folder, name)
    assert kept.keys() == last.keys()
    assert not same(kept, last)


def test_a_resumed_training_has_the_kept_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (
        kept_call(tmp_path / name, steps=6, keep=[2, 4], checkpoint_steps=3)
        for name in ("whole", "stopped")
    )
    run(whole)
    save = checkpoints.keep

    def cut_short(kept: Path, step: int, write: Any) -> None:
        if step == 4:
            write(kept / "4.part")
            raise KeyboardInterrupt
        save(kept, step, write)

    with monkeypatch.context() as patch:
        patch.setattr("harness.train.checkpoints.keep", cut_short)
        with pytest.raises(KeyboardInterrupt):
            run(stopped)
    assert not (stopped.folder / "kept" / "4").exists()
    run(stopped)
    assert sorted(p.name for p in (stopped.folder / "kept").iterdir()) == ["2", "4"]
    for step in ("2", "4"):
        assert same(weights(stopped.folder / "kept" / step), weights(whole.folder / "kept" / step))


def test_whether_the_base_of_a_kept_adapter_was_quantised_is_read_from_the_artefacts_manifest(
    tmp_path: Path,
) -> None:
    document = {"params": {"train": {"quantization": {"type": "nf4", "double": True}}}}
    (tmp_path / "manifest.json").write_text(json.dumps({"document": document}))
    inputs = {"model": str(model_input(tmp_path, {"checkpoint": 2}))}
    call = StageCall("answer", "", {"checkpoint": 2}, inputs, str(tmp_path / "work"))
    [deviation] = base_of(call).deviations
    assert deviation.startswith("the adapter is on the unquantised base")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"epochs": 1, "keep": [2]}, "keep needs steps"),
        ({"steps": 5, "keep": [3, 2]}, "give each step once, in their order"),
        ({"steps": 5, "keep": [2, 5]}, "step 5 is not before the last one, 5"),
    ],
)
def test_steps_that_cannot_be_kept_are_refused(params: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Train(**params)


@pytest.mark.parametrize(
    ("step", "train", "fault"),
    [
        (3, {"steps": 5, "keep": [2, 4]}, "keeps the weights of step 2, 4, 5 and not of 3"),
        (6, {"steps": 5, "keep": [2]}, "step 6 is beyond the training's last, 5"),
        (3, {"epochs": 1}, "the training keeps no step 3: give train.steps"),
    ],
)
def test_a_checkpoint_that_the_training_does_not_keep_is_one_sentence_at_its_place(
    tmp_path: Path, step: int, train: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SpecFaults) as caught:
        load_rows([write_row(tmp_path, train=train, eval={"judge": JUDGE, "checkpoint": step})])
    [told] = caught.value.faults
    assert fault in str(told)


def test_a_twin_scores_the_same_share_of_its_few_steps(tmp_path: Path) -> None:
    train = {"steps": 5000, "keep": [500, 1500, 2500]}
    path = write_row(tmp_path, train=train, eval={"judge": JUDGE, "checkpoint": 2500})
    [loaded] = load_rows([path])
    twin = scaled(loaded).row
    assert twin.train is not None
    assert (twin.train.steps, twin.train.keep, twin.checkpoint) == (12, [1, 3, 6], 6)


def rows_of_one_training(folder: Path) -> list[Path]:
    train = {"steps": 5, "keep": [2, 4]}
    return [
        write_row(folder, f"row-{step}", train=train, eval={"judge": JUDGE, "checkpoint": step})
        for step in (2, 4, 5)
    ]


def test_rows_share_the_training_and_not_what_scores_its_steps(tmp_path: Path) -> None:
    plans = planned(tmp_path / "runs", *rows_of_one_training(tmp_path))
    stages = {
        stage: [s for p in plans for s in p.stages if s.stage == stage]
        for stage in ("train", "judge")
    }
    assert len({s.key for s in stages["train"]}) == 1
    assert len({s.key for s in stages["judge"]}) == 3
    assert [s.params.get("checkpoint") for s in stages["judge"]] == [2, 4, None]
    alone = write_row(tmp_path, "alone", train={"steps": 5}, eval={"judge": JUDGE})
    [plan] = planned(tmp_path / "runs", alone)
    assert plan.stages[-2].document["params"]["train"].keys().isdisjoint({"keep"})
    assert plan.stages[-2].key != stages["train"][0].key
    # A training's own losses are those of its last step.
    assert "train_loss" not in plans[0].row.metrics()


def test_each_step_is_read_where_it_is_kept_by_any_executor(tmp_path: Path) -> None:
    jobs: dict[str, Any] = {}

    def note(job: Any) -> dict[str, Any]:
        if job.stage == "judge":
            jobs[job.title.split()[1]] = job
        return {}

    make(tmp_path / "runs", *rows_of_one_training(tmp_path), executor=InstantExecutor(note))
    for row, end in (("row-2", "/kept/2"), ("row-4", "/kept/4"), ("row-5", "")):
        job = jobs[row]
        for folder in (job.inputs["model"], "/inputs/model"):
            placed = job.placed("/work", {"model": folder}, lambda data: data.path)
            assert placed.inputs == {"model": folder + end}


def test_the_room_of_kept_weights_is_needed_on_the_disk() -> None:
    shape = from_config({"model_type": "qwen2", "vocab_size": 100, "hidden_size": 8,
                         "intermediate_size": 16, "num_hidden_layers": 2,
                         "num_attention_heads": 2, "num_key_value_heads": 2})  # fmt: skip
    assert shape is not None
    whole = Need(Train(steps=5, keep=[2, 4]), shape)
    assert whole.kept == 2 * 4 * shape.parameters
    assert Need(Train(steps=5), shape).kept == 0
    lora = {"rank": 2}
    adapters = Need(
        Train.model_validate({"method": "lora", "lora": lora, "steps": 5, "keep": [2]}), shape
    )
    assert 0 < adapters.kept < 4 * shape.parameters
