"""The rows of studies 002 and 004, against the documents themselves."""

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from harness.answer.engines.given import NullEngine
from harness.answer.engines.transformers import TransformersEngine
from harness.artefact.keys import iter_data
from harness.gen.recipes.choose import LongestGen, RandomGen
from harness.gen.recipes.importing import ImportGen
from harness.judge.judge import RowOutputs
from harness.judge.kinds.flow_judge import PRESETS, RubricJudge
from harness.judge.kinds.grading import GradingJudge
from harness.judge.kinds.lm_eval import TasksJudge
from harness.report.layout import read_layouts
from harness.results.comparability import confounded
from harness.row.load import LoadedRow, load_rows
from harness.row.row import Row
from harness.row.twin import scaled
from harness.run.plan import RowPlan
from harness.spec.base import DATA_SCHEME
from tests.helpers import ROOT, planner

SHARED = ROOT.parent / "shared"
STUDIES = {"002": ROOT / "specs" / "orpo_lab", "004": ROOT / "specs" / "alpagasus2"}
TASKS = {
    "ARC": "arc_challenge",
    "HellaSwag": "hellaswag",
    "MMLU": "mmlu",
    "TruthfulQA": "truthfulqa_mc2",
    "average": "average",
}
LOADED = [loaded for folder in STUDIES.values() for loaded in load_rows([folder])]
ROWS = {loaded.row.row: loaded.row for loaded in LOADED}
SIZES = {"7B": "alpagasus2-7b", "13B": "alpagasus2-13b"}


def document(number: str) -> str:
    """A study's document."""
    found = sorted((SHARED / "seeds").glob(f"{number}_*.txt"))
    if not found:
        pytest.skip("the studies' documents, ../shared/seeds, are not beside the checkout")
    return found[0].read_text(encoding="utf-8")


@pytest.fixture
def lab() -> str:
    return document("002")


@pytest.fixture
def alpagasus2() -> str:
    return document("004")


def table(text: str, corner: str) -> dict[str, dict[str, str]]:
    """A markdown table whose first heading is `corner`: line's name -> column's name -> cell."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    [start] = [n for n, cells in enumerate(lines) if cells[0] == corner and "-" in lines[n + 1][0]]
    found = {}
    for cells in lines[start + 2 :]:
        if len(cells) != len(lines[start]) or "-" * 3 in cells[0]:
            break
        found[cells[0]] = dict(zip(lines[start][1:], cells[1:], strict=True))
    return found


def hyperparameters(text: str, column: str) -> dict[str, str]:
    """The document has two tables of this name, the second for QLoRA."""
    first, second = re.split(r"(?<=\n)\n(?=In addition, we also used QLoRA)", text)
    part = second if column == "QLoRA" else first
    return {name: cells[column] for name, cells in table(part, "Hyperparameters").items()}


def imported(row: Row) -> list[str]:
    """The hub data sets that a row's data begins with."""
    steps = [step for step in row.gen or [] if isinstance(step, ImportGen)]
    return [step.hub.id for step in steps if step.hub]


def hub_model(row: Row) -> str:
    assert row.model is not None
    assert row.model.hub is not None
    return row.model.hub.id


# Document 004: AlpaGasus2-QLoRA


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_trained_with_the_hyperparameters_of_the_documents_table(
    size: str, alpagasus2: str
) -> None:
    stated = hyperparameters(alpagasus2, f"LLaMA2-{size}")
    train = ROWS[SIZES[size]].train
    assert train is not None
    assert train.batch_size * train.accumulation == int(stated["Batch size"])
    assert train.learning_rate == float(stated["learning rate"])
    assert train.epochs == float(stated["Epochs"])
    assert train.cutoff_length == int(stated["Max Length"])
    assert train.weight_decay == float(stated["weight decay"])
    assert len(stated) == 5


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_quantised_and_adapted_as_the_documents_table_of_qlora_says(
    size: str, alpagasus2: str
) -> None:
    stated = hyperparameters(alpagasus2, "QLoRA")
    train = ROWS[SIZES[size]].train
    assert train is not None
    assert train.lora is not None
    assert train.quantization is not None
    assert (train.method, stated["Quantization bit"]) == ("qlora", "4bit")
    assert train.quantization.type == stated["Quantization type"].lower()
    assert train.lora.rank == int(stated["LoRA rank"])
    assert train.lora.alpha == float(stated["LoRA alpha"])
    assert train.lora.dropout == float(stated["LoRA dropout"])
    assert train.lora.target_modules == stated["target modules"].split(", ")
    assert len(stated) == 6


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_what_the_documents_command_for_it_runs(size: str, alpagasus2: str) -> None:
    heading = f"- For the instruction-finetuning of LLaMA-2-{size}:"
    command = alpagasus2.split(heading)[1].split("```")[1]
    given = dict(re.findall(r"--(\w+) '?([^'\s]+)'?", command))
    row = ROWS[SIZES[size]]
    assert row.train is not None
    assert row.train.validation is not None
    assert hub_model(row) == given["base_model"]
    assert row.train.epochs == float(given["num_epochs"])
    assert row.train.learning_rate == float(given["learning_rate"])
    assert row.train.validation.share == float(given["val_set_size"])
    # Where the document contradicts itself: its example passes another length than its table has.
    assert "cutoff_len" not in given
    assert "--cutoff_len 512" in alpagasus2
    said = (STUDIES["004"] / "_training.yaml").read_text(encoding="utf-8")
    assert "`--cutoff_len 512`" in said


