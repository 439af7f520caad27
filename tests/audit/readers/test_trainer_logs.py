"""Trainings' logs against data sets and claims: what does not fit is found, what fits is left alone."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit_paths
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


def test_a_log_of_4000_examples_does_not_fit_1300_rows(tmp_path: Path) -> None:
    write_training(tmp_path / "run", 4000)
    write_arguments(tmp_path / "run", num_processes=1, **SETTINGS)
    result = audited(tmp_path / "run", write_rows(tmp_path / "data.json", 1300))
    (finding,) = result.findings
    assert (finding.kind, finding.severity) == ("count_mismatch", "error")
    assert finding.evidence["examples"] == [[3993, 4000]]
    assert finding.evidence["ratio"] == pytest.approx(3993 / 1300, abs=1e-3)
    assert "1,300 rows" in finding.message
    assert "(1,500 steps in 3 epochs, batch 8)" in finding.message


def test_a_log_of_fewer_examples_than_rows_is_found_too(tmp_path: Path) -> None:
    write_training(tmp_path / "run", 900)
    write_arguments(tmp_path / "run", "sh", **SETTINGS)
    result = audited(tmp_path / "run", write_rows(tmp_path / "data.json", 1300))
    assert [(f.kind, f.severity) for f in result.findings] == [("count_mismatch", "warning")]


def test_clean_logs_of_any_shape_have_no_finding(tmp_path: Path) -> None:
    """Sizes, batches, accumulations, devices, rounding, the three ways to end an epoch, and every form
    of settings: a thousand such were tried by hand, these are some."""
    rng = random.Random(6)
    for number in range(60):
        root = tmp_path / str(number)
        examples, devices = rng.randint(40, 3000), rng.choice([1, 1, 2, 4])
        batch, accumulation = rng.choice([1, 2, 4, 8]), rng.choice([1, 2, 4, 16])
        epochs, form = rng.choice([1.0, 3.0, 2.5]), rng.choice(["yaml", "json", "sh", "card", None])
        drop_last = form in ("yaml", "json") and rng.random() < 0.3
        write_training(
            root / "run", examples, batch, accumulation, devices, epochs, drop_last,
            ends=rng.choice(["part", "carried", "left"]), every=rng.choice([1, 10, 500]),
            decimals=rng.choice([None, 2]), tool=rng.choice(["transformers", "llama_factory"]),
            seconds=rng.choice([None, 61.23, 3600.5]),
        )  # fmt: skip
        settings: dict[str, Any] = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "num_train_epochs": epochs,
        }
        if form == "card":
            settings = {"train_batch_size": batch, "num_epochs": epochs, "num_devices": devices,
                        "gradient_accumulation_steps": accumulation}  # fmt: skip
        elif form == "sh":
            settings["devices"] = devices
        elif drop_last:
            settings["dataloader_drop_last"] = True
        if form is not None:
            write_arguments(root / "run", form, **settings)
        result = audited(root / "run", write_rows(root / "data.jsonl", examples))
        assert result.findings == [], (number, [f.message for f in result.findings])
        low = result.metrics.get("examples", result.metrics.get("examples_lowest"))
        # A highest number that says nothing is not told.
        high = result.metrics.get("examples", result.metrics.get("examples_highest", math.inf))
        assert low <= examples <= high


@pytest.mark.parametrize("ends", ["part", "carried", "left"])
@pytest.mark.parametrize("accumulation", [1, 8, 32])
def test_rows_that_are_off_by_a_third_are_found_however_epochs_end(
    tmp_path: Path, ends: str, accumulation: int
) -> None:
    write_training(tmp_path, 2000, 2, accumulation, ends=ends, decimals=2)
    write_arguments(tmp_path, **SETTINGS | {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation,
        "num_processes": 1})  # fmt: skip
    for rows in (1400, 2700):
        assert kinds(audited(tmp_path, write_rows(tmp_path / "d.json", rows))) == ["count_mismatch"]
    assert kinds(audited(tmp_path, write_rows(tmp_path / "d.json", 2000))) == []


def test_dropping_the_last_batch_leaves_other_numbers_possible(tmp_path: Path) -> None:
    write_training(tmp_path, 1003, drop_last=True)
    write_arguments(tmp_path, num_processes=1, dataloader_drop_last=True, **SETTINGS)
    metrics = audited(tmp_path).metrics
    assert (metrics["examples_lowest"], metrics["examples_highest"]) == (1000, 1007)


def test_the_trainers_own_speed_tells_the_examples_to_a_few(tmp_path: Path) -> None:
    write_training(tmp_path, 1756, seconds=120.0)
    write_arguments(tmp_path, **SETTINGS)
    metrics = audited(tmp_path).metrics
    assert metrics["examples"] == 1756


def test_packing_makes_steps_count_no_examples(tmp_path: Path) -> None:
    write_training(tmp_path, 400)
    write_arguments(tmp_path, packing=True, **SETTINGS)
    for rows in (100, 1300):
        result = audited(tmp_path, write_rows(tmp_path / "data.json", rows))
        assert result.findings == []
        assert any("packed" in note for note in result.notes)


def test_without_settings_only_more_examples_than_rows_are_claimed(tmp_path: Path) -> None:
    """An unknown accumulation, number of devices or packing explains any larger data set."""
    write_training(tmp_path, 4000)
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 30_000))) == []
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 9000))) == []
    (finding,) = audited(tmp_path, write_rows(tmp_path / "data.json", 1300)).findings
    assert finding.kind == "count_mismatch"
    assert "at least 3,993 examples" in finding.message


def test_an_unknown_number_of_devices_leaves_every_number_possible(tmp_path: Path) -> None:
    write_training(tmp_path, 1000)
    write_arguments(tmp_path, **SETTINGS)
    (finding,) = audited(tmp_path, write_rows(tmp_path / "data.json", 300)).findings
    assert "993 to 1,000, or on several devices a multiple of it" in finding.message
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 3990))) == []
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 3990))) == ["count_mismatch"]


@pytest.mark.parametrize(("held_out", "trained"), [("0.1", 900), ("50", 950)])
def test_what_is_held_out_is_not_missing(tmp_path: Path, held_out: str, trained: int) -> None:
    write_training(tmp_path, trained)
    write_arguments(tmp_path, val_size=held_out, num_processes=1, **SETTINGS)
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 1000))) == []
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 1200))) == ["count_mismatch"]


def test_a_held_out_part_of_unknown_size_may_be_half(tmp_path: Path) -> None:
    write_training(tmp_path, 800)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    state["log_history"].append({"step": 300, "epoch": 3.0, "eval_loss": 1.0})
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 1000))) == []
    assert kinds(audited(tmp_path, write_rows(tmp_path / "data.json", 700))) == ["count_mismatch"]


def test_empty_rows_are_not_missed(tmp_path: Path) -> None:
    write_training(tmp_path, 800)
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    data = write_rows(tmp_path / "data.json", 1000, empty=200)
    assert kinds(audited(tmp_path, data)) == []


def test_a_count_in_a_readmes_table_is_held_against_the_file(tmp_path: Path) -> None:
    table = "| data | dataset sum(with seeds) | log |\n|---|---|---|\n"
    (tmp_path / "README.md").write_text(f"{table}| ours | 1735 | [see](./results/run) |\n")
    write_training(tmp_path / "results" / "run", 1756)
    write_arguments(tmp_path / "results" / "run", num_processes=1, **SETTINGS)
    data = write_rows(tmp_path / "data.json", 1756)
    (finding,) = audited(tmp_path, data).findings
    assert (finding.kind, finding.severity) == ("count_mismatch", "error")
    assert finding.evidence["quote"] == "| ours | 1735 | [see](./results/run) |"
    assert "README.md, line 3 says 1,735 training examples" in finding.message
    assert "data.json has 1,756" in finding.message
    result = audited(tmp_path, data)
    assert (result.matches, result.published["examples"]) == (False, 1735)
    (tmp_path / "README.md").write_text(f"{table}| ours | 1,756 | [see](./results/run) |\n")
    result = audited(tmp_path, data)
    assert (result.findings, result.matches) == ([], True)


def test_a_count_in_a_readmes_text_is_held_against_the_log(tmp_path: Path) -> None:
    write_training(tmp_path / "run", 4000)
    write_arguments(tmp_path / "run", num_processes=1, **SETTINGS)
    readme = tmp_path / "README.md"
    readme.write_text("We fine-tuned on 1,300 rows.\n")
    (finding,) = audited(tmp_path).findings
    assert (finding.kind, finding.evidence["claimed"]) == ("count_mismatch", [1300, 1300])
    for sentence in ("We trained on 4,000 examples.", "We trained on about 4,100 examples.",
                 "We trained on 4k examples.", "Evaluated on 805 examples after training.",
                 "The training took 1,500 steps.",
                 "Trained with 2 GPUs and 175 seed instructions."):  # fmt: skip
        readme.write_text(sentence)
        assert audited(tmp_path).findings == [], sentence


def test_a_count_in_the_folders_name_is_held_against_the_file(tmp_path: Path) -> None:
    run = tmp_path / "1735-default-prompt-results"
    write_training(run, 1756)
    write_arguments(run, num_processes=1, **SETTINGS)
    write_rows(run / "data.json", 1756)
    (finding,) = audited(tmp_path).findings
    assert (finding.kind, finding.severity) == ("count_mismatch", "warning")
    assert finding.evidence["where"] == "the folder's name"
    for name in ("100-steps-lora", "2024-05-run", "1756-default-prompt", "7b-run"):
        run = run.rename(tmp_path / name)
        assert audited(tmp_path).findings == [], name


def test_a_data_set_alone_is_held_against_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / "1735-default-prompt-results"
    folder.mkdir()
    data = write_rows(folder / "data.json", 1756)
    result = audited(folder, data)
    assert (result.kind, result.metrics["rows"], result.published["rows"]) == (
        "data_set",
        1756,
        1735,
    )
    assert kinds(result) == ["count_mismatch"]
    assert audited(folder, write_rows(folder / "data.json", 1735)).findings == []


def test_a_table_that_links_to_a_data_set_must_have_its_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "a.jsonl", 338)
    readme = tmp_path / "README.md"
    readme.write_text("| set | examples |\n|--|--|\n| [a](data/a.jsonl) | 500 |\n")
    assert kinds(audited(tmp_path)) == ["count_mismatch"]
    readme.write_text("| set | examples |\n|--|--|\n| [a](data/a.jsonl) | 338 |\n")
    assert audited(tmp_path).findings == []


def test_a_table_that_links_to_outputs_says_nothing_of_their_number(tmp_path: Path) -> None:
    """The rows of the table are of the training set; the outputs are of the evaluation's prompts."""
    write_rows(tmp_path / "338-results" / "model_outputs.json", 805)
    write_training(tmp_path / "log", 100)
    table = "| data | dataset sum | outputs |\n|--|--|--|\n"
    line = "| ours | 338 | [see](./338-results/model_outputs.json) |\n"
    (tmp_path / "README.md").write_text(table + line)
    assert [f for r in audit_paths([tmp_path]) for f in r.findings if "338" in f.message] == []


