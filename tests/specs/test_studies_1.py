"""The rows of documents 000, 001 and 003: every published cell is there, as published, and plans."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from harness.artefact.keys import iter_data
from harness.cli.workspace import FROM_SCRATCH, rows_to_run
from harness.gen.recipes.naive import NaiveGen
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.row.load import LoadedRow, load_rows
from harness.row.row import Row
from harness.row.twin import scaled
from harness.run.plan import RowPlan
from harness.spec.base import DataPath
from tests.helpers import ROOT, planned

SPECS = ROOT / "specs"
LIMA, ASSIGNMENT, PAPER = "mini_lima", "mini_lima_assignment", "mini_lima_paper"
STUDIES = (LIMA, ASSIGNMENT, PAPER)
TEMPLATES = {"default": "default@2024-04", "qwen": "qwen@2024-04"}
NOT_SAID = "not said"


@cache
def loaded(study: str) -> list[LoadedRow]:
    return load_rows([SPECS / study])


def rows(study: str, table: str) -> dict[str, Row]:
    return {item.row.row: item.row for item in loaded(study) if item.row.table == table}


@pytest.fixture(scope="module")
def document(shared_data: Path) -> Callable[[str], str]:
    """The text of a study's document by its number."""

    def read(number: str) -> str:
        found = sorted((shared_data.parent / "seeds").glob(f"{number}*.txt"))
        if not found:
            pytest.skip(f"the study's text, ../shared/seeds/{number}*.txt, is not there")
        return found[0].read_text()

    return read


@pytest.fixture(scope="module")
def plans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RowPlan]:
    volume = tmp_path_factory.mktemp("runs")
    folders = [SPECS / study for study in STUDIES]
    return {p.row.row: p for p in planned(volume, *folders, inputs=shared_data)}


def keys(plan: RowPlan, stage: str) -> list[str]:
    """Of the row itself, without what its judge judges beside it."""
    return [s.key for s in plan.own if s.stage == stage]


def cells_of_000(text: str) -> Iterator[list[str]]:
    """The lines of the results table, links reduced to their text."""
    table = text[text.index("| dataset construction") :].splitlines()
    for line in (line for line in table[2:] if line.startswith("|")):
        cells = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", c).strip() for c in line.split("|")[1:-1]]
        yield cells


def test_each_line_of_000s_table_is_a_row_with_its_number_and_its_settings(
    document: Callable[[str], str],
) -> None:
    lines = list(cells_of_000(document("000")))
    table = {
        row.source.line: row
        for row in rows(LIMA, "mini-lima").values()
        if row.source and row.source.line
    }
    assert sorted(table) == list(range(1, len(lines) + 1)) == list(range(1, 14))
    for number, (dataset, total, template, prompt, _, win_rate) in enumerate(lines, 1):
        row = table[number]
        shown = [row.varied[name] for name in ("dataset", "sum", "template", "prompt")]
        count = total.split("(")[0]
        assert shown == [dataset, int(count), template or NOT_SAID, prompt or NOT_SAID]
        reported = row.reported["win_rate"]
        assert (reported.source is None) == bool(win_rate or number == 11)
        if reported.source is None:
            assert reported.value == (float(win_rate) if win_rate else None)
        assert row.eval is not None
        assert row.eval.answer is not None
        asked = row.eval.answer.template
        assert asked is not None
        assert asked.prompt is not None
        assert prompt in ("", Path(asked.prompt.path).stem)
        if number == 1:
            assert (row.gen, row.train, row.template) == (None, None, None)
            continue
        assert row.template is not None
        assert row.template.name == TEMPLATES.get(template, row.template.name)


