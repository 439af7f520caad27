"""Where a row's settings come from: one source each, inherited, checked, and told in words."""

from pathlib import Path

import pytest

from harness.cli.views.sources import status_of
from harness.row.inherited import stale_in
from harness.row.load import SpecFaults, load_rows
from harness.row.row import Row

COMMIT = "6a96b962" + "0" * 32
BASE = f"""\
table: tests
title: A row
model: {{random: {{config: {{model_type: qwen2}}}}}}
template: {{prompt: prompt.txt}}
data: data.json
train: {{epochs: 2, learning_rate: 1.0e-5, betas: [0.9, 0.95]}}
sources:
  model: {{document: "README, Setup"}}
  template: {{assumption: "not stated; the usual one; could move it by a point"}}
  data: {{document: README, also: "the repository has 338 lines"}}
  train: {{repository: a/b, commit: {COMMIT}, file: run.sh, line: 12}}
  train.betas: {{assumption: AdamW's usual ones}}
  train.epochs: {{deviation: "the document has 3; ours is 2", document: "README, Training"}}
  eval: {{document: README}}
assumptions: [AdamW's usual ones, the log is whole]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.txt").write_text("{instruction}")
    (tmp_path / "data.json").write_text("[]")
    (tmp_path / "_base.yaml").write_text(BASE)
    return tmp_path


def row_of(text: str) -> Row:
    Path("a.yaml").write_text("extends: _base.yaml\nrow: a\n" + text)
    return load_rows([Path("a.yaml")])[0].row


def faults_of(text: str) -> list[str]:
    with pytest.raises(SpecFaults) as caught:
        row_of(text)
    return [str(fault) for fault in caught.value.faults]


def sources_of(row: Row) -> dict[str, str]:
    return {s.path: str(s.source) for s in row.settings() if s.source is not None}


def test_of_the_keys_that_begin_a_setting_the_longest_says_its_source(folder: Path) -> None:
    sources = sources_of(row_of(""))
    assert sources["train.learning_rate"] == "a/b@6a96b962 run.sh:12"
    assert sources["train.betas"] == "AdamW's usual ones"
    assert sources["train.epochs"] == "README, Training; the document has 3; ours is 2"
    assert sources["data"] == "README; also: the repository has 338 lines"


def test_a_key_covers_whole_names_alone(folder: Path) -> None:
    row = row_of(
        "train: {warmup_steps: 3, warmup_ratio: null}\nsources: {train.warmup_steps: {document: X}}"
    )
    sources = sources_of(row)
    assert sources["train.warmup_steps"] == "X"
    with pytest.raises(SpecFaults, match=r"train\.warmup: the row has no such setting"):
        row_of("sources: {train.warmup: {document: X}}")


def test_a_source_replaces_the_inherited_one_whole(folder: Path) -> None:
    row = row_of("sources: {train: {document: Table 2}, train.epochs: {assumption: guessed}}")
    assert sources_of(row)["train.scheduler"] == "Table 2"
    assert sources_of(row)["train.epochs"] == "guessed"
    assert row.stated("deviation") == []


def test_the_source_of_the_row_is_still_merged_and_that_of_a_number_replaced(folder: Path) -> None:
    """The row's own `source` names a line of the document that its base names."""
    Path("_base.yaml").write_text(
        BASE + "source: {document: D}\nreported: {train_loss: {value: 2, source: {document: D}}}\n"
    )
    row = row_of(
        "source: {line: 4}\n"
        f"reported: {{train_loss: {{source: {{repository: a/b, commit: {COMMIT}, file: x.csv}}}}}}"
    )
    assert row.source is not None
    assert (row.source.document, row.source.line) == ("D", 4)
    assert str(row.reported["train_loss"].source) == "a/b@6a96b962 x.csv"
    assert row.reported["train_loss"].value == 2


def test_an_inherited_source_of_a_part_that_the_row_does_without_is_no_fault(folder: Path) -> None:
    row = row_of("train: null\nassumptions: []")
    assert not any(path.startswith("train") for path in sources_of(row))
    # And what it assumes is none of this row's.
    assert row.stated("assumption") == [
        "AdamW's usual ones",
        "the log is whole",
        "template: not stated; the usual one; could move it by a point",
    ]
    assert row.stated("deviation") == []


def test_a_source_of_a_setting_that_the_row_has_not_is_a_fault_with_the_nearest(
    folder: Path,
) -> None:
    assert faults_of("sources:\n  train.learning_rat: {document: X}") == [
        "a.yaml:4:3: sources.train.learning_rat: the row has no such setting; did you "
        "mean 'train.learning_rate'?"
    ]
    (fault,) = faults_of("train: null\nsources: {train.epochs: {document: X}}")
    assert fault.startswith("a.yaml:4:11: sources.train.epochs: the row has no such setting")
    (fault,) = faults_of("sources: {budget.usd: {document: X}}")
    assert "the row has no such setting" in fault


def test_a_misspelt_source_of_the_base_is_a_fault_there(folder: Path) -> None:
    Path("_base.yaml").write_text(BASE.replace("  train.betas:", "  train.beta:"))
    (fault,) = faults_of("train: null")
    assert fault.startswith("_base.yaml:12:3: sources.train.beta: the row has no such setting")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{}", "give document, or repository with commit and file, or assumption, or deviation"),
        (f"{{document: A, repository: a/b, commit: {COMMIT}, file: x}}",
         "give document or repository, and name the other in `also`"),
        ("{assumption: A, deviation: B}", "give assumption or deviation, not both"),
        ("{repository: a/b}", "a repository is given with commit (40 hex digits) and file"),
        ("{document: A, file: x}", "commit, file and line go with repository: OWNER/NAME"),
        ("{repository: a/b, commit: abc, file: x}", "40 hex digits are wanted"),
        ("{documnet: A}", "unknown key; did you mean 'document'?"),
        ("README", "a mapping of keys to values is wanted"),
    ],
)  # fmt: skip
def test_a_source_that_is_none_is_a_fault_with_its_place(
    folder: Path, source: str, fault: str
) -> None:
    (message, *_) = faults_of(f"sources: {{train.epochs: {source}}}")
    assert message.startswith("a.yaml:3:")
    assert "sources.train.epochs" in message
    assert fault in message


