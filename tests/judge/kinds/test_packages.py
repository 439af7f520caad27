"""The adapters of packages whose internals they use: which version they were written against, and that
they change nothing for anybody else."""

import hashlib
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import HarnessError

USED = {
    "flow-judge": (
        "harness/judge/kinds/flow_judge/package.py",
        "0.1.2",
        {
            "flow_judge/eval_data_types.py": "647cd4110ab959ca",
            "flow_judge/metrics/metric.py": "fd8a3a8382814f60",
            "flow_judge/metrics/presets.py": "3093c673d76167cc",
            "flow_judge/utils/prompt_formatter.py": "2a76e5d1664ce4ad",
        },
    ),
    "alpaca-eval": (
        "harness/judge/kinds/alpaca_eval/package.py",
        "0.6.6",
        {
            "alpaca_eval/annotators/base.py": "6a8c0e215fc37f0b",
            "alpaca_eval/annotators/pairwise_evaluator.py": "72f5900dce8c511a",
            "alpaca_eval/decoders/openai.py": "f8b70066e629ebcd",
            "alpaca_eval/main.py": "9d008a38f03f4733",
            "alpaca_eval/metrics/glm_winrate.py": "2bad5aacd48da13b",
            "alpaca_eval/utils.py": "864e4a3b752fe0c4",
        },
    ),
}
"""Package -> its adapter, the version that this was written against, and the digests of the files of
that version whose internals it uses."""


def mismatch(package: str) -> str:
    """In words, what of the installed package is another one; empty where nothing is."""
    adapter, version, digests = USED[package]
    installed = distribution(package)
    changed = [name for name, digest in digests.items() if digest_of(package, name) != digest]
    if installed.version == version and not changed:
        return ""
    what = (
        f"{package} {installed.version} is installed, and {adapter} was written against {version}"
    )
    files = f"; of the files that it uses, these are others: {', '.join(changed)}" * bool(changed)
    return f"{what}{files}. Read what changed, mend the adapter, and record the version here."


def digest_of(package: str, name: str) -> str:
    path = Path(str(distribution(package).locate_file(name)))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "no such file"


@pytest.mark.parametrize("package", USED)
def test_the_package_is_the_one_that_its_adapter_was_written_against(package: str) -> None:
    assert not mismatch(package), mismatch(package)


def test_another_version_or_another_file_is_told_in_a_plain_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter, version, digests = USED["flow-judge"]
    monkeypatch.setitem(USED, "flow-judge", (adapter, "0.1.1", digests))
    assert mismatch("flow-judge") == (
        "flow-judge 0.1.2 is installed, and harness/judge/kinds/flow_judge/package.py was written "
        "against 0.1.1. Read what changed, mend the adapter, and record the version here."
    )
    name = "flow_judge/metrics/metric.py"
    monkeypatch.setitem(USED, "flow-judge", (adapter, version, {**digests, name: "another"}))
    assert f"these are others: {name}." in mismatch("flow-judge")


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flow_judges_rubrics_are_at_no_time_among_the_modules_of_the_process() -> None:
    run(
        "import sys; from harness.judge.kinds.flow_judge import package, rubrics\n"
        "class Watched(dict):\n"
        "    def __setitem__(self, name, module):\n"
        "        assert not name.startswith('flow_judge'), name\n"
        "        super().__setitem__(name, module)\n"
        "sys.modules = Watched(sys.modules)\n"
        "assert package.load().rubrics"
    )


@pytest.mark.parametrize("missing", ["utils/prompt_formatter.py", "metrics/presets.py", "a name"])
def test_a_flow_judge_of_which_parts_are_missing_is_told_in_a_plain_sentence(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.judge.kinds.flow_judge import package

    folder = tmp_path / "flow_judge"
    for name in USED["flow-judge"][2]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(
            Path(distribution("flow-judge").locate_file(name)).read_bytes()
        )  # type: ignore[arg-type]
    if missing == "a name":
        (folder / "metrics/presets.py").write_text("")
    else:
        (folder / missing).unlink()
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(HarnessError, match=r"^the package flow-judge in .* is not complete \("):
        package.load.__wrapped__()


@pytest.mark.parametrize("level", ["DEBUG", "WARNING", "ERROR"])
def test_importing_alpaca_eval_leaves_the_environment_and_the_log_as_they_were(
    tmp_path: Path, level: str
) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n")
    run(
        "import os, logging, dotenv.main, sklearn; before = dict(os.environ)\n"
        f"dotenv.main.find_dotenv = lambda *a, **k: {str(tmp_path / '.env')!r}\n"
        f"logging.getLogger().setLevel({level!r})\n"
        "import harness.judge.kinds.alpaca_eval.package\n"
        "assert dict(os.environ) == before, set(os.environ) - set(before)\n"
        f"assert logging.getLogger().level == logging.{level}"
    )


def test_that_file_would_reach_the_environment_without_the_adapter(tmp_path: Path) -> None:
    """Else the test above would say nothing."""
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n")
    run(
        "import os, dotenv.main, warnings; warnings.simplefilter('ignore')\n"
        f"dotenv.main.find_dotenv = lambda *a, **k: {str(tmp_path / '.env')!r}\n"
        "import alpaca_eval\n"
        "assert os.environ['FROM_DOTENV'] == '1'"
    )


def test_alpaca_evals_own_modules_keep_their_functions_while_a_judge_asks() -> None:
    from harness.judge.kinds.alpaca_eval import package as alpaca_package  # isort: skip: the package is first imported there
    from alpaca_eval.decoders import openai

    before = dict(vars(openai))
    seen = []

    def request(batch: object, **more: object) -> list[dict[str, object]]:
        seen.append(dict(vars(openai)) == before)
        return [{"text": "hello", "total_tokens": 1}]

    options = {"model_name": "gpt-4", "num_procs": 1, "price_per_token": 0.0}
    prompt = "<|im_start|>user\nHello\n<|im_end|>"
    result = alpaca_package._completions([prompt], options, request)
    assert seen == [True]
    assert result["completions"] == ["hello"]


def test_a_function_that_the_package_no_longer_has_is_named() -> None:
    from harness.judge.kinds.alpaca_eval import package as alpaca_package

    with pytest.raises(AssertionError, match=r"alpaca_eval\.metrics\.glm_winrate .* has no gone"):
        alpaca_package._copy("alpaca_eval.metrics.glm_winrate", gone=None)
