"""benchmarks/real_model.py, its quick form: what must be as the peers have it is, or it is told."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHARED
from tests.helpers import ROOT

SCRIPT = ROOT / "benchmarks" / "real_model.py"
RECORDS = SHARED / "data" / "alpagasus" / "claude_t45.json"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("real_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        (
            "train",
            ["| TRL, set as ours |", "ORPO, one pair a step: LLaMA-Factory is not installed"],
        ),
        ("answer", ["| 0 of 4 |", "| alpaca_eval's decoder, 8 prompts at a time |"]),
        ("tasks", ["| lm-eval's command line, float32, --batch_size 16 |", "arc_easy/acc_norm"]),
    ],
)
def test_losses_answers_and_scores_are_those_of_the_peers(
    part: str, lines: list[str], real_model: Path
) -> None:
    command = [sys.executable, str(SCRIPT), str(real_model), "--quick", "--threads", "1"]
    command += ["--records", str(RECORDS), "--tasks", str(SHARED / "data" / "eval")]
    done = subprocess.run([*command, "--parts", part], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for line in lines:
        assert line in done.stdout


def test_a_loss_that_is_not_ours_is_told(
    benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"rate": 1.0, "cpu_rate": 1.0, "real": 1.0, "step_tokens": 9.0, "peak_mib": 9}
    lines = benchmark.sft_lines(benchmark.QUICK)[:3]
    losses = [[1.0, 2.0], [1.0, 2.0 + 1e-5], [1.0, 2.01]]
    results = {
        line.contender.name: [run | {"losses": curve}]
        for line, curve in zip(lines, losses, strict=True)
    }
    (wrong,) = benchmark.print_training(lines, results, 2)
    assert "padding_free: a step's loss is 1.0e-02 from that of ours" in wrong
    assert len(capsys.readouterr().out.splitlines()) == 5
