"""What a table may study, and whose word counts between two tables."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harness.results.comparability import differences
from harness.results.settings import settings_of
from harness.row.load import SpecFaults, load_rows
from harness.row.row import Row, _part_of_a_spec
from harness.row.settings import STUDIED
from harness.run.plan import RowPlan
from tests.helpers import ROOT, evaluation, write_row
from tests.results.test_comparability import plans

ROWS = load_rows([ROOT / "specs"])
Write = Callable[..., Path]


@pytest.fixture
def judged(tmp_path: Path) -> Write:
    folder = tmp_path / "specs"

    def write(name: str, answer: Any = None, judge: Any = None, **changes: Any) -> Path:
        parts = evaluation(folder, judge={"model": "judge"})
        parts["answer"] |= answer or {}
        parts["judge"] |= judge or {}
        return write_row(folder, name, **{"gen": None, "train": None, "eval": parts} | changes)

    return write


def apart(*specs: Path) -> list[str]:
    first, second = plans(*specs)
    return [str(one) for one in differences(first, second)]


@pytest.mark.parametrize(
    ("path", "works"),
    [
        ("model.random.seed", "model"),
        ("model.hub.id", "model"),
        ("data.path", "data"),
        ("template.name", "template"),
        ("gen.teacher.model", "gen.teacher"),
        ("gen.recipe", "gen"),
        ("eval.judge.judge.model", "eval.judge.judge"),
        ("eval.judge.rubric.name", "eval.judge.rubric"),
        ("eval.judge.reference.path", "eval.judge.reference"),
        ("eval.answer.template.prompt", "eval.answer.template"),
        ("eval.answer.engine.endpoint.model", "eval.answer.engine.endpoint"),
        ("eval.answer.prompts.sample.k", "eval.answer.prompts.sample"),
        ("eval.answer.prompts.file.path", "eval.answer.prompts.file"),
    ],
)
def test_what_is_compared_as_a_whole_is_studied_as_a_whole(
    judged: Write, path: str, works: str
) -> None:
    with pytest.raises(SpecFaults) as faults:
        load_rows([judged("one", studied=["train", path])])
    said = str(faults.value.faults[0])
    assert "one.yaml:" in said
    assert said.endswith(f"{works} is compared as a whole: write {works} (here: {path!r})")
    assert load_rows([judged("one", studied=[works])])


def test_what_has_no_parts_or_is_not_compared_is_refused_in_words(judged: Write) -> None:
    for path, words in {
        "train.optimizer.foo": "train.optimizer has no parts of its own: write train.optimizer",
        "train.threads": "train.threads is not compared between rows",
        "train.seed": "train.seed is not compared between rows",
        "eval.answer.engine.concurrency": "eval.answer.engine.concurrency is not compared",
        "train.validation.every_steps": "train.validation.every_steps is not compared",
    }.items():
        with pytest.raises(SpecFaults, match=words):
            load_rows([judged("one", studied=[path])])


def written(value: Any, path: str) -> Iterator[str]:
    """Every dotted path of a row's parts."""
    yield path
    if isinstance(value, list):
        for one in value:
            if isinstance(one, BaseModel):
                yield from written(one, path)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from written(getattr(value, name), f"{path}.{name}")


def can_be_studied(path: str) -> bool:
    try:
        _part_of_a_spec(path)
    except ValueError:
        return False
    return True


def test_every_path_that_can_be_studied_covers_a_setting_of_the_rows_that_have_it() -> None:
    covered: set[str] = set()
    wanted: set[str] = set()
    for loaded in ROWS:
        row: Row = loaded.row
        found = settings_of(RowPlan(row, loaded.path, []), every_setting=True)
        for setting in found.values():
            for path in setting.paths:
                assert can_be_studied(path), (row.row, path)
                parts = path.split(".")
                covered |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        wanted |= {p for name in STUDIED for p in written(getattr(row, name), name)}
    of_controls = {"eval.answer.engine.output", "eval.answer.engine.outputs"}
    idle = {path for path in wanted - covered - of_controls if can_be_studied(path)}
    assert idle == set()


