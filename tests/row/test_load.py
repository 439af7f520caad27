"""Every fault of every spec at once, each with the file, line and column to blame."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli import main
from harness.errors import InputError
from harness.gen.recipes.alpaca import AlpacaGen
from harness.row.load import NO_COMMA, PRICES, SpecFaults, load_rows, load_usable
from tests.helpers import ROOT, command, evaluation, write_row

NO_SPECS = (PRICES, "_tables.yaml")
SPECS = sorted(p for p in (ROOT / "specs").rglob("*.yaml") if p.name not in NO_SPECS)
EDITOR_COMMENT = "# yaml-language-server: $schema="

WHOLE = """\
row: one
table: tests
title: A row
model:
  random: {config: {model_type: qwen2}}
template:
  prompt: prompt.txt
"""

KNOWN = (
    "assumptions, budget, data, deviations, eval, gen, limits, margins, model, replicates, reported, "
    "row, scale, source, sources, studied, table, template, title, train, varied"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of specs, with a prompt, that is also the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.txt").write_text("{instruction}")
    return tmp_path


def faults(*files: str) -> list[str]:
    """What is wrong with these files, a line each."""
    with pytest.raises(SpecFaults) as caught:
        load_rows([Path(f) for f in files])
    return [str(fault) for fault in caught.value.faults]


def faults_of(text: str | bytes) -> list[str]:
    """What is wrong with a file `a.yaml` that holds `text`, without the file's name."""
    data = text.encode() if isinstance(text, str) else text
    Path("a.yaml").write_bytes(data)
    return [fault.removeprefix("a.yaml:") for fault in faults("a.yaml")]


def test_a_row_without_faults_is_loaded_with_its_defaults(folder: Path) -> None:
    (folder / "a.yaml").write_text(WHOLE + "data: prompt.txt\ntrain: {epochs: 2}\n")
    (loaded,) = load_rows([Path("a.yaml")])
    assert loaded.row.row == "one"
    assert loaded.row.template.prompt.text == "{instruction}"
    assert loaded.row.train is not None
    assert (loaded.row.train.epochs, loaded.row.train.learning_rate) == (2.0, 2e-5)


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("budgett: {}", "8:1: budgett: unknown key; did you mean 'budget'?"),
        ("data: prompt.txt\ntrain:\n  epoch: 3", "10:3: train.epoch: unknown key; did you mean "
         "'epochs'?"),
        ("source: {document: d, zzz: 1}", "8:23: source.zzz: unknown key; known here: document, "
         "line, table, url"),
        ("replicates: {judge: many}", "8:14: replicates.judge: input should be a valid integer, "
         "unable to parse string as an integer (here: 'many')"),
        ("replicates: {judge: 0}", "8:14: replicates.judge: input should be greater than or equal "
         "to 1 (here: 0)"),
        ("reported: {win_rate: {value: .nan}}", "8:23: reported.win_rate.value: input should be a "
         "finite number (here: nan)"),
        ("reported:\n  win_rate: {standard_error: 1}", "9:3: reported.win_rate.value: is missing"),
        ("reported: {win_rate: [12]}", "8:12: reported.win_rate: a number is wanted, or a mapping such "
         "as {value: 39.5, standard_error: 1.7}, or the word unreported"),
        ("reported: 5", "8:1: reported: a mapping of keys to values is wanted (here: 5)"),
        ("source: paper", "8:1: source: a mapping of keys to values is wanted: document, table, line, "
         "url (here: 'paper')"),
        ("data: 5", "8:1: data: a path is wanted, or a mapping of path or url, and sha256 (here: 5)"),
        ("eval: {judge: 3}", "8:8: eval.judge: a mapping of keys to values is wanted (here: 3)"),
        ("reported: {win_rate: 12}", "8:12: reported.win_rate: the row gives no such metric. It gives "
         "none"),
        ("data: nowhere.json", "8:1: data: there is no file or folder nowhere.json (here: "
         "'nowhere.json')"),
        ("data: " + "x" * 300, f"8:1: data: there is no file or folder {'x' * 300} (here: "
         f"'{'x' * 56}...)"),
        ("data: {path: prompt.txt, sha256: abc}", "8:26: data.sha256: 64 hex digits in small letters "
         "are wanted, as sha256sum prints them (here: 'abc')"),
        ("train: {}", "8:1: train needs a data set: give gen or data"),
        ("train: {objective: orpo}\ngen: {recipe: import, file: prompt.txt}",
         "1:1: objective: orpo takes preference data, and gen makes none: gen: {recipe: import, kind: "
         "preference, ...}"),
        ("train: {}\ngen: {recipe: import, file: prompt.txt, kind: preference}",
         "9:1: gen imports preference data, and objective: sft takes one answer each: import it as "
         "instruction data (columns.output), or train with objective: orpo"),
        ("replicates: {train_seeds: [1]}", "8:14: replicates.train_seeds needs train"),
        ("reported: {output: {path: a.json, sha256: b}}", "8:12: reported.output: unknown key; did you "
         "mean 'outputs'?"),
        ("reported: {annotation: {path: a.json}}", "8:12: reported.annotation: unknown key; did you "
         "mean 'annotations'?"),
        ("reported: {annotation: 5}", "8:12: reported.annotation: the row gives no such metric; did "
         "you mean 'annotations'? It gives none"),
        ("reported: {jugde: {model: a, annotator: b}}", "8:12: reported.jugde: unknown key; did you "
         "mean 'judge'?"),
        ("reported: {win_rate: {value: 1, standard_err: 1}}", "8:33: reported.win_rate.standard_err: "
         "unknown key; did you mean 'standard_error'?"),
        ("reported: {win_rate: {value: 40,0}}", f"8:33: reported.win_rate.0: unknown key; {NO_COMMA}"),
        ("reported:\n  win_rate: 40,0", "9:3: reported.win_rate: a number is wanted, or a mapping such "
         "as {value: 39.5, standard_error: 1.7}, or the word unreported; "
         f"{NO_COMMA} (here: '40,0')"),
        ("budget:\n  usd: 0,5", "9:3: budget.usd: input should be a valid number, unable to parse "
         f"string as a number; {NO_COMMA} (here: '0,5')"),
        ("reported:\n  mmlu: 129.3", "9:3: reported: mmlu is a percentage: 129.3 does not lie between "
         "0 and 100"),
        ("deviations: a word", "8:1: deviations: input should be a valid list (here: 'a word')"),
        ("deviations: [a, 2]", "8:17: deviations.1: input should be a valid string (here: 2)"),
    ],
)  # fmt: skip
def test_a_fault_names_the_place_the_value_and_what_is_allowed(
    folder: Path, added: str, fault: str
) -> None:
    assert faults_of(WHOLE + added + "\n") == [fault]


