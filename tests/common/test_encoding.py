"""Terminals that know only ASCII, or another alphabet than UTF-8: every command prints, none fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.common.encoding import typed
from tests.helpers import InstantExecutor, command, evaluation, make, write_row

SCORE = {"value": 40.0, "standard_error": 2.0, "judged": 1, "expected": 1}
TITLE = "Die Zeile „eins“ → naïve …"
UNPRINTABLE = "\udce9"
"""What Python makes of a byte of a file's name that is no UTF-8."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name, steps in (("one", 1), ("two", 2)):
        part = evaluation(folder / "specs")
        spec = write_row(folder / "specs", name, eval=part, title=TITLE, train={"steps": steps})
        text = spec.read_text()
        spec.write_text(text + "deviations: [ein Gerät – ‘anders’]\nvaried: {Daten: größer ± 1}\n")

        def outcome(job: Any) -> dict[str, Any]:
            return {"metrics": {"win_rate": SCORE}} if job.stage == "judge" else {}

        make(folder / "runs", spec, executor=InstantExecutor(outcome))
    (folder / "results").mkdir()
    rows = [
        {"instruction": "Größe?", "output": "→ zwölf", "generator": "naïve", "preference": p}
        for p in (1.0, 2.0)
    ]
    (folder / "results" / "annotations.json").write_text(json.dumps(rows, ensure_ascii=False))
    return folder


def harness(place: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HARNESS_", "LC_", "PYTHON"))}
    environment = {**clean, "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **variables}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=place, env=environment, capture_output=True, check=False,
    )  # fmt: skip


COMMANDS = (
    ("validate", "specs"), ("plan", "specs"), ("run", "specs"), ("table",), ("verify", "one"),
    ("table", "--format", "html"), ("compare", "one", "two"), ("show", "one"),
    ("show", "one", "--json"), ("show", "one", "--prompt"), ("show", "one", "--outputs"),
    ("report",), ("gc",), ("doctor",),
    ("audit", "results"), ("replay", "one"), ("chat", "one", "--once", "Größe?"), ("show", "größer"),
    ("export", "one", "--to", "über.zip"), ("table", f"x{UNPRINTABLE}"), ("--help",),
)  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_ends_in_a_traceback_on_a_terminal_that_knows_only_ascii(
    place: Path, arguments: tuple[str, ...]
) -> None:
    done = harness(place, *arguments)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode in (0, 1, 2, 3, 4)


def test_what_ascii_lacks_is_told_with_like_characters(place: Path) -> None:
    shown = harness(place, "table").stdout.decode("ascii")
    assert "40.00 +/- 2.00" in shown
    assert "Daten=gr??er +/- 1" in shown
    planned = harness(place, "plan", "specs").stdout.decode("ascii")
    assert 'Die Zeile ?eins" -> na?ve ...' in planned


def test_latin_1_keeps_the_characters_that_it_has(place: Path) -> None:
    shown = harness(place, "table", PYTHONIOENCODING="latin-1").stdout.decode("latin-1")
    assert "40.00 ± 2.00" in shown


def test_a_table_that_is_redirected_into_a_file_is_utf_8_as_the_files_are(place: Path) -> None:
    told = harness(place, "table", "--format", "md").stdout.decode("utf-8")
    assert "40.00 ± 2.00" in told


def test_what_the_locale_cannot_read_of_an_argument_is_utf_8() -> None:
    assert typed("Gr\udcc3\udcb6\udcc3\udc9fe \udcff") == "Größe \ufffd"
    assert typed("Größe →") == "Größe →"


def test_chat_hands_the_model_no_character_that_a_tokenizer_ends_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    monkeypatch.chdir(place)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setattr("harness.run.chat.chat", lambda runner, plan, wishes: heard.append(wishes))
    command("chat", "one", "--once", "Gr\udcc3\udcb6\udcc3\udc9fe", "--system", "\udcff")
    assert [(wishes.once, wishes.system) for wishes in heard] == [("Größe", "\ufffd")]
