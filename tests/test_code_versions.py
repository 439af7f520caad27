"""A stage's code may not change in silence: its key would then promise content that it lacks.

For each stage, tests/code_digests.json records the code version and a digest of every module that
decides what the stage makes. After a change, raise `environment.CODE_VERSIONS[stage]`, or, if what
the stage makes cannot change, leave it; either way record the new state:

    python tests/test_code_versions.py --write
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.eval import judge
from harness.gen import MODULES

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("code_digests.json")

JUDGES = {f"judge/{kind}": module for kind, module in judge.MODULES.items()}
OTHER_ENGINES = {
    "transformers": {"harness.eval.served"},
    "endpoint": {"harness.eval.local"},
    "vllm": {"harness.eval.local"},
    "null": {"harness.eval.local", "harness.eval.served"},
    "reference": {"harness.eval.local", "harness.eval.served"},
}
"""Engine of the answer stage -> modules of others, which the stage imports when they are wanted."""
RECIPE_MODULES = {f"gen/{recipe}": f"harness.gen.{name}" for recipe, name in MODULES.items()}
ENTRY = {
    **{code: ("harness.gen", module) for code, module in RECIPE_MODULES.items()},
    "train": ("harness.train",),
    **{f"answer/{engine}": ("harness.eval.answer",) for engine in OTHER_ENGINES},
    **{code: ("harness.eval.judge", module) for code, module in JUDGES.items()},
    "sim": ("harness.sim.server",),
}
"""Code -> the modules that its imports are followed from. Recipes and judges are imported by name."""
DECIDE_NOTHING = frozenset(
    f"harness{name}"
    for name in (
        "", ".call", ".environment", ".errors", ".events", ".eval", ".llm", ".sim", ".spec",
        ".llm.batch", ".llm.budget", ".llm.connect", ".llm.interrupts", ".llm.progress", ".llm.replay",
        ".llm.secrets",
        ".spec.answer", ".spec.base", ".spec.judges", ".spec.model_source", ".spec.models",
        ".spec.recipes", ".spec.template", ".spec.train", ".prices",
        ".gen.card", ".gen.plots", ".gen.verbs",
        ".device_faults", ".model_card", ".plot_style", ".train.card", ".train.ops", ".fitting",
        ".compilers", ".progress", ".variables",
    )
)  # fmt: skip
"""What the stages import that can stop them or show how far they are, but not change what they make.

The models' fields and defaults are in every key by themselves. The data card describes a data set. By
harness.fitting a GPU takes more of a step's examples at once: the manifest says how many, and it
decides the last bits of sums alone.
"""


def modules_of(stage: str) -> dict[str, Path]:
    """Name -> file of every module of ours that decides what a stage makes, found by its imports."""
    found: dict[str, Path] = {}
    waiting = list(ENTRY[stage])
    aside = OTHER_ENGINES.get(stage.removeprefix("answer/"), set())
    while waiting:
        name = waiting.pop()
        path = file_of(name)
        if path is None or name in found or name in DECIDE_NOTHING or name in aside:
            continue
        if stage != "sim" and name.startswith("harness.sim."):
            continue  # a version of its own, in the keys of what it plays a part in
        found[name] = path
        waiting += imports(name, path)
    return found


def file_of(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def imports(name: str, path: Path) -> Iterator[str]:
    """Every module that one imports, wherever in it; `from a import b` may mean the module a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def normalised(node: Any) -> Any:
    """A syntax tree without places, comments, docstrings and what is empty: what the code does.

    It is written out here because `ast.dump` differs between Python versions.
    """
    if isinstance(node, ast.AST):
        fields = {n: normalised(v) for n, v in ast.iter_fields(node) if v is not None and v != []}
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = [normalised(n) for n in node.body if not is_text(n)]
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [normalised(item) for item in node]
    return repr(node)