def test_data_made_anew_has_as_many_examples_as_the_published_file_of_the_same_line() -> None:
    sizes = {338: 338, 1735: 1756, 500: 500, 944: 944}
    made_anew = rows(LIMA, "mini-lima-from-scratch")
    lines = rows(LIMA, "mini-lima")
    assert len(made_anew) == len(lines)  # all but the untrained line, and the filtered row
    for name, row in lines.items():
        if row.train is None:
            continue
        assert row.data is not None
        other = made_anew[f"{name}-from-scratch"]
        assert other.data is None
        assert other.gen is not None
        (step,) = other.gen
        assert isinstance(step, SelfInstructGen)
        assert step.include_seeds
        assert step.examples == sizes[int(str(row.varied["sum"]))]
        assert (other.train, other.eval, other.template) == (row.train, row.eval, row.template)


def test_a_folder_is_run_without_the_rows_whose_data_is_made_anew_unless_they_are_named() -> None:
    folder = SPECS / LIMA
    everything = {item.path for item in load_rows([folder])}
    default = {item.path for item in rows_to_run((folder,))}
    made_anew = {item.path for item in rows_to_run((folder / FROM_SCRATCH,))}
    assert default | made_anew == everything
    assert not default & made_anew
    assert all(path.parent == folder for path in default)
    one = min(made_anew)
    assert [item.path for item in rows_to_run((one,))] == [one]
    assert {item.path for item in rows_to_run((folder, one))} == {*default, one}


def test_the_decoding_is_000s_and_the_untrained_line_differs_as_its_assumption_says(
    document: Callable[[str], str],
) -> None:
    stated = re.search(r"temperature: `([\d.]+)`", document("000"))
    assert stated is not None
    for row in rows(LIMA, "mini-lima").values():
        assert row.eval is not None
        assert row.eval.answer is not None
        temperature = row.eval.answer.decoding.temperature
        if row.row == "mini-lima-01":
            assert temperature == 0.1
            assert row.sources["eval.answer.decoding.temperature"].repository
        else:
            assert temperature == float(stated[1])


def test_the_choices_that_the_numbers_hang_on_have_a_row_for_each_value() -> None:
    variants = rows(LIMA, "mini-lima-variants")
    lines = rows(LIMA, "mini-lima")
    assert {name[:12] for name in variants} == {
        f"mini-lima-{n:02d}" for n in (2, 3, 4, 5, 6, 8, 9, 12, 13)
    }
    for name, row in variants.items():
        line = lines[name[:12]]
        assert row.reported == line.reported
        assert (row.data, row.template) == (line.data, line.template)
        assert row.eval is not None
        assert line.eval is not None
        assert (row.train, row.eval) != (line.train, line.eval)
        assert row.eval.judge == line.eval.judge


def test_what_a_line_leaves_empty_stands_as_an_assumption_of_that_line_alone() -> None:
    for name, row in rows(LIMA, "mini-lima").items():
        said = any("leaves template and prompt empty" in text for text in row.stated("assumption"))
        assert said == (name == "mini-lima-11")


@pytest.mark.parametrize(
    ("folder", "row"),
    [
        ("338-default-prompt-results1", "mini-lima-02"),
        ("338-qwen-prompt1-results", "mini-lima-05"),
        ("unftn_results", "mini-lima-untrained-t07"),
    ],
)
def test_the_counts_and_standard_errors_are_those_of_the_stored_runs(
    shared_data: Path, folder: str, row: str
) -> None:
    path = shared_data.parent / "oracles/mini_lima" / folder / "leaderboard.csv"
    if not path.is_file():
        pytest.skip("the stored runs, ../shared/oracles/mini_lima, are not beside the checkout")
    (stored,) = csv.DictReader(path.read_text().splitlines())
    (item,) = [item for item in loaded(LIMA) if item.row.row == row]
    reported = item.row.reported["win_rate"]
    digits = (2, 4) if reported.source is None else (5, 5)
    assert reported.value == round(float(stored["win_rate"]), digits[0])
    assert reported.standard_error == round(float(stored["standard_error"]), digits[1])
    assert (reported.judged, reported.expected) == (int(stored["n_total"]), 805)
    for name in ("model_outputs", "annotations"):
        if (published := path.with_name(f"{name}.json")).is_file():
            (file,) = getattr(item.row.reported, name.removeprefix("model_"))
            assert file.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()
            assert file.bytes == published.stat().st_size


