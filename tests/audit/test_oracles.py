"""Folders that other people stored: what is known to be wrong with them is found, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.folders import audit, finding_of, kinds, only_result


@pytest.fixture(scope="module")
def oracles(shared_data: Path) -> Path:
    return shared_data.parent / "oracles"


MINI_LIMA = "mini_lima/338-default-prompt-results1"
FOUND = {
    MINI_LIMA: ["dropped_rows", "empty_or_truncated", "position_bias", "prompt_mismatch"],
    "mini_lima/338-qwen-prompt1-results": ["dropped_rows", "length_bias", "position_bias"],
    "mini_lima/unftn_results": ["dropped_rows"],
    "alpaca_eval/NullModel": ["empty_or_truncated", "length_bias", "position_bias"],
    "alpaca_eval/Qwen-14B-Chat": ["position_bias"],
    "alpaca_eval/alpaca-7b": [],
    "alpagasus2": ["position_bias"],
}


@pytest.mark.parametrize("folder", FOUND)
def test_what_is_known_of_a_stored_folder_is_found(oracles: Path, folder: str) -> None:
    result = only_result(oracles / folder)
    assert kinds(result) == FOUND[folder]
    assert result.matches in (True, None)
    assert all(digits >= 9 for digits in result.digits.values())


def test_mini_limas_dropped_rows_leave_its_score_open(oracles: Path) -> None:
    result = only_result(oracles / MINI_LIMA)
    m = result.metrics
    assert (m["n_judged"], m["n_expected"], result.matches) == (713, 805, True)
    assert (m["lower_bound"], m["upper_bound"]) == pytest.approx((26.0, 37.4), abs=0.05)
    dropped = finding_of(result, "dropped_rows")
    assert dropped.severity == "error"
    assert "longer" in dropped.message
    assert dropped.evidence["mean_length_dropped"] > 1.5 * dropped.evidence["mean_length_judged"]


def test_mini_limas_judge_favours_the_first_place(oracles: Path) -> None:
    evidence = finding_of(only_result(oracles / MINI_LIMA), "position_bias").evidence
    assert evidence["shown_first"]["win_rate"] == pytest.approx(47, abs=0.5)
    assert evidence["shown_second"]["win_rate"] == pytest.approx(8, abs=0.5)


def test_mini_limas_outputs_all_begin_with_the_word_assistant(oracles: Path) -> None:
    evidence = finding_of(only_result(oracles / MINI_LIMA), "prompt_mismatch").evidence
    assert evidence["role_word"] == evidence["outputs"] == 805
    assert evidence["first_words"] == {"assistant": 805}


def test_mini_limas_untrained_row_is_over_777_of_805(oracles: Path) -> None:
    m = only_result(oracles / "mini_lima/unftn_results").metrics
    assert (m["n_judged"], m["n_expected"]) == (777, 805)
    assert (m["lower_bound"], m["upper_bound"]) == pytest.approx((16.4, 19.9), abs=0.05)


def test_mini_limas_runs_say_nothing_of_how_they_were_made(oracles: Path) -> None:
    results = audit(oracles / "mini_lima")
    assert len(results) == 3
    assert not {"confounded", "shared_outputs", "copied_results"} & {
        kind for r in results for kind in kinds(r)
    }


def test_published_lines_are_found_beside_the_results(oracles: Path) -> None:
    results = {Path(r.path).parent.name: r for r in audit(oracles / "alpaca_eval")}
    null = results["NullModel"]
    assert null.matches is True
    assert null.digits["win_rate"] >= 9
    # 76.9 raw, 86.5 length-controlled: one constant output.
    assert "length_bias" in kinds(null)
    assert kinds(results["alpaca-7b"]) == ["confounded"]


def test_published_leaderboards_have_four_lines_that_do_not_fit(oracles: Path) -> None:
    results = audit(oracles / "alpaca_eval" / "leaderboards")
    names = [f.evidence["name"] for r in results for f in r.findings if f.kind == "count_mismatch"]
    assert sorted(names) == [
        "aligner-2b_gpt-4-turbo-2024-04-09", "baize-v2-7b", "humpback-llama-65b", "humpback-llama2-70b",
    ]  # fmt: skip


def test_alpagasus_counts_are_recomputed(oracles: Path) -> None:
    result = only_result(oracles / "alpagasus2")
    assert [result.metrics[n] for n in ("n_wins", "n_draws", "n_wins_base")] == [40, 38, 2]
    assert result.published == {"n_wins": 40, "n_draws": 38, "n_wins_base": 2, "n_judged": 80}
    assert result.metrics["winning_score"] == pytest.approx(1 + 38 / 80)


def test_alpagasus_order_that_shows_the_model_second_has_its_wins(oracles: Path) -> None:
    result = only_result(oracles / "alpagasus2" / "alpaca2-alpagasus2-vicuna.json")
    assert [result.metrics[n] for n in ("n_wins", "n_draws", "n_wins_base")] == [77, 0, 3]
    assert result.metrics["win_rate"] == pytest.approx(96.25)


def test_the_audit_needs_neither_torch_nor_pandas_nor_scipy(oracles: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.audit import audit_paths;"
        f"audit_paths([Path({str(oracles / 'alpagasus2')!r})]);"
        "assert not {'torch', 'pandas', 'scipy', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