def test_every_cell_of_the_documents_leaderboard_table_is_reported_as_it_stands_there(
    alpagasus2: str,
) -> None:
    cells = table(alpagasus2, "Benchmarks")
    assert set(cells) == set(TASKS) - {"average"}
    for size in SIZES:
        row = ROWS[f"{SIZES[size]}-benchmarks"]
        assert row.varied == {"size": size}
        assert {t: row.reported[TASKS[t]].value for t in cells} == dict.fromkeys(cells)
        assert all(columns[size] == "" for columns in cells.values())
        assert row.eval is not None
        assert isinstance(row.eval.judge, TasksJudge)
        assert set(row.eval.judge.tasks) == {TASKS[t] for t in cells}


def test_the_later_leaderboard_numbers_are_the_published_ones_and_their_average_is_their_mean() -> (
    None
):
    facts = SHARED / "facts" / "upstream.md"
    if not facts.is_file():
        pytest.skip("the facts on published numbers, ../shared/facts, are not beside the checkout")
    [line] = [
        said for said in facts.read_text(encoding="utf-8").splitlines() if "later version" in said
    ]
    published = {name: float(value) for name, value in re.findall(r"(\w+) (\d\d\.\d\d)", line)}
    row = ROWS["alpagasus2-13b-benchmarks-later"]
    reported = {name: row.reported[metric].value for name, metric in TASKS.items()}
    assert reported == published
    average = reported.pop("average")
    assert average is not None
    parts = [value for value in reported.values() if value is not None]
    assert average == pytest.approx(statistics.fmean(parts), abs=0.005)
    for name in ("arc_challenge", "hellaswag"):  # shares of questions
        told = row.reported[name]
        assert told.value is not None
        assert told.judged is not None
        share = told.value / 100
        error = 100 * math.sqrt(share * (1 - share) / told.judged)
        assert told.standard_error == pytest.approx(error, abs=0.005)
    assert row.source is not None
    assert row.source != ROWS["alpagasus2-13b-benchmarks"].source


def test_the_reported_grading_of_vicunas_set_is_that_of_the_published_counts() -> None:
    published = SHARED / "oracles" / "alpagasus2" / "vicuna_result.json"
    if not published.is_file():
        pytest.skip("the published gradings, ../shared/oracles, are not beside the checkout")
    counts: dict[str, Any] = json.loads(published.read_text(encoding="utf-8"))
    points = [1.0] * counts["win"] + [0.5] * counts["draw"] + [0.0] * counts["lose"]
    reported = ROWS["alpagasus2-13b"].reported
    told = reported["win_rate/vicuna"]
    assert told.value == 100 * statistics.fmean(points)
    error = 100 * statistics.stdev(points) / math.sqrt(len(points))
    assert told.standard_error == pytest.approx(error, abs=0.005)
    assert told.judged == told.expected == len(points)
    assert reported["win_rate"].value is None
    assert ROWS["alpagasus2-7b"].reported["win_rate"].value is None


