"""lm-eval's metrics of every kind, counts that a file does not have, and averages of any columns."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from harness.audit import Result
from tests.audit.folders import finding_of, kinds, only_result
from tests.audit.readers.test_lm_eval import DATE, moments, write_run


def write_task(
    folder: Path,
    task: str,
    scores: dict[str, Any],
    rows: list[dict[str, Any]] | None = None,
    metric_list: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Path:
    """A results file of one task, with its questions where there are rows."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "results": {task: {"alias": task, **scores}},
        "configs": {task: {"task": task, "metric_list": metric_list or []}},
        "versions": {task: 1.0},
        "config": {"model": "hf", "model_args": "pretrained=org/model", **more},
    }
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(value))
    if rows is not None:
        samples = [{"doc_id": n, "target": "x", **row} for n, row in enumerate(rows)]
        lines = "".join(json.dumps(row) + "\n" for row in samples)
        (folder / f"samples_{task}_{DATE}.jsonl").write_text(lines)
    return path


def passed(n: int = 164) -> list[float]:
    draw = random.Random(n)
    return [float(draw.random() < 0.3) for _ in range(n)]


FUNCTION = [
    {"metric": "def pass_at_k(references, predictions):\n", "aggregation": "mean", "k": [1]}
]


@pytest.mark.parametrize("listed", [FUNCTION, []])
def test_pass_at_1_is_recomputed_from_its_samples(
    tmp_path: Path, listed: list[dict[str, Any]]
) -> None:
    values = passed()
    mean, error = moments(values)
    scores = {"pass@1,create_test": mean, "pass@1_stderr,create_test": error}
    rows = [{"pass@1": value, "filter": "create_test"} for value in values]
    result = only_result(write_task(tmp_path, "humaneval", scores, rows, listed).parent)
    name = "humaneval pass@1 (create_test)"
    assert (result.findings, result.matches, result.digits[name]) == ([], True, 15)
    assert result.digits[f"{name}_stderr"] >= 12
    assert (result.metrics["n_judged"], result.metrics["n_expected"]) == (164, 164)
    scores["pass@1,create_test"] = mean + 0.05
    assert (
        only_result(write_task(tmp_path, "humaneval", scores, rows, listed).parent).matches is False
    )


def test_instructions_are_counted_one_by_one_and_prompts_as_wholes(tmp_path: Path) -> None:
    draw = random.Random(0)
    lists = [[draw.random() < 0.6 for _ in range(draw.randint(1, 3))] for _ in range(100)]
    flat = [value for parts in lists for value in parts]
    wholes = [float(all(parts)) for parts in lists]
    scores = {
        "prompt_level_strict_acc,none": moments(wholes)[0],
        "prompt_level_strict_acc_stderr,none": moments(wholes)[1],
        "inst_level_strict_acc,none": sum(flat) / len(flat),
        "inst_level_strict_acc_stderr,none": "N/A",
    }
    listed = [
        {"metric": "prompt_level_strict_acc", "aggregation": "mean"},
        {"metric": "inst_level_strict_acc", "aggregation": "def agg_inst_level_acc(items):\n"},
    ]
    rows = [
        {"prompt_level_strict_acc": all(parts), "inst_level_strict_acc": parts} for parts in lists
    ]
    result = only_result(write_task(tmp_path, "ifeval", scores, rows, listed).parent)
    assert (result.findings, result.matches) == ([], True)
    assert result.digits["ifeval prompt_level_strict_acc"] == 15
    assert result.digits["ifeval inst_level_strict_acc"] >= 12


def test_filters_of_one_metric_are_recomputed_apart(tmp_path: Path) -> None:
    values_by_filter = {"strict-match": passed(200), "flexible-extract": passed(201)[:200]}
    scores, rows = {}, []
    for filter_name, values in values_by_filter.items():
        mean, error = moments(values)
        scores |= {f"exact_match,{filter_name}": mean, f"exact_match_stderr,{filter_name}": error}
        rows += [
            {"doc_id": n, "filter": filter_name, "exact_match": v} for n, v in enumerate(values)
        ]
    result = only_result(write_task(tmp_path, "gsm8k_cot", scores, rows).parent)
    assert (result.findings, result.matches) == ([], True)
    assert {n for n in result.digits if "stderr" not in n} == {
        f"gsm8k_cot exact_match ({filter_name})" for filter_name in values_by_filter
    }


