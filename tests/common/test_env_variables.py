"""Environment variables: no import changes them, and a stage has those that its executor gives it."""

import ast
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.common import env_variables
from harness.errors import InputError
from tests.helpers import ROOT

IMPORT_ALL = """
import importlib, json, os, pkgutil, sys
import harness
# PyTorch names its compiler's cache when transformers is imported, whoever imports it.
import transformers.modeling_utils
found, before = {}, dict(os.environ)
for module in pkgutil.walk_packages(harness.__path__, "harness."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        now = dict(os.environ)
        if now != before:
            found[module.name] = sorted(n for n in {*now, *before} if now.get(n) != before.get(n))
            before = now
json.dump(found, sys.stdout)
"""


def test_no_import_changes_an_environment_variable() -> None:
    known = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "TQDM_", "KMP_")
    clean = {n: v for n, v in os.environ.items() if not n.startswith(known)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


SETTINGS = """
import json, sys, torch
from torch._native import common_utils
torch.ones(2) @ torch.ones(2)  # harmless without a GPU
json.dump([common_utils.check_native_jit_disabled(), torch.cuda.is_initialized()], sys.stdout)
"""


def test_pytorch_takes_what_a_stage_is_given() -> None:
    """Its rotary angles' product is a kernel of Triton's, unless it is told otherwise."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETTINGS],
        env={**os.environ, **env_variables.given("train")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [True, False]


def run_on_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Every statement that an import of the module runs, also below if, for, with and class."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        yield statement
        is_main = isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)
        if not is_main and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [n for n in ast.iter_child_nodes(statement) if isinstance(n, ast.stmt)]


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "harness").rglob("[!_]*.py")) + sorted((ROOT / "harness").rglob("__init__.py")),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_import_calls_or_assigns_into_another_module(path: Path) -> None:
    for statement in run_on_import(ast.parse(path.read_text(encoding="utf-8"))):
        at = f"{path}:{statement.lineno}"
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.Delete):
            one = isinstance(statement, ast.AugAssign)
            targets = [statement.target] if one else statement.targets  # type: ignore[union-attr]
            names = [t for t in targets if not isinstance(t, ast.Name | ast.Tuple)]
            assert not names, f"{at} writes into something that another module may own"
        if isinstance(statement, ast.Expr):
            assert not isinstance(statement.value, ast.Call), f"{at} calls something for its effect"


def test_what_is_set_for_a_while_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", "1")
    monkeypatch.delenv("SECOND", raising=False)
    with env_variables.restored({"FIRST": "2"}):
        os.environ["SECOND"] = "3"
        assert os.environ["FIRST"] == "2"
    assert (os.environ["FIRST"], os.environ.get("SECOND")) == ("1", None)


def test_what_a_gpus_fault_is_looked_for_with_reaches_every_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one in a container, which has none of the caller's variables but those."""
    for name in env_variables.DIAGNOSIS:
        monkeypatch.delenv(name, raising=False)
    assert not set(env_variables.DIAGNOSIS) & set(env_variables.given("train"))
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    for stage in ("train", "answer", "judge", "export"):
        assert env_variables.given(stage)["CUDA_LAUNCH_BLOCKING"] == "1"
        assert "NCCL_DEBUG" not in env_variables.given(stage)


def test_what_would_undo_a_rows_float32_reaches_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("train", "answer", "judge"):
        assert env_variables.withheld(stage, network=True) >= set(env_variables.TF32)


@pytest.mark.parametrize("text", ["abc", "-1", "nan"])
def test_a_time_to_stop_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(env_variables.STOP_SECONDS, text)
    with pytest.raises(InputError, match=f"HARNESS_STOP_SECONDS is '{text}'; it can be a number"):
        env_variables.stop_seconds()
    monkeypatch.setenv(env_variables.STOP_SECONDS, "")
    assert env_variables.stop_seconds() == 30


def test_a_stage_knows_how_long_it_is_waited_for_also_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(env_variables.STOP_SECONDS, raising=False)
    assert env_variables.stop_seconds() == 30
    assert env_variables.STOP_SECONDS not in env_variables.given("train")
    monkeypatch.setenv(env_variables.STOP_SECONDS, "inf")
    assert env_variables.stop_seconds() == math.inf
    assert env_variables.given("train")[env_variables.STOP_SECONDS] == "inf"