@pytest.mark.parametrize(
    ("was", "is_now", "fault"),
    [
        ("row: one", "row: One", "1:1: row: string should match pattern "
         "'^[a-z0-9][a-z0-9._-]*$' (here: 'One')"),
        ("row: one", "row: 7", "1:1: row: input should be a valid string (here: 7)"),
        ("table: tests\n", "", "1:1: table: is missing"),
        ("title: A row", "title:", "3:1: title: input should be a valid string (here: null)"),
        ("prompt: prompt.txt", "prompt: no.txt", "7:3: template.prompt: there is no file no.txt "
         "(here: 'no.txt')"),
        ("prompt: prompt.txt", "prompt: bytes.txt", "7:3: template.prompt: bytes.txt cannot be "
         "read as UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 0: invalid start "
         "byte (here: 'bytes.txt')"),
        ("prompt: prompt.txt", "prompt: a.yaml", "7:3: template.prompt: a.yaml has no place for "
         "{instruction} (here: 'a.yaml')"),
        ("  random: {config: {model_type: qwen2}}", "  {}", "4:1: model: give exactly one of "
         "random, path, hub"),
        ("random: {config: {model_type: qwen2}}", "hub: {id: a/b, revision: main}", "5:18: "
         "model.hub.revision: 40 hex digits are wanted: the full commit hash (here: 'main')"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_required_key_is_blamed_where_it_stands(
    folder: Path, was: str, is_now: str, fault: str
) -> None:
    (folder / "bytes.txt").write_bytes(b"\xff")
    assert was in WHOLE
    assert faults_of(WHOLE.replace(was, is_now)) == [fault]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("rat", "did you mean 'rate'?"),
        ("self-instruct", "did you mean 'self_instruct'?"),
        ("zzz", "known here: 'alpaca', 'self_instruct', "),
        ("5", "known here: "),
    ],
)
def test_a_recipe_with_a_wrong_name_is_told_the_nearest_one(
    folder: Path, recipe: str, said: str
) -> None:
    (fault,) = faults_of(WHOLE + f"gen: {{recipe: {recipe}, seeds: prompt.txt}}\n")
    assert "gen.0: unknown recipe " in fault or "gen: unknown recipe " in fault
    assert said in fault
    assert "\n" not in fault


def judged(kind: str, folder: Path) -> dict[str, Any]:
    """The `eval` part of a row with two prompt sets and a judge of this kind."""
    part = evaluation(folder)
    prompts: dict[str, Any] = {"files": dict.fromkeys(("koala", "vicuna"), "prompts.jsonl")}
    asked = {"judge": {"model": "m", "simulated": {}}}
    both = {**asked, "reference": "prompts.jsonl"}
    tasks = {name: {"folder": "."} for name in ("mmlu", "hellaswag", "arc_challenge")}
    judges: dict[str, dict[str, Any]] = {
        "preference": part["judge"],
        "alpaca_eval": {"kind": "alpaca_eval", **both},
        "length": {"kind": "alpaca_eval", "length_control": {"folder": "."}, **both},
        "grading": {"kind": "grading", "system": "prompts.jsonl", "prompt": "grading.txt", **both},
        "flow_judge": {
            "kind": "flow_judge",
            "engine": {"kind": "endpoint", "endpoint": asked["judge"]},
            "rubric": "response_correctness_binary",
        },
        "lm_eval": {"kind": "lm_eval", "tasks": tasks},
        "all tasks": {"kind": "lm_eval", "tasks": {**tasks, "truthfulqa_mc2": {"folder": "."}}},
        "held_out_loss": {"kind": "held_out_loss", "examples": prompts},
    }
    (folder / "grading.txt").write_text("{question} {answer_1} {answer_2}")
    if judges[kind]["kind"] in ("lm_eval", "held_out_loss"):
        return {"judge": judges[kind]}
    return {"answer": {"prompts": prompts}, "judge": judges[kind]}


WIN_RATES = "win_rate, win_rate/koala, win_rate/vicuna"


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("preference", WIN_RATES),
        ("alpaca_eval", WIN_RATES),
        ("length", f"{WIN_RATES}, length_controlled_win_rate"),
        ("grading", f"{WIN_RATES}, winning_score"),
        ("flow_judge", "rubric_score, rubric_score/koala, rubric_score/vicuna"),
        ("lm_eval", "arc_challenge, hellaswag, mmlu"),
        ("all tasks", "arc_challenge, hellaswag, mmlu, truthfulqa_mc2, average"),
        ("held_out_loss", "held_out_loss, bits_per_byte, held_out_loss/koala, bits_per_byte/koala, "
         "held_out_loss/vicuna, bits_per_byte/vicuna"),
    ],
)  # fmt: skip
def test_a_metric_that_the_rows_judge_does_not_give_is_a_fault_with_those_that_it_gives(
    folder: Path, kind: str, given: str
) -> None:
    part = judged(kind, folder)
    write_row(folder, "a", eval=part, gen=None, train=None, reported={"elo": {"value": 1100}})
    (fault,) = faults("a.yaml")
    assert fault.endswith(f"reported.elo: the row gives no such metric. It gives: {given}")
    reported = dict.fromkeys(given.split(", "), 2)
    write_row(folder, "a", eval=part, gen=None, train=None, reported=reported)
    (loaded,) = load_rows([Path("a.yaml")])
    assert {cell.value for cell in loaded.row.reported.values()} == {2}


