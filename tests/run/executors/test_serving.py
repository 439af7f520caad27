"""What vLLM is told, and where one is found that the harness did not start."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.answer.engines.vllm import VLLM_IMAGE, VllmEngine
from harness.errors import InputError
from harness.run.executors import Serve
from harness.run.executors.serving import URL_VARIABLE, arguments, running_url
from tests.helpers import ROOT


def serve(folder: Path, adapter: dict[str, Any] | None = None, **engine: Any) -> Serve:
    if adapter is not None:
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
    return Serve(VllmEngine(**engine), "harness-0123", folder, folder if adapter else None, False)


def test_the_server_takes_no_decoding_from_the_models_folder(tmp_path: Path) -> None:
    told = " ".join(arguments(serve(tmp_path)))
    assert "--generation-config vllm" in told
    assert "--model /model --served-model-name harness-0123 " in told
    assert "--dtype bfloat16" in told
    assert "--max-model-len" not in told
    assert "lora" not in told
    assert "trust" not in told


@pytest.mark.parametrize(("rank", "room"), [(8, 8), (12, 16), (64, 64), (300, 320)])
def test_an_adapter_is_served_under_the_rows_name_and_its_base_under_another(
    tmp_path: Path, rank: int, room: int
) -> None:
    told = " ".join(arguments(serve(tmp_path, {"r": 8, "rank_pattern": {"q_proj": rank}})))
    assert "--lora-modules harness-0123=/adapter" in told
    assert "--served-model-name harness-0123-base" in told
    assert f"--max-lora-rank {room}" in told


def test_the_base_of_a_qlora_adapter_is_served_as_bitsandbytes_quantises_it(tmp_path: Path) -> None:
    plain = serve(tmp_path, {"r": 8})
    assert "bitsandbytes" not in " ".join(arguments(plain))
    told = " ".join(arguments(replace(plain, quantised=True)))
    assert "--quantization bitsandbytes --load-format bitsandbytes" in told


def test_a_running_server_is_named_by_the_spec_or_else_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://environment:1/v1")
    assert running_url(serve(tmp_path)) == "http://environment:1/v1"
    assert running_url(serve(tmp_path, base_url="http://spec:1/v1")) == "http://spec:1/v1"


def test_without_a_server_the_error_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(InputError) as error:
        running_url(serve(tmp_path, {"r": 8}, max_model_length=512))
    hint = error.value.hint
    assert "--executor docker" in hint
    assert f"VLLM_MODEL={tmp_path} VLLM_NAME=harness-0123-base VLLM_ADAPTER={tmp_path}" in hint
    assert "--max-model-len 512" in hint
    assert "--lora-modules harness-0123=/adapter" in hint
    assert f"{URL_VARIABLE}=http://127.0.0.1:8000/v1" in hint


def test_compose_serves_with_the_image_and_the_options_of_the_harness(tmp_path: Path) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["vllm"]
    assert service["image"] == f"${{VLLM_IMAGE:-{VLLM_IMAGE}}}"
    ours = arguments(serve(tmp_path))
    for option in ("--model", "--host", "--port", "--generation-config", "--seed"):
        assert f"{option} {ours[ours.index(option) + 1]}" in service["command"]
