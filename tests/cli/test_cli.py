"""The command line: exit codes, one clear message for every fault, and what each command touches."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from harness import __version__
from harness.artefact.keys import digest_of
from harness.artefact.store import Store
from harness.cli import Group, _device_faults_told
from harness.cli.workspace import make_console
from harness.errors import HarnessError, InputError, Interrupted
from harness.modeling.memory import need as memory
from harness.run import estimate, training_data
from tests.helpers import (
    HARNESS,
    ROOT,
    FakeStages,
    InstantExecutor,
    command,
    evaluation,
    make,
    planned,
    write_row,
    write_rows,
)

COMMANDS = (
    "validate", "schema", "plan", "needs", "run", "fetch", "join", "chat", "export", "replay", "table",
    "show", "gc", "doctor", "sim", "verify", "compare", "audit", "report", "pin", "settle",
    "images", "submit", "status", "cancel",
)  # fmt: skip
STAGES = ("gen", "train", "answer", "judge")
SCORE = {"value": 40.0, "standard_error": 2.0, "judged": 1, "expected": 1}


def score_judgings(job: Any) -> dict[str, Any]:
    return {"metrics": {"win_rate": SCORE}} if job.stage == "judge" else {}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with specs/one.yaml, whose runs are made at once."""
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_row(tmp_path / "specs", eval=evaluation(tmp_path / "specs"))
    monkeypatch.setattr(
        "harness.run.executors.make", lambda *which: InstantExecutor(score_judgings)
    )
    return tmp_path