def test_a_misspelt_metric_is_told_the_nearest_one_where_it_stands(folder: Path) -> None:
    write_row(folder, "a", eval=evaluation(folder))
    (folder / "b.yaml").write_text(
        "extends: a.yaml\nrow: b\nreported: {winrate: 12}\nmargins: {win_rat: 2, win_rate: 3}\n"
    )
    wrong, margin = faults("b.yaml")
    more = "It gives: win_rate, train_loss (held_out_loss and bits_per_byte need train.validation)"
    said = f"the row gives no such metric; did you mean 'win_rate'? {more}"
    assert wrong == f"b.yaml:3:12: reported.winrate: {said}"
    assert margin == f"b.yaml:4:11: margins.win_rat: {said}"


def test_what_a_training_measures_is_the_rows_too(folder: Path) -> None:
    losses = {"held_out_loss": 2.5, "bits_per_byte": 1.5, "train_loss": 1}
    write_row(folder, "a", train={"steps": 2, "validation": {"share": 0.1}}, reported=losses)
    (loaded,) = load_rows([Path("a.yaml")])
    assert {name: cell.value for name, cell in loaded.row.reported.items()} == losses
    write_row(folder, "a", train={"steps": 2}, reported=losses)
    assert [fault.split(": ")[1] for fault in faults("a.yaml")] == [
        "reported.bits_per_byte", "reported.held_out_loss",
    ]  # fmt: skip


def test_a_judge_of_an_unknown_kind_is_told_the_kinds_there_are(folder: Path) -> None:
    judged = "eval:\n  answer: {prompts: {file: prompt.txt}}\n  judge:\n    kind: elo\n"
    (fault,) = faults_of(WHOLE + judged)
    assert fault.startswith("10:3: eval.judge: ")
    assert "'preference', 'alpaca_eval'" in fault


