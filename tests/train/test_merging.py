"""On a GPU with room a step's micro-batches are run at once: the same training, and said."""

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError
from harness.spec.train import Train
from harness.train import loop, micro_batching
from harness.train.run import run
from tests.modeling.calls import log_of, random_model, train_call

GIB = 2**30


def trained(
    folder: Path,
    free: float | None,
    monkeypatch: pytest.MonkeyPatch,
    whole: float = GIB,
    **settings: Any,
) -> tuple[StageResult, list[dict[str, Any]]]:
    """With so much room on a GPU, which the CPU stands in for; None: on a CPU."""
    folder.mkdir()
    room = None if free is None else loop._Room(free, whole)
    monkeypatch.setattr(loop, "_room", lambda _: room)
    result = run(call := a_call(folder, **settings))
    return result, log_of(call)


def a_call(folder: Path, dropout: float = 0.0, **settings: Any) -> StageCall:
    model = random_model(attention_dropout=dropout)
    return train_call(folder, model=model, batch_size=2, accumulation=3, **settings)


def micro_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of examples in each micro-batch from here on."""
    found: list[int] = []
    plain = loop.Trainer.compute_loss

    def counted(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        found.append(inputs["batch"].sequences)
        return plain(self, model, inputs, *rest, **more)

    monkeypatch.setattr(loop.Trainer, "compute_loss", counted)
    return found


def test_a_step_that_has_room_is_one_micro_batch_with_the_same_losses_and_the_manifest_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = micro_batches(monkeypatch)
    apart, log = trained(tmp_path / "apart", None, monkeypatch)
    assert sizes == [2] * 3 * len(log)
    assert "micro_batches" not in apart.used
    sizes.clear()
    merged, merged_log = trained(tmp_path / "merged", GIB, monkeypatch)
    assert sizes == [6] * len(log)
    assert merged.used["micro_batches"] == [{"steps": [1, len(log)], "of_a_step": 1, "examples": 6}]
    assert any(
        f"6 examples at once in the steps 1 to {len(log)}, not 2" in note for note in merged.notes
    )
    assert merged.counts == apart.counts
    losses = [line["loss"] for line in log]
    assert [line["loss"] for line in merged_log] == pytest.approx(losses, rel=1e-5)
    assert [line["tokens"] for line in merged_log] == [line["tokens"] for line in log]


@pytest.mark.parametrize(
    ("second", "reason"), [(2**10, "others' use of the GPU"), (None, "of another size")]
)
def test_each_choice_of_a_training_that_was_gone_on_with_stands_in_the_manifest_with_its_steps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: float | None,
    reason: str,
) -> None:
    """Killed after step 3, and a checkpoint at step 2: step 3 is run again as the second chose."""
    plain = loop.Trainer.compute_loss
    calls = 0

    def dies(self: Any, *given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return plain(self, *given, **named)

    call = a_call(tmp_path, steps=5, checkpoint_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_room", lambda _: loop._Room(GIB, GIB))
        patch.setattr(loop.Trainer, "compute_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            run(call)
    room = None if second is None else loop._Room(second, GIB)
    monkeypatch.setattr(loop, "_room", lambda _: room)
    result = run(call)
    assert result.used["micro_batches"] == [
        {"steps": [1, 2], "of_a_step": 1, "examples": 6},
        {"steps": [3, 5], "of_a_step": 3, "examples": 2},
    ]
    assert not result.used["deterministic"]
    assert any(reason in note for note in result.notes)


def test_a_choice_of_steps_that_are_run_again_is_undone(tmp_path: Path) -> None:
    first, second = micro_batching.Dealt(0, 1, False), micro_batching.Dealt(4, 3, True)
    for dealt in (first, second, second._replace(after=6), first._replace(after=4)):
        micro_batching.begin(tmp_path, dealt)
    assert micro_batching.read(tmp_path) == [first]
    assert micro_batching.why_not_repeatable([first]) == []
    micro_batching.begin(tmp_path, second._replace(after=0))
    assert micro_batching.read(tmp_path) == [second._replace(after=0)]


@pytest.mark.parametrize("torn", ["", "[[0, 1, fal", "[3]", None])
def test_of_steps_whose_record_is_lost_nothing_is_claimed(tmp_path: Path, torn: str | None) -> None:
    if torn is not None:
        (tmp_path / micro_batching.FILE).write_text(torn)
    micro_batching.begin(tmp_path, micro_batching.Dealt(4, 3, False))
    dealt = micro_batching.read(tmp_path)
    params = Train.model_validate({"batch_size": 2, "accumulation": 3, "steps": 5})
    recorded = micro_batching.record(dealt, params, 5)
    assert recorded == [
        {"steps": [1, 4], "of_a_step": None, "examples": None},
        {"steps": [5, 5], "of_a_step": 3, "examples": 2},
    ]
    assert "in the steps 1 to 4 is not known" in micro_batching.note(recorded[0], params)
    (why,) = micro_batching.why_not_repeatable(dealt)
    assert "not known" in why
    micro_batching.begin(tmp_path, micro_batching.Dealt(0, 3, False))
    assert micro_batching.why_not_repeatable(micro_batching.read(tmp_path)) == []


def test_the_record_is_whole_on_the_disk_before_a_step_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    micro_batching.begin(tmp_path, micro_batching.Dealt(0, 3, False))
    assert synced
    assert [path.name for path in tmp_path.iterdir()] == [micro_batching.FILE]


def test_ranges_alike_in_size_are_one_whatever_decided_them() -> None:
    dealt = [
        micro_batching.Dealt(0, 3, False),
        micro_batching.Dealt(2, 3, True),
        micro_batching.Dealt(4, 1, False),
    ]
    params = Train.model_validate({"batch_size": 2, "accumulation": 3, "steps": 5})
    assert [each["steps"] for each in micro_batching.record(dealt, params, 5)] == [[1, 4], [5, 5]]


def test_where_others_on_the_gpu_decided_how_many_went_at_once_the_manifest_claims_no_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = trained(tmp_path / "alone", GIB, monkeypatch)
    assert result.used["deterministic"]
    result, _ = trained(tmp_path / "crowded", 1, monkeypatch)
    assert not result.used["deterministic"]
    assert any("others' use of the GPU decided" in note for note in result.notes)


@pytest.mark.parametrize(
    "settings",
    [
        {"merge_micro_batches": False}, {"dropout": 0.1}, {"packing": False},
        {"method": "lora", "lora": {"dropout": 0.1}},
    ],
    ids=["told so", "dropout", "padded", "adapters' dropout"],
)  # fmt: skip
def test_micro_batches_stay_as_they_are_where_that_is_said_or_another_result_would_come(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = micro_batches(monkeypatch)
    result, _ = trained(tmp_path / "run", GIB, monkeypatch, steps=1, **settings)
    assert sizes == [2] * 3
    assert "micro_batches" not in result.used


def test_without_room_micro_batches_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = micro_batches(monkeypatch)
    trained(tmp_path / "run", 2**10, monkeypatch, steps=1)
    assert sizes == [2] * 3


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()]
)
def test_a_gpu_that_the_estimate_took_for_larger_is_told_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Fewer examples at once leave the CPU no more room."""

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(loop.Trainer, "compute_loss", full)
    with pytest.raises(
        HarnessError, match="ran out while training on 6 examples at once"
    ) as caught:
        trained(tmp_path / "run", GIB, monkeypatch)
    is_gpus = not isinstance(error, MemoryError)
    assert ("merge_micro_batches: false, for 2 at once" in caught.value.hint) == is_gpus
    assert caught.value.hint


def test_the_room_is_what_is_free_or_held_and_never_all_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert loop._room("cpu") is None
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: GIB)
    for free, room in ((3 * GIB, 4 * GIB), (9 * GIB, 0.92 * 10 * GIB)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 10 * GIB))
        assert loop._room("cuda") == (room, 0.92 * 10 * GIB)
