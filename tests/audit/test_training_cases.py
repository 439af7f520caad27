"""Trainings' logs as people keep them: what the log itself says wins over what lies beside it."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.audit import audit_paths
from harness.audit.model import Result
from harness.cli.views.audit import show_audits
from harness.errors import InputError
from tests.audit.trainers import (
    SETTINGS,
    audited,
    edit,
    kinds,
    write_arguments,
    write_rows,
    write_training,
)


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "audit"
    if not folder.is_dir():
        pytest.skip("no ../shared/cases/audit")
    return folder


def batches(batch: int, accumulation: int) -> dict[str, Any]:
    return SETTINGS | {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
    }


def terminal_text(*results: Result) -> str:
    console = Console(file=io.StringIO(), width=2000)
    show_audits(console, results)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def printed(folder: Path, examples: int, name: str = "console.log", **figures: int) -> Path:
    """What a trainer prints when it begins, amid what else stands in a console's log."""
    constants = {"Num Epochs": 3, "Instantaneous batch size per device": 8,
            "Gradient Accumulation steps": 1} | figures  # fmt: skip
    lines = [f"  {k} = {v:,}" for k, v in {"Num examples": examples, **constants}.items()]
    path = folder / name
    path.write_text(
        "loading\n***** Running Evaluation *****\n  Num examples = 77\n***** Running training *****\n"
        + "\n".join(lines) + "\n{'loss': 1.0}\n***** Running Prediction *****\n  Num examples = 55\n"
    )  # fmt: skip
    return path


def test_the_stored_case_of_a_comments_backslash_has_512_examples(cases: Path) -> None:
    result = audited(cases / "case07-comment_backslash")
    assert (result.findings, result.metrics["examples"]) == ([], 512)
    assert (result.metrics["batch_size"], result.metrics["accumulation"]) == (1, 4)
    assert "run_other.sh is not this training's: it says batch 2, the log 1" in result.notes


def test_the_stored_case_of_a_cards_data_set_needs_no_option(cases: Path) -> None:
    result = audited(cases / "case09-card_names_data")
    assert kinds(result) == ["count_mismatch"]
    assert result.findings[0].evidence["examples"] == [[3999, 4000]]
    assert "1,300 rows are in my_data.json" in result.findings[0].message
    assert "README.md names the data set: my_data" in result.notes


def test_the_stored_case_of_two_writers_keeps_all_losses(cases: Path) -> None:
    result = audited(cases / "case11-two_writers")
    assert kinds(result) == ["count_mismatch"]
    assert "two processes wrote into this log" in result.findings[0].message
    assert "stand twice" in result.findings[0].message
    assert (result.metrics["logged_losses"], result.metrics["steps"]) == (100, 1000)


def test_the_stored_case_of_a_context_has_60_different_examples(cases: Path) -> None:
    folder = cases / "case17-dolly_context"
    for result in (audited(folder), audited(folder, folder / "data.jsonl")):
        assert (result.findings, result.metrics["different_rows"]) == ([], 60)


def test_the_stored_case_of_numbered_folders_has_no_finding(cases: Path) -> None:
    results = audit_paths([cases / "case20-numbered-folders"])
    assert [r.findings for r in results] == [[], []]
    assert "examples 1" not in terminal_text(*results)


def test_a_comments_backslash_continues_nothing_in_any_script(tmp_path: Path) -> None:
    write_training(tmp_path / "out", 700, 4, 2)
    for text in (
        "# old: \\\npython t.py --per_device_train_batch_size 4 \\\n --gradient_accumulation_steps 2",
        "python t.py --per_device_train_batch_size 4 --gradient_accumulation_steps 2 # and \\\n#end",
        "    ## a \\\r\npython t.py --per_device_train_batch_size=4 \\\r\n"
        "  --gradient_accumulation_steps=2 --run_name 'a # b' --tag c#d",
    ):
        (tmp_path / "run.sh").write_text(text + "\n")
        metrics = audited(tmp_path).metrics
        assert (metrics.get("batch_size"), metrics.get("accumulation")) == (4, 2), text