def test_an_unknown_key_of_a_judge_is_held_against_the_keys_of_its_kind(folder: Path) -> None:
    part = evaluation(folder)
    part["judge"]["anotator"] = "chatgpt"
    write_row(folder, "a", eval=part)
    (fault,) = faults("a.yaml")
    assert (
        "eval.judge.anotator: unknown key; known here: asks, judge, kind, on_model_change" in fault
    )
    part["judge"] = {"kind": "alpaca_eval", "judge": {"model": "m"}, "reference": "prompts.jsonl"}
    part["judge"]["anotator"] = "chatgpt"
    write_row(folder, "a", eval=part)
    (fault,) = faults("a.yaml")
    assert fault.endswith("eval.judge.anotator: unknown key; did you mean 'annotator'?")


def test_the_number_of_tokens_misspelt_is_no_secret(folder: Path) -> None:
    part = evaluation(folder)
    part["answer"]["decoding"] = {"max_new_token": 64}
    write_row(folder, "a", eval=part)
    (fault,) = faults("a.yaml")
    assert fault.endswith("max_new_token: unknown key; did you mean 'max_new_tokens'?")


def test_an_endpoint_with_two_servers_is_refused(folder: Path) -> None:
    judge = {"model": "m", "base_url": "http://localhost:1", "simulated": {}}
    write_row(folder, "a", eval=evaluation(folder, judge=judge))
    (fault,) = faults("a.yaml")
    assert "eval.judge.judge: give either base_url or simulated, not both" in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: a spec is a mapping of keys to values; this file holds none"),
        ("# nothing\n", "1:1: a spec is a mapping of keys to values; this file holds none"),
        ("\n- row: one\n", "2:1: a spec is a mapping of keys to values; this file holds none"),
        ("row: one\ntitle: [a\n", "3:1: not valid YAML: did not find expected ',' or ']'"),
        ("row: one\ntrain:\n\tsteps: 1\n", "3:1: not valid YAML: a tab begins the line, and "
         "YAML is indented with spaces"),
        ("row: one\n---\nrow: two\n", "2:1: not valid YAML: but found another document"),
        ("row: one\ntitle: 2024-13-45\n", "2:8: not valid YAML: '2024-13-45' is not what its tag "
         "says: month must be in 1..12"),
        ("row: one\ntitle: !!python/name:os.system x\n", "2:8: not valid YAML: could not determine "
         "a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("row: one\ntitle: 'a\x07b'\n", "2:10: not valid YAML: it holds the character '\\x07'"),
        (b"row: one\ntitle: \xc3\xa4\xff\n", "2:9: not UTF-8 text: invalid start byte 0xff"),
        (b"row: one\ntitle: \xc3", "2:8: not UTF-8 text: unexpected end of data 0xc3"),
        ("a: " + "[" * 100_000, "1:53: not valid YAML: nested more than 50 levels deep"),
        ("a: &x [*x]", "1:8: not valid YAML: the alias *x holds itself"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg",
            strict=True)), "5:29: not valid YAML: more than 100,000 values, aliases included"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_mapping_is_one_fault_at_its_place(
    folder: Path, text: str | bytes, fault: str
) -> None:
    assert faults_of(text) == [fault]


def test_a_key_given_twice_is_a_fault_at_its_second_place(folder: Path) -> None:
    twice = "model:\n  random:\n    seed: 1\n    seed: 2\n    config: {model_type: qwen2}\n"
    text = WHOLE.replace("model:\n  random: {config: {model_type: qwen2}}\n", twice)
    assert faults_of(text) == ["7:5: 'seed' is given twice in this mapping"]


def test_merge_keys_and_keys_that_are_no_words_are_refused(folder: Path) -> None:
    text = WHOLE + "varied:\n  <<: {a: 1}\n  ? [b]\n  : 2\n"
    assert faults_of(text) == [
        "9:3: '<<' is not used here: share settings with extends",
        "10:5: a key must be a plain word",
    ]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("mmlu: 129.3", "mmlu is a percentage: 129.3 does not lie between 0 and 100"),
        ("win_rate/koala: -1", "win_rate/koala is a percentage: -1 does not lie"),
        ("win_rate: {value: 30, judged: 806, expected: 805}", "judged is 806, more than the 805"),
        ("win_rate: {value: 30, judged: 0, expected: 805}", "judged is 0: no prompt was judged"),
        ("win_rate: {value: 30, standard_error: 1.0e+300}",
         "win_rate: a standard error of 1e+300 is more than the 100 that lie between its lowest and"),
        ("rating: 11", "rating: 11 does not lie between 1 and 10"),
        ("rating: {value: 7, standard_error: 9.5}", "a standard error of 9.5 is more than the 9 that"),
        ("held_out_loss: 1.0e+200", "held_out_loss: 1e+200 does not lie between -1000000000 and 1000"),
        ("held_out_loss: {value: 2, standard_error: 1.0e+200}", "a standard error of 1e+200 is more"),
        (f"win_rate: {{value: 30, expected: {10**400}}}", "less than or equal to 1000000000"),
        (f"win_rate: {{value: 30, judged: {10**400}}}", "less than or equal to 1000000000"),
        ("win_rate: 30\nmargins:\n  win_rate: 1.0e+300", "less than or equal to 1000000000"),
    ],
)  # fmt: skip
def test_reported_numbers_that_cannot_be_are_faults(folder: Path, cell: str, fault: str) -> None:
    assert any(fault in one for one in faults_of(f"{WHOLE}reported:\n  {cell}\n"))