def test_what_sources_say_stands_beside_the_rows_own_notes_once(folder: Path) -> None:
    row = row_of(
        "deviations: [another seed]\nsources: {train.epsilon: {assumption: AdamW's usual ones}}"
    )
    assert row.stated("assumption") == [
        "the log is whole",
        "template: not stated; the usual one; could move it by a point",
        "train.betas, train.epsilon: AdamW's usual ones",
    ]
    assert row.stated("deviation") == [
        "another seed",
        "train.epochs: the document has 3; ours is 2",
    ]


def test_what_has_no_source_is_listed_but_for_how_something_is_done(folder: Path) -> None:
    text = BASE[: BASE.index("sources:")]
    Path("a.yaml").write_text(f"row: a\n{text}sources: {{train: {{document: X}}}}\n")
    row = load_rows([Path("a.yaml")])[0].row
    paths = [s.path for s in row.settings() if status_of(s) == "no source"]
    assert "model.random.config" in paths
    assert "data" in paths
    assert "template.prompt" in paths
    assert not [path for path in paths if path.startswith("train")]
    assert "model.trust_remote_code" not in paths


def test_steps_of_a_chain_may_be_named_with_their_number_or_all_at_once(folder: Path) -> None:
    row = row_of(
        "data: null\ngen: [{recipe: import, file: data.json}, {recipe: random_k, k: 3}]\n"
        "sources: {gen: {document: all}, gen.2: {document: second}, gen.recipe: {document: each}}"
    )
    sources = sources_of(row)
    assert sources["gen.1.file"] == "all"
    assert sources["gen.2.k"] == "second"
    assert sources["gen.1.recipe"] == "each"


def test_who_judged_is_said_once_for_all_metrics_and_losses_have_no_judge(folder: Path) -> None:
    row = row_of(
        "reported:\n  judge: {model: gpt-3.5-turbo-0301, annotator: chatgpt}\n  train_loss: 2.0\n"
    )
    assert row.reported.judge_of("train_loss") is None
    assert row.reported.judge is not None
    assert list(row.reported) == ["train_loss"]
    faults = faults_of("reported: {train_loss: {value: 2, judge: {model: x}}}")
    assert "train_loss is a loss, which nobody judges" in faults[0]
    faults = faults_of("reported: {judge: {}}")
    assert "say the judge's model" in faults[0]


def test_published_files_are_given_by_address_and_have_a_digest(folder: Path) -> None:
    sha = "a" * 64
    row = row_of(
        "reported:\n"
        f"  outputs: {{url: 'https://x.org/model_outputs.json', sha256: {sha}}}\n"
        f"  annotations:\n    - {{url: 'https://x.org/a.zip', sha256: {sha}, member: b/a.json}}\n"
        f"    - {{path: data.json, sha256: {sha}}}\n"
    )
    assert not row.reported
    assert [d.name for d in row.reported.outputs] == ["https://x.org/model_outputs.json"]
    assert [d.member for d in row.reported.annotations] == ["b/a.json", None]
    (fault,) = faults_of("reported: {outputs: data.json}")
    assert "the sha256 of what was published is wanted: {path: " in fault
    (fault,) = faults_of("reported: {annotations: [{url: 'https://x.org/a.json'}]}")
    assert fault.startswith("a.yaml:3:")
    assert "an address needs the sha256" in fault


def stale_of(text: str) -> list[str]:
    row = row_of(text)
    return list(stale_in(Path("a.yaml"), row.settings()))


def test_an_inherited_source_is_not_of_a_value_that_the_row_puts_in_the_others_place(
    folder: Path,
) -> None:
    assert stale_of("train: {learning_rate: 3.0e-4}") == ["train.learning_rate"]
    assert stale_of("train: {epochs: 3}") == ["train.epochs"]
    assert stale_of("train: {betas: [0.9, 0.99]}") == ["train.betas"]
    Path("other.json").write_text("[]")
    assert stale_of("data: other.json") == ["data"]


def test_a_source_of_the_rows_own_or_the_same_value_or_one_that_was_open_is_not_stale(
    folder: Path,
) -> None:
    assert stale_of("train: {learning_rate: 1.0e-5, seed: 7}") == []
    own = "sources: {train.learning_rate: {document: X}}"
    assert stale_of(f"train: {{learning_rate: 3.0e-4}}\n{own}") == []
    assert stale_of("sources: {train: {document: X}}\ntrain: {epochs: 4}") == ["train.epochs"]


def test_a_chain_that_is_written_anew_is_compared_step_by_step(folder: Path) -> None:
    Path("seeds.jsonl").write_text("")
    base = BASE.replace("data: data.json\n", "").replace(
        "  data: {document: README, also: ", "  gen: {document: "
    )
    base += "gen: {recipe: random_k, k: 3, seed: 1}\n"
    Path("_base.yaml").write_text(base)
    step = "recipe: import, file: data.json"
    text = f"gen: [{{{step}}}, {{recipe: random_k, k: 4, seed: 1}}]"
    assert stale_of(text) == ["gen.1.recipe", "gen.2.k"]