def test_a_commented_word_takes_no_value_from_the_next_line(tmp_path: Path) -> None:
    from harness.audit.parse.settings import read_settings

    script = tmp_path / "eval.sh"
    script.write_text("# checkpoint_path\nnew/checkpoint-5 --x\n")
    assert read_settings(script).commented == {}


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ("yaml", {"per_device_train_batch_size": 3}),
        ("json", {"num_train_epochs": 5}),
        ("sh", {"max_steps": 20}),
        ("card", {"train_batch_size": 16, "num_epochs": 3}),
    ],
)
def test_a_script_that_the_log_contradicts_is_passed_by_and_said(
    tmp_path: Path, form: str, wrong: dict[str, Any]
) -> None:
    """Its accumulation and devices would make another number of examples."""
    write_training(tmp_path, 4000)
    settings = batches(8, 4) | {"num_devices": 4} | wrong
    if form == "card":
        del settings["per_device_train_batch_size"]
    script = write_arguments(tmp_path, form, **settings)
    data = write_rows(tmp_path / "data.json", 4000)
    result = audited(tmp_path, data)
    assert result.findings == []
    assert any(f"{script.name} is not this training's" in note for note in result.notes)
    assert "accumulation" not in result.metrics


def test_of_several_scripts_the_one_that_fits_the_log_is_read(tmp_path: Path) -> None:
    write_training(tmp_path, 1001, 8, 2, every=1)
    for name, batch, accumulation in (("a.sh", 16, 8), ("b.sh", 8, 2), ("c.sh", 3, 1)):
        write_arguments(tmp_path, "sh", **batches(batch, accumulation)).rename(tmp_path / name)
    result = audited(tmp_path)
    assert "settings were read from b.sh" in result.notes
    assert result.metrics["accumulation"] == 2


def test_a_script_that_writes_another_trainings_log_is_not_this_ones(tmp_path: Path) -> None:
    write_training(tmp_path / "small", 1000)
    write_training(tmp_path / "big", 64_000, 8, 8, devices=8)
    write_arguments(tmp_path, "sh", output_dir="./big", num_processes=8,
                    **SETTINGS | {"gradient_accumulation_steps": 8})  # fmt: skip
    big, small = audit_paths([tmp_path], training_data=write_rows(tmp_path / "d.json", 1000))
    assert kinds(big) == ["count_mismatch"]
    assert small.findings == []
    assert "run.sh is not this training's: it says big is its output" in small.notes


def test_the_batch_of_several_devices_of_one_process_is_no_contradiction(tmp_path: Path) -> None:
    """DataParallel: the log has 4 times 2, and the script's four devices make no more of it."""
    write_training(tmp_path, 1000, 8)
    write_arguments(tmp_path, "sh", devices=4, **SETTINGS | {"per_device_train_batch_size": 2})
    metrics = audited(tmp_path).metrics
    assert (metrics["batch_size"], metrics["devices"]) == (8, 1)
    assert (metrics["examples_lowest"], metrics["examples_highest"]) == (993, 1000)


def test_a_batch_that_the_trainer_sought_for_itself_is_no_contradiction(tmp_path: Path) -> None:
    write_training(tmp_path, 1000, 4)
    write_arguments(tmp_path, auto_find_batch_size=True, num_processes=1, **SETTINGS)
    result = audited(tmp_path)
    assert result.metrics["batch_size"] == 4
    assert not any("not this training's" in note for note in result.notes)


@pytest.mark.parametrize(("examples", "batch", "accumulation"), [(1756, 8, 1), (5123, 2, 16)])
def test_the_logs_own_speed_tells_the_examples_without_any_script(
    tmp_path: Path, examples: int, batch: int, accumulation: int
) -> None:
    write_training(tmp_path, examples, batch, accumulation, seconds=321.5)
    assert audited(tmp_path).metrics["examples"] == examples
    # A script of other batches does not change it.
    write_arguments(tmp_path, num_devices=5, **batches(batch, 3))
    result = audited(tmp_path)
    assert result.metrics["examples"] == examples
    assert any("train.yaml is not this training's" in note for note in result.notes)