def test_all_faults_of_all_files_are_reported_at_once(folder: Path) -> None:
    (folder / "a.yaml").write_text(WHOLE + "oops: 1\nbudget: {calls: -1}\n")
    (folder / "b.yaml").write_text("row: [\n")
    (folder / "c.yaml").write_text(WHOLE.replace("prompt.txt", "no.txt"))
    assert [f.split(": ")[0] for f in faults("c.yaml", "b.yaml", "a.yaml", "gone.yaml")] == [
        "a.yaml:1:1",
        "a.yaml:8:1",
        "a.yaml:9:10",
        "b.yaml:2:1",
        "c.yaml:7:3",
        "gone.yaml:1:1",
    ]


def test_validate_prints_every_fault_and_their_number_and_exits_with_2(folder: Path) -> None:
    (folder / "a.yaml").write_text(WHOLE + "oops: 1\nbudget: {calls: -1}\n")
    result = command("validate", "a.yaml")
    assert result.exit_code == 2
    assert "a.yaml:8:1: oops: unknown key" in result.stderr
    assert "a.yaml:9:10: budget.calls: " in result.stderr
    assert result.stderr.endswith("2 faults in the specs\n")
    assert result.stdout == ""


def test_a_row_id_used_in_two_files_is_a_fault_of_the_second(folder: Path) -> None:
    (folder / "a.yaml").write_text(WHOLE)
    (folder / "b.yaml").write_text("# the same id, and one more fault\n" + WHOLE + "oops: 1\n")
    assert faults(".") == [
        "b.yaml:2:1: row id 'one' is already used in a.yaml",
        f"b.yaml:9:1: oops: unknown key; known here: {KNOWN}",
    ]