@pytest.mark.parametrize("size", SIZES)
def test_answers_are_graded_on_all_four_test_sets_against_the_same_size_trained_on_all_of_alpaca(
    size: str, shared_data: Path
) -> None:
    row = ROWS[SIZES[size]]
    assert row.eval is not None
    assert row.eval.answer is not None
    files = row.eval.answer.prompts.files
    assert files is not None
    assert set(files) == {"koala", "sinstruct", "vicuna", "wizardlm"}
    assert isinstance(row.eval.judge, GradingJudge)
    assert isinstance(row.eval.judge.reference, RowOutputs)
    opponent = load_rows([Path(row.eval.judge.reference.spec)])[0].row
    assert imported(opponent) == ["tatsu-lab/alpaca"]
    assert (opponent.model, opponent.train) == (row.model, row.train)
    assert opponent.eval is not None
    assert opponent.eval.answer == row.eval.answer


def test_the_training_texts_end_their_prompt_with_a_newline_and_the_answer_with_nothing() -> None:
    trained = [row for name, row in ROWS.items() if name.startswith("alpagasus2-") and row.train]
    for row in trained:
        assert row.train is not None
        assert row.template is not None
        for prompt in (row.template.prompt, row.template.prompt_with_input):
            assert prompt is not None
            assert prompt.text.removesuffix("\n").endswith("### Response:\n")
        assert (row.train.tokenize, row.train.append_end) == ("together", False)
        said = " ".join(row.assumptions)
        assert "bae8d3f" in said
        assert "two line breaks" not in said
        assert any("micro-batch weighs the same" in text for text in row.deviations)


# Document 002: the lab on ORPO


def test_the_selection_has_the_four_models_that_the_document_names_trained_as_long_as_it_says(
    lab: str,
) -> None:
    part = lab.split("## Foundation LLMs")[1].split("\n## ")[0]
    named = set(re.findall(r"`([\w.-]+-[Ii]nstruct[\w-]*)`", part))
    rows = [row for row in ROWS.values() if row.table == "orpo-lab-selection"]
    assert {hub_model(row).partition("/")[2] for row in rows} == named
    assert len(rows) == len(named) == 4
    [steps] = re.findall(r"training each model for (\d+) steps", part)
    for row in rows:
        assert row.train is not None
        assert row.train.steps == int(steps)
        assert row.reported["held_out_loss"].value is None
        assert "held_out_loss" not in part.lower()


def test_the_selections_rows_differ_in_nothing_but_the_model_and_its_layout() -> None:
    rows = [row for row in ROWS.values() if row.table == "orpo-lab-selection"]
    same = {"row", "title", "varied", "model", "template"}
    assert len({row.model_dump_json(exclude=same) for row in rows}) == 1


def test_base_and_orpo_answer_the_documents_questions_and_are_scored_on_every_scale(
    lab: str,
) -> None:
    scales: dict[str, set[tuple[int, int]]] = {}
    rows = [row for row in ROWS.values() if row.table == "orpo-lab"]
    for row in rows:
        assert hub_model(row).partition("/")[2] in lab
        assert row.reported["rubric_score"].value is None
        assert row.eval is not None
        assert row.eval.answer is not None
        assert row.eval.answer.prompts.hub is not None
        assert f"huggingface.co/datasets/{row.eval.answer.prompts.hub.id}" in lab
        judge = row.eval.judge
        assert isinstance(judge, RubricJudge)
        assert judge.model is not None
        assert judge.model.hub is not None
        assert judge.model.hub.id == "flowaicom/Flow-Judge-v0.1"
        scales.setdefault("ORPO" if row.train else "base", set()).add(judge.scale)
        if row.train is not None:
            assert row.train.objective == "orpo"
            [pairs] = imported(row)
            assert f"huggingface.co/datasets/{pairs}>" in lab
    assert scales == {"base": set(PRESETS.values()), "ORPO": set(PRESETS.values())}
    assert "TODO: results" in lab


def test_orpo_is_tokenized_as_trl_does_and_says_that_its_mean_is_over_tokens() -> None:
    row = ROWS["orpo-lab-orpo"]
    assert row.train is not None
    assert row.train.tokenize == "together"
    assert any("the mean over its tokens; that of TRL" in text for text in row.deviations)


def test_what_the_lab_leaves_open_is_listed_as_an_assumption() -> None:
    said = " ".join(ROWS["orpo-lab-orpo"].assumptions)
    for word in ("rubric", "decoding", "learning rate", "1,000 pairs", "layout", "questions"):
        assert word in said
    assert "learning rate" not in " ".join(ROWS["orpo-lab-base"].assumptions)


# Both


def controls_of(study: str) -> dict[str, Row]:
    prefix = {"002": "orpo-lab-control-", "004": "alpagasus2-control-"}[study]
    return {name.removeprefix(prefix): r for name, r in ROWS.items() if name.startswith(prefix)}


