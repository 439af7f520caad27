"""No stage writes into the home folder."""

import os
from pathlib import Path

from tests.helpers import ROOT, harness


def test_the_smoke_rows_leave_the_home_folder_as_it_was(tmp_path: Path) -> None:
    home, volume = tmp_path / "home", tmp_path / "volume"
    home.mkdir()
    named = ("HARNESS_", "XDG_", "HF_", "TORCH", "TRITON", "MPL", "CUDA_CACHE", "NLTK")
    env = {name: value for name, value in os.environ.items() if not name.startswith(named)}
    env |= {"HOME": str(home), "HARNESS_ACCELERATOR": "cpu"}
    specs = [ROOT / "specs/smoke/sft.yaml", ROOT / "specs/smoke/eval_alpaca_eval_2.yaml"]
    done = harness(env, "run", *specs, "--volume", volume, seconds=900)
    assert done.returncode == 0, done.stdout
    assert not list(home.rglob("*"))
    assert list((volume / "cache" / "libraries").rglob("fontlist*")), "no library kept anything"
    assert list((volume / "cache" / "tokens").glob("*.npz"))