def test_of_several_specs_those_without_faults_are_usable(folder: Path) -> None:
    (folder / "_good.yaml").write_text(WHOLE)
    (folder / "_twice.yaml").write_text(WHOLE + "title: Again\n")
    for name, text in {
        "a": WHOLE,
        "b": "row: [",
        "c": "extends: _twice.yaml\nrow: c\n",
        "d": "extends: _twice.yaml\nrow: d\n",
        "e": "extends: _good.yaml\nrow: e\n",
        "f": WHOLE.replace("one", "f") + "oops: 1\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    found = load_usable([Path(".")])
    assert [loaded.row.row for loaded in found.rows] == ["one", "e"]
    assert [path.name for path in found.faulty] == ["b.yaml", "c.yaml", "d.yaml", "f.yaml"]
    assert [str(fault) for fault in sorted(set(found.faults))] == faults(".")


def test_of_specs_with_the_same_row_id_none_is_usable(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / f"{name}.yaml").write_text(WHOLE)
    (folder / "d.yaml").write_text(WHOLE.replace("one", "d"))
    found = load_usable([Path(".")])
    assert [loaded.row.row for loaded in found.rows] == ["d"]
    assert sorted(path.name for path in found.faulty) == ["a.yaml", "b.yaml", "c.yaml"]


def test_a_file_named_twice_is_one_row_and_counts_as_named(folder: Path) -> None:
    (folder / "a.yaml").write_text(WHOLE)
    (loaded,) = load_rows([Path("."), Path("a.yaml"), folder / "a.yaml", Path("./a.yaml")])
    assert loaded.is_named


def test_of_a_folder_files_that_begin_with_an_underscore_are_no_rows(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "_base.yaml").write_text("oops")
    (folder / "deep" / "er" / "a.yaml").write_text(WHOLE.replace("prompt.txt", "../../prompt.txt"))
    (loaded,) = load_rows([Path()])
    assert loaded.path == Path("deep/er/a.yaml")
    assert not loaded.is_named


def test_a_folder_without_specs_is_said_to_hold_none(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no spec in"):
        load_rows([folder])


@pytest.mark.parametrize("name", ["gone.yaml", "x" * 300])
def test_a_spec_that_is_not_there_is_a_fault_with_its_name(folder: Path, name: str) -> None:
    (fault,) = faults(name)
    assert fault.startswith(f"{name}:1:1: ")


def test_a_child_is_merged_over_its_parents_the_last_of_a_list_winning(folder: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "prompt.txt").write_text("shared {instruction}")
    (folder / "shared" / "one.yaml").write_text(
        WHOLE
        + "data: prompt.txt\ntrain: {epochs: 5, batch_size: 4, seed: 1}\nvaried: {a: 1, b: 1}\n"
    )
    (folder / "two.yaml").write_text("train: {batch_size: 2, seed: 2}\ndeviations: [x, y]\n")
    (folder / "a.yaml").write_text(
        "extends: [shared/one.yaml, two.yaml]\nrow: child\ntrain: {seed: 3}\nvaried: {b: 2}\n"
        "deviations: [z]\n"
    )
    (loaded,) = load_rows([Path("a.yaml")])
    row = loaded.row
    assert row.row == "child"
    assert row.train is not None
    assert (row.train.epochs, row.train.batch_size, row.train.seed) == (5.0, 2, 3)
    assert row.varied == {"a": 1, "b": 2}
    assert row.deviations == ["x", "y", "z"]  # a child adds its own
    assert row.template.prompt.text == "shared {instruction}"


@pytest.mark.parametrize("name", ["assumptions", "deviations"])
def test_what_is_said_of_the_parents_holds_for_the_child_too_and_is_said_once(
    folder: Path, name: str
) -> None:
    (folder / "_base.yaml").write_text(WHOLE + f"{name}: [a, b]\n")
    (folder / "_other.yaml").write_text(f"extends: _base.yaml\n{name}: [c]\n")
    (folder / "child.yaml").write_text(
        f"extends: [_base.yaml, _other.yaml]\nrow: child\n{name}: [b, d]\n"
    )
    (loaded,) = load_rows([Path("child.yaml")])
    assert getattr(loaded.row, name) == ["a", "b", "c", "d"]


def test_a_fault_in_a_list_that_is_added_to_is_blamed_on_its_own_line(folder: Path) -> None:
    (folder / "_base.yaml").write_text(WHOLE + "deviations: [a, 2]\n")
    (folder / "child.yaml").write_text("extends: _base.yaml\nrow: child\ndeviations:\n  - 3\n")
    assert faults("child.yaml") == [
        "_base.yaml:8:17: deviations.1: input should be a valid string (here: 2)",
        "child.yaml:4:5: deviations.2: input should be a valid string (here: 3)",
    ]


def test_null_takes_an_inherited_part_away(folder: Path) -> None:
    (folder / "_base.yaml").write_text(WHOLE + "data: prompt.txt\ntrain: {epochs: 5}\n")
    (folder / "a.yaml").write_text("extends: _base.yaml\nrow: untrained\ntrain: null\n")
    (loaded,) = load_rows([Path("a.yaml")])
    assert loaded.row.train is None
    assert loaded.row.data is not None


def test_a_fault_that_is_inherited_is_blamed_on_the_parents_file(folder: Path) -> None:
    (folder / "_base.yaml").write_text(WHOLE + "budget:\n  calls: few\nlimits: {cpus: 1}\n")
    (folder / "a.yaml").write_text("extends: _base.yaml\nrow: a\nlimits: {memory: lots}\n")
    (folder / "b.yaml").write_text("extends: _base.yaml\nrow: b\n")
    assert faults("a.yaml", "b.yaml") == [
        "_base.yaml:9:3: budget.calls: input should be a valid integer, unable to parse string as "
        "an integer (here: 'few')",
        "a.yaml:3:10: limits.memory: string should match pattern '^[0-9]+[kmg]$' (here: 'lots')",
    ]


def test_what_is_missing_everywhere_is_blamed_on_the_child(folder: Path) -> None:
    (folder / "_base.yaml").write_text(WHOLE.replace("row: one\n", ""))
    (folder / "a.yaml").write_text("# a comment\nextends: _base.yaml\n")
    assert faults("a.yaml") == ["a.yaml:2:1: row: is missing"]


def test_extends_in_a_circle_is_shown_as_the_circle_it_is(folder: Path) -> None:
    (folder / "a.yaml").write_text("row: a\nextends: _b.yaml\n")
    (folder / "_b.yaml").write_text("extends: _c.yaml\n")
    (folder / "_c.yaml").write_text("table: t\nextends: a.yaml\n")
    circle = "extends goes in a circle: a.yaml -> _b.yaml -> _c.yaml -> a.yaml"
    assert faults("a.yaml") == [f"_c.yaml:2:10: {circle}"]
    (folder / "self.yaml").write_text("extends: self.yaml\n")
    assert faults("self.yaml") == [
        "self.yaml:1:10: extends goes in a circle: self.yaml -> self.yaml"
    ]


def test_two_parents_may_share_a_grandparent(folder: Path) -> None:
    (folder / "_top.yaml").write_text(WHOLE)
    for name in "xy":
        (folder / f"_{name}.yaml").write_text(f"extends: _top.yaml\nvaried: {{{name}: 1}}\n")
    (folder / "a.yaml").write_text("extends: [_x.yaml, _y.yaml]\n")
    (loaded,) = load_rows([Path("a.yaml")])
    assert loaded.row.varied == {"x": 1, "y": 1}


@pytest.mark.parametrize(
    ("extends", "fault"),
    [
        ("gone.yaml", "2:10: extends 'gone.yaml', but there is no file gone.yaml"),
        (".", "2:10: extends '.', but there is no file ."),
        ("x" * 300, f"2:10: extends '{'x' * 300}', but there is no file {'x' * 300}"),
        ('"x\\0"', "2:10: extends 'x\\x00', but there is no file x\x00"),
    ],
)
def test_of_a_spec_whose_parent_is_missing_the_other_faults_are_still_reported(
    folder: Path, extends: str, fault: str
) -> None:
    assert faults_of(f"row: a\nextends: {extends}\noops: 1\ntrain: {{epochs: -1}}\n") == [
        fault,
        f"3:1: oops: unknown key; known here: {KNOWN}",
        "4:9: train.epochs: input should be greater than 0 (here: -1)",
    ]


def test_extends_takes_names_only(folder: Path) -> None:
    assert "1:14: extends takes a file name or a list of file names" in faults_of(
        "extends: [5, {a: 1}]\n"
    )


def test_the_schema_beside_the_specs_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(main, ["schema"])
    there = (ROOT / "specs" / "schema.json").read_text(encoding="utf-8")
    assert result.stdout == there, "rewrite it: harness schema > specs/schema.json"


def test_the_page_of_fields_is_what_the_command_prints_and_has_every_field_with_a_meaning() -> None:
    page = (ROOT / "docs" / "spec_fields.md").read_text(encoding="utf-8")
    rewrite = "rewrite it: harness schema --markdown > docs/spec_fields.md"
    assert CliRunner().invoke(main, ["schema", "--markdown"]).stdout == page, rewrite
    schema = json.loads((ROOT / "specs" / "schema.json").read_text(encoding="utf-8"))
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 and len(row[3]) > len("x |") for row in rows)
    fields = [
        (name, field)
        for part in [schema, *schema["$defs"].values()]
        for shape in [part, *part.get("anyOf", [])]
        for name, field in shape.get("properties", {}).items()
        if "const" not in field
    ]
    assert {row[0] for row in rows} == {f"| `{name}`" for name, _ in fields}
    assert len(rows) == len(fields)
    assert [name for name, field in fields if not field.get("description")] == []


@pytest.mark.parametrize(
    "row",
    [
        "| `learning_rate` | number over 0 | ",
        "| `shots` | integer from 0 | — | ",
        "| `row` | text | **needed** | ",
        "| `sampling` | [Sampling](#sampling) | `{temperature: 0.0, max_tokens: 50}` | ",
        "| `kind` | `instruction`, `preference` | `instruction` | ",
        "| `seed` | integer from 0 | `42` | ",
        "| `outputs` | text or [Data path](#data-path), or a list of these | none | ",
        "| `reasoning` | `keep`, `strip` | `keep` | What becomes of &lt;think>",
    ],
)
def test_the_page_of_fields_says_type_bounds_and_default(row: str) -> None:
    assert f"\n{row}" in (ROOT / "docs" / "spec_fields.md").read_text(encoding="utf-8")


def test_the_schema_knows_every_key_of_every_spec_and_requires_none() -> None:
    schema = json.loads((ROOT / "specs" / "schema.json").read_text(encoding="utf-8"))
    assert "required" not in schema
    for path in SPECS:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert set(spec) <= set(schema["properties"]), path


@pytest.mark.parametrize(
    "part", ["Train", "Lora", "Quantization", "Orpo", "DeepSpeed", "Launch", "Validation"]
)
def test_an_editor_says_of_every_setting_of_a_training_what_it_does(part: str) -> None:
    schema = json.loads((ROOT / "specs" / "schema.json").read_text(encoding="utf-8"))
    fields = schema["$defs"][part]["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_every_spec_in_the_repository_is_valid() -> None:
    assert len(load_rows([ROOT / "specs"])) >= 3


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.name)
def test_every_spec_begins_with_the_line_that_names_its_schema_to_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(EDITOR_COMMENT)
    schema = path.parent / first.removeprefix(EDITOR_COMMENT)
    assert schema.resolve() == ROOT / "specs" / "schema.json"


def test_no_line_of_a_yaml_file_ends_in_a_blank() -> None:
    folders = (ROOT / name for name in ("docs", "harness", "specs"))
    files = [*ROOT.glob("*.yaml"), *(path for folder in folders for path in folder.rglob("*.yaml"))]
    assert [path for path in files if re.search(r"[ \t]$", path.read_text("utf-8"), re.M)] == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"train": {"steps": True}}, "train.steps: a number is wanted (here: True)"),
        ({"train": {"seed": -1}}, "train.seed: input should be greater than or equal to 0"),
        ({"train": {"betas": [0.9, 2.0]}}, "train.betas.1: input should be less than 1"),
        ({"replicates": {"train_seeds": [1, 1]}}, "a seed given twice makes the same replicate"),
        ({"row": "a" * 101}, "row: string should have at most 100 characters"),
        ({"model": {"random": {"config": {"d": datetime.date(2024, 1, 1)}}}}, "what JSON can hold"),
    ],
)
def test_values_that_would_fail_or_mislead_later_are_refused(
    folder: Path, changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SpecFaults) as caught:
        load_rows([write_row(folder, **changes) if "row" not in changes else _long(folder)])
    assert fault in str(caught.value)