def is_text(node: ast.stmt) -> bool:
    """A docstring, or a string below a name that documents it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest(source: str) -> str:
    tree = json.dumps(normalised(ast.parse(source)), sort_keys=True)
    return hashlib.sha256(tree.encode()).hexdigest()[:16]


def present(stage: str) -> dict[str, Any]:
    from harness.environment import CODE_VERSIONS

    digests = {
        name: digest(path.read_text(encoding="utf-8"))
        for name, path in sorted(modules_of(stage).items())
    }
    return {"code_version": CODE_VERSIONS[stage], "modules": digests}


@pytest.mark.parametrize("stage", ENTRY)
def test_code_that_decides_what_a_stage_makes_does_not_change_in_silence(stage: str) -> None:
    recorded, now = json.loads(RECORD.read_text(encoding="utf-8"))[stage], present(stage)
    before, after = recorded["modules"], now["modules"]
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    assert recorded == now, (
        f"{', '.join(changed) or 'the code version'} changed since the {stage} stage's version "
        f"{recorded['code_version']} was recorded (now it is {now['code_version']}). Raise "
        f"environment.CODE_VERSIONS[{stage!r}] if the stage may now make other content from the "
        "same call. Then, or at once if what it makes cannot change, run: "
        "python tests/test_code_versions.py --write"
    )


def test_every_stage_is_recorded() -> None:
    from harness.environment import CODE_VERSIONS

    assert set(ENTRY) == set(CODE_VERSIONS) == set(json.loads(RECORD.read_text(encoding="utf-8")))


def test_the_modules_of_each_stage_are_found_through_their_imports() -> None:
    found = {stage: set(modules_of(stage)) for stage in ENTRY}
    gen = found["gen/alpaca"]
    assert {"harness.gen.alpaca", "harness.gen.similarity", "harness.llm.client"} <= gen
    assert {"harness.gen.choose", "harness.gen.dataset"} <= found["gen/select"]
    assert "harness.llm.client" not in found["gen/random_k"]
    assert {"harness.train.loop", "harness.modeling.text"} <= found["train"]
    answers = {stage: found[f"answer/{stage}"] for stage in OTHER_ENGINES}
    assert {"harness.eval.decode", "harness.modeling.load"} <= answers["transformers"]
    assert {"harness.eval.served", "harness.llm.client"} <= answers["endpoint"]
    assert not {"harness.eval.decode", "harness.llm.client"} & answers["null"]
    assert {"harness.eval.judge_scores", "harness.llm.client"} <= found["judge/preference"]
    assert "harness.eval.judge_alpaca_eval" not in found["judge/preference"]
    assert {"harness.eval.grades", "harness.eval.judge_scores"} <= found["judge/grading"]
    assert {"harness.sim.server", "harness.sim.judge", "harness.sim.teacher"} <= found["sim"]
    assert not any(n.startswith("harness.sim") for s in ENTRY if s != "sim" for n in found[s])


CODE = '''
"""What it is for."""
LIMIT = 3
"""Highest count."""


def f(x: int) -> int:
    """Adds."""
    return x + LIMIT
'''


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ('"""Adds."""', '"""Adds one to another."""'),
        ('    """Adds."""\n', ""),
        ('"""Highest count."""\n', "# Highest count.\n"),
        ("x + LIMIT", "(x +\n            LIMIT)"),
    ],
)
def test_words_and_layout_do_not_change_a_digest(was: str, is_now: str) -> None:
    assert was in CODE
    assert digest(CODE.replace(was, is_now)) == digest(CODE)


@pytest.mark.parametrize(
    ("was", "is_now"), [("LIMIT = 3", "LIMIT = 4"), ("x + LIMIT", "x - LIMIT"), ("x + ", "1 + ")]
)
def test_what_the_code_does_changes_a_digest(was: str, is_now: str) -> None:
    assert digest(CODE.replace(was, is_now)) != digest(CODE)


def write() -> None:
    record = {stage: present(stage) for stage in ENTRY}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_code_versions.py --write")
    sys.path.insert(0, str(ROOT))
    write()
