"""What the installed package says of its tasks, read from its files of YAML alone: importing it takes
seconds, and its own index of all tasks ten more. Nothing is known where the package is not installed.
"""

import ast
import difflib
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEFAULT_METRICS = {
    "loglikelihood": ["perplexity", "acc"],
    "loglikelihood_rolling": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "multiple_choice": ["acc", "acc_norm"],
    "generate_until": ["exact_match"],
}
"""Of a task that lists none, by its kind of output (lm_eval.api.registry)."""
NO_FILTER = "none"
_NAMED = re.compile(
    r"""^["']?(task|group)["']?:[ \t]*["']?([^\s"'#\[{&*!|>][^"'#\n]*?)["']?[ \t]*(?:\#.*)?$""",
    re.M,
)
_TAGS = re.compile(
    r"""^["']?tag["']?:[ \t]*(\S[^\n#]*)?(?:\n((?:[ \t]*-[ \t]*[^\n]+\n?)+))?""", re.M
)
_INCLUDED = re.compile(r"""^["']?include["']?:[ \t]*["']?([^\s"'#]+)""", re.M)
DISTRIBUTIONS = {
    "immutabledict": "immutabledict", "langdetect": "langdetect", "sklearn": "scikit-learn",
    "rouge_score": "rouge-score", "math_verify": "math-verify", "bert_score": "bert-score",
}  # fmt: skip
"""Packages whose name at the index is another than the module's, or that tasks often need."""


class Function(str):
    """A function that a task's file names: `utils.process_results`."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
    return Function(loader.construct_scalar(node))


class _Loader(yaml.SafeLoader):
    yaml_constructors = {**yaml.SafeLoader.yaml_constructors, "!function": _function}


@dataclass(frozen=True)
class Entry:
    """A task, a group (tasks with a score of their own) or a tag (a name for several tasks)."""

    name: str
    path: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    @property
    def is_task(self) -> bool:
        return self.path is not None and "group" not in self.config

    def metrics(self) -> list[str] | None:
        """`METRIC`, or `METRIC/FILTER` where answers are filtered; None where only a run shows it."""
        if not self.is_task:
            return self._aggregated()
        listed = self.config.get("metric_list")
        if listed is None:
            names = DEFAULT_METRICS[self.config.get("output_type", "generate_until")]
        else:
            names = [m["metric"] for m in listed]
        if any(isinstance(name, Function) for name in names):
            return None
        filters = [f["name"] for f in self.config.get("filter_list") or []] or [NO_FILTER]
        return [metric_name(str(name), of) for name in names for of in filters]

    def _aggregated(self) -> list[str]:
        """Of a group; empty where only its members have scores."""
        aggregated = self.config.get("aggregate_metric_list") or []
        names = []
        for metric in aggregated if isinstance(aggregated, list) else [aggregated]:
            filters = metric.get("filter_list")
            if filters is None:  # of the members
                listed = [name for task in tasks_of(self) for name in task.metrics() or ()]
                filters = sorted({f"{name}/{NO_FILTER}".split("/")[1] for name in listed
                                  if name.partition("/")[0] == metric["metric"]})  # fmt: skip
            filters = [filters] if isinstance(filters, str) else filters
            names += [metric_name(metric["metric"], of) for of in filters]
        return names

    @property
    def split(self) -> str | None:
        """Where its questions come from."""
        return self.config.get("test_split") or self.config.get("validation_split")

    @property
    def shots_split(self) -> str | None:
        """Where its shots come from; None where they are written in its own files."""
        shots = self.config.get("fewshot_config") or {}
        if isinstance(shots, dict) and (shots.get("split") or "samples" in shots):
            return shots.get("split")
        named = (self.config.get(f"{part}_split") for part in ("fewshot", "training", "validation"))
        return next(filter(None, named), self.split)

    @property
    def splits(self) -> list[str]:
        shots = self.config.get("fewshot_config") or {}
        names = [self.config.get(f"{part}_split") for part in
                 ("training", "validation", "test", "fewshot")]  # fmt: skip
        names.append(shots.get("split") if isinstance(shots, dict) else None)
        return list(dict.fromkeys(filter(None, names)))

    def shots(self, wanted: int | None) -> int:
        return wanted if wanted is not None else int(self.config.get("num_fewshot") or 0)

    def columns(self) -> set[str]:
        """Those that its templates name; none where its data is changed before they see it.

        Raises ImportError where jinja2 is not installed."""
        from jinja2 import Environment, meta

        if self.config.get("process_docs"):
            return set()
        names = set()
        for part in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            template = self.config.get(part)
            if not isinstance(template, str) or isinstance(template, Function):
                continue
            if re.fullmatch(r"\w+", template) and not template.isdigit():
                names.add(template)
            else:
                names |= meta.find_undeclared_variables(Environment().parse(template))
        return names

    def function_of(self, part: str) -> Callable[[dict[str, Any]], Any] | None:
        """The task's function of that name, `doc_to_target`, where its file needs nothing but Python;
        else None."""
        name = self.config.get(part)
        if not isinstance(name, Function) or self.path is None:
            return None
        module, _, attribute = name.rpartition(".")
        path = self.path.parent / f"{module.replace('.', '/')}.py"
        if not path.is_file():
            return None
        if {n.partition(".")[0] for n in _imports(path)} - sys.stdlib_module_names:
            return None
        code: dict[str, Any] = {"__name__": module}
        try:
            exec(compile(path.read_bytes(), str(path), "exec"), code)
        except Exception:  # a relative import, say: the package itself loads it otherwise
            return None
        function = code.get(attribute)
        return function if callable(function) else None

    def lacking(self) -> list[str]:
        """Packages that its functions import and that are not installed."""
        assert self.path is not None
        modules: dict[Path, None] = {}
        for function in _functions(self.config):
            path = self.path.parent / f"{function.rpartition('.')[0].replace('.', '/')}.py"
            if path.is_file():
                _imported(path, modules)
        names = {name for path in modules for name in _imports(path)}
        packages = {name.partition(".")[0] for name in names}
        lacking = {name for name in packages if importlib.util.find_spec(name) is None}
        return sorted(DISTRIBUTIONS.get(name, name) for name in lacking)


def metric_name(metric: str, of_filter: str) -> str:
    return metric if of_filter == NO_FILTER else f"{metric}/{of_filter}"


def responses_file(unit: str) -> str:
    """Of a judged task, what its questions were answered with."""
    return f"responses_{re.sub(r'[^A-Za-z0-9_.-]', '_', unit)}.jsonl"


def package_folder() -> Path | None:
    """Of the package's tasks; None where it is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / "tasks" if places else None