def _long(folder: Path) -> Path:
    path = write_row(folder)
    path.write_text(path.read_text().replace("row: one", "row: " + "a" * 101))
    return path


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://user:word@host/v1", "does not belong in a URL"),
        ("http://host/v1?api-key=word", "does not belong in a URL"),
        ("http://[bad/v1", "not a URL"),
        ("http://host:99999/v1", "not a URL"),
        ("host/v1", "looks like http://host:port/v1"),
    ],
)
def test_a_servers_url_is_checked_before_it_is_written_anywhere(
    folder: Path, url: str, fault: str
) -> None:
    spec = write_row(folder, eval=evaluation(folder, {"model": "judge", "base_url": url}))
    with pytest.raises(SpecFaults, match=re.escape(fault)):
        load_rows([spec])


@pytest.mark.parametrize("number", ["012", "1:30"])
def test_octal_and_base_60_numbers_are_refused(folder: Path, number: str) -> None:
    path = write_row(folder)
    path.write_text(path.read_text().replace("examples: 3", f"examples: {number}"))
    with pytest.raises(SpecFaults, match=f"{number} would be read as an octal or base-60 number"):
        load_rows([path])


def test_a_part_given_in_part_keeps_the_rest_of_its_default(tmp_path: Path) -> None:
    spec = write_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] |= {"sampling": {"max_tokens": 9, "top_p": None}, "filter": {"most_words": 9}}
    spec.write_text(yaml.safe_dump(tree))
    (gen,) = load_rows([spec])[0].row.gen or []
    assert isinstance(gen, AlpacaGen)
    assert gen.sampling.model_dump(exclude_none=True) == {"temperature": 1.0, "max_tokens": 9}
    assert gen.filter.most_words == 9
    assert "flowchart" in gen.filter.blacklist


