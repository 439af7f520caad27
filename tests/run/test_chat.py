"""Talking to a row's model: its template, its history, what reaches the terminal, how it ends."""

import io
import json
import logging
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.answer.answer import Decoding
from harness.artefact import gpus
from harness.artefact.call import RESULT_FILE, StageResult
from harness.errors import InputError
from harness.modeling.load import bytes_tokenizer, load_model
from harness.modeling.text import Encoder
from harness.run.chat import Chat, Shown, _asker, _libraries
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from tests.helpers import (
    HARNESS,
    ROOT,
    InstantExecutor,
    command,
    give_gpus,
    make,
    write_row,
)
from tests.modeling.calls import random_model, template

SOURCE = random_model(initializer_range=0.2, max_position_embeddings=256)
TURNS = {**template(), "separator": "\n", "system_layout": "{system}\n"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Trains(InstantExecutor):
    """Leaves the model with random weights of the train seed, or an adapter to the row's own."""

    def __init__(self, adapter: bool = False) -> None:
        super().__init__()
        self.adapter = adapter

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        seed = 0 if self.adapter else job.params["train"].seed
        config = SOURCE["random"]["config"]
        source = ModelSource.model_validate({"random": {"config": config, "seed": seed}})
        tokenizer = bytes_tokenizer()
        model: Any = load_model(source, {}, tokenizer, "float32", "cpu")
        if self.adapter:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(1)
            model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))
            model.base_model.model.model.layers[0].self_attn.q_proj.lora_B[
                "default"
            ].weight.data += 1
        model.save_pretrained(job.folder / "model")
        tokenizer.save_pretrained(job.folder / "model")
        result = StageResult(keep=["model"], simulated=["teacher"])
        (job.folder / RESULT_FILE).write_text(json.dumps(vars(result)))


def trained(folder: Path, adapter: bool = False, **row: Any) -> list[str | Path]:
    """What the command line is given to talk to a row that was trained."""
    spec: dict[str, Any] = {"gen": None, "data": "seeds.jsonl", "model": SOURCE, **row}
    path = write_row(folder / "specs", **spec)
    if spec.get("train", {}) is not None:
        make(folder / "runs", path, executor=Trains(adapter))
    return [path, "--volume", folder / "runs", "--max-new-tokens", "8"]


def talk(decoding: dict[str, Any] | None = None, **fields: Any) -> Chat:
    source = ModelSource.model_validate(SOURCE)
    tokenizer = bytes_tokenizer()
    model = load_model(source, {}, tokenizer, "float32", "cpu")
    encoder = Encoder(tokenizer, Template.model_validate({**TURNS, **fields}))
    settings = Decoding.model_validate({"max_new_tokens": 12, **(decoding or {})})
    chat = Chat(model, tokenizer, encoder, settings, "", turns=True)
    chat.reset()
    return chat


def answer(chat: Chat, question: str) -> str:
    out = io.StringIO()
    chat.answer(question, out)
    return out.getvalue()


def test_an_answer_is_the_greedy_one_of_the_rows_template() -> None:
    chat = talk()
    ids = torch.tensor([chat.tokenizer("Q: Why?\nA:")["input_ids"]])
    made: list[int] = []
    for _ in range(12):
        with torch.inference_mode():
            token = int(
                chat.model(torch.cat([ids, torch.tensor([made]).long()], 1)).logits[0, -1].argmax()
            )
        if token == chat.tokenizer.eos_token_id:
            break
        made.append(token)
    answer(chat, "Why?")
    assert chat.history == [("Why?", chat.tokenizer.decode(made))]
    assert made


def test_what_was_said_is_part_of_the_next_prompt_until_it_is_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat = talk()
    asked: list[str] = []
    generate = chat.model.generate

    def listen(ids: Any, **settings: Any) -> Any:
        asked.append(chat.tokenizer.decode(ids[0], skip_special_tokens=False))
        return generate(ids, **settings)

    monkeypatch.setattr(chat.model, "generate", listen)
    answer(chat, "one")
    said = chat.history[0][1]
    answer(chat, "two")
    chat.reset()
    answer(chat, "three")
    assert asked[0] == "Q: one\nA:"
    assert asked[1] == f"Q: one\nA:{said}<eos>\nQ: two\nA:"
    assert asked[2] == "Q: three\nA:"


def test_the_oldest_turn_goes_where_the_model_cannot_take_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chat = talk()
    for letter in "abc":
        answer(chat, letter * 90)
    assert [q[0] for q, _ in chat.history] == ["b", "c"]
    assert "the oldest question is left out: the model takes 256 tokens" in capsys.readouterr().err
    with pytest.raises(InputError, match="the model takes 256"):
        answer(chat, "x" * 300)


def test_sampling_is_the_seeds_and_begins_anew_with_a_reset() -> None:
    chat = talk({"temperature": 1.0, "seed": 3})
    first = [answer(chat, "one"), answer(chat, "one")]
    chat.reset()
    assert [answer(chat, "one"), answer(chat, "one")] == first
    assert answer(talk({"temperature": 1.0, "seed": 4}), "one") != first[0]