def test_the_speed_of_a_training_by_steps_tells_its_whole_batch(tmp_path: Path) -> None:
    """Such a trainer counts the steps times the batch of all devices."""
    write_training(tmp_path, 2000, 4, 2, devices=4, epochs=2.5, every=1)
    path = tmp_path / "trainer_state.json"
    state = json.loads(path.read_text())
    steps = state["max_steps"]
    state["log_history"][-1] |= {
        "train_runtime": 100.0,
        "train_samples_per_second": round(steps * 32 / 100, 3),
        "train_steps_per_second": round(steps / 100, 3),
    }
    path.write_text(json.dumps(state))
    write_arguments(tmp_path, max_steps=steps, **batches(4, 2))
    metrics = audited(tmp_path).metrics
    assert metrics["examples_lowest"] <= 2000 <= metrics["examples_highest"] <= 2032
    assert metrics["examples_lowest"] > 1900


@pytest.mark.parametrize("name", ["console.log", "nohup.out", "stderr.txt"])
def test_a_console_logs_number_of_examples_wins_over_scripts(tmp_path: Path, name: str) -> None:
    write_training(tmp_path / "out", 1003, 8, 2, devices=2)
    steps = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["max_steps"]
    printed(tmp_path, 1003, name, **{
        "Gradient Accumulation steps": 2, "Total optimization steps": steps,
        "Total train batch size (w. parallel, distributed & accumulation)": 32})  # fmt: skip
    write_arguments(tmp_path, **SETTINGS | {"gradient_accumulation_steps": 8})
    result = audited(tmp_path, write_rows(tmp_path / "data.json", 500))
    assert result.metrics["examples"] == 1003
    assert [result.metrics[n] for n in ("batch_size", "accumulation", "devices")] == [8, 2, 2]
    assert kinds(result) == ["count_mismatch"]
    assert f"{name} counts them" in result.findings[0].message
    assert any(
        f"it says accumulation 8, {name} 2" in note for note in result.notes
    )  # fmt: skip


def test_a_console_log_of_another_training_says_nothing(tmp_path: Path) -> None:
    write_training(tmp_path, 1000)
    for figures in ({"Total optimization steps": 99}, {},
                    {"Total optimization steps": 375, "Num Epochs": 7},
                    {"Total optimization steps": 375, "Num Epochs": 2**63 - 1}):  # fmt: skip
        printed(tmp_path, 4321, **figures)
        assert "examples" not in audited(tmp_path).metrics, figures
    printed(tmp_path, 1000, "a.log", **{"Total optimization steps": 375})
    assert audited(tmp_path).metrics["examples"] == 1000
    printed(tmp_path, 998, "b.log", **{"Total optimization steps": 375})
    assert "examples" not in audited(tmp_path).metrics


def test_ranges_too_wide_to_use_are_not_printed(tmp_path: Path) -> None:
    write_training(tmp_path / "run", 4000, tool="llama_factory")
    result = audited(tmp_path / "run")
    assert "examples_highest" not in result.metrics
    assert "at least " in terminal_text(result)
    (tmp_path / "run").rename(tmp_path / "135-mine")
    (wide,) = audit_paths([tmp_path])
    assert kinds(wide) == ["count_mismatch"]
    assert wide.findings[0].evidence["examples"][0][1] is None
    assert "e.g." not in terminal_text(wide)
    for text in (terminal_text(result), terminal_text(wide)):
        numbers = [int(w.replace(",", "")) for w in text.replace(".", " ").split()
                   if w.replace(",", "").isdigit()]  # fmt: skip
        assert max(numbers) < 10_000, text


@pytest.mark.parametrize("writers", [2, 3])
def test_several_writers_of_one_log_are_one_finding(tmp_path: Path, writers: int) -> None:
    write_training(tmp_path, 1600, tool="llama_factory")
    log = tmp_path / "trainer_log.jsonl"
    *lines, last = log.read_text().splitlines(keepends=True)
    # The second writer is at times ahead, at times behind.
    mixed = [line for pair in zip(lines[::2], lines[1::2], strict=True)
             for line in (*pair, *pair[::-1]) + (pair if writers == 3 else ())]  # fmt: skip
    log.write_text("".join(mixed) + last * writers)
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    result = audited(tmp_path, write_rows(tmp_path / "data.json", 1600))
    assert [f.evidence.get("writers") for f in result.findings] == [writers]
    assert result.metrics["logged_losses"] == len(lines)
    assert not any("begins" in note for note in result.notes)