def test_a_row_that_only_makes_data_needs_neither_model_nor_template(tmp_path: Path) -> None:
    spec = write_row(tmp_path, model=None, template=None, train=None)
    assert load_rows([spec])[0].row.model is None


@pytest.mark.parametrize("part", ["model", "template"])
def test_a_row_that_trains_needs_both(tmp_path: Path, part: str) -> None:
    spec = write_row(tmp_path, **{part: None})
    with pytest.raises(SpecFaults, match=f"{part} is missing: train needs one"):
        load_rows([spec])


def test_a_part_of_another_kind_replaces_the_one_it_extends_whole(folder: Path) -> None:
    write_row(folder, "a", eval=evaluation(folder))
    engine = {"kind": None, "output": "no"}
    judge = {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}
    (folder / "b.yaml").write_text(
        yaml.safe_dump({"extends": "a.yaml", "row": "b", "eval": {"answer": {"engine": engine}}})
    )
    (folder / "c.yaml").write_text(
        yaml.safe_dump({"extends": "a.yaml", "row": "c", "eval": {"answer": None, "judge": judge}})
    )
    b, c = (load_rows([folder / name])[0].row for name in ("b.yaml", "c.yaml"))
    assert b.eval.answer.engine.kind == "null"
    assert b.eval.judge.kind == "preference"
    assert c.eval.judge.kind == "held_out_loss"


@pytest.mark.parametrize("name", ["outputs", "annotations"])
def test_each_published_file_says_that_it_needs_its_sha256(folder: Path, name: str) -> None:
    """And a data path when it may be left open."""
    sections = command("schema", "--markdown").stdout.split("\n## ")
    told = {text.partition("\n")[0]: text.splitlines() for text in sections}
    for heading in ("Reported numbers", "Bridging model"):
        (field,) = [line for line in told[heading] if line.startswith(f"| `{name}` |")]
        assert "sha256" in field
    (words,) = [line for line in told["Data path"] if line.startswith("| `sha256` |")]
    for place in ("url", f"reported.{name}", "reported.bridge"):
        assert f"`{place}`" in words
    (told_fault,) = faults_of(WHOLE + f"reported: {{{name}: prompt.txt}}\n")
    assert "the sha256 of what was published is wanted" in told_fault
