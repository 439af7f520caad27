"""What is trained on, what is written, and that an interrupted training loses nothing."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.artefact.call import StageCall, StageResult
from harness.artefact.manifest import MetricValue
from harness.errors import HarnessError, InputError
from harness.modeling.load import bytes_tokenizer, load_model
from harness.spec.model_source import ModelSource
from harness.spec.train import Train
from harness.train import checkpoints
from harness.train.loop import Trainer
from harness.train.run import run
from harness.train.schedule import expected_steps
from tests.modeling.calls import (
    EXAMPLES,
    IGNORED,
    encode_example,
    log_of,
    random_model,
    template,
    train_call,
    write_jsonl,
)


def made(call: StageCall) -> tuple[str, str]:
    """Digests of the weights and of the log."""
    names = ("model/model.safetensors", "trainer_log.jsonl")
    one, two = (hashlib.sha256((call.folder / name).read_bytes()).hexdigest() for name in names)
    return one, two


def reference_loss(ids_and_labels: list[tuple[list[int], list[int]]]) -> float:
    """Mean over the labelled tokens of -log p(token | the tokens before it), one text at a time."""
    source = ModelSource.model_validate(random_model(attention_dropout=0.0))
    model = load_model(source, {}, bytes_tokenizer(), "float32", "cpu")
    total, count = 0.0, 0
    for ids, labels in ids_and_labels:
        with torch.no_grad():
            said = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for at in range(1, len(ids)):
            if labels[at] != IGNORED:
                total -= said[at - 1, labels[at]].item()
                count += 1
    return total / count


def encoded() -> list[tuple[list[int], list[int]]]:
    tokenizer = bytes_tokenizer()
    return [
        encode_example(tokenizer, f"Q: {row['instruction']}\nA:", row["output"]) for row in EXAMPLES
    ]


@pytest.mark.parametrize(("batch_size", "accumulation"), [(12, 1), (3, 4)])
def test_the_loss_is_the_mean_over_answer_and_end_tokens_and_nothing_else(
    tmp_path: Path, batch_size: int, accumulation: int
) -> None:
    call = train_call(
        tmp_path,
        model=random_model(attention_dropout=0.0),
        batch_size=batch_size,
        accumulation=accumulation,
        steps=1,
    )
    result = run(call)
    assert log_of(call)[0]["loss"] == pytest.approx(reference_loss(encoded()), rel=1e-5)
    assert result.counts["tokens"] == sum(len(row["output"]) + 1 for row in EXAMPLES)
    whole_text = [(ids, ids) for ids, _ in encoded()]
    no_end = [(ids, [*labels[:-1], IGNORED]) for ids, labels in encoded()]
    for mistaken in (whole_text, no_end):
        assert log_of(call)[0]["loss"] != pytest.approx(reference_loss(mistaken), rel=1e-3)


def test_a_first_optimizer_step_moves_the_weights_as_adam_says(tmp_path: Path) -> None:
    call = train_call(
        tmp_path,
        model=random_model(attention_dropout=0.0),
        batch_size=12,
        steps=1,
        learning_rate=1e-3,
        scheduler="constant",
    )
    run(call)
    source = random_model(attention_dropout=0.0)
    before = load_model(
        ModelSource.model_validate(source), {}, bytes_tokenizer(), "float32", "cpu"
    ).state_dict()
    after = load_model(
        ModelSource.model_validate({"path": str(call.folder / "model")}),
        {},
        bytes_tokenizer(),
        "float32",
        "cpu",
    ).state_dict()
    moves = torch.cat([(after[n] - before[n]).abs().flatten() for n in before])
    # Adam's first step is the learning rate in the gradient's sign, less only where it is tiny.
    assert moves.max().item() == pytest.approx(1e-3, rel=1e-3)
    assert (moves > 0.9e-3).float().mean() > 0.8


def test_the_same_call_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        call = train_call(tmp_path / name, seed=seed)
        run(call)
        digests.append(made(call))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]


class Stop:
    """Interrupts the run when called for the n-th time, before or after what it stands in for."""

    def __init__(self, real: Callable[..., Any], n: int, after: bool = False):
        self.real, self.left, self.after = real, n, after

    def __get__(self, instance: Any, owner: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        result = self.real(*args, **kwargs)
        if self.left == 0:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize(
    ("where", "name", "nth", "after", "goes_on_from"),
    [
        # 12 examples, batches of 2 in threes: 2 steps an epoch, 8 in all, saved after 3 and 6.
        (Trainer, "training_step", 4, False, None),
        (Trainer, "training_step", 11, False, 3),
        (Trainer, "training_step", 23, False, 6),
        (Trainer, "_save_optimizer_and_scheduler", 2, True, 3),
        (checkpoints, "seal", 2, False, 3),
        (checkpoints, "seal", 2, True, 6),
    ],
)
def test_an_interrupted_training_ends_with_the_very_weights_of_an_uninterrupted_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[str, str],
    where: Any,
    name: str,
    nth: int,
    after: bool,
    goes_on_from: int | None,
) -> None:
    call = interruptible(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(where, name, Stop(getattr(where, name), nth, after))
        with pytest.raises(KeyboardInterrupt):
            run(call)
    log = call.folder / "trainer_log.jsonl"
    last = checkpoints.resume(call.folder / "checkpoints", log)
    assert (last.step if last else None) == goes_on_from
    for folder in (call.folder / "checkpoints").glob("*"):
        assert (folder / checkpoints.MARKER).exists(), "what was not finished is removed"
    result = run(call)
    assert made(call) == whole
    assert result.counts["steps"] == 8
    assert result.counts["tokens"] == log_of(call)[-1]["tokens"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    call = interruptible(tmp_path_factory.mktemp("whole"))
    run(call)
    return made(call)


def interruptible(folder: Path) -> StageCall:
    return train_call(
        folder, batch_size=2, accumulation=3, epochs=4, checkpoint_steps=3, scheduler="cosine"
    )


def steps_in_spite_of(
    monkeypatch: pytest.MonkeyPatch, where: str, stop: Stop, folder: Path, **settings: Any
) -> int:
    """Of a training that was stopped and gone on with, and that made what a whole one makes."""
    digests = []
    for name in ("whole", "cut"):
        (folder / name).mkdir()
        call = train_call(folder / name, **settings)
        if name == "cut":
            with monkeypatch.context() as patched:
                patched.setattr(where, stop)
                with pytest.raises(KeyboardInterrupt):
                    run(call)
        steps = run(call).counts["steps"]
        digests.append((made(call), steps))
    assert digests[0] == digests[1]
    return steps


def test_a_checkpoint_at_an_epochs_end_is_gone_on_from_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop(checkpoints.seal, 1, after=True)
    settings = {"epochs": 3, "checkpoint_steps": 3}
    steps_in_spite_of(monkeypatch, "harness.train.checkpoints.seal", stop, tmp_path, **settings)


def test_an_interruption_after_the_last_step_trains_no_step_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 1.5, "batch_size": 3, "checkpoint_steps": 2}
    where, stop = "harness.train.process._save", Stop(len, 1)
    assert steps_in_spite_of(monkeypatch, where, stop, tmp_path, **settings) == 6


def test_only_two_finished_checkpoints_are_kept(tmp_path: Path) -> None:
    call = train_call(tmp_path, batch_size=2, checkpoint_steps=2)
    run(call)
    kept = sorted(p.name for p in (call.folder / "checkpoints").iterdir())
    assert kept == ["checkpoint-10", "checkpoint-8"]


def test_the_counts_fit_together_and_say_what_was_dropped_and_cut(tmp_path: Path) -> None:
    rows = [
        {"instruction": "a", "output": "12345678901234567890"},
        {"instruction": "b", "input": "", "output": "short"},
        {"instruction": "c", "output": ""},
        {"instruction": "d", "output": " \n"},
        {"instruction": "e" * 60, "output": "the cut leaves nothing of this"},
    ]
    call = train_call(tmp_path, rows, cutoff_length=16, batch_size=1, epochs=3)
    result = run(call)
    prompt = len("Q: a\nA:")
    assert result.counts == {
        "records": 5,
        "examples": 2,
        "held_out": 0,
        "dropped_empty": 2,
        "dropped_marked": 0,
        "dropped_cut": 1,
        "truncated": 1,
        "special_tokens": 0,
        "special_in_answers": 0,
        "held_out_records": 0,
        "held_out_dropped": 0,
        "steps": 6,
        "tokens": 3 * ((16 - prompt) + len("short") + 1),
        "prompt_tokens": 3 * 2 * prompt,
    }
    assert result.notes[1:] == [
        "2 of 5 records were left out: they have an empty answer",
        "1 of 5 records were left out: they have no answer left within 16 tokens",
        "1 of 2 examples were cut to 16 tokens",
    ]
    assert [row["step"] for row in log_of(call)] == [1, 2, 3, 4, 5, 6]
    assert log_of(call)[-1]["tokens"] == result.counts["tokens"]


@pytest.mark.parametrize(
    ("settings", "examples", "steps"),
    [
        ({"epochs": 1, "batch_size": 4}, 12, 3),
        ({"epochs": 1, "batch_size": 5}, 12, 3),
        ({"epochs": 3, "batch_size": 5, "accumulation": 2}, 12, 6),
        ({"epochs": 0.5, "batch_size": 5}, 12, 2),
        ({"epochs": 1.25, "batch_size": 2}, 12, 8),
        ({"steps": 7}, 12, 7),
    ],
)
def test_as_many_steps_are_run_as_the_parameters_say(
    tmp_path: Path, settings: dict[str, Any], examples: int, steps: int
) -> None:
    assert expected_steps(Train.model_validate(settings), examples) == steps
    assert run(train_call(tmp_path, **settings)).counts["steps"] == steps


def test_the_artefact_is_a_model_a_log_and_what_is_said_of_them(tmp_path: Path) -> None:
    call = train_call(tmp_path, warmup_steps=2, learning_rate=1e-3, seed=7)
    result = run(call)
    assert result.keep == [
        "model", "trainer_log.jsonl", "template.json", "loss_curve.png", "README.md",
    ]  # fmt: skip
    assert all((call.folder / name).exists() for name in result.keep)
    assert {p.name for p in (call.folder / "model").iterdir()} == {
        "base_chat_template.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    log = log_of(call)
    assert [round(row["learning_rate"], 6) for row in log[:3]] == [0.0, 0.0005, 0.001]
    assert result.metrics == {"train_loss": MetricValue(value=log[-1]["loss"])}
    assert result.used["base_model"] == "random"
    assert result.used["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert result.used["threads"] == 1
    assert result.used["parameters"] > 10_000
    assert result.seeds == {"train": 7, "model": 0}
    assert result.simulated == []
    assert result.notes == ["the base model had random weights"]
    config = json.loads((call.folder / "model" / "config.json").read_text())
    assert config["dtype"] == "float32"


def test_training_learns_what_it_is_shown(tmp_path: Path) -> None:
    call = train_call(tmp_path, epochs=40, model=random_model(attention_dropout=0.0))
    run(call)
    log = log_of(call)
    assert log[0]["loss"] > 4
    assert log[-1]["loss"] < 0.5


def test_bfloat16_is_mixed_precision_with_float32_weights(tmp_path: Path) -> None:
    digests = []
    for precision in ("float32", "bfloat16"):
        (tmp_path / precision).mkdir()
        call = train_call(tmp_path / precision, precision=precision)
        run(call)
        config = json.loads((call.folder / "model" / "config.json").read_text())
        assert config["dtype"] == "float32"
        digests.append(made(call)[0])
    assert digests[0] != digests[1]


def test_gradient_checkpointing_saves_memory_and_changes_nothing(tmp_path: Path) -> None:
    losses = []
    for switched in (False, True):
        (tmp_path / str(switched)).mkdir()
        call = train_call(
            tmp_path / str(switched),
            gradient_checkpointing=switched,
            model=random_model(attention_dropout=0.0),
        )
        run(call)
        losses.append([row["loss"] for row in log_of(call)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    call = train_call(tmp_path, learning_rate=1e30, max_grad_norm=1e9, checkpoint_steps=1)
    with pytest.raises(HarnessError, match=r"diverged: .* is (nan|inf) at step \d+ of 6") as caught:
        run(call)
    assert caught.value.exit_code == 1
    assert "learning_rate" in caught.value.hint
    assert not (call.folder / "model").exists()
    assert len(log_of(call)) < 6


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (
            [{"instruction": "a", "output": "b"}, {"instruction": "a"}],
            r"data\.jsonl:2: no `output`",
        ),
        ([{"prompt": "a", "output": "b"}], r"data\.jsonl:1: no `instruction`"),
        ([{"instruction": "a", "output": None}], r"data\.jsonl:1: `output` must be a text"),
        ([{"instruction": "a", "output": ""}], "none of the 1 records can be trained on"),
        ([], "holds no records"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        run(train_call(tmp_path, rows))


def test_examples_longer_than_the_model_takes_are_refused(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b" * 300}]
    with pytest.raises(InputError, match=r"has 308 tokens, the model takes 128") as caught:
        run(train_call(tmp_path, rows))
    assert "128" in caught.value.hint


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_given_data_set_is_read_where_the_row_says(tmp_path: Path, as_folder: bool) -> None:
    call = train_call(tmp_path, steps=1)
    given = write_jsonl(tmp_path / "given" / "data.jsonl", EXAMPLES[:3])
    path = given.parent if as_folder else given
    params = call.params | {"data": {"path": str(path), "sha256": None}}
    result = run(StageCall("train", call.key, params, {}, call.work))
    assert result.counts["examples"] == 3


def test_the_prompt_follows_the_template_input_included(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1 2", "output": "3"}]
    result: StageResult = run(
        train_call(tmp_path, rows, prompt=template("<{instruction}|{input}>\n"), steps=1)
    )
    assert result.counts["prompt_tokens"] == len("<Add.|1 2>")


def test_what_libraries_say_of_a_full_disk_becomes_an_os_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is Linux's")
    monkeypatch.setattr(checkpoints, "FULL_BELOW", 2**63)
    with pytest.raises(OSError) as caught, checkpoints.honest_disk_faults(tmp_path):  # noqa: PT011
        torch.save({"weights": torch.zeros(2**16)}, "/dev/full")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="other"), checkpoints.honest_disk_faults(tmp_path):
        raise RuntimeError("other")
