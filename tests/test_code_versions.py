"""A stage's code may not change in silence: its key would then promise content that it lacks.

For each stage, tests/code_digests.json records the code version and a digest of every module that
decides what the stage makes. After a change, raise `environment.CODE_VERSIONS[stage]` (of a recipe,
an engine, a judge its class's `code_version`), or, if what the stage makes cannot change, leave it;
either way record the new state:

    python tests/test_code_versions.py --write
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.answer.engines.union import _Engine
from harness.artefact import environment
from harness.gen.recipes.union import Gen
from harness.judge.kinds.union import KINDS

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("code_digests.json")

JUDGES = {f"judge/{name}": kind for name, kind in KINDS.items()}
ENGINES = {
    "transformers": "harness.answer.engines.transformers.engine",
    "endpoint": "harness.answer.engines.endpoint.engine",
    "vllm": "harness.answer.engines.vllm.engine",
    "null": "harness.answer.engines.given",
    "reference": "harness.answer.engines.given",
}
"""Engine of the answer stage -> the module that it answers with."""
LOCAL = (ENGINES["transformers"], ENGINES["vllm"])
RECIPES = {
    f"gen/{kind.model_fields['recipe'].default}": kind for kind in get_args(get_args(Gen)[0])
}
CODE_VERSIONS = {
    **environment.CODE_VERSIONS,
    **{code: recipe.code_version for code, recipe in RECIPES.items()},
    **{
        f"answer/{kind.model_fields['kind'].default}": kind.code_version
        for kind in get_args(get_args(_Engine)[0])
    },
    **{code: kind.code_version for code, kind in JUDGES.items()},
}


def file_of(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def made_in(kind: type, name: str) -> tuple[str, ...]:
    """The module that a recipe's or judge's class imports to do its work, or does it in."""
    beside = f"{kind.__module__}.{name}"
    return (beside if file_of(beside) else kind.__module__,)


ENTRY = {
    **{code: ("harness.gen.run", *made_in(recipe, "recipe")) for code, recipe in RECIPES.items()},
    "train": ("harness.train.run",),
    **{f"answer/{engine}": ("harness.answer.run", module) for engine, module in ENGINES.items()},
    **{code: ("harness.judge.run", *made_in(judge, "judge")) for code, judge in JUDGES.items()},
    "answer/transformers": (
        "harness.answer.run",
        LOCAL[0],
        "harness.answer.engines.transformers.recorded",
    ),
    "judge/flow_judge": (
        "harness.judge.run",
        *made_in(JUDGES["judge/flow_judge"], "judge"),
        *LOCAL,
    ),
    "sim": ("harness.sim.server",),
}
"""Code -> the modules that its imports are followed from: of what is imported by name, or by the method
of an engine, more than the stage's own."""
DECIDE_NOTHING = frozenset(
    {
        "harness.answer.answer",
        "harness.answer.engine",
        "harness.answer.engines.endpoint",
        "harness.answer.engines.transformers",
        "harness.answer.engines.union",
        "harness.answer.engines.vllm",
        "harness.artefact.call",
        "harness.artefact.environment",
        "harness.llm.estimate",
        "harness.artefact.events",
        "harness.artefact.keys",
        "harness.common.plot_style",
        "harness.common.progress",
        "harness.common.env_variables",
        "harness.errors",
        "harness.gen.card.card",
        "harness.gen.card.plots",
        "harness.gen.card.verbs",
        "harness.gen.recipes.alpaca",
        "harness.gen.recipes.expand",
        "harness.gen.recipes.importing",
        "harness.gen.recipes.naive",
        "harness.gen.recipes.rate",
        "harness.gen.recipes.self_instruct",
        "harness.gen.recipes.union",
        "harness.gen.recipe",
        "harness.spec.twin",
        "harness.judge.judge",
        "harness.judge.kinds.alpaca_eval",
        "harness.judge.kinds.flow_judge",
        "harness.judge.kinds.grading",
        "harness.judge.kinds.held_out_loss",
        "harness.judge.kinds.lm_eval",
        "harness.judge.kinds.preference",
        "harness.judge.kinds.single_grading",
        "harness.judge.kinds.union",
        "harness.llm.batch",
        "harness.llm.budget",
        "harness.llm.connect",
        "harness.llm.interrupts",
        "harness.llm.prices",
        "harness.llm.replay",
        "harness.llm.secrets",
        "harness.common.device_faults",
        "harness.row.row",
        "harness.spec.base",
        "harness.spec.hub",
        "harness.spec.model_source",
        "harness.spec.prompts",
        "harness.spec.template",
        "harness.spec.train",
        "harness.train.model_card",
        "harness.train.compilers",
        "harness.modeling.memory.fit",
        "harness.train.ops",
    }
)
"""What the stages import that can stop them or show how far they are, but not change what they make.

The models' fields and defaults are in every key by themselves. The data card describes a data set. By
harness.modeling.memory.fit a GPU takes more of a step's examples at once: the manifest says how many,
and it decides the last bits of sums alone.
"""


