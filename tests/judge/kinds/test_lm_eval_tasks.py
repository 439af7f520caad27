"""Any of lm-eval's tasks: the package's own numbers, what is kept of them, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.artefact.call import StageCall, StageResult
from harness.artefact.metrics import metric_of
from harness.audit.parse.lm_eval_own import audit_own
from harness.errors import InputError
from harness.judge import run as judge
from harness.judge.kinds.lm_eval import PackageTask, TaskData, TasksJudge, catalogue
from harness.judge.kinds.lm_eval.data import read_package_task
from harness.spec.base import DataPath
from tests.helpers import ROOT
from tests.modeling.calls import random_model

SMOKE = ROOT / "specs" / "smoke"
DATA = SMOKE / "tasks"
GSM8K = {"folder": str(DATA / "gsm8k"), "shots": 1, "max_new_tokens": 8}
ARC = {"folder": str(DATA / "arc_challenge"), "shots": 2}


def tasks_call(folder: Path, tasks: dict[str, Any], model: Any = None, **judged: Any) -> StageCall:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    settings = {"kind": "lm_eval", "tasks": tasks, "threads": 1, **judged}
    model = model or random_model(max_position_embeddings=512)
    params = {"judge": settings, "model": model}
    return StageCall(
        stage="judge", key="0" * 64, params=params, inputs={}, work=str(folder / "work")
    )


def tasks_of(name: str) -> list[catalogue.Entry]:
    entry = catalogue.find(name)
    assert entry is not None
    return catalogue.tasks_of(entry)


def theirs(
    lm: Any, name: str, folder: Path, splits: dict[str, Path], shots: int | None, limit: int | None
) -> dict[str, Any]:
    """simple_evaluate's own numbers, on a data set repository with these files."""
    import datasets
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder.mkdir()
    for split, path in splits.items():
        datasets.Dataset.from_list(_rows(path)).to_parquet(
            folder / f"{split}-00000-of-00001.parquet"
        )
    [entry] = tasks_of(name)
    assert entry.path is not None
    manager = TaskManager(include_path=[entry.path.parent], include_defaults=False)
    loaded = manager.load(
        [
            {
                "group": "theirs",
                "task": [{"task": name, "dataset_path": str(folder), "dataset_name": None}],
            }
        ]
    )
    results = simple_evaluate(
        lm,
        tasks=list(loaded["tasks"].values()),
        num_fewshot=shots,
        limit=limit,
        task_manager=manager,
    )
    found: dict[str, Any] = results["results"][name]
    return found


