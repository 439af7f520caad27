"""Answering and scoring whose memory runs out: told as that, and what is done is kept."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.answer import run as answer
from harness.answer.answer import Decoding
from harness.answer.decoding.decode import Decoder
from harness.answer.engines.transformers import TransformersEngine
from harness.artefact.call import StageCall
from harness.artefact.keys import Files, key_view
from harness.common.device_faults import OutOfMemory
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.held_out_loss import LossJudge
from harness.modeling.load import bytes_tokenizer, load_model, model_in
from harness.run import chat
from harness.spec.model_source import ModelSource
from tests.answer.decoding.test_decode import SMALL, model_of
from tests.common.test_device_faults import FAILED, MEMORY
from tests.judge.kinds.test_held_out_loss import loss_call
from tests.judge.kinds.test_lm_eval import tasks_call
from tests.modeling.calls import EXAMPLES, answer_call, outputs, random_model
from tests.run.test_chat import talk, trained
from tests.train.test_out_of_memory import HUGE, raising

KEPT = "With more memory free the same command goes on: what is done is kept."


def decoder_of(model: Any) -> Decoder:
    return Decoder(model, bytes_tokenizer(), Decoding(), [257], [], 4)


@pytest.mark.parametrize(
    "error", [*MEMORY.values(), FAILED["an index"]], ids=[*MEMORY, "a GPU that failed"]
)
def test_a_decoders_probe_without_memory_is_no_cache_that_cannot_be_joined(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model = model_of("qwen2", SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "_compare", raising(error))
        with pytest.raises(type(error)):
            decoder_of(model)
        patch.setattr(Decoder, "_compare", raising(RuntimeError("no such kernel")))
        assert "its cache cannot be joined" in decoder_of(model).note
    assert decoder_of(model).note == ""


@pytest.mark.parametrize(
    ("name", "what", "way_out"),
    [
        (
            "_compare",
            "trying the model with two prompts",
            "Take precision: bfloat16 or a smaller model, or a GPU with more memory free.",
        ),
        (
            "_read",
            "making 4 answers at a time",
            "Set eval.answer.engine.batch_size: 2, with which the stage begins anew: it is part of the "
            "key.",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["torch", "cuBLAS"])
def test_answers_whose_memory_runs_out_say_so_with_the_size_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str, way_out: str, kind: str
) -> None:
    call = answer_call(tmp_path, EXAMPLES, batch_size=4)
    works = getattr(Decoder, name)
    broken = raising(MEMORY[kind], works, calls=2 if name == "_read" else 0)
    with monkeypatch.context() as patch:
        # Not a partial: it is called as a method.
        patch.setattr(Decoder, name, lambda *args: broken(*args))
        with pytest.raises(OutOfMemory, match=f"(?m)memory ran out while {what}$") as caught:
            answer.run(call)
    assert caught.value.hint == f"{way_out} {KEPT}"
    done = call.folder / "outputs.jsonl"
    before = done.read_text().splitlines() if done.exists() else []
    assert len(before) == (4 if name == "_read" else 0)
    answer.run(call)
    assert done.read_text().splitlines()[: len(before)] == before
    assert len(outputs(call)) == len(EXAMPLES)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_answer_at_a_time_is_not_told_to_take_fewer_nor_half_precision_to_be_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, precision: str
) -> None:
    """Those are made alone too whose cache cannot be joined, whatever the row says."""
    if batch_size > 1:
        monkeypatch.setattr(Decoder, "_probe", lambda self: "no such cache")
    where = "_alone" if batch_size > 1 else "_together"
    monkeypatch.setattr(Decoder, where, raising(MEMORY["torch"]))
    call = answer_call(tmp_path, EXAMPLES, batch_size=batch_size, precision=precision)
    with pytest.raises(OutOfMemory, match=r"(?m)while making one answer at a time$") as caught:
        answer.run(call)
    less = "precision: bfloat16 or a smaller model" if precision == "float32" else "a smaller model"
    assert caught.value.hint == f"It was one at a time already: take {less}. {KEPT}"


def test_a_judges_batch_is_part_of_the_key_as_an_engines_is(tmp_path: Path) -> None:
    files = Files(tmp_path, None)
    judges = [
        LossJudge.model_validate({"examples": {"file": str(tmp_path)}, "batch_size": size})
        for size in (8, 4)
    ]
    assert judges[0].batch_size != judges[1].batch_size
    for kind in (TransformersEngine, LossJudge):
        assert not kind.model_fields["batch_size"].json_schema_extra
    engines = [key_view(TransformersEngine(batch_size=size), files) for size in (16, 8)]
    assert engines[0] != engines[1]


@pytest.mark.parametrize(
    ("make", "where", "what", "size"),
    [
        (
            loss_call,
            "harness.judge.kinds.held_out_loss.judge._batch_nats",
            "measuring 6 examples at a time",
            3,
        ),
        (
            lambda folder, **given: tasks_call(folder, ("arc_challenge",), **given),
            "harness.judge.kinds.lm_eval.package.last_logits",
            "scoring a batch of task arc_challenge",
            3,
        ),
    ],
)
@pytest.mark.parametrize("kind", ["torch", "cuBLAS"])
def test_a_judge_whose_memory_runs_out_says_so_with_the_size_to_try(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., StageCall],
    where: str,
    what: str,
    size: int,
    kind: str,
) -> None:
    call = make(tmp_path, batch_size=6)
    with monkeypatch.context() as patch:
        patch.setattr(where, raising(MEMORY[kind]))
        with pytest.raises(OutOfMemory, match=f"(?m)memory ran out while {what}$") as caught:
            judge.run(call)
    assert f"Set eval.judge.batch_size: {size}" in caught.value.hint
    assert KEPT in caught.value.hint
    judge.run(call)


@pytest.mark.parametrize(
    ("make", "run"),
    [
        (lambda folder: answer_call(folder, EXAMPLES, model=HUGE), answer.run),
        (lambda folder: loss_call(folder, model=HUGE), judge.run),
        (lambda folder: tasks_call(folder, ("arc_challenge",), model=HUGE), judge.run),
    ],
    ids=["answer", "held_out_loss", "lm_eval"],
)
def test_a_model_that_memory_has_no_room_for_is_told_with_what_its_weights_need(
    tmp_path: Path, make: Callable[[Path], StageCall], run: Callable[[StageCall], Any]
) -> None:
    with pytest.raises(OutOfMemory, match="the CPU's memory ran out while loading the model") as e:
        run(make(tmp_path))
    assert "Its weights take 128.0 TiB in float32" in e.value.hint
    assert "precision: bfloat16 takes half" in e.value.hint
    assert "limits.memory" in e.value.hint


def test_a_folder_read_without_memory_is_no_folder_that_cannot_be_loaded(
    real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever part of transformers' loading: what it says at the end tells nothing of it."""
    import transformers.core_model_loading as loading

    source = ModelSource.model_validate({"path": {"path": str(real_model)}})
    for name in ("_materialize_copy", "set_param_for_module"):
        with monkeypatch.context() as patch:
            patch.setattr(loading, name, raising(MEMORY["torch"]))
            with pytest.raises(torch.OutOfMemoryError):
                model_in(real_model, source, torch.float32)
    convert = loading.WeightRenaming.convert

    def breaks(self: Any, name: str, loading_info: Any = None, **given: Any) -> Any:
        with loading.log_conversion_errors(name, loading_info, (1, name), None):
            raise MEMORY["cuBLAS"]
        return convert(self, name, loading_info=loading_info, **given)

    monkeypatch.setattr(loading.WeightRenaming, "convert", breaks)
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        model_in(real_model, source, torch.float32)


