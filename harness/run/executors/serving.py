"""How vLLM is told what to serve, and where it is found when the harness did not start it."""

import json
import os
from pathlib import Path

from harness.answer.engine import QUANTIZATION, vllm_cannot
from harness.answer.engines.vllm import serving_needs_a_folder
from harness.artefact import environment
from harness.artefact.call import model_input
from harness.artefact.keys import Files
from harness.errors import InputError
from harness.run.executors import Serve
from harness.run.plan import StagePlan

MODEL, ADAPTER = "/model", "/adapter"
"""Where the server's container has them."""
HOST, PORT = "vllm", 8000
TRAINED = "model"
"""In a train artefact, the folder of its model or adapter."""
ADAPTER_FILE = f"{TRAINED}/adapter_config.json"
"""In a train artefact whose model is an adapter to the row's base model."""
URL_VARIABLE = "HARNESS_VLLM_URL"
ENVIRONMENT = {
    # The user has a number alone: who asks for its name is told one, and no home is looked up.
    "USER": "harness",
    "LOGNAME": "harness",
    "HOME": "/tmp",
    # All else is read-only, and what an image sets for itself may lie elsewhere.
    "XDG_CACHE_HOME": "/tmp/.cache",
    "XDG_CONFIG_HOME": "/tmp/.config",
    "VLLM_CACHE_ROOT": "/tmp/.cache/vllm",
    "VLLM_CONFIG_ROOT": "/tmp/.config/vllm",
    "HF_HOME": "/tmp/hf",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/.cache/inductor",
    "TRITON_CACHE_DIR": "/tmp/.cache/triton",
    "FLASHINFER_WORKSPACE_BASE": "/tmp",
    "NUMBA_CACHE_DIR": "/tmp/.cache/numba",
    "CUDA_CACHE_PATH": "/tmp/.cache/nv",
    # Its processes meet here: without a way out, vLLM finds no address of its own.
    "VLLM_HOST_IP": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Of the server's container. Also in compose.yaml."""


def served(planned: StagePlan, folders: dict[str, Path], files: Files) -> Serve | None:
    """What a server beside the stage has to serve: the row's model, or the judge's."""
    engine = planned.served
    if engine is None:
        return None
    source, hub, trained = planned.base, folders.get("hub"), folders.get("model")
    trained = trained and model_input(trained, planned.params)
    if planned.judge_model is not None:
        source, hub, trained = planned.judge_model, folders.get("judge_hub"), None
    assert source is not None
    model = hub or (files.locate(source.path) if source.path is not None else None)
    adapter = None
    if trained is not None and is_adapter(trained):
        adapter = trained / TRAINED
    elif trained is not None:
        model = trained / TRAINED
    if model is None:
        raise serving_needs_a_folder(f"row {planned.row}: ")
    name = f"harness-{planned.key[:12]}"
    quantization = planned.params.get(QUANTIZATION)
    quantised = adapter is not None and quantization is not None and not vllm_cannot(quantization)
    return Serve(engine, name, model, adapter, source.trust_remote_code, quantised)


def is_adapter(trained: Path) -> bool:
    return (trained / ADAPTER_FILE).is_file()


def arguments(serve: Serve) -> list[str]:
    """The server's command line, for model and adapter mounted at MODEL and ADAPTER.

    Decoding is the row's alone: what a model's generation_config.json proposes is not taken.
    """
    engine = serve.engine
    base_name = f"{serve.name}-base" if serve.adapter else serve.name
    options = ["--model", MODEL, "--served-model-name", base_name, "--host", "0.0.0.0"]
    options += ["--port", str(PORT), "--dtype", engine.precision, "--generation-config", "vllm"]
    options += ["--gpu-memory-utilization", str(engine.gpu_memory), "--seed", "0"]
    if engine.tensor_parallel > 1:
        options += ["--tensor-parallel-size", str(engine.tensor_parallel)]
    if engine.max_model_length is not None:
        options += ["--max-model-len", str(engine.max_model_length)]
    if serve.adapter is not None:
        options += ["--enable-lora", "--lora-modules", f"{serve.name}={ADAPTER}"]
        options += ["--max-lora-rank", str(_rank(serve.adapter))]
    if serve.quantised:
        options += ["--quantization", "bitsandbytes", "--load-format", "bitsandbytes"]
    if serve.trust_remote_code:
        options += ["--trust-remote-code"]
    return options


def _rank(adapter: Path) -> int:
    """The smallest of the ranks that vLLM takes which holds the adapter's."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    return next((size for size in (8, 16, 32, 64, 128, 256) if size >= rank), 320)


def running_url(serve: Serve, where: str = "") -> str:
    """Where a server runs that the harness did not start.

    Raises:
        InputError: the spec and the environment name none; it says how to start one. `where`: the
            beginning of its message.
    """
    url = serve.engine.base_url or os.environ.get(URL_VARIABLE, "")
    if url:
        return url
    words = [f"VLLM_MODEL={_on_host(serve.model)}", f"VLLM_NAME={serve.name}"]
    if serve.adapter is not None:
        words.append(f"VLLM_ADAPTER={_on_host(serve.adapter)}")
    extra = arguments(serve)[arguments(serve).index("--dtype") :]
    if serve.adapter is not None:
        words[1] += "-base"
    inside = environment.current_image() is not None
    url = f"http://{HOST}:{PORT}/v1" if inside else f"http://127.0.0.1:{PORT}/v1"
    raise no_server(
        where,
        f"start it yourself:\n  {' '.join(words)} VLLM_ARGS='{' '.join(extra)}' \\\n"
        "    docker compose --profile vllm up -d --wait vllm\n"
        f"and run the same command with {URL_VARIABLE}={url}",
    )


class NoServer(InputError):
    """No server is named for a model that one has to serve."""


def no_server(where: str, instead: str) -> NoServer:
    """The error of a stage whose server nobody has named; `instead`: what to do without Docker's
    executor."""
    return NoServer(
        f"{where}no vLLM server is named: outside the docker executor one has to run already",
        f"Use --executor docker, which starts and stops one; or {instead}",
    )


def _on_host(path: Path) -> str:
    """A path as compose's user sees it, for one inside a stage's container."""
    if environment.current_image() is None:
        return str(path)
    for inside, outside in (("runs", "${HARNESS_DATA:-./runs}"), ("inputs", "${HARNESS_INPUTS}")):
        folder = Path("/work", inside)
        if path.is_relative_to(folder):
            return f"{outside}/{path.relative_to(folder)}"
    return str(path)