def test_a_stop_text_ends_the_answer_and_is_not_shown() -> None:
    whole = talk()
    answer(whole, "Why?")
    text = whole.history[0][1]
    stop = text[4:6]
    first = text.index(stop)
    chat = talk(stop=[stop])
    assert answer(chat, "Why?").removesuffix("\n").endswith(stop) is False
    assert chat.history[0][1] == text[:first]


def shown(*parts: str, stop: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """What is on the terminal after each of the texts, and the answer."""
    out = io.StringIO()
    view = Shown(stop, out)
    seen = []
    for part in parts:
        view.update(part)
        seen.append(out.getvalue())
    view.update(parts[-1], last=True)
    return [*seen, out.getvalue()], view.text


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    data = "aé漢".encode()
    texts = [data[:n].decode(errors="replace") for n in range(1, len(data) + 1)]
    assert shown(*texts)[0] == ["a", "a", "aé", "aé", "aé", "aé漢", "aé漢"]
    assert shown("a\ufffd")[0] == ["a", "a\ufffd"]
    # Bytes that never become a character do not hold the answer up.
    assert shown("a" + 9 * "\ufffd")[0][0] == "a" + 6 * "\ufffd"


def test_what_may_be_the_beginning_of_a_stop_text_is_held_back() -> None:
    seen, text = shown("yes", "yes\nHu", "yes\nHug", stop=("\nHuman:",))
    assert seen == ["yes", "yes", "yes\nHug", "yes\nHug"]
    seen, text = shown("yes", "yes\nHum", "yes\nHuman: and", stop=("\nHuman:", "x"))
    assert (seen[-1], text) == ("yes", "yes")
    assert shown("yes\nHum", stop=("\nHuman:",))[0] == ["yes", "yes\nHum"]


def test_an_answer_cannot_steer_the_terminal() -> None:
    seen, text = shown("a\x1b[2J\x1b]0;t\x07\u202eb\tc\n")
    assert seen[-1] == "a\ufffd[2J\ufffd]0;t\ufffd\ufffdb    c\n"
    assert "\x1b" in text


@pytest.mark.parametrize("adapter", [False, True])
def test_one_question_has_its_answer_alone_on_standard_output(
    tmp_path: Path, adapter: bool
) -> None:
    train = {"steps": 1, "method": "lora"} if adapter else {"steps": 1, "seed": 5}
    given = trained(tmp_path, adapter, train=train)
    done = command("chat", *given, "--once", "Why?")
    assert done.exit_code == 0, done.output
    chat = talk({"max_new_tokens": 8})
    untrained = answer(chat, "Why?")
    assert done.stdout.count("\n") >= 1
    assert done.stdout != untrained
    assert "row one: The row one" in done.stderr
    assert "its trained model, train/" in done.stderr
    assert "NOTE: simulated" in done.stderr
    assert "NOTE: random weights" in done.stderr
    assert "greedy, at most 8 tokens an answer" in done.stderr


def test_that_a_faster_kernel_is_not_here_is_not_said_in_a_chat() -> None:
    _libraries()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    assert not logger.isEnabledFor(logging.WARNING)
    assert logger.isEnabledFor(logging.ERROR)


def test_a_row_that_trains_nothing_answers_with_its_base_model(tmp_path: Path) -> None:
    given = trained(tmp_path, train=None)
    done = command("chat", *given, "--once", "Why?")
    assert done.exit_code == 0, done.output
    assert done.stdout == answer(talk({"max_new_tokens": 8}), "Why?")
    assert "its base model, untrained" in done.stderr
    assert "means nothing" in done.stderr


def test_the_rows_decoding_holds_where_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "p.jsonl").write_text('{"instruction": "x"}\n')
    decoding = {"temperature": 0.5, "top_p": 0.9, "seed": 9, "max_new_tokens": 3}
    rows = {"eval": {"answer": {"prompts": {"file": "p.jsonl"}, "decoding": decoding}}}
    given = trained(tmp_path, train=None, **rows)[:3]
    done = command("chat", *given, "--once", "Why?")
    assert "temperature 0.5, top_p 0.9, seed 9, at most 3 tokens" in done.stderr
    done = command("chat", *given, "--once", "Why?", "--seed", "2", "--temperature", "2")
    assert "temperature 2, top_p 0.9, seed 2, at most 3 tokens" in done.stderr


