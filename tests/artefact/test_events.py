"""What a stage tells while it works, and as it ends."""

import io
import json

import pytest

from harness.artefact import events


def test_a_fault_is_told_after_how_far_the_stage_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(events, "_stream", stream)
    progress = events.Progress("answer", 50, "prompts")
    for done in (1, 2, 3):
        progress.show(done, tokens=done)
    events.error("no space left", "Free some.", 1)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(e["event"], e.get("done"), e.get("info")) for e in told] == [
        ("progress", 1, {"tokens": 1}),
        ("progress", 3, {"tokens": 3}),
        ("error", None, None),
    ]
    events.error("no space left", "Free some.", 1)
    assert len(stream.getvalue().splitlines()) == 4
