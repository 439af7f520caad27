"""Folders of results in the form of public ones, with what a careful reader finds in each."""

from pathlib import Path

import pytest

from tests.audit.folders import audit, finding_of, kinds, only_result


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "audit"
    if not folder.is_dir():
        pytest.skip("the folders of cases, ../shared/cases/audit, are not beside the checkout")
    return folder


def test_replies_that_are_objects_name_their_winner(cases: Path) -> None:
    results = {Path(r.path).name: r for r in audit(cases / "case01-fn_judge_object_reply")}
    assert [r.findings for r in results.values()] == [[], []]
    rate = results["alpaca_eval_gpt4_turbo_fn"].metrics["win_rate"]
    assert rate == pytest.approx(100 / 3)


def test_another_models_judgements_are_no_result_of_this_one(cases: Path) -> None:
    finding = finding_of(only_result(cases / "case02-other_models_judgements"), "count_mismatch")
    assert (finding.severity, finding.evidence["other_outputs"]) == ("error", 60)
    assert "the rows are of large-40b" in finding.message
    assert finding.message.endswith("are of small-7b: the rows disagree")


@pytest.mark.parametrize("path", ["evals/mine-3b.json", "evals", "."])
def test_lm_evals_results_of_their_own_name_are_read(cases: Path, path: str) -> None:
    result = only_result(cases / "case04-lm_eval_own_name" / path)
    assert (result.kind, result.findings) == ("lm_eval", [])
    assert result.published["arc_challenge acc_norm"] == 0.4001706484641638
    # The file does not say how many questions of TruthfulQA were asked.
    assert (result.metrics["n_judged"], result.metrics["n_expected"]) == (1172, 1172)


@pytest.mark.parametrize("path", ["outputs/alpaca_eval_mine.json", "."])
def test_outputs_of_their_own_name_are_read(cases: Path, path: str) -> None:
    result = only_result(cases / "case06-outputs_own_name" / path)
    assert kinds(result) == ["prompt_mismatch"]
    assert finding_of(result, "prompt_mismatch").evidence["role_word"] == 60


def test_averages_are_those_of_their_own_columns(cases: Path) -> None:
    result = only_result(cases / "case03-six_benchmarks")
    finding = finding_of(result, "count_mismatch")
    assert "line 6" in finding.message
    assert (finding.evidence["given"], finding.evidence["empty"]) == (70.06, ["mmlu"])
    assert result.published["winogrande acc"] == 0.7751