def check_same(result: StageResult, name: str, expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        metric, comma, of_filter = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        full_name = f"{name}/{catalogue.metric_name(metric, of_filter)}"
        ours = result.metrics[full_name]
        scale = 100 if metric_of(full_name).is_percentage else 1
        error = expected[f"{metric}_stderr,{of_filter}"]
        assert ours.value == scale * value
        assert ours.standard_error == (None if error == "N/A" else scale * error)
        assert ours.judged == ours.expected == expected["sample_len"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageCall, StageResult]:
    folder = tmp_path_factory.mktemp("judged")
    for number, unit in enumerate(tasks_of("mmlu_stem")):
        subject = folder / "mmlu" / unit.config["dataset_name"]
        shutil.copytree(DATA / "mmlu" / "anatomy", subject)
        _write(subject / "test.jsonl", _rows(subject / "test.jsonl")[: 1 + number % 8])
    stem = {"folder": str(folder / "mmlu"), "shots": 0}
    tasks = {"arc_easy": ARC, "gsm8k": {**GSM8K, "limit": 4}, "mmlu_stem": stem}
    call = tasks_call(folder, tasks)
    return call, judge.run(call)


def kept(call: StageCall, result: StageResult) -> dict[str, bytes]:
    return {name: (call.folder / name).read_bytes() for name in result.keep}


def replay_of(call: StageCall, result: StageResult, folder: Path) -> StageCall:
    recorded = folder / "recorded"
    recorded.mkdir()
    for name, content in kept(call, result).items():
        (recorded / name).write_bytes(content)
    (recorded / "manifest.json").write_text(json.dumps({"deviations": result.deviations}))
    (folder / "work").mkdir()
    return replace(call, replay=True, inputs={"recorded": str(recorded)}, work=str(folder / "work"))


def test_metrics_are_named_after_task_metric_and_filter_and_known_before_the_run(
    judged: tuple[StageCall, StageResult],
) -> None:
    call, result = judged
    names = TasksJudge.model_validate(call.params["judge"]).metrics(None)
    assert set(names) == set(result.metrics)
    assert names == [
        "arc_easy/acc", "arc_easy/acc_norm", "gsm8k/exact_match/strict-match",
        "gsm8k/exact_match/flexible-extract", "mmlu_stem/acc",
    ]  # fmt: skip
    assert all(metric_of(name).is_percentage for name in names)
    assert "gsm8k: only the first 4 of the 6 questions were asked" in result.deviations


def test_a_real_models_scores_are_those_of_simple_evaluate_to_the_last_digit(
    tmp_path: Path, real_model: Path
) -> None:
    from lm_eval.models.huggingface import HFLM

    files = {
        "arc_easy": ({"test": DATA / "arc_challenge" / "test.jsonl"}, 0, None),
        "gsm8k": ({s: DATA / "gsm8k" / f"{s}.jsonl" for s in ("train", "test")}, 2, 3),
        "winogrande": ({"validation": tmp_path / "winogrande.jsonl"}, 0, None),
        "wikitext": ({"test": tmp_path / "wikitext.jsonl"}, 0, None),
    }
    sentences = (
        "The cup did not fit into the box as the _ was too big.",
        "Ann thanked _ for the tea.",
    )
    rows: list[Any] = [
        {"sentence": s, "option1": "cup", "option2": "box", "answer": "1"} for s in sentences
    ]
    _write(tmp_path / "winogrande.jsonl", rows)
    _write(tmp_path / "wikitext.jsonl", [{"page": " = Tea = \n Tea is a drink .\n"}] * 2)
    tasks = {
        name: {"data": {s: str(p) for s, p in splits.items()}, "shots": shots, "limit": limit}
        for name, (splits, shots, limit) in files.items()
    }
    tasks["gsm8k"]["max_new_tokens"] = 256
    call = tasks_call(tmp_path, tasks, {"path": {"path": str(real_model)}}, batch_size=4)
    result = judge.run(call)
    lm = HFLM(pretrained=str(real_model), dtype="float32", batch_size=4, device="cpu")
    for name, (splits, shots, limit) in files.items():
        if name in ("arc_easy", "winogrande", "wikitext"):
            # The package reads every split that the task names.
            splits = dict.fromkeys(("train", "validation", "test"), *splits.values())
        expected = theirs(lm, name, tmp_path / name, splits, shots, limit)
        check_same(result, name, expected)
    assert not metric_of("wikitext/word_perplexity").higher_is_better


def test_a_groups_score_is_the_packages_mean_over_its_tasks_questions(
    judged: tuple[StageCall, StageResult],
) -> None:
    call, result = judged
    results = json.loads((call.folder / "results.json").read_text())["package_tasks"]["mmlu_stem"]
    units = results["results"].values()
    assert len(units) == len(results["units"]) == 19
    right = sum(unit["acc,none"] * unit["sample_len"] for unit in units)
    questions = sum(unit["sample_len"] for unit in units)
    metric = result.metrics["mmlu_stem/acc"]
    assert metric.judged == questions == sum(1 + n % 8 for n in range(19))
    assert metric.value == pytest.approx(100 * right / questions)
    assert 0 < metric.value < 100


def test_an_audit_finds_the_means_of_shares_again_from_the_questions(
    judged: tuple[StageCall, StageResult], tmp_path: Path
) -> None:
    call, result = judged
    replay_of(call, result, tmp_path)
    path = tmp_path / "recorded" / "results.json"
    audited = audit_own(path, json.loads(path.read_text()), "lm_eval")
    assert audited.metrics["arc_easy/acc"] == pytest.approx(result.metrics["arc_easy/acc"].value)
    assert (
        audited.metrics["n_judged"] == audited.metrics["n_expected"] == result.counts["questions"]
    )
    rows = _rows(path.parent / "responses_arc_easy.jsonl")
    _write(path.parent / "responses_arc_easy.jsonl", [r | {"scores": {"acc": 1.0}} for r in rows])
    changed = audit_own(path, json.loads(path.read_text()), "lm_eval")
    assert changed.metrics["arc_easy/acc"] == 100
    assert changed.published["arc_easy/acc"] == result.metrics["arc_easy/acc"].value


def test_a_replay_scores_the_responses_again_without_data_or_model(
    judged: tuple[StageCall, StageResult], tmp_path: Path
) -> None:
    call, result = judged
    again = replay_of(call, result, tmp_path)
    again.params["model"] = {"path": {"path": "nowhere"}}
    replayed = judge.run(again)
    assert kept(again, replayed) == kept(call, result)
    assert (replayed.metrics, replayed.counts) == (result.metrics, result.counts)
    assert (replayed.deviations, replayed.findings) == (result.deviations, result.findings)


def test_a_replay_scores_what_was_answered_and_not_what_was_scored(
    judged: tuple[StageCall, StageResult], tmp_path: Path
) -> None:
    call, result = judged
    again = replay_of(call, result, tmp_path)
    path = Path(again.inputs["recorded"]) / "responses_gsm8k.jsonl"
    rows = _rows(path)
    for row in rows:
        row["responses"] = [["It is #### " + row["doc"]["answer"].rpartition("#### ")[2]]]
    _write(path, rows)
    metrics = judge.run(again).metrics
    assert metrics["gsm8k/exact_match/strict-match"].value == 100.0
    assert metrics["arc_easy/acc"] == result.metrics["arc_easy/acc"]


def test_an_interrupted_run_goes_on_to_the_same_files(
    judged: tuple[StageCall, StageResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    tasks = {"gsm8k": {**GSM8K, "limit": 6}}
    whole = tasks_call(tmp_path / "whole", tasks, batch_size=2)
    expected = kept(whole, judge.run(whole))
    cut = tasks_call(tmp_path / "cut", tasks, batch_size=2)
    real, sizes = HFLM.generate_until, []

    def failing(self: Any, requests: Any, *args: Any) -> Any:
        sizes.append(len(requests))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return real(self, requests, *args)

    monkeypatch.setattr(HFLM, "generate_until", failing)
    with pytest.raises(KeyboardInterrupt):
        judge.run(cut)
    assert kept(cut, judge.run(cut)) == expected
    assert sizes == [2, 2, 2, 2], "each batch is kept, and what is answered is not answered again"


def test_the_leaderboards_tasks_stay_its_own_and_with_shots_or_a_metric_are_the_packages() -> None:
    tasks = {
        "arc_challenge": {"folder": str(DATA / "arc_challenge")},
        "hellaswag": {"folder": str(DATA / "hellaswag"), "shots": 0},
    }
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})
    assert isinstance(made.tasks["arc_challenge"], TaskData)
    assert made.metrics(None) == ["arc_challenge", "hellaswag/acc", "hellaswag/acc_norm"]


def test_a_task_without_a_place_is_looked_for_in_the_folder_of_given_data() -> None:
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": {"gsm8k": None}})
    [task] = made.package_tasks.values()
    assert task.place is not None
    assert task.place.path == "data:gsm8k"


def test_a_snapshot_of_the_hub_is_read_by_the_packages_configuration_or_the_specs(
    tmp_path: Path,
) -> None:
    def splits(name: str, config: str | None, **files: str) -> dict[str, int]:
        folder = tmp_path / f"{name}-{config}"
        for place, source in files.items():
            path = folder / place.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DATA / "gsm8k" / source, path.with_suffix(".jsonl"))
        hub = {"id": "some/set", "revision": "0" * 40, "config": config}
        task = PackageTask.model_validate({"hub": hub, "shots": None if name == "gsm8k" else 0})
        [questions] = read_package_task(tasks_of(name)[0], task, {f"task-{name}": str(folder)})
        return {split: len(rows) for split, rows in questions.splits.items()}

    main = {"main__test": "test.jsonl", "main__train": "train.jsonl"}
    assert splits("gsm8k", None, **main) == {"train": 6, "test": 6}
    other = {"other__test": "test.jsonl", "other__train": "train.jsonl"}
    assert splits("gsm8k", "other", **other) == {"train": 6, "test": 6}
    task = PackageTask.model_validate({"hub": {"id": "some/set", "revision": "0" * 40}})
    with pytest.raises(InputError, match="no folder of the data set some/set"):
        read_package_task(tasks_of("gsm8k")[0], task, {})