def test_several_data_sets_at_once_claim_nothing(tmp_path: Path) -> None:
    write_training(tmp_path, 2000)
    write_arguments(tmp_path, dataset="one,two", num_processes=1, **SETTINGS)
    assert kinds(audited(tmp_path, write_rows(tmp_path / "one.json", 1000))) == []


def test_the_named_data_set_is_found_by_llama_factorys_list(tmp_path: Path) -> None:
    write_training(tmp_path / "out", 2000)
    write_arguments(tmp_path, "sh", dataset="mine", output_dir="out", devices=1, **SETTINGS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"mine": {"file_name": "lima.json"}}')
    write_rows(tmp_path / "data" / "lima.json", 1500)
    write_rows(tmp_path / "data" / "other.json", 2000)
    (finding,) = audited(tmp_path).findings
    assert "1,500 rows are in lima.json" in finding.message


def test_a_loss_that_is_no_number_is_found(tmp_path: Path) -> None:
    write_training(tmp_path, 400, every=1)
    path = tmp_path / "trainer_state.json"
    state = json.loads(path.read_text())
    for line in state["log_history"][100:-1]:
        line["loss"] = math.nan
    path.write_text(json.dumps(state))
    (finding,) = audited(tmp_path).findings
    assert (finding.severity, finding.evidence["first_step"]) == ("error", 101)
    assert finding.evidence["not_numbers"] == 50
    for line in state["log_history"][100:-1]:
        line["loss"] = 0.5
    state["log_history"][60]["grad_norm"] = math.inf
    path.write_text(json.dumps(state))
    assert audited(tmp_path).findings == []


