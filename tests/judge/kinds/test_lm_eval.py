"""The leaderboard's tasks: lm-eval's prompts and scores on local data, and what is kept of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.lm_eval import TaskData, package, scores
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS, SUBJECTS
from harness.judge.kinds.lm_eval.data import read_task
from harness.modeling.load import bytes_tokenizer, load_model
from harness.spec.model_source import ModelSource
from tests.helpers import ROOT
from tests.modeling.calls import random_model

DATA = ROOT / "specs" / "smoke" / "tasks"
FOLDERS = {
    "arc_challenge": "arc_challenge",
    "hellaswag": "hellaswag",
    "mmlu": "mmlu",
    "truthfulqa_mc2": "truthfulqa",
}
MADE_SUBJECTS = ("anatomy", "elementary_mathematics", "global_facts")
LONG = {"max_position_embeddings": 8192, "num_hidden_layers": 1}


def tasks_call(
    folder: Path,
    tasks: tuple[str, ...] = tuple(FOLDERS),
    model: dict[str, Any] | None = None,
    data: Path = DATA,
    **judged: Any,
) -> StageCall:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    given = {name: {"folder": str(data / FOLDERS[name])} for name in tasks}
    settings = {"kind": "lm_eval", "tasks": given, "threads": 1, **judged}
    return StageCall(
        stage="judge",
        key="0" * 64,
        params={"judge": settings, "model": model or random_model(max_position_embeddings=256)},
        inputs={},
        work=str(folder / "work"),
    )


def kept(call: StageCall, result: StageResult) -> dict[str, bytes]:
    return {name: (call.folder / name).read_bytes() for name in result.keep}


def samples_of(call: StageCall, unit: str) -> list[dict[str, Any]]:
    lines = (call.folder / f"samples_{unit}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def questions(*names: str) -> list[Any]:
    subjects = package.mmlu_subjects()
    return [
        each
        for name in names
        for each in read_task(
            name, TaskData.model_validate({"folder": str(DATA / FOLDERS[name])}), {}, subjects
        )
    ]


def requests_of(task: Any, first: int | None = None) -> list[tuple[str, str]]:
    task.build_all_requests(limit=first)
    return [instance.args for instance in task.instances]


class Knowing(package.Scorer):
    """A model that gives what `choose` says as the log-likelihood of a choice."""

    def __init__(self, choose: Any) -> None:
        self.choose, self.cut = choose, []
        self._rank, self._world_size, self.batch_size_per_gpu = 0, 1, 1

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        self.cut = [False] * len(requests)
        return [(self.choose(request), True) for request in requests]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageCall, StageResult]:
    """All four tasks with a small random model, whose prompts are cut."""
    call = tasks_call(tmp_path_factory.mktemp("judged"))
    return call, judge.run(call)


def test_shots_and_splits_are_those_of_the_packages_own_leaderboard_group() -> None:
    path = Path(package.lm_eval.tasks.__file__).parent / "benchmarks" / "openllm.yaml"
    theirs = {t["task"]: t for t in yaml.safe_load(path.read_text())["task"]}
    theirs["truthfulqa_mc2"] = theirs["truthfulqa"]
    for name, benchmark in BENCHMARKS.items():
        assert theirs[name]["num_fewshot"] == benchmark.shots
        if "fewshot_split" in theirs[name]:
            assert theirs[name]["fewshot_split"] == benchmark.shots_split
    assert len(package.mmlu_subjects()) == SUBJECTS


@pytest.mark.parametrize("name", FOLDERS)
def test_requests_are_those_of_lm_evals_own_definition_on_a_repository_of_the_same_data(
    name: str, tmp_path: Path
) -> None:
    import datasets

    found = questions(name)
    ours = package.load_tasks(found)
    configs = []
    for each in found:
        config = each.benchmark.config or each.unit.removeprefix("mmlu_")
        files = []
        for split, rows in each.splits.items():
            path = f"{config}/{split}-00000-of-00001.parquet"
            (tmp_path / config).mkdir(exist_ok=True)
            datasets.Dataset.from_list(rows).to_parquet(tmp_path / path)
            files.append({"split": split, "path": path})
        configs.append({"config_name": config, "data_files": files})
    (tmp_path / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n")
    for each in found:
        asked = each.benchmark
        changed: dict[str, Any] = {"task": each.unit, "dataset_path": str(tmp_path)}
        if name in ("arc_challenge", "hellaswag"):
            changed["fewshot_split"] = "train"
        theirs = package._manager().load([{"group": "theirs", "task": [changed]}])["tasks"]
        [task] = theirs.values()
        task.set_config("num_fewshot", asked.shots)
        task.set_fewshot_seed(1234)
        made = requests_of(ours[each.unit])
        assert made == requests_of(task)
        assert made[0][0].count("\n\n") >= asked.shots
        assert task.VERSION == ours[each.unit].VERSION


def test_scores_are_lm_evals_own_for_the_same_model(
    judged: tuple[StageCall, StageResult],
) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    call, result = judged
    source = ModelSource.model_validate(call.params["model"])
    tokenizer = bytes_tokenizer()
    model = load_model(source, {}, tokenizer, "float32", "cpu")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    theirs = evaluate(lm, {"tasks": package.load_tasks(questions(*FOLDERS))})["results"]
    results = json.loads((call.folder / "results.json").read_text())["results"]
    for unit in theirs:
        if unit == "truthfulqa_mc2":
            continue
        metric = "acc" if unit.startswith("mmlu") else "acc_norm"
        assert results[unit][metric] == pytest.approx(100 * theirs[unit][f"{metric},none"])
        assert results[unit][f"{metric}_stderr"] == pytest.approx(
            100 * theirs[unit][f"{metric}_stderr,none"]
        )
    values = [100 * theirs[f"mmlu_{s}"]["acc,none"] for s in MADE_SUBJECTS]
    assert result.metrics["mmlu"].value == pytest.approx(sum(values) / 3)
    assert result.metrics["arc_challenge"].value == pytest.approx(
        100 * theirs["arc_challenge"]["acc_norm,none"]
    )
    four = [result.metrics[name].value for name in FOLDERS]
    assert result.metrics["average"].value == pytest.approx(sum(four) / 4)
    errors = [result.metrics[name].standard_error for name in FOLDERS]
    assert result.metrics["average"].standard_error == pytest.approx(
        sum(e**2 for e in errors) ** 0.5 / 4
    )


def test_what_the_score_is_over_and_that_prompts_were_cut_is_said(
    judged: tuple[StageCall, StageResult],
) -> None:
    _, result = judged
    metrics = result.metrics
    assert {n: m.judged for n, m in metrics.items()} == {
        "arc_challenge": 10, "hellaswag": 10, "mmlu": 24, "truthfulqa_mc2": 6, "average": 50,
    }  # fmt: skip
    mmlu = metrics["mmlu"].further
    assert (mmlu["subjects"], mmlu["expected_subjects"]) == (3, 57)
    assert "mmlu is over 3 of the 57 subjects: it is not MMLU's score" in result.deviations
    assert not any("subjects" in finding.message for finding in result.findings)
    assert "the model had random weights and no training" in result.notes
    cut = {f.evidence["task"]: f for f in result.findings if f.kind == "empty_or_truncated"}
    assert cut["arc_challenge"].evidence["cut"] == 10
    assert "10 of 10 questions" in cut["arc_challenge"].message
    assert result.counts["questions"] == 50
    assert result.counts["choices"] == 4 * 44 + 21
    assert result.used["tasks"]["arc_challenge"]["shots"] == 25
    assert result.used["tasks"]["truthfulqa_mc2"]["version"] == 3.0
    assert result.used["lm_eval"] == "0.4.13"


def test_mmlus_two_averages_and_their_errors_are_lm_evals(
    judged: tuple[StageCall, StageResult],
) -> None:
    from lm_eval.api.metrics import (
        aggregate_subtask_metrics,
        pooled_sample_stderr,
        unweighted_mean_stderr,
    )

    values, errors, sizes = [20.0, 50.0, 30.0], [5.0, 6.0, 7.0], [10, 40, 100]
    results = {
        f"mmlu_{i}": {"questions": n, "cut": 0, "acc": v, "acc_stderr": e}
        for i, (v, e, n) in enumerate(zip(values, errors, sizes, strict=True))
    }
    mmlu = scores.metrics_of(results)["mmlu"]
    assert mmlu["value"] == pytest.approx(aggregate_subtask_metrics(values, sizes, False))
    assert mmlu["by_questions"] == pytest.approx(aggregate_subtask_metrics(values, sizes, True))
    assert mmlu["standard_error"] == pytest.approx(unweighted_mean_stderr(errors))
    theirs = pooled_sample_stderr(errors, sizes)
    assert mmlu["by_questions_standard_error"] == pytest.approx(theirs)


def test_a_log_likelihood_is_the_sum_over_the_choices_tokens(tmp_path: Path) -> None:
    call = tasks_call(tmp_path, ("mmlu",), random_model(**LONG), first=2)
    result = judge.run(call)
    assert result.counts["cut_choices"] == 0
    dev, test = (
        [json.loads(x) for x in (DATA / "mmlu" / "anatomy" / f"{s}.jsonl").read_text().splitlines()]
        for s in ("dev", "test")
    )

    def shown(row: dict[str, Any]) -> str:
        options = "".join(f"{c}. {o}\n" for c, o in zip("ABCD", row["choices"], strict=True))
        return f"{row['question']}\n{options}Answer:"

    head = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    shots = "".join(f"{shown(row)} {'ABCD'[row['answer']]}\n\n" for row in dev[:5])
    prompt = head + shots + shown(test[1])
    tokenizer = bytes_tokenizer()
    source = ModelSource.model_validate(call.params["model"])
    model = load_model(source, {}, tokenizer, "float32", "cpu")
    sample = samples_of(call, "mmlu_anatomy")[1]
    for letter, found in zip("ABCD", sample["log_likelihoods"], strict=True):
        ids = torch.tensor([tokenizer(f"{prompt} {letter}")["input_ids"]])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        assert found == pytest.approx(float(logs[-1, ids[0, -1]] + logs[-2, ids[0, -2]]), abs=1e-4)
    assert sample["target"] == test[1]["answer"]


def test_a_model_that_knows_the_answers_has_all_points_and_one_that_errs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def right(request: Any) -> float:
        doc, number = request.doc, request.idx
        if "mc2_targets" in doc:
            return 0.0 if doc["mc2_targets"]["labels"][number] else -1e3
        if "answerKey" in doc:
            return -1.0 * (number != doc["choices"]["label"].index(doc["answerKey"]))
        return -1.0 * (number != int(doc.get("label", doc.get("answer"))))

    def values(choose: Any, folder: Path) -> dict[str, float]:
        monkeypatch.setattr(package, "Scorer", lambda *_: Knowing(choose))
        monkeypatch.setattr(Knowing, "max_length", 100)
        return {n: m.value for n, m in judge.run(tasks_call(folder)).metrics.items()}

    assert set(values(right, tmp_path / "a").values()) == {100.0}
    wrong = values(lambda r: -1e6 if right(r) == 0 else -1.0, tmp_path / "b")
    assert set(wrong.values()) == {0.0}


def test_a_model_that_guesses_is_near_to_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    data = tmp_path / "data" / "mmlu" / "anatomy"
    shutil.copytree(DATA / "mmlu" / "anatomy", data)
    _write(data / "test.jsonl", _rows(data / "test.jsonl") * 30)
    draw = random.Random(1)
    monkeypatch.setattr(package, "Scorer", lambda *_: Knowing(lambda _: -draw.random()))
    monkeypatch.setattr(Knowing, "max_length", 100)
    metric = judge.run(tasks_call(tmp_path, ("mmlu",), data=tmp_path / "data")).metrics["mmlu"]
    assert metric.judged == 240
    assert metric.standard_error == pytest.approx(100 * (0.25 * 0.75 / 240) ** 0.5, rel=0.2)
    assert abs(metric.value - 25) < 3 * metric.standard_error


def test_a_replay_makes_every_file_again_without_data_or_model(
    judged: tuple[StageCall, StageResult], tmp_path: Path
) -> None:
    call, result = judged
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name, content in kept(call, result).items():
        (recorded / name).write_bytes(content)
    manifest = {"deviations": result.deviations}
    (recorded / "manifest.json").write_text(json.dumps(manifest))
    again = tasks_call(tmp_path, data=tmp_path / "nowhere", model={"path": {"path": "nowhere"}})
    again = StageCall(**{**vars(again), "replay": True, "inputs": {"recorded": str(recorded)}})
    replayed = judge.run(again)
    assert kept(again, replayed) == kept(call, result)
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    assert replayed.findings == result.findings
    assert replayed.deviations == result.deviations != []


def test_a_replay_computes_the_scores_from_the_log_likelihoods(
    judged: tuple[StageCall, StageResult], tmp_path: Path
) -> None:
    call, result = judged
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name, content in kept(call, result).items():
        (recorded / name).write_bytes(content)
    path = recorded / "samples_arc_challenge.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["log_likelihoods"] = [-1.0 * (i != row["target"]) for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = tasks_call(tmp_path)
    again = StageCall(**{**vars(again), "replay": True, "inputs": {"recorded": str(recorded)}})
    assert judge.run(again).metrics["arc_challenge"].value == 100.0


def test_an_interrupted_run_goes_on_to_the_same_files_and_scores_nothing_twice(
    tmp_path: Path, judged: tuple[StageCall, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    names = ("hellaswag", "truthfulqa_mc2")
    whole = tasks_call(tmp_path / "whole", names, batch_size=1)
    expected = kept(whole, judge.run(whole))
    cut = tasks_call(tmp_path / "cut", names, batch_size=1)
    real, sizes = HFLM._loglikelihood_tokens, []

    def failing(self: Any, requests: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(requests))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return real(self, requests, *args, **options)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", failing)
    with pytest.raises(KeyboardInterrupt):
        judge.run(cut)
    with (cut.folder / "hellaswag.jsonl").open("a") as file:
        file.write("[39, -1")
    result = judge.run(cut)
    assert kept(cut, result) == expected
    # 10 questions of four choices and 21 choices of six, four questions at a time.
    assert sizes[:4] == [16, 16, 8, 8]
    assert sum(sizes) == 40 + 8 + 21
    sizes.clear()
    judge.run(cut)
    assert sizes == [], "what is finished is read"


def test_only_the_first_questions_are_asked_when_the_row_says_so_and_it_is_noted(
    tmp_path: Path, judged: tuple[StageCall, StageResult]
) -> None:
    call = tasks_call(tmp_path, ("mmlu", "truthfulqa_mc2"), first=2)
    result = judge.run(call)
    assert result.metrics["mmlu"].judged == 6
    assert "mmlu: only the first 6 of the 24 questions were asked" in result.deviations
    assert "average" not in result.metrics
    first = samples_of(judged[0], "mmlu_anatomy")[:2]
    made = samples_of(call, "mmlu_anatomy")
    assert [s["prompt_hash"] for s in made] == [s["prompt_hash"] for s in first]


def test_a_configuration_of_mmlus_repository_is_one_subject() -> None:
    hub = {"id": "some/set", "revision": "0" * 40, "config": "anatomy"}
    inputs = {"task-mmlu": str(DATA / "mmlu")}
    [found] = read_task("mmlu", TaskData.model_validate({"hub": hub}), inputs, MADE_SUBJECTS)
    assert found.unit == "mmlu_anatomy"
    absent = TaskData.model_validate({"hub": {**hub, "config": "all"}})
    with pytest.raises(InputError, match="holds no folder of all"):
        read_task("mmlu", absent, inputs, MADE_SUBJECTS)
    with pytest.raises(InputError, match="the call has no folder of the data set some/set"):
        read_task("mmlu", absent, {}, MADE_SUBJECTS)


def test_progress_counts_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.artefact import events

    told: list[tuple[int, int]] = []
    monkeypatch.setattr("harness.artefact.events.SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(events, "progress", lambda _, done, of, *a, **k: told.append((done, of)))
    judge.run(tasks_call(tmp_path, ("hellaswag", "truthfulqa_mc2"), batch_size=1))
    assert [done for done, _ in told] == [0, 4, 8, 10, 14, 16]
    assert {of for _, of in told} == {16}


def test_several_truths_share_the_probability_even_where_it_is_tiny() -> None:
    small = scores.score_question([1, 0, 1], [-1.0, -1.0, -2.0], [1, 1, 1])["acc"]
    tiny = scores.score_question([1, 0, 1], [-9001.0, -9001.0, -9002.0], [1, 1, 1])["acc"]
    assert small == pytest.approx((1 + 2.718281828459045**-1) / (2 + 2.718281828459045**-1))
    assert tiny == pytest.approx(small)


def test_a_model_that_gives_no_numbers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(
        HFLM, "_loglikelihood_tokens", lambda self, r, *_: [(float("nan"), False)] * len(r)
    )
    with pytest.raises(HarnessError, match="log-likelihood of nan"):
        judge.run(tasks_call(tmp_path, ("hellaswag",)))


def test_shards_in_a_configurations_folder_are_read_as_one_split(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "ARC-Challenge"
    shutil.copytree(DATA / "arc_challenge", folder)
    rows = [json.loads(x) for x in (folder / "test.jsonl").read_text().splitlines()]
    (folder / "test.jsonl").unlink()
    for i, part in enumerate((rows[:6], rows[6:])):
        name = f"test-0000{i}-of-00002.parquet"
        datasets.Dataset.from_list(part).to_parquet(folder / name)
    hub = {"id": "some/set", "revision": "0" * 40, "split": "test"}
    data = TaskData.model_validate({"hub": hub})
    [found] = read_task("arc_challenge", data, {"task-arc_challenge": str(tmp_path)}, [])
    assert found.splits["test"] == rows
    (folder / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="of the split test 1 of 2 files"):
        read_task("arc_challenge", data, {"task-arc_challenge": str(tmp_path)}, [])


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("arc_challenge", lambda f: (f / "test.jsonl").unlink(),
         r"task arc_challenge: no split 'test' in .*"),
        ("arc_challenge", lambda f: _change(f / "train.jsonl", 29, answerKey="E"),
         r"train\.jsonl:30: `answerKey` is 'E'; the choices are A, B, C, D"),
        ("arc_challenge", lambda f: _keep(f / "train.jsonl", 24),
         "the split train .* has 24 records, and 25 are shown"),
        ("hellaswag", lambda f: _change(f / "validation.jsonl", 0, label=""),
         r"validation\.jsonl:1: `label` is ''; a number from 0 to 3"),
        ("hellaswag", lambda f: _change(f / "validation.jsonl", 1, ctx_a=None),
         r":2: `ctx_a` must be a text, not 'None'"),
        ("mmlu", lambda f: (f / "anatomy" / "dev.jsonl").unlink(),
         "task mmlu_anatomy: no split 'dev'"),
        ("mmlu", lambda f: _change(f / "anatomy" / "test.jsonl", 3, choices=["a", "b"]),
         r"task mmlu_anatomy: .*test\.jsonl:4: `choices` must be four texts"),
        ("mmlu", lambda f: [shutil.rmtree(f / s) for s in MADE_SUBJECTS],
         "task mmlu: .* holds no folder of any of the subjects"),
        ("truthfulqa_mc2", lambda f: _drop(f / "validation.jsonl", 2, "mc2_targets"),
         r":3: no `mc2_targets` \(an object\); the columns here are: question, mc1_targets"),
        ("truthfulqa_mc2", lambda f: shutil.copy(f / "validation.jsonl", f / "validation.json"),
         "the split validation is there several times"),
    ],
)  # fmt: skip
def test_data_that_is_not_what_a_task_needs_is_refused(
    tmp_path: Path, name: str, change: Any, fault: str
) -> None:
    folder = tmp_path / "data" / FOLDERS[name]
    shutil.copytree(DATA / FOLDERS[name], folder)
    change(folder)
    with pytest.raises(InputError, match=fault):
        judge.run(tasks_call(tmp_path, (name,), data=tmp_path / "data"))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _change(path: Path, number: int, **fields: Any) -> None:
    rows = _rows(path)
    rows[number] |= fields
    _write(path, rows)


def _drop(path: Path, number: int, name: str) -> None:
    rows = _rows(path)
    del rows[number][name]
    _write(path, rows)


def _keep(path: Path, count: int) -> None:
    _write(path, _rows(path)[:count])


def test_the_made_up_questions_are_those_that_their_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import runpy

    monkeypatch.setattr("sys.argv", ["make_tasks.py", str(tmp_path)])
    runpy.run_path(str(DATA / "make_tasks.py"), run_name="__main__")
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.jsonl")}
    assert made == {p.relative_to(DATA): p.read_bytes() for p in DATA.rglob("*.jsonl")}