def given_by_address(study: str) -> Iterator[DataPath]:
    for item in loaded(study):
        yield from iter_data(item.row)
        yield from (*item.row.reported.outputs, *item.row.reported.annotations)


@pytest.mark.parametrize("study", [LIMA, ASSIGNMENT])
def test_what_the_studies_published_is_named_with_the_digests_and_sizes_of_their_repositories(
    study: str, shared_data: Path
) -> None:
    facts = shared_data.parent / "facts/published-files.csv"
    if not facts.is_file():
        pytest.skip("the facts on published files, ../shared/facts, are not beside the checkout")
    known = {
        f"{line['repository']}/{line['commit']}/{line['path']}": (
            line["sha256"],
            int(line["bytes"]),
        )
        for line in csv.DictReader(facts.read_text().splitlines())
    }
    elsewhere = {"975e8c5a": "the annotations of line 2", "4eda5935": "the first run's data of 001"}
    files = [file for file in given_by_address(study) if "Mini-LIMA" in "".join(file.url)]
    assert len({file.sha256 for file in files}) >= 3
    for file in files:
        assert file.sha256 is not None
        if file.sha256[:8] in elsewhere:
            continue
        address = file.url[0].removeprefix("https://raw.githubusercontent.com/")
        assert known[address] == (file.sha256, file.bytes)


