"""Held-out loss: the train stage's own number, what it is over, and how far it can be trusted."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.held_out_loss import judge as judge_loss
from harness.judge.kinds.held_out_loss.judge import losses_of, ratio
from harness.modeling.load import bytes_tokenizer, load_model
from harness.results import losses as report
from harness.spec.model_source import ModelSource
from harness.train import run as train
from tests.answer.decoding.test_masks import Reads
from tests.modeling.calls import (
    EXAMPLES,
    encode_example,
    random_model,
    template,
    train_call,
    write_jsonl,
)

ROWS = [{k: v for k, v in row.items() if k != "input"} for row in EXAMPLES]


def loss_call(
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    trained: Path | None = None,
    model: dict[str, Any] | None = None,
    prompt: dict[str, Any] | None = None,
    **judged: Any,
) -> StageCall:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    examples = {"file": str(write_jsonl(folder / "held_out.jsonl", ROWS if rows is None else rows))}
    settings = {"kind": "held_out_loss", "examples": examples, "threads": 1}
    settings["template"] = prompt or template()
    return StageCall(
        stage="judge",
        key="0" * 64,
        params={"judge": settings | judged, "model": model or random_model()},
        inputs={"model": str(trained)} if trained else {},
        work=str(folder / "work"),
    )


def kept(call: StageCall) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (call.folder / "losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", ["sft", "orpo"])
def test_the_numbers_are_those_of_the_train_stage_for_the_same_model_and_examples(
    tmp_path: Path, objective: str
) -> None:
    rows = [dict(row) for row in EXAMPLES]
    settings: dict[str, Any] = {"steps": 3}
    if objective == "orpo":
        rows = [
            {"instruction": r["instruction"], "input": "", "chosen": r["output"], "rejected": "zz"}
            for r in EXAMPLES
        ]
        settings |= {"objective": "orpo"}
    held_out = write_jsonl(tmp_path / "other.jsonl", rows)
    call = train_call(
        tmp_path, rows, validation={"file": {"path": str(held_out)}, "every_steps": 1}, **settings
    )
    trained = train.run(call)
    result = judge.run(loss_call(tmp_path / "loss", trained=call.folder))
    for name in ("held_out_loss", "bits_per_byte"):
        ours, theirs = result.metrics[name], trained.metrics[name]
        assert ours.value == pytest.approx(theirs.value, rel=1e-6)
        counts = {k: v for k, v in theirs.to_json().items() if k != "value"}
        assert counts.items() <= ours.to_json().items()
    assert result.metrics.keys() == {report.LOSS, report.BITS}
    assert "base_model" not in result.used


def test_each_examples_loss_is_that_of_its_answer_and_its_end_alone(tmp_path: Path) -> None:
    call = loss_call(tmp_path, batch_size=5)
    result = judge.run(call)
    tokenizer = bytes_tokenizer()
    source = ModelSource.model_validate(call.params["model"])
    model = load_model(source, {}, tokenizer, "float32", "cpu")
    for row, example in zip(kept(call), ROWS, strict=True):
        prompt = f"Q: {example['instruction']}\nA:"
        ids, labels = encode_example(tokenizer, prompt, example["output"])
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        places = [i for i, label in enumerate(labels) if label >= 0]
        assert row["nats"] == pytest.approx(-sum(float(logs[i - 1, ids[i]]) for i in places))
        assert (row["tokens"], row["bytes"]) == (len(places), len(places) - 1)
    assert result.notes == ["only 12 examples: their loss says little",
                            "the model had random weights and no training"]  # fmt: skip
    assert result.counts["examples"] == result.counts["records"] == 12


@pytest.mark.parametrize("limit", [None, 300 * 12])
def test_the_batches_do_not_change_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    if limit is not None:
        monkeypatch.setattr(judge_loss, "MOST_LOGITS", limit)
    one = judge.run(loss_call(tmp_path / "one", batch_size=1)).metrics
    all_ = judge.run(loss_call(tmp_path / "all", batch_size=12)).metrics
    for name, metric in one.items():
        assert metric.value == pytest.approx(all_[name].value, rel=1e-6)


def test_a_batchs_losses_are_read_from_the_device_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads = judge_loss._batch_nats, []

    def counted(model: Any, batch: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad(), Reads() as read:
            nats = real(model, batch)
        reads.append(len(read.found))
        return nats

    monkeypatch.setattr(judge_loss, "_batch_nats", counted)
    for size in (1, 12):
        judge.run(loss_call(tmp_path / str(size), batch_size=size))
    # The library's mask of whole texts is looked at once or twice, the losses of all of them once.
    assert max(reads) <= 3


def test_a_model_whose_forward_cannot_leave_logits_out_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Qwen2ForCausalLM

    usual = judge.run(loss_call(tmp_path / "usual")).metrics
    real = Qwen2ForCausalLM.forward

    def forward(self: Any, input_ids: Any, attention_mask: Any, use_cache: Any) -> Any:
        return real(self, input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", forward)
    plain = judge.run(loss_call(tmp_path / "plain")).metrics
    assert plain["held_out_loss"].value == pytest.approx(usual["held_out_loss"].value)


def test_what_is_cut_or_dropped_is_counted_and_said(tmp_path: Path) -> None:
    rows = [
        {"instruction": "a", "output": "tea tea"},
        {"instruction": "b" * 60, "output": "none of it is left"},
        {"instruction": "c", "output": "é" * 20},
        {"instruction": "d", "output": "  "},
    ]
    call = loss_call(tmp_path, rows, cutoff_length=20)
    result = judge.run(call)
    first, dropped, cut, blank = kept(call)
    prompt = len("Q: a\nA:")
    assert (first["tokens"], first["bytes"], first["cut"]) == (8, 7, False)
    assert (dropped["tokens"], dropped["bytes"], dropped["nats"]) == (0, 0, 0.0)
    assert (blank["tokens"], blank["nats"]) == (0, 0.0)
    assert (cut["tokens"], cut["cut"]) == (20 - prompt, True)
    # 13 bytes of it are left: six letters of two bytes, and the half of a seventh.
    assert cut["bytes"] in (12, 13, 15)
    metric = result.metrics["held_out_loss"]
    assert (metric.judged, metric.expected, metric.tokens) == (2, 4, 8 + 13)
    assert metric.value == pytest.approx((first["nats"] + cut["nats"]) / 21)
    assert {f.kind for f in result.findings} == {"dropped_rows", "empty_or_truncated"}
    assert "2 of 4 examples have an empty answer" in result.findings[0].message
    assert result.counts["truncated"] == 1


def test_the_standard_error_is_that_of_a_ratio_over_examples() -> None:
    value, error = ratio([2.0, 6.0, 4.0], [1.0, 2.0, 3.0])
    assert value == 2.0
    # Residuals 0, 2 and -2.
    assert error == pytest.approx(math.sqrt(3 / 2 * 8) / 6)
    same = [1.0, 1.0, 1.0, 1.0]
    value, error = ratio([1.0, 2.0, 3.0, 4.0], same)
    assert error == pytest.approx(1.2909944487358056 / 2), "of equal sizes it is the mean's"
    assert ratio([1.0], [2.0]) == (0.5, None)


def test_the_standard_error_is_the_spread_over_drawn_sets() -> None:
    import random

    draw = random.Random(0)

    def rows() -> list[dict[str, Any]]:
        found = []
        for index in range(100):
            tokens = draw.randint(1, 40)
            nats = tokens * draw.uniform(1, 3)
            found.append({"index": index, "nats": nats, "tokens": tokens, "bytes": 3 * tokens})
        return found

    drawn = [losses_of(rows())["held_out_loss"] for _ in range(400)]
    values = [d.value for d in drawn]
    mean = sum(values) / 400
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / 399)
    told = sum(d.standard_error for d in drawn) / 400
    assert told == pytest.approx(spread, rel=0.1)


def test_bits_a_byte_are_nats_over_the_texts_bytes() -> None:
    rows = [{"index": 0, "nats": 8 * math.log(2), "tokens": 3, "bytes": 4}] * 2
    metric = losses_of(rows)["bits_per_byte"]
    assert metric.value == pytest.approx(2.0)
    assert metric.bytes == 8
    assert losses_of([{"index": 0, "nats": 0.0, "tokens": 0, "bytes": 0}]) == {}


def test_examples_of_a_simulated_teacher_are_marked(tmp_path: Path) -> None:
    assert judge.run(loss_call(tmp_path / "a")).simulated == []
    rows = [{**row, "simulated": True} for row in ROWS]
    assert judge.run(loss_call(tmp_path / "b", rows)).simulated == ["teacher"]


def test_each_of_several_sets_has_its_own_loss(tmp_path: Path) -> None:
    files = {
        name: {"path": str(write_jsonl(tmp_path / f"{name}.jsonl", part))}
        for name, part in (("a", ROWS[:4]), ("b", ROWS[4:]))
    }
    call = loss_call(tmp_path, examples={"files": files})
    metrics = judge.run(call).metrics
    alone = judge.run(loss_call(tmp_path / "alone", ROWS[4:])).metrics["held_out_loss"]
    assert metrics["held_out_loss/b"].value == pytest.approx(alone.value, rel=1e-6)
    assert metrics["held_out_loss/b"].judged == 8
    assert metrics["held_out_loss"].judged == 12
    assert {row["dataset"] for row in kept(call)} == {"a", "b"}


def test_an_interrupted_run_goes_on_to_the_same_file_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loss_call(tmp_path / "whole", batch_size=3)
    judge.run(whole)
    cut = loss_call(tmp_path / "cut", batch_size=3)
    real, asked = judge_loss._batch_nats, []

    def third_fails(model: Any, batch: Any) -> Any:
        asked.append([sequence.number for sequence in batch])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(model, batch)

    monkeypatch.setattr(judge_loss, "_batch_nats", third_fails)
    with pytest.raises(KeyboardInterrupt):
        judge.run(cut)
    with (cut.folder / "measured.jsonl").open("a") as file:
        file.write("[[1, 0.5], [2")
    judge.run(cut)
    name = "losses.jsonl"
    assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert len(asked) == 5
    assert asked[3] == asked[2]


def test_a_replay_makes_the_file_again_without_model_or_examples(tmp_path: Path) -> None:
    call = loss_call(tmp_path, cutoff_length=16)
    result = judge.run(call)
    again = loss_call(tmp_path / "again", cutoff_length=16, model={"path": {"path": "nowhere"}})
    (tmp_path / "again" / "held_out.jsonl").unlink()
    inputs = {"recorded": str(call.folder)}
    again = StageCall(**{**vars(again), "replay": True, "inputs": inputs})
    replayed: StageResult = judge.run(again)
    name = "losses.jsonl"
    assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes()
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    assert replayed.findings == result.findings
    assert replayed.keep == result.keep == [name]


def test_progress_counts_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.artefact import events

    told: list[tuple[int, int]] = []
    monkeypatch.setattr("harness.artefact.events.SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(events, "progress", lambda _, done, of, *a, **k: told.append((done, of)))
    judge.run(loss_call(tmp_path, batch_size=5))
    assert told == [(0, 12), (5, 12), (10, 12), (12, 12)]


def test_a_model_whose_loss_is_no_number_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_loss, "_batch_nats", lambda _, b: [math.inf] * len(b))
    with pytest.raises(HarnessError, match="the model's loss on example 8 is inf"):
        judge.run(loss_call(tmp_path, batch_size=3))


@pytest.mark.parametrize(
    ("rows", "settings", "fault"),
    [
        ([ROWS[0], {"instruction": "b", "output": None}, {"instruction": "c", "output": None}], {},
         "2 of 3 examples have no answer .* the first is example 1: 'b'"),
        ([{"instruction": "a", "output": "b" * 200}], {},
         "example 0 has 208 tokens, the model takes 128"),
        ([{"instruction": "a" * 50, "output": "b"}], {"cutoff_length": 20},
         "of none of the 1 examples is a token of the answer left"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_measured_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises((InputError, HarnessError), match=fault):
        judge.run(loss_call(tmp_path, rows, **settings))


def test_bfloat16_measures_too(tmp_path: Path) -> None:
    half = judge.run(loss_call(tmp_path / "half", precision="bfloat16")).metrics["held_out_loss"]
    full = judge.run(loss_call(tmp_path / "full")).metrics["held_out_loss"]
    assert half.value == pytest.approx(full.value, rel=0.02)


def test_over_whole_texts_the_loss_is_the_train_stages_and_counts_the_prompts_too(
    tmp_path: Path,
) -> None:
    held_out = {"file": {"path": str(write_jsonl(tmp_path / "h.jsonl", ROWS))}, "over": "text"}
    call = train_call(tmp_path / "train", model=random_model(), steps=1, validation=held_out)
    trained = train.run(call).metrics
    judged = judge.run(loss_call(tmp_path / "judge", trained=call.folder, over="text")).metrics
    answers = judge.run(loss_call(tmp_path / "answers", trained=call.folder)).metrics
    for name in ("held_out_loss", "bits_per_byte"):
        assert judged[name].value == pytest.approx(trained[name].value, rel=1e-5)
        assert judged[name].tokens == trained[name].tokens
    tokenizer = bytes_tokenizer()
    texts = [f"Q: {row['instruction']}\nA:{row['output']}" for row in ROWS]
    # Every token but the first, the end included.
    assert judged["held_out_loss"].tokens == sum(len(tokenizer(t)["input_ids"]) for t in texts)
    assert (answers["held_out_loss"].tokens or 0) < (judged["held_out_loss"].tokens or 0)
    sizes = [len((row["instruction"] + row["output"]).encode()) for row in ROWS]
    assert judged["bits_per_byte"].bytes == sum(sizes)
