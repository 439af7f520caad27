"""lm-eval's results: what follows from the questions is recomputed, what does not is found."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit_paths
from harness.audit.model import Result
from harness.errors import InputError

DATE = "2024-05-01T10-00-00.123456"
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "truthfulqa_mc2": 0, "winogrande": 5}
SUBJECTS = [f"mmlu_subject_{n}" for n in range(57)]


def question(number: int, rng: random.Random, norm: bool) -> dict[str, Any]:
    """One line of samples_TASK.jsonl, as lm-eval writes them: numbers as texts."""
    likely = [round(-20 * rng.random(), 3) for _ in range(4)]
    target = rng.randrange(4)
    best = likely.index(max(likely))
    row = {
        "doc_id": number,
        "target": str(target),
        "filtered_resps": [[str(ll), "False"] for ll in likely],
        "filter": "none",
        "doc_hash": f"{number:064x}",
        "metrics": ["acc"],
        "acc": float(best == target),
    }
    return row | ({"acc_norm": float(rng.random() < 0.4)} if norm else {})


def moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def write_run(
    folder: Path,
    sizes: dict[str, int],
    seed: int = 0,
    samples: bool = True,
    original: dict[str, int] | None = None,
    shots: dict[str, int] | None = None,
    model: str = "org/model",
    limit: float | None = None,
    **changes: Any,
) -> Path:
    """results_DATE.json and samples as lm-eval 0.4 leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    results: dict[str, Any] = {}
    for task, size in sizes.items():
        rows = [question(n, rng, not task.startswith("mmlu")) for n in range(size)]
        results[task] = {"alias": task}
        for metric in ("acc", "acc_norm"):
            if metric in rows[0]:
                mean, error = moments([row[metric] for row in rows])
                results[task] |= {f"{metric},none": mean, f"{metric}_stderr,none": error}
        if samples:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"samples_{task}_{DATE}.jsonl").write_text(text)
    subjects = [task for task in sizes if task.startswith("mmlu_")]
    groups = {}
    if subjects:
        total = sum(results[t]["acc,none"] * sizes[t] for t in subjects)
        results["mmlu"] = {"alias": "mmlu", "acc,none": total / sum(sizes[t] for t in subjects)}
        groups = {"mmlu": subjects}
    value = {
        "results": results,
        "group_subtasks": groups,
        "configs": {t: {"task": t, "metric_list": [{"metric": "acc", "aggregation": "mean"}]}
                    for t in sizes},
        "versions": dict.fromkeys(sizes, 1.0),
        "n-shot": {t: (shots or SHOTS).get(t, 5) for t in sizes},
        "n-samples": {t: {"original": (original or sizes).get(t, n), "effective": n}
                      for t, n in sizes.items()},
        "config": {"model": "hf", "model_args": f"pretrained={model}", "limit": limit},
        "model_name": model,
        **changes,
    }  # fmt: skip
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(value))
    return path


def audited(path: Path) -> Result:
    (result,) = audit_paths([path])
    return result


def kinds(result: Result) -> list[str]:
    return [finding.kind for finding in result.findings]


def change(path: Path, task: str, **numbers: float) -> None:
    value = json.loads(path.read_text())
    value["results"][task] |= {k.replace("__", ","): v for k, v in numbers.items()}
    path.write_text(json.dumps(value))


def test_a_clean_run_matches_in_every_digit_and_has_no_finding(tmp_path: Path) -> None:
    for seed in range(5):
        sizes = {"arc_challenge": 1172, "hellaswag": 300, **dict.fromkeys(SUBJECTS, 20 + seed)}
        write_run(tmp_path / str(seed), sizes, seed, shots=SHOTS)
        result = audited(tmp_path / str(seed))
        assert (result.findings, result.matches) == ([], True)
        assert result.metrics["n_judged"] == sum(sizes.values())
        assert result.metrics["n_judged"] == result.metrics["n_expected"]
        assert result.digits["arc_challenge acc_norm"] == 15
        assert result.digits["hellaswag acc_stderr"] >= 12
        assert result.digits["mmlu acc"] >= 12


def test_a_clean_run_without_questions_has_no_finding(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 1172, "hellaswag": 10042}, samples=False)
    result = audited(tmp_path)
    assert (result.findings, result.matches) == ([], None)


def test_mmlu_is_given_by_question_and_by_subject(tmp_path: Path) -> None:
    sizes = {name: 10 + 7 * n for n, name in enumerate(SUBJECTS)}
    path = write_run(tmp_path, sizes)
    result = audited(tmp_path)
    scores = json.loads(path.read_text())["results"]
    plain = sum(scores[t]["acc,none"] for t in SUBJECTS) / 57
    assert result.metrics["mmlu acc by tasks"] == pytest.approx(plain, abs=1e-12)
    weighted = sum(scores[t]["acc,none"] * sizes[t] for t in SUBJECTS) / sum(sizes.values())
    assert result.metrics["mmlu acc by questions"] == pytest.approx(weighted, abs=1e-12)
    assert result.findings == []
    # The pooled variance of answers that are right or wrong, over all questions.
    between = sum(sizes[t] * scores[t]["acc,none"] * (1 - scores[t]["acc,none"]) for t in SUBJECTS)
    total = sum(sizes.values())
    assert result.metrics["mmlu acc by questions_stderr"] == pytest.approx(
        math.sqrt(between / (total - 57) / total)
    )