@functools.cache
def find(name: str) -> Entry | None:
    """The task, group or tag of this name."""
    root = package_folder()
    if root is None:
        return None
    # Most tasks are in a folder that their name begins with.
    begins = ["_".join(name.split("_")[:n]) for n in range(len(name.split("_")), 0, -1)]
    folders = [root / b for b in begins if b and (root / b).is_dir()]
    for folder in [*folders[:1], root]:
        paths, tags = _index(folder)
        if name in paths:
            return _entry(name, paths[name])
        if folder == root and name in tags:
            return Entry(name, members=tuple(sorted(tags[name])))
    return None


def nearest(name: str) -> list[str]:
    """Names of tasks that are like it."""
    root = package_folder()
    if root is None:
        return []
    paths, tags = _index(root)
    return difflib.get_close_matches(name, [*paths, *tags], n=3)


def tasks_of(entry: Entry) -> list[Entry]:
    """The task itself; of a group or tag all that are below it."""
    if entry.is_task:
        return [entry]
    members = [find(name) for name in entry.members]
    return [task for member in members if member is not None for task in tasks_of(member)]


@functools.cache
def _index(folder: Path) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Name -> file of tasks and groups; tag -> its tasks. Of several files of a name the package
    takes the first."""
    paths: dict[str, Path] = {}
    tags: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.yaml"), key=lambda p: p.as_posix()):
        text = path.read_text(encoding="utf-8", errors="replace")
        for kind, name in _NAMED.findall(text):
            paths.setdefault(name, path)
            for tag in _tags(path, text) if kind == "task" else ():
                tags.setdefault(tag, []).append(name)
    return paths, tags


def _tags(path: Path, text: str) -> list[str]:
    """Those of the file, or else of the one that it includes."""
    match = _TAGS.search(text)
    if match is not None:
        return re.findall(r"[^\s,\[\]\"'-][^\s,\[\]\"']*", " ".join(filter(None, match.groups())))
    included = _INCLUDED.search(text)
    source = path.parent / included[1] if included else None
    if source is None or not source.is_file():
        return []
    return _tags(source, source.read_text(encoding="utf-8", errors="replace"))


def _entry(name: str, path: Path) -> Entry:
    config = _config(path)
    members = config.get("task") if "group" in config else ()
    names = [m if isinstance(m, str) else m.get("task") or m.get("group") for m in members or ()]
    return Entry(name, path, config, tuple(n for n in names if isinstance(n, str)))


def _config(path: Path) -> dict[str, Any]:
    """The file with those that it includes; what it says itself wins."""
    config: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    includes = config.pop("include", [])
    merged: dict[str, Any] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        merged |= _config(path.parent / name)
    return merged | config


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _functions(item)


def _imported(path: Path, into: dict[Path, None]) -> None:
    """The file and those of the package's tasks that it imports."""
    root = package_folder()
    if path in into or root is None:
        return
    into[path] = None
    for name in _imports(path):
        if name.startswith("lm_eval.tasks."):
            parts = name.split(".")[2:]
            below = (
                root.joinpath(*parts[:n]).with_suffix(".py") for n in (len(parts), len(parts) - 1)
            )
            for module in filter(Path.is_file, below):
                _imported(module, into)


def _imports(path: Path) -> Iterator[str]:
    """What a file imports as it is loaded."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