def test_a_loss_of_zero_with_a_gradient_that_is_no_number_has_diverged(tmp_path: Path) -> None:
    """transformers filters a loss that is NaN out of its log, and writes 0."""
    write_training(tmp_path, 400, every=1)
    path = tmp_path / "trainer_state.json"
    state = json.loads(path.read_text())
    for line in state["log_history"][-20:-1]:
        line |= {"loss": 0.0, "grad_norm": math.nan}
    path.write_text(json.dumps(state))
    assert kinds(audited(tmp_path)) == ["count_mismatch"]


def test_a_training_that_stopped_before_its_end_is_found(tmp_path: Path) -> None:
    write_training(tmp_path, 4000, tool="llama_factory")
    log = tmp_path / "trainer_log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:90]))
    (finding,) = audited(tmp_path).findings
    assert finding.evidence == {"steps": 900, "planned": 1500, "missing": 600}
    assert finding.severity == "warning"
    # The last line before the end need not have been written.
    log.write_text("".join(lines[:149]) + '{"current_st')
    assert audited(tmp_path).findings == []


def test_the_only_line_of_a_sparse_log_is_not_its_end(tmp_path: Path) -> None:
    write_training(tmp_path, 7200, every=500, tool="llama_factory", epochs=1.0)
    log = tmp_path / "trainer_log.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    assert audited(tmp_path).findings == []


