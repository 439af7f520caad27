"""vLLM beside a stage, with a real engine and a stand-in for vLLM's image; `make images` first."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, harness, start, until, write_row

pytestmark = pytest.mark.docker

IMAGE = "harness-test-vllm:latest"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    docker("build", "-q", "-t", IMAGE, str(ROOT / "tests" / "docker" / "fake_vllm"))
    return IMAGE


@pytest.fixture
def env() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_")}
    return {**kept, "HARNESS_ACCELERATOR": "cpu", "COLUMNS": "200"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from harness.modeling.load import bytes_tokenizer

    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads)
    folder = tmp_path / "model"
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_spec(folder: Path, model: Path, **engine: Any) -> Path:
    (folder / "prompts.jsonl").parent.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"instruction": f"Say {n}."}) + "\n" for n in ("one", "eleven"))
    )
    answer = {"prompts": {"file": "prompts.jsonl"}, "engine": {"kind": "vllm", **engine}}
    return write_row(
        folder, gen=None, train=None, model={"path": str(model)}, eval={"answer": answer}
    )


def left_over() -> str:
    found = docker("ps", "-aq", "--filter", f"ancestor={IMAGE}")
    return found + docker("network", "ls", "-q", "--filter", "name=harness-vllm-")


def test_the_rows_model_is_served_asked_by_tokens_and_gone_after(
    env: dict[str, str], tmp_path: Path, model: Path, image: str
) -> None:
    spec, volume = write_spec(tmp_path / "specs", model, image=image), tmp_path / "volume"
    run = ("run", "--executor", "docker", spec, "--volume", volume)
    done = harness(env, *run)
    assert done.returncode == 0, done.stdout
    (outputs,) = volume.glob("artefacts/answer/*/model_outputs.json")
    rows = json.loads(outputs.read_text())
    # The prompt is `Q: ...\nA:`, a byte a token.
    wanted = [len(f"Q: {row['instruction']}\nA:") for row in rows]
    assert [row["output"] for row in rows] == [f"asked with {n} tokens" for n in wanted]
    assert left_over() == ""
    assert "there already" in harness(env, *run).stdout or "reuse" in harness(env, *run).stdout


def test_a_server_that_ends_is_told_with_its_last_words(
    env: dict[str, str], tmp_path: Path, model: Path, image: str
) -> None:
    (model / "FAKE_VLLM_ENDS").touch()
    spec = write_spec(tmp_path / "specs", model, image=image)
    done = harness(env, "run", "--executor", "docker", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 1
    assert "vLLM did not come up: it ended" in done.stdout
    assert "ValueError: no GPU of this kind is known" in done.stdout
    assert "Traceback" not in done.stdout
    assert left_over() == ""


def test_an_image_that_is_not_there_is_told_with_the_command_that_gets_it(
    env: dict[str, str], tmp_path: Path, model: Path
) -> None:
    spec = write_spec(tmp_path / "specs", model, image="harness-test-vllm:none")
    done = harness(env, "run", "--executor", "docker", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 2
    assert "docker pull harness-test-vllm:none" in done.stdout


def test_ctrl_c_while_the_server_starts_stops_it(
    env: dict[str, str], tmp_path: Path, model: Path, image: str
) -> None:
    spec = write_spec(tmp_path / "specs", model, image=image)
    run = start(env, "run", "--executor", "docker", spec, "--volume", tmp_path / "volume")
    until(left_over)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert left_over() == ""
