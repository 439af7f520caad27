"""The rows of studies 002 and 004, against the documents themselves."""

import csv
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
from harness.gen.recipes.choose import LongestGen
from harness.gen.recipes.importing import ImportGen
from harness.judge.judge import RowOutputs
from harness.judge.kinds.flow_judge import RubricJudge
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


COUNTS = {"koala": (94, 71, 15), "sinstruct": (107, 122, 23), "vicuna": (40, 38, 2)}
"""Wins, ties and losses that the study published (SET_result.json at 3f70e96f)."""


def test_the_reported_gradings_are_those_of_the_published_counts_apart_and_together() -> None:
    published = SHARED / "oracles" / "alpagasus2" / "vicuna_result.json"
    if published.is_file():
        stored: dict[str, Any] = json.loads(published.read_text(encoding="utf-8"))
        assert COUNTS["vicuna"] == (stored["win"], stored["draw"], stored["lose"])
    reported = ROWS["alpagasus2-13b"].reported
    together = tuple(map(sum, zip(*COUNTS.values(), strict=True)))
    for metric, (wins, ties, losses) in {
        "win_rate": together,
        **{f"win_rate/{name}": counts for name, counts in COUNTS.items()},
    }.items():
        points = [1.0] * wins + [0.5] * ties + [0.0] * losses
        told = reported[metric]
        assert told.value == pytest.approx(100 * statistics.fmean(points), abs=0.005)
        error = 100 * statistics.stdev(points) / math.sqrt(len(points))
        assert told.standard_error == pytest.approx(error, abs=0.005)
        assert told.judged == told.expected == len(points)
        judge = reported.judge_of(metric)
        assert judge is not None
        assert judge.model == "gpt-3.5-turbo-16k-0613"
    assert ROWS["alpagasus2-7b"].reported["win_rate"].value is None


def test_what_the_study_published_of_a_row_has_the_digests_of_the_published_files() -> None:
    table = SHARED / "facts" / "published-files.csv"
    if not table.is_file():
        pytest.skip("the facts on published files, ../shared/facts, are not beside the checkout")
    with table.open(encoding="utf-8") as lines:
        digests = {row["path"]: (row["sha256"], int(row["bytes"])) for row in csv.DictReader(lines)}
    reported = ROWS["alpagasus2-13b"].reported
    assert len(reported.outputs) == 3
    assert len(reported.annotations) == 6
    for data in (*reported.outputs, *reported.annotations):
        path = data.url[0].partition("3f70e96fc509e01088daed9525212c6709fd1657/")[2]
        assert (data.sha256, data.bytes) == digests[path]


@pytest.mark.parametrize("name", ["alpagasus2-7b", "alpagasus2-13b-own-opponent"])
def test_answers_are_graded_on_the_judged_sets_against_the_same_size_trained_on_all_of_alpaca(
    name: str,
) -> None:
    row = ROWS[name]
    assert row.eval is not None
    assert row.eval.answer is not None
    files = row.eval.answer.prompts.files
    assert files is not None
    assert set(files) == set(COUNTS)
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
        assert row.train.quantization is not None
        assert (row.train.quantization.double, row.train.precision) == (False, "float32")
        assert any("micro-batch weighs the same" in text for text in row.deviations)


# Document 002: the lab on ORPO


LOSSES = {
    "llama-3.2-1b": 1.0136741399765015,
    "mistral-small": 0.6736248135566711,
    "phi-3.5-mini": 0.6688050627708435,
}
"""foundation_model_metrics at f31b1d5; there is none of the 3B."""