def test_a_chat_without_memory_goes_on_and_one_whose_gpu_failed_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talking = talk()
    for kind in ("torch", "cuBLAS"):
        with monkeypatch.context() as patch:
            patch.setattr(talking.model, "generate", raising(MEMORY[kind]))
            talking.answer("Why?", io.StringIO())
        assert "there is no memory left for this: /reset" in capsys.readouterr().err
    said = io.StringIO()
    talking.answer("Why?", said)
    assert said.getvalue().strip()

    def load(*given: Any) -> chat.Chat:
        talking.model.generate = raising(FAILED["an index"])
        return talking

    monkeypatch.setattr(chat, "_load", load)
    wishes = chat.Wishes(once="Why?")
    with pytest.raises(HarnessError, match=r"the GPU failed: .* device-side assert") as caught:
        chat.chat(None, None, wishes)  # type: ignore[arg-type]
    assert not isinstance(caught.value, InputError)


def test_a_chat_says_what_a_model_too_large_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from harness.cli import main

    arguments = [str(word) for word in trained(tmp_path, train=None)]
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_config", raising(MEMORY["torch"]))
    done = CliRunner().invoke(main, ["chat", *arguments, "--once", "Why?"])
    assert done.exit_code == 1
    assert "memory ran out while loading the model" in done.output
    assert "Its weights take" in done.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_small_gpu_probe_load_and_decoding_tell_that_memory_ran_out(
    tmp_path: Path, small_gpu: None
) -> None:
    large = random_model(vocab_size=2**18, hidden_size=2048)
    for name in ("load", "decode"):
        (tmp_path / name).mkdir()
    with pytest.raises(OutOfMemory, match=r"GPU's memory .* ran out while loading the model"):
        answer.run(answer_call(tmp_path / "load", EXAMPLES, model=large))
    rows = [{"instruction": "a" * 8000, "input": "", "output": ""}] * 256
    rows = [row | {"instruction": f"{n} {row['instruction']}"} for n, row in enumerate(rows)]
    long = random_model(max_position_embeddings=9000, hidden_size=512)
    with pytest.raises(OutOfMemory, match=r"GPU's memory .* ran out while making 256 answers"):
        answer.run(answer_call(tmp_path / "decode", rows, model=long, batch_size=256))
    wide = ModelSource.model_validate(random_model(vocab_size=2**18, hidden_size=64))
    model = load_model(wide, {}, bytes_tokenizer(), "float32", "cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    with pytest.raises(torch.OutOfMemoryError):
        decoder_of(model)
