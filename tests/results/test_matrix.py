"""The matrix: denominators, marks, verdicts, and which artefacts a line is read from."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.store import Damaged
from harness.report.formats import to_csv, to_markdown, write_all
from harness.results.matrix import lines_of, lowest
from harness.row.load import load_rows
from tests.helpers import (
    InstantExecutor,
    command,
    evaluation,
    make,
    planned,
    planner,
    snapshot,
)
from tests.results.matrix_rows import (
    HELD_OUT,
    SCORE,
    VALIDATED,
    by_metric,
    cells,
    lines,
    scaled,
    scored,
    shown,
    trained,
)


def test_a_row_that_did_not_run_stands_in_the_matrix_with_its_reported_number(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(
        reported={"win_rate": {"value": 41.5, "standard_error": 1.7, "judged": 804,
                               "expected": 805}},
        source={"document": "paper.pdf", "table": "Table 2", "line": 3},
    )  # fmt: skip
    found = cells(volume, spec)
    assert found["verdict"] == "not run"
    assert found["ours"] is None
    assert found["calls"] is None
    assert found["source"] == "paper.pdf, Table 2, line 3"
    (line,) = lines(volume, spec)
    assert shown(line)["reported"] == "41.50 ± 1.70 of 804/805"
    assert shown(line)["replicates"] == "0/1"
    assert shown(line)["over"] == ""


def test_a_row_that_ran_shows_score_counts_replicates_verdict_cost_and_keys(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 40}}, varied={"training": "full SFT", "k": 3})
    make(volume, spec, executor=scored({**SCORE, "standard_error": 0.5}))
    found = cells(volume, spec)
    assert found["verdict"] == "inconclusive"
    assert "one training" in found["verdict_reason"]
    assert (found["calls"], found["prompt_tokens"], found["completion_tokens"]) == (4, 60, 8)
    (plan,) = planned(volume, spec)
    assert found["env_artefacts"] == " ".join(f"{s.stage}/{s.key[:12]}" for s in plan.stages)
    (line,) = lines(volume, spec)
    seen = shown(line)
    assert seen["varied"] == "k=3; training=full SFT"
    assert seen["ours"] == "40.00 ± 0.50 (random weights)"
    assert seen["over"] == "3/3"
    assert seen["replicates"] == "1/1"
    assert seen["cost"].startswith("4 calls, 60 + 8 tokens, ")
    assert seen["environment"] == "local"


def test_unjudged_prompts_show_as_judged_of_expected_with_both_bounds(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    holes = {**SCORE, "value": 50.0, "judged": 2, "lower_bound": 33.333, "upper_bound": 66.667}
    make(volume, spec, executor=scored(holes))
    (line,) = lines(volume, spec)
    assert shown(line)["over"] == "2/3, bounds 33.33 to 66.67"


def test_replicates_are_pooled_and_those_not_run_yet_are_counted(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(replicates={"judge": 2})
    make(volume, spec, executor=scored(SCORE, {**SCORE, "value": 44.0}))
    (line,) = lines(volume, spec)
    assert shown(line)["replicates"] == "2/2, sd 2.83"
    assert shown(line)["ours"].startswith("42.00 ± 2.00")
    assert shown(line)["over"] == "6/6"
    more = row(replicates={"judge": 3})
    (line,) = lines(volume, more)
    assert shown(line)["replicates"] == "2/3, sd 2.83"


def test_a_simulated_teacher_marks_every_number_that_comes_of_its_data(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 40}})
    make(volume, spec, executor=scored(SCORE, simulated="gen"))
    found = cells(volume, spec)
    assert found["verdict"] == "simulated"
    assert found["simulated"] == "teacher"
    (line,) = lines(volume, spec)
    assert shown(line)["ours"] == "40.00 ± 2.00 (simulated, random weights)"
    assert "say nothing about any real model" in to_markdown([line], "T")
    assert "simulated" in to_csv([line])


def test_a_real_number_carries_no_mark(row: Callable[..., Path], volume: Path) -> None:
    spec = row(model={"path": "model"})
    snapshot(spec.parent / "model")
    make(volume, spec, executor=scored(SCORE))
    (line,) = lines(volume, spec)
    assert shown(line)["ours"] == "40.00 ± 2.00"
    assert "simulated" not in to_markdown([line], "T")


def test_a_reported_metric_that_the_judge_does_not_give_has_a_line_that_says_so(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    part = evaluation(tmp_path / "specs")
    part["answer"]["prompts"] = {"files": {"koala": "prompts.jsonl"}}
    spec = row(reported={"win_rate": {"value": 40}, "win_rate/koala": {"value": 44}}, eval=part)
    make(volume, spec, executor=scored(SCORE))
    found = {line.cells.metric: asdict(line.cells) for line in lines(volume, spec)}
    assert list(found) == ["win_rate", "win_rate/koala"]
    assert found["win_rate/koala"]["verdict"] == "not run"
    assert found["win_rate/koala"]["verdict_reason"] == "the judge stage gives no win_rate/koala"


def test_a_row_whose_data_is_absent_stands_in_the_matrix_with_the_reason(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(gen=None, data="data:alpaca.json")
    found = cells(volume, spec)
    assert found["verdict"] == "not run"
    assert found["verdict_reason"] == "its given data is not there"
    assert found["deviations"] == "data:alpaca.json is not pinned"


def test_stated_deviations_and_unpinned_data_stand_in_the_matrix(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(
        gen=None,
        data={"path": "data:alpaca.json", "sha256": "a" * 64},
        deviations=["another GPU", "a retired model"],
    )
    assert cells(volume, spec)["deviations"] == "another GPU; a retired model"


def test_what_a_stage_found_and_how_it_departs_stand_in_the_matrix(
    row: Callable[..., Path], volume: Path
) -> None:
    finding = {
        "kind": "prompt_mismatch",
        "severity": "warning",
        "message": "another system text; and *more*",
        "evidence": {},
    }

    def outcome(job: Any) -> dict[str, Any]:
        if job.stage == "answer":
            return {"findings": [finding, finding]}
        if job.stage == "judge":
            return {"metrics": {"win_rate": SCORE}, "deviations": ["another judge model"]}
        return {}

    spec = row(deviations=["another GPU"])
    make(volume, spec, executor=InstantExecutor(outcome))
    (line,) = lines(volume, spec)
    assert line.cells.deviations == "another GPU; another judge model"
    assert line.cells.findings == "prompt_mismatch: another system text; and *more*"
    assert shown(line)["notes"] == "another GPU; another judge model; finding: prompt_mismatch"
    text = to_markdown([line], "T")
    assert "- Finding: prompt\\_mismatch: another system text; and \\*more\\*\n" in text
    assert "- Deviation: another judge model\n" in text


def test_a_row_judged_by_its_loss_shows_the_judges_and_not_the_trainings(
    row: Callable[..., Path], volume: Path
) -> None:
    def outcome(job: Any) -> dict[str, Any]:
        loss = {"train": 3.0, "judge": 2.0}.get(job.stage)
        metric = {"value": loss, "standard_error": 0.1, "judged": 4, "expected": 5}
        metric |= {"examples": 4, "tokens": 60}
        return {"metrics": {"held_out_loss": metric}} if loss else {}

    judge = {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}
    spec = row(eval={"judge": judge}, train={"steps": 1, "validation": {"share": 0.1}})
    names = ["held_out_loss", "bits_per_byte"]
    assert [line.cells.metric for line in lines(volume, spec)] == names  # not run yet
    make(volume, spec, executor=InstantExecutor(outcome))
    found = {line.cells.metric: shown(line) for line in lines(volume, spec)}
    assert found["held_out_loss"]["ours"] == "2.0000 ± 0.1000 (random weights)"
    assert found["held_out_loss"]["over"] == "4/5 examples: 4 held-out examples, 60 tokens"
    told = command("verify", spec, "--volume", volume, "--executor", "local").output
    assert "± 0.1000 over examples" in told


@pytest.mark.parametrize(
    ("metric", "ours", "words"),
    [
        ("winning_score/koala", 1.0, "1.00 ± 0.10"),
        ("rubric_score/koala", 4.5, "4.50 ± 0.10"),
        ("bits_per_byte/koala", 2.0, "2.0000 ± 0.1000"),
    ],
)
def test_a_metric_of_one_prompt_set_is_no_percentage_where_the_whole_one_is_none(
    row: Callable[..., Path], volume: Path, metric: str, ours: float, words: str
) -> None:
    score = {"value": ours, "standard_error": 0.1, "judged": 9, "expected": 9}

    def outcome(job: Any) -> dict[str, Any]:
        return {"metrics": {metric: score}} if job.stage == "judge" else {}

    judge = {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}
    changes = {"eval": {"judge": judge}} if "bits" in metric else {}
    spec = row(gen=None, train=None, **changes)
    make(volume, spec, executor=InstantExecutor(outcome))
    found = {line.cells.metric: line for line in lines(volume, spec)}
    assert found[metric].cells.verdict == "not comparable"
    assert shown(found[metric])["ours"].startswith(words)


def test_a_set_of_which_nothing_was_judged_has_no_number(
    row: Callable[..., Path], volume: Path
) -> None:
    nothing = {"value": None, "standard_error": None, "judged": 0, "expected": 3}

    def outcome(job: Any) -> dict[str, Any]:
        metrics = {"win_rate": SCORE, "win_rate/koala": nothing}
        return {"metrics": metrics} if job.stage == "judge" else {}

    spec = row()
    make(volume, spec, executor=InstantExecutor(outcome))
    found = {line.cells.metric: shown(line) for line in lines(volume, spec)}
    assert found["win_rate/koala"]["ours"] == ""
    assert found["win_rate"]["ours"].startswith("40.00")


def test_running_a_models_own_code_is_a_deviation(row: Callable[..., Path], volume: Path) -> None:
    model = {"random": {"config": {"model_type": "qwen2"}}, "trust_remote_code": True}
    assert cells(volume, row())["deviations"] == ""
    found = cells(volume, row("two", model=model))["deviations"]
    assert found == "the code that comes with the model is run (trust_remote_code)"


def test_results_of_the_first_environment_that_has_some_are_shown(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    (loaded,) = load_rows([spec])
    both = [planner(volume, executor="docker"), planner(volume)]
    (line,) = lines_of(loaded, both)
    assert line.cells.env_environment == "local"
    make(volume, spec, executor=scored({**SCORE, "value": 90.0}), kind="docker")
    (line,) = lines_of(loaded, both)
    assert line.cells.ours == 90.0
    assert line.cells.env_environment.startswith("eval-")


@pytest.mark.parametrize("stage", ["judge", "answer", "answer of the baseline"])
def test_a_number_from_an_artefact_that_was_changed_is_never_shown(
    row: Callable[..., Path], volume: Path, stage: str
) -> None:
    spec = row()
    kind, _, of = stage.partition(" of the ")
    if of:
        row("baseline")
        judged = yaml.safe_load(spec.read_text())
        judged["eval"]["judge"]["reference"] = {"spec": "baseline.yaml"}
        judged["train"] = {"steps": 2}
        spec.write_text(yaml.safe_dump(judged))
    make(volume, spec, executor=scored(SCORE))
    (plan,) = planned(volume, spec)
    (judging,) = plan.final()
    changed = judging if kind == "judge" else judging.inputs[of or "outputs"]
    (changed.made.folder / "made.txt").write_text("better")
    with pytest.raises(Damaged, match=r"made\.txt does not have the bytes it was made with"):
        lines(volume, spec)


def test_the_log_of_a_training_is_compared_with_its_digest_and_its_model_is_not_read(
    row: Callable[..., Path], volume: Path
) -> None:
    def outcome(job: Any) -> dict[str, Any]:
        for name in ("trainer_log.jsonl", "model.safetensors"):
            (job.folder / name).write_text("as it was")
        kept = ["trainer_log.jsonl", "model.safetensors"]
        return {"metrics": HELD_OUT, "keep": kept} if job.stage == "train" else {}

    spec = row(eval=None, train=VALIDATED)
    make(volume, spec, executor=InstantExecutor(outcome))
    (trained,) = (volume / "artefacts" / "train").iterdir()
    (trained / "model.safetensors").write_text("changed")
    assert lines(volume, spec)[0].cells.ours == 2.5
    (trained / "trainer_log.jsonl").write_text("changed")
    with pytest.raises(Damaged, match=r"trainer_log\.jsonl does not have the bytes"):
        lines(volume, spec)


def test_a_score_edited_in_the_manifest_is_refused(row: Callable[..., Path], volume: Path) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    (manifest,) = (volume / "artefacts" / "judge").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"value": 40.0', '"value": 80.0'))
    with pytest.raises(Damaged, match="its manifest was edited"):
        lines(volume, spec)


def test_the_manifest_says_what_the_table_says(row: Callable[..., Path], volume: Path) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE, simulated="gen"))
    (manifest,) = (volume / "artefacts" / "judge").glob("*/manifest.json")
    written = json.loads(manifest.read_text())
    assert written["metrics"]["win_rate"]["value"] == cells(volume, spec)["ours"]
    assert written["simulated"] == ["teacher"]
    assert written["random_weights"] is True


def test_a_row_that_trains_and_is_not_judged_shows_its_held_out_losses_and_over_what(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None, train=VALIDATED)
    make(volume, spec, executor=trained(HELD_OUT))
    found = by_metric(volume, spec)
    assert list(found) == ["held_out_loss", "bits_per_byte"]
    assert found["held_out_loss"]["ours"] == "2.5000 (random weights)"
    assert found["held_out_loss"]["over"] == "12 held-out examples, 1,500 tokens"
    assert found["bits_per_byte"]["over"] == "12 held-out examples, 4,500 bytes"
    assert found["bits_per_byte"]["replicates"] == "1/1, one training seed"
    assert found["bits_per_byte"]["verdict"] == "not comparable: no number was reported"
    (record, _) = csv.DictReader(io.StringIO(to_csv(lines(volume, spec))))
    assert (record["examples"], record["tokens"], record["bytes"]) == ("12", "1500", "")
    assert (record["steps"], record["standard_error"], record["replicate_sd"]) == ("60", "", "")


def test_the_losses_of_several_training_seeds_are_their_mean_and_the_spread_between_them(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None, train=VALIDATED, replicates={"train_seeds": [1, 2]})
    make(volume, spec, executor=trained(scaled(1), scaled(1.2)))
    found = by_metric(volume, spec)["held_out_loss"]
    assert found["ours"] == "2.7500 (random weights)"
    assert found["replicates"] == "2/2 training seeds, sd 0.3536"
    assert found["over"] == "12 held-out examples, 1,500 tokens"
    more = row(eval=None, train=VALIDATED, replicates={"train_seeds": [1, 3]})
    assert by_metric(volume, more)["held_out_loss"]["replicates"] == "1/2, one training seed"


def test_a_training_that_did_not_run_stands_as_not_run(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None, train=VALIDATED)
    found = by_metric(volume, spec)
    assert [line["verdict"] for line in found.values()] == ["not run", "not run"]
    assert found["bits_per_byte"]["replicates"] == "0/1"
    assert (found["bits_per_byte"]["ours"], found["bits_per_byte"]["over"]) == ("", "")


def test_the_training_loss_stands_alone_where_nothing_was_held_out(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None)
    make(volume, spec, executor=trained({"train_loss": {"value": 1.5}}))
    found = by_metric(volume, spec)
    assert list(found) == ["train_loss"]
    assert found["train_loss"]["ours"] == "1.5000 (random weights)"
    assert found["train_loss"]["over"] == "the last of 60 steps"


def test_a_training_on_simulated_data_is_marked_and_gets_no_other_verdict(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None, train=VALIDATED, reported={"held_out_loss": {"value": 2.5}})
    make(volume, spec, executor=trained(HELD_OUT, simulated=True))
    found = by_metric(volume, spec)["held_out_loss"]
    assert found["ours"] == "2.5000 (simulated, random weights)"
    assert found["verdict"] == "simulated"


def test_a_reported_loss_is_shown_beside_ours_with_the_difference_and_no_verdict(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(eval=None, train=VALIDATED, reported={"train_loss": {"value": 1.75}})
    make(volume, spec, executor=trained(HELD_OUT))
    found = by_metric(volume, spec)
    assert list(found) == ["train_loss", "held_out_loss", "bits_per_byte"]
    assert found["train_loss"]["reported"] == "1.7500"
    assert found["train_loss"]["verdict"].startswith(
        "not comparable: 0.2500 below the reported number"
    )


def test_a_judged_row_keeps_its_score_and_shows_a_loss_only_where_one_is_held_out(
    row: Callable[..., Path], volume: Path
) -> None:
    plain, validated = row("one"), row("two", train=VALIDATED)
    make(volume, plain, validated, executor=trained(HELD_OUT, HELD_OUT))
    assert list(by_metric(volume, plain)) == ["win_rate"]
    assert list(by_metric(volume, validated)) == ["win_rate", "held_out_loss", "bits_per_byte"]
    score, loss, _ = lines(volume, validated)
    assert "judge/" in score.cells.env_artefacts
    assert "train/" in loss.cells.env_artefacts
    assert "judge/" not in loss.cells.env_artefacts


def test_a_loss_edited_in_the_manifest_is_refused(row: Callable[..., Path], volume: Path) -> None:
    spec = row(eval=None, train=VALIDATED)
    make(volume, spec, executor=trained(HELD_OUT))
    (manifest,) = (volume / "artefacts" / "train").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace("2.5", "1.5"))
    with pytest.raises(Damaged, match="its manifest was edited"):
        lines(volume, spec)


def test_the_base_model_with_the_fewest_bits_per_byte_is_named_under_the_table(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    other = {"random": {"config": {"model_type": "llama"}}}
    specs = [row("one", eval=None, train=VALIDATED),
             row("two", eval=None, train=VALIDATED, model=other)]  # fmt: skip
    # The second has more nats a token and fewer bits a byte.
    better = {**scaled(1.5), "bits_per_byte": {**HELD_OUT["bits_per_byte"], "value": 1.1}}
    make(volume, *specs, executor=trained(HELD_OUT, better))
    text = to_markdown(lines(volume, *specs), "T")
    assert (
        "\nTable tests: of 2 rows, after 60 steps and over the same held-out answers (12 held-out "
        "examples, 4,500 bytes), two has the fewest bits per byte, 1.1000 (random weights); next is "
        "one with 1.2500 (random weights); of a row with one training seed the spread is not known.\n"
    ) in text
    paths = write_all(lines(volume, *specs), tmp_path)
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in paths}
    write_all(lines(volume, *specs), tmp_path)
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in paths} == before


def test_rows_that_share_the_model_that_was_measured_are_not_ranked_against_each_other(
    row: Callable[..., Path], volume: Path
) -> None:
    other = {"random": {"config": {"model_type": "llama"}}}
    shared = [row(name, eval=None, train=VALIDATED) for name in ("one", "two")]
    third = row("three", eval=None, train=VALIDATED, model=other)
    make(volume, *shared, third, executor=trained(HELD_OUT, scaled(2)))
    assert lowest(lines(volume, *shared)) == []
    (sentence,) = lowest(lines(volume, *shared, third))
    assert "of 2 rows" in sentence
    assert "one has the fewest bits per byte, 1.2500 (random weights); next is three" in sentence


def test_rows_with_equally_few_bits_per_byte_are_said_to_have_the_same(
    row: Callable[..., Path], volume: Path
) -> None:
    specs = [
        row(name, eval=None, train={**VALIDATED, "seed": seed})
        for seed, name in enumerate(("one", "two", "three"))
    ]
    make(volume, *specs, executor=trained(HELD_OUT, HELD_OUT, scaled(2)))
    (sentence,) = lowest(lines(volume, *specs))
    both = "one (random weights) and two (random weights)"
    same = f"{both} have the fewest bits per byte, the same 1.2500"
    assert f"{same}; next is three with 2.5000 (random weights);" in sentence
    (sentence,) = lowest(lines(volume, *specs[:2]))
    assert f"{same}; of a row" in sentence


def test_models_measured_on_other_held_out_answers_are_not_ranked(
    row: Callable[..., Path], volume: Path
) -> None:
    drawn = {**VALIDATED, "validation": {"share": 0.1, "seed": 7}}
    specs = [row("one", eval=None, train=VALIDATED), row("two", eval=None, train=drawn)]
    make(volume, *specs, executor=trained(HELD_OUT, HELD_OUT))
    assert "fewest" not in to_markdown(lines(volume, *specs), "T")


def test_lines_stand_by_table_then_as_the_study_has_them_then_by_their_files(
    row: Callable[..., Path], volume: Path
) -> None:
    at = {name: {"document": "d", "line": n} for name, n in {"z": 1, "m": 10, "k": 9}.items()}
    specs = [row(name, source=at.get(name)) for name in ("b", "m", "a", "z", "k")]
    specs += [row("y", table="another")]
    assert [m.cells.row for m in lines(volume, *specs)] == ["y", "z", "k", "m", "a", "b"]


def test_a_cell_that_the_study_leaves_empty_is_unreported_and_one_without_a_cell_is_not(
    row: Callable[..., Path], volume: Path
) -> None:
    empty, without = row("one", reported={"win_rate": "unreported"}), row("two", train={"steps": 2})
    make(volume, empty, without, executor=scored(SCORE, SCORE))
    first, second = lines(volume, empty, without)
    assert (shown(first)["reported"], shown(second)["reported"]) == ("unreported", "")
    assert (first.cells.reported, first.cells.unreported) == (None, "yes")
    assert first.cells.ours == 40.0
    assert first.cells.verdict == "not comparable"


def test_what_a_document_leaves_unsaid_stands_in_a_column_of_its_own(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(assumptions=["no warm-up", "the base model"], deviations=["another GPU"])
    found = cells(volume, spec)
    assert found["assumptions"] == "no warm-up; the base model"
    assert found["deviations"] == "another GPU"