def test_groups_that_an_old_file_does_not_list_are_not_taken_for_subjects(tmp_path: Path) -> None:
    path = write_run(tmp_path, dict.fromkeys(SUBJECTS, 20), samples=False)
    value = json.loads(path.read_text())
    value["results"]["mmlu_stem"] = {"acc,none": 0.9, "acc_stderr,none": 0.01}
    value["groups"] = {"mmlu": value["results"]["mmlu"]}
    del value["group_subtasks"]
    path.write_text(json.dumps(value))
    result = audited(tmp_path)
    assert (result.findings, result.matches) == ([], True)


def test_chat_templates_of_two_models_are_their_own(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        write_run(tmp_path / name, {"arc_challenge": 1172}, seed, model=f"org/{name}",
                  chat_template=f"<{name}>")  # fmt: skip
    assert [kinds(r) for r in audit_paths([tmp_path])] == [[], []]
    write_run(tmp_path / "b", {"arc_challenge": 1172}, 1, model="org/b", chat_template=None)
    assert [kinds(r) for r in audit_paths([tmp_path])] == [["confounded"], ["confounded"]]


def test_mmlu_over_some_subjects_is_not_mmlu(tmp_path: Path) -> None:
    write_run(tmp_path, dict.fromkeys(SUBJECTS[:3], 30))
    assert kinds(audited(tmp_path)) == ["count_mismatch"]


def test_a_printed_mean_that_is_another_does_not_match(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"arc_challenge": 1172})
    change(path, "arc_challenge", acc_norm__none=0.55)
    result = audited(tmp_path)
    assert result.matches is False
    assert result.digits["arc_challenge acc_norm"] < 2


def test_a_groups_mean_that_is_another_does_not_match(tmp_path: Path) -> None:
    path = write_run(tmp_path, dict.fromkeys(SUBJECTS, 20), samples=False)
    change(path, "mmlu", acc__none=0.6125)
    assert audited(tmp_path).matches is False


def test_answers_that_their_log_likelihoods_contradict_are_found(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 200}, original={"arc_challenge": 200})
    samples = next(tmp_path.glob("samples_*"))
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    wrong = [row for row in rows if row["acc"] == 0][:20]
    for row in wrong:
        row["acc"] = 1.0
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = audited(tmp_path)
    finding, mean = result.findings
    assert (finding.evidence["wrong"], finding.evidence["effect"]) == (20, 0.1)
    assert "does not follow from what is stored" in mean.message
    assert result.matches is False


def test_a_limited_run_is_a_part_of_the_questions(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 100}, original={"arc_challenge": 1172}, limit=100)
    result = audited(tmp_path)
    (finding,) = result.findings
    assert (finding.kind, finding.severity) == ("dropped_rows", "warning")
    assert (finding.evidence["judged"], finding.evidence["expected"]) == (100, 1172)
    score = finding.evidence["score"]
    assert finding.evidence["lower_bound"] == pytest.approx(score * 100 / 1172)
    assert finding.evidence["upper_bound"] == pytest.approx((score * 100 + 1072) / 1172)
    assert (result.metrics["n_judged"], result.metrics["n_expected"]) == (100, 1172)


def test_an_old_results_file_tells_its_number_of_questions_by_its_error(tmp_path: Path) -> None:
    p, n = 50 / 100, 100
    old = {
        "results": {"arc_challenge": {"acc": p, "acc_stderr": math.sqrt(p * (1 - p) / (n - 1))}},
        "versions": {"arc_challenge": 0},
        "config": {"model": "hf-causal", "num_fewshot": 25, "limit": None},
    }
    (tmp_path / "results.json").write_text(json.dumps(old))
    (finding,) = audited(tmp_path).findings
    assert (finding.kind, finding.evidence["judged"]) == ("dropped_rows", 100)
    p, n = 586 / 1172, 1172
    old["results"] = {
        "harness|arc:challenge|25": {"acc": p, "acc_stderr": math.sqrt(p * (1 - p) / (n - 1))}
    }
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert audited(tmp_path).findings == []


def test_a_share_that_no_number_of_right_answers_gives_is_found(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"arc_challenge": 1172}, samples=False)
    change(path, "arc_challenge", acc_norm__none=0.5512345678901)
    (finding,) = audited(tmp_path).findings
    assert (finding.kind, finding.severity) == ("count_mismatch", "error")
    assert "no whole number of right answers" in finding.message