@pytest.mark.parametrize("name", ["prompt", "prompt1", "prompt2"])
def test_the_prompt_files_are_byte_for_byte_those_of_the_studys_repository(
    name: str, shared_data: Path
) -> None:
    published = shared_data.parent / "facts/published-files.csv"
    if not published.is_file():
        pytest.skip("the facts on published files, ../shared/facts, are not beside the checkout")
    (row,) = [
        line for line in csv.DictReader(published.read_text().splitlines())
        if line["repository"] == "lprlpr666/Mini-LIMA" and line["path"] == f"mini_lima/{name}.txt"
    ]  # fmt: skip
    content = (SPECS / LIMA / "prompts" / f"{name}.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == row["sha256"]
    assert len(content) == int(row["bytes"])


def test_the_steps_and_the_checkpoint_are_those_of_the_days_when_a_line_was_answered() -> None:
    of_line = {
        **dict.fromkeys((2, 3, 4, 5), (5000, None)),
        **dict.fromkeys((6, 7, 8, 9, 10, 11), (3000, 1500)),
        **dict.fromkeys((12, 13), (3000, 2500)),
    }
    for name, row in rows(LIMA, "mini-lima").items():
        if row.train is None:
            continue
        assert row.eval is not None
        assert (row.train.steps, row.eval.checkpoint) == of_line[int(name[-2:])]
        assert row.sources["train.steps"].assumption


@pytest.mark.parametrize("study", [LIMA, ASSIGNMENT])
def test_what_llama_factory_trained_is_cut_and_tokenized_as_llama_factory_did_it(
    study: str,
) -> None:
    trained = [item.row.train for item in loaded(study) if item.row.train is not None]
    assert trained
    for train in trained:
        assert (train.truncation, train.tokenize) == ("shared@2024-04", "apart")


def test_the_assignments_numbers_are_its_repositorys_for_its_document_prints_none(
    document: Callable[[str], str],
) -> None:
    assert not re.search(r"\b\d+\.\d+\s*%?\s*\|", document("001"))
    runs = rows(ASSIGNMENT, "mini-lima-assignment")
    assert {row.reported["win_rate"].value for row in runs.values()} == {8.38628, 6.50814}
    for row in runs.values():
        assert row.reported["win_rate"].source is not None


def cells_of_003(text: str) -> Iterator[tuple[str, str, int, str, float]]:
    """(table, model, line, column, win rate) of Tables 1 and 2; a table stands above its caption."""
    above = text
    for number in ("1", "2"):
        table, above = above.split(f"Table {number}: ", 1)
        *_, head, first, second = [line for line in table.splitlines() if "\t" in line]
        for line, cells in enumerate((first, second), 1):
            model, *values = cells.split("\t")
            for column, value in zip(head.split("\t")[1:], values, strict=True):
                yield number, model, line, column, float(value)


def test_every_cell_of_003s_tables_is_a_row_with_its_number(
    document: Callable[[str], str],
) -> None:
    published = set(cells_of_003(document("003")))
    assert len(published) == 8
    specified = {
        (row.table[-1], row.varied["model"], row.source.line, row.varied["training"],
         row.reported["win_rate"].value)
        for table in ("mini-lima-paper-1", "mini-lima-paper-2")
        for row in rows(PAPER, table).values()
        if row.source and row.source.table == f"Table {row.table[-1]}"
    }  # fmt: skip
    assert specified == published


def test_the_hyperparameters_are_those_that_003_prints(document: Callable[[str], str]) -> None:
    text = document("003")
    stated = re.search(
        r"optimizer: (\w+) learning rate: 1×10\^\{(-\d+)\} weight decay: 3×10\^\{(-\d+)\} "
        r"betas: \(([\d.]+), ([\d.]+)\) scheduler: (\w+) warmup steps: (\d+)",
        text,
    )
    assert stated is not None
    optimizer, rate, decay, beta1, beta2, scheduler, warmup = stated.groups()
    words = {"eight": 8, "two": 2}
    batches = dict(re.findall(r"for Qwen1\.5-([\d.]+B),? (?:it )?was set to (\w+)", text))
    trained = [
        row for table in ("mini-lima-paper-1", "mini-lima-paper-2")
        for row in rows(PAPER, table).values() if row.train
    ]  # fmt: skip
    assert len(trained) == 4
    for row in trained:
        train = row.train
        assert train is not None
        assert train.optimizer == optimizer.lower()
        assert train.learning_rate == float(f"1e{rate}")
        assert train.weight_decay == float(f"3e{decay}")
        assert train.betas == (float(beta1), float(beta2))
        assert scheduler == "WarmupLR"
        assert train.scheduler == "warmup_lr"
        assert train.warmup_steps == int(warmup)
        assert train.batch_size == words[batches[str(row.varied["model"]).removeprefix("Qwen-")]]
        assert train.deepspeed is not None
        assert (train.deepspeed.stage, train.deepspeed.offload_optimizer) == (2, True)


def test_003s_prompts_1_to_3_make_the_data_and_prompt_4_the_improved_ones() -> None:
    for row in [*rows(PAPER, "mini-lima-paper-1").values(),
                *rows(PAPER, "mini-lima-paper-2").values()]:  # fmt: skip
        recipes = [step.recipe for step in row.gen or []]
        improved = row.table == "mini-lima-paper-2" and row.train is not None
        assert recipes == ["naive", "expand"][: bool(row.train) + improved]
        if row.gen:
            naive = row.gen[0]
            assert isinstance(naive, NaiveGen)
            assert (naive.growth, naive.given_instances, naive.new_instances) == (1.0, 2, 5)


def test_every_row_plans_on_the_pinned_data(plans: dict[str, RowPlan]) -> None:
    assert len(plans) == sum(len(loaded(study)) for study in STUDIES)
    for plan in plans.values():
        assert plan.stages
        judged = plan.row.eval is not None
        assert bool(plan.final()) == judged
        assert all(s.estimate.calls == 805 for s in plan.final())


def test_what_the_studies_did_once_is_made_once(plans: dict[str, RowPlan]) -> None:
    def same(stage: str, *names: str) -> bool:
        return len({tuple(keys(plans[name], stage)) for name in names}) == 1

    assert same("judge", "mini-lima-02", "mini-lima-03")
    assert same("answer", "mini-lima-02", "mini-lima-03", "mini-lima-third-judging")
    assert same("train", "mini-lima-02", "mini-lima-03", "mini-lima-04")
    assert same("train", "mini-lima-06", "mini-lima-06-c3000", "mini-lima-07", "mini-lima-08")
    assert same("train", "mini-lima-09", "mini-lima-10", "mini-lima-11")
    assert not same("answer", "mini-lima-06", "mini-lima-07")
    assert not same("answer", "mini-lima-06", "mini-lima-06-c3000")
    assert same("gen", *(f"mini-lima-{n:02d}-from-scratch" for n in range(6, 12)))
    assert same("judge", "mini-lima-untrained-t07", "mini-lima-control-base")
    for size in ("0.5b", "1.8b"):
        assert same("judge", *(f"mini-lima-paper-{t}-{size}-baseline" for t in (1, 2)))
    naive = keys(plans["mini-lima-paper-1-0.5b-naive"], "gen")
    for study in ("mini-lima", "mini-lima-assignment", "mini-lima-paper"):
        random, longest = (
            keys(plans[f"{study}-control-{control}"], "gen")
            for control in ("random-k", "longest-k")
        )
        assert random[0] == longest[0]
        assert random[1] != longest[1]
        assert study != "mini-lima-paper" or random[:1] == naive
    assert keys(plans["mini-lima-paper-2-1.8b-improved"], "gen")[:1] == naive


@pytest.mark.parametrize("study", STUDIES)
def test_each_study_has_its_controls_without_a_published_number(study: str) -> None:
    table = study.replace("_", "-") + "-controls"
    controls = rows(study, table)
    assert {row.varied["control"] for row in controls.values()} == {
        "base", "null", "random-k", "longest-k",
    }  # fmt: skip
    assert not any(row.reported for row in controls.values())


@pytest.mark.parametrize("study", STUDIES)
def test_each_file_names_the_command_that_runs_it_and_each_retired_model(study: str) -> None:
    for item in loaded(study):
        head = item.path.read_text().split("\nextends:")[0]
        assert f"harness run specs/{study}/{item.path.relative_to(SPECS / study)}" in head
        stated = item.row.stated("deviation")
        if item.row.eval is not None:
            assert any(t.startswith("eval.judge") and "0301" in t for t in stated)
        if any(step.recipe in ("self_instruct", "naive") for step in item.row.gen or []):
            assert any("teacher.model" in t and "gpt-3.5-turbo" in t for t in stated)


@pytest.mark.parametrize("study", STUDIES)
def test_each_rows_twin_plans_without_the_data_or_a_key(study: str, tmp_path: Path) -> None:
    from harness.artefact.keys import Files
    from harness.artefact.store import Store
    from harness.run.plan import Planner

    planner = Planner(Store(tmp_path / "runs"), Files(None, tmp_path / "digests.json"), "local")
    for item in loaded(study):
        twin = planner.plan(scaled(item))
        assert twin.row.scale == "tiny"
        assert [s.stage for s in twin.stages][-1:] == (["judge"] if item.row.eval else ["gen"])


def test_the_twin_of_a_row_that_shows_classification_tasks_has_enough_of_them() -> None:
    name = "assignment_classification.yaml"
    (item,) = load_rows([SPECS / ASSIGNMENT / FROM_SCRATCH / name])
    ((step,), (twin,)) = (item.row.gen or [], scaled(item).row.gen or [])
    assert isinstance(step, SelfInstructGen)
    assert isinstance(twin, SelfInstructGen)
    assert step.classification_seeds_only
    assert twin.classification_seeds_only
    seeds = [json.loads(line) for line in Path(twin.seeds.path).read_text().splitlines()]
    assert sum(seed["is_classification"] for seed in seeds) >= twin.instructions.shown