def test_the_selection_has_the_models_that_the_document_names_trained_as_long_as_it_says(
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
        assert (row.train.train_on_prompt, row.train.train_on_history) == (True, True)
        published = LOSSES.get(row.row.removeprefix("orpo-lab-selection-"))
        assert row.reported["held_out_loss"].value == pytest.approx(published, abs=1e-6)
        assert "held_out_loss" not in part.lower()


def test_the_selections_rows_differ_in_nothing_but_the_model_and_its_layout() -> None:
    rows = [row for row in ROWS.values() if row.table == "orpo-lab-selection"]
    same = {"row", "title", "varied", "model", "template", "source", "sources", "reported"}
    assert len({row.model_dump_json(exclude=same) for row in rows}) == 1


def test_base_and_orpo_answer_the_documents_questions_and_are_judged_as_the_notebook_says(
    lab: str,
) -> None:
    rubrics: dict[str, set[object]] = {}
    for name in ("base", "orpo", "base-correctness", "orpo-correctness"):
        row = ROWS[f"orpo-lab-{name}"]
        assert hub_model(row).partition("/")[2] in lab
        assert row.eval is not None
        assert row.eval.answer is not None
        assert row.eval.answer.prompts.hub is not None
        assert f"huggingface.co/datasets/{row.eval.answer.prompts.hub.id}" in lab
        judge = row.eval.judge
        assert isinstance(judge, RubricJudge)
        assert judge.model is not None
        assert judge.model.hub is not None
        assert judge.model.hub.id == "flowaicom/Flow-Judge-v0.1-AWQ"
        rubrics.setdefault("ORPO" if row.train else "base", set()).add(judge.rubric)
        assert judge.empty == ([] if "correctness" in name else ["context"])
        if row.train is not None:
            assert (row.train.objective, row.train.method) == ("orpo", "lora")
            assert (row.train.steps, row.train.warmup_steps) == (10, 10)
            [pairs] = imported(row)
            assert f"huggingface.co/datasets/{pairs}>" in lab
    both = {"response_faithfulness_5point", "response_correctness_5point"}
    assert rubrics == {"base": both, "ORPO": both}
    assert "TODO: results" in lab
    assert ROWS["orpo-lab-orpo"].reported["rubric_score"].value is None


def test_the_reported_scores_are_those_of_the_four_judgings_and_no_row_calls_one_better() -> None:
    judgings = {
        "base": 3.57, "orpo-code": 3.24, "capybara-base": 3.275, "capybara-orpo": 3.495,
        "capybara-redrawn-base": 3.395, "capybara-redrawn-orpo": 3.51,
        "capybara-final-base": 3.335, "capybara-final-orpo": 3.505,
    }  # fmt: skip
    for name, value in judgings.items():
        reported = ROWS[f"orpo-lab-{name}"].reported
        told = reported["rubric_score"]
        assert (told.value, told.expected) == (value, 200 if "capybara" in name else 100)
        assert told.judged == told.expected - (name == "capybara-final-base")
        assert told.source is not None
        judge = reported.judge_of("rubric_score")
        assert judge is not None
        assert judge.model == "flowaicom/Flow-Judge-v0.1-AWQ"


def test_orpo_is_tokenized_as_trl_does_and_says_that_its_mean_is_over_tokens() -> None:
    row = ROWS["orpo-lab-orpo"]
    assert row.train is not None
    assert row.train.tokenize == "together"
    assert any("the mean over its tokens; that of TRL" in text for text in row.deviations)


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
    assert (plain.train, plain.gen) == (None, None)
    assert plain.model is not None
    assert trained.model is not None
    assert plain.model.hub == trained.model.hub
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
    count = 9229 if study == "004" else 1000
    [_, longest] = controls["longest-k"].gen or []
    assert isinstance(longest, LongestGen)
    assert longest.k == count
    random = controls["random-k"]
    if study == "004":  # the published draw of as many
        assert random.data is not None
        assert random.data.file_name == "random_9k.json"
    else:
        [drawn] = random.gen or []
        assert isinstance(drawn, ImportGen)
        assert drawn.sample is not None
        assert drawn.sample.k == count


@pytest.mark.parametrize("loaded", LOADED, ids=lambda loaded: loaded.row.row)
def test_a_row_from_scratch_is_the_row_of_the_same_name_with_other_data(
    loaded: LoadedRow,
) -> None:
    if loaded.path.parent.name != "from_scratch":
        return
    [other] = load_rows([loaded.path.parents[1] / loaded.path.name])
    same = {"model", "template", "train", "eval", "reported"}
    here = loaded.row.model_dump_json(include=same).replace("/from_scratch/..", "")
    assert here == other.row.model_dump_json(include=same)
    assert (loaded.row.gen, loaded.row.data) != (other.row.gen, other.row.data)


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
        if data.path.startswith(DATA_SCHEME) or data.url:
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
    assert len(plans) == len(ROWS) == 40
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