def test_an_error_of_fewer_questions_than_said_is_found(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"hellaswag": 10042}, samples=False)
    scores = json.loads(path.read_text())["results"]["hellaswag"]
    p = scores["acc,none"]
    change(path, "hellaswag", acc_stderr__none=math.sqrt(p * (1 - p) / 499))
    (finding,) = audited(tmp_path).findings
    assert finding.evidence["implied"] == 500


def test_missing_and_repeated_questions_are_found(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 1172})
    samples = next(tmp_path.glob("samples_*"))
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(lines[:1000]))
    assert "count_mismatch" in kinds(audited(tmp_path))
    samples.write_text("".join(lines + lines[:5]))
    assert "count_mismatch" in kinds(audited(tmp_path))


def test_other_shots_between_two_models_confound_them(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arc_challenge": 1172}, model="org/a")
    write_run(tmp_path / "b", {"arc_challenge": 1172}, 1, shots={"arc_challenge": 0}, model="org/b")
    results = audit_paths([tmp_path])
    assert [kinds(result) for result in results] == [["confounded"], ["confounded"]]
    assert "the shots of arc_challenge differ" in results[0].findings[0].message
    assert "0: org/b; 25: org/a" in results[0].findings[0].message


def test_one_model_at_several_shots_is_a_study_of_shots(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arc_challenge": 1172})
    write_run(tmp_path / "b", {"arc_challenge": 1172}, 1, shots={"arc_challenge": 0})
    assert [kinds(result) for result in audit_paths([tmp_path])] == [[], []]


def test_shots_unlike_the_leaderboards_are_a_note_until_it_is_spoken_of(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 1172}, shots={"arc_challenge": 0})
    result = audited(tmp_path)
    assert result.findings == []
    assert any("0 shots, not 25" in note for note in result.notes)
    (tmp_path / "README.md").write_text("Scores as on the Open LLM Leaderboard.")
    assert kinds(audited(tmp_path)) == ["confounded"]


def test_an_average_that_does_not_follow_from_its_line_is_found(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 1172})
    head = "| Model | ARC | HellaSwag | MMLU | TruthfulQA | Average |\n|--|--|--|--|--|--|\n"
    readme = tmp_path / "README.md"
    readme.write_text(f"{head}| x | 61.0 | 82.0 | 55.0 | 38.0 | 59.00 |\n")
    assert audited(tmp_path).findings == []
    readme.write_text(f"{head}| x | 61.0 | 82.0 | 55.0 | 38.0 | 61.20 |\n")
    (finding,) = audited(tmp_path).findings
    assert (finding.evidence["given"], finding.evidence["mean"]) == (61.2, 59.0)


def test_a_claim_for_the_runs_model_is_compared_to_its_own_decimals(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"arc_challenge": 1172}, model="org/My-Model-7B")
    score = 100 * json.loads(path.read_text())["results"]["arc_challenge"]["acc_norm,none"]
    readme = tmp_path / "README.md"
    for head, line in (
        ("| Model | ARC (25-shot) |", "| My-Model-7B | {:.2f} |"),
        ("| Benchmark | My-Model-7B |", "| ARC | {:.2f} |"),
    ):
        readme.write_text(f"{head}\n|--|--|\n{line.format(score)}\n")
        result = audited(tmp_path)
        assert (result.matches, result.digits["arc_challenge in README.md (percent)"]) == (True, 2)
        readme.write_text(f"{head}\n|--|--|\n{line.format(score + 1)}\n")
        assert audited(tmp_path).matches is False


def test_two_models_with_the_same_questions_file_are_a_copy(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arc_challenge": 1172}, model="org/a")
    write_run(tmp_path / "b", {"arc_challenge": 1172}, model="org/b")
    results = audit_paths([tmp_path])
    assert [kinds(result) for result in results] == [["copied_results"], ["copied_results"]]


@pytest.mark.parametrize(
    "value",
    [{}, {"results": {}}, {"results": {"a": 5}, "versions": {}}, {"results": {"a": {"acc": "x"}},
     "versions": {}}, {"results": {"a": {"acc": None, "acc_stderr": []}}, "config": 5}, [1], None],
)  # fmt: skip
def test_damaged_results_are_passed_by(tmp_path: Path, value: Any) -> None:
    (tmp_path / "results_x.json").write_text(json.dumps(value))
    with pytest.raises(InputError):
        audit_paths([tmp_path])


def test_values_of_another_type_are_told_in_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 30})
    path = next(tmp_path.glob("results_*"))
    value = json.loads(path.read_text())
    value["configs"]["arc_challenge"]["metric_list"][0]["aggregation"] = []
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="it has values of other types than lm-eval writes there"):
        audit_paths([tmp_path])


def test_damaged_questions_leave_the_rest(tmp_path: Path) -> None:
    write_run(tmp_path, {"arc_challenge": 1172})
    samples = next(tmp_path.glob("samples_*"))
    for text in ("", "{", "5\n", '{"doc_id": 1}\n', '{"acc": NaN, "doc_id": [1]}\n'):
        samples.write_text(text)
        assert audited(tmp_path).kind == "lm_eval"