def test_a_log_that_was_gone_on_with_many_times_has_one_writer(tmp_path: Path) -> None:
    write_training(tmp_path, 4000, tool="llama_factory")
    log = tmp_path / "trainer_log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    parts = [lines[start : start + 45] for start in range(0, len(lines), 30)]
    log.write_text("".join(line for part in parts for line in part))
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    assert audited(tmp_path, write_rows(tmp_path / "data.json", 4000)).findings == []
    # Or begun anew, each time soon after.
    log.write_text("".join(lines[:3]) * 5 + "".join(lines))
    result = audited(tmp_path, write_rows(tmp_path / "data.json", 4000))
    assert (result.findings, result.metrics["logged_losses"]) == ([], 150)


def _prediction(batches: int) -> str:
    return "".join(
        json.dumps({"current_steps": n, "total_steps": batches, "percentage": 100 * n / batches,
                    "elapsed_time": "0:00:09", "remaining_time": "0:00:01"}) + "\n"
        for n in range(5, batches + 1, 5)
    )  # fmt: skip


def test_a_predictions_log_is_no_training(tmp_path: Path) -> None:
    (tmp_path / "trainer_log.jsonl").write_text(_prediction(805))
    with pytest.raises(InputError, match="the log of a prediction"):
        audit_paths([tmp_path])


@pytest.mark.parametrize("tool", ["llama_factory", "transformers"])
def test_a_prediction_after_a_training_does_not_change_it(tmp_path: Path, tool: str) -> None:
    write_training(tmp_path, 4000, tool=tool)
    before = audited(tmp_path).metrics
    with (tmp_path / "trainer_log.jsonl").open("a") as file:
        file.write(_prediction(100))
    result = audited(tmp_path)
    assert (result.findings, result.metrics) == ([], before)


@pytest.mark.parametrize(
    "name",
    ["01_sft", "02-dpo", "1_sft", "10-sft", "003_rm", "240514-mine", "1105_mine", "2024-05-mine"],
)
def test_an_order_or_a_date_at_a_names_beginning_is_no_count(tmp_path: Path, name: str) -> None:
    write_training(tmp_path / name, 4000)
    write_arguments(tmp_path / name, num_processes=1, **SETTINGS)
    result = audited(tmp_path)
    assert (result.findings, result.published) == ([], {})


def test_names_that_count_up_are_no_counts(tmp_path: Path) -> None:
    for name in ("100_sft", "101_dpo", "500_mine"):
        write_training(tmp_path / name, 4000)
        write_arguments(tmp_path / name, num_processes=1, **SETTINGS)
    assert [kinds(r) for r in audit_paths([tmp_path])] == [[], [], ["count_mismatch"]]


def test_a_count_of_two_digits_counts_where_the_name_says_of_what(tmp_path: Path) -> None:
    write_training(tmp_path / "50_examples", 4000)
    write_arguments(tmp_path / "50_examples", num_processes=1, **SETTINGS)
    assert kinds(audited(tmp_path)) == ["count_mismatch"]


@pytest.mark.parametrize(
    "sentence",
    [
        "This model is a fine-tuned version of [a/on the b](https://x.org) on the mine dataset.",
        "This model is a fine-tuned version of a/b on the mine dataset.\nIt achieves:",
        "This model is a fine-tuned version of [a/b](https://x.org) on the [me/mine](https://x.org) "
        "dataset.",
        "It has been trained on the [me/mine](https://x.org) dataset using a trainer.",
    ],
)
def test_the_data_set_of_a_cards_sentence_is_found(tmp_path: Path, sentence: str) -> None:
    write_training(tmp_path / "results" / "run", 4000)
    write_arguments(tmp_path / "results", num_processes=1, **SETTINGS)
    (tmp_path / "results" / "run" / "README.md").write_text(f"# A model\n\n{sentence}\n")
    write_rows(tmp_path / "sets" / "mine.jsonl", 1300)
    write_rows(tmp_path / "sets" / "more.jsonl", 4000)
    (finding,) = audited(tmp_path).findings
    assert "1,300 rows are in mine.jsonl" in finding.message


@pytest.mark.parametrize(
    "phrase", ["an unknown dataset", "the None dataset", "the generator dataset",
               "the mine and the more datasets", "the mine, the more and the third datasets"],
)  # fmt: skip
def test_a_card_that_names_no_data_set_or_several_claims_nothing(
    tmp_path: Path, phrase: str
) -> None:
    write_training(tmp_path / "run", 4000)
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    card = f"This model is a fine-tuned version of [a/b](https://x.org) on {phrase}.\n"
    (tmp_path / "run" / "README.md").write_text(card)
    write_rows(tmp_path / "sets" / "mine.jsonl", 1300)
    assert audited(tmp_path).findings == []