def test_one_file_alone_is_the_split_train(tmp_path: Path) -> None:
    _write(tmp_path / "ifeval_input_data.jsonl", [{"prompt": "Go."}])
    task = PackageTask.model_validate({"folder": str(tmp_path)})
    [questions] = read_package_task(tasks_of("ifeval")[0], task, {})
    assert questions.splits == {"train": [{"prompt": "Go."}]}


@pytest.mark.parametrize("keys", [("url", "sha256"), ("path", "sha256"), ("sha256",)])
def test_a_file_by_its_address_or_digest_is_no_map_of_splits(keys: tuple[str, ...]) -> None:
    every = {"url": "https://example.com/q.jsonl", "path": "data:q.jsonl", "sha256": "0" * 64}
    file = {key: every[key] for key in keys}
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": {"gsm8k": {"data": file}}})
    task = made.package_tasks["gsm8k"]
    assert task.files is None
    assert task.place == DataPath.model_validate(file)


def test_a_file_with_its_digest_is_no_map_of_splits() -> None:
    file = {"path": "data:gsm8k.jsonl", "sha256": "0" * 64}
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": {"gsm8k": {"data": file}}})
    again = TasksJudge.model_validate(made.model_dump())
    assert again == made
    assert [task.files for task in again.package_tasks.values()] == [None]


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ({"gsm8kk": {}}, "lm-eval has no task 'gsm8kk'; did you mean gsm8k"),
        ({"arc_easy": {"metric": "acc_nrm"}}, "no metric 'acc_nrm'; did you mean 'acc_norm'. It gives"),
        ({"arc_easy": {"max_new_tokens": 8}}, "arc_easy: max_new_tokens is of answers that the model"),
        ({"ifeval": {"shots": 5}}, "lm-eval sets ifeval to no shots"),
        ({"squadv2": {}}, "lm-eval's task squadv2 is Python of its own"),
        ({"humaneval": {}}, "lm-eval's task humaneval runs the code that a model writes"),
        ({"arc_easy": {}, "ai2_arc": {"folder": "g"}},
         "task arc_easy is asked for twice, by arc_easy and by ai2_arc"),
        ({"piqa": {"data": "x", "folder": "y"}}, "give one of data, folder, hub"),
    ],
)  # fmt: skip
def test_what_the_package_cannot_do_is_told_when_the_spec_is_read(
    tasks: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})


