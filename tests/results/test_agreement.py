"""Judge replicates: published and hand-computed agreement, and what is said where there is none."""

import csv
import io
import json
import math
import random
from pathlib import Path

import pytest

from harness.results.agreement import (
    agreement_of,
    cohens_kappa,
    fleiss_kappa,
    sentences,
    to_csv,
    to_markdown,
    verdict_of,
    weighted_kappa,
)
from tests.helpers import command, planned
from tests.results.judged_rows import annotations, answers, judged_row

WIN, DRAW, LOSE = 2.0, 1.5, 1.0


def from_table(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Two raters' categories from the counts of each combination."""
    pairs = [
        (a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_kappa_is_that_of_cohens_own_example() -> None:
    # Cohen 1960, 200 cases: .70 agree, .41 by chance.
    first, second = from_table([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    assert cohens_kappa(first, second) == pytest.approx((0.70 - 0.41) / 0.59, abs=1e-12)
    assert cohens_kappa(first, second) == pytest.approx(0.492, abs=5e-4)


def test_kappa_is_nought_at_chance_and_below_it_where_judgings_contradict() -> None:
    assert cohens_kappa(*from_table([[25, 25], [25, 25]])) == 0
    assert cohens_kappa(*from_table([[0, 50], [50, 0]])) == -1
    assert cohens_kappa("ab", "ab") == 1


def test_kappa_is_not_defined_where_both_say_one_thing_throughout() -> None:
    assert cohens_kappa("aaa", "aaa") is None
    assert cohens_kappa("", "") is None
    # Two constants that differ: no agreement, and none by chance.
    assert cohens_kappa("aaa", "bbb") == 0
    assert weighted_kappa([3, 3], [3, 3]) is None
    assert fleiss_kappa(["aa", "aa", "aa"]) is None


def test_weighted_kappa_is_that_of_a_table_computed_by_hand() -> None:
    # Squared differences of the four prompts: 0, 0, 1, 4. Of each score with each, 1 with the other
    # judging's 1 2 2 1: 0 1 1 0; 2: 1 0 0 1; 3, which is there twice: 4 1 1 4. So 5 / 4 and 24 / 16.
    assert weighted_kappa([1, 2, 3, 3], [1, 2, 2, 1]) == pytest.approx(1 - (5 / 4) / (24 / 16))


def test_weighted_kappa_of_two_categories_is_cohens() -> None:
    random.seed(0)
    first = [random.choice([0, 1]) for _ in range(50)]
    second = [one if random.random() < 0.7 else 1 - one for one in first]
    kappa = cohens_kappa(first, second)
    assert kappa is not None
    assert weighted_kappa(first, second) == pytest.approx(kappa, abs=1e-12)


def test_fleiss_kappa_is_that_of_the_textbook_table() -> None:
    # Ten subjects, fourteen raters, five categories: 0.210.
    table = [
        "0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1",
        "7 7 0 0 0", "3 2 6 3 0", "2 5 3 2 2", "6 5 2 1 0", "0 2 2 3 7",
    ]  # fmt: skip
    subjects = [
        [category for category, count in enumerate(map(int, row.split())) for _ in range(count)]
        for row in table
    ]
    raters = [list(said) for said in zip(*subjects, strict=True)]
    assert fleiss_kappa(raters) == pytest.approx(0.20993, abs=1e-5)


@pytest.mark.parametrize(
    ("preference", "verdict"),
    [(2, "win"), (1.51, "win"), (1.5, "draw"), (0, "draw"), (1.49, "lose"), (1, "lose")],
)
def test_preferences_are_rounded_to_verdicts_as_alpaca_eval_does(
    preference: float, verdict: str
) -> None:
    assert verdict_of(preference) == verdict


def three_judgings(folder: Path) -> Path:
    """Of five prompts one is never, one only twice judged; of the other three two are steady."""
    return judged_row(
        folder,
        answers(5),
        annotations(WIN, LOSE, WIN, None, WIN),
        annotations(WIN, LOSE, DRAW, None, -1),
        annotations(WIN, LOSE, LOSE, None, WIN),
    )


def test_agreement_is_over_the_prompts_that_every_judging_judged(tmp_path: Path) -> None:
    (plan,) = planned(tmp_path / "runs", three_judgings(tmp_path))
    (found,) = agreement_of(plan)
    assert (found.prompts, found.judged_in_all, found.judgings) == (5, 3, 3)
    assert found.judged == [4, 3, 4]
    assert (found.flipped, found.flip_rate) == (1, 1 / 3)
    assert found.pairwise_flip_rate == pytest.approx(1 / 3)
    # Pairs WLW/WLD, WLW/WLL, WLD/WLL: (2/3 - pe) / (1 - pe), with pe 3/9, 4/9, 3/9.
    each = [(2 / 3 - pe) / (1 - pe) for pe in (3 / 9, 4 / 9, 3 / 9)]
    assert found.kappa == pytest.approx(sum(each) / 3)
    assert found.values == pytest.approx([75, 50, 50])
    # Wins 1, 0, 1, 1: the sample standard deviation is 0.5, the error half of it, in percent.
    assert found.standard_errors[0] == pytest.approx(25)
    assert found.spread == pytest.approx(25 / math.sqrt(3))


def test_sentences_name_every_denominator(tmp_path: Path) -> None:
    (plan,) = planned(tmp_path / "runs", three_judgings(tmp_path))
    text = "\n".join(sentences(agreement_of(plan)[0]))
    assert "3 judgings of the same 5 outputs, 3 judged in all" in text
    assert "1 of 3 prompts (33.3 %)" in text
    assert "75.00 ± 25.00 (4/5), 50.00 ± 28.87 (3/5), 50.00 ± 28.87 (4/5)" in text


def test_outputs_judged_once_have_no_agreement(tmp_path: Path) -> None:
    spec = judged_row(tmp_path, answers(2), annotations(WIN, LOSE))
    (plan,) = planned(tmp_path / "runs", spec)
    assert agreement_of(plan) == []
    assert to_markdown([]) == ""


def test_where_every_prompt_is_lost_kappa_is_said_to_be_not_defined(tmp_path: Path) -> None:
    lost = annotations(LOSE, LOSE)
    (plan,) = planned(tmp_path / "runs", judged_row(tmp_path, answers(2), lost, lost))
    (found,) = agreement_of(plan)
    assert (found.flipped, found.kappa) == (0, None)
    assert "Cohen's kappa not defined" in "\n".join(sentences(found))


def test_scores_agree_exactly_nearly_or_not(tmp_path: Path) -> None:
    def scores(*values: int | None) -> list[dict[str, object]]:
        return [{"instruction": f"prompt {n}", "score": v} for n, v in enumerate(values)]

    spec = judged_row(tmp_path, answers(5), scores(1, 2, 3, 3, None), scores(1, 2, 2, 1, 5))
    (plan,) = planned(tmp_path / "runs", spec)
    (found,) = agreement_of(plan)
    assert (found.metric, found.judged_in_all, found.prompts) == ("score", 4, 5)
    assert found.values == [2.25, 2.2]
    assert found.flipped == 2
    assert found.mean_difference == 0.75
    assert found.kappa == pytest.approx(1 / 6)
    assert "quadratically weighted kappa 0.167" in "\n".join(sentences(found))


def test_table_writes_agreement_and_takes_it_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    spec = three_judgings(tmp_path)
    done = command("table")
    assert done.exit_code == 0, done.output
    assert "1 of 3 prompts (33.3 %)" in done.output
    (row,) = csv.DictReader(io.StringIO(Path("runs/results/agreement.csv").read_text()))
    assert (row["row"], row["judged_in_all"], row["prompts"]) == ("one", "3", "5")
    assert float(row["flip_rate"]) == 1 / 3
    assert row["values"] == "75.0 50.0 50.0"
    assert "## Judge replicates" in Path("runs/results/matrix.md").read_text()
    shown = command("show", "one").output
    assert "1 of 3 prompts (33.3 %)" in shown
    judged_row(tmp_path, answers(2), annotations(WIN, LOSE))
    assert command("table").exit_code == 0
    assert not Path("runs/results/agreement.csv").exists()
    assert "Judge replicates" not in Path("runs/results/matrix.md").read_text()
    assert spec.exists()


def test_an_agreement_file_of_another_program_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judged_row(tmp_path, answers(2), annotations(WIN, LOSE))
    Path("runs/results").mkdir(parents=True)
    Path("runs/results/agreement.csv").write_text("mine\n")
    assert command("table", "--volume", "runs").exit_code == 0
    assert Path("runs/results/agreement.csv").read_text() == "mine\n"


def test_an_artefact_that_was_changed_is_not_counted(tmp_path: Path) -> None:
    from harness.artefact.store import Damaged

    spec = three_judgings(tmp_path)
    path = next((tmp_path / "runs/artefacts/judge").glob("*/annotations.json"))
    path.write_text(json.dumps(annotations(WIN)))
    (plan,) = planned(tmp_path / "runs", spec)
    with pytest.raises(Damaged):
        agreement_of(plan)


def test_csv_has_full_precision(tmp_path: Path) -> None:
    (plan,) = planned(tmp_path / "runs", three_judgings(tmp_path))
    (found,) = agreement_of(plan)
    (row,) = csv.DictReader(io.StringIO(to_csv([found])))
    assert found.kappa is not None
    assert float(row["cohens_kappa"]) == found.kappa
    assert row["weighted_kappa"] == ""


def test_a_prompt_that_stands_in_two_sets_counts_in_each_place(tmp_path: Path) -> None:
    first = [annotations(WIN)[0], *annotations(WIN, LOSE)]
    second = [annotations(WIN)[0], *annotations(LOSE, LOSE)]
    spec = judged_row(tmp_path, answers(2), first, second)
    (plan,) = planned(tmp_path / "runs", spec)
    (agreement,) = agreement_of(plan)
    assert agreement.judged == [3, 3]
    assert agreement.judged_in_all == 3
    assert agreement.flipped == 1
    assert agreement.values == [pytest.approx(200 / 3), pytest.approx(100 / 3)]