def test_what_cannot_be_talked_to_is_told_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    options = ["--volume", tmp_path / "runs", "--once", "x"]
    done = command("chat", write_row(folder), *options)
    assert (done.exit_code, "is not trained yet" in done.output) == (2, True)
    several = write_row(folder, "several", replicates={"train_seeds": [1, 2, 3]})
    done = command("chat", several, *options)
    assert "the model of row several is not trained yet" in done.stderr
    told = f"Train it: harness run {several} --volume {tmp_path / 'runs'}\n"
    assert done.stderr.endswith(told)
    hub = {"hub": {"id": "some/model", "revision": "a" * 40}}
    done = command("chat", write_row(folder, "two", train=None, gen=None, model=hub), *options)
    assert (done.exit_code, "harness fetch" in done.output) == (2, True)
    done = command("chat", write_row(folder, "three", train=None, model=None), *options)
    assert (done.exit_code, "has no model to talk to" in done.output) == (2, True)
    given = trained(tmp_path, train=None)
    done = command("chat", *given, "--once", "x", "--system", "Be kind.")
    assert (done.exit_code, "no place for an example's system text" in done.output) == (2, True)


def test_of_what_only_the_evaluation_reads_nothing_is_needed(tmp_path: Path) -> None:
    given = trained(tmp_path)[:3]
    prompts = {"file": "data:absent.jsonl"}
    write_row(
        tmp_path / "specs", gen=None, data="seeds.jsonl", model=SOURCE,
        eval={"answer": {"prompts": prompts}},
    )  # fmt: skip
    done = command("chat", *given, "--once", "Why?", "--max-new-tokens", "8")
    assert done.exit_code == 0, done.output
    assert "its trained model" in done.stderr
    copied = command("export", *given, "--model", "--to", tmp_path / "copy")
    assert copied.exit_code == 0, copied.output


def test_a_twins_model_is_talked_to_at_its_scale(tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs")
    for scale in ((), ("--scale", "tiny")):
        done = command("chat", spec, "--volume", tmp_path / "runs", "--once", "x", *scale)
        assert done.exit_code == 2
        typed = " ".join(map(str, [spec, *scale, "--volume", tmp_path / "runs"]))
        assert done.stderr.endswith(f"Train it: harness run {typed}\n")


def test_of_several_models_it_asks_which(tmp_path: Path) -> None:
    given = trained(tmp_path, replicates={"train_seeds": [1, 2]})
    done = command("chat", *given, "--once", "x")
    assert done.exit_code == 2
    assert '--label "train seed 1", --label "train seed 2"' in done.output
    one = command("chat", *given, "--once", "x", "--label", "train seed 1")
    two = command("chat", *given, "--once", "x", "--label", "train seed 2")
    assert one.exit_code == two.exit_code == 0
    assert one.stdout != two.stdout


def test_without_a_terminal_lines_are_questions(tmp_path: Path) -> None:
    given = trained(tmp_path, train=None, template={"prompt": "prompt.txt", "separator": "\n"})
    lines = b"one\n\n/what\none\n/reset\none\n/exit\nnever\n"
    done = subprocess.run(
        [*HARNESS, "chat", *map(str, given)], input=lines, capture_output=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first = answer(talk({"max_new_tokens": 8}), "one")
    assert done.stdout.decode().startswith(first)
    assert done.stdout.decode().endswith(first)
    assert done.stdout.decode() != 3 * first
    said = done.stderr.decode()
    assert "/what is no command" in said
    assert "forgotten" in said
    assert "Traceback" not in said


class Screen:
    """What a terminal shows, read up to where a text stands and no further."""

    def __init__(self, terminal: int) -> None:
        self.terminal, self.rest = terminal, ""

    def until(self, words: str, seconds: float = 90) -> str:
        end = time.monotonic() + seconds
        while words not in self.rest:
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"{words!r} does not come: {self.rest[-500:]!r}"
            self.rest += os.read(self.terminal, 1000).decode(errors="replace")
        before, found, self.rest = self.rest.partition(words)
        return before + found


def test_ctrl_c_stops_the_answer_and_ctrl_d_ends_the_chat(tmp_path: Path) -> None:
    given = trained(tmp_path, train=None, model=random_model(1, max_position_embeddings=200_000))[
        :3
    ]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*HARNESS, "chat", *map(str, given), "--max-new-tokens", "100000"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.until("> ")
        os.write(ours, b"one\n")
        screen.until("gggg")
        process.send_signal(signal.SIGINT)
        assert "(stopped)" in screen.until("(stopped)")
        screen.until("> ")
        time.sleep(1)  # readline hears no signal between its prompt and its wait
        process.send_signal(signal.SIGINT)
        assert "Ctrl-D leaves" in screen.until("Ctrl-D leaves")
        screen.until("> ")
        os.write(ours, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)


def test_where_nvidia_smi_fails_nobody_is_answered_on_the_cpu_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = trained(tmp_path, train=None)
    give_gpus(monkeypatch)
    monkeypatch.setattr(gpus, "_asked", lambda: ((), "it cannot reach the driver"))
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)
    refused = command("chat", *options, "--once", "Hi.")
    assert refused.exit_code == 2
    assert "nvidia-smi is there and finds no GPU: it cannot reach the driver" in refused.stderr
    assert "HARNESS_ACCELERATOR=cpu" in refused.stderr
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    assert command("chat", *options, "--once", "Hi.").exit_code == 0


def test_an_input_that_is_closed_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert _asker()() is None