@pytest.fixture
def executor_that(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets every stage end with the given exception."""

    def set_to_raise(error: BaseException) -> None:
        def outcome(job: Any) -> dict[str, Any]:
            raise error

        monkeypatch.setattr("harness.run.executors.make", lambda *which: InstantExecutor(outcome))

    return set_to_raise


def artefacts(volume: Path = Path("runs")) -> set[str]:
    return {f"{p.parent.name}/{p.name}" for p in (volume / "artefacts").glob("*/*")}


def short_keys(*specs: str) -> set[str]:
    return {f"{s.stage}/{s.key[:16]}" for plan in planned(Path("runs"), *map(Path, specs))
            for s in plan.stages}  # fmt: skip


def test_help_lists_every_command_with_what_it_does() -> None:
    text = command("--help").stdout
    listed = re.findall(r"^  (\w+)  +(\S.*)$", text.split("Commands:")[1], re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(COMMANDS)
    assert all(words.endswith(".") and not words.endswith("..") for _, words in listed)
    assert [name for name, _ in listed][:3] == ["validate", "plan", "run"], "in the order of work"
    words = " ".join(text.split())
    codes = (
        "0 done, 1 a run failed (of `audit`: there are findings; of `needs`: something is missing), "
        "2 the input is faulty or asks for what is not there, 130 stopped, 141 what reads the output "
        "has ended. Of `verify`: 3 not reproduced, 4 open."
    )
    assert f"Exit codes: {codes}" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_a_help_text(name: str) -> None:
    from harness.cli import main

    result = command(name, "-h")
    assert result.exit_code == 0
    options = [p for p in main.commands[name].params if p.param_type_name == "option"]
    assert [p.name for p in options if not p.help] == []


def test_the_version_is_the_packages_own() -> None:
    assert command("--version").stdout.split()[-1] == __version__


def test_validate_counts_the_rows_that_have_no_fault(place: Path) -> None:
    assert command("validate", "specs").stdout == "1 row, no fault\n"
    write_row(place / "specs", "two")
    assert command("validate", "specs").stdout == "2 rows, no fault\n"


def test_a_slash_at_the_end_of_a_servers_address_moves_keys_and_validate_and_plan_say_so_once(
    place: Path,
) -> None:
    keys = []
    for url in ("http://h/v1", "http://h/v1/"):
        judge = {"model": "judge", "base_url": url}
        spec = write_row(place / "specs", eval=evaluation(place / "specs", judge))
        keys.append({key for key in short_keys(str(spec)) if key.startswith("judge/")})
    assert keys[0] != keys[1], "what was made with a slash keeps its key"
    write_row(place / "specs", "two", eval=evaluation(place / "specs", judge))
    sentence = "note: base_url http://h/v1/ is the same server as http://h/v1 and gives other keys"
    for name in ("validate", "plan"):
        said = " ".join(command(name, "specs").stdout.split())
        assert said.count(sentence) == 1
    judge["base_url"] = "http://h/v1"
    for row in ("one", "two"):
        write_row(place / "specs", row, eval=evaluation(place / "specs", judge))
    assert "note:" not in command("validate", "specs").stdout + command("plan", "specs").stdout


def test_validate_with_given_data_finds_what_is_absent_or_has_other_bytes(place: Path) -> None:
    (place / "inputs").mkdir()
    prompts = place / "inputs" / "prompts.jsonl"
    text = (place / "specs" / "prompts.jsonl").read_text()
    pins = {"right": hashlib.sha256(text.encode()).hexdigest(), "wrong": "0" * 64}
    for name, pin in pins.items():
        part = evaluation(place / "specs")
        part["answer"]["prompts"] = {"file": {"path": "data:prompts.jsonl", "sha256": pin}}
        write_row(place / "specs", name, eval=part)
    assert command("validate", "specs").exit_code == 0
    absent = command("validate", "specs", "--inputs", "inputs")
    assert absent.exit_code == 2
    places = {
        name: next(
            f"specs/{name}.yaml:{line}:"
            for line, text in enumerate(Path(f"specs/{name}.yaml").read_text().splitlines(), 1)
            if text.strip() == "file:"
        )
        for name in pins
    }
    told = rf"error: {places['right']}\d+: data:prompts.jsonl is not there"
    assert re.search(told, absent.stderr)
    prompts.write_text(text)
    right = command("validate", "specs/right.yaml", "--inputs", "inputs")
    assert right.stdout == ("1 row, no fault; given data: 1 with the right sha256, 2 not pinned\n")
    wrong = command("validate", "specs", "--inputs", "inputs")
    assert wrong.exit_code == 2
    assert places["wrong"] in wrong.stderr
    planned = command("plan", "specs/wrong.yaml", "--inputs", "inputs")
    assert planned.stderr.startswith(f"error: {places['wrong']}")
    assert f"is not the file that the spec means: its sha256 is {pins['right']}" in wrong.stderr
    assert "specs/right.yaml" not in wrong.stderr
    assert wrong.stderr.endswith("1 fault in the given data\n")


def test_validate_reads_training_data_beside_the_spec_and_with_inputs_given_data_too(
    place: Path,
) -> None:
    (place / "specs" / "own.jsonl").write_text('{"instruction": "q", "output": "a"}\n' * 2)
    write_row(place / "specs", gen=None, data="own.jsonl")
    said = command("validate", "specs")
    assert said.stdout == "data: own.jsonl: 2 records (instruction, output)\n1 row, no fault\n"
    (place / "inputs").mkdir()
    (place / "inputs" / "chat.jsonl").write_text('\n{"messages": []}\n')
    write_row(place / "specs", "two", gen=None, data="data:chat.jsonl")
    assert command("validate", "specs").exit_code == 0, "what is given is not looked for"
    for arguments in (("validate", "specs", "--inputs", "inputs"), ("plan", "specs")):
        faulty = command(*arguments)
        assert faulty.exit_code == 2
        assert "chat.jsonl:2: no `instruction`; the fields here are: messages" in faulty.stderr
        assert "gen: {recipe: import, file: chat.jsonl}" in faulty.stderr


def test_validate_finds_what_plan_refuses_of_prompts_baselines_annotators_and_seeds(
    place: Path,
) -> None:
    roles = ("user", "assistant", "user")
    talk = {"messages": [{"role": r, "content": str(n)} for n, r in enumerate(roles)]}
    (place / "specs" / "talk.jsonl").write_text(json.dumps(talk) + "\n")
    judge = {"kind": "alpaca_eval", "judge": {"model": "judge"}, "reference": "prompts.jsonl"}
    absent = {"file": "data:absent.jsonl"}
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "turns": ({"prompts": {"file": "talk.jsonl"}}, "has no earlier turns"),
        "baseline": ({"prompts": {"file": "other.jsonl"}}, "prompts have no baseline output"),
        "annotator": ({"annotator": "chatgtp", "prompts": absent}, "no annotator 'chatgtp'"),
    }
    (place / "specs" / "other.jsonl").write_text('{"instruction": "Another."}\n')
    for name, (part, words) in faults.items():
        parts = evaluation(place / "specs")
        parts["answer"]["prompts"] = part["prompts"]
        if "annotator" in part:
            parts["judge"] = {**judge, "annotator": part["annotator"]}
        spec = write_row(place / "specs", name, eval=parts)
        assert command("plan", spec).exit_code == 2
        said = command("validate", spec)
        assert re.search(rf"{name}\.yaml:\d+:\d+: .*{words}", said.stderr)
    (place / "specs" / "seeds.jsonl").write_text('{"what": 1}\n')
    assert command("validate", "specs/one.yaml").exit_code == 2


def test_validate_says_where_the_value_stands_also_in_a_file_that_is_extended(place: Path) -> None:
    parts = evaluation(place / "specs")
    parts["judge"] |= {"kind": "alpaca_eval", "annotator": "chatgtp"}
    del parts["judge"]["prompt"]
    base = place / "specs" / "_base.yaml"
    base.write_text(yaml.safe_dump({"eval": parts}))
    spec = write_row(place / "specs", eval=None)
    tree = yaml.safe_load(spec.read_text())
    tree.pop("eval", None)
    spec.write_text(yaml.safe_dump({"extends": "_base.yaml", **tree}))
    (line,) = [n for n, t in enumerate(base.read_text().splitlines(), 1) if "chatgtp" in t]
    column = base.read_text().splitlines()[line - 1].index("annotator") + 1
    said = command("validate", "specs").stderr
    assert f"specs/_base.yaml:{line}:{column}: alpaca_eval has no annotator 'chatgtp'\n" in said
    assert re.search(r"^Near: chatgpt, .*; there are \d+\.$", said, re.MULTILINE)

    (place / "specs" / "seeds.jsonl").write_text('{"what": 1}\n')
    seeds = [n for n, t in enumerate(spec.read_text().splitlines(), 1) if t.startswith("gen:")]
    assert f"specs/one.yaml:{seeds[0]}:1: " in command("validate", "specs").stderr


def test_a_row_elsewhere_is_shown_by_its_spec_file(place: Path) -> None:
    moved = place / "elsewhere"
    (place / "specs").rename(moved)
    spec = moved / "one.yaml"
    assert command("run", spec).exit_code == 0
    refused = command("show", spec, "--data").stderr
    assert "has a data card" in refused, "they are looked at"
    assert "gen: {recipe: import, file: FILE}" in " ".join(refused.split())
    for option in ((), ("--check",), ("--json",)):
        shown = command("show", spec, *option)
        assert shown.exit_code == 0, shown.stderr
    assert all(re.search(f"^{stage} ", command("show", spec).stdout, re.M) for stage in STAGES)
    twin = command("show", spec, "--scale", "tiny")
    assert "row one has no artefact" in twin.stderr or "row one-tiny has no" in twin.stderr
    (place / "specs").mkdir()
    write_row(place / "specs", "two")
    for name in ("verify", "show", "chat", "replay"):
        assert "name its spec file" in command(name, "one").stderr


def test_rows_that_make_data_alone_are_counted_by_table_and_by_report(place: Path) -> None:
    write_row(place / "specs", "data", train=None, model=None, template=None)
    told = "1 row makes a data set alone and is in no table"
    done = command("table")
    assert done.stdout.endswith(
        f"1 row without a result is left out (--all shows them all)\n{told}\n"
    )
    assert done.stderr == "nothing written\n"
    assert "2 rows, " in command("report", "--all").stdout
    assert told in command("report", "--all").stdout
    left_out = "2 rows of which nothing is made yet are left out (--all shows them all); 1 of them "
    assert f"{left_out}makes a data set alone and is in no table" in command("report").stdout
    assert "written: " in command("table").stderr, "the folder is there now"


def test_an_answered_row_without_a_judge_is_said_to_be_not_judged(place: Path) -> None:
    parts = evaluation(place / "specs")
    del parts["judge"]
    write_row(place / "specs", eval=parts, gen=None, train=None)
    done = command("run", "specs/one.yaml")
    assert "not judged: the row has no judge" in done.stdout
    assert "0/0" not in done.stdout
    assert "not judged" in command("verify", "one").stdout


def test_a_twin_is_found_by_the_name_that_its_table_shows(place: Path) -> None:
    assert command("run", "specs/one.yaml", "--scale", "tiny").exit_code == 0
    for arguments in (("show", "one-tiny"), ("table", "tests-tiny"), ("replay", "one-tiny")):
        asked = command(*arguments)
        name, _, _ = arguments[1].partition("-tiny")
        meant = command(arguments[0], name, "--scale", "tiny")
        assert (asked.exit_code, asked.stderr) == (meant.exit_code, meant.stderr)
        assert asked.stdout == meant.stdout
    both = command("table", "tests", "tests-tiny", "--format", "csv", "--all").stdout
    assert [line.split(",")[0] for line in both.splitlines()[1:]] == ["one", "one-tiny"]
    assert command("verify", "one-tiny").exit_code == 4
    assert "there is no row 'two-tiny'" in command("verify", "two-tiny").stderr
    assert "there is no table 'others-tiny'" in command("table", "others-tiny").stderr


def test_a_row_whose_own_name_ends_like_a_twins_is_meant_by_it(place: Path) -> None:
    write_row(place / "specs", "one-tiny")
    assert command("run", "specs/one.yaml", "specs/one-tiny.yaml").exit_code == 0
    shown = json.loads(command("show", "one-tiny", "--json").stdout)
    assert {manifest["stage"] for manifest in shown} == {"gen", "train"}


def test_run_makes_a_row_prints_its_line_and_the_second_time_makes_nothing(place: Path) -> None:
    first = command("run", "specs/one.yaml")
    assert first.exit_code == 0
    assert artefacts() == short_keys("specs/one.yaml")
    assert "40.00 ± 2.00" in first.stdout
    made = {p: p.stat().st_mtime_ns for p in Path("runs/artefacts").rglob("*")}
    second = command("run", "specs/one.yaml")
    assert second.exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in Path("runs/artefacts").rglob("*")} == made
    assert "40.00 ± 2.00" in second.stdout


def test_run_with_only_runs_those_stages_and_says_which_command_makes_a_missing_input(
    place: Path,
) -> None:
    result = command("run", "--only", "train", "specs/one.yaml")
    assert result.exit_code == 2
    assert "harness run --only gen specs/one.yaml" in result.stderr
    assert command("run", "--only", "gen, train", "specs/one.yaml").exit_code == 0
    assert {name.split("/")[0] for name in artefacts()} == {"gen", "train"}


@pytest.mark.parametrize("only", ["judg", "gen,training", "fetch", ","])
def test_run_with_only_an_unknown_stage_names_the_stages_there_are(place: Path, only: str) -> None:
    result = command("run", "--only", only, "specs/one.yaml")
    assert result.exit_code == 2
    assert "is no stage; there are gen, train, answer, judge" in result.stderr
    assert artefacts() == set()


def test_a_row_without_the_stage_that_is_asked_for_is_said_to_have_none(place: Path) -> None:
    write_row(place / "specs", "two")
    result = command("run", "--only", "judge", "specs/two.yaml")
    assert result.exit_code == 0
    assert "row two has no judge stage" in result.stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (HarnessError("the loss is not a number", "Lower the rate."), 1, "Lower the rate."),
        (Interrupted("gen was stopped", "Run it again."), 130, "Run it again."),
        (KeyboardInterrupt(), 130, "Run the same command again to go on."),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 1, "harness gc"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/x"), 1, "/runs/x cannot be "
         "used: Permission denied"),
    ],
)  # fmt: skip
def test_a_run_that_ends_badly_says_so_in_one_message_with_its_exit_code(
    place: Path, executor_that: Any, error: BaseException, code: int, words: str
) -> None:
    executor_that(error)
    result = command("run", "specs/one.yaml")
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_what_an_order_to_stop_made_look_faulty_is_no_fault() -> None:
    @click.command()
    def load() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise InputError("the model cannot be loaded")

    result = CliRunner().invoke(Group(commands={"load": load}), ["load"])
    assert result.exit_code == 130
    assert "cannot be loaded" not in result.output


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "\x1b[2J", "\u202e", "\x08"])
def test_messages_cannot_steer_the_terminal(place: Path, executor_that: Any, hostile: str) -> None:
    executor_that(HarnessError(f"a reply {hostile}", f"a hint {hostile}"))
    result = command("run", "specs/one.yaml")
    assert result.exit_code == 1
    assert hostile[0] not in result.output
    assert result.stderr.count("\ufffd") >= 2


def test_words_between_colons_stay_as_they_are(place: Path) -> None:
    write_row(place / "specs", title="Ratio :100: and :smile:")
    assert "Ratio :100: and :smile:" in command("plan", "specs").stdout


BAD = [
    ("plan", "gone.yaml"),
    ("plan", "x" * 300),
    ("plan", "a\nb"),
    ("plan", "--volume", "file", "gone"),
    ("plan", "--data", "file", "specs"),
    ("plan", "--data", "gone", "specs"),
    ("plan", "--executor", "ray", "specs"),
    ("plan",),
    ("plan", "empty"),
    ("validate", "file"),
    ("validate", "file", "gone", "specs"),
    ("run", "--volume", "file", "specs"),
    ("run", "--volume", "file/below", "specs"),
    ("run", "--only", "x", "specs"),
    ("table", "gone.yaml"),
    ("table", "--out", "file", "specs"),
    ("table", "--executor", "x"),
    ("show", "nothing-like-it"),
    ("show", "one"),
    ("show",),
    ("show", ""),
    ("show", "../../etc"),
    ("gc", "train/0123456789ab"),
    ("gc", "train"),
    ("gc", "train/"),
    ("gc", "train/*"),
    ("gc", "../artefacts"),
    ("gc", "--specs", "gone"),
    ("gc", "--specs", "empty"),
    ("sim", "--port", "70000"),
    ("sim", "--fault", "430=1"),
    ("sim", "--fault", "429=2"),
    ("sim", "--fault", "429"),
    ("sim", "--host", "0.0.0.0"),
    ("no-such-command",),
    ("plan", "--no-such-option", "specs"),
]


@pytest.mark.parametrize("arguments", BAD, ids=lambda a: " ".join(a)[:40].replace("\n", " "))
def test_bad_input_ends_with_exit_code_2_and_a_message_and_makes_nothing(
    place: Path, arguments: tuple[str, ...]
) -> None:
    Path("file").write_text("x: [")
    Path("empty").mkdir()
    result = command(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip()) > 10
    assert "Traceback" not in result.output
    assert artefacts() == set()
    assert Path("file").read_text() == "x: ["


def test_outside_of_a_checkout_the_commands_that_need_specs_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("table",), ("gc",)):
        result = command(*arguments)
        assert result.exit_code == 2
        assert "there is no specs/ folder here" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_gc_keeps_what_any_of_the_given_folders_refers_to(place: Path) -> None:
    write_row(place / "mine", "two", eval=None)
    command("run", "specs", "mine")
    for folders in (("specs", "mine"), ("mine", "specs")):
        listed = command("gc", *(word for f in folders for word in ("--specs", f)))
        assert listed.stdout.startswith("0 items"), listed.stdout
    assert "no spec refers to it" in command("gc", "--specs", "mine").stdout


def test_run_ends_with_commands_that_find_a_row_outside_specs(place: Path) -> None:
    write_row(place / "mine", "two", eval=evaluation(place / "mine"))
    told = " ".join(command("run", "mine").stdout.split())
    assert "harness verify mine/two.yaml; harness report mine" in told
    assert "harness verify one; harness report" in command("run", "specs").stdout


def test_show_of_an_unknown_row_names_those_that_are_near(place: Path) -> None:
    write_row(place / "specs", "alpaca-1.8b")
    result = command("show", "alpaca-18b")
    assert result.exit_code == 2
    assert "Near: alpaca-1.8b" in result.stderr
    assert "Near:" not in command("show", "zzz").stderr


def test_a_number_with_other_zeros_is_nearest(place: Path) -> None:
    for name in ("line-02", "line-12", "line-22", "line-32", "line-42"):
        write_row(place / "specs", name)
    assert "Near: line-02, line-" in command("verify", "line-2").stderr


def test_a_name_that_is_a_suffix_alone_is_a_spec_that_is_not_there(place: Path) -> None:
    result = command("show", ".yaml", "--sources")
    assert result.exit_code == 2
    assert ".yaml" in result.stderr


def test_show_prints_the_manifests_of_a_row_or_of_the_key_that_begins_so(place: Path) -> None:
    command("run", "specs/one.yaml")
    by_row = command("show", "one")
    assert by_row.exit_code == 0
    (train,) = (name for name in artefacts() if name.startswith("train/"))
    key = train.removeprefix("train/")
    for stage in STAGES:
        assert re.search(rf"^{stage} [0-9a-f]{{64}}$", by_row.stdout, re.MULTILINE)
    for prefix in (key, key[:8], f"train/{key[:8]}"):
        shown = command("show", prefix).stdout
        assert shown.startswith(f"train {key}")
        assert "parameters" not in shown
        assert command("show", "--params", prefix).stdout.count("parameters") == 1
    (manifest,) = json.loads(command("show", "--json", key).stdout)
    assert manifest["key"].startswith(key)
    assert manifest["stage"] == "train"


def test_show_of_a_whole_key_finds_it_and_of_a_key_that_goes_on_differently_does_not(
    place: Path,
) -> None:
    command("run", "specs/one.yaml")
    (plan,) = planned(Path("runs"), Path("specs/one.yaml"))
    key = plan.stages[0].key
    assert command("show", key).exit_code == 0
    wrong = key[:20] + ("0" if key[20] != "0" else "1")
    assert command("show", wrong).exit_code == 2


def test_show_with_check_finds_a_file_that_was_changed_and_names_the_way_out(place: Path) -> None:
    command("run", "specs/one.yaml")
    assert (
        "1 file, each with the digest it was made with" in command("show", "--check", "one").stdout
    )
    (made,) = Path("runs/artefacts/answer").glob("*/made.txt")
    made.write_text("changed")
    name = f"answer/{made.parent.name}"
    result = command("show", "--check", "one")
    assert result.exit_code == 1
    assert "made.txt does not have the bytes it was made with" in result.stderr
    assert f"harness gc --yes {name}" in result.stderr
    assert command("gc", "--yes", name).exit_code == 0
    assert command("run", "specs/one.yaml").exit_code == 0
    assert command("show", "--check", "one").exit_code == 0


FAULTY = "warning: 2 specs have faults: `harness validate specs` lists them\n"


@pytest.fixture
def faulty(place: Path) -> Path:
    """`place`, run, with two specs beside it that have faults."""
    assert command("run", "specs/one.yaml").exit_code == 0
    write_row(place / "specs", "bad", oops=1)
    (place / "specs" / "worse.yaml").write_text("row: [")
    return place


def test_faulty_specs_do_not_keep_other_rows_from_being_shown_replayed_or_tabled(
    faulty: Path,
) -> None:
    for arguments in (("show", "one"), ("show", "one", "--prompt"), ("replay", "one"), ("table",)):
        result = command(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr.count(FAULTY) == 1
    (train,) = (name for name in artefacts() if name.startswith("train/"))
    assert command("show", train).exit_code == 0
    assert Path("runs/results/matrix.csv").read_text().count("The row one") == 1


@pytest.mark.parametrize("name", ["chat", "export"])
def test_faulty_specs_do_not_keep_a_rows_model_from_being_used(
    faulty: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows: list[str] = []

    def use(runner: Any, plan: Any, wishes: Any) -> list[str]:
        rows.append(plan.row.row)
        return []

    package = {"chat": "run", "export": "crate"}[name]
    monkeypatch.setattr(f"harness.{package}.{name}.{name}", use)
    result = command(name, "one", *(["--model", "--to", "there"] if name == "export" else []))
    assert (result.exit_code, result.stderr) == (0, FAULTY)
    assert rows == ["one"]


@pytest.mark.parametrize("arguments", [("show", "bad"), ("replay", "bad"), ("show", "--best", "x")])
def test_a_row_that_no_usable_spec_has_ends_with_the_faults(
    faulty: Path, arguments: tuple[str, ...]
) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert "specs/bad.yaml:" in result.stderr
    assert "2 faults in the specs" in result.stderr
    assert re.search(rf"Of the specs without faults: .*'{arguments[-1]}'", result.stderr)


def test_where_every_spec_is_faulty_the_table_is_not_written(faulty: Path) -> None:
    Path("specs/one.yaml").unlink()
    result = command("table")
    assert result.exit_code == 2
    assert "2 faults in the specs" in result.stderr
    assert not Path("results").exists()


@pytest.mark.parametrize("name", ["validate", "plan", "run", "table"])
def test_named_specs_have_to_be_without_faults(faulty: Path, name: str) -> None:
    result = command(name, "specs")
    assert result.exit_code == 2
    assert "2 faults in the specs" in result.stderr


def test_where_a_row_fails_the_matrix_of_the_others_is_printed_before_the_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.executors import StageFailed

    def outcome(job: Any) -> dict[str, Any]:
        if job.stage == "train" and "two" in job.title:
            raise StageFailed(job, "no loss", "Lower the rate.", 1)
        return score_judgings(job)

    monkeypatch.setattr("harness.run.executors.make", lambda *which: InstantExecutor(outcome))
    write_row(place / "specs", "two", train={"steps": 2})
    write_row(place / "specs", "three", train={"steps": 3}, eval=evaluation(place / "specs"))
    result = command("run", "specs/two.yaml", "specs/one.yaml", "specs/three.yaml")
    assert result.exit_code == 1
    assert result.stdout.count("40.00 ± 2.00") == 2
    assert ": failed: no loss" in result.stdout
    assert re.match(r"error: train: two \[\w+\] failed: no loss\nLower the rate\.", result.stderr)
    assert "Not run" not in result.stderr


def test_gc_lists_and_with_yes_removes_exactly_what_no_spec_refers_to(place: Path) -> None:
    write_row(place / "specs", "two", train={"steps": 2})
    command("run", "specs")
    needed = artefacts()
    write_row(place / "specs", "two", train={"steps": 9})
    old = needed - short_keys("specs/one.yaml", "specs/two.yaml")
    assert {name.split("/")[0] for name in old} == {"train"}
    listed = command("gc")
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.stdout.splitlines()[:-1]} == old
    assert "add --yes" in listed.stdout
    assert artefacts() == needed
    assert command("gc", "--yes").stdout.splitlines()[-1].startswith("removed 1 item, ")
    assert artefacts() == needed - old
    assert command("gc").stdout == "0 items, 0 bytes\n"
    assert list(Path("runs/work").iterdir()) == []


def test_gc_keeps_what_the_other_executor_made(place: Path) -> None:
    make(Path("runs"), Path("specs/one.yaml"), kind="docker")
    made = artefacts()
    assert command("gc", "--yes").exit_code == 0
    assert artefacts() == made


def test_what_only_another_executor_made_is_named_with_the_option_for_it(
    place: Path, tmp_path: Path
) -> None:
    make(Path("runs"), Path("specs/one.yaml"), kind="docker")
    packed = ("export", "one", "--to", str(tmp_path / "crate"))
    commands = (("show", "one"), ("show", "one", "--outputs"), ("replay", "one"), packed)
    option = "--executor docker, podman, apptainer or charliecloud"
    for arguments in commands:
        told = command(*arguments)
        assert told.exit_code == 2
        assert f"what was made in the images is there: name it with {option}" in told.stderr
    shutil.rmtree("runs/artefacts")
    assert all("--executor" not in command(*arguments).stderr for arguments in commands)


@pytest.mark.parametrize("name", ["status", "cancel"])
def test_without_slurm_a_volume_on_which_nothing_was_submitted_is_told_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PATH", str(place))
    write_row(place / "specs", "two", gen=None, data="data:alpaca.json")
    assert command(name, "specs").stderr == "", "of what two lacks plan has to tell"
    told = command(name, "specs/one.yaml")
    assert told.exit_code == 0
    assert told.stdout.startswith("nothing was submitted on the volume ")
    assert told.stdout.endswith("; `harness plan specs/one.yaml` says what is there\n")
    Path("runs/slurm").mkdir(parents=True)
    told = command(name, "specs/one.yaml")
    assert told.exit_code == 2
    assert "login node" in told.stderr
    assert "harness run" not in told.stderr


def test_gc_lists_unfinished_work_that_no_spec_refers_to_and_keeps_what_goes_on(
    place: Path,
) -> None:
    command("run", "--only", "gen", "specs/one.yaml")
    (train,) = (n for n in short_keys("specs/one.yaml") if n.startswith("train/"))
    goes_on = Path("runs/work") / train.replace("/", "-")
    for folder in (goes_on, Path("runs/work/train-0123456789abcdef")):
        folder.mkdir()
        (folder / "checkpoint").write_text("x")
    assert command("gc").stdout.splitlines()[0].split()[0] == "train-0123456789abcdef"
    command("gc", "--yes")
    assert list(Path("runs/work").iterdir()) == [goes_on]


def test_gc_removes_what_somebody_laid_among_the_unfinished_work(place: Path) -> None:
    command("run", "specs/one.yaml")
    Path("runs/work/mine").mkdir()
    Path("runs/work/.DS_Store").touch()
    Path("runs/work/train-notes").touch()
    assert command("gc", "--yes").stdout.splitlines()[-1].startswith("removed 3 items, ")
    assert list(Path("runs/work").iterdir()) == []


def test_what_two_processes_remove_at_the_same_time_is_removed(place: Path) -> None:
    command("run", "specs/one.yaml")
    store = Store(Path("runs").resolve())
    for folder in store.all_folders():
        store.remove(folder)
        store.remove(folder)
    assert artefacts() == set()


def test_gc_keeps_everything_of_a_row_whose_given_data_is_absent(place: Path) -> None:
    spec = write_row(place / "specs", "two", gen=None, data="data:alpaca.json")
    Path("inputs").mkdir()
    Path("inputs/alpaca.json").write_text('{"instruction": "q", "output": "1"}')
    command("run", "specs")
    Path("inputs/alpaca.json").write_text('{"instruction": "q", "output": "2"}')
    command("run", "specs")
    made = artefacts()
    shutil.rmtree("inputs")
    assert command("gc", "--yes").exit_code == 0
    assert artefacts() == made
    spec.unlink()
    assert command("gc", "--yes").stdout.splitlines()[-1].startswith("removed 2 items")
    assert artefacts() == short_keys("specs/one.yaml")


def test_gc_keeps_what_a_row_without_its_data_shares_with_another_that_moved_on(
    place: Path,
) -> None:
    """`one` made the gen artefact, `two` shares it; then `one` changes and `two` loses its data."""
    Path("inputs").mkdir()
    Path("inputs/tokenizer.json").write_text("{}")
    random = {"config": {"model_type": "qwen2"}, "tokenizer": "data:tokenizer.json"}
    write_row(place / "specs", "two", model={"random": random})
    command("run", "specs")
    (shared,) = (name for name in artefacts() if name.startswith("gen/"))
    tree = yaml.safe_load(Path("specs/one.yaml").read_text())
    tree["gen"]["examples"] = 77
    Path("specs/one.yaml").write_text(yaml.safe_dump(tree))
    shutil.rmtree("inputs")
    command("gc", "--yes")
    assert shared in artefacts()


def test_gc_with_faulty_specs_removes_nothing(place: Path) -> None:
    command("run", "specs/one.yaml")
    made = artefacts()
    Path("specs/one.yaml").write_text("row: [")
    assert command("gc", "--yes").exit_code == 2
    assert artefacts() == made


def test_gc_of_named_artefacts_lists_first_and_removes_one_only_with_yes(place: Path) -> None:
    command("run", "specs/one.yaml")
    made = artefacts()
    (train,) = (name for name in made if name.startswith("train/"))
    assert train in command("gc", train[:16]).stdout
    assert artefacts() == made
    assert command("gc", "--yes", train).exit_code == 0
    assert artefacts() == made - {train}


def test_table_of_all_specs_is_written_to_the_volume_and_leaves_the_checkouts_results_alone(
    place: Path,
) -> None:
    write_row(place / "specs", "two", table="others", train={"steps": 2})
    (place / "results").mkdir()
    (place / "results" / "matrix.md").write_text("committed")
    command("run", "specs/one.yaml")
    result = command("table")
    assert result.exit_code == 0
    assert sorted(str(p) for p in Path("runs/results").rglob("*") if p.is_file()) == [
        "runs/results/matrix.csv",
        "runs/results/matrix.md",
        *(f"runs/results/tables/tests.{ending}" for ending in ("csv", "html", "md", "tex")),
    ]
    assert "40.00 ± 2.00" in Path("runs/results/matrix.md").read_text()
    assert [p.read_text() for p in (place / "results").iterdir()] == ["committed"]


def test_what_is_written_of_twins_leaves_the_full_rows_files_alone_and_the_other_way_round(
    place: Path,
) -> None:
    def written() -> dict[str, str]:
        files = (p for p in Path("runs/results").rglob("*") if p.is_file())
        return {str(p.relative_to("runs/results")): p.read_text() for p in files}

    command("run", "specs/one.yaml")
    command("run", "specs/one.yaml", "--scale", "tiny")
    for name in ("table", "report"):
        assert command(name).exit_code == 0
    full = written()
    for arguments in (("table", "--scale", "tiny"), ("report", "--scale", "tiny")):
        assert command(*arguments).exit_code == 0
    both = written()
    twins = {name: text for name, text in both.items() if name.startswith("tiny/")}
    assert both == {**full, **twins}
    assert {"tiny/matrix.csv", "tiny/matrix.md", "tiny/report.html"} < set(twins)
    assert "one-tiny" in twins["tiny/matrix.csv"]
    command("table")
    assert written() == both


def test_the_report_of_named_rows_leaves_that_of_all_alone(place: Path) -> None:
    write_row(place / "specs", "two")
    command("run", "specs")
    command("report")
    page = Path("runs/results/report.html")
    before = page.read_bytes()
    named = "runs/results/selection/report.html"
    for name in ("specs/one.yaml", "tests"):
        assert f"written: {named}, " in command("report", name).stdout
        assert page.read_bytes() == before


def test_rows_that_were_never_run_are_counted_and_left_out_of_every_form(place: Path) -> None:
    for name in ("two", "three"):
        write_row(place / "specs", name, eval=evaluation(place / "specs"), train={"steps": 2})
    write_row(place / "specs", "lost", table="others", gen=None, data="data:gone.json")
    command("run", "specs/one.yaml")
    of_table = "2 rows without a result are left out"
    of_all = (
        "3 rows without a result are left out; 1 of them could not be looked up, as what the spec "
        "names is not there, or is another file: lost"
    )
    told = command("table")
    assert f"{of_all} (--all shows them all)\n" in told.stdout
    assert "three" not in told.stdout
    written = Path("runs/results")
    page = (written / "matrix.md").read_text()
    assert f"\n{of_all}.\n" in page.replace("\\(", "(").replace("\\)", ")")
    assert f"\n{of_table}.\n" in (written / "tables" / "tests.md").read_text()
    assert not (written / "tables" / "others.md").exists()
    for name in ("matrix.csv", "tables/tests.csv"):
        rows = (written / name).read_text().splitlines()[1:]
        assert {row.split(",")[0] for row in rows} == {"one"}
    for form in ("md", "latex", "html"):
        printed = command("table", "--format", form)
        assert of_table in printed.stdout
        assert "The row two" not in printed.stdout
        assert of_all in printed.stderr
    whole = command("table", "--all")
    assert "left out" not in whole.output
    assert (written / "matrix.csv").read_text().count("not run") >= 3
    assert (written / "tables" / "others.md").exists()
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("stage", "damage"),
    [("judge", "made.txt"), ("judge", "manifest.json"), ("answer", "made.txt")],
)
def test_a_damaged_artefact_stops_its_own_row_alone_and_is_told_with_the_way_out(
    place: Path, stage: str, damage: str
) -> None:
    write_row(place / "specs", "two", eval=evaluation(place / "specs"), train={"steps": 2})
    at = ("--volume", place / "a volume")
    command("run", "specs", *at)
    (plan,) = planned(place / "a volume", Path("specs/two.yaml"))
    folder = next(s for s in plan.own if s.stage == stage).made.folder
    path = folder / damage
    path.write_text(path.read_text()[:-9])
    removal = f"gc --yes {stage}/{folder.name} --volume '{place / 'a volume'}'"
    for arguments in (["table"], ["table", "--format", "csv"], ["table", "--out", "o"], ["report"]):
        told = command(*arguments, *at)
        assert told.exit_code == 1
        assert told.stderr.count(f"warning: two: the artefact {stage}/") == 1
        assert removal in told.stderr
        if arguments != ["report"]:
            of_two = [line for line in told.stdout.splitlines() if line.startswith("two")]
            assert "damaged" in of_two[0]
            assert "40.0" in told.stdout
            assert "40.0" not in "".join(of_two)
    assert command("verify", "two", *at).exit_code == 1
    assert command("verify", "one", *at).exit_code == 4
    assert command("compare", "one", "two", *at).exit_code == 1
    assert "40.0" in command("run", "specs", *at).stdout
    assert command("run", "specs", *at).exit_code == 1
    assert command(*shlex.split(removal)).exit_code == 0
    assert command("run", "specs", *at).exit_code == 0
    told = command("table", *at)
    assert (told.exit_code, told.stderr.count("warning")) == (0, 0)


@pytest.mark.parametrize("again", ["other words", "words"])
def test_what_was_made_of_an_artefact_that_came_out_otherwise_when_made_anew_is_told(
    place: Path, again: str
) -> None:
    """Of a data set that was removed and made anew by the same key: training, answers and judging."""
    spec = write_row(place / "specs", "two", eval=evaluation(place / "specs"), train={"steps": 2})

    def saying(words: str) -> InstantExecutor:
        def outcome(job: Any) -> dict[str, Any]:
            (job.folder / "data.jsonl").write_text(words)
            return {"keep": ["made.txt", "data.jsonl"]}

        return InstantExecutor(outcome)

    def made(*stages: str) -> list[Path]:
        (plan,) = planned(Path("runs"), spec)
        return [s.made.folder for s in plan.stages if s.stage in stages]

    make(Path("runs"), spec, executor=saying("words"))
    assert command("table", "--all").exit_code == 0
    (data,) = made("gen")
    shutil.rmtree(data)
    assert make(Path("runs"), spec, executor=saying(again)).made == ["gen"]
    told = command("table", "--all")
    if again == "words":
        assert (told.exit_code, told.stderr.count("warning")) == (0, 0)
        return
    assert told.exit_code == 1
    after = made("train", "answer", "judge")
    train, answer, judge = (f"{folder.parent.name}/{folder.name}" for folder in after)
    assert (
        f"the artefact {train} was made of another gen/{data.name} than is there now" in told.stderr
    )
    removal = f"gc --yes {train} {answer} {judge}"
    assert removal in told.stderr
    assert command("verify", "two").exit_code == 1
    for name in ("plan", "needs", "run", "show", "replay"):
        told = command(name, "two" if name in ("show", "replay") else "specs")
        assert (told.exit_code, removal in told.stderr) == (1, True), name
    assert f"gen {data.name[:8]}" in command("show", "two").stdout
    assert command(*removal.split()).exit_code == 0
    assert make(Path("runs"), spec, executor=saying(again)).made == ["train", "answer", "judge"]
    assert command("table", "--all").exit_code == 0


def test_what_removes_the_damaged_of_several_rows_is_told_of_each(place: Path) -> None:
    """Of a training that both share and that was made of other data, each row has its own answers."""
    removals = []
    for seed, row in enumerate(("two", "three")):
        evaluated = evaluation(place / "specs")
        evaluated["answer"]["decoding"] = {"seed": seed}
        make(Path("runs"), write_row(place / "specs", row, eval=evaluated, train={"steps": 2}))
        (plan,) = planned(Path("runs"), Path(f"specs/{row}.yaml"))
        names = (f"{s.stage}/{s.made.folder.name}" for s in plan.stages if s.stage != "gen")
        removals.append(f"gc --yes {' '.join(names)}")
    train = next(s for s in plan.stages if s.stage == "train").made.folder
    manifest = json.loads((train / "manifest.json").read_text())
    del manifest["seal"]
    manifest["inputs"]["data"]["content"] = "another"
    (train / "manifest.json").write_text(json.dumps({**manifest, "seal": digest_of(manifest)}))
    for arguments in (
        ["compare", "two", "three"],
        ["plan", "specs"],
        ["run", "specs"],
        ["table", "--all"],
    ):
        told = command(*arguments)
        assert told.exit_code == 1
        assert [removal in told.stderr for removal in removals] == [True, True], arguments
    told = command("compare", "two", "two")
    assert told.stderr.count("gc --yes") == 1


def test_rows_beside_one_with_a_damaged_artefact_are_planned_and_submitted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_row(place / "specs", "two", train={"steps": 2})
    write_row(place / "specs", "three", train={"steps": 3})
    command("run", "specs/one.yaml", "specs/two.yaml", "--only", "gen,train")
    damaged = []
    for row in ("one", "two"):
        (plan,) = planned(Path("runs"), Path(f"specs/{row}.yaml"))
        folder = next(s for s in plan.stages if s.stage == "train").made.folder
        (folder / "manifest.json").write_text("changed")
        damaged.append(f"gc --yes train/{folder.name}")
    submitted: list[str] = []
    monkeypatch.setattr(
        "harness.run.slurm.submit.Submission.submit",
        lambda submission, plans: submitted.extend(plan.row.row for plan in plans),
    )
    for name in ("plan", "needs", "submit"):
        done = command(name, "specs")
        assert done.exit_code == 1
        assert "error: 2 artefacts are damaged" in done.stderr
        assert [removal in done.stderr for removal in damaged] == [True, True]
    assert "three" in command("plan", "specs").stdout
    assert json.loads(command("needs", "--json", "specs").stdout)["rows"] == ["three"]
    assert submitted == ["three"]
    alone = command("needs", "specs/one.yaml")
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert damaged[0] in alone.stderr


def test_a_row_of_which_a_stage_met_a_damaged_artefact_is_damaged_below_the_run(
    place: Path,
) -> None:
    evaluated = evaluation(place / "specs")
    write_row(place / "specs", "two", eval=evaluated)
    command("run", "specs/two.yaml")
    (made,) = Path("runs/artefacts/answer").glob("*/made.txt")
    made.write_text("changed")
    for name in ("plan", "needs"):
        done = command(name, "specs/two.yaml")
        assert (done.exit_code, done.stderr.count("was changed after it was made")) == (1, 2), name
    write_row(place / "specs", "two", eval=evaluated, replicates={"judge": 2})
    done = command("run", "specs/two.yaml")
    assert done.exit_code == 1
    assert "damaged" in done.stdout
    assert "40.0" not in done.stdout
    assert done.stderr.count("was changed after it was made") == 1


def test_printed_commands_name_the_volume_that_a_command_was_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--volume", "a volume")
    told = " --volume 'a volume'"
    assert f"not made yet: harness run specs/one.yaml{told}" in command("verify", "one", *at).stdout
    for name in ("show", "replay"):
        assert command(name, "one", *at).stderr.endswith(f": harness run specs/one.yaml{told}\n")
    looks = f"show one --outputs{told}; harness verify one{told}; harness report{told}"
    assert looks in command("run", "specs", *at).stdout
    monkeypatch.setenv("HARNESS_DATA", "another")
    for own in ((), ("--volume", "another")):
        assert command("verify", "one", *own).stdout.endswith("harness run specs/one.yaml\n")


def test_the_help_of_verify_names_its_exit_codes() -> None:
    told = re.split("Exit codes:", command("verify", "--help").stdout)[1]
    assert {"0", "1", "3", "4"} <= set(re.findall(r"\b\d+\b", told))


def test_a_report_to_a_name_that_ends_with_a_slash_makes_the_folder(place: Path) -> None:
    command("run", "specs")
    assert "written: new/report.html" in command("report", "--out", "new/").stdout
    assert (place / "new" / "report.html").is_file()


def test_of_rows_that_cannot_be_looked_up_three_are_named(place: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write_row(place / "specs", name, gen=None, data="data:gone.json")
    assert "is another file: a, b, c and others (--all" in command("table").stdout


def test_rows_that_share_a_training_and_were_never_run_are_left_out_of_table_and_report(
    place: Path,
) -> None:
    train = {"steps": 2, "validation": {"share": 0.5}}
    other = evaluation(place / "specs")
    write_row(place / "specs", "one", train=train, eval=evaluation(place / "specs"))
    other["answer"]["decoding"] = {"max_new_tokens": 3}
    write_row(place / "specs", "two", train=train, eval=other)
    command("run", "specs/one.yaml")
    told = command("table")
    assert "1 row without a result is left out" in told.stdout
    rows = Path("runs/results/matrix.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in rows} == {"one"}
    assert "1 row of which nothing is made yet is left out" in command("report").stdout
    for name in ("one", "two"):
        assert name in command("table", "--all").stdout
    assert "2 rows, " in command("report", "--all").stdout


def test_a_study_s_own_layout_keeps_its_rows_that_were_never_run(place: Path) -> None:
    write_row(place / "specs", "two", varied={"data": "never run"}, train={"steps": 2})
    Path("specs/_tables.yaml").write_text(
        "tables:\n  tests: {caption: c, source: s, list: [{heading: data, varied: data}]}\n"
    )
    study = ("table", "tests", "--format", "csv", "--layout", "study")
    assert "never run" in command(*study).stdout
    command("run", "specs/one.yaml")
    assert "never run" in command(*study).stdout
    command("table")
    for ending in ("tex", "html", "md"):
        assert "never run" in Path(f"runs/results/tables/tests.{ending}").read_text()
    assert "never run" not in Path("runs/results/matrix.md").read_text()


def test_a_table_of_rows_that_were_never_run_is_a_count_and_writes_no_folder(place: Path) -> None:
    assert command("table").stdout == "1 row without a result is left out (--all shows them all)\n"
    assert not Path("runs/results").exists()
    printed = command("table", "--format", "csv").stdout
    assert printed.startswith("row,table,")
    assert printed.count("\n") == 1


def test_the_layout_of_a_study_without_a_form_to_print_it_in_is_refused(place: Path) -> None:
    result = command("table", "tests", "--layout", "study")
    assert result.exit_code == 2
    assert "harness table tests --format md --layout study" in result.stderr
    assert command("table", "--layout", "matrix").exit_code == 0


@pytest.mark.parametrize("layout", ["matrix", "study"])
@pytest.mark.parametrize(
    ("form", "begins"),
    [("md", "# "), ("csv", "row,"), ("latex", "% Needs"), ("html", "<table ")],
)
def test_table_prints_a_form_alone_and_writes_nothing(
    place: Path, form: str, begins: str, layout: str
) -> None:
    command("run", "specs/one.yaml")
    result = command("table", "tests", "--format", form, "--layout", layout)
    assert result.exit_code == 0
    assert result.stdout.startswith(begins)
    assert not Path("results").exists()
    assert not Path("runs/results").exists()


def test_a_faulty_layout_of_a_study_is_told_by_table_and_by_validate(place: Path) -> None:
    command("run", "specs/one.yaml")
    Path("specs/_tables.yaml").write_text("tables:\n  tests: {caption: c, source: s}\n")
    for arguments in (
        ["validate", "specs"],
        ["table"],
        ["table", "--format", "md", "--layout", "study"],
    ):
        result = command(*arguments)
        assert result.exit_code == 2
        assert (
            "specs/_tables.yaml:2:3: tables.tests: give exactly one of list, grid" in result.stderr
        )


def test_table_of_named_specs_is_printed_and_written_only_where_out_says(place: Path) -> None:
    result = command("table", "specs/one.yaml", "--all")
    assert result.exit_code == 0
    assert "not run" in result.stdout
    assert not Path("runs/results").exists()
    command("table", "specs/one.yaml", "--out", "mine/here")
    assert Path("mine/here/matrix.csv").is_file()
    assert not Path("runs/results").exists()


def test_table_needs_neither_given_data_nor_a_volume_that_is_there(place: Path) -> None:
    write_row(place / "specs", "two", gen=None, data="data:alpaca.json")
    result = command("table", "--volume", "nowhere", "--out", "here", "--all")
    assert result.exit_code == 0
    text = Path("here/matrix.csv").read_text()
    assert text.count("not run") == 2
    assert not Path("nowhere/artefacts").exists()


def clean_environment(**more: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("HARNESS_")}, **more}


def modules_after(tmp_path: Path, *arguments: str, **more: str) -> set[str]:
    """Top-level modules that `harness ARGUMENTS` has imported when it ends; `more`: variables."""
    program = (
        "import json, sys\nfrom harness.cli import main\n"
        "try:\n    main(sys.argv[2:])\nfinally:\n"
        "    json.dump(sorted({n.split('.')[0] for n in sys.modules}), open(sys.argv[1], 'w'))\n"
    )
    found = tmp_path / "modules.json"
    environment = clean_environment(HARNESS_DATA=str(tmp_path / "runs"), **more)
    subprocess.run(
        [sys.executable, "-c", program, str(found), *arguments],
        cwd=ROOT, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return set(json.loads(found.read_text()))


def test_ctrl_c_before_the_command_line_is_there_ends_without_a_word() -> None:
    program = (
        "import sys\nclass Interrupting:\n    def find_spec(self, name, *rest):\n"
        "        if name == 'harness.cli':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\nfrom harness.__main__ import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


HEAVY = {
    "torch", "transformers", "trl", "datasets", "tokenizers", "numpy", "pandas", "openai",
    "aiohttp", "alpaca_eval", "docker", "requests", "huggingface_hub", "lm_eval", "scipy",
}  # fmt: skip


def test_help_imports_no_more_than_the_command_line_itself(tmp_path: Path) -> None:
    modules = modules_after(tmp_path, "--help")
    assert "click" in modules
    assert modules & (HEAVY | {"pydantic", "rich", "yaml"}) == set()


@pytest.mark.parametrize(
    "command",
    ["plan specs/smoke", "needs specs/smoke/base.yaml", "table specs/smoke", "validate specs"],
)
def test_planning_and_tables_import_nothing_that_only_a_stage_needs(
    tmp_path: Path, command: str
) -> None:
    modules = modules_after(tmp_path, *command.split())
    assert "pydantic" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_local_run_imports_nothing_that_only_a_stage_or_images_need(
    tmp_path: Path, jobs: str
) -> None:
    fake, rows = FakeStages(tmp_path / "fake"), write_rows(tmp_path / "specs", 2)
    modules = modules_after(tmp_path, "run", *map(str, rows), "--jobs", jobs, **fake.env)
    assert len(fake.runs()) == 6
    assert modules & HEAVY <= {"scipy", "numpy"}  # the matrix's intervals


@pytest.mark.parametrize("module", ["harness.run.image_files", "harness.run.executors.process"])
def test_a_runtime_that_is_a_command_is_run_without_dockers_client(module: str) -> None:
    assert "docker" not in modules_of(module)


@pytest.mark.parametrize(
    "module", ["harness.cli", "harness.run.plan", "harness.row.load", "harness.run.join"]
)
def test_the_core_imports_nothing_that_only_a_stage_needs(module: str) -> None:
    modules = modules_of(module)
    assert "harness" in modules
    assert modules & HEAVY == set()


def modules_of(module: str) -> set[str]:
    """Top-level modules that are there once this one is imported."""
    program = f"import sys, {module}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return set(ran.stdout.split())


def not_expected(*arguments: Any) -> None:
    raise RuntimeError("not expected")


def test_tables_and_reports_estimate_neither_calls_nor_memory_and_read_no_given_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "of_stage", not_expected)
    monkeypatch.setattr(memory, "of_stage", not_expected)
    monkeypatch.setattr(training_data, "read", not_expected)
    assert command("table", "--all").exit_code == 0
    assert command("report", "specs", "--all").exit_code == 0
    assert command("verify", "specs/one.yaml").exit_code == 4
    with pytest.raises(RuntimeError, match="not expected"):
        command("plan", "specs/one.yaml")


def test_a_plan_remembers_what_it_read_of_the_given_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "specs" / "tasks.json").write_text('[{"instruction": "Say yes.", "output": "yes"}]')
    spec = write_row(place / "specs", "two", gen=None, data="tasks.json")
    first = command("plan", spec).stdout
    assert "data: tasks.json: 1 record" in first
    monkeypatch.setattr(training_data, "_read_data", not_expected)
    assert command("plan", spec).stdout == first


@pytest.mark.parametrize("arguments", [["schema"], ["--help"], ["validate", "specs/smoke"]])
def test_a_reader_that_leaves_early_is_no_fault_and_causes_no_message(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*HARNESS, *arguments], cwd=ROOT, env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert (errors, process.returncode) == (b"", 141)


@pytest.mark.parametrize("arguments", ["schema", "--help", "--version", "run --help"])
def test_an_output_on_a_full_device_is_told_in_a_sentence(arguments: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is Linux's")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*HARNESS, *arguments.split()], cwd=ROOT, env=clean_environment(), text=True,
            stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on the device\n")
    assert "Traceback" not in done.stderr


def test_the_module_runs_as_the_command_does() -> None:
    result = subprocess.run(
        [*HARNESS, "validate", "specs"], cwd=ROOT, env=clean_environment(), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert result.stdout.endswith("no fault\n")


@pytest.mark.parametrize(
    ("columns", "width"), [("", 200), ("0", 200), ("x", 200), ("1", 20), ("60", 60)]
)
def test_a_width_that_nothing_fits_is_none(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width


@pytest.mark.parametrize("arguments", ["schema", "--help"])
def test_a_command_without_standard_output_is_no_fault(arguments: str) -> None:
    command_line = f'exec "{sys.executable}" -m harness {arguments} >&-'
    done = subprocess.run(["sh", "-c", command_line], stderr=subprocess.PIPE, check=False, cwd=ROOT)
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_copy_onto_a_full_device_names_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), _device_faults_told():
        raise OSError(errno.ENOSPC, "full", "from/here", None, "to/there")
    assert "no space left on the device for to/there" in capsys.readouterr().err
