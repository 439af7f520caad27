"""The comparability guard: what sets rows apart beside what their table studies, and what does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.results.comparability import confounded, differences, message
from harness.results.matrix import lines_of, together
from harness.results.settings import settings_of
from harness.row.load import SpecFaults, load_rows
from harness.row.twin import scaled
from harness.run.plan import RowPlan
from tests.helpers import ROOT, InstantExecutor, evaluation, make, planned, planner, write_row
from tests.results.matrix_rows import SCORE, lines

Write = Callable[..., Path]


def plans(*specs: Path) -> list[RowPlan]:
    """As for rows that never ran and whose data is not there."""
    return [RowPlan(loaded.row, loaded.path, []) for loaded in load_rows(specs)]


def told(*specs: Path) -> dict[str, list[str]]:
    return {row: list(map(str, found)) for row, found in confounded(plans(*specs)).items()}


@pytest.fixture
def judged(tmp_path: Path) -> Write:
    """Writes a row; `answer`, `judge` change these parts of its evaluation."""
    folder = tmp_path / "specs"

    def write(name: str, answer: Any = None, judge: Any = None, **changes: Any) -> Path:
        parts = evaluation(folder, judge={"model": "judge"})
        parts["answer"] |= answer or {}
        parts["judge"] |= judge or {}
        changes = {"gen": None, "train": None, "eval": parts} | changes
        return write_row(folder, name, **changes)

    return write


def test_an_untrained_baseline_at_another_temperature_is_not_compared_with_the_trained_rows() -> (
    None
):
    specs = sorted((ROOT / "specs" / "mini_lima").glob("line_*.yaml"))
    specs = [path for path in specs if load_rows([path])[0].row.table == "mini-lima"]
    found = confounded(plans(*specs))
    assert list(found) == ["mini-lima-01"]
    (only,) = found["mini-lima-01"]
    assert str(only) == "decoding.temperature: 0.1 against 0.7"
    assert len(only.rows) == len(specs) - 1
    said = message(found["mini-lima-01"])
    assert "in mini-lima-02, mini-lima-03, mini-lima-04 and 9 more" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": {"decoding": {"temperature": 0.7}}}, "decoding.temperature: 0.7 against 0"),
        (
            {"answer": {"decoding": {"max_new_tokens": 64}}},
            "decoding.max_new_tokens: 64 against 2048",
        ),
        ({"answer": {"engine": {"precision": "bfloat16"}}},
         "engine precision: bfloat16 against float32"),
        ({"answer": {"prompts": {"file": "prompts.jsonl", "first": 40}}},
         "prompts: first 40 prompts against all prompts"),
        ({"answer": {"prompts": {"file": "seeds.jsonl"}}},
         "prompt set: seeds.jsonl against prompts.jsonl"),
        ({"judge": {"judge": {"model": "another"}}},
         "judge: preference / another against preference / judge"),
        ({"judge": {"sampling": {"temperature": 1}}},
         "judge.sampling.temperature: 1 against 0"),
        ({"judge": {"reference": "seeds.jsonl"}}, "baseline: seeds.jsonl against prompts.jsonl"),
        ({"answer": {"engine": {"kind": "vllm", "precision": "float32"}}},
         "answers: vllm against transformers"),
    ],
)  # fmt: skip
def test_each_setting_of_the_evaluation_in_which_one_row_differs_is_named(
    judged: Write, changes: dict[str, Any], words: str
) -> None:
    found = told(judged("one"), judged("two"), judged("other", **changes))
    assert found == {"other": [words]}


def test_the_same_bytes_at_two_places_are_one_setting_and_others_at_one_place_are_told(
    tmp_path: Path,
) -> None:
    specs = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    paths = [
        write_row(
            folder, folder.name, gen=None, train=None, eval=evaluation(folder, judge={"model": "j"})
        )
        for folder in specs
    ]
    prompts = specs[2] / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace("Say", "Tell"))
    plans = [planned(tmp_path / "runs", path)[0] for path in paths]
    damaged = RowPlan(plans[0].row, plans[0].spec, [])
    assert not confounded([damaged, plans[1]])
    found = confounded([damaged, *plans[1:]])
    assert list(found) == ["c"]
    assert {difference.setting for difference in found["c"]} >= {"prompt set", "baseline"}


def test_a_judge_at_the_same_server_is_the_same_with_a_slash_at_its_end(judged: Write) -> None:
    at = [{"judge": {"model": "judge", "base_url": url}} for url in ("http://h/v1", "http://h/v1/")]
    one, two = (judged(name, judge=judge) for name, judge in zip(("one", "two"), at, strict=True))
    assert told(one, two) == {}


def test_the_base_that_a_qlora_row_is_scored_on_is_among_the_settings_that_are_compared(
    tmp_path: Path,
) -> None:
    (tmp_path / "examples.jsonl").write_text('{"instruction": "Why?", "output": "So."}\n')
    specs = []
    for name, base in (("one", "as_trained"), ("two", "as_trained"), ("other", "none")):
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(
            f"extends: {ROOT / 'specs/smoke/train_qlora.yaml'}\nrow: {name}\n"
            "eval:\n  judge: {kind: held_out_loss, examples: {file: examples.jsonl}, "
            f"quantization: {base}}}\n"
        )
        specs.append(spec)
    bases = [
        settings_of(plan, every_setting=False)["eval.judge.quantization"].text
        for plan in plans(*specs)
    ]
    assert bases == ["as_trained", "as_trained", "none"]


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": {"engine": {"batch_size": 3, "batching": "continuous", "threads": 1}}},
        {"answer": {"decoding": {"seed": 7}}},
        {"answer": {"decoding": {"top_p": 0.5}}},  # greedy, as all are
        {"answer": {"engine": {"kind": "null"}, "decoding": {"temperature": 0.7}}},
        {"answer": {"engine": {"kind": "reference", "outputs": "prompts.jsonl"}}},
        {"answer": {"engine": {"kind": "endpoint", "endpoint": {"model": "a-closed-one"}}}},
        {"judge": {"on_model_change": "stop", "transcript": "seeds.jsonl"}},
        {"model": {"random": {"config": {"model_type": "llama"}}}, "title": "Another model"},
    ],
)
def test_what_moves_no_score_by_design_and_what_only_a_control_has_is_no_difference(
    judged: Write, changes: dict[str, Any]
) -> None:
    assert told(judged("one"), judged("two"), judged("other", **changes)) == {}


def test_given_outputs_whose_decoding_is_not_known_are_told_from_a_models_own(
    judged: Write,
) -> None:
    given = {"engine": {"kind": "reference", "outputs": "seeds.jsonl"}}
    found = told(judged("one"), judged("two"), judged("other", answer=given))
    assert found == {"other": ["answers: given outputs (seeds.jsonl) against transformers"]}


def test_answer_prompts_are_compared_by_their_text_and_shown_by_their_names(
    judged: Write, tmp_path: Path
) -> None:
    for folder, text in {
        "a": "{instruction}",
        "b": "{instruction}",
        "c": "> {instruction}",
    }.items():
        (tmp_path / "specs" / folder).mkdir(parents=True)
        (tmp_path / "specs" / folder / "bare.txt").write_text(text)
    one, two, other = (
        judged(name, answer={"template": {"prompt": f"{folder}/bare.txt"}})
        for name, folder in (("one", "a"), ("two", "b"), ("other", "c"))
    )
    assert told(one, two) == {}
    (only,) = told(one, two, other)["other"]
    assert only.startswith("prompt of the answers: bare.txt (")
    left, _, right = only.partition(" against ")
    assert left.split()[-1] != right.split()[-1]
    own = judged("own")
    (only,) = told(one, two, own)["own"]
    assert only == "prompt of the answers: prompt.txt against bare.txt"


def test_rows_asked_as_they_were_trained_do_not_differ_in_the_prompt_of_the_answers(
    judged: Write, tmp_path: Path
) -> None:
    one, two = judged("one"), judged("two")
    (tmp_path / "specs" / "other.txt").write_text("{instruction}!")
    template = {"prompt": "other.txt"}
    assert told(one, two, judged("other", template=template)) == {}
    explicit = judged("other", template=template, answer={"template": template})
    assert told(one, two, explicit) == {}


def test_what_a_table_studies_is_not_listed_and_all_else_then_is(judged: Write) -> None:
    def row(name: str, **changes: Any) -> Path:
        studied = ["eval.answer.decoding", "model"]
        return judged(name, data="seeds.jsonl", studied=studied, **changes)

    hot = {"decoding": {"temperature": 0.7, "max_new_tokens": 9}}
    model = {"random": {"config": {"model_type": "llama"}}}
    train = {"steps": 1, "learning_rate": 0.1, "seed": 3, "threads": 1}
    found = told(
        row("one", train={"steps": 1}),
        row("two", train={"steps": 1}),
        row("other", train=train, answer=hot, model=model),
        row("untrained"),
    )
    assert found == {
        "other": ["train.learning_rate: 0.1 against 2e-05"],
        "untrained": ["train: none against full"],
    }


def test_a_studied_part_that_specs_do_not_have_is_a_fault_with_its_place(judged: Write) -> None:
    with pytest.raises(SpecFaults) as faults:
        load_rows([judged("one", studied=["train", "eval.answer.templat"])])
    said = str(faults.value.faults[0])
    assert "one.yaml:" in said
    assert "specs have no such part; known at 'templat'" in said
    assert "'eval.answer.templat'" in said
    with pytest.raises(SpecFaults, match="known at 'title'"):
        load_rows([judged("one", studied=["title"])])


def test_of_two_rows_that_differ_neither_is_the_usual_one(judged: Write) -> None:
    hot = judged("hot", answer={"decoding": {"temperature": 0.7}})
    found = confounded(plans(judged("cold"), hot))
    assert {row: [(str(d), d.rows) for d in ds] for row, ds in found.items()} == {
        "cold": [("decoding.temperature: 0 against 0.7", ("hot",))],
        "hot": [("decoding.temperature: 0.7 against 0", ("cold",))],
    }


def test_rows_of_other_tables_and_of_other_metrics_are_not_compared(judged: Write) -> None:
    examples = {"kind": "held_out_loss", "examples": {"file": "prompts.jsonl"}}
    loss = judged("loss", eval={"judge": examples})
    hot = judged("hot", answer={"decoding": {"temperature": 0.7}}, table="another")
    assert told(judged("one"), judged("two"), loss, hot) == {}
    first, second = plans(judged("one"), hot)
    assert [str(d) for d in differences(first, second)] == ["decoding.temperature: 0 against 0.7"]


def test_two_judges_differ_once_and_not_in_every_setting_that_only_one_of_them_has(
    judged: Write,
) -> None:
    alpaca = {"kind": "alpaca_eval", "judge": {"model": "gpt-3.5-turbo-0301"},
              "reference": "prompts.jsonl"}  # fmt: skip
    parts = {"answer": {"prompts": {"file": "prompts.jsonl"}}, "judge": alpaca}
    first, second = plans(judged("one", eval=parts), judged("two"))
    assert [str(d) for d in differences(first, second)] == [
        "judge: chatgpt / gpt-3.5-turbo-0301 against preference / judge"
    ]


def test_versions_and_served_models_that_the_manifests_name_set_rows_apart(
    judged: Write, tmp_path: Path
) -> None:
    specs = [
        judged("one", answer={"decoding": {"seed": 1}}, studied=["model"]),
        judged("two", answer={"decoding": {"seed": 2}}, studied=["model"]),
    ]

    def executor(version: str, served: str) -> InstantExecutor:
        packages = {"transformers": version, "torch": "2", "rich": version}
        used = {"environment": {"packages": packages}, "served_models": [served]}
        return InstantExecutor(
            lambda job: (
                {"used": used, "metrics": {"win_rate": SCORE}}
                if job.stage == "judge"
                else {"used": used}
            )
        )

    make(tmp_path / "runs", specs[0], executor=executor("4.1", "judge-2024"))
    make(tmp_path / "runs", specs[1], executor=executor("5.0", "judge-2025"))
    first, second = planned(tmp_path / "runs", *specs)
    assert sorted(str(d) for d in differences(first, second)) == [
        "judge as served: judge-2024 against judge-2025",
        "transformers package of the answers: 4.1 against 5.0",
    ]
    assert differences(first, first) == []
    (line, _) = lines(tmp_path / "runs", *specs)
    assert "transformers package of the answers: 4.1 against 5.0" in line.cells.confounded


def test_a_row_that_is_confounded_says_so_in_its_lines_and_its_losses_of_training_do_not(
    judged: Write, tmp_path: Path
) -> None:
    training = {"steps": 1, "validation": {"share": 0.5}}
    specs = [
        judged("one", data="seeds.jsonl", train=training),
        judged("two", data="seeds.jsonl", train=training),
        judged("hot", data="seeds.jsonl", train=training,
               answer={"decoding": {"temperature": 0.7}}),
    ]  # fmt: skip
    loaded = load_rows(specs)
    each = [line for row in loaded for line in lines_of(row, [planner(tmp_path / "runs")])]
    marked = {(m.cells.row, m.cells.metric) for m in together(each) if m.cells.confounded}
    assert marked == {("hot", "")}
    (line,) = [m for m in together(each) if m.cells.confounded]
    assert str(line.findings[-1]).startswith("confounded: differs from other rows")
    assert "confounded" in line.cells.findings


def test_a_data_set_that_recipes_make_is_named_by_them_and_its_size(tmp_path: Path) -> None:
    parts = {"studied": [], "eval": None}
    made = write_row(tmp_path / "specs", "made", **parts)
    given = write_row(tmp_path / "specs", "given", gen=None, data="seeds.jsonl", **parts)
    first, second = plans(made, given)
    assert "data set: made by recipe alpaca against seeds.jsonl" in map(
        str, differences(first, second)
    )
    volume = tmp_path / "runs"
    make(volume, made, executor=InstantExecutor(lambda job: {"counts": {"examples": 130}}))
    first, second = planned(volume, made, given)
    assert "data set: seeds.jsonl against made by recipe alpaca, 130 examples" in map(
        str, differences(second, first)
    )


def test_twins_are_compared_by_architecture_and_not_by_what_stands_for_their_rows_data(
    judged: Write,
) -> None:
    def twin(name: str, family: str, seed: int, data: str, **changes: Any) -> Path:
        model = {"random": {"config": {"model_type": family, "hidden_size": seed}, "seed": seed}}
        prompts = {"prompts": {"file": data}}
        parts = {"model": model, "data": data, "train": {"steps": 1}, "studied": ["train"]}
        answer = prompts | changes
        return judged(name, scale="tiny", answer=answer, judge={"reference": data}, **parts)

    one = twin("one", "qwen2", 8, "seeds.jsonl")
    two = twin("two", "qwen2", 16, "prompts.jsonl")
    assert told(one, two) == {}
    first, second = plans(one, two)
    assert differences(first, second) == []
    hot = twin("hot", "llama", 8, "prompts.jsonl", decoding={"temperature": 0.7})
    assert told(one, two, hot) == {
        "hot": [
            "base model: random llama against random qwen2",
            "decoding.temperature: 0.7 against 0",
        ]
    }


def test_no_twin_of_the_studies_is_told_of_its_random_weights() -> None:
    for folder in ("mini_lima", "mini_lima_assignment", "orpo_lab"):
        rows = [scaled(loaded) for loaded in load_rows([ROOT / "specs" / folder])]
        found = confounded([RowPlan(loaded.row, loaded.path, []) for loaded in rows])
        settings = {one.setting for differences in found.values() for one in differences}
        assert settings <= {"decoding.temperature"}, folder