def test_perplexities_are_recomputed_by_their_own_formula(tmp_path: Path) -> None:
    draw = random.Random(0)
    pairs = [[-100 * draw.random(), draw.randint(20, 60)] for _ in range(50)]
    ratio = sum(v for v, _ in pairs) / sum(w for _, w in pairs)
    scores = {"word_perplexity,none": math.exp(-ratio), "bits_per_byte,none": -ratio / math.log(2)}
    listed = [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity"},
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte"},
    ]
    rows = [{"word_perplexity": pair, "bits_per_byte": pair} for pair in pairs]
    result = only_result(write_task(tmp_path, "wikitext", scores, rows, listed).parent)
    assert (result.findings, result.matches) == ([], True)
    assert min(result.digits.values()) >= 9
    scores["word_perplexity,none"] += 1
    assert (
        only_result(write_task(tmp_path, "wikitext", scores, rows, listed).parent).matches is False
    )


def test_a_metric_that_is_made_in_an_unknown_way_is_shown_and_not_accused(tmp_path: Path) -> None:
    scores = {"bleu,none": 31.5, "bleu_stderr,none": 0.4, "chrf,none": 52.0}
    rows = [{"bleu": ["a text", "another"], "chrf": 0.3} for _ in range(20)]
    result = only_result(write_task(tmp_path, "wmt16", scores, rows).parent)
    assert (result.findings, result.matches) == ([], None)
    assert {"wmt16 bleu", "wmt16 bleu_stderr", "wmt16 chrf"} <= result.published.keys()
    assert not {"wmt16 bleu", "wmt16 chrf"} & result.metrics.keys()


def test_metrics_without_samples_are_shown(tmp_path: Path) -> None:
    scores = {"pass@1,create_test": 0.25, "pass@10,create_test": 0.5}
    result = only_result(write_task(tmp_path, "humaneval", scores).parent)
    assert result.published == {
        "humaneval pass@1 (create_test)": 0.25, "humaneval pass@10 (create_test)": 0.5,
    }  # fmt: skip
    assert (result.findings, result.metrics["n_judged"]) == ([], None)


def test_a_groups_metrics_are_shown_where_its_tasks_are_not_there(tmp_path: Path) -> None:
    result = only_result(
        write_task(tmp_path, "mmlu", {"acc,none": 0.61, "acc_stderr,none": 0.004}).parent
    )
    assert (result.findings, result.matches) == ([], None)
    assert result.published["mmlu acc"] == 0.61


def dropped(result: Result) -> list[str]:
    return [kind for kind in kinds(result) if kind == "dropped_rows"]


def test_a_count_that_the_file_does_not_have_is_unknown(tmp_path: Path) -> None:
    path = write_task(tmp_path, "winogrande", {"acc,none": 0.7751, "acc_stderr,none": 0.0117})
    result = only_result(path)
    assert (result.findings, result.metrics["n_judged"], result.metrics["n_expected"]) == (
        [], None, None,
    )  # fmt: skip
    assert any("is not in the files: winogrande" in note for note in result.notes)
    value = json.loads(path.read_text())
    value["results"]["arc_challenge"] = {"acc,none": 0.5}
    value["n-samples"] = {"arc_challenge": {"original": 1172, "effective": 1172}}
    path.write_text(json.dumps(value))
    result = only_result(path)
    assert (result.findings, result.metrics["n_judged"], result.metrics["n_expected"]) == (
        [], 1172, 1172,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "limit", "judged"),
    [("arc_challenge", 100, 100), ("arc_challenge", 0.5, 586), ("arc_challenge", 2000, None),
     ("a_task_of_ones_own", 100, None)],
)  # fmt: skip
def test_a_limit_drops_what_is_known_to_lie_beyond_it(
    tmp_path: Path, task: str, limit: float, judged: int | None
) -> None:
    result = only_result(write_task(tmp_path, task, {"acc,none": 0.5}, limit=limit))
    if judged is None:
        assert dropped(result) == []
    else:
        assert finding_of(result, "dropped_rows").evidence["judged"] == judged


