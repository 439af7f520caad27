import json
from typing import Any

import pytest

from harness.artefact.manifest import Finding, Manifest, MetricValue

DOCUMENT: dict[str, Any] = {
    "stage": "judge",
    "key": "ab" * 32,
    "row": "one",
    "files": {"annotations.json": {"sha256": "0" * 64, "size": 3}},
    "metrics": {
        "win_rate": {"value": 40.0, "standard_error": None, "judged": 3, "strata": {"a": 1}},
        "train_loss": {"value": 1.5},
    },
    "findings": [
        {"kind": "position_bias", "severity": "error", "message": "first wins", "evidence": {}},
        {"kind": "confounded", "message": "of another version", "since": 4},
    ],
    "of_a_later_version": [1],
}


def test_a_manifest_is_written_again_as_it_was_read() -> None:
    assert Manifest.from_json(DOCUMENT).to_json() == DOCUMENT


def test_a_key_that_is_missing_has_a_default_and_is_not_written() -> None:
    manifest = Manifest.from_json({"stage": "gen", "key": "k"})
    assert (manifest.simulated, manifest.deviations, manifest.metrics) == ([], [], {})
    assert manifest.to_json() == {"stage": "gen", "key": "k"}


def test_metrics_and_findings_are_read_by_attribute() -> None:
    manifest = Manifest.from_json(json.loads(json.dumps(DOCUMENT)))
    assert manifest.metrics["win_rate"].judged == 3
    assert manifest.metrics["win_rate"].expected is None
    assert [str(finding) for finding in manifest.findings] == [
        "position_bias: first wins",
        "confounded: of another version",
    ]


def test_what_is_made_here_is_written_in_full() -> None:
    assert Finding("confounded", "info", "said").to_json() == {
        "kind": "confounded",
        "severity": "info",
        "message": "said",
        "evidence": {},
    }


def test_a_metric_made_here_is_written_without_what_it_does_not_say() -> None:
    assert MetricValue(value=1.0, tokens=3).to_json() == {"value": 1.0, "tokens": 3}
    judged = MetricValue(value=None, judged=0, further={"score_1": 2})
    assert judged.to_json() == {"value": None, "standard_error": None, "judged": 0, "score_1": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": [1]},
        {"metrics": {"win_rate": 3}},
        {"findings": ["text"]},
        {"findings": [{"message": "of no kind"}]},
        {"files": {"annotations.json": "digest"}},
        {"simulated": False},
        {"counts": []},
    ],
)
def test_what_is_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        Manifest.from_json({**DOCUMENT, **change})


def test_a_manifest_without_stage_or_key_is_none() -> None:
    with pytest.raises(TypeError):
        Manifest.from_json({"stage": "gen"})
