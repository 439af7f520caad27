"""What is flow-judge's own: its rubrics, the wording of its prompt, how it reads a reply.

Written against flow-judge 0.1.2; tests/judge/kinds/test_packages.py tells when another is
installed. The package itself imports every engine that it finds, torch among them, and sets up
logging for the whole process, and its modules import one another through it. So their files are run
here one by one, in dictionaries that only this module has, and are handed what they would import
from the package.
"""

import ast
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError


class FlowJudgeParts(NamedTuple):
    rubrics: dict[str, Any]
    """The package's metrics, by name."""
    format_vars: Callable[[list[dict[str, str]]], str]
    format_rubric: Callable[[Any], str]
    format_user_prompt: Callable[[dict[str, str]], str]
    parse: Callable[..., Any]
    """A reply's feedback and score."""


@cache
def load() -> FlowJudgeParts:
    """Raises HarnessError where the package is not installed, or not all of it."""
    spec = importlib.util.find_spec("flow_judge")
    if spec is None or not spec.submodule_search_locations:
        raise HarnessError(
            "the package flow-judge is not installed here",
            hint="judges run in the eval image, or install requirements/eval.in",
        )
    folder = Path(spec.submodule_search_locations[0])
    try:
        return _parts_of(folder)
    except (OSError, SyntaxError, LookupError, AttributeError, NameError, ImportError) as e:
        raise HarnessError(
            f"the package flow-judge in {folder} is not complete ({type(e).__name__}: {e})",
            hint="install requirements/eval.in anew",
        ) from None


def _parts_of(folder: Path) -> FlowJudgeParts:
    metric = _names_of(folder / "metrics/metric.py", {})
    presets = _names_of(folder / "metrics/presets.py", metric)
    prompt = _names_of(folder / "utils/prompt_formatter.py", metric)
    reply = _names_of(folder / "eval_data_types.py", {})
    return FlowJudgeParts(
        {name: presets[name] for name in presets["list_all_metrics"]()},
        prompt["format_vars"],
        prompt["format_rubric"],
        prompt["format_user_prompt"],
        reply["EvalOutput"].parse,
    )


def _names_of(path: Path, imports: dict[str, Any]) -> dict[str, Any]:
    """What a file of the package defines, with `imports` for what it imports from the package."""
    tree = ast.parse(path.read_bytes(), path)
    tree.body = [node for node in tree.body if not _is_of_package(node)]
    names = {**imports, "__name__": f"{__name__}.{path.stem}"}
    exec(compile(tree, path, "exec"), names)
    return names


def _is_of_package(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (
        node.level > 0 or str(node.module).partition(".")[0] == "flow_judge"
    )