def modules_of(stage: str) -> dict[str, Path]:
    """Name -> file of every module of ours that decides what a stage makes, found by its imports."""
    found: dict[str, Path] = {}
    waiting = list(ENTRY[stage])
    while waiting:
        name = waiting.pop()
        path = file_of(name)
        if path is None or name in found or name in DECIDE_NOTHING:
            continue
        if stage != "sim" and name.startswith("harness.sim."):
            continue  # a version of its own, in the keys of what it plays a part in
        if path.name != "__init__.py" or not is_empty(path):
            found[name] = path
        waiting += imports(name, path)
    return found


def is_empty(path: Path) -> bool:
    """Nothing but a docstring."""
    return all(is_text(node) for node in ast.parse(path.read_text(encoding="utf-8")).body)


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

    Imports of our own stand aside, without their modules: a module that moves does nothing else.

    It is written out here because `ast.dump` differs between Python versions.
    """
    if isinstance(node, ast.AST):
        fields = {n: normalised(v) for n, v in ast.iter_fields(node) if v is not None and v != []}
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = [
                normalised(n) for n in node.body if not is_text(n) and not is_own_import(n)
            ]
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [normalised(item) for item in node if not is_own_import(item)]
    return repr(node)


def is_own_import(node: Any) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "harness"


def own_names(tree: ast.AST) -> list[str]:
    """The names that a module imports of ours."""
    own = (node for node in ast.walk(tree) if is_own_import(node))
    return sorted({a.asname or a.name for node in own for a in node.names})


def is_text(node: ast.stmt) -> bool:
    """A docstring, or a string below a name that documents it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest(source: str) -> str:
    tree = ast.parse(source)
    text = json.dumps([own_names(tree), normalised(tree)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def present(stage: str) -> dict[str, Any]:
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
        f"environment.CODE_VERSIONS[{stage!r}] (a recipe's, an engine's or a judge's own code_version) "
        "if the stage may now make other content from the same call. Then, or at once if what it makes "
        "cannot change, run: "
        "python tests/test_code_versions.py --write"
    )


def test_every_stage_is_recorded() -> None:
    assert set(ENTRY) == set(CODE_VERSIONS) == set(json.loads(RECORD.read_text(encoding="utf-8")))


def test_the_modules_of_each_stage_are_found_through_their_imports() -> None:
    found = {stage: set(modules_of(stage)) for stage in ENTRY}
    gen = found["gen/alpaca"]
    assert {
        "harness.gen.recipes.alpaca.recipe",
        "harness.gen.similarity",
        "harness.llm.client",
    } <= gen
    assert {"harness.gen.recipes.choose", "harness.data.dataset"} <= found["gen/select"]
    assert "harness.llm.client" not in found["gen/random_k"]
    assert {"harness.train.loop", "harness.modeling.text"} <= found["train"]
    answers = {stage: found[f"answer/{stage}"] for stage in ENGINES}
    assert {"harness.answer.decoding.decode", "harness.modeling.load"} <= answers["transformers"]
    assert {"harness.answer.served", "harness.llm.client"} <= answers["endpoint"]
    assert set(LOCAL) <= found["judge/flow_judge"]
    assert not {"harness.answer.decoding.decode", "harness.llm.client"} & answers["null"]
    assert {"harness.judge.scores", "harness.llm.client"} <= found["judge/preference"]
    assert "harness.judge.kinds.alpaca_eval.judge" not in found["judge/preference"]
    assert {"harness.judge.grades", "harness.judge.scores"} <= found["judge/grading"]
    assert {
        "harness.sim.server",
        "harness.sim.replies.judge",
        "harness.sim.replies.teacher",
    } <= found["sim"]
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


def test_a_module_that_moves_changes_no_digest_of_those_that_import_it() -> None:
    use = "from harness.{} import f, g\n\n\ndef h():\n    from harness.{} import k\n"
    assert digest(use.format("a", "b")) == digest(use.format("b.c", "d"))
    assert digest(use.format("a", "b")) != digest(use.format("a", "b").replace("g", "e"))


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