def test_a_controls_answers_against_a_models_are_no_matter_of_what_is_studied(
    judged: Write,
) -> None:
    constant = {"engine": {"kind": "null", "output": "No."}}
    baseline = {"engine": {"kind": "reference", "outputs": "prompts.jsonl"}}
    one = judged("one", studied=["train"])
    null = judged("null", answer=constant, studied=["train"])
    own = judged("own", answer=baseline, studied=["train"])
    said = "answers: the row's model's against a control's, no model's: the constant 'No.'"
    assert apart(one, null) == [said]
    assert apart(one, own)[0].endswith("a control's, no model's: the baseline's own outputs")
    assert len(apart(null, own)) == 1
    assert apart(null, judged("again", answer=constant, studied=["train"])) == []
    studied = ["eval.answer.engine.kind"]
    one = judged("one", studied=studied)
    assert apart(one, judged("null", answer=constant, studied=studied)) == []


def test_between_two_tables_only_what_both_study_is_studied(judged: Write) -> None:
    model = {"random": {"config": {"model_type": "llama"}}}
    hot = {"decoding": {"temperature": 0.7}}
    both = {"model": model, "answer": hot}
    one = judged("one", studied=["model", "eval.answer.decoding"])
    assert apart(one, judged("two", studied=["model"], **both)) == []
    assert apart(one, judged("two", studied=["model"], table="other", **both)) == [
        "decoding.temperature: 0 against 0.7"
    ]


def test_two_tables_of_the_studies_with_other_training_layouts_are_told_apart() -> None:
    said = apart(
        ROOT / "specs/mini_lima/line_02_338_default_prompt.yaml",
        ROOT / "specs/mini_lima_paper/table2_0.5b_improved.yaml",
    )
    assert [one.partition(":")[0] for one in said] == [
        "template", "data set", "decoding.temperature",
    ]  # fmt: skip


def test_a_baseline_from_a_file_is_not_another_rows_outputs_whatever_is_studied(
    judged: Write,
) -> None:
    studied = ["model", "eval.judge.reference"]
    base = judged("base", studied=studied)
    other = judged(
        "two", studied=studied, table="other", judge={"reference": {"spec": "base.yaml"}}
    )
    assert apart(base, other) == ["baseline: prompts.jsonl against the outputs of base"]
    other = judged("two", studied=studied, judge={"reference": {"spec": "base.yaml"}})
    assert apart(base, other) == []


def test_what_takes_examples_away_or_draws_others_is_named_and_replicates_are_not(
    judged: Write,
) -> None:
    def row(name: str, studied: str = "model", **changes: Any) -> Path:
        train = {"steps": 1} | changes.pop("train", {})
        gen = [{"recipe": "import", "file": "seeds.jsonl"},
               {"recipe": "random_k", "k": 3, "seed": 1} | changes.pop("last", {})]  # fmt: skip
        return judged(name, studied=[studied], gen=gen, train=train, **changes)

    one = row("one")
    share = {"validation": {"share": 0.5, "seed": 7}}
    assert apart(one, row("two", train=share)) == ["train.validation.share: none against 0.5"]
    held_out = {"validation": {"share": 0.5}}
    assert apart(row("three", train=share), row("two", train=held_out)) == [
        "train.validation.seed: 7 against 42"
    ]
    file = {"validation": {"file": "seeds.jsonl"}}
    assert apart(one, row("two", train=file)) == []
    assert apart(one, row("two", last={"seed": 2})) == ["gen.seed: 1 against 2"]
    assert apart(one, row("two", judge={"asks": 5})) == ["judge.asks: 2 against 5"]
    again = {"decoding": {"seed": 9}}
    assert apart(one, row("two", train={"seed": 9}, answer=again)) == []
    first, second = row("one", "train"), row("two", "train", train=share)
    assert apart(first, second) == []