def test_a_lists_data_set_is_found_whatever_its_suffix_and_columns(tmp_path: Path) -> None:
    write_training(tmp_path / "out", 2000)
    write_arguments(tmp_path, "sh", dataset="mine", devices=1, **SETTINGS)
    rows = [{"ask": f"a {n}", "reply": f"b {n}"} for n in range(1500)]
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "lima.json").write_text(json.dumps(rows))
    entry = {"file_name": "v1/lima.jsonl", "columns": {"prompt": "ask", "response": "reply"}}
    (tmp_path / "sets" / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    (finding,) = audited(tmp_path).findings
    assert "1,500 rows are in lima.json" in finding.message
    # Where nothing else names one, the list's only data set is the training's.
    write_arguments(tmp_path, "sh", devices=1, **SETTINGS)
    assert kinds(audited(tmp_path)) == ["count_mismatch"]


def test_the_data_that_was_given_is_used_or_its_refusal_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_training(run, 4000)
    data = write_rows(tmp_path / "data.json", 1300)
    write_arguments(run, num_processes=1, dataset="other", **SETTINGS)
    assert kinds(audited(run, data)) == ["count_mismatch"]
    write_arguments(run, num_processes=1, dataset="one,two", **SETTINGS)
    result = audited(run, data)
    assert result.findings == []
    assert any(
        "data.json was not held against the log" in n and "one, two" in n for n in result.notes
    )  # fmt: skip
    edit(run / "trainer_state.json", log_history=[], epoch=None, global_step=0)
    (run / "train.yaml").unlink()
    edit(run / "trainer_state.json", num_train_epochs=None)
    assert any("could not be held against the log" in n for n in audited(run, data).notes)


def test_a_column_that_no_layout_names_tells_rows_apart(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"

    def different(**columns: Any) -> object:
        rows = [
            {"prompt": "Sum up.", "completion": "Done."} | {k: f(n) for k, f in columns.items()}
            for n in range(40)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return audited(tmp_path, data).metrics["different_rows"]

    assert different(passage=lambda n: f"Text {n}.") == 40
    assert different(history=lambda n: [["a", str(n)]]) == 40
    # What numbers or scores a row is no part of an example.
    assert different(id=lambda n: f"row-{n}", example_id=str, weight=lambda n: n / 7) == 1


def test_data_sets_alone_are_counted_where_nothing_else_is_found(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "sets" / "a.jsonl", 100)
    for path in (tmp_path, data):
        result = audited(path)
        assert (result.kind, result.metrics["rows"], result.findings) == ("data_set", 100, [])
    write_rows(tmp_path / "test_set.json", 30)
    write_training(tmp_path / "run", 4000)
    assert [r.kind for r in audit_paths([tmp_path])] == ["training"]


def test_clean_logs_of_fractional_epochs_keep_their_examples_possible(tmp_path: Path) -> None:
    """With no script, and a speed that may be of steps or of epochs."""
    for number, (examples, batch, accumulation, epochs, ends) in enumerate(
        [(12, 8, 1, 2.5, "part"), (1000, 8, 1, 2.5, "part"), (960, 4, 8, 1.5, "carried"),
         (997, 2, 16, 2.95, "left"), (641, 16, 2, 0.7, "part"), (60, 2, 16, 3.0, "carried")]
    ):  # fmt: skip
        for tool in ("transformers", "llama_factory"):
            run = tmp_path / f"{tool}{number}"
            write_training(run, examples, batch, accumulation, epochs=epochs, ends=ends, tool=tool,
                           seconds=77.7)  # fmt: skip
            metrics = audited(run).metrics
            low = metrics.get("examples", metrics.get("examples_lowest", 0))
            high = metrics.get("examples", metrics.get("examples_highest", math.inf))
            assert low <= examples <= high, (number, tool, low, high)


@pytest.mark.parametrize("output", ["x" * 5000, "a\\0b", "/root/elsewhere", "../..", "~", "${OUT}"])
def test_an_output_that_no_folder_can_be_is_no_fault(tmp_path: Path, output: str) -> None:
    write_training(tmp_path / "run", 1000)
    write_arguments(tmp_path, output_dir=f'"{output}"', num_processes=1, **SETTINGS)
    assert audited(tmp_path, write_rows(tmp_path / "data.json", 1000)).findings == []


@pytest.mark.parametrize("output", ["out_b", "/mnt/checkpoints/other"])
def test_a_script_with_another_output_makes_no_error(tmp_path: Path, output: str) -> None:
    write_training(tmp_path / "out", 1000, 8)
    write_rows(tmp_path / "b.json", 500)
    write_arguments(tmp_path, "sh", **SETTINGS, output_dir=output, data_path="b.json")
    result = audited(tmp_path)
    assert (result.findings, "rows" in result.metrics) == ([], False)
    assert any("b.json with its 500 rows does not fit" in note for note in result.notes)
    # A file beside it that fits is the log's.
    write_rows(tmp_path / "data.json", 1000)
    result = audited(tmp_path)
    assert (result.findings, result.metrics["rows"]) == ([], 1000)
    assert any("data.json fits the log" in note for note in result.notes)
    # The one that names this folder is held against it.
    write_arguments(tmp_path, "sh", **SETTINGS, output_dir="out", data_path="b.json")
    assert kinds(audited(tmp_path)) == ["count_mismatch"]


@pytest.mark.parametrize(
    ("form", "flag"),
    [("yaml", {"sample_packing": "true"}), ("yaml", {"packed": "true"}),
     ("sh", {"block_size": 1024}), ("sh", {"group_texts": "true"})],
)  # fmt: skip
def test_other_tools_packing_is_packing(tmp_path: Path, form: str, flag: dict[str, Any]) -> None:
    write_training(tmp_path, 200, 8)
    write_rows(tmp_path / "data.json", 1000)
    one_device = SETTINGS | ({"num_processes": 1} if form == "yaml" else {})
    write_arguments(tmp_path, form, **one_device)
    assert kinds(audited(tmp_path)) == ["count_mismatch"]
    write_arguments(tmp_path, form, **one_device, **flag)
    result = audited(tmp_path)
    assert result.findings == []
    assert "examples were packed together" in " ".join(result.notes)


def test_a_script_that_takes_fewer_examples_than_the_log_has_is_passed_by(tmp_path: Path) -> None:
    write_training(tmp_path, 1000, 8)
    write_rows(tmp_path / "data.json", 1000)
    write_arguments(tmp_path, "sh", **SETTINGS, max_samples=500)
    result = audited(tmp_path)
    assert result.findings == []
    assert "max_samples 500, and the log makes" in result.notes[0]
    write_arguments(tmp_path, "sh", **SETTINGS, max_samples=1000)
    assert not any("is not this training's" in note for note in audited(tmp_path).notes)


@pytest.mark.parametrize("column", ["score", "feedback", "preference"])
def test_a_rated_data_set_is_a_data_set(tmp_path: Path, column: str) -> None:
    write_training(tmp_path, 1000, 8)
    write_arguments(tmp_path, "sh", **SETTINGS)
    data = write_rows(tmp_path / "data.json", 1000)
    data.write_text(json.dumps([row | {column: 4.5} for row in json.loads(data.read_text())]))
    assert audited(tmp_path).metrics["rows"] == 1000


@pytest.mark.parametrize(("every", "total"), [(20, 600), (10, 360)])
def test_two_writers_with_steps_of_their_own_keep_all_losses(
    tmp_path: Path, every: int, total: int
) -> None:
    first = [{"current_steps": n, "total_steps": 600, "loss": 1.0, "epoch": n / 200}
             for n in range(10, 601, 10)]  # fmt: skip
    second = [{"current_steps": n, "total_steps": total, "loss": 2.0, "epoch": 3 * n / total}
              for n in range(every, total + 1, every)]  # fmt: skip
    lines = [
        line
        for n, line_of_first in enumerate(first)
        for line in (line_of_first, *second[n : n + 1])
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "trainer_log.jsonl").write_text(text)
    result = audited(tmp_path)
    assert "two processes or more" in result.findings[0].message
    assert result.metrics["logged_losses"] == len(lines)