def test_what_the_data_lack_is_told_before_anything_runs(tmp_path: Path) -> None:
    def check(name: str, **task: Any) -> None:
        TasksJudge.model_validate({"kind": "lm_eval", "tasks": {name: task}}).check([], {})

    goals = tmp_path / "goals.jsonl"
    _write(goals, [{"goal": "Open a door", "sol1": "Push it.", "label": 0}])
    with pytest.raises(
        InputError, match=r"goals\.jsonl has no column sol2, which lm-eval's template"
    ):
        check("piqa", data=str(goals))
    with pytest.raises(InputError, match=r"one file, and the split 'train' is needed too"):
        check("gsm8k", data=str(DATA / "gsm8k" / "test.jsonl"))
    with pytest.raises(InputError, match="one file, and a group or tag has several tasks") as e:
        check("ai2_arc", data=str(DATA / "arc_challenge" / "test.jsonl"))
    assert "a folder of each task's files" in str(e.value.hint)
    with pytest.raises(InputError, match="no file of the split 'test' is given"):
        check("gsm8k", data={"train": str(DATA / "gsm8k" / "train.jsonl")})
    with pytest.raises(InputError, match="the split train has 6 records, and 7 are shown"):
        check("gsm8k", folder=str(DATA / "gsm8k"), shots=7)
    with pytest.raises(InputError, match="task arc_easy: no split 'test'"):
        check("arc_easy", folder=str(DATA / "hellaswag"))


def test_a_record_without_a_right_answer_is_told_by_file_and_number_before_the_run(
    tmp_path: Path,
) -> None:
    rows = _rows(DATA / "arc_challenge" / "test.jsonl")
    rows[6] = {name: value for name, value in rows[6].items() if name != "answerKey"}
    _write(tmp_path / "test.jsonl", rows)

    def check(**more: Any) -> None:
        tasks = {"arc_easy": {"data": str(tmp_path / "test.jsonl")}}
        TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks, **more}).check([], {})

    with pytest.raises(InputError, match=r"test\.jsonl:7: no right answer can be read"):
        check()
    check(first=6)


def test_of_choices_whose_beginning_was_cut_it_is_said_how_many_questions_they_are_of(
    tmp_path: Path,
) -> None:
    model = random_model(max_position_embeddings=32)
    result = judge.run(tasks_call(tmp_path, {"arc_easy": ARC}, model, first=2))
    [finding] = [f for f in result.findings if f.kind == "empty_or_truncated"]
    assert "8 of the 8 prompts of 2 questions (one for each choice)" in finding.message


def test_a_missing_package_of_a_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = catalogue.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda n: None if n in ("langdetect", "immutabledict") else found(n),
    )
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": {"ifeval": {}}})
    with pytest.raises(
        InputError, match="ifeval needs immutabledict and langdetect, which are"
    ) as e:
        made.check([], {})
    assert e.value.hint == "pip install immutabledict langdetect"