def test_a_text_above_several_trainings_is_about_none_of_them(tmp_path: Path) -> None:
    for name, examples in (("a", 338), ("b", 1735)):
        write_training(tmp_path / name, examples)
        write_arguments(tmp_path / name, num_processes=1, **SETTINGS)
    (tmp_path / "README.md").write_text("We trained on 338 examples.")
    assert [kinds(r) for r in audit_paths([tmp_path])] == [[], []]


def test_early_stopping_is_no_more_than_told(tmp_path: Path) -> None:
    write_training(tmp_path, 400)
    edit(tmp_path / "trainer_state.json", max_steps=900, best_metric=1.2)
    assert [f.severity for f in audited(tmp_path).findings] == ["info"]


def test_a_checkpoints_state_is_no_stopped_training(tmp_path: Path) -> None:
    for step in (50, 100):
        write_training(tmp_path / f"checkpoint-{step}", 400)
        edit(tmp_path / f"checkpoint-{step}" / "trainer_state.json", max_steps=900)
    result = audited(tmp_path)
    assert (result.findings, Path(result.path).parent.name) == ([], "checkpoint-100")


def test_repeated_rows_are_told_where_they_are_many(tmp_path: Path) -> None:
    write_training(tmp_path, 1000)
    write_arguments(tmp_path, **SETTINGS)
    data = write_rows(tmp_path / "data.json", 800)
    rows = json.loads(data.read_text())
    data.write_text(json.dumps(rows + rows[:200]))
    (finding,) = audited(tmp_path, data).findings
    assert (finding.severity, finding.evidence["different"]) == ("info", 800)
    data.write_text(json.dumps(rows + rows[:50]))
    write_training(tmp_path, 850)
    assert audited(tmp_path, data).findings == []


def test_a_log_that_begins_anew_is_read_from_its_last_beginning(tmp_path: Path) -> None:
    write_training(tmp_path, 4000, tool="llama_factory")
    first = (tmp_path / "trainer_log.jsonl").read_text()
    write_training(tmp_path, 1000, tool="llama_factory")
    with (tmp_path / "trainer_log.jsonl").open() as file:
        second = file.read()
    (tmp_path / "trainer_log.jsonl").write_text(first + second)
    write_arguments(tmp_path, num_processes=1, **SETTINGS)
    result = audited(tmp_path, write_rows(tmp_path / "data.json", 1000))
    assert (result.findings, result.metrics["steps"]) == ([], 375)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"log_history": 5}', '{"log_history": []}', '{"log_history": [7, {"step": "x"}]}',
     '{"log_history": [{"step": 1e400, "epoch": NaN}]}', "\x00\x01", "[" * 5000],
)  # fmt: skip
def test_a_damaged_log_is_passed_by_and_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(InputError, match=r"trainer_state\.json was passed by"):
        audit_paths([tmp_path])


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[{"a": 1}]', '{"x": NaN}'])
def test_a_damaged_data_set_is_a_fault_of_the_command(tmp_path: Path, text: str) -> None:
    write_training(tmp_path, 100)
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(InputError, match=r"data\.json"):
        audit_paths([tmp_path], training_data=tmp_path / "data.json")


def test_settings_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    write_training(tmp_path, 4000)
    write_arguments(
        tmp_path, per_device_train_batch_size="auto", gradient_accumulation_steps=".nan"
    )
    (tmp_path / "broken.yaml").write_text("a: [")
    assert audited(tmp_path, write_rows(tmp_path / "data.json", 9000)).findings == []


def test_the_harness_own_log_gives_the_exact_number_of_examples(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "k"
    folder.mkdir(parents=True)
    examples, per_step, steps = 100, 32, 8
    lines, trained = [], 0
    for step in range(1, steps + 1):
        trained += 4 if step % 4 == 0 else per_step
        lines.append({"step": step, "epoch": round(trained / examples, 6), "loss": 1.0})
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = {"batch_size": 16, "accumulation": 2, "epochs": 2, "steps": None}
    counts = {"records": 100, "examples": 100, "steps": steps}
    manifest = {"document": {"params": {"train": train}}, "counts": counts,
                "inputs": {"data": {"key": "a" * 64, "stage": "gen"}}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_rows(tmp_path / "gen" / ("a" * 16) / "data.jsonl", 100)
    result = audited(folder)
    assert (result.findings, result.metrics["examples"], result.matches) == ([], 100, True)
    write_rows(tmp_path / "gen" / ("a" * 16) / "data.jsonl", 60)
    assert kinds(audited(folder)) == ["count_mismatch"]