@pytest.mark.parametrize("study", STUDIES)
def test_each_study_has_its_controls_and_they_are_judged_as_its_rows_are(study: str) -> None:
    controls = controls_of(study)
    plain, trained = {
        "002": (ROWS["orpo-lab-base"], ROWS["orpo-lab-orpo"]),
        "004": (controls.get("base"), ROWS["alpagasus2-7b"]),
    }[study]
    assert plain is not None
    assert (plain.train, plain.gen, plain.model) == (None, None, trained.model)
    kinds = {"null": NullEngine, "random-k": TransformersEngine, "longest-k": TransformersEngine}
    assert trained.eval is not None
    assert trained.eval.answer is not None
    for name, engine in kinds.items():
        row = controls[name]
        assert row.eval is not None
        assert row.eval.answer is not None
        assert isinstance(row.eval.answer.engine, engine)
        assert row.eval.answer.prompts == trained.eval.answer.prompts
        assert row.eval.judge == trained.eval.judge
        assert row.train == (None if name == "null" else trained.train)
    chosen = [controls[name].gen or [] for name in ("random-k", "longest-k")]
    assert [type(steps[-1]) for steps in chosen] == [RandomGen, LongestGen]
    counts = {step.k for _, step in chosen if isinstance(step, RandomGen | LongestGen)}
    assert counts == ({9229} if study == "004" else {1000})


@pytest.mark.parametrize("loaded", LOADED, ids=lambda loaded: loaded.row.row)
def test_each_spec_opens_with_what_the_row_is_and_the_command_that_runs_it(
    loaded: LoadedRow,
) -> None:
    text = loaded.path.read_text(encoding="utf-8").partition("\nextends: ")[0]
    place = loaded.path.relative_to(ROOT)
    assert re.search(rf"^#   harness run {re.escape(str(place))}\b", text, re.M)
    assert len(text.splitlines()[2]) > 20


@pytest.mark.parametrize("loaded", LOADED, ids=lambda loaded: loaded.row.row)
def test_each_given_file_has_a_public_address_at_a_commit_its_sha256_and_its_size(
    loaded: LoadedRow,
) -> None:
    for data in iter_data(loaded.row):
        if data.path.startswith(DATA_SCHEME):
            assert data.sha256 is not None
            assert data.bytes
            assert re.search(r"/[0-9a-f]{40}/", data.url[0])


@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_every_row_and_its_twin_plans_without_a_fault(
    scale: str, tmp_path: Path, shared_data: Path
) -> None:
    plan = planner(tmp_path / "volume", shared_data).plan
    loaded = [scaled(one) for one in LOADED] if scale == "tiny" else LOADED
    plans: list[RowPlan] = [plan(one) for one in loaded]
    assert len(plans) == len(ROWS) == 28
    for planned in plans:
        stages = {stage.stage for stage in planned.own}
        assert ("train" in stages) == (planned.row.train is not None)
        assert ("judge" in stages) == (
            planned.row.eval is not None and planned.row.eval.judge is not None
        )


@pytest.mark.parametrize("study", STUDIES)
def test_each_table_is_laid_out_by_what_its_rows_vary_and_report(study: str) -> None:
    layouts = read_layouts(STUDIES[study] / "_tables.yaml")
    tables: dict[str, list[Row]] = {}
    for loaded in load_rows([STUDIES[study]]):
        tables.setdefault(loaded.row.table, []).append(loaded.row)
    assert set(layouts) == set(tables)
    for name, rows in tables.items():
        layout = layouts[name]
        varied = {column.varied for column in layout.columns or [] if column.varied}
        metrics = {column.metric for column in layout.columns or [] if column.metric}
        if layout.grid is not None:
            varied = {side for side in (layout.grid.rows, layout.grid.columns) if side}
            metrics = set(layout.grid.metric_names)
        for row in rows:
            assert varied <= set(row.varied), row.row
            assert set(row.reported) <= metrics, row.row


def test_no_row_differs_from_its_table_in_more_than_the_table_studies(
    tmp_path: Path, shared_data: Path
) -> None:
    plan = planner(tmp_path / "volume", shared_data).plan
    tables: dict[str, list[RowPlan]] = {}
    for loaded in LOADED:
        tables.setdefault(loaded.row.table, []).append(plan(loaded))
    for plans in tables.values():
        assert not {row: found for row, found in confounded(plans).items() if found}