def test_data_that_a_tasks_functions_cannot_read_are_refused_before_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    _write(tmp_path / "w.jsonl", [{"sentence": "A _ b.", "option1": "x", "answer": "1"}])
    call = tasks_call(tmp_path, {"winogrande": {"data": str(tmp_path / "w.jsonl")}})
    call.params["model"] = {"path": {"path": "nowhere"}}
    with pytest.raises(
        InputError,
        match=r"task winogrande: .*w\.jsonl:1: it cannot be read by lm-eval's .*option2",
    ):
        judge.run(call)
    good = {"sentence": "A _ b.", "option1": "x", "option2": "y", "answer": "1"}
    _write(tmp_path / "w.jsonl", [good, {**good, "answer": "3"}])
    with pytest.raises(InputError, match=r"w\.jsonl:2: it cannot be read .*: KeyError: '3'"):
        judge.run(call)


def test_a_record_that_a_tasks_function_cannot_read_is_told_before_the_run(tmp_path: Path) -> None:
    good = {"sentence": "A _ b.", "option1": "x", "option2": "y", "answer": "1"}
    _write(tmp_path / "w.jsonl", [good, {**good, "answer": ""}])
    tasks = {"winogrande": {"data": str(tmp_path / "w.jsonl")}}
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})
    with pytest.raises(
        InputError, match=r"w\.jsonl:2: it cannot be read by .*doc_to_text: KeyError"
    ):
        made.check([], {})
    made.model_copy(update={"first": 1}).check([], {})


def test_what_ifeval_needs_of_nltk_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr("harness.judge.kinds.lm_eval.check_packages", lambda entry: None)
    record = {"key": 1, "prompt": "Write.", "kwargs": [{}]}
    row = {**record, "instruction_id_list": ["length_constraints:number_sentences"]}
    _write(tmp_path / "i.jsonl", [{**record, "instruction_id_list": ["keywords:existence"]}, row])
    tasks = {"ifeval": {"data": {"train": str(tmp_path / "i.jsonl")}}}
    made = TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})
    with pytest.raises(InputError, match="need nltk's data punkt_tab, which is not here") as e:
        made.check([], {})
    assert "python -m nltk.downloader punkt_tab" in e.value.hint
    made.model_copy(update={"first": 1}).check([], {})


def test_each_fault_of_the_tasks_stands_in_its_own_place() -> None:
    tasks = {"gsm8kk": {}, "arc_easy": {}, "piqqa": {}}
    with pytest.raises(ValidationError) as error:
        TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})
    places = [fault["loc"] for fault in error.value.errors()]
    assert places == [("tasks", "gsm8kk"), ("tasks", "piqqa")]


def test_a_reported_metric_that_no_task_gives_is_refused_with_the_nearest(tmp_path: Path) -> None:
    from harness.row.load import load_rows

    text = (SMOKE / "eval_any_task.yaml").read_text()
    text = text.replace("extends: _base.yaml", f"extends: {SMOKE / '_base.yaml'}")
    text = text.replace("tasks/", f"{DATA}/") + "reported: {arc_easy/acc: 54.1}\n"
    (tmp_path / "row.yaml").write_text(text)
    with pytest.raises(InputError, match="no such metric; did you mean 'arc_easy/acc_norm'"):
        load_rows([tmp_path / "row.yaml"])


def test_a_twin_asks_made_up_questions_and_says_which_tasks_it_leaves_out() -> None:
    tasks = {"piqa": {}, "gsm8k": {}}
    twin = TasksJudge.model_validate({"kind": "lm_eval", "tasks": tasks})
    assert list(twin.twin(SMOKE).tasks) == ["gsm8k"]
    assert "tasks without made-up questions are left out: piqa" in list(twin.replaced_in_twin())
    assert list(
        twin.model_copy(update={"tasks": {"piqa": twin.tasks["piqa"]}}).twin(SMOKE).tasks
    ) == ["gsm8k"]


def test_every_metric_that_a_task_says_is_better_lower_is_known_as_such() -> None:
    """Of those that tasks name by themselves in the package's files."""
    root = catalogue.package_folder()
    assert root is not None
    paths, _ = catalogue._index(root)
    for name in ("wikitext", "lambada_openai", "crows_pairs_english", "pile_arxiv", "bbq"):
        entry = catalogue.find(name)
        assert entry is not None
        assert paths[name] == entry.path
        for metric in entry.config["metric_list"]:
            if metric.get("higher_is_better") is False:
                assert not metric_of(f"{name}/{metric['metric']}").higher_is_better, metric


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
