"""What tests of several parts share."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.helpers import evaluation, write_row

# As in a stage of its own, whose first work on a GPU comes after it: PyTorch looks once in a process.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# An import of submitit sets logging up, which closes all handlers that are there, and absl's closes the
# file it writes to: within a test run that is pytest's own.
os.environ["SUBMITIT_LOG_LEVEL"] = "NOCONFIG"
# pytest-xdist gives its processes a width, which commands would keep to.
os.environ.pop("COLUMNS", None)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of real inputs, ../shared/data, is not beside the checkout")
    return SHARED / "data"


@pytest.fixture(scope="module")
def qwen(shared_data: Path) -> Any:
    """The real tokenizer of Qwen1.5."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data / "qwen1.5-0.5b")


@pytest.fixture
def small_gpu() -> Iterator[None]:
    """A GPU of which torch may take 1 GiB."""
    import torch

    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.mem_get_info()[1])
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def real_model() -> Path:
    """A folder of a real language model of 135 M parameters: Llama's architecture, ChatML, a tokenizer.

    Made once for all test processes, and kept from one test run to the next.
    """
    make = SHARED / "tools" / "real-model"
    if not make.is_file():
        pytest.skip("../shared/tools/real-model is not beside the checkout")
    kept = os.environ.get("HARNESS_REAL_MODEL")
    folder = Path(kept) if kept else Path(tempfile.gettempdir()) / "harness-real-model"
    with FileLock(f"{folder}.lock"):
        if not (folder / "model.safetensors").is_file():
            unfinished = folder.with_name(folder.name + ".making")
            subprocess.run([sys.executable, make, unfinished], check=True)
            unfinished.rename(folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Very small models are slower with several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that failed are made again at once."""
    monkeypatch.setattr("harness.llm.faults.FIRST_BACKOFF_S", 0.01)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Path]:
    """Writes a row with all four stages whose teacher and judge are (so the spec says) real."""
    folder = tmp_path / "specs"

    def write(name: str = "one", **changes: Any) -> Path:
        judge = {"model": "judge"}
        return write_row(folder, name, **{"eval": evaluation(folder, judge=judge), **changes})

    return write