def test_a_claim_is_held_against_the_metric_that_it_is_of(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_task(folder, "truthfulqa_mc", {"mc1,none": 0.22, "mc2,none": 0.3587})
    readme = folder / "README.md"
    readme.write_text("| Model | TruthfulQA |\n|--|--|\n| model | 35.87 |\n")
    assert only_result(folder).matches is True
    # The leaderboard's ARC is acc_norm; a file with acc alone says nothing of it.
    write_task(folder, "arc_challenge", {"acc,none": 0.5})
    readme.write_text("| Model | ARC |\n|--|--|\n| model | 53.10 |\n")
    assert only_result(folder).matches is None


TABLES = {
    "six benchmarks": ("Average | ARC | HellaSwag | MMLU | TruthfulQA | WinoGrande | GSM8K",
                       "35.0 | 10 | 20 | 30 | 40 | 50 | 60", None),
    "six, wrong": ("Average | ARC | HellaSwag | MMLU | TruthfulQA | WinoGrande | GSM8K",
                   "36.0 | 10 | 20 | 30 | 40 | 50 | 60", 35),
    "four of six": ("Average | ARC | HellaSwag | MMLU | TruthfulQA | WinoGrande | GSM8K",
                    "25.0 | 10 | 20 | 30 | 40 | 50 | 60", None),
    "other benchmarks": ("IFEval | BBH | MATH | Average", "10 | 20 | 60 | 30.0", None),
    "other benchmarks, wrong": ("IFEval | BBH | MATH | Average", "10 | 20 | 60 | 33.0", 30),
    "sizes beside": ("Params (B) | Epochs | IFEval | BBH | Avg.", "7 | 3 | 10 | 20 | 15", None),
    "one side": ("ARC | HellaSwag | Avg. | MT-Bench", "10 | 20 | 15 | 7", None),
    "names of one's own, wrong": ("Sum | Style | Average", "10 | 20 | 18", None),
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_an_average_is_that_of_the_columns_that_it_fits(tmp_path: Path, table: str) -> None:
    head, line, mean = TABLES[table]
    write_run(tmp_path, {"arc_challenge": 1172}, samples=False)
    rule = "|--" * (head.count("|") + 2) + "|"
    (tmp_path / "README.md").write_text(f"| Model | {head} |\n{rule}\n| x | {line} |\n")
    result = only_result(tmp_path)
    if mean is None:
        assert result.findings == []
    else:
        assert finding_of(result, "count_mismatch").evidence["mean"] == mean


@pytest.mark.parametrize("empty", ["", "-", "n/a", "\u2014"])
def test_an_average_that_leaves_out_an_empty_cell_is_told(tmp_path: Path, empty: str) -> None:
    write_run(tmp_path, {"arc_challenge": 1172}, samples=False)
    head = (
        "| Model | Sum | Style | Facts | Average |\n|--|--|--|--|--|\n| x | 10 | 20 | 30 | 20.0 |\n"
    )
    readme = tmp_path / "README.md"
    readme.write_text(f"{head}| y | 10 | 20 | {empty} | 15.0 |\n| z | 1 | {empty} | {empty} | |\n")
    finding = finding_of(only_result(tmp_path), "count_mismatch")
    assert (finding.evidence["empty"], finding.evidence["given"]) == (["Facts"], 15)
    # A line without an average leaves out nothing, nor does a column that no average has in it.
    readme.write_text(f"{head}| y | 10 | 20 | {empty} | |\n")
    assert only_result(tmp_path).findings == []
    head = "| Model | A | B | Average | Extra |\n|--|--|--|--|--|\n| x | 10 | 20 | 15 | 7 |\n"
    readme.write_text(f"{head}| y | 20 | 40 | 30.0 | {empty} |\n")
    assert only_result(tmp_path).findings == []


@pytest.mark.parametrize("is_filter_by_filter", [True, False])
def test_lines_that_do_not_name_their_filter_are_told_apart_by_their_order(
    tmp_path: Path, is_filter_by_filter: bool
) -> None:
    values_by_filter = {"strict-match": passed(200), "flexible-extract": passed(201)[:200]}
    scores = {
        f"exact_match,{filter_name}": moments(values)[0]
        for filter_name, values in values_by_filter.items()
    }
    rows = [
        {"doc_id": n, "exact_match": v}
        for vs in values_by_filter.values()
        for n, v in enumerate(vs)
    ]
    if not is_filter_by_filter:
        rows.sort(key=lambda row: row["doc_id"])
    result = only_result(write_task(tmp_path, "gsm8k_cot", scores, rows).parent)
    assert (result.findings, result.matches) == ([], True)
    assert result.metrics["n_judged"] == 200
    assert "does not name the filter" in result.notes[0]
    # Of a question that has one line there is no telling of which filter it is.
    result = only_result(write_task(tmp_path, "gsm8k_cot", scores, rows[:-1]).parent)
    assert (result.findings, result.matches) == ([], None)
    assert "not recomputed" in result.notes[0]


@pytest.mark.parametrize("cell", [{}, {"acc": None}, {"acc": math.nan}])
def test_questions_without_a_value_are_counted_and_the_others_recomputed(
    tmp_path: Path, cell: dict[str, Any]
) -> None:
    values = [float(n % 3 == 0) for n in range(100)]
    rows = [{"acc": v} if n % 10 else cell for n, v in enumerate(values)]
    over_others = sum(v for n, v in enumerate(values) if n % 10) / 90
    for score, matches, words in (
        (over_others, True, "what is given is over the other 90"),
        (0.34, None, "10 of the 100 questions have no acc"),
        (0.6, False, "over all between 0.3 and 0.4, given is 0.6"),
    ):
        result = only_result(write_task(tmp_path, "piqa", {"acc,none": score}, rows).parent)
        assert result.matches is matches
        assert words in " ".join([*result.notes, *(f.message for f in result.findings)])
        assert bool(result.findings) == (matches is not True)


@pytest.mark.parametrize(
    ("numbers", "note"),
    [
        ({"acc,none": math.nan}, "piqa acc is NaN in the file"),
        ({"acc,none": None}, "piqa acc is null in the file"),
        ({}, "no metric is stored of piqa"),
    ],
)
def test_a_metric_that_is_no_number_is_told(
    tmp_path: Path, numbers: dict[str, Any], note: str
) -> None:
    path = write_task(tmp_path, "boolq", {"acc,none": 0.7})
    value = json.loads(path.read_text())
    value["results"]["piqa"] = numbers
    path.write_text(json.dumps(value))
    result = only_result(tmp_path)
    assert any(note in n for n in result.notes)
    assert ("piqa acc" in result.published) == bool(numbers)


def test_a_file_with_nothing_but_nan_is_a_result(tmp_path: Path) -> None:
    result = only_result(write_task(tmp_path, "piqa", {"acc,none": math.nan}).parent)
    assert "piqa acc is NaN in the file" in result.notes[0]


@pytest.mark.parametrize("score", [1.5, -0.5, 65.2])
def test_an_accuracy_outside_0_to_1_is_found(tmp_path: Path, score: float) -> None:
    result = only_result(write_task(tmp_path, "piqa", {"acc,none": score}).parent)
    assert "no share of 1" in finding_of(result, "count_mismatch").message
    assert result.matches is False


def test_a_score_that_does_not_follow_from_its_questions_is_a_finding(tmp_path: Path) -> None:
    rows = [{"acc": float(n % 3 == 0)} for n in range(100)]
    result = only_result(write_task(tmp_path, "piqa", {"acc,none": 0.5}, rows).parent)
    assert "piqa acc 0.5 / 0.34" in finding_of(result, "count_mismatch").message
    assert result.matches is False


HEAD = "| Model | ARC | HellaSwag | MMLU | TruthfulQA | WinoGrande | GSM8K | {} |"
CELLS = "60.0 | 80.0 | 62.0 | 50.0 | 75.0 | 40.0"
SHARES = "0.600 | 0.800 | 0.620 | 0.500 | 0.750 | 0.400"
TRUE_TABLES = {
    "shares and a percentage": (HEAD.format("Average"), f"{SHARES} | 61.17"),
    "percentages and a share": (HEAD.format("Average"), f"{CELLS} | 0.6117"),
    "weighted": (HEAD.format("Weighted average"), f"{CELLS} | 71.9"),
    "weighted by questions": (HEAD.format("Average (weighted by questions)"), f"{CELLS} | 71.9"),
    "harmonic": (HEAD.format("Average (harmonic)"), f"{CELLS} | 58.2"),
    "geometric": (HEAD.format("Geometric mean"), f"{CELLS} | 59.5"),
    "decimal commas": (HEAD.format("Average"), f"{CELLS} | 61.17".replace(".", ",")),
}


def with_readme(folder: Path, *lines: str) -> Result:
    write_run(folder, {"arc_challenge": 1172}, samples=False)
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    return only_result(folder)


def table_of(head: str, *lines: str) -> list[str]:
    return [
        head,
        "|--" * (head.count("|") - 1) + "|",
        *(f"| x{n} | {t} |" for n, t in enumerate(lines)),
    ]


@pytest.mark.parametrize("name", TRUE_TABLES)
def test_a_true_average_is_accused_of_nothing(tmp_path: Path, name: str) -> None:
    head, line = TRUE_TABLES[name]
    assert with_readme(tmp_path, *table_of(head, line)).findings == []


@pytest.mark.parametrize("heading", ["Average", "Avg. \u2191", "Overall"])
@pytest.mark.parametrize("cells", [CELLS, CELLS.replace(".", ","), SHARES])
def test_a_wrong_average_is_held_against_that_of_all_its_columns(
    tmp_path: Path, heading: str, cells: str
) -> None:
    result = with_readme(tmp_path, *table_of(HEAD.format(heading), f"{cells} | 63.17"))
    assert "that of its 6 columns is 61.17" in finding_of(result, "count_mismatch").message


def test_an_average_may_be_over_two_tables(tmp_path: Path) -> None:
    first = table_of("| Model | ARC | HellaSwag | MMLU |", "60.0 | 80.0 | 62.0")
    head = "| Model | TruthfulQA | Winogrande | GSM8K | Average |"
    for average, count in (("61.17", 0), ("62.17", 1)):
        second = table_of(head, f"50.0 | 75.0 | 40.0 | {average}")
        assert len(with_readme(tmp_path, *first, "", *second).findings) == count


def test_averages_below_their_benchmarks_are_checked_too(tmp_path: Path) -> None:
    lines = ["| Benchmark | a | b |", "|--|--|--|", "| ARC | 60.0 | 50.0 |",
             "| HellaSwag | 80.0 | 70.0 |", "| MMLU | 62.0 | 50.0 |"]  # fmt: skip
    assert with_readme(tmp_path, *lines, "| Average | 67.33 | 56.67 |").findings == []
    result = with_readme(tmp_path, *lines, "| Average | 75.0 | 56.67 |")
    assert (finding_of(result, "count_mismatch").evidence["mean"]) == pytest.approx(
        67.333, abs=1e-3
    )


@pytest.mark.parametrize(
    ("heading", "cell", "matches"),
    [
        ("ARC", "0.5512", True),
        ("ARC", "55.12", True),
        ("ARC", "55,12", True),
        ("ARC", "0.5612", False),
        ("ARC", "58.12", False),
        ("ARC (acc)", "50.0", True),
        ("ARC (acc_norm)", "55.12", True),
        ("ARC (25-shot, acc)", "50.0", True),
        ("ARC (acc)", "55.12", False),
        ("ARC (0-shot)", "49.0", None),
        ("ARC (25-shot)", "49.0", False),
        ("ARC (f1)", "49.0", None),
    ],
)
def test_a_claim_is_of_the_metric_the_shots_and_the_scale_that_it_names(
    tmp_path: Path, heading: str, cell: str, matches: bool | None
) -> None:
    write_task(
        tmp_path, "arc_challenge", {"acc,none": 0.5, "acc_norm,none": 0.5512}, num_fewshot=25
    )
    for lines in (
        [f"| Model | {heading} |", "|--|--|", f"| model | {cell} |"],
        ["| Benchmark | model |", "|--|--|", f"| {heading} | {cell} |"],
    ):
        (tmp_path / "README.md").write_text("\n".join(lines) + "\n")
        result = only_result(tmp_path)
        assert result.matches is matches
        assert [
            f for f in result.findings if "the results say" in f.message
        ] != [] or matches is not False
